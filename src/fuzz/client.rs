//! Elements and users of a process under anything that registrars, strangers who claim to be some,
//! networks and clocks can do to it.

use super::{Input, handle};
use crate::machine::client::{Client, Config, Event, Registration};
use crate::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, RequestId, Service, Target, Time,
};
use crate::wire::{
    Asap, CauseCode, OperationError, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport,
    TransportUse, frame::first_message,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Calls of `handle_timeout` at one time after which it must have caught up.
const CATCH_UP: usize = 256;
/// How long a shutdown may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A list of operations. It sends whole messages over links that exist, its deadlines lie in the
/// future once they were served, every request is answered once, in the end by the shutdown, and
/// nobody who dialled us becomes our home without a keep-alive that says so and names an element.
pub fn client(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new(&mut input);
    while !input.0.is_empty() {
        world.step(&mut input);
        world.drain();
    }
    world.end();
}

struct World {
    client: Client,
    now: Time,
    up: BTreeSet<LinkId>,
    dials: Vec<(LinkId, Target)>,
    next_link: u64,
    next_request: u64,
    /// Requests without an answer.
    waiting: BTreeSet<RequestId>,
    /// Elements that are ours, or were at some time.
    ours: BTreeSet<(PoolHandle, PeId)>,
    /// Strangers who sent a keep-alive that may make them our home.
    adopters: BTreeSet<LinkId>,
    subscriptions: BTreeMap<PoolHandle, usize>,
    /// Watches by their numbers.
    watches: BTreeMap<u64, (PoolHandle, PeId)>,
    next_watch: u64,
}

fn id(input: &mut Input) -> PeId {
    PeId(u32::from(input.byte() % 4))
}

fn element(input: &mut Input) -> PoolElement {
    let address = IpAddr::V4(Ipv4Addr::new(10, 1, 1, input.byte() % 4));
    let policy = match input.byte() % 4 {
        0 => Policy::LeastUsed { load: u32::from(input.byte()) << 24 },
        1 => Policy::Unknown { policy_type: 77, value: vec![0; 4] },
        _ => Policy::RoundRobin,
    };
    PoolElement {
        id: id(input),
        home: RegistrarId(u32::from(input.byte() % 4)),
        life: 1000,
        transport: Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 7, vec![address]),
        policy,
        asap: None,
    }
}

fn error(input: &mut Input) -> OperationError {
    OperationError::from(CauseCode(u16::from(input.byte() % 12)))
}

/// What a registrar, or somebody who claims to be one, may say.
fn asap(input: &mut Input) -> Asap {
    match input.byte() % 14 {
        0..=2 => {
            let rejected = input.byte().is_multiple_of(8);
            let error = rejected.then(|| error(input));
            Asap::RegistrationResponse { rejected, handle: handle(input), id: id(input), error }
        }
        3 => Asap::DeregistrationResponse {
            handle: handle(input),
            id: id(input),
            error: input.byte().is_multiple_of(8).then(|| error(input)),
        },
        4..=8 => Asap::HandleResolutionResponse {
            subscribed: input.flag(),
            handle: handle(input),
            error: input.byte().is_multiple_of(8).then(|| error(input)),
            policy: input.flag().then_some(Policy::RoundRobin),
            elements: (0..input.byte() % 4).map(|_| element(input)).collect(),
            total: input.byte().is_multiple_of(4).then(|| u32::from(input.byte())),
            lost: (0..input.byte() % 3).map(|_| id(input)).collect(),
            deregistered: (0..input.byte() % 3).map(|_| id(input)).collect(),
        },
        9..=11 => Asap::EndpointKeepAlive {
            home: input.flag(),
            registrar: RegistrarId(u32::from(input.byte() % 4)),
            handle: handle(input),
            id: input.flag().then(|| id(input)),
        },
        12 => Asap::Error { error: error(input) },
        _ => Asap::Registration { handle: handle(input), element: element(input) },
    }
}

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

