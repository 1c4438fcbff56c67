//! What a descriptor is: an epoll instance whose number the application holds, and what is behind it.

use super::endpoint::Endpoint;
use super::listener::Listener;
use super::many::Many;
use super::pool::PoolSide;
use super::session::Session;
use super::wait::{Deadline, Waiters, errno};
use super::watch::Watch;
use super::{SessionParameters, Style};
use crate::machine::LinkProtocol;
use crate::transport::stream::Liveness;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use parking_lot::{Mutex, RwLock};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Why a descriptor is readable though none of its sockets may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    /// Notifications or cookie echoes are queued, or a session is accepted.
    Queue = 1,
    /// Data was read ahead.
    Buffered = 2,
    /// The session failed or ended.
    Failed = 4,
    /// It was closed: whoever waits is to look.
    Closed = 8,
}

/// Tokens of a descriptor's epoll; session IDs lie below.
pub(super) const BEACON: u64 = 1 << 62;
pub(super) const LISTENER: u64 = BEACON + 1;
/// Connections that have not said hello yet: this plus a serial number.
pub(super) const STRANGERS: u64 = 1 << 63;

/// One RSerPool descriptor.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` never, except while it is dropped.
    epoll: Option<Epoll>,
    /// The application closed our number behind our back: it belongs to somebody else.
    disowned: AtomicBool,
    pub(super) style: Style,
    pub(super) domain: i32,
    /// What it listens over; SCTP's users may connect over TCP as well.
    pub(super) protocol: LinkProtocol,
    pub(super) waiters: Waiters,
    /// For how long a call may watch what it waits for before it sleeps.
    pub(super) busy_poll: Duration,
    watch: Watch,
    closed: AtomicBool,
    /// An eventfd that is always readable, shared by a few descriptors: in the epoll instance while
    /// there are reasons, so that a descriptor needs none of its own.
    beacon: Arc<EventFd>,
    reasons: Mutex<u8>,
    pub(super) role: RwLock<Role>,
    pub(super) parameters: Mutex<SessionParameters>,
    /// The element registered here.
    pub(super) pool: Mutex<Option<Arc<PoolSide>>>,
}

/// What a descriptor is used for.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// Nothing yet; perhaps there is a system socket, perhaps bound.
    Fresh { endpoint: Option<Arc<Endpoint>>, bound: bool },
    /// `SOCK_STREAM`: accepts sessions, each for a descriptor of its own.
    Listener(Arc<Listener>),
    /// `SOCK_SEQPACKET`: accepts and serves sessions.
    Many(Arc<Many>),
    /// One session: connected, or accepted.
    Single(Arc<Session>),
}

impl Entry {
    pub(super) fn new(
        epoll: Epoll,
        beacon: Arc<EventFd>,
        style: Style,
        domain: i32,
        protocol: LinkProtocol,
        role: Role,
        parameters: SessionParameters,
        busy_poll: Duration,
    ) -> Entry {
        Entry {
            epoll: Some(epoll),
            disowned: AtomicBool::new(false),
            style,
            domain,
            protocol,
            waiters: Waiters::default(),
            busy_poll,
            watch: Watch::default(),
            closed: AtomicBool::new(false),
            beacon,
            reasons: Mutex::new(0),
            role: RwLock::new(role),
            parameters: Mutex::new(parameters),
            pool: Mutex::new(None),
        }
    }

    pub(super) fn new_epoll() -> io::Result<Epoll> {
        Ok(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?)
    }

    fn epoll(&self) -> &Epoll {
        self.epoll.as_ref().unwrap_or_else(|| unreachable!("taken only by drop"))
    }

    pub(super) fn number(&self) -> RawFd {
        self.epoll().0.as_raw_fd()
    }

    /// The number is no longer ours to close.
    pub(super) fn disown(&self) {
        self.disowned.store(true, SeqCst);
    }

