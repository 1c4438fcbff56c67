//! Start and end of the library, its settings.

use super::abi::rsp_info;
use super::constants::{RSPLIB_REVISION, RSPLIB_VERSION};
use super::convert::{reference, reference_mut};
use super::current::{self, Started};
use super::explain;
use super::guard::{Errno, guard, guard_alone, guard_or};
use super::legacy::companion;
use super::{info, logging};
use libc::{c_char, c_int};
use std::ffi::CStr;

/// Fills in what the environment says (CSP_SERVER, CSP_INTERVAL); all else becomes 0, which means
/// defaults. Call it before rsp_initarg. NULL: nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_initinfo(info: *mut rsp_info) {
    guard(|| {
        if info.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the caller's structure, which need not be initialised.
        unsafe {
            info.write_bytes(0, 1);
            info::apply_environment(&mut *info)
        }
    })
}

/// Frees what rsp_initarg and rsp_initinfo allocated: the list of registrars (also if the program made it,
/// with malloc) and addresses. NULL: nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_freeinfo(info: *mut rsp_info) {
    guard(|| {
        // SAFETY: NULL or the caller's.
        unsafe { info::free(reference_mut(info)?) };
        Ok(())
    })
}

/// Takes one command line argument: 1 if it is one of the library's (-registrar=, -registrar...timeout=,
/// -registrar...maxtrials=, -asapannounce=, -csp...=, -log...=, -transport=), else 0, also when its value
/// makes no sense (then a line on standard error says so).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_initarg(info: *mut rsp_info, arg: *const c_char) -> c_int {
    guard_or(0, || {
        // SAFETY: NULL or the caller's.
        let (info, arg) = unsafe { (reference_mut(info)?, CStr::from_ptr(reference(arg)?)) };
        Ok(c_int::from(info::apply_argument(info, arg)))
    })
}

/// The version of the library that runs, as text: "0.1.0". Works at any time. RSERPOOL_VERSION is that of the headers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_version() -> *const c_char {
    guard(|| {
        const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
        Ok(VERSION.as_ptr().cast())
    })
}

/// Starts the library with these settings; NULL: defaults. Environment variables RSP_* stand in for what
/// is not set. Returns 0, also if it runs already (the settings are not used then).
/// -1: EINVAL, EAFNOSUPPORT, EFAULT (bad settings), EAGAIN (no thread), EMFILE, ENFILE, ENOMEM.
/// RFC 5352 section 3.6.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_initialize(info: *mut rsp_info) -> c_int {
    guard(|| {
        logging::start();
        // SAFETY: NULL or the caller's.
        let info = unsafe { info.as_mut() };
        // SAFETY: as rsp_initarg or the program filled it in.
        let started = current::start(|| unsafe { info::settings(info.as_deref()) });
        let started = started.inspect_err(|errno| explain::start_failed(*errno))?;
        companion::keep_alive();
        match started {
            Started::Before => log::warn!("rsp_initialize: already initialised"),
            Started::Now => {
                if let Some(info) = info {
                    (info.ri_version, info.ri_revision) = (RSPLIB_VERSION, RSPLIB_REVISION);
                    info.ri_build_date = std::ptr::null();
                    info.ri_build_time = std::ptr::null();
                }
            }
        }
        Ok(0)
    })
}

/// Closes every descriptor, deregisters every pool element, ends the library. Does nothing if it
/// doesn't run. The library can be initialised again. In a signal handler that interrupted a call of this library it
/// does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_cleanup() {
    guard_alone(|| {
        current::stop();
        companion::keep_alive();
        Ok(())
    })
}
