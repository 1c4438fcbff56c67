//! Somebody who is let in and lies, over TCP and without TLS, against real registrars. Each attack is run beside
//! its control: the same without the attack.

use super::*;
pub use crate::process::connect_from;
use rserpool::wire::enrp::UpdateAction;
use rserpool::wire::{Enrp, EnrpMessage, ServerInformation};
use std::sync::Mutex;

/// Where strangers come from.
pub const ELSEWHERE: &str = "127.0.0.66:0";
/// How long anything may take that is waited for.
pub const LONG: Duration = Duration::from_secs(40);

/// A registrar byte by byte, which says of itself that it is this one.
#[derive(Clone)]
pub struct Peer {
    pub id: RegistrarId,
    stream: Arc<Mutex<TcpStream>>,
    /// What it says when it is asked for its table.
    more: bool,
}

impl Peer {
    pub fn join(registrar: SocketAddr, id: u32) -> Peer {
        Peer::over(connect_from(ELSEWHERE, registrar), id, false)
    }

    fn over(stream: TcpStream, id: u32, more: bool) -> Peer {
        let mut reader = stream.try_clone().expect("clone");
        reader.set_read_timeout(None).expect("option");
        let peer = Peer { id: RegistrarId(id), stream: Arc::new(Mutex::new(stream)), more };
        peer.say(peer.presence());
        let listening = peer.clone();
        std::thread::spawn(move || {
            while let Ok(message) = next_enrp(&mut reader) {
                match message {
                    Enrp::Presence { reply_required: true, .. } => listening.say(listening.presence()),
                    Enrp::HandleTableRequest { .. } => listening.say(Enrp::HandleTableResponse {
                        rejected: false,
                        more: listening.more,
                        pools: Vec::new(),
                    }),
                    Enrp::ListRequest => {
                        listening.say(Enrp::ListResponse { rejected: false, servers: Vec::new() });
                    }
                    _ => {}
                }
            }
        });
        peer
    }

    fn presence(&self) -> Enrp {
        let transport = Transport::new(
            Protocol::Tcp,
            TransportUse::DataOnly,
            9,
            vec![IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66))],
        );
        let server = Some(ServerInformation { id: self.id, transports: vec![transport] });
        Enrp::Presence { reply_required: false, checksum: None, server }
    }

    /// The link may have been closed for what was said: that is fine.
    fn say(&self, body: Enrp) {
        let message = EnrpMessage { sender: self.id, receiver: RegistrarId(0), body };
        let _ = self.stream.lock().expect("stream").write_all(&message.encode());
    }

    pub fn update(&self, action: UpdateAction, name: &str, element: PoolElement) {
        let handle = handle(name);
        self.say(Enrp::HandleUpdate { takeover_suggested: false, action, handle, element });
    }
}

pub fn next_enrp(stream: &mut TcpStream) -> std::io::Result<Enrp> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]])).next_multiple_of(4);
    let mut bytes = header.to_vec();
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[4..])?;
    Ok(EnrpMessage::decode(&bytes).expect("a message").message.body)
}

/// An element that answers its keep-alives.
pub fn element(registrar: SocketAddr, name: &str, id: u32) -> TcpStream {
    let mut stream = connect(registrar);
    stream.write_all(&registration(name, id)).expect("sent");
    let response = answer(&mut stream);
    assert!(matches!(response, Ok(Asap::RegistrationResponse { rejected: false, .. })), "{response:?}");
    let mut answering = stream.try_clone().expect("clone");
    answering.set_read_timeout(None).expect("option");
    std::thread::spawn(move || while answer(&mut answering).is_ok() {});
    stream
}

/// What a user is told of a pool.
pub fn look(user: &mut TcpStream, name: &str) -> Vec<PoolElement> {
    user.write_all(&resolution(name, false, None)).expect("sent");
    match answer(user).expect("an answer") {
        Asap::HandleResolutionResponse { elements, .. } => elements,
        other => panic!("{other}"),
    }
}

pub fn waited_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The element as it would be at the stranger's.
pub fn elsewhere(id: u32, home: RegistrarId) -> PoolElement {
    let at = vec![IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66))];
    let usage = TransportUse::DataPlusControl;
    let transport = Transport::new(Protocol::Tcp, usage, 66, at.clone());
    let asap = Some(Transport::new(Protocol::Tcp, TransportUse::DataOnly, 67, at));
    PoolElement { id: PeId(id), home, life: 300_000, transport, policy: Policy::RoundRobin, asap }
}

