//! The background event thread: mio poll, waker, command channel, timers. It feeds the machines and
//! carries out their outputs; one reactor serves both the library ([`Runtime`]) and the registrar.

pub mod address;
mod complaints;
#[allow(dead_code, reason = "its loops come next")]
mod reactor;

use crate::machine::client::{Registration, RequestError};
use crate::machine::{LinkProtocol, Target};
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything a process can set: what `struct rsp_info`, `rsp_initarg` and `RSP_*` variables say.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Settings {
    /// Static registrars, first tried first.
    pub registrars: Vec<Target>,
    /// Start a registrar inside this process (`RSP_REGISTRAR=embedded`).
    pub embedded_registrar: bool,
    /// Which protocols may be used, best first (`RSP_TRANSPORT`).
    pub protocols: Vec<LinkProtocol>,
    /// Announce group to listen on; `None`: off.
    pub announce: Option<SocketAddr>,
    pub announce_timeout: Duration,
    pub connect_timeout: Duration,
    pub connect_max_trials: u32,
    pub request_timeout: Duration,
    pub response_timeout: Duration,
    pub request_max_trials: u32,
    pub csp_identifier: u64,
    pub csp_server: Option<SocketAddr>,
    pub csp_interval: Duration,
}

impl Settings {
    /// rsplib's defaults, and over them what the `RSP_*` variables say. EINVAL: one makes no sense.
    pub fn from_env() -> io::Result<Settings> {
        todo!()
    }
}

/// Told, from the event thread, that a watched element left its pool. Must not block.
pub trait Watcher: Send + Sync {
    /// The element is gone; the session with it must move.
    fn element_gone(&self);
}

/// Keeps a watch alive (and with it the subscription to the pool); ends it when dropped.
#[derive(Debug)]
pub struct Watch {
    _private: (),
}

/// The library's side of the event thread. Cheap to clone, every method may be called from any thread.
#[derive(Debug, Clone)]
pub struct Runtime {
    _private: (),
}

#[allow(unused_variables)]
impl Runtime {
    /// Starts the thread (named, all signals blocked).
    pub fn start(settings: Settings) -> io::Result<Runtime> {
        todo!()
    }
    /// Registers or updates an element. `wait`: block for the registrar's answer; else `Ok` with ID 0 at once.
    pub fn register(&self, registration: Registration, wait: bool) -> Result<RegistrarId, RequestError> {
        todo!()
    }
    /// Deregisters an element.
    pub fn deregister(&self, handle: &PoolHandle, id: PeId, wait: bool) -> Result<(), RequestError> {
        todo!()
    }
    /// Resolves a handle to up to `items` elements chosen by policy: from the cache if what it has is
    /// at most `stale` old, else by asking a registrar. An empty pool is `Ok` with none.
    pub fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, RequestError> {
        todo!()
    }
    /// Reports an element that does not answer: to the registrar, and out of the cache. Never blocks.
    pub fn report_unreachable(&self, handle: &PoolHandle, id: PeId) {
        todo!()
    }
    /// Watches an element: subscribes to its pool, and tells `watcher` when it leaves.
    pub fn watch(&self, handle: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Watch {
        todo!()
    }
    /// Our pool's elements for business cards and failover order, from the cache only.
    pub fn cached(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement> {
        todo!()
    }
    /// Protocols this process can really use (SCTP only where the kernel has it).
    pub fn protocols(&self) -> &[LinkProtocol] {
        todo!()
    }
    /// Deregisters everything (waiting for it, bounded), ends the thread and joins it.
    pub fn shutdown(&self) {
        todo!()
    }
}
