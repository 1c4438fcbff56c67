//! What sockets need to know from the pools, as a trait: the event thread in earnest, something
//! simpler where there is none.

use super::Watcher;
use crate::machine::client::{Registration, RequestError};
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Registers, resolves, watches. [`super::Runtime`] is one.
pub trait Directory: Send + Sync + Debug {
    /// Registers or updates an element. `wait`: block for the registrar's answer; else `Ok` with ID 0 at once.
    fn register(&self, registration: Registration, wait: bool) -> Result<RegistrarId, RequestError>;

    /// Deregisters an element.
    fn deregister(&self, handle: &PoolHandle, id: PeId, wait: bool) -> Result<(), RequestError>;

    /// Resolves a handle to up to `items` elements (at least one is asked for) chosen by policy: from the
    /// cache if what it has is at most `stale` old, else by asking a registrar. An empty pool is `Ok` with
    /// none; a pool that the registrar does not know is `Rejected`.
    fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, RequestError> {
        self.resolve_while(handle, items, stale, &|| true)
    }

    /// [`Directory::resolve`] as long as the answer is `wanted`; then `TimedOut`.
    fn resolve_while(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<PoolElement>, RequestError>;

    /// Reports an element that does not answer: to the registrar, and out of the cache. Never blocks.
    fn report_unreachable(&self, handle: &PoolHandle, id: PeId);

    /// Watches an element: subscribes to its pool, and tells `watcher` when it leaves. The watch lasts as long
    /// as what is returned.
    fn watch(&self, handle: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Box<dyn Any + Send + Sync>;

    /// Up to `items` of a pool's elements for business cards and failover order, from the cache only.
    fn cached(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement>;

    /// Deregisters everything (waiting for it, bounded), ends the thread and joins it.
    fn shutdown(&self);
}