    pub(super) fn role(&self) -> Role {
        self.role.read().clone()
    }

    /// Incoming data on `socket` makes the descriptor readable.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll().add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    pub(super) fn rename(&self, socket: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll().modify(socket, &mut EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// What has come already makes the descriptor readable no longer, only what comes from now on.
    pub(super) fn watch_for_news(&self, socket: BorrowedFd<'_>, token: u64) {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let _ = self.epoll().modify(socket, &mut EpollEvent::new(flags, token));
    }

    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        let _ = self.epoll().delete(socket);
    }

    /// Waits until the descriptor is readable; how many of `events` were filled.
    pub(super) fn wait(&self, events: &mut [EpollEvent], deadline: Deadline) -> io::Result<usize> {
        let timeout = EpollTimeout::try_from(deadline.milliseconds()).unwrap_or(EpollTimeout::NONE);
        if timeout != EpollTimeout::ZERO {
            let found = self.watch.watch(self.busy_poll, false, || {
                match self.epoll().wait(events, EpollTimeout::ZERO) {
                    Ok(0) => None,
                    result => Some(result),
                }
            });
            if let Some(result) = found {
                return Ok(result?);
            }
        }
        Ok(self.epoll().wait(events, timeout)?)
    }

    /// [`Entry::wait`] for those who look for themselves what it was.
    pub(super) fn wait_readable(&self, deadline: Deadline) -> io::Result<()> {
        self.wait(&mut [EpollEvent::empty()], deadline).map(|_| ())
    }

    /// Makes the descriptor readable.
    pub(super) fn raise(&self, reason: Reason) {
        let mut reasons = self.reasons.lock();
        if *reasons == 0
            && let Err(error) = self.add(self.beacon.as_fd(), BEACON)
        {
            log::error!("descriptor {} can't be made readable: {error}", self.number());
            return;
        }
        *reasons |= reason as u8;
    }

    /// Whether it is readable for another reason than its sockets.
    pub(super) fn is_raised(&self) -> bool {
        *self.reasons.lock() != 0
    }

    /// A reason is over.
    pub(super) fn lower(&self, reason: Reason) {
        let mut reasons = self.reasons.lock();
        let left = *reasons & !(reason as u8);
        if left == 0 && *reasons != 0 {
            self.remove(self.beacon.as_fd());
        }
        *reasons = left;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// EBADF once the descriptor was closed.
    pub(super) fn check_open(&self) -> io::Result<()> {
        if self.is_closed() { Err(errno(Errno::EBADF)) } else { Ok(()) }
    }

    /// Why a call on it fails: `otherwise`, unless it was closed meanwhile.
    pub(super) fn refusal(&self, otherwise: Errno) -> io::Error {
        errno(if self.is_closed() { Errno::EBADF } else { otherwise })
    }

    /// Everybody who waits on it wakes and finds it closed.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.raise(Reason::Closed);
        self.waiters.wake();
    }

    /// Changes what is not 0; what holds then. Applies to the sessions that there are as well.
    pub(super) fn change_parameters(&self, change: SessionParameters) -> SessionParameters {
        let mut parameters = self.parameters.lock();
        let pick = |old: u32, new: u32| if new == 0 { old } else { new };
        *parameters = SessionParameters {
            rto_initial: pick(parameters.rto_initial, change.rto_initial),
            rto_min: pick(parameters.rto_min, change.rto_min),
            rto_max: pick(parameters.rto_max, change.rto_max),
            assoc_max_rxt: pick(parameters.assoc_max_rxt, change.assoc_max_rxt),
            path_max_rxt: pick(parameters.path_max_rxt, change.path_max_rxt),
            hb_interval: pick(parameters.hb_interval, change.hb_interval),
        };
        let parameters = *parameters;
        if change != SessionParameters::default() {
            let tune = |session: &Session| {
                if let Some(conn) = session.conn() {
                    conn.tune(&parameters);
                }
            };
            match self.role() {
                Role::Single(session) => tune(&session),
                Role::Many(many) => {
                    many.endpoint().set_parameters(&parameters);
                    many.sessions().iter().for_each(|session| tune(session));
                }
                Role::Listener(listener) => listener.endpoint().set_parameters(&parameters),
                Role::Fresh { endpoint: Some(endpoint), .. } => endpoint.set_parameters(&parameters),
                Role::Fresh { .. } => {}
            }
        }
        parameters
    }

    /// A session that shares the descriptor has a cookie echo.
    pub(super) fn session_has_echo(&self, session: &Session) {
        if let Role::Many(many) = &*self.role.read() {
            many.has_echo(self, session.id);
        }
    }

    /// A session that shares the descriptor has data read ahead, or no longer.
    pub(super) fn session_buffered(&self, session: &Session) {
        if let Role::Many(many) = &*self.role.read() {
            many.buffered(self, session);
        }
    }

    /// The system socket that stands for the descriptor.
    pub(super) fn system_socket(&self) -> Option<RawFd> {
        match self.role() {
            Role::Fresh { endpoint, .. } => endpoint.map(|endpoint| endpoint.as_fd().as_raw_fd()),
            Role::Listener(listener) => Some(listener.endpoint().as_fd().as_raw_fd()),
            Role::Many(many) => Some(many.endpoint().as_fd().as_raw_fd()),
            Role::Single(session) => session.conn().map(|conn| conn.as_fd().as_raw_fd()),
        }
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll().0.as_fd()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if *self.disowned.get_mut()
            && let Some(epoll) = self.epoll.take()
        {
            let _ = epoll.0.into_raw_fd();
        }
    }
}

