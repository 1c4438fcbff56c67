//! What bad input gets: a registrar and an element under abuse over loopback. The others are served
//! meanwhile, memory stays bounded, and the log says what happened once, not ten thousand times.
#![allow(clippy::disallowed_methods)]

#[path = "../common/busy.rs"]
mod busy;
#[path = "../common/examples.rs"]
mod examples;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/skip.rs"]
mod skip;

mod doors;
mod memory;
mod pages;
mod shares;
mod strangers;

use busy::busy;
use examples::build_examples;
use process::{Process, Registrar};
use rserpool::transport::host::{descriptor_limit, raise_descriptor_limit};
use rserpool::wire::session_frame::{FrameHeader, GREETING_LENGTH, Greeting, HEADER_LENGTH};
use rserpool::wire::{
    Asap, AsapType, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse,
};
use skip::skipped;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Attacks are made one after the other, and not while others' round trips are measured.
static MACHINE: parking_lot::RwLock<()> = parking_lot::RwLock::new(());

/// What 99 of 100 round trips of somebody who behaves must stay below, whatever others do.
const BOUND: Duration = Duration::from_millis(100);
/// What all of them must stay below.
const HANG: Duration = Duration::from_secs(1);
/// A read that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

fn connect(to: SocketAddr) -> TcpStream {
    connect_with(to, None)
}

/// `room`: bytes that the kernel takes from the peer before they are read.
fn connect_with(to: SocketAddr, room: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    if let Some(room) = room {
        socket.set_recv_buffer_size(room).expect("option");
    }
    socket.connect(&to.into()).expect("connect");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
    stream.set_nodelay(true).expect("option");
    stream
}

fn handle(name: &str) -> PoolHandle {
    PoolHandle::new(name.as_bytes()).expect("a legal handle")
}

fn resolution(name: &str, subscribe: bool, items: Option<u32>) -> Vec<u8> {
    Asap::HandleResolution { subscribe, handle: handle(name), items }.encode()
}

fn registration(name: &str, id: u32) -> Vec<u8> {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let element = PoolElement {
        id: PeId(id),
        home: RegistrarId(0),
        life: 300_000,
        transport: Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 7, vec![address]),
        policy: Policy::RoundRobin,
        asap: None,
    };
    Asap::Registration { handle: handle(name), element }.encode()
}

/// The next whole message, keep-alives answered and passed over.
fn answer(stream: &mut TcpStream) -> std::io::Result<Asap> {
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]])).next_multiple_of(4);
        let mut bytes = header.to_vec();
        bytes.resize(length, 0);
        stream.read_exact(&mut bytes[4..])?;
        match Asap::decode(&bytes).expect("a message").message {
            Asap::EndpointKeepAlive { handle, id, .. } => {
                let id = id.expect("an identifier");
                stream.write_all(&Asap::EndpointKeepAliveAck { handle, id }.encode())?;
            }
            message => return Ok(message),
        }
    }
}

/// Waits until the peer ends the connection; whatever it says before does not matter.
fn is_dropped(mut stream: TcpStream, within: Duration) -> bool {
    let end = Instant::now() + within;
    let mut buffer = [0; 4096];
    while Instant::now() < end {
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("time-out");
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}

/// Somebody who behaves, all the time, and what round trips he gets.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Times>,
}

/// Round trips, and beside each one with a thread that does nothing but echo: what the machine itself
/// takes, which may be busy with other things.
#[derive(Default)]
struct Times {
    served: Vec<Duration>,
    bare: Vec<Duration>,
}

fn echoing() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let stream = connect(listener.local_addr().expect("address"));
    let (mut other, _) = listener.accept().expect("accept");
    std::thread::spawn(move || {
        let mut byte = [0];
        while other.read_exact(&mut byte).and_then(|()| other.write_all(&byte)).is_ok() {}
    });
    stream
}

fn took(round_trip: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    round_trip();
    begin.elapsed()
}

/// What 99 of 100 stay below, and what all do.
fn most_and_all(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() * 99 / 100], times[times.len() - 1])
}

