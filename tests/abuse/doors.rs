//! One host that knocks at every door without end: an element's port for registrars and its port for sessions, and DNS. Each
//! attack is run beside its control.

use super::strangers::{ELSEWHERE, LONG, connect_from, element, look, waited_for};
use super::*;
use std::collections::VecDeque;
use std::net::UdpSocket;

/// Where those come from who behave, beside 127.0.0.1.
const ASKING: &str = "127.0.0.2:0";
const PATIENT: &str = "127.0.0.3:0";

/// One host's connections, so many of them at a time, as long as it lives: what each says first, and then again and again.
struct Knocking {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

type Says = (Vec<u8>, Vec<u8>);

impl Knocking {
    fn start(to: SocketAddr, most: usize, says: &[Says]) -> Knocking {
        const THREADS: usize = 2;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |first: usize| {
            let (stop, says) = (stop.clone(), says.to_vec());
            std::thread::spawn(move || knock(to, most / THREADS, &says, first, &stop))
        };
        let threads = (0..THREADS).map(thread).collect();
        Knocking { stop, threads }
    }

    /// How many connections there were.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("an attacker")).sum()
    }
}

fn knock(to: SocketAddr, most: usize, says: &[Says], first: usize, stop: &AtomicBool) -> usize {
    let mut open: VecDeque<(usize, TcpStream)> = VecDeque::new();
    let mut count = first;
    let socket = |number: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let from: SocketAddr = ELSEWHERE.parse().expect("an address");
        socket.bind(&from.into()).expect("bind");
        socket.set_recv_buffer_size(4096).expect("option");
        socket.connect_timeout(&to.into(), PATIENCE).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(true).expect("option");
        let _ = stream.write(&says[number % says.len()].0);
        Some((number, stream))
    };
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            count += 1;
            open.extend(socket(count));
        }
        while open.len() > most {
            open.pop_front();
        }
        if count % 128 < 8 {
            for (number, stream) in &mut open {
                let _ = stream.write(&says[*number % says.len()].1);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    count - first
}

/// Descriptors that a process has open.
fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it still runs").count()
}

/// The echo server of the examples, as element of a pool.
fn echo_server(folder: &str, pool: &str, switch: &str) -> Process {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{folder}-{}", std::process::id()));
    build_examples(&folder);
    let mut command = Command::new(folder.join("echo_server"));
    command.args([pool, switch]);
    let mut server = Process::start(&mut command);
    server.line_after("element ");
    server.ignore_the_rest();
    server
}

