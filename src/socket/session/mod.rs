//! One session on the caller's thread: its connection, its control channel, what its owner is told.

mod receiving;
mod sending;

use super::conn::Conn;
use super::descriptor::{Entry, Reason};
use super::linger::Linger;
use super::pool::PoolSide;
use super::wait::{self, Habit};
use super::{ConnectOptions, Received, SessionId, Style};
use crate::machine::session::{self as machine, Role};
use crate::runtime::csp::SessionReport;
use crate::wire::{PeId, PoolElement, PoolHandle};
use parking_lot::{Mutex, RwLock};
pub(super) use receiving::check_room;
use std::any::Any;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;

/// What waits for the owner before any data.
const COMPLETE: u8 = 1;
const ECHO: u8 = 2;

/// A session.
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The only session of its descriptor.
    alone: bool,
    link: RwLock<Link>,
    control: Mutex<machine::Session>,
    /// The transport or the element is lost (user), or the session is over (element).
    down: AtomicBool,
    /// `COMPLETE` and `ECHO`.
    first: AtomicU8,
    echo: Mutex<(Vec<u8>, usize)>,
    /// Data was read ahead and the descriptor says so.
    buffered: AtomicBool,
    /// The last receive left nothing behind, so the next one will probably have to wait.
    idle: AtomicBool,
    /// The peer stalled in the middle of the current message: no more waiting for it.
    stalled: AtomicBool,
    habit: Habit,
    /// The owner ended it first.
    ended_here: AtomicBool,
    pe_id: AtomicU32,
    side: Side,
    /// For status reports.
    status: Mutex<String>,
    last_ppid: AtomicU32,
}

struct Link {
    conn: Option<Arc<Conn>>,
    /// Counts moves, so that late news about an old connection is known as such.
    generation: u64,
    since: Option<Instant>,
}

impl Link {
    fn is(&self, conn: &Conn) -> bool {
        self.conn.as_deref().is_some_and(|now| std::ptr::eq(now, conn))
    }
}

/// Which end we are.
enum Side {
    User(User),
    Element(Element),
}

/// What a user's session needs to move.
pub(super) struct User {
    pub(super) handle: Option<PoolHandle>,
    pub(super) options: ConnectOptions,
    /// Held while a move is under way.
    pub(super) moving: Mutex<()>,
    pub(super) watch: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

struct Element {
    pool: Option<Arc<PoolSide>>,
    /// Messages sent before the business card is; all ones: it is.
    before_card: AtomicU32,
}

/// What became of one attempt to receive data.
pub(super) enum Attempt {
    Received(Received),
    Nothing,
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
    fn new(id: SessionId, alone: bool, role: Role, conn: Option<Arc<Conn>>, side: Side) -> Session {
        Session {
            id,
            alone,
            link: RwLock::new(Link { conn, generation: 0, since: None }),
            control: Mutex::new(machine::Session::new(role)),
            down: AtomicBool::new(role == Role::User),
            first: AtomicU8::new(0),
            echo: Mutex::default(),
            buffered: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            habit: Habit::default(),
            ended_here: AtomicBool::new(false),
            pe_id: AtomicU32::new(0),
            side,
            status: Mutex::default(),
            last_ppid: AtomicU32::new(0),
        }
    }

    /// A user's session, not connected yet.
    pub(super) fn user(handle: Option<PoolHandle>, options: ConnectOptions) -> Session {
        let user = User { handle, options, moving: Mutex::new(()), watch: Mutex::new(None) };
        Session::new(1, true, Role::User, None, Side::User(user))
    }

    /// An element's session over an accepted connection; `alone`: on a descriptor of its own.
    pub(super) fn element(
        id: SessionId,
        alone: bool,
        conn: Arc<Conn>,
        pool: Option<Arc<PoolSide>>,
    ) -> Session {
        if let Some(pool) = &pool {
            pool.used();
        }
        let element = Element { pool, before_card: AtomicU32::new(0) };
        Session::new(id, alone, Role::Element, Some(conn), Side::Element(element))
    }

    pub(super) fn as_user(&self) -> Option<&User> {
        match &self.side {
            Side::User(user) => Some(user),
            Side::Element(_) => None,
        }
    }

    pub(super) fn conn(&self) -> Option<Arc<Conn>> {
        self.link.read().conn.clone()
    }

    pub(super) fn pe_id(&self) -> PeId {
        PeId(self.pe_id.load(SeqCst))
    }

    pub(super) fn has_cookie(&self) -> bool {
        self.control.lock().has_cookie()
    }

    pub(super) fn set_status(&self, text: &str) {
        text.clone_into(&mut self.status.lock());
    }

