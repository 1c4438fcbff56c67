//! Knowing a forked child without a system call per API call.

use crate::transport::host;

/// Identity of a process among its forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    /// One of which nobody knows a fork: what [`Process::this`] says if none has happened since it was first asked.
    pub(crate) const ORIGINAL: Process = Process(0);

    /// The process that asks.
    pub(crate) fn this() -> Process {
        Process(host::forks())
    }

    /// Whether that is still this process.
    pub(crate) fn is_this(self) -> bool {
        self == Process::this()
    }
}
