//! Connecting and failing over: from a pool handle to a connection with one of its elements.

use super::Library;
use crate::machine::LinkProtocol;
use crate::machine::trust::Roles;
use crate::runtime::complaints::SESSIONS;
use crate::runtime::counters::{COUNTERS, count};
use crate::runtime::{Watcher, why};
use crate::socket::channel::association::Association;
use crate::socket::channel::carrier::Carrier;
use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::entry::{Entry, EntryRole, Style};
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{self, Deadline, Patience};
use crate::socket::session::Session;
use crate::socket::session::pool::Circle;
use crate::socket::session::told::ConnectOptions;
use crate::transport::sctp_socket::SctpSocket;
use crate::transport::tls::{Failure, Judge, Mode, Purpose};
use crate::transport::{dials::Dials, stream};
use crate::wire::show;
use crate::wire::{PeId, PoolElement, PoolHandle, Protocol, Transport, TransportUse};
use log::{debug, info};
use nix::poll::PollFlags;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Elements looked at when those that were tried come back again.
const FURTHER_CHOICE: usize = 8;
/// How long an element may take for a handshake.
const PROOF: Duration = Duration::from_secs(5);
/// The same where it may have none: its program looks at what came when it has the time.
const PERHAPS: Duration = Duration::from_secs(1);
/// Elements in which a business card's recommendation is looked up.
const CARD_CHOICE: usize = 128;

/// How a move is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    pub(crate) stale: Duration,
    /// A failover: the owner is told when it is complete.
    pub(crate) failover: bool,
    /// Report the element that the session had as unreachable.
    pub(crate) unreachable: bool,
}

/// Flags the session when its element leaves the pool.
struct Gone {
    session: Weak<Session>,
    generation: u64,
}

impl Watcher for Gone {
    fn element_gone(&self) {
        if let Some(session) = self.session.upgrade() {
            session.element_gone(self.generation);
        }
    }
}

impl Library {
    /// The connected session's pool handle (`None` on accepted descriptors) and element (0 before there is
    /// one). [`SocketError::NoSession`] on a descriptor that has none of its own.
    pub fn peer_name(&self, sd: RawFd) -> Result<(Option<PoolHandle>, PeId)> {
        let session = self.single(&*self.entry(sd)?)?;
        Ok((session.as_user().and_then(|user| user.handle.clone()), session.pe_id()))
    }

    /// Connects to an element of a pool. [`SocketError::Closed`]: no descriptor; [`SocketError::NoSession`]: none to be
    /// had, because it has others already. After any other error ([`SocketError::EmptyPool`];
    /// [`SocketError::NotResolved`]; [`SocketError::Invalid`]: no pool handle; else why the last element could not be
    /// reached) the session exists and has failed: its descriptor is readable and
    /// the next receive says FAILOVER_NECESSARY (or the end, on [`Style::Stream`]).
    pub fn connect(
        &self,
        sd: RawFd,
        handle: Option<PoolHandle>,
        stale: Duration,
        options: ConnectOptions,
    ) -> Result<()> {
        let entry = self.entry(sd)?;
        let (readiness, linger) = (entry.base.readiness.clone(), self.linger.clone());
        let notified = entry.style == Style::SeqPacket;
        let circle = self.circle();
        let session = Arc::new(Session::user(readiness, linger, handle, options, notified, circle));
        let spare = {
            let mut role = entry.role.write();
            let spare = match &*role {
                EntryRole::Fresh { endpoint, bound: false } => endpoint.clone(),
                EntryRole::Fresh { .. } => None,
                EntryRole::Listener(listener) => {
                    entry.readiness().remove(listener.endpoint().as_fd());
                    None
                }
                EntryRole::Many(many) if many.sessions().is_empty() => {
                    entry.readiness().remove(many.endpoint().as_fd());
                    None
                }
                EntryRole::Many(_) | EntryRole::Single(_) => return Err(SocketError::NoSession),
            };
            *role = EntryRole::Single(session.clone());
            spare
        };
        let how = Move { stale, failover: false, unreachable: false };
        let spare = spare.and_then(Arc::into_inner);
        self.move_session(&entry, &session, how, spare).inspect_err(|error| {
            log::info!("descriptor {sd} could not be connected: {error}");
        })
    }

    /// What a user's session knows of pools beside its own.
    pub(super) fn circle(&self) -> Circle {
        let own = self.own.lock().upgrade().filter(|own| own.is_registered());
        Circle { directory: self.directory.clone(), own }
    }

