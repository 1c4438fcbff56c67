//! Who speaks otherwise: strangers, elements without control channel.

use super::*;

#[test]
fn strangers_are_refused_and_others_served() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let many = world.serve(2, Style::SeqPacket);
    for sd in [server, many] {
        let address = stream::local_address(borrowed(&world, sd).as_fd()).unwrap();
        let mut loud = TcpStream::connect(address).unwrap();
        loud.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"RSerPo").unwrap();
        assert!(readable(sd, 60_000));
        assert_eq!(world.poll_in(sd, Duration::ZERO), 0);
        // Refused, by end or reset.
        assert!(loud.read(&mut [0; 9]).map_or(true, |count| count == 0));
        // The slow one is one of ours after all.
        let greeting = Greeting::ours(false).encode();
        slow.write_all(&greeting[6..]).unwrap();
        let header = FrameHeader { control: false, ..FrameHeader::control(2) };
        slow.write_all(&[&header.encode()[..], b"hi"].concat()).unwrap();
        let session = if sd == server {
            world.library.accept(sd, LONG).unwrap()
        } else {
            assert_eq!(world.notice(sd), Notification::SessionAdd { session: 1 });
            sd
        };
        assert_eq!(world.text(session), "hi");
        world.send(session, b"ho");
        // The greeting comes first, and with the answer (and a business card), not before.
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"ho") {
            let mut more = [0; 100];
            let count = slow.read(&mut more).unwrap();
            bytes.extend_from_slice(&more[..count]);
        }
        assert_eq!(bytes[..12], Greeting::ours(true).encode());
        // What breaks the rules ends the session.
        slow.write_all(&[0xff; 12]).unwrap();
        let end = world.recv(session, 99).0;
        let removed = Received::Notification(Notification::SessionRemove { session: 1 });
        assert!(end == Received::End { session: 1 } || end == removed, "{end:?}");
    }
}

#[test]
fn an_element_without_control_channel_gets_plain_bytes() {
    let world = world();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    world.fake.add(5, Protocol::Tcp, TransportUse::DataOnly, web.local_addr().unwrap());
    let user = world.connect(Style::SeqPacket);
    world.send(user, b"GET /");
    let (mut peer, _) = web.accept().unwrap();
    let mut bytes = [0; 5];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"GET /");
    peer.write_all(b"200").unwrap();
    assert_eq!(world.text(user), "200");
    assert_eq!(world.nothing(user), libc::EAGAIN);
    drop(peer);
    assert!(matches!(world.notice(user), Notification::FailoverNecessary { has_cookie: false, .. }));
    world.library.force_failover(user, false, Duration::ZERO).unwrap();
    assert!(matches!(world.notice(user), Notification::FailoverComplete { .. }));
    assert!(web.accept().is_ok());
}

/// RFC 5352 section 3.1, R2.2: who names no identifier gets a random one. And R2.3: whoever goes on registers again
/// before its registration ends.
#[test]
fn identifiers_are_random_and_registrations_outlive_their_interval() {
    let world = world();
    let ids: Vec<u32> = (0..64)
        .map(|_| {
            let transport =
                Transport::new(Protocol::Tcp, TransportUse::DataOnly, 80, vec![[127, 0, 0, 1].into()]);
            let (handle, policy) = (pool(), Policy::RoundRobin);
            let own = OwnElement { handle, id: None, transport, policy, life: 30_000 };
            world.library.register_element(own, false).0.0
        })
        .collect();
    let distinct: std::collections::BTreeSet<&u32> = ids.iter().collect();
    assert!(distinct.len() == ids.len() && !distinct.contains(&0), "{ids:x?}");
    // Each bit is now 0 and now 1.
    let (any, all) = ids.iter().fold((0, u32::MAX), |(any, all), id| (any | id, all & id));
    assert_eq!((any, all), (u32::MAX, 0), "{ids:x?}");
    let fresh = world.library.socket(0, Style::Stream, libc::IPPROTO_SCTP).unwrap();
    world.library.bind(fresh, &["127.0.0.1:0".parse().unwrap()]).unwrap();
    let (handle, policy, interval) = (pool(), Policy::RoundRobin, Duration::from_secs(7));
    let registration =
        Registration { handle, policy, id: None, interval, wait: true, daemon: false, advertise: None };
    world.library.register(fresh, registration).unwrap();
    let state = world.fake.0.lock();
    let last = state.elements.last().unwrap();
    assert!(last.id != PeId(0) && !ids.contains(&last.id.0));
    assert_eq!((state.intervals[0], state.elements[0].life), (Duration::from_secs(10), 30_000));
    assert_eq!((*state.intervals.last().unwrap(), last.life), (interval, 21_000));
}

/// RFC 5356 section 5.1.3 recommends several: each that is given out counts as used, so it is one at a time.
#[test]
fn one_element_is_asked_for_at_a_time() {
    let world = world();
    for id in 1..=3 {
        world.serve(id, Style::Stream);
    }
    for expected in 1..=3 {
        let user = world.connect(Style::Stream);
        assert_eq!(world.library.peer_name(user).unwrap().1, PeId(expected));
    }
    assert_eq!(world.fake.0.lock().asked, [1, 1, 1]);
}
