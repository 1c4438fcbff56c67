//! What a descriptor is: readiness, poll, mapped numbers, its end.

use super::*;

pub(in crate::socket) fn other_event_loops_see_exactly_what_there_is(world: World) {
    let server = world.serve(7, Style::Stream);
    assert!(!readable(server, 0));
    let user = world.connect(Style::Stream);
    assert!(readable(server, 60_000));
    let session = world.library.accept(server, Some(Duration::ZERO)).unwrap();
    assert!(!readable(server, 0));
    assert!(!readable(session, 0) && !readable(user, 0));
    // Two messages in one go: the second one is read ahead, and still there for all to see.
    world.send(user, b"one");
    world.send(user, b"two");
    assert!(readable(session, 60_000));
    while world.is_tcp() && pending(&world, session) < 2 * 15 {}
    assert_eq!(world.text(session), "one");
    assert!(readable(session, if world.is_tcp() { 0 } else { 60_000 }));
    assert_eq!(world.text(session), "two");
    assert!(!readable(session, 0));
    assert_eq!(world.nothing(session), libc::EAGAIN);
    world.send(session, b"back");
    assert!(readable(user, 60_000));
    assert_eq!(world.text(user), "back");
    assert!(!readable(user, 0));
}

pub(in crate::socket) fn closing_ends_every_wait(world: World) {
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let idle = world.connect(Style::Stream);
    let _other_end = world.library.accept(server, LONG).unwrap();
    let (entered, inside) = mpsc::channel();
    let spawn = |call: fn(&Library, RawFd) -> i32, sd| {
        let (library, entered) = (world.library.clone(), entered.clone());
        thread::spawn(move || {
            entered.send(()).unwrap();
            call(&library, sd)
        })
    };
    let waiting = [
        spawn(|library, sd| code(library.recv(sd, &mut [0; 9], LONG).unwrap_err()), idle),
        spawn(|library, sd| code(library.recv(sd, &mut [0; 9], LONG).unwrap_err()), idle),
        spawn(|library, sd| code(library.accept(sd, None).unwrap_err()), server),
        spawn(
            |library, sd| loop {
                if let Err(error) = library.send(sd, &[0; 100_000], options(1)) {
                    return code(error);
                }
            },
            user,
        ),
        spawn(
            |library, sd| {
                let mut entries = [PollEntry { sd, events: libc::POLLIN, revents: 0 }];
                library.poll(&mut entries, None).unwrap();
                i32::from(entries[0].revents)
            },
            session,
        ),
    ];
    waiting.iter().for_each(|_| inside.recv().unwrap());
    // Nobody reads: that sender has to wait sooner or later.
    // (The server comes last: with it, the element leaves its pool, and its users leave it.)
    for sd in [idle, user, session, server] {
        world.library.close(sd).unwrap();
    }
    let results = waiting.map(|thread| thread.join().unwrap());
    assert_eq!(results[..4], [libc::EBADF; 4]);
    // The poll may have seen data before the close.
    assert!([i32::from(libc::POLLNVAL), i32::from(libc::POLLIN)].contains(&results[4]));
}

#[test]
fn what_was_sent_before_close_arrives() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    world.send(user, b"unread");
    let big = vec![7; 4 << 20];
    // More than the kernel takes, with something unread on the closing side: both would cut it.
    let now = SendOptions { timeout: None, ..options(1) };
    assert_eq!(world.library.send(session, &big, now).unwrap(), big.len());
    world.library.close(session).unwrap();
    let (received, bytes) = world.recv(user, 5 << 20);
    assert!(matches!(received, Received::Data { end: true, .. }), "{received:?}");
    assert!(bytes == big);
}

/// Each end sends more than there is room for, and the other one does not read before it is done.
#[test]
fn a_closed_session_hears_out_whoever_sends_before_he_reads() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let big = vec![7; 12 << 20];
    let now = SendOptions { timeout: None, ..options(1) };
    assert_eq!(world.library.send(user, &big, now).unwrap(), big.len());
    thread::scope(|scope| {
        let answer = scope.spawn(|| world.send(session, &big));
        world.library.close(user).unwrap();
        answer.join().unwrap();
    });
    let (received, bytes) = world.recv(session, 13 << 20);
    assert!(matches!(received, Received::Data { end: true, .. }), "{received:?}");
    assert!(bytes == big);
}

