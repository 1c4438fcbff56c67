//! One input, the whole list of effects in order.

mod asap;
mod claims;
mod distance;
mod enrp;
mod hearsay;
mod identity;
mod joining;
mod operate;
mod routine;
mod rsplib;
mod shares;
mod size;
mod statements;
mod strangers;
mod takeover;
mod trust;
mod watch;

use super::{Config, Event, Registrar};
use crate::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Measurement, Output, Service, Target, Time,
};
use crate::wire::{
    Asap, Enrp, EnrpMessage, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, ServerInformation,
    Transport, TransportUse,
};
use crate::wire::{enrp::UpdateAction, frame::first_message};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Our ID in these tests.
pub const SELF: RegistrarId = RegistrarId(0x5000);
pub const LIFE: u32 = 90_000;

/// An effect with its messages decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    Asap(LinkId, Asap),
    Enrp(LinkId, RegistrarId, Enrp),
    Open(Service, Target),
    Close(LinkId),
    Announced(Service),
    Saw(Event),
}
pub use Effect::{Announced, Close, Open, Saw};

/// A registrar, a clock, and what the driver knows of links.
pub struct Bench {
    pub registrar: Registrar,
    pub now: Time,
    services: BTreeMap<LinkId, Service>,
    /// Who spoke over a link.
    names: BTreeMap<LinkId, RegistrarId>,
    /// Dials not yet answered.
    pub opened: Vec<(LinkId, Target)>,
    /// What the kernel says of links; of the others, that they are good.
    pub ways: BTreeMap<LinkId, Measurement>,
    next: u64,
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn pool(name: &str) -> PoolHandle {
    PoolHandle::new(name.as_bytes()).expect("a legal handle")
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn transport(protocol: Protocol, usage: TransportUse, text: &str) -> Transport {
    let address = address(text);
    Transport::new(protocol, usage, address.port(), vec![address.ip()])
}

/// An element as it registers: TCP, round robin, reachable for registrars on port 99.
pub fn element(id: u32) -> PoolElement {
    PoolElement {
        id: PeId(id),
        home: RegistrarId(0),
        life: LIFE,
        transport: transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.9:7"),
        policy: Policy::RoundRobin,
        asap: Some(transport(Protocol::Tcp, TransportUse::DataOnly, "10.0.0.9:99")),
    }
}

/// The element as others hear of it.
pub fn owned(id: u32, home: RegistrarId) -> PoolElement {
    PoolElement { home, ..element(id) }
}

/// The element as users hear of it.
pub fn listed(id: u32, home: RegistrarId) -> PoolElement {
    PoolElement { asap: None, ..owned(id, home) }
}

pub fn config() -> Config {
    Config { id: SELF, return_time: Duration::ZERO, ..Config::default() }
}

pub fn server(id: RegistrarId, text: &str) -> ServerInformation {
    ServerInformation { id, transports: vec![transport(Protocol::Tcp, TransportUse::DataOnly, text)] }
}

pub fn update(id: u32, home: RegistrarId) -> Enrp {
    Enrp::HandleUpdate {
        takeover_suggested: false,
        action: UpdateAction::Add,
        handle: pool("echo"),
        element: owned(id, home),
    }
}

/// An element deregistered.
pub fn retirement(id: u32, home: RegistrarId) -> Enrp {
    Enrp::HandleUpdate {
        takeover_suggested: false,
        action: UpdateAction::Delete,
        handle: pool("echo"),
        element: PoolElement { life: 0, ..owned(id, home) },
    }
}

pub fn removal(id: u32, home: RegistrarId) -> Enrp {
    Enrp::HandleUpdate {
        takeover_suggested: false,
        action: UpdateAction::Delete,
        handle: pool("echo"),
        element: owned(id, home),
    }
}

pub fn table(more: bool, ids: &[(u32, RegistrarId)]) -> Enrp {
    let elements: Vec<_> = ids.iter().map(|&(id, home)| owned(id, home)).collect();
    let pools = if elements.is_empty() { Vec::new() } else { vec![(pool("echo"), elements)] };
    Enrp::HandleTableResponse { rejected: false, more, pools }
}

pub fn registered(link: LinkId, id: u32) -> Effect {
    let message =
        Asap::RegistrationResponse { rejected: false, handle: pool("echo"), id: PeId(id), error: None };
    Effect::Asap(link, message)
}

pub fn keep_alive(link: LinkId, home: bool, id: u32) -> Effect {
    let message = Asap::EndpointKeepAlive { home, registrar: SELF, handle: pool("echo"), id: Some(PeId(id)) };
    Effect::Asap(link, message)
}

pub fn ack(id: u32) -> Asap {
    Asap::EndpointKeepAliveAck { handle: pool("echo"), id: PeId(id) }
}

pub fn registration(id: u32) -> Asap {
    Asap::Registration { handle: pool("echo"), element: element(id) }
}

pub fn added(id: u32) -> Effect {
    Saw(Event::ElementAdded { handle: pool("echo"), id: PeId(id) })
}

pub fn removed(id: u32, reason: &'static str) -> Effect {
    Saw(Event::ElementRemoved { handle: pool("echo"), id: PeId(id), reason })
}

impl Bench {
    pub fn new(config: Config) -> (Bench, Vec<Effect>) {
        let now = Time(1_000_000_000);
        let registrar = Registrar::new(config, 7, now);
        let mut bench = Bench {
            registrar,
            now,
            services: BTreeMap::new(),
            names: BTreeMap::new(),
            opened: Vec::new(),
            ways: BTreeMap::new(),
            next: LinkId::INCOMING,
        };
        let effects = bench.drain();
        (bench, effects)
    }

    /// One that serves, alone, without heartbeats getting in the way.
    pub fn serving() -> Bench {
        let (bench, effects) = Bench::new(config());
        assert_eq!(effects, [Saw(Event::Serving)]);
        bench
    }

    pub fn drain(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut measured = Vec::new();
        while let Some(output) = self.registrar.poll_output() {
            match output {
                Output::Send { link, bytes } => self.decode(link, &bytes, &mut effects),
                Output::Open { link, service, target } => {
                    self.services.insert(link, service);
                    self.opened.push((link, target.clone()));
                    effects.push(Open(service, target));
                }
                Output::Close { link } => effects.push(Close(link)),
                Output::Announce { service, .. } => effects.push(Announced(service)),
                Output::Measure { link } => measured.push(link),
                Output::Event(event) => effects.push(Saw(event)),
            }
        }
        if !measured.is_empty() {
            for link in measured {
                let way = self.ways.get(&link).copied().unwrap_or_default();
                self.registrar.handle_measurement(self.now, link, way);
            }
            effects.extend(self.drain());
        }
        self.registrar.invariants().expect("invariants hold");
        effects
    }

    fn decode(&self, link: LinkId, mut bytes: &[u8], effects: &mut Vec<Effect>) {
        while let Some(length) = first_message(bytes).expect("a message stream") {
            let (message, rest) = bytes.split_at(length);
            bytes = rest;
            effects.push(match self.services[&link] {
                Service::Asap => Effect::Asap(link, Asap::decode(message).expect("ASAP").message),
                Service::Enrp => {
                    let message = EnrpMessage::decode(message).expect("ENRP").message;
                    assert!([SELF, self.registrar.id()].contains(&message.sender));
                    // RFC 5353 section 3.3: updates name no receiver.
                    let to = match message.body {
                        Enrp::HandleUpdate { .. } if message.receiver == RegistrarId(0) => {
                            self.names.get(&link).copied().unwrap_or_default()
                        }
                        _ => message.receiver,
                    };
                    Effect::Enrp(link, to, message.body)
                }
            });
        }
        assert!(bytes.is_empty(), "half a message sent");
    }

    /// Somebody connects.
    pub fn accept(&mut self, service: Service, protocol: LinkProtocol, peer: &str) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        self.link_up(link, service, protocol, peer);
        link
    }

    /// Somebody connects to this address of ours.
    pub fn accept_at(&mut self, service: Service, peer: &str, local: &str) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        self.services.insert(link, service);
        let (peer, local) = (vec![address(peer)], vec![address(local)]);
        let ends = LinkEnds { service, protocol: LinkProtocol::Tcp, peer, local, roles: None };
        self.registrar.handle_link(self.now, link, LinkChange::Up(ends));
        link
    }

