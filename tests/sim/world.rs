//! The world: hosts with registrars or ASAP processes on them, driven by a virtual clock.

use super::network::{Happening, HostId, Network, Packet, Queue, Weather};
use super::show;
use super::strangers::{Facts, Malice, Stranger};
use super::tally::Tally;
use rserpool::machine::client::{self, Client, Registration};
use rserpool::machine::registrar::{self, Registrar};
use rserpool::machine::trust::Roles;
use rserpool::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Measurement, Output, RequestId, Service, Target,
    Time,
};
use rserpool::wire::{PeId, PoolHandle, Protocol, RegistrarId, Transport, TransportUse, frame};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// ASAP port of every host (registrars serve there, processes listen for registrars there).
pub const ASAP: u16 = 3863;
/// ENRP port of registrars.
pub const ENRP: u16 = 9901;

/// What runs on a host.
#[derive(Debug)]
pub enum Machine {
    Registrar(Box<Registrar>),
    Process(Box<Client>),
    /// Somebody who does not belong.
    Stranger(Box<Stranger>),
    /// Killed.
    Nothing,
}

/// Something for a host, while it is paused or when it is its turn.
#[derive(Debug)]
pub enum Input {
    Link(LinkId, LinkChange),
    Message(LinkId, Vec<u8>),
    Datagram(Service, SocketAddr, Vec<u8>),
    /// So many bytes of a connection were read up to here.
    Read {
        connection: usize,
        direction: usize,
        bytes: usize,
    },
}

/// A host's clock: somewhere else, and faster or slower than the world's.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    offset: u64,
    /// Millionths.
    fast: i64,
}

impl Clock {
    fn local(self, now: Time) -> Time {
        let scaled = i128::from(now.0) * i128::from(1_000_000 + self.fast) / 1_000_000;
        Time(self.offset + scaled as u64)
    }

    /// The world's time at which the clock shows `local`, or a little more.
    fn world(self, local: Time) -> Time {
        let scaled = i128::from(local.0.saturating_sub(self.offset)) * 1_000_000;
        let rate = i128::from(1_000_000 + self.fast);
        Time(((scaled + rate - 1) / rate) as u64)
    }
}

/// A host with its process.
#[derive(Debug)]
pub struct Host {
    pub machine: Machine,
    pub is_registrar: bool,
    /// A registrar with rsplib's timers, rules and manners.
    pub slow: bool,
    pub incarnation: u32,
    pub paused: bool,
    clock: Clock,
    inbox: VecDeque<Input>,
    incoming: u64,
    /// Links that the machine opened and that are not down.
    pub opened: BTreeSet<LinkId>,
    /// Elements that the process should have.
    pub elements: BTreeMap<(PoolHandle, PeId), Registration>,
    /// Subscribed pools, with what was last said of them.
    pub pools: BTreeMap<PoolHandle, Option<BTreeSet<PeId>>>,
    /// Registrar: its ID in this life.
    pub id: RegistrarId,
}

/// How processes and registrars find registrars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    Multicast,
    Static,
    Both,
}

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub registrars: usize,
    pub processes: usize,
    pub discovery: Discovery,
    pub weather: Weather,
    /// All over SCTP; slow registrars offer nothing else and pass for rsplib's.
    pub sctp: bool,
    /// Registrars with rsplib's timers.
    pub slow: Vec<HostId>,
    /// Clocks run up to so many millionths fast or slow.
    pub skew: i64,
    /// Registrars list their loopback addresses as well, which lead each host to itself.
    pub loopback: bool,
    /// Hosts of those who don't belong, behind the others.
    pub strangers: usize,
    /// Whether everybody proves by a certificate what it may be. Strangers are users then, and elements of a pool
    /// of theirs.
    pub tls: bool,
}

impl Plan {
    /// A fair world without anything that matters to few.
    pub fn fair(registrars: usize, processes: usize) -> Plan {
        Plan {
            registrars,
            processes,
            discovery: Discovery::Multicast,
            weather: Weather::FAIR,
            sctp: false,
            slow: Vec::new(),
            skew: 0,
            loopback: false,
            strangers: 0,
            tls: false,
        }
    }

    /// How many hosts there are, strangers' included.
    fn hosts(&self) -> usize {
        self.registrars + self.processes + self.strangers
    }
}

