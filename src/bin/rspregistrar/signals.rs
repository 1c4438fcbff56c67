//! Signals, from the program's first moment on. The loop is told by its poll; a thread sees to it that the
//! end comes in time even while the loop hangs (in a name server, a pipe that nobody reads, a disk).

use super::daemon;
use rserpool::runtime::Waker;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// From the signal to the end, whatever hangs.
const PATIENCE: Duration = Duration::from_millis(900);

/// What signals ask for.
#[derive(Debug, Default)]
pub struct Asked {
    end: AtomicBool,
    reload: AtomicBool,
    status: AtomicBool,
    waker: Mutex<Option<Arc<Waker>>>,
}

impl Asked {
    /// SIGTERM or SIGINT came.
    pub fn end(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }

    /// SIGHUP came since the last call.
    pub fn reload(&self) -> bool {
        self.reload.swap(false, Ordering::AcqRel)
    }

    /// SIGUSR1 or SIGUSR2 came since the last call.
    pub fn status(&self) -> bool {
        self.status.swap(false, Ordering::AcqRel)
    }

    /// Who waits for signals from now on.
    pub fn wake(&self, waker: Arc<Waker>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    fn note(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = waker.wake();
        }
    }
}

/// Takes signals from now on, also those that whoever started us had blocked.
pub fn start() -> io::Result<Arc<Asked>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    let asked = Arc::new(Asked::default());
    let noted = asked.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut mask = nix::sys::signal::SigSet::empty();
        mask.extend(nix::sys::signal::Signal::iterator());
        // Of a thread of ours: can't fail.
        let _ = mask.thread_unblock();
        for signal in signals.forever() {
            match signal {
                SIGHUP => noted.note(&noted.reload),
                SIGUSR1 | SIGUSR2 => noted.note(&noted.status),
                _ if noted.waker.lock().unwrap_or_else(PoisonError::into_inner).is_none() => {
                    // Still starting: there is nobody to say goodbye to.
                    end_now();
                }
                _ => {
                    noted.note(&noted.end);
                    std::thread::sleep(PATIENCE);
                    end_now();
                }
            }
        }
    })?;
    Ok(asked)
}

/// Without waiting for anybody: what hangs may hold any lock.
fn end_now() -> ! {
    daemon::remove_pid_file();
    signal_hook::low_level::exit(0)
}
