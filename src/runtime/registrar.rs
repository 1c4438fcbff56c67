//! A registrar's loop: one registrar machine on the reactor. Its caller brings the rest (signals, a
//! status page) as sources of the same poll.

use super::groups::{GroupPurpose, MissingGroups};
use super::names::Names;
use super::reactor::{Admission, Clock, Input, Limits, Reactor, Waker};
use super::settings::is_available;
use super::thread::spawn;
use super::{Keeper, Tls, TlsStatus, targets};
use crate::machine::registrar::{
    Config, Event, Happening, Histogram, Impossible, Operated, Operation, Registrar, What,
};
use crate::machine::{LinkId, LinkProtocol, Output, Service, Target, Time};
use crate::transport::allow::Networks;
use crate::transport::host;
use crate::transport::interfaces::Interface;
use crate::transport::multicast::{DEFAULT_TTL, groups_of};
use crate::transport::scope::{Scope, best_first, reaches, usable};
use crate::transport::tls::{Credentials, Mode};
use crate::wire::show;
use crate::wire::{
    ASAP_PORT, ASAP_TLS_PORT, ENRP_PORT, ENRP_TLS_PORT, PeId, PoolElement, PoolHandle, Protocol, RegistrarId,
    Transport, TransportUse,
};
use mio::{Registry, Token};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The first token that is the caller's own.
pub const FIRST_TOKEN: usize = super::reactor::OTHERS;
/// Descriptors that are not for links: listeners, groups, poll, log, status page.
const RESERVED_DESCRIPTORS: u64 = 128;

/// Where a service is offered.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Local addresses; port 0: any free one.
    pub addresses: Vec<SocketAddr>,
    /// If the port is taken, use any free one instead, with a warning.
    pub fallback: bool,
}

impl Listen {
    /// Every address, the default port, and any other if that is taken.
    pub fn auto(port: u16) -> Listen {
        Listen { addresses: vec![(Ipv6Addr::UNSPECIFIED, port).into()], fallback: true }
    }

    /// Whether nobody asked for a certain port. With port 0, SCTP tries the one that TCP got.
    fn any_port_will_do(&self) -> bool {
        self.fallback || self.addresses.first().is_none_or(|address| address.port() == 0)
    }
}

/// What a registrar needs to know that its machine does not.
#[derive(Debug, Clone)]
pub struct Options {
    /// The machine's; transports and announcements are filled in here.
    pub machine: Config,
    /// Static peers by name, `host[:port]` each; `machine` has those given by address.
    pub peer_names: Vec<String>,
    /// Over which protocols the services are offered, where the kernel has them.
    pub protocols: Vec<LinkProtocol>,
    /// The ASAP service.
    pub asap: Listen,
    /// The ENRP service.
    pub enrp: Listen,
    /// Certificates and what is done with them.
    pub tls: Tls,
    /// From where connections and announcements are taken; the status page asks [`Server::allowed`].
    pub allow: Networks,
    /// Group for announcements to clients; `None`: off.
    pub asap_announce: Option<SocketAddr>,
    /// Group of the registrars; `None`: off.
    pub enrp_announce: Option<SocketAddr>,
    /// Time to live of what goes to the groups.
    pub ttl: u8,
    /// Connections at a time; `None`: as many as there can be descriptors.
    pub max_links: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            machine: Config::default(),
            peer_names: Vec::new(),
            protocols: vec![LinkProtocol::Sctp, LinkProtocol::Tcp],
            asap: Listen::auto(ASAP_PORT),
            enrp: Listen::auto(ENRP_PORT),
            tls: Tls::default(),
            allow: Networks::default(),
            asap_announce: None,
            enrp_announce: None,
            ttl: DEFAULT_TTL,
            max_links: None,
        }
    }
}

