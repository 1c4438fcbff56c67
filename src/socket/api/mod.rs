//! The whole RSerPool socket API as safe Rust: [`Library`]. The C functions of `ffi` only convert their arguments.
//!
//! | file | what |
//! |---|---|
//! | `mod` | descriptors, addresses, registration, data, mapped numbers, options |
//! | `basic` | elements and resolutions without descriptors |
//! | `connect` | from a pool handle to a connection with one of its elements; failovers |
//! | `sendto` | messages without a session: to a pool, an element, all of them, an address |
//! | `poll` | poll(2) over RSerPool descriptors and others |
//! | `waitset` | many descriptors waited for at once |
//! | `report` | what status reports say of the sessions |
//! | `fork` | knowing a forked child |

pub(crate) mod basic;
mod connect;
pub(crate) mod fork;
pub(crate) mod poll;
mod report;
mod sendto;
mod waitset;

use crate::machine::seal::CookieKey;
use crate::machine::{LinkProtocol, client};
use crate::runtime::{Answer, Directory, Runtime, SessionSecurity, Settings};
use crate::socket::channel::conn::Conn;
use crate::socket::channel::linger::Linger;
use crate::socket::channel::parameters::{DEFAULT_PARAMETERS, SessionParameters};
use crate::socket::descriptor::base::Base;
use crate::socket::descriptor::door::{Door, Doorkeeper};
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::entry::{Entry, EntryRole, Style};
use crate::socket::descriptor::listener::Listener;
use crate::socket::descriptor::many::Many;
use crate::socket::descriptor::strangers::LISTENER;
use crate::socket::descriptor::table::Table;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::Readiness;
use crate::socket::readiness::wait::Deadline;
use crate::socket::readiness::waitset::WaitSet;
use crate::socket::session::pool::{Circle, PoolSide};
use crate::socket::session::told::{ConnectOptions, Received, Room, SendOptions, SessionId};
use crate::socket::session::{Outlet, Session};
use crate::transport::allow::Networks;
use crate::transport::descriptors::{Held, eventfd, hold};
use crate::transport::sctp;
use crate::transport::sctp_socket::send_flags;
use crate::transport::tls::Mode;
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, Transport, TransportUse};
use connect::Move;
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::EventFd;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What to register (`rsp_register`).
#[derive(Debug, Clone)]
pub struct Registration {
    /// Pool handle.
    pub handle: PoolHandle,
    /// Policy and values.
    pub policy: Policy,
    /// `TAG_PoolElement_Identifier`; `None`: random.
    pub id: Option<PeId>,
    /// Re-registration interval; registration life is three times that.
    pub interval: Duration,
    /// Block for the registrar's answer.
    pub wait: bool,
    /// `REGF_DAEMONMODE`: without a usable local address, register as soon as there is one.
    pub daemon: bool,
    /// `TAG_PoolElement_Advertise`: `host[:port]` where users reach it; `None`: as before, at first the process's setting.
    pub advertise: Option<String>,
}

/// Users who may wait at an element that nobody called [`Library::listen`] for.
const BACKLOG: i32 = 128;

/// Descriptors that share one eventfd. Nested in the program's own epoll instances, the kernel allows a
/// file 100 ways to wake somebody three levels up; this stays below.
const BEACON_SHARE: usize = 64;

/// The RSerPool socket API of one process.
#[derive(Debug)]
pub struct Library {
    directory: Arc<dyn Directory>,
    /// What sessions may run over, best first; only what the kernel has.
    protocols: Vec<LinkProtocol>,
    table: Arc<Table<Arc<Entry>>>,
    wait_sets: Table<Arc<WaitSet>>,
    beacons: Table<Arc<Held<EventFd>>>,
    making_beacon: Mutex<()>,
    /// Mapped numbers and the system descriptors behind them.
    aliases: RwLock<BTreeMap<RawFd, RawFd>>,
    linger: Arc<Linger>,
    doorkeeper: Doorkeeper,
    /// From where sessions are taken.
    allowed: Arc<Networks>,
    /// What sessions over TCP prove themselves by.
    security: Arc<SessionSecurity>,
    process: fork::Process,
    /// What elements sign their cookies with.
    pub(super) cookie_key: Option<CookieKey>,
    /// The last element that was registered: users of this process show its pool to the elements that they talk to.
    own: Mutex<Weak<PoolSide>>,
}

