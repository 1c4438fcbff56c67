//! Links over the kernel's SCTP (RFC 5352 section 2, RFC 5353 section 2): each message is one user
//! message, ordered, on stream 0, with the service's PPID.
//!
//! An [`SctpEndpoint`] is one port: it listens, and dials from the same port, because rsplib's peers
//! believe a presence only if it comes from the advertised port, and a registrar takes elements over by
//! connecting to the port that their own association came from. Associations that come up are peeled
//! off to descriptors of their own ([`SctpLink`]), so a slow peer blocks nobody else.
//!
//! Between two endpoints there is at most one association. Dialling while there is one fails with
//! `AlreadyExists`; two that dial each other at the same time end up with the same one, and both see it
//! as dialled.

use super::scratch;
pub use super::sctp_socket::available;
use super::sctp_socket::{
    AssociationId, Incoming, Parameters, SctpNotification, SctpSocket, SendInfo, SocketStyle, send_flags,
};
use super::tcp::QUEUE_BOUND;
use super::{Condition, QueueStatus, ReadStatus};
use crate::wire::frame::{self, LONGEST_MESSAGE};
use crate::wire::{AsapType, EnrpType, PPID_ASAP, PPID_ENRP};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

const BACKLOG: i32 = 4096;

/// Registrar associations: a lost packet costs half a second, not the kernel's 3 s; a host that is gone
/// is given up after some 20 s when something was sent (keep-alives and presences find it sooner). Where nothing is, it
/// does not answer four heartbeats within some 30 s, and whoever owns the link looks after that
/// ([`SctpLink::is_unreachable`]): the kernel itself would wait for eight. Not below 500 ms: peers may delay
/// acknowledgements by 200 ms.
const LINK_PARAMETERS: Parameters = Parameters {
    rto_initial: 1000,
    rto_min: 500,
    rto_max: 3000,
    assoc_max_rxt: 8,
    path_max_rxt: 3,
    hb_interval: 5000,
};
/// What the kernel may keep for a link that never said anything, of what comes; and once it did, over ASAP's port, of
/// which there are many, and over ENRP's, which brings handle tables.
const FIRST_BUFFER: usize = 16 << 10;
const ASAP_BUFFER: usize = 32 << 10;
const ENRP_BUFFER: usize = 64 << 10;
/// The same for what goes: the longest message fits.
const SEND_BUFFER: usize = 64 << 10;
/// From so many bytes on a message is taken out of the kernel's buffer before its end has come.
const PARTIAL: u32 = 4096;
/// INITs are repeated after 1, 2, 3, 3 s: a dial to nowhere fails after about 9 s at the latest.
const INIT_ATTEMPTS: u16 = 3;
const INIT_LONGEST: u16 = 3000;

/// What happened at an endpoint.
#[derive(Debug)]
pub enum EndpointEvent {
    /// Somebody connected.
    Accepted(SctpLink),
    /// Somebody connected, and could not be taken: no descriptors, or no memory. It may try again.
    NotAccepted(io::Error),
    /// A dial came to its end. The number is the one given to [`SctpEndpoint::dial`].
    DialDone(u64, io::Result<SctpLink>),
}

/// One SCTP port of a service: accepts and dials.
#[derive(Debug)]
pub struct SctpEndpoint {
    socket: SctpSocket,
    ppid: u32,
    dials: BTreeMap<AssociationId, u64>,
}

impl SctpEndpoint {
    /// Listens on `addresses`, which share one port; none: all of this machine's, port 0: the kernel's
    /// choice. `ppid`: [`PPID_ASAP`] or [`PPID_ENRP`].
    ///
    /// Bind to all addresses, or list those of all families that peers announce: with a part of them,
    /// Linux ends some associations that both sides start at the same time.
    ///
    /// Errors: `EPROTONOSUPPORT` without SCTP, `EADDRINUSE`, `EADDRNOTAVAIL`, and the system's.
    pub fn bind(ppid: u32, addresses: &[SocketAddr]) -> io::Result<SctpEndpoint> {
        let only_v4 = !addresses.is_empty() && addresses.iter().all(SocketAddr::is_ipv4);
        let socket = match only_v4 {
            true => SctpSocket::new(SocketStyle::OneToMany, false)?,
            false => SctpSocket::of_any_family(SocketStyle::OneToMany)?,
        };
        socket.set_parameters(0, LINK_PARAMETERS)?;
        socket.set_init(INIT_ATTEMPTS, INIT_LONGEST)?;
        socket.set_sack_at_once(0)?;
        socket.interleave(true)?;
        socket.set_window(room_of(ppid))?;
        socket.set_reuse_address()?;
        socket.bind(addresses)?;
        socket.listen(BACKLOG)?;
        Ok(SctpEndpoint { socket, ppid, dials: BTreeMap::new() })
    }

