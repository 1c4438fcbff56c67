//! Sessions inside TLS: who gets in, and what is said to the others. (What sessions do is tested over TLS as over every
//! transport.)

use super::*;
use crate::runtime::{SessionSecurity, why};
use crate::transport::tls::tests::{Authority, Kind};
use crate::transport::tls::{Credentials, Engine, Mode, Purpose, TlsStream};
use std::sync::LazyLock;

/// Of all worlds of these tests: its files last as long as the process.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("here"));

fn security(mode: Mode, names: &[&'static str]) -> Arc<SessionSecurity> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let name = format!("{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let credentials: Arc<Credentials> = AUTHORITY.credentials(&name, &Kind::called(names));
    SessionSecurity::new(mode, Some(credentials))
}

/// A process with such a certificate, in the pool of `fake`.
fn world_in(fake: &Arc<Fake>, security: Arc<SessionSecurity>) -> World {
    let library = Library::with_directory(fake.clone(), &[LinkProtocol::Tcp]).secured(security);
    World { library: Arc::new(library), fake: fake.clone(), protocol: LinkProtocol::Tcp }
}

/// One whose certificate is good for everything that tests do.
pub(super) fn world() -> World {
    let both = security(Mode::Require, &["rserpool:element:pool", "rserpool:user:pool"]);
    world_in(&Arc::default(), both)
}

/// What a connect comes to: the element's name, or why not.
fn attempt(world: &World) -> Result<PeId, String> {
    let sd = world.library.socket(0, Style::SeqPacket, 0).unwrap();
    let quick = ConnectOptions { connect_timeout: Duration::from_secs(10), retry_delay: Duration::ZERO };
    why::begin();
    let result = world.library.connect(sd, Some(pool()), Duration::ZERO, quick);
    let notes: Vec<String> = why::take().into_iter().map(|note| note.text).collect();
    match result {
        Ok(()) => {
            world.send(sd, b"hello");
            Ok(world.library.peer_name(sd).unwrap().1)
        }
        Err(error) => {
            let text = error.to_string();
            Err(format!("{}: {text}; {}", code(error), notes.join("; ")))
        }
    }
}

/// Both ends look at what the other may be, and the user is told which it was.
#[test]
fn who_may_not_is_refused_with_the_reason() {
    let (user, element) = (&["rserpool:user:pool"][..], &["rserpool:element:p*"][..]);
    for (what, theirs, ours, expected) in [
        ("right", element, user, None),
        ("operator", element, &["rserpool:operator"], None),
        ("element of another pool", &["rserpool:element:other"], user, Some("no element of pool \"pool\"")),
        ("a user as element", user, user, Some("no element of pool")),
        ("user of another pool", element, &["rserpool:user:other"], Some("alert AccessDenied")),
        ("an element as user", element, element, Some("alert AccessDenied")),
        ("a registrar as user", element, &["rserpool:registrar"], Some("alert AccessDenied")),
        ("nobody", element, &[], Some("alert AccessDenied")),
    ] {
        let fake = Arc::default();
        let server = world_in(&fake, security(Mode::Require, theirs));
        server.serve(1, Style::SeqPacket);
        let result = attempt(&world_in(&fake, security(Mode::Require, ours)));
        match (&result, expected) {
            (Ok(PeId(1)), None) => {}
            (Err(said), Some(why)) => {
                assert!(said.starts_with(&format!("{}: ", libc::ECONNREFUSED)), "{what}: {said}");
                assert!(said.matches(why).count() == 2, "{what}: {said}");
                // What was wrong may be our own certificate.
                assert_eq!(fake.0.lock().reported, [], "{what}");
            }
            _ => panic!("{what}: {result:?}"),
        }
    }
}

/// TLS required, allowed, off at either end.
#[test]
fn who_has_no_tls_gets_where_it_is_not_required() {
    use Mode::{Allow, Off, Require};
    let of = |mode, names: &[&'static str]| match mode {
        Off => SessionSecurity::new(Off, None),
        mode => security(mode, names),
    };
    for (theirs, ours, secure) in [
        (Off, Off, Some(false)),
        (Off, Allow, Some(false)),
        (Off, Require, None),
        (Allow, Off, Some(false)),
        (Allow, Allow, Some(true)),
        (Allow, Require, Some(true)),
        (Require, Off, None),
        (Require, Allow, Some(true)),
        (Require, Require, Some(true)),
    ] {
        let what = format!("element {theirs:?}, user {ours:?}");
        let fake = Arc::default();
        let element = world_in(&fake, of(theirs, &["rserpool:element:pool"]));
        let server = element.serve(1, Style::Stream);
        let user = world_in(&fake, of(ours, &["rserpool:user"]));
        let sd = user.library.socket(0, Style::Stream, 0).unwrap();
        let quick = ConnectOptions { connect_timeout: Duration::from_secs(10), retry_delay: Duration::ZERO };
        let connected = thread::scope(|scope| {
            // Its program is there.
            let serving = secure
                .is_none()
                .then(|| scope.spawn(|| element.library.accept(server, Some(Duration::from_millis(500)))));
            let connected = user.library.connect(sd, Some(pool()), Duration::ZERO, quick);
            if let Some(serving) = serving {
                assert_eq!(code(serving.join().unwrap().unwrap_err()), libc::EAGAIN, "{what}");
            }
            connected
        });
        if secure.is_some() || ours == Off {
            connected.unwrap();
            user.send(sd, b"hello");
        } else {
            assert!(matches!(connected, Err(SocketError::Untrusted(_))), "{what}: {connected:?}");
            continue;
        }
        match secure {
            Some(secure) => {
                assert_eq!(user.conn(sd).is_secure(), secure, "{what}");
                let session = element.library.accept(server, LONG).unwrap();
                assert_eq!(element.text(session), "hello", "{what}");
            }
            // Without TLS it hears of the end only.
            None => {
                assert!(matches!(user.recv(sd, 9).0, Received::End { .. }), "{what}");
                let nobody = element.library.accept(server, Some(Duration::ZERO));
                assert_eq!(code(nobody.unwrap_err()), libc::EAGAIN, "{what}");
            }
        }
    }
}

/// An element that is not what it should be is passed over, and nobody else is told.
#[test]
fn the_next_element_is_tried() {
    let fake = Arc::default();
    let wrong = world_in(&fake, security(Mode::Require, &["rserpool:element:other"]));
    wrong.serve(1, Style::SeqPacket);
    let right = world_in(&fake, security(Mode::Require, &["rserpool:element:pool"]));
    right.serve(2, Style::SeqPacket);
    let user = world_in(&fake, security(Mode::Require, &["rserpool:user"]));
    for _ in 0..3 {
        assert_eq!(attempt(&user), Ok(PeId(2)));
    }
    assert_eq!(fake.0.lock().reported, []);
}

/// What passes is TLS, and nothing else comes out of it: a handshake that is cut is no end in order.
#[test]
fn what_passes_is_tls_and_a_cut_is_no_end() {
    let fake = Arc::<Fake>::default();
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let element = world_in(&fake, security(Mode::Require, &["rserpool:element:pool"]));
    let server = element.serve(1, Style::Stream);
    let behind = stream::local_address(borrowed(&element, server).as_fd()).unwrap();
    fake.lose(1);
    fake.add(1, Protocol::Tcp, TransportUse::DataPlusControl, between.local_addr().unwrap());
    let relay = thread::spawn(move || {
        let (mut near, _) = between.accept().unwrap();
        let mut far = TcpStream::connect(behind).unwrap();
        let (mut near_again, mut far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut far_again, &mut near_again));
        let (mut seen, mut buffer) = (Vec::new(), [0; 9999]);
        loop {
            let count = near.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
            far.write_all(&buffer[..count]).unwrap();
            if seen.len() > 100_000 {
                // In the middle of the stream, by FIN: both ends must see that it is no end.
                far.shutdown(std::net::Shutdown::Write).unwrap();
                near.shutdown(std::net::Shutdown::Write).unwrap();
                break;
            }
        }
        (seen, near, far)
    });
    let user = world_in(&fake, security(Mode::Require, &["rserpool:user"]));
    let sd = user.connect(Style::Stream);
    user.send(sd, &b"something that nobody is to read; ".repeat(9000));
    let session = element.library.accept(server, LONG).unwrap();
    let (seen, ..) = relay.join().unwrap();
    assert_eq!(seen[0], 0x16);
    assert!(!seen.windows(8).any(|bytes| bytes == b"nobody i" || bytes == b"RSerPool"));
    let mut buffer = vec![0; 1 << 20];
    let received = element.library.recv(session, &mut buffer, LONG).unwrap();
    assert!(matches!(received, Received::Data { end: false, .. } | Received::End { .. }), "{received:?}");
    let end = user.library.recv(sd, &mut buffer, LONG).unwrap();
    assert!(matches!(end, Received::End { .. }), "{end:?}");
}

