//! Waiting on the caller's thread: deadlines, and being woken for another reason than the socket.

#![expect(clippy::disallowed_methods, reason = "callers' time-outs are real time")]

use crate::socket::error::{Result, SocketError};
use crate::transport::descriptors::{Held, eventfd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use parking_lot::{Mutex, MutexGuard};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Until when a call may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deadline {
    /// Not at all.
    Now,
    /// So long from when somebody begins to wait ([`Deadline::begin`]): who gets what he wants at once asks no clock.
    In(Duration),
    /// Until then.
    At(Instant),
    /// For ever.
    Never,
}

impl Deadline {
    /// `after` from now; for ever if that can't be expressed.
    pub(crate) fn after(after: Duration) -> Deadline {
        Instant::now().checked_add(after).map_or(Deadline::Never, Deadline::At)
    }

    /// `None`: not at all.
    pub(crate) fn or_now(timeout: Option<Duration>) -> Deadline {
        timeout.map_or(Deadline::Now, Deadline::In)
    }

    /// The waiting begins.
    pub(crate) fn begin(self) -> Deadline {
        match self {
            Deadline::In(Duration::ZERO) => Deadline::Now,
            Deadline::In(time) => Deadline::after(time),
            begun => begun,
        }
    }

    /// `None`: for ever.
    pub(crate) fn or_never(timeout: Option<Duration>) -> Deadline {
        timeout.map_or(Deadline::Never, Deadline::after)
    }

    pub(crate) fn passed(self) -> bool {
        match self {
            Deadline::Now => true,
            Deadline::In(time) => time.is_zero(),
            Deadline::At(at) => Instant::now() >= at,
            Deadline::Never => false,
        }
    }

    /// What is left; `None`: no end.
    pub(crate) fn left(self) -> Option<Duration> {
        match self {
            Deadline::Now => Some(Duration::ZERO),
            Deadline::In(time) => Some(time),
            Deadline::At(at) => Some(at.saturating_duration_since(Instant::now())),
            Deadline::Never => None,
        }
    }

    /// The earlier one.
    pub(crate) fn min(self, other: Deadline) -> Deadline {
        match (self.begin(), other.begin()) {
            (Deadline::Now, _) | (_, Deadline::Now) => Deadline::Now,
            (Deadline::Never, deadline) | (deadline, Deadline::Never) => deadline,
            (Deadline::At(one), Deadline::At(two)) => Deadline::At(one.min(two)),
            (Deadline::In(one), Deadline::In(two)) => Deadline::In(one.min(two)),
            // None is left that has not begun.
            (Deadline::In(_), begun) | (begun, Deadline::In(_)) => begun,
        }
    }

    /// Locks within it.
    pub(crate) fn lock<T>(self, mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
        let guard = mutex.try_lock().or_else(|| match self.begin() {
            Deadline::Now => None,
            Deadline::At(at) => mutex.try_lock_until(at),
            Deadline::Never | Deadline::In(_) => Some(mutex.lock()),
        });
        guard.ok_or(SocketError::WouldBlock)
    }

    /// poll(2)'s and epoll_wait(2)'s milliseconds: rounded up, so that nobody spins before the end.
    pub(crate) fn milliseconds(self) -> i32 {
        let Some(left) = self.left() else { return -1 };
        i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    }

    pub(crate) fn poll_timeout(self) -> PollTimeout {
        PollTimeout::try_from(self.milliseconds()).unwrap_or(PollTimeout::NONE)
    }
}

/// How often who can't be called looks around.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The socket is ready, or broken.
    Ready,
    /// Time is over.
    Late,
    /// Somebody called [`Waiters::wake`]: look around.
    Called,
}

/// Threads that wait for something else than any incoming data (that is what epoll is for): to write, to
/// be connected, for the rest of a message, to try again later.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Arc<Held<EventFd>>>>);

impl Waiters {
    /// Waits for one of `sockets` (if any) to become ready or broken. `stop` is looked at after this thread
    /// can be woken, so that a call between the caller's own look and the wait isn't lost.
    pub(crate) fn wait<'a>(
        &self,
        sockets: impl IntoIterator<Item = (BorrowedFd<'a>, PollFlags)>,
        deadline: Deadline,
        stop: impl Fn() -> bool,
    ) -> io::Result<Woken> {
        let Some(bell) = new_bell() else {
            let short = wait_for(sockets, None, deadline.min(Deadline::after(GLANCE)))?;
            return Ok(if short == Woken::Ready || deadline.passed() { short } else { Woken::Called });
        };
        self.attach(&bell);
        let result = if stop() { Ok(Woken::Called) } else { wait_for(sockets, Some(&bell), deadline) };
        self.detach(&bell);
        result
    }

