//! Somebody who does not belong: connects to everybody, says whatever hurts most, in anybody's name, and answers
//! what it is asked with lies. What must hold is that no honest element is lost or moved by it.

use super::acts::Act;
use super::checks::settles;
use super::network::HostId;
use super::tally::Tally;
use super::world::{Plan, World, address, transport};
use rserpool::machine::{LinkChange, LinkId, LinkProtocol, Output, Service, Target, Time};
use rserpool::wire::enrp::UpdateAction;
use rserpool::wire::{
    Asap, CauseCode, Enrp, EnrpMessage, OperationError, PeId, Policy, PoolElement, PoolHandle, Protocol,
    RegistrarId, ServerInformation, TransportUse,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Registrars that strangers invent have identifiers that begin so.
const INVENTED: u32 = 0xfa00_0000;

/// Whether a stranger made this one up.
pub fn is_invented(id: RegistrarId) -> bool {
    id.0 & 0xff00_0000 == INVENTED
}

/// What anybody can find out about a world.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub registrars: Vec<(HostId, RegistrarId)>,
    pub elements: Vec<(PoolHandle, PeId, HostId)>,
    pub processes: Vec<HostId>,
}

/// What a stranger goes in for.
#[derive(Debug, Clone, Copy)]
pub struct Malice {
    /// Passes for the home registrar of processes: whose home is gone follows it, unless there is TLS.
    pub adopts: bool,
    /// Over which protocol it comes.
    pub protocol: LinkProtocol,
}

#[derive(Debug)]
pub struct Stranger {
    host: HostId,
    malice: Malice,
    rng: fastrand::Rng,
    next: Time,
    pub facts: Facts,
    outbox: VecDeque<Output<()>>,
    links: BTreeMap<LinkId, Service>,
    made: u64,
    /// As whom it speaks over an ENRP link, which it does not change: that would only end the link.
    names: BTreeMap<LinkId, RegistrarId>,
}

/// Links that it holds at a time.
const LINKS: usize = 12;

impl Stranger {
    pub fn new(host: HostId, malice: Malice, seed: u64, now: Time) -> Stranger {
        Stranger {
            host,
            malice,
            rng: fastrand::Rng::with_seed(seed),
            next: now,
            facts: Facts::default(),
            outbox: VecDeque::new(),
            links: BTreeMap::new(),
            made: 0,
            names: BTreeMap::new(),
        }
    }

    /// Registrars for which it passes over its links.
    pub fn names(&self) -> BTreeSet<RegistrarId> {
        self.names.values().copied().collect()
    }

    pub fn poll_timeout(&self) -> Time {
        self.next
    }

    pub fn poll_output(&mut self) -> Option<Output<()>> {
        self.outbox.pop_front()
    }

    pub fn handle_link(&mut self, link: LinkId, change: LinkChange) {
        match change {
            LinkChange::Up(ends) => {
                self.links.insert(link, ends.service);
                match ends.service {
                    Service::Enrp => {
                        let name = self.somebody();
                        self.names.insert(link, name);
                        let body = self.presence(name);
                        self.enrp(link, body);
                    }
                    Service::Asap => self.asap(link, &Asap::Error { error: OperationError(Vec::new()) }),
                }
            }
            LinkChange::Down(_) => {
                self.links.remove(&link);
                self.names.remove(&link);
            }
            _ => {}
        }
    }

    /// What it is asked it answers, with lies.
    pub fn handle_message(&mut self, link: LinkId, bytes: &[u8]) {
        match self.links.get(&link) {
            Some(Service::Asap) => match Asap::decode(bytes).map(|decoded| decoded.message) {
                Ok(Asap::EndpointKeepAlive { handle, id: Some(id), .. }) => {
                    self.asap(link, &Asap::EndpointKeepAliveAck { handle, id });
                }
                Ok(Asap::Registration { handle, element }) => {
                    let response =
                        Asap::RegistrationResponse { rejected: false, handle, id: element.id, error: None };
                    self.asap(link, &response);
                }
                _ => {}
            },
            Some(Service::Enrp) => match EnrpMessage::decode(bytes).map(|decoded| decoded.message.body) {
                Ok(Enrp::Presence { reply_required: true, .. }) => {
                    let name = self.name(link);
                    let body = self.presence(name);
                    self.enrp(link, body);
                }
                Ok(Enrp::HandleTableRequest { .. }) => {
                    let body = self.table(link);
                    self.enrp(link, body);
                }
                Ok(Enrp::ListRequest) => {
                    let body = self.list();
                    self.enrp(link, body);
                }
                Ok(Enrp::InitTakeover { target }) => self.enrp(link, Enrp::InitTakeoverAck { target }),
                _ => {}
            },
            None => {}
        }
    }