/// Counters of the connections, for the status page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Connections up, being made or being closed.
    pub open: usize,
    /// So many can be.
    pub most: usize,
    /// Bytes of their queues and half messages, and how many there can be.
    pub held: usize,
    /// See `held`.
    pub most_held: usize,
    /// Bytes that the kernel keeps for associations, and how many it may.
    pub kernel: usize,
    /// See `kernel`.
    pub most_kernel: usize,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Closed at once because there were too many.
    pub refused: u64,
    /// Messages received.
    pub messages: u64,
    /// Dropped for sending no messages.
    pub garbage: u64,
    /// Dropped for beginning a message and not ending it.
    pub half_messages: u64,
    /// Dropped for not reading.
    pub overflows: u64,
    /// Handshakes begun (TLS).
    pub handshakes: u64,
    /// Those that failed, and connections that never proved who they are.
    pub handshakes_failed: u64,
    /// Connections without TLS where it is allowed.
    pub plain: u64,
}

/// A registrar and its sockets.
#[derive(Debug)]
pub struct Server {
    reactor: Reactor,
    machine: Registrar,
    groups: MissingGroups,
    /// Static peers by address, and by name.
    given: Vec<Target>,
    names: Names,
    protocols: Vec<LinkProtocol>,
    asap: Bound,
    enrp: Bound,
    min_scope: Scope,
    keeper: Option<Keeper>,
    /// The last happening that was logged.
    told: u64,
    turns: Histogram,
    /// When the turn began that goes on.
    begun: Option<Time>,
    announced: (Option<SocketAddr>, Option<SocketAddr>),
    allowed: Networks,
    /// Links to be measured when nobody reads from them any more.
    unmeasured: BTreeSet<LinkId>,
}

/// Where a service listens.
#[derive(Debug, Clone, Default)]
struct Bound {
    tcp: Vec<SocketAddr>,
    /// The addresses, which share one port; the unspecified one stands for all.
    sctp: Vec<SocketAddr>,
}

impl Bound {
    fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.tcp.iter().chain(&self.sctp)
    }
}

impl Server {
    /// Binds everything. Errors: `EADDRINUSE` if a port that was asked for explicitly is taken, over
    /// either protocol, and what else the system says to such an address; `InvalidInput` if TLS is wanted
    /// and the certificates can't be used.
    pub fn bind(options: Options) -> io::Result<Server> {
        let mut options = options;
        options.protocols.retain(|protocol| is_available(*protocol));
        let limits = Limits { links: most_links(options.max_links), ..Limits::default() };
        let mut reactor = Reactor::new(Clock::start(), limits)?;
        reactor.allow(options.allow.clone());
        let keeper = options.tls.open()?;
        let mut config = options.machine;
        if let Some(keeper) = &keeper {
            secure(&mut reactor, keeper, &mut options.protocols)?;
            config.scope = keeper.scope();
        }
        let admission = keeper.as_ref().map_or(Admission::Plain, |keeper| keeper.mode().into());
        let protocols = &options.protocols;
        let asap = listen(&mut reactor, Service::Asap, &options.asap, protocols, admission)?;
        let enrp = listen(&mut reactor, Service::Enrp, &options.enrp, protocols, admission)?;
        if admission == Admission::Mixed {
            for (service, at, port) in
                [(Service::Asap, &options.asap, ASAP_TLS_PORT), (Service::Enrp, &options.enrp, ENRP_TLS_PORT)]
            {
                listen_for_tls(&mut reactor, service, at, port);
            }
        }

        let plain = keeper.as_ref().is_none_or(|keeper| keeper.mode() != Mode::Require);
        let open = asap.addresses().chain(enrp.addresses()).any(|address| !address.ip().is_loopback());
        if plain && open && options.allow.is_everybody() {
            log::warn!(
                "whoever reaches us owns the scope: no TLS is required (--tls-dir) and no network is named (--allow)"
            );
        }
        let min_scope = config.min_address_scope;
        let interfaces = reactor.follow_interfaces()?.to_vec();
        config.asap_transports = transports(&asap, &interfaces, min_scope);
        config.enrp_transports = transports(&enrp, &interfaces, min_scope);
        // Of a peer's transports, rsplib looks at the first; of an announcement's, at the last.
        config.enrp_transports.reverse();
        let (mut groups, ttl) = (MissingGroups::default(), options.ttl);
        let (clients, registrars) = (options.asap_announce, options.enrp_announce);
        (config.announce_asap, _) = speak(&mut reactor, &mut groups, Service::Asap, clients, &asap, ttl);
        let (announce, speaks) = speak(&mut reactor, &mut groups, Service::Enrp, registrars, &enrp, ttl);
        config.announce_enrp = announce;
        for group in registrars.into_iter().flat_map(groups_of) {
            groups.want(&mut reactor, Service::Enrp, group, GroupPurpose::Hear);
        }
        let port = options.tls.port(ENRP_PORT, ENRP_TLS_PORT);
        let names = Names::new(options.peer_names, port, reactor.waker());
        config.awaits_peers = !names.is_empty();
        let given = config.peers.clone();
        if !speaks && config.peers.is_empty() && names.is_empty() {
            // There is nobody to learn from.
            config.mentor_discovery_timeout = Duration::ZERO;
        }
        let machine = Registrar::new(config, host::seed(), reactor.now());
        let turns = Histogram::default();
        Ok(Server {
            reactor,
            machine,
            groups,
            given,
            names,
            protocols: options.protocols,
            asap,
            enrp,
            min_scope,
            keeper,
            told: 0,
            unmeasured: BTreeSet::new(),
            turns,
            begun: None,
            announced: (clients, registrars),
            allowed: options.allow,
        })
    }

