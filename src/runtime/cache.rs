//! The process's cache of resolutions, read on the callers' own threads: threads that resolve
//! different pools share no lock that one of them holds for writing, except for a moment when a pool
//! is entered or leaves.

use super::counters::COUNTERS;
use crate::machine::Time;
use crate::machine::cache::CachedPool;
use crate::machine::client::Resolution;
use crate::wire::{PeId, PoolElement, PoolHandle};
use foldhash::fast::FixedState;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SHARDS: usize = 32;
/// Pools per shard; beyond that, those not used for longest leave.
const MAX_POOLS: usize = 512;
/// A pool that nobody asked for in this time leaves.
const UNUSED: Duration = Duration::from_secs(600);

/// Takes keys for what they are: hashes.
#[derive(Debug, Default, Clone, Copy)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// One pool and when somebody last asked for it.
#[derive(Debug)]
pub(super) struct CachedEntry {
    handle: PoolHandle,
    pool: Mutex<CachedPool>,
    used: AtomicU64,
    /// How often it was chosen from instead of asking a registrar; changed with `pool` locked.
    hits: AtomicU64,
}

impl Drop for CachedEntry {
    fn drop(&mut self) {
        COUNTERS.cache_hits.fetch_add(self.hits.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl CachedEntry {
    /// Chooses by policy.
    pub fn select(&self, items: usize) -> Vec<PoolElement> {
        let mut pool = self.pool.lock();
        match items {
            1 => pool.select_one().into_iter().collect(),
            _ => pool.select(items),
        }
    }
}

/// By the handle's hash. Of two handles with the same one (2^-64), the later takes the place.
type CachedPools = HashMap<u64, Arc<CachedEntry>, BuildHasherDefault<Hashed>>;
type Shard = RwLock<CachedPools>;

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<Shard>,
    seed: u64,
    /// Handles are those that the program asks for. Who could choose two with the same hash would have them take each
    /// other's place, no more: tables don't search. SipHash, once for the shard and once for its table, would be a
    /// tenth of a resolution.
    hashes: FixedState,
}

impl Cache {
    pub fn new(seed: u64) -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            seed,
            hashes: FixedState::with_seed(seed),
        }
    }

    fn shard(&self, handle: &PoolHandle) -> (&Shard, u64) {
        let hash = self.hashes.hash_one(handle.as_bytes());
        // The table uses the low and the topmost bits.
        (&self.shards[(hash >> 32) as usize % SHARDS], hash)
    }

    fn get(&self, handle: &PoolHandle) -> Option<Arc<CachedEntry>> {
        let (shard, hash) = self.shard(handle);
        shard.read().get(&hash).filter(|entry| entry.handle == *handle).cloned()
    }

