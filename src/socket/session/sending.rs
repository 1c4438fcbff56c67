//! Sending: messages, cookies, business cards.

use super::{Session, SessionState, Side};
use crate::machine::session as machine;
use crate::socket::channel::conn::Conn;
use crate::socket::channel::sender::Outgoing;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{Deadline, Patience};
use crate::socket::session::told::SendOptions;
use crate::transport::sctp_socket::send_flags;
use std::sync::Arc;

impl Session {
    /// Sends a message.
    pub(crate) fn send(&self, data: &[u8], options: &SendOptions) -> Result<usize> {
        let abort = options.flags & send_flags::ABORT != 0;
        let ends = !abort && options.flags & send_flags::EOF != 0;
        let mut state = self.state.lock();
        let conn = self.usable_conn(&state)?;
        state.ended_here |= ends;
        if abort {
            drop(state);
            conn.abort();
            self.lose();
            if self.alone() {
                self.forget_conn();
            }
            return Ok(data.len());
        }
        if data.is_empty() && !ends {
            return Err(SocketError::Invalid);
        }
        let mut asks_for_card = false;
        if !data.is_empty() {
            state.last_ppid = options.ppid;
            state.used = true;
            asks_for_card = self.counts_for_card(&mut state);
        }
        drop(state);
        if asks_for_card {
            self.enclose_card(&conn);
        }
        let out = Outgoing {
            data,
            ppid: options.ppid.to_ne_bytes(),
            stream: options.stream,
            flags: options.flags & !send_flags::EOF,
            time_to_live: options.time_to_live,
            control: false,
        };
        let sent = match data {
            [] => Ok(0),
            _ => self.transmit(&conn, &out, Deadline::or_now(options.timeout)),
        };
        if ends && sent.is_ok() && !conn.finish() {
            self.linger.flush(&conn);
        }
        sent
    }

    /// An element's cookie for its user.
    pub(crate) fn send_cookie(&self, cookie: &[u8], deadline: Deadline) -> Result<()> {
        let conn = self.usable_conn(&self.state.lock())?;
        let signed = match &self.side {
            Side::Element(Some(pool)) => pool.seal.as_ref().map(|seal| seal.sign(cookie)),
            _ => None,
        };
        let cookie = signed.as_deref().unwrap_or(cookie);
        let message = machine::cookie_message(cookie).ok_or(SocketError::TooLong)?;
        self.transmit(&conn, &Outgoing::control(&message), deadline).map(|_| ())
    }

    fn usable_conn(&self, state: &SessionState) -> Result<Arc<Conn>> {
        self.usable(state)?;
        state.conn.clone().ok_or_else(|| self.readiness().refusal(SocketError::SessionFailed))
    }

    fn transmit(&self, conn: &Arc<Conn>, out: &Outgoing<'_>, deadline: Deadline) -> Result<usize> {
        let stop = || self.stop_wait(conn);
        let patience = Patience::new(deadline, &self.readiness().waiters, &stop);
        let sent = conn.send(out, &patience);
        self.linger.sent(conn);
        if conn.backlogged() {
            self.linger.flush(conn);
        }
        if let Err(error) = &sent
            && error.ends_connection()
        {
            self.readiness().check_open()?;
            if !self.state.lock().is(conn) {
                // Its end says nothing of the session, which somebody moved meanwhile.
                self.stop_on(conn)?;
            }
            self.lose_conn(conn);
        }
        sent
    }

    /// An element's business card, or that of a user that is an element as well, goes out with the first message for
    /// which other elements are known: asked at the 1st, 2nd, 4th, 8th .. message.
    fn counts_for_card(&self, state: &mut SessionState) -> bool {
        if state.before_card == u32::MAX || self.card_of().is_none() {
            return false;
        }
        state.before_card = state.before_card.saturating_add(1).min(u32::MAX - 1);
        state.before_card.is_power_of_two()
    }

    fn enclose_card(&self, conn: &Conn) {
        if let Some(pool) = self.card_of()
            && conn.takes_cards()
            && let Some(card) = pool.card()
        {
            conn.enclose(&card);
            self.state.lock().before_card = u32::MAX;
        }
    }
}