/// rsplib's values (milliseconds).
pub(super) const DEFAULT_PARAMETERS: SessionParameters = SessionParameters {
    rto_initial: 2000,
    rto_min: 1000,
    rto_max: 5000,
    assoc_max_rxt: 8,
    path_max_rxt: 3,
    hb_interval: 15_000,
};

/// SCTP's parameters for TCP: a heartbeat is a keep-alive probe, and data may stay unacknowledged as
/// long as SCTP would retransmit it on one path.
pub(super) fn liveness(parameters: &SessionParameters) -> Liveness {
    let milliseconds = |value: u32| Duration::from_millis(u64::from(value));
    let second = Duration::from_secs(1);
    let longest = parameters.rto_max.max(parameters.rto_min);
    let mut rto = u64::from(parameters.rto_initial.clamp(parameters.rto_min.min(longest), longest));
    let mut patience = 0;
    for _ in 0..=parameters.path_max_rxt.min(100) {
        patience += rto;
        rto = (rto * 2).min(u64::from(longest));
    }
    Liveness {
        // The kernel takes up to 32767 seconds and 127 probes.
        probe_after: milliseconds(parameters.hb_interval).clamp(second, 32_767 * second),
        probe_interval: milliseconds(longest).clamp(second, 32_767 * second),
        probes: parameters.path_max_rxt.clamp(1, 100),
        user_timeout: Duration::from_millis(patience.clamp(100, u64::from(u32::MAX >> 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_time_outs() {
        let usual = liveness(&DEFAULT_PARAMETERS);
        // 2 + 4 + 5 + 5 seconds.
        assert_eq!(usual.user_timeout, Duration::from_secs(16));
        assert_eq!((usual.probe_after, usual.probes), (Duration::from_secs(15), 3));
        let extreme = SessionParameters {
            rto_initial: u32::MAX,
            rto_min: u32::MAX,
            rto_max: 1,
            assoc_max_rxt: u32::MAX,
            path_max_rxt: u32::MAX,
            hb_interval: 1,
        };
        let liveness = liveness(&extreme);
        assert_eq!((liveness.probes, liveness.probe_after), (100, Duration::from_secs(1)));
    }
}
