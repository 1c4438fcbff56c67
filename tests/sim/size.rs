//! What one call of a registrar's machine costs when there is very much of everything.

use super::join::processor_time;
use rserpool::machine::registrar::{Config, Registrar};
use rserpool::machine::{LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, Service, Time};
use rserpool::wire::enrp::UpdateAction;
use rserpool::wire::{
    Asap, CauseCode, Enrp, EnrpMessage, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId,
    ServerInformation, Transport, TransportUse,
};
use std::collections::BTreeMap;
use std::time::Duration;

const US: RegistrarId = RegistrarId(0x5000);
const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);

/// Elements, pools, subscribers of one pool, elements of one link; and the longest that a call may take.
fn plan() -> (u32, u32, u64, u32, Duration) {
    match cfg!(debug_assertions) {
        true => (30_000, 3000, 1000, 5000, Duration::from_millis(100)),
        false => (1_000_000, 100_000, 20_000, 100_000, Duration::from_millis(10)),
    }
}

struct Bench {
    machine: Registrar,
    now: Time,
    next: u64,
    /// The longest call of each kind.
    worst: BTreeMap<&'static str, Duration>,
    /// Whether all is there, and each kind of call is looked at.
    measuring: bool,
    sent: usize,
    /// Dials that nobody has answered.
    dials: Vec<(LinkId, Service)>,
}

impl Bench {
    fn call(&mut self, what: &'static str, act: impl FnOnce(&mut Registrar, Time)) {
        let begin = processor_time();
        act(&mut self.machine, self.now);
        let took = processor_time() - begin;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { bytes, .. } => self.sent += bytes.len(),
                Output::Open { link, service, .. } => self.dials.push((link, service)),
                _ => {}
            }
        }
        let what = if self.measuring { what } else { "one more, while all that grows" };
        let worst = self.worst.entry(what).or_default();
        *worst = took.max(*worst);
    }

    fn accept(&mut self, service: Service, protocol: LinkProtocol, peer: &str) -> LinkId {
        self.next += 1;
        let link = LinkId(LinkId::INCOMING + self.next);
        let address = |text: &str| vec![text.parse().expect("an address")];
        let ends =
            LinkEnds { service, protocol, peer: address(peer), local: address("10.0.0.1:3863"), roles: None };
        self.call("a link comes", |machine, now| machine.handle_link(now, link, LinkChange::Up(ends)));
        link
    }

    fn asap(&mut self, what: &'static str, link: LinkId, message: &Asap) {
        let bytes = message.encode();
        self.call(what, |machine, now| machine.handle_message(now, link, &bytes));
    }

    fn enrp(&mut self, what: &'static str, link: LinkId, sender: RegistrarId, body: Enrp) {
        let bytes = EnrpMessage { sender, receiver: US, body }.encode();
        self.call(what, |machine, now| machine.handle_message(now, link, &bytes));
    }

    /// Whatever is due within so long.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.poll_timeout().filter(|&due| due <= end) {
            self.now = due.max(self.now);
            self.call("a timeout", |machine, now| machine.handle_timeout(now));
        }
        self.now = end;
    }
}

fn transport(protocol: Protocol, text: &str) -> Transport {
    let address: std::net::SocketAddr = text.parse().expect("an address");
    Transport::new(protocol, TransportUse::DataOnly, address.port(), vec![address.ip()])
}

fn pool(number: u32) -> PoolHandle {
    PoolHandle::new(format!("pool {number}").as_bytes()).expect("a legal handle")
}

fn element(id: u32, home: RegistrarId) -> PoolElement {
    PoolElement {
        id: PeId(id),
        home,
        life: u32::MAX,
        transport: transport(Protocol::Tcp, "10.0.0.9:7"),
        policy: Policy::RoundRobin,
        asap: Some(transport(Protocol::Tcp, "10.0.0.9:99")),
    }
}

fn update(action: UpdateAction, number: u32, id: u32, home: RegistrarId) -> Enrp {
    Enrp::HandleUpdate { takeover_suggested: false, action, handle: pool(number), element: element(id, home) }
}

fn presence(id: RegistrarId, protocol: Protocol, at: &str) -> Enrp {
    let server = Some(ServerInformation { id, transports: vec![transport(protocol, at)] });
    Enrp::Presence { reply_required: true, checksum: Some([1, 2]), server }
}

