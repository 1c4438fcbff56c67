//! These need a kernel with SCTP; on others they say SKIPPED.

use super::super::netns::{in_namespace, skipped};
use super::super::sctp_socket::{PathState, send_flags};
use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::time::Duration;

/// Other values than any kernel's.
const SESSION_PARAMETERS: Parameters = Parameters {
    rto_initial: 2000,
    rto_min: 1000,
    rto_max: 5000,
    assoc_max_rxt: 8,
    path_max_rxt: 3,
    hb_interval: 15_000,
};

/// Whether to run the test; says so if not.
fn kernel_has_sctp() -> bool {
    if !available() {
        skipped("kernel has no SCTP");
    }
    available()
}

#[track_caller]
fn wait(fd: &impl AsFd, events: PollFlags) {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(), 1, "nothing came within 20 s");
}

/// Waits for the next event of an endpoint.
#[track_caller]
fn next(endpoint: &mut SctpEndpoint) -> EndpointEvent {
    let mut found = Vec::new();
    while found.is_empty() {
        wait(endpoint, PollFlags::POLLIN);
        endpoint.read_events(1, &mut |event| found.push(event)).unwrap();
    }
    found.remove(0)
}

#[track_caller]
fn accepted(endpoint: &mut SctpEndpoint) -> SctpLink {
    match next(endpoint) {
        EndpointEvent::Accepted(link) => link,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn dialled(endpoint: &mut SctpEndpoint, token: u64) -> SctpLink {
    match next(endpoint) {
        EndpointEvent::DialDone(done, Ok(link)) if done == token => link,
        other => panic!("{other:?}"),
    }
}

fn endpoint(address: &str) -> SctpEndpoint {
    SctpEndpoint::bind(PPID_ASAP, &[address.parse().unwrap()]).unwrap()
}

fn at(endpoint: &SctpEndpoint, ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), endpoint.port())
}

/// Two endpoints and a link between them: (dialler, listener, its link, the listener's link).
fn pair(address: &str) -> (SctpEndpoint, SctpEndpoint, SctpLink, SctpLink) {
    let (mut near, mut far) = (endpoint(address), endpoint(address));
    let to = at(&far, address.rsplit_once(':').unwrap().0.trim_matches(['[', ']']));
    near.dial(1, &[to]).unwrap();
    let near_link = dialled(&mut near, 1);
    let far_link = accepted(&mut far);
    (near, far, near_link, far_link)
}

/// A message of `length` bytes (a multiple of 4), filled with `fill`.
fn message(length: u16, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; usize::from(length)];
    bytes[..2].copy_from_slice(&[9, 0]);
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Reads until `count` messages are there, or the status is final.
#[track_caller]
fn read(link: &mut SctpLink, count: usize) -> (Vec<Vec<u8>>, io::Result<ReadStatus>) {
    let mut messages = Vec::new();
    loop {
        wait(link, PollFlags::POLLIN);
        let result = link.read_messages(count - messages.len(), &mut |bytes| messages.push(bytes.to_vec()));
        let goes_on = matches!(result, Ok(ReadStatus::Drained | ReadStatus::More));
        if messages.len() == count || !goes_on {
            return (messages, result);
        }
    }
}

#[test]
fn without_sctp_binding_says_so() {
    if available() {
        skipped("kernel has SCTP");
        return;
    }
    let error = SctpEndpoint::bind(PPID_ASAP, &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT));
}

#[test]
fn messages_go_both_ways_each_as_one_user_message() {
    if !kernel_has_sctp() {
        return;
    }
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (_near, far, mut out, mut back) = pair(address);
        let several = [message(8, 1), message(24, 2), message(65_532, 3)].concat();
        assert_eq!(out.send(&several).unwrap(), QueueStatus::Empty);
        let (messages, _) = read(&mut back, 3);
        assert_eq!(messages, [message(8, 1), message(24, 2), message(65_532, 3)]);
        assert_eq!(back.send(&message(12, 4)).unwrap(), QueueStatus::Empty);
        assert_eq!(read(&mut out, 1).0, [message(12, 4)]);
        assert_eq!(out.peer_addresses()[0].port(), far.port());
        assert_eq!(out.peer_addresses()[0], back.local_addresses()[0]);
        assert_eq!(back.peer_addresses()[0].port(), out.local_addresses()[0].port());
    }
}

