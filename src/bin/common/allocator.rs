//! How memory is given back: a little at each turn of the loop, never a lot at once.
//!
//! glibc (2.36) keeps what is freed in two heaps of debts. Small pieces go to a list that is gone through as a whole when something large is
//! asked for: after the loss of some 100 000 elements that takes a tenth of a second and more. Without that list they wait to be
//! sorted until something is asked for of which there is none, and then up to 10 000 of them are sorted for each such request: what many
//! turns freed is paid for by one. A loop whose turns are to stay below 10 ms turns the list off, and asks in every turn.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Turns the list of small freed pieces off. To be called once, before there are threads.
pub fn never_tidies_up_at_once() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting of the allocator, made before there is a second thread. It can't fail for this value.
    unsafe {
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

/// Has what was freed since the last turn sorted, 10 000 pieces at most.
pub fn tidies_up_a_little() {
    if cfg!(target_env = "gnu") {
        // Not the size of the time before: that piece is the first in line, and to find it would end the search.
        static OTHER: AtomicBool = AtomicBool::new(false);
        let size = if OTHER.fetch_xor(true, Relaxed) { 4096 } else { 8192 };
        drop(black_box(Vec::<u8>::with_capacity(size)));
    }
}