impl Bystander {
    /// Makes one round trip after another.
    fn start(mut round_trip: impl FnMut() + Send + 'static) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let mut echo = echoing();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut times = Times::default();
                while !stop.load(Ordering::Relaxed) {
                    times.served.push(took(&mut round_trip));
                    times.bare.push(took(|| {
                        echo.write_all(b"x").and_then(|()| echo.read_exact(&mut [0])).expect("an echo");
                    }));
                    std::thread::sleep(Duration::from_millis(1));
                }
                times
            }
        });
        Bystander { stop, thread }
    }

    /// Resolves a pool with one element, which stays registered.
    fn resolving(registrar: SocketAddr) -> Bystander {
        let mut element = connect(registrar);
        element.write_all(&registration("good", 1)).expect("sent");
        assert!(matches!(answer(&mut element), Ok(Asap::RegistrationResponse { rejected: false, .. })));
        std::thread::spawn(move || while answer(&mut element).is_ok() {});
        let mut user = connect(registrar);
        let question = resolution("good", false, Some(1));
        Bystander::start(move || {
            user.write_all(&question).expect("sent");
            match answer(&mut user).expect("an answer in time") {
                Asap::HandleResolutionResponse { elements, .. } => assert_eq!(elements.len(), 1),
                other => panic!("{other}"),
            }
        })
    }

    /// Checks the round trips.
    fn finish(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().unwrap_or_else(|_| panic!("{what}: not served"));
        let count = times.served.len();
        let (most, all) = most_and_all(&mut times.served);
        let (bare_most, bare_all) = most_and_all(&mut times.bare);
        println!(
            "{what}: {count} round trips of others, 99 % within {most:.1?}, all within {all:.1?} \
             (bare: {bare_most:.1?}, {bare_all:.1?})"
        );
        assert!(count >= 20, "{what}: only {count} round trips");
        let (bound, hang) = (busy() * (BOUND + 4 * bare_most), busy() * (HANG + 4 * bare_all));
        assert!(most < bound && all < hang, "{what}: 99 % took up to {most:?}, one {all:?}");
    }
}

/// Runs one kind of abuse beside a bystander; memory may grow by `kib` until what `run` returns is dropped.
fn abuse<T>(registrar: &Registrar, what: &str, kib: u64, run: impl FnOnce(SocketAddr) -> T) {
    let bystander = Bystander::resolving(registrar.asap);
    let before = registrar.process.memory();
    let begin = Instant::now();
    let abusers = run(registrar.asap);
    // Enough round trips to tell; most of it lasts longer.
    std::thread::sleep(Duration::from_secs(1).saturating_sub(begin.elapsed()));
    let grown = registrar.process.memory().saturating_sub(before);
    drop(abusers);
    bystander.finish(what);
    println!("{what}: memory grew by {grown} KiB");
    assert!(grown <= kib, "{what}: memory grew by {grown} KiB");
}

/// Each kind of line once (a minute), and few kinds.
fn check_log(process: &Process, kinds: usize, wanted: &[&str]) {
    let log = process.log();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    println!("log:\n{log}");
    let times = 1 + process.age().as_secs() as usize / 60;
    assert!(lines.len() <= kinds * times, "{} lines of log", lines.len());
    for text in wanted {
        let count = lines.iter().filter(|line| line.contains(text)).count();
        assert!((1..=times).contains(&count), "{count} lines of log with \"{text}\"");
    }
}

fn garbage(to: SocketAddr) {
    let mut noise = fastrand::Rng::with_seed(7);
    let mut streams = Vec::new();
    for round in 0..400 {
        let mut stream = connect(to);
        let bytes = match round % 4 {
            0 => b"\x16\x03\x01\x00\x00\xf5\x01\x00\x00\xf1\x03\x03".to_vec(),
            1 => vec![0; 3000],
            2 => vec![b'\n'; 7],
            // A length below 4 comes soon enough in noise; if not, silence is what follows.
            _ => std::iter::repeat_with(|| noise.u8(..) & 0x83).take(20_000).collect(),
        };
        // It may be dropped before all is said.
        let _ = stream.write_all(&bytes);
        streams.push((round, stream));
    }
    for (round, stream) in streams.into_iter().filter(|(round, _)| round % 4 < 2) {
        assert!(is_dropped(stream, PATIENCE), "garbage of kind {} is listened to", round % 4);
    }
}

