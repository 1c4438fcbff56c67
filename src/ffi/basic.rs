//! Basic mode: resolve, register and report without sessions.

use super::abi::{rsp_addrinfo, rsp_loadinfo};
use super::convert::{allocate_copy, handle, milliseconds, reference_mut, unpack_addresses};
use super::current::library;
use super::explain::{error_code, explained, explained_code};
use super::guard::{Errno, guard_or, guard_panics};
use super::{constants::*, legacy, policy};
use crate::machine::client::RequestError;
use crate::socket::{OwnElement, sockaddr};
use crate::wire::{PeId, PoolElement, PoolHandle, Protocol, Transport, TransportUse};
use libc::{c_int, c_uchar, c_uint, size_t};
use std::net::SocketAddr;

/// Resolves a pool handle (1 to 65000 bytes) to up to `items` elements (1 to 128, RSPGETADDRS_*), chosen by the
/// pool's policy. staleCacheValue: how old, in milliseconds, what is known about the pool may be. Returns
/// their number and a list to be freed with rsp_freeaddrinfo, else REAI_NONAME (no such pool, or an empty
/// one), REAI_MEMORY, or REAI_SYSTEM (errno: EACCES not initialised, EIO no registrar or no answer, ENOBUFS too
/// many requests wait, EINVAL, ENAMETOOLONG, EFAULT). RFC 5352 section 3.3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getaddrinfo(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    addrinfo: *mut *mut rsp_addrinfo,
    items: size_t,
    staleCacheValue: c_uint,
) -> c_int {
    guard_or(REAI_SYSTEM, || {
        // SAFETY: the caller's pointers.
        unsafe { resolve((poolHandle, poolHandleSize), addrinfo, items, staleCacheValue) }
    })
}

/// Frees what rsp_getaddrinfo gave. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_freeaddrinfo(addrinfo: *mut rsp_addrinfo) {
    guard_panics((), || {
        // SAFETY: a list of ours, or NULL.
        unsafe { free(addrinfo) };
        Ok(())
    })
}

/// Registers a pool element and keeps it registered: addrinfo describes its one transport (ai_next is not
/// used); ai_pe_id 0 is replaced by a random identifier. registrationLife: milliseconds. flags: REGF_*.
/// Returns RSPERR_OKAY, the registrar's refusal, or RSPERR_NO_REGISTRAR, RSPERR_TIMEOUT,
/// RSPERR_OUT_OF_MEMORY (too many requests wait), RSPERR_NOT_INITIALIZED, RSPERR_INVALID_POOL_HANDLE,
/// RSPERR_INVALID_VALUE, RSPERR_INVALID_ADDRESSES, RSPERR_WRONG_PROTOCOL, RSPERR_UNSUPPORTED_POOL_POLICY.
/// Without an answer, or if refused, it is tried again. RFC 5352 section 3.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_pe_registration(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    addrinfo: *mut rsp_addrinfo,
    loadinfo: *const rsp_loadinfo,
    registrationLife: c_uint,
    flags: c_int,
) -> c_uint {
    guard_or(RSPERR_OUT_OF_MEMORY, || {
        // SAFETY: the caller's pointers.
        unsafe { register((poolHandle, poolHandleSize), addrinfo, loadinfo, registrationLife, flags) }
    })
}

/// Takes an element of rsp_pe_registration out of its pool. flags: DEREGF_*. Returns RSPERR_OKAY,
/// RSPERR_NOT_FOUND (none of ours), RSPERR_NO_REGISTRAR, RSPERR_TIMEOUT, RSPERR_NOT_INITIALIZED,
/// RSPERR_INVALID_POOL_HANDLE. RFC 5352 section 3.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_pe_deregistration(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    identifier: u32,
    flags: c_int,
) -> c_uint {
    guard_or(RSPERR_OUT_OF_MEMORY, || {
        // SAFETY: the caller's pointers.
        unsafe { deregister((poolHandle, poolHandleSize), identifier, flags) }
    })
}

/// Reports an element that does not answer: to the registrar, and it is not chosen again until it is
/// heard of anew. Doesn't wait. Returns RSPERR_OKAY, RSPERR_NOT_INITIALIZED, RSPERR_INVALID_POOL_HANDLE.
/// RFC 5352 section 3.5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_pe_failure(
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    identifier: u32,
) -> c_uint {
    guard_or(RSPERR_OUT_OF_MEMORY, || {
        // SAFETY: the caller's pointers.
        unsafe { report_failure((poolHandle, poolHandleSize), identifier) }
    })
}