impl Library {
    /// Starts the event thread.
    pub fn start(settings: Settings) -> io::Result<Library> {
        let (mut protocols, allowed) = (settings.protocols.clone(), Arc::new(settings.allow.clone()));
        let cookie_key = settings.cookie_key.clone();
        let runtime = Runtime::start(settings)?;
        let security = runtime.security().clone();
        if security.mode() == Mode::Require {
            // There is no TLS over it.
            protocols.retain(|protocol| *protocol != LinkProtocol::Sctp);
        }
        let directory = Arc::new(runtime.clone());
        let library = Library { allowed, cookie_key, ..Library::with_directory(directory, &protocols) };
        let library = library.secured(security);
        runtime.set_sessions(Box::new(report::SessionReporter(Arc::downgrade(&library.table))));
        Ok(library)
    }

    /// Sockets over any directory. `protocols`: what sessions may run over, where the kernel has it.
    pub fn with_directory(directory: Arc<dyn Directory>, protocols: &[LinkProtocol]) -> Library {
        let has = |protocol: &LinkProtocol| *protocol == LinkProtocol::Tcp || sctp::available();
        Library {
            directory,
            protocols: protocols.iter().copied().filter(has).collect(),
            table: Arc::new(Table::new()),
            wait_sets: Table::new(),
            beacons: Table::new(),
            making_beacon: Mutex::new(()),
            aliases: RwLock::new((0..3).map(|standard| (standard, standard)).collect()),
            linger: Arc::default(),
            doorkeeper: Doorkeeper::default(),
            allowed: Arc::default(),
            security: Arc::default(),
            process: fork::Process::this(),
            cookie_key: None,
            own: Mutex::default(),
        }
    }

    /// The same, with sessions that prove themselves by this.
    pub fn secured(self, security: Arc<SessionSecurity>) -> Library {
        Library { security, ..self }
    }

    /// Closes every descriptor, deregisters every element, ends the event thread. In a forked child it does
    /// nothing: all that belongs to the parent.
    pub fn shutdown(&self) {
        if self.is_forked() {
            return;
        }
        for number in self.table.numbers() {
            if let Some(entry) = self.table.take(number) {
                self.close_entry(&entry, false);
            }
        }
        self.doorkeeper.shutdown();
        self.linger.shutdown();
        self.directory.shutdown();
        for set in self.wait_sets.numbers() {
            self.wait_sets.take(set);
        }
        for share in self.beacons.numbers() {
            self.beacons.take(share);
        }
    }

    /// Whether the event thread is there. Without it, every call that needs it is EACCES.
    pub fn is_alive(&self) -> bool {
        self.directory.is_alive()
    }

    /// Somebody closed the library's descriptors: their numbers may be others' by now. This is the end of the event
    /// thread; the library must be forgotten, neither shut down nor dropped.
    pub fn is_robbed(&self) -> bool {
        self.directory.is_robbed()
    }

    /// Whether this process is a fork of the one that started the library. Every call is EACCES then,
    /// until the child has a library of its own; this one must be forgotten, not dropped.
    pub fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    pub(super) fn check_process(&self) -> Result<()> {
        if self.is_forked() { Err(SocketError::Forked) } else { Ok(()) }
    }

    /// Where elements are registered and resolved.
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    // ----- descriptors ---------------------------------------------------------------------------

    pub(super) fn entry(&self, sd: RawFd) -> Result<Arc<Entry>> {
        self.check_process()?;
        let entry = usize::try_from(sd).ok().and_then(|number| self.table.get(number));
        entry.ok_or(SocketError::Closed)
    }