impl World {
    fn new(input: &mut Input) -> World {
        let settings = input.byte();
        let target = |last| Target { protocol: LinkProtocol::Tcp, addresses: vec![address(last, 3863)] };
        let config = Config {
            registrars: if settings & 1 != 0 { vec![target(1), target(2)] } else { Vec::new() },
            fallback: vec![target(9)],
            protocols: if settings & 2 != 0 {
                vec![LinkProtocol::Sctp, LinkProtocol::Tcp]
            } else {
                vec![LinkProtocol::Tcp]
            },
            request_max_trials: u32::from(settings >> 2 & 3),
            listen: if settings & 16 != 0 { vec![target(7)] } else { Vec::new() },
            ..Config::default()
        };
        let now = Time(1_000_000_000);
        World {
            client: Client::new(config, 1, now),
            now,
            up: BTreeSet::new(),
            dials: Vec::new(),
            next_link: LinkId::INCOMING,
            next_request: 0,
            waiting: BTreeSet::new(),
            ours: BTreeSet::new(),
            adopters: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 0,
        }
    }

    fn request(&mut self) -> RequestId {
        self.next_request += 1;
        self.waiting.insert(RequestId(self.next_request));
        RequestId(self.next_request)
    }

    fn step(&mut self, input: &mut Input) {
        let now = self.now;
        match input.byte() % 20 {
            0 | 1 => {
                let registration = Registration {
                    handle: handle(input),
                    element: element(input),
                    interval: Duration::from_millis(100 * u64::from(input.byte())),
                };
                let request = self.request();
                self.ours.insert((registration.handle.clone(), registration.element.id));
                self.client.register(now, request, registration);
            }
            2 => {
                let (request, handle) = (self.request(), handle(input));
                self.client.deregister(now, request, &handle, id(input));
            }
            3 | 4 => {
                let (request, handle) = (self.request(), handle(input));
                let how = input.byte();
                let items = [None, Some(0), Some(2), Some(u32::MAX)][usize::from(how % 4)];
                self.client.resolve(now, request, &handle, items, how & 4 != 0);
            }
            5 if input.flag() => self.watch(input),
            5 => self.subscription(input),
            6 => {
                let handle = handle(input);
                self.client.report_unreachable(now, &handle, id(input));
            }
            7 => {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.up(link, LinkProtocol::Tcp, vec![address(input.byte() % 4, 40_000)]);
            }
            8 => self.answer_dial(input),
            9 => {
                if let Some(link) = self.pick(input) {
                    let change = match input.byte() % 4 {
                        0 => LinkChange::Down(LinkDown::Closed),
                        1 => LinkChange::Down(LinkDown::Overflow),
                        2 => LinkChange::Congested,
                        _ => LinkChange::Drained,
                    };
                    if matches!(change, LinkChange::Down(_)) {
                        self.up.remove(&link);
                    }
                    self.client.handle_link(now, link, change);
                }
            }
            10..=14 => {
                if let Some(link) = self.pick(input) {
                    let message = asap(input);
                    self.hear(link, &message.encode());
                }
            }
            15 => {
                if let Some(link) = self.pick(input) {
                    let length = usize::from(input.byte());
                    let bytes = input.bytes(length);
                    self.hear(link, bytes);
                }
            }
            16 => self.announce(input),
            17 => self.sleep(Duration::from_millis(50 * u64::from(input.byte()))),
            18 => {
                let addresses = vec![address(input.byte(), 1)];
                self.client.set_listen(now, vec![Target { protocol: LinkProtocol::Tcp, addresses }]);
            }
            _ => {
                for _ in 0..input.byte() % 8 {
                    if let Some(due) = self.client.poll_timeout() {
                        self.sleep(due - self.now);
                    }
                }
            }
        }
    }

    fn subscription(&mut self, input: &mut Input) {
        let handle = handle(input);
        let count = self.subscriptions.entry(handle.clone()).or_default();
        if input.flag() {
            *count += 1;
            self.client.subscribe(self.now, &handle);
        } else if *count > 0 {
            *count -= 1;
            self.client.unsubscribe(self.now, &handle);
        }
    }

    fn watch(&mut self, input: &mut Input) {
        if input.flag() {
            let watched = (handle(input), id(input));
            self.next_watch += 1;
            self.client.watch(self.now, &watched.0, watched.1, self.next_watch);
            self.watches.insert(self.next_watch, watched);
        } else if let Some((number, (handle, id))) = self.watches.pop_first() {
            self.client.unwatch(self.now, &handle, id, number);
            self.drain();
        }
    }

