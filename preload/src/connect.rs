//! A connect to a placeholder: to an element instead, on the program's own socket, in the program's own way. A
//! blocking one goes on to the next element when one refuses or does not answer; of a non-blocking one the program
//! hears as ever, and tries again as ever: then the element that failed is passed over.

use crate::guest::{Connection, Guest};
use crate::names::Behind;
use crate::real;
use libc::{c_int, c_void, sockaddr_storage, socklen_t};
use rserpool::wire::PoolHandle;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Elements that one connect tries.
const TRIES: usize = 4;
/// How long an element may take to accept a blocking connect.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long any connect waits for the first word on a pool.
const FIRST: Duration = Duration::from_secs(3);
/// How long a blocking connect waits for somebody to be in the pool.
const EMPTY: Duration = Duration::from_secs(1);
/// The kernel's number for a TCP socket that is not connected.
const TCP_CLOSE: u8 = 7;
const TCP_ESTABLISHED: u8 = 1;

/// A socket option of a plain type.
fn option<T>(fd: c_int, level: c_int, name: c_int) -> Option<T> {
    // SAFETY: all our types may be all zeroes.
    let mut value: T = unsafe { zeroed() };
    let mut length = size_of::<T>() as socklen_t;
    // SAFETY: pointer and length name the value.
    let got =
        unsafe { real::getsockopt(fd, level, name, (&raw mut value).cast::<c_void>(), &raw mut length) };
    (got == 0).then_some(value)
}

fn set_option<T>(fd: c_int, level: c_int, name: c_int, value: &T) {
    // SAFETY: pointer and length name the value.
    unsafe {
        libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as socklen_t)
    };
}

/// What tells one socket from all others that ever had its number.
pub fn cookie(fd: c_int) -> Option<u64> {
    option(fd, libc::SOL_SOCKET, libc::SO_COOKIE)
}

fn errno() -> c_int {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() }
}

fn fail(error: c_int) -> c_int {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// The state of a TCP socket.
fn state(fd: c_int) -> Option<u8> {
    option::<[u8; 8]>(fd, libc::IPPROTO_TCP, libc::TCP_INFO).map(|info| info[0])
}

/// As the socket wants its addresses; `None`: it can't reach that one.
fn for_family(address: SocketAddr, family: c_int) -> Option<SocketAddr> {
    match (address.ip().to_canonical(), family) {
        (ip @ IpAddr::V4(_), libc::AF_INET) | (ip @ IpAddr::V6(_), libc::AF_INET6) => {
            Some(SocketAddr::new(ip, address.port()))
        }
        (IpAddr::V4(ip), libc::AF_INET6) => Some(SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())),
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

fn connect_to(fd: c_int, address: SocketAddr) -> c_int {
    let (storage, length) = encode(address);
    // SAFETY: a whole address.
    unsafe { real::connect(fd, (&raw const storage).cast(), length) }
}

/// Back to where it was before a connect that did not end in time.
fn disconnect(fd: c_int) -> c_int {
    // SAFETY: a structure of numbers; all zeroes is AF_UNSPEC.
    let nothing: libc::sockaddr = unsafe { zeroed() };
    // SAFETY: a whole address.
    unsafe { real::connect(fd, &raw const nothing, size_of::<libc::sockaddr>() as socklen_t) }
}

/// The element at the other end is lost: the program hears of it as of a reset. What it has not read yet it
/// still gets; then the end comes as an end in order.
pub fn break_off(fd: c_int, known: u64) {
    if cookie(fd) != Some(known) || state(fd) != Some(TCP_ESTABLISHED) {
        return;
    }
    let mut unread: c_int = 0;
    // SAFETY: the pointer is a number's.
    let asked = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut unread) };
    if asked != 0 || unread != 0 || disconnect(fd) != 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}

/// The result of connect(2) with something else than what the program said; `None`: as it said.
pub fn instead(fd: c_int, behind: &Behind, asked: SocketAddr) -> Option<c_int> {
    if option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE) != Some(libc::SOCK_STREAM) {
        return None;
    }
    let family = option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    match behind {
        Behind::Nobody => Some(fail(libc::ECONNREFUSED)),
        Behind::Host(host) => Some(to_host(fd, family, host, asked.port())),
        Behind::Pool(handle) => Some(to_pool(fd, family, handle)),
    }
}

/// A port of a mapped host that is not mapped.
fn to_host(fd: c_int, family: c_int, host: &str, port: u16) -> c_int {
    match crate::hooks::look_up(host, port).into_iter().find_map(|address| for_family(address, family)) {
        Some(address) => connect_to(fd, address),
        None => fail(libc::EHOSTUNREACH),
    }
}

fn to_pool(fd: c_int, family: c_int, handle: &PoolHandle) -> c_int {
    let Some(guest) = Guest::get() else { return fail(libc::ENETUNREACH) };
    let cookie = cookie(fd).unwrap_or_default();
    // Asking again how it stands is a connect as well.
    if let Some(same) = guest.connection(fd).filter(|connection| connection.cookie == cookie)
        && state(fd) != Some(TCP_CLOSE)
    {
        return connect_to(fd, same.to);
    }
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let waits = flags >= 0 && flags & libc::O_NONBLOCK == 0;
    let pool = guest.pool(handle);
    // An address that is mapped was not looked up before: then also who does not wait has to, once.
    if !pool.is_known() {
        pool.wait(FIRST, true);
    }
    if waits {
        pool.wait(EMPTY, false);
    }
    let limit = waits.then(|| Limit::set(fd));
    let mut tried = Vec::new();
    let mut error = libc::ECONNREFUSED;
    while tried.len() < TRIES {
        let reachable = |address: &SocketAddr| for_family(*address, family).is_some();
        let Some(element) = pool.choose(&tried, reachable) else {
            if tried.is_empty() && !pool.is_known() {
                error = libc::ENETUNREACH;
            }
            break;
        };
        let address = element.transport.socket_addresses().find_map(|address| for_family(address, family));
        let Some(to) = address else { break };
        guest.remember(fd, Connection { cookie, handle: handle.clone(), id: element.id, to });
        if connect_to(fd, to) == 0 {
            pool.worked(element.id);
            error = 0;
            break;
        }
        error = errno();
        match error {
            libc::EINPROGRESS | libc::EAGAIN if waits => {
                disconnect(fd);
                error = libc::ETIMEDOUT;
            }
            libc::ECONNREFUSED
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ECONNRESET => {}
            // Under way, interrupted, or the program's own mistake.
            _ => break,
        }
        guest.failed(handle, element.id);
        tried.push(element.id);
    }
    drop(limit);
    if error == 0 { 0 } else { fail(error) }
}

/// Bounds the time of a blocking connect as long as it lives.
struct Limit {
    fd: c_int,
    before: Option<libc::timeval>,
}

impl Limit {
    fn set(fd: c_int) -> Limit {
        let before = option::<libc::timeval>(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO);
        let patience = PATIENCE.as_secs().cast_signed();
        let longer =
            before.is_some_and(|time| time.tv_sec >= patience || (time.tv_sec, time.tv_usec) == (0, 0));
        let before = before.filter(|_| longer);
        if before.is_some() {
            let limit = libc::timeval { tv_sec: patience, tv_usec: 0 };
            set_option(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &limit);
        }
        Limit { fd, before }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            set_option(self.fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, before);
        }
    }
}

/// A program reads from its socket that a connect failed.
pub fn failed(fd: c_int) {
    if let Some(guest) = Guest::known()
        && let Some(connection) = guest.connection(fd)
        && cookie(fd) == Some(connection.cookie)
    {
        guest.failed(&connection.handle, connection.id);
    }
}
