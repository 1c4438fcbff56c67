//! Receiving: what is told first, data, what is told last; and whether there is anything.

use super::{Attempt, Outlet, Session, SessionState, Side};
use crate::machine::session::{First, Signs};
use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::conn::{Conn, Receiving};
use crate::socket::channel::receiver::{Arrival, Piece};
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{Deadline, Patience, is_readable};
use crate::socket::session::told::{NOTIFICATION_ROOM, Notification, Received};
use crate::transport::stream;
use crate::wire::show;
use nix::poll::PollFlags;
use nix::sys::epoll::EpollEvent;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// How long a long message that stalls keeps others on the descriptor waiting, once, and of many such messages one a
/// second: the rest of it is delivered as it comes.
const STALL: Duration = Duration::from_millis(10);

/// How long to wait for another thread that receives from the same session before one looks around.
const TURN: Duration = Duration::from_millis(10);

/// Batches of control messages that one call looks at when there is nothing else.
const CONTROL_ROUNDS: u32 = 64;

/// What a receive has to begin with.
enum Begin {
    Told(Received),
    /// Perhaps data.
    Data(Arc<Conn>),
    /// There is no connection.
    Nothing,
}

impl Begin {
    fn data(state: &SessionState) -> Begin {
        match state.conn.clone() {
            Some(conn) => Begin::Data(conn),
            None => Begin::Nothing,
        }
    }
}

impl Session {
    /// Receives on a descriptor that has this one session.
    pub(crate) fn receive(&self, buffer: &mut [u8], deadline: &mut Deadline) -> Result<Received> {
        let readiness = self.readiness();
        loop {
            readiness.check_open()?;
            let signs = match self.begin(buffer)? {
                Begin::Told(received) => return Ok(received),
                Begin::Data(conn) => match self.receive_from(&conn, buffer, deadline)? {
                    Attempt::Received(received) => return Ok(received),
                    Attempt::Nothing(signs) => signs,
                    Attempt::Ended { .. } => self.signs(),
                },
                Begin::Nothing => self.signs(),
            };
            // What comes from here on makes the descriptor readable.
            if signs.first {
                continue;
            }
            if signs.failed {
                // Perhaps only because it was closed.
                readiness.check_open()?;
                return self.last(buffer);
            }
            *deadline = deadline.begin();
            if deadline.passed() {
                return Err(SocketError::WouldBlock);
            }
            readiness.check_blocking()?;
            readiness.wait_readable(*deadline)?;
        }
    }

    /// More of the message or echo of which a part was delivered, and nothing else.
    /// [`SocketError::PeerGone`]: it never comes.
    pub(crate) fn receive_rest(&self, buffer: &mut [u8], deadline: &mut Deadline) -> Result<Received> {
        let echo = self.update(|state| match state.inbox.inside_echo() {
            true => state.inbox.take_echo(buffer),
            false => None,
        });
        if let Some((length, end)) = echo {
            return Ok(Received::CookieEcho { length, end, session: self.id });
        }
        loop {
            self.readiness().check_open()?;
            let Some(conn) = self.conn() else { return Err(SocketError::PeerGone) };
            match self.receive_from(&conn, buffer, deadline)? {
                Attempt::Received(received) => return Ok(received),
                Attempt::Ended { .. } => return Err(SocketError::PeerGone),
                Attempt::Nothing(_) => {}
            }
            *deadline = deadline.begin();
            let stop = || self.stop_wait(&conn);
            let patience = Patience::new(*deadline, &self.readiness().waiters, &stop);
            if !patience.readable(conn.as_fd())? {
                return Err(SocketError::WouldBlock);
            }
        }
    }

    /// What is delivered before data.
    pub(crate) fn first(&self, buffer: &mut [u8]) -> Result<Option<Received>> {
        Ok(match self.begin(buffer)? {
            Begin::Told(received) => Some(received),
            Begin::Data(_) | Begin::Nothing => None,
        })
    }

    fn begin(&self, buffer: &mut [u8]) -> Result<Begin> {
        let session = self.id;
        {
            let state = self.state.lock();
            match state.inbox.first() {
                None => return Ok(Begin::data(&state)),
                Some(First::Complete) => check_room(buffer)?,
                Some(First::Echo) => {}
            }
        }
        Ok(self.update(|state| {
            let has_cookie = state.inbox.has_cookie();
            if state.inbox.take_complete() {
                return Begin::Told(Received::Notification(Notification::FailoverComplete {
                    session,
                    has_cookie,
                }));
            }
            match state.inbox.take_echo(buffer) {
                Some((length, end)) => Begin::Told(Received::CookieEcho { length, end, session }),
                // Somebody else was told meanwhile.
                None => Begin::data(state),
            }
        }))
    }

    /// Whether anything waits to be told before data.
    fn has_first(&self) -> bool {
        self.state.lock().inbox.first().is_some()
    }