    /// What a descriptor is used for: all that calls for data need of it.
    fn role(&self, sd: RawFd) -> Result<EntryRole> {
        self.check_process()?;
        let role = usize::try_from(sd).ok().and_then(|number| self.table.look(number, |entry| entry.role()));
        role.ok_or(SocketError::Closed)
    }

    /// A new descriptor. `domain`: 0, AF_INET, AF_INET6; `protocol`: IPPROTO_SCTP or 0: the best that is
    /// allowed and the kernel has (its users may connect over any); IPPROTO_TCP. Errors: EAFNOSUPPORT,
    /// EPROTONOSUPPORT (also: not allowed, or not in the kernel), EMFILE, ENFILE, ENOMEM.
    pub fn socket(&self, domain: i32, style: Style, protocol: i32) -> Result<RawFd> {
        self.check_process()?;
        if ![0, libc::AF_INET, libc::AF_INET6].contains(&domain) {
            return Err(SocketError::UnsupportedFamily);
        }
        let protocol = match protocol {
            0 | libc::IPPROTO_SCTP => self.protocols.first().copied(),
            libc::IPPROTO_TCP => Some(LinkProtocol::Tcp).filter(|tcp| self.protocols.contains(tcp)),
            _ => None,
        };
        let protocol = protocol.ok_or(SocketError::UnsupportedTransport)?;
        let role = EntryRole::Fresh { endpoint: None, bound: false };
        let base = self.new_base(DEFAULT_PARAMETERS)?;
        self.publish(Arc::new(Entry::new(base, style, domain, protocol, role)))
    }

    fn new_base(&self, parameters: SessionParameters) -> Result<Arc<Base>> {
        let epoll = self.unmapped(Readiness::new_epoll()?)?;
        let beacon = self.beacon(epoll.0.as_raw_fd() as usize)?;
        let readiness = Arc::new(Readiness::new(epoll, beacon));
        let (linger, allowed, security) = (&self.linger, &self.allowed, &self.security);
        Ok(Arc::new(Base::new(readiness, linger.clone(), parameters, allowed.clone(), security.clone())))
    }

    /// Calls on the descriptor wait no longer (O_NONBLOCK).
    pub fn set_nonblocking(&self, sd: RawFd) -> Result<()> {
        self.entry(sd)?.readiness().set_nonblocking()
    }

    /// The number becomes known.
    fn publish(&self, entry: Arc<Entry>) -> Result<RawFd> {
        let number = entry.number();
        let stale = self.table.set(number as usize, Some(entry)).map_err(|()| SocketError::NoNumber)?;
        if let Some(stale) = stale {
            log::warn!("descriptor {number} was closed without rsp_close");
            stale.readiness().disown();
            self.close_entry(&stale, true);
        }
        Ok(number)
    }

    /// An epoll instance whose number is not that of a mapped descriptor.
    fn unmapped(&self, epoll: Held<Epoll>) -> Result<Held<Epoll>> {
        let mut taken = Vec::new();
        let mut epoll = epoll;
        while self.aliases.read().contains_key(&epoll.0.as_raw_fd()) {
            let other = hold(Epoll(epoll.0.try_clone()?));
            taken.push(std::mem::replace(&mut epoll, other));
        }
        Ok(epoll)
    }

    fn beacon(&self, number: usize) -> Result<Arc<Held<EventFd>>> {
        let share = number / BEACON_SHARE;
        if let Some(beacon) = self.beacons.get(share) {
            return Ok(beacon);
        }
        let _turn = self.making_beacon.lock();
        if let Some(beacon) = self.beacons.get(share) {
            return Ok(beacon);
        }
        let beacon = Arc::new(eventfd(1)?);
        self.beacons.set(share, Some(beacon.clone())).map_err(|()| SocketError::NoNumber)?;
        Ok(beacon)
    }

    /// Closes a descriptor: deregisters its element, ends its sessions in order. Calls that wait on it end
    /// with EBADF. A mapped number: closes the system descriptor behind it.
    pub fn close(&self, sd: RawFd) -> Result<()> {
        self.check_process()?;
        if let Some(entry) = usize::try_from(sd).ok().and_then(|number| self.table.take(number)) {
            self.close_entry(&entry, true);
            return Ok(());
        }
        if usize::try_from(sd).ok().and_then(|number| self.wait_sets.take(number)).is_some() {
            return Ok(());
        }
        let system = self.aliases.write().remove(&sd).ok_or(SocketError::Closed)?;
        Ok(nix::unistd::close(system)?)
    }

