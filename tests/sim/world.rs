//! The world: hosts with registrars or ASAP processes on them, driven by a virtual clock.

use super::network::{Happening, HostId, Network, Packet};
use rserpool::machine::client::{self, Client, Registration};
use rserpool::machine::registrar::{self, Registrar};
use rserpool::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, RequestId, Service, Target, Time,
};
use rserpool::wire::{
    PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse, frame,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// ASAP port of every host (registrars serve there, processes listen for registrars there).
const ASAP: u16 = 3863;
/// ENRP port of registrars.
const ENRP: u16 = 9901;

/// What runs on a host.
#[derive(Debug)]
pub enum Machine {
    Registrar(Box<Registrar>),
    Process(Box<Client>),
    /// Killed.
    Nothing,
}

/// Something for a host, while it is paused or when it is its turn.
#[derive(Debug)]
enum Input {
    Link(LinkId, LinkChange),
    Message(LinkId, Vec<u8>),
    Datagram(Service, SocketAddr, Vec<u8>),
}

/// A host with its process.
#[derive(Debug)]
pub struct Host {
    pub machine: Machine,
    pub is_registrar: bool,
    pub incarnation: u32,
    pub paused: bool,
    inbox: VecDeque<Input>,
    incoming: u64,
    /// Elements that the process should have.
    pub elements: BTreeMap<(PoolHandle, PeId), Registration>,
    /// Registrar: its ID in this life.
    pub id: RegistrarId,
}

/// A fault, or a step of the scenario.
#[derive(Debug, Clone)]
pub enum Act {
    Kill(HostId),
    /// Start again; registrars with the same ID or a new one.
    Start {
        host: HostId,
        same_id: bool,
    },
    Pause(HostId),
    Resume(HostId),
    /// Cut the hosts of the list off the others; one way: what they send is lost.
    Partition {
        hosts: Vec<HostId>,
        one_way: bool,
    },
    Heal,
    /// Reset one connection of a host.
    Drop(HostId),
    /// A new element at a process.
    Register {
        host: HostId,
        handle: PoolHandle,
        id: PeId,
        policy: Policy,
    },
    /// New policy values of one of its elements.
    Update {
        host: HostId,
        load: u32,
    },
    Deregister(HostId),
    Resolve {
        host: HostId,
        handle: PoolHandle,
    },
    Subscribe {
        host: HostId,
        handle: PoolHandle,
    },
}

/// Counts, for the report of a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub steps: u64,
    pub faults: u64,
    pub checks: u64,
    pub answers: u64,
    pub errors: u64,
}

/// Everything.
pub struct World {
    pub now: Time,
    pub network: Network,
    pub hosts: Vec<Host>,
    pub counts: Counts,
    seed: u64,
    next_request: u64,
    /// Requests without an answer yet, and when they were made.
    pub requests: BTreeMap<RequestId, (HostId, Time)>,
    /// When elements left for good (killed or deregistered).
    pub left: BTreeMap<(PoolHandle, PeId), Time>,
    pub trace: bool,
}

fn address(host: HostId) -> IpAddr {
    IpAddr::from([10, 0, (host / 250) as u8, (host % 250 + 1) as u8])
}

fn host_of(address: IpAddr) -> Option<HostId> {
    match address {
        IpAddr::V4(v4) => {
            let [_, _, high, low] = v4.octets();
            Some(usize::from(high) * 250 + usize::from(low).checked_sub(1)?)
        }
        IpAddr::V6(_) => None,
    }
}

fn transport(host: HostId, port: u16, usage: TransportUse) -> Transport {
    Transport::new(Protocol::Tcp, usage, port, vec![address(host)])
}

fn target(host: HostId, port: u16) -> Target {
    Target { protocol: LinkProtocol::Tcp, addresses: vec![SocketAddr::new(address(host), port)] }
}