    pub(super) fn report(&self) -> SessionReport {
        let since = self.link.read().since;
        let working = self.as_user().is_some() && !self.is_down();
        SessionReport {
            // While a session moves, there is nobody that it talks to.
            element: since.filter(|_| working).map(|_| self.pe_id()),
            duration: since.map(wait::passed).unwrap_or_default(),
            ppid: u32::from_be(self.last_ppid.load(Relaxed)),
            status: self.status.lock().clone(),
        }
    }

    pub(super) fn is_buffered(&self) -> bool {
        self.buffered.load(SeqCst)
    }

    pub(super) fn ended_here(&self) -> bool {
        self.ended_here.load(SeqCst)
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(SeqCst)
    }

    /// The connection is lost or has ended.
    pub(super) fn lose(&self, entry: &Entry) {
        self.lose_link(entry, &self.link.read());
    }

    fn lose_link(&self, entry: &Entry, link: &Link) {
        self.control.lock().fail();
        if !self.down.swap(true, SeqCst) {
            if let Some(conn) = &link.conn {
                conn.leave();
            }
            if self.alone {
                entry.raise(Reason::Failed);
            }
            entry.waiters.wake();
        }
    }

    /// The same, unless the connection was replaced meanwhile.
    fn lose_conn(&self, entry: &Entry, conn: &Conn) {
        let link = self.link.read();
        if link.is(conn) {
            self.lose_link(entry, &link);
        }
    }

    /// The pool lost the element that the session had as of `generation`.
    pub(super) fn element_gone(&self, entry: &Entry, generation: u64) {
        let link = self.link.read();
        if link.generation == generation {
            log::info!("session {}: element {} left its pool", self.id, self.pe_id());
            self.lose_link(entry, &link);
        }
    }

    /// The connection is of no further use: it ends with the last call that uses it.
    fn forget_conn(&self, entry: &Entry) {
        let conn = self.link.write().conn.take();
        if let Some(conn) = conn {
            entry.remove(conn.as_fd());
            conn.leave();
            entry.waiters.wake();
        }
    }

    /// A move begins: gives up the connection.
    pub(super) fn begin_move(&self, entry: &Entry) {
        let mut link = self.link.write();
        link.generation += 1;
        let old = link.conn.take();
        link.since = None;
        self.control.lock().begin_move();
        self.first.store(0, SeqCst);
        self.down.store(false, SeqCst);
        self.buffered.store(false, SeqCst);
        self.idle.store(false, Relaxed);
        for reason in [Reason::Queue, Reason::Buffered, Reason::Failed] {
            entry.lower(reason);
        }
        drop(link);
        if let Some(old) = old {
            entry.remove(old.as_fd());
            // Who waits on it leaves it.
            old.leave();
            entry.waiters.wake();
            old.finish();
        }
    }

    /// What to say first on a new connection.
    pub(super) fn opening(&self) -> Option<Vec<u8>> {
        self.control.lock().opening()
    }

    /// The element to move to, out of those alive, that the lost element recommended.
    pub(super) fn preferred(&self, lost: PeId, alive: &[PoolElement]) -> Option<PoolElement> {
        self.control.lock().preferred(lost, alive).cloned()
    }

    /// A move ended well; the generation to be watched. `announce`: the owner is told.
    pub(super) fn moved(
        &self,
        entry: &Entry,
        conn: Arc<Conn>,
        pe_id: PeId,
        announce: bool,
    ) -> io::Result<u64> {
        let mut link = self.link.write();
        entry.add(conn.as_fd(), self.id as u64)?;
        let announce = announce && entry.style == Style::SeqPacket;
        self.control.lock().moved(announce);
        if announce {
            // Before anybody can wait on the connection.
            self.be_first(entry, COMPLETE);
        }
        link.conn = Some(conn);
        link.since = Some(wait::now());
        self.pe_id.store(pe_id.0, SeqCst);
        Ok(link.generation)
    }

    pub(super) fn forget_element(&self) {
        self.pe_id.store(0, SeqCst);
    }

    /// Whoever waits in recv(2) returns.
    pub(super) fn call_back(&self) {
        if let Some(conn) = &self.link.read().conn {
            conn.leave();
        }
    }

    /// The descriptor is closed: ends the session in order.
    pub(super) fn close(&self, linger: &Linger) {
        if let Some(user) = self.as_user() {
            *user.watch.lock() = None;
        }
        // Closing takes the sender's lock, which a sender has when it looks at the link.
        let conn = self.link.write().conn.take();
        if let Some(conn) = conn {
            conn.leave();
            linger.close(conn);
        }
    }
}
