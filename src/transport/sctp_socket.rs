//! Sockets over the kernel's SCTP: messages with stream and PPID, notifications, many addresses.
//!
//! One type for the three styles: one-to-one (`SOCK_STREAM`), one-to-many (`SOCK_SEQPACKET`), and an
//! association peeled off the latter. Non-blocking throughout: wait with `poll(2)` on [`AsFd`].
//! The functions take an [`AssociationId`]; only one-to-many sockets look at it, elsewhere 0 will do.

use super::Condition;
use super::descriptors::Held;
pub use super::sctp_event::{AssociationId, PathState, SctpNotification};
use super::sctp_structs::{
    AssociationParameters, InitMessage, PathInfo, PathParameters, Primary, RtoInfo, SackInfo, Statistics,
    Status,
};
use super::sctp_sys as sys;
use super::structures::zeroed;
use crate::wire::scope::unmapped;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_getres};
use socket2::SockRef;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const RTOINFO: i32 = 0;
const ASSOCINFO: i32 = 1;
const INITMSG: i32 = 2;
const NODELAY: i32 = 3;
const PRIMARY_ADDR: i32 = 6;
const PEER_ADDR_PARAMS: i32 = 9;
const EVENTS: i32 = 11;
const STATUS: i32 = 14;
const GET_PEER_ADDR_INFO: i32 = 15;
const GET_ASSOC_STATS: i32 = 112;
const DELAYED_SACK: i32 = 16;
const FRAGMENT_INTERLEAVE: i32 = 18;
const PARTIAL_DELIVERY_POINT: i32 = 19;
const RECVNXTINFO: i32 = 33;

/// What kernels before 4.20 know of `PathParameters`: all up to the flags.
const OLD_PATH_PARAMETERS: usize = 152;

/// No notification that matters is longer; of a longer one only the beginning is looked at.
const NOTIFICATION_ROOM: usize = 512;

/// Whether this machine's kernel has SCTP (RFC 9260). Asked once; may load the kernel's module.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| sys::new_socket(false, libc::SOCK_STREAM).is_ok())
}

/// What the kernel may keep for all associations of a process, bytes: a quarter of what SCTP may have on this machine,
/// since others are here, too, and 64 MiB at most.
pub fn memory_share() -> usize {
    const MOST: usize = 64 << 20;
    let limits = fs::read_to_string("/proc/sys/net/sctp/sctp_mem").unwrap_or_default();
    let pages: Option<usize> = limits.split_whitespace().next_back().and_then(|most| most.parse().ok());
    pages.map_or(MOST, |pages| (pages.saturating_mul(4096) / 4).min(MOST))
}

/// How associations of a socket are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketStyle {
    /// A socket is one association, or listens and accepts (`SOCK_STREAM`).
    OneToOne,
    /// A socket has many associations (`SOCK_SEQPACKET`).
    OneToMany,
    /// An association that was taken out of a one-to-many socket.
    PeeledOff,
}

/// Association parameters; 0 leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Retransmission time-out before anything was measured, milliseconds.
    pub rto_initial: u32,
    /// Its lower bound, milliseconds.
    pub rto_min: u32,
    /// Its upper bound, milliseconds.
    pub rto_max: u32,
    /// Retransmissions in a row before the association is given up.
    pub assoc_max_rxt: u16,
    /// Retransmissions in a row before an address counts as unreachable.
    pub path_max_rxt: u16,
    /// Heartbeat interval of idle addresses, milliseconds.
    pub hb_interval: u32,
}

/// How to send one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendInfo {
    /// To whom.
    pub association: AssociationId,
    /// Stream number.
    pub stream: u16,
    /// Payload protocol identifier as it lies in memory: `htonl` it for the usual meaning.
    pub ppid: u32,
    /// `SCTP_UNORDERED` (1) and what else [`send_flags`] names.
    pub flags: u16,
    /// Milliseconds after which the message is given up (RFC 3758); 0: never.
    pub time_to_live: u32,
}

