//! One session on the caller's thread: its connection, and what its owner is told. It knows the descriptor's
//! readiness, not the descriptor.
//!
//! | file | what |
//! |---|---|
//! | `told` | what an owner asks for and is told |
//! | `hub` | what the sessions of a one-to-many descriptor share |
//! | `pool` | the element that sessions are accepted for |
//! | `sending`, `receiving` | data |
//!
//! All that changes is one [`SessionState`] under one lock, with the pure [`Inbox`] in it; what the descriptor shows of the
//! session follows from that, in [`Session::update`]. Nobody waits and nobody uses the connection with it locked.

pub(crate) mod hub;
pub(crate) mod pool;
mod receiving;
mod sending;
pub(crate) mod told;

use crate::machine::session::{Inbox, Role, Signs};
use crate::runtime::complaints::SESSIONS;
use crate::runtime::counters::{COUNTERS, count};
use crate::runtime::csp::SessionReport;
use crate::socket::channel::conn::Conn;
use crate::socket::channel::linger::Linger;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{self, Deadline};
use crate::socket::readiness::waitset::{Interest, WaitSet};
use crate::socket::readiness::{Readiness, Reason};
use crate::transport::stream;
use crate::wire::{PeId, PoolElement, PoolHandle, show};
use hub::Hub;
use parking_lot::Mutex;
use pool::{Circle, PoolSide};
pub(crate) use receiving::check_room;
use std::any::Any;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;
use told::{ConnectOptions, Received, SessionId};

/// A session.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    home: Outlet,
    linger: Arc<Linger>,
    side: Side,
    state: Mutex<SessionState>,
}

/// Where a session shows what it has.
pub(crate) enum Outlet {
    /// It is the only one of its descriptor.
    Alone(Arc<Readiness>),
    /// It shares the descriptor.
    Shared(Arc<Hub>),
}

/// Which end we are.
enum Side {
    User(UserSide),
    Element(Option<Arc<PoolSide>>),
}

/// What a user's session needs to move.
pub(crate) struct UserSide {
    pub(crate) handle: Option<PoolHandle>,
    pub(crate) options: ConnectOptions,
    circle: Circle,
    /// Whether failovers are told; else a failed session is at its end.
    notified: bool,
    /// Held while a move is under way.
    pub(crate) moving: Mutex<()>,
    pub(crate) watch: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

/// All of a session that changes.
struct SessionState {
    inbox: Inbox,
    /// What the descriptor shows of it.
    shown: Signs,
    conn: Option<Arc<Conn>>,
    /// Counts moves, so that late news about an old connection is known as such.
    generation: u64,
    since: Option<Instant>,
    pe_id: PeId,
    /// The peer stalled in the middle of the current message: no more waiting for it.
    stalled: bool,
    /// The owner ended it first.
    ended_here: bool,
    /// The owner sent something.
    used: bool,
    /// An element's messages before its business card; all ones: it is sent.
    before_card: u32,
    /// For status reports.
    status: String,
    last_ppid: u32,
}

impl SessionState {
    fn is(&self, conn: &Conn) -> bool {
        self.conn.as_deref().is_some_and(|now| std::ptr::eq(now, conn))
    }

    /// Whether `conn` has data read ahead; of no interest once it was replaced.
    fn set_ahead(&mut self, conn: &Conn, ahead: bool) {
        if self.is(conn) {
            self.inbox.set_ahead(ahead);
        }
    }
}

/// What became of one attempt to receive data.
pub(crate) enum Attempt {
    Received(Received),
    /// No data for now. What its owner sees of the session since then: more than nothing where something else is to be
    /// told, which a look at the connection may have brought.
    Nothing(Signs),
    /// The connection ended.
    Ended {
        in_order: bool,
    },
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    fn new(id: SessionId, home: Outlet, linger: Arc<Linger>, side: Side, conn: Option<Arc<Conn>>) -> Session {
        let role = match side {
            Side::User(_) => Role::User,
            Side::Element(_) => Role::Element,
        };
        let seal = match &side {
            Side::Element(Some(pool)) => pool.seal.clone(),
            _ => None,
        };
        let state = SessionState {
            inbox: Inbox::new(role).with_seal(seal),
            shown: Signs::default(),
            conn,
            generation: 0,
            since: None,
            pe_id: PeId(0),
            stalled: false,
            ended_here: false,
            used: false,
            before_card: 0,
            status: String::new(),
            last_ppid: 0,
        };
        if let Some(conn) = &state.conn {
            linger.watch(conn);
        }
        Session { id, home, linger, side, state: Mutex::new(state) }
    }

    /// A user's session, not connected yet. `notified`: of failovers; else a failed session is at its end.
    pub(crate) fn user(
        readiness: Arc<Readiness>,
        linger: Arc<Linger>,
        handle: Option<PoolHandle>,
        options: ConnectOptions,
        notified: bool,
        circle: Circle,
    ) -> Session {
        circle.own.iter().for_each(|own| own.used());
        let user =
            UserSide { handle, options, circle, notified, moving: Mutex::new(()), watch: Mutex::new(None) };
        Session::new(1, Outlet::Alone(readiness), linger, Side::User(user), None)
    }