/// A reader is called off, and the peer sends on: that must not cut what is under way to it.
#[test]
fn what_was_sent_before_close_arrives_though_a_reader_was_called_off() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let big = vec![7; 12 << 20];
    thread::scope(|scope| {
        let waiting = once_asleep(scope, || code(world.library.recv(user, &mut [0; 9], LONG).unwrap_err()));
        let now = SendOptions { timeout: None, ..options(1) };
        assert_eq!(world.library.send(user, &big, now).unwrap(), big.len());
        world.library.close(user).unwrap();
        assert_eq!(waiting.join().unwrap(), libc::EBADF);
    });
    for _ in 0..10 {
        world.send(session, b"are you there?");
        thread::sleep(Duration::from_millis(5));
    }
    let (received, bytes) = world.recv(session, 13 << 20);
    assert!(matches!(received, Received::Data { end: true, .. }), "{received:?}");
    assert!(bytes == big);
}

pub(in crate::socket) fn poll_counts_what_there_is(world: World) {
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let number = world.library.map(far.as_raw_fd(), Some(4000)).unwrap();
    assert_eq!(number, 4000);
    let poll = |timeout| {
        let entry = |sd, events| PollEntry { sd, events, revents: 99 };
        let mut entries = [
            entry(server, libc::POLLIN),
            entry(user, libc::POLLIN | libc::POLLOUT),
            entry(session, libc::POLLIN),
            entry(number, libc::POLLIN),
            entry(-1, libc::POLLIN),
            entry(far.as_raw_fd(), libc::POLLIN),
        ];
        let count = world.library.poll(&mut entries, timeout).unwrap();
        (count, entries.map(|entry| entry.revents))
    };
    let (in_, out) = (libc::POLLIN, libc::POLLOUT);
    assert_eq!(poll(Some(Duration::ZERO)), (1, [0, out, 0, 0, 0, 0]));
    near.write_all(b"x").unwrap();
    assert_eq!(poll(LONG), (3, [0, out, 0, in_, 0, in_]));
    // A cookie is not for the application: the poll eats it.
    world.library.send_cookie(session, b"cookie", 1, LONG).unwrap();
    assert!(readable(user, 60_000));
    assert_eq!(poll(None), (3, [0, out, 0, in_, 0, in_]));
    assert!(!readable(user, 0));
    assert!(world.library.has_cookie(user).unwrap());
    world.send(user, b"data");
    while pending(&world, session) == 0 {}
    assert_eq!(poll(None), (4, [0, out, in_, in_, 0, in_]));
    assert_eq!(world.text(session), "data");
}

