//! Sending and receiving.

use super::abi::{NOTIFICATION_SIZE, rserpool_notification, rserpool_session_t, rsp_sndrcvinfo};
use super::constants::*;
use super::convert::{input, reference_mut};
use super::current::descriptors;
use super::explain;
use super::guard::{Errno, guard};
use super::legacy;
use super::socket::checked;
use crate::socket::{Library, Received, Room, SendOptions, SocketError};
use libc::{FILE, c_char, c_int, c_uchar, c_uint, c_void, size_t, ssize_t};
use std::time::Duration;

/// Sends one message. sessionID matters on descriptors with many sessions only. sctpPPID: in network byte
/// order. sctpTimeToLive: milliseconds, 0: no limit. sctpFlags: SCTP_UNORDERED, SCTP_EOF, SCTP_ABORT.
/// timeout: milliseconds; 0 or less, MSG_DONTWAIT or O_NONBLOCK: don't wait for room. Returns the number of bytes.
/// -1: EOPNOTSUPP (flags other than MSG_DONTWAIT, MSG_NOSIGNAL, which is always on, and MSG_EOR), EBADF (also: unknown session), EAGAIN, EINTR, EIO (session has failed), EPIPE (session is over), EFAULT,
/// EINVAL (no data; over SCTP: no such stream), EMSGSIZE (past 16 MiB without waiting; over SCTP: more than the
/// send buffer can hold), ENOMEM; and ECONNRESET, ETIMEDOUT, EHOSTUNREACH and other connection errors, after
/// which RSERPOOL_FAILOVER_NECESSARY follows. RFC 5352 section 6.5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_sendmsg(
    sd: c_int,
    data: *const c_void,
    dataLength: size_t,
    msg_flags: c_uint,
    sessionID: rserpool_session_t,
    sctpPPID: u32,
    sctpStreamID: u16,
    sctpTimeToLive: u32,
    sctpFlags: u16,
    timeout: c_int,
) -> ssize_t {
    guard(|| {
        let library = descriptors()?;
        let waits = legacy::send_timeout(timeout).filter(|_| msg_flags & libc::MSG_DONTWAIT as c_uint == 0);
        check_flags(msg_flags as c_int, SEND_FLAGS).map_err(|bad| blame(&library, sd, bad))?;
        let options = SendOptions {
            session: sessionID,
            ppid: sctpPPID,
            stream: sctpStreamID,
            time_to_live: sctpTimeToLive,
            flags: sctpFlags,
            timeout: waits,
        };
        // SAFETY: the caller's bytes.
        send(&library, sd, unsafe { input(data, dataLength) }, options)
    })
}

fn send(
    library: &Library,
    sd: c_int,
    data: Result<&[u8], Errno>,
    options: SendOptions,
) -> Result<ssize_t, Errno> {
    let data = data.map_err(|bad| blame(library, sd, bad))?;
    let sent = library.send(sd, data, options);
    Ok(sent.inspect_err(|error| explain::failed(sd, "sending", error))? as ssize_t)
}

/// What to complain about: a bad descriptor goes before bad arguments, as read(2) and write(2) have it.
fn blame(library: &Library, sd: c_int, arguments: Errno) -> Errno {
    library.mapped(sd).err().map_or(arguments, Errno::from)
}

/// Sends a cookie, up to 65524 bytes, to the session's pool user, which gives it to the element that takes
/// over. timeout: milliseconds, 0: don't wait, -1: for ever. Returns cookieSize.
/// -1: EBADF, EINVAL (unknown session, or a user's), EMSGSIZE, EAGAIN, EINTR, EFAULT, EPIPE (session is over),
/// ENOMEM, ECONNRESET, ETIMEDOUT, EHOSTUNREACH and other connection errors. RFC 5352 section 3.8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_send_cookie(
    sd: c_int,
    cookie: *const c_uchar,
    cookieSize: size_t,
    sessionID: rserpool_session_t,
    timeout: c_int,
) -> ssize_t {
    guard(|| {
        let library = descriptors()?;
        // SAFETY: the caller's bytes.
        let cookie = unsafe { input(cookie, cookieSize) }.map_err(|bad| blame(&library, sd, bad))?;
        Ok(library.send_cookie(sd, cookie, sessionID, legacy::cookie_timeout(timeout))? as ssize_t)
    })
}

