//! libc's functions behind ours, or those of another library that was preloaded behind us.

use libc::{
    addrinfo, c_char, c_int, c_void, hostent, msghdr, sighandler_t, size_t, sockaddr, socklen_t, ssize_t,
};
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Looked up on first use: others' constructors run before ours, and call us. Every name exists, so that dlsym
/// allocates nothing (it would for its error's text, and allocators may be what calls us).
pub struct Real {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Real {
    const fn new(name: &'static CStr) -> Real {
        Real { name, at: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn get(&self) -> *mut c_void {
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: a name that ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(found, Ordering::Relaxed);
        found
    }
}

macro_rules! real {
    ($($(#[$doc:meta])* fn $function:ident($($argument:ident: $type:ty),*) -> $result:ty, or $missing:expr;)*) => {$(
        $(#[$doc])*
        pub unsafe fn $function($($argument: $type),*) -> $result {
            static REAL: Real = Real::new(
                // A name and a zero, so it can't fail.
                match CStr::from_bytes_with_nul(concat!(stringify!($function), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
            );
            let found = REAL.get();
            if found.is_null() {
                return $missing;
            }
            // SAFETY: libc's function of that name has this type.
            let function: unsafe extern "C-unwind" fn($($type),*) -> $result = unsafe { std::mem::transmute(found) };
            // SAFETY: the caller's promise is libc's.
            unsafe { function($($argument),*) }
        }
    )*};
}

real! {
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_connect, fd, address, length) as c_int };
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, length) as c_int };
    fn sendto(
        fd: c_int, data: *const c_void, size: size_t, flags: c_int, address: *const sockaddr, length: socklen_t
    ) -> ssize_t,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_sendto, fd, data, size, flags, address, length) as ssize_t };
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_sendmsg, fd, message, flags) as ssize_t };
    fn listen(fd: c_int, backlog: c_int) -> c_int,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_listen, fd, backlog) as c_int };
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_accept, fd, address, length) as c_int };
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int,
        // SAFETY: the same arguments.
        or unsafe { libc::syscall(libc::SYS_accept4, fd, address, length, flags) as c_int };
    fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int, or -1;
    fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t, or libc::SIG_ERR;
    fn getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo, list: *mut *mut addrinfo) -> c_int,
        or libc::EAI_FAIL;
    fn gethostbyname(name: *const c_char) -> *mut hostent, or std::ptr::null_mut();
    fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent, or std::ptr::null_mut();
    fn gethostbyname_r(
        name: *const c_char, host: *mut hostent, buffer: *mut c_char, size: size_t, result: *mut *mut hostent,
        error: *mut c_int
    ) -> c_int, or libc::ENOSYS;
    fn gethostbyname2_r(
        name: *const c_char, family: c_int, host: *mut hostent, buffer: *mut c_char, size: size_t,
        result: *mut *mut hostent, error: *mut c_int
    ) -> c_int, or libc::ENOSYS;
}