    fn announce(&mut self, input: &mut Input) {
        let registrar = RegistrarId(u32::from(input.byte() % 4));
        let host = input.byte() % 4;
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, host));
        let transport = |protocol| Transport::new(protocol, TransportUse::DataOnly, 3863, vec![ip]);
        let transports = match input.byte() % 4 {
            0 => Vec::new(),
            1 => vec![transport(Protocol::Sctp)],
            2 => vec![transport(Protocol::Udp)],
            _ => vec![transport(Protocol::Tcp), transport(Protocol::Sctp)],
        };
        let bytes = Asap::ServerAnnounce { registrar, transports }.encode();
        self.client.handle_announce(self.now, address(host, 3863), &bytes);
    }

    fn hear(&mut self, link: LinkId, bytes: &[u8]) {
        if let Ok(decoded) = Asap::decode(bytes)
            && let Asap::EndpointKeepAlive { home: true, handle, id, .. } = decoded.message
            && self.ours.iter().any(|(pool, own)| *pool == handle && id.is_none_or(|id| id == *own))
        {
            self.adopters.insert(link);
        }
        self.client.handle_message(self.now, link, bytes);
    }

    fn up(&mut self, link: LinkId, protocol: LinkProtocol, peer: Vec<SocketAddr>) {
        self.up.insert(link);
        let ends =
            LinkEnds { service: Service::Asap, protocol, peer, local: vec![address(7, 4000)], roles: None };
        self.client.handle_link(self.now, link, LinkChange::Up(ends));
    }

    fn answer_dial(&mut self, input: &mut Input) {
        if self.dials.is_empty() {
            return;
        }
        let index = usize::from(input.byte()) % self.dials.len();
        let (link, target) = self.dials.remove(index);
        if input.byte().is_multiple_of(3) {
            self.client.handle_link(self.now, link, LinkChange::Down(LinkDown::Refused));
        } else {
            self.up(link, target.protocol, target.addresses);
        }
    }

    fn pick(&self, input: &mut Input) -> Option<LinkId> {
        let number = usize::from(input.byte());
        self.up.iter().nth(number % self.up.len().max(1)).copied()
    }

    fn sleep(&mut self, passed: Duration) {
        self.drain();
        self.now = self.now + passed;
        for _ in 0..CATCH_UP {
            self.client.handle_timeout(self.now);
            self.drain();
            if self.client.poll_timeout().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!("its deadlines never lie in the future");
    }

    /// Everything ends, and all that was asked is answered.
    fn end(&mut self) {
        self.client.shutdown(self.now, PATIENCE);
        self.drain();
        let end = self.now + PATIENCE + Duration::from_secs(1);
        for _ in 0..CATCH_UP {
            match self.client.poll_timeout() {
                Some(due) if due <= end => self.sleep(due - self.now),
                _ => break,
            }
        }
        assert!(self.client.is_shut_down(), "it does not end");
        assert!(self.waiting.is_empty(), "{:?} were never answered", self.waiting);
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Send { link, bytes } => self.sent(link, &bytes),
                Output::Open { link, target, .. } => {
                    assert!(!target.addresses.is_empty() && !link.is_incoming());
                    self.dials.push((link, target));
                }
                Output::Close { link } => {
                    self.up.remove(&link);
                    self.dials.retain(|(dial, _)| *dial != link);
                }
                Output::Announce { .. } | Output::Measure { .. } => panic!("a client does not do that"),
                Output::Event(event) => self.told(event),
            }
        }
    }

    fn told(&mut self, event: Event) {
        let answered = match event {
            Event::Registered { request, .. } | Event::Deregistered { request, .. } => vec![request],
            Event::Resolved { requests, .. } => requests,
            Event::WatchedGone { number } => {
                return assert!(self.watches.contains_key(&number), "{number} is watched by nobody");
            }
            Event::Home { link: Some(link), .. } => {
                let invited = !link.is_incoming() || self.adopters.contains(&link);
                return assert!(invited && self.up.contains(&link), "{link:?} became our home");
            }
            _ => return,
        };
        for request in answered {
            assert!(self.waiting.remove(&request), "{request:?} answered twice");
        }
    }

    fn sent(&self, link: LinkId, mut bytes: &[u8]) {
        assert!(self.up.contains(&link), "sent over {link:?}, which is not there");
        while let Some(length) = first_message(bytes).expect("a message stream") {
            let (message, rest) = bytes.split_at(length);
            Asap::decode(message).expect("sends what decodes");
            bytes = rest;
        }
        assert!(bytes.is_empty(), "sent half a message");
    }
}
