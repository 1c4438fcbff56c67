//! The one [`Library`] of the process: from `rsp_initialize` to `rsp_cleanup`.

use super::explain;
use super::guard::Errno;
use crate::runtime::Settings;
use crate::runtime::complaints::SESSIONS;
use crate::socket::{Library, Process};
use parking_lot::{Mutex, RwLock};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

struct Instance {
    /// Whose it is.
    process: Process,
    /// Held while the library starts or ends.
    changing: Mutex<()>,
    current: RwLock<Option<Arc<Library>>>,
}

impl Instance {
    const fn new(process: Process) -> Instance {
        Instance { process, changing: Mutex::new(()), current: RwLock::new(None) }
    }
}

/// A forked child gets a fresh state: the parent's locks may be held by threads that the child doesn't
/// have, and it must not touch the parent's library. That is left alone, not dropped: its end would shut down
/// sockets that the parent uses.
static STATE: AtomicPtr<Instance> = AtomicPtr::new(std::ptr::null_mut());

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
    static FIRST: Instance = Instance::new(Process::ORIGINAL);
    loop {
        let stored = STATE.load(Ordering::Acquire);
        // SAFETY: `STATE` holds NULL or what `Box::into_raw` gave and nobody frees.
        let state = unsafe { stored.as_ref() }.unwrap_or(&FIRST);
        let process = Process::this();
        if state.process == process {
            return state;
        }
        let fresh = Box::into_raw(Box::new(Instance::new(process)));
        if STATE.compare_exchange(stored, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
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