    /// A user's session with somebody who is written to without one: it shares the descriptor, and is never moved.
    pub(crate) fn correspondent(
        id: SessionId,
        hub: Arc<Hub>,
        linger: Arc<Linger>,
        handle: Option<PoolHandle>,
        options: ConnectOptions,
        circle: Circle,
    ) -> Session {
        let user = UserSide {
            handle,
            options,
            circle,
            notified: false,
            moving: Mutex::new(()),
            watch: Mutex::new(None),
        };
        Session::new(id, Outlet::Shared(hub), linger, Side::User(user), None)
    }

    /// An element's session over an accepted connection.
    pub(crate) fn element(
        id: SessionId,
        home: Outlet,
        linger: Arc<Linger>,
        conn: Arc<Conn>,
        pool: Option<Arc<PoolSide>>,
    ) -> Session {
        count(&COUNTERS.sessions_accepted);
        if let Some(pool) = &pool {
            pool.used();
        }
        Session::new(id, home, linger, Side::Element(pool), Some(conn))
    }

    pub(crate) fn as_user(&self) -> Option<&UserSide> {
        match &self.side {
            Side::User(user) => Some(user),
            Side::Element(_) => None,
        }
    }

    /// The element whose card goes out: the session's own, or the one that its user is as well.
    fn card_of(&self) -> Option<&PoolSide> {
        match &self.side {
            Side::Element(pool) => pool.as_deref(),
            Side::User(user) => user.circle.own.as_deref(),
        }
    }

    /// Asks about a pool that the peer's card is for.
    fn acquaint(&self, handle: &PoolHandle) {
        match &self.side {
            Side::Element(Some(pool)) => pool.acquaint(handle),
            Side::Element(None) => {}
            Side::User(user) => user.circle.directory.acquaint(handle),
        }
    }

    fn readiness(&self) -> &Readiness {
        match &self.home {
            Outlet::Alone(readiness) => readiness,
            Outlet::Shared(hub) => &hub.readiness,
        }
    }

    /// Whether it has the descriptor for itself.
    fn alone(&self) -> bool {
        matches!(self.home, Outlet::Alone(_))
    }

    /// Changes the state, and what the descriptor shows of it.
    fn update<T>(&self, change: impl FnOnce(&mut SessionState) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let (before, now) = (state.shown, state.inbox.signs());
        if before != now {
            state.shown = now;
            match &self.home {
                Outlet::Alone(readiness) => {
                    let signs = |signs: Signs| {
                        [
                            (Reason::Queue, signs.first),
                            (Reason::Buffered, signs.ahead),
                            (Reason::Failed, signs.failed),
                        ]
                    };
                    let changed = signs(now).into_iter().zip(signs(before)).filter(|(new, old)| new != old);
                    changed.for_each(|((reason, holds), _)| readiness.set(reason, holds));
                }
                Outlet::Shared(hub) => hub.show(self.id, now),
            }
        }
        result
    }

    /// The session becomes a member of a wait set; `None`: leaves the one that it is in.
    pub(crate) fn watch(&self, set: Option<(&Arc<WaitSet>, Interest)>) -> Result<()> {
        // Not while it moves to another connection.
        let state = self.state.lock();
        let socket = state.conn.as_ref().map(|conn| conn.as_fd());
        match set {
            Some((set, interest)) => self.readiness().join(set, interest, socket),
            None => {
                self.readiness().leave(socket);
                Ok(())
            }
        }
    }

    pub(crate) fn conn(&self) -> Option<Arc<Conn>> {
        self.state.lock().conn.clone()
    }

    pub(crate) fn pe_id(&self) -> PeId {
        self.state.lock().pe_id
    }

    pub(crate) fn has_cookie(&self) -> bool {
        self.state.lock().inbox.has_cookie()
    }

    pub(crate) fn set_status(&self, text: &str) {
        text.clone_into(&mut self.state.lock().status);
    }

    pub(crate) fn report(&self) -> SessionReport {
        let state = self.state.lock();
        let working = self.as_user().is_some() && !state.inbox.failed();
        SessionReport {
            // While a session moves, there is nobody that it talks to.
            element: state.since.filter(|_| working).map(|_| state.pe_id),
            duration: state.since.map(wait::passed).unwrap_or_default(),
            ppid: u32::from_be(state.last_ppid),
            status: state.status.clone(),
        }
    }

    /// Whether a receive would find data without asking the transport.
    pub(crate) fn is_ahead(&self) -> bool {
        self.state.lock().inbox.signs().ahead
    }

    pub(crate) fn ended_here(&self) -> bool {
        self.state.lock().ended_here
    }

    /// Whether its owner ever sent anything.
    pub(crate) fn is_used(&self) -> bool {
        self.state.lock().used
    }

    pub(crate) fn is_down(&self) -> bool {
        self.state.lock().inbox.failed()
    }