    /// `wait`: for the registrar's answer. At the end of everything the directory waits for all at once.
    fn close_entry(&self, entry: &Entry, wait: bool) {
        entry.readiness().close();
        if let EntryRole::Single(session) = entry.role() {
            let _ = session.watch(None);
        }
        let leaving = entry.base.pool.lock().take().map(|pool| (pool.deregister(), pool));
        if let Some((answer, pool)) = leaving
            && wait
        {
            pool.gone(answer.and_then(Answer::wait));
        }
        match entry.role() {
            EntryRole::Single(session) => session.close(),
            EntryRole::Many(many) => many.close(),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => {}
        }
        // The sockets close with the last call that uses them.
        *entry.role.write() = EntryRole::Fresh { endpoint: None, bound: false };
    }

    // ----- addresses and registration ------------------------------------------------------------

    /// Binds to addresses that share the first one's port; 0: the kernel's choice. No address: any. TCP
    /// can't bind to several: any, with the first one's port.
    pub fn bind(&self, sd: RawFd, addresses: &[SocketAddr]) -> Result<()> {
        let entry = self.entry(sd)?;
        let mut role = entry.role.write();
        let EntryRole::Fresh { bound: false, .. } = *role else { return Err(SocketError::Misused) };
        let endpoint = Endpoint::bind(entry.protocol, entry.domain, addresses)?;
        *role = EntryRole::Fresh { endpoint: Some(Arc::new(endpoint)), bound: true };
        Ok(())
    }

    /// The bound socket of a descriptor, binding it to any address if need be.
    fn bound(&self, entry: &Entry) -> Result<Arc<Endpoint>> {
        let mut role = entry.role.write();
        match &*role {
            EntryRole::Fresh { endpoint: Some(endpoint), bound: true } => return Ok(endpoint.clone()),
            EntryRole::Fresh { .. } => {}
            _ => return Err(entry.readiness().refusal(SocketError::Misused)),
        }
        let endpoint = Arc::new(Endpoint::bind(entry.protocol, entry.domain, &[])?);
        *role = EntryRole::Fresh { endpoint: Some(endpoint.clone()), bound: true };
        Ok(endpoint)
    }

    /// Accepts sessions; called again: changes the backlog.
    pub fn listen(&self, sd: RawFd, backlog: i32) -> Result<()> {
        let entry = self.entry(sd)?;
        match entry.role() {
            EntryRole::Listener(listener) => return Ok(listener.endpoint().listen(backlog)?),
            EntryRole::Many(many) => {
                return many.listen(backlog, || self.door(&entry, many.endpoint()));
            }
            EntryRole::Single(_) => return Err(SocketError::Misused),
            EntryRole::Fresh { .. } => {}
        }
        let endpoint = self.bound(&entry)?;
        endpoint.set_parameters(&entry.base.parameters.lock());
        endpoint.listen(backlog)?;
        let mut role = entry.role.write();
        let door = self.door(&entry, &endpoint)?;
        if door.is_none() {
            entry.readiness().add(endpoint.as_fd(), LISTENER)?;
        }
        *role = match entry.style {
            Style::Stream => EntryRole::Listener(Arc::new(Listener::new(entry.base.clone(), endpoint, door))),
            Style::SeqPacket => EntryRole::Many(Arc::new(Many::new(entry.base.clone(), endpoint, door))),
        };
        Ok(())
    }

    /// Where those who connect prove themselves, if they have to.
    fn door(&self, entry: &Entry, endpoint: &Arc<Endpoint>) -> Result<Option<Arc<Door>>> {
        let door = Door::open(&entry.base, endpoint)?;
        if let Some(door) = &door {
            self.doorkeeper.keep(door)?;
        }
        Ok(door)
    }

