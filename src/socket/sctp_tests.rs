//! Sessions over the kernel's SCTP. Most of these need it, and say SKIPPED on kernels without.

use super::descriptor::entry::EntryRole;
use super::tests::*;
use super::*;
use crate::machine::LinkProtocol;
use crate::machine::session::cookie_message;
use crate::runtime::Directory;
use crate::transport::netns::{in_namespace, skipped};
use crate::transport::sctp_socket::{
    Incoming, SctpNotification as Event, SctpSocket, SendInfo, SocketStyle, available, send_flags,
};
use crate::wire::PPID_ASAP;
use crate::wire::{Asap, PeId, Policy, Protocol, TransportUse};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, RawFd};
use std::thread;
use std::time::Duration;

const BOTH: [LinkProtocol; 2] = [LinkProtocol::Sctp, LinkProtocol::Tcp];

/// A process whose sessions run over SCTP.
fn world() -> Option<World> {
    if !available() {
        skipped("kernel has no SCTP");
        return None;
    }
    Some(world_of(&BOTH))
}

mod the_same_as_over_tcp {
    crate::socket::tests::tests_over! { super::world() }
}

/// Somebody who speaks SCTP and nothing else.
struct Raw(SctpSocket);

impl Raw {
    fn listen() -> Raw {
        let socket = SctpSocket::new(SocketStyle::OneToOne, false).unwrap();
        socket.bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        socket.listen(5).unwrap();
        Raw(socket)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.0.local_port().unwrap())
    }

    fn accept(&self) -> Raw {
        self.wait(PollFlags::POLLIN);
        Raw(self.0.accept().unwrap().unwrap().0)
    }

    fn connect(to: SocketAddr) -> Raw {
        let socket = SctpSocket::new(SocketStyle::OneToOne, false).unwrap();
        socket.connect_within(&[to], Duration::from_secs(20)).unwrap();
        Raw(socket)
    }

    fn wait(&self, events: PollFlags) {
        let mut fds = [PollFd::new(self.0.as_fd(), events)];
        assert_eq!(nix::poll::poll(&mut fds, PollTimeout::from(30_000_u16)).unwrap(), 1, "nothing came");
    }

    fn send(&self, ppid: u32, data: &[u8]) {
        let info = SendInfo { ppid: ppid.to_be(), ..SendInfo::default() };
        assert_eq!(self.0.send(data, info).unwrap(), data.len());
    }

    /// The next message: PPID, stream, unordered, bytes; `None`: the association has ended.
    fn next(&self) -> Option<(u32, u16, bool, Vec<u8>)> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            self.wait(PollFlags::POLLIN);
            match self.0.recv(&mut buffer).unwrap() {
                Some(Incoming::Data { length, end: true, stream, ppid, unordered, .. }) => {
                    buffer.truncate(length);
                    return Some((u32::from_be(ppid), stream, unordered, buffer));
                }
                Some(Incoming::Notification(Event::Up { .. })) | None => {}
                Some(Incoming::Data { .. }) => panic!("a message in parts"),
                Some(Incoming::Notification(_) | Incoming::Closed) => return None,
            }
        }
    }
}

fn address(world: &World, sd: RawFd) -> SocketAddr {
    let transport = match world.library.entry(sd).unwrap().role() {
        EntryRole::Listener(listener) => listener.endpoint().transport(),
        EntryRole::Many(many) => many.endpoint().transport(),
        other => panic!("{other:?}"),
    };
    transport.unwrap().unwrap().socket_addresses().next().unwrap()
}

#[test]
fn without_sctp_the_choice_is_tcp_or_an_error() {
    let kinds = [(0, libc::EPROTONOSUPPORT), (libc::IPPROTO_TCP, libc::EPROTONOSUPPORT)];
    if available() {
        skipped("kernel has SCTP");
        let only = world_of(&[LinkProtocol::Sctp]);
        let refused = only.library.socket(0, Style::Stream, libc::IPPROTO_TCP).unwrap_err();
        assert_eq!(code(refused), libc::EPROTONOSUPPORT);
        return;
    }
    let only = world_of(&[LinkProtocol::Sctp]);
    for (protocol, expected) in kinds.into_iter().chain([(libc::IPPROTO_SCTP, libc::EPROTONOSUPPORT)]) {
        let refused = only.library.socket(0, Style::SeqPacket, protocol).unwrap_err();
        assert_eq!(code(refused), expected, "{protocol}");
    }
    let auto = world_of(&BOTH);
    auto.serve(1, Style::Stream);
    let registered = auto.fake.cached(&pool(), 1);
    assert_eq!(registered[0].transport.protocol(), Some(Protocol::Tcp));
}