/// A request without an answer yet.
#[derive(Debug)]
pub struct Open {
    pub host: HostId,
    pub since: Time,
    /// A registration's element.
    pub element: Option<(PoolHandle, PeId)>,
}

/// Everything.
pub struct World {
    pub now: Time,
    pub network: Network,
    pub hosts: Vec<Host>,
    pub plan: Plan,
    pub tally: Tally,
    seed: u64,
    next_request: u64,
    pub requests: BTreeMap<RequestId, Open>,
    /// When elements left for good (killed or deregistered).
    pub left: BTreeMap<(PoolHandle, PeId), Time>,
    /// Elements that were registered, on which host.
    pub registered: BTreeMap<(PoolHandle, PeId), HostId>,
    /// Hosts whose machine did something since the last check.
    pub touched: BTreeSet<HostId>,
    /// When something was last done to registrars, processes or connections.
    pub disturbed: Time,
    /// When a host last woke from a pause.
    pub woken: Time,
    /// When a stranger last ended.
    pub stranger_ended: Time,
    pub memory: super::checks::Memory,
    /// What the host whose turn it is asked its kernel.
    measured: Vec<(LinkId, Measurement)>,
    pub trace: bool,
}

pub fn address(host: HostId) -> IpAddr {
    IpAddr::from([10, 0, (host / 250) as u8, (host % 250 + 1) as u8])
}

fn host_of(address: IpAddr) -> Option<HostId> {
    match address {
        IpAddr::V4(v4) => {
            let [net, _, high, low] = v4.octets();
            let host = usize::from(high) * 250 + usize::from(low).checked_sub(1)?;
            (net == 10).then_some(host)
        }
        IpAddr::V6(_) => None,
    }
}

pub fn transport(protocol: Protocol, host: HostId, port: u16, usage: TransportUse) -> Transport {
    Transport::new(protocol, usage, port, vec![address(host)])
}

