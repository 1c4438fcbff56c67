//! Connections that have not said hello yet; those that have become sessions.

#![expect(clippy::disallowed_methods, reason = "strangers have a bounded time")]

use crate::runtime::complaints::SESSIONS;
use crate::runtime::counters::{COUNTERS, count};
use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::base::Base;
use crate::socket::error::Result;
use crate::socket::readiness::wait::Deadline;
use crate::socket::readiness::{BEACON, Readiness};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The listening socket's token in the descriptor's readiness.
pub(crate) const LISTENER: u64 = BEACON + 1;
/// Connections that have not said hello yet: this plus a serial number.
pub(crate) const STRANGERS: u64 = 1 << 63;
/// How long a connection may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// Connections that have not said hello; the oldest has to go for a newer one.
const MAX_STRANGERS: usize = 256;

/// Connections that have not said hello yet.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    waiting: BTreeMap<u64, WaitingConn>,
    last: u64,
}

#[derive(Debug)]
struct WaitingConn {
    conn: Arc<Conn>,
    peer: SocketAddr,
    until: Instant,
}

impl Strangers {
    /// Takes a new connection; it comes back if it has said hello already (over SCTP nobody does).
    pub(crate) fn meet(
        &mut self,
        base: &Base,
        readiness: &Readiness,
        conn: Conn,
        peer: SocketAddr,
    ) -> Option<Arc<Conn>> {
        if !base.allowed.contains(peer.ip()) {
            refuse(peer, &"not from an allowed network");
            return None;
        }
        let conn = Arc::new(conn);
        match listen_to(&conn) {
            Ok(true) => return Some(conn),
            Ok(false) => {}
            Err(error) => {
                refuse(peer, &error);
                conn.dismiss();
                return None;
            }
        }
        if self.waiting.len() >= MAX_STRANGERS
            && let Some((_, oldest)) = self.waiting.pop_first()
        {
            send_away(readiness, &oldest, &"too many connections that say nothing");
        }
        self.last += 1;
        let token = STRANGERS + self.last;
        if let Err(error) = readiness.add(conn.as_fd(), token) {
            refuse(peer, &error);
            return None;
        }
        self.waiting.insert(token, WaitingConn { conn, peer, until: Instant::now() + HELLO });
        None
    }

    /// A stranger said something; the connection, once its hello is whole. It stays in the epoll
    /// instance, under its old name.
    pub(crate) fn hear(&mut self, readiness: &Readiness, token: u64) -> Option<Arc<Conn>> {
        let stranger = self.waiting.get(&token)?;
        match listen_to(&stranger.conn) {
            Ok(false) => None,
            Ok(true) => self.waiting.remove(&token).map(|stranger| stranger.conn),
            Err(error) => {
                send_away(readiness, stranger, &error);
                self.waiting.remove(&token);
                None
            }
        }
    }

    pub(crate) fn hear_all(&mut self, readiness: &Readiness) -> Vec<Arc<Conn>> {
        let tokens: Vec<u64> = self.waiting.keys().copied().collect();
        tokens.into_iter().filter_map(|token| self.hear(readiness, token)).collect()
    }

    /// Sends away those who took too long; when the next one will have.
    pub(crate) fn expire(&mut self, readiness: &Readiness) -> Deadline {
        let now = Instant::now();
        while let Some(first) = self.waiting.first_entry() {
            if first.get().until > now {
                return Deadline::At(first.get().until);
            }
            send_away(readiness, &first.remove(), &"no greeting in time");
        }
        Deadline::Never
    }
}

fn listen_to(conn: &Conn) -> Result<bool> {
    Ok(conn.greet(&mut conn.receiving(Deadline::Never)?)?)
}

/// Closing the socket alone does not take it out of the epoll instance: a forked child may have it open.
fn send_away(readiness: &Readiness, stranger: &WaitingConn, reason: &dyn std::fmt::Display) {
    refuse(stranger.peer, reason);
    stranger.conn.dismiss();
    readiness.remove(stranger.conn.as_fd());
}

fn refuse(peer: SocketAddr, reason: &dyn std::fmt::Display) {
    count(&COUNTERS.connections_refused);
    let line = format_args!("connection from {peer} refused: {reason}");
    SESSIONS.note("a session's connection is refused", Some(peer.ip()), line);
}