#[test]
fn elements_over_what_the_user_cannot_use_are_an_error_and_not_reported() {
    let world = world_of(&[LinkProtocol::Tcp]);
    let nowhere = "127.0.0.1:9".parse().unwrap();
    for id in [1, 2, 3] {
        world.fake.add(id, Protocol::Sctp, TransportUse::DataPlusControl, nowhere);
    }
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    let refused = world.library.connect(user, Some(pool()), Duration::ZERO, FAST);
    assert_eq!(code(refused.unwrap_err()), libc::EPROTONOSUPPORT);
    let refused = world.library.force_failover(user, true, Duration::ZERO);
    assert_eq!(code(refused.unwrap_err()), libc::EPROTONOSUPPORT);
    assert_eq!(world.fake.cached(&pool(), 9).len(), 3);
    // One that it can use among them is found.
    world.serve(4, Style::Stream);
    world.library.force_failover(user, true, Duration::ZERO).unwrap();
    assert_eq!(world.library.peer_name(user).unwrap().1, PeId(4));
}

#[test]
fn a_user_reaches_both_kinds_of_elements() {
    let Some(world) = world() else { return };
    let first = world.serve(1, Style::SeqPacket);
    let registered = world.fake.cached(&pool(), 1).remove(0).transport;
    assert_eq!(registered.protocol(), Some(Protocol::Sctp));
    assert_eq!(registered.usage(), TransportUse::DataPlusControl);
    let user = world.connect(Style::SeqPacket);
    assert_eq!(world.notice(first), Notification::SessionAdd { session: 1 });
    world.library.send_cookie(first, b"state", 1, LONG).unwrap();
    // The pool may be heard of sooner than what is under way.
    let arrived = (0..2000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        assert_eq!(world.nothing(user), libc::EAGAIN);
        world.library.has_cookie(user).unwrap()
    });
    assert!(arrived);
    world.library.close(first).unwrap();
    assert!(matches!(world.notice(user), Notification::FailoverNecessary { has_cookie: true, .. }));
    // The next one is on a kernel without SCTP.
    let elsewhere = world_of(&[LinkProtocol::Tcp]);
    let second = elsewhere.serve(2, Style::SeqPacket);
    let element = elsewhere.fake.cached(&pool(), 1).remove(0);
    world.fake.add(2, Protocol::Tcp, TransportUse::DataPlusControl, {
        element.transport.socket_addresses().next().unwrap()
    });
    world.library.force_failover(user, true, Duration::ZERO).unwrap();
    assert!(matches!(world.notice(user), Notification::FailoverComplete { .. }));
    world.send(user, b"go on");
    assert_eq!(elsewhere.notice(second), Notification::SessionAdd { session: 1 });
    assert_eq!(elsewhere.recv(second, 99).1, b"state");
    assert_eq!(elsewhere.text(second), "go on");
    // A descriptor for TCP stays with TCP.
    let third = world.library.socket(0, Style::Stream, libc::IPPROTO_TCP).unwrap();
    world.library.listen(third, 5).unwrap();
    assert!(TcpListener::bind(address(&world, third)).is_err());
    world.fake.lose(2);
    world.serve(3, Style::Stream);
    let tcp = world.library.socket(0, Style::Stream, libc::IPPROTO_TCP).unwrap();
    let refused = world.library.connect(tcp, Some(pool()), Duration::ZERO, FAST);
    assert_eq!(code(refused.unwrap_err()), libc::EPROTONOSUPPORT);
}

