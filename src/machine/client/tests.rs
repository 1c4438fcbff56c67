//! Feeds one input, compares all effects in order.

use super::*;
use crate::wire::frame::first_message;
use crate::wire::{CauseCode, OperationError, Policy, PoolElement, Protocol, TransportUse};

mod elements;
mod homes;
mod hunting;
mod lost_links;
mod pools;

/// An effect as tests see it: messages one by one, decoded.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Open(LinkId, Target),
    Send(LinkId, Asap),
    Close(LinkId),
    Event(Event),
}
use Seen::{Close, Open, Send};

/// A client and its clock.
struct Bench {
    client: Client,
    now: Time,
    seen: Vec<Seen>,
}

fn bench(config: Config) -> Bench {
    Bench { client: Client::new(config, 7, Time(0)), now: Time(0), seen: Vec::new() }
}

impl Bench {
    /// Lets time pass until `ms` milliseconds after the start, timers included.
    fn at(&mut self, ms: u64) -> &mut Bench {
        let until = Time(ms * 1000);
        let mut rings = 0;
        while let Some(due) = self.client.poll_timeout().filter(|&due| due <= until) {
            self.now = self.now.max(due);
            self.client.handle_timeout(self.now);
            self.drain();
            rings += 1;
            assert!(rings < 10_000, "busy timers");
        }
        self.now = until;
        self
    }

    /// Feeds one input.
    fn feed(&mut self, input: impl FnOnce(&mut Client, Time)) -> &mut Bench {
        input(&mut self.client, self.now);
        self.drain();
        self
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Open { link, target, .. } => self.seen.push(Open(link, target)),
                Output::Close { link } => self.seen.push(Close(link)),
                Output::Event(event) => self.seen.push(Seen::Event(event)),
                Output::Send { link, bytes } => {
                    let mut rest = &bytes[..];
                    while let Some(length) = first_message(rest).expect("a message stream") {
                        let message = Asap::decode(&rest[..length]).expect("what was sent decodes").message;
                        self.seen.push(Send(link, message));
                        rest = &rest[length..];
                    }
                    assert!(rest.is_empty(), "a message was split");
                }
                Output::Announce { .. } | Output::Measure { .. } => panic!("a client does not do that"),
            }
        }
    }

    fn up(&mut self, link: LinkId, peer: &str) -> &mut Bench {
        let ends = ends(peer);
        self.feed(|client, now| client.handle_link(now, link, LinkChange::Up(ends)));
        if link.is_incoming() {
            // It says what it is, and nothing else.
            let hello = Send(link, Asap::Error { error: OperationError(Vec::new()) });
            assert_eq!(self.seen.iter().filter(|&seen| *seen == hello).count(), 1);
            self.seen.retain(|seen| *seen != hello);
        }
        self
    }

    fn down(&mut self, link: LinkId, why: LinkDown) -> &mut Bench {
        self.feed(|client, now| client.handle_link(now, link, LinkChange::Down(why)))
    }

    fn receive(&mut self, link: LinkId, message: Asap) -> &mut Bench {
        let bytes = message.encode();
        self.feed(|client, now| client.handle_message(now, link, &bytes))
    }

    fn hear(&mut self, from: &str, id: u32, transports: Vec<Transport>) -> &mut Bench {
        let bytes = Asap::ServerAnnounce { registrar: RegistrarId(id), transports }.encode();
        let from = address(from);
        self.feed(|client, now| client.handle_announce(now, from, &bytes))
    }

    fn resolve(&mut self, request: u64, pool: &str) -> &mut Bench {
        let handle = handle(pool);
        self.feed(|client, now| client.resolve(now, RequestId(request), &handle, None, false))
    }

    fn register(&mut self, request: u64, registration: Registration) -> &mut Bench {
        self.feed(|client, now| client.register(now, RequestId(request), registration))
    }

    fn deregister(&mut self, request: u64, pool: &str, id: u32) -> &mut Bench {
        let handle = handle(pool);
        self.feed(|client, now| client.deregister(now, RequestId(request), &handle, PeId(id)))
    }

    fn subscribe(&mut self, pool: &str) -> &mut Bench {
        let handle = handle(pool);
        self.feed(|client, now| client.subscribe(now, &handle))
    }

    /// Everything seen since the last time, in order.
    #[track_caller]
    fn expect(&mut self, expected: impl IntoIterator<Item = Seen>) -> &mut Bench {
        let expected: Vec<Seen> = expected.into_iter().collect();
        assert_eq!(self.seen, expected, "at {:?}", self.now);
        self.seen.clear();
        self
    }

    fn forget(&mut self) -> &mut Bench {
        self.seen.clear();
        self
    }

    fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// A client that has the registrar at `A` for its home, by link 1.
    fn settled(mut self) -> Bench {
        self.resolve(999, "warm-up").up(link(1), A).receive(link(1), unknown_pool("warm-up")).forget();
        self
    }
}

const A: &str = "10.0.0.1:3863";
const B: &str = "10.0.0.2:3863";
const C: &str = "10.0.0.3:3863";
const D: &str = "10.0.0.4:3863";

fn link(number: u64) -> LinkId {
    LinkId(number)
}