/// Messages that are too long, unknown or misplaced: answered or not, and the connection goes on.
fn odd_messages(to: SocketAddr) {
    let mut stream = connect(to);
    let reader = stream.try_clone().expect("clone");
    const LONG: usize = 200;
    let mut longest = vec![0x3f, 0, 0xff, 0xff];
    longest.resize(65_536, 0xee);
    let mut reported = 0;
    // Each is answered with the message in it, so that somebody has to read meanwhile.
    let reader = std::thread::spawn(move || {
        let mut reader = reader;
        loop {
            match answer(&mut reader).expect("an answer") {
                Asap::Error { .. } => reported += 1,
                Asap::HandleResolutionResponse { handle, .. } if handle.as_bytes().len() == 4 => {
                    return reported;
                }
                _ => {}
            }
        }
    });
    for _ in 0..LONG {
        stream.write_all(&longest).expect("sent");
    }
    for kind in 0..=255_u8 {
        for length in [4, 8, 64] {
            let mut message = vec![kind, 0xff, 0, length];
            message.resize(usize::from(length), kind);
            stream.write_all(&message).expect("sent");
        }
    }
    let long = PoolHandle::new(&[b'h'; 65_000]).expect("a legal handle");
    stream
        .write_all(&Asap::HandleResolution { subscribe: false, handle: long, items: None }.encode())
        .expect("sent");
    stream.write_all(&resolution("last", false, None)).expect("sent");
    let reported = reader.join().expect("answers");
    // The longest are beyond what a message can be; types 0x40 to 0x7f ask for a report, three times
    // each; broken messages of known types get one.
    let (least, known) = (LONG + 3 * 64, 3 * usize::from(AsapType::ERROR.0));
    assert!((least..=least + known).contains(&reported), "{reported} errors");
}