#[test]
fn an_element_belongs_to_its_link() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&[]);
        let mut user = connect(registrar.asap);
        let _element = element(registrar.asap, "mine", 1);
        let before = look(&mut user, "mine");
        assert_eq!(before.len(), 1);
        let mut stranger = connect_from(ELSEWHERE, registrar.asap);
        for _ in 0..40 {
            if attack {
                let mine = elsewhere(1, RegistrarId(0));
                for message in [
                    Asap::Registration { handle: handle("mine"), element: mine },
                    Asap::Deregistration { handle: handle("mine"), id: PeId(1) },
                    Asap::EndpointUnreachable { handle: handle("mine"), id: PeId(1) },
                    Asap::EndpointKeepAliveAck { handle: handle("mine"), id: PeId(1) },
                ] {
                    stranger.write_all(&message.encode()).expect("sent");
                }
            }
            assert_eq!(look(&mut user, "mine"), before, "attack: {attack}");
            std::thread::sleep(Duration::from_millis(25));
        }
        // One that hangs goes, whoever answers in its place.
        let mut hung = connect(registrar.asap);
        hung.write_all(&registration("hung", 2)).expect("sent");
        waited_for("it is there", || look(&mut user, "hung").len() == 1);
        waited_for("a hung element is gone", || {
            if attack {
                let answer = Asap::EndpointKeepAliveAck { handle: handle("hung"), id: PeId(2) };
                stranger.write_all(&answer.encode()).expect("sent");
            }
            look(&mut user, "hung").is_empty()
        });
    }
}

#[test]
fn a_registrar_that_lies_moves_nobody() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let first = Registrar::start(&[]);
        let second = Registrar::start(&[&format!("-peer={}", first.enrp)]);
        let _element = element(first.asap, "mine", 1);
        let (mut here, mut there) = (connect(first.asap), connect(second.asap));
        waited_for("both know it", || look(&mut there, "mine").len() == 1);
        let before = look(&mut here, "mine");
        assert_eq!(look(&mut there, "mine"), before);
        let home = before[0].home;
        let liars: Vec<Peer> = match attack {
            true => [first.enrp, second.enrp].iter().map(|&to| Peer::join(to, 0x0bad_0001)).collect(),
            false => Vec::new(),
        };
        let lie = || {
            for liar in &liars {
                liar.update(UpdateAction::Add, "mine", elsewhere(1, liar.id));
                liar.update(UpdateAction::Add, "mine", elsewhere(1, RegistrarId(0x1234)));
                for home in [home, liar.id, RegistrarId(0)] {
                    liar.update(UpdateAction::Delete, "mine", PoolElement { home, ..before[0].clone() });
                }
                for body in [
                    Enrp::InitTakeover { target: home },
                    Enrp::TakeoverServer { target: home },
                    Enrp::HandleTableResponse {
                        rejected: false,
                        more: false,
                        pools: vec![(handle("mine"), vec![elsewhere(1, liar.id)])],
                    },
                ] {
                    liar.say(body);
                }
            }
        };
        // Where it is registered it stays, all the time. Elsewhere news are believed until its registrar, which is
        // up, says that it still has it, and not again soon.
        let mut right = 0;
        waited_for("the other registrar knows better", || {
            lie();
            assert_eq!(look(&mut here, "mine"), before, "attack: {attack}");
            right = if look(&mut there, "mine") == before { right + 1 } else { 0 };
            right >= 60
        });
    }
}

/// Its identifier is taken by somebody who comes from elsewhere, while it is up and when it is gone.
#[test]
fn a_registrars_identifier_is_not_its_link() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let first = Registrar::start(&[]);
        let second = Registrar::start(&[&format!("-peer={}", first.enrp)]);
        let gone = element(second.asap, "theirs", 1);
        let mut here = connect(first.asap);
        waited_for("both know it", || look(&mut here, "theirs").len() == 1);
        let before = look(&mut here, "theirs");
        let pass = || attack.then(|| Peer::join(first.enrp, before[0].home.0));
        let mut false_ones = Vec::new();
        for _ in 0..20 {
            false_ones.extend(pass());
            for liar in &false_ones {
                liar.update(UpdateAction::Delete, "theirs", before[0].clone());
            }
            assert_eq!(look(&mut here, "theirs"), before, "attack: {attack}");
            std::thread::sleep(Duration::from_millis(50));
        }
        // It dies, and its element with it: whoever passes for it does not keep that.
        drop(second);
        drop(gone);
        waited_for("what died is gone", || {
            false_ones.extend(pass());
            if false_ones.len() > 100 {
                false_ones.drain(..50);
            }
            look(&mut here, "theirs").is_empty()
        });
    }
}

