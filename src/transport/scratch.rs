//! A thread's buffer for bytes on their way. A thread that is ending (destructors of its thread-local variables may
//! still send and receive) has none any more, and gets a new one each time.

use std::cell::Cell;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The buffer, with whatever is in it; [`give_back`] it.
pub fn take() -> Vec<u8> {
    BUFFER.try_with(Cell::take).unwrap_or_default()
}

/// For the next [`take`].
pub fn give_back(buffer: Vec<u8>) {
    let _ = BUFFER.try_with(|place| place.set(buffer));
}