/// The reactor may read an endpoint late: what the peer sent meanwhile is still there.
#[test]
fn data_before_the_peel_off_is_not_lost() {
    if !kernel_has_sctp() {
        return;
    }
    let (mut near, mut far) = (endpoint("127.0.0.1:0"), endpoint("127.0.0.1:0"));
    near.dial(7, &[at(&far, "127.0.0.1")]).unwrap();
    let mut out = dialled(&mut near, 7);
    for number in 0..20 {
        out.send(&message(16, number)).unwrap();
    }
    out.send(&message(4096, 99)).unwrap();
    // Once the peer acknowledged, it is all in the other endpoint's queue.
    wait(&out, PollFlags::POLLOUT);
    let mut link = accepted(&mut far);
    let (messages, _) = read(&mut link, 21);
    assert!(messages.iter().take(20).enumerate().all(|(number, bytes)| bytes[4] == number as u8));
    assert_eq!(messages[20], message(4096, 99));
}

#[test]
fn dialling_the_same_peer_twice_is_refused_and_the_port_is_the_listening_one() {
    if !kernel_has_sctp() {
        return;
    }
    let (mut near, mut far, out, back) = pair("127.0.0.1:0");
    assert_eq!(back.peer_addresses(), [at(&near, "127.0.0.1")]);
    let again = near.dial(2, &[at(&far, "127.0.0.1")]).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    // The far side has it as well.
    assert_eq!(far.dial(3, &[at(&near, "127.0.0.1")]).unwrap_err().kind(), ErrorKind::AlreadyExists);
    drop((out, back));
}

#[test]
fn two_that_dial_each_other_end_with_one_association() {
    if !kernel_has_sctp() {
        return;
    }
    let (mut left, mut right) = (endpoint("127.0.0.1:0"), endpoint("127.0.0.1:0"));
    left.dial(1, &[at(&right, "127.0.0.1")]).unwrap();
    // Depending on how far that went, there is an association here, or two cross.
    let mut back = match right.dial(2, &[at(&left, "127.0.0.1")]) {
        Ok(()) => dialled(&mut right, 2),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            accepted(&mut right)
        }
    };
    let mut out = dialled(&mut left, 1);
    out.send(&message(8, 1)).unwrap();
    assert_eq!(read(&mut back, 1).0, [message(8, 1)]);
}

