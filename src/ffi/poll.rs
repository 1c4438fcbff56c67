//! `rsp_poll`, `rsp_select` and wait sets.

use super::convert::patience;
use super::current::{descriptors, library};
use super::guard::{Errno, guard};
use crate::socket::{Library, PollEntry};
use libc::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, c_int, c_short, c_uint, fd_set, pollfd, timeval,
};
use std::time::Duration;

/// poll(2) over RSerPool, mapped and ordinary descriptors; timeout: milliseconds, -1: for ever. A
/// descriptor that is none gets POLLNVAL. -1: EACCES (not initialised), EFAULT, EINVAL (past the limit
/// of open files; POLLIN and POLLOUT count twice), EINTR, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_poll(ufds: *mut pollfd, nfds: c_uint, timeout: c_int) -> c_int {
    guard(|| {
        let library = library()?;
        Library::check_poll(nfds as usize)?;
        // SAFETY: the caller's array.
        let array = unsafe { array(ufds, nfds)? };
        let asked = array.iter().map(|asked| PollEntry { sd: asked.fd, events: asked.events, revents: 0 });
        let mut entries: Vec<PollEntry> = Vec::new();
        entries.try_reserve_exact(asked.len()).map_err(|_| Errno(libc::ENOMEM))?;
        entries.extend(asked);
        let ready = library.poll(&mut entries, patience(timeout))?;
        for (asked, entry) in array.iter_mut().zip(&entries) {
            asked.revents = entry.revents;
        }
        Ok(ready as c_int)
    })
}

/// select(2) over RSerPool, mapped and ordinary descriptors below FD_SETSIZE; sets and timeout may be NULL,
/// timeout is not changed. -1: EACCES (not initialised), EBADF, EINVAL (n past FD_SETSIZE, bad time), EINTR,
/// ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_select(
    n: c_int,
    readfds: *mut fd_set,
    writefds: *mut fd_set,
    exceptfds: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    guard(|| {
        let library = library()?;
        if !(0..=libc::FD_SETSIZE as c_int).contains(&n) {
            return Err(Errno(libc::EINVAL));
        }
        // SAFETY: NULL or the caller's.
        let timeout = duration(unsafe { timeout.as_ref() })?;
        let mut sets = [
            Set { bits: readfds, ask: POLLIN, answer: POLLIN | POLLHUP | POLLERR },
            Set { bits: writefds, ask: POLLOUT, answer: POLLOUT | POLLERR },
            Set { bits: exceptfds, ask: POLLPRI, answer: POLLPRI },
        ];
        let mut entries: Vec<PollEntry> = (0..n).filter_map(|sd| asked(&sets, sd)).collect();
        library.poll(&mut entries, timeout)?;
        if entries.iter().any(|entry| entry.revents & POLLNVAL != 0) {
            return Err(Errno(libc::EBADF));
        }
        Ok(sets.iter_mut().map(|set| set.answer(&entries)).sum())
    })
}

/// A new wait set: sessions in it are waited for by their own sockets, which costs what epoll(7) costs with bare ones. An
/// RSerPool descriptor in the program's own epoll instance works as well and costs some more. Close it with rsp_close.
/// -1: EACCES (not initialised), EMFILE, ENFILE, ENOMEM. Not in RFC 5351 or rsplib.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_waitset_create() -> c_int {
    guard(|| Ok(library()?.wait_set()?))
}

/// Has a wait set wait until an RSerPool descriptor is readable (POLLIN), writable (POLLOUT; sessions only), or either; 0:
/// for nothing, it leaves the set, as it does when it is closed. Called again, it changes what is waited for. A descriptor is in
/// one set at a time, the last one; a session stays in it when it fails over. -1: EBADF (no such set or descriptor), EINVAL
/// (other events).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_waitset_set(waitset: c_int, sd: c_int, events: c_short) -> c_int {
    guard(|| {
        let library = descriptors()?;
        if events & !(POLLIN | POLLOUT) != 0 {
            return Err(Errno(libc::EINVAL));
        }
        library.wait_for(waitset, sd, events & POLLIN != 0, events & POLLOUT != 0)?;
        Ok(0)
    })
}