/// Receives data, a notification or a cookie echo. msg_flags: set it to 0 or MSG_DONTWAIT before; out come
/// MSG_RSERPOOL_NOTIFICATION, MSG_RSERPOOL_COOKIE_ECHO, and MSG_EOR when the message ends here; what
/// did not fit into the buffer comes with the next calls. rinfo may be NULL; buffer NULL: throw away. What the buffer holds
/// behind the bytes that were returned, or after an error, is undefined: it need not be what was there before.
/// timeout: milliseconds; negative, or O_NONBLOCK: don't wait. Returns the number of bytes, 0: end of the session.
/// -1: EOPNOTSUPP (MSG_WAITALL, MSG_TRUNC, MSG_ERRQUEUE), EBADF, EAGAIN, EINTR, EINVAL (buffer too small for the notification, which stays), EFAULT, ENOTCONN (no
/// session to come). RFC 5352 sections 6.6 and 3.8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_recvmsg(
    sd: c_int,
    buffer: *mut c_void,
    bufferLength: size_t,
    rinfo: *mut rsp_sndrcvinfo,
    msg_flags: *mut c_int,
    timeout: c_int,
) -> ssize_t {
    guard(|| {
        let library = descriptors()?;
        // SAFETY: NULL or the caller's.
        unsafe {
            let flags = reference_mut(msg_flags).map_err(|bad| blame(&library, sd, bad))?;
            let asked = legacy::flags_in(*flags);
            check_flags(asked, libc::MSG_DONTWAIT).map_err(|bad| blame(&library, sd, bad))?;
            let waits = legacy::receive_timeout(timeout).filter(|_| asked & libc::MSG_DONTWAIT == 0);
            let delivery = receive(&library, sd, (buffer, bufferLength), waits);
            report(delivery, rinfo, flags)
        }
    })
}

/// rsp_recvmsg until the message is whole, the buffer is full (no MSG_EOR then; the rest comes with the
/// next calls), or time is over. timeout: milliseconds; negative: for ever. The errors are rsp_recvmsg's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_recvfullmsg(
    sd: c_int,
    buffer: *mut c_void,
    bufferLength: size_t,
    rinfo: *mut rsp_sndrcvinfo,
    msg_flags: *mut c_int,
    timeout: c_int,
) -> ssize_t {
    guard(|| {
        let library = descriptors()?;
        // SAFETY: NULL or the caller's.
        unsafe {
            let flags = reference_mut(msg_flags).map_err(|bad| blame(&library, sd, bad))?;
            let asked = legacy::flags_in(*flags);
            check_flags(asked, libc::MSG_DONTWAIT).map_err(|bad| blame(&library, sd, bad))?;
            let timeout = if asked & libc::MSG_DONTWAIT == 0 { timeout } else { 0 };
            let delivery = receive_full(&library, sd, (buffer, bufferLength), timeout);
            report(delivery, rinfo, flags)
        }
    })
}

/// rsp_recvmsg without its information and without waiting; for a mapped descriptor read(2).
/// -1: EBADF, EAGAIN, EINVAL, EFAULT, ENOTCONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_read(fd: c_int, buffer: *mut c_void, bufferLength: size_t) -> ssize_t {
    guard(|| {
        // SAFETY: the caller's buffer.
        unsafe { read(fd, buffer, bufferLength) }
    })
}

/// rsp_read; for a mapped descriptor with flags recv(2). EOPNOTSUPP: flags other than MSG_DONTWAIT, which changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_recv(
    sd: c_int,
    buffer: *mut c_void,
    bufferLength: size_t,
    flags: c_int,
) -> ssize_t {
    guard(|| {
        match descriptors()?.mapped(sd)? {
            // SAFETY: the kernel checks the pointer.
            Some(system) if flags != 0 => checked(unsafe { libc::recv(system, buffer, bufferLength, flags) }),
            // SAFETY: the caller's buffer.
            Some(_) => unsafe { read(sd, buffer, bufferLength) },
            None => {
                check_flags(flags, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_CMSG_CLOEXEC)?;
                // SAFETY: the caller's buffer.
                unsafe { read(sd, buffer, bufferLength) }
            }
        }
    })
}

