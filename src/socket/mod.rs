//! Descriptors, blocking, time-outs, sessions: what happens on the caller's thread.
//!
//! [`Library`] is the whole RSerPool socket API as safe Rust; the C functions of `ffi` only convert
//! their arguments. A descriptor is the number of an epoll instance, so it is a real file descriptor:
//! readable exactly when `recv` or `accept` has something. Errors are [`io::Error`] with an errno.

mod addresses;
mod association;
mod blocking;
mod conn;
mod descriptor;
mod endpoint;
mod failover;
mod fork;
mod linger;
mod listener;
mod many;
mod poll;
mod pool;
mod receiver;
mod report;
mod sender;
mod session;
pub(crate) mod stranger;
mod table;
mod wait;
mod watch;

#[cfg(test)]
mod sctp_tests;
#[cfg(test)]
mod tests;

use crate::machine::{LinkProtocol, client};
use crate::runtime::{Answer, Directory, Runtime, Settings};
use crate::transport::sctp;
use crate::transport::sctp_socket::send_flags;
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, Transport, TransportUse};
use descriptor::{DEFAULT_PARAMETERS, Entry, LISTENER, Role};
use endpoint::Endpoint;
use failover::Move;
use linger::Linger;
use listener::Listener;
use many::Many;
use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Mutex, RwLock};
use pool::PoolSide;
use session::Session;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;
use table::Table;
use wait::{Deadline, errno};

/// `SOCK_STREAM` or `SOCK_SEQPACKET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One session per descriptor; no notifications.
    Stream,
    /// Many sessions per descriptor; notifications.
    SeqPacket,
}

/// A session's number on its descriptor (`rserpool_session_t`), from 1.
pub type SessionId = i32;

/// How to connect and fail over (tags of `rsp_connect_tags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// `TAG_RspSession_ConnectTimeout`, default 5 s.
    pub connect_timeout: Duration,
    /// `TAG_RspSession_HandleResolutionRetryDelay`, default 250 ms.
    pub retry_delay: Duration,
}

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
}

/// Options of one message to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// Which session; ignored on a connected descriptor.
    pub session: SessionId,
    /// Network byte order, as the C API has it; opaque here.
    pub ppid: u32,
    /// Stream number.
    pub stream: u16,
    /// Milliseconds; 0: for ever (SCTP partial reliability).
    pub time_to_live: u32,
    /// `SCTP_UNORDERED`, `SCTP_EOF`, `SCTP_ABORT`.
    pub flags: u16,
    /// `None`: non-blocking (the C API's time-outs up to 0).
    pub timeout: Option<Duration>,
}

/// A notification (`union rserpool_notification`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Notification {
    SessionAdd { session: SessionId },
    SessionRemove { session: SessionId },
    FailoverNecessary { session: SessionId, has_cookie: bool },
    FailoverComplete { session: SessionId, has_cookie: bool },
    Shutdown { session: SessionId },
}

/// What one receive call delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Application data.
    Data {
        /// Bytes written to the buffer.
        length: usize,
        /// Whether the message ends here (`MSG_EOR`).
        end: bool,
        /// Its session.
        session: SessionId,
        /// Network byte order.
        ppid: u32,
        /// On connected descriptors the element's ID, else 0.
        pe_id: PeId,
        /// Stream number.
        stream: u16,
    },
    /// A cookie echo of a failed-over session; as much as fits, `end` as for data.
    CookieEcho {
        /// Bytes written to the buffer.
        length: usize,
        /// Whether all of it was delivered.
        end: bool,
        /// Its session.
        session: SessionId,
    },
    /// A notification; nothing was written to the buffer.
    Notification(Notification),
    /// End of the session.
    End {
        /// Which one ended.
        session: SessionId,
    },
}

/// One entry of [`Library::poll`]; `events` and `revents` are poll(2)'s. Laid out as `struct pollfd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PollEntry {
    pub sd: RawFd,
    pub events: i16,
    pub revents: i16,
}

/// `struct rserpool_session_parameters`; 0 means "leave as it is".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionParameters {
    pub rto_initial: u32,
    pub rto_min: u32,
    pub rto_max: u32,
    pub assoc_max_rxt: u32,
    pub path_max_rxt: u32,
    pub hb_interval: u32,
}

