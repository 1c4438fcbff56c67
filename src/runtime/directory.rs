//! What sockets need to know from the pools, as a trait: the event thread in earnest, something
//! simpler where there is none.

use super::why::{self, Failed, Tried};
use super::{Reachable, Watcher};
use crate::machine::client::{Registration, RequestError};
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::any::Any;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often who waits for an answer looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(20);

pub(super) type Replier<T> = Sender<Result<T, RequestError>>;

/// What will be answered to a request. Who doesn't care drops it.
#[derive(Debug)]
pub struct Answer<T> {
    channel: Receiver<Result<T, RequestError>>,
    /// How long it may take at most.
    patience: Duration,
    /// What was asked, and who was tried: for [`why`].
    about: Option<(String, Arc<Tried>)>,
}

impl<T> Answer<T> {
    pub(super) fn pending(patience: Duration) -> (Replier<T>, Answer<T>) {
        let (reply, channel) = bounded(1);
        (reply, Answer { channel, patience, about: None })
    }

    /// One that is there already.
    pub fn ready(value: T) -> Answer<T> {
        let (reply, answer) = Answer::pending(Duration::ZERO);
        let _ = reply.send(Ok(value));
        answer
    }

    /// What it answers, so that a failure can be explained.
    pub(super) fn about(self, what: String, tried: Arc<Tried>) -> Answer<T> {
        Answer { about: Some((what, tried)), ..self }
    }

    /// Waits for it.
    pub fn wait(self) -> Result<T, RequestError> {
        self.wait_while(&|| true)
    }

    /// Waits for it as long as it is `wanted`; then `TimedOut`.
    pub fn wait_while(self, wanted: &dyn Fn() -> bool) -> Result<T, RequestError> {
        let result = self.wait_for_it(wanted);
        if let (Err(error), Some((what, tried))) = (&result, &self.about) {
            why::note(Some(error), format_args!("{what}: {}", Failed(error, tried)));
        }
        result
    }

    fn wait_for_it(&self, wanted: &dyn Fn() -> bool) -> Result<T, RequestError> {
        let mut left = self.patience;
        loop {
            let turn = left.min(GLANCE);
            match self.channel.recv_timeout(turn) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(RequestError::Shutdown),
                Err(RecvTimeoutError::Timeout) => left -= turn,
            }
            if left.is_zero() || !wanted() {
                return Err(RequestError::TimedOut);
            }
        }
    }
}

/// Registers, resolves, watches. [`super::Runtime`] is one.
pub trait Directory: Send + Sync + Debug {
    /// Registers or updates an element; whoever wants to know what came of it waits for the answer.
    fn register(&self, registration: Registration) -> Result<Answer<RegistrarId>, RequestError>;

    /// From now on, an element of ours is registered anew when `at` says that it is reached elsewhere. `advertise`:
    /// `host[:port]` where users reach it instead; `None`: what was said before.
    fn follow(&self, handle: &PoolHandle, id: PeId, at: Weak<dyn Reachable>, advertise: Option<String>) {
        let _ = (handle, id, at, advertise);
    }

    /// Deregisters an element. What was asked before is done before.
    fn deregister(&self, handle: &PoolHandle, id: PeId) -> Result<Answer<()>, RequestError>;

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

    /// Asks a registrar about a pool of which nothing is known, for later. Never blocks.
    fn acquaint(&self, handle: &PoolHandle);

    /// Forgets what is known of a pool: the next resolution asks a registrar.
    fn purge(&self, handle: &PoolHandle);

    /// Reports an element that does not answer: to the registrar, and out of the cache. Never blocks.
    fn report_unreachable(&self, handle: &PoolHandle, id: PeId);

    /// Watches an element: subscribes to its pool, and tells `watcher` when it leaves. The watch lasts as long
    /// as what is returned.
    fn watch(&self, handle: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Box<dyn Any + Send + Sync>;

    /// Up to `items` of a pool's elements for business cards and failover order, from the cache only.
    fn cached(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement>;

    /// Resolutions answered from the cache, of pools that are in it.
    fn cache_hits(&self) -> u64 {
        0
    }

    /// Whether anybody will answer.
    fn is_alive(&self) -> bool {
        true
    }

    /// Whether somebody closed the descriptors of what is behind this; then that ends, without touching them.
    fn is_robbed(&self) -> bool {
        false
    }

    /// Deregisters everything (waiting for it, bounded), ends the thread and joins it.
    fn shutdown(&self);
}