    /// Where the ASAP service listens over TCP.
    pub fn asap_addresses(&self) -> &[SocketAddr] {
        &self.asap.tcp
    }

    /// Where the ENRP service listens over TCP.
    pub fn enrp_addresses(&self) -> &[SocketAddr] {
        &self.enrp.tcp
    }

    /// The ports of ASAP and ENRP over SCTP, where the kernel has it.
    pub fn sctp_ports(&self) -> (Option<u16>, Option<u16>) {
        let port = |bound: &Bound| bound.sctp.first().map(SocketAddr::port);
        (port(&self.asap), port(&self.enrp))
    }

    /// Takes what can change while the service runs: the machine's timers, bounds and static peers
    /// ([`Registrar::reconfigure`]) and the number of connections. No connection is lost.
    pub fn reconfigure(&mut self, options: Options) {
        let now = self.reactor.now();
        self.reactor.set_max_links(most_links(options.max_links));
        let Options { mut machine, peer_names, .. } = options;
        self.given = std::mem::take(&mut machine.peers);
        self.names.set(peer_names);
        machine.peers = self.static_peers();
        self.machine.reconfigure(now, machine);
        drain(&mut self.machine, &mut self.reactor, &mut self.unmeasured);
    }

    /// Where static peers are, as far as that is known.
    fn static_peers(&self) -> Vec<Target> {
        let named = self.names.addresses().flat_map(|addresses| targets(&self.protocols, addresses));
        self.given.iter().cloned().chain(named).collect()
    }

    /// From where connections are taken.
    pub fn allowed(&self) -> &Networks {
        &self.allowed
    }

    /// What TLS proves us by, if it is on.
    pub fn tls_status(&self) -> Option<TlsStatus> {
        self.keeper.as_ref().map(Keeper::status)
    }

    /// What the operator's page proves itself by, if TLS is on, and whether it is required.
    pub fn security(&self) -> Option<(&Arc<Credentials>, Mode)> {
        self.keeper.as_ref().map(|keeper| (keeper.credentials(), keeper.mode()))
    }

