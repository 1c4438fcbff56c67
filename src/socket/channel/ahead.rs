//! Bytes that were read from a connection and not taken apart yet. While a call is at it, they lie where they were read,
//! in the thread's own buffer; what is left when it returns moves to one of its own size, and an idle session has none.

use crate::socket::error::{Result, SocketError};
use crate::transport::scratch;

/// What one read may bring beyond the message in hand.
pub(crate) const SCRATCH: usize = 16 << 10;
/// The same for a thread that can't have so much memory.
const LEAST: usize = 256;

/// `bytes[at..end]` is what is there.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
    /// `bytes` is the thread's buffer.
    lent: bool,
}

impl Ahead {
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// The first `count` bytes were taken.
    pub(crate) fn consume(&mut self, count: usize) {
        self.at += count;
        if self.at == self.end && self.end > 0 {
            self.let_go();
        }
    }

    /// The first `count` bytes of a buffer that was [`borrow`]ed follow what is there; it is given back.
    pub(crate) fn lend(&mut self, buffer: Vec<u8>, count: usize) -> Result<()> {
        if count > 0 && self.is_empty() {
            *self = Ahead { bytes: buffer, at: 0, end: count, lent: true };
            return Ok(());
        }
        let kept = self.push(&buffer[..count]);
        give_back(buffer);
        kept
    }

    /// Appends. [`SocketError::NoMemory`]: there is no room, and what was there still is.
    pub(crate) fn push(&mut self, more: &[u8]) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        let mut all = Vec::new();
        all.try_reserve_exact(self.len() + more.len()).map_err(|_| SocketError::NoMemory)?;
        all.extend_from_slice(self.rest());
        all.extend_from_slice(more);
        self.replace(all);
        Ok(())
    }

    /// The call is over: the thread gets its buffer back.
    pub(crate) fn keep(&mut self) {
        if !self.lent {
            return;
        }
        let mut own = Vec::new();
        // Without memory for a copy, the thread has to do without its buffer.
        if own.try_reserve_exact(self.len()).is_ok() {
            own.extend_from_slice(self.rest());
            self.replace(own);
        }
    }

    fn replace(&mut self, bytes: Vec<u8>) {
        self.let_go();
        *self = Ahead { at: 0, end: bytes.len(), bytes, lent: false };
    }

    fn let_go(&mut self) {
        let old = std::mem::take(self);
        if old.lent {
            scratch::give_back(old.bytes);
        }
    }
}

/// This thread's buffer, [`SCRATCH`] bytes of it, fewer if there is no memory.
pub(crate) fn borrow() -> Vec<u8> {
    let mut buffer = scratch::take();
    if buffer.len() == SCRATCH {
        return buffer;
    }
    let most = match buffer.try_reserve(SCRATCH.saturating_sub(buffer.len())) {
        Ok(()) => SCRATCH,
        Err(_) => buffer.capacity().max(LEAST),
    };
    buffer.resize(most, 0);
    buffer
}

pub(crate) use scratch::give_back;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_moves_out_of_the_threads_buffer() {
        let mut buffer = borrow();
        let place = buffer.as_ptr();
        buffer[..5].copy_from_slice(b"hello");
        let mut ahead = Ahead::default();
        ahead.lend(buffer, 5).unwrap();
        ahead.consume(1);
        ahead.keep();
        assert_eq!((ahead.rest(), ahead.bytes.capacity()), (&b"ello"[..], 4));
        let again = borrow();
        assert_eq!(again.as_ptr(), place);
        give_back(again);
        ahead.push(b"!").unwrap();
        assert_eq!(ahead.rest(), b"ello!");
        ahead.consume(5);
        assert_eq!((ahead.len(), ahead.bytes.capacity()), (0, 0));
    }
}