    /// The next session, on a descriptor of its own. `None`: wait for ever. EAGAIN when time is over;
    /// EINVAL when not listening, EOPNOTSUPP on a one-to-many descriptor; EMFILE, ENFILE, EINTR.
    pub fn accept(&self, sd: RawFd, timeout: Option<Duration>) -> Result<RawFd> {
        let entry = self.entry(sd)?;
        let listener = match entry.role() {
            EntryRole::Listener(listener) => listener,
            EntryRole::Many(_) => return Err(SocketError::Unsupported),
            _ => return Err(entry.readiness().refusal(SocketError::Misused)),
        };
        let conn = listener.accept(Deadline::or_never(timeout))?;
        let made = self.accepted(&entry, &conn).and_then(|new| self.publish(new));
        made.inspect_err(|_| listener.put_back(conn))
    }

    /// A descriptor for a connection that `listener` accepted.
    fn accepted(&self, listener: &Entry, conn: &Arc<Conn>) -> Result<Arc<Entry>> {
        let (parameters, pool) = (*listener.base.parameters.lock(), listener.base.pool.lock().clone());
        let base = self.new_base(parameters)?;
        let home = Outlet::Alone(base.readiness.clone());
        let session = Session::element(1, home, self.linger.clone(), conn.clone(), pool);
        base.readiness.add(conn.as_fd(), session.id as u64)?;
        session.adopt(conn);
        let role = EntryRole::Single(Arc::new(session));
        Ok(Arc::new(Entry::new(base, Style::Stream, listener.domain, listener.protocol, role)))
    }

