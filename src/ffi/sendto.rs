//! Messages to pools without a session, and the cache of resolutions. Not in rsplib: RFC 5352 section 6 has them.

use super::constants::*;
use super::convert::{handle, input, milliseconds, reference_mut, unpack_addresses};
use super::current::descriptors;
use super::explain::{self, explained};
use super::guard::{Errno, guard};
use super::legacy;
use crate::socket::{Recipient, SendOptions, ToPool, send_flags};
use crate::wire::PeId;
use libc::{c_int, c_uchar, c_uint, c_void, size_t, sockaddr};

/// Sends one message to a pool (handle of 1 to 65000 bytes) without a session: to the element that the policy
/// chooses, anew for each message. The descriptor is a SOCK_SEQPACKET one that is not connected; an element's own
/// will do. What the element answers is received there, with its identifier in rinfo_pe_id; rinfo_session is good for
/// rsp_sendmsg as long as the connection lasts. options: ASAP_SEND_*, ASAP_SCTP_UNORDER. identifier: NULL, or where
/// the identifier of a certain element stands (0: whom the policy chooses) and that of the element that got the
/// message is written to. staleCacheValue: as for rsp_connect. sctpPPID, sctpStreamID, sctpTimeToLive, timeout: as for
/// rsp_sendmsg; connecting takes up to timeout, or 5 s if that is 0 or less. Returns to how many elements it was
/// sent; what may not have arrived comes back as RSERPOOL_SEND_FAILED. -1: EBADF, EOPNOTSUPP (SOCK_STREAM), EINVAL
/// (connected descriptor, no data, empty handle, options that exclude one another), ENAMETOOLONG, EFAULT, ENOENT (the
/// pool is empty, or has no such element), EIO (no registrar), EAGAIN (no room in time), EMSGSIZE, EMFILE;
/// ECONNREFUSED, ETIMEDOUT and other errors of connect(2): no element could be reached. RFC 5352 section 6.5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_sendto_pool(
    sd: c_int,
    data: *const c_void,
    dataLength: size_t,
    options: c_uint,
    poolHandle: *const c_uchar,
    poolHandleSize: size_t,
    identifier: *mut u32,
    staleCacheValue: c_uint,
    sctpPPID: u32,
    sctpStreamID: u16,
    sctpTimeToLive: u32,
    timeout: c_int,
) -> c_int {
    guard(|| {
        let library = descriptors()?;
        library.mapped(sd)?;
        // SAFETY: the caller's pointers.
        let (pool, name, bytes, mut certain) = unsafe {
            let certain = if identifier.is_null() { None } else { Some(reference_mut(identifier)?) };
            let pool = handle(poolHandle, poolHandleSize)?;
            (pool, input(poolHandle, poolHandleSize)?, input(data, dataLength)?, certain)
        };
        let id = PeId(certain.as_deref().copied().unwrap_or(0));
        let to = ToPool { stale: milliseconds(staleCacheValue), ..recipient(options, id)? };
        let message = message_options(options, (sctpPPID, sctpStreamID, sctpTimeToLive), timeout);
        let send = || Ok(library.send_to_pool(sd, bytes, &pool, to, message)?);
        let reached = explained(Some(sd), || explain::pool(name), send)?;
        if let (Some(place), Some(first)) = (&mut certain, reached.first()) {
            **place = first.0;
        }
        Ok(c_int::try_from(reached.len()).unwrap_or(c_int::MAX))
    })
}

