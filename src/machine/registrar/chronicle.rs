//! What happened lately, and what became of each pool: for the operator's page, metrics and log. Nothing here
//! decides anything.

use super::dialect::Removal;
use crate::machine::Time;
use crate::wire::{CauseCode, PeId, PoolHandle, RegistrarId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bounds on what is remembered of the past: happenings, and bytes of their handles.
const MAX_HAPPENINGS: usize = 4096;
const MAX_BYTES: usize = 1 << 20;
/// Bounds on pools of which more is known than their elements: pools, and bytes of their handles.
const MAX_POOLS: usize = 1 << 16;
const MAX_POOL_BYTES: usize = 16 << 20;
/// So many pools that became empty are remembered, and for so long.
const MAX_EMPTIED: usize = 1024;
const EMPTIED_STAYS: Duration = Duration::from_secs(3600);

/// Something that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Counts from 1 without gaps.
    pub number: u64,
    /// When.
    pub at: Time,
    /// The host whose message or link it came from, an IPv6 one by its network; `None`: from nobody's.
    pub by: Option<IpAddr>,
    /// What.
    pub what: What,
}

/// What can happen. `address`: where that is what it happened to, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum What {
    /// An element is in its pool, which has `size` elements now.
    Registered { handle: PoolHandle, id: PeId, home: RegistrarId, address: Option<SocketAddr>, size: usize },
    /// An element left its pool, in which `left` elements stay: it deregistered, or was lost.
    Removed {
        handle: PoolHandle,
        id: PeId,
        reason: &'static str,
        why: Removal,
        address: Option<SocketAddr>,
        left: usize,
    },
    /// A registration or deregistration was refused.
    Refused { handle: PoolHandle, id: PeId, cause: CauseCode, from: Option<SocketAddr> },
    /// Somebody said that an element can't be reached.
    Reported { handle: PoolHandle, id: PeId, address: Option<SocketAddr>, from: Option<SocketAddr> },
    /// An element has another home registrar.
    Moved {
        handle: PoolHandle,
        id: PeId,
        address: Option<SocketAddr>,
        from: RegistrarId,
        to: RegistrarId,
        to_address: Option<SocketAddr>,
    },
    /// An operator changed an element.
    Operated { handle: PoolHandle, id: PeId, address: Option<SocketAddr>, action: &'static str },
    /// Another registrar is there.
    PeerFound { id: RegistrarId, address: Option<SocketAddr> },
    /// Another registrar is dead.
    PeerDead { id: RegistrarId, address: Option<SocketAddr> },
    /// We begin to take over a dead registrar's elements.
    TakingOver { target: RegistrarId, address: Option<SocketAddr> },
    /// A dead registrar's elements have another one.
    TakenOver {
        target: RegistrarId,
        address: Option<SocketAddr>,
        by: RegistrarId,
        by_address: Option<SocketAddr>,
        elements: usize,
    },
    /// The ASAP service began.
    Serving,
}

impl What {
    /// The pool that it is about.
    pub fn handle(&self) -> Option<&PoolHandle> {
        match self {
            What::Registered { handle, .. }
            | What::Removed { handle, .. }
            | What::Refused { handle, .. }
            | What::Reported { handle, .. }
            | What::Moved { handle, .. }
            | What::Operated { handle, .. } => Some(handle),
            What::PeerFound { .. }
            | What::PeerDead { .. }
            | What::TakingOver { .. }
            | What::TakenOver { .. }
            | What::Serving => None,
        }
    }

    /// Where is what it is about.
    pub fn address(&self) -> Option<SocketAddr> {
        match *self {
            What::Registered { address, .. }
            | What::Removed { address, .. }
            | What::Reported { address, .. }
            | What::Moved { address, .. }
            | What::Operated { address, .. }
            | What::PeerFound { address, .. }
            | What::PeerDead { address, .. }
            | What::TakingOver { address, .. }
            | What::TakenOver { address, .. } => address,
            What::Refused { from, .. } => from,
            What::Serving => None,
        }
    }

    fn bytes(&self) -> usize {
        self.handle().map_or(0, |handle| handle.as_bytes().len())
    }
}

