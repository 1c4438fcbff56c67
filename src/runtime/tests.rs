//! The library's event thread and a registrar's loop, in one process, over real sockets.

use super::reactor::Waker;
use super::registrar::{Listen, Options, Server};
use super::*;
use crate::machine::client::{Registration, RequestError};
use crate::machine::{LinkProtocol, registrar};
use crate::transport::interfaces::interfaces;
use crate::transport::multicast::{ASAP_GROUP, ASAP_GROUP_IANA, GroupSender};
use crate::transport::netns::in_namespace;
use crate::wire::{
    Asap, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STALE: Duration = Duration::from_secs(3600);

/// A registrar in a thread.
struct TestRegistrar {
    asap: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl TestRegistrar {
    fn start() -> TestRegistrar {
        TestRegistrar::start_with(TestRegistrar::options())
    }

    fn options() -> Options {
        let listen = Listen { addresses: vec!["127.0.0.1:0".parse().unwrap()], fallback: false };
        let machine = registrar::Config {
            min_address_scope: crate::wire::scope::Scope::Loopback,
            return_time: Duration::ZERO,
            ..registrar::Config::default()
        };
        Options {
            machine,
            asap: listen.clone(),
            enrp: listen,
            protocols: vec![LinkProtocol::Tcp],
            ..Options::default()
        }
    }

    fn start_with(options: Options) -> TestRegistrar {
        let mut server = Server::bind(options).unwrap();
        let (asap, waker) = (server.asap_addresses()[0], server.waker());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                server.turn(None, &mut Vec::new()).unwrap();
            }
        });
        TestRegistrar { asap, stop, waker, thread: Some(thread) }
    }

    fn settings(&self) -> Settings {
        Settings {
            registrars: targets(&[LinkProtocol::Tcp], &[self.asap]),
            protocols: vec![LinkProtocol::Tcp],
            announce: None,
            ..Settings::default()
        }
    }
}

impl TestRegistrar {
    /// An element whose process ends with the connection.
    fn register_by_hand(&self, name: &str, id: u32) -> std::net::TcpStream {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.asap).unwrap();
        let Registration { handle, element, .. } = registration(name, id);
        stream.write_all(&crate::wire::Asap::Registration { handle, element }.encode()).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream
    }
}

impl Drop for TestRegistrar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn handle(name: &str) -> PoolHandle {
    PoolHandle::new(name.as_bytes()).unwrap()
}

fn registration(name: &str, id: u32) -> Registration {
    let addresses = vec!["127.0.0.1".parse().unwrap()];
    Registration {
        handle: handle(name),
        element: PoolElement {
            id: PeId(id),
            home: RegistrarId(0),
            life: 30_000,
            transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 4711, addresses),
            policy: Policy::RoundRobin,
            asap: None,
        },
        interval: Duration::from_secs(10),
    }
}

fn ids(found: &[PoolElement]) -> Vec<u32> {
    let mut ids: Vec<u32> = found.iter().map(|element| element.id.0).collect();
    ids.sort_unstable();
    ids
}

/// Tries until it is so; for what other threads do in their own time.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn registered_elements_are_resolved_until_they_deregister() {
    let registrar = TestRegistrar::start();
    let elements = Runtime::start(registrar.settings()).unwrap();
    let users = Runtime::start(registrar.settings()).unwrap();
    let pool = handle("echo");
    for id in 1..=3 {
        elements.register(registration("echo", id)).unwrap().wait().unwrap();
    }
    assert!(elements.home().is_some());
    assert_eq!(ids(&users.resolve(&pool, 10, Duration::ZERO).unwrap()), [1, 2, 3]);
    assert_eq!(users.resolve(&pool, 2, Duration::ZERO).unwrap().len(), 2);
    // From here on from the cache, in turn.
    let mut turn: Vec<u32> = Vec::new();
    for _ in 0..6 {
        turn.extend(ids(&users.resolve(&pool, 1, STALE).unwrap()));
    }
    assert_eq!(turn[..3], turn[3..]);
    let mut all = turn[..3].to_vec();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    users.report_unreachable(&pool, PeId(2));
    assert_eq!(ids(&users.cached(&pool, 10)), [1, 3]);

    elements.deregister(&pool, PeId(1)).unwrap().wait().unwrap();
    assert_eq!(elements.deregister(&pool, PeId(1)).unwrap().wait(), Err(RequestError::NotFound));
    assert!(!ids(&users.resolve(&pool, 10, Duration::ZERO).unwrap()).contains(&1));
    elements.shutdown();
    until("an ended process has no elements", || match users.resolve(&pool, 1, Duration::ZERO) {
        Err(RequestError::Rejected(_)) => true,
        Ok(found) => found.is_empty(),
        Err(other) => panic!("{other:?}"),
    });
}

