//! The functions that stand before libc's. Each calls libc's with what it got unless a pool is concerned; a panic in
//! ours becomes that as well, and errno is what libc left, or what a refusal means.

use crate::guest::Guest;
use crate::names::{self, Placeholder};
use crate::{connect, real};
use libc::{addrinfo, c_char, c_int, c_void, hostent, size_t, sockaddr, socklen_t};
use rserpool::wire::PoolHandle;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::time::Duration;

/// How long a look-up waits for a registrar, and for somebody to be in the pool.
const PATIENCE: Duration = Duration::from_secs(3);
const EMPTY: Duration = Duration::from_secs(1);

thread_local! {
    /// Set while this thread is in one of our own functions: what they call is libc's. Without a destructor, so that it
    /// can be asked for when the thread ends.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Ours, unless this thread is inside already; `None`: libc's.
fn ours<T>(body: impl FnOnce() -> Option<T>) -> Option<T> {
    if INSIDE.get() || is_event_thread() {
        return None;
    }
    INSIDE.set(true);
    // SAFETY: the thread's own.
    let before = unsafe { *libc::__errno_location() };
    let result = catch_unwind(AssertUnwindSafe(body)).ok().flatten();
    INSIDE.set(false);
    if result.is_none() {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = before };
    }
    result
}

/// Registrars are connected to as they are named, or the thread would wait for itself.
fn is_event_thread() -> bool {
    std::thread::current().name() == Some("rserpool")
}

/// An address that a program gave; `None`: not of the internet, or not whole.
unsafe fn decode(address: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
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

/// connect(2).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the program's promise.
    if let Some(asked) = unsafe { decode(address, length) }
        && let Some(behind) = names::concerns(asked)
        && let Some(result) = ours(|| connect::instead(fd, &behind, asked))
    {
        return result;
    }
    // SAFETY: as the program called us.
    unsafe { real::connect(fd, address, length) }
}

/// getsockopt(2): SO_ERROR is how event loops learn that a connect failed.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
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
        if matches!(error, libc::ECONNREFUSED | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) {
            ours(|| {
                connect::failed(fd);
                None::<()>
            });
        }
    }
    result
}

/// A name that is a pool's or a mapped host's.
unsafe fn placeholder(name: *const c_char) -> Option<(String, Placeholder, Option<PoolHandle>)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a string, the caller says.
    let name = unsafe { CStr::from_ptr(name) }.to_str().ok()?;
    let (placeholder, pool) = names::placeholder(name)?;
    Some((name.to_owned(), placeholder, pool))
}

/// Waits until something is known of a pool; the error is getaddrinfo's.
fn prepare(pool: &PoolHandle) -> Result<(), c_int> {
    let Some(guest) = Guest::get() else { return Err(libc::EAI_AGAIN) };
    let pool = guest.pool(pool);
    if !pool.wait(PATIENCE, true) {
        return Err(libc::EAI_AGAIN);
    }
    if pool.wait(EMPTY, false) { Ok(()) } else { Err(libc::EAI_NONAME) }
}

/// getaddrinfo(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> c_int {
    let answer = ours(|| {
        // SAFETY: strings and structures of the program.
        let (name, placeholder, pool) = unsafe { placeholder(node) }?;
        // SAFETY: as above.
        let hints = unsafe { hints.as_ref() };
        if hints.is_some_and(|hints| hints.ai_flags & libc::AI_NUMERICHOST != 0) || list.is_null() {
            return None;
        }
        if let Some(Err(error)) = pool.as_ref().map(prepare) {
            return Some(error);
        }
        // SAFETY: as above.
        Some(unsafe { list_of(&name, placeholder, service, hints, list) })
    });
    match answer {
        Some(answer) => answer,
        // SAFETY: as the program called us.
        None => unsafe { real::getaddrinfo(node, service, hints, list) },
    }
}

