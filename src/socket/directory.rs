//! What sockets need to know from the pools, as a trait: the event thread in earnest, something
//! simpler where there is none.

use crate::machine::client::{Registration, RequestError};
use crate::runtime::{Reachable, Runtime, Watcher};
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use std::any::Any;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Registers, resolves, watches. [`Runtime`] is one; its methods say what these mean.
#[expect(missing_docs, reason = "see Runtime")]
pub trait Directory: Send + Sync + Debug {
    fn register(&self, registration: Registration, wait: bool) -> Result<RegistrarId, RequestError>;
    fn follow(&self, handle: &PoolHandle, id: PeId, at: Weak<dyn Reachable>) {
        let _ = (handle, id, at);
    }
    fn deregister(&self, handle: &PoolHandle, id: PeId, wait: bool) -> Result<(), RequestError>;
    fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, RequestError>;
    /// `resolve` that may give up when its answer is not `wanted` any more.
    fn resolve_while(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<PoolElement>, RequestError> {
        let _ = wanted;
        self.resolve(handle, items, stale)
    }
    fn report_unreachable(&self, handle: &PoolHandle, id: PeId);
    /// The watch lasts as long as what is returned.
    fn watch(&self, handle: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Box<dyn Any + Send + Sync>;
    fn cached(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement>;
    fn shutdown(&self);
}

impl Directory for Runtime {
    fn register(&self, registration: Registration, wait: bool) -> Result<RegistrarId, RequestError> {
        Runtime::register(self, registration, wait)
    }
    fn follow(&self, handle: &PoolHandle, id: PeId, at: Weak<dyn Reachable>) {
        Runtime::follow(self, handle, id, at);
    }
    fn deregister(&self, handle: &PoolHandle, id: PeId, wait: bool) -> Result<(), RequestError> {
        Runtime::deregister(self, handle, id, wait)
    }
    fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, RequestError> {
        Runtime::resolve(self, handle, items, stale)
    }
    fn resolve_while(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<PoolElement>, RequestError> {
        Runtime::resolve_while(self, handle, items, stale, wanted)
    }
    fn report_unreachable(&self, handle: &PoolHandle, id: PeId) {
        Runtime::report_unreachable(self, handle, id);
    }
    fn watch(&self, handle: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Box<dyn Any + Send + Sync> {
        Box::new(Runtime::watch(self, handle, id, watcher))
    }
    fn cached(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement> {
        Runtime::cached(self, handle, items)
    }
    fn shutdown(&self) {
        Runtime::shutdown(self);
    }
}
