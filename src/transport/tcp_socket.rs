//! What links and session sockets over TCP do alike: to make, bind, connect, accept and tune a socket.

use super::descriptors::lift;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Non-blocking, close-on-exec.
pub(super) fn new_socket(domain: Domain) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    lift(Socket::new_raw(domain, kind, Some(Protocol::TCP))?)
}

/// A bound socket. An unspecified IPv6 address takes IPv4 connections as well.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(Domain::for_address(address))?;
    if address.port() != 0 {
        // With port 0 the kernel could pick one whose other owner listens first.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Begins to connect; the socket becomes writable when [`is_connected`] has something to say.
pub(super) fn connect(socket: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    match SockRef::from(&socket).connect(&to.into()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok(()),
        result => result,
    }
}

/// How connecting stands: `Ok(false)`: under way; an error: it failed.
pub(super) fn is_connected(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&socket);
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    let peer = match socket.peer_addr() {
        Ok(peer) => peer.as_socket(),
        Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
        Err(error) => return Err(error),
    };
    // Dialling a port of the ephemeral range on this host, TCP can connect a socket to itself.
    match socket.local_addr()?.as_socket() == peer {
        true => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        false => Ok(true),
    }
}

/// The next connection and its peer; `None` when nobody waits. An error (descriptors or memory are short)
/// leaves the peer waiting.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<(Socket, SocketAddr)>> {
    loop {
        match SockRef::from(&listener).accept() {
            Ok((socket, peer)) => {
                let socket = lift(socket)?;
                socket.set_nonblocking(true)?;
                let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
                return Ok(Some((socket, peer.as_socket().unwrap_or(unknown))));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// accept(2): errors of the new connection, or what a packet filter said about it: nothing about the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use libc::{ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENONET, EPERM, EPROTO};
    let broken = [ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENONET, EPERM, EPROTO];
    error.raw_os_error().is_some_and(|code| broken.contains(&code))
}

/// Messages go out at once; an idle connection is asked for a sign of life after `idle`, `probes` times with
/// `interval` between them.
pub(super) fn tune(
    socket: BorrowedFd<'_>,
    idle: Duration,
    interval: Duration,
    probes: u32,
) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_tcp_nodelay(true)?;
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes))
}

/// TCP_INFO. What an older kernel does not tell is 0.
#[allow(unsafe_code)]
pub(super) fn info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (fd, pointer) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `length` bytes at `info`.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it holds nothing but numbers, for which all bits are good.
    Ok(unsafe { info.assume_init() })
}

/// Sets one of TCP's options that are an integer.
#[allow(unsafe_code)]
pub(super) fn set_option(socket: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer is to an int of that length, alive for the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, name, pointer, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
