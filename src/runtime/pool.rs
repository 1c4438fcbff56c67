//! A followed pool: what its registrar pushes, chosen from on the callers' threads. For plain connections to
//! data-only elements; sessions have `socket/`.

use super::reactor::Clock;
use crate::machine::Time;
use crate::machine::choice::Choice;
use crate::machine::client::Resolution;
use crate::wire::{PeId, PoolElement, PoolHandle, Protocol, Transport, TransportUse};
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Told, from the event thread, what happens to a followed pool. Must not block.
pub trait Follower: Send + Sync {
    /// The pool as it is now, or a part of it.
    fn pool(&self, now: Time, resolution: &Resolution);
    /// An element left: it was `lost`, so that connections with it are of no use any more, or it
    /// deregistered, and ends them itself.
    fn left(&self, id: PeId, lost: bool);
}

/// See the module. The pool is followed as long as this lives.
pub struct Pool {
    handle: PoolHandle,
    clock: Clock,
    choice: Mutex<Choice>,
    changed: Condvar,
    told: Option<Arc<dyn Follower>>,
    attendance: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// What the event thread holds: it must not keep the pool followed.
struct Ear(Weak<Pool>);

impl Follower for Ear {
    fn pool(&self, now: Time, resolution: &Resolution) {
        if let Some(pool) = self.0.upgrade() {
            pool.choice.lock().update(now, resolution);
            pool.changed.notify_all();
            pool.told.iter().for_each(|told| told.pool(now, resolution));
        }
    }

    fn left(&self, id: PeId, lost: bool) {
        if let Some(pool) = self.0.upgrade() {
            pool.choice.lock().left(id);
            pool.told.iter().for_each(|told| told.left(id, lost));
        }
    }
}

/// Whether plain TCP users can use an element: it knows nothing of pools (transport use 0).
fn is_plain(element: &PoolElement) -> bool {
    element.transport.protocol() == Some(Protocol::Tcp) && element.transport.usage() == TransportUse::DataOnly
}

impl Pool {
    pub(super) fn new(
        clock: Clock,
        seed: u64,
        handle: PoolHandle,
        told: Option<Arc<dyn Follower>>,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            handle,
            clock,
            choice: Mutex::new(Choice::new(seed)),
            changed: Condvar::new(),
            told,
            attendance: Mutex::new(None),
        })
    }

    pub(super) fn follower(self: &Arc<Pool>) -> Arc<dyn Follower> {
        Arc::new(Ear(Arc::downgrade(self)))
    }

    pub(super) fn keep(&self, attendance: Box<dyn Any + Send + Sync>) {
        *self.attendance.lock() = Some(attendance);
    }

    /// Its handle.
    pub fn handle(&self) -> &PoolHandle {
        &self.handle
    }

    /// The next data-only TCP element by policy that was not `tried` and has an address that is `reachable`; one
    /// that did not fail lately, where there is one. Never blocks.
    pub fn choose(
        &self,
        tried: &[PeId],
        reachable: impl Fn(&std::net::SocketAddr) -> bool,
    ) -> Option<PoolElement> {
        let usable = |element: &PoolElement| {
            is_plain(element) && element.transport.socket_addresses().any(|address| reachable(&address))
        };
        self.choice.lock().choose(self.clock.about_now(), tried, usable)
    }

    /// Up to `items` elements by policy whose transport is `usable`, for users of whom nobody hears whether it
    /// worked. Never blocks.
    pub fn several(&self, items: usize, usable: impl Fn(&Transport) -> bool) -> Vec<PoolElement> {
        self.choice.lock().several(items, usable)
    }

    /// An element.
    pub fn element(&self, id: PeId) -> Option<PoolElement> {
        self.choice.lock().element(id)
    }

    /// All elements, by identifier.
    pub fn elements(&self) -> Vec<PoolElement> {
        self.choice.lock().elements()
    }

    /// Number of elements, and of those that are passed over because they failed.
    pub fn counts(&self) -> (usize, usize) {
        let choice = self.choice.lock();
        (choice.len(), choice.passed_over(self.clock.about_now()))
    }

    /// Whether nobody is in the pool, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.choice.lock().is_empty()
    }

    /// Whether any registrar said anything about the pool.
    pub fn is_known(&self) -> bool {
        self.choice.lock().is_known()
    }

    /// Waits for somebody to be in the pool, or, if `empty` will do, for a registrar's word on it.
    pub fn wait(&self, patience: Duration, empty: bool) -> bool {
        let until = Instant::now() + patience;
        let mut choice = self.choice.lock();
        while choice.is_empty() && !(empty && choice.is_known()) {
            if self.changed.wait_until(&mut choice, until).timed_out() {
                return false;
            }
        }
        true
    }

    /// An element refused, or did not answer: it is passed over for a while. Whether that is news to report.
    pub fn failed(&self, id: PeId) -> bool {
        self.choice.lock().failed(self.clock.about_now(), id)
    }

    /// An element answered.
    pub fn worked(&self, id: PeId) {
        self.choice.lock().worked(id);
    }
}
