//! Elements on descriptors: addresses, listening and accepting, registration.

use super::{Library, random_id};
use crate::machine::client;
use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::door::Door;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::entry::{Entry, EntryRole, Style};
use crate::socket::descriptor::listener::Listener;
use crate::socket::descriptor::many::Many;
use crate::socket::descriptor::strangers::LISTENER;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Deadline;
use crate::socket::session::pool::PoolSide;
use crate::socket::session::{Outlet, Session};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, Transport, TransportUse};
use std::net::SocketAddr;
use std::os::fd::{AsFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What to register (`rsp_register`).
#[derive(Debug, Clone)]
pub struct Registration {
    /// Pool handle.
    pub handle: PoolHandle,
    /// Policy and values.
    pub policy: Policy,
    /// `TAG_PoolElement_Identifier`; `None`: random.
    pub id: Option<PeId>,
    /// Re-registration interval; registration life is three times that.
    pub interval: Duration,
    /// Block for the registrar's answer.
    pub wait: bool,
    /// `REGF_DAEMONMODE`: without a usable local address, register as soon as there is one.
    pub daemon: bool,
    /// `TAG_PoolElement_Advertise`: `host[:port]` where users reach it; `None`: as before, at first the process's setting.
    pub advertise: Option<String>,
}

/// Users who may wait at an element that nobody called [`Library::listen`] for.
const BACKLOG: i32 = 128;

impl Library {
    /// Binds to addresses that share the first one's port; 0: the kernel's choice. No address: any. TCP
    /// can't bind to several: any, with the first one's port.
    pub fn bind(&self, sd: RawFd, addresses: &[SocketAddr]) -> Result<()> {
        let entry = self.entry(sd)?;
        let mut role = entry.role.write();
        let EntryRole::Fresh { bound: false, .. } = *role else { return Err(SocketError::Misused) };
        let endpoint = Endpoint::bind(entry.protocol, entry.domain, addresses)?;
        *role = EntryRole::Fresh { endpoint: Some(Arc::new(endpoint)), bound: true };
        Ok(())
    }

    /// The bound socket of a descriptor, binding it to any address if need be.
    pub(super) fn bound(&self, entry: &Entry) -> Result<Arc<Endpoint>> {
        let mut role = entry.role.write();
        match &*role {
            EntryRole::Fresh { endpoint: Some(endpoint), bound: true } => return Ok(endpoint.clone()),
            EntryRole::Fresh { .. } => {}
            _ => return Err(entry.readiness().refusal(SocketError::Misused)),
        }
        let endpoint = Arc::new(Endpoint::bind(entry.protocol, entry.domain, &[])?);
        *role = EntryRole::Fresh { endpoint: Some(endpoint.clone()), bound: true };
        Ok(endpoint)
    }

    /// Accepts sessions; called again: changes the backlog.
    pub fn listen(&self, sd: RawFd, backlog: i32) -> Result<()> {
        let entry = self.entry(sd)?;
        match entry.role() {
            EntryRole::Listener(listener) => return Ok(listener.endpoint().listen(backlog)?),
            EntryRole::Many(many) => {
                return many.listen(backlog, || self.door(&entry, many.endpoint()));
            }
            EntryRole::Single(_) => return Err(SocketError::Misused),
            EntryRole::Fresh { .. } => {}
        }
        let endpoint = self.bound(&entry)?;
        endpoint.set_parameters(&entry.base.parameters.lock());
        endpoint.listen(backlog)?;
        let mut role = entry.role.write();
        let door = self.door(&entry, &endpoint)?;
        if door.is_none() {
            entry.readiness().add(endpoint.as_fd(), LISTENER)?;
        }
        *role = match entry.style {
            Style::Stream => EntryRole::Listener(Arc::new(Listener::new(entry.base.clone(), endpoint, door))),
            Style::SeqPacket => EntryRole::Many(Arc::new(Many::new(entry.base.clone(), endpoint, door))),
        };
        Ok(())
    }

    /// Where those who connect prove themselves, if they have to.
    fn door(&self, entry: &Entry, endpoint: &Arc<Endpoint>) -> Result<Option<Arc<Door>>> {
        let door = Door::open(&entry.base, endpoint)?;
        if let Some(door) = &door {
            self.doorkeeper.keep(door)?;
        }
        Ok(door)
    }

    /// The next session, on a descriptor of its own. `None`: wait for ever. [`SocketError::WouldBlock`] when
    /// time is over; [`SocketError::Misused`] when not listening, [`SocketError::Unsupported`] on a one-to-many
    /// descriptor; [`SocketError::Interrupted`]; [`SocketError::System`]: no descriptor is left.
    pub fn accept(&self, sd: RawFd, timeout: Option<Duration>) -> Result<RawFd> {
        let entry = self.entry(sd)?;
        let listener = match entry.role() {
            EntryRole::Listener(listener) => listener,
            EntryRole::Many(_) => return Err(SocketError::Unsupported),
            _ => return Err(entry.readiness().refusal(SocketError::Misused)),
        };
        let conn = listener.accept(Deadline::or_never(timeout))?;
        let made = self.accepted(&entry, &conn).and_then(|new| self.publish(new));
        made.inspect_err(|_| listener.put_back(conn))
    }

    /// A descriptor for a connection that `listener` accepted.
    fn accepted(&self, listener: &Entry, conn: &Arc<Conn>) -> Result<Arc<Entry>> {
        let (parameters, pool) = (*listener.base.parameters.lock(), listener.base.pool.lock().clone());
        let base = self.new_base(parameters)?;
        let home = Outlet::Alone(base.readiness.clone());
        let session = Session::element(1, home, self.linger.clone(), conn.clone(), pool);
        base.readiness.add(conn.as_fd(), session.id as u64)?;
        session.adopt(conn);
        let role = EntryRole::Single(Arc::new(session));
        Ok(Arc::new(Entry::new(base, Style::Stream, listener.domain, listener.protocol, role)))
    }

    /// Registers an element at the descriptor's address (binding it and listening if need be), or changes one's
    /// policy values, which never waits. `Ok` also when no registrar answers or one refuses: the event thread goes
    /// on trying. [`SocketError::NotRegistered`]: registered under another handle; [`SocketError::Closed`]: closed
    /// meanwhile; [`SocketError::NoAddress`]: no usable one (not with `daemon`).
    pub fn register(&self, sd: RawFd, registration: Registration) -> Result<()> {
        let entry = self.entry(sd)?;
        // Until it is asked for: who closes the descriptor takes the element out after that.
        let mut pool = entry.base.pool.lock();
        entry.readiness().check_open()?;
        let id = match &*pool {
            Some(pool) if pool.handle != registration.handle => return Err(SocketError::NotRegistered),
            Some(pool) => pool.id,
            None => registration.id.filter(|&id| id != PeId(0)).unwrap_or_else(random_id),
        };
        let endpoint = self.endpoint(&entry)?;
        let known = endpoint.transport()?;
        if known.is_none() && !registration.daemon {
            return Err(SocketError::NoAddress);
        }
        // An element that refuses everybody is of no use.
        if matches!(entry.role(), EntryRole::Fresh { .. }) {
            self.listen(sd, BACKLOG)?;
        }
        // Before anything waits for a registrar: from now on there may be other addresses.
        let at: Weak<Endpoint> = Arc::downgrade(&endpoint);
        self.directory.follow(&registration.handle, id, at, registration.advertise);
        // One that can't be reached is registered as soon as it can.
        let nowhere = || Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 0, Vec::new());
        let transport = endpoint.transport()?.or(known).unwrap_or_else(nowhere);
        let handle = registration.handle;
        let blocks = entry.readiness().check_blocking().is_ok();
        let wait = registration.wait && blocks && pool.is_none() && !transport.addresses().is_empty();
        let side = pool.get_or_insert_with(|| {
            let seal = self.cookie_key.as_ref().map(|key| key.seal(&handle));
            Arc::new(PoolSide::new(handle.clone(), id, self.directory.clone(), seal))
        });
        *self.own.lock() = Arc::downgrade(side);
        let interval = registration.interval;
        let life = u32::try_from(interval.as_millis().saturating_mul(3)).unwrap_or(u32::MAX);
        let home = Default::default();
        let element = PoolElement { id, home, life, transport, policy: registration.policy, asap: None };
        let request = client::Registration { handle: handle.clone(), element, interval };
        let answer = self.directory.register(request);
        drop(pool);
        let result = match wait {
            true => {
                answer.and_then(|answer| answer.wait_while(&|| !entry.readiness().is_closed())).map(|_| ())
            }
            false => answer.map(|_| ()),
        };
        if wait {
            // Whatever the answer: closing takes the element out, which ends a registration that is under way.
            entry.readiness().check_open()?;
        }
        if let Err(error) = result {
            log::warn!("registration of {id} in pool {handle:?}: {error:?}");
        }
        Ok(())
    }

    /// Where the element of a descriptor is reached.
    fn endpoint(&self, entry: &Entry) -> Result<Arc<Endpoint>> {
        match entry.role() {
            EntryRole::Listener(listener) => Ok(listener.endpoint().clone()),
            EntryRole::Many(many) => Ok(many.endpoint().clone()),
            _ => self.bound(entry),
        }
    }

    /// Takes the element out of its pool; its sessions go on. [`SocketError::NotRegistered`]; [`SocketError::Closed`]:
    /// closed meanwhile.
    pub fn deregister(&self, sd: RawFd, wait: bool) -> Result<()> {
        let entry = self.entry(sd)?;
        let leaving = entry.base.pool.lock().take().map(|pool| (pool.deregister(), pool));
        let (answer, pool) = leaving.ok_or(SocketError::NotRegistered)?;
        let result = match wait && entry.readiness().check_blocking().is_ok() {
            true => answer.and_then(|answer| answer.wait_while(&|| !entry.readiness().is_closed())),
            false => answer.map(|_| ()),
        };
        if result.is_err() {
            entry.readiness().check_open()?;
        }
        pool.gone(result);
        Ok(())
    }

    /// Own pool handle and ID. [`SocketError::NotRegistered`].
    pub fn local_name(&self, sd: RawFd) -> Result<(PoolHandle, PeId)> {
        let entry = self.entry(sd)?;
        let pool = entry.base.pool.lock();
        pool.as_ref().map(|pool| (pool.handle.clone(), pool.id)).ok_or(SocketError::NotRegistered)
    }
}