#[test]
fn stream_ppid_order_and_time_to_live_are_the_kernels() {
    let Some(world) = world() else { return };
    let raw = Raw::listen();
    world.fake.add(7, Protocol::Sctp, TransportUse::DataPlusControl, raw.address());
    let user = world.connect(Style::SeqPacket);
    let peer = raw.accept();
    let ppid = 0x0102_0304_u32;
    let how = SendOptions { ppid: ppid.to_be(), stream: 5, timeout: LONG, ..SendOptions::default() };
    world.library.send(user, b"in order", how).unwrap();
    let unordered = SendOptions { flags: send_flags::UNORDERED, time_to_live: 60_000, ..how };
    world.library.send(user, b"as it comes", unordered).unwrap();
    assert_eq!(peer.next(), Some((ppid, 5, false, b"in order".to_vec())));
    assert_eq!(peer.next(), Some((ppid, 5, true, b"as it comes".to_vec())));
    let beyond = SendOptions { stream: 60_000, ..how };
    assert_eq!(code(world.library.send(user, b"x", beyond).unwrap_err()), libc::EINVAL);
    let huge = vec![0; 17 << 20];
    assert_eq!(code(world.library.send(user, &huge, how).unwrap_err()), libc::EMSGSIZE);
    // Neither was the end of the session.
    peer.send(77, b"answer");
    let (received, bytes) = world.recv(user, 100);
    assert_eq!(bytes, b"answer");
    assert!(matches!(received, Received::Data { ppid, pe_id: PeId(7), .. } if ppid == 77_u32.to_be()));
}

/// RFC 5352 section 5 has programs keep off it; what they send is theirs, as with rsplib.
#[test]
fn a_programs_own_ppid_11_is_passed_on() {
    let Some(world) = world() else { return };
    let raw = Raw::listen();
    world.fake.add(7, Protocol::Sctp, TransportUse::DataPlusControl, raw.address());
    let user = world.connect(Style::SeqPacket);
    let peer = raw.accept();
    let how = SendOptions { ppid: PPID_ASAP.to_be(), ..options(1) };
    assert_eq!(world.library.send(user, b"mine", how).unwrap(), 4);
    assert_eq!(peer.next(), Some((PPID_ASAP, 5, false, b"mine".to_vec())));
}

/// RFC 5352 section 6.5.5.
#[test]
fn messages_to_pools_are_unordered_where_that_is_asked_for() {
    let Some(world) = world() else { return };
    let raw = Raw::listen();
    world.fake.add(7, Protocol::Sctp, TransportUse::DataPlusControl, raw.address());
    let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    let send = |flags| {
        let how = SendOptions { flags, ..options(0) };
        world.library.send_to_pool(user, b"x", &pool(), ToPool::default(), how).unwrap();
    };
    send(0);
    let peer = raw.accept();
    assert!(matches!(peer.next(), Some((_, 5, false, _))));
    send(send_flags::UNORDERED);
    assert!(matches!(peer.next(), Some((_, 5, true, _))));
}

#[test]
fn the_control_channel_is_the_ppid_of_asap() {
    let Some(world) = world() else { return };
    let raw = Raw::listen();
    world.fake.add(7, Protocol::Sctp, TransportUse::DataPlusControl, raw.address());
    let user = world.connect(Style::SeqPacket);
    let peer = raw.accept();
    // Control messages come in between, whole, in parts because of a tiny buffer, and too long ones.
    let cookie: Vec<u8> = (0..60_000).map(|at| (at % 250) as u8).collect();
    peer.send(PPID_ASAP, &cookie_message(b"old").unwrap());
    peer.send(5, b"0123456789");
    peer.send(PPID_ASAP, &cookie_message(&cookie).unwrap());
    peer.send(PPID_ASAP, &vec![11; 70_000]);
    peer.send(5, b"end");
    let mut parts = Vec::new();
    for _ in 0..5 {
        let (received, bytes) = world.recv(user, 3);
        let Received::Data { end, .. } = received else { panic!("{received:?}") };
        parts.push((String::from_utf8(bytes).unwrap(), end));
    }
    let expected = [("012", false), ("345", false), ("678", false), ("9", true), ("end", true)];
    assert_eq!(parts, expected.map(|(text, end)| (text.to_string(), end)));
    assert!(world.library.has_cookie(user).unwrap());
    assert!(!readable(user, 0));
    peer.send(PPID_ASAP, &cookie_message(b"newest").unwrap());
    assert!(readable(user, 60_000));
    assert_eq!(world.poll_in(user, Duration::ZERO), 0);
    assert!(!readable(user, 0));
    // The next element hears of it before all else.
    drop(peer);
    assert!(matches!(world.notice(user), Notification::FailoverNecessary { has_cookie: true, .. }));
    world.library.force_failover(user, false, Duration::ZERO).unwrap();
    world.send(user, b"data");
    let peer = raw.accept();
    let (ppid, stream, unordered, bytes) = peer.next().unwrap();
    assert_eq!((ppid, stream, unordered), (PPID_ASAP, 0, false));
    assert_eq!(Asap::decode(&bytes).unwrap().message, Asap::CookieEcho { cookie: b"newest".to_vec() });
    assert_eq!(peer.next().unwrap().3, b"data");
}