    fn link_up(&mut self, link: LinkId, service: Service, protocol: LinkProtocol, peer: &str) {
        self.services.insert(link, service);
        let ends = LinkEnds {
            service,
            protocol,
            peer: vec![address(peer)],
            local: vec![address("10.0.0.1:3863")],
            roles: None,
        };
        self.registrar.handle_link(self.now, link, LinkChange::Up(ends));
    }

    /// The oldest dial succeeds. A process says that it is one.
    pub fn answer_dial(&mut self) -> (LinkId, Vec<Effect>) {
        let (link, target) = self.opened.remove(0);
        let service = self.services[&link];
        self.link_up(link, service, target.protocol, &target.addresses[0].to_string());
        if service == Service::Asap && target.protocol == LinkProtocol::Tcp {
            assert_eq!(self.drain(), []);
            return (link, self.asap(link, crate::machine::hello()));
        }
        (link, self.drain())
    }

    /// The oldest dial leads to somebody who says nothing.
    pub fn answer_dial_silently(&mut self) -> (LinkId, Vec<Effect>) {
        let (link, target) = self.opened.remove(0);
        self.link_up(link, self.services[&link], target.protocol, &target.addresses[0].to_string());
        (link, self.drain())
    }

    /// The oldest dial fails.
    pub fn refuse_dial(&mut self) -> Vec<Effect> {
        let (link, _) = self.opened.remove(0);
        self.change(link, LinkChange::Down(LinkDown::Refused))
    }

