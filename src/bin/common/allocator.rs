//! How memory is given back: a little at each free, never a lot at once.

/// Turns glibc's list of small freed pieces off: it is gone through as a whole when something large is asked for, which after the
/// loss of some 100 000 elements takes a tenth of a second and more, in a loop whose turns are to stay below 10 ms.
pub fn never_tidies_up_at_once() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting of the allocator, made before there is a second thread. It can't fail for this value.
    unsafe {
        libc::mallopt(libc::M_MXFAST, 0);
    }
}
