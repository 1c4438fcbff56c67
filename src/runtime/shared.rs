//! What callers and the event thread share: state that both look at, and the commands of the ones to the other.

use super::cache::{Cache, CachedEntry};
use super::csp::Sessions;
use super::directory::Replier;
use super::embedded::Embedded;
use super::reactor::{Clock, Waker};
use super::why::Tried;
use super::{Follower, Reachable, SessionSecurity, Watcher};
use crate::machine::LinkProtocol;
use crate::machine::client::Registration;
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// What callers and the event thread share.
pub(super) struct Shared {
    pub cache: Cache,
    pub clock: Clock,
    pub commands: Sender<Command>,
    pub waker: Arc<Waker>,
    /// Whether the event thread was woken and has not looked yet.
    pub woken: AtomicBool,
    /// Home registrar's ID with bit 32 set, or 0.
    pub home: AtomicU64,
    /// Where that registrar is.
    pub home_at: Mutex<Option<SocketAddr>>,
    /// Who knows the sessions that status reports are about.
    pub sessions: OnceLock<Box<dyn Sessions>>,
    pub watches: AtomicU64,
    /// Registrars, and what became of the attempts to use them.
    pub tried: Arc<Tried>,
    pub protocols: Vec<LinkProtocol>,
    /// What sessions prove themselves by.
    pub security: Arc<SessionSecurity>,
    /// How long the machine may take to answer, with a margin: a bound for the case that it never does.
    pub patience: Duration,
    pub thread: Mutex<Option<JoinHandle<()>>>,
    pub embedded: Mutex<Option<Embedded>>,
    /// There is no event thread any more.
    pub ended: AtomicBool,
    /// `host::forks()` when the thread was started.
    pub forks: u64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The answer to a resolution: what the registrar chose, and the pool it became part of.
pub(super) struct Resolved {
    pub elements: Vec<PoolElement>,
    pub entry: Arc<CachedEntry>,
}

/// Names one watch of one element.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub handle: PoolHandle,
    pub id: PeId,
    pub number: u64,
}

pub(super) enum Command {
    Register {
        registration: Registration,
        reply: Replier<RegistrarId>,
    },
    Follow {
        handle: PoolHandle,
        id: PeId,
        at: Weak<dyn Reachable>,
        advertise: Option<String>,
    },
    Deregister {
        handle: PoolHandle,
        id: PeId,
        reply: Replier<()>,
    },
    Resolve {
        handle: PoolHandle,
        items: Option<u32>,
        share: bool,
        reply: Replier<Resolved>,
    },
    Unreachable {
        handle: PoolHandle,
        id: PeId,
    },
    Watch(Watched, Arc<dyn Watcher>),
    Unwatch(Watched),
    Attend {
        handle: PoolHandle,
        number: u64,
        follower: Arc<dyn Follower>,
    },
    Leave {
        handle: PoolHandle,
        number: u64,
    },
    /// Ends without a word to anybody.
    Abandon,
    Shutdown {
        patience: Duration,
    },
}
