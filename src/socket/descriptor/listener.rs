//! Listening `SOCK_STREAM` descriptors: sessions are accepted, each for a descriptor of its own.

use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::base::Base;
use crate::socket::descriptor::door::Door;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::strangers::Strangers;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::Reason;
use crate::socket::readiness::wait::Deadline;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A listening `SOCK_STREAM` descriptor.
#[derive(Debug)]
pub(crate) struct Listener {
    base: Arc<Base>,
    endpoint: Arc<Endpoint>,
    /// Where those come from who have proved themselves; `None`: nobody has to.
    door: Option<Arc<Door>>,
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    strangers: Strangers,
    /// Said hello, wait to be accepted.
    ready: VecDeque<Arc<Conn>>,
}

impl Listener {
    pub(crate) fn new(base: Arc<Base>, endpoint: Arc<Endpoint>, door: Option<Arc<Door>>) -> Listener {
        Listener { base, endpoint, door, gate: Mutex::default() }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The next session's connection.
    pub(crate) fn accept(&self, deadline: Deadline) -> Result<Arc<Conn>> {
        loop {
            self.base.readiness.check_open()?;
            let mut gate = self.gate.lock();
            self.fill(&mut gate)?;
            if let Some(conn) = gate.ready.pop_front() {
                if gate.ready.is_empty() {
                    self.base.readiness.set(Reason::Queue, false);
                }
                return Ok(conn);
            }
            let next = gate.strangers.expire(&self.base.readiness);
            drop(gate);
            if deadline.passed() {
                return Err(SocketError::WouldBlock);
            }
            self.base.readiness.check_blocking()?;
            self.base.readiness.wait_readable(deadline.min(next))?;
        }
    }

    /// An accepted connection could not be used now.
    pub(crate) fn put_back(&self, conn: Arc<Conn>) {
        self.gate.lock().ready.push_front(conn);
        self.base.readiness.set(Reason::Queue, true);
    }

    /// Whether an accept would find something (an error counts).
    pub(crate) fn look(&self) -> bool {
        let mut gate = self.gate.lock();
        if self.fill(&mut gate).is_err() {
            return true;
        }
        gate.strangers.expire(&self.base.readiness);
        if gate.ready.is_empty() {
            return false;
        }
        self.base.readiness.set(Reason::Queue, true);
        true
    }

    /// Sees to it that somebody is ready, if there is anybody. Takes no more connections from the
    /// kernel than that: its backlog is what limits their number.
    fn fill(&self, gate: &mut Gate) -> Result<()> {
        if !gate.ready.is_empty() {
            return Ok(());
        }
        if let Some(door) = &self.door {
            gate.ready.extend(door.take());
            return Ok(());
        }
        for conn in gate.strangers.hear_all(&self.base.readiness) {
            self.base.readiness.remove(conn.as_fd());
            gate.ready.push_back(conn);
        }
        let parameters = *self.base.parameters.lock();
        while gate.ready.is_empty() {
            match self.endpoint.accept(&parameters, || self.base.proof()) {
                Ok(Some((conn, peer))) => {
                    gate.ready.extend(gate.strangers.meet(&self.base, &self.base.readiness, conn, peer))
                }
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
