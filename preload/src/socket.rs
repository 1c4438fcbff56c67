//! The program's sockets: what they are, and where addresses say that they go.

use crate::real;
use libc::{c_int, c_void, sockaddr, sockaddr_storage, socklen_t};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel's numbers for states of a TCP socket.
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_CLOSE: u8 = 7;

/// A socket option of a plain type.
pub fn option<T>(fd: c_int, level: c_int, name: c_int) -> Option<T> {
    // SAFETY: all our types may be all zeroes.
    let mut value: T = unsafe { zeroed() };
    let mut length = size_of::<T>() as socklen_t;
    // SAFETY: pointer and length name the value.
    let got =
        unsafe { real::getsockopt(fd, level, name, (&raw mut value).cast::<c_void>(), &raw mut length) };
    (got == 0).then_some(value)
}

pub fn set_option<T>(fd: c_int, level: c_int, name: c_int, value: &T) {
    // SAFETY: pointer and length name the value.
    unsafe {
        libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as socklen_t)
    };
}

/// What tells one socket from all others that ever had its number.
pub fn cookie(fd: c_int) -> Option<u64> {
    option(fd, libc::SOL_SOCKET, libc::SO_COOKIE)
}

/// The state of a TCP socket.
pub fn state(fd: c_int) -> Option<u8> {
    option::<[u8; 8]>(fd, libc::IPPROTO_TCP, libc::TCP_INFO).map(|info| info[0])
}

pub fn errno() -> c_int {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() }
}

pub fn set_errno(error: c_int) {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() = error };
}

pub fn fail(error: c_int) -> c_int {
    set_errno(error);
    -1
}

/// An address that a program gave; `None`: not of the internet, or not whole.
///
/// # Safety
/// So many bytes are there.
pub unsafe fn decode(address: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
    let length = length as usize;
    if address.is_null() || length < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: the caller says that so many bytes are there.
    match unsafe { c_int::from((*address).sa_family) } {
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip.into(), u16::from_be(address.sin6_port)))
        }
        _ => None,
    }
}

fn encode(address: SocketAddr) -> (sockaddr_storage, socklen_t) {
    // SAFETY: a structure of numbers.
    let mut storage: sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            let encoded = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger, and aligned for any address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(encoded) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let encoded = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(encoded) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as socklen_t)
}

/// As the socket wants its addresses; `None`: it can't reach that one.
pub fn for_family(address: SocketAddr, family: c_int) -> Option<SocketAddr> {
    match (address.ip().to_canonical(), family) {
        (ip @ IpAddr::V4(_), libc::AF_INET) | (ip @ IpAddr::V6(_), libc::AF_INET6) => {
            Some(SocketAddr::new(ip, address.port()))
        }
        (IpAddr::V4(ip), libc::AF_INET6) => Some(SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())),
        _ => None,
    }
}

pub fn connect_to(fd: c_int, address: SocketAddr) -> c_int {
    let (storage, length) = encode(address);
    // SAFETY: a whole address.
    unsafe { real::connect(fd, (&raw const storage).cast(), length) }
}

/// Back to where it was before it was connected.
fn disconnect(fd: c_int) -> c_int {
    // SAFETY: a structure of numbers; all zeroes is AF_UNSPEC.
    let nothing: sockaddr = unsafe { zeroed() };
    // SAFETY: a whole address.
    unsafe { real::connect(fd, &raw const nothing, size_of::<sockaddr>() as socklen_t) }
}

/// The element at the other end is lost: the program hears of it as of a reset. What it has not read yet it
/// still gets; then the end comes as an end in order.
pub fn break_off(fd: c_int, known: u64) {
    if cookie(fd) != Some(known) || state(fd) != Some(TCP_ESTABLISHED) {
        return;
    }
    // A number of our own: as soon as it hears of this the program may close its one, and open something else with it.
    // SAFETY: no memory is involved.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    let at = if own < 0 { fd } else { own };
    if cookie(at) == Some(known) {
        let mut unread: c_int = 0;
        // SAFETY: the pointer is a number's.
        let asked = unsafe { libc::ioctl(at, libc::FIONREAD, &raw mut unread) };
        let reset = asked == 0 && unread == 0 && disconnect(at) == 0;
        // After a reset by the peer a socket is readable as well; here this makes it so, for programs that wait for
        // nothing else, and then says ENOTCONN.
        if !reset || own >= 0 {
            // SAFETY: no memory is involved.
            unsafe { libc::shutdown(at, libc::SHUT_RDWR) };
        }
    }
    if own >= 0 {
        // SAFETY: it is ours.
        unsafe { libc::close(own) };
    }
}
