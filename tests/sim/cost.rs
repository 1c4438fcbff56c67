//! What a scope costs on the network: the production machines under a virtual clock, without faults,
//! every message counted. Prints the table of `docs/scaling.md`:
//!
//! `cargo test --release --test sim -- --ignored --nocapture network_cost`
//!
//! `RSP_ROW=30x100000` prints one row only. With 100 000 elements the window is shorter (5 s instead of 10 s).
//!
//! Bytes are those of the messages, without the headers of TCP or UDP and IP. One process has one
//! element, the dearest case, because keep-alives go to processes.

use rserpool::machine::client::{self, Client, Registration};
use rserpool::machine::registrar::{self, Registrar};
use rserpool::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, RequestId, Service, Target, Time,
};
use rserpool::wire::{
    PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse, frame,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// One way through the network.
const LATENCY: Duration = Duration::from_micros(500);
/// How often an element registers anew.
const INTERVAL: Duration = Duration::from_secs(30);
const ELEMENTS_PER_POOL: usize = 100;

enum Machine {
    Registrar(Box<Registrar>),
    Process(Box<Client>),
}

enum Happening {
    Dial { from: usize, link: LinkId, service: Service, target: Target },
    Message { to: usize, link: LinkId, bytes: Vec<u8> },
    Down { to: usize, link: LinkId, why: LinkDown },
    Datagram { to: usize, service: Service, from: SocketAddr, bytes: Vec<u8> },
}

/// Messages and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Traffic {
    messages: u64,
    bytes: u64,
}

/// By kind.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    /// Between registrars, over their links.
    enrp: Traffic,
    /// Between registrars and processes, both ways.
    asap: Traffic,
    /// To the groups, each datagram once.
    multicast: Traffic,
}

struct Cost {
    now: Time,
    machines: Vec<Machine>,
    registrars: usize,
    incoming: u64,
    links: HashMap<(usize, LinkId), (usize, LinkId)>,
    happenings: HashMap<u64, Happening>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    sequence: u64,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    armed: Vec<Option<Time>>,
    counts: Counts,
}

fn address(node: usize, service: Service) -> SocketAddr {
    let port = if service == Service::Enrp { 9901 } else { 3863 };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + node as u32)), port)
}

fn node_of(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(0x0a00_0001).map(|node| node as usize),
        IpAddr::V6(_) => None,
    }
}

fn target(node: usize, service: Service) -> Target {
    Target { protocol: LinkProtocol::Tcp, addresses: vec![address(node, service)] }
}

fn transport(node: usize, service: Service, usage: TransportUse) -> Transport {
    let address = address(node, service);
    Transport::new(Protocol::Tcp, usage, address.port(), vec![address.ip()])
}

fn registrar(node: usize, now: Time) -> Registrar {
    let config = registrar::Config {
        id: RegistrarId(node as u32 + 1),
        asap_transports: vec![transport(node, Service::Asap, TransportUse::DataOnly)],
        enrp_transports: vec![transport(node, Service::Enrp, TransportUse::DataOnly)],
        announce_asap: true,
        announce_enrp: true,
        ..registrar::Config::default()
    };
    Registrar::new(config, node as u64 + 7, now)
}

impl Cost {
    fn new(registrars: usize, processes: usize) -> Cost {
        let mut cost = Cost {
            now: Time(1_000_000),
            machines: Vec::new(),
            registrars,
            incoming: LinkId::INCOMING,
            links: HashMap::new(),
            happenings: HashMap::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            timers: BinaryHeap::new(),
            armed: Vec::new(),
            counts: Counts::default(),
        };
        for node in 0..registrars {
            cost.machines.push(Machine::Registrar(Box::new(registrar(node, cost.now))));
        }
        for process in 0..processes {
            let node = registrars + process;
            let config = client::Config {
                registrars: vec![target(process % registrars, Service::Asap)],
                listen: vec![target(node, Service::Asap)],
                ..client::Config::default()
            };
            cost.machines.push(Machine::Process(Box::new(Client::new(config, node as u64, cost.now))));
        }
        cost.armed = vec![None; cost.machines.len()];
        for node in 0..registrars {
            cost.drain(node);
        }
        cost
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.happenings.insert(self.sequence, happening);
        self.queue.push(Reverse((self.now + after, self.sequence)));
    }

