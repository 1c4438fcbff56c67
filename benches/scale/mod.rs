//! What many TLS clients and elements cost a registrar.

use crate::{authority, identity};
use rserpool::machine::client::Registration;
use rserpool::runtime::{Directory, Runtime, Settings};
use rserpool::transport::host;
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use rustls::{ClientConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registrar that can be killed.
struct Registrar {
    child: Child,
    asap: SocketAddr,
    http: SocketAddr,
}

impl Drop for Registrar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registrar {
    /// At a port, or at any.
    fn start(dir: &Path, port: u16) -> Registrar {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rspregistrar"))
            .args([&format!("--asap=127.0.0.1:{port}"), "--enrp=127.0.0.1:0", "--http=127.0.0.1:0"])
            .args([
                "--asapannounce=off",
                "--enrpannounce=off",
                "--transport=tcp",
                "--mentordiscoverytimeout=0",
            ])
            .arg(format!("--tls-dir={}", dir.join("registrar").display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("rspregistrar starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut after = |beginning: &str| -> SocketAddr {
            let found = lines.find_map(|line| line.strip_prefix(beginning).map(str::to_owned));
            found.expect("it says where it is").trim().parse().expect("an address")
        };
        let (asap, http) = (after("ASAP tcp "), after("HTTP "));
        // It may have more to say.
        std::thread::spawn(move || lines.for_each(drop));
        Registrar { child, asap, http }
    }

    /// KiB of memory.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many elements it knows.
    fn elements(&self) -> usize {
        let Ok(mut page) = TcpStream::connect(self.http) else { return 0 };
        let (mut answer, question) = (String::new(), "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let read = page.write_all(question.as_bytes()).and_then(|()| page.read_to_string(&mut answer));
        let count = answer.split("\"element_count\":").nth(1).filter(|_| read.is_ok());
        let digits = count.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// `count` users that have asked once and stay: what each costs the registrar.
pub fn idle(count: usize) {
    host::raise_descriptor_limit();
    let dir = authority();
    let registrar = Registrar::start(&dir, 0);
    let config = identity(&dir.join("user"), b"rserpool-asap");
    // ASAP_HANDLE_RESOLUTION of pool "Echo", which is not there.
    let question = [5, 0, 0, 12, 0, 9, 0, 8, b'E', b'c', b'h', b'o'];
    let open = || {
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(config.clone(), name).expect("a configuration");
        let socket = TcpStream::connect(registrar.asap).expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(&question).and_then(|()| stream.flush()).expect("asked");
        assert_ne!(stream.read(&mut [0; 4096]).expect("an answer"), 0);
        stream
    };
    // What the first ones make it allocate once and for all is not theirs.
    let mut clients: Vec<_> = (0..16).map(|_| open()).collect();
    let before = registrar.memory();
    let begin = Instant::now();
    clients.extend((0..count).map(|_| open()));
    let took = begin.elapsed();
    let each = (registrar.memory() - before) as f64 / count as f64;
    // All are there still.
    for stream in &mut clients {
        stream.write_all(&question).and_then(|()| stream.flush()).expect("asked");
        assert_ne!(stream.read(&mut [0; 4096]).expect("an answer"), 0);
    }
    println!("{count} idle TLS clients, connected within {:.1} s: {each:.1} KiB each", took.as_secs_f64());
    println!(
        "after one more question each: {:.1} KiB each",
        (registrar.memory() - before) as f64 / count as f64
    );
    let _ = std::fs::remove_dir_all(dir);
}

/// So many elements are in one process: four descriptors each, of the 4096 that are allowed nearly everywhere.
const TOGETHER: usize = 1000;

/// Elements in a process of their own, each as if it had the process for itself: with the library's event thread and a link.
struct Elements(Child);

impl Drop for Elements {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Elements {
    /// All of them are registered.
    fn start(dir: &Path, asap: SocketAddr, first: usize, count: usize) -> Elements {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .arg(format!("--elements={first},{count},{asap}"))
            .env("RSP_TLS_DIR", dir.join("server"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("elements start");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "registered\n");
        Elements(child)
    }
}

/// What such a process does: `FIRST,COUNT,REGISTRAR`.
pub fn serve_elements(what: &str) {
    host::raise_descriptor_limit();
    let words: Vec<&str> = what.splitn(3, ',').collect();
    let number = |at: usize| words[at].parse::<u32>().expect("a number");
    let mut settings = Settings { announce: None, ..Settings::default() };
    assert!(settings.tls.set("dir", &std::env::var("RSP_TLS_DIR").expect("set")));
    settings.add_registrar(words[2]).expect("an address");
    let _runtimes: Vec<Runtime> = (number(0)..number(0) + number(1))
        .map(|id| {
            let runtime = Runtime::start(settings.clone()).expect("it starts");
            let at = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
            let registration = Registration {
                handle: PoolHandle::new(format!("Bench{}", id % 100).as_bytes()).expect("a handle"),
                element: PoolElement {
                    id: PeId(id),
                    home: RegistrarId(0),
                    life: 300_000,
                    transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 7, at),
                    policy: Policy::RoundRobin,
                    asap: None,
                },
                interval: Duration::from_secs(100),
            };
            let answer = runtime.register(registration).expect("taken");
            answer.wait_while(&|| true).expect("registered");
            runtime
        })
        .collect();
    println!("registered");
    loop {
        std::thread::park();
    }
}

/// `count` elements as of processes of their own: how long after SIGKILL of their registrar the one that is started in its place has
/// all of them.
pub fn restart(count: usize) {
    let dir = authority();
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let registrar = Registrar::start(&dir, port);
    let begin = Instant::now();
    let _elements: Vec<Elements> = (0..count)
        .step_by(TOGETHER)
        .map(|first| Elements::start(&dir, registrar.asap, first + 1, TOGETHER.min(count - first)))
        .collect();
    assert_eq!(registrar.elements(), count);
    println!("{count} elements registered one after the other, in {:.1} s", begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    drop(registrar);
    let registrar = Registrar::start(&dir, port);
    let started = begin.elapsed();
    let mut known = 0;
    let mut half = None;
    while known < count {
        assert!(begin.elapsed() < Duration::from_secs(300), "after 300 s {known} of {count} are back");
        known = registrar.elements();
        if known >= count / 2 {
            half.get_or_insert(begin.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "SIGKILL of the registrar, another is ready at the same port after {:.2} s; half of {count} are back after {:.2} s, all after {:.2} s",
        started.as_secs_f64(),
        half.unwrap_or_default().as_secs_f64(),
        begin.elapsed().as_secs_f64()
    );
    let _ = std::fs::remove_dir_all(dir);
}
