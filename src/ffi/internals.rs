//! `rserpool-internals.h`: the `_tags` variants.

#![allow(missing_docs, non_upper_case_globals)]

use super::abi::{rsp_addrinfo, rsp_loadinfo};
use super::guard::{guard, guard_or};
use super::legacy::tagitem::TagItem;
use super::session::ElementArguments;
use super::{basic, constants::*, session};
use libc::{c_int, c_uchar, c_uint, size_t};

/// rsp_pe_registration; no tags are known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_pe_registration_tags(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    addrinfo: *mut rsp_addrinfo,
    loadinfo: *const rsp_loadinfo,
    registrationLife: c_uint,
    flags: c_int,
    tags: *mut TagItem,
) -> c_uint {
    guard_or(RSPERR_OUT_OF_MEMORY, || {
        let _ = tags;
        // SAFETY: the caller's pointers.
        unsafe { basic::register((poolHandle, poolHandleSize), addrinfo, loadinfo, registrationLife, flags) }
    })
}

/// rsp_pe_deregistration; no tags are known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_pe_deregistration_tags(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    identifier: u32,
    flags: c_int,
    tags: *mut TagItem,
) -> c_uint {
    guard_or(RSPERR_OUT_OF_MEMORY, || {
        let _ = tags;
        // SAFETY: the caller's pointers.
        unsafe { basic::deregister((poolHandle, poolHandleSize), identifier, flags) }
    })
}

/// rsp_pe_failure; no tags are known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_pe_failure_tags(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    identifier: u32,
    tags: *mut TagItem,
) -> c_uint {
    guard_or(RSPERR_OUT_OF_MEMORY, || {
        let _ = tags;
        // SAFETY: the caller's pointers.
        unsafe { basic::report_failure((poolHandle, poolHandleSize), identifier) }
    })
}

/// rsp_getaddrinfo; no tags are known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getaddrinfo_tags(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    addrinfo: *mut *mut rsp_addrinfo,
    items: size_t,
    staleCacheValue: c_uint,
    tags: *mut TagItem,
) -> c_int {
    guard_or(REAI_SYSTEM, || {
        let _ = tags;
        // SAFETY: the caller's pointers.
        unsafe { basic::resolve((poolHandle, poolHandleSize), addrinfo, items, staleCacheValue) }
    })
}

/// rsp_register with the TAG_PoolElement_* tags; also EINVAL for a TAG_PoolElement_Advertise that makes no sense.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_register_tags(
    sd: c_int,
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    loadinfo: *const rsp_loadinfo,
    reregInterval: c_uint,
    flags: c_int,
    tags: *mut TagItem,
) -> c_int {
    guard(|| {
        let (handle, size, interval) = (poolHandle, poolHandleSize, reregInterval);
        let element = ElementArguments { handle, size, info: loadinfo, interval, flags };
        // SAFETY: the caller's pointers.
        unsafe { session::register(sd, &element, tags) }
    })
}

/// rsp_deregister; no tags are known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_deregister_tags(sd: c_int, flags: c_int, tags: *mut TagItem) -> c_int {
    guard(|| {
        let _ = tags;
        session::deregister(sd, flags)
    })
}

/// rsp_accept; the TAG_RspSession_* tags are taken and have no effect on accepted sessions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_accept_tags(sd: c_int, timeout: c_int, tags: *mut TagItem) -> c_int {
    guard(|| {
        let _ = tags;
        session::accept(sd, timeout)
    })
}

/// rsp_connect with the TAG_RspSession_* tags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_connect_tags(
    sd: c_int,
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    staleCacheValue: c_uint,
    tags: *mut TagItem,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's pointers.
        unsafe { session::connect(sd, (poolHandle, poolHandleSize), staleCacheValue, tags) }
    })
}

/// rsp_forcefailover; no tags are known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_forcefailover_tags(
    sd: c_int,
    flags: c_uint,
    staleCacheValue: c_uint,
    tags: *mut TagItem,
) -> c_int {
    guard(|| {
        let _ = tags;
        session::force_failover(sd, flags, staleCacheValue)
    })
}
