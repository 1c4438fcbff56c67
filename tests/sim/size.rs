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
    /// Whether calls are looked at.
    measuring: bool,
    sent: usize,
}

impl Bench {
    fn call(&mut self, what: &'static str, act: impl FnOnce(&mut Registrar, Time)) {
        let begin = processor_time();
        act(&mut self.machine, self.now);
        let took = processor_time() - begin;
        while let Some(output) = self.machine.poll_output() {
            if let Output::Send { bytes, .. } = output {
                self.sent += bytes.len();
            }
        }
        if self.measuring {
            let worst = self.worst.entry(what).or_default();
            *worst = took.max(*worst);
        }
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
    let servers = (0..300u32).map(|n| ServerInformation {
        id: RegistrarId(0x9000 + n),
        transports: vec![transport(Protocol::Tcp, "10.0.0.99:9901")],
    });
    bench.enrp("list", b, B, Enrp::ListResponse { rejected: false, servers: servers.collect() });
    for id in 1..=200 {
        // Of ours, and of its own.
        bench.enrp("update", b, B, update(UpdateAction::Add, id % pools, id, B));
        bench.enrp("update", b, B, update(UpdateAction::Delete, id % pools, id, US));
        bench.enrp("update", b, B, update(UpdateAction::Delete, (elements - id) % pools, elements - id, B));
    }
    for target in [B, C, US, RegistrarId(0x1234)] {
        bench.enrp("takeover", c, C, Enrp::InitTakeover { target });
        bench.enrp("takeover", c, C, Enrp::InitTakeoverAck { target });
        bench.enrp("takeover", c, C, Enrp::TakeoverServer { target });
    }
    for user in [users[0], users[1]] {
        for change in [LinkChange::Congested, LinkChange::Drained] {
            bench.call("congestion", |machine, now| machine.handle_link(now, user, change));
        }
    }
    bench.pass(Duration::from_millis(500));
    // The end of an audit that did not find anything: all of B's are gone.
    bench.enrp("presence", b, B, presence(B, Protocol::Tcp, "10.0.0.2:9901"));
    let none = Enrp::HandleTableResponse { rejected: false, more: false, pools: Vec::new() };
    bench.enrp("table", b, B, none);
    bench.pass(Duration::from_millis(200));
    for link in [users[0], b, pe] {
        let down = LinkChange::Down(LinkDown::Broken);
        bench.call("a link goes", |machine, now| machine.handle_link(now, link, down));
        bench.pass(Duration::from_millis(100));
    }
    // B is dead in the end, C speaks on, and what B had left is inherited.
    for _ in 0..40 {
        bench.pass(Duration::from_millis(100));
        bench.enrp("presence", c, C, presence(C, Protocol::Sctp, "10.0.0.3:9901"));
    }
    for (what, took) in &bench.worst {
        println!("{elements} elements, {pools} pools, {subscribers} subscribers: {what}: {took:?} at most");
    }
    assert!(bench.machine.handlespace().owned_count(B) == 0, "B is gone");
    for (what, took) in &bench.worst {
        assert!(*took <= bound, "{what} took {took:?}");
    }
}