/// Bytes of buffer that a notification takes (`union rserpool_notification`): with less, it stays.
pub const NOTIFICATION_ROOM: usize = 20;
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
    beacons: Table<Arc<EventFd>>,
    making_beacon: Mutex<()>,
    /// Mapped numbers and the system descriptors behind them.
    aliases: RwLock<BTreeMap<RawFd, RawFd>>,
    linger: Linger,
    /// For how long a receive may watch a connection before it sleeps.
    busy_poll: Duration,
    process: fork::Process,
}

#[allow(clippy::too_many_arguments)]
impl Library {
    /// Starts the event thread.
    pub fn start(settings: Settings) -> io::Result<Library> {
        let (protocols, busy_poll) = (settings.protocols.clone(), settings.busy_poll);
        let runtime = Runtime::start(settings)?;
        let mut library = Library::with_directory(Arc::new(runtime.clone()), &protocols);
        library.busy_poll = busy_poll;
        runtime.set_sessions(Box::new(report::Sessions(Arc::downgrade(&library.table))));
        Ok(library)
    }

    /// Sockets over any directory. `protocols`: what sessions may run over, where the kernel has it.
    pub fn with_directory(directory: Arc<dyn Directory>, protocols: &[LinkProtocol]) -> Library {
        let has = |protocol: &LinkProtocol| *protocol == LinkProtocol::Tcp || sctp::available();
        Library {
            directory,
            protocols: protocols.iter().copied().filter(has).collect(),
            table: Arc::new(Table::new()),
            beacons: Table::new(),
            making_beacon: Mutex::new(()),
            aliases: RwLock::new((0..3).map(|standard| (standard, standard)).collect()),
            linger: Linger::default(),
            busy_poll: Duration::ZERO,
            process: fork::Process::this(),
        }
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
        self.linger.shutdown();
        self.directory.shutdown();
        for share in self.beacons.numbers() {
            self.beacons.take(share);
        }
    }

    /// Whether this process is a fork of the one that started the library. Every call is EACCES then,
    /// until the child has a library of its own; this one must be forgotten, not dropped.
    pub fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    fn check_process(&self) -> io::Result<()> {
        if self.is_forked() { Err(errno(Errno::EACCES)) } else { Ok(()) }
    }

    /// Where elements are registered and resolved.
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    fn linger(&self) -> &Linger {
        &self.linger
    }

    // ----- descriptors ---------------------------------------------------------------------------

    fn entry(&self, sd: RawFd) -> io::Result<Arc<Entry>> {
        self.check_process()?;
        let entry = usize::try_from(sd).ok().and_then(|number| self.table.get(number));
        entry.ok_or_else(|| errno(Errno::EBADF))
    }

    /// A new descriptor. `domain`: 0, AF_INET, AF_INET6; `protocol`: IPPROTO_SCTP or 0: the best that is
    /// allowed and the kernel has (its users may connect over any); IPPROTO_TCP. Errors: EAFNOSUPPORT,
    /// EPROTONOSUPPORT (also: not allowed, or not in the kernel), EMFILE, ENFILE, ENOMEM.
    pub fn socket(&self, domain: i32, style: Style, protocol: i32) -> io::Result<RawFd> {
        self.check_process()?;
        if ![0, libc::AF_INET, libc::AF_INET6].contains(&domain) {
            return Err(errno(Errno::EAFNOSUPPORT));
        }
        let protocol = match protocol {
            0 | libc::IPPROTO_SCTP => self.protocols.first().copied(),
            libc::IPPROTO_TCP => Some(LinkProtocol::Tcp).filter(|tcp| self.protocols.contains(tcp)),
            _ => None,
        };
        let protocol = protocol.ok_or_else(|| errno(Errno::EPROTONOSUPPORT))?;
        let role = Role::Fresh { endpoint: None, bound: false };
        let entry = self.new_entry(domain, protocol, style, role, DEFAULT_PARAMETERS)?;
        self.publish(&entry)
    }