impl World {
    pub fn new(seed: u64, registrars: usize, processes: usize) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let most = Duration::from_micros(rng.u64(100..30_000));
        let network = Network::new(rng.fork(), (Duration::from_micros(50), most), rng.f64() * 0.2);
        let host = |is_registrar| Host {
            machine: Machine::Nothing,
            is_registrar,
            incarnation: 0,
            paused: false,
            inbox: VecDeque::new(),
            incoming: LinkId::INCOMING,
            elements: BTreeMap::new(),
            id: RegistrarId(0),
        };
        World {
            now: Time(1_000_000),
            network,
            hosts: (0..registrars + processes).map(|number| host(number < registrars)).collect(),
            counts: Counts::default(),
            seed,
            next_request: 0,
            requests: BTreeMap::new(),
            left: BTreeMap::new(),
            trace: std::env::var_os("RSP_TRACE").is_some(),
        }
    }

    pub fn registrars(&self) -> impl Iterator<Item = (HostId, &Registrar)> {
        self.hosts.iter().enumerate().filter_map(|(number, host)| match &host.machine {
            Machine::Registrar(registrar) => Some((number, registrar.as_ref())),
            _ => None,
        })
    }

    /// Runs until `end`, checking with `check` after every step.
    pub fn run(&mut self, end: Time, check: &mut dyn FnMut(&mut World)) {
        let mut at_once = 0;
        loop {
            let timeout = self.hosts.iter().filter(|host| !host.paused).filter_map(Host::poll_timeout).min();
            let event = self.network.queue.first_key_value().map(|(&(time, _), _)| time);
            let next = timeout.into_iter().chain(event).min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            at_once = if next == self.now { at_once + 1 } else { 0 };
            assert!(at_once < 200_000, "nothing but work at {:?}: a busy loop", self.now);
            self.now = next;
            self.counts.steps += 1;
            if event.is_some_and(|time| time <= next) {
                let (_, happening) = self.network.queue.pop_first().expect("seen above");
                self.happen(happening);
            } else {
                self.timeouts();
            }
            for number in self.network.stuck(self.now) {
                self.break_connection(number);
            }
            check(self);
        }
    }

    fn timeouts(&mut self) {
        for host in 0..self.hosts.len() {
            let due = self.hosts[host].poll_timeout().is_some_and(|time| time <= self.now);
            if due && !self.hosts[host].paused {
                let now = self.now;
                match &mut self.hosts[host].machine {
                    Machine::Registrar(registrar) => registrar.handle_timeout(now),
                    Machine::Process(client) => client.handle_timeout(now),
                    Machine::Nothing => {}
                }
                self.drain(host);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dial { from, incarnation, link, service, to, ends } => {
                self.dial(from, incarnation, link, service, to, ends);
            }
            Happening::Refused { host, incarnation, link } => {
                if self.hosts[host].incarnation == incarnation {
                    self.input(host, Input::Link(link, LinkChange::Down(LinkDown::Refused)));
                }
            }
            Happening::Arrive { connection, direction, packet } => self.arrive(connection, direction, packet),
            Happening::Datagram { to, service, from, bytes } => {
                self.input(to, Input::Datagram(service, from, bytes))
            }
            Happening::Act(act) => self.act(act),
        }
    }

    fn dial(
        &mut self,
        from: HostId,
        incarnation: u32,
        link: LinkId,
        service: Service,
        to: SocketAddr,
        ends: LinkEnds,
    ) {
        if self.hosts[from].incarnation != incarnation {
            return;
        }
        let there = host_of(to.ip()).filter(|&host| host < self.hosts.len());
        let refused = Happening::Refused { host: from, incarnation, link };
        let Some(there) = there else { return self.network.schedule(self.now, refused) };
        if !self.network.passes(from, there) || !self.network.passes(there, from) {
            // The connection attempt gets no answer.
            return self.network.schedule(self.now + Duration::from_secs(3), refused);
        }
        let right_port = to.port() == if service == Service::Enrp { ENRP } else { ASAP };
        let latency = self.network.latency();
        if matches!(self.hosts[there].machine, Machine::Nothing) || !right_port {
            return self.network.schedule(self.now + latency, refused);
        }
        let host = &mut self.hosts[there];
        host.incoming += 1;
        let accepted = LinkId(host.incoming);
        let incarnations = [incarnation, host.incarnation];
        self.network.connect([(from, link), (there, accepted)], incarnations, self.now + latency);
        let back =
            LinkEnds { service, protocol: ends.protocol, peer: ends.local.clone(), local: ends.peer.clone() };
        self.input(there, Input::Link(accepted, LinkChange::Up(back)));
        self.input(from, Input::Link(link, LinkChange::Up(ends)));
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
            }
            Packet::End | Packet::Reset => {
                connection.open = [false; 2];
                let down = if packet == Packet::End { LinkDown::Closed } else { LinkDown::Broken };
                self.input(host, Input::Link(link, LinkChange::Down(down)));
            }
        }
        self.network.tidy();
    }

    fn break_connection(&mut self, number: usize) {
        let Some(connection) = self.network.connections.remove(&number) else { return };
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
    fn work(&mut self, host: HostId) {
        while let Some(input) = self.hosts[host].inbox.pop_front() {
            let now = self.now;
            if self.trace {
                println!("{:>12} h{host} <- {}", now.0, show_input(&input));
            }
            match (&mut self.hosts[host].machine, input) {
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
                (Machine::Nothing, _) => {}
            }
            self.drain(host);
        }
    }

    /// Carries out what a host's machine wants.
    fn drain(&mut self, host: HostId) {
        loop {
            let (effect, event) = match &mut self.hosts[host].machine {
                Machine::Registrar(registrar) => match registrar.poll_output() {
                    Some(output) => split(output),
                    None => return,
                },
                Machine::Process(client) => match client.poll_output() {
                    Some(Output::Event(event)) => (None, Some(event)),
                    Some(output) => (Some(output_without_event(output)), None),
                    None => return,
                },
                Machine::Nothing => return,
            };
            if let Some(event) = event {
                super::checks::event(self, host, event);
            }
            if let Some(effect) = effect {
                self.effect(host, effect);
            }
        }
    }

    fn effect(&mut self, host: HostId, output: Output<()>) {
        let incarnation = self.hosts[host].incarnation;
        if self.trace {
            println!("{:>12} h{host} -> {}", self.now.0, show_output(&output));
        }
        match output {
            Output::Open { link, service, target } => {
                let to = target.addresses[0];
                let local = vec![SocketAddr::new(address(host), 40_000)];
                let ends = LinkEnds { service, protocol: target.protocol, peer: target.addresses, local };
                let latency = self.network.latency();
                let dial = Happening::Dial { from: host, incarnation, link, service, to, ends };
                self.network.schedule(self.now + latency, dial);
            }
            Output::Send { link, bytes } => {
                if let Some((number, side)) = self.network.find(host, link) {
                    self.network.send(self.now, number, side, Packet::Bytes(bytes));
                }
            }
            Output::Close { link } => {
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
            Output::Event(()) => {}
        }
    }

    /// A dial that is given up before it is answered.
    fn forget_dial(&mut self, host: HostId, given_up: LinkId) {
        self.network.queue.retain(|_, happening| match happening {
            Happening::Dial { from, link, .. } => (*from, *link) != (host, given_up),
            Happening::Refused { host: at, link, .. } => (*at, *link) != (host, given_up),
            _ => true,
        });
    }

    fn announce(&mut self, host: HostId, service: Service, bytes: &[u8]) {
        let port = if service == Service::Enrp { ENRP } else { ASAP };
        let from = SocketAddr::new(address(host), port);
        for to in 0..self.hosts.len() {
            let lost = self.network.rng.f64() < self.network.datagram_loss;
            if to != host && !lost && self.network.passes(host, to) {
                let at = self.now + self.network.latency();
                self.network.schedule(at, Happening::Datagram { to, service, from, bytes: bytes.to_vec() });
            }
        }
    }

    pub fn request(&mut self, host: HostId) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.requests.insert(request, (host, self.now));
        request
    }

    pub fn act(&mut self, act: Act) {
        if self.trace {
            println!("{:>12} == {act:?}", self.now.0);
        }
        match act {
            Act::Kill(host) => self.kill(host),
            Act::Start { host, same_id } => self.start(host, same_id),
            Act::Pause(host) => self.hosts[host].paused = true,
            Act::Resume(host) => {
                self.hosts[host].paused = false;
                self.work(host);
            }
            Act::Partition { hosts, one_way } => {
                for &inside in &hosts {
                    for outside in (0..self.hosts.len()).filter(|host| !hosts.contains(host)) {
                        self.network.block(inside, outside);
                        if !one_way {
                            self.network.block(outside, inside);
                        }
                    }
                }
            }
            Act::Heal => self.network.heal(self.now),
            Act::Drop(host) => {
                let mine =
                    |connection: &super::network::Connection| connection.ends.iter().any(|end| end.0 == host);
                let found: Vec<usize> = self
                    .network
                    .connections
                    .iter()
                    .filter(|(_, c)| mine(c))
                    .map(|(&number, _)| number)
                    .collect();
                if !found.is_empty() {
                    let number = found[self.network.rng.usize(..found.len())];
                    self.break_connection(number);
                }
            }
            act => self.application(act),
        }
    }

    /// What the application of a process asks of its machine.
    fn application(&mut self, act: Act) {
        let (host, now) = (
            match act {
                Act::Register { host, .. }
                | Act::Update { host, .. }
                | Act::Deregister(host)
                | Act::Resolve { host, .. }
                | Act::Subscribe { host, .. } => host,
                _ => return,
            },
            self.now,
        );
        if self.hosts[host].paused || !matches!(self.hosts[host].machine, Machine::Process(_)) {
            return;
        }
        let request = self.request(host);
        let node = &mut self.hosts[host];
        let Machine::Process(client) = &mut node.machine else { return };
        let mut asked = true;
        match act {
            Act::Register { handle, id, policy, .. } => {
                let element = PoolElement {
                    id,
                    home: RegistrarId(0),
                    life: 30_000,
                    transport: transport(host, 7, TransportUse::DataPlusControl),
                    policy,
                    asap: None,
                };
                let registration =
                    Registration { handle: handle.clone(), element, interval: Duration::from_secs(10) };
                node.elements.insert((handle.clone(), id), registration.clone());
                self.left.remove(&(handle, id));
                client.register(now, request, registration);
            }
            Act::Update { load, .. } => match node.elements.values_mut().next() {
                Some(registration) if matches!(registration.element.policy, Policy::LeastUsed { .. }) => {
                    registration.element.policy = Policy::LeastUsed { load };
                    client.register(now, request, registration.clone());
                }
                _ => asked = false,
            },
            Act::Deregister(_) => match node.elements.pop_first() {
                Some(((handle, id), _)) => {
                    client.deregister(now, request, &handle, id);
                    self.left.insert((handle, id), now);
                }
                None => asked = false,
            },
            Act::Resolve { handle, .. } => client.resolve(now, request, &handle, None),
            Act::Subscribe { handle, .. } => {
                client.subscribe(now, &handle);
                asked = false;
            }
            _ => asked = false,
        }
        if !asked {
            self.requests.remove(&request);
        }
        self.drain(host);
    }

    fn kill(&mut self, host: HostId) {
        self.hosts[host].machine = Machine::Nothing;
        self.hosts[host].incarnation += 1;
        self.hosts[host].paused = false;
        self.hosts[host].inbox.clear();
        for (key, _) in std::mem::take(&mut self.hosts[host].elements) {
            self.left.insert(key, self.now);
        }
        self.requests.retain(|_, (owner, _)| *owner != host);
        let numbers: Vec<usize> = self.network.connections.keys().copied().collect();
        for number in numbers {
            for side in 0..2 {
                let ours = self
                    .network
                    .connections
                    .get(&number)
                    .is_some_and(|c| c.ends[side].0 == host && c.open[side]);
                if ours {
                    self.network.send(self.now, number, side, Packet::Reset);
                    if let Some(connection) = self.network.connections.get_mut(&number) {
                        connection.open[side] = false;
                    }
                }
            }
        }
    }

    fn start(&mut self, host: HostId, same_id: bool) {
        if !matches!(self.hosts[host].machine, Machine::Nothing) {
            return;
        }
        let seed = self.seed ^ ((host as u64) << 32) ^ u64::from(self.hosts[host].incarnation) ^ self.now.0;
        let now = self.now;
        let node = &mut self.hosts[host];
        node.incoming = LinkId::INCOMING;
        if node.is_registrar {
            if !same_id || node.id.0 == 0 {
                node.id = RegistrarId(fastrand::Rng::with_seed(seed).u32(1..));
            }
            let config = registrar::Config {
                id: node.id,
                asap_transports: vec![transport(host, ASAP, TransportUse::DataOnly)],
                enrp_transports: vec![transport(host, ENRP, TransportUse::DataOnly)],
                announce_asap: true,
                announce_enrp: true,
                ..registrar::Config::default()
            };
            node.machine = Machine::Registrar(Box::new(Registrar::new(config, seed, now)));
        } else {
            let config = client::Config {
                protocols: vec![LinkProtocol::Tcp],
                listen: vec![target(host, ASAP)],
                ..client::Config::default()
            };
            node.machine = Machine::Process(Box::new(Client::new(config, seed, now)));
        }
        self.drain(host);
    }
}

