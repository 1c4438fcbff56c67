//! Descriptors: making, naming, mapping and closing them, socket options.

use super::abi::rserpool_session_parameters;
use super::convert::{reference_mut, unpack_addresses};
use super::current::{descriptors, library};
use super::explain;
use super::guard::{Errno, guard, guard_alone};
use crate::socket::{SessionParameters, Style};
use crate::wire::PeId;
use libc::{c_int, c_uchar, c_void, size_t, sockaddr, socklen_t};

/// Makes a descriptor. It is a real file descriptor that poll(2), select(2) and epoll(7) report as
/// readable when rsp_recvmsg or rsp_accept has something.
///
/// domain: AF_INET, AF_INET6, or 0 for either. type: SOCK_STREAM (one session, no notifications) or
/// SOCK_SEQPACKET, with SOCK_NONBLOCK: as if O_NONBLOCK were set later. protocol: IPPROTO_SCTP; where the kernel has no SCTP, sessions run over TCP, unless
/// -transport=sctp or RSP_TRANSPORT=sctp. IPPROTO_TCP: TCP only.
/// -1: EACCES (not initialised), EPROTONOSUPPORT, EAFNOSUPPORT, EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_socket(domain: c_int, r#type: c_int, protocol: c_int) -> c_int {
    guard(|| open(domain, r#type, protocol))
}

pub(super) fn open(domain: c_int, socket_type: c_int, protocol: c_int) -> Result<c_int, Errno> {
    let library = library()?;
    let style = match socket_type & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
        libc::SOCK_STREAM => Style::Stream,
        libc::SOCK_SEQPACKET => Style::SeqPacket,
        _ => return Err(Errno(libc::EPROTONOSUPPORT)),
    };
    let sd = library.socket(domain, style, protocol)?;
    if socket_type & libc::SOCK_NONBLOCK != 0 {
        library.set_nonblocking(sd)?;
    }
    explain::forget(sd);
    Ok(sd)
}

/// Changes the SCTP parameters of the descriptor's associations, those it has and those it will have (over
/// TCP, what comes nearest): fields that are not 0 are taken over, those that are 0 are filled in.
/// -1: EBADF, EFAULT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_update_session_parameters(
    sd: c_int,
    params: *mut rserpool_session_parameters,
) -> c_int {
    guard(|| {
        let library = descriptors()?;
        // SAFETY: NULL or the caller's.
        let params = unsafe { reference_mut(params)? };
        let now = library.session_parameters(
            sd,
            SessionParameters {
                rto_initial: params.sp_rto_initial,
                rto_min: params.sp_rto_min,
                rto_max: params.sp_rto_max,
                assoc_max_rxt: params.sp_assoc_max_rxt,
                path_max_rxt: params.sp_path_max_rxt,
                hb_interval: params.sp_hbinterval,
            },
        )?;
        *params = rserpool_session_parameters {
            sp_rto_initial: now.rto_initial,
            sp_rto_min: now.rto_min,
            sp_rto_max: now.rto_max,
            sp_assoc_max_rxt: now.assoc_max_rxt,
            sp_path_max_rxt: now.path_max_rxt,
            sp_hbinterval: now.hb_interval,
        };
        Ok(0)
    })
}

/// Binds to addresses (up to 128) that lie one after the other without gaps; addrcnt 0 or less: to any
/// address. Port 0 in the first one: a free port. -1: EBADF, EFAULT, EINVAL (bound or in use already, too
/// many), EAFNOSUPPORT, EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_bind(sd: c_int, addrs: *const sockaddr, addrcnt: c_int) -> c_int {
    guard(|| {
        let library = descriptors()?;
        // SAFETY: the caller's addresses. Less than one means any, as 0 does.
        let addresses = unsafe { unpack_addresses(addrs, usize::try_from(addrcnt).unwrap_or(0))? };
        library.bind(sd, &addresses)?;
        Ok(0)
    })
}

/// Lets others connect; may be repeated to change the backlog. Binds to any address if need be.
/// -1: EBADF, EINVAL (connected), EADDRINUSE, EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_listen(sd: c_int, backlog: c_int) -> c_int {
    guard(|| {
        descriptors()?.listen(sd, backlog)?;
        Ok(0)
    })
}

/// The pool handle and identifier under which the descriptor is registered. handleSize is the buffer's
/// size on the way in and the handle's on the way out; either pointer may be NULL.
/// -1: EBADF (also: not registered), ENOBUFS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getsockname(
    sd: c_int,
    handle: *mut c_uchar,
    handleSize: *mut size_t,
    identifier: *mut u32,
) -> c_int {
    guard(|| {
        let (name, id) = descriptors()?.local_name(sd)?;
        // SAFETY: NULL or the caller's.
        unsafe { give_name(name.as_bytes(), id, handle, handleSize, identifier) }
    })
}

