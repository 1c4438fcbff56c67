//! What programs written for rsplib rely on and nobody would design today. Nothing below `ffi` knows
//! any of it; `tests/c/legacy.c` pins each.

pub(super) mod companion;
pub mod tagitem;
pub mod tags;

use super::abi::{
    NOTIFICATION_SIZE, rserpool_failover, rserpool_notification, rserpool_send_failed,
    rserpool_session_change, rserpool_shutdown_event,
};
use super::constants::*;
use super::convert::patience;
use super::guard::{Errno, guard, set_errno};
use crate::socket::Notification;
use crate::wire::{ALL_ITEMS, PPID_ASAP};
use libc::c_int;
use std::time::Duration;

/// `ai_addrlen` is the size of the largest address, not of the first one. Kept because programs copy
/// `ai_addrlen * ai_addrs` bytes, or walk by family and ignore it; either way 28 is what they know.
pub(super) const ADDRESS_SIZE: usize = size_of::<libc::sockaddr_in6>();

/// Cookie echoes carry the ASAP control channel's PPID in host order, data PPIDs come in network
/// order. Kept because programs compare with 11.
pub(super) const COOKIE_ECHO_PPID: u32 = PPID_ASAP;

/// At most 128 items can be asked for, and 0 (`RSPGETADDRS_DEFAULT`) means 1. Kept because
/// `RSPGETADDRS_MAX` is 2^32-1 and programs pass it. `RSPGETADDRS_ALL` is ours and means what it says.
pub(super) fn items(wanted: usize) -> usize {
    if wanted == ALL_ITEMS as usize { wanted } else { wanted.clamp(1, 128) }
}

/// In receive and send calls a negative time-out means "don't wait", not "wait for ever". Kept because
/// `rsp_read`, `rsp_recv`, `rsp_write` and `rsp_send` are defined by it and programs poll first.
pub(super) fn receive_timeout(milliseconds: c_int) -> Option<Duration> {
    patience(milliseconds)
}

/// For sending, 0 doesn't wait either. See [`receive_timeout`].
pub(super) fn send_timeout(milliseconds: c_int) -> Option<Duration> {
    patience(milliseconds).filter(|time| !time.is_zero())
}

/// In `rsp_send_cookie` a negative time-out does wait, practically for ever. Kept because C++ servers
/// send their cookies with -1 and don't look at the result.
pub(super) fn cookie_timeout(milliseconds: c_int) -> Option<Duration> {
    send_timeout(if milliseconds < 0 { c_int::MAX } else { milliseconds })
}

/// `rsp_connect` reports success once the descriptor and its arguments are in order, even if no pool
/// element could be reached; errno tells (0: connected). Kept because programs treat -1 as fatal, and otherwise
/// learn from the first receive or send that a failover is necessary, which is where they retry.
pub(super) fn connect_result(result: Result<(), Errno>) -> Result<c_int, Errno> {
    match result {
        Err(Errno(libc::EBADF | libc::ENOMEM)) => result.map(|()| 0),
        _ => {
            set_errno(result.err().unwrap_or(Errno(0)));
            Ok(0)
        }
    }
}

/// `rsp_forcefailover` reports success when the pool is empty, after its pause; errno tells (0: moved).
/// Kept because sample programs call it in a loop and give up at -1.
pub(super) fn failover_result(result: Result<(), Errno>) -> Result<c_int, Errno> {
    match result {
        Err(errno) if errno.0 != libc::ENOENT => Err(errno),
        _ => {
            set_errno(result.err().unwrap_or(Errno(0)));
            Ok(0)
        }
    }
}

/// What of a receive call's flags is a wish of the caller's. Flags that were never set, or are those of the last call,
/// are none: kept because programs don't clear them. (MSG_OOB and MSG_PEEK are the numbers of
/// MSG_RSERPOOL_NOTIFICATION and MSG_RSERPOOL_COOKIE_ECHO, so they are none here either.)
pub(super) fn flags_in(flags: c_int) -> c_int {
    const ASKED: c_int = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_TRUNC | libc::MSG_ERRQUEUE;
    const GIVEN: c_int = libc::MSG_EOR | MSG_RSERPOOL_NOTIFICATION | MSG_RSERPOOL_COOKIE_ECHO;
    if flags & !(ASKED | GIVEN) == 0 { flags & ASKED } else { 0 }
}

