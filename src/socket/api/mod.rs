//! The whole RSerPool socket API as safe Rust: [`Library`]. The C functions of `ffi` only convert their arguments.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the library's life; descriptors and their options |
//! | `registration` | addresses, listening and accepting, elements on descriptors |
//! | `basic` | elements and resolutions without descriptors |
//! | `connect` | users' sessions: from a pool handle to a connection with one of its elements; failovers |
//! | `data` | messages and cookies of sessions |
//! | `sendto` | messages without a session: to a pool, an element, all of them, an address |
//! | `mapped` | numbers for system descriptors |
//! | `poll` | poll(2) over RSerPool descriptors and others |
//! | `waitset` | many descriptors waited for at once |
//! | `report` | what status reports say of the sessions |
//! | `fork` | knowing a forked child |

pub(crate) mod basic;
mod connect;
mod data;
pub(crate) mod fork;
mod mapped;
pub(crate) mod poll;
pub(crate) mod registration;
mod report;
mod sendto;
mod waitset;

use crate::machine::LinkProtocol;
use crate::machine::seal::CookieKey;
use crate::runtime::{Answer, Directory, Runtime, SessionSecurity, Settings};
use crate::socket::channel::linger::Linger;
use crate::socket::channel::parameters::{DEFAULT_PARAMETERS, SessionParameters};
use crate::socket::descriptor::base::Base;
use crate::socket::descriptor::door::Doorkeeper;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::entry::{Entry, EntryRole, Style};
use crate::socket::descriptor::table::Table;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::Readiness;
use crate::socket::readiness::waitset::WaitSet;
use crate::socket::session::Session;
use crate::socket::session::pool::PoolSide;
use crate::socket::session::told::SessionId;
use crate::transport::allow::Networks;
use crate::transport::descriptors::{Held, eventfd, hold};
use crate::transport::sctp;
use crate::transport::tls::Mode;
use crate::wire::PeId;
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::EventFd;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Weak};

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

    /// Whether the event thread is there. Without it nothing is registered or resolved any more.
    pub fn is_alive(&self) -> bool {
        self.directory.is_alive()
    }

    /// Somebody closed the library's descriptors: their numbers may be others' by now. This is the end of the event
    /// thread; the library must be forgotten, neither shut down nor dropped.
    pub fn is_robbed(&self) -> bool {
        self.directory.is_robbed()
    }

    /// Whether this process is a fork of the one that started the library. Every call is [`SocketError::Forked`]
    /// then, until the child has a library of its own; this one must be forgotten, not dropped.
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
    /// allowed and the kernel has (its users may connect over any); IPPROTO_TCP. Errors:
    /// [`SocketError::UnsupportedFamily`], [`SocketError::UnsupportedTransport`] (also: not allowed, or not in the kernel),
    /// [`SocketError::System`]: no descriptor or no memory is left.
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
    /// with [`SocketError::Closed`], as a second close does. A mapped number: closes the system descriptor behind it.
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

    pub(super) fn single(&self, entry: &Entry) -> Result<Arc<Session>> {
        match entry.role() {
            EntryRole::Single(session) => Ok(session),
            _ => Err(SocketError::NoSession),
        }
    }

    /// The current system socket, for option pass-through; made if there is none yet (the first
    /// connection uses it). [`SocketError::NotConnected`] while a session has no connection.
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

    /// Sets a session's status text, up to 127 bytes of it. [`SocketError::Invalid`]: no such session.
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
