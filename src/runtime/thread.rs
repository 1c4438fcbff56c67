//! Threads inside somebody else's process.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle};

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is one of the library's own threads. Asks nobody, so that it may be called from anywhere.
pub fn is_event_thread() -> bool {
    IS_OURS.get()
}

/// A thread that takes no signal: those are the program's.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = Builder::new().name(name.into()).spawn(move || {
        IS_OURS.set(true);
        body();
    });
    before.thread_set_mask()?;
    spawned
}
