//! What every hook of ours does before and after.

use crate::socket;
use libc::c_int;
use rserpool::runtime;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

thread_local! {
    /// Set while this thread is in one of our own functions: what they call is libc's. Without a destructor, so that it
    /// can be asked for when the thread ends.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Ours, unless this thread is inside already; `None`: libc's. A panic is libc's as well, and errno then is what it was.
pub fn ours<T>(body: impl FnOnce() -> Option<T>) -> Option<T> {
    // Registrars are connected to as they are named, or the event thread would wait for itself.
    if INSIDE.get() || runtime::is_event_thread() {
        return None;
    }
    INSIDE.set(true);
    // Cancelled is a thread behind us, since the unwinding that pthread_cancel(3) does can't go through us.
    let mut state = 0;
    // SAFETY: the pointer is a number's.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut state) };
    let before = socket::errno();
    let result = catch_unwind(AssertUnwindSafe(body)).ok().flatten();
    // SAFETY: what it was.
    unsafe { pthread_setcancelstate(state, std::ptr::null_mut()) };
    INSIDE.set(false);
    if result.is_none() {
        socket::set_errno(before);
    }
    result
}