impl Host {
    fn poll_timeout(&self) -> Option<Time> {
        match &self.machine {
            Machine::Registrar(registrar) => registrar.poll_timeout(),
            Machine::Process(client) => client.poll_timeout(),
            Machine::Nothing => None,
        }
    }
}

fn split(output: Output<registrar::Event>) -> (Option<Output<()>>, Option<client::Event>) {
    (Some(output_without_event(output)), None)
}

fn output_without_event<E>(output: Output<E>) -> Output<()> {
    match output {
        Output::Open { link, service, target } => Output::Open { link, service, target },
        Output::Send { link, bytes } => Output::Send { link, bytes },
        Output::Close { link } => Output::Close { link },
        Output::Announce { service, bytes } => Output::Announce { service, bytes },
        Output::Event(_) => Output::Event(()),
    }
}

fn show_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Ok(Some(length)) = frame::first_message(rest) {
        text += &format!("[type {} flags {} length {length}] ", rest[0], rest[1]);
        rest = &rest[length..];
    }
    text
}

fn show_input(input: &Input) -> String {
    match input {
        Input::Link(link, change) => format!("{link:?} {change:?}"),
        Input::Message(link, bytes) => format!("{link:?} {}", show_bytes(bytes)),
        Input::Datagram(service, from, bytes) => {
            format!("{service:?} datagram from {from} {}", show_bytes(bytes))
        }
    }
}

fn show_output(output: &Output<()>) -> String {
    match output {
        Output::Send { link, bytes } => format!("{link:?} {}", show_bytes(bytes)),
        Output::Announce { service, bytes } => format!("{service:?} announce {}", show_bytes(bytes)),
        other => format!("{other:?}"),
    }
}
