//! From one element to the next.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

pub(in crate::socket) fn a_failed_element_is_left_with_cookie_and_data_first(world: World) {
    let first = world.serve(1, Style::SeqPacket);
    let user = world.connect(Style::SeqPacket);
    let second = world.serve(2, Style::SeqPacket);
    assert_eq!(world.notice(first), Notification::SessionAdd { session: 1 });
    assert!(!world.library.has_cookie(user).unwrap());
    assert_eq!(world.library.send_cookie(first, b"old", 1, LONG).unwrap(), 3);
    assert_eq!(world.library.send_cookie(first, b"state", 1, LONG).unwrap(), 5);
    assert_eq!(world.library.send(first, b"last words", options(1)).unwrap(), 10);
    // It is there (the pool's news could be faster).
    assert_eq!(world.poll_in(user, Duration::from_secs(60)), libc::POLLIN);
    world.library.close(first).unwrap();
    // What had arrived is delivered, then the loss, at every call.
    assert_eq!(world.text(user), "last words");
    for _ in 0..2 {
        let necessary = Notification::FailoverNecessary { session: 1, has_cookie: true };
        assert_eq!(world.notice(user), necessary);
        assert!(readable(user, 0) && world.poll_in(user, Duration::ZERO) == libc::POLLIN);
    }
    assert_eq!(code(world.library.send(user, b"?", options(0)).unwrap_err()), libc::EIO);
    world.library.force_failover(user, true, Duration::ZERO).unwrap();
    world.send(user, b"go on");
    assert_eq!(world.notice(user), Notification::FailoverComplete { session: 1, has_cookie: true });
    assert!(!readable(user, 0));
    assert_eq!(world.library.peer_name(user).unwrap().1, PeId(2));
    assert_eq!(world.notice(second), Notification::SessionAdd { session: 1 });
    // In parts, as the buffer is small; then the data.
    assert_eq!(
        world.recv(second, 3),
        (Received::CookieEcho { length: 3, end: false, session: 1 }, b"sta".to_vec())
    );
    assert!(readable(second, 0));
    let mut rest = [0; 3];
    let echo = Received::CookieEcho { length: 2, end: true, session: 1 };
    assert_eq!(world.library.recv_rest(second, 1, &mut rest, None).unwrap(), echo);
    assert_eq!(rest, *b"te\0");
    assert_eq!(world.text(second), "go on");
    assert!(!readable(second, 0));
    assert_eq!(world.fake.0.lock().reported, [PeId(1)]);
}

pub(in crate::socket) fn an_element_that_leaves_its_pool_is_left_at_once(world: World) {
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::SeqPacket);
    let stream_user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let (library, told) = (world.library.clone(), mpsc::channel());
    let waiting = thread::spawn(move || {
        told.0.send(()).unwrap();
        library.recv(user, &mut [0; 99], LONG).unwrap()
    });
    told.1.recv().unwrap();
    // The process is there, its kernel acknowledges, but the pool says no.
    world.fake.lose(1);
    let necessary = Notification::FailoverNecessary { session: 1, has_cookie: false };
    assert_eq!(waiting.join().unwrap(), Received::Notification(necessary));
    assert_eq!(world.recv(stream_user, 99).0, Received::End { session: 1 });
    // News about the element before has no effect on the next one.
    let watcher = world.fake.0.lock().watchers[0].1.clone();
    world.serve(2, Style::Stream);
    world.library.force_failover(user, false, Duration::ZERO).unwrap();
    watcher.element_gone();
    assert!(matches!(world.notice(user), Notification::FailoverComplete { .. }));
    assert_eq!(world.nothing(user), libc::EAGAIN);
    assert_eq!(world.recv(session, 99).0, Received::End { session: 1 });
}