    /// The port bound to.
    pub fn port(&self) -> u16 {
        self.socket.local_port().unwrap_or(0)
    }

    /// The addresses at which it can be reached now, all scopes.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.socket.local_addresses(0).unwrap_or_default()
    }

    /// Starts to dial the host that has all of `addresses`; `token` comes back in
    /// [`EndpointEvent::DialDone`], unless this fails at once. Errors: `AlreadyExists` (there is an association
    /// with this peer already), `EAFNOSUPPORT`, `ENETUNREACH`, and the system's.
    pub fn dial(&mut self, token: u64, addresses: &[SocketAddr]) -> io::Result<()> {
        let association = self.socket.connect(addresses)?;
        self.dials.insert(association, token);
        Ok(())
    }

    /// Gives a dial up; no `DialDone` follows.
    pub fn cancel(&mut self, token: u64) {
        let dial = self.dials.iter().find(|(_, dial)| **dial == token);
        if let Some(association) = dial.map(|(association, _)| *association) {
            self.dials.remove(&association);
            self.drop_association(association);
        }
    }

    /// The endpoint is readable: tells what happened, up to `budget` events.
    pub fn read_events(
        &mut self,
        budget: usize,
        event: &mut dyn FnMut(EndpointEvent),
    ) -> io::Result<ReadStatus> {
        let mut buffer = [0; 512];
        for _ in 0..budget {
            let notification = match self.socket.recv(&mut buffer)? {
                None => return Ok(ReadStatus::Drained),
                Some(Incoming::Notification(notification)) => notification,
                // Of an association that could not be peeled off.
                Some(Incoming::Data { .. } | Incoming::Closed) => continue,
            };
            if let Some(happened) = self.handle(notification) {
                event(happened);
            }
        }
        Ok(ReadStatus::More)
    }

    fn handle(&mut self, notification: SctpNotification) -> Option<EndpointEvent> {
        let (association, result) = match notification {
            SctpNotification::Up { association, .. } => (association, self.peel_off(association)),
            SctpNotification::NotStarted { association, .. } => {
                (association, Err(ErrorKind::ConnectionRefused.into()))
            }
            SctpNotification::Lost { association, .. } => {
                (association, Err(ErrorKind::ConnectionReset.into()))
            }
            SctpNotification::Ended { association } | SctpNotification::PeerShutdown { association } => {
                (association, Err(ErrorKind::ConnectionAborted.into()))
            }
            _ => return None,
        };
        match (self.dials.remove(&association), result) {
            (Some(token), result) => Some(EndpointEvent::DialDone(token, result)),
            (None, Ok(link)) => Some(EndpointEvent::Accepted(link)),
            // Only what the system says has a number: the others are ends of what was not there yet.
            (None, Err(error)) => error.raw_os_error().map(|_| EndpointEvent::NotAccepted(error)),
        }
    }

    fn peel_off(&self, association: AssociationId) -> io::Result<SctpLink> {
        match self.socket.peel_off(association) {
            Ok(socket) => Ok(SctpLink::new(socket, self.ppid)),
            Err(error) => {
                if error.raw_os_error() == Some(libc::EINVAL) {
                    // It is over already.
                    return Err(ErrorKind::ConnectionReset.into());
                }
                self.drop_association(association);
                Err(error)
            }
        }
    }

    fn drop_association(&self, association: AssociationId) {
        if let Err(error) = self.socket.abort(association) {
            log::debug!("SCTP: association {association} was gone before its abort: {error}");
        }
    }
}

impl AsFd for SctpEndpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the kernel may keep of what comes over a link, and the window that the peer is told.
fn room_of(ppid: u32) -> usize {
    if ppid == PPID_ENRP { ENRP_BUFFER } else { ASAP_BUFFER }
}

