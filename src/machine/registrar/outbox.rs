//! Effects waiting for the driver, with messages for one link put together where order allows it.

use super::Event;
use crate::machine::{LinkId, Output};
use std::collections::{BTreeMap, VecDeque};

/// How much one `Send` may grow to.
const BATCH: usize = 64 * 1024;

/// One FIFO of effects.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Output<Event>>,
    /// How many effects were taken since the queue was empty.
    taken: usize,
    /// Where each link's open batch stands, counted from when the queue was empty.
    batches: BTreeMap<LinkId, usize>,
}

impl Outbox {
    /// Sends a message in its place in the order of effects; only the last effect can absorb it.
    pub(super) fn send(&mut self, link: LinkId, message: &[u8]) {
        self.send_with(link, message.len(), |out| out.extend_from_slice(message));
    }

    /// The same for a message that `write` appends, of at most `length` bytes.
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

    /// Sends a message that may overtake effects for other links: it joins the link's open batch.
    pub(super) fn send_early(&mut self, link: LinkId, message: &[u8]) {
        if let Some(&at) = self.batches.get(&link)
            && let Some(index) = at.checked_sub(self.taken)
            && let Some(Output::Send { link: same, bytes }) = self.queue.get_mut(index)
            && *same == link
            && bytes.len() + message.len() <= BATCH
        {
            bytes.extend_from_slice(message);
            return;
        }
        self.batches.insert(link, self.taken + self.queue.len());
        self.queue.push_back(Output::Send { link, bytes: message.to_vec() });
    }

    /// Adds any other effect.
    pub(super) fn push(&mut self, output: Output<Event>) {
        if let Output::Close { link } | Output::Open { link, .. } = &output {
            self.batches.remove(link);
        }
        self.queue.push_back(output);
    }

    /// The next effect.
    pub(super) fn pop(&mut self) -> Option<Output<Event>> {
        let next = self.queue.pop_front();
        if next.is_some() {
            self.taken += 1;
        } else {
            self.taken = 0;
            self.batches.clear();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(outbox: &mut Outbox) -> Vec<(u64, Vec<u8>)> {
        std::iter::from_fn(|| outbox.pop())
            .map(|output| match output {
                Output::Send { link, bytes } => (link.0, bytes),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn early_messages_join_their_batch_and_others_keep_their_place() {
        let mut outbox = Outbox::default();
        let (a, b) = (LinkId(1), LinkId(2));
        outbox.send_early(a, b"u1");
        outbox.send(b, b"r1");
        outbox.send_early(a, b"u2");
        outbox.send(b, b"r2");
        assert_eq!(sends(&mut outbox), [(1, b"u1u2".to_vec()), (2, b"r1r2".to_vec())]);
    }

    #[test]
    fn a_batch_taken_by_the_driver_is_not_written_to() {
        let mut outbox = Outbox::default();
        outbox.send_early(LinkId(1), b"a");
        outbox.send(LinkId(2), b"b");
        assert!(matches!(outbox.pop(), Some(Output::Send { link: LinkId(1), .. })));
        outbox.send_early(LinkId(1), b"c");
        assert_eq!(sends(&mut outbox), [(2, b"b".to_vec()), (1, b"c".to_vec())]);
        outbox.send_early(LinkId(1), b"d");
        assert_eq!(sends(&mut outbox), [(1, b"d".to_vec())]);
    }

    #[test]
    fn batches_are_bounded() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.send_early(LinkId(1), &[0; 40_000]);
        }
        assert_eq!(sends(&mut outbox).len(), 3);
    }
}
