//! `rsp_poll` and `rsp_select`.

use super::convert::patience;
use super::current::library;
use super::guard::{Errno, guard};
use crate::socket::{Library, PollEntry};
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, c_int, c_uint, fd_set, pollfd, timeval};
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
        let mut entries: Vec<PollEntry> = asked.collect();
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
