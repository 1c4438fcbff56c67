//! The byte stream under a session over TCP: all that `sender`, `receiver` and data-only sessions know of it.

use crate::transport::descriptors::Held;
use crate::transport::stream;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A connected socket and how bytes pass through it. Nothing here waits.
#[derive(Debug)]
pub(crate) struct Carrier {
    socket: Held<OwnedFd>,
}

impl From<OwnedFd> for Carrier {
    fn from(socket: OwnedFd) -> Carrier {
        Carrier { socket: socket.into() }
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Carrier {
    /// Sends `parts` in order; how many bytes were taken. `WouldBlock`: there is no room.
    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        stream::send(self.as_fd(), parts)
    }

    /// Fills `parts` in order; how many bytes came. 0: the peer's direction is over. `WouldBlock`: there is nothing.
    pub(crate) fn receive(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        stream::receive(self.as_fd(), parts)
    }

    /// [`Carrier::receive`] that leaves the bytes where they are.
    pub(crate) fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        stream::peek(self.as_fd(), bytes)
    }

    /// How many bytes can be received at once, as far as that is known.
    pub(crate) fn pending(&self) -> usize {
        stream::pending(self.as_fd())
    }

    /// Ends our direction in order.
    pub(crate) fn finish(&self) {
        stream::finish(self.as_fd());
    }

    /// Breaks the connection.
    pub(crate) fn abort(&self) {
        stream::abort(self.as_fd());
    }
}