    /// Registers an element at the descriptor's address (binding it and listening if need be), or changes one's
    /// policy values, which never waits. `Ok` also when no registrar answers or one refuses: the event thread goes
    /// on trying. EBADF: registered under another handle, or closed meanwhile. EADDRNOTAVAIL: no usable
    /// address (not with `daemon`).
    pub fn register(&self, sd: RawFd, registration: Registration) -> Result<()> {
        let entry = self.entry(sd)?;
        // Until it is asked for: who closes the descriptor takes the element out after that.
        let mut pool = entry.base.pool.lock();
        entry.readiness().check_open()?;
        let id = match &*pool {
            Some(pool) if pool.handle != registration.handle => return Err(SocketError::NotRegistered),
            Some(pool) => pool.id,
            None => registration.id.filter(|&id| id != PeId(0)).unwrap_or_else(random_id),
        };
        let endpoint = self.endpoint(&entry)?;
        let known = endpoint.transport()?;
        if known.is_none() && !registration.daemon {
            return Err(SocketError::NoAddress);
        }
        // An element that refuses everybody is of no use.
        if matches!(entry.role(), EntryRole::Fresh { .. }) {
            self.listen(sd, BACKLOG)?;
        }
        // Before anything waits for a registrar: from now on there may be other addresses.
        let at: Weak<Endpoint> = Arc::downgrade(&endpoint);
        self.directory.follow(&registration.handle, id, at, registration.advertise);
        // One that can't be reached is registered as soon as it can.
        let nowhere = || Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 0, Vec::new());
        let transport = endpoint.transport()?.or(known).unwrap_or_else(nowhere);
        let handle = registration.handle;
        let blocks = entry.readiness().check_blocking().is_ok();
        let wait = registration.wait && blocks && pool.is_none() && !transport.addresses().is_empty();
        let side = pool.get_or_insert_with(|| {
            let seal = self.cookie_key.as_ref().map(|key| key.seal(&handle));
            Arc::new(PoolSide::new(handle.clone(), id, self.directory.clone(), seal))
        });
        *self.own.lock() = Arc::downgrade(side);
        let interval = registration.interval;
        let life = u32::try_from(interval.as_millis().saturating_mul(3)).unwrap_or(u32::MAX);
        let home = Default::default();
        let element = PoolElement { id, home, life, transport, policy: registration.policy, asap: None };
        let request = client::Registration { handle: handle.clone(), element, interval };
        let answer = self.directory.register(request);
        drop(pool);
        let result = match wait {
            true => {
                answer.and_then(|answer| answer.wait_while(&|| !entry.readiness().is_closed())).map(|_| ())
            }
            false => answer.map(|_| ()),
        };
        if wait {
            // Whatever the answer: closing takes the element out, which ends a registration that is under way.
            entry.readiness().check_open()?;
        }
        if let Err(error) = result {
            log::warn!("registration of {id} in pool {handle:?}: {error:?}");
        }
        Ok(())
    }

    /// Where the element of a descriptor is reached.
    fn endpoint(&self, entry: &Entry) -> Result<Arc<Endpoint>> {
        match entry.role() {
            EntryRole::Listener(listener) => Ok(listener.endpoint().clone()),
            EntryRole::Many(many) => Ok(many.endpoint().clone()),
            _ => self.bound(entry),
        }
    }

    /// Takes the element out of its pool; its sessions go on. EBADF when not registered, or closed meanwhile.
    pub fn deregister(&self, sd: RawFd, wait: bool) -> Result<()> {
        let entry = self.entry(sd)?;
        let leaving = entry.base.pool.lock().take().map(|pool| (pool.deregister(), pool));
        let (answer, pool) = leaving.ok_or(SocketError::NotRegistered)?;
        let result = match wait && entry.readiness().check_blocking().is_ok() {
            true => answer.and_then(|answer| answer.wait_while(&|| !entry.readiness().is_closed())),
            false => answer.map(|_| ()),
        };
        if result.is_err() {
            entry.readiness().check_open()?;
        }
        pool.gone(result);
        Ok(())
    }

    /// Own pool handle and ID. EBADF when not registered.
    pub fn local_name(&self, sd: RawFd) -> Result<(PoolHandle, PeId)> {
        let entry = self.entry(sd)?;
        let pool = entry.base.pool.lock();
        pool.as_ref().map(|pool| (pool.handle.clone(), pool.id)).ok_or(SocketError::NotRegistered)
    }

    /// The connected session's pool handle (`None` on accepted descriptors) and element (0 before there is
    /// one). EBADF on a descriptor that has no session of its own.
    pub fn peer_name(&self, sd: RawFd) -> Result<(Option<PoolHandle>, PeId)> {
        let session = self.single(&*self.entry(sd)?)?;
        Ok((session.as_user().and_then(|user| user.handle.clone()), session.pe_id()))
    }

    // ----- users' sessions -----------------------------------------------------------------------

    pub(super) fn single(&self, entry: &Entry) -> Result<Arc<Session>> {
        match entry.role() {
            EntryRole::Single(session) => Ok(session),
            _ => Err(SocketError::NoSession),
        }
    }

    /// Connects to an element of a pool. EBADF: no descriptor, or it has sessions already. After any
    /// other error (ENOENT: the pool is empty; EIO: no resolution; EINVAL: no pool handle; else why the last
    /// element could not be reached) the session exists and has failed: its descriptor is readable and
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

    /// Leaves the element and connects to the next one. EBADF: not connected by [`Library::connect`].
    /// After any other error the session has failed again: after the retry delay ENOENT (the pool is
    /// empty), EIO (no resolution), or why the last element could not be reached; at once EINVAL (no
    /// pool handle).
    pub fn force_failover(&self, sd: RawFd, unreachable: bool, stale: Duration) -> Result<()> {
        let entry = self.entry(sd)?;
        let session = self.single(&entry)?;
        self.move_session(&entry, &session, Move { stale, failover: true, unreachable }, None)
    }

    /// Whether the connected session holds a cookie. EBADF without one.
    pub fn has_cookie(&self, sd: RawFd) -> Result<bool> {
        Ok(self.single(&*self.entry(sd)?)?.has_cookie())
    }

    // ----- data ----------------------------------------------------------------------------------

    /// Sends a message, whole: what the kernel does not take at once follows by itself. EAGAIN: nothing was
    /// taken in time; EIO: the session has failed; EBADF: no such session; EINVAL: no data, no such stream;
    /// EMSGSIZE: over TCP, more than 16 MiB without a time-out, over SCTP, more than the send buffer can be
    /// made to hold; EINTR; others end the session.
    pub fn send(&self, sd: RawFd, data: &[u8], options: SendOptions) -> Result<usize> {
        let many = match self.role(sd)? {
            EntryRole::Single(session) => return session.send(data, &options),
            EntryRole::Many(many) => many,
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => return Err(SocketError::NoSession),
        };
        let session = many.session(options.session).ok_or(SocketError::NoSession)?;
        let sent = session.send(data, &options);
        if options.flags & send_flags::ABORT != 0 && sent.is_ok() {
            many.remove(&session, false);
        }
        sent
    }

    /// Sends an element's cookie to its user; `timeout` `None`: without waiting. EINVAL: no such session, or
    /// not an element's; EMSGSIZE: more than 65 524 bytes; EAGAIN, EINTR.
    pub fn send_cookie(
        &self,
        sd: RawFd,
        cookie: &[u8],
        session: SessionId,
        timeout: Option<Duration>,
    ) -> Result<usize> {
        let entry = self.entry(sd)?;
        let session = match entry.role() {
            EntryRole::Single(session) => Some(session),
            EntryRole::Many(many) => many.session(session),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => None,
        };
        let session = session
            .filter(|session| session.as_user().is_none())
            .ok_or_else(|| entry.readiness().refusal(SocketError::Misused))?;
        session.send_cookie(cookie, Deadline::or_now(timeout))?;
        Ok(cookie.len())
    }

    /// Receives: notifications and cookie echoes first, then data, then what was lost. `timeout` `None`: one
    /// non-blocking attempt. A message larger than `buffer` is delivered in parts. EAGAIN: nothing came;
    /// ENOTCONN: nothing can come; EINVAL: a notification, and less than `NOTIFICATION_ROOM` for it; EINTR.
    pub fn recv(&self, sd: RawFd, buffer: &mut [u8], timeout: Option<Duration>) -> Result<Received> {
        self.receive(sd, &self.role(sd)?, buffer, &mut Deadline::or_now(timeout))
    }

    fn receive(
        &self,
        sd: RawFd,
        role: &EntryRole,
        buffer: &mut [u8],
        deadline: &mut Deadline,
    ) -> Result<Received> {
        match role {
            EntryRole::Single(session) => session.receive(buffer, deadline),
            EntryRole::Many(many) => many.receive(buffer, deadline),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => {
                Err(self.entry(sd)?.readiness().refusal(SocketError::NotConnected))
            }
        }
    }

    /// After [`Library::recv`] delivered a part of a message or cookie echo (`end` false): more of it, and
    /// nothing else. EAGAIN: not in time; ECONNRESET: it never comes; EBADF: no such session.
    pub fn recv_rest(
        &self,
        sd: RawFd,
        session: SessionId,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Received> {
        self.receive_rest(&self.role(sd)?, session, buffer, &mut Deadline::or_now(timeout))
    }

    fn receive_rest(
        &self,
        role: &EntryRole,
        session: SessionId,
        buffer: &mut [u8],
        deadline: &mut Deadline,
    ) -> Result<Received> {
        match role {
            EntryRole::Single(session) => session.receive_rest(buffer, deadline),
            EntryRole::Many(many) => {
                let session = many.session(session).ok_or(SocketError::NoSession)?;
                session.receive_rest(buffer, deadline)
            }
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => Err(SocketError::NoSession),
        }
    }

    /// [`Library::recv`] until the message is whole or `room` full: what is left of `timeout` is for the rest of it.
    /// If that fails, what came is delivered (`end` false), and the next call meets the failure again.
    pub fn recv_full(&self, sd: RawFd, room: &mut Room<'_>, timeout: Option<Duration>) -> Result<Received> {
        let role = self.role(sd)?;
        let mut deadline = Deadline::or_now(timeout);
        let mut whole = self.receive(sd, &role, room.from(0), &mut deadline)?;
        let most = room.length();
        while let Received::Data { length, end: end @ false, session, .. }
        | Received::CookieEcho { length, end: end @ false, session } = &mut whole
            && (1..most).contains(length)
        {
            match self.receive_rest(&role, *session, room.from(*length), &mut deadline) {
                Ok(
                    Received::Data { length: part @ 1.., end: last, .. }
                    | Received::CookieEcho { length: part @ 1.., end: last, .. },
                ) => {
                    *length += part;
                    *end = last;
                }
                _ => break,
            }
        }
        Ok(whole)
    }

    // ----- mapped descriptors --------------------------------------------------------------------

    fn alias(&self, sd: RawFd) -> Option<RawFd> {
        self.aliases.read().get(&sd).copied()
    }

    /// Gives a system descriptor a number here: `to`, or its own, which it may have already. EINVAL: `system`
    /// is none, or one of ours; EMFILE: the number is taken.
    pub fn map(&self, system: RawFd, to: Option<RawFd>) -> Result<RawFd> {
        self.check_process()?;
        let number = to.unwrap_or(system);
        if system < 0 || number < 0 || self.entry(system).is_ok() {
            return Err(SocketError::Misused);
        }
        let mut aliases = self.aliases.write();
        if to.is_none() && aliases.get(&number) == Some(&system) {
            return Ok(number);
        }
        if self.entry(number).is_ok() || aliases.contains_key(&number) {
            return Err(SocketError::NoNumber);
        }
        aliases.insert(number, system);
        Ok(number)
    }

    /// Forgets a mapped number; the system descriptor stays open. EBADF: not mapped.
    pub fn unmap(&self, sd: RawFd) -> Result<()> {
        self.check_process()?;
        self.aliases.write().remove(&sd).map(|_| ()).ok_or(SocketError::Closed)
    }

    /// The system descriptor behind a mapped number; `None` if `sd` is an RSerPool descriptor; EBADF if
    /// neither.
    pub fn mapped(&self, sd: RawFd) -> Result<Option<RawFd>> {
        match self.entry(sd) {
            Ok(_) => Ok(None),
            Err(error) => self.alias(sd).map(Some).ok_or(error),
        }
    }

    // ----- options -------------------------------------------------------------------------------

    /// The current system socket, for option pass-through; made if there is none yet (the first
    /// connection uses it). EBADF; ENOTCONN while a session has no connection.
    pub fn system_socket(&self, sd: RawFd) -> Result<RawFd> {
        let entry = self.entry(sd)?;
        if let Some(socket) = entry.system_socket() {
            return Ok(socket);
        }
        // Before the role: whoever changes them holds them, and looks at the role.
        let parameters = *entry.base.parameters.lock();
        let mut role = entry.role.write();
        let EntryRole::Fresh { endpoint, .. } = &mut *role else { return Err(SocketError::NotConnected) };
        if endpoint.is_none() {
            let unbound = Endpoint::unbound(entry.protocol, entry.domain)?;
            // What the program sets comes after, and counts.
            unbound.set_parameters(&parameters);
            *endpoint = Some(Arc::new(unbound));
        }
        let endpoint = endpoint.as_ref().ok_or(SocketError::NotConnected)?;
        Ok(endpoint.as_fd().as_raw_fd())
    }

    /// Changes what is not 0 in `change`; what holds now. For this descriptor's sessions and those it will
    /// have.
    pub fn session_parameters(&self, sd: RawFd, change: SessionParameters) -> Result<SessionParameters> {
        Ok(self.entry(sd)?.change_parameters(change))
    }

    /// Sets a session's status text, up to 127 bytes of it. EINVAL: no such session.
    pub fn set_status(&self, sd: RawFd, session: SessionId, text: &str) -> Result<()> {
        let session = match self.entry(sd)?.role() {
            EntryRole::Single(session) => Some(session),
            EntryRole::Many(many) => many.session(session),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => None,
        };
        let end = text.floor_char_boundary(127);
        session.ok_or(SocketError::Invalid)?.set_status(&text[..end]);
        Ok(())
    }
}

fn random_id() -> PeId {
    PeId(fastrand::u32(1..u32::MAX))
}
