//! Whether there is something for a descriptor's owner: an epoll instance whose number the application holds,
//! and what makes it readable besides its sockets. Sessions and listeners have it; it knows nothing of them.

pub(crate) mod wait;

use crate::socket::error::{Result, SocketError};
use crate::transport::descriptors::{self, Held};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use wait::{Deadline, Waiters};

/// Why a descriptor is readable though none of its sockets may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Notifications or cookie echoes are queued, or a session is accepted.
    Queue = 1,
    /// Data was read ahead.
    Buffered = 2,
    /// The session failed or ended.
    Failed = 4,
    /// It was closed: whoever waits is to look.
    Closed = 8,
    /// Users have proved themselves and wait to be sessions.
    Arrived = 16,
}

/// Token of what makes it readable besides its sockets; theirs lie below or above.
pub(crate) const BEACON: u64 = 1 << 62;

/// What a descriptor's owner polls, and what its calls wait for.
#[derive(Debug)]
pub(crate) struct Readiness {
    epoll: Held<Epoll>,
    /// Calls that wait for something else than what makes it readable.
    pub(crate) waiters: Waiters,
    closed: AtomicBool,
    /// An eventfd that is always readable, shared by a few descriptors: in the epoll instance while
    /// there are reasons, so that a descriptor needs none of its own.
    beacon: Arc<Held<EventFd>>,
    reasons: Mutex<u8>,
}

impl Readiness {
    pub(crate) fn new(epoll: Held<Epoll>, beacon: Arc<Held<EventFd>>) -> Readiness {
        Readiness {
            epoll,
            waiters: Waiters::default(),
            closed: AtomicBool::new(false),
            beacon,
            reasons: Mutex::new(0),
        }
    }

    pub(crate) fn new_epoll() -> Result<Held<Epoll>> {
        Ok(descriptors::epoll()?)
    }

    fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll().0.as_fd()
    }

    /// The descriptor's number.
    pub(crate) fn number(&self) -> RawFd {
        self.epoll().0.as_raw_fd()
    }

    /// The application closed our number behind our back, and it is another descriptor's.
    pub(crate) fn disown(&self) {
        self.epoll.disown();
    }

    /// Incoming data on `socket` makes the descriptor readable.
    pub(crate) fn add(&self, socket: BorrowedFd<'_>, token: u64) -> Result<()> {
        Ok(self.epoll().add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    pub(crate) fn rename(&self, socket: BorrowedFd<'_>, token: u64) -> Result<()> {
        Ok(self.epoll().modify(socket, &mut EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// What has come already makes the descriptor readable no longer, only what comes from now on.
    pub(crate) fn watch_for_news(&self, socket: BorrowedFd<'_>, token: u64) {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let _ = self.epoll().modify(socket, &mut EpollEvent::new(flags, token));
    }

    pub(crate) fn remove(&self, socket: BorrowedFd<'_>) {
        let _ = self.epoll().delete(socket);
    }

    /// Waits until the descriptor is readable; how many of `events` were filled.
    pub(crate) fn wait(&self, events: &mut [EpollEvent], deadline: Deadline) -> Result<usize> {
        let timeout = EpollTimeout::try_from(deadline.milliseconds()).unwrap_or(EpollTimeout::NONE);
        Ok(self.epoll().wait(events, timeout)?)
    }

    /// [`Readiness::wait`] for those who look for themselves what it was.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> Result<()> {
        self.wait(&mut [EpollEvent::empty()], deadline).map(|_| ())
    }

    /// A reason to be readable holds, or no longer does.
    pub(crate) fn set(&self, reason: Reason, holds: bool) {
        let mut reasons = self.reasons.lock();
        let before = *reasons;
        let now = if holds { before | reason as u8 } else { before & !(reason as u8) };
        if before == 0 && now != 0 {
            if let Err(error) = self.add(self.beacon.as_fd(), BEACON) {
                log::error!("descriptor {} can't be made readable: {error}", self.number());
                return;
            }
        } else if before != 0 && now == 0 {
            self.remove(self.beacon.as_fd());
        }
        *reasons = now;
    }

    /// Whether it is readable for another reason than its sockets.
    pub(crate) fn is_raised(&self) -> bool {
        *self.reasons.lock() != 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// EBADF once the descriptor was closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(SocketError::Closed) } else { Ok(()) }
    }

    /// Sets O_NONBLOCK, as a program may by fcntl(2).
    pub(crate) fn set_nonblocking(&self) -> Result<()> {
        fcntl(self.epoll().0.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// EAGAIN for a call that would wait although the program made the descriptor non-blocking.
    pub(crate) fn check_blocking(&self) -> Result<()> {
        match fcntl(self.epoll().0.as_fd(), FcntlArg::F_GETFL) {
            Ok(flags) if OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK) => {
                Err(SocketError::WouldBlock)
            }
            _ => Ok(()),
        }
    }

    /// Why a call on it fails: `otherwise`, unless it was closed meanwhile.
    pub(crate) fn refusal(&self, otherwise: SocketError) -> SocketError {
        if self.is_closed() { SocketError::Closed } else { otherwise }
    }

    /// Everybody who waits on it wakes and finds it closed.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.set(Reason::Closed, true);
        self.waiters.wake();
    }
}