/// A pool whose whole list fills a message, and clients that ask for it without ever reading.
fn never_reading(to: SocketAddr) -> Vec<TcpStream> {
    let mut element = connect(to);
    for id in 1..=1000 {
        element.write_all(&registration("large", id)).expect("sent");
        assert!(matches!(answer(&mut element), Ok(Asap::RegistrationResponse { rejected: false, .. })));
    }
    std::thread::spawn(move || while answer(&mut element).is_ok() {});
    let question = resolution("large", true, Some(u32::MAX)).repeat(100);
    let mut streams: Vec<TcpStream> = (0..20).map(|_| connect_with(to, Some(4096))).collect();
    streams.iter().for_each(|stream| stream.set_nonblocking(true).expect("option"));
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        for stream in &mut streams {
            // Full, or dropped: both are fine.
            let _ = stream.write(&question);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    streams
}

/// Sends messages and reads the answers, a few at a time, so that nobody has to wait for the other.
fn converse(stream: &mut TcpStream, messages: impl Iterator<Item = Vec<u8>>, mut see: impl FnMut(Asap)) {
    let messages: Vec<Vec<u8>> = messages.collect();
    for some in messages.chunks(20) {
        stream.write_all(&some.concat()).expect("sent");
        some.iter().for_each(|_| see(answer(stream).expect("an answer")));
    }
}

/// More pools subscribed to than anybody needs, by long names.
fn subscriptions(to: SocketAddr) -> Vec<TcpStream> {
    const EACH: u32 = 400;
    let mut refused = 0;
    let mut streams: Vec<TcpStream> = (0..10).map(|_| connect(to)).collect();
    for (client, stream) in streams.iter_mut().enumerate() {
        let question = |pool| resolution(&format!("{client}-{pool}-").repeat(6000), true, Some(u32::MAX));
        converse(stream, (0..EACH).map(question), |answer| match answer {
            Asap::HandleResolutionResponse { subscribed, .. } => refused += u32::from(!subscribed),
            other => panic!("{other}"),
        });
    }
    println!("subscriptions: {refused} of {} not taken", 10 * EACH);
    assert!(refused > 0, "every subscription was taken");
    streams
}

/// More elements than there is room for.
fn registrations(to: SocketAddr) -> TcpStream {
    let (mut taken, mut refused) = (0, 0);
    let mut stream = connect(to);
    let long = (0..200).map(|pool| registration(&format!("{pool}-").repeat(10_000), 1));
    let short = (0..4500).map(|id| registration("short", id + 1));
    converse(&mut stream, long.chain(short), |answer| match answer {
        Asap::RegistrationResponse { rejected: true, .. } => refused += 1,
        Asap::RegistrationResponse { rejected: false, .. } => taken += 1,
        other => panic!("{other}"),
    });
    println!("registrations: {taken} taken, {refused} refused");
    assert!(refused > 0 && taken > 0);
    // Whoever comes then has a place all the same.
    let mut other = connect(to);
    other.write_all(&registration("other", 1)).expect("sent");
    let answer = answer(&mut other);
    assert!(matches!(answer, Ok(Asap::RegistrationResponse { rejected: false, .. })), "{answer:?}");
    stream
}

fn page(http: SocketAddr, path: &str) -> String {
    let mut stream = connect(http);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a page");
    text
}

/// Requests that never end, and pages that nobody reads.
fn slow_pages(http: SocketAddr) -> Vec<TcpStream> {
    let mut slow: Vec<TcpStream> = (0..300).map(|_| connect(http)).collect();
    for _ in 0..10 {
        for (number, stream) in slow.iter_mut().enumerate() {
            let bytes: &[u8] = match number % 3 {
                0 => b"G",
                1 => b"GET /handlespace HTTP/1.1\r\n\r\n",
                _ => &[0xff; 100],
            };
            let _ = stream.write_all(bytes);
        }
        let begin = Instant::now();
        assert!(page(http, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(begin.elapsed() < 3 * busy() * HANG, "the page took {:?}", begin.elapsed());
    }
    slow
}

#[test]
fn a_registrar_under_abuse() {
    let _measures = MACHINE.read();
    let registrar = Registrar::start(&["-maxelements=4000"]);
    // Half a message and silence; whoever does that is dropped in the end.
    let halves: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(registrar.asap);
            stream
                .write_all(&[5, 0, 0xff, 0xf0])
                .and_then(|()| stream.write_all(&[7; 30_000]))
                .expect("sent");
            stream
        })
        .collect();
    let begin = Instant::now();
    abuse(&registrar, "garbage", 16 << 10, garbage);
    abuse(&registrar, "odd messages", 16 << 10, |to| (0..5).for_each(|_| odd_messages(to)));
    abuse(&registrar, "never reading", 112 << 10, never_reading);
    abuse(&registrar, "subscriptions", 96 << 10, subscriptions);
    abuse(&registrar, "registrations", 96 << 10, registrations);
    let http = registrar.http;
    abuse(&registrar, "slow pages", 16 << 10, |_| slow_pages(http));
    std::thread::sleep(Duration::from_secs(11).saturating_sub(begin.elapsed()));
    let dropped = halves.into_iter().all(|stream| is_dropped(stream, PATIENCE));
    assert!(dropped, "half messages are waited for without end");
    check_log(
        &registrar.process,
        40,
        &["what came is no ASAP or ENRP message", "a message began and did not end in time"],
    );
}

#[test]
fn ten_thousand_idle_connections() {
    let _measures = MACHINE.read();
    const WANTED: usize = 10_000;
    raise_descriptor_limit();
    let limit = descriptor_limit();
    let count = WANTED.min(usize::try_from(limit).unwrap_or(WANTED).saturating_sub(300));
    if count < WANTED {
        let what = format!("{} of {WANTED} idle connections", WANTED - count);
        skipped(&what, &format!("descriptor limit {limit}"));
    }
    let registrar = Registrar::start(&[]);
    abuse(&registrar, "idle connections", 48 << 10, |to| {
        let idle: Vec<TcpStream> = (0..count).map(|_| connect(to)).collect();
        // They are there: the last one is answered.
        let mut last = idle.last().expect("some").try_clone().expect("clone");
        last.write_all(&resolution("good", false, None)).expect("sent");
        assert!(answer(&mut last).is_ok());
        println!("{count} idle connections");
        idle
    });
    check_log(&registrar.process, 10, &[]);
}

/// A user's end of a session, byte by byte.
struct Session {
    stream: TcpStream,
    greeted: bool,
}

impl Session {
    fn open(to: SocketAddr) -> Session {
        let mut stream = connect(to);
        stream.write_all(&Greeting::ours(false).encode()).expect("sent");
        Session { stream, greeted: false }
    }

    fn echo(&mut self, text: &[u8]) {
        let header = FrameHeader { control: false, ..FrameHeader::control(text.len()) };
        self.stream.write_all(&[&header.encode()[..], text].concat()).expect("sent");
        if !self.greeted {
            let mut greeting = [0; GREETING_LENGTH];
            self.stream.read_exact(&mut greeting).expect("a greeting");
            assert_eq!(greeting, Greeting::ours(true).encode());
            self.greeted = true;
        }
        loop {
            let mut bytes = [0; HEADER_LENGTH];
            self.stream.read_exact(&mut bytes).expect("an echo in time");
            let header = FrameHeader::decode(&bytes).expect("a frame");
            let mut payload = vec![0; header.length as usize];
            self.stream.read_exact(&mut payload).expect("the rest of it");
            if !header.control {
                assert_eq!(payload, text);
                return;
            }
        }
    }
}

/// Everything that a session port can be told by somebody who is no user.
fn strangers(to: SocketAddr) -> Vec<TcpStream> {
    let greeting = Greeting::ours(false).encode();
    let mut silent = Vec::new();
    for round in 0..320_u32 {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) else { continue };
        let huge = FrameHeader { length: 16 << 20, ..FrameHeader::control(1) }.encode();
        let long = FrameHeader { control: false, end: false, length: 16 << 20, ..FrameHeader::control(1) };
        let bytes = match round % 8 {
            0 => b"GET / HTTP/1.1\r\nHost: element\r\n\r\n".to_vec(),
            1 => vec![0; 10_000],
            2 => greeting[..5].to_vec(),
            3 => [&greeting[..], &[0xff; 500]].concat(),
            4 => [&greeting[..], &huge, &[1; 1000]].concat(),
            // A message of many megabytes of which only the beginning comes.
            5 => [&greeting[..], &long.encode(), &[1; 1000]].concat(),
            6 => [&greeting[..], &FrameHeader::control(60_000).encode(), &[1; 60_000]].concat(),
            _ => greeting.to_vec(),
        };
        let _ = stream.write_all(&bytes);
        if round % 2 == 1 {
            silent.push(stream);
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    silent
}

/// Where the element's process listens for registrars that take over, as its registrar shows it.
fn registrars_port(http: SocketAddr) -> SocketAddr {
    let text = page(http, "/handlespace");
    let body = text.split("\r\n\r\n").nth(1).expect("a body");
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let address = &json["pools"][0]["elements"][0]["asap_transport"]["addresses"][0];
    address.as_str().expect("an address").parse().expect("an address")
}

/// Those who claim to be registrars, and those who claim nothing.
fn false_registrars(to: SocketAddr) -> Vec<TcpStream> {
    let element = |name| Asap::EndpointKeepAlive {
        home: true,
        registrar: RegistrarId(1),
        handle: handle(name),
        id: None,
    };
    let answer = Asap::HandleResolutionResponse {
        subscribed: true,
        handle: handle("Echo"),
        error: None,
        policy: None,
        elements: Vec::new(),
        total: None,
        lost: Vec::new(),
        deregistered: Vec::new(),
    };
    let messages = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 10_000],
        vec![7, 1, 0xff, 0xf0, 0, 0],
        element("somebody else's").encode(),
        // Its home answers, so that nobody takes its place.
        element("Echo").encode(),
        answer.encode(),
        registration("Echo", 9).repeat(1000),
        Vec::new(),
    ];
    let mut streams = Vec::new();
    for round in 0..350 {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) else { continue };
        let _ = stream.write_all(&messages[round % messages.len()]);
        streams.push(stream);
    }
    std::thread::sleep(Duration::from_secs(1));
    streams
}

