//! The pools that are followed: those that were named, or those that were asked for.

use crate::dns_sockets::PARKED;
use mio::Waker;
use rserpool::dns::{Found, Pools};
use rserpool::machine::Time;
use rserpool::machine::client::Resolution;
use rserpool::runtime::{Follower, Pool, Runtime};
use rserpool::wire::{PeId, PoolElement, PoolHandle, Transport};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pools at a time, beside those that were named.
const MAX_POOLS: usize = 1024;
/// So many new names are asked for within a second; a name that nobody knows costs a registrar a subscription.
const MAX_NEW: u32 = 64;
/// For how long a pool is followed that nobody asks for; one that is empty.
const STAYS: Duration = Duration::from_secs(600);
const EMPTY_STAYS: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(1);

/// Wakes the loop when something is known.
struct LoopTeller {
    news: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl LoopTeller {
    fn tell(&self) {
        if !self.news.swap(true, Ordering::AcqRel) {
            let _ = self.waker.wake();
        }
    }
}

impl Follower for LoopTeller {
    fn pool(&self, _: Time, _: &Resolution) {
        self.tell();
    }

    fn left(&self, _: PeId, _: bool) {}
}

struct FollowedPool {
    pool: Arc<Pool>,
    named: bool,
    /// It had elements.
    existed: bool,
    since: Time,
    asked: Time,
}

/// See the module.
pub struct Followed {
    runtime: Runtime,
    news: Arc<AtomicBool>,
    waker: Arc<Waker>,
    /// By their handles in lower case.
    pools: HashMap<Vec<u8>, Vec<FollowedPool>>,
    count: usize,
    elements: usize,
    /// Only pools that were named.
    closed: bool,
    now: Time,
    swept: Time,
    new: u32,
}

impl Followed {
    /// Follows those that are named; without any, whatever is asked for.
    pub fn new(runtime: Runtime, named: Vec<PoolHandle>, waker: Arc<Waker>) -> Followed {
        let mut followed = Followed {
            runtime,
            news: Arc::default(),
            waker,
            pools: HashMap::new(),
            count: 0,
            elements: 0,
            closed: !named.is_empty(),
            now: Time(0),
            swept: Time(0),
            new: 0,
        };
        for handle in named {
            followed.follow(&handle, true);
        }
        followed
    }

    fn follow(&mut self, handle: &PoolHandle, named: bool) {
        let entries = self.pools.entry(handle.as_bytes().to_ascii_lowercase()).or_default();
        if entries.iter().any(|entry| entry.pool.handle() == handle) {
            return;
        }
        let teller = LoopTeller { news: self.news.clone(), waker: self.waker.clone() };
        let pool = self.runtime.follow_pool(handle, Some(Arc::new(teller)));
        entries.push(FollowedPool { pool, named, existed: false, since: self.now, asked: self.now });
        self.count += 1;
    }

    /// When to call [`Followed::turn`] again.
    pub fn poll_timeout(&self) -> Time {
        self.swept + SWEEP
    }

    /// Forgets what nobody asks for any more.
    pub fn turn(&mut self, now: Time) {
        self.now = now;
        if now < self.swept + SWEEP {
            return;
        }
        (self.swept, self.new) = (now, 0);
        let (mut count, mut elements) = (0, 0);
        self.pools.retain(|_, entries| {
            entries.retain(|entry| {
                let stays = if entry.pool.is_empty() { EMPTY_STAYS } else { STAYS };
                entry.named || now - entry.asked < stays
            });
            count += entries.len();
            elements += entries.iter().map(|entry| entry.pool.counts().0).sum::<usize>();
            !entries.is_empty()
        });
        (self.count, self.elements) = (count, elements);
    }

    /// Whether more is known than when this was asked last.
    pub fn news(&mut self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    /// Number of pools, and of their elements when that was counted last.
    pub fn sizes(&self) -> (usize, usize) {
        (self.count, self.elements)
    }

    fn pool(&self, handle: &PoolHandle) -> Option<&Pool> {
        let entries = self.pools.get(handle.as_bytes().to_ascii_lowercase().as_slice())?;
        entries.iter().find(|entry| entry.pool.handle() == handle).map(|entry| &*entry.pool)
    }
}

impl FollowedPool {
    fn found(&mut self, now: Time) -> Found {
        self.asked = now;
        self.existed |= !self.pool.is_empty();
        match self.pool.is_known() {
            true if self.named || self.existed => Found::Pool(self.pool.handle().clone()),
            true => Found::Unknown,
            false if now - self.since < PARKED => Found::Later,
            false => Found::Unavailable,
        }
    }
}

impl Pools for Followed {
    fn find(&mut self, name: &[u8]) -> Found {
        let now = self.now;
        let entries = self.pools.get_mut(name.to_ascii_lowercase().as_slice());
        let entries = entries.map_or(&mut [][..], |entries| entries.as_mut_slice());
        let exact = entries.iter().position(|entry| entry.pool.handle().as_bytes() == name);
        // In this case or in another: one that is there.
        let there = |entry: &FollowedPool| entry.named || !entry.pool.is_empty();
        let mut others = (0..entries.len()).filter(|&other| there(&entries[other]));
        let only = others.next().filter(|_| others.next().is_none());
        let exactly = exact.filter(|&exact| there(&entries[exact]));
        if let Some(place) = exactly.or(only).or(exact) {
            return entries[place].found(now);
        }
        let Some(handle) = PoolHandle::new(name).filter(|_| !self.closed) else { return Found::Unknown };
        if self.count >= MAX_POOLS || self.new >= MAX_NEW {
            return Found::Unavailable;
        }
        self.new += 1;
        self.follow(&handle, false);
        Found::Later
    }

    fn choose(
        &mut self,
        pool: &PoolHandle,
        items: usize,
        usable: &dyn Fn(&Transport) -> bool,
    ) -> Vec<PoolElement> {
        self.pool(pool).map_or(Vec::new(), |pool| pool.several(items, usable))
    }

    fn element(&self, pool: &PoolHandle, id: PeId) -> Option<PoolElement> {
        self.pool(pool)?.element(id)
    }

    fn size(&self, pool: &PoolHandle) -> usize {
        self.pool(pool).map_or(0, |pool| pool.counts().0)
    }
}
