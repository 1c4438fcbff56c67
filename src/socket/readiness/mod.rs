//! Whether there is something for a descriptor's owner: an epoll instance whose number the application holds,
//! and what makes it readable besides its sockets. Sessions and listeners have it; it knows nothing of them.

pub(crate) mod attendant;
pub(crate) mod wait;
pub(crate) mod waitset;

use crate::socket::error::{Result, SocketError};
use crate::transport::descriptors::{self, Held};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use wait::{Deadline, Waiters};
use waitset::{Interest, WaitSet};

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
    /// The wait set that has the descriptor as a member, by its sockets.
    set: Mutex<Option<(Weak<WaitSet>, Interest)>>,
}

impl Readiness {
    pub(crate) fn new(epoll: Held<Epoll>, beacon: Arc<Held<EventFd>>) -> Readiness {
        Readiness {
            epoll,
            waiters: Waiters::default(),
            closed: AtomicBool::new(false),
            beacon,
            reasons: Mutex::new(0),
            set: Mutex::new(None),
        }
    }

    pub(crate) fn new_epoll() -> Result<Held<Epoll>> {
        Ok(descriptors::epoll()?)
    }

    fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// The descriptor's number.
    pub(crate) fn number(&self) -> RawFd {
        self.epoll().0.as_raw_fd()
    }

    /// The same, for other epoll instances.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll().0.as_fd()
    }

    /// The application closed our number behind our back, and it is another descriptor's.
    pub(crate) fn disown(&self) {
        self.epoll.disown();
    }

    /// Incoming data on `socket` makes the descriptor readable.
    pub(crate) fn add(&self, socket: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.with_set(|set, interest| set.watch(socket, self.number(), interest)).transpose()?;
        Ok(self.epoll().add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Becomes a member of a wait set, for the first time or with other wishes; `socket` is what it has now.
    pub(crate) fn join(
        &self,
        set: &Arc<WaitSet>,
        interest: Interest,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        self.leave(socket);
        // Whoever changes the reasons looks here.
        let reasons = self.reasons.lock();
        *self.set.lock() = Some((Arc::downgrade(set), interest));
        set.join(self.number(), interest, *reasons)?;
        socket.map_or(Ok(()), |socket| set.watch(socket, self.number(), interest))
    }

    /// Is no member any more.
    pub(crate) fn leave(&self, socket: Option<BorrowedFd<'_>>) {
        self.ignore(socket);
        let before = self.set.lock().take();
        if let Some(set) = before.and_then(|(set, _)| set.upgrade()) {
            set.leave(self.number());
        }
    }

    /// A socket that is of no further use is so to the wait set as well.
    pub(crate) fn ignore(&self, socket: Option<BorrowedFd<'_>>) {
        if let Some(socket) = socket {
            self.with_set(|set, _| set.ignore(socket));
        }
    }

    fn with_set<T>(&self, act: impl FnOnce(&WaitSet, Interest) -> T) -> Option<T> {
        let set = self.set.lock();
        let (set, interest) = set.as_ref()?;
        Some(act(&*set.upgrade()?, *interest))
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
        self.ignore(Some(socket));
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
            let beacon = EpollEvent::new(EpollFlags::EPOLLIN, BEACON);
            if let Err(error) = self.epoll().add(&self.beacon, beacon) {
                log::error!("descriptor {} can't be made readable: {error}", self.number());
                return;
            }
        } else if before != 0 && now == 0 {
            let _ = self.epoll().delete(&self.beacon);
        }
        *reasons = now;
        if before != now {
            self.with_set(|set, _| set.show(self.number(), now));
        }
    }

    /// Whether it is readable for another reason than its sockets.
    pub(crate) fn is_raised(&self) -> bool {
        *self.reasons.lock() != 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// [`SocketError::Closed`] once the descriptor was closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(SocketError::Closed) } else { Ok(()) }
    }

    /// Sets O_NONBLOCK, as a program may by fcntl(2).
    pub(crate) fn set_nonblocking(&self) -> Result<()> {
        fcntl(self.epoll().0.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// [`SocketError::WouldBlock`] for a call that would wait although the program made the descriptor non-blocking.
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