/// Sends one message to whoever is at an address, over the descriptor's transport (SCTP messages, or plain TCP
/// without the framing of sessions): no pool, no failover. The descriptor is one for rsp_sendto_pool; what comes back
/// is received there. options: 0 or ASAP_SCTP_UNORDER. Returns 0. -1: EBADF, EOPNOTSUPP (SOCK_STREAM), EINVAL
/// (connected descriptor, no data, other options), EFAULT, EAFNOSUPPORT, EAGAIN (no room in time), EMSGSIZE, EMFILE;
/// ECONNREFUSED, ETIMEDOUT and other errors of connect(2). RFC 5352 section 6.5.4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_sendto_address(
    sd: c_int,
    data: *const c_void,
    dataLength: size_t,
    options: c_uint,
    address: *const sockaddr,
    sctpPPID: u32,
    sctpStreamID: u16,
    sctpTimeToLive: u32,
    timeout: c_int,
) -> c_int {
    guard(|| {
        let library = descriptors()?;
        library.mapped(sd)?;
        if options & !ASAP_SCTP_UNORDER != 0 {
            return Err(Errno(libc::EINVAL));
        }
        // SAFETY: the caller's pointers.
        let (bytes, addresses) = unsafe { (input(data, dataLength)?, unpack_addresses(address, 1)?) };
        let address = *addresses.first().ok_or(Errno(libc::EFAULT))?;
        let message = message_options(options, (sctpPPID, sctpStreamID, sctpTimeToLive), timeout);
        let send = || Ok(library.send_to_address(sd, bytes, address, message)?);
        explained(Some(sd), || address.to_string(), send)?;
        Ok(0)
    })
}

/// Asks a registrar for all elements of a pool, ahead of need. Returns how many are known now. -1: EACCES,
/// ENAMETOOLONG, EINVAL (empty handle), EFAULT, EIO (no registrar). RFC 5352 section 6.3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_cache_populate(poolHandle: *const c_uchar, poolHandleSize: size_t) -> c_int {
    guard(|| {
        let library = super::current::library()?;
        // SAFETY: the caller's pointer.
        let (pool, name) =
            unsafe { (handle(poolHandle, poolHandleSize)?, input(poolHandle, poolHandleSize)?) };
        let count = explained(None, || explain::pool(name), || Ok(library.populate_cache(&pool)?))?;
        Ok(c_int::try_from(count).unwrap_or(c_int::MAX))
    })
}

/// Forgets what is known of a pool: the next resolution asks a registrar, however stale its answer may be. Returns 0.
/// -1: EACCES, ENAMETOOLONG, EINVAL (empty handle), EFAULT. RFC 5352 section 6.4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_cache_purge(poolHandle: *const c_uchar, poolHandleSize: size_t) -> c_int {
    guard(|| {
        let library = super::current::library()?;
        // SAFETY: the caller's pointer.
        library.purge_cache(&unsafe { handle(poolHandle, poolHandleSize)? })?;
        Ok(0)
    })
}

/// What options say of whom the message is for.
fn recipient(options: c_uint, id: PeId) -> Result<ToPool, Errno> {
    const WHOM: c_uint = ASAP_SEND_TO_LAST | ASAP_SEND_TO_ALL;
    const KNOWN: c_uint =
        WHOM | ASAP_SEND_FAILOVER | ASAP_SEND_NO_FAILOVER | ASAP_SEND_TO_SELF | ASAP_SCTP_UNORDER;
    if options & !KNOWN != 0 {
        return Err(Errno(libc::EINVAL));
    }
    let recipient = match options & WHOM {
        ASAP_SEND_TO_ALL => Recipient::All,
        // An identifier that was written here by the last call is no wish.
        ASAP_SEND_TO_LAST => Recipient::Last,
        WHOM => return Err(Errno(libc::EINVAL)),
        _ if id == PeId(0) => Recipient::Policy,
        _ => Recipient::Element(id),
    };
    Ok(ToPool {
        recipient,
        to_self: options & ASAP_SEND_TO_SELF != 0,
        failover: options & ASAP_SEND_FAILOVER != 0,
        forbid_failover: options & ASAP_SEND_NO_FAILOVER != 0,
        ..ToPool::default()
    })
}

fn message_options(
    options: c_uint,
    (ppid, stream, time_to_live): (u32, u16, u32),
    timeout: c_int,
) -> SendOptions {
    let flags = if options & ASAP_SCTP_UNORDER != 0 { send_flags::UNORDERED } else { 0 };
    let timeout = legacy::send_timeout(timeout);
    SendOptions { session: 0, ppid, stream, time_to_live, flags, timeout }
}
