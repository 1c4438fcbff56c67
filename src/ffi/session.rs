//! Pool elements and sessions: register, accept, connect, fail over, cookies' state.

use super::abi::{rserpool_session_t, rsp_loadinfo};
use super::convert::{handle, input, milliseconds, patience, reference};
use super::current::descriptors;
use super::explain::{self, explained};
use super::guard::{Errno, guard};
use super::legacy::tagitem::{self, TagItem};
use super::legacy::tags::{
    TAG_PoolElement_Advertise, TAG_PoolElement_Identifier, TAG_RspSession_ConnectTimeout,
    TAG_RspSession_HandleResolutionRetryDelay,
};
use super::{constants::*, legacy, policy};
use crate::runtime::advertised;
use crate::socket::{ConnectOptions, Library, Registration};
use crate::wire::{PeId, PolicyType, PoolHandle};
use libc::{c_char, c_int, c_uchar, c_uint, size_t};
use std::ffi::CStr;
use std::time::Duration;

/// The arguments that name a pool and its element.
pub(super) struct ElementArguments {
    pub handle: *const c_uchar,
    pub size: size_t,
    pub info: *const rsp_loadinfo,
    pub interval: c_uint,
    pub flags: c_int,
}

/// Registers the descriptor's element in a pool (handle of 1 to 65000 bytes) and keeps it registered, or
/// changes its policy values (same handle; never waits). loadinfo NULL: round robin. reregInterval:
/// milliseconds, at least 1. flags: REGF_*. Returns 0 also when the registrar refuses or none is there: it is
/// tried again. -1: EBADF (also: other handle, closed meanwhile), ENAMETOOLONG, EINVAL (empty handle,
/// unknown policy, connected descriptor), EFAULT, EADDRINUSE (it did not listen yet, and another does), EADDRNOTAVAIL
/// (no usable local address), EMFILE, ENFILE, ENOMEM. RFC 5352 section 3.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_register(
    sd: c_int,
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    loadinfo: *const rsp_loadinfo,
    reregInterval: c_uint,
    flags: c_int,
) -> c_int {
    guard(|| {
        let (handle, size, interval) = (poolHandle, poolHandleSize, reregInterval);
        let element = ElementArguments { handle, size, info: loadinfo, interval, flags };
        // SAFETY: the caller's pointers.
        unsafe { register(sd, &element, std::ptr::null_mut()) }
    })
}

pub(super) unsafe fn register(
    sd: c_int,
    element: &ElementArguments,
    tags: *mut TagItem,
) -> Result<c_int, Errno> {
    let library = descriptors()?;
    // The descriptor first: it is EBADF whatever else is wrong.
    library.mapped(sd)?;
    // SAFETY: the caller's pointers.
    let registration = unsafe {
        let id = tagitem::get(tags, TAG_PoolElement_Identifier).unwrap_or(0);
        Registration {
            handle: handle(element.handle, element.size)?,
            policy: policy::policy_or_default(element.info)?,
            id: Some(PeId(id as u32)).filter(|id| id.0 != 0),
            interval: milliseconds(element.interval.max(1)),
            wait: element.flags & REGF_DONTWAIT == 0,
            daemon: element.flags & REGF_DAEMONMODE != 0,
            advertise: advertise(tags)?,
        }
    };
    // SAFETY: they were looked at above.
    let name = unsafe { input(element.handle, element.size)? };
    let policy = registration.policy.type_code();
    let (result, kept) = explained_element(sd, name, || Ok(library.register(sd, registration)?));
    if kept == RSPERR_INCOMPATIBLE_POOL_POLICY {
        explain::amend(sd, &policy_of(&library, name, policy));
    }
    result?;
    Ok(0)
}

/// What TAG_PoolElement_Advertise says.
unsafe fn advertise(tags: *mut TagItem) -> Result<Option<String>, Errno> {
    // SAFETY: the caller's list.
    let Some(text) = (unsafe { tagitem::get(tags, TAG_PoolElement_Advertise) }) else { return Ok(None) };
    if text == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's string.
    let text = unsafe { CStr::from_ptr(text as *const c_char) }.to_str().map_err(|_| Errno(libc::EINVAL))?;
    advertised(text).map_err(|error| {
        log::warn!("TAG_PoolElement_Advertise {text:?}: {error}");
        Errno(libc::EINVAL)
    })?;
    Ok(Some(text.trim().into()))
}

/// [`explained`], and the code that was kept.
fn explained_element(
    sd: c_int,
    name: &[u8],
    body: impl FnOnce() -> Result<(), Errno>,
) -> (Result<(), Errno>, c_uint) {
    let result = explained(Some(sd), || explain::pool(name), body);
    (result, explain::code(sd))
}

/// "; its policy is .., the element's ..", as far as the pool's elements tell.
fn policy_of(library: &Library, name: &[u8], own: u32) -> String {
    let found =
        PoolHandle::new(name).and_then(|pool| library.resolve(&pool, 1, Duration::from_secs(60)).ok());
    let Some(other) = found.and_then(|found| Some(found.first()?.policy.type_code())) else {
        return String::new();
    };
    format!("; its policy is {}, the element's {}", PolicyType(other), PolicyType(own))
}