/// A link over SCTP: an association with its own descriptor. Dropping it ends the association in order.
#[derive(Debug)]
pub struct SctpLink {
    socket: SctpSocket,
    ppid: u32,
    /// The beginning of a message that the kernel delivers in parts.
    partial: Vec<u8>,
    /// What comes belongs to a message that is ignored.
    skipping: bool,
    /// A whole message has come.
    spoke: bool,
    /// Messages that the kernel did not take, and their bytes.
    queue: VecDeque<Box<[u8]>>,
    queued: usize,
    bound: usize,
    peer: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
}

impl SctpLink {
    fn new(socket: SctpSocket, ppid: u32) -> SctpLink {
        let bounded =
            socket.bound_buffers(FIRST_BUFFER, SEND_BUFFER).and_then(|()| socket.deliver_partially(PARTIAL));
        // Messages of other streams would come between the parts of one.
        if let Err(error) = bounded.and_then(|()| socket.interleave(false)) {
            log::debug!("SCTP: bounds of an association: {error}");
        }
        let peer = socket.peer_addresses(0).unwrap_or_default();
        let local = socket.local_addresses(0).unwrap_or_default();
        SctpLink {
            socket,
            ppid,
            partial: Vec::new(),
            skipping: false,
            spoke: false,
            queue: VecDeque::new(),
            queued: 0,
            bound: QUEUE_BOUND,
            peer,
            local,
        }
    }

