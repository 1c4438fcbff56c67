//! Waiting for data in recvmsg(2) itself: one system call where epoll takes two. Only the end of the
//! connection calls a thread back from there, so [`Blocking::leave`] is for those who end it.

use super::wait::Deadline;
use super::watch::Watch;
use crate::transport::stream;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

/// Below this (milliseconds) the kernel's ticks are too coarse for the caller's time-out.
const LEAST: u32 = 20;
/// By so much a time-out may come too early.
const TICK: Duration = Duration::from_millis(12);
/// "For ever": with a time-out, recvmsg(2) returns EINTR for every handled signal, as epoll_wait(2) does.
const LONGEST: u32 = 24 * 3600 * 1000;

/// The right of one thread at a time, who has the right to receive, to wait in the kernel.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    /// Nobody is to wait here any more.
    over: AtomicBool,
    waiting: AtomicBool,
    interrupted: AtomicBool,
    /// The end that a receive finds may be our own doing.
    deaf: AtomicBool,
    /// The socket's time-out (milliseconds); 0: it is still in non-blocking mode.
    timeout: AtomicU32,
    watch: Watch,
}

/// How a call waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    pub(super) deadline: Deadline,
    /// For how long it may watch the socket before it sleeps.
    pub(super) busy_poll: Duration,
    /// Whether messages come one after the other, as far as the receiver knows, who sets it.
    pub(super) flowing: bool,
}

