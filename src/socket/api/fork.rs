//! Knowing a forked child without a system call per API call.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// How often this process is a fork of a fork of the one that first asked.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Identity of a process among its forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The process that asks.
    pub(crate) fn this() -> Process {
        static WATCH: Once = Once::new();
        WATCH.call_once(watch);
        Process(FORKS.load(SeqCst))
    }

    /// Whether that is still this process.
    pub(crate) fn is_this(self) -> bool {
        self.0 == FORKS.load(SeqCst)
    }
}

extern "C" fn child() {
    FORKS.fetch_add(1, SeqCst);
}

#[allow(unsafe_code)]
fn watch() {
    // SAFETY: the handler only increments an atomic, which is allowed in a child of any process, and
    // is unregistered by the C library if ours is unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}
