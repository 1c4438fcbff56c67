//! A registrar under anything that elements, users, peers, networks and clocks can do to it.

use super::{Input, handle};
use crate::machine::registrar::{Config, Registrar};
use crate::machine::{LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, Service, Target, Time};
use crate::wire::enrp::UpdateAction;
use crate::wire::{
    Asap, CauseCode, Enrp, EnrpMessage, OperationError, PeId, Policy, PoolElement, Protocol, RegistrarId,
    ServerInformation, Transport, TransportUse, frame::first_message,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const SELF: RegistrarId = RegistrarId(5);
/// Calls of `handle_timeout` at one time after which it must have caught up.
const CATCH_UP: usize = 64;

/// A list of operations; every promise of [`Registrar::invariants`] holds after each, it sends whole
/// messages over links that exist, and its deadlines lie in the future once they were served.
pub fn registrar(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new(&mut input);
    world.drain();
    while !input.0.is_empty() {
        world.step(&mut input);
        world.drain();
    }
}

struct World {
    registrar: Registrar,
    now: Time,
    /// Links that are up, and whether they carry ENRP.
    links: BTreeMap<LinkId, Service>,
    dials: Vec<(LinkId, Service, Target)>,
    next: u64,
}

fn address(input: &mut Input) -> IpAddr {
    match input.byte() {
        0 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        1 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        2 => "fd00::7".parse().expect("an address"),
        last => IpAddr::V4(Ipv4Addr::new(10, 0, 0, last % 4)),
    }
}

fn transport(input: &mut Input) -> Transport {
    let protocol = match input.byte() % 8 {
        0 => Protocol::Udp,
        1 | 2 => Protocol::Sctp,
        3 => return Transport::Opaque(vec![1, 2, 3, 4]),
        _ => Protocol::Tcp,
    };
    let usage =
        if input.byte().is_multiple_of(8) { TransportUse::DataOnly } else { TransportUse::DataPlusControl };
    let addresses = (0..input.byte() % 3).map(|_| address(input)).collect();
    Transport::new(protocol, usage, u16::from(input.byte()), addresses)
}

fn policy(input: &mut Input) -> Policy {
    match input.byte() % 8 {
        0 => Policy::WeightedRandom { weight: u32::from(input.byte()) },
        1 => Policy::LeastUsed { load: u32::from(input.byte()) << 24 },
        2 => Policy::Unknown { policy_type: 77, value: vec![0; 4] },
        _ => Policy::RoundRobin,
    }
}

fn id(input: &mut Input) -> PeId {
    PeId(u32::from(input.byte() % 16))
}

fn registrar_id(input: &mut Input) -> RegistrarId {
    RegistrarId(u32::from(input.byte() % 12))
}

fn element(input: &mut Input) -> PoolElement {
    PoolElement {
        id: id(input),
        home: registrar_id(input),
        life: 1000,
        transport: transport(input),
        policy: policy(input),
        asap: input.flag().then(|| transport(input)),
    }
}

fn server(input: &mut Input) -> ServerInformation {
    let transports = (0..input.byte() % 3).map(|_| transport(input)).collect();
    ServerInformation { id: registrar_id(input), transports }
}

fn asap(input: &mut Input) -> Asap {
    match input.byte() % 12 {
        0..=3 => Asap::Registration { handle: handle(input), element: element(input) },
        4 => Asap::Deregistration { handle: handle(input), id: id(input) },
        5 | 6 => {
            let items = [None, Some(0), Some(2), Some(u32::MAX)][usize::from(input.byte() % 4)];
            Asap::HandleResolution { subscribe: input.flag(), handle: handle(input), items }
        }
        7 | 8 => Asap::EndpointKeepAliveAck { handle: handle(input), id: id(input) },
        9 => Asap::EndpointUnreachable { handle: handle(input), id: id(input) },
        10 => Asap::Error { error: OperationError::from(CauseCode(u16::from(input.byte()))) },
        _ => Asap::Cookie { cookie: vec![1, 2, 3] },
    }
}

fn enrp(input: &mut Input) -> Enrp {
    match input.byte() % 16 {
        0..=2 => Enrp::Presence {
            reply_required: input.flag(),
            checksum: input.flag().then(|| [input.byte(), input.byte()]),
            server: input.flag().then(|| server(input)),
        },
        3 => Enrp::HandleTableRequest { own_only: input.flag() },
        4 | 5 => {
            let entry =
                |input: &mut Input| (handle(input), (0..=input.byte() % 3).map(|_| element(input)).collect());
            Enrp::HandleTableResponse {
                rejected: input.byte().is_multiple_of(16),
                more: input.flag(),
                pools: (0..input.byte() % 3).map(|_| entry(input)).collect(),
            }
        }
        6..=8 => Enrp::HandleUpdate {
            takeover_suggested: input.byte().is_multiple_of(8),
            action: if input.byte().is_multiple_of(4) { UpdateAction::Delete } else { UpdateAction::Add },
            handle: handle(input),
            element: element(input),
        },
        9 => Enrp::ListRequest,
        10 => Enrp::ListResponse {
            rejected: input.byte().is_multiple_of(8),
            servers: (0..input.byte() % 4).map(|_| server(input)).collect(),
        },
        11 => Enrp::InitTakeover { target: registrar_id(input) },
        12 => Enrp::InitTakeoverAck { target: registrar_id(input) },
        13 => Enrp::TakeoverServer { target: registrar_id(input) },
        _ => Enrp::Error { error: OperationError::from(CauseCode(u16::from(input.byte()))) },
    }
}

impl World {
    fn new(input: &mut Input) -> World {
        let settings = input.byte();
        let tcp = |port| {
            Transport::new(
                Protocol::Tcp,
                TransportUse::DataOnly,
                port,
                vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))],
            )
        };
        let target =
            Target { protocol: LinkProtocol::Tcp, addresses: vec![SocketAddr::from(([10, 0, 0, 2], 9901))] };
        let config = Config {
            id: SELF,
            asap_transports: vec![tcp(3863)],
            enrp_transports: vec![tcp(9901)],
            peers: if settings & 1 != 0 { vec![target] } else { Vec::new() },
            announce_asap: settings & 2 != 0,
            announce_enrp: settings & 4 != 0,
            support_takeover_suggestion: settings & 8 != 0,
            max_elements: if settings & 16 != 0 { 3 } else { 1000 },
            max_peers: if settings & 32 != 0 { 2 } else { 256 },
            max_subscriptions_per_link: 2,
            max_handle_resolution_rate: (settings & 64 != 0).then_some(2),
            max_elements_per_handle_table_request: 2,
            ..Config::default()
        };
        let now = Time(1_000_000_000);
        World {
            registrar: Registrar::new(config, 1, now),
            now,
            links: BTreeMap::new(),
            dials: Vec::new(),
            next: LinkId::INCOMING,
        }
    }

    fn step(&mut self, input: &mut Input) {
        let now = self.now;
        match input.byte() % 20 {
            0 => self.accept(Service::Asap, input),
            1 => self.accept(Service::Enrp, input),
            2 => self.answer_dial(input),
            3 => {
                if let Some(link) = self.pick(input, None) {
                    let change = match input.byte() % 6 {
                        0 => LinkChange::Down(LinkDown::Closed),
                        1 => LinkChange::Down(LinkDown::Overflow),
                        2 | 3 => LinkChange::Congested,
                        _ => LinkChange::Drained,
                    };
                    if matches!(change, LinkChange::Down(_)) {
                        self.links.remove(&link);
                    }
                    self.registrar.handle_link(now, link, change);
                }
            }
            4..=9 => {
                if let Some(link) = self.pick(input, Some(Service::Asap)) {
                    self.registrar.handle_message(now, link, &asap(input).encode());
                }
            }
            10..=14 => {
                if let Some(link) = self.pick(input, Some(Service::Enrp)) {
                    let sender = registrar_id(input);
                    let message = EnrpMessage { sender, receiver: SELF, body: enrp(input) };
                    self.registrar.handle_message(now, link, &message.encode());
                }
            }
            15 => {
                if let Some(link) = self.pick(input, None) {
                    let length = usize::from(input.byte());
                    let bytes = input.bytes(length);
                    self.registrar.handle_message(now, link, bytes);
                }
            }
            16 => {
                let from = SocketAddr::new(address(input), 9);
                let message =
                    EnrpMessage { sender: registrar_id(input), receiver: RegistrarId(0), body: enrp(input) };
                self.registrar.handle_announce(now, Service::Enrp, from, &message.encode());
            }
            17 => self.sleep(Duration::from_millis(50 * u64::from(input.byte()))),
            18 => {
                let transports = vec![transport(input)];
                self.registrar.set_transports(now, transports.clone(), transports);
            }
            _ => {
                for _ in 0..input.byte() % 8 {
                    if let Some(due) = self.registrar.poll_timeout() {
                        self.sleep(due - self.now);
                        self.drain();
                    }
                }
            }
        }
    }

    fn accept(&mut self, service: Service, input: &mut Input) {
        let link = LinkId(self.next);
        self.next += 1;
        let protocol = if input.byte().is_multiple_of(4) { LinkProtocol::Sctp } else { LinkProtocol::Tcp };
        self.up(link, service, protocol, vec![SocketAddr::new(address(input), 40_000)]);
    }

    fn up(&mut self, link: LinkId, service: Service, protocol: LinkProtocol, peer: Vec<SocketAddr>) {
        self.links.insert(link, service);
        let local = vec![SocketAddr::from(([10, 0, 0, 1], 3863))];
        let ends = LinkEnds { service, protocol, peer, local, roles: None };
        self.registrar.handle_link(self.now, link, LinkChange::Up(ends));
    }

    fn answer_dial(&mut self, input: &mut Input) {
        if self.dials.is_empty() {
            return;
        }
        let index = usize::from(input.byte()) % self.dials.len();
        let (link, service, target) = self.dials.remove(index);
        if input.byte().is_multiple_of(3) {
            self.registrar.handle_link(self.now, link, LinkChange::Down(LinkDown::Refused));
        } else {
            self.up(link, service, target.protocol, target.addresses);
        }
    }

    fn pick(&self, input: &mut Input, service: Option<Service>) -> Option<LinkId> {
        let fits = |(_, of): &(&LinkId, &Service)| service.is_none_or(|service| **of == service);
        let links: Vec<LinkId> = self.links.iter().filter(fits).map(|(&link, _)| link).collect();
        let number = usize::from(input.byte());
        (!links.is_empty()).then(|| links[number % links.len()])
    }

    fn sleep(&mut self, passed: Duration) {
        self.now = self.now + passed;
        for _ in 0..CATCH_UP {
            self.registrar.handle_timeout(self.now);
            self.drain();
            if self.registrar.poll_timeout().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!("its deadlines never lie in the future");
    }

    fn drain(&mut self) {
        while let Some(output) = self.registrar.poll_output() {
            match output {
                Output::Send { link, bytes } => self.sent(link, &bytes),
                Output::Open { link, service, target } => {
                    assert!(!target.addresses.is_empty());
                    self.dials.push((link, service, target));
                }
                Output::Close { link } => {
                    self.links.remove(&link);
                    self.dials.retain(|(dial, ..)| *dial != link);
                }
                Output::Measure { .. } | Output::Announce { .. } | Output::Event(_) => {}
            }
        }
        if let Err(broken) = self.registrar.invariants() {
            panic!("{broken}");
        }
    }

    fn sent(&self, link: LinkId, mut bytes: &[u8]) {
        let service = self.links.get(&link);
        let service = service.unwrap_or_else(|| panic!("sent over {link:?}, which is not there"));
        while let Some(length) = first_message(bytes).expect("a message stream") {
            let (message, rest) = bytes.split_at(length);
            match service {
                Service::Asap => drop(Asap::decode(message).expect("sends what decodes")),
                Service::Enrp => {
                    let sender = EnrpMessage::decode(message).expect("sends what decodes").message.sender;
                    assert_eq!(sender, SELF);
                }
            }
            bytes = rest;
        }
        assert!(bytes.is_empty(), "sent half a message");
    }
}
