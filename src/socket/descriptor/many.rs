//! A one-to-many descriptor (`SOCK_SEQPACKET`, listening): accepts sessions and serves them all.

#![expect(clippy::disallowed_methods, reason = "a listener without descriptors pauses in real time")]

use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::base::Base;
use crate::socket::descriptor::door::Door;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::partners::{Partner, Partners};
use crate::socket::descriptor::strangers::{LISTENER, STRANGERS, Strangers};
use crate::socket::descriptor::table::Table;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Deadline;
use crate::socket::readiness::{BEACON, Readiness};
use crate::socket::session::hub::Hub;
use crate::socket::session::pool::Circle;
use crate::socket::session::told::{ConnectOptions, Notification, Received, SessionId, Undelivered};
use crate::socket::session::{Attempt, Outlet, Session, check_room};
use crate::wire::PoolHandle;
use nix::sys::epoll::EpollEvent;
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
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
pub(crate) struct Many {
    base: Arc<Base>,
    endpoint: Arc<Endpoint>,
    /// Where those come from who have proved themselves; `None`: nobody has to.
    door: OnceLock<Arc<Door>>,
    hub: Arc<Hub>,
    sessions: Table<Arc<Session>>,
    state: Mutex<ManyState>,
    /// Who is written to without a session of the program's.
    partners: Mutex<Partners>,
}

#[derive(Debug, Default)]
struct ManyState {
    strangers: Strangers,
    /// Whom to serve before the kernel is asked again: sessions whose sockets told of something, and those that are
    /// ahead. It may forget one: the socket tells again, and of who is ahead the beacon ([`Hub::ahead`]).
    ready: VecDeque<SessionId>,
    ids: Ids,
    /// Users' sessions that have said nothing, by the order in which they came: when descriptors are short, they make
    /// room for others.
    silent: BTreeMap<u64, SessionId>,
    arrived: HashMap<SessionId, u64>,
    arrivals: u64,
    /// Out of descriptors: the listener rests until then.
    paused: Option<Instant>,
}

impl ManyState {
    fn arrives(&mut self, id: SessionId) {
        self.arrivals += 1;
        self.silent.insert(self.arrivals, id);
        self.arrived.insert(id, self.arrivals);
    }

    /// It has said something, or is over.
    fn speaks(&mut self, id: SessionId) {
        if let Some(arrival) = self.arrived.remove(&id) {
            self.silent.remove(&arrival);
        }
    }
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
    pub(crate) fn new(base: Arc<Base>, endpoint: Arc<Endpoint>, door: Option<Arc<Door>>) -> Many {
        let hub = Arc::new(Hub::new(base.readiness.clone()));
        let (state, partners) = (Mutex::default(), Mutex::default());
        let door = door.map(OnceLock::from).unwrap_or_default();
        Many { base, endpoint, door, hub, sessions: Table::new(), state, partners }
    }

