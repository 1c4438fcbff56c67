//! Messages without a session (RFC 5352 section 6.5): to an element of a pool, to a certain one, to all, to an
//! address. A one-to-many descriptor keeps a connection with each element that it wrote to; what they answer is
//! received like anything else, and says who it is from.

use super::Library;
use super::connect::distrust;
use crate::runtime::Watcher;
use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::entry::{Entry, EntryRole, Style};
use crate::socket::descriptor::many::Many;
use crate::socket::descriptor::partners::{Partner, unsent};
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Deadline;
use crate::socket::session::Session;
use crate::socket::session::told::{ConnectOptions, Recipient, SendOptions, ToPool};
use crate::transport::sctp_socket::send_flags;
use crate::transport::stream;
use crate::wire::{ALL_ITEMS, PeId, PoolElement, PoolHandle, Protocol, Transport, TransportUse, show};
use std::os::fd::{AsFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Elements in which a certain one is looked up: all.
const ANY: usize = ALL_ITEMS as usize;
/// Other elements that are tried when one can't be reached.
const FURTHER_CHOICE: usize = 8;
/// How long connecting to an element may take.
const CONNECT: ConnectOptions =
    ConnectOptions { connect_timeout: Duration::from_secs(5), retry_delay: Duration::ZERO };

/// Ends the connection with an element that its pool lost.
struct Left {
    many: Weak<Many>,
    session: Weak<Session>,
    conn: Weak<Conn>,
}

impl Watcher for Left {
    fn element_gone(&self) {
        if let (Some(many), Some(session), Some(conn)) =
            (self.many.upgrade(), self.session.upgrade(), self.conn.upgrade())
        {
            let (id, peer) = (session.pe_id(), stream::peer(conn.as_fd()));
            SESSIONS.news(
                "an element left its pool",
                peer.map(|peer| peer.ip()),
                u64::from(id.0),
                format_args!("element {id}{} left its pool: nothing more is sent to it", show::at(peer)),
            );
            many.partners().lost(session.id);
            // Its socket shows the end to whoever receives.
            conn.abort();
        }
    }
}

/// Where a message goes, and how.
struct Dispatch<'a> {
    entry: &'a Arc<Entry>,
    many: &'a Arc<Many>,
    data: &'a [u8],
    options: SendOptions,
    stale: Duration,
}

impl Library {
    /// Sends a message to a pool without a session: to the element that the policy chooses anew for each message,
    /// to a certain one, or to all. To whom it went. The descriptor must be of [`Style::SeqPacket`] and not
    /// connected. An element that can't be reached is reported, and another one chosen, unless `to` forbids that;
    /// of all elements each is tried once, and what did not get to one of them comes back as
    /// [`crate::socket::Received::Undelivered`].
    ///
    /// [`SocketError::Closed`]; [`SocketError::Unsupported`]: another style; [`SocketError::Misused`]: connected;
    /// [`SocketError::Invalid`]: no data, failover wanted and forbidden; [`SocketError::EmptyPool`]: also, no such element;
    /// [`SocketError::NotResolved`]; what [`Library::send`] says of a message; else why the last element could not be
    /// reached.
    pub fn send_to_pool(
        &self,
        sd: RawFd,
        data: &[u8],
        handle: &PoolHandle,
        to: ToPool,
        options: SendOptions,
    ) -> Result<Vec<PeId>> {
        let entry = self.entry(sd)?;
        let many = self.correspondence(&entry)?;
        let odd = to.forbid_failover && to.failover || to.to_self && to.recipient != Recipient::All;
        if data.is_empty() || odd || options.flags & (send_flags::EOF | send_flags::ABORT) != 0 {
            return Err(SocketError::Invalid);
        }
        let out = Dispatch { entry: &entry, many: &many, data, options, stale: to.stale };
        match to.recipient {
            Recipient::All => self.send_to_all(&out, handle, to.to_self),
            Recipient::Policy => self.send_to_one(&out, handle, None, !to.forbid_failover),
            Recipient::Element(id) => self.send_to_one(&out, handle, Some(id), to.failover),
            Recipient::Last => {
                let last = many.partners().last(handle);
                self.send_to_one(&out, handle, last, !to.forbid_failover)
            }
        }
    }

