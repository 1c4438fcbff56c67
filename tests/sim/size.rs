//! What one call of a registrar's machine costs when there is very much of everything.

use super::join::processor_time;
use rserpool::machine::registrar::{Config, Registrar};
use rserpool::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Measurement, Output, Service, Target, Time,
};
use rserpool::wire::enrp::UpdateAction;
use rserpool::wire::{
    Asap, CauseCode, Enrp, EnrpMessage, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId,
    ServerInformation, Transport, TransportUse, frame,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const US: RegistrarId = RegistrarId(0x5000);
const B: RegistrarId = RegistrarId(0x6000);
const C: RegistrarId = RegistrarId(0x7000);
const D: RegistrarId = RegistrarId(0x8000);
const TCP: LinkProtocol = LinkProtocol::Tcp;

/// How much there is, and the longest that a call may take.
struct Plan {
    elements: u32,
    pools: u32,
    /// Of one pool.
    subscribers: u32,
    connections: u32,
    /// Elements of one link.
    on_one_link: u32,
    bound: Duration,
}

fn plan() -> Plan {
    match cfg!(debug_assertions) {
        true => Plan {
            elements: 30_000,
            pools: 3000,
            subscribers: 1000,
            connections: 500,
            on_one_link: 5000,
            bound: Duration::from_millis(100),
        },
        false => Plan {
            elements: 1_000_000,
            pools: 100_000,
            subscribers: 20_000,
            connections: 10_000,
            on_one_link: 100_000,
            bound: Duration::from_millis(10),
        },
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
    /// Links over which keep-alives are answered, and the answers.
    honest: BTreeSet<LinkId>,
    answers: VecDeque<(LinkId, Asap)>,
    /// Peers that say now and then that they live.
    alive: Vec<(LinkId, RegistrarId)>,
    /// Links that the registrar closed: over these nothing would be measured any more.
    closed: BTreeSet<LinkId>,
    /// Dials that nobody has answered.
    dials: Vec<(LinkId, Service, Target)>,
}

impl Bench {
    fn new(config: Config) -> Bench {
        super::allocator::never_tidies_up_at_once();
        let now = Time(1_000_000);
        Bench {
            machine: Registrar::new(config, 7, now),
            now,
            next: 0,
            worst: BTreeMap::new(),
            measuring: false,
            honest: BTreeSet::new(),
            answers: VecDeque::new(),
            alive: Vec::new(),
            closed: BTreeSet::new(),
            dials: Vec::new(),
        }
    }

    fn call(&mut self, what: &'static str, act: impl FnOnce(&mut Registrar, Time)) {
        let begin = processor_time();
        act(&mut self.machine, self.now);
        // As the program does in each turn.
        super::allocator::tidies_up_a_little();
        let took = processor_time() - begin;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { link, bytes } if self.honest.contains(&link) => self.answer(link, &bytes),
                Output::Open { link, service, target } => self.dials.push((link, service, target)),
                Output::Close { link } => {
                    self.honest.remove(&link);
                    self.closed.insert(link);
                }
                _ => {}
            }
        }
        let what = if self.measuring { what } else { "one more, while all that grows" };
        let worst = self.worst.entry(what).or_default();
        *worst = took.max(*worst);
    }

    fn answer(&mut self, link: LinkId, mut bytes: &[u8]) {
        while let Ok(Some(length)) = frame::first_message(bytes) {
            if let Ok(decoded) = Asap::decode(&bytes[..length])
                && let Asap::EndpointKeepAlive { handle, id: Some(id), .. } = decoded.message
            {
                self.answers.push_back((link, Asap::EndpointKeepAliveAck { handle, id }));
            }
            bytes = &bytes[length..];
        }
    }

    fn accept(&mut self, service: Service, protocol: LinkProtocol, peer: &str) -> LinkId {
        self.next += 1;
        let link = LinkId(LinkId::INCOMING + self.next);
        self.up(link, service, protocol, peer);
        link
    }

    fn up(&mut self, link: LinkId, service: Service, protocol: LinkProtocol, peer: &str) {
        let address = |text: &str| vec![text.parse().expect("an address")];
        let ends =
            LinkEnds { service, protocol, peer: address(peer), local: address("10.0.0.1:3863"), roles: None };
        self.call("a link comes", |machine, now| machine.handle_link(now, link, LinkChange::Up(ends)));
    }

    fn down(&mut self, link: LinkId) {
        self.alive.retain(|&(alive, _)| alive != link);
        let down = LinkChange::Down(LinkDown::Broken);
        self.call("a link goes", |machine, now| machine.handle_link(now, link, down));
    }

    fn asap(&mut self, what: &'static str, link: LinkId, message: &Asap) {
        assert!(!self.closed.contains(&link), "{what} over {link:?}, which is closed");
        let bytes = message.encode();
        self.call(what, |machine, now| machine.handle_message(now, link, &bytes));
    }

    fn register(&mut self, link: LinkId, number: u32, element: PoolElement) {
        self.asap("registration", link, &Asap::Registration { handle: pool(number), element });
    }

    fn subscribe(&mut self, link: LinkId, number: u32) {
        let wish = Asap::HandleResolution { subscribe: true, handle: pool(number), items: Some(u32::MAX) };
        self.asap("subscription", link, &wish);
    }

    fn report(&mut self, link: LinkId, number: u32, id: u32) {
        self.asap("report", link, &Asap::EndpointUnreachable { handle: pool(number), id: PeId(id) });
    }

    fn enrp(&mut self, what: &'static str, link: LinkId, sender: RegistrarId, body: Enrp) {
        assert!(!self.closed.contains(&link), "{what} of {sender} over {link:?}, which is closed");
        let bytes = EnrpMessage { sender, receiver: US, body }.encode();
        self.call(what, |machine, now| machine.handle_message(now, link, &bytes));
    }

    /// A peer that speaks the RFCs' dialect, at its own address.
    fn peer(&mut self, id: RegistrarId, address: &str) -> LinkId {
        let link = self.accept(Service::Enrp, TCP, &format!("{address}:50000"));
        self.enrp("presence", link, id, presence(id, Protocol::Tcp, &format!("{address}:9901")));
        self.alive.push((link, id));
        link
    }

    fn timeout(&mut self, what: &'static str) {
        self.call(what, |machine, now| machine.handle_timeout(now));
        while let Some((link, answer)) = self.answers.pop_front() {
            self.asap("acknowledgement", link, &answer);
        }
    }

    /// Whatever is due within so long.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let step = (self.now + Duration::from_millis(400)).min(end);
            while let Some(due) = self.machine.poll_timeout().filter(|&due| due <= step) {
                self.now = due.max(self.now);
                self.timeout("a timeout");
            }
            self.now = step;
            self.heartbeat();
        }
    }

    fn heartbeat(&mut self) {
        for (link, id) in self.alive.clone() {
            let body = Enrp::Presence { reply_required: false, checksum: None, server: None };
            self.enrp("presence", link, id, body);
        }
    }

    /// The same, all of it at once and late.
    fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
        for calls in 0.. {
            assert!(calls < 1_000_000, "there is no end to it");
            if self.machine.poll_timeout().is_none_or(|due| due > self.now) {
                return self.heartbeat();
            }
            self.timeout("many timeouts at once");
            // What is left over is due a microsecond later.
            self.now = self.now + Duration::from_micros(1);
        }
    }

    /// A peer says that the checksum of its elements is another, so that its table is read.
    fn audit(&mut self, link: LinkId, id: RegistrarId, protocol: Protocol, at: &str) {
        let before = self.machine.stats().resynchronisations;
        self.enrp("presence", link, id, presence(id, protocol, at));
        assert_eq!(self.machine.stats().resynchronisations, before + 1, "the table of {id} is asked for");
    }

    fn table(
        &mut self,
        link: LinkId,
        id: RegistrarId,
        more: bool,
        pools: Vec<(PoolHandle, Vec<PoolElement>)>,
    ) {
        self.enrp("table", link, id, Enrp::HandleTableResponse { rejected: false, more, pools });
    }

    fn owned(&self, id: RegistrarId) -> usize {
        self.machine.handlespace().owned_count(id)
    }

    fn verdict(&self, about: &str, bound: Duration) {
        for (what, took) in &self.worst {
            println!("{about}: {what}: {took:?} at most");
        }
        for (what, took) in &self.worst {
            assert!(*took <= bound, "{what} took {took:?}");
        }
    }
}