/// Values of [`SendInfo::flags`], as `struct sctp_sndrcvinfo` has them on Linux.
pub mod send_flags {
    /// Delivered as soon as it comes.
    pub const UNORDERED: u16 = 1;
    /// Ends the association at once; not on one-to-one sockets.
    pub const ABORT: u16 = 4;
    /// The receiver acknowledges at once (RFC 7053).
    pub const SACK_AT_ONCE: u16 = 8;
    /// Ends the association in order, with an empty message; not on one-to-one sockets.
    pub const EOF: u16 = 0x200;
}

/// What one receive call brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// A message or a part of one.
    Data {
        /// Bytes written to the buffer.
        length: usize,
        /// Whether the message ends here. If not, its next part comes with the next call.
        end: bool,
        /// From whom.
        association: AssociationId,
        /// Stream number.
        stream: u16,
        /// As it lies in memory: `ntohl` it for the usual meaning.
        ppid: u32,
        /// Whether it was sent unordered.
        unordered: bool,
        /// Which of the peer's addresses it came from.
        source: Option<SocketAddr>,
    },
    /// A notification; the buffer holds nothing of use.
    Notification(SctpNotification),
    /// The peer sends nothing any more (one-to-one sockets).
    Closed,
}

/// What the next receive call would bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upcoming {
    /// A notification.
    Notification,
    /// A message or a part of one.
    Data {
        /// As it lies in memory.
        ppid: u32,
    },
    /// The end (one-to-one sockets).
    Closed,
}

/// An SCTP socket.
#[derive(Debug)]
pub struct SctpSocket {
    fd: Held<OwnedFd>,
    style: SocketStyle,
    v6: bool,
}

impl SctpSocket {
    /// A socket that speaks IPv4 and IPv6, or IPv4 only (`v6` false). All [`SctpNotification`]s are on except those
    /// of paths; `NODELAY` is on. Errors: `EPROTONOSUPPORT` without SCTP, `EAFNOSUPPORT` without IPv6.
    pub fn new(style: SocketStyle, v6: bool) -> io::Result<SctpSocket> {
        let kind = match style {
            SocketStyle::OneToOne => libc::SOCK_STREAM,
            SocketStyle::OneToMany | SocketStyle::PeeledOff => libc::SOCK_SEQPACKET,
        };
        let socket = SctpSocket { fd: sys::new_socket(v6, kind)?.into(), style, v6 };
        if v6 {
            SockRef::from(&*socket.fd).set_only_v6(false)?;
        }
        socket.prepare()?;
        Ok(socket)
    }

    /// As [`SctpSocket::new`], with IPv6 where the machine has it.
    pub fn of_any_family(style: SocketStyle) -> io::Result<SctpSocket> {
        SctpSocket::new(style, true).or_else(|_| SctpSocket::new(style, false))
    }

    fn prepare(&self) -> io::Result<()> {
        sys::set(self.as_fd(), NODELAY, &1_i32.to_ne_bytes())?;
        sys::set(self.as_fd(), RECVNXTINFO, &1_i32.to_ne_bytes())?;
        self.subscribe(false)
    }

    /// Which notifications come: those of the association always, those of `paths` if wanted.
    pub fn subscribe(&self, paths: bool) -> io::Result<()> {
        // data-io, association, address, send failure, peer error, shutdown, partial delivery.
        sys::set(self.as_fd(), EVENTS, &[1, 1, u8::from(paths), 0, 0, 1, 1])
    }

    /// Its style.
    pub fn style(&self) -> SocketStyle {
        self.style
    }

