//! One connection of a session, whatever it runs over.

use super::receiver::{Input, Piece, Receiver};
use super::sender::{Outgoing, Sender};
use super::wait::{Deadline, Patience, errno};
use crate::transport::stream;
use crate::wire::session_frame::FrameHeader;
use nix::errno::Errno;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A connection. It ends when the last call that uses it is over.
#[derive(Debug)]
pub(super) struct Conn {
    socket: OwnedFd,
    kind: Kind,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every connection is the large one")]
enum Kind {
    /// TCP with the session mapping (`docs/tcp-mapping.md`).
    Mapping { sender: Sender, receiver: Mutex<Receiver> },
    /// A plain byte stream to an element that has no control channel (transport use 0).
    Plain { writing: Mutex<()>, reading: Mutex<()> },
}

/// The right to receive from a connection.
pub(super) enum Receiving<'a> {
    Mapping(MutexGuard<'a, Receiver>),
    Plain(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>),
}

impl Conn {
    /// A TCP connection that speaks the mapping; `accepting`: the peer dialled.
    pub(super) fn mapping(socket: OwnedFd, accepting: bool) -> Conn {
        let receiver = Mutex::new(Receiver::new(!accepting));
        Conn { socket, kind: Kind::Mapping { sender: Sender::new(accepting), receiver } }
    }

    /// A plain byte stream.
    pub(super) fn plain(socket: OwnedFd) -> Conn {
        Conn { socket, kind: Kind::Plain { writing: Mutex::new(()), reading: Mutex::new(()) } }
    }

    /// Whether there are messages, stream numbers and a control channel.
    pub(super) fn has_control(&self) -> bool {
        matches!(self.kind, Kind::Mapping { .. })
    }

    /// Says hello, and then the control message that is to come first.
    pub(super) fn open(&self, first: Option<&[u8]>) -> io::Result<()> {
        let Kind::Mapping { sender, .. } = &self.kind else { return Ok(()) };
        let frame = first.map(|message| [&FrameHeader::control(message.len()).encode(), message].concat());
        sender.open(self.as_fd(), &frame.unwrap_or_default())
    }

    /// Sends a message; how much of it. See [`Sender::send`]; a byte stream may take less.
    pub(super) fn send(&self, out: &Outgoing<'_>, patience: &Patience<'_>) -> io::Result<usize> {
        match &self.kind {
            Kind::Mapping { sender, .. } => sender.send(self.as_fd(), out, patience).map(|()| out.data.len()),
            Kind::Plain { .. } if out.control => Err(errno(Errno::EOPNOTSUPP)),
            Kind::Plain { writing, .. } => {
                let _turn = lock(writing, patience.deadline)?;
                self.write(out.data, patience)
            }
        }
    }

    fn write(&self, data: &[u8], patience: &Patience<'_>) -> io::Result<usize> {
        let mut done = 0;
        while done < data.len() {
            let more = match stream::send(self.as_fd(), &[IoSlice::new(&data[done..])]) {
                Ok(count) => {
                    done += count;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => patience.writable(self.as_fd()),
                Err(error) => Err(error),
            };
            match more {
                Ok(true) => {}
                Ok(false) if done == 0 => return Err(errno(Errno::EAGAIN)),
                Err(error) if done == 0 => return Err(error),
                _ => break,
            }
        }
        Ok(done)
    }

    /// A control message that travels with the next data.
    pub(super) fn enclose(&self, message: &[u8]) {
        if let Kind::Mapping { sender, .. } = &self.kind {
            sender.enclose(message);
        }
    }

    /// The right to receive, waiting for it until `deadline`.
    pub(super) fn receiving(&self, deadline: Deadline) -> io::Result<Receiving<'_>> {
        match &self.kind {
            Kind::Mapping { receiver, .. } => lock(receiver, deadline).map(Receiving::Mapping),
            Kind::Plain { reading, .. } => lock(reading, deadline).map(Receiving::Plain),
        }
    }

    /// One attempt to receive, without waiting.
    pub(super) fn receive(&self, turn: &mut Receiving<'_>, buffer: &mut [u8]) -> Input {
        match turn {
            Receiving::Mapping(receiver) => receiver.receive(self.as_fd(), buffer),
            Receiving::Plain(_) => match stream::receive(self.as_fd(), &mut [IoSliceMut::new(buffer)]) {
                Ok(0) if buffer.is_empty() => Input::Nothing,
                Ok(0) => Input::Closed,
                Ok(length) => Input::Data(Piece { length, end: true, ppid: [0; 4], stream: 0 }),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    Input::Nothing
                }
                Err(error) => Input::Broken(error),
            },
        }
    }

    /// Whether a receive would find something; may leave control messages behind.
    pub(super) fn look(&self, turn: &mut Receiving<'_>) -> bool {
        match turn {
            Receiving::Mapping(receiver) => receiver.look(self.as_fd()),
            Receiving::Plain(_) => {
                let would_block = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
                !stream::peek(self.as_fd(), &mut [0]).is_err_and(would_block)
            }
        }
    }

    /// Whether a receive would find something without asking the kernel.
    pub(super) fn settle(&self, turn: &mut Receiving<'_>) -> bool {
        match turn {
            Receiving::Mapping(receiver) => receiver.settle(),
            Receiving::Plain(_) => false,
        }
    }

    /// The dialler's greeting; `Ok(false)`: not whole yet.
    pub(super) fn greet(&self, turn: &mut Receiving<'_>) -> io::Result<bool> {
        match turn {
            Receiving::Mapping(receiver) => receiver.greet(self.as_fd()),
            Receiving::Plain(_) => Ok(true),
        }
    }

    /// Whether somebody has to [`Conn::flush`] when the socket becomes writable.
    pub(super) fn backlogged(&self) -> bool {
        matches!(&self.kind, Kind::Mapping { sender, .. } if sender.backlogged())
    }

    /// Writes more of the backlog; `true`: nothing is left.
    pub(super) fn flush(&self) -> io::Result<bool> {
        match &self.kind {
            Kind::Mapping { sender, .. } => sender.flush(self.as_fd()),
            Kind::Plain { .. } => Ok(true),
        }
    }

    /// Ends our direction in order; `false`: [`Conn::flush`] does it.
    pub(super) fn finish(&self) -> bool {
        match &self.kind {
            Kind::Mapping { sender, .. } => sender.finish(self.as_fd()),
            Kind::Plain { .. } => {
                stream::finish(self.as_fd());
                true
            }
        }
    }

    /// Breaks the connection at once.
    pub(super) fn abort(&self) {
        stream::abort(self.as_fd());
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Receiving<'_> {
    /// Whether the last read brought more than was delivered.
    pub(super) fn has_leftover(&self) -> bool {
        match self {
            Receiving::Mapping(receiver) => receiver.has_leftover(),
            Receiving::Plain(_) => false,
        }
    }

    /// The next control message.
    pub(super) fn control(&mut self) -> Option<Vec<u8>> {
        match self {
            Receiving::Mapping(receiver) => receiver.control(),
            Receiving::Plain(_) => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>, deadline: Deadline) -> io::Result<MutexGuard<'_, T>> {
    let guard = match deadline {
        Deadline::Now => mutex.try_lock(),
        Deadline::At(at) => mutex.try_lock_until(at),
        Deadline::Never => Some(mutex.lock()),
    };
    guard.ok_or_else(|| errno(Errno::EAGAIN))
}