fn transport(protocol: Protocol, text: &str) -> Transport {
    let address: SocketAddr = text.parse().expect("an address");
    Transport::new(protocol, TransportUse::DataOnly, address.port(), vec![address.ip()])
}

fn pool(number: u32) -> PoolHandle {
    PoolHandle::new(format!("pool {number}").as_bytes()).expect("a legal handle")
}

/// Those with an even identifier are of one process, all others have processes of their own.
fn element(id: u32, home: RegistrarId) -> PoolElement {
    let [_, a, b, c] = id.to_be_bytes();
    let process = match id % 2 {
        0 => Ipv4Addr::new(10, 0, 0, 9),
        _ => Ipv4Addr::new(10, 64 | a, b, c),
    };
    PoolElement {
        id: PeId(id),
        home,
        life: u32::MAX,
        transport: transport(Protocol::Tcp, "10.0.0.9:7"),
        policy: Policy::RoundRobin,
        asap: Some(Transport::new(Protocol::Tcp, TransportUse::DataOnly, 99, vec![IpAddr::V4(process)])),
    }
}

fn update(action: UpdateAction, number: u32, id: u32, home: RegistrarId) -> Enrp {
    Enrp::HandleUpdate { takeover_suggested: false, action, handle: pool(number), element: element(id, home) }
}