    /// What is told when there is nothing else: as long as it holds, at every call.
    fn last(&self, buffer: &[u8]) -> Result<Received> {
        let session = self.id;
        if !self.as_user().is_some_and(|user| user.notified) {
            return Ok(Received::End { session });
        }
        check_room(buffer)?;
        let has_cookie = self.has_cookie();
        Ok(Received::Notification(Notification::FailoverNecessary { session, has_cookie }))
    }

    /// Takes what the connection has. Waits inside a message that has begun, so that it arrives in as few parts as
    /// `buffer` allows; not for one to begin.
    pub(crate) fn attempt(&self, buffer: &mut [u8], deadline: &mut Deadline) -> Result<Attempt> {
        match self.conn() {
            Some(conn) => self.receive_from(&conn, buffer, deadline),
            None => Ok(Attempt::Nothing(self.signs())),
        }
    }

    fn receive_from(&self, conn: &Conn, buffer: &mut [u8], deadline: &mut Deadline) -> Result<Attempt> {
        // The right to receive; soon, or not at all.
        let turn = conn.receiving(Deadline::Now).or_else(|_| match *deadline {
            Deadline::Now => Err(()),
            _ => {
                *deadline = deadline.begin();
                conn.receiving(deadline.min(Deadline::after(TURN))).map_err(|_| ())
            }
        });
        let Ok(mut turn) = turn else { return Ok(Attempt::Nothing(self.signs())) };
        // Who has the descriptor for himself waits for the rest of a message in place.
        let stays = self.alone() && !matches!(*deadline, Deadline::Now);
        let inside = turn.is_inside();
        let mut part: Option<Piece> = None;
        let mut begun = None;
        let mut rounds = 0;
        loop {
            let done = part.map_or(0, |part| part.length);
            let space = &mut buffer[done..];
            let input = match begun.take() {
                Some(have) => conn.resume(&mut turn, space, have),
                None => conn.receive(&mut turn, space, stays),
            };
            match input {
                Arrival::Begun(have) => match self.await_more(conn, deadline) {
                    Ok(()) => begun = Some(have),
                    Err(error) => return self.give_up(conn, &mut turn, &space[..have], part, error),
                },
                Arrival::Data(piece) => {
                    let piece = Piece { length: done + piece.length, ..piece };
                    if piece.end || piece.length == buffer.len() {
                        return Ok(self.deliver(conn, &mut turn, piece));
                    }
                    part = Some(piece);
                }
                Arrival::Nothing if self.look_at_controls(&mut turn) => {
                    rounds += 1;
                    if let Some(part) = part.filter(|_| rounds >= CONTROL_ROUNDS) {
                        return Ok(self.deliver(conn, &mut turn, part));
                    }
                    // Others have their turn, and time may be over.
                    if part.is_none() && (rounds >= CONTROL_ROUNDS || self.has_first()) {
                        return Ok(Attempt::Nothing(self.settle(conn, &mut turn)));
                    }
                }
                Arrival::Nothing => {
                    let signs = self.set_ahead(conn, false);
                    let Some(part) = part else { return Ok(Attempt::Nothing(signs)) };
                    if self.await_more(conn, deadline).is_err() {
                        return Ok(self.deliver(conn, &mut turn, part));
                    }
                }
                Arrival::Retracted if !inside => part = None,
                end => match part {
                    Some(part) if !matches!(end, Arrival::Retracted) => {
                        return Ok(self.deliver(conn, &mut turn, part));
                    }
                    _ => return Ok(self.ended(conn, end)),
                },
            }
        }
    }

    /// Nobody waits for what is missing: a message that is delivered whole stays, of a long one its part does
    /// not. Only a signal is an error.
    fn give_up(
        &self,
        conn: &Conn,
        turn: &mut Receiving<'_>,
        unread: &[u8],
        part: Option<Piece>,
        why: SocketError,
    ) -> Result<Attempt> {
        conn.put_back(turn, unread);
        let signs = self.set_ahead(conn, false);
        match part {
            Some(part) => Ok(self.deliver(conn, turn, part)),
            None if matches!(why, SocketError::Interrupted) => Err(why),
            None => Ok(Attempt::Nothing(signs)),
        }
    }

    /// The connection is over, or of no further use.
    fn ended(&self, conn: &Conn, end: Arrival) -> Attempt {
        // Looked up only where it is told.
        let at = || stream::far_end(conn.as_fd());
        match &end {
            Arrival::Retracted => {
                log::debug!("session {}{}: the rest of a message was given up", self.id, at())
            }
            Arrival::Broken(error) => {
                log::debug!("session {} with element {}{}: {error}", self.id, self.pe_id(), at());
            }
            _ => {}
        }
        self.lose_conn(conn);
        Attempt::Ended { in_order: matches!(end, Arrival::Closed) }
    }

