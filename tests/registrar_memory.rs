//! What a registrar keeps of what others send takes no more than is accounted for, and goes when they go. An own
//! program, since it counts all allocations of the process.

#[path = "common/counting.rs"]
mod counting;

use counting::LIVE;
use rserpool::machine::registrar::{Config, Registrar};
use rserpool::machine::{
    LinkChange, LinkDown, LinkEnds, LinkId, LinkProtocol, Output, Service, Target, Time,
};
use rserpool::wire::{Asap, PoolHandle};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// One test at a time, since all is counted together.
static ALONE: Mutex<()> = Mutex::new(());

const START: Time = Time(1_000_000_000);
/// What a registrar learns of everybody, beside what is accounted for.
const SLACK: usize = 512 << 10;

struct Bench {
    registrar: Registrar,
    now: Time,
    next: u64,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let mut bench =
            Bench { registrar: Registrar::new(config, 7, START), now: START, next: LinkId::INCOMING };
        bench.closed();
        bench
    }

    fn serving() -> Bench {
        let mut bench = Bench::new(Config { return_time: Duration::ZERO, ..Config::default() });
        bench.wait(Duration::from_secs(20));
        assert!(bench.registrar.is_serving());
        bench
    }

    /// One that waits for its mentor.
    fn joining() -> Bench {
        let peer = "10.9.0.1:9901".parse().expect("an address");
        let peers = vec![Target { protocol: LinkProtocol::Tcp, addresses: vec![peer] }];
        let bench = Bench::new(Config { peers, ..Config::default() });
        assert!(!bench.registrar.is_serving());
        bench
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.registrar.poll_timeout().filter(|&due| due <= until) {
            self.now = self.now.max(due);
            self.registrar.handle_timeout(self.now);
            self.closed();
        }
        self.now = until;
    }

    /// Which links were closed; what else is to be done is forgotten.
    fn closed(&mut self) -> Vec<LinkId> {
        let mut closed = Vec::new();
        while let Some(output) = self.registrar.poll_output() {
            if let Output::Close { link } = output {
                closed.push(link);
            }
        }
        closed
    }

    /// Links from as many hosts.
    fn connect(&mut self, count: u64) -> Vec<LinkId> {
        let links: Vec<LinkId> = (self.next..self.next + count).map(LinkId).collect();
        self.next += count;
        for (number, &link) in links.iter().enumerate() {
            let peer = format!("10.1.{}.{}:9", number / 250, number % 250 + 1).parse().expect("an address");
            let ends = LinkEnds {
                service: Service::Asap,
                protocol: LinkProtocol::Tcp,
                peer: vec![peer],
                local: vec!["10.0.0.1:3863".parse().expect("an address")],
                roles: None,
            };
            self.registrar.handle_link(self.now, link, LinkChange::Up(ends));
        }
        self.closed();
        links
    }

    /// Whether the link stays.
    fn send(&mut self, link: LinkId, bytes: &[u8]) -> bool {
        self.registrar.handle_message(self.now, link, bytes);
        !self.closed().contains(&link)
    }

    fn accounted(&self) -> usize {
        self.registrar.accounts().iter().map(|account| account.bytes).sum()
    }

    fn all_leave(&mut self, links: Vec<LinkId>) {
        for link in links {
            self.registrar.handle_link(self.now, link, LinkChange::Down(LinkDown::Closed));
            self.closed();
        }
        self.wait(Duration::from_secs(2));
        self.registrar.invariants().expect("invariants hold");
    }
}

fn subscription(name: &str) -> Vec<u8> {
    let handle = PoolHandle::new(name.as_bytes()).expect("a legal handle");
    Asap::HandleResolution { subscribe: true, handle, items: Some(u32::MAX) }.encode()
}

#[test]
fn subscriptions_take_what_is_accounted_for() {
    let _alone = ALONE.lock();
    /// The table of a link that has few.
    const LINK: usize = 256;
    type Name = fn(u64, u32) -> String;
    let own: Name = |link, pool| format!("{link:x}.{pool:x}");
    let long: Name = |link, pool| format!("{link:x}.{pool:x}.{}", "x".repeat(1000));
    let shared: Name = |_, pool| format!("{pool:x}");
    let one: Name = |_, _| "echo".into();
    for (what, links, each, name) in [
        ("pools of their own", 10, 5000, own),
        ("long handles", 10, 1000, long),
        ("two for each pool", 2, 10_000, shared),
        ("fifteen for each pool", 15, 2000, shared),
        ("twenty for each pool", 20, 2000, shared),
        ("all for one pool", 3000, 1, one),
    ] {
        let mut bench = Bench::serving();
        let links = bench.connect(links);
        let before = LIVE.load(Relaxed);
        for &link in &links {
            for pool in 0..each {
                bench.send(link, &subscription(&name(link.0, pool)));
            }
        }
        let (grown, accounted) = (LIVE.load(Relaxed) - before, bench.accounted());
        println!("{what}: {grown} bytes grown, {accounted} accounted for");
        let count = links.len();
        assert!(
            grown <= accounted + count * LINK + SLACK,
            "{what}: {grown} grown, {accounted} accounted for"
        );
        assert!(accounted <= 2 * grown, "{what}: {grown} grown, {accounted} accounted for");
        bench.all_leave(links);
        assert_eq!(bench.accounted(), 0);
        let left = LIVE.load(Relaxed).saturating_sub(before);
        assert!(left < SLACK, "{what}: {left} bytes are left");
    }
}

/// The smallest messages, and some that are not.
#[test]
fn requests_before_the_service_take_what_is_accounted_for() {
    let _alone = ALONE.lock();
    for size in [4usize, 100, 2000] {
        let mut bench = Bench::joining();
        let links = bench.connect(150);
        let before = LIVE.load(Relaxed);
        let mut message = vec![0x30, 0];
        message.extend_from_slice(&(size as u16).to_be_bytes());
        message.resize(size, 0);
        let mut sent = 0;
        // Up to what a link may have, and then the next one, until there is no room.
        for &link in &links {
            for _ in 0..(60 << 10) / (size + 4) {
                sent += size;
                if !bench.send(link, &message) {
                    break;
                }
            }
        }
        let (grown, accounted) = (LIVE.load(Relaxed).saturating_sub(before), bench.accounted());
        println!("messages of {size}: {sent} bytes sent, {grown} grown, {accounted} accounted for");
        assert!(grown <= accounted + SLACK, "{size}: {grown} grown, {accounted} accounted for");
        assert!(accounted > 3 << 20, "{size}: {accounted} accounted for");
        bench.registrar.invariants().expect("invariants hold");
        bench.all_leave(links);
        assert_eq!(bench.accounted(), 0);
    }
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that every thread has.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[test]
fn a_request_that_waits_costs_no_more_when_many_do() {
    let _alone = ALONE.lock();
    let mut bench = Bench::joining();
    let (mut first, mut last) = (Duration::MAX, Duration::MAX);
    for link in bench.connect(20) {
        for part in 0..16 {
            let begin = processor_time();
            for _ in 0..500 {
                assert!(bench.send(link, &[0x30, 0, 0, 4]));
            }
            let took = processor_time() - begin;
            match part {
                0 => first = first.min(took),
                15 => last = last.min(took),
                _ => {}
            }
        }
    }
    println!("the first 500 took {first:?}, the last of 8000 {last:?}");
    assert!(last < 4 * first, "the first 500 took {first:?}, the last of 8000 {last:?}");
}