/// Takes the descriptor's element out of its pool. flags: DEREGF_*. -1: EBADF (also: not registered,
/// closed meanwhile).
/// RFC 5352 section 3.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_deregister(sd: c_int, flags: c_int) -> c_int {
    guard(|| deregister(sd, flags))
}

pub(super) fn deregister(sd: c_int, flags: c_int) -> Result<c_int, Errno> {
    let library = descriptors()?;
    explained(
        Some(sd),
        || "its element".into(),
        || Ok(library.deregister(sd, flags & DEREGF_DONTWAIT == 0)?),
    )?;
    Ok(0)
}

/// Takes the next session of a listening descriptor; timeout: milliseconds, -1: for ever. Returns the
/// session's descriptor. -1: EBADF, EAGAIN (nothing in that time), EINVAL (not listening), EOPNOTSUPP
/// (SOCK_SEQPACKET), EINTR, EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_accept(sd: c_int, timeout: c_int) -> c_int {
    guard(|| accept(sd, timeout))
}

pub(super) fn accept(sd: c_int, timeout: c_int) -> Result<c_int, Errno> {
    let session = descriptors()?.accept(sd, patience(timeout))?;
    explain::forget(session);
    Ok(session)
}

/// Opens a session with one of the pool's elements (handle of 1 to 65000 bytes). staleCacheValue: how old, in
/// milliseconds, what is known about the pool may be. Returns 0 even if no element could be reached (errno is
/// not 0 then: ENOENT empty pool, EIO no registrar, EINVAL empty handle, ECONNREFUSED, ETIMEDOUT,
/// EPROTONOSUPPORT, EMFILE, ENFILE, ..); then the first receive or send call says that a failover is
/// necessary. -1: EBADF (also: there is a session), ENAMETOOLONG, EFAULT, ENOMEM. RFC 5352 section 3.3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_connect(
    sd: c_int,
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    staleCacheValue: c_uint,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's pointers.
        unsafe { connect(sd, (poolHandle, poolHandleSize), staleCacheValue, std::ptr::null_mut()) }
    })
}

pub(super) unsafe fn connect(
    sd: c_int,
    (bytes, size): (*const c_uchar, size_t),
    stale: c_uint,
    tags: *mut TagItem,
) -> Result<c_int, Errno> {
    let library = descriptors()?;
    library.mapped(sd)?;
    // SAFETY: the caller's pointers.
    let (handle, options) = unsafe {
        let time = |tag, default| tagitem::get(tags, tag).map_or(default, Duration::from_micros);
        let connect_timeout = time(TAG_RspSession_ConnectTimeout, Duration::from_secs(5));
        let retry_delay = time(TAG_RspSession_HandleResolutionRetryDelay, Duration::from_millis(250));
        let handle = if size == 0 { None } else { Some(handle(bytes, size)?) };
        (handle, ConnectOptions { connect_timeout, retry_delay })
    };
    let name =
        handle.as_ref().map_or_else(|| "no pool handle".into(), |handle| explain::pool(handle.as_bytes()));
    let connect = || Ok(library.connect(sd, handle, milliseconds(stale), options)?);
    legacy::connect_result(explained(Some(sd), || name, connect))
}

/// Moves the session to another element. flags: FFF_UNREACHABLE reports the one in use as unreachable.
/// staleCacheValue: as for rsp_connect. Notifications that wait are dropped; RSERPOOL_FAILOVER_COMPLETE
/// follows. Returns 0 also if the pool is empty now, after a short pause (errno ENOENT): try again.
/// -1: EBADF (also: no session), EIO (no registrar), EINVAL (session without handle), ETIMEDOUT, ECONNREFUSED,
/// EPROTONOSUPPORT, EMFILE, ENFILE, ENOMEM. RFC 5352 sections 3.5, 3.8 and 3.9.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_forcefailover(sd: c_int, flags: c_uint, staleCacheValue: c_uint) -> c_int {
    guard(|| force_failover(sd, flags, staleCacheValue))
}

pub(super) fn force_failover(sd: c_int, flags: c_uint, stale: c_uint) -> Result<c_int, Errno> {
    let library = descriptors()?;
    let name = || match library.peer_name(sd) {
        Ok((Some(handle), _)) => explain::pool(handle.as_bytes()),
        _ => "no session with a pool".into(),
    };
    let failover = || Ok(library.force_failover(sd, flags & FFF_UNREACHABLE != 0, milliseconds(stale))?);
    legacy::failover_result(explained(Some(sd), name, failover))
}

/// Whether the connected session holds a cookie: 1 or 0. -1: EBADF (also: no session).
/// RFC 5352 section 3.8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_has_cookie(sd: c_int) -> c_int {
    guard(|| Ok(c_int::from(descriptors()?.has_cookie(sd)?)))
}

/// Sets the text that component status reports show for a session; at most 127 bytes of it.
/// -1: EBADF, EINVAL (unknown session), EFAULT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_csp_setstatus(
    sd: c_int,
    sessionID: rserpool_session_t,
    statusText: *const c_char,
) -> c_int {
    guard(|| {
        let library = descriptors()?;
        library.mapped(sd)?;
        // SAFETY: NULL or the caller's string.
        let text = unsafe { CStr::from_ptr(reference(statusText)?) }.to_bytes();
        let text = String::from_utf8_lossy(&text[..text.len().min(127)]);
        library.set_status(sd, sessionID, &text)?;
        Ok(0)
    })
}
