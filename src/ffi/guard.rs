//! The fence between Rust and C: errors become errno, panics never cross, nor does pthread_cancel(3).

use crate::machine::client::RequestError;
use crate::socket::SocketError;
use libc::{c_char, c_int, c_uint, c_ulong, ssize_t};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An errno value on its way to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub c_int);

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno::from(&error)
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => libc::EAGAIN,
            io::ErrorKind::InvalidInput => libc::EINVAL,
            io::ErrorKind::OutOfMemory => libc::ENOMEM,
            io::ErrorKind::Interrupted => libc::EINTR,
            io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
            _ => libc::EIO,
        }))
    }
}

/// What C calls what happened to a call on a descriptor: here, and nowhere else.
impl From<&SocketError> for Errno {
    fn from(error: &SocketError) -> Errno {
        Errno(match error {
            SocketError::Closed | SocketError::NoSession | SocketError::NotRegistered => libc::EBADF,
            SocketError::Forked => libc::EACCES,
            SocketError::WouldBlock => libc::EAGAIN,
            SocketError::Interrupted => libc::EINTR,
            SocketError::Misused | SocketError::Invalid | SocketError::NoRoom => libc::EINVAL,
            SocketError::NotConnected => libc::ENOTCONN,
            SocketError::SessionFailed | SocketError::NotResolved => libc::EIO,
            SocketError::SessionOver => libc::EPIPE,
            SocketError::PeerGone => libc::ECONNRESET,
            SocketError::TooLong => libc::EMSGSIZE,
            SocketError::NoNumber => libc::EMFILE,
            SocketError::Unsupported => libc::EOPNOTSUPP,
            SocketError::UnsupportedTransport => libc::EPROTONOSUPPORT,
            SocketError::UnsupportedFamily => libc::EAFNOSUPPORT,
            SocketError::NoAddress => libc::EADDRNOTAVAIL,
            SocketError::TimedOut => libc::ETIMEDOUT,
            SocketError::Refused | SocketError::Untrusted(_) => libc::ECONNREFUSED,
            SocketError::EmptyPool => libc::ENOENT,
            SocketError::NoMemory => libc::ENOMEM,
            SocketError::System(error) => return Errno::from(error),
        })
    }
}

impl From<SocketError> for Errno {
    fn from(error: SocketError) -> Errno {
        Errno::from(&error)
    }
}

impl From<RequestError> for Errno {
    fn from(error: RequestError) -> Errno {
        Errno(match error {
            RequestError::NotFound => libc::ENOENT,
            RequestError::Busy => libc::ENOBUFS,
            RequestError::Shutdown => libc::EACCES,
            RequestError::NoRegistrar | RequestError::TimedOut | RequestError::Rejected(_) => libc::EIO,
        })
    }
}

/// What a function returns when it fails.
pub(super) trait FailureValue {
    const FAILED: Self;
}

impl FailureValue for () {
    const FAILED: () = ();
}
impl FailureValue for c_int {
    const FAILED: c_int = -1;
}
impl FailureValue for ssize_t {
    const FAILED: ssize_t = -1;
}
impl FailureValue for usize {
    const FAILED: usize = 0;
}
impl FailureValue for c_uint {
    const FAILED: c_uint = 0;
}
impl FailureValue for c_ulong {
    const FAILED: c_ulong = 0;
}
impl FailureValue for *const c_char {
    const FAILED: *const c_char = std::ptr::null();
}
impl<T> FailureValue for *mut T {
    const FAILED: *mut T = std::ptr::null_mut();
}

/// Runs a function's body: an error sets errno and returns the type's failure value.
pub(super) fn guard<T: FailureValue>(body: impl FnOnce() -> Result<T, Errno>) -> T {
    guard_or(T::FAILED, body)
}

/// [`guard`] for the functions with a failure value of their own.
pub(super) fn guard_or<T>(failed: T, body: impl FnOnce() -> Result<T, Errno>) -> T {
    let _uncancelled = Uncancelled::until_dropped();
    guard_panics(failed, body)
}

/// [`guard`] for the functions that take something apart. EDEADLK in a signal handler that interrupted a call of
/// this library on the same thread: that call may hold what this one would wait for.
pub(super) fn guard_alone<T: FailureValue>(body: impl FnOnce() -> Result<T, Errno>) -> T {
    match INSIDE.get() {
        0 => guard(body),
        _ => guard_panics(T::FAILED, || Err(Errno(libc::EDEADLK))),
    }
}

thread_local! {
    /// Calls that this thread is in: more than one only where a signal handler interrupted the others.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// [`guard_or`] for bodies without a system call that pthread_cancel(3) could end: it costs some 30 ns less.
pub(super) fn guard_panics<T>(failed: T, body: impl FnOnce() -> Result<T, Errno>) -> T {
    let errno = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(errno)) => errno,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            log::error!("internal error, please report: {}", text.unwrap_or("unknown"));
            // Dropping a panic's payload may panic again.
            std::mem::forget(panic);
            Errno(libc::EIO)
        }
    };
    set_errno(errno);
    failed
}

// Not in the `libc` crate.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// A thread that is cancelled in a system call unwinds by force, which Rust ends the process for. So it is not
/// before its call returns.
struct Uncancelled(c_int);

impl Uncancelled {
    fn until_dropped() -> Uncancelled {
        let mut before = 0;
        // SAFETY: changes nothing but this thread's state.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut before) };
        INSIDE.set(INSIDE.get() + 1);
        Uncancelled(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
        // SAFETY: as above; what it was before. Deferred cancellation, the usual, does not act here.
        unsafe { pthread_setcancelstate(self.0, std::ptr::null_mut()) };
    }
}

/// Sets the calling thread's errno.
pub(super) fn set_errno(errno: Errno) {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = errno.0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno() -> Option<c_int> {
        io::Error::last_os_error().raw_os_error()
    }

    #[test]
    fn a_value_leaves_errno_alone() {
        set_errno(Errno(libc::ENOTTY));
        assert_eq!(guard(|| Ok::<c_int, _>(7)), 7);
        assert_eq!(errno(), Some(libc::ENOTTY));
    }

    #[test]
    fn an_error_becomes_errno_and_the_failure_value() {
        assert_eq!(guard(|| Err::<c_int, _>(Errno(libc::EBADF))), -1);
        assert_eq!(errno(), Some(libc::EBADF));
        assert!(guard(|| Err::<*const c_char, _>(Errno(libc::EBADF))).is_null());
        assert_eq!(guard_or(-3, || Err::<c_int, _>(Errno(libc::EBADF))), -3);
    }

    #[test]
    fn a_panic_becomes_eio() {
        assert_eq!(guard::<c_int>(|| panic!("on purpose")), -1);
        assert_eq!(errno(), Some(libc::EIO));
    }
}