/// 64 strangers at a time where an element's process takes registrars: they say nothing, half a message, that they are its
/// registrar, that they are one, and much. Its registrar is answered meanwhile; when that dies, another one gets in.
#[test]
fn strangers_cost_an_element_neither_its_registrar_nor_the_next_one() {
    const TIMES: [&str; 4] = [
        "-peerheartbeatcycle=500",
        "-peermaxtimelastheard=1500",
        "-peermaxtimenoresponse=500",
        "-takeoverexpiryinterval=500",
    ];
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let first = Registrar::start(&TIMES);
        let peer = format!("-peer={}", first.enrp);
        let second = Registrar::start(&[TIMES.as_slice(), &[&peer]].concat());
        let server = echo_server("doors", "Echo", &first.switch);
        let (mut here, mut there) = (connect(first.asap), connect(second.asap));
        waited_for("both know it", || look(&mut there, "Echo").len() == 1);
        let before = look(&mut here, "Echo");
        let door = registrars_port(first.http);
        let (had, memory) = (descriptors(&server), server.memory());
        let named = |home, id| {
            let (registrar, handle) = (RegistrarId(0x0bad_0001), handle("Echo"));
            Asap::EndpointKeepAlive { home, registrar, handle, id }.encode()
        };
        let id = Some(before[0].id);
        let mut says: Vec<Says> = vec![
            (Vec::new(), Vec::new()),
            (vec![7, 0, 0xff, 0xf0, 0, 0], Vec::new()),
            (named(false, id), named(false, None)),
            (registration("Echo", 9).repeat(1000), named(false, id).repeat(1000)),
            (vec![7; 4], resolution("Echo", true, None).repeat(1000)),
        ];
        let all = [says.clone(), vec![(named(true, id), named(true, id))]].concat();
        let mut knocking = attack.then(|| Knocking::start(door, 64, &all));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            assert_eq!(look(&mut here, "Echo"), before, "attack: {attack}");
            let has = descriptors(&server);
            // The strangers that it takes, and those that are told to go.
            assert!(has <= had + 16 + 64, "attack: {attack}: {had} descriptors, then {has}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let grown = server.memory().saturating_sub(memory);
        println!("attack: {attack}: {} connections, {grown} KiB grown", knocking.map_or(0, Knocking::end));
        assert!(grown < 16 << 10, "{grown} KiB");
        // Whoever says that he is the registrar of a process that has none is believed, without TLS.
        says.retain(|(first, _)| !first.is_empty());
        knocking = attack.then(|| Knocking::start(door, 64, &says));
        std::thread::sleep(Duration::from_millis(500));
        drop(first);
        waited_for("it has another registrar", || {
            let now = look(&mut there, "Echo");
            now.len() == 1 && now[0].home != before[0].home
        });
        let now = look(&mut there, "Echo");
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            assert_eq!(look(&mut there, "Echo"), now, "attack: {attack}");
            std::thread::sleep(Duration::from_millis(20));
        }
        knocking.map(Knocking::end);
    }
}

/// Connections that don't greet, at an element: a user of another host that takes a moment for its greeting gets in.
#[test]
fn users_get_in_beside_one_host_that_does_not_greet() {
    let _alone = MACHINE.write();
    raise_descriptor_limit();
    let registrar = Registrar::start(&[]);
    let server = echo_server("doors", "Echo", &registrar.switch);
    let elements = look(&mut connect(registrar.asap), "Echo");
    let address = elements[0].transport.socket_addresses().next().expect("an address");
    let greeting = Greeting::ours(false).encode();
    for attack in [false, true] {
        let knocking = attack.then(|| {
            Knocking::start(address, 600, &[(Vec::new(), Vec::new()), (greeting[..5].to_vec(), Vec::new())])
        });
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..4 {
            let mut stream = connect_from(PATIENT, address);
            stream.write_all(&greeting[..6]).expect("sent");
            std::thread::sleep(Duration::from_secs(1));
            let sent = stream.write_all(&greeting[6..]);
            assert!(sent.is_ok(), "attack: {attack}: {sent:?}");
            Session { stream, greeted: false }.echo(b"I took my time");
        }
        println!("attack: {attack}: {} connections", knocking.map_or(0, Knocking::end));
    }
    check_log(&server, 4, &[]);
}

/// A question for the addresses of a name.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&(query.len() as u16).to_be_bytes(), query].concat()
}

/// The status of an answer to that question.
fn status(id: u16, answer: &[u8]) -> u8 {
    assert_eq!(answer.get(..2), Some(&id.to_be_bytes()[..]), "{answer:?}");
    answer[3] & 15
}