/// A registrar that joins a mentor of this kind, as an attack and as its control, serves in time.
pub fn serves_beside(mentor: fn(TcpStream, bool)) {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let at = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || mentor(stream, attack));
            }
        });
        let registrar = Registrar::start(&[&format!("-peer={at}")]);
        let mut user = connect(registrar.asap);
        user.set_read_timeout(Some(LONG)).expect("option");
        assert_eq!(look(&mut user, "nobody"), [], "attack: {attack}");
    }
}

#[test]
fn a_mentor_that_never_ends_is_given_up() {
    serves_beside(|stream, attack| drop(Peer::over(stream, 0x0bad_0002, attack)));
}

/// What there is of everything that is bounded, as the operator sees it.
fn accounts(http: SocketAddr) -> Vec<(String, f64)> {
    let text = page(http, "/metrics");
    let of = |line: &str| {
        let (name, value) = line.strip_prefix("rserpool_bound_used{of=\"")?.split_once("\"} ")?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(of).collect()
}

/// Messages that a registrar has read.
fn messages(http: SocketAddr) -> u64 {
    let text = page(http, "/metrics");
    let count = text.lines().find_map(|line| line.strip_prefix("rserpool_messages_total "));
    count.and_then(|count| count.trim().parse().ok()).expect("a number of messages")
}

/// A reading, once it is the same twice in a row.
fn settled<T: PartialEq>(what: &str, reading: impl Fn() -> T) -> T {
    let mut last = reading();
    waited_for(what, || {
        std::thread::sleep(Duration::from_millis(200));
        let now = reading();
        std::mem::replace(&mut last, now) == last
    });
    last
}

fn bytes_accounted(http: SocketAddr) -> u64 {
    let all = accounts(http);
    assert!(all.iter().any(|(name, _)| name.starts_with("bytes of")), "{all:?}");
    all.iter().filter(|(name, _)| name.starts_with("bytes of")).map(|(_, value)| *value as u64).sum()
}

/// Whatever is kept of what somebody sends is in some account: memory grows by no more than those and what each
/// connection takes; and what he brought goes with him.
#[test]
fn what_is_kept_is_accounted_for() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&[]);
        let mut user = connect(registrar.asap);
        assert!(look(&mut user, "nobody").is_empty());
        let (before, empty) = (registrar.process.memory(), bytes_accounted(registrar.http));
        let mut abusers = Vec::new();
        let mut sent = 0;
        if attack {
            let long = |n: u32| format!("{n}-").repeat(8000);
            let liar = Peer::join(registrar.enrp, 0x0bad_0003);
            let mut stream = connect(registrar.asap);
            // With an endpoint for ASAP: who has none may stay for its life without a connection.
            let lost = |n: u32| {
                let element = elsewhere(n + 1, RegistrarId(0));
                Asap::Registration { handle: handle(&long(n)), element }.encode()
            };
            let all = (0..150).flat_map(|n| [lost(n), resolution(&long(n + 5000), true, Some(u32::MAX))]);
            let all: Vec<Vec<u8>> = all.collect();
            sent += all.iter().map(Vec::len).sum::<usize>();
            converse(&mut stream, all.into_iter(), |_| {});
            for n in 0..150 {
                // Quarrels, and elements of its own.
                liar.update(UpdateAction::Add, &long(n), elsewhere(n + 1, liar.id));
                liar.update(UpdateAction::Add, &long(n + 10_000), elsewhere(n + 1, liar.id));
            }
            for _ in 0..150 {
                let mut half = connect(registrar.asap);
                half.write_all(&[5, 0, 0xff, 0xf0])
                    .and_then(|()| half.write_all(&[7; 40_000]))
                    .expect("sent");
                abusers.push(half);
            }
            abusers.push(stream);
            abusers.push(liar.stream.lock().expect("stream").try_clone().expect("clone"));
        }
        let reading = || (bytes_accounted(registrar.http), registrar.process.memory());
        let (bytes, memory) = settled("what was sent is taken in", reading);
        let accounted = (bytes - empty) >> 10;
        let grown = memory.saturating_sub(before);
        println!(
            "attack: {attack}: {grown} KiB grown, {accounted} KiB accounted for, {} KiB of ASAP sent",
            sent >> 10
        );
        assert!(grown <= 2 * accounted + (12 << 10), "{grown} KiB grown, {accounted} KiB accounted for");
        assert!(!attack || accounted > 10 << 10, "{accounted} KiB accounted for");
        for stream in abusers.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // All but what the operator may still ask for.
        waited_for("what was brought goes", || {
            let left = accounts(registrar.http);
            left.iter().all(|(name, value)| {
                let kept = !name.starts_with("bytes of") || name.contains("what happened");
                kept || *value < 4096.0
            })
        });
    }
}