/// The pool handle and identifier of the element that the descriptor's session is with; an accepted
/// session has none: size and identifier 0. -1: EBADF (also: no connected session), ENOBUFS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getpeername(
    sd: c_int,
    handle: *mut c_uchar,
    handleSize: *mut size_t,
    identifier: *mut u32,
) -> c_int {
    guard(|| {
        let (name, id) = descriptors()?.peer_name(sd)?;
        let name = name.as_ref().map_or(&[][..], |name| name.as_bytes());
        // SAFETY: NULL or the caller's.
        unsafe { give_name(name, id, handle, handleSize, identifier) }
    })
}

unsafe fn give_name(
    name: &[u8],
    id: PeId,
    handle: *mut c_uchar,
    size: *mut size_t,
    identifier: *mut u32,
) -> Result<c_int, Errno> {
    // SAFETY: NULL or the caller's, with room for `*size` bytes.
    unsafe {
        if let Some(size) = size.as_mut() {
            if !handle.is_null() {
                if *size < name.len() {
                    return Err(Errno(libc::ENOBUFS));
                }
                std::ptr::copy_nonoverlapping(name.as_ptr(), handle, name.len());
            }
            *size = name.len();
        }
        if let Some(identifier) = identifier.as_mut() {
            *identifier = id.0;
        }
    }
    Ok(0)
}

/// Closes a descriptor: deregisters its pool element, ends its sessions, wakes calls that are blocked on
/// it with EBADF. A mapped descriptor's system descriptor is closed too. -1: EBADF, EDEADLK (in a signal handler that
/// interrupted a call of this library).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_close(sd: c_int) -> c_int {
    guard_alone(|| {
        descriptors()?.close(sd)?;
        explain::forget(sd);
        Ok(0)
    })
}

/// getsockopt(2) on the system socket in use. -1: EBADF, ENOTCONN (none in use), ENOTSOCK, EFAULT, EINVAL,
/// ENOPROTOOPT, EOPNOTSUPP (another protocol's option), EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getsockopt(
    sd: c_int,
    level: c_int,
    optname: c_int,
    optval: *mut c_void,
    optlen: *mut socklen_t,
) -> c_int {
    guard(|| {
        let system = system_socket(sd)?;
        // SAFETY: the kernel checks the pointers.
        checked(unsafe { libc::getsockopt(system, level, optname, optval, optlen) })
    })
}

/// setsockopt(2) on the system socket in use. -1: EBADF, ENOTCONN (none in use), ENOTSOCK, EFAULT, EINVAL,
/// ENOPROTOOPT, EOPNOTSUPP (SO_RCVTIMEO, SO_SNDTIMEO: each call has its own time-out), EMFILE, ENFILE, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_setsockopt(
    sd: c_int,
    level: c_int,
    optname: c_int,
    optval: *const c_void,
    optlen: socklen_t,
) -> c_int {
    guard(|| {
        let system = system_socket(sd)?;
        let time_out = matches!(optname, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO);
        if level == libc::SOL_SOCKET && time_out && descriptors()?.mapped(sd)?.is_none() {
            // Each call has its own; those without don't wait.
            return Err(Errno(libc::EOPNOTSUPP));
        }
        // SAFETY: the kernel checks the pointers.
        checked(unsafe { libc::setsockopt(system, level, optname, optval, optlen) })
    })
}

fn system_socket(sd: c_int) -> Result<c_int, Errno> {
    let library = descriptors()?;
    match library.mapped(sd)? {
        Some(system) => Ok(system),
        None => Ok(library.system_socket(sd)?),
    }
}

/// The result of a system call that sets errno itself.
pub(super) fn checked<T: PartialOrd + Default>(result: T) -> Result<T, Errno> {
    if result < T::default() { Err(std::io::Error::last_os_error().into()) } else { Ok(result) }
}

/// Gives a system descriptor a number that rsp_poll, rsp_read and rsp_write take; toSD: which one, or -1
/// for its own. Returns the number. -1: EACCES (not initialised), EINVAL (negative, or one of ours), EMFILE
/// (the number is in use).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_mapsocket(sd: c_int, toSD: c_int) -> c_int {
    guard(|| {
        let library = library()?;
        if sd < 0 {
            return Err(Errno(libc::EINVAL));
        }
        Ok(library.map(sd, (toSD >= 0).then_some(toSD))?)
    })
}

/// Ends a mapping; the system descriptor stays open. -1: EBADF (no mapping).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_unmapsocket(sd: c_int) -> c_int {
    guard(|| {
        descriptors()?.unmap(sd)?;
        Ok(0)
    })
}