fn target(protocol: LinkProtocol, host: HostId, port: u16) -> Target {
    Target { protocol, addresses: vec![SocketAddr::new(address(host), port)] }
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let network = Network::new(rng.fork(), plan.weather);
        let host = |number: HostId| Host {
            machine: Machine::Nothing,
            is_registrar: number < plan.registrars,
            slow: plan.slow.contains(&number),
            incarnation: 0,
            paused: false,
            clock: Clock::default(),
            inbox: VecDeque::new(),
            incoming: LinkId::INCOMING,
            opened: BTreeSet::new(),
            elements: BTreeMap::new(),
            pools: BTreeMap::new(),
            id: RegistrarId(0),
        };
        World {
            now: Time(1_000_000),
            network,
            hosts: (0..plan.hosts()).map(host).collect(),
            plan,
            tally: Tally::default(),
            seed,
            next_request: 0,
            requests: BTreeMap::new(),
            left: BTreeMap::new(),
            registered: BTreeMap::new(),
            touched: BTreeSet::new(),
            disturbed: Time(0),
            woken: Time(0),
            stranger_ended: Time(0),
            memory: super::checks::Memory::default(),
            measured: Vec::new(),
            trace: std::env::var_os("RSP_TRACE").is_some(),
        }
    }

    pub fn registrars(&self) -> impl Iterator<Item = (HostId, &Registrar)> {
        self.hosts.iter().enumerate().filter_map(|(number, host)| match &host.machine {
            Machine::Registrar(registrar) => Some((number, registrar.as_ref())),
            _ => None,
        })
    }

    pub fn registrar(&self, host: HostId) -> &Registrar {
        match &self.hosts[host].machine {
            Machine::Registrar(registrar) => registrar,
            other => panic!("no registrar on h{host}: {other:?}"),
        }
    }

    /// Runs until `end`, with all checks after every step.
    pub fn run(&mut self, end: Time) {
        let mut at_once = 0;
        loop {
            let timeout = self.hosts.iter().filter(|host| !host.paused).filter_map(Host::poll_timeout).min();
            let event = self.network.queue.first_key_value().map(|(&(time, _), _)| time);
            // In a world of nobody but a user without wishes nothing is ever due.
            let next = timeout.into_iter().chain(event).min().map(|next| next.max(self.now));
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            at_once = if next == self.now { at_once + 1 } else { 0 };
            assert!(at_once < 200_000, "nothing but work at {:?}: a busy loop", self.now);
            self.now = next;
            self.tally.steps += 1;
            if event.is_some_and(|time| time <= next) {
                let (_, happening) = self.network.queue.pop_first().expect("seen above");
                self.happen(happening);
            } else {
                self.timeouts();
            }
            for number in self.network.stuck(self.now) {
                self.tally.fault("connection timed out");
                self.break_connection(number);
            }
            super::checks::always(self);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run(self.now + time);
    }

    fn timeouts(&mut self) {
        for host in 0..self.hosts.len() {
            let due = self.hosts[host].poll_timeout().is_some_and(|time| time <= self.now);
            if due && !self.hosts[host].paused {
                let now = self.hosts[host].clock.local(self.now);
                if matches!(self.hosts[host].machine, Machine::Stranger(_)) {
                    let facts = self.facts();
                    if let Machine::Stranger(stranger) = &mut self.hosts[host].machine {
                        stranger.facts = facts;
                    }
                }
                match &mut self.hosts[host].machine {
                    Machine::Registrar(registrar) => registrar.handle_timeout(now),
                    Machine::Process(client) => client.handle_timeout(now),
                    Machine::Stranger(stranger) => stranger.handle_timeout(now),
                    Machine::Nothing => {}
                }
                self.drain(host);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dial { from, incarnation, link, service, to, ends, again } => {
                self.dial(from, incarnation, link, service, to, ends, again);
            }
            Happening::Change { host, incarnation, link, change } => {
                if self.hosts[host].incarnation == incarnation {
                    if matches!(change, LinkChange::Down(_))
                        && let Some((number, side)) = self.network.find(host, link)
                        && let Some(connection) = self.network.connections.get_mut(&number)
                    {
                        connection.open[side] = false;
                    }
                    self.input(host, Input::Link(link, change));
                }
            }
            Happening::Arrive { connection, direction, packet } => self.arrive(connection, direction, packet),
            Happening::Datagram { to, service, from, bytes } => {
                self.input(to, Input::Datagram(service, from, bytes))
            }
            Happening::Act(act) => self.act(act),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn dial(
        &mut self,
        from: HostId,
        incarnation: u32,
        link: LinkId,
        service: Service,
        to: SocketAddr,
        ends: LinkEnds,
        again: u32,
    ) {
        if self.hosts[from].incarnation != incarnation {
            return;
        }
        let change = LinkChange::Down(LinkDown::Refused);
        let refused = Happening::Change { host: from, incarnation, link, change };
        let there = match to.ip() {
            ip if ip.is_loopback() => Some(from).filter(|&host| self.hosts[host].is_registrar),
            ip => host_of(ip).filter(|&host| host < self.hosts.len()),
        };
        let Some(there) = there else { return self.network.schedule(self.now, refused) };
        if !self.network.passes(from, there) || !self.network.passes(there, from) {
            // The connection attempt gets no answer: it is repeated twice, a second later each time.
            let then = match again {
                0 | 1 => Happening::Dial { from, incarnation, link, service, to, ends, again: again + 1 },
                _ => refused,
            };
            return self.network.schedule(self.now + Duration::from_secs(1), then);
        }
        let right_port = to.port() == if service == Service::Enrp { ENRP } else { ASAP };
        let latency = self.network.latency();
        if matches!(self.hosts[there].machine, Machine::Nothing) || !right_port {
            return self.network.schedule(self.now + latency, refused);
        }
        let half_open = self.network.weather.half_open;
        let whole = !self.network.chance(half_open);
        let host = &mut self.hosts[there];
        host.incoming += 1;
        let (accepted, their_incarnation) = (LinkId(host.incoming), host.incarnation);
        let incarnations = [incarnation, their_incarnation];
        let number =
            self.network.connect([(from, link), (there, accepted)], incarnations, self.now + latency);
        let (theirs, ours) = (self.roles(there), self.roles(from));
        let back =
            LinkEnds { peer: ends.local.clone(), local: ends.peer.clone(), roles: ours, ..ends.clone() };
        let ends = LinkEnds { roles: theirs, ..ends };
        self.input(there, Input::Link(accepted, LinkChange::Up(back)));
        if whole {
            return self.input(from, Input::Link(link, LinkChange::Up(ends)));
        }
        self.tally.fault("half-open connection");
        self.disturbed = self.now;
        if let Some(connection) = self.network.connections.get_mut(&number) {
            connection.open[0] = false;
        }
        self.network.schedule(self.now + Duration::from_secs(3), refused);
        let change = LinkChange::Down(LinkDown::Broken);
        let noticed = Duration::from_millis(self.network.rng.u64(0..12_000));
        let broken =
            Happening::Change { host: there, incarnation: their_incarnation, link: accepted, change };
        self.network.schedule(self.now + noticed, broken);
    }

    fn arrive(&mut self, number: usize, direction: usize, packet: Packet) {
        let Some(connection) = self.network.connections.get_mut(&number) else { return };
        let side = 1 - direction;
        let (host, link) = connection.ends[side];
        if !connection.open[side] || connection.incarnations[side] != self.hosts[host].incarnation {
            return;
        }
        match packet {
            Packet::Bytes(bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let length =
                        frame::first_message(rest).expect("own message").expect("whole messages only");
                    self.input(host, Input::Message(link, rest[..length].to_vec()));
                    rest = &rest[length..];
                }
                self.input(host, Input::Read { connection: number, direction, bytes: bytes.len() });
            }
            Packet::End | Packet::Reset => {
                connection.open = [false; 2];
                let down = if packet == Packet::End { LinkDown::Closed } else { LinkDown::Broken };
                self.input(host, Input::Link(link, LinkChange::Down(down)));
            }
        }
        self.network.tidy();
    }

    pub fn break_connection(&mut self, number: usize) {
        let Some(connection) = self.network.connections.remove(&number) else { return };
        self.disturbed = self.now;
        for side in 0..2 {
            let (host, link) = connection.ends[side];
            if connection.open[side] && self.hosts[host].incarnation == connection.incarnations[side] {
                self.input(host, Input::Link(link, LinkChange::Down(LinkDown::Broken)));
            }
        }
    }

    fn input(&mut self, host: HostId, input: Input) {
        self.hosts[host].inbox.push_back(input);
        if !self.hosts[host].paused {
            self.work(host);
        }
    }

    /// Hands a host what lies in its inbox.
    pub fn work(&mut self, host: HostId) {
        while let Some(input) = self.hosts[host].inbox.pop_front() {
            if self.trace {
                println!("{:>12} h{host} <- {}", self.now.0, show::input(&input));
            }
            if let Input::Link(link, LinkChange::Down(_)) = &input {
                self.hosts[host].opened.remove(link);
            }
            if let (true, Input::Message(link, bytes)) = (self.hosts[host].slow, &input)
                && is_probe(bytes)
            {
                let (link, bytes) = (*link, RSPLIBS_REFUSAL.to_vec());
                self.effect(host, Output::Send { link, bytes });
                continue;
            }
            let now = self.hosts[host].clock.local(self.now);
            match (&mut self.hosts[host].machine, input) {
                (_, Input::Read { connection, direction, bytes }) => {
                    self.was_read(connection, direction, bytes);
                }
                (Machine::Registrar(r), Input::Link(link, change)) => r.handle_link(now, link, change),
                (Machine::Registrar(r), Input::Message(link, bytes)) => r.handle_message(now, link, &bytes),
                (Machine::Registrar(r), Input::Datagram(service, from, bytes)) => {
                    if service == Service::Enrp {
                        r.handle_announce(now, service, from, &bytes);
                    }
                }
                (Machine::Process(c), Input::Link(link, change)) => c.handle_link(now, link, change),
                (Machine::Process(c), Input::Message(link, bytes)) => c.handle_message(now, link, &bytes),
                (Machine::Process(c), Input::Datagram(service, from, bytes)) => {
                    if service == Service::Asap {
                        c.handle_announce(now, from, &bytes);
                    }
                }
                (Machine::Stranger(s), Input::Link(link, change)) => s.handle_link(link, change),
                (Machine::Stranger(s), Input::Message(link, bytes)) => s.handle_message(link, &bytes),
                (Machine::Stranger(_), Input::Datagram(..)) | (Machine::Nothing, _) => {}
            }
            self.drain(host);
        }
    }

    fn was_read(&mut self, number: usize, direction: usize, bytes: usize) {
        if self.network.read(number, direction, bytes) {
            let Some(connection) = self.network.connections.get(&number) else { return };
            let ((host, link), incarnation) =
                (connection.ends[direction], connection.incarnations[direction]);
            if connection.open[direction] && self.hosts[host].incarnation == incarnation {
                self.tell(host, link, LinkChange::Drained);
            }
        }
    }

    /// A host learns something about its link, not before its machine has finished what it does.
    fn tell(&mut self, host: HostId, link: LinkId, change: LinkChange) {
        let incarnation = self.hosts[host].incarnation;
        self.network.schedule(self.now, Happening::Change { host, incarnation, link, change });
    }

    /// Carries out what a host's machine wants.
    pub fn drain(&mut self, host: HostId) {
        self.touched.insert(host);
        loop {
            match &mut self.hosts[host].machine {
                Machine::Registrar(registrar) => match registrar.poll_output() {
                    Some(Output::Event(event)) => super::checks::registrar_event(self, host, event),
                    Some(output) => self.effect(host, output.map_event()),
                    None => {
                        let now = self.local_time(host);
                        let measured = std::mem::take(&mut self.measured);
                        if measured.is_empty() {
                            return;
                        }
                        let Machine::Registrar(registrar) = &mut self.hosts[host].machine else { return };
                        for (link, measurement) in measured {
                            registrar.handle_measurement(now, link, measurement);
                        }
                    }
                },
                Machine::Process(client) => match client.poll_output() {
                    Some(Output::Event(event)) => super::checks::event(self, host, event),
                    Some(output) => self.effect(host, output.map_event()),
                    None => return,
                },
                Machine::Stranger(stranger) => match stranger.poll_output() {
                    Some(output) => self.effect(host, output),
                    None => return,
                },
                Machine::Nothing => return,
            }
        }
    }

    /// What a stranger may know.
    fn facts(&self) -> Facts {
        let process =
            |&(host, node): &(HostId, &Host)| (!node.is_registrar && !self.is_strange(host)).then_some(host);
        Facts {
            registrars: self.registrars().map(|(host, registrar)| (host, registrar.id())).collect(),
            elements: self
                .registered
                .iter()
                .map(|((handle, id), &host)| (handle.clone(), *id, host))
                .collect(),
            processes: self.hosts.iter().enumerate().filter_map(|entry| process(&entry)).collect(),
        }
    }

    /// Whether a host is that of somebody who does not belong.
    pub fn is_strange(&self, host: HostId) -> bool {
        host >= self.plan.registrars + self.plan.processes
    }

    /// Lets the strangers loose; `adopts`: they pass for the home registrars of processes, too.
    pub fn invade(&mut self, adopts: bool) {
        for host in self.plan.registrars + self.plan.processes..self.hosts.len() {
            let malice = Malice { adopts, protocol: self.protocol() };
            self.hosts[host].incoming = LinkId::INCOMING;
            let stranger = Stranger::new(host, malice, self.seed ^ host as u64, self.now);
            self.hosts[host].machine = Machine::Stranger(Box::new(stranger));
            self.tally.fault("stranger let loose");
        }
    }

    /// What a host's certificate says that it may be.
    fn roles(&self, host: HostId) -> Option<Arc<Roles>> {
        let names: &[&str] = match host {
            _ if !self.plan.tls => return None,
            host if self.hosts[host].is_registrar => &["registrar"],
            host if self.is_strange(host) => &["user", "element:strange*"],
            _ => &["element:*", "user"],
        };
        Some(Arc::new(Roles::parse(names.iter().copied())))
    }

    fn effect(&mut self, host: HostId, output: Output<()>) {
        let incarnation = self.hosts[host].incarnation;
        if self.trace {
            println!("{:>12} h{host} -> {}", self.now.0, show::output(&output));
        }
        match output {
            Output::Open { link, service, target } => {
                self.hosts[host].opened.insert(link);
                super::checks::no_spin(self, host);
                let to = target.addresses[0];
                // SCTP dials from the port at which it listens.
                let port = match target.protocol {
                    LinkProtocol::Tcp => 40_000,
                    LinkProtocol::Sctp if service == Service::Enrp => ENRP,
                    LinkProtocol::Sctp => ASAP,
                };
                let local = vec![SocketAddr::new(address(host), port)];
                let ends = LinkEnds {
                    service,
                    protocol: target.protocol,
                    peer: target.addresses,
                    local,
                    roles: None,
                };
                let latency = self.network.latency();
                let dial = Happening::Dial { from: host, incarnation, link, service, to, ends, again: 0 };
                self.network.schedule(self.now + latency, dial);
            }
            Output::Send { link, bytes } => {
                if let Some((number, side)) = self.network.find(host, link) {
                    self.send(host, link, number, side, bytes);
                }
            }
            Output::Close { link } => {
                self.hosts[host].opened.remove(&link);
                if let Some((number, side)) = self.network.find(host, link) {
                    self.network.send(self.now, number, side, Packet::End);
                    if let Some(connection) = self.network.connections.get_mut(&number) {
                        connection.open[side] = false;
                    }
                } else {
                    self.forget_dial(host, link);
                }
            }
            Output::Announce { service, bytes } => self.announce(host, service, &bytes),
            Output::Measure { link } => self.measured.extend(
                self.network
                    .find(host, link)
                    .and_then(|(number, side)| self.network.measure(self.now, number, side))
                    .map(|measurement| (link, measurement)),
            ),
            Output::Event(()) => {}
        }
    }

    fn send(&mut self, host: HostId, link: LinkId, number: usize, side: usize, bytes: Vec<u8>) {
        match self.network.send(self.now, number, side, Packet::Bytes(bytes)) {
            Queue::Fine => {}
            Queue::Congested => {
                self.tally.fault("link congested");
                self.disturbed = self.now;
                self.tell(host, link, LinkChange::Congested);
            }
            Queue::Overflow => {
                self.tally.fault("send queue overflowed");
                self.disturbed = self.now;
                self.tell(host, link, LinkChange::Down(LinkDown::Overflow));
                if let Some(connection) = self.network.connections.get_mut(&number) {
                    connection.open[side] = false;
                }
                self.network.send(self.now, number, side, Packet::Reset);
            }
        }
    }

    /// A dial that is given up before it is answered.
    fn forget_dial(&mut self, host: HostId, given_up: LinkId) {
        self.network.queue.retain(|_, happening| match happening {
            Happening::Dial { from, link, .. } => (*from, *link) != (host, given_up),
            Happening::Change { host: at, link, .. } => (*at, *link) != (host, given_up),
            _ => true,
        });
    }

    fn announce(&mut self, host: HostId, service: Service, bytes: &[u8]) {
        let port = if service == Service::Enrp { ENRP } else { ASAP };
        let from = SocketAddr::new(address(host), port);
        let weather = self.network.weather;
        for to in (0..self.hosts.len()).filter(|&to| to != host) {
            if !self.network.passes(host, to) {
                continue;
            }
            if self.network.chance(weather.datagram_loss) {
                self.tally.fault("datagram lost");
                continue;
            }
            let repeated = self.network.chance(weather.datagram_repetition);
            if repeated {
                self.tally.fault("datagram repeated, late");
            }
            for late in [false, true].into_iter().take(1 + usize::from(repeated)) {
                let mut at = self.now + self.network.latency();
                if late {
                    at = at + Duration::from_millis(self.network.rng.u64(0..3000));
                }
                self.network.schedule(at, Happening::Datagram { to, service, from, bytes: bytes.to_vec() });
            }
        }
    }

    pub fn request(&mut self, host: HostId) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.requests.insert(request, Open { host, since: self.now, element: None });
        request
    }

    /// What a dead process had not read.
    pub fn clear_inbox(&mut self, host: HostId) {
        self.hosts[host].inbox.clear();
        self.hosts[host].opened.clear();
    }

    /// The host's clock.
    pub fn local_time(&self, host: HostId) -> Time {
        self.hosts[host].clock.local(self.now)
    }

    /// Starts what belongs on a host, if nothing runs there.
    pub fn start(&mut self, host: HostId, same_id: bool) -> bool {
        if self.is_strange(host) || !matches!(self.hosts[host].machine, Machine::Nothing) {
            return false;
        }
        let seed = self.seed ^ ((host as u64) << 32) ^ u64::from(self.hosts[host].incarnation) ^ self.now.0;
        let mut rng = fastrand::Rng::with_seed(seed);
        let skew = self.plan.skew;
        let clock = Clock { offset: rng.u64(0..1 << 40), fast: rng.i64(-skew..=skew) };
        let now = clock.local(self.now);
        let config = self.client_config(host);
        let (asap, enrp) = (self.served(host, ASAP), self.served(host, ENRP));
        let announce = self.plan.discovery != Discovery::Static;
        let peers = match self.plan.discovery {
            Discovery::Multicast => Vec::new(),
            _ => (0..self.plan.registrars).map(|peer| target(self.protocol(), peer, ENRP)).collect(),
        };
        let node = &mut self.hosts[host];
        node.clock = clock;
        node.incoming = LinkId::INCOMING;
        node.opened.clear();
        if node.is_registrar {
            if !same_id || node.id.0 == 0 {
                node.id = RegistrarId(rng.u32(1..));
            }
            let config = registrar::Config {
                id: node.id,
                asap_transports: asap,
                enrp_transports: enrp,
                peers,
                announce_asap: announce,
                announce_enrp: announce,
                dialect: (node.slow && self.plan.sctp).then_some(registrar::Dialect::Rsplib),
                ..timers(node.slow)
            };
            node.machine = Machine::Registrar(Box::new(Registrar::new(config, seed, now)));
        } else {
            node.machine = Machine::Process(Box::new(Client::new(config, seed, now)));
        }
        self.disturbed = self.now;
        self.drain(host);
        true
    }

    pub fn protocol(&self) -> LinkProtocol {
        if self.plan.sctp { LinkProtocol::Sctp } else { LinkProtocol::Tcp }
    }

    fn client_config(&self, host: HostId) -> client::Config {
        let registrars = match self.plan.discovery {
            Discovery::Multicast => Vec::new(),
            _ => (0..self.plan.registrars).map(|peer| target(self.protocol(), peer, ASAP)).collect(),
        };
        client::Config {
            protocols: vec![self.protocol()],
            listen: vec![target(LinkProtocol::Tcp, host, ASAP)],
            registrars,
            announcements: self.plan.discovery != Discovery::Static,
            ..client::Config::default()
        }
    }

    /// What a registrar offers at a port.
    fn served(&self, host: HostId, port: u16) -> Vec<Transport> {
        let tcp = transport(Protocol::Tcp, host, port, TransportUse::DataOnly);
        let sctp = transport(Protocol::Sctp, host, port, TransportUse::DataOnly);
        let mut all = match (self.plan.sctp, self.hosts[host].slow) {
            (false, _) => vec![tcp],
            (true, true) => vec![sctp],
            (true, false) => vec![sctp, tcp],
        };
        if self.plan.loopback && port == ENRP && !self.hosts[host].slow {
            let here = vec![IpAddr::from([127, 0, 0, 1])];
            all.insert(0, Transport::new(Protocol::Tcp, TransportUse::DataOnly, port, here));
        }
        all
    }
}

/// A LIST_REQUEST with something behind its header, which rsplib's registrars refuse as a whole.
fn is_probe(bytes: &[u8]) -> bool {
    bytes.len() == 16 && bytes[0] == 0x05 && bytes[12..14] == [0x80, 0x3c]
}

/// As captured from one (`tests/vectors/enrp.txt`, error-1).
const RSPLIBS_REFUSAL: [u8; 20] = [0x0a, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 8, 0, 16, 0, 4];

/// The defaults, or rsplib's timers.
pub fn timers(slow: bool) -> registrar::Config {
    let ms = Duration::from_millis;
    let fast = registrar::Config::default();
    if !slow {
        return fast;
    }
    registrar::Config {
        peer_heartbeat_cycle: ms(2444),
        peer_max_time_last_heard: ms(5000),
        peer_max_time_no_response: ms(5000),
        endpoint_keep_alive_transmission_interval: ms(5000),
        endpoint_keep_alive_timeout_interval: ms(5000),
        takeover_expiry_interval: ms(5000),
        mentor_discovery_timeout: ms(5000),
        ..fast
    }
}

impl Host {
    fn poll_timeout(&self) -> Option<Time> {
        let due = match &self.machine {
            Machine::Registrar(registrar) => registrar.poll_timeout(),
            Machine::Process(client) => client.poll_timeout(),
            Machine::Stranger(stranger) => Some(stranger.poll_timeout()),
            Machine::Nothing => None,
        };
        due.map(|time| self.clock.world(time))
    }
}

/// Outputs without their events.
trait Eventless {
    fn map_event(self) -> Output<()>;
}

impl<E> Eventless for Output<E> {
    fn map_event(self) -> Output<()> {
        match self {
            Output::Open { link, service, target } => Output::Open { link, service, target },
            Output::Send { link, bytes } => Output::Send { link, bytes },
            Output::Close { link } => Output::Close { link },
            Output::Announce { service, bytes } => Output::Announce { service, bytes },
            Output::Measure { link } => Output::Measure { link },
            Output::Event(_) => Output::Event(()),
        }
    }
}
