//! Connections that have not said hello yet; those that have become sessions.

#![expect(clippy::disallowed_methods, reason = "strangers have a bounded time")]

use crate::runtime::complaints::SESSIONS;
use crate::runtime::counters::{COUNTERS, count};
use crate::runtime::guests::{Guests, Place};
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
/// Connections that have not said hello; beyond, the oldest goes of the host that has most of them.
const MAX_STRANGERS: usize = 256;

/// Connections that have not said hello yet.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    waiting: BTreeMap<u64, WaitingConn>,
    hosts: Guests<u64>,
    last: u64,
}

#[derive(Debug)]
struct WaitingConn {
    conn: Arc<Conn>,
    peer: SocketAddr,
    place: Place,
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
            && let Some(leaving) = self.hosts.who_goes(Some(peer.ip()))
            && let Some(leaving) = self.take(leaving.guest)
        {
            send_away(readiness, &leaving, &"too many connections that say nothing");
        }
        self.last += 1;
        let token = STRANGERS + self.last;
        if let Err(error) = readiness.add(conn.as_fd(), token) {
            refuse(peer, &error);
            return None;
        }
        let place = self.hosts.add(Some(peer.ip()), token);
        self.waiting.insert(token, WaitingConn { conn, peer, place, until: Instant::now() + HELLO });
        None
    }

    fn take(&mut self, token: u64) -> Option<WaitingConn> {
        let taken = self.waiting.remove(&token)?;
        self.hosts.remove(taken.place);
        Some(taken)
    }

    /// A stranger said something; the connection, once its hello is whole. It stays in the epoll
    /// instance, under its old name.
    pub(crate) fn hear(&mut self, readiness: &Readiness, token: u64) -> Option<Arc<Conn>> {
        let stranger = self.waiting.get(&token)?;
        match listen_to(&stranger.conn) {
            Ok(false) => None,
            Ok(true) => self.take(token).map(|stranger| stranger.conn),
            Err(error) => {
                send_away(readiness, stranger, &error);
                self.take(token);
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
        while let Some((&token, first)) = self.waiting.first_key_value() {
            if first.until > now {
                return Deadline::At(first.until);
            }
            send_away(readiness, first, &"no greeting in time");
            self.take(token);
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
