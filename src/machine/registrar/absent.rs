//! Elements that a peer says it has and that we can't hold, or hold as somebody else's: another policy than their
//! pool's, or a link here that speaks for another home. They count for the comparison of checksums, so that one
//! audit is enough, and where ours goes, theirs takes its place.
//!
//! The same record is kept of what a peer has while another one says that it has it.

use crate::handlespace::Sum;
use crate::wire::{PeId, PoolElement, PoolHandle};
use std::collections::BTreeMap;

/// Bound for each peer: bytes of such elements. What is beyond lets its checksum differ.
pub(super) const MAX_BYTES: usize = 256 << 10;

#[derive(Debug)]
struct Record {
    stamp: u64,
    element: PoolElement,
}

/// The elements of one peer.
#[derive(Debug, Default)]
pub(super) struct Absent {
    records: BTreeMap<(PoolHandle, PeId), Record>,
    sum: Sum,
    bytes: usize,
}

fn size(handle: &PoolHandle, element: &PoolElement) -> usize {
    const RECORD: usize = 256;
    RECORD + handle.as_bytes().len() + element.encoded_len()
}

impl Absent {
    /// Notes one, or what is new of it; `false` if there is no room.
    pub(super) fn put(&mut self, handle: &PoolHandle, element: PoolElement, stamp: u64) -> bool {
        self.take(handle, element.id);
        let size = size(handle, &element);
        if self.bytes + size > MAX_BYTES {
            return false;
        }
        self.bytes += size;
        self.sum.add(Sum::of(handle, element.id));
        self.records.insert((handle.clone(), element.id), Record { stamp, element });
        true
    }

    /// Forgets one.
    pub(super) fn take(&mut self, handle: &PoolHandle, id: PeId) -> Option<PoolElement> {
        if self.records.is_empty() {
            return None;
        }
        let record = self.records.remove(&(handle.clone(), id))?;
        self.sum.subtract(Sum::of(handle, id));
        self.bytes -= size(handle, &record.element);
        Some(record.element)
    }

    /// Forgets those noted up to `stamp`: an audit did not find them.
    pub(super) fn purge(&mut self, stamp: u64) {
        let old: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| record.stamp <= stamp)
            .map(|(name, _)| name.clone())
            .collect();
        for (handle, id) in old {
            self.take(&handle, id);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn has(&self, handle: &PoolHandle, id: PeId) -> bool {
        !self.records.is_empty() && self.records.contains_key(&(handle.clone(), id))
    }

    pub(super) fn into_names(self) -> impl Iterator<Item = (PoolHandle, PeId)> {
        self.records.into_keys()
    }

    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn check(&self) -> bool {
        let mut sum = Sum::default();
        let mut bytes = 0;
        for ((handle, id), record) in &self.records {
            sum.add(Sum::of(handle, *id));
            bytes += size(handle, &record.element);
        }
        sum == self.sum && bytes == self.bytes && bytes <= MAX_BYTES
    }
}