    /// Waits for more of a message that has begun; a peer that stalls in the middle of one does not hold
    /// up the others on the descriptor for long. [`SocketError::WouldBlock`]: not in time.
    fn await_more(&self, conn: &Conn, deadline: &mut Deadline) -> Result<()> {
        *deadline = deadline.begin();
        let deadline = *deadline;
        let late = |more| if more { Ok(()) } else { Err(SocketError::WouldBlock) };
        let readiness = self.readiness();
        let stop = || self.stop_wait(conn);
        let hub = match &self.home {
            Outlet::Shared(hub) => hub,
            Outlet::Alone(_) if !readiness.is_raised() => {
                stop()?;
                return late(readiness.wait(&mut [EpollEvent::empty()], deadline)? > 0);
            }
            Outlet::Alone(_) => {
                return late(Patience::new(deadline, &readiness.waiters, &stop).readable(conn.as_fd())?);
            }
        };
        if self.state.lock().stalled {
            return late(false);
        }
        let waits = !deadline.passed();
        let patience = Patience::new(deadline.min(Deadline::after(STALL)), &readiness.waiters, &stop);
        // Where one has stalled lately, whatever comes for others ends the waiting.
        let sockets = [conn.as_fd(), readiness.as_fd()];
        let sockets = if hub.is_patient() { &sockets[..1] } else { &sockets[..] };
        let came = patience.any_ready(sockets, PollFlags::POLLIN, Deadline::Never);
        if !matches!(came, Ok(true)) {
            self.state.lock().stalled = true;
            if waits {
                hub.stalls();
            }
        }
        late(came? && (sockets.len() == 1 || is_readable(conn.as_fd())))
    }

    fn deliver(&self, conn: &Conn, turn: &mut Receiving<'_>, piece: Piece) -> Attempt {
        let ahead = self.settled(conn, turn);
        let ppid = u32::from_ne_bytes(piece.ppid);
        let pe_id = self.update(|state| {
            state.set_ahead(conn, ahead);
            state.stalled &= !piece.end;
            state.last_ppid = ppid;
            state.pe_id
        });
        Attempt::Received(Received::Data {
            length: piece.length,
            end: piece.end,
            session: self.id,
            ppid,
            pe_id,
            stream: piece.stream,
        })
    }

    /// Whether a receive would find something now. Reads what the owner does not see.
    pub(crate) fn look(&self) -> bool {
        let state = self.state.lock();
        if state.inbox.failed() || state.inbox.first().is_some() {
            return true;
        }
        let Some(conn) = state.conn.clone() else { return false };
        drop(state);
        // Somebody is at it; whether they leave anything is anyone's guess.
        let Ok(mut turn) = conn.receiving(Deadline::Now) else { return true };
        for _ in 0..CONTROL_ROUNDS {
            let ready = conn.look(&mut turn);
            let more = self.look_at_controls(&mut turn);
            if ready || self.has_first() {
                self.settle(&conn, &mut turn);
                return true;
            }
            if !more {
                return false;
            }
        }
        // A peer that never stops sending control messages is left to the next receive.
        self.settle(&conn, &mut turn);
        true
    }

    /// Takes apart what was read ahead; the descriptor says whether that leaves something to receive.
    pub(super) fn settle(&self, conn: &Conn, turn: &mut Receiving<'_>) -> Signs {
        let ahead = self.settled(conn, turn);
        self.set_ahead(conn, ahead)
    }

    /// Whether what was read ahead leaves something to receive, taken apart.
    fn settled(&self, conn: &Conn, turn: &mut Receiving<'_>) -> bool {
        loop {
            let ahead = conn.settle(turn);
            if !self.look_at_controls(turn) {
                return ahead;
            }
        }
    }

    /// Whether data was read ahead of `conn`; what the owner sees then.
    fn set_ahead(&self, conn: &Conn, ahead: bool) -> Signs {
        self.update(|state| {
            state.set_ahead(conn, ahead);
            state.inbox.signs()
        })
    }

    fn signs(&self) -> Signs {
        self.state.lock().inbox.signs()
    }

    /// Hands control messages to the inbox; whether there were any.
    fn look_at_controls(&self, turn: &mut Receiving<'_>) -> bool {
        let mut any = false;
        while let Some(message) = turn.control() {
            any = true;
            let handle = match &self.side {
                Side::User(user) => user.handle.as_ref(),
                Side::Element(pool) => pool.as_ref().map(|pool| &pool.handle),
            };
            if let Err(reason) = self.update(|state| state.inbox.handle_message(handle, &message)) {
                let conn = self.update(|state| state.conn.clone());
                let peer = conn.and_then(|conn| stream::peer(conn.as_fd()));
                SESSIONS.note(
                    "a session's control message is ignored",
                    peer.map(|peer| peer.ip()),
                    format_args!("session {}{}: {reason}, ignored", self.id, show::at(peer)),
                );
            }
            if let Some(strange) = self.update(|state| state.inbox.take_strange()) {
                self.acquaint(&strange);
            }
        }
        any
    }
}

/// A notification that does not fit stays.
pub(crate) fn check_room(buffer: &[u8]) -> Result<()> {
    if buffer.len() < NOTIFICATION_ROOM { Err(SocketError::NoRoom) } else { Ok(()) }
}
