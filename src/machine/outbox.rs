//! Effects waiting for the driver, in the order in which they are to be carried out.

use super::{LinkId, Output};
use std::collections::VecDeque;

/// How much one `Send` may grow to.
const BATCH: usize = 64 * 1024;

/// One FIFO of effects.
#[derive(Debug)]
pub(super) struct Outbox<E> {
    queue: VecDeque<Output<E>>,
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Outbox { queue: VecDeque::new() }
    }
}

impl<E> Outbox<E> {
    /// Sends a message. If the last effect is one for the same link, it becomes part of that.
    pub(super) fn send(&mut self, link: LinkId, message: &[u8]) {
        self.send_with(link, message.len(), |out| out.extend_from_slice(message));
    }

    /// Sends a message of at most `length` bytes that `write` appends.
    pub(super) fn send_with(&mut self, link: LinkId, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Output::Send { link: last, bytes }) = self.queue.back_mut()
            && *last == link
            && bytes.len() + length <= BATCH
        {
            return write(bytes);
        }
        let mut bytes = Vec::with_capacity(length);
        write(&mut bytes);
        self.queue.push_back(Output::Send { link, bytes });
    }

    /// Adds any other effect.
    pub(super) fn push(&mut self, output: Output<E>) {
        self.queue.push_back(output);
    }

    /// The next effect.
    pub(super) fn pop(&mut self) -> Option<Output<E>> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(outbox: &mut Outbox<()>) -> Vec<(u64, Vec<u8>)> {
        std::iter::from_fn(|| outbox.pop())
            .map(|output| match output {
                Output::Send { link, bytes } => (link.0, bytes),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn messages_for_one_link_in_a_row_go_together_and_none_overtakes() {
        let mut outbox = Outbox::default();
        let (a, b) = (LinkId(1), LinkId(2));
        for (link, message) in [(a, b"u1"), (a, b"u2"), (b, b"r1"), (a, b"u3")] {
            outbox.send(link, message);
        }
        let expected = [(1, b"u1u2".to_vec()), (2, b"r1".to_vec()), (1, b"u3".to_vec())];
        assert_eq!(sends(&mut outbox), expected);
    }

    #[test]
    fn batches_are_bounded() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.send(LinkId(1), &[0; 40_000]);
        }
        assert_eq!(sends(&mut outbox).len(), 3);
    }
}