    fn new_entry(
        &self,
        domain: i32,
        protocol: LinkProtocol,
        style: Style,
        role: Role,
        parameters: SessionParameters,
    ) -> io::Result<Arc<Entry>> {
        let epoll = self.unmapped(Entry::new_epoll()?)?;
        let number = epoll.0.as_raw_fd() as usize;
        let beacon = self.beacon(number)?;
        Ok(Arc::new(Entry::new(epoll, beacon, style, domain, protocol, role, parameters, self.busy_poll)))
    }

    /// The number becomes known.
    fn publish(&self, entry: &Arc<Entry>) -> io::Result<RawFd> {
        let number = entry.number();
        let stale =
            self.table.set(number as usize, Some(entry.clone())).map_err(|()| errno(Errno::EMFILE))?;
        if let Some(stale) = stale {
            log::warn!("descriptor {number} was closed without rsp_close");
            stale.disown();
            self.close_entry(&stale, true);
        }
        Ok(number)
    }

    /// An epoll instance whose number is not that of a mapped descriptor.
    fn unmapped(&self, epoll: Epoll) -> io::Result<Epoll> {
        let mut taken = Vec::new();
        let mut epoll = epoll.0;
        while self.aliases.read().contains_key(&epoll.as_raw_fd()) {
            let other = epoll.try_clone()?;
            taken.push(std::mem::replace(&mut epoll, other));
        }
        Ok(Epoll(epoll))
    }

