//! What a join asks of the mentor: no single call of its machine may keep its other clients waiting.
//! Measured in the thread's own processor time, so that a busy machine does not matter.

use super::world::{address, transport};
use rserpool::machine::registrar::{Config, Registrar};
use rserpool::machine::{LinkChange, LinkEnds, LinkId, LinkProtocol, Output, Service, Target, Time};
use rserpool::wire::{
    Asap, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, TransportUse, frame,
};
use std::net::SocketAddr;
use std::time::Duration;

const ELEMENTS: u32 = 100_000;
/// No client waits longer for the mentor's machine.
const BOUND: Duration = Duration::from_millis(10);
/// One way.
const LATENCY: Duration = Duration::from_micros(200);

pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn up(service: Service, peer: usize, local: usize) -> LinkChange {
    let at = |host, port| vec![SocketAddr::new(address(host), port)];
    LinkChange::Up(LinkEnds {
        service,
        protocol: LinkProtocol::Tcp,
        peer: at(peer, 40_000),
        local: at(local, 9901),
        roles: None,
    })
}

fn registrar(host: usize, peers: Vec<Target>) -> Registrar {
    let at = |port| vec![transport(Protocol::Tcp, host, port, TransportUse::DataOnly)];
    let config = Config {
        id: RegistrarId(host as u32 + 1),
        asap_transports: at(3863),
        enrp_transports: at(9901),
        peers,
        ..Config::default()
    };
    Registrar::new(config, host as u64, Time(1_000_000))
}

/// What a registrar sends, by link; the first link that it opens.
fn outputs(registrar: &mut Registrar) -> (Vec<(LinkId, Vec<u8>)>, Option<LinkId>) {
    let (mut sent, mut opened) = (Vec::new(), None);
    while let Some(output) = registrar.poll_output() {
        match output {
            Output::Send { link, bytes } => sent.push((link, bytes)),
            Output::Open { link, .. } => opened = opened.or(Some(link)),
            _ => {}
        }
    }
    (sent, opened)
}

fn registration(number: u32) -> Vec<u8> {
    let element = PoolElement {
        id: PeId(number + 1),
        home: RegistrarId(0),
        life: 300_000,
        transport: transport(Protocol::Tcp, 9, 7, TransportUse::DataOnly),
        policy: Policy::RoundRobin,
        asap: None,
    };
    Asap::Registration { handle: pool_of(number), element }.encode()
}

fn pool_of(number: u32) -> PoolHandle {
    PoolHandle::new(format!("pool{}", number / 100).as_bytes()).expect("short")
}

/// The mentor with the longest of its calls.
struct Mentor {
    machine: Registrar,
    worst: Duration,
    calls: u64,
}

impl Mentor {
    fn call(&mut self, act: impl FnOnce(&mut Registrar)) -> Vec<(LinkId, Vec<u8>)> {
        let before = processor_time();
        act(&mut self.machine);
        let (sent, _) = outputs(&mut self.machine);
        self.worst = self.worst.max(processor_time() - before);
        self.calls += 1;
        sent
    }

    fn messages(&mut self, now: Time, link: LinkId, mut bytes: &[u8]) -> Vec<(LinkId, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Ok(Some(length)) = frame::first_message(bytes) {
            sent.extend(self.call(|machine| machine.handle_message(now, link, &bytes[..length])));
            bytes = &bytes[length..];
        }
        sent
    }
}

#[test]
fn a_join_of_100_000_elements_keeps_no_client_of_the_mentor_waiting() {
    let [processes, user, peer] = [1, 2, 3].map(|number| LinkId(LinkId::INCOMING + number));
    let mut now = Time(1_000_000);
    let mut mentor = Mentor { machine: registrar(0, Vec::new()), worst: Duration::ZERO, calls: 0 };
    for (link, service) in [(processes, Service::Asap), (user, Service::Asap)] {
        mentor.call(|machine| machine.handle_link(now, link, up(service, 9, 0)));
    }
    for number in 0..ELEMENTS {
        mentor.call(|machine| machine.handle_message(now, processes, &registration(number)));
    }
    println!("longest of {} registrations: {:?}", mentor.calls, mentor.worst);
    (mentor.worst, mentor.calls) = (Duration::ZERO, 0);

    let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![SocketAddr::new(address(0), 9901)] };
    let mut joiner = registrar(1, vec![target]);
    let (_, opened) = outputs(&mut joiner);
    let dialled = opened.expect("the mentor is dialled");
    mentor.call(|machine| machine.handle_link(now, peer, up(Service::Enrp, 1, 0)));
    joiner.handle_link(now, dialled, up(Service::Enrp, 0, 1));
    let mut answers = 0;
    while !joiner.is_serving() {
        let (asked, _) = outputs(&mut joiner);
        now = now + LATENCY;
        let mut replies = Vec::new();
        for (_, bytes) in asked {
            replies.extend(mentor.messages(now, peer, &bytes));
        }
        // In between, somebody asks for a pool.
        let question = Asap::HandleResolution {
            subscribe: false,
            handle: pool_of(answers * 97 % ELEMENTS),
            items: None,
        };
        let sent = mentor.call(|machine| machine.handle_message(now, user, &question.encode()));
        assert!(sent.iter().any(|(link, _)| *link == user), "an answer");
        answers += 1;
        now = now + LATENCY;
        for (link, bytes) in replies.into_iter().filter(|(link, _)| *link == peer) {
            assert_eq!(link, peer);
            let mut rest = &bytes[..];
            while let Ok(Some(length)) = frame::first_message(rest) {
                joiner.handle_message(now, dialled, &rest[..length]);
                rest = &rest[length..];
            }
        }
        if mentor.machine.poll_timeout().is_some_and(|due| due <= now) {
            mentor.call(|machine| machine.handle_timeout(now));
        }
        if joiner.poll_timeout().is_some_and(|due| due <= now) {
            joiner.handle_timeout(now);
        }
        assert!(answers < 10_000, "the join does not end");
    }
    assert_eq!(joiner.handlespace().len(), ELEMENTS as usize);
    println!(
        "joined; longest of the mentor's {} calls: {:?}, {answers} answers in between",
        mentor.calls, mentor.worst
    );
    assert!(mentor.worst < BOUND, "one call took {:?}", mentor.worst);
}