    /// Changes the send queue's bound (bytes).
    pub fn set_queue_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// Hands up to `budget` messages to `message`. Messages of other PPIDs are ignored, but count; one
    /// of the other service's PPID (ASAP's, ENRP's) aborts the association. One without a PPID, which RFC 5352
    /// section 5 allows, is the service's if it looks like that: the port says what it must be.
    /// An association that broke, or was started anew by a peer that forgot it, is `ConnectionReset`.
    pub fn read_messages(&mut self, budget: usize, message: &mut dyn FnMut(&[u8])) -> io::Result<ReadStatus> {
        // Taken, not borrowed: `message` may come back here for another link.
        let mut buffer = scratch::take();
        buffer.resize(LONGEST_MESSAGE, 0);
        let mut result = Ok(ReadStatus::More);
        for _ in 0..budget {
            match self.read_one(&mut buffer, message) {
                Ok(None) => {}
                Ok(Some(status)) => {
                    result = Ok(status);
                    break;
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        scratch::give_back(buffer);
        result
    }

    /// `None`: go on.
    fn read_one(
        &mut self,
        buffer: &mut [u8],
        message: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Option<ReadStatus>> {
        let Some((incoming, more)) = self.socket.recv_and_look(buffer)? else {
            return Ok(Some(ReadStatus::Drained));
        };
        let (length, end, ppid) = match incoming {
            Incoming::Closed => return Ok(Some(ReadStatus::Closed)),
            Incoming::Notification(notification) => return self.notified(notification),
            Incoming::Data { length, end, ppid, .. } => (length, end, u32::from_be(ppid)),
        };
        let then = if more { None } else { Some(ReadStatus::Drained) };
        if (ppid == PPID_ASAP || ppid == PPID_ENRP) && ppid != self.ppid {
            // Whoever speaks ENRP to ASAP's port, or the reverse, is told at once, as by rsplib.
            self.socket.abort(0)?;
            return Ok(Some(ReadStatus::Garbage));
        }
        let part = &buffer[..length];
        let begins = self.partial.is_empty();
        let ours = ppid == self.ppid || (ppid == 0 && (!begins || self.begins_message(part, end)));
        if self.skipping || !ours {
            self.skipping = !end;
            return Ok(then);
        }
        if self.partial.len() + length > LONGEST_MESSAGE {
            return Ok(Some(ReadStatus::Garbage));
        }
        if end && !std::mem::replace(&mut self.spoke, true) {
            // No error ends a link: it only has less room.
            let _ = self.socket.bound_buffers(room_of(self.ppid), SEND_BUFFER);
        }
        match (end, begins) {
            (true, true) => message(trimmed(part)),
            (true, false) => {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(part);
                message(trimmed(&whole));
            }
            (false, _) => self.partial.extend_from_slice(part),
        }
        Ok(then)
    }

    /// Whether the first part of a user message without a PPID is the beginning of one of the service's messages.
    fn begins_message(&self, part: &[u8], whole: bool) -> bool {
        frame::looks_like_one(part, whole, |kind| match self.ppid {
            PPID_ENRP => EnrpType(kind).name().is_some(),
            _ => AsapType(kind).name().is_some(),
        })
    }

    fn notified(&mut self, notification: SctpNotification) -> io::Result<Option<ReadStatus>> {
        match notification {
            SctpNotification::Lost { .. }
            | SctpNotification::Restarted { .. }
            | SctpNotification::NotStarted { .. } => Err(ErrorKind::ConnectionReset.into()),
            SctpNotification::Ended { .. } | SctpNotification::PeerShutdown { .. } => {
                Ok(Some(ReadStatus::Closed))
            }
            SctpNotification::PartialDeliveryAborted { .. } => {
                self.partial = Vec::new();
                self.skipping = false;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Sends padded messages that lie back to back, each as one user message; what the kernel does not
    /// take is queued. Errors: `InvalidInput` if `bytes` are no whole messages, and the system's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<QueueStatus> {
        if !self.queue.is_empty()
            && self.flush()? != QueueStatus::Empty
            && self.queued + bytes.len() > self.bound
        {
            return Ok(QueueStatus::Overflow);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(Some(length)) = frame::first_message(rest) else {
                return Err(ErrorKind::InvalidInput.into());
            };
            if !self.queue.is_empty() || !self.send_one(&rest[..length])? {
                if self.queued + rest.len() > self.bound {
                    return Ok(QueueStatus::Overflow);
                }
                self.queued += length;
                self.queue.push_back(rest[..length].into());
            }
            rest = &rest[length..];
        }
        Ok(self.status())
    }

    /// The socket is writable: sends more of the queue.
    pub fn flush(&mut self) -> io::Result<QueueStatus> {
        while let Some(first) = self.queue.front() {
            if !self.send_one(first)? {
                break;
            }
            self.queued -= first.len();
            self.queue.pop_front();
        }
        Ok(self.status())
    }

    /// Bytes kept with the link: unfinished message and send queue.
    pub fn buffered(&self) -> usize {
        self.partial.len() + self.queued
    }

    /// Whether the beginning of a message waits for its end, as far as the kernel has handed it out.
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty() || self.skipping
    }

    /// What the kernel keeps for the link: bytes that came and can't be received yet, or were not, and bytes that the
    /// peer has not acknowledged.
    pub fn kernel_memory(&self) -> (usize, usize) {
        self.socket.memory().unwrap_or_default()
    }

    /// Whether the peer's host has gone, as far as heartbeats tell.
    pub fn is_unreachable(&self) -> bool {
        self.socket.is_unreachable(0).unwrap_or(false)
    }

    /// Ends the association at once, with all that the kernel keeps for it: a peer that takes nothing could keep an end
    /// in order from coming.
    pub fn abort(&self) {
        if let Err(error) = self.socket.abort(0) {
            log::debug!("SCTP: an association was gone before its abort: {error}");
        }
    }

    fn status(&self) -> QueueStatus {
        if self.queue.is_empty() { QueueStatus::Empty } else { QueueStatus::Waiting(self.queued) }
    }

    /// `Ok(false)`: no room.
    fn send_one(&self, message: &[u8]) -> io::Result<bool> {
        // Its round trip is taken for the distance: what the peer puts off would count as way.
        let flags = send_flags::SACK_AT_ONCE;
        let info = SendInfo { ppid: self.ppid.to_be(), flags, ..SendInfo::default() };
        match self.socket.send(message, info) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// It is connected since it exists.
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// The peer's addresses, primary first; of an association that has ended, those it had at first.
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        match self.socket.peer_addresses(0) {
            Ok(list) if !list.is_empty() => list,
            _ => self.peer.clone(),
        }
    }

    /// How the way to the other end is (SCTP_STATUS, SCTP_GET_ASSOC_STATS).
    pub fn condition(&self) -> Option<Condition> {
        self.socket.condition(0).ok()
    }

    /// Our addresses, as for the peer's.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        match self.socket.local_addresses(0) {
            Ok(list) if !list.is_empty() => list,
            _ => self.local.clone(),
        }
    }
}

impl AsFd for SctpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A user message is one message; what follows it is no message. A short one is left to the decoder.
fn trimmed(bytes: &[u8]) -> &[u8] {
    match frame::first_message(bytes) {
        Ok(Some(length)) => &bytes[..length],
        _ => bytes,
    }
}

#[cfg(test)]
#[path = "sctp_tests.rs"]
mod tests;