fn ask(stream: &mut TcpStream, id: u16, name: &str) -> std::io::Result<u8> {
    stream.write_all(&framed(&query(id, name)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(status(id, &answer))
}

fn ask_by_datagram(socket: &UdpSocket, to: SocketAddr, id: u16, name: &str) -> std::io::Result<u8> {
    socket.send_to(&query(id, name), to)?;
    let mut answer = [0; 1500];
    let (length, _) = socket.recv_from(&mut answer)?;
    Ok(status(id, &answer[..length]))
}

/// `rspctl dns` for a registrar.
fn control(registrar: SocketAddr) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspctl"));
    command.args(["dns", "127.0.0.1:0"]).env("RSP_REGISTRAR", registrar.to_string());
    let mut process = Process::start(&mut command);
    let line = process.line_after("dns ");
    process.ignore_the_rest();
    let address = line.split(' ').next().expect("a word").parse().expect("an address");
    (process, address)
}

/// Connections of one host at both DNS servers: silent ones, half lengths, half queries, one byte after the other, and
/// questions whose answers nobody reads. Others are answered, over connections new and old and over UDP.
#[test]
fn dns_answers_others_beside_one_host_that_takes_all_connections() {
    let _alone = MACHINE.write();
    raise_descriptor_limit();
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let _element = element(registrar.asap, "good", 1);
    let (other, other_at) = control(registrar.asap);
    let at = registrar.dns.expect("with -dns");
    let mine = query(7, "good.pool");
    let says: Vec<Says> = vec![
        (Vec::new(), Vec::new()),
        (vec![0], Vec::new()),
        (framed(&mine)[..9].to_vec(), Vec::new()),
        (vec![0, 200], vec![0]),
        (framed(&mine).repeat(500), framed(&mine).repeat(500)),
    ];
    for (what, process, to) in [("rspregistrar", &registrar.process, at), ("rspctl", &other, other_at)] {
        let warm = UdpSocket::bind(ASKING).expect("a socket");
        warm.set_read_timeout(Some(PATIENCE)).expect("time-out");
        waited_for("an answer", || {
            ask_by_datagram(&warm, to, 1, "good.pool").is_ok_and(|status| status == 0)
        });
        for attack in [false, true] {
            let memory = process.memory();
            let mut patient = connect_from(PATIENT, to);
            let knocking = attack.then(|| Knocking::start(to, 400, &says));
            let bystander = Bystander::start({
                let (mut kept, datagrams) = (connect_from(ASKING, to), warm.try_clone().expect("clone"));
                let mut id = 100;
                move || {
                    id += 1;
                    let mut new = connect_from(ASKING, to);
                    for answered in [
                        ask(&mut kept, id, "good.pool"),
                        ask(&mut new, id, "good.pool"),
                        ask_by_datagram(&datagrams, to, id, "good.pool"),
                    ] {
                        assert!(answered.as_ref().is_ok_and(|status| *status == 0), "{answered:?}");
                    }
                }
            });
            for round in 0..8 {
                std::thread::sleep(Duration::from_millis(500));
                let answered = ask(&mut patient, round, "good.pool");
                assert!(answered.is_ok(), "{what}, attack: {attack}: {answered:?}");
            }
            let grown = process.memory().saturating_sub(memory);
            bystander.finish(what);
            let count = knocking.map_or(0, Knocking::end);
            println!("{what}, attack: {attack}: {count} connections, {grown} KiB grown");
            assert!(grown < 16 << 10, "{what}: {grown} KiB");
        }
    }
}

/// Questions that wait for a registrar which says nothing: one host's do not push out another's, which is told so in the end.
#[test]
fn questions_that_wait_are_of_all_hosts() {
    let _alone = MACHINE.write();
    let silent = TcpListener::bind("127.0.0.1:0").expect("listen");
    let (_process, to) = control(silent.local_addr().expect("address"));
    for attack in [false, true] {
        // Each asked for the first time.
        let name = if attack { "wanted.pool" } else { "control.pool" };
        let [asking, greedy] = [ASKING, ELSEWHERE].map(|from| UdpSocket::bind(from).expect("a socket"));
        asking.set_read_timeout(Some(LONG / 8)).expect("time-out");
        asking.send_to(&query(1, name), to).expect("sent");
        for id in 0..if attack { 1000 } else { 3 } {
            greedy.send_to(&query(id, name), to).expect("sent");
            if id % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let mut answer = [0; 1500];
        let answered = asking.recv_from(&mut answer).map(|(length, _)| status(1, &answer[..length]));
        // SERVFAIL.
        assert!(answered.as_ref().is_ok_and(|status| *status == 2), "attack: {attack}: {answered:?}");
    }
}