    /// Loads certificates, authorities and lists anew; connections whose peer would not be let in any more
    /// end. If the files can't be used, what was loaded before stays, with a line in the log.
    pub fn reload_tls(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.turn(&mut self.reactor, true);
        }
    }

    /// The groups of announcements to clients and of the registrars.
    pub fn groups(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.announced
    }

    /// Where other registrars reach us, as we tell them.
    pub fn own_enrp_addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for &address in self.machine.enrp_transports().iter().flat_map(Transport::addresses) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The machine, to read.
    pub fn machine(&self) -> &Registrar {
        &self.machine
    }

    /// The time of the current turn, in the machine's terms.
    pub fn now(&self) -> Time {
        self.reactor.now()
    }

    /// Where the caller registers its own sources, with tokens from [`FIRST_TOKEN`].
    pub fn registry(&self) -> &Registry {
        self.reactor.registry()
    }

    /// Ends a turn from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        self.reactor.waker()
    }

    /// Counters.
    pub fn link_stats(&self) -> LinkStats {
        let counters = self.reactor.counters();
        LinkStats {
            open: self.reactor.link_count(),
            most: self.reactor.max_links(),
            held: self.reactor.links_held().0,
            most_held: self.reactor.links_held().1,
            kernel: self.reactor.kernel_memory().0,
            most_kernel: self.reactor.kernel_memory().1,
            accepted: counters.accepted,
            refused: counters.refused,
            messages: counters.messages,
            garbage: counters.garbage,
            half_messages: counters.half_messages,
            overflows: counters.overflows,
            handshakes: counters.handshakes,
            handshakes_failed: counters.handshakes_failed,
            plain: counters.plain,
        }
    }

    /// Waits until something happens or `until`, and deals with it; the caller's own sources that became
    /// ready are added to `ready`.
    pub fn turn(&mut self, until: Option<Time>, ready: &mut Vec<Token>) -> io::Result<()> {
        let Server { reactor, machine, groups, names, asap, enrp, min_scope, keeper, unmeasured, .. } = self;
        let files = keeper.as_ref().map(Keeper::poll_timeout);
        let lookup = names.poll_timeout(machine.misses_peer());
        let until = [until, machine.poll_timeout(), groups.poll_timeout(), files, lookup];
        let until = until.into_iter().flatten().min();
        if let Some(begun) = self.begun.take() {
            self.turns.add(reactor.clock().now() - begun);
        }
        reactor.turn(until, &mut |reactor, input| {
            let now = reactor.now();
            match input {
                Input::Message { link, bytes } => machine.handle_message(now, link, bytes),
                Input::Link { link, change } => machine.handle_link(now, link, change),
                Input::Announce { service, from, bytes } => {
                    machine.handle_announce(now, service, from, bytes);
                }
                Input::Interfaces(list) => {
                    let (asap, mut enrp) =
                        (transports(asap, list, *min_scope), transports(enrp, list, *min_scope));
                    enrp.reverse();
                    machine.set_transports(now, asap, enrp);
                }
                Input::Other { token } => return ready.push(token),
                Input::Woken => return,
                Input::Full => return reactor.name_leavers(machine.who_makes_room()),
            }
            drain(machine, reactor, unmeasured);
        })?;
        if !unmeasured.is_empty() {
            measure(machine, reactor, unmeasured);
            reactor.flush();
        }
        groups.handle_timeout(reactor);
        if let Some(keeper) = keeper {
            keeper.turn(reactor, false);
        }
        let now = reactor.now();
        if machine.poll_timeout().is_some_and(|time| time <= now) {
            machine.handle_timeout(now);
            drain(machine, reactor, unmeasured);
            reactor.flush();
        }
        self.find_peers(now);
        self.tell();
        self.begun = Some(self.now());
        Ok(())
    }

    /// Looks peers that are given by name up, while they are missing.
    fn find_peers(&mut self, now: Time) {
        if self.names.take_answers() {
            let peers = self.static_peers();
            self.machine.set_peers(now, peers);
            drain(&mut self.machine, &mut self.reactor, &mut self.unmeasured);
            self.reactor.flush();
        }
        self.names.handle_timeout(now, self.machine.misses_peer());
    }

    /// Logs what happened to elements and other registrars in this turn.
    fn tell(&mut self) {
        let last = self.machine.last_happening();
        if self.told == last {
            return;
        }
        let told = std::mem::replace(&mut self.told, last);
        if !log::log_enabled!(log::Level::Warn) {
            return;
        }
        let mut known = self.machine.happenings_after(told).peekable();
        let first = known.peek().map_or(last + 1, |first| first.number);
        if first > told + 1 {
            let missed = format_args!("{} changes more than are kept to be told", first - told - 1);
            self.reactor.complain("more changes than are kept", None, missed);
        }
        for Happening { by, what, .. } in known {
            // What is nobody's doing is told of each host by itself as well.
            let by = by.or(what.address().map(|address| address.ip()));
            let (cause, name) = cause(what);
            if let Some(left_out) = self.reactor.news(cause, by, name) {
                tell(what, self.machine.id(), left_out);
            }
        }
    }

    /// How long turns took, without waiting, with what the caller did behind each.
    pub fn turn_times(&self) -> &Histogram {
        &self.turns
    }

    /// Does what an operator wants with an element, or asks its home registrar to.
    pub fn operate(
        &mut self,
        handle: &PoolHandle,
        id: PeId,
        operation: &Operation,
    ) -> Result<Operated, Impossible> {
        let now = self.reactor.now();
        let result = self.machine.operate(now, handle, id, operation);
        drain(&mut self.machine, &mut self.reactor, &mut self.unmeasured);
        self.reactor.flush();
        result
    }

    /// Chooses elements for somebody who speaks something else than ASAP ([`Registrar::choose`]).
    pub fn choose(
        &mut self,
        handle: &PoolHandle,
        items: usize,
        usable: impl Fn(&Transport) -> bool,
    ) -> Option<Vec<PoolElement>> {
        self.machine.choose(handle, items, usable)
    }

    /// Leaves in order: peers are told and links closed, which may take up to `patience`.
    pub fn shutdown(mut self, patience: Duration) {
        let now = self.now();
        self.machine.shutdown(now);
        drain(&mut self.machine, &mut self.reactor, &mut self.unmeasured);
        let end = now + patience;
        let mut ready = Vec::new();
        while self.reactor.link_count() > 0 && self.now() < end {
            if self.turn(Some(end), &mut ready).is_err() {
                return;
            }
        }
    }
}