fn incoming(number: u64) -> LinkId {
    LinkId(LinkId::INCOMING + number)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(text: &str) -> Target {
    Target { protocol: LinkProtocol::Tcp, addresses: vec![address(text)] }
}

fn sctp(text: &str) -> Target {
    Target { protocol: LinkProtocol::Sctp, addresses: vec![address(text)] }
}

fn ends(peer: &str) -> LinkEnds {
    LinkEnds {
        service: crate::machine::Service::Asap,
        protocol: LinkProtocol::Tcp,
        peer: vec![address(peer)],
        local: vec![address("10.0.0.99:40000")],
        roles: None,
    }
}

/// Static registrars and nothing else.
fn config(registrars: &[&str]) -> Config {
    Config {
        registrars: registrars.iter().map(|text| tcp(text)).collect(),
        fallback: vec![],
        ..Config::default()
    }
}

fn handle(text: &str) -> PoolHandle {
    PoolHandle::new(text.as_bytes()).unwrap()
}

fn element(id: u32) -> PoolElement {
    let transport = Transport::new(
        Protocol::Tcp,
        TransportUse::DataPlusControl,
        7,
        vec![std::net::IpAddr::from([10, 1, 1, id as u8])],
    );
    let policy = Policy::RoundRobin;
    PoolElement { id: PeId(id), home: RegistrarId(0), life: 90_000, transport, policy, asap: None }
}

fn registration(pool: &str, id: u32) -> Registration {
    Registration { handle: handle(pool), element: element(id), interval: Duration::from_secs(30) }
}

fn register(pool: &str, id: u32) -> Asap {
    Asap::Registration { handle: handle(pool), element: element(id) }
}

fn registered(pool: &str, id: u32) -> Asap {
    Asap::RegistrationResponse { rejected: false, handle: handle(pool), id: PeId(id), error: None }
}

fn deregister(pool: &str, id: u32) -> Asap {
    Asap::Deregistration { handle: handle(pool), id: PeId(id) }
}

fn deregistered(pool: &str, id: u32) -> Asap {
    Asap::DeregistrationResponse { handle: handle(pool), id: PeId(id), error: None }
}

fn question(pool: &str) -> Asap {
    Asap::HandleResolution { subscribe: false, handle: handle(pool), items: None }
}

fn subscription(pool: &str) -> Asap {
    Asap::HandleResolution { subscribe: true, handle: handle(pool), items: Some(u32::MAX) }
}

/// What a registrar says about a pool; `subscribed` is the 'A' flag.
fn pool(name: &str, subscribed: bool, ids: &[u32], lost: &[u32], total: Option<u32>) -> Asap {
    Asap::HandleResolutionResponse {
        subscribed,
        handle: handle(name),
        error: None,
        policy: Some(Policy::RoundRobin),
        elements: ids.iter().map(|&id| element(id)).collect(),
        total,
        lost: lost.iter().map(|&id| PeId(id)).collect(),
        deregistered: Vec::new(),
    }
}

fn unknown_pool(name: &str) -> Asap {
    Asap::HandleResolutionResponse {
        subscribed: false,
        handle: handle(name),
        error: Some(CauseCode::UNKNOWN_POOL.into()),
        policy: None,
        elements: vec![],
        total: None,
        lost: vec![],
        deregistered: vec![],
    }
}

fn keep_alive(home: bool, registrar: u32, pool: &str, id: Option<u32>) -> Asap {
    Asap::EndpointKeepAlive {
        home,
        registrar: RegistrarId(registrar),
        handle: handle(pool),
        id: id.map(PeId),
    }
}

fn ack(pool: &str, id: u32) -> Asap {
    Asap::EndpointKeepAliveAck { handle: handle(pool), id: PeId(id) }
}

fn home(registrar: u32, link: LinkId) -> Seen {
    Seen::Event(Event::Home { registrar: Some(RegistrarId(registrar)), link: Some(link) })
}

fn no_home() -> Seen {
    Seen::Event(Event::Home { registrar: None, link: None })
}

fn is_registered(request: u64, result: Result<u32, RequestError>) -> Seen {
    Seen::Event(Event::Registered { request: RequestId(request), result: result.map(RegistrarId) })
}

fn is_deregistered(request: u64, result: Result<(), RequestError>) -> Seen {
    Seen::Event(Event::Deregistered { request: RequestId(request), result })
}

fn resolution(ids: &[u32], complete: bool, subscribed: bool) -> Resolution {
    let elements = ids.iter().map(|&id| element(id)).collect();
    Resolution { policy: Some(Policy::RoundRobin), elements, complete, subscribed }
}

fn is_resolved(request: u64, pool: &str, result: Result<Resolution, RequestError>) -> Seen {
    Seen::Event(Event::Resolved { requests: vec![RequestId(request)], handle: handle(pool), result })
}

fn is_pool(pool: &str, ids: &[u32], complete: bool, subscribed: bool) -> Seen {
    Seen::Event(Event::Pool { handle: handle(pool), resolution: resolution(ids, complete, subscribed) })
}

fn is_gone(pool: &str, id: u32) -> Seen {
    Seen::Event(Event::ElementGone { handle: handle(pool), id: PeId(id) })
}

fn rejected(code: CauseCode) -> RequestError {
    RequestError::Rejected(code.into())
}