/// Waits until something is the matter with descriptors of a wait set, and puts up to most (64 at a time) of them into
/// ready: fd, and in revents what of POLLIN and POLLOUT it is. What is left comes with the next calls, others' turn first.
/// timeout: milliseconds, -1: for ever. Returns how many, 0: time is over. A session may be readable for a control message alone:
/// receive from it with MSG_DONTWAIT. -1: EBADF (no such set), EFAULT, EINVAL (most is 0), EINTR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_waitset_wait(
    waitset: c_int,
    ready: *mut pollfd,
    most: c_uint,
    timeout: c_int,
) -> c_int {
    guard(|| {
        let library = descriptors()?;
        if ready.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        let mut count = 0;
        let put = |sd, readable, writable| {
            let revents = if readable { POLLIN } else { 0 } | if writable { POLLOUT } else { 0 };
            // SAFETY: one of the caller's `most` entries: no more are found.
            unsafe { ready.add(count).write(pollfd { fd: sd, events: 0, revents }) };
            count += 1;
        };
        Ok(library.wait(waitset, most as usize, patience(timeout), put)? as c_int)
    })
}

/// The caller's `pollfd`s.
unsafe fn array<'a>(ufds: *mut pollfd, nfds: c_uint) -> Result<&'a mut [pollfd], Errno> {
    match nfds {
        0 => Ok(&mut []),
        _ if ufds.is_null() => Err(Errno(libc::EFAULT)),
        // SAFETY: the caller's `nfds` entries.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(ufds, nfds as usize) }),
    }
}

fn duration(time: Option<&timeval>) -> Result<Option<Duration>, Errno> {
    let Some(time) = time else { return Ok(None) };
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno(libc::EINVAL))?;
    match u32::try_from(time.tv_usec) {
        Ok(micros @ 0..1_000_000) => Ok(Some(Duration::new(seconds, micros * 1000))),
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// One of the three sets: which events to ask for, and which of them count as an answer.
struct Set {
    bits: *mut fd_set,
    ask: i16,
    answer: i16,
}

fn asked(sets: &[Set; 3], sd: c_int) -> Option<PollEntry> {
    let mut events = 0;
    for set in sets {
        // SAFETY: the caller's set; `sd` is below FD_SETSIZE.
        if !set.bits.is_null() && unsafe { libc::FD_ISSET(sd, set.bits) } {
            events |= set.ask;
        }
    }
    (events != 0).then_some(PollEntry { sd, events, revents: 0 })
}

impl Set {
    /// Leaves only the bits of descriptors that are ready; says how many.
    fn answer(&mut self, entries: &[PollEntry]) -> c_int {
        if self.bits.is_null() {
            return 0;
        }
        let mut ready = 0;
        for entry in entries.iter().filter(|entry| entry.events & self.ask != 0) {
            // SAFETY: the caller's set; `sd` is below FD_SETSIZE.
            unsafe {
                if entry.revents & self.answer != 0 {
                    ready += 1;
                } else {
                    libc::FD_CLR(entry.sd, self.bits);
                }
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_keep_what_is_ready() {
        let mut bits: fd_set = unsafe { std::mem::zeroed() };
        unsafe {
            libc::FD_SET(3, &mut bits);
            libc::FD_SET(5, &mut bits);
        }
        let mut set = Set { bits: &mut bits, ask: POLLIN, answer: POLLIN | POLLHUP };
        let entries = [
            PollEntry { sd: 3, events: POLLIN, revents: 0 },
            PollEntry { sd: 5, events: POLLIN, revents: POLLHUP },
            PollEntry { sd: 7, events: POLLOUT, revents: POLLOUT },
        ];
        assert_eq!(set.answer(&entries), 1);
        unsafe {
            assert!(!libc::FD_ISSET(3, &bits));
            assert!(libc::FD_ISSET(5, &bits));
            assert!(!libc::FD_ISSET(7, &bits));
        }
    }

    #[test]
    fn times_are_checked() {
        let time = |tv_sec, tv_usec| duration(Some(&timeval { tv_sec, tv_usec }));
        assert_eq!(time(1, 500_000), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(time(-1, 0), Err(Errno(libc::EINVAL)));
        assert_eq!(time(0, 1_000_000), Err(Errno(libc::EINVAL)));
        assert_eq!(duration(None), Ok(None));
    }
}