    fn run(&mut self, end: Time) {
        loop {
            let timer = self.timers.peek().map(|Reverse((time, _))| *time);
            let event = self.queue.peek().map(|Reverse((time, _))| *time);
            let Some(next) = timer.into_iter().chain(event).min().filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if event == Some(next) {
                let Some(Reverse((_, number))) = self.queue.pop() else { continue };
                let Some(happening) = self.happenings.remove(&number) else { continue };
                self.happen(happening);
            } else if let Some(Reverse((time, node))) = self.timers.pop()
                && self.armed[node] == Some(time)
            {
                self.armed[node] = None;
                match &mut self.machines[node] {
                    Machine::Registrar(registrar) => registrar.handle_timeout(self.now),
                    Machine::Process(client) => client.handle_timeout(self.now),
                }
                self.drain(node);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        let node = match happening {
            Happening::Dial { from, link, service, target } => {
                return self.dial(from, link, service, target);
            }
            Happening::Message { to, link, bytes } => {
                let mut rest = &bytes[..];
                while let Ok(Some(length)) = frame::first_message(rest) {
                    match &mut self.machines[to] {
                        Machine::Registrar(r) => r.handle_message(now, link, &rest[..length]),
                        Machine::Process(c) => c.handle_message(now, link, &rest[..length]),
                    }
                    rest = &rest[length..];
                }
                to
            }
            Happening::Down { to, link, why } => {
                self.links.remove(&(to, link));
                self.change(to, link, LinkChange::Down(why));
                to
            }
            Happening::Datagram { to, service, from, bytes } => {
                match &mut self.machines[to] {
                    Machine::Registrar(r) => r.handle_announce(now, service, from, &bytes),
                    Machine::Process(c) => c.handle_announce(now, from, &bytes),
                }
                to
            }
        };
        self.drain(node);
    }

    fn change(&mut self, node: usize, link: LinkId, change: LinkChange) {
        match &mut self.machines[node] {
            Machine::Registrar(r) => r.handle_link(self.now, link, change),
            Machine::Process(c) => c.handle_link(self.now, link, change),
        }
    }

    fn dial(&mut self, from: usize, link: LinkId, service: Service, target: Target) {
        let there = node_of(target.addresses[0]).filter(|&node| node < self.machines.len());
        let Some(there) = there else {
            return self.schedule(LATENCY, Happening::Down { to: from, link, why: LinkDown::Refused });
        };
        self.incoming += 1;
        let other = LinkId(self.incoming);
        self.links.insert((from, link), (there, other));
        self.links.insert((there, other), (from, link));
        let ends = |local: SocketAddr, peer| LinkEnds {
            service,
            protocol: LinkProtocol::Tcp,
            peer: vec![peer],
            local: vec![local],
            roles: None,
        };
        let (near, far) = (SocketAddr::new(address(from, service).ip(), 40_000), address(there, service));
        self.change(there, other, LinkChange::Up(ends(far, near)));
        self.drain(there);
        self.change(from, link, LinkChange::Up(ends(near, far)));
        self.drain(from);
    }

    fn drain(&mut self, node: usize) {
        loop {
            let output = match &mut self.machines[node] {
                Machine::Registrar(r) => r.poll_output().map(without_event),
                Machine::Process(c) => c.poll_output().map(without_event),
            };
            match output {
                None => break,
                Some(output) => self.effect(node, output),
            }
        }
        let due = match &self.machines[node] {
            Machine::Registrar(r) => r.poll_timeout(),
            Machine::Process(c) => c.poll_timeout(),
        };
        if due != self.armed[node] {
            self.armed[node] = due;
            self.timers.extend(due.map(|time| Reverse((time, node))));
        }
    }

    fn effect(&mut self, node: usize, output: Output<()>) {
        match output {
            Output::Open { link, service, target } => {
                self.schedule(LATENCY, Happening::Dial { from: node, link, service, target });
            }
            Output::Send { link, bytes } => {
                let Some(&(to, other)) = self.links.get(&(node, link)) else { return };
                let between_registrars = node < self.registrars && to < self.registrars;
                let count = if between_registrars { &mut self.counts.enrp } else { &mut self.counts.asap };
                let mut rest = &bytes[..];
                while let Ok(Some(length)) = frame::first_message(rest) {
                    count.messages += 1;
                    rest = &rest[length..];
                }
                count.bytes += bytes.len() as u64;
                self.schedule(LATENCY, Happening::Message { to, link: other, bytes });
            }
            Output::Close { link } => {
                if let Some((to, other)) = self.links.remove(&(node, link)) {
                    self.schedule(LATENCY, Happening::Down { to, link: other, why: LinkDown::Closed });
                }
            }
            Output::Announce { service, bytes } => {
                self.counts.multicast.messages += 1;
                self.counts.multicast.bytes += bytes.len() as u64;
                // Processes know their registrars already; to spare the simulator, they hear none.
                for to in (0..self.registrars).filter(|&to| to != node && service == Service::Enrp) {
                    let (from, bytes) = (address(node, service), bytes.clone());
                    self.schedule(LATENCY, Happening::Datagram { to, service, from, bytes });
                }
            }
            Output::Measure { .. } | Output::Event(()) => {}
        }
    }

    fn register(&mut self, process: usize) {
        let node = self.registrars + process;
        let Machine::Process(client) = &mut self.machines[node] else { return };
        let handle = format!("pool{}", process / ELEMENTS_PER_POOL);
        let registration = Registration {
            handle: PoolHandle::new(handle.as_bytes()).expect("short"),
            element: PoolElement {
                id: PeId(node as u32 + 1),
                home: RegistrarId(0),
                life: 3 * INTERVAL.as_millis() as u32,
                transport: transport(node, Service::Asap, TransportUse::DataPlusControl),
                policy: Policy::RoundRobin,
                asap: None,
            },
            interval: INTERVAL,
        };
        client.register(self.now, RequestId(process as u64), registration);
        self.drain(node);
    }

    /// How many elements each registrar knows.
    fn known(&self) -> Vec<usize> {
        let registrars = self.machines.iter().filter_map(|machine| match machine {
            Machine::Registrar(registrar) => Some(registrar.handlespace().len()),
            _ => None,
        });
        registrars.collect()
    }

    /// What the function did to the network.
    fn during(&mut self, act: impl FnOnce(&mut Cost)) -> Counts {
        let before = self.counts;
        act(self);
        let since = |after: Traffic, before: Traffic| Traffic {
            messages: after.messages - before.messages,
            bytes: after.bytes - before.bytes,
        };
        Counts {
            enrp: since(self.counts.enrp, before.enrp),
            asap: since(self.counts.asap, before.asap),
            multicast: since(self.counts.multicast, before.multicast),
        }
    }
}

fn without_event<E>(output: Output<E>) -> Output<()> {
    match output {
        Output::Open { link, service, target } => Output::Open { link, service, target },
        Output::Send { link, bytes } => Output::Send { link, bytes },
        Output::Close { link } => Output::Close { link },
        Output::Announce { service, bytes } => Output::Announce { service, bytes },
        Output::Measure { link } => Output::Measure { link },
        Output::Event(_) => Output::Event(()),
    }
}

fn show(traffic: Traffic, seconds: f64) -> String {
    let (messages, kib) = (traffic.messages as f64 / seconds, traffic.bytes as f64 / seconds / 1024.0);
    format!("{messages:.0} | {kib:.1}")
}

/// One row of the table.
fn measure(registrars: usize, elements: usize, rest: Duration) {
    let begin = Instant::now();
    let mut cost = Cost::new(registrars, elements);
    cost.run(cost.now + Duration::from_secs(6));
    // Registered evenly over one interval, so that the registrations that follow are even as well.
    let joined = cost.during(|cost| {
        let start = cost.now;
        for process in 0..elements {
            cost.run(start + INTERVAL.mul_f64(process as f64 / elements as f64));
            cost.register(process);
        }
    });
    cost.run(cost.now + Duration::from_secs(2));
    assert_eq!(cost.known(), vec![elements; registrars], "every registrar knows every element");
    let counts = cost.during(|cost| cost.run(cost.now + rest));
    let seconds = rest.as_secs_f64();
    println!(
        "| {registrars} | {elements} | {} | {} | {} | {:.1} | {:.0} s |",
        show(counts.enrp, seconds),
        show(counts.asap, seconds),
        show(counts.multicast, seconds),
        joined.enrp.bytes as f64 / elements as f64 / 1024.0,
        begin.elapsed().as_secs_f64(),
    );
}

#[test]
#[ignore = "minutes in release; prints the table of docs/scaling.md"]
fn network_cost() {
    let row = std::env::var("RSP_ROW").ok();
    for elements in [1_000, 10_000, 100_000] {
        for registrars in [3, 10, 30] {
            if row.as_ref().is_some_and(|row| *row != format!("{registrars}x{elements}")) {
                continue;
            }
            let rest = Duration::from_secs(if elements == 100_000 { 5 } else { 10 });
            measure(registrars, elements, rest);
        }
    }
}

#[test]
fn cost_is_counted() {
    let mut cost = Cost::new(3, 10);
    cost.run(cost.now + Duration::from_secs(6));
    (0..10).for_each(|process| cost.register(process));
    cost.run(cost.now + Duration::from_secs(2));
    assert_eq!(cost.known(), [10; 3]);
    let counts = cost.during(|cost| cost.run(cost.now + Duration::from_secs(10)));
    // Each of three registrars to two peers every half second or so; ten processes asked every 3/4 s.
    assert!((100..400).contains(&counts.enrp.messages), "{counts:?}");
    assert!((150..500).contains(&counts.asap.messages), "{counts:?}");
    assert!((40..120).contains(&counts.multicast.messages), "{counts:?}");
}