#[test]
fn an_element_for_data_only_gets_no_control_messages() {
    let Some(world) = world() else { return };
    let raw = Raw::listen();
    world.fake.add(7, Protocol::Sctp, TransportUse::DataOnly, raw.address());
    let user = world.connect(Style::SeqPacket);
    let peer = raw.accept();
    peer.send(PPID_ASAP, &cookie_message(b"not for us").unwrap());
    assert_eq!(world.recv(user, 99).1, cookie_message(b"not for us").unwrap());
    assert!(!world.library.has_cookie(user).unwrap());
    world.send(user, b"x");
    assert_eq!(peer.next().unwrap().3, b"x");
}

#[test]
fn an_echo_is_told_after_the_session_and_before_its_data() {
    let Some(world) = world() else { return };
    let server = world.serve(1, Style::SeqPacket);
    let peer = Raw::connect(address(&world, server));
    let echo = |text: &[u8]| Asap::CookieEcho { cookie: text.to_vec() }.encode();
    peer.send(PPID_ASAP, &echo(b"one"));
    peer.send(0, b"data");
    peer.send(PPID_ASAP, &echo(b"late"));
    assert_eq!(world.notice(server), Notification::SessionAdd { session: 1 });
    let expected = (Received::CookieEcho { length: 3, end: true, session: 1 }, b"one".to_vec());
    assert_eq!(world.recv(server, 99), expected);
    assert_eq!(world.text(server), "data");
    assert_eq!(world.recv(server, 99).1, b"late");
    // Over SCTP, nothing but what the application sends goes back.
    assert_eq!(world.library.send(server, b"answer", options(1)).unwrap(), 6);
    assert_eq!(peer.next().unwrap().3, b"answer");
    drop(peer);
    assert_eq!(world.notice(server), Notification::Shutdown { session: 1 });
    assert_eq!(world.notice(server), Notification::SessionRemove { session: 1 });
    // An abort is no shutdown.
    let peer = Raw::connect(address(&world, server));
    assert_eq!(world.notice(server), Notification::SessionAdd { session: 1 });
    peer.0.abort(0).unwrap();
    drop(peer);
    assert_eq!(world.notice(server), Notification::SessionRemove { session: 1 });
    assert_eq!(world.nothing(server), libc::EAGAIN);
}

#[test]
fn flags_end_and_break_an_association() {
    let Some(world) = world() else { return };
    let raw = Raw::listen();
    world.fake.add(7, Protocol::Sctp, TransportUse::DataPlusControl, raw.address());
    let eof = SendOptions { flags: send_flags::EOF, ..options(1) };
    let abort = SendOptions { flags: send_flags::ABORT, ..options(1) };
    let user = world.connect(Style::Stream);
    let peer = raw.accept();
    assert_eq!(world.library.send(user, b"last", eof).unwrap(), 4);
    assert_eq!(peer.next().unwrap().3, b"last");
    assert_eq!(peer.next(), None);
    assert_eq!(world.recv(user, 9).0, Received::End { session: 1 });
    let user = world.connect(Style::SeqPacket);
    let peer = raw.accept();
    peer.send(0, b"unread");
    world.library.send(user, b"", abort).unwrap();
    let mut buffer = [0; 99];
    let broken = loop {
        peer.wait(PollFlags::POLLIN);
        match peer.0.recv(&mut buffer) {
            Ok(Some(Incoming::Notification(Event::Up { .. })) | None) => {}
            other => break other,
        }
    };
    assert!(matches!(broken, Ok(Some(Incoming::Notification(Event::Lost { .. }))) | Err(_)), "{broken:?}");
    assert_eq!(code(world.library.send(user, b"more", options(1)).unwrap_err()), libc::EIO);
    assert!(matches!(world.notice(user), Notification::FailoverNecessary { .. }));
    world.library.force_failover(user, false, Duration::ZERO).unwrap();
    assert!(matches!(world.notice(user), Notification::FailoverComplete { .. }));
}

