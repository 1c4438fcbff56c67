//! Numbers of our own descriptors. In a process that was started with standard input, output or error closed,
//! the kernel gives out 0, 1 and 2 next; the program, or daemon(3), takes them back without asking. So whatever is
//! kept open here has a number above [`STANDARD`].
#![allow(unsafe_code)]

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The last of the numbers that are the program's: standard error.
const STANDARD: RawFd = 2;

/// The same open file under a number that is no standard one.
pub fn lift<T: From<OwnedFd> + Into<OwnedFd>>(made: T) -> io::Result<T> {
    let fd: OwnedFd = made.into();
    // A clone's number is above the standard ones.
    Ok(if fd.as_raw_fd() > STANDARD { fd } else { fd.try_clone()? }.into())
}

/// What can't be given another number is made until it has one.
pub fn above_standard<T>(make: impl Fn() -> io::Result<T>, number: impl Fn(&T) -> RawFd) -> io::Result<T> {
    let mut low = Vec::new();
    loop {
        let made = make()?;
        if number(&made) > STANDARD {
            return Ok(made);
        }
        // Kept until the end, so that the number is not given out once more.
        low.push(made);
    }
}

/// A close-on-exec epoll instance.
pub fn epoll() -> io::Result<Epoll> {
    Ok(Epoll(lift(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)?))
}

/// A non-blocking, close-on-exec eventfd.
pub fn eventfd(value: u32) -> io::Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    above_standard(|| Ok(EventFd::from_value_and_flags(value, flags)?), EventFd::as_raw_fd)
}

/// Whether these numbers are still what they were made as: an epoll instance, and a file that it watches. A
/// program that closed "all files" has closed them too, and the numbers may be its own files' by now.
pub fn is_watched(epoll: RawFd, fd: RawFd) -> bool {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: the kernel reads `event`; numbers that are none of ours are refused.
    unsafe {
        if libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) < 0 {
            return io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST);
        }
        // Somebody else's, who gets it back as it was.
        libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, &mut event);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::EpollEvent;
    use std::os::fd::FromRawFd;

    #[test]
    fn what_an_epoll_instance_watches_is_known_by_it() {
        let (watching, watched) = (epoll().unwrap(), eventfd(0).unwrap());
        let (at, on) = (watching.0.as_raw_fd(), watched.as_raw_fd());
        assert!(!is_watched(at, on));
        watching.add(&watched, EpollEvent::empty()).unwrap();
        assert!(is_watched(at, on));
        assert!(!is_watched(on, at) && !is_watched(-1, on) && !is_watched(at, -1));
    }

    /// In a child, which closes what is the whole test program's.
    #[test]
    fn nothing_is_made_below_three() {
        // SAFETY: the child makes system calls only, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: its own descriptors.
            unsafe {
                libc::close(0);
                libc::close(1);
                libc::close(2);
                let low = || OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
                let numbers = [
                    epoll().map_or(0, |epoll| epoll.0.as_raw_fd()),
                    eventfd(1).map_or(0, |bell| bell.as_raw_fd()),
                    lift(low()).map_or(0, |fd| fd.as_raw_fd()),
                    above_standard(|| Ok(low()), OwnedFd::as_raw_fd).map_or(0, |fd| fd.as_raw_fd()),
                ];
                libc::_exit(i32::from(numbers.iter().any(|number| *number <= STANDARD)))
            }
        }
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
    }
}
