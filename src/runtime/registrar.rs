//! A registrar's loop: one registrar machine on the reactor. Its caller brings the rest (signals, a
//! status page) as sources of the same poll.

mod listening;
mod log_lines;
#[cfg(test)]
mod tests;

use super::groups::{GroupPurpose, MissingGroups};
use super::names::Names;
use super::reactor::{Admission, Clock, Input, Limits, Reactor, Waker};
use super::settings::is_available;
use super::{Keeper, Tls, TlsStatus, targets};
use crate::machine::registrar::{
    Config, Event, Happening, Histogram, Impossible, Operated, Operation, Registrar,
};
use crate::machine::{LinkId, LinkProtocol, Output, Service, Target, Time};
use crate::transport::allow::Networks;
use crate::transport::host;
use crate::transport::multicast::{DEFAULT_TTL, groups_of};
use crate::transport::tls::{Credentials, Mode};
use crate::wire::scope::Scope;
use crate::wire::{
    ASAP_PORT, ASAP_TLS_PORT, ENRP_PORT, ENRP_TLS_PORT, PeId, PoolElement, PoolHandle, Transport,
};
use listening::{Bound, listen, listen_for_tls, secure, speak, transports};
use log_lines::{cause, tell};
use mio::{Registry, Token};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use listening::Listen;

/// The first token that is the caller's own.
pub const FIRST_TOKEN: usize = super::reactor::OTHERS;
/// Descriptors that are not for links: listeners, groups, poll, log, status page.
const RESERVED_DESCRIPTORS: u64 = 128;

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