pub(in crate::socket) fn an_empty_pool_leaves_a_session_to_be_moved(world: World) {
    let user = world.library.socket(0, Style::SeqPacket, 0).unwrap();
    let empty = world.library.connect(user, Some(pool()), Duration::ZERO, FAST);
    assert_eq!(code(empty.unwrap_err()), libc::ENOENT);
    let necessary = Notification::FailoverNecessary { session: 1, has_cookie: false };
    assert!(readable(user, 0));
    assert_eq!(world.poll_in(user, Duration::ZERO), libc::POLLIN);
    assert_eq!(world.notice(user), necessary);
    let empty = world.library.force_failover(user, true, Duration::ZERO);
    assert_eq!(code(empty.unwrap_err()), libc::ENOENT);
    assert_eq!(world.notice(user), necessary);
    world.serve(3, Style::Stream);
    world.library.force_failover(user, true, Duration::ZERO).unwrap();
    assert!(matches!(world.notice(user), Notification::FailoverComplete { .. }));
    let again = world.library.connect(user, Some(pool()), Duration::ZERO, FAST);
    assert_eq!(code(again.unwrap_err()), libc::EBADF);
    let nameless = world.library.socket(0, Style::Stream, 0).unwrap();
    let connected = world.library.connect(nameless, None, Duration::ZERO, FAST);
    assert_eq!(code(connected.unwrap_err()), libc::EINVAL);
    let failover = world.library.force_failover(nameless, false, Duration::ZERO);
    assert_eq!(code(failover.unwrap_err()), libc::EINVAL);
}

pub(in crate::socket) fn elements_that_refuse_are_passed_over_and_reported(world: World) {
    for id in [1, 2] {
        let closed = Endpoint::bind(world.protocol, 0, &["127.0.0.1:0".parse().unwrap()]).unwrap();
        let element = PoolElement {
            id: PeId(id),
            home: RegistrarId(0),
            life: 1,
            transport: closed.transport().unwrap().unwrap(),
            policy: Policy::RoundRobin,
            asap: None,
        };
        world.fake.0.lock().elements.push(element);
    }
    let server = world.serve(3, Style::Stream);
    let user = world.connect(Style::Stream);
    world.send(user, b"x");
    let session = world.library.accept(server, LONG).unwrap();
    assert_eq!(world.text(session), "x");
    assert_eq!(world.fake.0.lock().reported, [PeId(1), PeId(2)]);
}

/// RFC 8305: one address of an element that swallows what is sent there holds up nobody.
#[test]
fn the_next_address_of_an_element_is_tried_soon() {
    let world = super::world();
    let server = world.library.socket(0, Style::Stream, libc::IPPROTO_SCTP).unwrap();
    world.library.bind(server, &["127.0.0.2:0".parse().unwrap()]).unwrap();
    world.library.listen(server, 10).unwrap();
    let port = stream::local_address(super::borrowed(&world, server).as_fd()).unwrap().port();
    // A full backlog answers nothing.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let silent = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    deaf.bind(&silent.into()).unwrap();
    deaf.listen(0).unwrap();
    let _full = std::net::TcpStream::connect(silent).unwrap();
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
    let transport = Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, port, addresses);
    let (policy, home) = (Policy::RoundRobin, RegistrarId(0));
    world.fake.0.lock().elements.push(PoolElement {
        id: PeId(1),
        home,
        life: 1,
        transport,
        policy,
        asap: None,
    });
    let user = world.connect(Style::Stream);
    world.send(user, b"x");
    let session = world.library.accept(server, LONG).unwrap();
    assert_eq!(world.text(session), "x");
    assert!(world.fake.reported().is_empty());
}

#[test]
fn a_business_card_leads_to_the_next_element() {
    let world = world();
    let first = world.serve(1, Style::Stream);
    for id in [2, 3, 4] {
        world.serve(id, Style::Stream);
    }
    let user = world.connect(Style::SeqPacket);
    let session = world.library.accept(first, LONG).unwrap();
    // The card comes along with the first answer: 2, 3, 4 as the directory has them, elements rotated.
    world.send(session, b"x");
    assert_eq!(world.text(user), "x");
    let order: Vec<PeId> = world.fake.cached(&pool(), 9).iter().map(|element| element.id).collect();
    assert_eq!(order, [2, 3, 4, 1].map(PeId));
    world.fake.0.lock().elements.rotate_left(2);
    world.fake.lose(1);
    assert!(matches!(world.notice(user), Notification::FailoverNecessary { .. }));
    world.library.force_failover(user, false, Duration::ZERO).unwrap();
    // The policy's turn would have been 4.
    assert_eq!(world.library.peer_name(user).unwrap().1, PeId(2));
}