/// What happened in words that say nothing of whom, and to which thing it did.
fn cause(what: &What) -> (&'static str, u64) {
    let name = |named: (Option<&PoolHandle>, u32)| {
        let mut hasher = DefaultHasher::new();
        named.hash(&mut hasher);
        hasher.finish()
    };
    let (cause, named) = match what {
        What::Registered { handle, id, .. } => ("an element was registered", (Some(handle), id.0)),
        What::Removed { handle, id, .. } => ("an element was removed", (Some(handle), id.0)),
        What::Refused { handle, id, .. } => ("a request was refused", (Some(handle), id.0)),
        What::Reported { handle, id, .. } => ("an element was reported", (Some(handle), id.0)),
        What::Moved { handle, id, .. } => ("an element has another registrar", (Some(handle), id.0)),
        What::Operated { handle, id, .. } => ("an operator changed an element", (Some(handle), id.0)),
        What::PeerFound { id, .. } => ("a registrar is there", (None, id.0)),
        What::PeerDead { id, .. } => ("a registrar is dead", (None, id.0)),
        What::TakingOver { target, .. } => ("a takeover began", (None, target.0)),
        What::TakenOver { target, .. } => ("a takeover was done", (None, target.0)),
        What::Serving => ("service began", (None, 0)),
    };
    (cause, name(named))
}

/// What happened to an element or a registrar, in a line. `more`: what of this kind got none.
fn tell(what: &What, ourselves: RegistrarId, more: impl std::fmt::Display) {
    let at = |address: &Option<SocketAddr>| show::at(*address);
    let by = |from: &Option<SocketAddr>| from.map_or(String::new(), |address| format!(" by {address}"));
    match what {
        // The words by which scripts find it in rsplib's log, as with `Serving`.
        What::Registered { handle, id, home, address, size } if *home == ourselves => {
            log::info!("Successfully registered {handle}/{id}{}, {size} in its pool{more}", at(address));
        }
        What::Registered { handle, id, home, address, size } => {
            log::info!("Registrar {home} has {handle}/{id}{}, {size} in its pool{more}", at(address));
        }
        What::Removed { handle, id, reason, address, left, .. } => {
            log::info!(
                "Removed {handle}/{id}: {reason}; it was{}, {left} left in its pool{more}",
                at(address)
            );
        }
        What::Refused { handle, id, cause, from } => {
            log::info!("Refused {handle}/{id}{}: {cause:?}{more}", by(from));
        }
        What::Reported { handle, id, address, from } => {
            log::info!("Reported as unreachable{}: {handle}/{id}{}{more}", by(from), at(address));
        }
        What::Moved { handle, id, address, from, to, to_address } => {
            log::info!(
                "{handle}/{id}{} has registrar {to}{} instead of {from}{more}",
                at(address),
                at(to_address)
            );
        }
        What::Operated { handle, id, address, action } => {
            log::info!("{handle}/{id}{}: {action}{more}", at(address))
        }
        What::PeerFound { id, address } => log::info!("registrar {id}{} is there{more}", at(address)),
        What::PeerDead { id, address } => log::warn!("registrar {id}{} is dead{more}", at(address)),
        What::TakingOver { target, address } => {
            log::info!("taking over from registrar {target}{}{more}", at(address));
        }
        What::TakenOver { target, address, by, by_address, elements } => log::info!(
            "registrar {by}{} took over {elements} elements from registrar {target}{}{more}",
            at(by_address),
            at(address)
        ),
        What::Serving => log::info!("The registrar is ready and serves"),
    }
}