    fn readiness(&self) -> &Readiness {
        &self.base.readiness
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Accepts sessions; called again: changes the backlog. `open`: makes the door, if there is to be one.
    pub(crate) fn listen(
        &self,
        backlog: i32,
        open: impl FnOnce() -> Result<Option<Arc<Door>>>,
    ) -> Result<()> {
        self.endpoint.listen(backlog)?;
        if self.door.get().is_some() {
            return Ok(());
        }
        if let Some(door) = open()? {
            let _ = self.door.set(door);
            return Ok(());
        }
        // It may be watched already.
        if self.readiness().rename(self.endpoint.as_fd(), LISTENER).is_err() {
            self.readiness().add(self.endpoint.as_fd(), LISTENER)?;
        }
        Ok(())
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(usize::try_from(id).ok()?)
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.numbers().into_iter().filter_map(|id| self.sessions.get(id)).collect()
    }

    /// Receives from whichever session has something.
    pub(crate) fn receive(&self, buffer: &mut [u8], deadline: &mut Deadline) -> Result<Received> {
        let mut events = [EpollEvent::empty(); 32];
        let mut in_vain = 0;
        loop {
            self.readiness().check_open()?;
            if let Some(received) = self.queued(buffer)? {
                return Ok(received);
            }
            let next = self.state.lock().ready.pop_front();
            if let Some(id) = next {
                if let Some(received) = self.serve(id, buffer, deadline)? {
                    return Ok(received);
                }
                // Peers that send nothing but control messages must not keep the caller for ever.
                in_vain += 1;
                if in_vain >= IN_VAIN && deadline.passed() {
                    return Err(SocketError::WouldBlock);
                }
                continue;
            }
            let wake = self.housekeep();
            if !matches!(*deadline, Deadline::Now) && self.readiness().check_blocking().is_err() {
                *deadline = Deadline::Now;
            }
            *deadline = deadline.begin();
            let count = self.readiness().wait(&mut events, deadline.min(wake))?;
            self.sort(&events[..count]);
            // Events that leave nothing to do, strangers' for example, don't make it longer.
            if deadline.passed() && count < events.len() && !self.has_work() {
                self.readiness().check_open()?;
                return Err(SocketError::WouldBlock);
            }
        }
    }

    fn has_work(&self) -> bool {
        self.hub.has_first() || !self.state.lock().ready.is_empty()
    }

    /// Notifications, then cookie echoes.
    fn queued(&self, buffer: &mut [u8]) -> Result<Option<Received>> {
        if !self.hub.has_first() {
            return Ok(None);
        }
        if self.hub.has_notice() || self.hub.has_undelivered() {
            check_room(buffer)?;
        }
        if let Some(notice) = self.hub.take_notice() {
            if let Notification::SessionRemove { session } = notice {
                self.state.lock().ids.free.push(Reverse(session));
            }
            return Ok(Some(Received::Notification(notice)));
        }
        if let Some(back) = self.hub.take_undelivered() {
            return Ok(Some(back.deliver(buffer)));
        }
        while let Some(id) = self.hub.next_echo() {
            let Some(session) = self.session(id) else { break };
            if let Some(echo) = session.first(buffer)? {
                return Ok(Some(echo));
            }
        }
        Ok(None)
    }

    fn serve(&self, id: SessionId, buffer: &mut [u8], deadline: &mut Deadline) -> Result<Option<Received>> {
        let Some(session) = self.session(id) else { return Ok(None) };
        match session.attempt(buffer, deadline)? {
            Attempt::Received(received) => {
                if session.as_user().is_some() {
                    self.partners().heard(id);
                }
                let mut state = self.state.lock();
                if matches!(received, Received::Data { end: false, .. }) {
                    // The rest of a message comes before anything else.
                    state.ready.push_front(id);
                } else if session.is_ahead() {
                    state.ready.push_back(id);
                }
                Ok(Some(received))
            }
            // One that is ahead has its next turn behind those whose sockets tell of something.
            Attempt::Nothing(_) => Ok(None),
            Attempt::Ended { in_order } => {
                self.remove(&session, in_order);
                Ok(None)
            }
        }
    }

    /// Whether a receive would find something; does what only we care for.
    pub(crate) fn look(&self) -> bool {
        let mut events = [EpollEvent::empty(); 32];
        for _ in 0..LOOKS {
            if self.hub.has_first() {
                return true;
            }
            let next = self.state.lock().ready.pop_front();
            if let Some(session) = next.and_then(|id| self.session(id)) {
                if session.look() {
                    self.state.lock().ready.push_front(session.id);
                    return true;
                }
                continue;
            }
            self.housekeep();
            match self.readiness().wait(&mut events, Deadline::Now) {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.sort(&events[..count]),
            }
        }
        true
    }

    /// Looks after strangers and a resting listener; when there will be something to do next.
    fn housekeep(&self) -> Deadline {
        let mut state = self.state.lock();
        let mut next = state.strangers.expire(self.readiness());
        if let Some(until) = state.paused {
            if until <= Instant::now() && self.readiness().rename(self.endpoint.as_fd(), LISTENER).is_ok() {
                state.paused = None;
            } else {
                next = next.min(Deadline::At(until.max(Instant::now() + Duration::from_millis(1))));
            }
        }
        next
    }

    /// Deals with what epoll says.
    fn sort(&self, events: &[EpollEvent]) {
        for event in events {
            match event.data() {
                BEACON => {
                    self.let_in();
                    // Whoever is ahead is served, whatever else became of its turn.
                    self.state.lock().ready.extend(self.hub.ahead());
                }
                LISTENER => self.accept(),
                token if token > STRANGERS => {
                    let known = self.state.lock().strangers.hear(self.readiness(), token);
                    if let Some(conn) = known {
                        self.admit(conn, true);
                    }
                }
                id => {
                    let mut state = self.state.lock();
                    state.speaks(id as SessionId);
                    state.ready.push_back(id as SessionId);
                }
            }
        }
    }

    /// Out of descriptors: the session in which nothing was said for longest, by either end, is over; `false`: there
    /// is none.
    fn makes_room(&self) -> bool {
        loop {
            let longest = self.state.lock().silent.first_key_value().map(|(_, &id)| id);
            let Some(id) = longest else { return false };
            self.state.lock().speaks(id);
            // A user may be one that listens.
            let Some(session) = self.session(id).filter(|session| !session.is_used()) else { continue };
            let line = "out of descriptors: a session in which nothing was said ends for a new one";
            SESSIONS.note(line, None, format_args!("{line}"));
            if let Some(conn) = session.conn() {
                conn.abort();
            }
            self.remove(&session, false);
            return true;
        }
    }

    /// Those who have proved themselves.
    fn let_in(&self) {
        for _ in 0..ACCEPTS {
            match self.door.get().and_then(|door| door.take()) {
                Some(conn) => self.admit(conn, false),
                None => return,
            }
        }
    }

    fn accept(&self) {
        let parameters = *self.base.parameters.lock();
        for _ in 0..ACCEPTS {
            match self.endpoint.accept(&parameters, || self.base.proof()).map_err(SocketError::from) {
                Ok(Some((conn, peer))) => {
                    let known = self.state.lock().strangers.meet(&self.base, self.readiness(), conn, peer);
                    if let Some(conn) = known {
                        self.admit(conn, false);
                    }
                }
                Ok(None) => break,
                Err(error) if error.lacks_descriptors() && self.makes_room() => {}
                Err(error) => {
                    // Connections that come are many hosts' doing; what lacks is this process's.
                    let line = format!("no new sessions for now: {error}");
                    SESSIONS.note(line.clone(), None, format_args!("{line}"));
                    let mut state = self.state.lock();
                    if state.paused.replace(Instant::now() + PAUSE).is_none() {
                        // In somebody else's event loop, the next user who comes ends the rest.
                        self.readiness().watch_for_news(self.endpoint.as_fd(), LISTENER);
                    }
                    return;
                }
            }
        }
        let mut state = self.state.lock();
        if state.paused.is_some() && self.readiness().rename(self.endpoint.as_fd(), LISTENER).is_ok() {
            state.paused = None;
        }
    }

    /// A connection becomes a session. `known`: it is in the epoll instance already.
    fn admit(&self, conn: Arc<Conn>, known: bool) {
        let pool = self.base.pool.lock().clone();
        let id = self.state.lock().ids.take();
        let session = Arc::new(Session::element(
            id,
            Outlet::Shared(self.hub.clone()),
            self.base.linger.clone(),
            conn.clone(),
            pool,
        ));
        if self.sessions.set(id as usize, Some(session.clone())).is_err() {
            let line = "no number for a further session";
            SESSIONS.note(line, None, format_args!("{line}"));
            self.readiness().remove(conn.as_fd());
            return;
        }
        self.hub.notify([Notification::SessionAdd { session: id }]);
        // Its echo is queued after the notification, its data can be received only then.
        session.adopt(&conn);
        if !session.is_ahead() {
            self.state.lock().arrives(id);
        }
        let token = id as u64;
        let added = if known {
            self.readiness().rename(conn.as_fd(), token)
        } else {
            self.readiness().add(conn.as_fd(), token)
        };
        if let Err(error) = added {
            SESSIONS.note(
                "a session can't be watched",
                None,
                format_args!("session {id} can't be watched: {error}"),
            );
            conn.abort();
            self.state.lock().ready.push_back(id);
        }
    }

    /// A session is over.
    pub(crate) fn remove(&self, session: &Arc<Session>, in_order: bool) {
        // Whoever takes it out of the table tells its end.
        if self.sessions.take(session.id as usize).is_none() {
            return;
        }
        self.state.lock().speaks(session.id);
        if let Some(conn) = session.conn() {
            self.readiness().remove(conn.as_fd());
        }
        let in_order = in_order && !session.ended_here();
        self.end(session);
        if session.as_user().is_some() {
            return self.part(session.id, in_order);
        }
        let session = session.id;
        let shutdown = in_order.then_some(Notification::Shutdown { session });
        self.hub.notify(shutdown.into_iter().chain([Notification::SessionRemove { session }]));
    }

    pub(crate) fn partners(&self) -> MutexGuard<'_, Partners> {
        self.partners.lock()
    }