/// With a checksum that is not right.
fn presence(id: RegistrarId, protocol: Protocol, at: &str) -> Enrp {
    let server = Some(ServerInformation { id, transports: vec![transport(protocol, at)] });
    Enrp::Presence { reply_required: true, checksum: Some([1, 2]), server }
}

/// As many elements of one table as fit into a message, in one pool, or each in a pool of its own.
fn full_table(first: u32, home: RegistrarId, pools: Option<u32>) -> Vec<(PoolHandle, Vec<PoolElement>)> {
    let elements = (first..).map(|id| element(id, home));
    match pools {
        None => vec![(pool(7), elements.take(900).collect())],
        Some(pools) => elements.take(700).map(|one| (pool(one.id.0 % pools), vec![one])).collect(),
    }
}

#[test]
fn no_call_takes_long_however_much_there_is() {
    let Plan { elements, pools, subscribers, connections, on_one_link, bound } = plan();
    let config = Config { id: US, max_subscriptions_per_link: 10_000, ..Config::default() };
    let mut bench = Bench::new(config);
    let pe = bench.accept(Service::Asap, TCP, "10.0.0.9:40001");
    bench.honest.insert(pe);
    let b = bench.peer(B, "10.0.0.2");
    let d = bench.peer(D, "10.0.0.4");
    let c = bench.accept(Service::Enrp, LinkProtocol::Sctp, "10.0.0.3:9901");
    bench.enrp("presence", c, C, presence(C, Protocol::Sctp, "10.0.0.3:9901"));
    bench.alive.push((c, C));
    // C refuses what rsplib's refuse.
    let error = CauseCode::INVALID_MESSAGE.into();
    bench.enrp("error", c, RegistrarId(0), Enrp::Error { error });
    for id in 1..=elements {
        let number = id % pools;
        match id {
            ours if ours <= on_one_link => bench.register(pe, number, element(id, US)),
            some if some % 3 == 0 => bench.enrp("update", d, D, update(UpdateAction::Add, number, id, D)),
            _ => bench.enrp("update", b, B, update(UpdateAction::Add, number, id, B)),
        }
    }
    let users: Vec<LinkId> =
        (0..subscribers).map(|_| bench.accept(Service::Asap, TCP, "10.0.0.8:40000")).collect();
    for &user in &users {
        bench.subscribe(user, 1);
    }
    for number in 0..10_000.min(pools) {
        bench.subscribe(users[0], number);
    }
    let address = |number: u32| format!("10.1.{}.{}:9000", number / 250 % 250, number % 250);
    for number in 0..connections {
        bench.accept(Service::Enrp, TCP, &address(number));
    }
    assert_eq!(bench.machine.handlespace().len(), elements as usize);

    bench.measuring = true;
    simple_questions(&mut bench, pe, b, c);
    many_parameters(&mut bench, b);
    strangers_as_peers(&mut bench, b);
    bench.pass(Duration::from_millis(500));

    // All that one link has is said to be unreachable, and so is what others have, by several hosts.
    let reporters = ["10.0.1.1:1", "10.0.1.2:1", "10.0.1.3:1"].map(|at| bench.accept(Service::Asap, TCP, at));
    for &user in &reporters {
        for id in (1..=on_one_link / 5).chain((on_one_link..elements).step_by(elements as usize / 500)) {
            bench.report(user, id % pools, id);
        }
    }
    bench.pass(Duration::from_secs(1));
    // The same of a process that speaks, but not of these.
    let deaf = bench.accept(Service::Asap, TCP, "10.0.0.9:40002");
    let first = 20_000_000;
    for id in first..first + on_one_link / 5 {
        bench.register(deaf, id % pools, element(id, US));
    }
    for _ in 0..3 {
        for id in first..first + on_one_link / 5 {
            bench.report(reporters[0], id % pools, id);
        }
        bench.sleep(Duration::from_secs(1));
        bench.asap("error", deaf, &Asap::Error { error: CauseCode::UNSPECIFIED.into() });
        bench.sleep(Duration::from_secs(1));
    }
    bench.pass(Duration::from_secs(12));
    assert!(bench.machine.stats().keep_alives_missed >= u64::from(on_one_link / 5), "they are given up");

    // A registrar contradicts what we say of our own, and the elements are asked.
    for id in 1..=on_one_link / 5 {
        bench.enrp("update", b, B, update(UpdateAction::Add, id % pools, id, B));
        bench.enrp("update", b, B, update(UpdateAction::Delete, id % pools, id, US));
        let other = elements - id;
        bench.enrp("update", b, B, update(UpdateAction::Delete, other % pools, other, B));
    }
    bench.sleep(Duration::from_secs(1));
    bench.pass(Duration::from_secs(1));
    assert!(bench.owned(US) >= on_one_link as usize, "they say whose they are");

    // A hundred thousand registrations end at once.
    let mayfly = bench.accept(Service::Asap, TCP, "10.0.0.9:40003");
    bench.honest.insert(mayfly);
    let first = 30_000_000;
    for id in first..first + on_one_link {
        bench.register(mayfly, id % pools, PoolElement { life: 4000, ..element(id, US) });
    }
    bench.pass(Duration::from_secs(6));
    assert!(bench.machine.stats().lapsed >= u64::from(on_one_link), "their lives are over");

    // The element of a pool with very many subscribers comes and goes.
    for _ in 0..40 {
        bench.register(pe, 1, element(40_000_000, US));
        bench.pass(Duration::from_millis(30));
        let (handle, id) = (pool(1), PeId(40_000_000));
        bench.asap("deregistration", pe, &Asap::Deregistration { handle, id });
        bench.pass(Duration::from_millis(30));
    }

    // Whose policy asks how far they are is further away.
    let far = bench.accept(Service::Asap, TCP, "10.0.0.9:40004");
    bench.honest.insert(far);
    let policy = Policy::LeastUsedDpf { load: 1, load_dpf: 1, distance: 0 };
    for id in 0..on_one_link / 5 {
        let element = PoolElement { policy: policy.clone(), ..element(50_000_000 + id, US) };
        bench.register(far, 1_000_000 + id % 100, element);
    }
    for ms in [400, 900] {
        let round_trip = Some(Duration::from_millis(ms));
        let measured = Measurement { round_trip, retransmissions: 0, unacknowledged: false };
        bench.call("a measurement", |machine, now| machine.handle_measurement(now, far, measured));
        bench.pass(Duration::from_millis(200));
    }

    // Each of ten thousand pools changes while their subscriber does not read.
    for change in [LinkChange::Congested, LinkChange::Drained] {
        bench.call("congestion", |machine, now| machine.handle_link(now, users[0], change));
        for number in 0..10_000.min(pools) {
            let element = element(elements - (elements - number) % pools, B);
            let element = PoolElement { life: number + 7, ..element };
            let (handle, action, takeover_suggested) = (pool(number), UpdateAction::Add, false);
            bench.enrp("update", b, B, Enrp::HandleUpdate { takeover_suggested, action, handle, element });
        }
        bench.call("congestion", |machine, now| machine.handle_link(now, users[1], LinkChange::Drained));
    }
    bench.pass(Duration::from_millis(500));

    registrars_end(&mut bench, b, c, d);
    for link in [users[0], pe, far] {
        bench.down(link);
        bench.pass(Duration::from_millis(100));
    }
    bench.pass(Duration::from_secs(3));
    bench.verdict(&format!("{elements} elements, {pools} pools, {subscribers} subscribers"), bound);
}

