//! Receiving: what is told first, data, what is told last; and whether there is anything.

use super::{Attempt, COMPLETE, ECHO, Session};
use crate::machine::session::Control;
use crate::socket::blocking::{Blocking, Stay};
use crate::socket::conn::{Conn, Receiving};
use crate::socket::descriptor::{Entry, Reason};
use crate::socket::receiver::{Input, Piece, Waits};
use crate::socket::wait::{Deadline, Occasionally, Patience, errno};
use crate::socket::{NOTIFICATION_ROOM, Notification, Received, Style};
use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

/// How long a long message that stalls keeps others on the descriptor waiting, once: the rest of it is
/// delivered as it comes.
const STALL: Duration = Duration::from_millis(10);

/// How long to wait for another thread that receives from the same session before one looks around.
const TURN: Duration = Duration::from_millis(10);

/// Batches of control messages that one call looks at when there is nothing else.
const CONTROL_ROUNDS: u32 = 64;

impl Session {
    /// Receives on a descriptor that has this one session.
    pub(in crate::socket) fn receive(
        &self,
        entry: &Entry,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> io::Result<Received> {
        // The first wait is in the kernel where that can be.
        let waits = !matches!(deadline, Deadline::Now);
        let mut blocks =
            waits && self.link.read().conn.as_ref().is_some_and(|conn| conn.blocking().is_some());
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

    /// More of the message or echo of which a part was delivered, and nothing else. ECONNRESET: it never
    /// comes.
    pub(in crate::socket) fn receive_rest(
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
    pub(in crate::socket) fn first(&self, entry: &Entry, buffer: &mut [u8]) -> io::Result<Option<Received>> {
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

    pub(super) fn be_first(&self, entry: &Entry, what: u8) {
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
    pub(in crate::socket) fn has_echo(&self) -> bool {
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

    /// The right to receive; soon, or not at all: nobody is to miss a signal because another one waits in recv(2).
    fn turn<'a>(&self, conn: &'a Conn, deadline: Deadline) -> Option<Receiving<'a>> {
        if let Ok(turn) = conn.receiving(Deadline::Now) {
            return Some(turn);
        }
        if conn.blocking().is_some_and(Blocking::is_waiting) {
            return None;
        }
        conn.receiving(deadline.min(Deadline::after(TURN))).ok()
    }

    /// Whether nothing is to be told before what comes. An echo would be found by whoever has the turn; a session
    /// that is lost, or a descriptor that is closed, may not have had this connection then.
    fn may_wait_in(&self, entry: &Entry) -> bool {
        self.first.load(SeqCst) == 0 && !self.is_down() && !entry.is_closed()
    }

    /// Takes what the connection has. Waits inside a long message that has begun, so that it
    /// arrives in as few parts as `buffer` allows; for one to begin only if it `blocks`, which is for those
    /// who have the descriptor for themselves.
    pub(in crate::socket) fn attempt(
        &self,
        entry: &Entry,
        buffer: &mut [u8],
        deadline: Deadline,
        blocks: bool,
    ) -> io::Result<Attempt> {
        let Some(conn) = self.conn() else { return Ok(Attempt::Nothing) };
        let Some(mut turn) = self.turn(&conn, deadline) else { return Ok(Attempt::Nothing) };
        let waits = match conn.blocking() {
            Some(blocking) if blocks && self.may_wait_in(entry) => {
                Waits::In(blocking, Stay { deadline, busy_poll: entry.busy_poll, flowing: false })
            }
            _ if self.alone && !matches!(deadline, Deadline::Now) => Waits::Elsewhere,
            _ => Waits::Not,
        };
        self.take(entry, &conn, &mut turn, buffer, waits, deadline)
    }

    /// The same with the turn.
    fn take(
        &self,
        entry: &Entry,
        conn: &Conn,
        turn: &mut Receiving<'_>,
        buffer: &mut [u8],
        waits: Waits<'_>,
        deadline: Deadline,
    ) -> io::Result<Attempt> {
        let inside = turn.is_inside();
        let mut part: Option<Piece> = None;
        let mut begun = None;
        let mut rounds = 0;
        loop {
            let done = part.map_or(0, |part| part.length);
            let space = &mut buffer[done..];
            let input = match begun.take() {
                Some(have) => conn.resume(turn, space, have),
                None => conn.receive(turn, space, waits),
            };
            if let Waits::In(blocking, _) = waits
                && blocking.was_interrupted()
            {
                let unread = if let Input::Begun(have) = input { &space[..have] } else { &[] };
                return self.give_up(entry, conn, turn, unread, part, errno(Errno::EINTR));
            }
            match input {
                Input::Begun(have) => match self.await_more(entry, conn, deadline) {
                    Ok(()) => begun = Some(have),
                    Err(error) => return self.give_up(entry, conn, turn, &space[..have], part, error),
                },
                Input::Data(piece) => {
                    let piece = Piece { length: done + piece.length, ..piece };
                    if piece.end || piece.length == buffer.len() {
                        return Ok(self.deliver(entry, conn, turn, piece));
                    }
                    part = Some(piece);
                }
                Input::Nothing if self.look_at_controls(entry, turn) => {
                    rounds += 1;
                    if let Some(part) = part.filter(|_| rounds >= CONTROL_ROUNDS) {
                        return Ok(self.deliver(entry, conn, turn, part));
                    }
                    // Others have their turn, and time may be over.
                    if (self.has_echo() || rounds >= CONTROL_ROUNDS) && part.is_none() {
                        self.settle(entry, conn, turn);
                        return Ok(Attempt::Nothing);
                    }
                }
                Input::Nothing => {
                    self.set_buffered(entry, false);
                    self.idle.store(true, Relaxed);
                    let Some(part) = part else { return Ok(Attempt::Nothing) };
                    if self.await_more(entry, conn, deadline).is_err() {
                        return Ok(self.deliver(entry, conn, turn, part));
                    }
                }
                Input::Retracted if !inside => part = None,
                end => match part {
                    Some(part) if !matches!(end, Input::Retracted) => {
                        return Ok(self.deliver(entry, conn, turn, part));
                    }
                    _ => return Ok(self.ended(entry, conn, end)),
                },
            }
        }
    }

    /// Nobody waits for what is missing: a message that is delivered whole stays, of a long one its part does
    /// not. Only a signal is an error.
    fn give_up(
        &self,
        entry: &Entry,
        conn: &Conn,
        turn: &mut Receiving<'_>,
        unread: &[u8],
        part: Option<Piece>,
        why: io::Error,
    ) -> io::Result<Attempt> {
        if !unread.is_empty() {
            conn.put_back(turn, unread);
        }
        self.set_buffered(entry, false);
        match part {
            Some(part) => Ok(self.deliver(entry, conn, turn, part)),
            None if why.kind() == ErrorKind::Interrupted => Err(why),
            None => Ok(Attempt::Nothing),
        }
    }

    /// The connection is over, or of no further use.
    fn ended(&self, entry: &Entry, conn: &Conn, end: Input) -> Attempt {
        match &end {
            Input::Retracted => log::debug!("session {}: the rest of a message was given up", self.id),
            Input::Broken(error) => {
                log::debug!("session {} with element {}: {error}", self.id, self.pe_id());
            }
            _ => {}
        }
        self.lose_conn(entry, conn);
        Attempt::Ended { in_order: matches!(end, Input::Closed) }
    }

    /// Waits for more of a message that has begun; a peer that stalls in the middle of one does not hold
    /// up the others on the descriptor for long. EAGAIN: not in time.
    fn await_more(&self, entry: &Entry, conn: &Conn, deadline: Deadline) -> io::Result<()> {
        let late = |more| if more { Ok(()) } else { Err(errno(Errno::EAGAIN)) };
        if self.stalled.load(Relaxed) {
            return late(false);
        }
        let deadline = if self.alone { deadline } else { deadline.min(Deadline::after(STALL)) };
        let stop = || self.stop_on(entry, conn);
        if self.alone && !entry.is_raised() {
            stop()?;
            return late(entry.wait(&mut [EpollEvent::empty()], deadline)? > 0);
        }
        let patience = Patience { deadline, waiters: &entry.waiters, stop: &stop };
        let more = patience.readable(conn.as_fd());
        self.stalled.store(!matches!(more, Ok(true)) && !self.alone, Relaxed);
        late(more?)
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
    pub(in crate::socket) fn look(&self, entry: &Entry) -> bool {
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
    pub(in crate::socket) fn settle(&self, entry: &Entry, conn: &Conn, turn: &mut Receiving<'_>) {
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
}

/// A notification that does not fit stays.
pub(in crate::socket) fn check_room(buffer: &[u8]) -> io::Result<()> {
    if buffer.len() < NOTIFICATION_ROOM { Err(errno(Errno::EINVAL)) } else { Ok(()) }
}
