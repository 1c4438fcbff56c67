//! What is sent arrives, whole and in order.

use super::*;

pub(in crate::socket) fn a_message_goes_and_comes_back(world: World) {
    let server = world.serve(7, Style::Stream);
    let user = world.connect(Style::Stream);
    world.send(user, b"hello");
    let session = world.library.accept(server, LONG).unwrap();
    let (received, bytes) = world.recv(session, 100);
    assert_eq!(bytes, b"hello");
    let ppid = 0x0102_0304;
    assert_eq!(
        received,
        Received::Data { length: 5, end: true, session: 1, ppid, pe_id: PeId(0), stream: 5 }
    );
    world.send(session, b"answer");
    let (received, bytes) = world.recv(user, 100);
    assert_eq!(bytes, b"answer");
    assert!(matches!(received, Received::Data { pe_id: PeId(7), .. }));
    assert_eq!(world.library.peer_name(user).unwrap(), (Some(pool()), PeId(7)));
    assert_eq!(world.library.peer_name(session).unwrap(), (None, PeId(0)));
    assert_eq!(world.library.local_name(server).unwrap(), (pool(), PeId(7)));
    world.library.close(user).unwrap();
    for _ in 0..2 {
        assert_eq!(world.recv(session, 100).0, Received::End { session: 1 });
    }
    assert_eq!(code(world.library.close(user).unwrap_err()), libc::EBADF);
}

pub(in crate::socket) fn long_messages_keep_their_boundaries(world: World) {
    let server = world.serve(7, Style::Stream);
    let user = world.connect(Style::Stream);
    let sizes: &[usize] = match world.protocol {
        LinkProtocol::Tcp => {
            &[1, 2047, 2048, 2049, 65_535, 65_536, 65_537, 1 << 20, 16 << 20, (16 << 20) + 1, 40 << 20]
        }
        // The kernel's send buffer is the limit, which can be doubled.
        LinkProtocol::Sctp => &[1, 2047, 2048, 65_535, 65_536, 65_537, 200_000, 300_000, 400_000, 7],
    };
    let message = |size: usize| (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
    let library = world.library.clone();
    let sender = thread::spawn(move || {
        for &size in sizes {
            assert_eq!(library.send(user, &message(size), options(1)).unwrap(), size);
        }
    });
    let session = world.library.accept(server, LONG).unwrap();
    for &size in sizes {
        let (received, bytes) = world.recv(session, size + 1);
        assert!(matches!(received, Received::Data { end: true, .. }), "{size}: {received:?}");
        assert!(bytes == message(size), "{size}");
    }
    sender.join().unwrap();
}

pub(in crate::socket) fn a_small_buffer_loses_nothing(world: World) {
    let server = world.serve(7, Style::Stream);
    let user = world.connect(Style::Stream);
    for text in ["0123456789", "abc"] {
        world.send(user, text.as_bytes());
    }
    let session = world.library.accept(server, LONG).unwrap();
    let mut parts = Vec::new();
    for _ in 0..4 {
        let (received, bytes) = world.recv(session, 4);
        assert!(readable(session, 0) || parts.len() == 3);
        let Received::Data { end, .. } = received else { panic!("{received:?}") };
        parts.push((String::from_utf8(bytes).unwrap(), end));
    }
    let expected = [("0123", false), ("4567", false), ("89", true), ("abc", true)];
    assert_eq!(parts, expected.map(|(text, end)| (text.to_string(), end)));
}

#[test]
fn a_message_that_has_begun_is_never_cut() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let now = SendOptions { timeout: None, ..options(1) };
    let mut sent = 0u8;
    let refused = loop {
        match world.library.send(user, &vec![sent; 300_000], now) {
            Ok(300_000) => sent += 1,
            other => break other,
        }
    };
    assert_eq!(code(refused.unwrap_err()), libc::EAGAIN);
    let short = SendOptions { timeout: Some(Duration::from_millis(1)), ..now };
    assert_eq!(code(world.library.send(user, b"x", short).unwrap_err()), libc::EAGAIN);
    let huge = vec![0; (16 << 20) + 1];
    assert!(
        [libc::EAGAIN, libc::EMSGSIZE].contains(&code(world.library.send(user, &huge, now).unwrap_err()))
    );
    // Nothing more is called on the user's side, and yet all arrives.
    for expected in 0..sent {
        let (received, bytes) = world.recv(session, 300_000);
        assert!(matches!(received, Received::Data { length: 300_000, end: true, .. }), "{received:?}");
        assert!(bytes.iter().all(|&byte| byte == expected));
    }
    assert_eq!(world.nothing(session), libc::EAGAIN);
    world.send(user, b"next");
    assert_eq!(world.text(session), "next");
}