#[test]
fn a_watcher_is_told_at_once() {
    struct Told(AtomicBool);
    impl Watcher for Told {
        fn element_gone(&self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let registrar = TestRegistrar::start();
    let elements = Runtime::start(registrar.settings()).unwrap();
    let users = Runtime::start(registrar.settings()).unwrap();
    let dying = registrar.register_by_hand("watched", 1);
    elements.register(registration("watched", 2)).unwrap().wait().unwrap();
    let (first, second) = (Arc::new(Told(AtomicBool::new(false))), Arc::new(Told(AtomicBool::new(false))));
    let pool = handle("watched");
    let watches = [users.watch(&pool, PeId(1), first.clone()), users.watch(&pool, PeId(2), second.clone())];
    until("the subscription fills the cache", || users.cached(&pool, 10).len() == 2);
    drop(dying);
    until("the watcher is told", || first.0.load(Ordering::Acquire));
    assert!(!second.0.load(Ordering::Acquire));
    assert_eq!(ids(&users.resolve(&pool, 10, STALE).unwrap()), [2]);
    // The pool stays known as long as somebody watches it.
    elements.register(registration("watched", 3)).unwrap().wait().unwrap();
    until("the new element is pushed", || ids(&users.cached(&pool, 10)) == [2, 3]);
    // One that left before the watch began.
    let late = Arc::new(Told(AtomicBool::new(false)));
    let _late = users.watch(&pool, PeId(1), late.clone());
    until("the late watcher is told", || late.0.load(Ordering::Acquire));
    // Who deregisters keeps the sessions there are.
    elements.deregister(&pool, PeId(2)).unwrap().wait().unwrap();
    until("nobody chooses it any more", || ids(&users.cached(&pool, 10)) == [3]);
    assert!(!second.0.load(Ordering::Acquire));
    drop(watches);
}

#[test]
fn without_a_registrar_requests_fail_in_time() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings {
        registrars: targets(&[LinkProtocol::Tcp], &[nobody]),
        protocols: vec![LinkProtocol::Tcp],
        announce: None,
        connect_timeout: Duration::from_millis(200),
        response_timeout: Duration::from_millis(200),
        request_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let runtime = Runtime::start(settings).unwrap();
    // Another test's registrar may be at the default port.
    if std::net::TcpStream::connect(("127.0.0.1", crate::wire::ASAP_PORT)).is_err() {
        let started = Instant::now();
        let failed = runtime.resolve(&handle("nowhere"), 1, Duration::ZERO);
        assert_eq!(failed, Err(RequestError::NoRegistrar));
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    } else {
        crate::transport::netns::skipped("a registrar is at the default port");
    }
    let started = Instant::now();
    runtime.shutdown();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(runtime.resolve(&handle("nowhere"), 1, STALE), Err(RequestError::Shutdown));
    runtime.shutdown();
}

#[test]
fn many_threads_share_one_request() {
    let registrar = TestRegistrar::start();
    let runtime = Runtime::start(registrar.settings()).unwrap();
    runtime.register(registration("shared", 9)).unwrap().wait().unwrap();
    let threads: Vec<_> = (0..32)
        .map(|_| {
            let runtime = runtime.clone();
            std::thread::spawn(move || ids(&runtime.resolve(&handle("shared"), 1, STALE).unwrap()))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), [9]);
    }
}

/// Descriptors are the whole process's, so this runs in one of its own.
#[test]
fn started_and_ended_again_and_again_nothing_stays() {
    if std::env::var_os("RSP_TEST_ALONE").is_none() {
        let name = "runtime::tests::started_and_ended_again_and_again_nothing_stays";
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("RSP_TEST_ALONE", "1")
            .output()
            .unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
        return;
    }
    let registrar = TestRegistrar::start();
    let mut before = None;
    for round in 0..20 {
        let runtime = Runtime::start(registrar.settings()).unwrap();
        runtime.register(registration("again", round + 1)).unwrap().wait().unwrap();
        runtime.shutdown();
        drop(runtime);
        // The registrar's end of the connection closes in its own time.
        match before {
            None => {
                until("the registrar lets go", || {
                    let now = descriptors();
                    std::thread::sleep(Duration::from_millis(100));
                    before = Some(now);
                    now == descriptors()
                });
            }
            Some(before) => until("descriptors are closed", || descriptors() <= before),
        }
        // Of one that was joined, the kernel still tells for a moment.
        until("the thread is gone", || {
            let threads = std::fs::read_dir("/proc/self/task").unwrap();
            let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
            !threads.filter_map(|task| name(task.ok()?)).any(|name| name.trim() == "rserpool")
        });
    }
}

#[test]
fn an_embedded_registrar_needs_nothing_else() {
    let settings = Settings {
        embedded_registrar: true,
        protocols: vec![LinkProtocol::Tcp],
        announce: None,
        ..Settings::default()
    };
    let runtime = Runtime::start(settings).unwrap();
    runtime.register(registration("embedded", 5)).unwrap().wait().unwrap();
    assert_eq!(ids(&runtime.resolve(&handle("embedded"), 1, Duration::ZERO).unwrap()), [5]);
    let started = Instant::now();
    runtime.shutdown();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// The port of the announcements' group belongs to a program that does not share it, for a while.
#[test]
fn announcements_are_heard_as_soon_as_their_port_is_free() {
    in_namespace(|_| {
        let hog = std::net::UdpSocket::bind(("0.0.0.0", ASAP_GROUP.port())).unwrap();
        let options = Options { asap_announce: Some(ASAP_GROUP), ..TestRegistrar::options() };
        let registrar = TestRegistrar::start_with(options);
        let settings =
            Settings { registrars: Vec::new(), announce: Some(ASAP_GROUP), ..registrar.settings() };
        let runtime = Runtime::start(settings).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(runtime.home(), None);
        drop(hog);
        runtime.register(registration("heard", 1)).unwrap();
        until("the registrar is found", || runtime.home().is_some());
    });
}

/// RFC 5352 section 8.4: a registrar that knows nothing but the RFC announces itself in IANA's group.
#[test]
fn registrars_are_heard_in_ianas_group() {
    in_namespace(|_| {
        let registrar = TestRegistrar::start();
        let settings =
            Settings { registrars: Vec::new(), announce: Some(ASAP_GROUP), ..registrar.settings() };
        let runtime = Runtime::start(settings).unwrap();
        runtime.register(registration("heard", 1)).unwrap();
        let mut sender = GroupSender::new("0.0.0.0:0".parse().unwrap(), ASAP_GROUP_IANA, 1).unwrap();
        sender.refresh(&interfaces().unwrap(), false);
        let at = registrar.asap;
        let transports =
            vec![Transport::new(Protocol::Tcp, TransportUse::DataOnly, at.port(), vec![at.ip()])];
        let announcement = Asap::ServerAnnounce { registrar: RegistrarId(1), transports }.encode();
        until("the registrar is found", || {
            sender.send(&announcement).unwrap();
            runtime.home().is_some()
        });
    });
}

/// Prints what a resolution from the cache costs; run with `--release -- --nocapture --ignored`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_resolution_from_the_cache() {
    let registrar = TestRegistrar::start();
    let runtime = Runtime::start(registrar.settings()).unwrap();
    for id in 1..=10 {
        runtime.register(registration("cached", id)).unwrap().wait().unwrap();
    }
    let pool = handle("cached");
    runtime.resolve(&pool, 10, STALE).unwrap();
    let rounds = 1_000_000;
    let started = Instant::now();
    for _ in 0..rounds {
        assert_eq!(runtime.resolve(&pool, 1, STALE).unwrap().len(), 1);
    }
    println!("{} ns per resolution from the cache", started.elapsed().as_nanos() / rounds);
}