    /// Leaves the element and connects to the next one. [`SocketError::NoSession`]: not connected by
    /// [`Library::connect`]. After any other error the session has failed again: after the retry delay
    /// [`SocketError::EmptyPool`], [`SocketError::NotResolved`], or why the last element could not be reached; at once
    /// [`SocketError::Invalid`] (no pool handle).
    pub fn force_failover(&self, sd: RawFd, unreachable: bool, stale: Duration) -> Result<()> {
        let entry = self.entry(sd)?;
        let session = self.single(&entry)?;
        self.move_session(&entry, &session, Move { stale, failover: true, unreachable }, None)
    }

    /// Whether the connected session holds a cookie. [`SocketError::NoSession`] without one.
    pub fn has_cookie(&self, sd: RawFd) -> Result<bool> {
        Ok(self.single(&*self.entry(sd)?)?.has_cookie())
    }

    /// Moves a user's session to an element of its pool. After an error, which comes after the retry
    /// delay, the session stays failed and says so. An element that refuses is reported and the next one
    /// tried, all within the connect time-out.
    pub(crate) fn move_session(
        &self,
        entry: &Arc<Entry>,
        session: &Arc<Session>,
        how: Move,
        mut spare: Option<Endpoint>,
    ) -> Result<()> {
        let Some(user) = session.as_user() else { return Err(SocketError::NoSession) };
        let _turn = user.moving.lock();
        entry.readiness().check_open()?;
        *user.watch.lock() = None;
        let lost = session.begin_move();
        let Some(handle) = &user.handle else {
            session.lose();
            return Err(SocketError::Invalid);
        };
        if how.unreachable && lost != PeId(0) {
            self.directory().report_unreachable(handle, lost);
            session.forget_element();
        }
        let deadline = Deadline::after(user.options.connect_timeout);
        let mut tried = Vec::new();
        let mut failure = None;
        loop {
            let element = match self.choose(entry, session, handle, how, lost, &tried) {
                Ok(Some(element)) => element,
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            match self.reach(entry, session, &element.transport, deadline, spare.take()) {
                Ok(conn) => return self.settle(entry, session, handle, &element, conn, how),
                Err(error) => {
                    count(&COUNTERS.connects_failed);
                    debug!("element {} of {handle:?}: {error}", element.id);
                    if let SocketError::Untrusted(why) = &error {
                        distrust(handle, element.id, element.transport.socket_addresses().next(), why);
                    } else if !error.is_ours() && !entry.readiness().is_closed() {
                        self.directory().report_unreachable(handle, element.id);
                    }
                    tried.push(element.id);
                    failure = Some(error);
                }
            }
            if entry.readiness().is_closed() || deadline.passed() {
                break;
            }
        }
        session.lose();
        entry.readiness().check_open()?;
        if let Some(error) = failure.as_ref().filter(|error| error.is_unsupported()) {
            SESSIONS.note(
                format!("no element of {handle:?} can be reached"),
                None,
                format_args!("no element of {handle:?} can be reached over {}: {error}", self.known(entry)),
            );
        }
        // Whoever calls again and again must not do it without pause.
        let pause = Deadline::after(user.options.retry_delay);
        let _ = entry.readiness().waiters.wait(None, pause, || entry.readiness().is_closed());
        entry.readiness().check_open()?;
        Err(failure.unwrap_or(SocketError::EmptyPool))
    }

    /// The next element to try: what the last one recommended, else what the policy says.
    fn choose(
        &self,
        entry: &Entry,
        session: &Session,
        handle: &PoolHandle,
        how: Move,
        lost: PeId,
        tried: &[PeId],
    ) -> Result<Option<PoolElement>> {
        let avoid = if how.unreachable { lost } else { PeId(0) };
        let fresh = |element: &PoolElement| element.id != avoid && !tried.contains(&element.id);
        if how.failover && tried.is_empty() {
            let alive = self.directory().cached(handle, CARD_CHOICE);
            if let Some(element) = session.preferred(lost, &alive).filter(fresh) {
                return Ok(Some(element));
            }
        }
        // One at a time, because every element that is resolved counts as used.
        let mut last_resort = None;
        for items in [1, 1, FURTHER_CHOICE] {
            let wanted = || !entry.readiness().is_closed();
            let elements = match self.directory().resolve_while(handle, items, how.stale, &wanted) {
                Ok(elements) => elements,
                Err(error) if error.is_unknown_pool() => Vec::new(),
                Err(error) => {
                    info!("resolution of {handle:?}: {error:?}");
                    return Err(SocketError::NotResolved);
                }
            };
            if elements.is_empty() {
                return Ok(None);
            }
            if let Some(element) = elements.iter().find(|element| fresh(element)) {
                return Ok(Some(element.clone()));
            }
            last_resort = elements.into_iter().find(|element| !tried.contains(&element.id)).or(last_resort);
        }
        Ok(last_resort)
    }

    /// A connection to an element, greeted, with the cookie echo on its way.
    pub(super) fn reach(
        &self,
        entry: &Entry,
        session: &Session,
        transport: &Transport,
        deadline: Deadline,
        spare: Option<Endpoint>,
    ) -> Result<Arc<Conn>> {
        let control = transport.usage() == TransportUse::DataPlusControl;
        let conn = match transport.protocol() {
            Some(Protocol::Sctp) if self.may_use(entry, LinkProtocol::Sctp) => Conn::sctp(Association::new(
                associate(entry, transport.socket_addresses(), deadline, spare)?,
                control,
            )),
            Some(Protocol::Tcp) if self.may_use(entry, LinkProtocol::Tcp) => {
                let handle = session.as_user().and_then(|user| user.handle.as_ref());
                let carrier = self.dial(entry, handle, transport, deadline, spare)?;
                let conn = if control { Conn::mapping(carrier, false) } else { Conn::plain(carrier) };
                conn.tune(&entry.base.parameters.lock());
                conn
            }
            _ => return Err(SocketError::UnsupportedTransport),
        };
        let conn = Arc::new(conn);
        conn.open(session.opening().as_deref())?;
        if conn.backlogged() {
            self.linger.flush(&conn);
        }
        Ok(conn)
    }

    /// A byte stream to an element, in TLS if that is required, or allowed and there.
    fn dial(
        &self,
        entry: &Entry,
        handle: Option<&PoolHandle>,
        transport: &Transport,
        deadline: Deadline,
        spare: Option<Endpoint>,
    ) -> Result<Carrier> {
        let control = transport.usage() == TransportUse::DataPlusControl;
        let (mode, mut spare) = (self.security.mode(), spare);
        // Nothing tells whether a server that knows nothing of pools would understand a handshake.
        if mode == Mode::Require || (mode == Mode::Allow && control) {
            let socket = dial_any(entry, transport.socket_addresses(), deadline, spare.take())?;
            let purpose = if control { Purpose::Session } else { Purpose::Data };
            match self.handshake(entry, handle, socket, purpose, deadline) {
                Err(Untrue::Tls(Failure::Plain | Failure::Silent) | Untrue::Call(SocketError::TimedOut))
                    if mode == Mode::Allow => {}
                Err(Untrue::Tls(failure)) => return Err(SocketError::Untrusted(failure.to_string())),
                Err(Untrue::Call(error)) => return Err(error),
                Ok(carrier) => return Ok(carrier),
            }
        }
        Ok(dial_any(entry, transport.socket_addresses(), deadline, spare)?.into())
    }

    /// Has the element prove that it may serve the pool (without one: any), and proves that we may use it.
    fn handshake(
        &self,
        entry: &Entry,
        handle: Option<&PoolHandle>,
        socket: OwnedFd,
        purpose: Purpose,
        deadline: Deadline,
    ) -> std::result::Result<Carrier, Untrue> {
        let pool = handle.cloned();
        let judge = Judge::new(move |names| {
            let roles = Roles::parse(names.iter().map(String::as_str));
            match &pool {
                Some(pool) if roles.may_serve(pool.as_bytes()) => Ok(()),
                None if roles.may_serve_some() => Ok(()),
                Some(pool) => {
                    Err(format!("it is no element of pool {pool:?}: its certificate names {roles}"))
                }
                None => Err(format!("it is no element: its certificate names {roles}")),
            }
        });
        let carrier = Carrier::dialled(socket, &self.security, purpose, judge).map_err(Untrue::Tls)?;
        let stop = || entry.readiness().check_open();
        let most = if self.security.mode() == Mode::Allow { PERHAPS } else { PROOF };
        let deadline = deadline.min(Deadline::after(most));
        let patience = Patience::new(deadline, &entry.readiness().waiters, &stop);
        while !carrier.prove().map_err(Untrue::Tls)? {
            let ready = match carrier.is_holding() {
                true => patience.writable(carrier.as_fd()),
                false => patience.readable(carrier.as_fd()),
            };
            match ready {
                Ok(true) | Err(SocketError::Interrupted) => {}
                Ok(false) => return Err(Untrue::Call(SocketError::TimedOut)),
                Err(error) => return Err(Untrue::Call(error)),
            }
        }
        Ok(carrier)
    }

    /// A descriptor for TCP stays with TCP, one for SCTP reaches what the settings allow.
    fn may_use(&self, entry: &Entry, protocol: LinkProtocol) -> bool {
        entry.protocol <= protocol && self.protocols.contains(&protocol)
    }

    fn known(&self, entry: &Entry) -> &'static str {
        let may = |protocol| self.may_use(entry, protocol);
        match (may(LinkProtocol::Sctp), may(LinkProtocol::Tcp)) {
            (true, true) => "SCTP or TCP",
            (true, false) => "SCTP",
            _ => "TCP",
        }
    }