    /// Up to `items` elements, if what is known is at most `stale` old; `None`: ask a registrar.
    pub fn fresh(
        &self,
        now: Time,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Option<Vec<PoolElement>> {
        let (shard, hash) = self.shard(handle);
        let shard = shard.read();
        let entry = shard.get(&hash).filter(|entry| entry.handle == *handle)?;
        entry.used.store(now.0, Ordering::Relaxed);
        let mut pool = entry.pool.lock();
        if !pool.fresh(now, stale) {
            return None;
        }
        let found = match items {
            1 => vec![pool.select_one()?],
            _ => pool.select(items),
        };
        if found.is_empty() {
            return None;
        }
        entry.hits.store(entry.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Some(found)
    }

    /// Up to `items` elements, however old.
    pub fn any(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement> {
        self.get(handle).map(|entry| entry.select(items)).unwrap_or_default()
    }

    /// Takes over what a registrar said about a pool that nobody asked the cache about: a part does not
    /// replace a larger part, for who asked may have wanted no more.
    pub fn complement(&self, now: Time, handle: &PoolHandle, resolution: &Resolution) -> Arc<CachedEntry> {
        if let Some(entry) = self.get(handle)
            && !resolution.complete
            && resolution.elements.len() < entry.pool.lock().len()
        {
            return entry;
        }
        self.update(now, handle, resolution)
    }

    /// Takes over what a registrar said.
    pub fn update(&self, now: Time, handle: &PoolHandle, resolution: &Resolution) -> Arc<CachedEntry> {
        if let Some(entry) = self.get(handle) {
            entry.pool.lock().update(now, resolution);
            return entry;
        }
        let (shard, hash) = self.shard(handle);
        let pool = Mutex::new(CachedPool::new(now, self.seed ^ hash, resolution));
        let entry = Arc::new(CachedEntry {
            handle: handle.clone(),
            pool,
            used: AtomicU64::new(now.0),
            hits: AtomicU64::new(0),
        });
        let mut shard = shard.write();
        if shard.len() >= MAX_POOLS {
            make_room(&mut shard, now);
        }
        shard.insert(hash, entry.clone());
        entry
    }

    /// Resolutions answered from here, of the pools that are here.
    pub fn hits(&self) -> u64 {
        let of = |shard: &Shard| {
            shard.read().values().map(|entry| entry.hits.load(Ordering::Relaxed)).sum::<u64>()
        };
        self.shards.iter().map(of).sum()
    }

    /// Forgets one element.
    pub fn remove(&self, handle: &PoolHandle, id: PeId) {
        if let Some(entry) = self.get(handle) {
            entry.pool.lock().remove(id);
        }
    }

    /// Forgets a pool.
    pub fn forget(&self, handle: &PoolHandle) {
        let (shard, hash) = self.shard(handle);
        shard.write().remove(&hash);
    }

    /// Drops pools that nobody asks for.
    pub fn expire(&self, now: Time) {
        for shard in &self.shards {
            shard.write().retain(|_, entry| now - Time(entry.used.load(Ordering::Relaxed)) < UNUSED);
        }
    }
}

/// Drops the half that was not used for longest.
fn make_room(shard: &mut CachedPools, now: Time) {
    let age = |entry: &CachedEntry| now - Time(entry.used.load(Ordering::Relaxed));
    let mut ages: Vec<Duration> = shard.values().map(|entry| age(entry)).collect();
    ages.sort_unstable();
    let median = ages.get(ages.len() / 2).copied().unwrap_or_default();
    shard.retain(|_, entry| age(entry) < median);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Policy, Protocol, RegistrarId, Transport, TransportUse};

    const STALE: Duration = Duration::from_secs(1);

    fn resolution(ids: &[u32]) -> Resolution {
        let element = |&id| PoolElement {
            id: PeId(id),
            home: RegistrarId(1),
            life: 1000,
            transport: Transport::new(
                Protocol::Tcp,
                TransportUse::DataOnly,
                80,
                vec!["10.0.0.1".parse().unwrap()],
            ),
            policy: Policy::RoundRobin,
            asap: None,
        };
        let elements = ids.iter().map(element).collect();
        Resolution { policy: Some(Policy::RoundRobin), elements, complete: true, subscribed: false }
    }

    fn handle(name: &str) -> PoolHandle {
        PoolHandle::new(name.as_bytes()).unwrap()
    }

    fn ids(found: Option<Vec<PoolElement>>) -> Vec<u32> {
        found.unwrap_or_default().iter().map(|element| element.id.0).collect()
    }

    #[test]
    fn fresh_pools_answer_by_policy_and_old_ones_do_not() {
        let cache = Cache::new(1);
        let pool = handle("echo");
        assert!(cache.fresh(Time(1), &pool, 1, STALE).is_none());
        cache.update(Time(1), &pool, &resolution(&[1, 2, 3]));
        let next = || ids(cache.fresh(Time(2), &pool, 1, STALE));
        assert_eq!([next(), next(), next(), next()].concat(), [1, 2, 3, 1]);
        assert_eq!(ids(cache.fresh(Time(2), &pool, 9, STALE)).len(), 3);
        assert!(cache.fresh(Time(2), &pool, 1, Duration::ZERO).is_none());
        assert!(cache.fresh(Time(2) + STALE, &pool, 1, STALE).is_none());
        cache.remove(&pool, PeId(2));
        assert_eq!(cache.any(&pool, 9).len(), 2);
        let part = Resolution { complete: false, ..resolution(&[7]) };
        cache.complement(Time(3), &pool, &part);
        assert_eq!(cache.any(&pool, 9).len(), 2);
        cache.update(Time(3), &pool, &part);
        assert_eq!(ids(Some(cache.any(&pool, 9))), [7]);
        cache.forget(&pool);
        assert!(cache.any(&pool, 9).is_empty());
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_unused() {
        let cache = Cache::new(7);
        let used = handle("used");
        cache.update(Time(1), &used, &resolution(&[1]));
        let count = SHARDS * MAX_POOLS * 2;
        for number in 0..count {
            let now = Time(number as u64 + 2);
            cache.update(now, &handle(&format!("pool {number}")), &resolution(&[1]));
            assert!(cache.fresh(now, &used, 1, STALE).is_some(), "after {number}");
        }
        let pools = || cache.shards.iter().map(|shard| shard.read().len()).collect::<Vec<_>>();
        assert!(pools().iter().all(|&pools| pools <= MAX_POOLS), "{:?}", pools());
        assert!(pools().iter().all(|&pools| pools >= MAX_POOLS / 4), "uneven: {:?}", pools());
        cache.expire(Time(count as u64) + UNUSED);
        assert_eq!(pools().iter().sum::<usize>(), 2, "the last one, and the one that was asked for");
    }
}