    /// Whether it takes IPv6 addresses.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Binds to `addresses`; none, or an unspecified one: all of this machine's. They share one port;
    /// port 0: the kernel's choice.
    pub fn bind(&self, addresses: &[SocketAddr]) -> io::Result<()> {
        let any = |port| match self.v6 {
            true => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            false => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        };
        let port = addresses.first().map_or(0, SocketAddr::port);
        let everything = addresses.iter().all(|address| address.ip().is_unspecified());
        let wildcard_v4 = self.v6 && addresses.iter().any(SocketAddr::is_ipv4) && addresses.len() == 1;
        let list = match everything {
            true if wildcard_v4 => vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))],
            true => vec![any(port)],
            false => self.in_own_families(addresses)?,
        };
        // bindx without a port gives each address another one, so the first fixes it.
        sys::bindx(self.as_fd(), &list[..1])?;
        if list.len() > 1 {
            let port = self.local_port()?;
            let others: Vec<_> =
                list[1..].iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
            sys::bindx(self.as_fd(), &others)?;
        }
        Ok(())
    }

    /// `addresses` as this socket can use them, at most 32.
    fn in_own_families(&self, addresses: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
        let usable = |address: &SocketAddr| self.v6 || address.is_ipv4();
        let list: Vec<_> = addresses.iter().map(unmapped).filter(usable).take(sys::MAX_ADDRESSES).collect();
        match list.is_empty() {
            true => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            false => Ok(list),
        }
    }

    /// Lets it bind to a port on which only associations are left of a process that has ended or stopped
    /// listening.
    pub fn set_reuse_address(&self) -> io::Result<()> {
        SockRef::from(&*self.fd).set_reuse_address(true)
    }

    /// Takes associations from outside.
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        SockRef::from(&*self.fd).listen(backlog)
    }

    /// The next association of a listening one-to-one socket, and one of the peer's addresses; `None`:
    /// nobody waits.
    pub fn accept(&self) -> io::Result<Option<(SctpSocket, Option<SocketAddr>)>> {
        loop {
            match sys::accept(self.as_fd()) {
                Ok((fd, peer)) => {
                    let socket = SctpSocket { fd: fd.into(), style: SocketStyle::OneToOne, v6: self.v6 };
                    socket.prepare()?;
                    return Ok(Some((socket, peer)));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    // That one gave up before it was its turn.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Moves an association of a one-to-many socket, with all that is queued for it, to its own
    /// descriptor. Do so when its [`SctpNotification::Up`] is read and nothing of it is ever missed.
    pub fn peel_off(&self, association: AssociationId) -> io::Result<SctpSocket> {
        let fd = sys::peel_off(self.as_fd(), association)?;
        let socket = SctpSocket { fd: fd.into(), style: SocketStyle::PeeledOff, v6: self.v6 };
        socket.prepare()?;
        Ok(socket)
    }

    /// Starts an association with the host that has all of `addresses`. On a one-to-many socket
    /// [`SctpNotification::Up`] or [`SctpNotification::NotStarted`] with the number returned tells how it went;
    /// on a one-to-one socket see [`SctpSocket::finish_connect`].
    ///
    /// Errors: `AlreadyExists`: there is one between these ends, possibly peeled off; and the system's.
    pub fn connect(&self, addresses: &[SocketAddr]) -> io::Result<AssociationId> {
        let addresses = self.in_own_families(addresses)?;
        sys::connectx(self.as_fd(), &addresses).map_err(|error| match error.raw_os_error() {
            Some(libc::EISCONN | libc::EALREADY | libc::EADDRNOTAVAIL) => io::ErrorKind::AlreadyExists.into(),
            _ => error,
        })
    }

    /// How the connect of a one-to-one socket stands: `Ok(true)`: it is up; `Ok(false)`: not yet (wait until
    /// the descriptor is writable or has an error).
    pub fn finish_connect(&self) -> io::Result<bool> {
        self.finish_connect_within(Duration::ZERO)
    }

    fn finish_connect_within(&self, time: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Round up, or the last millisecond is spent spinning.
            let millis = left.as_micros().div_ceil(1000).min(60_000) as u16;
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
            let ready = match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(count) => count > 0,
                Err(nix::errno::Errno::EINTR) => false,
                Err(error) => return Err(error.into()),
            };
            if ready {
                return match SockRef::from(&*self.fd).take_error()? {
                    Some(error) => Err(error),
                    None if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) => {
                        Ok(true)
                    }
                    None => Err(io::ErrorKind::ConnectionRefused.into()),
                };
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Connects a one-to-one socket and waits for it; `TimedOut` after `limit`.
    pub fn connect_within(&self, addresses: &[SocketAddr], limit: Duration) -> io::Result<()> {
        self.connect(addresses)?;
        match self.finish_connect_within(limit)? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends a message whole. Errors: `WouldBlock`: no room now, `EMSGSIZE`: never room (larger than the
    /// send buffer), `EPIPE`/`ECONNRESET`/`ENOTCONN`: the association is gone, `EINVAL`: no such stream.
    pub fn send(&self, bytes: &[u8], info: SendInfo) -> io::Result<usize> {
        let info = libc::sctp_sndrcvinfo {
            sinfo_stream: info.stream,
            sinfo_flags: info.flags,
            sinfo_ppid: info.ppid,
            sinfo_timetolive: info.time_to_live,
            sinfo_assoc_id: info.association,
            ..sys::no_info()
        };
        loop {
            match sys::send(self.as_fd(), bytes, &info) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Receives a message, a part of one, or a notification; `None`: nothing there. Errors are the
    /// association's end: `ECONNRESET`, `ETIMEDOUT`, ...
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Incoming>> {
        Ok(self.recv_and_look(buffer)?.map(|(incoming, _)| incoming))
    }

    /// As [`SctpSocket::recv`]; also says whether more waits behind it. If not, another call is of no use
    /// before the descriptor has become readable again.
    pub fn recv_and_look(&self, buffer: &mut [u8]) -> io::Result<Option<(Incoming, bool)>> {
        if buffer.len() < NOTIFICATION_ROOM && self.notification_waits()? {
            return self.recv_into(&mut [0; NOTIFICATION_ROOM]);
        }
        self.recv_into(buffer)
    }

    fn notification_waits(&self) -> io::Result<bool> {
        Ok(self.look()? == Some(Upcoming::Notification))
    }

    /// What the next call to receive would bring; `None`: nothing. Errors as for [`SctpSocket::recv`],
    /// which does not say them again.
    pub fn look(&self) -> io::Result<Option<Upcoming>> {
        let next = sys::receive(self.as_fd(), &mut [0; 8], libc::MSG_PEEK)?;
        Ok(next.map(|next| match next.flags & libc::MSG_NOTIFICATION {
            0 if next.length == 0 => Upcoming::Closed,
            0 => Upcoming::Data { ppid: next.info.map_or(0, |info| info.sinfo_ppid) },
            _ => Upcoming::Notification,
        }))
    }

    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<Option<(Incoming, bool)>> {
        loop {
            let Some(raw) = sys::receive(self.as_fd(), buffer, 0)? else { return Ok(None) };
            let end = raw.flags & libc::MSG_EOR != 0;
            if raw.flags & libc::MSG_NOTIFICATION != 0 {
                let notification = SctpNotification::parse(&buffer[..raw.length]);
                if !end {
                    self.skip_rest()?;
                }
                match notification {
                    Some(notification) => return Ok(Some((Incoming::Notification(notification), true))),
                    None => continue,
                }
            }
            // SCTP has no empty messages.
            if raw.length == 0 && !buffer.is_empty() {
                return Ok(Some((Incoming::Closed, true)));
            }
            let info = raw.info.unwrap_or_else(sys::no_info);
            let data = Incoming::Data {
                length: raw.length,
                end,
                association: info.sinfo_assoc_id,
                stream: info.sinfo_stream,
                ppid: info.sinfo_ppid,
                unordered: info.sinfo_flags & send_flags::UNORDERED != 0,
                source: raw.source,
            };
            return Ok(Some((data, raw.more || !end)));
        }
    }

    /// Takes the rest of a notification that did not fit.
    fn skip_rest(&self) -> io::Result<()> {
        let mut rest = [0; 4096];
        while let Some(raw) = sys::receive(self.as_fd(), &mut rest, 0)? {
            if raw.length == 0 || raw.flags & libc::MSG_EOR != 0 {
                break;
            }
        }
        Ok(())
    }

    /// Ends an association in order: what was sent still arrives.
    pub fn end(&self, association: AssociationId) -> io::Result<()> {
        match self.style {
            SocketStyle::OneToOne => SockRef::from(&*self.fd).shutdown(Shutdown::Both),
            SocketStyle::OneToMany | SocketStyle::PeeledOff => {
                self.send(&[], SendInfo { association, flags: send_flags::EOF, ..SendInfo::default() })?;
                Ok(())
            }
        }
    }

    /// Ends the association of a one-to-one socket in order: what was sent still arrives, and what
    /// comes until the peer ends as well can be received.
    pub fn finish(&self) -> io::Result<()> {
        SockRef::from(&*self.fd).shutdown(Shutdown::Write)
    }

    /// Gives the association of a one-to-one socket up. Whoever waits for data wakes; the peer gets its
    /// ABORT when the descriptor is closed.
    pub fn give_up(&self) -> io::Result<()> {
        self.abort(0)?;
        SockRef::from(&*self.fd).shutdown(Shutdown::Read)
    }

    /// Receives up to `bytes` before the application takes any, as far as `net.core.rmem_max` allows; of
    /// associations to come.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(&*self.fd).set_recv_buffer_size(bytes)
    }

    /// Bounds what the kernel keeps for this socket (twice as much, since headers count): bytes that came and were not
    /// received, and bytes that were sent and not acknowledged. More is not taken. Without this the bound is the memory
    /// that all of SCTP may have.
    pub fn bound_buffers(&self, incoming: usize, outgoing: usize) -> io::Result<()> {
        let socket = SockRef::from(&*self.fd);
        socket.set_recv_buffer_size(incoming)?;
        socket.set_send_buffer_size(outgoing)
    }

    /// Associations to come tell their peers a window of `bytes`, without the bound of [`SctpSocket::bound_buffers`] on what
    /// comes before they have sockets of their own. Kernels before 5.14 leave the window as it was.
    pub fn set_window(&self, bytes: usize) -> io::Result<()> {
        let socket = SockRef::from(&*self.fd);
        // What is set is doubled, and half of that is the window.
        let before = socket.recv_buffer_size()? / 2;
        socket.set_recv_buffer_size(bytes)?;
        sys::soften_buffers(self.as_fd()).or_else(|_| socket.set_recv_buffer_size(before))
    }

    /// Bounds what the kernel keeps for this socket of what came to what it is now. See [`SctpSocket::bound_buffers`].
    pub fn bound_receive_buffer(&self) -> io::Result<()> {
        let socket = SockRef::from(&*self.fd);
        // What is set is doubled.
        socket.set_recv_buffer_size(socket.recv_buffer_size()? / 2)
    }

    /// What the kernel keeps for this socket: bytes that came and were not received, and bytes that were sent and not
    /// acknowledged, headers included.
    pub fn memory(&self) -> io::Result<(usize, usize)> {
        sys::memory(self.as_fd())
    }

    /// Whether something can be received now.
    pub fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// From so many bytes on, the beginning of a message is received although its end has not come (RFC 6458 section
    /// 8.1.21). At most half of the receive buffer's bound.
    pub fn deliver_partially(&self, from: u32) -> io::Result<()> {
        sys::set(self.as_fd(), PARTIAL_DELIVERY_POINT, &from.to_ne_bytes())
    }

    /// Whether messages of other associations may come between the parts of one (RFC 6458 section 8.1.20). If not, an
    /// association that does not end its message holds up all others of a one-to-many socket.
    pub fn interleave(&self, others: bool) -> io::Result<()> {
        sys::set(self.as_fd(), FRAGMENT_INTERLEAVE, &i32::from(others).to_ne_bytes())
    }

    /// Makes room for messages of `bytes` to be sent, as far as the system's `net.core.wmem_max` allows.
    /// Whether there is more than before.
    pub fn enlarge_send_buffer(&self, bytes: usize) -> bool {
        let socket = SockRef::from(&*self.fd);
        let before = socket.send_buffer_size().unwrap_or(0);
        socket.set_send_buffer_size(bytes).is_ok() && socket.send_buffer_size().unwrap_or(0) > before
    }

    /// Ends an association at once. On a one-to-one socket the peer is told when the descriptor is closed.
    pub fn abort(&self, association: AssociationId) -> io::Result<()> {
        match self.style {
            SocketStyle::OneToOne => SockRef::from(&*self.fd).set_linger(Some(Duration::ZERO)),
            SocketStyle::OneToMany | SocketStyle::PeeledOff => {
                self.send(&[], SendInfo { association, flags: send_flags::ABORT, ..SendInfo::default() })?;
                Ok(())
            }
        }
    }

    /// Sets parameters: of a live association (number, or 0 on a one-to-one socket that is connected), else
    /// of those to come.
    pub fn set_parameters(&self, association: AssociationId, to: Parameters) -> io::Result<()> {
        let fd = self.as_fd();
        if to.hb_interval != 0 || to.path_max_rxt != 0 {
            let value = PathParameters {
                association,
                hb_interval: to.hb_interval,
                path_max_rxt: to.path_max_rxt,
                // SPP_HB_ENABLE.
                flags: u32::from(to.hb_interval != 0),
                ..zeroed()
            };
            sys::set_structure(fd, PEER_ADDR_PARAMS, value, size_of::<PathParameters>())
                .or_else(|_| sys::set_structure(fd, PEER_ADDR_PARAMS, value, OLD_PATH_PARAMETERS))?;
        }
        if to.rto_initial != 0 || to.rto_min != 0 || to.rto_max != 0 {
            let value = RtoInfo { association, initial: to.rto_initial, max: to.rto_max, min: to.rto_min };
            sys::set_structure(fd, RTOINFO, value, size_of::<RtoInfo>())?;
        }
        if to.assoc_max_rxt != 0 {
            let value = AssociationParameters { association, max_rxt: to.assoc_max_rxt, ..zeroed() };
            sys::set_structure(fd, ASSOCINFO, value, size_of::<AssociationParameters>())?;
        }
        Ok(())
    }

    /// The parameters in force, as for [`SctpSocket::set_parameters`].
    pub fn parameters(&self, association: AssociationId) -> io::Result<Parameters> {
        let fd = self.as_fd();
        let rto = RtoInfo { association, ..zeroed() };
        let rto = sys::get_structure(fd, RTOINFO, rto, size_of::<RtoInfo>())?;
        let whole = AssociationParameters { association, ..zeroed() };
        let whole = sys::get_structure(fd, ASSOCINFO, whole, size_of::<AssociationParameters>())?;
        let path = PathParameters { association, ..zeroed() };
        let path = sys::get_structure(fd, PEER_ADDR_PARAMS, path, size_of::<PathParameters>())
            .or_else(|_| sys::get_structure(fd, PEER_ADDR_PARAMS, path, OLD_PATH_PARAMETERS))?;
        Ok(Parameters {
            rto_initial: rto.initial,
            rto_max: rto.max,
            rto_min: rto.min,
            assoc_max_rxt: whole.max_rxt,
            path_max_rxt: path.path_max_rxt,
            hb_interval: path.hb_interval,
        })
    }

    /// How often and how long at most (milliseconds) an INIT is repeated; 0: the system's default.
    pub fn set_init(&self, attempts: u16, longest: u16) -> io::Result<()> {
        let value = InitMessage { attempts, longest, ..zeroed() };
        sys::set_structure(self.as_fd(), INITMSG, value, size_of::<InitMessage>())
    }

    /// Acknowledges every packet at once, in associations to come and in this one.
    pub fn set_sack_at_once(&self, association: AssociationId) -> io::Result<()> {
        let value = SackInfo { association, delay: 0, frequency: 1 };
        sys::set_structure(self.as_fd(), DELAYED_SACK, value, size_of::<SackInfo>())
    }

    /// Sends to this of the peer's addresses as long as it works.
    pub fn set_primary(&self, association: AssociationId, address: &SocketAddr) -> io::Result<()> {
        let value = Primary { association, address: sys::storage(Some(&self.in_socket_family(address))) };
        sys::set_structure(self.as_fd(), PRIMARY_ADDR, value, size_of::<Primary>())
    }

    /// IPv6 sockets want a single address in their own family.
    fn in_socket_family(&self, address: &SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.v6 => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            _ => *address,
        }
    }

    /// Which of the peer's addresses is sent to.
    pub fn primary(&self, association: AssociationId) -> io::Result<SocketAddr> {
        let value = Primary { association, ..zeroed() };
        let value = sys::get_structure(self.as_fd(), PRIMARY_ADDR, value, size_of::<Primary>())?;
        let (address, _) = sys::unpack(&value.address).ok_or(io::ErrorKind::InvalidData)?;
        Ok(address)
    }

    /// The association's outgoing and incoming streams.
    pub fn streams(&self, association: AssociationId) -> io::Result<(u16, u16)> {
        let status = self.status(association)?;
        Ok((status.outgoing_streams, status.incoming_streams))
    }

    fn status(&self, association: AssociationId) -> io::Result<Status> {
        let value = Status { association, ..zeroed() };
        sys::get_structure(self.as_fd(), STATUS, value, size_of::<Status>())
    }

    /// How the way to the peer is. The smoothed round trip time is that of the primary path, in the kernel's ticks
    /// of 1 to 10 ms: `None` before anything was measured, or if it was less than half a tick.
    pub fn condition(&self, association: AssociationId) -> io::Result<Condition> {
        /// SCTP_ACTIVE.
        const ACTIVE: i32 = 2;
        let status = self.status(association)?;
        // RFC 6458 section 8.2.1 wants milliseconds, but Linux tells its ticks. The coarse clock has them too.
        let tick = Duration::from(clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?);
        let stats = Statistics { association, ..zeroed() };
        // Kernels before 3.8 don't count.
        let stats = sys::get_structure(self.as_fd(), GET_ASSOC_STATS, stats, size_of::<Statistics>());
        Ok(Condition {
            round_trip: (status.srtt > 0).then(|| tick.saturating_mul(status.srtt)),
            retransmissions: stats.map_or(0, |stats| stats.retransmitted + stats.duplicates),
            unacknowledged: status.unacknowledged > 0 || status.primary_state != ACTIVE,
        })
    }

    /// Whether the peer answers at none of its addresses: of each, so many heartbeats in a row were lost as its parameters
    /// say.
    pub fn is_unreachable(&self, association: AssociationId) -> io::Result<bool> {
        /// SCTP_INACTIVE.
        const INACTIVE: i32 = 0;
        if self.status(association)?.primary_state != INACTIVE {
            return Ok(false);
        }
        for address in self.peer_addresses(association)? {
            let address = sys::storage(Some(&self.in_socket_family(&address)));
            let path = PathInfo { association, address, ..zeroed() };
            let path = sys::get_structure(self.as_fd(), GET_PEER_ADDR_INFO, path, size_of::<PathInfo>())?;
            if path.state != INACTIVE {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The peer's addresses, the primary one first.
    pub fn peer_addresses(&self, association: AssociationId) -> io::Result<Vec<SocketAddr>> {
        let mut list = sys::addresses(self.as_fd(), sys::GET_PEER_ADDRS, association)?;
        if let Ok(primary) = self.primary(association)
            && let Some(position) = list.iter().position(|address| *address == primary)
        {
            list[..=position].rotate_right(1);
        }
        Ok(list)
    }

    /// Our addresses in an association; with 0 on a socket without one: those bound to. One bound to
    /// all addresses lists them.
    pub fn local_addresses(&self, association: AssociationId) -> io::Result<Vec<SocketAddr>> {
        sys::addresses(self.as_fd(), sys::GET_LOCAL_ADDRS, association)
    }

    /// The port bound to.
    pub fn local_port(&self) -> io::Result<u16> {
        let address = SockRef::from(&*self.fd).local_addr()?;
        Ok(address.as_socket().map_or(0, |address| address.port()))
    }
}

impl AsFd for SctpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
