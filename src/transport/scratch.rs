//! A thread's buffers for bytes on their way. A thread that is ending (destructors of its thread-local variables may
//! still send and receive) has none any more, and gets a new one each time.

use std::cell::Cell;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SECOND: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The buffer, with whatever is in it; [`give_back`] it.
pub fn take() -> Vec<u8> {
    BUFFER.try_with(Cell::take).unwrap_or_default()
}

/// For the next [`take`].
pub fn give_back(buffer: Vec<u8>) {
    let _ = BUFFER.try_with(|place| place.set(buffer));
}

/// The other one, for who works for somebody that has the first.
pub fn take_second() -> Vec<u8> {
    SECOND.try_with(Cell::take).unwrap_or_default()
}

/// For the next [`take_second`].
pub fn give_back_second(buffer: Vec<u8>) {
    let _ = SECOND.try_with(|place| place.set(buffer));
}