    fn beacon(&self, number: usize) -> io::Result<Arc<EventFd>> {
        let share = number / BEACON_SHARE;
        if let Some(beacon) = self.beacons.get(share) {
            return Ok(beacon);
        }
        let _turn = self.making_beacon.lock();
        if let Some(beacon) = self.beacons.get(share) {
            return Ok(beacon);
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let beacon = Arc::new(EventFd::from_value_and_flags(1, flags)?);
        self.beacons.set(share, Some(beacon.clone())).map_err(|()| errno(Errno::EMFILE))?;
        Ok(beacon)
    }

    /// Closes a descriptor: deregisters its element, ends its sessions in order. Calls that wait on it end
    /// with EBADF. A mapped number: closes the system descriptor behind it.
    pub fn close(&self, sd: RawFd) -> io::Result<()> {
        self.check_process()?;
        if let Some(entry) = usize::try_from(sd).ok().and_then(|number| self.table.take(number)) {
            self.close_entry(&entry, true);
            return Ok(());
        }
        let system = self.aliases.write().remove(&sd).ok_or_else(|| errno(Errno::EBADF))?;
        Ok(nix::unistd::close(system)?)
    }

    /// `wait`: for the registrar's answer. At the end of everything the directory waits for all at once.
    fn close_entry(&self, entry: &Entry, wait: bool) {
        entry.close();
        if let Role::Single(session) = entry.role() {
            session.call_back();
        }
        let leaving = entry.pool.lock().take().map(|pool| (pool.deregister(), pool));
        if let Some((answer, pool)) = leaving
            && wait
        {
            pool.gone(answer.and_then(Answer::wait));
        }
        match entry.role() {
            Role::Single(session) => session.close(&self.linger),
            Role::Many(many) => many.close(&self.linger),
            Role::Fresh { .. } | Role::Listener(_) => {}
        }
        // The sockets close with the last call that uses them.
        *entry.role.write() = Role::Fresh { endpoint: None, bound: false };
    }

    // ----- addresses and registration ------------------------------------------------------------

    /// Binds to addresses that share the first one's port; 0: the kernel's choice. No address: any. TCP
    /// can't bind to several: any, with the first one's port.
    pub fn bind(&self, sd: RawFd, addresses: &[SocketAddr]) -> io::Result<()> {
        let entry = self.entry(sd)?;
        let mut role = entry.role.write();
        let Role::Fresh { bound: false, .. } = *role else { return Err(errno(Errno::EINVAL)) };
        let endpoint = Endpoint::bind(entry.protocol, entry.domain, addresses)?;
        *role = Role::Fresh { endpoint: Some(Arc::new(endpoint)), bound: true };
        Ok(())
    }

    /// The bound socket of a descriptor, binding it to any address if need be.
    fn bound(&self, entry: &Entry) -> io::Result<Arc<Endpoint>> {
        let mut role = entry.role.write();
        match &*role {
            Role::Fresh { endpoint: Some(endpoint), bound: true } => return Ok(endpoint.clone()),
            Role::Fresh { .. } => {}
            _ => return Err(entry.refusal(Errno::EINVAL)),
        }
        let endpoint = Arc::new(Endpoint::bind(entry.protocol, entry.domain, &[])?);
        *role = Role::Fresh { endpoint: Some(endpoint.clone()), bound: true };
        Ok(endpoint)
    }

    /// Accepts sessions; called again: changes the backlog.
    pub fn listen(&self, sd: RawFd, backlog: i32) -> io::Result<()> {
        let entry = self.entry(sd)?;
        match entry.role() {
            Role::Listener(listener) => return listener.endpoint().listen(backlog),
            Role::Many(many) => return many.endpoint().listen(backlog),
            Role::Single(_) => return Err(errno(Errno::EINVAL)),
            Role::Fresh { .. } => {}
        }
        let endpoint = self.bound(&entry)?;
        endpoint.set_parameters(&entry.parameters.lock());
        endpoint.listen(backlog)?;
        let mut role = entry.role.write();
        entry.add(endpoint.as_fd(), LISTENER)?;
        *role = match entry.style {
            Style::Stream => Role::Listener(Arc::new(Listener::new(endpoint))),
            Style::SeqPacket => Role::Many(Arc::new(Many::new(endpoint))),
        };
        Ok(())
    }

    /// The next session, on a descriptor of its own. `None`: wait for ever. EAGAIN when time is over;
    /// EINVAL when not listening, EOPNOTSUPP on a one-to-many descriptor; EMFILE, ENFILE, EINTR.
    pub fn accept(&self, sd: RawFd, timeout: Option<Duration>) -> io::Result<RawFd> {
        let entry = self.entry(sd)?;
        let listener = match entry.role() {
            Role::Listener(listener) => listener,
            Role::Many(_) => return Err(errno(Errno::EOPNOTSUPP)),
            _ => return Err(entry.refusal(Errno::EINVAL)),
        };
        let conn = listener.accept(&entry, Deadline::or_never(timeout))?;
        let pool = entry.pool.lock().clone();
        let session = Arc::new(Session::element(1, true, conn.clone(), pool));
        let parameters = *entry.parameters.lock();
        let role = Role::Single(session.clone());
        let made = self.new_entry(entry.domain, entry.protocol, Style::Stream, role, parameters);
        let made = made.and_then(|new| {
            new.add(conn.as_fd(), session.id as u64)?;
            let mut turn = conn.receiving(Deadline::Never)?;
            session.settle(&new, &conn, &mut turn);
            self.publish(&new)
        });
        made.inspect_err(|_| listener.put_back(&entry, conn))
    }

    /// Registers an element at the descriptor's address (binding it if need be), or changes one's policy
    /// values, which never waits. `Ok` also when no registrar answers or one refuses: the event thread goes
    /// on trying. EBADF: registered under another handle, or closed meanwhile. EADDRNOTAVAIL: no usable
    /// address (not with `daemon`).
    pub fn register(&self, sd: RawFd, registration: Registration) -> io::Result<()> {
        let entry = self.entry(sd)?;
        // Until it is asked for: who closes the descriptor takes the element out after that.
        let mut pool = entry.pool.lock();
        entry.check_open()?;
        let id = match &*pool {
            Some(pool) if pool.handle != registration.handle => return Err(errno(Errno::EBADF)),
            Some(pool) => pool.id,
            None => registration.id.filter(|&id| id != PeId(0)).unwrap_or_else(random_id),
        };
        let endpoint = self.endpoint(&entry)?;
        let known = endpoint.transport()?;
        if known.is_none() && !registration.daemon {
            return Err(errno(Errno::EADDRNOTAVAIL));
        }
        // Before anything waits for a registrar: from now on there may be other addresses.
        let at: Weak<Endpoint> = Arc::downgrade(&endpoint);
        self.directory.follow(&registration.handle, id, at);
        // One that can't be reached is registered as soon as it can.
        let nowhere = || Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 0, Vec::new());
        let transport = endpoint.transport()?.or(known).unwrap_or_else(nowhere);
        let handle = registration.handle;
        let wait = registration.wait && pool.is_none() && !transport.addresses().is_empty();
        pool.get_or_insert_with(|| Arc::new(PoolSide::new(handle.clone(), id, self.directory.clone())));
        let interval = registration.interval;
        let life = u32::try_from(interval.as_millis().saturating_mul(3)).unwrap_or(u32::MAX);
        let home = Default::default();
        let element = PoolElement { id, home, life, transport, policy: registration.policy, asap: None };
        let request = client::Registration { handle: handle.clone(), element, interval };
        let answer = self.directory.register(request);
        drop(pool);
        let result = match wait {
            true => answer.and_then(|answer| answer.wait_while(&|| !entry.is_closed())).map(|_| ()),
            false => answer.map(|_| ()),
        };
        if wait {
            // Whatever the answer: closing takes the element out, which ends a registration that is under way.
            entry.check_open()?;
        }
        if let Err(error) = result {
            log::warn!("registration of {id} in pool {handle:?}: {error:?}");
        }
        Ok(())
    }