/// An element that speaks at once is heard by whoever writes to it without a session: what it says comes with the end of
/// the handshake, and the socket tells nothing of it any more.
#[test]
fn what_comes_with_the_handshake_is_received_without_a_session() {
    let fake = Arc::<Fake>::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fake.add(7, Protocol::Tcp, TransportUse::DataPlusControl, listener.local_addr().unwrap());
    let theirs = security(Mode::Require, &["rserpool:element:pool"]).credentials().unwrap();
    let element = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut engine = Engine::accepted(&theirs, Purpose::Session, None).unwrap();
        let mut output = Vec::new();
        while !engine.is_proved() {
            engine.read_from(&mut socket).unwrap().unwrap();
            engine.take_output(&mut output);
            if engine.is_proved() {
                // In one piece with what ends the handshake.
                let header = FrameHeader { control: false, ..FrameHeader::control(5) };
                engine.encrypt(&Greeting::ours(true).encode(), &mut output).unwrap();
                for text in [b"hello", b"again"] {
                    engine.encrypt(&header.encode(), &mut output).unwrap();
                    engine.encrypt(text, &mut output).unwrap();
                }
            }
            socket.write_all(&std::mem::take(&mut output)).unwrap();
        }
        (socket, engine)
    });
    let user = world_in(&fake, security(Mode::Require, &["rserpool:user"]));
    let sd = user.library.socket(0, Style::SeqPacket, 0).unwrap();
    assert_eq!(
        user.library.send_to_pool(sd, b"x", &pool(), ToPool::default(), options(0)).unwrap(),
        [PeId(7)]
    );
    let element = element.join().unwrap();
    for text in [b"hello", b"again"] {
        assert!(readable(sd, 10_000), "nothing is told of what came with the handshake");
        assert_eq!(user.poll_in(sd, Duration::ZERO), libc::POLLIN);
        let (received, bytes) = user.recv(sd, 99);
        assert!(matches!(received, Received::Data { end: true, pe_id: PeId(7), .. }), "{received:?}");
        assert_eq!(bytes, text);
    }
    // It is not told of twice.
    assert!(!readable(sd, 0));
    assert_eq!(user.nothing(sd), libc::EAGAIN);
    drop(element);
}