    /// The connection is lost or has ended, if `of` still holds.
    fn lose_if(&self, of: impl FnOnce(&SessionState) -> bool) -> bool {
        let news = self.update(|state| of(state) && state.inbox.fail());
        if news {
            self.readiness().waiters.wake();
        }
        news
    }

    /// The connection is lost or has ended.
    pub(crate) fn lose(&self) {
        self.lose_if(|_| true);
    }

    /// `conn` is lost or has ended; no news if it was replaced meanwhile.
    fn lose_conn(&self, conn: &Conn) {
        self.lose_if(|state| state.is(conn));
    }

    /// The pool lost the element that the session had as of `generation`.
    pub(crate) fn element_gone(&self, generation: u64) {
        let conn = self.update(|state| state.conn.clone());
        if self.lose_if(|state| state.generation == generation) {
            let peer = conn.and_then(|conn| stream::peer(conn.as_fd()));
            SESSIONS.news(
                "a session's element left its pool",
                peer.map(|peer| peer.ip()),
                u64::from(self.id.unsigned_abs()),
                format_args!("session {}: element {}{} left its pool", self.id, self.pe_id(), show::at(peer)),
            );
        }
    }

    /// The connection is of no further use: it ends with the last call that uses it.
    fn forget_conn(&self) {
        let conn = self.update(|state| state.conn.take());
        if let Some(conn) = conn {
            self.readiness().remove(conn.as_fd());
            self.readiness().waiters.wake();
        }
    }

    /// A move begins: gives up the connection; the element that it led to.
    pub(crate) fn begin_move(&self) -> PeId {
        let (old, lost) = self.update(|state| {
            state.generation += 1;
            state.since = None;
            state.stalled = false;
            state.before_card = 0;
            state.inbox.begin_move();
            (state.conn.take(), state.pe_id)
        });
        if let Some(old) = old {
            self.readiness().remove(old.as_fd());
            // Who waits on it leaves it.
            self.readiness().waiters.wake();
            old.finish();
        }
        lost
    }

    /// What to say first on a new connection.
    pub(crate) fn opening(&self) -> Option<Vec<u8>> {
        self.state.lock().inbox.opening()
    }

    /// The element to move to, out of those alive, that the lost element recommended.
    pub(crate) fn preferred(&self, lost: PeId, alive: &[PoolElement]) -> Option<PoolElement> {
        self.state.lock().inbox.preferred(lost, alive).cloned()
    }

    /// A move ended well; the generation to be watched. `failover`: not the first connect.
    pub(crate) fn moved(&self, conn: Arc<Conn>, pe_id: PeId, failover: bool) -> Result<u64> {
        count(if failover { &COUNTERS.failovers } else { &COUNTERS.sessions_connected });
        let announce = failover && self.as_user().is_some_and(|user| user.notified);
        let generation = self.update(|state| {
            self.readiness().add(conn.as_fd(), self.id as u64)?;
            self.linger.watch(&conn);
            state.inbox.moved(announce);
            state.conn = Some(conn.clone());
            state.since = Some(wait::now());
            state.pe_id = pe_id;
            Ok::<_, SocketError>(state.generation)
        })?;
        self.adopt(&conn);
        Ok(generation)
    }

    /// A connection has become the session's. What came with its handshake or its greeting was read ahead, and its socket
    /// tells nothing of it any more: the descriptor does.
    pub(crate) fn adopt(&self, conn: &Conn) {
        if let Ok(mut turn) = conn.receiving(Deadline::Never) {
            self.settle(conn, &mut turn);
        }
    }

    pub(crate) fn forget_element(&self) {
        self.state.lock().pe_id = PeId(0);
    }

    /// Why not to use it (any longer).
    fn usable(&self, state: &SessionState) -> Result<()> {
        self.readiness().check_open()?;
        match state.inbox.failed() {
            true if self.as_user().is_some() => Err(self.readiness().refusal(SocketError::SessionFailed)),
            true => Err(self.readiness().refusal(SocketError::SessionOver)),
            false => Ok(()),
        }
    }

    /// The same for `conn`, which may have been replaced meanwhile.
    fn stop_on(&self, conn: &Conn) -> Result<()> {
        let state = self.state.lock();
        self.usable(&state)?;
        if state.is(conn) { Ok(()) } else { Err(self.readiness().refusal(SocketError::SessionFailed)) }
    }

    /// Why not to wait (any longer): [`Session::stop_on`], or the program wants no call to.
    fn stop_wait(&self, conn: &Conn) -> Result<()> {
        self.stop_on(conn)?;
        self.readiness().check_blocking()
    }

    /// The descriptor is closed, or the session taken out of it: ends the session in order.
    pub(crate) fn close(&self) {
        if let Some(user) = self.as_user() {
            *user.watch.lock() = None;
        }
        // Closing takes the sender's lock, which a sender has when it looks at the state.
        let conn = self.update(|state| {
            state.inbox.close();
            state.conn.take()
        });
        if let Some(conn) = conn {
            // It may be open for some time.
            self.readiness().ignore(Some(conn.as_fd()));
            self.linger.close(conn);
        }
    }
}