/// Whatever comes, however often: one line for each cause and minute.
#[test]
fn the_log_does_not_grow_with_what_comes() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&[]);
        let _element = element(registrar.asap, "mine", 1);
        let mut user = connect(registrar.asap);
        if attack {
            for round in 0..120_u32 {
                let liar = Peer::join(registrar.enrp, 0x0bad_1000 + round);
                for id in 0..10 {
                    liar.update(UpdateAction::Add, "mine", elsewhere(1, liar.id));
                    liar.update(
                        UpdateAction::Add,
                        "bad",
                        PoolElement {
                            transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 0, vec![]),
                            ..elsewhere(id, liar.id)
                        },
                    );
                    liar.say(Enrp::Error { error: rserpool::wire::CauseCode(id as u16).into() });
                }
                let mut stranger = connect_from(ELSEWHERE, registrar.asap);
                let mine = elsewhere(1, RegistrarId(0));
                let messages = [
                    Asap::Registration { handle: handle("mine"), element: mine }.encode(),
                    Asap::Error { error: rserpool::wire::CauseCode(round as u16).into() }.encode(),
                    vec![round as u8, 0, 0, 8, 1, 2, 3, 4],
                    vec![0; 64],
                ];
                for bytes in messages {
                    let _ = stranger.write_all(&bytes);
                }
            }
        }
        assert_eq!(look(&mut user, "mine").len(), 1);
        settled("what was sent is taken in", || messages(registrar.http));
        // Lines come in order: this is the last one.
        registrar.process.signal(libc::SIGUSR1);
        waited_for("the last line", || registrar.process.log().contains("asked by a signal: "));
        check_log(&registrar.process, if attack { 26 } else { 4 }, &[]);
    }
}

