//! The functions that stand before libc's. Each calls libc's with what it got unless a pool is concerned; a panic in
//! ours becomes that as well, and errno is what libc left, or what a refusal means.

use crate::frame::ours;
use crate::guest::Guest;
use crate::{connect, look_up, names, real, serve, signals, socket};
use libc::{
    addrinfo, c_char, c_int, c_void, hostent, msghdr, sigaction as Action, sighandler_t, size_t, sockaddr,
    socklen_t, ssize_t,
};
use std::net::SocketAddr;

/// The result of a connect that goes elsewhere than the program says; `None`: it does not.
unsafe fn redirected(fd: c_int, address: *const sockaddr, length: socklen_t) -> Option<c_int> {
    // SAFETY: the program's promise.
    let asked: SocketAddr = unsafe { socket::decode(address, length) }?;
    let behind = names::concerns(asked)?;
    ours(|| connect::instead(fd, &behind, asked))
}

/// connect(2).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: as the program called us.
    unsafe {
        match redirected(fd, address, length) {
            Some(result) => result,
            None => real::connect(fd, address, length),
        }
    }
}

/// sendto(2): with MSG_FASTOPEN it is a connect as well. What is sent goes behind it, not with it: the element was asked
/// for no cookie.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    data: *const c_void,
    size: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    // SAFETY: as the program called us.
    unsafe {
        if flags & libc::MSG_FASTOPEN != 0
            && let Some(result) = redirected(fd, address, length)
        {
            return match result {
                0 => real::sendto(fd, data, size, flags & !libc::MSG_FASTOPEN, std::ptr::null(), 0),
                failed => failed as ssize_t,
            };
        }
        real::sendto(fd, data, size, flags, address, length)
    }
}

/// sendmsg(2): as sendto.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: as the program called us.
    unsafe {
        if flags & libc::MSG_FASTOPEN != 0
            && let Some(given) = message.as_ref()
            && let Some(result) = redirected(fd, given.msg_name.cast(), given.msg_namelen)
        {
            let connected = msghdr { msg_name: std::ptr::null_mut(), msg_namelen: 0, ..*given };
            return match result {
                0 => real::sendmsg(fd, &raw const connected, flags & !libc::MSG_FASTOPEN),
                failed => failed as ssize_t,
            };
        }
        real::sendmsg(fd, message, flags)
    }
}

/// getsockopt(2): SO_ERROR is how event loops learn that a connect failed.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: as the program called us.
    let result = unsafe { real::getsockopt(fd, level, name, value, length) };
    if level == libc::SOL_SOCKET && name == libc::SO_ERROR && result == 0 && !value.is_null() {
        // SAFETY: the kernel has written a number there.
        let error = unsafe { value.cast::<c_int>().read_unaligned() };
        if connect::is_failure(error) && Guest::known().is_some() {
            ours(|| {
                connect::failed(fd);
                None::<()>
            });
        }
    }
    result
}

/// getaddrinfo(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: as the program called us.
    unsafe {
        match look_up::instead(node, service, hints, list) {
            Some(answer) => answer,
            None => real::getaddrinfo(node, service, hints, list),
        }
    }
}

/// gethostbyname(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: as the program called us.
    unsafe { look_up::numeric(name, libc::AF_INET, |name| real::gethostbyname(name)) }
}

/// gethostbyname2(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: as the program called us.
    unsafe { look_up::numeric(name, family, |name| real::gethostbyname2(name, family)) }
}

/// gethostbyname_r(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname_r(
    name: *const c_char,
    host: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: as the program called us.
    unsafe {
        let ask = |name| real::gethostbyname_r(name, host, buffer, size, result, error);
        look_up::numeric(name, libc::AF_INET, ask)
    }
}

/// gethostbyname2_r(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    host: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: as the program called us.
    unsafe {
        let ask = |name| real::gethostbyname2_r(name, family, host, buffer, size, result, error);
        look_up::numeric(name, family, ask)
    }
}

/// listen(2): what listens on a port that RSP_SERVE names is an element from now on.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn listen(fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: as the program called us.
    let result = unsafe { real::listen(fd, backlog) };
    if result == 0 {
        serve::listens(fd);
    }
    result
}

/// accept(2): a socket that was listening when the program got it.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    serve::accepts(fd);
    // SAFETY: as the program called us.
    unsafe { real::accept(fd, address, length) }
}

/// accept4(2): as accept.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    serve::accepts(fd);
    // SAFETY: as the program called us.
    unsafe { real::accept4(fd, address, length, flags) }
}

/// sigaction(2): the handler of SIGTERM is called when the element has left its pool.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    // SAFETY: as the program called us.
    unsafe {
        match signal == libc::SIGTERM && serve::is_wanted() {
            true => signals::set(new, old),
            false => real::sigaction(signal, new, old),
        }
    }
}

/// signal(2): as sigaction.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: as the program called us.
    unsafe {
        match signal == libc::SIGTERM && serve::is_wanted() {
            true => signals::set_simple(handler),
            false => real::signal(signal, handler),
        }
    }
}