/// Handle and size.
type RawHandle = (*const c_uchar, size_t);

pub(super) unsafe fn resolve(
    name: RawHandle,
    list: *mut *mut rsp_addrinfo,
    items: size_t,
    stale: c_uint,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's pointers.
    let resolved = || unsafe { resolve_now(name, list, items, stale) };
    explained(None, || "arguments".into(), resolved)
}

unsafe fn resolve_now(
    name: RawHandle,
    list: *mut *mut rsp_addrinfo,
    items: size_t,
    stale: c_uint,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's pointers.
    let (list, handle) = unsafe {
        let list = reference_mut(list)?;
        *list = std::ptr::null_mut();
        (list, handle(name.0, name.1))
    };
    let library = library()?;
    let found = match library.resolve(&handle?, legacy::items(items), milliseconds(stale)) {
        Ok(found) => found,
        Err(RequestError::NotFound) => return Ok(REAI_NONAME),
        Err(error) if error.is_unknown_pool() => return Ok(REAI_NONAME),
        Err(error) => return Err(error.into()),
    };
    let mut count = 0;
    // From the last to the first, so that each node knows its next one.
    for element in found.iter().rev() {
        match node(element, *list) {
            Ok(Some(node)) => {
                *list = node;
                count += 1;
            }
            // Not a transport that an application could use.
            Ok(None) => {}
            Err(_) => {
                // SAFETY: made just now.
                unsafe { free(std::mem::replace(list, std::ptr::null_mut())) };
                return Ok(REAI_MEMORY);
            }
        }
    }
    Ok(if count == 0 { REAI_NONAME } else { count })
}

/// One list node: itself and its addresses are two blocks, as rsp_freeaddrinfo of rsplib expects.
fn node(element: &PoolElement, next: *mut rsp_addrinfo) -> Result<Option<*mut rsp_addrinfo>, Errno> {
    let protocol = match element.transport.protocol() {
        Some(Protocol::Sctp) => libc::IPPROTO_SCTP,
        Some(Protocol::Tcp) => libc::IPPROTO_TCP,
        Some(Protocol::Udp) => libc::IPPROTO_UDP,
        Some(Protocol::UdpLite) => libc::IPPROTO_UDPLITE,
        Some(Protocol::Dccp { .. }) => libc::IPPROTO_DCCP,
        None => return Ok(None),
    };
    let addresses: Vec<SocketAddr> = element.transport.socket_addresses().collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let stream = matches!(protocol, libc::IPPROTO_SCTP | libc::IPPROTO_TCP);
    let ai_addr: *mut libc::sockaddr = allocate_copy(&sockaddr::pack(addresses.iter().copied()))?.cast();
    // SAFETY: plain malloc; written before anybody reads it.
    unsafe {
        let node = libc::calloc(1, size_of::<rsp_addrinfo>()).cast::<rsp_addrinfo>();
        if node.is_null() {
            libc::free(ai_addr.cast());
            return Err(Errno(libc::ENOMEM));
        }
        node.write(rsp_addrinfo {
            ai_family: if addresses.iter().any(SocketAddr::is_ipv6) { libc::AF_INET6 } else { libc::AF_INET },
            ai_socktype: if stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM },
            ai_protocol: protocol,
            ai_addrlen: legacy::ADDRESS_SIZE,
            ai_addrs: addresses.len(),
            ai_addr,
            ai_next: next,
            ai_pe_id: element.id.0,
        });
        Ok(Some(node))
    }
}

unsafe fn free(mut node: *mut rsp_addrinfo) {
    while !node.is_null() {
        // SAFETY: a node of ours, not yet freed.
        unsafe {
            let next = (*node).ai_next;
            libc::free((*node).ai_addr.cast());
            libc::free(node.cast());
            node = next;
        }
    }
}

/// A handle, or the code to return.
unsafe fn named(name: RawHandle) -> Result<PoolHandle, c_uint> {
    // SAFETY: the caller's bytes.
    unsafe { handle(name.0, name.1) }.map_err(|_| RSPERR_INVALID_POOL_HANDLE)
}

