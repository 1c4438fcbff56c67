//! A session connection with somebody at its other end who sends what he likes: for the fuzz target.

use crate::socket::channel::carrier::Carrier;
use crate::socket::channel::receiver::{Arrival, Piece, Receiver, WHOLE};
use crate::transport::stream;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// What one attempt to receive came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StrangerInput {
    /// So many bytes of a message, and whether it ends with them.
    Data { length: usize, end: bool, ppid: [u8; 4], stream: u16 },
    /// Nothing, or control messages that come first.
    Nothing,
    /// The peer ended the session in order.
    Closed,
    /// In disorder.
    Broken,
}

/// Our receiving half, and the stranger's socket.
#[derive(Debug)]
pub(crate) struct Stranger {
    socket: Carrier,
    receiver: Receiver,
    other: Option<UnixStream>,
}

impl Stranger {
    /// Longest message that is delivered whole or not at all.
    pub(crate) const WHOLE: usize = WHOLE;

    /// `accepting`: the stranger claims to be the end that accepted the connection.
    pub(crate) fn new(accepting: bool) -> io::Result<Stranger> {
        let (ours, other) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok(Stranger {
            socket: OwnedFd::from(ours).into(),
            receiver: Receiver::new(accepting),
            other: Some(other),
        })
    }

    /// The stranger sends; how many bytes there was room for.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> usize {
        let Some(other) = &self.other else { return 0 };
        stream::send(other.as_fd(), &[io::IoSlice::new(bytes)]).unwrap_or(0)
    }

    /// The stranger goes.
    pub(crate) fn leave(&mut self) {
        self.other = None;
    }

    /// What `recv` does, once, and gives up waiting for what has begun.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> StrangerInput {
        match self.receiver.receive(&self.socket, buffer, true) {
            Arrival::Begun(have) => {
                self.receiver.put_back(&self.socket, &buffer[..have]);
                StrangerInput::Nothing
            }
            Arrival::Data(piece) => {
                let Piece { length, end, ppid, stream } = piece;
                StrangerInput::Data { length, end, ppid, stream }
            }
            Arrival::Nothing | Arrival::Retracted => StrangerInput::Nothing,
            Arrival::Closed => StrangerInput::Closed,
            Arrival::Broken(_) => StrangerInput::Broken,
        }
    }

    /// Whether a receive would find something, by asking the kernel.
    pub(crate) fn look(&mut self) -> bool {
        self.receiver.look(&self.socket)
    }

    /// The same without asking.
    pub(crate) fn settle(&mut self) -> bool {
        self.receiver.settle(&self.socket)
    }

    /// What a listener does first.
    pub(crate) fn greet(&mut self) -> io::Result<bool> {
        self.receiver.greet(&self.socket)
    }

    /// The next control message.
    pub(crate) fn control(&mut self) -> Option<Vec<u8>> {
        self.receiver.control()
    }
}