    /// Sends a message to whoever is at an address (RFC 5352 section 6.5.4), over the descriptor's transport: no
    /// pool, no framing, no failover. The errors are those of [`Library::send_to_pool`] and of connecting.
    pub fn send_to_address(
        &self,
        sd: RawFd,
        data: &[u8],
        address: std::net::SocketAddr,
        options: SendOptions,
    ) -> Result<()> {
        let entry = self.entry(sd)?;
        let many = self.correspondence(&entry)?;
        if data.is_empty() || options.flags & (send_flags::EOF | send_flags::ABORT) != 0 {
            return Err(SocketError::Invalid);
        }
        let out = Dispatch { entry: &entry, many: &many, data, options, stale: Duration::ZERO };
        let protocol = match entry.protocol {
            crate::machine::LinkProtocol::Sctp => Protocol::Sctp,
            crate::machine::LinkProtocol::Tcp => Protocol::Tcp,
        };
        let transport = Transport::new(protocol, TransportUse::DataOnly, address.port(), vec![address.ip()]);
        self.hand_over(&out, &Partner::Address(address), None, &|| Ok(transport.clone()))
    }

    /// What is known of a pool is forgotten (RFC 5352 section 6.4): the next resolution asks a registrar.
    pub fn purge_cache(&self, handle: &PoolHandle) -> Result<()> {
        self.check_process()?;
        self.directory().purge(handle);
        Ok(())
    }

    /// Asks for a pool's elements ahead of need (RFC 5352 section 6.3); how many are known now.
    /// [`SocketError::NotResolved`].
    pub fn populate_cache(&self, handle: &PoolHandle) -> Result<usize> {
        self.check_process()?;
        // What has no age is not kept; so it is asked for as if one would take what is a moment old.
        self.directory().purge(handle);
        match self.directory().resolve(handle, ANY, Duration::from_millis(1)) {
            Ok(elements) => Ok(elements.len()),
            Err(error) if error.is_unknown_pool() => Ok(0),
            Err(_) => Err(SocketError::NotResolved),
        }
    }

    /// The descriptor as one that sends without sessions.
    fn correspondence(&self, entry: &Arc<Entry>) -> Result<Arc<Many>> {
        entry.readiness().check_open()?;
        if entry.style != Style::SeqPacket {
            return Err(SocketError::Unsupported);
        }
        match entry.role() {
            EntryRole::Many(many) => return Ok(many),
            EntryRole::Single(_) | EntryRole::Listener(_) => return Err(SocketError::Misused),
            EntryRole::Fresh { .. } => {}
        }
        let endpoint = self.bound(entry)?;
        let mut role = entry.role.write();
        if let EntryRole::Many(many) = &*role {
            return Ok(many.clone());
        }
        let EntryRole::Fresh { .. } = &*role else { return Err(SocketError::Misused) };
        let many = Arc::new(Many::new(entry.base.clone(), endpoint, None));
        *role = EntryRole::Many(many.clone());
        Ok(many)
    }

    /// To a certain element, or whom the policy chooses; to others if that fails and `failover`.
    fn send_to_one(
        &self,
        out: &Dispatch<'_>,
        handle: &PoolHandle,
        certain: Option<PeId>,
        failover: bool,
    ) -> Result<Vec<PeId>> {
        let mut tried = Vec::new();
        let mut failure = None;
        if let Some(id) = certain {
            let partner = Partner::Element(handle.clone(), id);
            let transport = || {
                let all = self.elements_of(out, handle, ANY, out.stale)?;
                let found = all.into_iter().find(|element| element.id == id);
                Ok(found.ok_or(SocketError::EmptyPool)?.transport)
            };
            match self.hand_over(out, &partner, Some(handle), &transport) {
                Ok(()) => return Ok(vec![id]),
                Err(error) if !failover || !error.is_the_elements() => return Err(error),
                Err(error) => failure = Some(error),
            }
            tried.push(id);
        }
        loop {
            let mut next = None;
            // One at a time, because every element that is resolved counts as used.
            for items in [1, 1, FURTHER_CHOICE] {
                let found = self.elements_of(out, handle, items, out.stale)?;
                let empty = found.is_empty();
                next = found.into_iter().find(|element| !tried.contains(&element.id));
                if empty || next.is_some() {
                    break;
                }
            }
            let Some(element) = next else { return Err(failure.unwrap_or(SocketError::EmptyPool)) };
            match self.hand_to(out, handle, &element) {
                Ok(()) => return Ok(vec![element.id]),
                Err(error) if !failover || !error.is_the_elements() => return Err(error),
                Err(error) => failure = Some(error),
            }
            tried.push(element.id);
        }
    }

