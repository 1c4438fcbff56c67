//! The ASAP side of a process: `hunt` (find and keep a home registrar), `element` (its pool
//! elements), `user` (resolutions, subscriptions), put together as one machine.

use super::{LinkChange, LinkId, Output, RequestId, Target, Time};
use crate::wire::{OperationError, PeId, Policy, PoolElement, PoolHandle, RegistrarId};
use std::net::SocketAddr;
use std::time::Duration;

/// Timers, bounds and static registrars. Defaults are in [`Config::default`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Config {
    /// Static registrars (`-registrar=`), tried first.
    pub registrars: Vec<Target>,
    /// Tried last: localhost.
    pub fallback: Vec<Target>,
    /// Which protocols this process can dial, best first.
    pub protocols: Vec<super::LinkProtocol>,
    /// How long an announced registrar stays a candidate (rsplib: 5 s).
    pub announce_timeout: Duration,
    /// How long one dial may take before the next candidates are tried as well.
    pub connect_timeout: Duration,
    /// Registrar hunts per request (rsplib: 1).
    pub connect_max_trials: u32,
    /// How long a send to the registrar may block in rsplib; here: part of a request's patience.
    pub request_timeout: Duration,
    /// How long to wait for each response (T1-ENRPrequest).
    pub response_timeout: Duration,
    /// Transmissions per request (rsplib: 1).
    pub request_max_trials: u32,
    /// Where we listen for registrars that take over our elements (the ASAP transport), per protocol.
    pub listen: Vec<Target>,
}

/// An element to be registered and kept registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Under which pool.
    pub handle: PoolHandle,
    /// `home` and `asap` are filled in by the machine.
    pub element: PoolElement,
    /// Re-registration interval (T4-reregistration).
    pub interval: Duration,
}

/// What a registrar says about a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The pool's policy (of the answer, else of the first element).
    pub policy: Option<Policy>,
    /// In the registrar's order.
    pub elements: Vec<PoolElement>,
    /// Whether `elements` is the whole pool.
    pub complete: bool,
    /// Whether it came or stays fresh by subscription.
    pub subscribed: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// No registrar could be reached (RSPERR 0x1007).
    NoRegistrar,
    /// A registrar was there and did not answer in time (RSPERR 0x1008).
    TimedOut,
    /// The registrar says no, and why.
    Rejected(OperationError),
    /// Not one of our elements.
    NotFound,
    /// A bound on pending requests was reached.
    Busy,
    /// The machine was shut down.
    Shutdown,
}

/// What the driver passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// Answer to `register`. After a rejection or failure the element stays ours and is retried.
    Registered { request: RequestId, result: Result<RegistrarId, RequestError> },
    /// Answer to `deregister`.
    Deregistered { request: RequestId, result: Result<(), RequestError> },
    /// Answer to `resolve`.
    Resolved { request: RequestId, handle: PoolHandle, result: Result<Resolution, RequestError> },
    /// A subscribed pool as it is now (also the first answer of a subscription).
    Pool { handle: PoolHandle, resolution: Resolution },
    /// A subscribed pool's registrar says that this element left: sessions with it must move.
    ElementGone { handle: PoolHandle, id: PeId },
    /// The home registrar changed; `None`: hunting.
    Home { registrar: Option<RegistrarId>, link: Option<LinkId> },
    /// A background (re-)registration was refused or got no answer.
    RegistrationFailed { handle: PoolHandle, id: PeId, error: RequestError },
}

/// Hunt, elements and user of one process.
#[derive(Debug)]
pub struct Client {
    _private: (),
}

#[allow(unused_variables)]
impl Client {
    /// A client that knows nobody yet and hunts only when there is something to ask.
    pub fn new(config: Config, seed: u64, now: Time) -> Client {
        todo!()
    }

    /// Registers an element, or updates one of ours (same handle and id). Answer: [`Event::Registered`].
    pub fn register(&mut self, now: Time, request: RequestId, registration: Registration) {
        todo!()
    }
    /// Deregisters one of ours. Answer: [`Event::Deregistered`].
    pub fn deregister(&mut self, now: Time, request: RequestId, handle: &PoolHandle, id: PeId) {
        todo!()
    }
    /// Asks a registrar for up to `items` (`None`: registrar's default; `u32::MAX`: all). Answer: [`Event::Resolved`].
    pub fn resolve(&mut self, now: Time, request: RequestId, handle: &PoolHandle, items: Option<u32>) {
        todo!()
    }
    /// Reports an element that does not answer (ASAP_ENDPOINT_UNREACHABLE).
    pub fn report_unreachable(&mut self, now: Time, handle: &PoolHandle, id: PeId) {
        todo!()
    }
    /// Subscribes to a pool ('S' flag); counted, so each call needs its `unsubscribe`.
    pub fn subscribe(&mut self, now: Time, handle: &PoolHandle) {
        todo!()
    }
    /// Ends one `subscribe`.
    pub fn unsubscribe(&mut self, now: Time, handle: &PoolHandle) {
        todo!()
    }
    /// Deregisters everything, without waiting longer than `patience`; requests end with `Shutdown`.
    pub fn shutdown(&mut self, now: Time, patience: Duration) {
        todo!()
    }
    /// Whether a shutdown has nothing left to wait for.
    pub fn is_shut_down(&self) -> bool {
        todo!()
    }
    /// The addresses at which registrars reach us changed.
    pub fn set_listen(&mut self, now: Time, listen: Vec<Target>) {
        todo!()
    }

    /// One whole message.
    pub fn handle_message(&mut self, now: Time, link: LinkId, bytes: &[u8]) {
        todo!()
    }
    /// A link came, went, filled or drained.
    pub fn handle_link(&mut self, now: Time, link: LinkId, change: LinkChange) {
        todo!()
    }
    /// A datagram from the ASAP announce group.
    pub fn handle_announce(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        todo!()
    }
    /// Time has come.
    pub fn handle_timeout(&mut self, now: Time) {
        todo!()
    }
    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }
    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output<Event>> {
        todo!()
    }

    /// The home registrar, 0 while its ID is not known; `None` while there is none.
    pub fn home(&self) -> Option<RegistrarId> {
        todo!()
    }
}