fn simple_questions(bench: &mut Bench, pe: LinkId, b: LinkId, c: LinkId) {
    let user = bench.accept(Service::Asap, TCP, "10.0.0.8:40001");
    let (handle, id, home) = (pool(1), PeId(1), false);
    for items in [None, Some(1), Some(u32::MAX)] {
        for subscribe in [true, false] {
            let message = Asap::HandleResolution { subscribe, handle: handle.clone(), items };
            bench.asap("resolution", user, &message);
        }
    }
    for other in 0..200 {
        bench.register(pe, other, element(5_000_000 + other, RegistrarId(0)));
        let (handle, id) = (pool(other), PeId(5_000_000 + other));
        bench.asap("deregistration", pe, &Asap::Deregistration { handle, id });
    }
    bench.asap("acknowledgement", pe, &Asap::EndpointKeepAliveAck { handle: handle.clone(), id });
    bench.asap("misplaced", user, &Asap::EndpointKeepAlive { home, registrar: B, handle, id: None });
    bench.asap("error", user, &Asap::Error { error: CauseCode::UNSPECIFIED.into() });
    for _ in 0..250 {
        for own_only in [true, false] {
            bench.enrp("table request", c, C, Enrp::HandleTableRequest { own_only });
            bench.enrp("table request", b, B, Enrp::HandleTableRequest { own_only });
        }
        bench.enrp("list request", b, B, Enrp::ListRequest);
    }
    bench.enrp("presence", b, B, presence(B, Protocol::Tcp, "10.0.0.2:9901"));
    for target in [B, C, D, US, RegistrarId(0x1234)] {
        bench.enrp("takeover", c, C, Enrp::InitTakeover { target });
        bench.enrp("takeover", c, C, Enrp::InitTakeoverAck { target });
        bench.enrp("takeover", c, C, Enrp::TakeoverServer { target });
    }
    bench.call("the operator's question", |machine, _| {
        assert!(!machine.peers().is_empty() && !machine.bounds().is_empty());
    });
}

