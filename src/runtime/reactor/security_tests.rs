//! Who gets in: modes and certificates at both ends of real connections.

use super::*;
use crate::machine::{LinkEnds, LinkProtocol, Target};
use crate::transport::tls::tests::{Authority, Kind};
use crate::transport::tls::{Credentials, Mode};
use std::io::{Read, Write};
use std::net::TcpStream;

#[derive(Debug, PartialEq)]
enum Seen {
    Message(LinkId, Vec<u8>),
    Up(LinkId, LinkEnds),
    Down(LinkId, LinkDown),
}

/// One end.
struct Process {
    reactor: Reactor,
    seen: VecDeque<Seen>,
}

const OUT: LinkId = LinkId(1);

fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![7; length];
    bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    bytes
}

impl Process {
    fn new(mode: Mode, credentials: Option<Arc<Credentials>>, limits: Limits) -> Process {
        let mut reactor = Reactor::new(Clock::start(), limits).unwrap();
        reactor.secure(mode, credentials);
        Process { reactor, seen: VecDeque::new() }
    }

    fn turn(&mut self) {
        let Process { reactor, seen } = self;
        let until = reactor.clock.now() + Duration::from_millis(2);
        let turned = reactor.turn(Some(until), &mut |_, input| match input {
            Input::Message { link, bytes } => seen.push_back(Seen::Message(link, bytes.to_vec())),
            Input::Link { link, change: LinkChange::Up(ends) } => seen.push_back(Seen::Up(link, ends)),
            Input::Link { link, change: LinkChange::Down(why) } => seen.push_back(Seen::Down(link, why)),
            _ => {}
        });
        turned.unwrap();
    }

    fn listen(&mut self, mode: Mode) -> SocketAddr {
        self.reactor.listen(Service::Asap, "127.0.0.1:0".parse().unwrap(), mode.into()).unwrap()
    }

    fn open(&mut self, link: LinkId, to: SocketAddr) {
        let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![to] };
        self.reactor.execute::<()>(Output::Open { link, service: Service::Asap, target });
    }

    fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.reactor.execute::<()>(Output::Send { link, bytes });
    }
}

/// Turns both until `done`, at most ten seconds.
fn turn_until(
    one: &mut Process,
    other: &mut Process,
    mut done: impl FnMut(&mut Process, &mut Process) -> bool,
) {
    let end = one.reactor.clock.now() + Duration::from_secs(10);
    while !done(one, other) {
        assert!(one.reactor.clock.now() < end, "10 s: {:?} | {:?}", one.seen, other.seen);
        one.turn();
        other.turn();
    }
}

/// How a dial ends: with TLS, without, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Tls,
    Plain,
    Nothing,
}
use Outcome::{Nothing, Plain, Tls};