/// Connections at a time.
fn most_links(asked: Option<usize>) -> usize {
    let descriptors = host::descriptor_limit().saturating_sub(RESERVED_DESCRIPTORS).max(16);
    let links = asked.unwrap_or(usize::try_from(descriptors).unwrap_or(usize::MAX));
    links.min(super::reactor::MAX_SLOTS)
}

/// Carries out what the machine wants. Links that are being read from can't be measured meanwhile: they are left
/// in `unmeasured`.
fn drain(machine: &mut Registrar, reactor: &mut Reactor, unmeasured: &mut BTreeSet<LinkId>) {
    let mut measured = Vec::new();
    loop {
        while let Some(output) = machine.poll_output() {
            if let Output::Measure { link } = output {
                match reactor.measure(link) {
                    Some(measurement) => measured.push((link, measurement)),
                    None => _ = unmeasured.insert(link),
                }
            } else if let Some(event) = reactor.execute(output) {
                report(reactor, event);
            }
        }
        if measured.is_empty() {
            return;
        }
        let now = reactor.now();
        for (link, measurement) in measured.drain(..) {
            machine.handle_measurement(now, link, measurement);
        }
    }
}

/// Measures the links that could not be measured while they were read from.
fn measure(machine: &mut Registrar, reactor: &mut Reactor, unmeasured: &mut BTreeSet<LinkId>) {
    let now = reactor.now();
    for link in std::mem::take(unmeasured) {
        // Else it is gone.
        if let Some(measurement) = reactor.measure(link) {
            machine.handle_measurement(now, link, measurement);
        }
    }
    drain(machine, reactor, unmeasured);
}

fn report(reactor: &mut Reactor, event: Event) {
    match event {
        // See `tell`.
        Event::ElementAdded { .. }
        | Event::ElementRemoved { .. }
        | Event::PeerAdded { .. }
        | Event::PeerDead { .. }
        | Event::TakeoverStarted { .. }
        | Event::TakeoverDone { .. }
        | Event::Serving => {}
        Event::Complaint { cause, by, about } => reactor.complain(cause, by, format_args!("{about}")),
    }
}