#[test]
fn up_to_64_kib_come_whole_however_they_trickle() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let address = stream::local_address(borrowed(&world, server).as_fd()).unwrap();
    let mut slow = TcpStream::connect(address).unwrap();
    slow.set_nodelay(true).unwrap();
    let frame = |data: &[u8]| {
        let length = data.len() as u32;
        let (begin, end, unordered, control) = (true, true, false, false);
        let header = FrameHeader { begin, end, unordered, control, stream: 0, length, ppid: [0; 4] };
        [&header.encode()[..], data].concat()
    };
    let message: Vec<u8> = (0..40_000u32).map(|number| (number % 251) as u8).collect();
    slow.write_all(&[&Greeting::ours(false).encode()[..], &frame(&message)[..10_000]].concat()).unwrap();
    let session = world.library.accept(server, LONG).unwrap();
    let try_for =
        |time: Option<Duration>| code(world.library.recv(session, &mut vec![0; 1 << 16], time).unwrap_err());
    // Whoever gives up leaves what has come, whether he waited or not.
    assert_eq!(try_for(Some(Duration::from_millis(20))), libc::EAGAIN);
    slow.write_all(&frame(&message)[10_000..15_000]).unwrap();
    assert_eq!(try_for(None), libc::EAGAIN);
    assert_eq!(try_for(Some(Duration::from_millis(20))), libc::EAGAIN);
    assert!(!readable(session, 0));
    // What a call takes before it waits is not what it waits for.
    slow.write_all(&frame(&message)[15_000..16_000]).unwrap();
    let begin = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in [&frame(&message)[16_000..], &frame(b"next")].concat().chunks(6_000) {
                std::thread::sleep(Duration::from_millis(5));
                slow.write_all(part).unwrap();
            }
        });
        let (received, bytes) = world.recv(session, 1 << 16);
        assert!(matches!(received, Received::Data { length: 40_000, end: true, .. }), "{received:?}");
        assert!(bytes == message);
        // The last of it woke the call, not its time-out.
        assert!(begin.elapsed() < LONG.unwrap() / 2);
        assert_eq!(world.text(session), "next");
    });
    // Less room than the message has: as much as there is room for, and the rest.
    slow.write_all(&frame(&message)).unwrap();
    assert!(world.recv(session, 30_000).1 == message[..30_000]);
    assert!(world.recv(session, 30_000).1 == message[30_000..]);
    // A message whose end never comes is none.
    slow.write_all(&frame(&message)[..20_000]).unwrap();
    drop(slow);
    assert_eq!(world.recv(session, 1 << 16).0, Received::End { session: 1 });
}

pub(in crate::socket) fn flags_end_or_break_a_session(world: World) {
    let many = world.serve(1, Style::SeqPacket);
    let user = world.connect(Style::Stream);
    assert_eq!(world.notice(many), Notification::SessionAdd { session: 1 });
    let eof = SendOptions { flags: 0x200, ..options(1) };
    assert_eq!(world.library.send(many, b"bye", eof).unwrap(), 3);
    assert_eq!(code(world.library.send(many, b"more", options(1)).unwrap_err()), libc::EPIPE);
    // Only the rest of a message is asked for, whatever else there is to be told.
    let (received, bytes) = world.recv(user, 2);
    assert!(matches!(received, Received::Data { end: false, .. }) && bytes == b"by", "{received:?}");
    let rest = world.library.recv_rest(user, 1, &mut [0; 9], LONG).unwrap();
    assert!(matches!(rest, Received::Data { length: 1, end: true, .. }), "{rest:?}");
    assert_eq!(code(world.library.recv_rest(user, 1, &mut [0; 9], LONG).unwrap_err()), libc::ECONNRESET);
    assert_eq!(world.recv(user, 99).0, Received::End { session: 1 });
    world.library.close(user).unwrap();
    // It was our own end: only the session's removal is news.
    assert_eq!(world.notice(many), Notification::SessionRemove { session: 1 });

    let user = world.connect(Style::Stream);
    assert_eq!(world.notice(many), Notification::SessionAdd { session: 1 });
    let abort = SendOptions { flags: 4, ..options(1) };
    assert_eq!(world.library.send(many, b"", abort).unwrap(), 0);
    assert_eq!(world.notice(many), Notification::SessionRemove { session: 1 });
    assert_eq!(world.recv(user, 99).0, Received::End { session: 1 });
}

pub(in crate::socket) fn threads_share_a_session(world: World) {
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let echo = {
        let library = world.library.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(Received::Data { length, .. }) = library.recv(session, &mut buffer, LONG) {
                library.send(session, &buffer[..length], options(1)).unwrap();
            }
        })
    };
    let sender = {
        let library = world.library.clone();
        thread::spawn(move || {
            for index in 0..5000u32 {
                library.send(user, &index.to_be_bytes().repeat(1 + index as usize % 50), options(1)).unwrap();
            }
        })
    };
    for index in 0..5000u32 {
        let (received, bytes) = world.recv(user, 1000);
        assert!(matches!(received, Received::Data { end: true, .. }));
        assert!(bytes == index.to_be_bytes().repeat(1 + index as usize % 50), "{index}");
    }
    sender.join().unwrap();
    world.library.close(user).unwrap();
    echo.join().unwrap();
}
