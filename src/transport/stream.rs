//! Session sockets over TCP: what the caller's thread does to one connection or listener, each a
//! system call or two. Nothing here blocks but what says so; nothing raises SIGPIPE.

use super::tcp_socket as tcp;
use crate::wire::scope::unmapped;
use crate::wire::show;
use socket2::{Domain, SockRef};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A listener is not woken for a connection that says nothing, for about this many seconds.
const DEFER_ACCEPT: libc::c_int = 5;

/// How a connection notices that its peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Idle time before the first probe, at least 1 s.
    pub probe_after: Duration,
    /// Time between probes, at least 1 s.
    pub probe_interval: Duration,
    /// Probes without answer before the connection is broken.
    pub probes: u32,
    /// How long the peer's host may leave everything unanswered that it is sent.
    pub patience: Duration,
}

/// Whom a socket is connected with; `None` when it is not any more.
pub fn peer(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SockRef::from(&socket).peer_addr().ok().and_then(|peer| peer.as_socket()).map(|peer| unmapped(&peer))
}

/// The same as words behind a name.
pub fn far_end(socket: BorrowedFd<'_>) -> String {
    show::at(peer(socket))
}

/// Bytes that the other end has acknowledged, and those that came from it.
pub fn bytes(socket: BorrowedFd<'_>) -> (u64, u64) {
    tcp::info(socket).map(|info| (info.tcpi_bytes_acked, info.tcpi_bytes_received)).unwrap_or_default()
}

/// A bound TCP socket. An unspecified IPv6 address takes IPv4 connections as well.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    Ok(tcp::bind(address)?.into())
}

/// A socket bound to any address and a port of the kernel's choice; dual-stack where there is IPv6.
pub fn bind_any(port: u16, ipv4_only: bool) -> io::Result<OwnedFd> {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    if ipv4_only {
        return bind(v4);
    }
    match bind(v6) {
        Err(error) if no_such_family(&error) => bind(v4),
        result => result,
    }
}

fn no_such_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

/// A socket that is neither bound nor connected.
pub fn unbound(ipv6: bool) -> io::Result<OwnedFd> {
    Ok(tcp::new_socket(if ipv6 { Domain::IPV6 } else { Domain::IPV4 })?.into())
}

/// Listens for sessions, or changes the backlog. The dialler speaks first, so the listener need not
/// be woken before it did.
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    SockRef::from(&socket).listen(backlog)?;
    // A convenience: without it the listener reads greetings later.
    let _ = tcp::set_option(socket, libc::TCP_DEFER_ACCEPT, DEFER_ACCEPT);
    Ok(())
}

/// The next connection; `None` when there is none.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
    Ok(tcp::accept(listener)?.map(|(socket, peer)| (socket.into(), peer)))
}

/// Begins to connect; the socket becomes writable when it is known how that went.
pub fn dial(to: SocketAddr) -> io::Result<OwnedFd> {
    dial_with(tcp::new_socket(Domain::for_address(to))?.into(), to)
}

/// [`dial`] with a socket that carries options.
pub fn dial_with(socket: OwnedFd, to: SocketAddr) -> io::Result<OwnedFd> {
    tcp::connect(socket.as_fd(), to)?;
    Ok(socket)
}

/// Messages go out at once, and a peer that vanished is noticed.
pub fn tune(socket: BorrowedFd<'_>, liveness: &Liveness) -> io::Result<()> {
    // No TCP_USER_TIMEOUT: the kernel counts a peer that acknowledges and does not read as one that is gone.
    tcp::tune(socket, liveness.probe_after, liveness.probe_interval, liveness.probes)
}

/// What a peer's host owes us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// Something was sent, or waits to be, that it has not acknowledged.
    pub outstanding: bool,
    /// Something of that, or a question whether there is room, was sent more than once.
    pub unanswered: bool,
    /// Time since its last sign of life.
    pub heard: Duration,
}

/// What the kernel knows of a connection's outstanding data. An error: the connection is over.
#[allow(unsafe_code)]
pub fn owed(socket: BorrowedFd<'_>) -> io::Result<Owed> {
    let info = tcp::info(socket)?;
    let mut queued: libc::c_int = 0;
    // SAFETY: the request writes one int through its argument.
    let known = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) } == 0;
    Ok(Owed {
        outstanding: info.tcpi_unacked > 0 || (known && queued > 0),
        unanswered: info.tcpi_retransmits > 0 || info.tcpi_probes > 0,
        heard: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
    })
}

/// Our address of a socket.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address = SockRef::from(&socket).local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// One send(2), or sendmsg(2) for several parts.
pub fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    if let [part] = parts {
        return SockRef::from(&socket).send_with_flags(part, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    }
    SockRef::from(&socket).send_vectored_with_flags(parts, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

/// One recv(2), or recvmsg(2) for several parts, that fills `parts` in order; 0 is the end of the stream.
pub fn receive(socket: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    receive_message(socket, parts, libc::MSG_DONTWAIT)
}

/// [`receive`] that leaves the bytes where they are.
pub fn peek(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    receive_message(socket, &mut [IoSliceMut::new(bytes)], libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

#[allow(unsafe_code)]
fn receive_message(
    socket: BorrowedFd<'_>,
    parts: &mut [IoSliceMut<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    if let [part] = parts {
        // SAFETY: `part` is borrowed mutably for the whole call.
        let count = unsafe { libc::recv(socket.as_raw_fd(), part.as_mut_ptr().cast(), part.len(), flags) };
        return usize::try_from(count).map_err(|_| io::Error::last_os_error());
    }
    // SAFETY: all zero bytes are a valid msghdr: no name, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr().cast();
    header.msg_iovlen = parts.len() as _;
    // SAFETY: IoSliceMut has the layout of iovec (its documentation promises it), and `parts` with
    // what it points to is borrowed mutably for the whole call.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// How many bytes can be received at once.
#[allow(unsafe_code)]
pub fn pending(socket: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int through its argument.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// poll(2) over numbers, whose owners may close them meanwhile. `milliseconds` -1: for ever.
#[allow(unsafe_code)]
pub fn poll(entries: &mut [libc::pollfd], milliseconds: i32) -> io::Result<usize> {
    let count = libc::nfds_t::try_from(entries.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: pointer and length are those of one slice, borrowed mutably for the call.
    let result = unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Ends our direction in order.
pub fn finish(socket: BorrowedFd<'_>) {
    let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
}

/// Breaks the connection: the peer gets a reset, whoever waits on it here wakes.
pub fn abort(socket: BorrowedFd<'_>) {
    let socket = SockRef::from(&socket);
    let _ = socket.set_linger(Some(Duration::ZERO));
    disconnect(socket.as_raw_fd());
}

/// connect(2) to AF_UNSPEC: Linux resets the connection and keeps the descriptor.
#[allow(unsafe_code)]
fn disconnect(socket: libc::c_int) {
    // SAFETY: all zero bytes are a valid sockaddr.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the pointer is to a sockaddr of that length, alive for the call.
    unsafe { libc::connect(socket, &raw const nowhere, length) };
}
