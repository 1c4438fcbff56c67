//! Numbers of our own descriptors. In a process that was started with standard input, output or error closed,
//! the kernel gives out 0, 1 and 2 next; the program, or daemon(3), takes them back without asking. So whatever is
//! kept open here has a number above `STANDARD`.
#![allow(unsafe_code)]

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// An open file that is closed with this value only if its number still means it: a program that closed "all files"
/// has closed it already, and may have a file of its own there by now.
#[derive(Debug)]
pub struct Held<T> {
    file: ManuallyDrop<T>,
    number: RawFd,
    identity: Option<Identity>,
    disowned: AtomicBool,
}

/// Device and inode. Sockets have one each; what epoll and eventfd make share one.
type Identity = (libc::dev_t, libc::ino_t);

impl<T> Held<T> {
    fn new(file: T, number: RawFd) -> Held<T> {
        Held {
            file: ManuallyDrop::new(file),
            number,
            identity: identity(number),
            disowned: AtomicBool::new(false),
        }
    }

    /// The file, for who looks after it himself.
    pub fn into_inner(self) -> T {
        let mut held = ManuallyDrop::new(self);
        // SAFETY: taken once, since neither this value nor its file is used or dropped after it.
        unsafe { ManuallyDrop::take(&mut held.file) }
    }

    /// Whether its number still means it.
    pub fn is_there(&self) -> bool {
        !self.disowned.load(Ordering::Relaxed)
            && self.identity.is_some()
            && identity(self.number) == self.identity
    }

    /// Not to be closed: somebody else's file has the number by now.
    pub fn disown(&self) {
        self.disowned.store(true, Ordering::Relaxed);
    }
}

impl<T: AsRawFd> From<T> for Held<T> {
    fn from(file: T) -> Held<T> {
        let number = file.as_raw_fd();
        Held::new(file, number)
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.file
    }
}

impl<T: AsFd> AsFd for Held<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if self.is_there() {
            // SAFETY: nothing else closes it. Not by its own destructor: in builds with debug assertions that ends the
            // process where somebody else closes the number just now.
            unsafe { libc::close(self.number) };
        }
    }
}

/// `None`: not open.
fn identity(number: RawFd) -> Option<Identity> {
    // SAFETY: an integer; the kernel says whether it is a file.
    let status = nix::sys::stat::fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    Some((status.st_dev, status.st_ino))
}

/// A close-on-exec epoll instance.
pub fn epoll() -> io::Result<Held<Epoll>> {
    Ok(hold(Epoll(lift(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)?)))
}

/// See [`Held`].
pub fn hold(epoll: Epoll) -> Held<Epoll> {
    let number = epoll.0.as_raw_fd();
    Held::new(epoll, number)
}

/// A non-blocking, close-on-exec eventfd.
pub fn eventfd(value: u32) -> io::Result<Held<EventFd>> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let made = above_standard(|| Ok(EventFd::from_value_and_flags(value, flags)?), EventFd::as_raw_fd)?;
    Ok(made.into())
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

    /// Whether a number means an open file.
    fn is_open(number: RawFd) -> bool {
        identity(number).is_some()
    }

    #[test]
    fn what_somebody_else_closed_is_not_closed_again() {
        let ours = || Held::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let (kept, closed, reused, disowned) = (ours(), ours(), ours(), ours());
        let numbers = [kept.as_raw_fd(), closed.as_raw_fd(), reused.as_raw_fd(), disowned.as_raw_fd()];
        let theirs = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: what a program does that closes all files, and opens others.
        unsafe {
            libc::dup2(theirs.as_raw_fd(), numbers[2]);
            libc::close(numbers[1]);
        }
        drop(closed);
        drop(reused);
        disowned.disown();
        drop(disowned);
        drop(kept);
        assert!(!is_open(numbers[0]) && is_open(numbers[2]) && is_open(numbers[3]));
        // SAFETY: nobody else's any more.
        unsafe {
            libc::close(numbers[2]);
            libc::close(numbers[3]);
        }
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
