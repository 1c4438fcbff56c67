//! Look-ups of names: getaddrinfo(3) and its elder relatives. What they answer libc makes, from a placeholder as text, so
//! that libc frees it, and everything but the address is as ever.

use crate::frame::ours;
use crate::guest::Guest;
use crate::names::{self, EACH, Placeholder};
use crate::{real, socket};
use libc::{addrinfo, c_char, c_int};
use rserpool::wire::PoolHandle;
use std::ffi::{CStr, CString};
use std::net::{IpAddr, SocketAddr};
use std::ptr::{null, null_mut};
use std::time::Duration;

/// How long a look-up waits for a registrar, and for somebody to be in the pool.
const PATIENCE: Duration = Duration::from_secs(3);
const EMPTY: Duration = Duration::from_secs(1);

/// A name that is a pool's or a mapped host's.
struct Name<'a> {
    text: &'a str,
    placeholders: [Placeholder; EACH],
    pool: Option<PoolHandle>,
}

/// The same of the program's string; `body` is done with it inside of our frame.
unsafe fn with<T>(name: *const c_char, body: impl FnOnce(Name<'_>) -> Option<T>) -> Option<T> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a string, the caller says.
    let text = unsafe { CStr::from_ptr(name) }.to_str().ok().filter(|text| names::may_name(text))?;
    ours(|| {
        let (placeholders, pool) = names::placeholders(text)?;
        body(Name { text, placeholders, pool })
    })
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

/// getaddrinfo(3); `None`: the name is none of ours.
///
/// # Safety
/// As libc's.
pub unsafe fn instead(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> Option<c_int> {
    // SAFETY: a string of the program.
    unsafe {
        with(node, |name| {
            // SAFETY: a structure of the program.
            let hints = hints.as_ref();
            if hints.is_some_and(|hints| hints.ai_flags & libc::AI_NUMERICHOST != 0) || list.is_null() {
                return None;
            }
            if let Some(Err(error)) = name.pool.as_ref().map(prepare) {
                return Some(error);
            }
            // SAFETY: as above.
            Some(list_of(&name, service, hints, list))
        })
    }
}

/// One entry, or one for each kind of socket, for each placeholder: glibc frees a list entry by entry.
unsafe fn list_of(
    name: &Name<'_>,
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
    let mut first = null_mut();
    let mut end = &raw mut first;
    for placeholder in name.placeholders {
        let ip: IpAddr = match wanted.ai_family {
            libc::AF_INET6 if flags & libc::AI_V4MAPPED != 0 => placeholder.v4().to_ipv6_mapped().into(),
            libc::AF_INET6 => placeholder.v6().into(),
            _ => placeholder.v4().into(),
        };
        let Ok(text) = CString::new(ip.to_string()) else { return libc::EAI_FAIL };
        // SAFETY: the program's pointers, and ours, which is the end of the list as yet.
        unsafe {
            let result = real::getaddrinfo(text.as_ptr(), service, &raw const wanted, end);
            if result != 0 {
                if !first.is_null() {
                    libc::freeaddrinfo(first);
                }
                return result;
            }
            while let Some(entry) = (*end).as_mut() {
                end = &raw mut entry.ai_next;
            }
        }
        // The canonical name is the first entry's.
        wanted.ai_flags &= !libc::AI_CANONNAME;
    }
    // SAFETY: libc has put a list there; the name in its first entry is freed with free(3).
    unsafe {
        if let (true, Some(entry), Ok(name)) =
            (flags & libc::AI_CANONNAME != 0, first.as_mut(), CString::new(name.text))
        {
            libc::free(entry.ai_canonname.cast());
            entry.ai_canonname = libc::strdup(name.as_ptr());
        }
        *list = first;
    }
    0
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
        if let Some(mut address) = unsafe { socket::decode(entry.ai_addr, entry.ai_addrlen) } {
            address.set_port(port);
            found.push(address);
        }
        next = entry.ai_next;
    }
    // SAFETY: made by libc.
    unsafe { libc::freeaddrinfo(list) };
    found
}

/// What the gethostbyname family is asked instead of the program's name: the placeholder's text, or the name itself.
///
/// # Safety
/// A null pointer or a string.
pub unsafe fn numeric<T>(name: *const c_char, family: c_int, ask: impl FnOnce(*const c_char) -> T) -> T {
    // SAFETY: the caller's promise.
    let text = unsafe {
        with(name, |name| {
            // Who looks up what is not there finds out when he connects: the four functions have four kinds of errors.
            let _ = name.pool.as_ref().map(prepare);
            let text = match family {
                libc::AF_INET6 => name.placeholders[0].v6().to_string(),
                _ => name.placeholders[0].v4().to_string(),
            };
            CString::new(text).ok()
        })
    };
    ask(text.as_ref().map_or(name, |text| text.as_ptr()))
}