/// Sends one message with PPID 0 on stream 0 without waiting; for a mapped descriptor write(2).
/// -1: EBADF, EAGAIN, EIO, EPIPE, EFAULT, EINVAL, EMSGSIZE, ENOMEM, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, as
/// rsp_sendmsg.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_write(fd: c_int, buffer: *const c_char, bufferLength: size_t) -> ssize_t {
    guard(|| {
        let library = descriptors()?;
        match library.mapped(fd)? {
            // SAFETY: the kernel checks the pointer.
            Some(system) => checked(unsafe { libc::write(system, buffer.cast(), bufferLength) }),
            // SAFETY: the caller's bytes.
            None => send(&library, fd, unsafe { input(buffer, bufferLength) }, SendOptions::default()),
        }
    })
}

/// rsp_write; for a mapped descriptor send(2), which gets the flags (ENOTSOCK if it is none). EOPNOTSUPP: flags other than
/// MSG_DONTWAIT, MSG_NOSIGNAL and MSG_EOR, which change nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_send(
    sd: c_int,
    buffer: *const c_void,
    bufferLength: size_t,
    flags: c_int,
) -> ssize_t {
    guard(|| {
        let library = descriptors()?;
        match library.mapped(sd)? {
            // SAFETY: the kernel checks the pointer.
            Some(system) => {
                checked(unsafe { libc::send(system, buffer, bufferLength, flags | libc::MSG_NOSIGNAL) })
            }
            None => {
                check_flags(flags, SEND_FLAGS)?;
                // SAFETY: the caller's bytes.
                send(&library, sd, unsafe { input(buffer, bufferLength) }, SendOptions::default())
            }
        }
    })
}

/// Flags of send(2) that messages go well with.
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_EOR;

/// EOPNOTSUPP for a flag that nobody here does anything about: better than to do something else.
fn check_flags(flags: c_int, known: c_int) -> Result<(), Errno> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno(libc::EOPNOTSUPP)) }
}

/// Prints a notification on one line, without a newline.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_print_notification(notification: *const rserpool_notification, fd: *mut FILE) {
    guard(|| {
        if notification.is_null() || fd.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the caller's notification, all members of which may be read as plain numbers.
        let text = describe(unsafe { &*notification });
        // SAFETY: the caller's stream.
        unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), fd) };
        Ok(())
    })
}

fn describe(notification: &rserpool_notification) -> String {
    let state = |value: c_uint, names: [&str; 2]| match value {
        1 | 2 => names[value as usize - 1].to_owned(),
        _ => format!("Unknown state {value}!"),
    };
    // SAFETY: every member is plain numbers, legal whatever they are.
    let (header, change, failover, shutdown, failed) = unsafe {
        (
            notification.rn_header,
            notification.rn_session_change,
            notification.rn_failover,
            notification.rn_shutdown_event,
            notification.rn_send_failed,
        )
    };
    match header.rn_type {
        RSERPOOL_SESSION_CHANGE => {
            let name = state(change.rsc_state, ["RSERPOOL_SESSION_ADD", "RSERPOOL_SESSION_REMOVE"]);
            format!("RSERPOOL_SESSION_CHANGE for session {}, state={name}", change.rsc_session)
        }
        RSERPOOL_FAILOVER => {
            let name =
                state(failover.rf_state, ["RSERPOOL_FAILOVER_NECESSARY", "RSERPOOL_FAILOVER_COMPLETE"]);
            let cookie = if failover.rf_has_cookie != 0 { "yes" } else { "no" };
            format!("RSERPOOL_FAILOVER for session {}, state={name}, cookie={cookie}", failover.rf_session)
        }
        RSERPOOL_SEND_FAILED => {
            let name = state(failed.rsf_state, ["RSERPOOL_SEND_UNREACHED", "RSERPOOL_SEND_UNCERTAIN"]);
            let (pe_id, length) = (failed.rsf_pe_id, failed.rsf_message_length);
            format!("RSERPOOL_SEND_FAILED for element ${pe_id:08x}, state={name}, {length} bytes")
        }
        RSERPOOL_SHUTDOWN_EVENT => format!("RSERPOOL_SHUTDOWN_EVENT for session {}", shutdown.rse_session),
        other => format!("Unknown type {other}!"),
    }
}

/// What a receive call gives back.
struct Delivery {
    length: usize,
    flags: c_int,
    info: rsp_sndrcvinfo,
}