#[test]
fn parameters_reach_associations_old_and_new() {
    let Some(world) = world() else { return };
    let library = &world.library;
    let of = |sd| {
        let entry = library.entry(sd).unwrap();
        let fd = entry.system_socket().unwrap();
        let (mut value, mut length) = ([0_u32; 4], 16);
        // SAFETY: struct sctp_rtoinfo is four 32-bit numbers.
        #[allow(unsafe_code)]
        let result =
            unsafe { libc::getsockopt(fd, libc::IPPROTO_SCTP, 0, value.as_mut_ptr().cast(), &mut length) };
        assert_eq!(result, 0);
        (value[1], value[2], value[3])
    };
    let change = |sd, rto_max| {
        library.session_parameters(sd, SessionParameters { rto_max, ..SessionParameters::default() }).unwrap()
    };
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let before = library.accept(server, LONG).unwrap();
    for sd in [user, before] {
        assert_eq!(of(sd), (2000, 5000, 1000));
    }
    for sd in [user, before, server] {
        assert_eq!(change(sd, 4300).rto_max, 4300);
    }
    for sd in [user, before] {
        assert_eq!(of(sd), (2000, 4300, 1000));
    }
    let next = library.socket(0, Style::Stream, libc::IPPROTO_SCTP).unwrap();
    change(next, 3200);
    library.connect(next, Some(pool()), Duration::ZERO, FAST).unwrap();
    let after = library.accept(server, LONG).unwrap();
    assert_eq!((of(next), of(after)), ((2000, 3200, 1000), (2000, 4300, 1000)));
    // One that is told to do the impossible goes on.
    change(next, 1);
    world.send(next, b"x");
    assert_eq!(world.text(after), "x");
}

#[test]
fn options_and_addresses_of_the_socket_are_the_programs() {
    let Some(world) = world() else { return };
    let server = world.library.socket(libc::AF_INET, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
    let two: Vec<SocketAddr> = ["127.0.0.1:0", "127.0.0.2:0"].map(|text| text.parse().unwrap()).to_vec();
    world.library.bind(server, &two).unwrap();
    world.library.listen(server, 5).unwrap();
    let addresses: Vec<_> = {
        let EntryRole::Many(many) = world.library.entry(server).unwrap().role() else { panic!() };
        many.endpoint().transport().unwrap().unwrap().socket_addresses().collect()
    };
    assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(), [two[0].ip(), two[1].ip()]);
    let (id, interval) = (Some(PeId(9)), Duration::from_secs(30));
    let policy = Policy::RoundRobin;
    let registration =
        Registration { handle: pool(), policy, id, interval, wait: true, daemon: false, advertise: None };
    world.library.register(server, registration).unwrap();
    // The user's options are those of its association.
    let user = world.library.socket(0, Style::Stream, libc::IPPROTO_SCTP).unwrap();
    let system = world.library.system_socket(user).unwrap();
    let streams: [u16; 4] = [33, 0, 0, 0];
    // SAFETY: struct sctp_initmsg is four 16-bit numbers.
    #[allow(unsafe_code)]
    let set = unsafe { libc::setsockopt(system, libc::IPPROTO_SCTP, 2, streams.as_ptr().cast(), 8) };
    assert_eq!(set, 0);
    world.library.connect(user, Some(pool()), Duration::ZERO, FAST).unwrap();
    assert_eq!(world.library.system_socket(user).unwrap(), system);
    assert_eq!(world.notice(server), Notification::SessionAdd { session: 1 });
    let how = SendOptions { stream: 32, ..options(1) };
    world.library.send(user, b"x", how).unwrap();
    assert!(matches!(world.recv(server, 9).0, Received::Data { stream: 32, .. }));
}