/// Functions that return a code never fail otherwise.
fn code(body: impl FnOnce() -> Result<(), c_uint>) -> Result<c_uint, Errno> {
    explained_code(|| Ok(body().err().unwrap_or(RSPERR_OKAY)))
}

pub(super) unsafe fn register(
    name: RawHandle,
    info: *mut rsp_addrinfo,
    load: *const rsp_loadinfo,
    life: c_uint,
    flags: c_int,
) -> Result<c_uint, Errno> {
    code(|| {
        let library = library().map_err(|_| RSPERR_NOT_INITIALIZED)?;
        // SAFETY: the caller's pointers.
        let (handle, info, policy) = unsafe {
            let policy = policy::policy_or_default(load).map_err(|_| RSPERR_UNSUPPORTED_POOL_POLICY)?;
            (named(name)?, reference_mut(info).map_err(|_| RSPERR_INVALID_VALUE)?, policy)
        };
        // SAFETY: the caller's addresses.
        let transport = unsafe { transport(info, flags)? };
        let id = Some(PeId(info.ai_pe_id)).filter(|id| id.0 != 0);
        let own = OwnElement { handle, id, transport, policy, life };
        let (id, result) = library.register_element(own, flags & REGF_DONTWAIT == 0);
        info.ai_pe_id = id.0;
        result.map_err(error_code)
    })
}

unsafe fn transport(info: &rsp_addrinfo, flags: c_int) -> Result<Transport, c_uint> {
    let protocol = match info.ai_protocol {
        libc::IPPROTO_SCTP => Protocol::Sctp,
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        _ => return Err(RSPERR_WRONG_PROTOCOL),
    };
    // SAFETY: the caller's addresses.
    let addresses = unsafe { unpack_addresses(info.ai_addr, info.ai_addrs) };
    let addresses = addresses.map_err(|_| RSPERR_INVALID_ADDRESSES)?;
    let port = addresses.first().map_or(0, SocketAddr::port);
    if port == 0 {
        return Err(RSPERR_INVALID_ADDRESSES);
    }
    let usage = match flags & REGF_CONTROLCHANNEL {
        0 => TransportUse::DataOnly,
        _ => TransportUse::DataPlusControl,
    };
    Ok(Transport::new(protocol, usage, port, addresses.into_iter().map(|a| a.ip().to_canonical()).collect()))
}

pub(super) unsafe fn deregister(name: RawHandle, id: u32, flags: c_int) -> Result<c_uint, Errno> {
    code(|| {
        let library = library().map_err(|_| RSPERR_NOT_INITIALIZED)?;
        // SAFETY: the caller's bytes.
        let handle = unsafe { named(name)? };
        let wait = flags & DEREGF_DONTWAIT == 0;
        library.deregister_element(&handle, PeId(id), wait).map_err(error_code)
    })
}

pub(super) unsafe fn report_failure(name: RawHandle, id: u32) -> Result<c_uint, Errno> {
    code(|| {
        let library = library().map_err(|_| RSPERR_NOT_INITIALIZED)?;
        // SAFETY: the caller's bytes.
        let handle = unsafe { named(name)? };
        library.report_unreachable(&handle, PeId(id));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Policy, RegistrarId};

    fn element(transport: Transport) -> PoolElement {
        let (id, home) = (PeId(7), RegistrarId(0));
        PoolElement { id, home, life: 1000, transport, policy: Policy::RoundRobin, asap: None }
    }

    #[test]
    fn elements_become_nodes_as_rsplib_makes_them() {
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let transport = Transport::new(Protocol::Sctp, TransportUse::DataPlusControl, 7, addresses);
        let node = node(&element(transport), std::ptr::null_mut()).unwrap().unwrap();
        unsafe {
            let info = &*node;
            assert_eq!((info.ai_family, info.ai_socktype), (libc::AF_INET6, libc::SOCK_STREAM));
            assert_eq!((info.ai_protocol, info.ai_addrlen, info.ai_addrs), (132, 28, 2));
            let unpacked = unpack_addresses(info.ai_addr, info.ai_addrs).unwrap();
            assert_eq!(unpacked[1], "[2001:db8::1]:7".parse().unwrap());
            assert_eq!(info.ai_pe_id, 7);
            free(node);
        }
    }

    #[test]
    fn what_no_application_can_use_is_left_out() {
        assert_eq!(node(&element(Transport::Opaque(vec![1])), std::ptr::null_mut()), Ok(None));
    }
}