    /// A copy to every element that the pool has now, as a registrar says.
    fn send_to_all(&self, out: &Dispatch<'_>, handle: &PoolHandle, to_self: bool) -> Result<Vec<PeId>> {
        let own = out.entry.base.pool.lock().as_ref().map(|pool| (pool.handle.clone(), pool.id));
        let is_self = |element: &PoolElement| {
            own.as_ref().is_some_and(|(pool, id)| pool == handle && *id == element.id)
        };
        let mut elements = self.elements_of(out, handle, ANY, Duration::ZERO)?;
        elements.retain(|element| to_self || !is_self(element));
        let mut reached = Vec::new();
        let mut failure = SocketError::EmptyPool;
        for element in &elements {
            match self.hand_to(out, handle, element) {
                Ok(()) => reached.push(element.id),
                Err(SocketError::Closed) => return Err(SocketError::Closed),
                Err(error) => {
                    out.many.give_back(unsent(element.id, out.data));
                    failure = error;
                }
            }
        }
        if reached.is_empty() { Err(failure) } else { Ok(reached) }
    }

    fn elements_of(
        &self,
        out: &Dispatch<'_>,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>> {
        let wanted = || !out.entry.readiness().is_closed();
        let found = self.directory().resolve_while(handle, items, stale, &wanted);
        out.entry.readiness().check_open()?;
        match found {
            Ok(elements) => Ok(elements),
            Err(error) if error.is_unknown_pool() => Ok(Vec::new()),
            Err(error) => {
                log::info!("resolution of {handle:?}: {error:?}");
                Err(SocketError::NotResolved)
            }
        }
    }

    fn hand_to(&self, out: &Dispatch<'_>, handle: &PoolHandle, element: &PoolElement) -> Result<()> {
        let partner = Partner::Element(handle.clone(), element.id);
        self.hand_over(out, &partner, Some(handle), &|| Ok(element.transport.clone()))
    }

    /// Hands the message to a partner's connection, which is made where there is none, and once more where it
    /// turns out to have ended.
    fn hand_over(
        &self,
        out: &Dispatch<'_>,
        partner: &Partner,
        handle: Option<&PoolHandle>,
        transport: &dyn Fn() -> Result<Transport>,
    ) -> Result<()> {
        let known = out.many.partners().session(partner).and_then(|id| out.many.session(id));
        if let Some(session) = known {
            match self.send_over(out, partner, &session) {
                Err(error) if error.is_the_elements() => out.many.remove(&session, true),
                other => return other,
            }
        }
        let to = transport()?;
        let failed = |error: &SocketError| {
            let Some(handle) = handle else { return };
            if let SocketError::Untrusted(why) = error {
                // Others may see that differently.
                distrust(handle, partner.pe_id(), to.socket_addresses().next(), why);
            } else if error.is_the_elements() {
                self.directory().report_unreachable(handle, partner.pe_id());
            }
        };
        let session = self.meet(out, partner, handle, &to).inspect_err(failed)?;
        self.send_over(out, partner, &session).inspect_err(failed)
    }

    fn send_over(&self, out: &Dispatch<'_>, partner: &Partner, session: &Arc<Session>) -> Result<()> {
        // Before it is sent, because it may be answered before this goes on.
        out.many.partners().sent(partner, out.data);
        let sent = session.send(out.data, &out.options);
        if sent.is_err() {
            out.many.partners().heard(session.id);
        }
        sent.map(|_| ())
    }

    /// A connection with a partner.
    fn meet(
        &self,
        out: &Dispatch<'_>,
        partner: &Partner,
        handle: Option<&PoolHandle>,
        transport: &Transport,
    ) -> Result<Arc<Session>> {
        let (entry, many) = (out.entry, out.many);
        let deadline = Deadline::after(out.options.timeout.unwrap_or(CONNECT.connect_timeout));
        let session = Arc::new(many.correspondent(handle.cloned(), CONNECT, self.circle()));
        let conn = self.reach(entry, &session, transport, deadline, None);
        let conn = conn.inspect_err(|_| many.give_up(&session))?;
        let watch = handle.map(|handle| {
            let (many, session) = (Arc::downgrade(many), Arc::downgrade(&session));
            let watcher = Left { many, session, conn: Arc::downgrade(&conn) };
            self.directory().watch(handle, partner.pe_id(), Arc::new(watcher))
        });
        many.befriend(partner, &session, conn)?;
        if let Some(user) = session.as_user() {
            *user.watch.lock() = watch;
        }
        // Whoever closed the descriptor meanwhile did not know of this connection.
        entry.readiness().check_open().inspect_err(|_| session.close())?;
        Ok(session)
    }
}