/// What became of a pool since we know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolRecord {
    /// When an element came or left last.
    pub changed: Time,
    /// Elements that came.
    pub added: u64,
    /// Elements that were lost.
    pub lost: u64,
    /// Elements that deregistered.
    pub deregistered: u64,
    /// Questions answered "unknown pool", while it is empty.
    pub unknown: u64,
    /// Since when it is empty.
    pub empty_since: Option<Time>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    /// Whose doing it is what happens in this call.
    by: Option<IpAddr>,
    happenings: VecDeque<Happening>,
    bytes: usize,
    numbers: u64,
    pools: BTreeMap<PoolHandle, PoolRecord>,
    pool_bytes: usize,
    emptied: BTreeSet<(Time, PoolHandle)>,
}

impl Chronicle {
    /// Bytes of handles kept, and how many there can be.
    pub(super) fn use_of_bound(&self) -> (usize, usize) {
        (self.bytes + self.pool_bytes, MAX_BYTES + MAX_POOL_BYTES)
    }

    /// What happens from now on is the doing of this host.
    pub(super) fn done_by(&mut self, host: Option<IpAddr>) {
        self.by = host;
    }

    pub(super) fn by(&self) -> Option<IpAddr> {
        self.by
    }

    pub(super) fn note(&mut self, at: Time, what: What) {
        self.numbers += 1;
        self.bytes += what.bytes();
        self.happenings.push_back(Happening { number: self.numbers, at, by: self.by, what });
        while self.happenings.len() > MAX_HAPPENINGS || self.bytes > MAX_BYTES && self.happenings.len() > 1 {
            if let Some(old) = self.happenings.pop_front() {
                self.bytes -= old.what.bytes();
            }
        }
    }

    /// An element came into a pool.
    pub(super) fn came(&mut self, now: Time, handle: &PoolHandle) {
        if let Some(record) = self.record(now, handle) {
            record.added += 1;
            record.changed = now;
            if let Some(since) = record.empty_since.take() {
                self.emptied.remove(&(since, handle.clone()));
            }
        }
    }

    /// An element left a pool, in which `left` stay.
    pub(super) fn left(&mut self, now: Time, handle: &PoolHandle, why: Removal, left: usize) {
        let Some(record) = self.record(now, handle) else { return };
        match why {
            Removal::Deregistered => record.deregistered += 1,
            Removal::Lost => record.lost += 1,
        }
        record.changed = now;
        if left == 0 {
            record.empty_since = Some(now);
            self.emptied.insert((now, handle.clone()));
            self.forget_old(now);
        }
    }

    /// Somebody asked for a pool that there is not.
    pub(super) fn unknown(&mut self, handle: &PoolHandle) {
        if let Some(record) = self.pools.get_mut(handle) {
            record.unknown += 1;
        }
    }

    /// The record of a pool, if there is one or room for one.
    fn record(&mut self, now: Time, handle: &PoolHandle) -> Option<&mut PoolRecord> {
        if !self.pools.contains_key(handle) {
            let bytes = handle.as_bytes().len();
            if self.pools.len() >= MAX_POOLS || self.pool_bytes + bytes > MAX_POOL_BYTES {
                self.forget_old(now);
                self.forget_first();
            }
            if self.pools.len() >= MAX_POOLS || self.pool_bytes + bytes > MAX_POOL_BYTES {
                return None;
            }
            self.pool_bytes += bytes;
            self.pools.insert(handle.clone(), PoolRecord::default());
        }
        self.pools.get_mut(handle)
    }

    /// Forgets pools that have been empty for long, and the oldest if they are many.
    fn forget_old(&mut self, now: Time) {
        let too_old = |(since, _): &(Time, PoolHandle)| now - *since > EMPTIED_STAYS;
        while self.emptied.len() > MAX_EMPTIED || self.emptied.first().is_some_and(too_old) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, handle)) = self.emptied.pop_first() {
            self.pool_bytes -= handle.as_bytes().len();
            self.pools.remove(&handle);
        }
    }

    /// Happenings after a number, those that are still known.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = &Happening> {
        let first = self.happenings.front().map_or(self.numbers, |first| first.number - 1);
        let skip = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        self.happenings.iter().skip(skip)
    }

    /// The number of the last one.
    pub(super) fn last(&self) -> u64 {
        self.numbers
    }

    pub(super) fn pool(&self, handle: &PoolHandle) -> Option<&PoolRecord> {
        self.pools.get(handle)
    }

    /// Pools that became empty not long ago, the first to become so first.
    pub(super) fn emptied(&self, now: Time) -> impl Iterator<Item = (&PoolHandle, &PoolRecord)> {
        let lately = self.emptied.iter().filter(move |(since, _)| now - *since <= EMPTIED_STAYS);
        lately.filter_map(|(_, handle)| self.pools.get_key_value(handle))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let bytes: usize = self.happenings.iter().map(|happening| happening.what.bytes()).sum();
        let pool_bytes: usize = self.pools.keys().map(|handle| handle.as_bytes().len()).sum();
        let empty = self.pools.values().filter(|record| record.empty_since.is_some()).count();
        if (self.bytes, self.pool_bytes, self.emptied.len()) != (bytes, pool_bytes, empty) {
            return Err(format!("chronicle: {} {} {}", self.bytes, self.pool_bytes, self.emptied.len()));
        }
        Ok(())
    }
}