    /// `bell` rings with the next call of [`Waiters::wake`] and all after it.
    pub(crate) fn attach(&self, bell: &Arc<Held<EventFd>>) {
        self.0.lock().push(bell.clone());
    }

    pub(crate) fn detach(&self, bell: &Arc<Held<EventFd>>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, bell));
    }

    /// Ends all waits.
    pub(crate) fn wake(&self) {
        for bell in self.0.lock().iter() {
            let _ = bell.write(1);
        }
    }
}

/// What a thread that waits can be called with; made for the occasion, since who has to wait has the time.
/// `None`: the process is out of descriptors, and has to [`GLANCE`].
pub(crate) fn new_bell() -> Option<Arc<Held<EventFd>>> {
    eventfd(0).ok().map(Arc::new)
}

fn wait_for<'a>(
    sockets: impl IntoIterator<Item = (BorrowedFd<'a>, PollFlags)>,
    bell: Option<&EventFd>,
    deadline: Deadline,
) -> io::Result<Woken> {
    let bell = bell.map(|bell| PollFd::new(bell.as_fd(), PollFlags::POLLIN));
    let called = bell.is_some();
    let mut all: Vec<PollFd<'_>> = bell.into_iter().collect();
    all.extend(sockets.into_iter().map(|(socket, flags)| PollFd::new(socket, flags)));
    match poll(&mut all, deadline.poll_timeout()) {
        Ok(0) => Ok(Woken::Late),
        Ok(_) if called && all[0].any() == Some(true) => Ok(Woken::Called),
        Ok(_) => Ok(Woken::Ready),
        Err(error) => Err(error.into()),
    }
}

/// Whether something can be read at once, an end included.
pub(crate) fn is_readable(socket: BorrowedFd<'_>) -> bool {
    matches!(wait_for([(socket, PollFlags::POLLIN)], None, Deadline::Now), Ok(Woken::Ready))
}

/// The time, for those who only remember it.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long ago that was.
pub(crate) fn passed(since: Instant) -> Duration {
    since.elapsed()
}

/// How long a call may wait, and what else may end its waiting.
pub(crate) struct Patience<'a> {
    deadline: Cell<Deadline>,
    waiters: &'a Waiters,
    /// Why to give up before the deadline: the descriptor was closed, the element is gone.
    stop: &'a dyn Fn() -> Result<()>,
}

impl Patience<'static> {
    /// None at all.
    pub(crate) fn none() -> Patience<'static> {
        static NOBODY: Waiters = Waiters(Mutex::new(Vec::new()));
        Patience::new(Deadline::Now, &NOBODY, &|| Ok(()))
    }
}

impl<'a> Patience<'a> {
    pub(crate) fn new(
        deadline: Deadline,
        waiters: &'a Waiters,
        stop: &'a dyn Fn() -> Result<()>,
    ) -> Patience<'a> {
        Patience { deadline: Cell::new(deadline), waiters, stop }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline.get()
    }

    /// Waits for `socket` to become writable. `Ok(false)`: time is over.
    pub(crate) fn writable(&self, socket: BorrowedFd<'_>) -> Result<bool> {
        self.ready(socket, PollFlags::POLLOUT)
    }

    /// Waits for `socket` to become readable. `Ok(false)`: time is over.
    pub(crate) fn readable(&self, socket: BorrowedFd<'_>) -> Result<bool> {
        self.ready(socket, PollFlags::POLLIN)
    }

    fn ready(&self, socket: BorrowedFd<'_>, flags: PollFlags) -> Result<bool> {
        self.any_ready(&[socket], flags, Deadline::Never)
    }

    /// Waits `so_long`, for what nobody tells of. `Ok(false)`: time is over.
    pub(crate) fn pause(&self, so_long: Duration) -> Result<bool> {
        self.any_ready(&[], PollFlags::empty(), Deadline::after(so_long))?;
        Ok(!self.deadline().passed())
    }

    /// Waits for one of `sockets`, but not beyond `until`. `Ok(false)`: time is over.
    pub(crate) fn any_ready(
        &self,
        sockets: &[BorrowedFd<'_>],
        flags: PollFlags,
        until: Deadline,
    ) -> Result<bool> {
        let deadline = self.deadline().begin();
        self.deadline.set(deadline);
        let deadline = deadline.min(until);
        loop {
            (self.stop)()?;
            if deadline.passed() {
                return Ok(false);
            }
            let sockets = sockets.iter().map(|socket| (*socket, flags));
            match self.waiters.wait(sockets, deadline, || (self.stop)().is_err())? {
                Woken::Ready => return Ok(true),
                Woken::Late => return Ok(false),
                // Perhaps for somebody else.
                Woken::Called => {}
            }
        }
    }
}