/// Has links prove themselves. Errors: our own certificate is none of a registrar.
fn secure(reactor: &mut Reactor, keeper: &Keeper, protocols: &mut Vec<LinkProtocol>) -> io::Result<()> {
    let (roles, scope) = (keeper.roles(), keeper.scope());
    if !roles.is_registrar(scope.as_deref()) {
        let scope = scope.unwrap_or_else(|| "any scope".into());
        let text = format!("TLS: our certificate is none of a registrar of {scope}: it says {roles}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if keeper.mode() == Mode::Require {
        super::security::without_sctp(protocols);
    }
    reactor.secure(keeper.mode(), Some(keeper.credentials().clone()));
    Ok(())
}

/// Where both are admitted, those who insist on TLS find it at its own port as well.
fn listen_for_tls(reactor: &mut Reactor, service: Service, at: &Listen, port: u16) {
    if !at.fallback {
        return;
    }
    for address in &at.addresses {
        let address = SocketAddr::new(address.ip(), port);
        if let Err(error) = listen_at(reactor, service, address, Admission::Proved) {
            log::warn!("{service:?}: no TLS at {address}: {error}");
        }
    }
}

/// Binds a service's addresses; where it listens in the end.
fn listen(
    reactor: &mut Reactor,
    service: Service,
    listen: &Listen,
    protocols: &[LinkProtocol],
    admission: Admission,
) -> io::Result<Bound> {
    let mut bound = Bound::default();
    // The addresses of an SCTP endpoint share one port.
    let mut port = listen.addresses.first().map_or(0, SocketAddr::port);
    if protocols.contains(&LinkProtocol::Tcp) {
        for &address in &listen.addresses {
            let local = match listen_at(reactor, service, address, admission) {
                Err(error) if listen.fallback && address.port() != 0 => {
                    let local = listen_at(reactor, service, SocketAddr::new(address.ip(), 0), admission)?;
                    log::warn!("{service:?}: {address}: {error}; using port {} instead", local.port());
                    local
                }
                other => other.map_err(|error| {
                    io::Error::new(error.kind(), format!("{service:?} at {address}: {error}"))
                })?,
            };
            bound.tcp.push(local);
        }
        port = bound.tcp.first().map_or(port, SocketAddr::port);
    }
    if protocols.contains(&LinkProtocol::Sctp) {
        let sctp = associate(reactor, service, listen, port);
        match sctp {
            // A port that was asked for and is taken is an error over either protocol.
            Err(error) if bound.tcp.is_empty() || error.kind() == io::ErrorKind::AddrInUse => {
                let text = format!("{service:?} over SCTP at port {port}: {error}");
                return Err(io::Error::new(error.kind(), text));
            }
            Err(error) => log::warn!("{service:?} only over TCP: {error}"),
            Ok(addresses) => bound.sctp = addresses,
        }
    }
    Ok(bound)
}

/// Where the endpoint is in the end.
fn associate(
    reactor: &mut Reactor,
    service: Service,
    listen: &Listen,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let addresses = &listen.addresses;
    let all = addresses.iter().find(|address| address.ip().is_unspecified());
    let at = |port| match all {
        Some(all) => vec![SocketAddr::new(all.ip(), port)],
        None => addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect(),
    };
    let bound = at_port_or_any(port, listen.any_port_will_do(), |port| reactor.associate(service, &at(port)));
    let (bound, taken) = bound?;
    if let Some(error) = taken {
        log::warn!("{service:?} over SCTP: port {port}: {error}; using port {bound} instead");
    }
    Ok(at(bound))
}

/// Binds `port`, or if that is taken and another will do, any; which one, and why not `port`.
fn at_port_or_any(
    port: u16,
    any_will_do: bool,
    mut bind: impl FnMut(u16) -> io::Result<u16>,
) -> io::Result<(u16, Option<io::Error>)> {
    match bind(port) {
        Err(error) if any_will_do && error.kind() == io::ErrorKind::AddrInUse => Ok((bind(0)?, Some(error))),
        other => Ok((other?, None)),
    }
}

/// Where there is no IPv6, the unspecified address is IPv4's.
fn listen_at(
    reactor: &mut Reactor,
    service: Service,
    address: SocketAddr,
    admission: Admission,
) -> io::Result<SocketAddr> {
    match reactor.listen(service, address, admission) {
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            reactor.listen(service, (Ipv4Addr::UNSPECIFIED, address.port()).into(), admission)
        }
        other => other,
    }
}

/// Whether there is a group to speak to, now or later; whether now.
fn speak(
    reactor: &mut Reactor,
    groups: &mut MissingGroups,
    service: Service,
    wanted: Option<SocketAddr>,
    bound: &Bound,
    ttl: u8,
) -> (bool, bool) {
    let all = wanted.into_iter().flat_map(groups_of);
    let now = all.filter(|&group| {
        groups.want(reactor, service, group, GroupPurpose::Speak { source: source(group, bound), ttl })
    });
    (wanted.is_some(), now.count() > 0)
}