/// A data-only element speaks TLS by itself, need not know of sessions, and may speak first.
#[test]
fn a_server_that_knows_nothing_of_pools_is_reached_by_tls() {
    let fake = Arc::<Fake>::default();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    fake.add(5, Protocol::Tcp, TransportUse::DataOnly, web.local_addr().unwrap());
    let theirs = security(Mode::Require, &["rserpool:element:pool"]).credentials().unwrap();
    let server = thread::spawn(move || {
        let (socket, _) = web.accept().unwrap();
        let mut tls = TlsStream::new(Engine::accepted(&theirs, Purpose::Data, None).unwrap());
        while !tls.prove(socket.as_fd()).unwrap() {}
        tls.send(socket.as_fd(), &[std::io::IoSlice::new(b"welcome")]).unwrap();
        let mut bytes = [0; 5];
        let mut done = 0;
        while done < 5 {
            let part = &mut bytes[done..(done + 2).min(5)];
            match tls.receive(socket.as_fd(), &mut [std::io::IoSliceMut::new(part)]) {
                Ok(count) => done += count,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        tls.send(socket.as_fd(), &[std::io::IoSlice::new(&bytes)]).unwrap();
        tls.finish(socket.as_fd()).unwrap();
    });
    let user = world_in(&fake, security(Mode::Require, &["rserpool:user"]));
    let sd = user.connect(Style::SeqPacket);
    // In two parts, of which the socket knows only once.
    assert!(readable(sd, 60_000));
    assert_eq!(user.recv(sd, 3).1, b"wel");
    assert!(readable(sd, 0) && user.poll_in(sd, Duration::ZERO) == libc::POLLIN);
    assert_eq!(user.recv(sd, 99).1, b"come");
    assert!(!readable(sd, 0));
    user.send(sd, b"GET /");
    assert_eq!(user.text(sd), "GET /");
    assert!(matches!(user.notice(sd), Notification::FailoverNecessary { .. }));
    server.join().unwrap();
}

/// A peer whose certificate was taken back is not talked to any more, other sessions go on.
#[test]
fn a_session_ends_when_its_peer_is_no_longer_believed() {
    let fake = Arc::default();
    let ours = security(Mode::Require, &["rserpool:element:pool"]);
    let element = world_in(&fake, ours.clone());
    let server = element.serve(1, Style::Stream);
    let user = world_in(&fake, security(Mode::Require, &["rserpool:user"]));
    let sd = user.connect(Style::Stream);
    user.send(sd, b"first");
    let session = element.library.accept(server, LONG).unwrap();
    assert_eq!(element.text(session), "first");
    // The same files again.
    ours.replace(ours.credentials().unwrap());
    user.send(sd, b"second");
    assert_eq!(element.text(session), "second");
    let files = AUTHORITY.files("later", &Kind { serial: 8, ..Kind::called(&["rserpool:element:pool"]) });
    std::fs::write(files.crl.as_ref().unwrap(), AUTHORITY.list(Kind::default().serial, 5)).unwrap();
    ours.replace(Arc::new(Credentials::load(&files).unwrap()));
    user.send(sd, b"third");
    assert!(matches!(element.recv(session, 99).0, Received::End { .. }));
}
