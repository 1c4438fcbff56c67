//! A one-to-many descriptor (`SOCK_SEQPACKET`, listening): accepts sessions and serves them all.

#![expect(clippy::disallowed_methods, reason = "a listener without descriptors pauses in real time")]

use super::conn::Conn;
use super::descriptor::{BEACON, Entry, LISTENER, Reason, STRANGERS};
use super::endpoint::Endpoint;
use super::linger::Linger;
use super::listener::Strangers;
use super::session::{Attempt, Session, check_room};
use super::table::Table;
use super::wait::{Deadline, Occasionally, errno};
use super::{Notification, Received, SessionId};
use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// New sessions taken per look at the listener, so that the others get their turn.
const ACCEPTS: usize = 64;
/// How long a listener rests when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks for something to receive before a poll gives up; each eats what only we care for.
const LOOKS: usize = 16;
/// Sessions served without anything to deliver, after which the time-out is looked at.
const IN_VAIN: usize = 256;

/// The sessions of a descriptor.
#[derive(Debug)]
pub(super) struct Many {
    endpoint: Arc<Endpoint>,
    sessions: Table<Arc<Session>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    strangers: Strangers,
    notices: VecDeque<Notification>,
    /// Sessions with a cookie echo to deliver.
    echoes: VecDeque<SessionId>,
    /// Sessions that have something, or seemed to.
    ready: VecDeque<SessionId>,
    /// Which sessions have data read ahead.
    buffered: BTreeSet<SessionId>,
    ids: Ids,
    /// Out of descriptors: the listener rests until then.
    paused: Option<Instant>,
}

/// Session numbers: the lowest that is free, as programs with arrays expect. A number is free again
/// only when the end of its last session was told.
#[derive(Debug, Default)]
struct Ids {
    free: BinaryHeap<Reverse<SessionId>>,
    last: SessionId,
}

impl Ids {
    fn take(&mut self) -> SessionId {
        if let Some(Reverse(id)) = self.free.pop() {
            return id;
        }
        self.last += 1;
        self.last
    }
}

impl Many {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Many {
        Many { endpoint, sessions: Table::new(), state: Mutex::default() }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(super) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(usize::try_from(id).ok()?)
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.numbers().into_iter().filter_map(|id| self.sessions.get(id)).collect()
    }

