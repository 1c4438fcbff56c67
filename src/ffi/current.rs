//! The one [`Library`] of the process: from `rsp_initialize` to `rsp_cleanup`.

use super::explain;
use super::guard::Errno;
use crate::runtime::Settings;
use crate::runtime::complaints::SESSIONS;
use crate::socket::{Library, Process};
use crate::transport::host::PerProcess;
use parking_lot::{Mutex, RwLock};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Instance {
    /// Whose it is.
    process: Process,
    /// Held while the library starts or ends.
    changing: Mutex<()>,
    current: RwLock<Option<Arc<Library>>>,
}

impl Instance {
    fn new(process: Process) -> Instance {
        Instance { process, changing: Mutex::new(()), current: RwLock::new(None) }
    }
}

/// A forked child gets a fresh state: the parent's locks may be held by threads that the child doesn't
/// have, and it must not touch the parent's library. That is left alone, not dropped: its end would shut down
/// sockets that the parent uses.
static STATE: PerProcess<Instance> = PerProcess::new(|| Instance::new(Process::this()));

/// Counts changes of `current`, so that threads know when what they remember is old.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// A thread's own hold on the library: calls share no lock and no counter with other threads.
type Hold = Option<Rc<Arc<Library>>>;

/// What a hold is good for: as long as neither the library nor the process is another.
type Current = (u64, Process);

thread_local! {
    static HOLD: RefCell<(Current, Hold)> = const { RefCell::new(((0, Process::ORIGINAL), None)) };
}

fn state() -> &'static Instance {
    &STATE
}

/// Starts the library; does nothing if it runs already. `settings` is asked only if it is needed.
pub(super) fn start(settings: impl FnOnce() -> Result<Settings, Errno>) -> Result<Started, Errno> {
    let state = state();
    let _changing = state.changing.lock();
    let running = state.current.read().clone();
    if let Some(library) = running {
        if library.is_alive() && !library.is_robbed() {
            return Ok(Started::Before);
        }
        log::warn!("the library had lost its event thread; it begins anew");
        end(state);
    }
    let library = Library::start(settings()?).inspect_err(explain::not_started)?;
    replace(state, Some(Arc::new(library)));
    Ok(Started::Now)
}

/// What [`start`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Started {
    Now,
    Before,
}

/// Ends the library, if it runs.
pub(super) fn stop() {
    let state = state();
    let _changing = state.changing.lock();
    end(state);
    // Other threads let go of it with their next call or their end.
    let _ = HOLD.try_with(|hold| hold.replace(((0, Process::ORIGINAL), None)));
}

/// With `changing` held.
fn end(state: &Instance) {
    let Some(library) = replace(state, None) else { return };
    if library.is_robbed() {
        // What it thinks to be its descriptors is the program's.
        std::mem::forget(library);
    } else {
        library.shutdown();
        if !library.is_forked() {
            SESSIONS.end();
        }
    }
}

fn replace(state: &Instance, library: Option<Arc<Library>>) -> Option<Arc<Library>> {
    let mut current = state.current.write();
    GENERATION.fetch_add(1, Ordering::Release);
    std::mem::replace(&mut *current, library)
}

/// The running library; EACCES if there is none.
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is the thread's own: no shared one is touched per call"
)]
pub(super) fn library() -> Result<Rc<Arc<Library>>, Errno> {
    let now = (GENERATION.load(Ordering::Acquire), Process::this());
    let hold = HOLD.try_with(|hold| {
        let mut hold = hold.borrow_mut();
        if hold.0 != now {
            *hold = look_up();
        }
        hold.1.clone()
    });
    // A thread that is ending has no hold any more.
    hold.unwrap_or_else(|_| look_up().1).ok_or(Errno(libc::EACCES))
}

fn look_up() -> (Current, Hold) {
    let state = state();
    let current = state.current.read();
    ((GENERATION.load(Ordering::Acquire), state.process), current.clone().map(Rc::new))
}

/// The library for a call on a descriptor: without a library there are no descriptors, so EBADF.
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is the thread's own: no shared one is touched per call"
)]
pub(super) fn descriptors() -> Result<Rc<Arc<Library>>, Errno> {
    library().map_err(|_| Errno(libc::EBADF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};

    /// A thread of the parent may have been at the complaints, or starting the library, when a child was forked.
    #[test]
    fn a_forked_child_waits_for_nobody_it_does_not_have() {
        // What is made late is there.
        SESSIONS.settle();
        let _starting = state().changing.lock();
        SESSIONS.while_held(|| {
            // SAFETY: the child takes locks of its own, and exits.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends the child, in time or without running anything of the parent's.
                unsafe { libc::alarm(20) };
                SESSIONS.settle();
                SESSIONS.end();
                drop(state().changing.lock());
                unsafe { libc::_exit(0) }
            }
            let status = waitpid(nix::unistd::Pid::from_raw(child), None).unwrap();
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        });
    }
}
