//! The pool user's cache of resolutions (RFC 5352 section 3.3): a pure structure, so that the
//! runtime can hold one per shard behind a lock and the simulator one per user without.

use super::Time;
use super::client::Resolution;
use crate::wire::{PeId, PoolElement};
use std::time::Duration;

/// One cached pool: its last resolution, from which elements are chosen by the pool's policy.
#[derive(Debug)]
pub struct CachedPool {
    _private: (),
}

#[allow(unused_variables)]
impl CachedPool {
    /// What a registrar answered at `now`.
    pub fn new(now: Time, seed: u64, resolution: &Resolution) -> CachedPool {
        todo!()
    }
    /// Merges a newer answer or push; elements keep their place in the policy's order.
    pub fn update(&mut self, now: Time, resolution: &Resolution) {
        todo!()
    }
    /// Whether the content is at most `stale` old (a pushed pool is always fresh; `stale` 0: never fresh).
    pub fn fresh(&self, now: Time, stale: Duration) -> bool {
        todo!()
    }
    /// Chooses up to `items` by policy, every returned one counted as used.
    pub fn select(&mut self, items: usize) -> Vec<PoolElement> {
        todo!()
    }
    /// The hot path of [`CachedPool::select`]: the next element, without allocation beyond its clone.
    pub fn select_one(&mut self) -> Option<PoolElement> {
        todo!()
    }
    /// Forgets an element reported unreachable.
    pub fn remove(&mut self, id: PeId) {
        todo!()
    }
}
