//! One descriptor with many sessions.

use super::*;

pub(in crate::socket) fn many_sessions_on_one_descriptor(world: World) {
    let server = world.serve(7, Style::SeqPacket);
    let users = [world.connect(Style::SeqPacket), world.connect(Style::Stream)];
    for session in [1, 2] {
        assert_eq!(world.notice(server), Notification::SessionAdd { session });
    }
    for (index, user) in users.iter().enumerate() {
        world.send(*user, format!("from {index}").as_bytes());
        let (received, bytes) = world.recv(server, 100);
        let Received::Data { session, .. } = received else { panic!("{received:?}") };
        assert_eq!(bytes, format!("from {index}").as_bytes());
        assert_eq!(world.library.send(server, b"yes", options(session)).unwrap(), 3);
        assert_eq!(world.text(*user), "yes");
    }
    assert_eq!(code(world.library.send(server, b"?", options(3)).unwrap_err()), libc::EBADF);
    world.library.close(users[0]).unwrap();
    assert_eq!(world.notice(server), Notification::Shutdown { session: 1 });
    // The number is not given away before its end was told.
    let third = world.connect(Style::Stream);
    assert_eq!(world.notice(server), Notification::SessionRemove { session: 1 });
    let session = match world.notice(server) {
        Notification::SessionAdd { session } => session,
        other => panic!("{other:?}"),
    };
    assert_eq!(world.nothing(server), libc::EAGAIN);
    assert!(!readable(server, 0));
    assert_eq!(world.library.send(server, b"third", options(session)).unwrap(), 5);
    assert_eq!(world.text(third), "third");
}

pub(in crate::socket) fn messages_of_many_sessions_stay_whole(world: World) {
    let sizes = [10, 100_000, 300, if world.is_tcp() { 700_000 } else { 200_000 }, 5000];
    let server = world.serve(7, Style::SeqPacket);
    let senders: Vec<_> = (0..4u8)
        .map(|who| {
            let (library, user) = (world.library.clone(), world.connect(Style::Stream));
            thread::spawn(move || {
                for size in sizes {
                    library.send(user, &vec![who; size], options(1)).unwrap();
                }
            })
        })
        .collect();
    let mut messages = 0;
    while messages < 20 {
        let (received, bytes) = world.recv(server, 1 << 20);
        let Received::Data { end, .. } = received else { continue };
        assert!(end && sizes.contains(&bytes.len()), "{received:?}");
        assert!(bytes.iter().all(|&byte| byte == bytes[0]));
        messages += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

/// Peers that stall in the middle of long messages hold others up once together, not once each.
#[test]
fn messages_that_stall_hold_others_up_once() {
    const STALLING: usize = 100;
    let world = world();
    let server = world.serve(7, Style::SeqPacket);
    let address = world.fake.cached(&pool(), 1)[0].transport.socket_addresses().next().unwrap();
    let honest = world.connect(Style::Stream);
    assert_eq!(world.notice(server), Notification::SessionAdd { session: 1 });
    let mut stalling: Vec<TcpStream> = (0..STALLING)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&Greeting::ours(false).encode()).unwrap();
            assert!(matches!(world.notice(server), Notification::SessionAdd { .. }));
            stream
        })
        .collect();
    let (begin, end, unordered, control) = (true, true, false, false);
    let header =
        FrameHeader { begin, end, unordered, control, stream: 0, length: 16 << 20, ppid: [0; 4] }.encode();
    for stream in &mut stalling {
        stream.write_all(&[&header[..], &[b'x'; 1000]].concat()).unwrap();
    }
    world.send(honest, b"here");
    let begin = std::time::Instant::now();
    while world.recv(server, 1 << 16).1 != b"here" {}
    // The rest that each of them gets would be a second.
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    // What comes later of them holds nobody up either.
    for stream in &mut stalling {
        stream.write_all(b"more").unwrap();
    }
    world.send(honest, b"again");
    let begin = std::time::Instant::now();
    while world.recv(server, 1 << 16).1 != b"again" {}
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
}

/// A thread that aborts a session races with one that receives from it, and perhaps has just read ahead: what
/// is left of the session must not make the descriptor readable for ever.
#[test]
fn an_abort_leaves_nothing_to_a_receive_at_the_same_time() {
    const ROUNDS: u32 = 600;
    const SESSIONS: usize = 8;
    let world = world();
    let server = world.serve(7, Style::SeqPacket);
    for round in 0..ROUNDS {
        let mut sessions = Vec::new();
        let users: Vec<RawFd> = (0..SESSIONS).map(|_| world.connect(Style::Stream)).collect();
        while sessions.len() < SESSIONS {
            let Notification::SessionAdd { session } = world.notice(server) else { panic!("round {round}") };
            sessions.push(session);
        }
        for user in users.iter().flat_map(|user| [user, user]) {
            world.send(*user, b"the second one is read ahead");
        }
        let library = world.library.clone();
        let aborter = thread::spawn(move || {
            // Somewhere within the receives, which take the sessions in the same order.
            (0..round % 20 * 100).for_each(|_| std::hint::spin_loop());
            for session in sessions {
                let abort = SendOptions { flags: send_flags::ABORT, ..options(session) };
                library.send(server, b"", abort).unwrap();
            }
        });
        let mut removed = 0;
        while removed < SESSIONS {
            let (received, _) = world.recv(server, 100);
            removed += usize::from(matches!(received, Received::Notification(_)));
        }
        aborter.join().unwrap();
        assert!(!readable(server, 0), "round {round}");
        for user in users {
            world.library.close(user).unwrap();
        }
    }
}