/// How long things take: counts for each bound, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many took at most as long as the bound in the same place of [`Histogram::BOUNDS`], and no less than
    /// the one before; the last: longer than all.
    pub counts: [u64; Histogram::BOUNDS.len() + 1],
    /// All of them together, microseconds.
    pub sum: u64,
}

impl Histogram {
    /// Upper bounds, microseconds: from 100 µs to 10 s.
    pub const BOUNDS: [u64; 12] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 750_000, 2_000_000, 10_000_000];

    /// One more.
    pub fn add(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place =
            Histogram::BOUNDS.iter().position(|&bound| took <= bound).unwrap_or(Histogram::BOUNDS.len());
        self.counts[place] += 1;
        self.sum = self.sum.saturating_add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(name: &str) -> PoolHandle {
        PoolHandle::new(name.as_bytes()).unwrap()
    }

    fn reported(name: &str) -> What {
        What::Reported { handle: handle(name), id: PeId(1), address: None, from: None }
    }

    #[test]
    fn the_past_is_bounded_and_numbered() {
        let mut chronicle = Chronicle::default();
        for _ in 0..10_000 {
            chronicle.note(Time(1), reported("a"));
        }
        assert_eq!(chronicle.last(), 10_000);
        let numbers: Vec<u64> = chronicle.after(9_998).map(|happening| happening.number).collect();
        assert_eq!(numbers, [9_999, 10_000]);
        assert_eq!(chronicle.after(0).count(), MAX_HAPPENINGS);
        assert_eq!(chronicle.after(10_000).count(), 0);
        assert_eq!(chronicle.after(u64::MAX).count(), 0);
        for _ in 0..100 {
            chronicle.note(Time(1), reported(&"x".repeat(60_000)));
        }
        assert!(chronicle.bytes <= MAX_BYTES);
        chronicle.check().unwrap();
    }

    #[test]
    fn pools_that_became_empty_are_remembered_for_a_while() {
        let mut chronicle = Chronicle::default();
        let hour = Time(1) + EMPTIED_STAYS;
        let echo = handle("echo");
        chronicle.came(Time(1), &echo);
        chronicle.unknown(&handle("other"));
        chronicle.left(Time(1), &echo, Removal::Lost, 0);
        chronicle.unknown(&echo);
        let seen: Vec<_> =
            chronicle.emptied(hour).map(|(handle, record)| (handle.clone(), *record)).collect();
        let record = PoolRecord {
            changed: Time(1),
            added: 1,
            lost: 1,
            deregistered: 0,
            unknown: 1,
            empty_since: Some(Time(1)),
        };
        assert_eq!(seen, [(echo.clone(), record)]);
        assert_eq!(chronicle.emptied(hour + Duration::from_secs(1)).count(), 0);
        chronicle.came(Time(2), &echo);
        assert_eq!(chronicle.emptied(Time(2)).count(), 0);
        for number in 0..3 * MAX_EMPTIED {
            let name = handle(&number.to_string());
            chronicle.came(Time(3), &name);
            chronicle.left(Time(3), &name, Removal::Deregistered, 0);
        }
        assert_eq!(chronicle.emptied(Time(3)).count(), MAX_EMPTIED);
        chronicle.check().unwrap();
    }

    #[test]
    fn a_histogram_counts_each_once() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 20_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.counts[..2], [2, 1]);
        assert_eq!(histogram.counts[Histogram::BOUNDS.len()], 1);
        assert_eq!(histogram.sum, 20_000_201);
    }
}
