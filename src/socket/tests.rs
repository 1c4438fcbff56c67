//! Sockets over a directory that a test fills by hand; most of it over TCP and over SCTP.

use super::*;
use crate::machine::client::RequestError;
use crate::runtime::Watcher;
use crate::transport::stream;
use crate::wire::session_frame::{FrameHeader, Greeting};
use crate::wire::{Protocol, RegistrarId, TransportUse};
use std::any::Any;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

/// Long enough for any machine; nothing waits that long unless it is broken.
pub(super) const LONG: Option<Duration> = Some(Duration::from_secs(60));
pub(super) const FAST: ConnectOptions =
    ConnectOptions { connect_timeout: Duration::from_secs(30), retry_delay: Duration::from_millis(20) };

/// One pool, its elements in the order in which they are chosen.
#[derive(Default)]
pub(super) struct Fake(Mutex<State>);

#[derive(Default)]
struct State {
    elements: Vec<PoolElement>,
    reported: Vec<PeId>,
    watchers: Vec<(PeId, Arc<dyn Watcher>)>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub(super) fn add(&self, id: u32, protocol: Protocol, usage: TransportUse, address: SocketAddr) {
        let addresses = vec![address.ip()];
        let transport = Transport::new(protocol, usage, address.port(), addresses);
        let (id, policy, home) = (PeId(id), Policy::RoundRobin, RegistrarId(0));
        self.0.lock().elements.push(PoolElement { id, home, life: 1, transport, policy, asap: None });
    }

    /// The pool loses an element, and everybody who watches it hears of it.
    pub(super) fn lose(&self, id: u32) {
        let mut state = self.0.lock();
        state.elements.retain(|element| element.id != PeId(id));
        let watchers: Vec<_> = state.watchers.iter().filter(|(of, _)| of.0 == id).cloned().collect();
        drop(state);
        watchers.iter().for_each(|(_, watcher)| watcher.element_gone());
    }
}

impl Directory for Fake {
    fn register(&self, new: client::Registration) -> Result<Answer<RegistrarId>, RequestError> {
        self.0.lock().elements.push(new.element);
        Ok(Answer::ready(RegistrarId(1)))
    }
    fn deregister(&self, _: &PoolHandle, id: PeId) -> Result<Answer<()>, RequestError> {
        self.lose(id.0);
        Ok(Answer::ready(()))
    }
    fn resolve_while(
        &self,
        _: &PoolHandle,
        items: usize,
        _: Duration,
        _: &dyn Fn() -> bool,
    ) -> Result<Vec<PoolElement>, RequestError> {
        let mut state = self.0.lock();
        let chosen: Vec<_> = state.elements.iter().take(items).cloned().collect();
        let turn = chosen.len().min(1);
        state.elements.rotate_left(turn);
        Ok(chosen)
    }
    fn report_unreachable(&self, _: &PoolHandle, id: PeId) {
        let mut state = self.0.lock();
        state.reported.push(id);
        state.elements.retain(|element| element.id != id);
    }
    fn watch(&self, _: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Box<dyn Any + Send + Sync> {
        self.0.lock().watchers.push((id, watcher));
        Box::new(())
    }
    fn cached(&self, _: &PoolHandle, items: usize) -> Vec<PoolElement> {
        self.0.lock().elements.iter().take(items).cloned().collect()
    }
    fn shutdown(&self) {}
}

pub(super) struct World {
    pub(super) fake: Arc<Fake>,
    pub(super) library: Arc<Library>,
    protocol: LinkProtocol,
}

impl Drop for World {
    fn drop(&mut self) {
        self.library.shutdown();
    }
}

pub(super) fn pool() -> PoolHandle {
    PoolHandle::new(b"pool").unwrap()
}

fn world() -> World {
    world_of(&[LinkProtocol::Tcp])
}

/// A process that may use these, best first.
pub(super) fn world_of(protocols: &[LinkProtocol]) -> World {
    let fake = Arc::new(Fake::default());
    let library = Arc::new(Library::with_directory(fake.clone(), protocols));
    World { library, fake, protocol: protocols[0] }
}

/// Tests that hold over every transport.
macro_rules! tests_over {
    ($world:expr) => {
        $crate::socket::tests::tests_over! { $world;
            a_message_goes_and_comes_back
            other_event_loops_see_exactly_what_there_is
            long_messages_keep_their_boundaries
            a_small_buffer_loses_nothing
            many_sessions_on_one_descriptor
            messages_of_many_sessions_stay_whole
            a_failed_element_is_left_with_cookie_and_data_first
            an_element_that_leaves_its_pool_is_left_at_once
            an_empty_pool_leaves_a_session_to_be_moved
            elements_that_refuse_are_passed_over_and_reported
            closing_ends_every_wait
            poll_counts_what_there_is
            what_a_descriptor_is_not_for
            flags_end_or_break_a_session
            threads_share_a_session
        }
    };
    ($world:expr; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            if let Some(world) = $world {
                $crate::socket::tests::$name(world);
            }
        })*
    };
}
pub(super) use tests_over;

mod over_tcp {
    super::tests_over! { Some(super::world()) }
}

impl World {
    fn is_tcp(&self) -> bool {
        self.protocol == LinkProtocol::Tcp
    }