/// libc makes the list, so that libc frees it.
unsafe fn list_of(
    name: &str,
    placeholder: Placeholder,
    service: *const c_char,
    hints: Option<&addrinfo>,
    list: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: a structure of numbers and null pointers.
    let mut wanted: addrinfo = unsafe { std::mem::zeroed() };
    if let Some(hints) = hints {
        (wanted.ai_family, wanted.ai_socktype) = (hints.ai_family, hints.ai_socktype);
        (wanted.ai_protocol, wanted.ai_flags) = (hints.ai_protocol, hints.ai_flags);
    }
    let flags = wanted.ai_flags;
    wanted.ai_flags =
        flags & !(libc::AI_ADDRCONFIG | libc::AI_V4MAPPED | libc::AI_ALL) | libc::AI_NUMERICHOST;
    let ip: IpAddr = match wanted.ai_family {
        libc::AF_INET6 if flags & libc::AI_V4MAPPED != 0 => placeholder.v4().to_ipv6_mapped().into(),
        libc::AF_INET6 => placeholder.v6().into(),
        _ => placeholder.v4().into(),
    };
    let Ok(text) = CString::new(ip.to_string()) else { return libc::EAI_FAIL };
    // SAFETY: the program's pointers, and ours.
    let result = unsafe { real::getaddrinfo(text.as_ptr(), service, &raw const wanted, list) };
    if result == 0 && flags & libc::AI_CANONNAME != 0 {
        // SAFETY: libc has put a list there; the name in its first entry is freed with free(3).
        unsafe {
            let first = *list;
            if let (false, Ok(name)) = (first.is_null(), CString::new(name)) {
                libc::free((*first).ai_canonname.cast());
                (*first).ai_canonname = libc::strdup(name.as_ptr());
            }
        }
    }
    result
}

/// A mapped host's own addresses, from libc.
pub fn look_up(host: &str, port: u16) -> Vec<SocketAddr> {
    let Ok(name) = CString::new(host) else { return Vec::new() };
    // SAFETY: a structure of numbers and null pointers.
    let mut hints: addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = null_mut();
    // SAFETY: our own string, hints and pointer.
    if unsafe { real::getaddrinfo(name.as_ptr(), null(), &raw const hints, &raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: the list is libc's, up to its null.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        if let Some(mut address) = unsafe { decode(entry.ai_addr, entry.ai_addrlen) } {
            address.set_port(port);
            found.push(address);
        }
        next = entry.ai_next;
    }
    // SAFETY: made by libc.
    unsafe { libc::freeaddrinfo(list) };
    found
}

/// The placeholder's text for a name that is a pool's.
unsafe fn numeric(name: *const c_char, family: c_int) -> Option<CString> {
    ours(|| {
        // SAFETY: a string of the program.
        let (_, placeholder, pool) = unsafe { placeholder(name) }?;
        // Who looks up what is not there finds out when he connects: the four functions have four kinds of errors.
        let _ = pool.as_ref().map(prepare);
        let text = match family {
            libc::AF_INET6 => placeholder.v6().to_string(),
            _ => placeholder.v4().to_string(),
        };
        CString::new(text).ok()
    })
}

/// gethostbyname(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: as the program called us.
    unsafe {
        let text = numeric(name, libc::AF_INET);
        real::gethostbyname(text.as_ref().map_or(name, |text| text.as_ptr()))
    }
}

/// gethostbyname2(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: as the program called us.
    unsafe {
        let text = numeric(name, family);
        real::gethostbyname2(text.as_ref().map_or(name, |text| text.as_ptr()), family)
    }
}

/// gethostbyname_r(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    host: *mut hostent,
    buffer: *mut c_char,
    size: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: as the program called us.
    unsafe {
        let text = numeric(name, libc::AF_INET);
        let name = text.as_ref().map_or(name, |text| text.as_ptr());
        real::gethostbyname_r(name, host, buffer, size, result, error)
    }
}

/// gethostbyname2_r(3).
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gethostbyname2_r(
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
        let text = numeric(name, family);
        let name = text.as_ref().map_or(name, |text| text.as_ptr());
        real::gethostbyname2_r(name, family, host, buffer, size, result, error)
    }
}
