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
