//! Messages to pools without a session (RFC 5352 section 6.5).

use super::*;

fn by(recipient: Recipient) -> ToPool {
    ToPool { recipient, ..ToPool::default() }
}

fn to(world: &World, sd: RawFd, text: &str, how: ToPool) -> Vec<u32> {
    let sent = world.library.send_to_pool(sd, text.as_bytes(), &pool(), how, options(0)).unwrap();
    sent.iter().map(|id| id.0).collect()
}

fn refused(world: &World, sd: RawFd, how: ToPool) -> i32 {
    code(world.library.send_to_pool(sd, b"x", &pool(), how, options(0)).unwrap_err())
}

/// The next message of an element's descriptor, past what is told of sessions.
fn next(world: &World, sd: RawFd) -> (SessionId, PeId, String) {
    loop {
        let (received, bytes) = world.recv(sd, 1 << 16);
        match received {
            Received::Data { session, pe_id, .. } => {
                return (session, pe_id, String::from_utf8(bytes).unwrap());
            }
            Received::Notification(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(in crate::socket) fn messages_go_to_pools_without_sessions(world: World) {
    let elements = [world.serve(1, Style::SeqPacket), world.serve(2, Style::SeqPacket)];
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    // Whom the policy chooses, for each message anew; each over one connection.
    for (text, id) in [("a", 1), ("b", 2), ("c", 1), ("d", 2)] {
        assert_eq!(to(&world, user, text, by(Recipient::Policy)), [id]);
        assert_eq!(next(&world, elements[id as usize - 1]).2, text);
    }
    // To whom the last one went, and to a certain one.
    assert_eq!(to(&world, user, "last", by(Recipient::Last)), [2]);
    assert_eq!(next(&world, elements[1]).2, "last");
    assert_eq!(to(&world, user, "one", by(Recipient::Element(PeId(1)))), [1]);
    let (session, pe_id, text) = next(&world, elements[0]);
    assert_eq!((pe_id, text.as_str()), (PeId(0), "one"));
    assert_eq!(refused(&world, user, by(Recipient::Element(PeId(9)))), libc::ENOENT);
    // What they answer says who it is from, and nothing else is told.
    assert_eq!(world.library.send(elements[0], b"answer", options(session)).unwrap(), 6);
    let (received, bytes) = world.recv(user, 99);
    let Received::Data { session, pe_id, .. } = received else { panic!("{received:?}") };
    assert_eq!((pe_id, bytes.as_slice()), (PeId(1), b"answer".as_slice()));
    assert_eq!(world.library.send(user, b"more", options(session)).unwrap(), 4);
    assert_eq!(next(&world, elements[0]).2, "more");
    assert_eq!(world.nothing(user), libc::EAGAIN);
}

pub(in crate::socket) fn messages_go_to_all_elements_of_a_pool(world: World) {
    let elements = [1, 2, 3].map(|id| world.serve(id, Style::SeqPacket));
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    let mut sent = to(&world, user, "all", by(Recipient::All));
    sent.sort_unstable();
    assert_eq!(sent, [1, 2, 3]);
    for element in elements {
        assert_eq!(next(&world, element).2, "all");
    }
    // An element sends to the others, and to itself if it wants that.
    let mut sent = to(&world, elements[0], "others", by(Recipient::All));
    sent.sort_unstable();
    assert_eq!(sent, [2, 3]);
    for element in &elements[1..] {
        assert_eq!(next(&world, *element).2, "others");
    }
    let with_self = ToPool { to_self: true, ..by(Recipient::All) };
    assert_eq!(to(&world, elements[0], "everybody", with_self).len(), 3);
    for element in elements {
        assert_eq!(next(&world, element).2, "everybody");
    }
    // One that is not there gets nothing, which is said; the others do.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = socket.local_addr().unwrap();
    drop(socket);
    let protocol = if world.is_tcp() { Protocol::Tcp } else { Protocol::Sctp };
    world.fake.add(4, protocol, TransportUse::DataPlusControl, nobody);
    assert_eq!(to(&world, user, "again", by(Recipient::All)).len(), 3);
    assert!(readable(user, 0));
    let mut buffer = [0; 99];
    assert_eq!(
        world.library.recv(user, &mut buffer, None).unwrap(),
        Received::Undelivered { length: 5, size: 5, pe_id: PeId(4), reached: false }
    );
    assert_eq!(&buffer[NOTIFICATION_ROOM..][..5], b"again");
    assert_eq!(world.fake.reported(), [4]);
    assert_eq!(world.nothing(user), libc::EAGAIN);
}

pub(in crate::socket) fn a_choice_that_fails_is_made_anew(world: World) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = socket.local_addr().unwrap();
    drop(socket);
    let protocol = if world.is_tcp() { Protocol::Tcp } else { Protocol::Sctp };
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    assert_eq!(refused(&world, user, by(Recipient::Policy)), libc::ENOENT);
    world.fake.add(1, protocol, TransportUse::DataPlusControl, nobody);
    let element = world.serve(2, Style::SeqPacket);
    // Forbidden: it is said, and nothing is sent.
    let forbidden = ToPool { forbid_failover: true, ..by(Recipient::Policy) };
    assert_eq!(refused(&world, user, forbidden), libc::ECONNREFUSED);
    assert_eq!(world.fake.reported(), [1]);
    world.fake.add(1, protocol, TransportUse::DataPlusControl, nobody);
    assert_eq!(refused(&world, user, by(Recipient::Element(PeId(1)))), libc::ECONNREFUSED);
    // Allowed: another one gets it, without a word.
    world.fake.add(1, protocol, TransportUse::DataPlusControl, nobody);
    let allowed = ToPool { failover: true, ..by(Recipient::Element(PeId(1))) };
    assert_eq!(to(&world, user, "moved", allowed), [2]);
    assert_eq!(next(&world, element).2, "moved");
    for _ in 0..2 {
        world.fake.add(1, protocol, TransportUse::DataPlusControl, nobody);
        assert_eq!(to(&world, user, "chosen", by(Recipient::Policy)), [2]);
        assert_eq!(next(&world, element).2, "chosen");
    }
    let reported = world.fake.reported();
    assert!(reported.len() >= 4 && reported.iter().all(|id| *id == 1), "{reported:?}");
    assert_eq!(world.nothing(user), libc::EAGAIN);
    // One that was written to and goes without an answer: the message comes back, for nobody knows.
    let other = world.serve(3, Style::SeqPacket);
    assert_eq!(to(&world, user, "into the dark", by(Recipient::Element(PeId(3)))), [3]);
    world.fake.lose(3);
    let (received, _) = world.recv(user, 99);
    assert_eq!(received, Received::Undelivered { length: 13, size: 13, pe_id: PeId(3), reached: true });
    assert_eq!(world.nothing(user), libc::EAGAIN);
    assert_eq!(refused(&world, user, by(Recipient::Element(PeId(3)))), libc::ENOENT);
    world.library.close(other).unwrap();
    // One that comes back is reached again, over a new connection.
    assert_eq!(to(&world, user, "still", by(Recipient::Element(PeId(2)))), [2]);
    assert_eq!(next(&world, element).2, "still");
}

pub(in crate::socket) fn who_may_send_without_a_session(world: World) {
    let _element = world.serve(1, Style::SeqPacket);
    let stream = world.library.socket(0, Style::Stream, libc::IPPROTO_SCTP).unwrap();
    assert_eq!(refused(&world, stream, by(Recipient::Policy)), libc::EOPNOTSUPP);
    let connected = world.connect(Style::SeqPacket);
    assert_eq!(refused(&world, connected, by(Recipient::Policy)), libc::EINVAL);
    assert_eq!(refused(&world, -1, by(Recipient::Policy)), libc::EBADF);
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    let both = ToPool { failover: true, forbid_failover: true, ..ToPool::default() };
    assert_eq!(refused(&world, user, both), libc::EINVAL);
    assert_eq!(refused(&world, user, ToPool { to_self: true, ..ToPool::default() }), libc::EINVAL);
    assert_eq!(to(&world, user, "x", by(Recipient::Policy)), [1]);
    // It can become an element afterwards.
    world.library.listen(user, 5).unwrap();
    let (id, interval) = (Some(PeId(2)), Duration::from_secs(30));
    let (handle, policy) = (pool(), Policy::RoundRobin);
    let registration =
        Registration { handle, policy, id, interval, wait: true, daemon: false, advertise: None };
    world.library.register(user, registration).unwrap();
    let sender = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    assert_eq!(to(&world, sender, "hello", by(Recipient::Element(PeId(2)))), [2]);
    assert_eq!(next(&world, user).2, "hello");
    // Closing ends the connections in order.
    world.library.close(sender).unwrap();
    assert_eq!(world.notice(user), Notification::Shutdown { session: 2 });
}

/// RFC 5352 section 6.5.4: bytes to an address, no pool and no framing.
#[test]
fn a_message_goes_to_an_address() {
    let world = world();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    world.library.send_to_address(user, b"plain", address, options(0)).unwrap();
    world.library.send_to_address(user, b"bytes", address, options(0)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = [0; 10];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"plainbytes");
    stream.write_all(b"back").unwrap();
    let (received, text) = world.recv(user, 99);
    assert!(matches!(received, Received::Data { pe_id: PeId(0), .. }), "{received:?}");
    assert_eq!(text, b"back");
    drop((listener, stream));
    assert_eq!(
        code(world.library.send_to_address(user, b"", address, options(0)).unwrap_err()),
        libc::EINVAL
    );
}