    /// Where the element of a descriptor is reached.
    fn endpoint(&self, entry: &Entry) -> io::Result<Arc<Endpoint>> {
        match entry.role() {
            Role::Listener(listener) => Ok(listener.endpoint().clone()),
            Role::Many(many) => Ok(many.endpoint().clone()),
            _ => self.bound(entry),
        }
    }

    /// Takes the element out of its pool; its sessions go on. EBADF when not registered, or closed meanwhile.
    pub fn deregister(&self, sd: RawFd, wait: bool) -> io::Result<()> {
        let entry = self.entry(sd)?;
        let leaving = entry.pool.lock().take().map(|pool| (pool.deregister(), pool));
        let (answer, pool) = leaving.ok_or_else(|| errno(Errno::EBADF))?;
        let result = match wait {
            true => answer.and_then(|answer| answer.wait_while(&|| !entry.is_closed())),
            false => answer.map(|_| ()),
        };
        if result.is_err() {
            entry.check_open()?;
        }
        pool.gone(result);
        Ok(())
    }

    /// Own pool handle and ID. EBADF when not registered.
    pub fn local_name(&self, sd: RawFd) -> io::Result<(PoolHandle, PeId)> {
        let entry = self.entry(sd)?;
        let pool = entry.pool.lock();
        pool.as_ref().map(|pool| (pool.handle.clone(), pool.id)).ok_or_else(|| errno(Errno::EBADF))
    }

    /// The connected session's pool handle (`None` on accepted descriptors) and element (0 before there is
    /// one). EBADF on a descriptor that has no session of its own.
    pub fn peer_name(&self, sd: RawFd) -> io::Result<(Option<PoolHandle>, PeId)> {
        let session = self.single(&*self.entry(sd)?)?;
        Ok((session.as_user().and_then(|user| user.handle.clone()), session.pe_id()))
    }

    // ----- users' sessions -----------------------------------------------------------------------

