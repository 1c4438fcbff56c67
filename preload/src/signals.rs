//! SIGTERM of a program that serves: its handler is called when the element has left its pool, so that nobody new comes
//! while those who are there are served to the end. Without a handler the process is gone at once, and its listening
//! socket with it, which is seen as well.

use crate::{real, serve};
use libc::{c_int, c_void, sigaction, sighandler_t, siginfo_t};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The program's handler, and whether it takes three arguments.
static HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static IS_LONG: AtomicBool = AtomicBool::new(false);

type Long = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
type Short = extern "C" fn(c_int);

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    serve::leave();
    let (handler, is_long) = (HANDLER.load(Ordering::Acquire), IS_LONG.load(Ordering::Acquire));
    if matches!(handler, libc::SIG_DFL | libc::SIG_IGN) {
        return;
    }
    // SAFETY: the program gave it as a handler of that kind.
    unsafe {
        match is_long {
            true => std::mem::transmute::<usize, Long>(handler)(signal, info, context),
            false => std::mem::transmute::<usize, Short>(handler)(signal),
        }
    }
}

fn ours() -> usize {
    handle as *const () as usize
}

/// sigaction(2) for SIGTERM: ours stands before a handler of the program, which is told of its own.
///
/// # Safety
/// As libc's.
pub unsafe fn set(new: *const sigaction, old: *mut sigaction) -> c_int {
    let before = (HANDLER.load(Ordering::Acquire), IS_LONG.load(Ordering::Acquire));
    // SAFETY: the program's pointers, which are null or structures.
    unsafe {
        let result = match new.as_ref() {
            Some(given) if !matches!(given.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) => {
                let mut mine = *given;
                (mine.sa_sigaction, mine.sa_flags) = (ours(), given.sa_flags | libc::SA_SIGINFO);
                HANDLER.store(given.sa_sigaction, Ordering::Release);
                IS_LONG.store(given.sa_flags & libc::SA_SIGINFO != 0, Ordering::Release);
                real::sigaction(libc::SIGTERM, &raw const mine, old)
            }
            _ => real::sigaction(libc::SIGTERM, new, old),
        };
        if let (0, Some(old)) = (result, old.as_mut())
            && old.sa_sigaction == ours()
        {
            old.sa_sigaction = before.0;
            if !before.1 {
                old.sa_flags &= !libc::SA_SIGINFO;
            }
        }
        result
    }
}

/// signal(2) for SIGTERM.
///
/// # Safety
/// As libc's.
pub unsafe fn set_simple(handler: sighandler_t) -> sighandler_t {
    // SAFETY: structures of numbers; pointers are our own.
    unsafe {
        let mut new: sigaction = std::mem::zeroed();
        let mut old: sigaction = std::mem::zeroed();
        (new.sa_sigaction, new.sa_flags) = (handler, libc::SA_RESTART);
        match set(&raw const new, &raw mut old) {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    }
}