#[test]
fn mapped_numbers() {
    let library = world().library.clone();
    let (_, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let far = far.as_raw_fd();
    assert_eq!(library.mapped(0).unwrap(), Some(0));
    assert_eq!(library.map(far, None).unwrap(), far);
    assert_eq!(library.mapped(far).unwrap(), Some(far));
    assert_eq!(code(library.map(far, Some(1)).unwrap_err()), libc::EMFILE);
    assert_eq!(code(library.map(-1, None).unwrap_err()), libc::EINVAL);
    library.unmap(far).unwrap();
    assert_eq!(code(library.unmap(far).unwrap_err()), libc::EBADF);
    let sd = library.socket(0, Style::Stream, 0).unwrap();
    assert_eq!(library.mapped(sd).unwrap(), None);
    assert_eq!(code(library.unmap(sd).unwrap_err()), libc::EBADF);
    assert_eq!(code(library.map(far, Some(sd)).unwrap_err()), libc::EMFILE);
    // A number that is taken by a mapping is not given to a socket.
    let next = library.socket(0, Style::Stream, 0).unwrap();
    library.close(next).unwrap();
    library.map(far, Some(next)).unwrap();
    let other = library.socket(0, Style::Stream, 0).unwrap();
    assert_ne!(other, next);
    assert_eq!(code(library.mapped(99_999).unwrap_err()), libc::EBADF);
}

pub(in crate::socket) fn what_a_descriptor_is_not_for(world: World) {
    let library = &world.library;
    assert_eq!(code(library.socket(0, Style::Stream, libc::IPPROTO_UDP).unwrap_err()), libc::EPROTONOSUPPORT);
    assert_eq!(code(library.socket(libc::AF_UNIX, Style::Stream, 0).unwrap_err()), libc::EAFNOSUPPORT);
    for bad in [-1, 0, 77_777, RawFd::MAX] {
        assert_eq!(code(library.recv(bad, &mut [], None).unwrap_err()), libc::EBADF);
        assert_eq!(code(library.send(bad, b"x", options(1)).unwrap_err()), libc::EBADF);
        assert_eq!(code(library.listen(bad, 1).unwrap_err()), libc::EBADF);
    }
    let fresh = library.socket(0, Style::Stream, 0).unwrap();
    assert_eq!(world.nothing(fresh), libc::ENOTCONN);
    assert_eq!(code(library.send(fresh, b"x", options(0)).unwrap_err()), libc::EBADF);
    assert_eq!(code(library.accept(fresh, None).unwrap_err()), libc::EINVAL);
    assert_eq!(code(library.force_failover(fresh, false, Duration::ZERO).unwrap_err()), libc::EBADF);
    assert_eq!(code(library.deregister(fresh, false).unwrap_err()), libc::EBADF);
    assert_eq!(code(library.local_name(fresh).unwrap_err()), libc::EBADF);
    assert_eq!(code(library.set_status(fresh, 1, "busy").unwrap_err()), libc::EINVAL);
    assert!(library.system_socket(fresh).unwrap() > 2);
    let many = world.serve(1, Style::SeqPacket);
    assert_eq!(code(library.accept(many, None).unwrap_err()), libc::EOPNOTSUPP);
    assert_eq!(world.nothing(many), libc::EAGAIN);
    assert_eq!(code(library.send_cookie(many, b"c", 1, None).unwrap_err()), libc::EINVAL);
    let user = world.connect(Style::Stream);
    assert_eq!(code(library.send(user, b"", options(1)).unwrap_err()), libc::EINVAL);
    let too_long = vec![0; crate::machine::session::MAX_COOKIE + 1];
    assert_eq!(world.notice(many), Notification::SessionAdd { session: 1 });
    assert_eq!(code(library.send_cookie(many, &too_long, 1, None).unwrap_err()), libc::EMSGSIZE);
    assert_eq!(library.send_cookie(many, &too_long[1..], 1, LONG).unwrap(), too_long.len() - 1);
    let change = SessionParameters { rto_max: 100, ..SessionParameters::default() };
    let now = library.session_parameters(user, change).unwrap();
    assert_eq!((now.rto_max, now.hb_interval), (100, 15_000));
}

#[test]
#[allow(unsafe_code)]
fn a_fork_is_somebody_else() {
    let world = world();
    assert!(!world.library.is_forked());
    // SAFETY: the child only reads an atomic and leaves.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let refused = world.library.check_process().is_err_and(|error| code(error) == libc::EACCES);
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    assert!(!world.library.is_forked());
}

/// Who waits in a receive has nothing, and so has everybody else.
#[test]
fn what_a_thread_waits_for_is_not_there() {
    let world = world();
    let server = world.serve(1, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    thread::scope(|scope| {
        let waiting = once_asleep(scope, || world.text(user));
        assert_eq!(world.poll_in(user, Duration::from_millis(20)), 0);
        assert_eq!(world.nothing(user), libc::EAGAIN);
        let late = world.library.recv(user, &mut [0; 9], Some(Duration::from_millis(30)));
        assert_eq!(code(late.unwrap_err()), libc::EAGAIN);
        assert!(!waiting.is_finished());
        world.send(session, b"here");
        assert_eq!(waiting.join().unwrap(), "here");
        // A failover by somebody else ends the wait and does not cost anything.
        let waiting = once_asleep(scope, || world.text(user));
        world.library.force_failover(user, false, Duration::ZERO).unwrap();
        let moved = world.library.accept(server, LONG).unwrap();
        world.send(moved, b"there");
        assert_eq!(waiting.join().unwrap(), "there");
    });
}
