//! A connect to a placeholder: to an element instead, on the program's own socket, in the program's own way. A
//! blocking one goes on to the next element when one refuses or does not answer; of a non-blocking one the program
//! hears as ever, and tries again as ever: then the element that failed is passed over.

use crate::guest::{Connection, Guest};
use crate::look_up;
use crate::names::Behind;
use crate::socket::{
    TCP_CLOSE, connect_to, cookie, errno, fail, for_family, option, set_errno, set_option, state,
};
use libc::{c_int, c_uint};
use rserpool::wire::PoolHandle;
use std::net::SocketAddr;
use std::time::Duration;

/// Elements that one connect tries.
const TRIES: usize = 4;
/// How many milliseconds an element may take to accept a blocking connect.
const PATIENCE: c_uint = 1000;
/// How long any connect waits for the first word on a pool.
const FIRST: Duration = Duration::from_secs(3);
/// How long a blocking connect waits for somebody to be in the pool.
const EMPTY: Duration = Duration::from_secs(1);

/// What says that the other end could not be reached, rather than that the program or this machine is at fault.
pub fn is_failure(error: c_int) -> bool {
    matches!(
        error,
        libc::ECONNREFUSED | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ECONNRESET
    )
}

/// The result of connect(2) with something else than what the program said; `None`: as it said.
pub fn instead(fd: c_int, behind: &Behind, asked: SocketAddr) -> Option<c_int> {
    // Who may not be asked, under a seccomp filter, is taken for what most are.
    if option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE).unwrap_or(libc::SOCK_STREAM) != libc::SOCK_STREAM
    {
        return None;
    }
    // A socket takes addresses of its own family alone; another's mistake the kernel tells it as ever.
    let family = if asked.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let before = errno();
    let result = match behind {
        Behind::Nobody => fail(libc::ECONNREFUSED),
        Behind::Host(host) => to_host(fd, family, host, asked.port()),
        Behind::Pool(handle) => to_pool(fd, family, handle),
    };
    if result == 0 {
        set_errno(before);
    }
    Some(result)
}

/// A port of a mapped host that is not mapped.
fn to_host(fd: c_int, family: c_int, host: &str, port: u16) -> c_int {
    match look_up::look_up(host, port).into_iter().find_map(|address| for_family(address, family)) {
        Some(address) => connect_to(fd, address),
        None => fail(libc::EHOSTUNREACH),
    }
}

fn to_pool(fd: c_int, family: c_int, handle: &PoolHandle) -> c_int {
    let Some(guest) = Guest::get() else { return fail(libc::ENETUNREACH) };
    let cookie = cookie(fd).unwrap_or_default();
    // Asking again how it stands is a connect as well.
    if let Some(same) = guest.connection(fd).filter(|connection| connection.cookie == cookie) {
        return again(fd, guest, &same);
    }
    guest.settle(fd);
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
        let connection = Connection { cookie, handle: handle.clone(), id: element.id, to };
        // Before, since a blocking one takes its time, and the element may be lost meanwhile.
        guest.remember(fd, connection);
        if connect_to(fd, to) == 0 {
            pool.worked(element.id);
            error = 0;
            break;
        }
        error = errno();
        if error == libc::EINPROGRESS || error == libc::EINTR {
            guest.begun(fd, cookie);
            break;
        }
        guest.forget(fd);
        if !is_failure(error) {
            // The program's own mistake.
            break;
        }
        guest.failed(handle, element.id);
        tried.push(element.id);
    }
    drop(limit);
    if error == 0 { 0 } else { fail(error) }
}

/// The program asks how its connect stands: what comes is about the element that it went to.
fn again(fd: c_int, guest: &Guest, same: &Connection) -> c_int {
    let was_closed = state(fd) == Some(TCP_CLOSE);
    let result = connect_to(fd, same.to);
    if result != 0 {
        let error = errno();
        if is_failure(error) {
            guest.failed(&same.handle, same.id);
        }
        if was_closed {
            guest.forget(fd);
        }
        return fail(error);
    }
    result
}

/// Bounds the time of a blocking connect as long as it lives: by TCP_USER_TIMEOUT (tcp(7)), since with SO_SNDTIMEO a
/// signal would interrupt connects that the kernel otherwise restarts.
struct Limit {
    fd: c_int,
    before: Option<c_uint>,
}

impl Limit {
    fn set(fd: c_int) -> Limit {
        let before = option::<c_uint>(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
        let before = before.filter(|&before| before == 0 || before > PATIENCE);
        if before.is_some() {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &PATIENCE);
        }
        Limit { fd, before }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            set_option(self.fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, before);
        }
    }
}

/// A program reads from its socket that a connect failed.
pub fn failed(fd: c_int) {
    if let Some(guest) = Guest::known()
        && let Some(connection) = guest.connection(fd)
        && cookie(fd) == Some(connection.cookie)
    {
        guest.forget(fd);
        guest.failed(&connection.handle, connection.id);
    }
}