    fn settle(
        &self,
        entry: &Arc<Entry>,
        session: &Arc<Session>,
        handle: &PoolHandle,
        element: &PoolElement,
        conn: Arc<Conn>,
        how: Move,
    ) -> Result<()> {
        let generation = match session.moved(conn, element.id, how.failover) {
            Ok(generation) => generation,
            Err(error) => {
                session.lose();
                return Err(error);
            }
        };
        let watcher = Gone { session: Arc::downgrade(session), generation };
        let watch = self.directory().watch(handle, element.id, Arc::new(watcher));
        if let Some(user) = session.as_user() {
            *user.watch.lock() = Some(watch);
        }
        // Whoever closed the descriptor meanwhile did not know of this connection.
        entry.readiness().check_open().inspect_err(|_| session.close())
    }
}

/// Why there is no TLS with an element.
enum Untrue {
    /// We and it can't agree on whom to believe.
    Tls(Failure),
    /// There was no time for it.
    Call(SocketError),
}

/// An element is not used because of a certificate, its or ours. Others may see that differently, so nobody is told
/// but who asks.
pub(super) fn distrust(handle: &PoolHandle, id: PeId, at: Option<SocketAddr>, why: &str) {
    let (host, at) = (at.map(|at| at.ip()), show::at(at));
    why::refused(format_args!("element {id}{at} of pool {handle:?}: {why}"));
    SESSIONS.note(
        "an element is not used",
        host,
        format_args!("element {id}{at} of {handle:?} is not used: {why}"),
    );
}