    /// Receives from whichever session has something.
    pub(super) fn receive(
        &self,
        entry: &Entry,
        linger: &Linger,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> io::Result<Received> {
        let mut events = [EpollEvent::empty(); 32];
        let mut in_vain = 0;
        loop {
            entry.check_open()?;
            if let Some(received) = self.queued(entry, buffer)? {
                return Ok(received);
            }
            let next = self.state.lock().ready.pop_front();
            if let Some(id) = next {
                if let Some(received) = self.serve(entry, linger, id, buffer, deadline)? {
                    return Ok(received);
                }
                // Peers that send nothing but control messages must not keep the caller for ever.
                in_vain += 1;
                if in_vain >= IN_VAIN && deadline.passed() {
                    return Err(errno(Errno::EAGAIN));
                }
                continue;
            }
            let wake = self.housekeep(entry);
            let count = entry.wait(&mut events, deadline.min(wake))?;
            self.sort(entry, &events[..count]);
            // Events that leave nothing to do, strangers' for example, don't make it longer.
            if deadline.passed() && count < events.len() && !self.has_work() {
                entry.check_open()?;
                return Err(errno(Errno::EAGAIN));
            }
        }
    }

    fn has_work(&self) -> bool {
        let state = self.state.lock();
        !(state.notices.is_empty() && state.echoes.is_empty() && state.ready.is_empty())
    }

    /// Notifications, then cookie echoes.
    fn queued(&self, entry: &Entry, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut state = self.state.lock();
        if !state.notices.is_empty() {
            check_room(buffer)?;
        }
        if let Some(notice) = state.notices.pop_front() {
            if let Notification::SessionRemove { session } = notice {
                state.ids.free.push(Reverse(session));
            }
            state.lower_queue(entry);
            return Ok(Some(Received::Notification(notice)));
        }
        while let Some(&id) = state.echoes.front() {
            let echo = match self.session(id) {
                Some(session) => session.first(entry, buffer)?,
                None => None,
            };
            if !matches!(echo, Some(Received::CookieEcho { end: false, .. })) {
                state.echoes.pop_front();
                state.lower_queue(entry);
            }
            if echo.is_some() {
                return Ok(echo);
            }
        }
        Ok(None)
    }

    fn serve(
        &self,
        entry: &Entry,
        linger: &Linger,
        id: SessionId,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> io::Result<Option<Received>> {
        let Some(session) = self.session(id) else { return Ok(None) };
        match session.attempt(entry, buffer, deadline, false)? {
            Attempt::Received(received) => {
                let mut state = self.state.lock();
                if matches!(received, Received::Data { end: false, .. }) {
                    // The rest of a message comes before anything else.
                    state.ready.push_front(id);
                } else if session.is_buffered() {
                    state.ready.push_back(id);
                }
                Ok(Some(received))
            }
            Attempt::Nothing => {
                if session.is_buffered() {
                    self.state.lock().ready.push_back(id);
                }
                Ok(None)
            }
            Attempt::Ended { in_order } => {
                self.remove(entry, linger, &session, in_order);
                Ok(None)
            }
        }
    }

    /// Whether a receive would find something; does what only we care for.
    pub(super) fn look(&self, entry: &Entry) -> bool {
        let mut events = [EpollEvent::empty(); 32];
        for _ in 0..LOOKS {
            let mut state = self.state.lock();
            if !state.notices.is_empty() || !state.echoes.is_empty() {
                return true;
            }
            let next = state.ready.pop_front();
            drop(state);
            if let Some(session) = next.and_then(|id| self.session(id)) {
                if session.look(entry) {
                    self.state.lock().ready.push_front(session.id);
                    return true;
                }
                continue;
            }
            self.housekeep(entry);
            match entry.wait(&mut events, Deadline::Now) {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.sort(entry, &events[..count]),
            }
        }
        true
    }

    /// Looks after strangers and a resting listener; when there will be something to do next.
    fn housekeep(&self, entry: &Entry) -> Deadline {
        let mut state = self.state.lock();
        let mut next = state.strangers.expire(entry);
        if let Some(until) = state.paused {
            if until <= Instant::now() && entry.rename(self.endpoint.as_fd(), LISTENER).is_ok() {
                state.paused = None;
            } else {
                next = next.min(Deadline::At(until.max(Instant::now() + Duration::from_millis(1))));
            }
        }
        next
    }

    /// Deals with what epoll says.
    fn sort(&self, entry: &Entry, events: &[EpollEvent]) {
        for event in events {
            match event.data() {
                BEACON => {}
                LISTENER => self.accept(entry),
                token if token > STRANGERS => {
                    let known = self.state.lock().strangers.hear(entry, token);
                    if let Some(conn) = known {
                        self.admit(entry, conn, true);
                    }
                }
                id => self.state.lock().ready.push_back(id as SessionId),
            }
        }
    }

    fn accept(&self, entry: &Entry) {
        let parameters = *entry.parameters.lock();
        for _ in 0..ACCEPTS {
            match self.endpoint.accept(&parameters) {
                Ok(Some((conn, peer))) => {
                    let known = self.state.lock().strangers.meet(entry, conn, peer);
                    if let Some(conn) = known {
                        self.admit(entry, conn, false);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    static QUIET: Occasionally = Occasionally::new();
                    if let Some(more) = QUIET.now() {
                        log::warn!("no new sessions for now: {error}{more}");
                    }
                    let mut state = self.state.lock();
                    if state.paused.replace(Instant::now() + PAUSE).is_none() {
                        // In somebody else's event loop, the next user who comes ends the rest.
                        entry.watch_for_news(self.endpoint.as_fd(), LISTENER);
                    }
                    return;
                }
            }
        }
        let mut state = self.state.lock();
        if state.paused.is_some() && entry.rename(self.endpoint.as_fd(), LISTENER).is_ok() {
            state.paused = None;
        }
    }

    /// A connection becomes a session. `known`: it is in the epoll instance already.
    fn admit(&self, entry: &Entry, conn: Arc<Conn>, known: bool) {
        let pool = entry.pool.lock().clone();
        let id = self.state.lock().ids.take();
        let session = Arc::new(Session::element(id, false, conn.clone(), pool));
        if self.sessions.set(id as usize, Some(session.clone())).is_err() {
            log::warn!("no number for a further session");
            entry.remove(conn.as_fd());
            return;
        }
        let mut state = self.state.lock();
        state.notices.push_back(Notification::SessionAdd { session: id });
        entry.raise(Reason::Queue);
        drop(state);
        // Its echo is queued after the notification, its data can be received only then.
        if let Ok(mut turn) = conn.receiving(Deadline::Never) {
            session.settle(entry, &conn, &mut turn);
        }
        if session.is_buffered() {
            self.state.lock().ready.push_back(id);
        }
        let token = id as u64;
        let added = if known { entry.rename(conn.as_fd(), token) } else { entry.add(conn.as_fd(), token) };
        if let Err(error) = added {
            log::warn!("session {id} can't be watched: {error}");
            conn.abort();
            self.state.lock().ready.push_back(id);
        }
    }

    /// A session is over.
    pub(super) fn remove(&self, entry: &Entry, linger: &Linger, session: &Arc<Session>, in_order: bool) {
        // Whoever takes it out of the table tells its end.
        if self.sessions.take(session.id as usize).is_none() {
            return;
        }
        if let Some(conn) = session.conn() {
            entry.remove(conn.as_fd());
        }
        session.close(linger);
        let id = session.id;
        let mut state = self.state.lock();
        if state.buffered.remove(&id) && state.buffered.is_empty() {
            entry.lower(Reason::Buffered);
        }
        if in_order && !session.ended_here() {
            state.notices.push_back(Notification::Shutdown { session: id });
        }
        state.notices.push_back(Notification::SessionRemove { session: id });
        entry.raise(Reason::Queue);
    }

    /// A session's echo was delivered.
    pub(super) fn echo_delivered(&self, entry: &Entry, id: SessionId) {
        let mut state = self.state.lock();
        state.echoes.retain(|&other| other != id);
        state.lower_queue(entry);
    }

    pub(super) fn has_echo(&self, entry: &Entry, id: SessionId) {
        self.state.lock().echoes.push_back(id);
        entry.raise(Reason::Queue);
    }

    /// Whether a session has data read ahead has changed. One that was removed meanwhile has none.
    pub(super) fn buffered(&self, entry: &Entry, session: &Session) {
        let mut state = self.state.lock();
        let there = || self.session(session.id).is_some_and(|now| std::ptr::eq(&raw const *now, session));
        if session.is_buffered() && there() {
            // It stands in line already, or whoever receives from it puts it there.
            state.buffered.insert(session.id);
            entry.raise(Reason::Buffered);
        } else if state.buffered.remove(&session.id) && state.buffered.is_empty() {
            entry.lower(Reason::Buffered);
        }
    }

    /// The descriptor is closed.
    pub(super) fn close(&self, linger: &Linger) {
        for session in self.sessions() {
            session.close(linger);
        }
    }
}

impl State {
    fn lower_queue(&self, entry: &Entry) {
        if self.notices.is_empty() && self.echoes.is_empty() {
            entry.lower(Reason::Queue);
        }
    }
}