/// As many causes and parameters as a message can have.
fn many_parameters(bench: &mut Bench, b: LinkId) {
    let user = bench.accept(Service::Asap, TCP, "10.0.0.8:40001");
    let unknown = [0xff, 0xff, 0, 4].repeat(16_000);
    for kind in 0..=15 {
        let bytes = [&[kind, 0, 0xfa, 0x04], &unknown[..]].concat();
        bench.call("many parameters", |machine, now| machine.handle_message(now, user, &bytes));
        let from_b = [&[kind, 0, 0xfa, 0x0c], &B.0.to_be_bytes()[..], &US.0.to_be_bytes(), &unknown].concat();
        bench.call("many parameters", |machine, now| machine.handle_message(now, b, &from_b));
    }
}

fn strangers_as_peers(bench: &mut Bench, b: LinkId) {
    // More registrars than anybody may have, twice, so that some make room for others.
    for first in [0x9000, 0xa0000] {
        let servers = (first..first + 2000).map(|id| ServerInformation {
            id: RegistrarId(id),
            transports: vec![transport(Protocol::Tcp, "10.0.0.99:9901")],
        });
        bench.enrp("list", b, B, Enrp::ListResponse { rejected: false, servers: servers.collect() });
    }
    for id in 0..300 {
        let sender = RegistrarId(0xb0000 + id);
        let body = presence(sender, Protocol::Tcp, "10.0.0.98:9901");
        let bytes = EnrpMessage { sender, receiver: RegistrarId(0), body }.encode();
        let from = "10.0.0.98:9901".parse().expect("an address");
        bench.call("datagram", |machine, now| machine.handle_announce(now, Service::Enrp, from, &bytes));
    }
    // One identifier over very many links, of one host and of many.
    let connections = plan().connections;
    let links: Vec<LinkId> = (0..connections)
        .map(|number| match number % 2 {
            0 => bench.accept(Service::Enrp, TCP, "10.0.0.97:1"),
            _ => bench.accept(Service::Enrp, TCP, &format!("10.2.0.{}:1", number % 250)),
        })
        .collect();
    for &link in &links {
        let id = RegistrarId(0xc0000);
        bench.enrp("one identifier", link, id, presence(id, Protocol::Tcp, "10.0.0.97:9901"));
    }
    bench.down(links[0]);
    bench.pass(Duration::from_secs(4));
    for link in links {
        bench.down(link);
    }
}

