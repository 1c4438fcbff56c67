//! What a process sets, asks for, is told and counts.

use crate::machine::trust::Roles;
use crate::machine::{LinkId, LinkProtocol, RequestId, Target};
use crate::wire::{CauseCode, OperationError, PeId, Policy, PoolElement, PoolHandle, RegistrarId};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
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
    pub protocols: Vec<LinkProtocol>,
    /// How long an announced registrar stays a candidate (rsplib: 5 s).
    pub announce_timeout: Duration,
    /// How long one dial may take before the next candidates are tried as well.
    pub connect_timeout: Duration,
    /// Registrar hunts per request (rsplib: 1).
    pub connect_max_trials: u32,
    /// How long a send to the registrar may block in rsplib; here: how long a request that has a registrar may wait
    /// for its turn beyond the time for finding one.
    pub request_timeout: Duration,
    /// How long to wait for each response (T1-ENRPrequest).
    pub response_timeout: Duration,
    /// Transmissions per request (rsplib: 1).
    pub request_max_trials: u32,
    /// The scope that a registrar's certificate must name; `None`: any of our authority.
    pub scope: Option<String>,
    /// Whether registrars may announce themselves: who knows no other waits for a first announcement.
    pub announcements: bool,
    /// Where we listen for registrars that take over our elements (the ASAP transport), per protocol.
    pub listen: Vec<Target>,
}

impl Default for Config {
    fn default() -> Config {
        let port = crate::wire::ASAP_PORT;
        let localhost = vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        Config {
            registrars: Vec::new(),
            fallback: vec![Target { protocol: LinkProtocol::Tcp, addresses: localhost }],
            protocols: vec![LinkProtocol::Tcp],
            announce_timeout: Duration::from_millis(5000),
            connect_timeout: Duration::from_millis(7500),
            connect_max_trials: 1,
            request_timeout: Duration::from_millis(3000),
            response_timeout: Duration::from_millis(3000),
            request_max_trials: 1,
            scope: None,
            announcements: false,
            listen: Vec::new(),
        }
    }
}

impl Config {
    /// How long a request waits without any registrar link before it fails.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout.saturating_mul(self.connect_max_trials.clamp(1, 1000))
    }
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
    /// The pool's policy: the overall one of the answer; round robin if a positive answer names none (RFC 5352
    /// section 2.2.6).
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
#[non_exhaustive]
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

impl RequestError {
    /// Whether the registrar's answer is that there is no such pool, so nobody is in it.
    pub fn is_unknown_pool(&self) -> bool {
        matches!(self, RequestError::Rejected(error) if error.code() == CauseCode::UNKNOWN_POOL)
    }
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::NoRegistrar => f.write_str("no registrar can be reached"),
            RequestError::TimedOut => f.write_str("the registrar did not answer in time"),
            RequestError::Rejected(error) => write!(f, "the registrar says: {error}"),
            RequestError::NotFound => f.write_str("not an element of this process"),
            RequestError::Busy => f.write_str("too many requests are waiting"),
            RequestError::Shutdown => f.write_str("the library is being shut down"),
        }
    }
}

impl std::error::Error for RequestError {}

/// What the driver passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// Answer to `register`. After a rejection or failure the element stays ours and is retried.
    Registered { request: RequestId, result: Result<RegistrarId, RequestError> },
    /// Answer to `deregister`.
    Deregistered { request: RequestId, result: Result<(), RequestError> },
    /// Answer to `resolve`; to several of them where they may share it.
    Resolved { requests: Vec<RequestId>, handle: PoolHandle, result: Result<Resolution, RequestError> },
    /// A subscribed pool as it is now (also the first answer of a subscription).
    Pool { handle: PoolHandle, resolution: Resolution },
    /// A subscribed pool's registrar says that this element left: sessions with it must move.
    ElementGone { handle: PoolHandle, id: PeId },
    /// An element of a subscribed pool deregistered. It ends the sessions that it has itself.
    ElementRetired { handle: PoolHandle, id: PeId },
    /// A watched element (`watch` with this number) is gone, or was so before the watch began.
    WatchedGone { number: u64 },
    /// The last user of a pool that was told of by [`Event::Pool`] left: nothing more will be said of it.
    Unsubscribed { handle: PoolHandle },
    /// The home registrar changed; `None`: hunting.
    Home { registrar: Option<RegistrarId>, link: Option<LinkId> },
    /// Whoever is at the other end of a link has proved to be something else than a registrar.
    NoRegistrar { at: Option<SocketAddr>, roles: Arc<Roles> },
    /// The registrar says that an element of ours is not in its pool any more, and perhaps why. It is
    /// registered again soon.
    Unregistered { handle: PoolHandle, id: PeId, error: Option<OperationError> },
    /// A background (re-)registration was refused or got no answer.
    RegistrationFailed { handle: PoolHandle, id: PeId, error: RequestError },
    /// A registration was granted, and the registrar says that it changed something of it (RFC 5352 section 2.2.3).
    RegistrationWarned { handle: PoolHandle, id: PeId, error: OperationError },
}

/// What the machine has done since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ClientCounts {
    /// Questions about pools that were answered, and those that were not.
    pub resolutions: u64,
    pub resolutions_failed: u64,
    /// Registrations that were granted for the first time, those of elements that had been registered, and those
    /// that were refused or not answered.
    pub registrations: u64,
    pub reregistrations: u64,
    pub registrations_failed: u64,
    pub deregistrations: u64,
    /// Answers to keep-alives.
    pub keep_alives: u64,
    pub homes_found: u64,
    pub homes_lost: u64,
}