    /// A listening element on 127.0.0.1.
    pub(super) fn serve(&self, id: u32, style: Style) -> RawFd {
        let sd = self.library.socket(0, style, libc::IPPROTO_SCTP).unwrap();
        self.library.bind(sd, &["127.0.0.1:0".parse().unwrap()]).unwrap();
        self.library.listen(sd, 10).unwrap();
        let (id, interval) = (Some(PeId(id)), Duration::from_secs(30));
        let policy = Policy::RoundRobin;
        let registration = Registration { handle: pool(), policy, id, interval, wait: true, daemon: false };
        self.library.register(sd, registration).unwrap();
        sd
    }

    pub(super) fn connect(&self, style: Style) -> RawFd {
        let sd = self.library.socket(0, style, libc::IPPROTO_SCTP).unwrap();
        self.library.connect(sd, Some(pool()), Duration::ZERO, FAST).unwrap();
        sd
    }

    pub(super) fn send(&self, sd: RawFd, data: &[u8]) {
        assert_eq!(self.library.send(sd, data, options(1)).unwrap(), data.len());
    }

    pub(super) fn recv(&self, sd: RawFd, length: usize) -> (Received, Vec<u8>) {
        let mut buffer = vec![0; length];
        let received = self.library.recv(sd, &mut buffer, LONG).unwrap();
        let length = match received {
            Received::Data { length, .. } | Received::CookieEcho { length, .. } => length,
            _ => 0,
        };
        buffer.truncate(length);
        (received, buffer)
    }

    pub(super) fn text(&self, sd: RawFd) -> String {
        let (received, bytes) = self.recv(sd, 1 << 16);
        assert!(matches!(received, Received::Data { end: true, .. }), "{received:?}");
        String::from_utf8(bytes).unwrap()
    }

    pub(super) fn notice(&self, sd: RawFd) -> Notification {
        match self.recv(sd, 100).0 {
            Received::Notification(notice) => notice,
            other => panic!("{other:?}"),
        }
    }

    /// errno of a receive that does not wait.
    pub(super) fn nothing(&self, sd: RawFd) -> i32 {
        self.library.recv(sd, &mut [0; 99], None).unwrap_err().raw_os_error().unwrap()
    }

    pub(super) fn poll_in(&self, sd: RawFd, timeout: Duration) -> i16 {
        let mut entries = [PollEntry { sd, events: libc::POLLIN, revents: 0 }];
        self.library.poll(&mut entries, Some(timeout)).unwrap();
        entries[0].revents
    }
}

pub(super) fn options(session: SessionId) -> SendOptions {
    SendOptions { session, ppid: 0x0102_0304, stream: 5, timeout: LONG, ..SendOptions::default() }
}

/// The kernel's opinion, as another event loop sees it.
pub(super) fn readable(sd: RawFd, milliseconds: i32) -> bool {
    let mut entry = [libc::pollfd { fd: sd, events: libc::POLLIN, revents: 0 }];
    stream::poll(&mut entry, milliseconds).unwrap() > 0
}

pub(super) fn code(error: io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

pub(super) fn a_message_goes_and_comes_back(world: World) {
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

pub(super) fn other_event_loops_see_exactly_what_there_is(world: World) {
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

/// What the kernel holds for a session.
fn pending(world: &World, sd: RawFd) -> usize {
    let conn = world.library.single(&world.library.entry(sd).unwrap()).unwrap().conn().unwrap();
    stream::pending(conn.as_fd())
}

pub(super) fn long_messages_keep_their_boundaries(world: World) {
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

pub(super) fn a_small_buffer_loses_nothing(world: World) {
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

pub(super) fn many_sessions_on_one_descriptor(world: World) {
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

pub(super) fn messages_of_many_sessions_stay_whole(world: World) {
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

pub(super) fn a_failed_element_is_left_with_cookie_and_data_first(world: World) {
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

pub(super) fn an_element_that_leaves_its_pool_is_left_at_once(world: World) {
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

pub(super) fn an_empty_pool_leaves_a_session_to_be_moved(world: World) {
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

pub(super) fn elements_that_refuse_are_passed_over_and_reported(world: World) {
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

pub(super) fn closing_ends_every_wait(world: World) {
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
        let header = FrameHeader {
            begin: true,
            end: true,
            unordered: false,
            control: false,
            stream: 0,
            length: 2,
            ppid: [0; 4],
        };
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
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in [&frame(&message)[15_000..], &frame(b"next")].concat().chunks(6_000) {
                std::thread::sleep(Duration::from_millis(5));
                slow.write_all(part).unwrap();
            }
        });
        let (received, bytes) = world.recv(session, 1 << 16);
        assert!(matches!(received, Received::Data { length: 40_000, end: true, .. }), "{received:?}");
        assert!(bytes == message);
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

fn borrowed(world: &World, sd: RawFd) -> Arc<OwnedFd> {
    let number = world.library.system_socket(sd).unwrap();
    match world.library.entry(sd).unwrap().role() {
        Role::Listener(listener) => Arc::new(listener.endpoint().as_fd().try_clone_to_owned().unwrap()),
        Role::Many(many) => Arc::new(many.endpoint().as_fd().try_clone_to_owned().unwrap()),
        other => panic!("{number}: {other:?}"),
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

pub(super) fn poll_counts_what_there_is(world: World) {
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

pub(super) fn what_a_descriptor_is_not_for(world: World) {
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

pub(super) fn flags_end_or_break_a_session(world: World) {
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

pub(super) fn threads_share_a_session(world: World) {
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