/// Who registers, deregisters, is refused and leaves in a loop, and registrars that come and go, cost lines by name up to a
/// number; others' lines come all the same.
#[test]
fn the_log_tells_of_each_host_however_often_others_come_and_go() {
    const ROUNDS: u32 = 300;
    let _alone = MACHINE.write();
    let registrar = Registrar::start(&["--loglevel=info"]);
    let _first = element(registrar.asap, "first", 1);
    let mut stranger = connect_from(ELSEWHERE, registrar.asap);
    for round in 0..ROUNDS {
        // One that comes and goes, many that come, what is refused, a report and an answer.
        let id = PeId(1000 + round);
        let one = elsewhere(7, RegistrarId(0));
        let messages = [
            Asap::Registration { handle: handle("coming"), element: one },
            Asap::Deregistration { handle: handle("coming"), id: PeId(7) },
            Asap::Registration { handle: handle("many"), element: elsewhere(id.0, RegistrarId(0)) },
            Asap::Registration { handle: handle("first"), element: elsewhere(1, RegistrarId(0)) },
            Asap::EndpointUnreachable { handle: handle("many"), id },
            Asap::Error { error: rserpool::wire::CauseCode(7).into() },
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(Asap::encode).collect();
        stranger.write_all(&bytes).expect("sent");
        for _ in 0..4 {
            answer(&mut stranger).expect("an answer");
        }
    }
    for round in 0..60 {
        let liar = Peer::join(registrar.enrp, 0x0bad_2000 + round);
        liar.update(UpdateAction::Add, "theirs", elsewhere(round, liar.id));
    }
    drop(stranger);
    let log = || registrar.process.log();
    let count = |text: &str| log().lines().filter(|line| line.contains(text)).count();
    waited_for("what it had is removed", || count("Removed many/") > 0);
    waited_for("a registrar of theirs", || count("registrar 0x0bad20") > 0);
    let _mine = element(registrar.asap, "mine", 2);
    let mut brief = element(registrar.asap, "brief", 3);
    let leave = Asap::Deregistration { handle: handle("brief"), id: PeId(3) };
    brief.write_all(&leave.encode()).expect("sent");
    let said = Asap::Error { error: rserpool::wire::CauseCode(8).into() };
    brief.write_all(&said.encode()).expect("sent");
    waited_for("what another host complains of", || count("the client at 127.0.0.1:") == 1);
    waited_for("the line of another host", || count("Successfully registered mine/0x00000002") == 1);
    waited_for("its end", || count("Removed brief/0x00000003") == 1);
    check_log(
        &registrar.process,
        // Registered here and elsewhere, removed, refused, reported, and there: by name. And what is about others.
        6 * 16 + 11,
        &["Successfully registered coming/", "Removed coming/", "Refused first/"],
    );
}

/// Connections that greet an element and then say nothing take all its descriptors: they make room.
#[test]
fn silent_sessions_make_room_for_others() {
    let _alone = MACHINE.write();
    let registrar = Registrar::start(&[]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("silent-{}", std::process::id()));
    build_examples(&folder);
    for attack in [false, true] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""]).arg(folder.join("echo_server"));
        command.args([if attack { "Attacked" } else { "Quiet" }, &registrar.switch]);
        let mut server = Process::start(&mut command);
        server.line_after("element ");
        server.ignore_the_rest();
        let mut user = connect(registrar.asap);
        let elements = look(&mut user, if attack { "Attacked" } else { "Quiet" });
        let address = elements[0].transport.socket_addresses().next().expect("an address");
        let mut talker = Session::open(address);
        talker.echo(b"hello");
        let mut silent = Vec::new();
        for _ in 0..if attack { 300 } else { 10 } {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { continue };
            let _ = stream.write_all(&Greeting::ours(false).encode());
            silent.push(stream);
        }
        // Who talks stays, and who comes now is served.
        Session::open(address).echo(b"I am new");
        talker.echo(b"still there?");
        assert!(server.runs());
    }
}

/// What one host does at a session port over and over costs few lines, and does not keep quiet who else does the same.
#[test]
fn an_element_tells_of_each_host_that_misbehaves() {
    let _alone = MACHINE.write();
    let registrar = Registrar::start(&[]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{}", std::process::id()));
    build_examples(&folder);
    let greeting = Greeting::ours(false).encode();
    let mischief = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), [&greeting[..], &[0xff; 500]].concat()];
    for attack in [false, true] {
        let name = if attack { "Attacked" } else { "Quiet" };
        let mut command = Command::new(folder.join("echo_server"));
        command.args([name, &registrar.switch]);
        let mut server = Process::start(&mut command);
        server.line_after("element ");
        server.ignore_the_rest();
        let elements = look(&mut connect(registrar.asap), name);
        let address = elements[0].transport.socket_addresses().next().expect("an address");
        let misbehave = |from: &str, times: usize| {
            for _ in 0..times {
                for bytes in &mischief {
                    let mut stream = connect_from(&format!("{from}:0"), address);
                    let _ = stream.write_all(bytes);
                    // Until it is over.
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            }
        };
        if attack {
            misbehave("127.0.0.3", 500);
            misbehave("127.0.0.4", 1);
        }
        Session::open(address).echo(b"hello");
        let told = |what: &str, host: &str| {
            let log = server.log();
            log.lines().filter(|line| line.contains(what) && line.contains(host)).count()
        };
        for what in [" refused: ", " broke the protocol: "] {
            let minutes = 1 + server.age().as_secs() as usize / 60;
            for host in ["127.0.0.3", "127.0.0.4"] {
                let count = told(what, host);
                assert!(
                    (usize::from(attack)..=usize::from(attack) * minutes).contains(&count),
                    "{count} of {host}"
                );
            }
        }
        check_log(&server, if attack { 4 } else { 0 }, &[]);
    }
}