    pub fn pe(&mut self) -> LinkId {
        self.accept(Service::Asap, LinkProtocol::Tcp, "10.0.0.9:40001")
    }

    /// Registrations without looking at each.
    pub fn register_many(&mut self, pe: LinkId, ids: std::ops::RangeInclusive<u32>) {
        for id in ids {
            self.registrar.handle_message(self.now, pe, &registration(id).encode());
            while self.registrar.poll_output().is_some() {}
        }
    }

    pub fn change(&mut self, link: LinkId, change: LinkChange) -> Vec<Effect> {
        self.registrar.handle_link(self.now, link, change);
        self.drain()
    }

    pub fn down(&mut self, link: LinkId) -> Vec<Effect> {
        self.change(link, LinkChange::Down(LinkDown::Broken))
    }

    /// Lets a peer die: its link breaks and nobody listens any more.
    pub fn kill(&mut self, link: LinkId) -> Vec<Effect> {
        let mut effects = self.down(link);
        for _ in 0..3 {
            effects.extend(self.refuse_dial());
            if self.opened.is_empty() {
                effects.extend(self.wait_quietly(ms(200)));
            }
        }
        effects
    }

    pub fn asap(&mut self, link: LinkId, message: Asap) -> Vec<Effect> {
        self.registrar.handle_message(self.now, link, &message.encode());
        self.drain()
    }

    pub fn enrp(&mut self, link: LinkId, sender: RegistrarId, body: Enrp) -> Vec<Effect> {
        let message = EnrpMessage { sender, receiver: SELF, body };
        self.names.insert(link, sender);
        self.registrar.handle_message(self.now, link, &message.encode());
        self.drain()
    }

    /// A peer that has introduced itself and is in step.
    pub fn peer(&mut self, id: RegistrarId) -> LinkId {
        let link = self.accept(Service::Enrp, LinkProtocol::Tcp, "10.0.0.2:50000");
        let body = Enrp::Presence {
            reply_required: false,
            checksum: Some(self.registrar.handlespace().checksum(id)),
            server: Some(server(id, "10.0.0.2:9901")),
        };
        self.enrp(link, id, body);
        link
    }

    /// What happens until `passed` from now, without presences and keep-alives of the routine unless
    /// `all`.
    pub fn wait(&mut self, passed: Duration) -> Vec<Effect> {
        let end = self.now + passed;
        let mut effects = Vec::new();
        while let Some(due) = self.registrar.poll_timeout().filter(|&due| due <= end) {
            assert!(due >= self.now, "a deadline in the past");
            self.now = due;
            self.registrar.handle_timeout(due);
            effects.extend(self.drain());
        }
        self.now = end;
        effects
    }

    /// The same without heartbeats.
    pub fn wait_quietly(&mut self, passed: Duration) -> Vec<Effect> {
        let heartbeat = |effect: &Effect| {
            matches!(effect, Effect::Enrp(_, _, Enrp::Presence { reply_required: false, .. }) | Announced(_))
        };
        self.wait(passed).into_iter().filter(|effect| !heartbeat(effect)).collect()
    }

    /// Identifiers of a pool's elements with their home registrars.
    pub fn content(&self, name: &str) -> Vec<(u32, RegistrarId)> {
        let Some(pool) = self.registrar.handlespace().pool(&pool(name)) else { return Vec::new() };
        pool.elements().map(|element| (element.id().0, element.home())).collect()
    }

    pub fn presence(&self, reply_required: bool) -> Enrp {
        Enrp::Presence {
            reply_required,
            checksum: Some(self.registrar.handlespace().checksum(SELF)),
            server: Some(ServerInformation { id: SELF, transports: Vec::new() }),
        }
    }
}

/// What rsplib's registrars answer to a message with a parameter too many.
pub fn refuse_probe(bench: &mut Bench, link: LinkId) {
    let error = crate::wire::CauseCode::INVALID_MESSAGE.into();
    let message =
        EnrpMessage { sender: RegistrarId(0), receiver: RegistrarId(0), body: Enrp::Error { error } };
    bench.registrar.handle_message(bench.now, link, &message.encode());
    bench.drain();
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
