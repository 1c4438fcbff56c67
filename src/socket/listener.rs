//! Listening for sessions: connections become sessions when they have said hello.

#![expect(clippy::disallowed_methods, reason = "strangers have a bounded time")]

use super::SessionParameters;
use super::conn::Conn;
use super::descriptor::{Entry, Reason, STRANGERS};
use super::endpoint::Endpoint;
use super::wait::{Deadline, Occasionally, errno};
use log::warn;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// Connections that have not said hello; the oldest has to go for a newer one.
const MAX_STRANGERS: usize = 256;

/// Connections that have not said hello yet.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    waiting: BTreeMap<u64, Stranger>,
    last: u64,
}

#[derive(Debug)]
struct Stranger {
    conn: Arc<Conn>,
    peer: SocketAddr,
    until: Instant,
}

impl Strangers {
    /// Takes a new connection; it comes back if it has said hello already (over SCTP nobody does).
    pub(super) fn meet(&mut self, entry: &Entry, conn: Conn, peer: SocketAddr) -> Option<Arc<Conn>> {
        let conn = Arc::new(conn);
        match listen_to(&conn) {
            Ok(true) => return Some(conn),
            Ok(false) => {}
            Err(error) => {
                refuse(peer, &error);
                return None;
            }
        }
        if self.waiting.len() >= MAX_STRANGERS
            && let Some((_, oldest)) = self.waiting.pop_first()
        {
            send_away(entry, &oldest, &"too many connections that say nothing");
        }
        self.last += 1;
        let token = STRANGERS + self.last;
        if let Err(error) = entry.add(conn.as_fd(), token) {
            refuse(peer, &error);
            return None;
        }
        self.waiting.insert(token, Stranger { conn, peer, until: Instant::now() + HELLO });
        None
    }

    /// A stranger said something; the connection, once its hello is whole. It stays in the epoll
    /// instance, under its old name.
    pub(super) fn hear(&mut self, entry: &Entry, token: u64) -> Option<Arc<Conn>> {
        let stranger = self.waiting.get(&token)?;
        match listen_to(&stranger.conn) {
            Ok(false) => None,
            Ok(true) => self.waiting.remove(&token).map(|stranger| stranger.conn),
            Err(error) => {
                send_away(entry, stranger, &error);
                self.waiting.remove(&token);
                None
            }
        }
    }

    fn hear_all(&mut self, entry: &Entry) -> Vec<Arc<Conn>> {
        let tokens: Vec<u64> = self.waiting.keys().copied().collect();
        tokens.into_iter().filter_map(|token| self.hear(entry, token)).collect()
    }

    /// Sends away those who took too long; when the next one will have.
    pub(super) fn expire(&mut self, entry: &Entry) -> Deadline {
        let now = Instant::now();
        while let Some(first) = self.waiting.first_entry() {
            if first.get().until > now {
                return Deadline::At(first.get().until);
            }
            send_away(entry, &first.remove(), &"no greeting in time");
        }
        Deadline::Never
    }
}

fn listen_to(conn: &Conn) -> io::Result<bool> {
    conn.greet(&mut conn.receiving(Deadline::Never)?)
}

/// Closing the socket alone does not take it out of the epoll instance: a forked child may have it open.
fn send_away(entry: &Entry, stranger: &Stranger, reason: &dyn std::fmt::Display) {
    refuse(stranger.peer, reason);
    entry.remove(stranger.conn.as_fd());
}

fn refuse(peer: SocketAddr, reason: &dyn std::fmt::Display) {
    static QUIET: Occasionally = Occasionally::new();
    if let Some(more) = QUIET.now() {
        warn!("connection from {peer} refused: {reason}{more}");
    }
}

/// A listening `SOCK_STREAM` descriptor.
#[derive(Debug)]
pub(super) struct Listener {
    endpoint: Arc<Endpoint>,
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    strangers: Strangers,
    /// Said hello, wait to be accepted.
    ready: VecDeque<Arc<Conn>>,
}

impl Listener {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Listener {
        Listener { endpoint, gate: Mutex::default() }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The next session's connection.
    pub(super) fn accept(&self, entry: &Entry, deadline: Deadline) -> io::Result<Arc<Conn>> {
        loop {
            entry.check_open()?;
            let mut gate = self.gate.lock();
            self.fill(entry, &mut gate)?;
            if let Some(conn) = gate.ready.pop_front() {
                if gate.ready.is_empty() {
                    entry.lower(Reason::Queue);
                }
                return Ok(conn);
            }
            let next = gate.strangers.expire(entry);
            drop(gate);
            if deadline.passed() {
                return Err(errno(Errno::EAGAIN));
            }
            entry.wait_readable(deadline.min(next))?;
        }
    }

    /// An accepted connection could not be used now.
    pub(super) fn put_back(&self, entry: &Entry, conn: Arc<Conn>) {
        self.gate.lock().ready.push_front(conn);
        entry.raise(Reason::Queue);
    }

    /// Whether an accept would find something (an error counts).
    pub(super) fn look(&self, entry: &Entry) -> bool {
        let mut gate = self.gate.lock();
        if self.fill(entry, &mut gate).is_err() {
            return true;
        }
        gate.strangers.expire(entry);
        if gate.ready.is_empty() {
            return false;
        }
        entry.raise(Reason::Queue);
        true
    }

    /// Sees to it that somebody is ready, if there is anybody. Takes no more connections from the
    /// kernel than that: its backlog is what limits their number.
    fn fill(&self, entry: &Entry, gate: &mut Gate) -> io::Result<()> {
        if !gate.ready.is_empty() {
            return Ok(());
        }
        for conn in gate.strangers.hear_all(entry) {
            entry.remove(conn.as_fd());
            gate.ready.push_back(conn);
        }
        let parameters: SessionParameters = *entry.parameters.lock();
        while gate.ready.is_empty() {
            match self.endpoint.accept(&parameters) {
                Ok(Some((conn, peer))) => gate.ready.extend(gate.strangers.meet(entry, conn, peer)),
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