#[test]
fn a_sender_waits_for_room_or_says_so() {
    let Some(world) = world() else { return };
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let now = SendOptions { timeout: None, ..options(1) };
    let mut sent = 0_u8;
    let full = loop {
        match world.library.send(user, &vec![sent; 50_000], now) {
            Ok(50_000) => sent += 1,
            other => break other,
        }
    };
    assert_eq!(code(full.unwrap_err()), libc::EAGAIN);
    let short = SendOptions { timeout: Some(Duration::from_millis(20)), ..now };
    assert_eq!(code(world.library.send(user, &[0; 50_000], short).unwrap_err()), libc::EAGAIN);
    let library = world.library.clone();
    let patient = thread::spawn(move || library.send(user, b"last", options(1)));
    for expected in 0..sent {
        let (received, bytes) = world.recv(session, 50_000);
        assert!(matches!(received, Received::Data { length: 50_000, end: true, .. }), "{received:?}");
        assert!(bytes.iter().all(|&byte| byte == expected));
    }
    assert_eq!(patient.join().unwrap().unwrap(), 4);
    assert_eq!(world.text(session), "last");
    // What was sent arrives though its sender is gone, and though it left something unread.
    world.send(session, b"unread");
    world.send(user, &[7; 150_000]);
    world.library.close(user).unwrap();
    assert_eq!(world.recv(session, 150_000).1, [7; 150_000]);
    assert_eq!(world.recv(session, 9).0, Received::End { session: 1 });
}

#[test]
fn nobody_there_is_an_error_in_time() {
    if world().is_none() {
        return;
    }
    in_namespace(|ip| {
        ip("link add wire type veth peer name hole");
        ip("addr add 10.0.0.1/24 dev wire");
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:01 dev wire");
        ip("link set hole up");
        ip("link set wire up");
        let world = world_of(&BOTH);
        let silent = "10.0.0.2:9".parse().unwrap();
        world.fake.add(1, Protocol::Sctp, TransportUse::DataPlusControl, silent);
        let user = world.library.socket(0, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
        let soon = ConnectOptions { connect_timeout: Duration::from_millis(300), ..FAST };
        let late = world.library.connect(user, Some(pool()), Duration::ZERO, soon);
        assert_eq!(code(late.unwrap_err()), libc::ETIMEDOUT);
        assert!(matches!(world.notice(user), Notification::FailoverNecessary { .. }));
    });
}

#[test]
fn a_lost_path_does_not_end_the_session() {
    if world().is_none() {
        return;
    }
    in_namespace(|ip| {
        for address in ["10.0.0.1", "10.0.1.1"] {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        let world = world_of(&BOTH);
        let server = world.library.socket(libc::AF_INET, Style::Stream, libc::IPPROTO_SCTP).unwrap();
        world.library.listen(server, 5).unwrap();
        let (id, interval) = (Some(PeId(9)), Duration::from_secs(30));
        let policy = Policy::RoundRobin;
        let registration =
            Registration { handle: pool(), policy, id, interval, wait: true, daemon: false, advertise: None };
        world.library.register(server, registration).unwrap();
        let listed = world.fake.cached(&pool(), 1).remove(0).transport.socket_addresses().count();
        assert_eq!(listed, 2);
        let user = world.library.socket(libc::AF_INET, Style::SeqPacket, libc::IPPROTO_SCTP).unwrap();
        let quick = SessionParameters {
            rto_initial: 100,
            rto_min: 100,
            rto_max: 200,
            assoc_max_rxt: 8,
            path_max_rxt: 2,
            hb_interval: 200,
        };
        world.library.session_parameters(user, quick).unwrap();
        world.library.connect(user, Some(pool()), Duration::ZERO, FAST).unwrap();
        let session = world.library.accept(server, LONG).unwrap();
        world.send(user, b"before");
        assert_eq!(world.text(session), "before");
        let primary = {
            let conn = world.conn(user);
            conn.primary().unwrap()
        };
        ip(&format!("addr del {}/32 dev lo", primary.ip()));
        for number in 0..10 {
            world.send(user, format!("after {number}").as_bytes());
            assert_eq!(world.text(session), format!("after {number}"));
            world.send(session, b"yes");
            assert_eq!(world.text(user), "yes");
        }
    });
}
