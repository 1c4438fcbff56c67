//! Sockets over a directory that a test fills by hand; most of it over TCP and over SCTP.

pub(super) mod data;
pub(super) mod descriptors;
pub(super) mod failover;
pub(super) mod many;
mod peers;
mod secure;
pub(super) mod sendto;
pub(super) mod silence;

use super::channel::conn::Conn;
use super::descriptor::endpoint::Endpoint;
use super::descriptor::entry::EntryRole;
use super::*;
use crate::machine::LinkProtocol;
use crate::machine::client::{self, RequestError};
use crate::runtime::{Answer, Directory, Watcher};
use crate::transport::sctp_socket::send_flags;
use crate::transport::stream;
use crate::wire::session_frame::{FrameHeader, Greeting};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use parking_lot::Mutex;
use std::any::Any;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

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
    acquainted: Vec<PoolHandle>,
    watchers: Vec<(PeId, Arc<dyn Watcher>)>,
    /// How often each element registers again.
    intervals: Vec<Duration>,
    /// How many elements were asked for.
    asked: Vec<usize>,
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

    /// Who was reported as unreachable.
    pub(super) fn reported(&self) -> Vec<u32> {
        self.0.lock().reported.iter().map(|id| id.0).collect()
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
        let mut state = self.0.lock();
        state.elements.push(new.element);
        state.intervals.push(new.interval);
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
        state.asked.push(items);
        let chosen: Vec<_> = state.elements.iter().take(items).cloned().collect();
        let turn = chosen.len().min(1);
        state.elements.rotate_left(turn);
        Ok(chosen)
    }
    fn acquaint(&self, handle: &PoolHandle) {
        self.0.lock().acquainted.push(handle.clone());
    }
    fn purge(&self, _: &PoolHandle) {}
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
            data::a_message_goes_and_comes_back
            descriptors::other_event_loops_see_exactly_what_there_is
            data::long_messages_keep_their_boundaries
            data::a_small_buffer_loses_nothing
            many::many_sessions_on_one_descriptor
            many::messages_of_many_sessions_stay_whole
            failover::a_failed_element_is_left_with_cookie_and_data_first
            failover::an_element_that_leaves_its_pool_is_left_at_once
            failover::an_empty_pool_leaves_a_session_to_be_moved
            failover::elements_that_refuse_are_passed_over_and_reported
            descriptors::closing_ends_every_wait
            descriptors::poll_counts_what_there_is
            descriptors::what_a_descriptor_is_not_for
            data::flags_end_or_break_a_session
            data::threads_share_a_session
            silence::a_peer_that_does_not_read_is_alive
            sendto::messages_go_to_pools_without_sessions
            sendto::messages_go_to_all_elements_of_a_pool
            sendto::a_choice_that_fails_is_made_anew
            sendto::who_may_send_without_a_session
        }
    };
    ($world:expr; $($subject:ident :: $name:ident)*) => {
        $(#[test]
        fn $name() {
            if let Some(world) = $world {
                $crate::socket::tests::$subject::$name(world);
            }
        })*
    };
}
pub(super) use tests_over;

mod over_tcp {
    super::tests_over! { Some(super::world()) }
}

mod over_tls {
    super::tests_over! { Some(super::secure::world()) }
}

impl World {
    fn is_tcp(&self) -> bool {
        self.protocol == LinkProtocol::Tcp
    }

    /// A session's connection.
    pub(super) fn conn(&self, sd: RawFd) -> Arc<Conn> {
        self.library.single(&self.library.entry(sd).unwrap()).unwrap().conn().unwrap()
    }

    /// A listening element on 127.0.0.1.
    pub(super) fn serve(&self, id: u32, style: Style) -> RawFd {
        let sd = self.library.socket(0, style, libc::IPPROTO_SCTP).unwrap();
        self.library.bind(sd, &["127.0.0.1:0".parse().unwrap()]).unwrap();
        self.library.listen(sd, 10).unwrap();
        let (id, interval) = (Some(PeId(id)), Duration::from_secs(30));
        let policy = Policy::RoundRobin;
        let registration =
            Registration { handle: pool(), policy, id, interval, wait: true, daemon: false, advertise: None };
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
        code(self.library.recv(sd, &mut [0; 99], None).unwrap_err())
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

/// What C gets to see of it.
pub(super) fn code(error: SocketError) -> i32 {
    crate::ffi::errno_of(error)
}

/// What the kernel holds for a session.
fn pending(world: &World, sd: RawFd) -> usize {
    stream::pending(world.conn(sd).as_fd())
}

/// Runs `call` on a thread of its own, and returns once that sleeps.
pub(super) fn once_asleep<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    call: impl FnOnce() -> T + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, T> {
    let (tell, told) = mpsc::channel();
    let thread = scope.spawn(move || {
        tell.send(nix::unistd::gettid()).unwrap();
        call()
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
    let is_asleep = || {
        let stat = std::fs::read_to_string(&stat).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    };
    // Sleeping, not only waiting for a lock in passing.
    while !(is_asleep() && {
        thread::sleep(Duration::from_millis(5));
        is_asleep()
    }) {
        thread::yield_now();
    }
    thread
}

fn borrowed(world: &World, sd: RawFd) -> Arc<OwnedFd> {
    let number = world.library.system_socket(sd).unwrap();
    match world.library.entry(sd).unwrap().role() {
        EntryRole::Listener(listener) => Arc::new(listener.endpoint().as_fd().try_clone_to_owned().unwrap()),
        EntryRole::Many(many) => Arc::new(many.endpoint().as_fd().try_clone_to_owned().unwrap()),
        other => panic!("{number}: {other:?}"),
    }
}