    fn single(&self, entry: &Entry) -> io::Result<Arc<Session>> {
        match entry.role() {
            Role::Single(session) => Ok(session),
            _ => Err(errno(Errno::EBADF)),
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
    ) -> io::Result<()> {
        let entry = self.entry(sd)?;
        let session = Arc::new(Session::user(handle, options));
        let spare = {
            let mut role = entry.role.write();
            let spare = match &*role {
                Role::Fresh { endpoint, bound: false } => endpoint.clone(),
                Role::Fresh { .. } => None,
                Role::Listener(listener) => {
                    entry.remove(listener.endpoint().as_fd());
                    None
                }
                Role::Many(many) if many.sessions().is_empty() => {
                    entry.remove(many.endpoint().as_fd());
                    None
                }
                Role::Many(_) | Role::Single(_) => return Err(errno(Errno::EBADF)),
            };
            *role = Role::Single(session.clone());
            spare
        };
        let how = Move { stale, failover: false, unreachable: false };
        let spare = spare.and_then(Arc::into_inner);
        self.move_session(&entry, &session, how, spare).inspect_err(|error| {
            log::info!("descriptor {sd} could not be connected: {error}");
        })
    }

    /// Leaves the element and connects to the next one. EBADF: not connected by [`Library::connect`].
    /// After any other error the session has failed again: after the retry delay ENOENT (the pool is
    /// empty), EIO (no resolution), or why the last element could not be reached; at once EINVAL (no
    /// pool handle).
    pub fn force_failover(&self, sd: RawFd, unreachable: bool, stale: Duration) -> io::Result<()> {
        let entry = self.entry(sd)?;
        let session = self.single(&entry)?;
        self.move_session(&entry, &session, Move { stale, failover: true, unreachable }, None)
    }

    /// Whether the connected session holds a cookie. EBADF without one.
    pub fn has_cookie(&self, sd: RawFd) -> io::Result<bool> {
        Ok(self.single(&*self.entry(sd)?)?.has_cookie())
    }

    // ----- data ----------------------------------------------------------------------------------

    /// Sends a message, whole: what the kernel does not take at once follows by itself. EAGAIN: nothing was
    /// taken in time; EIO: the session has failed; EBADF: no such session; EINVAL: no data, no such stream;
    /// EMSGSIZE: over TCP, more than 16 MiB without a time-out, over SCTP, more than the send buffer can be
    /// made to hold; EINTR; others end the session.
    pub fn send(&self, sd: RawFd, data: &[u8], options: SendOptions) -> io::Result<usize> {
        let entry = self.entry(sd)?;
        let role = entry.role.read();
        let session = match &*role {
            Role::Single(session) => Some(session.clone()),
            Role::Many(many) => many.session(options.session),
            Role::Fresh { .. } | Role::Listener(_) => None,
        };
        drop(role);
        let session = session.ok_or_else(|| errno(Errno::EBADF))?;
        let sent = session.send(&entry, &self.linger, data, &options);
        if options.flags & send_flags::ABORT != 0
            && sent.is_ok()
            && let Role::Many(many) = entry.role()
        {
            many.remove(&entry, &self.linger, &session, false);
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
    ) -> io::Result<usize> {
        let entry = self.entry(sd)?;
        let session = match entry.role() {
            Role::Single(session) => Some(session),
            Role::Many(many) => many.session(session),
            Role::Fresh { .. } | Role::Listener(_) => None,
        };
        let session = session
            .filter(|session| session.as_user().is_none())
            .ok_or_else(|| entry.refusal(Errno::EINVAL))?;
        session.send_cookie(&entry, &self.linger, cookie, Deadline::or_now(timeout))?;
        Ok(cookie.len())
    }

    /// Receives: notifications and cookie echoes first, then data, then what was lost. `timeout` `None`: one
    /// non-blocking attempt. A message larger than `buffer` is delivered in parts. EAGAIN: nothing came;
    /// ENOTCONN: nothing can come; EINVAL: a notification, and less than [`NOTIFICATION_ROOM`] for it; EINTR.
    pub fn recv(&self, sd: RawFd, buffer: &mut [u8], timeout: Option<Duration>) -> io::Result<Received> {
        let entry = self.entry(sd)?;
        let deadline = Deadline::or_now(timeout);
        match entry.role() {
            Role::Single(session) => session.receive(&entry, buffer, deadline),
            Role::Many(many) => many.receive(&entry, &self.linger, buffer, deadline),
            Role::Fresh { .. } | Role::Listener(_) => Err(entry.refusal(Errno::ENOTCONN)),
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
    ) -> io::Result<Received> {
        let entry = self.entry(sd)?;
        let deadline = Deadline::or_now(timeout);
        match entry.role() {
            Role::Single(session) => session.receive_rest(&entry, buffer, deadline),
            Role::Many(many) => {
                let found = many.session(session).ok_or_else(|| errno(Errno::EBADF))?;
                let received = found.receive_rest(&entry, buffer, deadline);
                if matches!(received, Ok(Received::CookieEcho { end: true, .. })) {
                    many.echo_delivered(&entry, session);
                }
                received
            }
            Role::Fresh { .. } | Role::Listener(_) => Err(errno(Errno::EBADF)),
        }
    }

    // ----- mapped descriptors --------------------------------------------------------------------

    fn alias(&self, sd: RawFd) -> Option<RawFd> {
        self.aliases.read().get(&sd).copied()
    }

    /// Gives a system descriptor a number here: `to`, or its own, which it may have already. EINVAL: `system`
    /// is none, or one of ours; EMFILE: the number is taken.
    pub fn map(&self, system: RawFd, to: Option<RawFd>) -> io::Result<RawFd> {
        self.check_process()?;
        let number = to.unwrap_or(system);
        if system < 0 || number < 0 || self.entry(system).is_ok() {
            return Err(errno(Errno::EINVAL));
        }
        let mut aliases = self.aliases.write();
        if to.is_none() && aliases.get(&number) == Some(&system) {
            return Ok(number);
        }
        if self.entry(number).is_ok() || aliases.contains_key(&number) {
            return Err(errno(Errno::EMFILE));
        }
        aliases.insert(number, system);
        Ok(number)
    }

    /// Forgets a mapped number; the system descriptor stays open. EBADF: not mapped.
    pub fn unmap(&self, sd: RawFd) -> io::Result<()> {
        self.check_process()?;
        self.aliases.write().remove(&sd).map(|_| ()).ok_or_else(|| errno(Errno::EBADF))
    }

    /// The system descriptor behind a mapped number; `None` if `sd` is an RSerPool descriptor; EBADF if
    /// neither.
    pub fn mapped(&self, sd: RawFd) -> io::Result<Option<RawFd>> {
        match self.entry(sd) {
            Ok(_) => Ok(None),
            Err(error) => self.alias(sd).map(Some).ok_or(error),
        }
    }

    // ----- options -------------------------------------------------------------------------------

    /// The current system socket, for option pass-through; made if there is none yet (the first
    /// connection uses it). EBADF; ENOTCONN while a session has no connection.
    pub fn system_socket(&self, sd: RawFd) -> io::Result<RawFd> {
        let entry = self.entry(sd)?;
        if let Some(socket) = entry.system_socket() {
            return Ok(socket);
        }
        // Before the role: whoever changes them holds them, and looks at the role.
        let parameters = *entry.parameters.lock();
        let mut role = entry.role.write();
        let Role::Fresh { endpoint, .. } = &mut *role else { return Err(errno(Errno::ENOTCONN)) };
        if endpoint.is_none() {
            let unbound = Endpoint::unbound(entry.protocol, entry.domain)?;
            // What the program sets comes after, and counts.
            unbound.set_parameters(&parameters);
            *endpoint = Some(Arc::new(unbound));
        }
        let endpoint = endpoint.as_ref().ok_or_else(|| errno(Errno::ENOTCONN))?;
        Ok(endpoint.as_fd().as_raw_fd())
    }

    /// A program set an option of the system socket, perhaps one that is set here as well.
    pub fn option_was_set(&self, sd: RawFd) {
        let session = self.entry(sd).and_then(|entry| self.single(&entry));
        let conn = session.ok().and_then(|session| session.conn());
        if let Some(blocking) = conn.as_ref().and_then(|conn| conn.blocking()) {
            blocking.forget_timeout();
        }
    }

    /// Changes what is not 0 in `change`; what holds now. For this descriptor's sessions and those it will
    /// have.
    pub fn session_parameters(&self, sd: RawFd, change: SessionParameters) -> io::Result<SessionParameters> {
        Ok(self.entry(sd)?.change_parameters(change))
    }

    /// Sets a session's status text, up to 127 bytes of it. EINVAL: no such session.
    pub fn set_status(&self, sd: RawFd, session: SessionId, text: &str) -> io::Result<()> {
        let session = match self.entry(sd)?.role() {
            Role::Single(session) => Some(session),
            Role::Many(many) => many.session(session),
            Role::Fresh { .. } | Role::Listener(_) => None,
        };
        let end = text.floor_char_boundary(127);
        session.ok_or_else(|| errno(Errno::EINVAL))?.set_status(&text[..end]);
        Ok(())
    }

    /// Basic mode: `rsp_getaddrinfo`.
    pub fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, client::RequestError> {
        if self.is_forked() {
            return Err(client::RequestError::Shutdown);
        }
        self.directory.resolve(handle, items, stale)
    }
}

fn random_id() -> PeId {
    PeId(fastrand::u32(1..u32::MAX))
}