    pub fn handle_timeout(&mut self, now: Time) {
        self.next = now + Duration::from_millis(self.rng.u64(1..60));
        if self.links.len() < LINKS && self.rng.u32(..3) == 0 {
            return self.dial();
        }
        if self.rng.u32(..12) == 0 {
            return self.announce();
        }
        let links: Vec<(LinkId, Service)> =
            self.links.iter().map(|(&link, &service)| (link, service)).collect();
        let Some(&(link, service)) = self.rng.choice(&links) else { return self.dial() };
        if self.rng.u32(..40) == 0 {
            self.links.remove(&link);
            self.names.remove(&link);
            return self.outbox.push_back(Output::Close { link });
        }
        match service {
            Service::Asap => self.hurt_by_asap(link),
            Service::Enrp => self.hurt_by_enrp(link),
        }
    }

    fn dial(&mut self) {
        self.made += 1;
        let link = LinkId(self.made);
        let service = if self.rng.bool() { Service::Asap } else { Service::Enrp };
        let mut there: Vec<HostId> = self.facts.registrars.iter().map(|&(host, _)| host).collect();
        let mut protocol = self.malice.protocol;
        // Processes listen over TCP, for registrars that take over.
        if self.malice.adopts && service == Service::Asap && self.rng.bool() {
            there.clone_from(&self.facts.processes);
            protocol = LinkProtocol::Tcp;
        }
        let Some(&there) = self.rng.choice(&there) else { return };
        let port = if service == Service::Enrp { super::world::ENRP } else { super::world::ASAP };
        let target = Target { protocol, addresses: vec![SocketAddr::new(address(there), port)] };
        self.outbox.push_back(Output::Open { link, service, target });
    }

    /// As whom it speaks: one that it made up, or one that there is.
    fn somebody(&mut self) -> RegistrarId {
        match self.rng.u32(..3) {
            0 => self.registrar(),
            _ => self.invented(),
        }
    }

    /// A few, which come again.
    fn invented(&mut self) -> RegistrarId {
        RegistrarId(INVENTED + self.host as u32 * 16 + self.rng.u32(1..5))
    }

    fn registrar(&mut self) -> RegistrarId {
        let invented = self.invented();
        self.rng.choice(&self.facts.registrars).map_or(invented, |&(_, id)| id)
    }

    fn name(&mut self, link: LinkId) -> RegistrarId {
        let invented = self.invented();
        *self.names.entry(link).or_insert(invented)
    }

    /// An element that is somebody's, and where that is.
    fn victim(&mut self) -> (PoolHandle, PeId, HostId) {
        let nobody = (super::pool(0), PeId(0x5712), self.host);
        self.rng.choice(&self.facts.elements).cloned().unwrap_or(nobody)
    }

    /// The element as it is, or as if it were here.
    fn element(&mut self, id: PeId, at: HostId, home: RegistrarId) -> PoolElement {
        let at = if self.rng.bool() { at } else { self.host };
        let protocol =
            if self.malice.protocol == LinkProtocol::Sctp { Protocol::Sctp } else { Protocol::Tcp };
        let asap = transport(Protocol::Tcp, at, super::world::ASAP, TransportUse::DataOnly);
        PoolElement {
            id,
            home,
            life: 30_000,
            transport: transport(protocol, at, 7, TransportUse::DataPlusControl),
            policy: Policy::LeastUsed { load: self.rng.u32(..) },
            asap: self.rng.bool().then_some(asap),
        }
    }

    fn hurt_by_asap(&mut self, link: LinkId) {
        let (handle, id, at) = self.victim();
        let message = match self.rng.u32(..9) {
            0 | 1 => Asap::Registration { handle, element: self.element(id, at, RegistrarId(0)) },
            2 => Asap::Deregistration { handle, id },
            3 => Asap::EndpointKeepAliveAck { handle, id },
            4 => Asap::EndpointUnreachable { handle, id },
            5 => Asap::HandleResolution { subscribe: self.rng.bool(), handle, items: Some(u32::MAX) },
            // An element of its own, among the others.
            6 => {
                let id = PeId(INVENTED + self.host as u32);
                Asap::Registration { handle, element: self.element(id, self.host, RegistrarId(0)) }
            }
            7 => Asap::EndpointKeepAlive { home: true, registrar: self.somebody(), handle, id: Some(id) },
            _ => Asap::Error { error: CauseCode::UNSPECIFIED.into() },
        };
        self.asap(link, &message);
    }

    fn hurt_by_enrp(&mut self, link: LinkId) {
        let (handle, id, at) = self.victim();
        let name = self.name(link);
        let target = self.registrar();
        let body = match self.rng.u32(..12) {
            0 | 1 => {
                let home = if self.rng.bool() { name } else { target };
                let action = UpdateAction::Add;
                let element = self.element(id, at, home);
                Enrp::HandleUpdate { takeover_suggested: self.rng.bool(), action, handle, element }
            }
            2 | 3 => {
                let home = if self.rng.bool() { name } else { target };
                let action = UpdateAction::Delete;
                let mut element = self.element(id, at, home);
                element.life = if self.rng.bool() { 0 } else { 30_000 };
                Enrp::HandleUpdate { takeover_suggested: false, action, handle, element }
            }
            4 => Enrp::InitTakeover { target },
            5 => Enrp::InitTakeoverAck { target },
            6 => Enrp::TakeoverServer { target },
            7 => self.table(link),
            8 => self.list(),
            9 => Enrp::HandleTableRequest { own_only: self.rng.bool() },
            10 => Enrp::ListRequest,
            _ => self.presence(name),
        };
        self.enrp(link, body);
    }