/// {required, allowed, off} at both ends, and certificates of every kind. Whoever has a wrong certificate is not
/// better off for having none.
#[test]
fn who_gets_in() {
    let ours = Authority::new("here");
    let theirs = Authority::new("there");
    let good = || Some(ours.credentials("good", &Kind::default()));
    let other = || Some(theirs.credentials("other", &Kind::default()));
    // Found expired only by the other end, whose clock is ours: a certificate that its owner still believes.
    let revoked = || {
        let files = ours.files("revoked", &Kind { serial: 666, ..Kind::default() });
        Some(Arc::new(Credentials::load(&files).unwrap()))
    };
    let judge = || {
        let files = ours.files("judge", &Kind::default());
        std::fs::write(files.crl.as_ref().unwrap(), ours.list(666, 5)).unwrap();
        Some(Arc::new(Credentials::load(&files).unwrap()))
    };
    type Make<'a> = &'a dyn Fn() -> Option<Arc<Credentials>>;
    let none: Make<'_> = &|| None;
    let cases: [(Mode, &str, Make<'_>, Mode, Outcome); 17] = [
        (Mode::Require, "good", &good, Mode::Require, Tls),
        (Mode::Require, "good", &good, Mode::Allow, Tls),
        (Mode::Require, "good", &good, Mode::Off, Nothing),
        (Mode::Allow, "good", &good, Mode::Require, Tls),
        (Mode::Allow, "good", &good, Mode::Allow, Tls),
        (Mode::Allow, "good", &good, Mode::Off, Plain),
        (Mode::Off, "none", none, Mode::Require, Nothing),
        (Mode::Off, "none", none, Mode::Allow, Plain),
        (Mode::Off, "none", none, Mode::Off, Plain),
        (Mode::Require, "other authority", &other, Mode::Require, Nothing),
        (Mode::Require, "other authority", &other, Mode::Allow, Nothing),
        (Mode::Allow, "other authority", &other, Mode::Require, Nothing),
        (Mode::Allow, "other authority", &other, Mode::Allow, Nothing),
        (Mode::Allow, "other authority", &other, Mode::Off, Plain),
        (Mode::Require, "revoked", &revoked, Mode::Require, Nothing),
        (Mode::Allow, "revoked", &revoked, Mode::Allow, Nothing),
        (Mode::Allow, "revoked", &revoked, Mode::Off, Plain),
    ];
    for (mine, what, credentials, its, expected) in cases {
        let case = format!("{mine:?} with {what}, dialling {its:?}");
        let limits = Limits { dial: Duration::from_millis(500), ..Limits::default() };
        let mut client = Process::new(mine, credentials(), limits);
        let its_credentials = if its == Mode::Off { None } else { judge() };
        let mut server = Process::new(its, its_credentials, Limits::default());
        let to = server.listen(its);
        client.open(OUT, to);
        client.send(OUT, message(8));
        turn_until(&mut client, &mut server, |client, _| !client.seen.is_empty());
        let outcome = match client.seen.pop_front() {
            Some(Seen::Up(OUT, ends)) if ends.roles.is_some() => Tls,
            // Without TLS, a connection is all that there is; that it was refused shows when it ends.
            Some(Seen::Up(OUT, _)) if its == Mode::Require => {
                turn_until(&mut client, &mut server, |client, _| !client.seen.is_empty());
                assert!(matches!(client.seen[0], Seen::Down(OUT, _)), "{case}: {:?}", client.seen);
                Nothing
            }
            Some(Seen::Up(OUT, _)) => Plain,
            Some(Seen::Down(OUT, LinkDown::Refused)) => Nothing,
            other => panic!("{case}: {other:?}"),
        };
        assert_eq!(outcome, expected, "{case}");
        if outcome == Nothing {
            let heard = |seen: &Seen| match seen {
                Seen::Message(..) => true,
                // Who has no TLS doesn't know better than to let it in until it speaks.
                Seen::Up(..) => its != Mode::Off,
                Seen::Down(..) => false,
            };
            assert!(!server.seen.iter().any(heard), "{case}: {:?}", server.seen);
            continue;
        }
        // What was sent before it was up arrives, and the server knows the client as the client knows it.
        turn_until(&mut client, &mut server, |_, server| {
            server.seen.iter().any(|seen| matches!(seen, Seen::Message(_, bytes) if *bytes == message(8)))
        });
        let up = server.seen.iter().rev().find_map(|seen| match seen {
            Seen::Up(link, ends) => Some((*link, ends.roles.is_some())),
            _ => None,
        });
        let (link, proved) = up.expect("it is up");
        assert_eq!(proved, outcome == Tls, "{case}");
        // And the end is one in order: TLS says so itself.
        client.reactor.execute::<()>(Output::Close { link: OUT });
        turn_until(&mut client, &mut server, |_, server| {
            server.seen.contains(&Seen::Down(link, LinkDown::Closed))
        });
        assert_eq!(client.reactor.link_count() + server.reactor.link_count(), 0, "{case}");
    }
}

#[test]
fn much_passes_in_both_directions() {
    let ours = Authority::new("here");
    let [mut client, mut server] = ["client", "server"].map(|name| {
        Process::new(Mode::Require, Some(ours.credentials(name, &Kind::default())), Limits::default())
    });
    let to = server.listen(Mode::Require);
    client.open(OUT, to);
    let mut there = None;
    turn_until(&mut client, &mut server, |client, server| {
        if let Some(Seen::Up(link, _)) = server.seen.front() {
            there = Some(*link);
        }
        there.is_some() && !client.seen.is_empty()
    });
    client.seen.clear();
    server.seen.clear();
    let there = there.unwrap();
    for _ in 0..40 {
        client.send(OUT, message(60_000));
        server.send(there, message(40_000));
    }
    let all = |process: &Process, length| {
        process
            .seen
            .iter()
            .filter(|seen| matches!(seen, Seen::Message(_, bytes) if bytes.len() == length))
            .count()
    };
    turn_until(&mut client, &mut server, |client, server| {
        all(client, 40_000) == 40 && all(server, 60_000) == 40
    });
}

/// Strangers that say nothing make room when others wait, and go in any case after some time.
#[test]
fn silent_strangers_keep_nobody_out() {
    let ours = Authority::new("here");
    let limits = Limits { unproved: 4, waiting: 8, proof: Duration::from_secs(3), ..Limits::default() };
    let credentials = |name| Some(ours.credentials(name, &Kind::default()));
    let mut server = Process::new(Mode::Require, credentials("server"), limits);
    let to = server.listen(Mode::Require);
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(to).unwrap()).collect();
    let mut client = Process::new(Mode::Require, credentials("client"), Limits::default());
    let began = std::time::Instant::now();
    client.open(OUT, to);
    let up = |process: &Process| process.seen.iter().any(|seen| matches!(seen, Seen::Up(..)));
    turn_until(&mut client, &mut server, |client, server| {
        assert!(server.reactor.links.unproved.len() <= 4, "{:?}", server.reactor.links.unproved);
        up(client)
    });
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    turn_until(&mut client, &mut server, |_, server| server.reactor.link_count() == 1);
    drop(silent);
}