/// D dies and is C's then, C has given up all that, B dies and is ours.
fn registrars_end(bench: &mut Bench, b: LinkId, c: LinkId, d: LinkId) {
    let Plan { elements, pools, on_one_link, .. } = plan();
    let theirs = bench.owned(D);
    assert!(theirs >= (elements - on_one_link) as usize / 4, "{theirs} elements");
    bench.audit(d, D, Protocol::Tcp, "10.0.0.4:9901");
    bench.table(d, D, true, full_table(60_000_000, D, None));
    bench.table(d, D, true, full_table(61_000_000, D, Some(pools)));
    // Of ours, and of somebody else's.
    bench.table(d, D, true, full_table(1, D, Some(pools)));
    bench.table(d, D, true, full_table(on_one_link + 1, B, Some(pools)));
    bench.down(d);
    for _ in 0..40 {
        bench.pass(Duration::from_millis(100));
        bench.enrp("takeover", c, C, Enrp::InitTakeover { target: D });
        bench.enrp("takeover", b, B, Enrp::InitTakeoverAck { target: D });
        bench.enrp("takeover", c, C, Enrp::TakeoverServer { target: D });
    }
    assert_eq!(bench.owned(D), 0, "all of D's were inherited");
    assert!(bench.owned(C) >= theirs, "by C: {} of {theirs}", bench.owned(C));
    bench.audit(c, C, Protocol::Sctp, "10.0.0.3:9901");
    bench.table(c, C, false, full_table(62_000_000, C, None));
    bench.pass(Duration::from_secs(1));
    assert!(bench.owned(C) <= 900, "the rest is gone: {}", bench.owned(C));

    // All that B has is asked, over a link that goes before it is answered.
    let theirs = bench.owned(B);
    bench.down(b);
    bench.dials.clear();
    for _ in 0..60 {
        // Who does not answer is dialled again soon, and then given up.
        if bench.owned(B) > 0 {
            bench.pass(Duration::from_millis(100));
            bench.enrp("takeover", c, C, Enrp::InitTakeoverAck { target: B });
        }
    }
    assert_eq!(bench.owned(B), 0, "all of B's were inherited");
    assert!(bench.owned(US) >= theirs, "by us: {} of {theirs}", bench.owned(US));
    let shared: SocketAddr = "10.0.0.9:99".parse().expect("an address");
    let is_process = |dial: &&(LinkId, Service, Target)| dial.2.addresses == [shared];
    let process = bench.dials.iter().find(is_process).expect("their process is dialled").0;
    bench.up(process, Service::Asap, TCP, "10.0.0.9:99");
    bench.pass(Duration::from_millis(20));
    bench.down(process);
    bench.pass(Duration::from_millis(100));
    // The others come by themselves, and need not be dialled any more.
    let back = bench.accept(Service::Asap, TCP, "10.0.0.9:40005");
    bench.honest.insert(back);
    for id in (on_one_link + 1..=elements).filter(|id| id % 2 == 1 && id % 3 > 0) {
        bench.register(back, id % pools, element(id, US));
    }
    let (dial, ..) = bench.dials.pop().expect("others are dialled");
    for (dial, ..) in std::mem::take(&mut bench.dials).into_iter().rev().take(300) {
        let refused = LinkChange::Down(LinkDown::Refused);
        bench.call("a dial fails", |machine, now| machine.handle_link(now, dial, refused));
    }
    bench.down(dial);
    bench.pass(Duration::from_secs(3));
    bench.down(back);
    bench.pass(Duration::from_millis(100));
}