    /// A session of the library's own, with somebody who is written to; not connected yet.
    pub(crate) fn correspondent(
        &self,
        handle: Option<PoolHandle>,
        options: ConnectOptions,
        circle: Circle,
    ) -> Session {
        let id = self.state.lock().ids.take();
        Session::correspondent(id, self.hub.clone(), self.base.linger.clone(), handle, options, circle)
    }

    /// A partner is reached over `conn`.
    pub(crate) fn befriend(&self, partner: &Partner, session: &Arc<Session>, conn: Arc<Conn>) -> Result<()> {
        let id = session.id;
        let known = self.sessions.set(id as usize, Some(session.clone())).map_err(|()| SocketError::NoNumber);
        if let Err(error) = known.and_then(|_| session.moved(conn, partner.pe_id(), false).map(|_| ())) {
            self.sessions.take(id as usize);
            self.give_up(session);
            return Err(error);
        }
        let crowded_out = self.partners().add(partner, id);
        if let Some(other) = crowded_out.and_then(|id| self.session(id)) {
            self.remove(&other, true);
        }
        Ok(())
    }

    /// Nobody serves it any more, so it must not keep the descriptor readable.
    fn end(&self, session: &Session) {
        session.close();
        debug_assert!(!self.hub.is_ahead(session.id), "an ended session is ahead");
    }

    /// A correspondent that came to nothing.
    pub(crate) fn give_up(&self, session: &Session) {
        self.end(session);
        self.state.lock().ids.free.push(Reverse(session.id));
    }

    /// The session of a partner is over: what was not answered may not have arrived.
    fn part(&self, id: SessionId, in_order: bool) {
        let back = self.partners().ended(id, in_order);
        self.state.lock().ids.free.push(Reverse(id));
        if let Some(back) = back {
            self.give_back(back);
        }
    }

    /// A message is handed back to the program.
    pub(crate) fn give_back(&self, back: Undelivered) {
        self.hub.give_back(back);
    }

    /// The descriptor is closed.
    pub(crate) fn close(&self) {
        for session in self.sessions() {
            session.close();
        }
    }
}