/// A connection from another address of this host.
fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// However many of one host prove nothing, and however young they are: one of another host has its turn at once, and one of
/// their own as soon as one of them had some time.
#[test]
fn one_host_keeps_no_other_from_its_proof() {
    let ours = Authority::new("here");
    let limits = Limits { unproved: 4, waiting: 8, proof: Duration::from_secs(30), ..Limits::default() };
    let credentials = |name| Some(ours.credentials(name, &Kind::default()));
    let mut server = Process::new(Mode::Require, credentials("server"), limits);
    let to = server.listen(Mode::Require);
    let _silent: Vec<TcpStream> = (0..60).map(|_| connect_from("127.0.0.66", to)).collect();
    let mut client = Process::new(Mode::Require, credentials("client"), Limits::default());
    let up = |process: &Process| process.seen.iter().any(|seen| matches!(seen, Seen::Up(..)));
    client.open(OUT, to);
    turn_until(&mut client, &mut server, |client, server| {
        assert!(server.reactor.link_count() <= 4 + 8 + 1, "{}", server.reactor.link_count());
        up(client)
    });
    // Those who wait do so no longer than until one of their own host has had its time.
    let mut others = ["another", "one more"].map(|name| {
        let mut other = Process::new(Mode::Require, credentials(name), Limits::default());
        other.open(OUT, to);
        other
    });
    for other in &mut others {
        turn_until(other, &mut server, |other, _| up(other));
    }
    turn_until(&mut client, &mut server, |_, server| server.reactor.links.waiting.is_empty());
    assert_eq!(server.reactor.link_count(), 4 + 3);
}

/// Many of one host at a time, as after a registrar's restart: all of them get in, with few places.
#[test]
fn many_of_one_host_get_in_one_after_the_other() {
    let ours = Authority::new("here");
    let limits = Limits { unproved: 2, waiting: 30, ..Limits::default() };
    let credentials = |name| Some(ours.credentials(name, &Kind::default()));
    let mut server = Process::new(Mode::Require, credentials("server"), limits);
    let to = server.listen(Mode::Require);
    let mut clients = Process::new(Mode::Require, credentials("clients"), Limits::default());
    (1..=30).for_each(|number| clients.open(LinkId(number), to));
    let up = |process: &Process| process.seen.iter().filter(|seen| matches!(seen, Seen::Up(..))).count();
    turn_until(&mut clients, &mut server, |clients, server| up(clients) == 30 && up(server) == 30);
    assert_eq!(server.reactor.counters().handshakes_failed, 0);
}

/// Closed with something unread, the connection would be reset and the alert lost.
#[test]
fn whoever_is_refused_hears_why() {
    let ours = Authority::new("here");
    let mut server =
        Process::new(Mode::Require, Some(ours.credentials("server", &Kind::default())), Limits::default());
    let to = server.listen(Mode::Require);
    let mut stream = TcpStream::connect(to).unwrap();
    // No ClientHello, but a record, and much behind it.
    stream.write_all(&[0x16, 3, 1, 0, 4, 9, 0, 0, 0]).unwrap();
    stream.write_all(&[0; 20_000]).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut told, mut buffer) = (Vec::new(), [0; 100]);
    let end = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        server.turn();
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => told.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        assert!(std::time::Instant::now() < end);
    }
    assert_eq!((told.first(), told.len()), (Some(&0x15), 7), "an alert: {told:?}");
    drop(stream);
    while server.reactor.link_count() > 0 {
        server.turn();
        assert!(std::time::Instant::now() < end);
    }
}

#[test]
fn new_credentials_end_only_those_who_would_not_get_in_any_more() {
    let ours = Authority::new("here");
    let server_files = ours.files("server", &Kind { serial: 1, ..Kind::default() });
    let load = || Some(Arc::new(Credentials::load(&server_files).unwrap()));
    let mut server = Process::new(Mode::Require, load(), Limits::default());
    let to = server.listen(Mode::Require);
    let mut clients = [2, 3].map(|serial| {
        let kind = Kind { serial, ..Kind::default() };
        let credentials = Some(ours.credentials(&format!("client{serial}"), &kind));
        let mut client = Process::new(Mode::Require, credentials, Limits::default());
        client.open(OUT, to);
        turn_until(&mut client, &mut server, |client, _| !client.seen.is_empty());
        client
    });
    std::fs::write(server_files.crl.as_ref().unwrap(), ours.list(3, 5)).unwrap();
    server.reactor.secure(Mode::Require, load());
    let [good, bad] = &mut clients;
    turn_until(bad, &mut server, |bad, _| bad.seen.iter().any(|seen| matches!(seen, Seen::Down(..))));
    for _ in 0..20 {
        good.turn();
        server.turn();
    }
    assert!(good.seen.iter().all(|seen| matches!(seen, Seen::Up(..))), "{:?}", good.seen);
    assert_eq!(server.reactor.link_count(), 1);
}