/// Where what we say to a group comes from: rsplib takes that for our SCTP address if we don't name one.
fn source(group: SocketAddr, bound: &Bound) -> SocketAddr {
    let mut named = bound.sctp.iter().chain(&bound.tcp).map(|address| address.ip());
    let named = named.find(|ip| !ip.is_unspecified() && ip.is_ipv4() == group.is_ipv4());
    let any = match group {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let port = bound.sctp.iter().chain(&bound.tcp).next().map_or(0, SocketAddr::port);
    SocketAddr::new(named.unwrap_or(any), port)
}

/// What we tell the world: one TCP transport per address, best first, then one SCTP transport with all
/// its addresses. Addresses that nobody else can use are left out unless there are no others: rsplib
/// refuses a whole announcement for one transport with nothing but a loopback address.
fn transports(bound: &Bound, interfaces: &[Interface], minimum: Scope) -> Vec<Transport> {
    let found = |local: &SocketAddr| reachable(*local, interfaces, minimum);
    let tcp: Vec<SocketAddr> = bound.tcp.iter().flat_map(found).collect();
    let sctp: Vec<SocketAddr> = bound.sctp.iter().flat_map(found).collect();
    let far = |address: &SocketAddr| reaches(address.ip(), Scope::SiteLocal);
    let any_far = tcp.iter().chain(&sctp).any(far);
    let kept = |list: Vec<SocketAddr>| list.into_iter().filter(move |address| !any_far || far(address));
    let data = TransportUse::DataOnly;
    let mut all: Vec<Transport> = kept(tcp)
        .map(|address| Transport::new(Protocol::Tcp, data, address.port(), vec![address.ip()]))
        .collect();
    let mut addresses: Vec<IpAddr> = kept(sctp).map(|address| address.ip()).collect();
    best_first(&mut addresses);
    if let (Some(first), false) = (bound.sctp.first(), addresses.is_empty()) {
        all.push(Transport::new(Protocol::Sctp, data, first.port(), addresses));
    }
    all
}

/// The addresses behind a bound one.
fn reachable(local: SocketAddr, interfaces: &[Interface], minimum: Scope) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        // Asked for explicitly, so it is right whatever its scope.
        return vec![local];
    }
    let all = interfaces.iter().filter(|interface| interface.up).flat_map(|i| &i.addresses);
    let all = all.filter(|ip| local.is_ipv6() || ip.is_ipv4());
    let all: Vec<SocketAddr> = all.map(|&ip| SocketAddr::new(ip, local.port())).collect();
    match usable(&all, minimum) {
        none if none.is_empty() => {
            all.into_iter().filter(|address| reaches(address.ip(), Scope::Loopback)).collect()
        }
        found => found,
    }
}

/// A registrar in a thread of this process, for this host only (`RSP_REGISTRAR=embedded`).
#[derive(Debug)]
pub(super) struct Embedded {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Takes the default ports on localhost; if another registrar has them already, joins it.
    pub fn start(tls: &Tls) -> io::Result<Embedded> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let at = |asap, enrp, peers| {
            let listen = |port| Listen { addresses: vec![local(port)], fallback: false };
            // Nobody was here before the process was.
            let machine = Config {
                peers,
                min_address_scope: Scope::Loopback,
                return_time: Duration::ZERO,
                ..Config::default()
            };
            Server::bind(Options {
                machine,
                asap: listen(asap),
                enrp: listen(enrp),
                protocols: vec![LinkProtocol::Tcp],
                tls: tls.clone(),
                ..Options::default()
            })
        };
        let (asap, enrp) = (tls.port(ASAP_PORT, ASAP_TLS_PORT), tls.port(ENRP_PORT, ENRP_TLS_PORT));
        let mut server = at(asap, enrp, Vec::new())
            .or_else(|_| at(0, 0, targets(&[LinkProtocol::Tcp], &[local(enrp)])))?;
        let (address, waker) = (server.asap.tcp[0], server.waker());
        log::info!("embedded registrar {} at {address}", server.machine().id());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = spawn("rspregistrar", move || {
            let mut ready = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                if let Err(error) = server.turn(None, &mut ready) {
                    // See `Reactor::turn`.
                    std::mem::forget(server);
                    return log::error!("the embedded registrar ends: {error}");
                }
            }
            server.shutdown(Duration::from_millis(500));
        })?;
        Ok(Embedded { address, stop, waker, thread: Some(thread) })
    }

    /// It touches its descriptors no more: somebody closed them.
    pub fn abandon(&self) {
        self.waker.abandon();
    }

    /// Where it is.
    pub fn target(&self) -> Target {
        Target { protocol: LinkProtocol::Tcp, addresses: vec![self.address] }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the embedded registrar panicked");
        }
    }
}