#[test]
fn an_element_under_abuse() {
    let _measures = MACHINE.read();
    raise_descriptor_limit();
    let registrar = Registrar::start(&[]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("abuse-{}", std::process::id()));
    build_examples(&folder);
    let mut command = Command::new(folder.join("echo_server"));
    command.args(["Echo", &registrar.switch]);
    let mut server = Process::start(&mut command);
    server.line_after("element ");
    server.ignore_the_rest();
    let mut user = connect(registrar.asap);
    user.write_all(&resolution("Echo", false, None)).expect("sent");
    let Ok(Asap::HandleResolutionResponse { elements, .. }) = answer(&mut user) else {
        panic!("no element");
    };
    let address = elements[0].transport.socket_addresses().next().expect("an address");
    let control = registrars_port(registrar.http);

    type Abuse = fn(SocketAddr) -> Vec<TcpStream>;
    let kinds: [(&str, SocketAddr, Abuse); 2] = [
        ("strangers at an element", address, strangers),
        ("false registrars at an element", control, false_registrars),
    ];
    for (what, to, run) in kinds {
        let mut session = Session::open(address);
        let bystander = Bystander::start(move || session.echo(b"still there?"));
        let before = server.memory();
        let abusers = run(to);
        let grown = server.memory().saturating_sub(before);
        drop(abusers);
        bystander.finish(what);
        println!("{what}: memory grew by {grown} KiB");
        assert!(grown < 32 << 10, "{what}: memory grew by {grown} KiB");
        assert!(server.runs());
    }
    // Somebody new is served as well, and the registrar knows nothing else of it.
    Session::open(address).echo(b"hello");
    user.write_all(&resolution("Echo", false, None)).expect("sent");
    let again = answer(&mut user);
    assert!(
        matches!(&again, Ok(Asap::HandleResolutionResponse { elements: now, .. }) if *now == elements),
        "{again:?}"
    );
    check_log(&server, 30, &["refused: ", "a session's peer at "]);
}
