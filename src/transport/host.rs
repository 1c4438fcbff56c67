//! What the process asks its kernel outside of sockets: randomness, forks, the descriptor limit.
#![allow(unsafe_code)]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ops::Deref;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between this process and the one that asked first. Threads don't survive a fork,
/// so whoever has one compares this with what it was when the thread started; asking the kernel for the
/// process ID each time would cost more than a resolution from the cache.
pub fn forks() -> u64 {
    static WATCHED: Once = Once::new();
    if !WATCHED.is_completed() {
        // SAFETY: the handler only adds to an atomic, which is safe in a forked child.
        WATCHED.call_once(|| unsafe {
            libc::pthread_atfork(None, None, Some(forked));
        });
    }
    FORKS.load(Ordering::Relaxed)
}

/// What a process has one of, and a forked child another one: the parent's locks may be held by threads that the child
/// does not have. What the parent had is left alone, not dropped.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    current: AtomicPtr<Owned<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Owned<T> {
    /// Whose it is, by [`forks`].
    forks: u64,
    value: T,
}

impl<T> PerProcess<T> {
    pub const fn new(make: fn() -> T) -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(std::ptr::null_mut()), make }
    }
}

impl<T: Send + Sync> Deref for PerProcess<T> {
    type Target = T;

    /// This process's own.
    fn deref(&self) -> &T {
        loop {
            let stored = self.current.load(Ordering::Acquire);
            let forks = forks();
            // SAFETY: NULL, or what `Box::into_raw` gave and nobody frees.
            if let Some(owned) = unsafe { stored.as_ref() }
                && owned.forks == forks
            {
                return &owned.value;
            }
            let fresh = Box::into_raw(Box::new(Owned { forks, value: (self.make)() }));
            if self.current.compare_exchange(stored, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}

/// A seed from the kernel's randomness.
pub fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    let length = bytes.len();
    // SAFETY: the pointer and the length name the array above.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), length, 0) };
    if usize::try_from(filled) == Ok(length) {
        return u64::from_ne_bytes(bytes);
    }
    // Seccomp filters may forbid the call; the standard library then has found another way.
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// How many descriptors may be open.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// Raises that to what is allowed. For programs of our own: in somebody else's process it is their setting.
pub fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::debug!("{soft} descriptors, though {hard} are allowed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        assert_ne!(seed(), seed());
    }

    #[test]
    fn a_child_knows_that_it_is_one() {
        let before = forks();
        // SAFETY: the child only reads an atomic and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(forks() != before + 1)) }
        }
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
        assert_eq!(forks(), before);
    }
}