impl Blocking {
    /// Whether a thread waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst)
    }

    /// Receives what is there, or the first that comes; with `all`, until `parts` are full. WouldBlock:
    /// somebody left the connection, the time is (almost) over, or the wait [`was
    /// interrupted`](Blocking::was_interrupted).
    pub(super) fn receive(
        &self,
        socket: BorrowedFd<'_>,
        parts: &mut [IoSliceMut<'_>],
        all: bool,
        Stay { deadline, busy_poll, flowing }: Stay,
    ) -> io::Result<usize> {
        if !self.prepare(socket, deadline) {
            return stream::receive(socket, parts);
        }
        if !all {
            let found = self.watch.watch(busy_poll, flowing, || match stream::receive(socket, parts) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                result => Some(result),
            });
            if let Some(result) = found {
                return result;
            }
        }
        self.waiting.store(true, SeqCst);
        // Who leaves after this look sees that somebody waits.
        let result = if self.over.load(SeqCst) {
            stream::receive(socket, parts)
        } else {
            stream::receive_waiting(socket, parts, all)
        };
        self.waiting.store(false, SeqCst);
        match &result {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.interrupted.store(true, Relaxed);
                return Err(ErrorKind::WouldBlock.into());
            }
            // Neither all nor the end: it was a signal as well.
            Ok(count) if all && *count < parts.iter().map(|part| part.len()).sum() => {
                let nothing =
                    stream::peek(socket, &mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
                let early = deadline.left().is_none_or(|left| left > TICK);
                self.interrupted.store(nothing && early, Relaxed);
            }
            _ => {}
        }
        result
    }

    /// Whether it can wait until the deadline, or nearly.
    fn prepare(&self, socket: BorrowedFd<'_>, deadline: Deadline) -> bool {
        let left = u32::try_from(deadline.milliseconds()).unwrap_or(LONGEST).min(LONGEST);
        let set = self.timeout.load(Relaxed);
        if left < LEAST {
            return false;
        }
        if left == set {
            return true;
        }
        let result = match set {
            0 => stream::set_blocking(socket),
            _ => Ok(()),
        };
        let time = Duration::from_millis(u64::from(left));
        let result = result.and_then(|()| stream::set_receive_timeout(socket, time));
        if result.is_ok() {
            self.timeout.store(left, Relaxed);
        }
        result.is_ok()
    }

    /// Whether a signal ended the last wait; asked once.
    pub(super) fn was_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed) && self.interrupted.swap(false, Relaxed)
    }

    /// The connection is of no further use: whoever waits returns, and nobody waits here again. What has
    /// come already can still be received.
    pub(super) fn leave(&self, socket: BorrowedFd<'_>) {
        self.over.store(true, SeqCst);
        if self.is_waiting() {
            self.deaf.store(true, SeqCst);
            stream::hear_no_more(socket);
        }
    }

    /// Whether somebody had to be called back, so that a receive that finds the end says nothing of the peer.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf.load(SeqCst)
    }

    /// Somebody else may have changed the socket's time-out.
    pub(super) fn forget_timeout(&self) {
        self.timeout.store(0, Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "threads that wait in the kernel")]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Instant;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        one.set_nonblocking(true).unwrap();
        (one, other)
    }

    fn receive(blocking: &Blocking, socket: &TcpStream, bytes: &mut [u8], all: bool) -> io::Result<usize> {
        let stay = Stay { deadline: Deadline::Never, busy_poll: Duration::ZERO, flowing: false };
        blocking.receive(socket.as_fd(), &mut [IoSliceMut::new(bytes)], all, stay)
    }

    fn until_somebody_waits(blocking: &Blocking) {
        while !blocking.is_waiting() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn waits_for_what_comes() {
        let (one, mut other) = pair();
        let blocking = Blocking::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                until_somebody_waits(&blocking);
                for part in [&b"part"[..], b"whole"] {
                    std::thread::sleep(Duration::from_millis(20));
                    other.write_all(part).unwrap();
                }
            });
            let mut bytes = [0; 6];
            assert_eq!(receive(&blocking, &one, &mut bytes, false).unwrap(), 4);
            let begin = Instant::now();
            assert_eq!(receive(&blocking, &one, &mut bytes[..5], true).unwrap(), 5);
            assert_eq!(&bytes[..5], b"whole");
            assert!(begin.elapsed() >= Duration::from_millis(10));
        });
        assert!(!blocking.is_waiting());
    }

    #[test]
    fn gives_up_in_time() {
        let (one, _other) = pair();
        let blocking = Blocking::default();
        for (milliseconds, flowing) in [(30, false), (60, true), (30, false)] {
            let time = Duration::from_millis(milliseconds);
            let begin = Instant::now();
            let mut bytes = [0; 4];
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            let (deadline, busy_poll) = (Deadline::after(time), Duration::from_micros(30));
            let stay = Stay { deadline, busy_poll, flowing };
            let result = blocking.receive(one.as_fd(), parts, false, stay);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
            // Perhaps a tick early: the rest is for the caller.
            assert!(begin.elapsed() + TICK >= time, "{:?}", begin.elapsed());
        }
    }

    #[test]
    fn is_called_back_and_then_never_waits() {
        let (one, mut other) = pair();
        let blocking = Blocking::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                until_somebody_waits(&blocking);
                std::thread::sleep(Duration::from_millis(20));
                blocking.leave(one.as_fd());
            });
            assert_eq!(receive(&blocking, &one, &mut [0; 4], false).unwrap(), 0);
        });
        other.write_all(b"late").unwrap();
        let mut bytes = [0; 8];
        while receive(&blocking, &one, &mut bytes, true).unwrap() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(&bytes[..4], b"late");
    }

    extern "C" fn nothing(_: libc::c_int) {}

    /// Sends a signal to the thread that waits until it does so no longer.
    #[expect(unsafe_code, reason = "signals")]
    fn disturb(thread: libc::pthread_t, blocking: &Blocking) {
        until_somebody_waits(blocking);
        while blocking.is_waiting() {
            // SAFETY: the thread is joined by nobody while it waits.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "signals")]
    fn a_signal_ends_the_wait_whatever_its_handler_wants() {
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: a handler that does nothing, for a signal that nobody else here uses.
        unsafe { sigaction(Signal::SIGUSR2, &action).unwrap() };
        let (one, mut other) = pair();
        let blocking = Blocking::default();
        // SAFETY: no arguments.
        let this = unsafe { libc::pthread_self() };
        std::thread::scope(|scope| {
            scope.spawn(|| disturb(this, &blocking));
            let error = receive(&blocking, &one, &mut [0; 4], false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert!(blocking.was_interrupted() && !blocking.was_interrupted());
        });
        std::thread::scope(|scope| {
            other.write_all(b"half").unwrap();
            scope.spawn(|| disturb(this, &blocking));
            // With what came before the signal.
            assert_eq!(receive(&blocking, &one, &mut [0; 8], true).unwrap(), 4);
            assert!(blocking.was_interrupted());
        });
        // The end is not taken for a signal.
        other.write_all(b"end").unwrap();
        drop(other);
        assert_eq!(receive(&blocking, &one, &mut [0; 8], true).unwrap(), 3);
        assert!(!blocking.was_interrupted());
    }
}
