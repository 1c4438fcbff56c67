//! rsplib's logging library (libtdloglevel), in programs made for rsplib. They print through it on their own account
//! and rely on `rsp_initialize` to start it; kept because without that they crash at their first line.
//!
//! It is either loaded as a shared library, or linked into the program. In a program, it is seen by weak references:
//! whoever links a program with a library that refers to a name exports the program's own symbol of that name, which
//! `dlsym` alone would not see. Programs have globals of such names for other purposes (`initLogging` ..), so only all
//! of them together, in one place, are that library.

use libc::{FILE, c_char, c_int};
use std::ffi::{CStr, c_void};
use std::io::{self, Write};

/// All that libtdloglevel of rsplib 3.x defines.
const NAMES: [&CStr; 10] = [
    c"gStdLog",
    c"beginLogging",
    c"initLogging",
    c"finishLogging",
    c"gLogLevel",
    c"gLogMutex",
    c"getHostName",
    c"loggingMutexLock",
    c"loggingMutexUnlock",
    c"setLogColor",
];

// Stable Rust has no weak references. In the order of `NAMES`; 0 where nobody defines the name.
std::arch::global_asm!(
    ".weak gStdLog, beginLogging, initLogging, finishLogging, gLogLevel",
    ".weak gLogMutex, getHostName, loggingMutexLock, loggingMutexUnlock, setLogColor",
    ".pushsection .data.rel.ro.rserpool_companion, \"aw\"",
    ".balign 8",
    ".globl rserpool_companion",
    ".hidden rserpool_companion",
    "rserpool_companion:",
    ".quad gStdLog, beginLogging, initLogging, finishLogging, gLogLevel",
    ".quad gLogMutex, getHostName, loggingMutexLock, loggingMutexUnlock, setLogColor",
    ".popsection",
);

unsafe extern "C" {
    static rserpool_companion: [*mut c_void; NAMES.len()];
    static stderr: *mut FILE;
}

/// What of it is used.
#[derive(Clone, Copy)]
pub(in crate::ffi) struct Companion {
    /// `FILE** gStdLog`.
    stream: *mut *mut *mut FILE,
    begin: unsafe extern "C" fn(),
    /// A string in, a truth value of one byte out.
    init: unsafe extern "C" fn(*const c_char) -> u8,
}

/// The logging library, if this process has it. It may be loaded at any time.
pub(in crate::ffi) fn companion() -> Option<Companion> {
    let [stream, begin, init, ..] = loaded().or_else(linked)?;
    // SAFETY: the definitions of libtdloglevel, which is what has all these names.
    unsafe {
        Some(Companion {
            stream: stream.cast(),
            begin: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(begin),
            init: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> u8>(init),
        })
    }
}

/// Its symbols as a shared library, whatever the program calls by these names.
fn loaded() -> Option<[*mut c_void; NAMES.len()]> {
    const FLAGS: c_int = libc::RTLD_NOLOAD | libc::RTLD_LAZY;
    // SAFETY: strings; nothing is loaded that is not there, and nothing is called.
    unsafe {
        let library = libc::dlopen(c"libtdloglevel.so.3".as_ptr(), FLAGS);
        if library.is_null() {
            return None;
        }
        let symbols = NAMES.map(|name| libc::dlsym(library, name.as_ptr()));
        // The program's own hold on it remains.
        libc::dlclose(library);
        symbols.iter().all(|symbol| !symbol.is_null()).then_some(symbols)
    }
}

/// Its symbols in the program, if they are all there and in one object.
fn linked() -> Option<[*mut c_void; NAMES.len()]> {
    // SAFETY: what the linker filled in, and never changes. Volatile, since a reference that Rust
    // doesn't know to be weak could be taken to be there.
    let symbols = unsafe { (&raw const rserpool_companion).read_volatile() };
    let home = home(symbols[0])?;
    symbols.iter().all(|symbol| self::home(*symbol) == Some(home)).then_some(symbols)
}

/// Where the object begins that has something at this address.
fn home(symbol: *mut c_void) -> Option<*mut c_void> {
    // SAFETY: all zeros is a legal value; the call only looks the address up.
    unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        (!symbol.is_null() && libc::dladdr(symbol, &mut found) != 0).then_some(found.dli_fbase)
    }
}

impl Companion {
    /// Passes on a `-log..` switch.
    pub(in crate::ffi) fn apply_argument(self, argument: &CStr) {
        // SAFETY: its function, and a string.
        unsafe { (self.init)(argument.as_ptr()) };
    }

    /// Where its stream is kept.
    fn stream(self) -> Option<*mut *mut FILE> {
        // SAFETY: its variable.
        let stream = unsafe { *self.stream };
        (!stream.is_null()).then_some(stream)
    }
}

/// Gives libtdloglevel's programs a stream to print to, which they do unasked: between
/// `rsp_initialize` and `rsp_cleanup`, and after that until they end.
pub(in crate::ffi) fn keep_alive() {
    let Some(companion) = companion() else { return };
    let Some(stream) = companion.stream() else { return };
    // SAFETY: its variable and its function.
    unsafe {
        if (*stream).is_null() {
            (companion.begin)();
        }
        if (*stream).is_null() {
            *stream = stderr;
        }
    }
}

/// Writes where libtdloglevel writes.
pub(in crate::ffi) struct CompanionLog;

impl Write for CompanionLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        keep_alive();
        // SAFETY: an open stream, as far as its owner keeps it so; bytes.
        unsafe {
            let stream = companion().and_then(Companion::stream).map_or(stderr, |stream| *stream);
            let written = libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), stream);
            libc::fflush(stream);
            Ok(written)
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