/// RFC 5352 section 3.9: a user that is an element as well shows its pool, and who does not know that asks.
#[test]
fn a_user_that_is_an_element_shows_its_card() {
    let world = world();
    let server = world.serve(1, Style::SeqPacket);
    let user = world.connect(Style::Stream);
    world.send(user, b"nobody's");
    assert!(matches!(world.notice(server), Notification::SessionAdd { .. }));
    assert_eq!(world.text(server), "nobody's");
    // The server's own pool is no news to it.
    assert_eq!(world.fake.0.lock().acquainted, []);
    let element = world.library.socket(0, Style::Stream, libc::IPPROTO_SCTP).unwrap();
    world.library.bind(element, &["127.0.0.1:0".parse().unwrap()]).unwrap();
    world.library.listen(element, 10).unwrap();
    let handle = PoolHandle::new(b"mine").unwrap();
    let (id, interval, policy) = (Some(PeId(9)), Duration::from_secs(30), Policy::RoundRobin);
    let registration = Registration {
        handle: handle.clone(),
        policy,
        id,
        interval,
        wait: true,
        daemon: false,
        advertise: None,
    };
    world.library.register(element, registration).unwrap();
    world.fake.0.lock().elements.retain(|element| element.id == PeId(1));
    let user = world.connect(Style::Stream);
    world.send(user, b"with a card");
    assert!(matches!(world.notice(server), Notification::SessionAdd { .. }));
    assert_eq!(world.text(server), "with a card");
    assert_eq!(world.fake.0.lock().acquainted, [handle]);
    // It is none any more.
    world.library.deregister(element, true).unwrap();
    let user = world.connect(Style::Stream);
    world.send(user, b"without");
    assert!(matches!(world.notice(server), Notification::SessionAdd { .. }));
    assert_eq!(world.text(server), "without");
    assert_eq!(world.fake.0.lock().acquainted.len(), 1);
}

/// RFC 5352 section 3.8: elements sign their cookies, and take no others.
#[test]
fn signed_cookies_come_back_and_others_do_not() {
    use crate::machine::seal::{CookieKey, SIGNATURE};
    let fake = Arc::new(Fake::default());
    let with = |key: Option<&[u8]>| {
        let mut library = Library::with_directory(fake.clone(), &[LinkProtocol::Tcp]);
        library.cookie_key = key.and_then(CookieKey::new);
        let library = Arc::new(library);
        World { library, fake: fake.clone(), protocol: LinkProtocol::Tcp }
    };
    // A user needs no key.
    let user_side = with(None);
    let (ours, same, other) = (with(Some(&[1; 32])), with(Some(&[1; 32])), with(Some(&[2; 32])));
    let first = ours.serve(1, Style::SeqPacket);
    let user = user_side.connect(Style::SeqPacket);
    assert_eq!(ours.notice(first), Notification::SessionAdd { session: 1 });
    assert_eq!(ours.library.send_cookie(first, b"state", 1, LONG).unwrap(), 5);
    let longest = vec![0; crate::machine::session::MAX_COOKIE - SIGNATURE + 1];
    assert_eq!(code(ours.library.send_cookie(first, &longest, 1, LONG).unwrap_err()), libc::EMSGSIZE);
    for (id, next, counts) in [(2, &other, false), (3, &same, true)] {
        let server = next.serve(id, Style::SeqPacket);
        fake.0.lock().elements.retain(|element| element.id == PeId(id));
        let _ = user_side.poll_in(user, Duration::from_millis(200));
        user_side.library.force_failover(user, false, Duration::ZERO).unwrap();
        assert_eq!(user_side.notice(user), Notification::FailoverComplete { session: 1, has_cookie: true });
        user_side.send(user, b"go on");
        assert_eq!(next.notice(server), Notification::SessionAdd { session: 1 });
        if counts {
            let echo = Received::CookieEcho { length: 5, end: true, session: 1 };
            assert_eq!(next.recv(server, 99), (echo, b"state".to_vec()));
        }
        assert_eq!(next.text(server), "go on");
    }
}

/// The end of a connection that was left says nothing of the session, whoever still had it in hand.
#[test]
fn who_sends_while_the_session_is_moved_is_told_so() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    match world.library.send(user, b"x", options(0)) {
                        Ok(_) => thread::yield_now(),
                        Err(error) => assert_eq!(code(error), libc::EIO),
                    }
                }
            });
        }
        for _ in 0..100 {
            world.library.accept(server, LONG).unwrap();
            world.library.force_failover(user, false, Duration::ZERO).unwrap();
        }
        done.store(true, SeqCst);
    });
}