/// Whatever is told to peers is told to each of them.
#[test]
fn no_call_takes_long_with_as_many_registrars_as_there_may_be() {
    let Plan { elements, pools, subscribers, on_one_link, bound, .. } = plan();
    let config = Config { id: US, ..Config::default() };
    let count = config.max_peers as u32;
    let mut bench = Bench::new(config);
    let address = |number: u32| format!("10.3.{}.{}", number / 100, number % 100);
    let id = |number: u32| RegistrarId(0x6000 + number);
    let peers: Vec<LinkId> = (0..count).map(|number| bench.peer(id(number), &address(number))).collect();
    let users: Vec<LinkId> =
        (0..subscribers).map(|_| bench.accept(Service::Asap, TCP, "10.0.0.8:40000")).collect();
    for &user in &users {
        bench.subscribe(user, 1);
    }
    for number in 0..elements / 2 {
        let peer = number % count;
        let (link, home) = (peers[peer as usize], id(peer));
        bench.enrp("update", link, home, update(UpdateAction::Add, number % pools, number + 1, home));
    }
    bench.measuring = true;
    let processes: Vec<LinkId> = (0..2).map(|_| bench.accept(Service::Asap, TCP, "10.0.0.9:40001")).collect();
    for number in 0..on_one_link / 10 {
        let process = processes[number as usize % 2];
        bench.register(process, number % pools, element(10_000_000 + number, US));
    }
    bench.honest.extend(&processes);
    bench.pass(Duration::from_secs(1));
    // Nobody reads for a while.
    for &link in &peers {
        bench.call("congestion", |machine, now| machine.handle_link(now, link, LinkChange::Congested));
    }
    for number in 0..4000.min(on_one_link / 10) {
        let element = PoolElement { life: 1_000_000, ..element(10_000_000 + number, US) };
        bench.register(processes[number as usize % 2], number % pools, element);
    }
    for &link in &peers {
        bench.call("congestion", |machine, now| machine.handle_link(now, link, LinkChange::Drained));
    }
    bench.sleep(Duration::from_millis(100));
    bench.pass(Duration::from_secs(1));
    for own_only in [true, false] {
        for (number, &link) in (0..).zip(&peers) {
            bench.enrp("table request", link, id(number), Enrp::HandleTableRequest { own_only });
            bench.enrp("list request", link, id(number), Enrp::ListRequest);
        }
    }
    // Some say that they have what we have, and then it is gone here.
    for number in 0..500 {
        let peer = number % count;
        let (link, home) = (peers[peer as usize], id(peer));
        let what = update(UpdateAction::Add, number % pools, 10_000_000 + number, home);
        bench.enrp("update", link, home, what);
    }
    bench.down(processes[0]);
    bench.pass(Duration::from_secs(1));
    // A process that still speaks, but not of these.
    bench.honest.remove(&processes[1]);
    let reporter = bench.accept(Service::Asap, TCP, "10.0.1.1:1");
    for _ in 0..2 {
        for number in 0..on_one_link / 10 {
            bench.report(reporter, number % pools, 10_000_000 + number);
        }
        bench.sleep(Duration::from_secs(1));
        bench.asap("error", processes[1], &Asap::Error { error: CauseCode::UNSPECIFIED.into() });
        bench.sleep(Duration::from_secs(1));
    }
    bench.pass(Duration::from_secs(12));
    bench.down(processes[1]);
    // All but a few die together.
    let theirs: usize = (10..count).map(|number| bench.owned(id(number))).sum();
    assert!(theirs >= elements as usize / 3, "{theirs} elements");
    for &link in &peers[10..] {
        bench.down(link);
    }
    for _ in 0..20 {
        bench.pass(Duration::from_millis(200));
        for (number, &link) in (0..10).zip(&peers) {
            for target in (10..count).map(id) {
                bench.enrp("takeover", link, id(number), Enrp::InitTakeoverAck { target });
            }
        }
    }
    let theirs: usize = (10..count).map(|number| bench.owned(id(number))).sum();
    assert_eq!(theirs, 0, "all of it was inherited");
    bench.pass(Duration::from_secs(2));
    bench.verdict(&format!("{count} peers, {elements} elements, {subscribers} subscribers"), bound);
}