/// Receive calls add to the caller's flags instead of setting them; only MSG_EOR is also taken away, by a part of a
/// message. Kept because programs that don't clear their flags in between know by it whether a message is whole.
pub(super) fn flags_out(before: c_int, now: c_int, length: usize) -> c_int {
    let part = length > 0 && now & libc::MSG_EOR == 0;
    now | if part { before & !libc::MSG_EOR } else { before }
}

/// All notifications are as long as the largest one. Kept because programs check for
/// `sizeof(union rserpool_notification)`.
pub(super) fn notification(notification: Notification) -> rserpool_notification {
    const LENGTH: u32 = NOTIFICATION_SIZE as u32;
    // All of its 20 bytes are initialised, padding included: programs compare and log them.
    // SAFETY: all zeros is a legal value of every member.
    let mut n: rserpool_notification = unsafe { std::mem::zeroed() };
    let failover = |rf_state, rf_session, has_cookie: bool| rserpool_failover {
        rf_type: RSERPOOL_FAILOVER,
        rf_flags: 0,
        rf_length: LENGTH,
        rf_state,
        rf_session,
        rf_has_cookie: has_cookie.into(),
    };
    let change = |rsc_state, rsc_session| rserpool_session_change {
        rsc_type: RSERPOOL_SESSION_CHANGE,
        rsc_flags: 0,
        rsc_length: LENGTH,
        rsc_state,
        rsc_session,
    };
    match notification {
        Notification::SessionAdd { session } => n.rn_session_change = change(RSERPOOL_SESSION_ADD, session),
        Notification::SessionRemove { session } => {
            n.rn_session_change = change(RSERPOOL_SESSION_REMOVE, session);
        }
        Notification::FailoverNecessary { session, has_cookie } => {
            n.rn_failover = failover(RSERPOOL_FAILOVER_NECESSARY, session, has_cookie);
        }
        Notification::FailoverComplete { session, has_cookie } => {
            n.rn_failover = failover(RSERPOOL_FAILOVER_COMPLETE, session, has_cookie);
        }
        Notification::Shutdown { session } => {
            n.rn_shutdown_event = rserpool_shutdown_event {
                rse_type: RSERPOOL_SHUTDOWN_EVENT,
                rse_flags: 0,
                rse_length: LENGTH,
                rse_session: session,
            };
        }
    }
    n
}

/// The notification of a message that did not arrive, as long as the others.
pub(super) fn send_failed(size: usize, rsf_pe_id: u32, reached: bool) -> rserpool_notification {
    rserpool_notification {
        rn_send_failed: rserpool_send_failed {
            rsf_type: RSERPOOL_SEND_FAILED,
            rsf_flags: 0,
            rsf_length: NOTIFICATION_SIZE as u32,
            rsf_state: if reached { RSERPOOL_SEND_UNCERTAIN } else { RSERPOOL_SEND_UNREACHED },
            rsf_pe_id,
            rsf_message_length: u32::try_from(size).unwrap_or(u32::MAX),
        },
    }
}

/// Not in any header, but exported by rsplib: `rsp_socket` around a system socket that the caller
/// brings. Kept because the symbol is part of the ABI; -1 (make one) is `rsp_socket`, and bringing one
/// is EOPNOTSUPP, since a descriptor here is never just one system socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_socket_internal(
    domain: c_int,
    socket_type: c_int,
    protocol: c_int,
    system_socket: c_int,
) -> c_int {
    guard(|| match system_socket {
        0.. => Err(Errno(libc::EOPNOTSUPP)),
        _ => super::socket::open(domain, socket_type, protocol),
    })
}

/// `rsp_recvfullmsg` is the one receive call in which a negative time-out waits for ever (practically, there):
/// rsplib computes with it as with a positive one. Kept because programs that pass -1 expect to wait.
pub(super) fn full_receive_timeout(milliseconds: c_int) -> Duration {
    patience(milliseconds).unwrap_or(Duration::MAX)
}