#[test]
fn a_dial_to_nobody_fails() {
    if !kernel_has_sctp() {
        return;
    }
    let mut near = endpoint("127.0.0.1:0");
    let unused = at(&endpoint("127.0.0.1:0"), "127.0.0.1");
    near.dial(5, &[unused]).unwrap();
    match next(&mut near) {
        EndpointEvent::DialDone(5, Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
    let only_v6 = near.dial(6, &["[::1]:7".parse().unwrap()]).unwrap_err();
    assert_eq!(only_v6.raw_os_error(), Some(libc::EAFNOSUPPORT));
}

/// A registrar that is started again gets its port although its clients' associations are not over, and
/// two never get the same one.
#[test]
fn a_port_with_only_associations_left_can_be_bound_again() {
    if !kernel_has_sctp() {
        return;
    }
    let (_near, far, _out, _back) = pair("127.0.0.1:0");
    let address = at(&far, "127.0.0.1");
    let taken = SctpEndpoint::bind(PPID_ASAP, &[address]).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    drop(far);
    SctpEndpoint::bind(PPID_ASAP, &[address]).unwrap();
}

#[test]
fn a_cancelled_dial_is_silent_and_can_be_repeated() {
    in_namespace(|ip| {
        if !kernel_has_sctp() {
            return;
        }
        // A wire whose other end swallows everything.
        ip("link add wire type veth peer name hole");
        ip("addr add 10.0.0.1/24 dev wire");
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:01 dev wire");
        ip("link set hole up");
        ip("link set wire up");
        let mut near = SctpEndpoint::bind(PPID_ASAP, &[]).unwrap();
        near.socket.set_init(1, 200).unwrap();
        near.socket
            .set_parameters(0, Parameters { rto_initial: 100, rto_min: 50, ..Parameters::default() })
            .unwrap();
        let nowhere = ["10.0.0.2:3863".parse().unwrap()];
        near.dial(1, &nowhere).unwrap();
        assert_eq!(near.dial(2, &nowhere).unwrap_err().kind(), ErrorKind::AlreadyExists);
        near.cancel(1);
        near.dial(3, &nowhere).unwrap();
        match next(&mut near) {
            EndpointEvent::DialDone(3, Err(_)) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_end_is_told_from_a_break() {
    if !kernel_has_sctp() {
        return;
    }
    let (_near, _far, mut out, mut back) = pair("127.0.0.1:0");
    out.send(&message(8, 1)).unwrap();
    drop(out);
    let (messages, result) = read(&mut back, 2);
    assert_eq!(messages, [message(8, 1)]);
    assert_eq!(result.unwrap(), ReadStatus::Closed);
    assert!(!back.peer_addresses().is_empty(), "still known");

    let (_near, _far, out, mut back) = pair("127.0.0.1:0");
    out.socket.abort(0).unwrap();
    drop(out);
    assert_eq!(read(&mut back, 1).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(back.send(&message(8, 1)).is_err(), "and no SIGPIPE");
}

#[test]
fn messages_without_a_ppid_are_read_by_content() {
    if !kernel_has_sctp() {
        return;
    }
    let (_near, _far, out, mut back) = pair("127.0.0.1:0");
    // All of it is sent before any is read.
    assert!(out.socket.enlarge_send_buffer(400_000));
    let none = SendInfo::default();
    let odd = [&[5, 0, 0, 9][..], &[0x61; 5], &[0; 3]].concat();
    // No header, an unknown type, lengths that do not fit: somebody's data.
    for other in [&[9, 0, 0][..], &[0x4b, 0, 0, 4], &[9, 0, 0, 3], &[9, 0, 0, 8], &[9, 0, 0, 4, 0]] {
        out.socket.send(other, none).unwrap();
    }
    out.socket.send(&[0xee; 100_000], none).unwrap();
    // With its padding and without, and one that comes in parts.
    for ours in [&odd[..], &odd[..9], &message(65_532, 3)] {
        out.socket.send(ours, none).unwrap();
    }
    assert_eq!(read(&mut back, 3).0, [odd.clone(), odd[..9].to_vec(), message(65_532, 3)]);
}

#[test]
fn other_ppids_are_ignored_and_oversized_messages_are_garbage() {
    if !kernel_has_sctp() {
        return;
    }
    let (_near, _far, out, mut back) = pair("127.0.0.1:0");
    // All of it is sent before any is read.
    assert!(out.socket.enlarge_send_buffer(400_000));
    let foreign = SendInfo { ppid: 33_u32.to_be(), ..SendInfo::default() };
    let own = SendInfo { ppid: PPID_ASAP.to_be(), ..SendInfo::default() };
    out.socket.send(&[7; 100_000], foreign).unwrap();
    // Two bytes of foreign padding behind the message are no message.
    let mut trailing = message(8, 1);
    trailing.extend([0; 2]);
    out.socket.send(&trailing, own).unwrap();
    assert_eq!(read(&mut back, 1).0, [message(8, 1)]);
    out.socket.send(&[7; 100_000], own).unwrap();
    assert_eq!(read(&mut back, 1).1.unwrap(), ReadStatus::Garbage);
}

#[test]
fn enrp_on_the_port_of_asap_is_answered_with_an_abort() {
    if !kernel_has_sctp() {
        return;
    }
    let (_near, _far, mut out, mut back) = pair("127.0.0.1:0");
    let foreign = SendInfo { ppid: PPID_ENRP.to_be(), ..SendInfo::default() };
    out.socket.send(&message(8, 1), foreign).unwrap();
    let (messages, result) = read(&mut back, 1);
    assert_eq!((messages.len(), result.unwrap()), (0, ReadStatus::Garbage));
    assert_eq!(read(&mut out, 1).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_peer_that_does_not_read_fills_a_bounded_queue_which_flushes_in_order() {
    if !kernel_has_sctp() {
        return;
    }
    let (_near, _far, mut out, mut back) = pair("127.0.0.1:0");
    out.set_queue_bound(200_000);
    let mut sent = 0_usize;
    let numbered = |number: usize| {
        let mut bytes = message(16_000, 0);
        bytes[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        bytes
    };
    loop {
        match out.send(&numbered(sent)).unwrap() {
            QueueStatus::Overflow => break,
            QueueStatus::Waiting(bytes) => assert!(bytes <= 200_000),
            QueueStatus::Empty => {}
        }
        sent += 1;
        assert!(sent < 10_000, "never full");
    }
    let mut received = 0;
    while received < sent {
        back.read_messages(1000, &mut |bytes| {
            assert_eq!(bytes, numbered(received));
            received += 1;
        })
        .unwrap();
        match out.flush().unwrap() {
            QueueStatus::Waiting(_) => {
                let (out, back) = (out.as_fd(), back.as_fd());
                let mut fds = [PollFd::new(out, PollFlags::POLLOUT), PollFd::new(back, PollFlags::POLLIN)];
                assert!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap() > 0, "stuck at {received}");
            }
            _ if received < sent => wait(&back, PollFlags::POLLIN),
            _ => {}
        }
    }
    assert_eq!(out.send(&numbered(sent)).unwrap(), QueueStatus::Empty);
}

/// All addresses of both ends are known, and the loss of the one in use is survived.
#[test]
fn a_lost_path_is_reported_and_replaced() {
    in_namespace(|ip| {
        if !kernel_has_sctp() {
            return;
        }
        for address in ["10.0.0.1", "10.0.1.1", "10.0.0.2", "10.0.1.2"] {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        let addresses = |host: u8| -> Vec<SocketAddr> {
            (0..2).map(|network| SocketAddr::from(([10, 0, network, host], 0))).collect()
        };
        let mut near = SctpEndpoint::bind(PPID_ASAP, &addresses(1)).unwrap();
        let mut far = SctpEndpoint::bind(PPID_ASAP, &addresses(2)).unwrap();
        assert_eq!(far.local_addresses().len(), 2);
        near.dial(1, &far.local_addresses()).unwrap();
        let mut out = dialled(&mut near, 1);
        let mut back = accepted(&mut far);
        assert_eq!((out.peer_addresses().len(), back.peer_addresses().len()), (2, 2));

        let fast = Parameters {
            rto_min: 50,
            rto_initial: 100,
            rto_max: 200,
            path_max_rxt: 1,
            hb_interval: 100,
            ..Parameters::default()
        };
        out.socket.set_parameters(0, fast).unwrap();
        out.socket.subscribe(true).unwrap();
        let lost = out.peer_addresses()[0];
        ip(&format!("addr del {}/32 dev lo", lost.ip()));
        out.send(&message(8, 1)).unwrap();
        assert_eq!(read(&mut back, 1).0, [message(8, 1)]);

        let mut buffer = [0; 512];
        loop {
            wait(&out, PollFlags::POLLIN);
            match out.socket.recv(&mut buffer).unwrap() {
                Some(Incoming::Notification(SctpNotification::Path { address, state, .. }))
                    if (address, state) == (Some(lost), PathState::Unreachable) =>
                {
                    break;
                }
                Some(Incoming::Data { .. } | Incoming::Closed) => panic!("the association ended"),
                _ => {}
            }
        }
        out.send(&message(8, 2)).unwrap();
        assert_eq!(read(&mut back, 1).0, [message(8, 2)]);
    });
}

// Session sockets.

fn socket(style: SocketStyle) -> SctpSocket {
    let socket = SctpSocket::new(style, false).unwrap();
    socket.set_parameters(0, SESSION_PARAMETERS).unwrap();
    socket
}

/// A listening socket of `style` on a port of its own, and its address.
fn server(style: SocketStyle) -> (SctpSocket, SocketAddr) {
    let server = socket(style);
    server.bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    server.listen(10).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], server.local_port().unwrap()));
    (server, address)
}

#[track_caller]
fn receive(socket: &SctpSocket, buffer: &mut [u8]) -> Incoming {
    loop {
        wait(socket, PollFlags::POLLIN);
        if let Some(incoming) = socket.recv(buffer).unwrap() {
            return incoming;
        }
    }
}

fn up(socket: &SctpSocket) -> AssociationId {
    match receive(socket, &mut [0; 512]) {
        Incoming::Notification(SctpNotification::Up { association, outgoing_streams, .. }) => {
            assert!(outgoing_streams > 1);
            association
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_to_one_connects_accepts_and_carries_stream_ppid_and_order() {
    if !kernel_has_sctp() {
        return;
    }
    let (listener, address) = server(SocketStyle::OneToOne);
    let client = socket(SocketStyle::OneToOne);
    client.connect_within(&[address], Duration::from_secs(20)).unwrap();
    assert!(client.finish_connect().unwrap());
    wait(&listener, PollFlags::POLLIN);
    let (served, _) = listener.accept().unwrap().unwrap();
    assert!(listener.accept().unwrap().is_none());
    up(&client);

    let info =
        SendInfo { stream: 3, ppid: 33_u32.to_be(), flags: send_flags::UNORDERED, ..SendInfo::default() };
    client.send(b"question", info).unwrap();
    // The smallest of buffers: what does not fit comes with the next call.
    let (mut buffer, mut got, mut ended) = ([0; 3], Vec::new(), false);
    while !ended {
        match receive(&served, &mut buffer) {
            Incoming::Data { length, end, stream, ppid, unordered, source, .. } => {
                assert_eq!((stream, u32::from_be(ppid), unordered), (3, 33, true));
                assert_eq!(source.unwrap().ip(), address.ip());
                got.extend_from_slice(&buffer[..length]);
                ended = end;
            }
            Incoming::Notification(SctpNotification::Up { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, b"question");
    assert_eq!(served.streams(0).unwrap().0, client.streams(0).unwrap().1);

    served.end(0).unwrap();
    loop {
        match receive(&client, &mut [0; 512]) {
            Incoming::Closed => break,
            Incoming::Notification(
                SctpNotification::PeerShutdown { .. } | SctpNotification::Ended { .. },
            ) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// rsplib's registrars put acknowledgements off (200 ms), which would look like a way of 100 ms.
#[test]
fn a_peer_that_puts_acknowledgements_off_is_not_far() {
    if !kernel_has_sctp() {
        return;
    }
    // Two such peers: with our links, and with a socket that does not ask.
    let (lazy, address) = server(SocketStyle::OneToOne);
    let mut near = endpoint("127.0.0.1:0");
    near.dial(1, &[address]).unwrap();
    let mut link = dialled(&mut near, 1);
    let plain = socket(SocketStyle::OneToOne);
    plain.connect(&[address]).unwrap();
    let acknowledged = |condition: &dyn Fn() -> bool| {
        let start = std::time::Instant::now();
        while condition() {
            std::thread::sleep(Duration::from_millis(5));
        }
        start.elapsed()
    };
    wait(&plain, PollFlags::POLLOUT);
    assert!(plain.finish_connect().unwrap());
    // Each at its quickest, since a machine that does other things as well may put off anything. But for the first message
    // of an association, which is acknowledged at once, whatever is asked for.
    let (mut asked, mut unasked) = (Duration::MAX, Duration::MAX);
    for round in 0..6 {
        assert_eq!(link.send(&message(64, 1)).unwrap(), QueueStatus::Empty);
        let with = acknowledged(&|| link.condition().unwrap().unacknowledged);
        plain.send(&message(64, 1), SendInfo::default()).unwrap();
        let without = acknowledged(&|| plain.condition(0).unwrap().unacknowledged);
        if round > 0 {
            (asked, unasked) = (asked.min(with), unasked.min(without));
        }
    }
    assert!(asked < Duration::from_millis(100), "{asked:?}");
    assert!(unasked > asked, "{unasked:?} without asking, {asked:?} with it");
    drop(lazy);
}

#[test]
fn a_message_larger_than_the_buffer_comes_in_parts() {
    if !kernel_has_sctp() {
        return;
    }
    let (listener, address) = server(SocketStyle::OneToOne);
    let client = socket(SocketStyle::OneToOne);
    client.connect_within(&[address], Duration::from_secs(20)).unwrap();
    wait(&listener, PollFlags::POLLIN);
    let (served, _) = listener.accept().unwrap().unwrap();
    let whole: Vec<u8> = (0..150_000_u32).map(|number| (number % 251) as u8).collect();
    client.send(&whole, SendInfo { ppid: 5, ..SendInfo::default() }).unwrap();
    let (mut got, mut buffer, mut parts) = (Vec::new(), vec![0; 65_536], 0);
    loop {
        match receive(&served, &mut buffer) {
            Incoming::Data { length, end, ppid: 5, .. } => {
                got.extend_from_slice(&buffer[..length]);
                parts += 1;
                if end {
                    break;
                }
            }
            Incoming::Notification(SctpNotification::Up { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(got == whole && parts >= 3, "{} bytes in {parts} parts", got.len());
    wait(&client, PollFlags::POLLOUT);
    client.send(b"next", SendInfo::default()).unwrap();
    assert!(matches!(receive(&served, &mut buffer), Incoming::Data { length: 4, end: true, ppid: 0, .. }));
    assert_eq!(
        client.send(&vec![0; 4 << 20], SendInfo::default()).unwrap_err().raw_os_error(),
        Some(libc::EMSGSIZE)
    );
}

#[test]
fn one_to_one_connect_fails_or_times_out() {
    in_namespace(|ip| {
        if !kernel_has_sctp() {
            return;
        }
        ip("link add wire type veth peer name hole");
        ip("addr add 10.0.0.1/24 dev wire");
        ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:01 dev wire");
        ip("link set hole up");
        ip("link set wire up");
        let refused = "127.0.0.1:7".parse().unwrap();
        let error =
            socket(SocketStyle::OneToOne).connect_within(&[refused], Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let nowhere = "10.0.0.2:7".parse().unwrap();
        let error =
            socket(SocketStyle::OneToOne).connect_within(&[nowhere], Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn one_to_many_serves_several_and_ends_one() {
    if !kernel_has_sctp() {
        return;
    }
    let (server, address) = server(SocketStyle::OneToMany);
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let client = socket(SocketStyle::OneToOne);
            client.connect_within(&[address], Duration::from_secs(20)).unwrap();
            (client, up(&server))
        })
        .collect();
    for (number, (client, association)) in clients.iter().enumerate() {
        client.send(&[number as u8; 9], SendInfo::default()).unwrap();
        let mut buffer = [0; 512];
        let Incoming::Data { length: 9, end: true, association: from, .. } = receive(&server, &mut buffer)
        else {
            panic!("no data");
        };
        assert_eq!((from, buffer[0]), (*association, number as u8));
        server.send(&buffer[..9], SendInfo { association: from, ..SendInfo::default() }).unwrap();
    }
    let (first, second) = (&clients[0], &clients[1]);
    server.end(first.1).unwrap();
    server.abort(second.1).unwrap();
    let (mut ended, mut lost) = (false, false);
    while !(ended && lost) {
        match receive(&server, &mut [0; 512]) {
            Incoming::Notification(SctpNotification::Ended { association }) => {
                assert_eq!(association, first.1);
                ended = true;
            }
            Incoming::Notification(SctpNotification::Lost { association, .. }) => {
                assert_eq!(association, second.1);
                lost = true;
            }
            other => panic!("{other:?}"),
        }
    }
    // The third one is as it was.
    server.send(b"still", SendInfo { association: clients[2].1, ..SendInfo::default() }).unwrap();
    let error = server.send(b"gone", SendInfo { association: second.1, ..SendInfo::default() }).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EINVAL)), "{error}");
}

#[test]
fn parameters_are_set_for_the_future_and_on_a_live_association() {
    if !kernel_has_sctp() {
        return;
    }
    let (listener, address) = server(SocketStyle::OneToOne);
    let client = socket(SocketStyle::OneToOne);
    assert_eq!(client.parameters(0).unwrap(), SESSION_PARAMETERS);
    client.connect_within(&[address], Duration::from_secs(20)).unwrap();
    assert_eq!(client.parameters(0).unwrap(), SESSION_PARAMETERS, "inherited");
    let change = Parameters {
        rto_min: 300,
        assoc_max_rxt: 2,
        path_max_rxt: 2,
        hb_interval: 700,
        ..Parameters::default()
    };
    client.set_parameters(0, change).unwrap();
    let expected = Parameters { rto_initial: 2000, rto_max: 5000, ..change };
    assert_eq!(client.parameters(0).unwrap(), expected);
    let (served, _) = listener.accept().unwrap().unwrap();
    assert_eq!(served.parameters(0).unwrap(), SESSION_PARAMETERS, "the other end has its own");
}

#[test]
fn primary_path_and_address_lists() {
    in_namespace(|ip| {
        if !kernel_has_sctp() {
            return;
        }
        for address in ["10.0.0.1", "10.0.1.1"] {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        for v6 in [false, true] {
            let listener = SctpSocket::new(SocketStyle::OneToOne, v6).unwrap();
            let addresses = ["10.0.0.1:0".parse().unwrap(), "10.0.1.1:0".parse().unwrap()];
            listener.bind(&addresses).unwrap();
            listener.listen(1).unwrap();
            let mut bound = listener.local_addresses(0).unwrap();
            bound.sort();
            assert_eq!(bound.len(), 2);
            assert_eq!(bound[0].port(), listener.local_port().unwrap());
            let client = SctpSocket::new(SocketStyle::OneToOne, v6).unwrap();
            client.connect_within(&bound, Duration::from_secs(20)).unwrap();
            for primary in &bound {
                client.set_primary(0, primary).unwrap();
                assert_eq!(client.primary(0).unwrap(), *primary);
                assert_eq!(client.peer_addresses(0).unwrap()[0], *primary);
            }
        }
    });
}

#[test]
fn a_message_whose_time_is_over_is_given_up() {
    if !kernel_has_sctp() {
        return;
    }
    let (listener, address) = server(SocketStyle::OneToOne);
    let client = socket(SocketStyle::OneToOne);
    client.connect_within(&[address], Duration::from_secs(20)).unwrap();
    wait(&listener, PollFlags::POLLIN);
    let (served, _) = listener.accept().unwrap().unwrap();
    // Fill the way to a peer that does not read, then send what must not wait.
    while client.send(&[1; 10_000], SendInfo::default()).is_ok() {}
    let mut buffer = vec![0; 20_000];
    let mut sent_mortal = false;
    let mut immortal = 0;
    let mut mortal = 0;
    // One slot gets free: the mortal message takes it and is stuck behind all others for longer than 1 ms.
    loop {
        let mut fds = [PollFd::new(served.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::from(if sent_mortal { 1000_u16 } else { 20_000 })).unwrap();
        if ready == 0 {
            break;
        }
        match served.recv(&mut buffer).unwrap() {
            Some(Incoming::Data { .. }) if buffer[0] == 1 => immortal += 1,
            Some(Incoming::Data { .. }) => mortal += 1,
            _ => {}
        }
        let info = SendInfo { time_to_live: 1, ..SendInfo::default() };
        if !sent_mortal && client.send(&[2; 100], info).is_ok() {
            sent_mortal = true;
            // Let it expire.
            poll(&mut [], PollTimeout::from(20_u16)).unwrap();
        }
    }
    assert!(sent_mortal && immortal > 10);
    assert_eq!(mortal, 0, "expired in the queue, so never sent");
}
