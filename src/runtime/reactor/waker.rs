//! What calls an event thread, and knows whether that still has its descriptors.

use crate::transport::descriptors::{Held, eventfd, is_watched};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls an event thread out of its sleep, from any thread.
#[derive(Debug)]
pub struct Waker {
    bell: Held<EventFd>,
    poll: RawFd,
    abandoned: AtomicBool,
}

impl Waker {
    pub(in crate::runtime) fn new(poll: &Poll, token: Token) -> io::Result<Waker> {
        let bell = eventfd(0)?;
        poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Waker { bell, poll: poll.as_raw_fd(), abandoned: AtomicBool::new(false) })
    }

    /// Calls the thread. An error: it has lost its descriptors, which may be others' by now.
    pub fn wake(&self) -> io::Result<()> {
        if !self.is_sound() {
            return Err(Errno::EBADF.into());
        }
        match self.bell.write(1) {
            // Nobody reads the sum.
            Err(Errno::EAGAIN) => {
                let _ = self.bell.read();
                self.bell.write(1)?;
            }
            result => _ = result?,
        }
        Ok(())
    }

    /// Whether poll and bell are still what they were: a program may have closed "all files".
    pub fn is_sound(&self) -> bool {
        !self.abandoned.load(Ordering::Acquire) && is_watched(self.poll, self.bell.as_raw_fd())
    }

    /// The thread touches no descriptor any more: whoever comes after it may have the same numbers.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }
}