    fn presence(&mut self, id: RegistrarId) -> Enrp {
        let transports =
            vec![transport(Protocol::Tcp, self.host, super::world::ENRP, TransportUse::DataOnly)];
        Enrp::Presence {
            reply_required: self.rng.bool(),
            checksum: self.rng.bool().then(|| [self.rng.u8(..), self.rng.u8(..)]),
            server: Some(ServerInformation { id, transports }),
        }
    }

    /// Everything is its own, or somebody else's.
    fn table(&mut self, link: LinkId) -> Enrp {
        let name = self.name(link);
        let mut pools = Vec::new();
        for _ in 0..self.rng.usize(0..4) {
            let (handle, id, at) = self.victim();
            let home = if self.rng.bool() { name } else { self.registrar() };
            pools.push((handle, vec![self.element(id, at, home)]));
        }
        Enrp::HandleTableResponse { rejected: self.rng.u32(..8) == 0, more: self.rng.bool(), pools }
    }

    /// All live here.
    fn list(&mut self) -> Enrp {
        let here = vec![transport(Protocol::Tcp, self.host, super::world::ENRP, TransportUse::DataOnly)];
        let ids: Vec<RegistrarId> = (0..4).map(|_| self.somebody()).collect();
        let servers = ids.into_iter().map(|id| ServerInformation { id, transports: here.clone() }).collect();
        Enrp::ListResponse { rejected: self.rng.u32(..8) == 0, servers }
    }

    fn announce(&mut self) {
        let name = self.somebody();
        let transports =
            vec![transport(Protocol::Tcp, self.host, super::world::ASAP, TransportUse::DataOnly)];
        let (service, bytes) = match self.malice.adopts && self.rng.bool() {
            true => (Service::Asap, Asap::ServerAnnounce { registrar: name, transports }.encode()),
            false => {
                let body = self.presence(name);
                (Service::Enrp, EnrpMessage { sender: name, receiver: RegistrarId(0), body }.encode())
            }
        };
        self.outbox.push_back(Output::Announce { service, bytes });
    }

    fn asap(&mut self, link: LinkId, message: &Asap) {
        self.outbox.push_back(Output::Send { link, bytes: message.encode() });
    }

    fn enrp(&mut self, link: LinkId, body: Enrp) {
        let sender = self.name(link);
        let bytes = EnrpMessage { sender, receiver: RegistrarId(0), body }.encode();
        self.outbox.push_back(Output::Send { link, bytes });
    }
}

/// A fair world in which nothing happens but what strangers do.
fn nothing_but_strangers(seed: u64, tls: bool) -> Tally {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (registrars, processes) = (rng.usize(1..=4), rng.usize(1..=6));
    let sctp = rng.u32(..4) == 0;
    let plan = Plan { sctp, strangers: rng.usize(1..=2), tls, ..Plan::fair(registrars, processes) };
    let mut world = World::new(seed, plan);
    for host in 0..registrars + processes {
        world.act(Act::Start { host, same_id: false });
    }
    world.run_for(Duration::from_secs(4));
    for host in registrars..registrars + processes {
        for _ in 0..rng.usize(1..=3) {
            let (handle, id) = (super::pool(rng.usize(0..2)), PeId(rng.u32(1..INVENTED)));
            world.act(Act::Register { host, handle, id });
        }
        world.act(Act::Subscribe { host, handle: super::pool(0) });
    }
    settles(&mut world, Duration::from_secs(10));
    world.memory.strict = true;
    world.invade(true);
    world.run_for(Duration::from_secs(20));
    super::calm(&mut world);
    settles(&mut world, super::CALM);
    world.tally
}

#[test]
fn seeds_of_strangers() {
    super::run_seeds("seeds_of_strangers", 20, 1, |seed| nothing_but_strangers(seed, false));
}

#[test]
fn seeds_of_strangers_where_tls_is_required() {
    super::run_seeds("seeds_of_strangers_where", 15, 1, |seed| nothing_but_strangers(seed, true));
}

#[test]
fn seeds_of_mixed_faults_and_strangers() {
    let run = |seed| super::faults_and_strangers(seed, 1 + seed as usize % 2, true);
    super::run_seeds("seeds_of_mixed_faults_and", 15, 10, run);
}

/// One run of mixed faults and strangers without TLS.
pub fn mixed_faults_without_tls(seed: u64) -> Tally {
    super::faults_and_strangers(seed, 1 + seed as usize % 2, false)
}

/// Without TLS strangers are let in as whoever they say they are: what that does to the checks, `docs/simulation.md` says.
#[test]
fn seeds_without_tls_of_mixed_faults_and_strangers() {
    super::run_seeds("seeds_without_tls", 20, 10, mixed_faults_without_tls);
}