/// Writes a delivery to where the caller wants it.
unsafe fn report(
    delivery: Result<Delivery, Errno>,
    rinfo: *mut rsp_sndrcvinfo,
    flags: &mut c_int,
) -> Result<ssize_t, Errno> {
    // SAFETY: NULL or the caller's.
    if let Some(rinfo) = unsafe { rinfo.as_mut() } {
        *rinfo = delivery.as_ref().map_or(rsp_sndrcvinfo::default(), |delivery| delivery.info);
    }
    let delivery = delivery?;
    *flags = legacy::flags_out(*flags, delivery.flags, delivery.length);
    Ok(delivery.length as ssize_t)
}

unsafe fn read(sd: c_int, buffer: *mut c_void, length: size_t) -> Result<ssize_t, Errno> {
    let library = descriptors()?;
    match library.mapped(sd)? {
        // SAFETY: the kernel checks the pointer.
        Some(system) => checked(unsafe { libc::read(system, buffer, length) }),
        // SAFETY: the caller's buffer.
        None => unsafe { receive(&library, sd, (buffer, length), None) }.map(|d| d.length as ssize_t),
    }
}

unsafe fn receive(
    library: &Library,
    sd: c_int,
    buffer: (*mut c_void, size_t),
    timeout: Option<Duration>,
) -> Result<Delivery, Errno> {
    // SAFETY: the caller's buffer.
    let received = unsafe { deliver(buffer, |room| library.recv(sd, room.from(0), timeout)) };
    Ok(received.inspect_err(|error| explain::failed(sd, "receiving", error))?)
}

unsafe fn receive_full(
    library: &Library,
    sd: c_int,
    buffer: (*mut c_void, size_t),
    timeout: c_int,
) -> Result<Delivery, Errno> {
    let patience = legacy::full_receive_timeout(timeout);
    // SAFETY: the caller's buffer.
    let received = unsafe { deliver(buffer, |room| library.recv_full(sd, room, Some(patience))) };
    Ok(received.inspect_err(|error| explain::failed(sd, "receiving", error))?)
}

unsafe fn deliver(
    (buffer, length): (*mut c_void, size_t),
    receive: impl FnOnce(&mut Room<'_>) -> Result<Received, SocketError>,
) -> Result<Delivery, SocketError> {
    if isize::try_from(length).is_err() {
        return Err(std::io::Error::from_raw_os_error(libc::EFAULT).into());
    }
    let mut room = if buffer.is_null() {
        Room::nowhere(length)
    } else {
        // SAFETY: the caller's `length` bytes. They may be uninitialised; they are only written to.
        Room::Buffer(unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) })
    };
    Ok(match receive(&mut room)? {
        Received::Data { length, end, session, ppid, pe_id, stream } => Delivery {
            length,
            flags: end_flag(end),
            info: rsp_sndrcvinfo {
                rinfo_session: session,
                rinfo_ppid: ppid,
                rinfo_pe_id: pe_id.0,
                rinfo_timetolive: 0,
                rinfo_stream: stream,
            },
        },
        Received::CookieEcho { length, end, session } => Delivery {
            length,
            flags: MSG_RSERPOOL_COOKIE_ECHO | end_flag(end),
            info: rsp_sndrcvinfo {
                rinfo_session: session,
                rinfo_ppid: legacy::COOKIE_ECHO_PPID,
                ..Default::default()
            },
        },
        Received::Notification(notification) => notify(&mut room, legacy::notification(notification), 0)?,
        Received::Undelivered { length, size, pe_id, reached } => {
            notify(&mut room, legacy::send_failed(size, pe_id.0, reached), length)?
        }
        Received::End { .. } => Delivery { length: 0, flags: 0, info: Default::default() },
    })
}

/// A notification in front of `further` bytes that are there already.
fn notify(
    room: &mut Room<'_>,
    notification: rserpool_notification,
    further: usize,
) -> Result<Delivery, SocketError> {
    let place = room.from(0).get_mut(..NOTIFICATION_SIZE).ok_or(SocketError::NoRoom)?;
    // SAFETY: 20 initialised bytes into 20 bytes.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const notification).cast(), place.as_mut_ptr(), place.len());
    }
    let flags = MSG_RSERPOOL_NOTIFICATION | libc::MSG_EOR;
    Ok(Delivery { length: NOTIFICATION_SIZE + further, flags, info: Default::default() })
}

fn end_flag(end: bool) -> c_int {
    if end { libc::MSG_EOR } else { 0 }
}