/// Associates with the host that has all of `addresses`.
fn associate(
    entry: &Entry,
    addresses: impl Iterator<Item = SocketAddr>,
    deadline: Deadline,
    spare: Option<Endpoint>,
) -> Result<SctpSocket> {
    let addresses: Vec<SocketAddr> = addresses.collect();
    let fits = |socket: &SctpSocket| socket.is_v6() || addresses.iter().all(SocketAddr::is_ipv4);
    let socket = match spare {
        Some(Endpoint::Sctp(socket)) if fits(&socket) => socket,
        _ => Endpoint::sctp_for(entry.domain, &addresses, &entry.base.parameters.lock())?,
    };
    socket.connect(&addresses).map_err(refused)?;
    let stop = || entry.readiness().check_open();
    let patience = Patience::new(deadline, &entry.readiness().waiters, &stop);
    loop {
        match patience.writable(socket.as_fd()) {
            Ok(true) if socket.finish_connect().map_err(refused)? => return Ok(socket),
            Ok(true) => {}
            Ok(false) => return Err(SocketError::TimedOut),
            Err(SocketError::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// An association that can't be: refused, unless the system says why.
fn refused(error: io::Error) -> SocketError {
    if error.raw_os_error().is_some() { error.into() } else { SocketError::Refused }
}

/// Dials one address beside the other, until one answers.
fn dial_any(
    entry: &Entry,
    addresses: impl Iterator<Item = SocketAddr>,
    deadline: Deadline,
    spare: Option<Endpoint>,
) -> Result<OwnedFd> {
    let mut spare = spare.and_then(|endpoint| match endpoint {
        Endpoint::Tcp(socket) => Some(socket.into_inner()),
        Endpoint::Sctp(_) => None,
    });
    let mut addresses = addresses.peekable();
    if addresses.peek().is_none() {
        return Err(SocketError::NoAddress);
    }
    let mut dials = Dials::new(addresses, wait::now());
    let stop = || entry.readiness().check_open();
    let patience = Patience::new(deadline, &entry.readiness().waiters, &stop);
    loop {
        let connected = dials.step(wait::now(), |address| {
            let fits = |socket: &OwnedFd| {
                stream::local_address(socket.as_fd()).is_ok_and(|local| local.is_ipv4() == address.is_ipv4())
            };
            match spare.take_if(|socket| fits(socket)) {
                Some(socket) => stream::dial_with(socket, address),
                None => stream::dial(address),
            }
        });
        if let Some(socket) = connected? {
            return Ok(socket);
        }
        let next = dials.due().map_or(Deadline::Never, Deadline::At);
        let sockets: Vec<_> = dials.sockets().collect();
        match patience.any_ready(&sockets, PollFlags::POLLOUT, next) {
            Ok(false) if patience.deadline().passed() => return Err(SocketError::TimedOut),
            // Connections go on being made; so do we.
            Ok(_) | Err(SocketError::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}
