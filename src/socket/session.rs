//! One session on the caller's thread: its connection, its control channel, what its owner is told.

use super::blocking::Blocking;
use super::conn::{Conn, Receiving};
use super::descriptor::{Entry, Reason};
use super::linger::Linger;
use super::pool::PoolSide;
use super::receiver::{Input, Piece, Waits};
use super::sender::Outgoing;
use super::wait::{self, Deadline, Habit, Occasionally, Patience, errno};
use super::{ConnectOptions, NOTIFICATION_ROOM, Notification, Received, SendOptions, SessionId, Style};
use crate::machine::session::{self as machine, Control, Role};
use crate::runtime::csp::SessionReport;
use crate::transport::sctp_socket::send_flags;
use crate::wire::{PeId, PoolElement, PoolHandle};
use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;
use parking_lot::{Mutex, RwLock};
use std::any::Any;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long a long message that stalls keeps others on the descriptor waiting, once: the rest of it is
/// delivered as it comes.
const STALL: Duration = Duration::from_millis(10);

/// How long to wait for another thread that receives from the same session, where there are others.
const TURN: Duration = Duration::from_millis(10);

/// Batches of control messages that one call looks at when there is nothing else.
const CONTROL_ROUNDS: u32 = 64;

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

    // ----- receiving -----------------------------------------------------------------------------

    /// Receives on a descriptor that has this one session.
    pub(super) fn receive(
        &self,
        entry: &Entry,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> io::Result<Received> {
        // The first wait is in the kernel where that can be.
        let waits = !matches!(deadline, Deadline::Now);
        let mut blocks = waits && self.may_block();
        // Elsewhere, what will have to wait anyway needn't ask the socket before it does.
        let idle = waits && !blocks && self.idle.load(Relaxed);
        let mut look = idle && self.habit.looks();
        let mut wait = idle && !look;
        loop {
            entry.check_open()?;
            if let Some(received) = self.first(entry, buffer)? {
                return Ok(received);
            }
            if wait {
                entry.wait_readable(deadline)?;
                entry.check_open()?;
            }
            let attempt = self.attempt(entry, buffer, deadline, std::mem::take(&mut blocks))?;
            if std::mem::take(&mut look) {
                self.habit.learn(matches!(attempt, Attempt::Received(_)));
            }
            match attempt {
                Attempt::Received(received) => return Ok(received),
                Attempt::Nothing | Attempt::Ended { .. } => {}
            }
            if self.first.load(SeqCst) != 0 {
                continue;
            }
            if self.is_down() {
                // Perhaps only because it was closed.
                entry.check_open()?;
                return self.last(entry, buffer);
            }
            if deadline.passed() {
                return Err(errno(Errno::EAGAIN));
            }
            wait = true;
        }
    }

    /// Whether a receive can wait in the kernel: not while another one does.
    fn may_block(&self) -> bool {
        let link = self.link.read();
        let blocking = link.conn.as_ref().and_then(|conn| conn.blocking());
        blocking.is_some_and(|blocking| !blocking.is_waiting())
    }

    /// More of the message or echo of which a part was delivered, and nothing else. ECONNRESET: it never
    /// comes.
    pub(super) fn receive_rest(
        &self,
        entry: &Entry,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> io::Result<Received> {
        if self.echo.lock().1 > 0 {
            return Ok(self.deliver_echo(entry, buffer));
        }
        loop {
            entry.check_open()?;
            match self.attempt(entry, buffer, deadline, false)? {
                Attempt::Received(received) => return Ok(received),
                Attempt::Ended { .. } => return Err(errno(Errno::ECONNRESET)),
                Attempt::Nothing => {}
            }
            let Some(conn) = self.conn() else { return Err(errno(Errno::ECONNRESET)) };
            let stop = || self.stop_on(entry, &conn);
            let patience = Patience { deadline, waiters: &entry.waiters, stop: &stop };
            if !patience.readable(conn.as_fd())? {
                return Err(errno(Errno::EAGAIN));
            }
        }
    }

    /// What is delivered before data.
    pub(super) fn first(&self, entry: &Entry, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let first = self.first.load(SeqCst);
        if first & COMPLETE != 0 {
            check_room(buffer)?;
            let mut control = self.control.lock();
            let (complete, has_cookie) = (control.take_complete(), control.has_cookie());
            self.not_first(entry, COMPLETE);
            if complete {
                let session = self.id;
                let notification = Notification::FailoverComplete { session, has_cookie };
                return Ok(Some(Received::Notification(notification)));
            }
        }
        Ok(if first & ECHO != 0 { Some(self.deliver_echo(entry, buffer)) } else { None })
    }

    fn deliver_echo(&self, entry: &Entry, buffer: &mut [u8]) -> Received {
        let mut echo = self.echo.lock();
        let (bytes, at) = &mut *echo;
        let rest = &bytes[*at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        let end = length == rest.len();
        *at += length;
        if end {
            *echo = (Vec::new(), 0);
            self.not_first(entry, ECHO);
        }
        Received::CookieEcho { length, end, session: self.id }
    }

    fn be_first(&self, entry: &Entry, what: u8) {
        self.first.fetch_or(what, SeqCst);
        if self.alone {
            entry.raise(Reason::Queue);
        } else {
            entry.session_has_echo(self);
        }
    }

    fn not_first(&self, entry: &Entry, what: u8) {
        if self.first.fetch_and(!what, SeqCst) & !what == 0 && self.alone {
            entry.lower(Reason::Queue);
        }
    }

    /// Whether an echo waits to be delivered.
    pub(super) fn has_echo(&self) -> bool {
        self.first.load(SeqCst) & ECHO != 0
    }

    /// What is told when there is nothing else: as long as it holds, at every call.
    fn last(&self, entry: &Entry, buffer: &[u8]) -> io::Result<Received> {
        let session = self.id;
        if self.as_user().is_none() || entry.style == Style::Stream {
            return Ok(Received::End { session });
        }
        check_room(buffer)?;
        let has_cookie = self.has_cookie();
        Ok(Received::Notification(Notification::FailoverNecessary { session, has_cookie }))
    }

    /// Takes what the connection has. Waits inside a long message that has begun, so that it
    /// arrives in as few parts as `buffer` allows; for one to begin only if it `blocks`, which is for those
    /// who have the descriptor for themselves.
    pub(super) fn attempt(
        &self,
        entry: &Entry,
        buffer: &mut [u8],
        deadline: Deadline,
        blocks: bool,
    ) -> io::Result<Attempt> {
        let Some(conn) = self.conn() else { return Ok(Attempt::Nothing) };
        let patience = if self.alone { deadline } else { deadline.min(Deadline::after(TURN)) };
        let mut turn = match conn.receiving(patience) {
            Err(_) if !self.alone => return Ok(Attempt::Nothing),
            turn => turn?,
        };
        let inside = turn.is_inside();
        // An echo comes first, and whoever finds one had the turn.
        let waits = match conn.blocking() {
            Some(blocking) if blocks && self.first.load(SeqCst) == 0 => Waits::In(blocking, deadline),
            _ if self.alone && !matches!(deadline, Deadline::Now) => Waits::Elsewhere,
            _ => Waits::Not,
        };
        let mut part: Option<Piece> = None;
        let mut begun = None;
        let mut rounds = 0;
        loop {
            let done = part.map_or(0, |part| part.length);
            let space = &mut buffer[done..];
            let input = match begun.take() {
                Some(have) => conn.resume(&mut turn, space, have),
                None => conn.receive(&mut turn, space, waits),
            };
            if let Waits::In(blocking, _) = waits
                && blocking.was_interrupted()
            {
                if let Input::Begun(have) = input {
                    conn.put_back(&mut turn, &space[..have]);
                }
                self.set_buffered(entry, false);
                let part = part.ok_or_else(|| errno(Errno::EINTR))?;
                return Ok(self.deliver(entry, &conn, &mut turn, part));
            }
            match input {
                Input::Begun(have) => match self.await_more(entry, &conn, deadline) {
                    Ok(true) => begun = Some(have),
                    result => {
                        conn.put_back(&mut turn, &space[..have]);
                        self.set_buffered(entry, false);
                        return match (part, result) {
                            (Some(part), _) => Ok(self.deliver(entry, &conn, &mut turn, part)),
                            (None, Err(error)) if error.kind() == ErrorKind::Interrupted => Err(error),
                            (None, _) => Ok(Attempt::Nothing),
                        };
                    }
                },
                Input::Data(piece) => {
                    let piece = Piece { length: done + piece.length, ..piece };
                    if piece.end || piece.length == buffer.len() {
                        return Ok(self.deliver(entry, &conn, &mut turn, piece));
                    }
                    part = Some(piece);
                }
                Input::Nothing if self.look_at_controls(entry, &mut turn) => {
                    rounds += 1;
                    if let Some(part) = part.filter(|_| rounds >= CONTROL_ROUNDS) {
                        return Ok(self.deliver(entry, &conn, &mut turn, part));
                    }
                    // Others have their turn, and time may be over.
                    if (self.has_echo() || rounds >= CONTROL_ROUNDS) && part.is_none() {
                        self.settle(entry, &conn, &mut turn);
                        return Ok(Attempt::Nothing);
                    }
                }
                Input::Nothing => {
                    self.set_buffered(entry, false);
                    self.idle.store(true, Relaxed);
                    let Some(part) = part else { return Ok(Attempt::Nothing) };
                    if !self.await_more(entry, &conn, deadline).unwrap_or(false) {
                        return Ok(self.deliver(entry, &conn, &mut turn, part));
                    }
                }
                Input::Retracted if !inside => part = None,
                Input::Retracted => {
                    log::debug!("session {}: the rest of a message was given up", self.id);
                    self.lose_conn(entry, &conn);
                    return Ok(Attempt::Ended { in_order: false });
                }
                Input::Closed | Input::Broken(_) if part.is_some() => {
                    let Some(part) = part else { unreachable!() };
                    return Ok(self.deliver(entry, &conn, &mut turn, part));
                }
                Input::Closed => {
                    self.lose_conn(entry, &conn);
                    return Ok(Attempt::Ended { in_order: true });
                }
                Input::Broken(error) => {
                    log::debug!("session {} with element {}: {error}", self.id, self.pe_id());
                    self.lose_conn(entry, &conn);
                    return Ok(Attempt::Ended { in_order: false });
                }
            }
        }
    }

    /// Waits for more of a message that has begun; a peer that stalls in the middle of one does not hold
    /// up the others on the descriptor for long.
    fn await_more(&self, entry: &Entry, conn: &Conn, deadline: Deadline) -> io::Result<bool> {
        if self.stalled.load(Relaxed) {
            return Ok(false);
        }
        let deadline = if self.alone { deadline } else { deadline.min(Deadline::after(STALL)) };
        let stop = || self.stop_on(entry, conn);
        if self.alone && !entry.is_raised() {
            stop()?;
            return Ok(entry.wait(&mut [EpollEvent::empty()], deadline)? > 0);
        }
        let patience = Patience { deadline, waiters: &entry.waiters, stop: &stop };
        let more = patience.readable(conn.as_fd());
        self.stalled.store(!matches!(more, Ok(true)) && !self.alone, Relaxed);
        more
    }

    fn deliver(&self, entry: &Entry, conn: &Conn, turn: &mut Receiving<'_>, piece: Piece) -> Attempt {
        self.settle(entry, conn, turn);
        self.idle.store(!turn.has_leftover(), Relaxed);
        if piece.end {
            self.stalled.store(false, Relaxed);
        }
        let ppid = u32::from_ne_bytes(piece.ppid);
        self.last_ppid.store(ppid, Relaxed);
        Attempt::Received(Received::Data {
            length: piece.length,
            end: piece.end,
            session: self.id,
            ppid,
            pe_id: self.pe_id(),
            stream: piece.stream,
        })
    }

    /// Whether a receive would find something now. Reads what the owner does not see.
    pub(super) fn look(&self, entry: &Entry) -> bool {
        if self.is_down() || self.first.load(SeqCst) != 0 {
            return true;
        }
        let Some(conn) = self.conn() else { return false };
        // Somebody is at it; unless they wait, whether they leave anything is anyone's guess.
        let Ok(mut turn) = conn.receiving(Deadline::Now) else {
            return !conn.blocking().is_some_and(Blocking::is_waiting);
        };
        for _ in 0..CONTROL_ROUNDS {
            let ready = conn.look(&mut turn);
            let more = self.look_at_controls(entry, &mut turn);
            if ready || self.first.load(SeqCst) != 0 {
                self.settle(entry, &conn, &mut turn);
                return true;
            }
            if !more {
                return false;
            }
        }
        // A peer that never stops sending control messages is left to the next receive.
        self.settle(entry, &conn, &mut turn);
        true
    }

    /// Takes apart what was read ahead; the descriptor says whether that leaves something to receive.
    pub(super) fn settle(&self, entry: &Entry, conn: &Conn, turn: &mut Receiving<'_>) {
        let buffered = loop {
            let buffered = conn.settle(turn);
            if !self.look_at_controls(entry, turn) {
                break buffered;
            }
        };
        self.set_buffered(entry, buffered);
    }

    fn set_buffered(&self, entry: &Entry, buffered: bool) {
        if self.buffered.swap(buffered, SeqCst) != buffered {
            match (self.alone, buffered) {
                (true, true) => entry.raise(Reason::Buffered),
                (true, false) => entry.lower(Reason::Buffered),
                (false, _) => entry.session_buffered(self),
            }
        }
    }

    /// Hands control messages to the machine; whether there were any.
    fn look_at_controls(&self, entry: &Entry, turn: &mut Receiving<'_>) -> bool {
        let mut any = false;
        while let Some(message) = turn.control() {
            any = true;
            let handle = self.as_user().and_then(|user| user.handle.as_ref());
            let mut control = self.control.lock();
            let result = control.handle_message(handle, &message);
            let new_echo = result == Ok(Control::Echo) && !self.has_echo();
            let echo = if new_echo { control.take_echo() } else { None };
            drop(control);
            if let Some(bytes) = echo {
                *self.echo.lock() = (bytes, 0);
                self.be_first(entry, ECHO);
            }
            if let Err(reason) = result {
                static QUIET: Occasionally = Occasionally::new();
                if let Some(more) = QUIET.now() {
                    log::warn!("session {}: {reason}, ignored{more}", self.id);
                }
            }
        }
        any
    }

    // ----- sending -------------------------------------------------------------------------------

    /// Sends a message.
    pub(super) fn send(
        &self,
        entry: &Entry,
        linger: &Linger,
        data: &[u8],
        options: &SendOptions,
    ) -> io::Result<usize> {
        self.stop(entry)?;
        let Some(conn) = self.conn() else { return Err(entry.refusal(Errno::EIO)) };
        if options.flags & send_flags::ABORT != 0 {
            conn.abort();
            self.lose(entry);
            if self.alone {
                self.forget_conn(entry);
            }
            return Ok(data.len());
        }
        let ends = options.flags & send_flags::EOF != 0;
        self.ended_here.fetch_or(ends, SeqCst);
        if data.is_empty() && !ends {
            return Err(errno(Errno::EINVAL));
        }
        let out = Outgoing {
            data,
            ppid: options.ppid.to_ne_bytes(),
            stream: options.stream,
            flags: options.flags & !send_flags::EOF,
            time_to_live: options.time_to_live,
            control: false,
        };
        let sent = if data.is_empty() {
            Ok(0)
        } else {
            self.enclose_card(&conn);
            self.last_ppid.store(options.ppid, Relaxed);
            self.transmit(entry, linger, &conn, &out, Deadline::or_now(options.timeout))
        };
        if ends && sent.is_ok() && !conn.finish() {
            linger.flush(&conn);
        }
        sent
    }

    /// An element's cookie for its user.
    pub(super) fn send_cookie(
        &self,
        entry: &Entry,
        linger: &Linger,
        cookie: &[u8],
        deadline: Deadline,
    ) -> io::Result<()> {
        self.stop(entry)?;
        let message = machine::cookie_message(cookie).ok_or_else(|| errno(Errno::EMSGSIZE))?;
        let Some(conn) = self.conn() else { return Err(entry.refusal(Errno::EIO)) };
        self.transmit(entry, linger, &conn, &Outgoing::control(&message), deadline).map(|_| ())
    }

    fn transmit(
        &self,
        entry: &Entry,
        linger: &Linger,
        conn: &Arc<Conn>,
        out: &Outgoing<'_>,
        deadline: Deadline,
    ) -> io::Result<usize> {
        let stop = || self.stop_on(entry, conn);
        let patience = Patience { deadline, waiters: &entry.waiters, stop: &stop };
        let sent = conn.send(out, &patience);
        if conn.backlogged() {
            linger.flush(conn);
        }
        if let Err(error) = &sent
            && is_fatal(error)
        {
            entry.check_open()?;
            self.lose_conn(entry, conn);
        }
        sent
    }

    /// Why not to send (any longer).
    fn stop(&self, entry: &Entry) -> io::Result<()> {
        entry.check_open()?;
        match self.is_down() {
            true if self.as_user().is_some() => Err(entry.refusal(Errno::EIO)),
            true => Err(entry.refusal(Errno::EPIPE)),
            false => Ok(()),
        }
    }

    /// The same for `conn`, which may have been replaced meanwhile.
    fn stop_on(&self, entry: &Entry, conn: &Conn) -> io::Result<()> {
        self.stop(entry)?;
        if self.link.read().is(conn) { Ok(()) } else { Err(entry.refusal(Errno::EIO)) }
    }

    /// An element's business card goes out with the first message for which other elements are known.
    fn enclose_card(&self, conn: &Conn) {
        let Side::Element(Element { pool: Some(pool), before_card }) = &self.side else { return };
        let sent = before_card.load(Relaxed);
        if sent == u32::MAX {
            return;
        }
        // Asked at the 1st, 2nd, 4th, 8th .. message.
        let mut next = sent.saturating_add(1).min(u32::MAX - 1);
        if next.is_power_of_two()
            && conn.takes_cards()
            && let Some(card) = pool.card()
        {
            conn.enclose(&card);
            next = u32::MAX;
        }
        before_card.store(next, Relaxed);
    }

    // ----- losing and moving ---------------------------------------------------------------------

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

/// A notification that does not fit stays.
pub(super) fn check_room(buffer: &[u8]) -> io::Result<()> {
    if buffer.len() < NOTIFICATION_ROOM { Err(errno(Errno::EINVAL)) } else { Ok(()) }
}

/// Whether a send's error says that the connection is of no further use.
fn is_fatal(error: &io::Error) -> bool {
    use libc::{EAGAIN, EBADF, EINTR, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP};
    let harmless = [EAGAIN, EBADF, EINTR, EINVAL, EIO, EMFILE, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP];
    !error.raw_os_error().is_some_and(|code| harmless.contains(&code))
}
