//! Requests that came before the service started. Each link has them in one buffer, so that many small ones take hardly
//! more than their bytes, and who has most of them is known without a look at everybody.

use super::{LinkId, Registrar};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What a link with something in its buffer takes beside that: its place in the order, and what the allocator adds.
const RECORD: usize = 64;
/// Before each message stands its length.
const LENGTH: usize = size_of::<u32>();
/// What is added to a buffer, at least.
const LEAST: usize = 64;

/// The requests of one link, in order.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    bytes: Vec<u8>,
    /// So many bytes at its beginning were taken out.
    read: usize,
}

impl Deferred {
    /// Bytes that wait, lengths included.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take in memory.
    pub fn taken(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { RECORD + self.bytes.capacity() }
    }

    fn push(&mut self, message: &[u8]) {
        let more = LENGTH + message.len();
        if self.bytes.capacity() - self.bytes.len() < more {
            self.bytes.drain(..self.read);
            self.read = 0;
            // A quarter in reserve: not moved for each message, nor twice as much as is needed.
            let reserve = (self.bytes.len() / 4).max(LEAST);
            self.bytes.reserve_exact(more.max(reserve));
        }
        self.bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend_from_slice(message);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.bytes.get(self.read..)?.split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let message = rest.get(..length)?.to_vec();
        self.read += LENGTH + length;
        if self.is_empty() {
            *self = Deferred::default();
        }
        Some(message)
    }
}

/// Links with requests that wait, by how many bytes they are.
pub(super) type Ranks = BTreeSet<(usize, Reverse<LinkId>)>;

impl Registrar {
    /// Bytes of a link's requests that wait.
    pub(super) fn deferred_len(&mut self, link: LinkId) -> usize {
        self.client(link).map_or(0, |client| client.deferred.len())
    }

    /// What one more takes of a link's bytes.
    pub(super) fn deferred_size(bytes: &[u8]) -> usize {
        LENGTH + bytes.len()
    }

    /// One more of a link.
    pub(super) fn push_deferred(&mut self, link: LinkId, bytes: &[u8]) {
        self.change_deferred(link, |deferred| deferred.push(bytes));
    }

    /// The next one of a link.
    pub(super) fn pop_deferred(&mut self, link: LinkId) -> Option<Vec<u8>> {
        self.change_deferred(link, Deferred::pop).flatten()
    }

    /// The link that has most waiting.
    pub(super) fn most_deferred(&self) -> Option<(LinkId, usize)> {
        self.deferred_ranks.last().map(|&(most, Reverse(link))| (link, most))
    }

    /// A link is gone, and what it asked is not answered any more.
    pub(super) fn forget_deferred(&mut self, link: LinkId, deferred: Deferred) {
        self.deferred = self.deferred.saturating_sub(deferred.taken());
        self.deferred_ranks.remove(&(deferred.len(), Reverse(link)));
    }

    fn change_deferred<T>(&mut self, link: LinkId, change: impl FnOnce(&mut Deferred) -> T) -> Option<T> {
        let deferred = &mut self.client(link)?.deferred;
        let (had, took) = (deferred.len(), deferred.taken());
        let result = change(deferred);
        let (has, takes) = (deferred.len(), deferred.taken());
        self.deferred = self.deferred + takes - took;
        if had > 0 {
            self.deferred_ranks.remove(&(had, Reverse(link)));
        }
        if has > 0 {
            self.deferred_ranks.insert((has, Reverse(link)));
        }
        Some(result)
    }
}