/// A newcomer reads a mentor's table while its clients are waiting.
#[test]
fn no_call_takes_long_while_a_registrar_joins() {
    let Plan { elements, pools, connections, bound, .. } = plan();
    let target = Target { protocol: TCP, addresses: vec!["10.0.0.2:9901".parse().expect("an address")] };
    let mut bench = Bench::new(Config { id: US, peers: vec![target], ..Config::default() });
    bench.measuring = true;
    bench.call("the beginning", |machine, now| machine.handle_timeout(now));
    let dial = bench.dials.pop().expect("the mentor is dialled").0;
    bench.up(dial, Service::Enrp, TCP, "10.0.0.2:9901");
    bench.enrp("presence", dial, B, presence(B, Protocol::Tcp, "10.0.0.2:9901"));
    for number in 0..connections {
        let link = bench.accept(Service::Asap, TCP, "10.0.0.8:40000");
        for wish in 0..4 {
            bench.subscribe(link, (number + wish * 77) % pools);
        }
        bench.register(link, number % pools, element(10_000_000 + number, US));
    }
    let mut first = 1;
    while first <= elements {
        // What it says is ours is of our life before.
        let (home, count) = (if first % 5 == 0 { US } else { B }, 600);
        let table: BTreeMap<u32, Vec<PoolElement>> = (first..(first + count).min(elements + 1))
            .map(|id| element(id, home))
            .fold(BTreeMap::new(), |mut table, one| {
                table.entry(one.id.0 / 10 % pools).or_insert_with(Vec::new).push(one);
                table
            });
        first += count;
        let more = first <= elements;
        let table = table.into_iter().map(|(number, all)| (pool(number), all)).collect();
        bench.table(dial, B, more, table);
        if first % 100 == 1 {
            bench.alive = vec![(dial, B)];
            bench.pass(Duration::from_micros(100));
        }
    }
    assert!(bench.machine.is_serving(), "all of it was read");
    bench.pass(Duration::from_secs(3));
    let there = bench.machine.handlespace().len();
    assert!(there >= elements as usize / 2, "{there} elements");
    bench.verdict(&format!("{elements} elements, {connections} clients while joining"), bound);

    // Nobody is there to learn from: questions wait for elements to come back, and none does.
    let mut bench = Bench::new(Config { id: US, ..Config::default() });
    bench.measuring = true;
    for number in 0..connections {
        let link = bench.accept(Service::Asap, TCP, "10.0.0.8:40000");
        for wish in 0..4 {
            bench.subscribe(link, number * 4 + wish);
        }
    }
    for number in 0..connections {
        let link = bench.accept(Service::Asap, TCP, "10.0.0.9:40000");
        bench.register(link, number, element(number, US));
    }
    bench.sleep(Duration::from_secs(2));
    bench.pass(Duration::from_secs(1));
    bench.verdict(&format!("{connections} clients after a start alone"), bound);
}