#[test]
fn no_call_takes_long_however_much_there_is() {
    let (elements, pools, subscribers, on_one_link, bound) = plan();
    let config = Config { id: US, max_subscriptions_per_link: 10_000, ..Config::default() };
    let mut bench = Bench {
        machine: Registrar::new(config, 7, Time(1_000_000)),
        now: Time(1_000_000),
        next: 0,
        worst: BTreeMap::new(),
        measuring: false,
        sent: 0,
        dials: Vec::new(),
    };
    let (tcp, sctp) = (LinkProtocol::Tcp, LinkProtocol::Sctp);
    let pe = bench.accept(Service::Asap, tcp, "10.0.0.9:40001");
    let b = bench.accept(Service::Enrp, tcp, "10.0.0.2:50000");
    let c = bench.accept(Service::Enrp, sctp, "10.0.0.3:9901");
    bench.enrp("presence", b, B, presence(B, Protocol::Tcp, "10.0.0.2:9901"));
    bench.enrp("presence", c, C, presence(C, Protocol::Sctp, "10.0.0.3:9901"));
    // C refuses what rsplib's refuse.
    let error = CauseCode::INVALID_MESSAGE.into();
    bench.enrp("error", c, RegistrarId(0), Enrp::Error { error });
    for id in 1..=elements {
        let number = id % pools;
        match id <= on_one_link {
            true => {
                let message = Asap::Registration { handle: pool(number), element: element(id, US) };
                bench.asap("registration", pe, &message);
            }
            false => bench.enrp("update", b, B, update(UpdateAction::Add, number, id, B)),
        }
    }
    let users: Vec<LinkId> =
        (0..subscribers).map(|_| bench.accept(Service::Asap, tcp, "10.0.0.8:40000")).collect();
    for &user in &users {
        let wish = Asap::HandleResolution { subscribe: true, handle: pool(1), items: Some(u32::MAX) };
        bench.asap("subscription", user, &wish);
    }
    for number in 0..10_000.min(pools) {
        let wish = Asap::HandleResolution { subscribe: true, handle: pool(number), items: Some(u32::MAX) };
        bench.asap("subscription", users[0], &wish);
    }
    for number in 0..subscribers / 2 {
        bench.accept(Service::Enrp, tcp, &format!("10.1.{}.{}:9000", number / 250 % 250, number % 250));
    }
    assert_eq!(bench.machine.handlespace().len(), elements as usize);

    bench.measuring = true;
    let user = bench.accept(Service::Asap, tcp, "10.0.0.8:40001");
    let (handle, id) = (pool(1), PeId(1));
    let name = || (handle.clone(), id);
    let element_of = |id| element(id, RegistrarId(0));
    for items in [None, Some(1), Some(u32::MAX)] {
        for subscribe in [true, false] {
            let message = Asap::HandleResolution { subscribe, handle: handle.clone(), items };
            bench.asap("resolution", user, &message);
        }
    }
    for other in 0..200 {
        let message = Asap::Registration { handle: pool(other), element: element_of(5_000_000 + other) };
        bench.asap("registration", pe, &message);
        let (handle, id) = (pool(other), PeId(5_000_000 + other));
        bench.asap("deregistration", pe, &Asap::Deregistration { handle, id });
    }
    let ((handle, id), home) = (name(), false);
    bench.asap("acknowledgement", pe, &Asap::EndpointKeepAliveAck { handle: handle.clone(), id });
    bench.asap("report", user, &Asap::EndpointUnreachable { handle: handle.clone(), id });
    bench.asap("misplaced", user, &Asap::EndpointKeepAlive { home, registrar: B, handle, id: None });
    bench.asap("error", user, &Asap::Error { error: CauseCode::UNSPECIFIED.into() });
    for _ in 0..250 {
        for own_only in [true, false] {
            bench.enrp("table request", c, C, Enrp::HandleTableRequest { own_only });
            bench.enrp("table request", b, B, Enrp::HandleTableRequest { own_only });
        }
    }
    bench.pass(Duration::from_millis(300));
    bench.enrp("presence", b, B, presence(B, Protocol::Tcp, "10.0.0.2:9901"));
    bench.enrp("list request", b, B, Enrp::ListRequest);
    // More registrars than anybody may have, twice, so that some make room for others.
    for first in [0x9000, 0xa0000] {
        let servers = (first..first + 2000).map(|id| ServerInformation {
            id: RegistrarId(id),
            transports: vec![transport(Protocol::Tcp, "10.0.0.99:9901")],
        });
        bench.enrp("list", b, B, Enrp::ListResponse { rejected: false, servers: servers.collect() });
    }
    // As many causes and parameters as a message can have.
    let unknown = [0xff, 0xff, 0, 4].repeat(16_000);
    let long = |kind: u8| [&[kind, 0, 0xfa, 0x04], &unknown[..]].concat();
    for kind in 0..=15 {
        let bytes = long(kind);
        bench.call("many parameters", |machine, now| machine.handle_message(now, user, &bytes));
        bench.call("many parameters", |machine, now| machine.handle_message(now, b, &bytes));
    }
    for id in 0..300 {
        let body = presence(RegistrarId(0xb0000 + id), Protocol::Tcp, "10.0.0.98:9901");
        let bytes =
            EnrpMessage { sender: RegistrarId(0xb0000 + id), receiver: RegistrarId(0), body }.encode();
        let from = "10.0.0.98:9901".parse().expect("an address");
        bench.call("datagram", |machine, now| machine.handle_announce(now, Service::Enrp, from, &bytes));
    }
    // All that one link has is said to be unreachable, and nobody answers.
    for id in 1..=2000.min(on_one_link) {
        let handle = pool(id % pools);
        bench.asap("report", user, &Asap::EndpointUnreachable { handle, id: PeId(id) });
    }
    let elements_of = |from: u32| (from..from + 500).map(|id| element(id, B)).collect::<Vec<_>>();
    bench.enrp(
        "table",
        b,
        B,
        Enrp::HandleTableResponse {
            rejected: false,
            more: true,
            pools: vec![(pool(7), elements_of(6_000_000)), (pool(8), elements_of(1))],
        },
    );
    for id in 1..=200 {
        // Of ours, and of its own.
        bench.enrp("update", b, B, update(UpdateAction::Add, id % pools, id, B));
        bench.enrp("update", b, B, update(UpdateAction::Delete, id % pools, id, US));
        bench.enrp("update", b, B, update(UpdateAction::Delete, (elements - id) % pools, elements - id, B));
    }
    for target in [B, C, US, RegistrarId(0x1234)] {
        bench.enrp("takeover", c, C, Enrp::InitTakeover { target });
        bench.enrp("takeover", c, C, Enrp::InitTakeoverAck { target });
        if target != B {
            // It is ours to take over in the end.
            bench.enrp("takeover", c, C, Enrp::TakeoverServer { target });
        }
    }
    // Each of ten thousand pools changes while their subscriber does not read.
    for change in [LinkChange::Congested, LinkChange::Drained] {
        bench.call("congestion", |machine, now| machine.handle_link(now, users[0], change));
        for number in 0..10_000.min(pools) {
            let element = element(elements - (elements - number) % pools, B);
            let element = PoolElement { policy: Policy::RoundRobin, life: number + 7, ..element };
            let (handle, action, takeover_suggested) = (pool(number), UpdateAction::Add, false);
            bench.enrp("update", b, B, Enrp::HandleUpdate { takeover_suggested, action, handle, element });
        }
        bench.call("congestion", |machine, now| machine.handle_link(now, users[1], LinkChange::Drained));
    }
    bench.pass(Duration::from_millis(500));
    // B dies, C speaks on, and all that B has is inherited and asked, over a link that goes before it is answered.
    bench.call("a link goes", |machine, now| machine.handle_link(now, b, LinkChange::Down(LinkDown::Broken)));
    bench.dials.clear();
    for _ in 0..150 {
        bench.pass(Duration::from_millis(100));
        bench.enrp("presence", c, C, presence(C, Protocol::Sctp, "10.0.0.3:9901"));
        bench.enrp("takeover", c, C, Enrp::InitTakeoverAck { target: B });
    }
    assert_eq!(bench.machine.handlespace().owned_count(B), 0, "all of B's were inherited");
    let process = bench.dials.iter().find(|dial| dial.1 == Service::Asap).expect("its process is dialled").0;
    let [peer, local] = ["10.0.0.9:99", "10.0.0.1:40000"].map(|text| vec![text.parse().expect("an address")]);
    let ends = LinkEnds { service: Service::Asap, protocol: tcp, peer, local, roles: None };
    bench.call("a link comes", |machine, now| machine.handle_link(now, process, LinkChange::Up(ends)));
    bench.pass(Duration::from_millis(20));
    for link in [process, users[0], pe] {
        let down = LinkChange::Down(LinkDown::Broken);
        bench.call("a link goes", |machine, now| machine.handle_link(now, link, down));
        bench.pass(Duration::from_millis(100));
    }
    bench.pass(Duration::from_secs(3));
    for (what, took) in &bench.worst {
        println!("{elements} elements, {pools} pools, {subscribers} subscribers: {what}: {took:?} at most");
    }
    for (what, took) in &bench.worst {
        assert!(*took <= bound, "{what} took {took:?}");
    }
}
