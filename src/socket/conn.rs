//! One connection of a session, whatever it runs over.

use super::SessionParameters;
use super::association::{Association, Inbox};
use super::blocking::Blocking;
use super::descriptor::liveness;
use super::receiver::{Input, Piece, Receiver, Waits};
use super::sender::{Outgoing, Sender};
use super::wait::{Deadline, Patience, errno};
use crate::transport::stream;
use crate::wire::session_frame::FrameHeader;
use nix::errno::Errno;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

/// A connection. It ends when the last call that uses it is over.
#[derive(Debug)]
pub(super) struct Conn {
    kind: Kind,
    /// Under which number [`super::linger`] sees to it; 0: it does not.
    pub(super) lingering: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    /// TCP with the session mapping (`docs/tcp-mapping.md`).
    Mapping { socket: OwnedFd, sender: Sender, receiver: Mutex<Receiver>, blocking: Blocking },
    /// A plain byte stream to an element that has no control channel (transport use 0).
    Plain { socket: OwnedFd, writing: Mutex<()>, reading: Mutex<()>, blocking: Blocking },
    /// Kernel SCTP, with or without control channel.
    Sctp(Association),
}

/// The right to receive from a connection.
pub(super) enum Receiving<'a> {
    Mapping(MutexGuard<'a, Receiver>),
    Plain(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>),
    Sctp(MutexGuard<'a, Inbox>),
}

impl Conn {
    fn new(kind: Kind) -> Conn {
        Conn { kind, lingering: AtomicU64::new(0) }
    }

    /// A TCP connection that speaks the mapping; `accepting`: the peer dialled.
    pub(super) fn mapping(socket: OwnedFd, accepting: bool) -> Conn {
        let receiver = Mutex::new(Receiver::new(!accepting));
        let blocking = Blocking::default();
        Conn::new(Kind::Mapping { socket, sender: Sender::new(accepting), receiver, blocking })
    }

    /// A plain byte stream.
    pub(super) fn plain(socket: OwnedFd) -> Conn {
        let (writing, reading) = (Mutex::new(()), Mutex::new(()));
        Conn::new(Kind::Plain { socket, writing, reading, blocking: Blocking::default() })
    }

    /// An association.
    pub(super) fn sctp(association: Association) -> Conn {
        Conn::new(Kind::Sctp(association))
    }

    /// Whether the peer understands business cards: not over SCTP, because rsplib does not.
    pub(super) fn takes_cards(&self) -> bool {
        matches!(self.kind, Kind::Mapping { .. })
    }

    /// Whether closing the socket with unread data would destroy what is under way to the peer.
    pub(super) fn must_be_drained(&self) -> bool {
        match &self.kind {
            Kind::Mapping { .. } => true,
            Kind::Sctp(association) => !association.is_given_up(),
            Kind::Plain { .. } => false,
        }
    }

    /// Applies a descriptor's parameters. One that can't take them is gone already, which shows soon.
    pub(super) fn tune(&self, parameters: &SessionParameters) {
        match &self.kind {
            Kind::Mapping { socket, .. } | Kind::Plain { socket, .. } => {
                if let Err(error) = stream::tune(socket.as_fd(), &liveness(parameters)) {
                    log::debug!("parameters of a connection: {error}");
                }
            }
            Kind::Sctp(association) => association.tune(parameters),
        }
    }

    /// Says hello, and then the control message that is to come first.
    pub(super) fn open(&self, first: Option<&[u8]>) -> io::Result<()> {
        match (&self.kind, first) {
            (Kind::Mapping { socket, sender, .. }, first) => {
                let frame =
                    |message: &[u8]| [&FrameHeader::control(message.len()).encode(), message].concat();
                sender.open(socket.as_fd(), &first.map(frame).unwrap_or_default())
            }
            (Kind::Sctp(association), first) => {
                association.begin(&mut association.inbox().lock());
                match first.filter(|_| association.has_control()) {
                    // On a new association there is room for the longest one.
                    Some(message) => association.send(&Outgoing::control(message), &Patience::none()),
                    None => Ok(()),
                }
            }
            (Kind::Plain { .. }, _) => Ok(()),
        }
    }

    /// Sends a message; how much of it. See [`Sender::send`]; a byte stream may take less.
    pub(super) fn send(&self, out: &Outgoing<'_>, patience: &Patience<'_>) -> io::Result<usize> {
        match &self.kind {
            Kind::Mapping { socket, sender, .. } => {
                sender.send(socket.as_fd(), out, patience).map(|()| out.data.len())
            }
            Kind::Plain { .. } if out.control => Err(errno(Errno::EOPNOTSUPP)),
            Kind::Plain { writing, .. } => {
                let _turn = lock(writing, patience.deadline)?;
                self.write(out.data, patience)
            }
            Kind::Sctp(association) => association.send(out, patience).map(|()| out.data.len()),
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
            Kind::Sctp(association) => lock(association.inbox(), deadline).map(Receiving::Sctp),
        }
    }

    /// Where a receive can wait in the kernel.
    pub(super) fn blocking(&self) -> Option<&Blocking> {
        match &self.kind {
            Kind::Mapping { blocking, .. } | Kind::Plain { blocking, .. } => Some(blocking),
            Kind::Sctp(_) => None,
        }
    }

    /// It is of no further use: whoever waits there for data returns.
    pub(super) fn leave(&self) {
        if let Some(blocking) = self.blocking() {
            blocking.leave(self.as_fd());
        }
    }

    /// Whether the end that a receive finds may be our own doing.
    pub(super) fn is_deaf(&self) -> bool {
        self.blocking().is_some_and(Blocking::is_deaf)
    }

    /// One attempt to receive. Only if the caller `waits` for it, a message may have [`Input::Begun`].
    pub(super) fn receive(&self, turn: &mut Receiving<'_>, buffer: &mut [u8], waits: Waits<'_>) -> Input {
        match turn {
            Receiving::Mapping(receiver) => receiver.receive(self.as_fd(), buffer, waits),
            Receiving::Sctp(inbox) => self.association().receive(inbox, buffer),
            Receiving::Plain(_) => match waits.receive(self.as_fd(), &mut [IoSliceMut::new(buffer)], false) {
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

    /// More of a message that has [`Input::Begun`].
    pub(super) fn resume(&self, turn: &mut Receiving<'_>, buffer: &mut [u8], have: usize) -> Input {
        match turn {
            Receiving::Mapping(receiver) => receiver.resume(self.as_fd(), buffer, have),
            Receiving::Sctp(_) | Receiving::Plain(_) => Input::Nothing,
        }
    }

    /// Nobody waits for the rest of a message that has [`Input::Begun`] with `bytes`.
    pub(super) fn put_back(&self, turn: &mut Receiving<'_>, bytes: &[u8]) {
        if let Receiving::Mapping(receiver) = turn {
            receiver.put_back(self.as_fd(), bytes);
        }
    }

    /// Whether a receive would find something; may leave control messages behind.
    pub(super) fn look(&self, turn: &mut Receiving<'_>) -> bool {
        match turn {
            Receiving::Mapping(receiver) => receiver.look(self.as_fd()),
            Receiving::Sctp(inbox) => self.association().look(inbox),
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
            Receiving::Sctp(inbox) => inbox.settled(),
            Receiving::Plain(_) => false,
        }
    }

    /// The dialler's greeting, which only the mapping has; `Ok(false)`: not whole yet.
    pub(super) fn greet(&self, turn: &mut Receiving<'_>) -> io::Result<bool> {
        match turn {
            Receiving::Mapping(receiver) => receiver.greet(self.as_fd()),
            Receiving::Sctp(inbox) => {
                self.association().begin(inbox);
                Ok(true)
            }
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
            Kind::Mapping { socket, sender, .. } => sender.flush(socket.as_fd()),
            Kind::Plain { .. } | Kind::Sctp(_) => Ok(true),
        }
    }

    /// Ends our direction in order; `false`: [`Conn::flush`] does it.
    pub(super) fn finish(&self) -> bool {
        match &self.kind {
            Kind::Mapping { socket, sender, .. } => sender.finish(socket.as_fd()),
            Kind::Plain { socket, .. } => {
                stream::finish(socket.as_fd());
                true
            }
            Kind::Sctp(association) => {
                association.finish();
                true
            }
        }
    }

    /// Breaks the connection. Over SCTP the peer hears of it when the last call that uses it is over.
    pub(super) fn abort(&self) {
        // Some kernels don't break a connection on which somebody waits: then it ends with the last call.
        self.leave();
        match &self.kind {
            Kind::Mapping { socket, .. } | Kind::Plain { socket, .. } => stream::abort(socket.as_fd()),
            Kind::Sctp(association) => association.abort(),
        }
    }

    /// Which of the peer's addresses is in use.
    #[cfg(test)]
    pub(super) fn primary(&self) -> io::Result<std::net::SocketAddr> {
        self.association().primary()
    }

    fn association(&self) -> &Association {
        match &self.kind {
            Kind::Sctp(association) => association,
            Kind::Mapping { .. } | Kind::Plain { .. } => unreachable!("only an association has an inbox"),
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Mapping { socket, .. } | Kind::Plain { socket, .. } => socket.as_fd(),
            Kind::Sctp(association) => association.as_fd(),
        }
    }
}

impl Receiving<'_> {
    /// Whether the last read brought more than was delivered.
    pub(super) fn has_leftover(&self) -> bool {
        match self {
            Receiving::Mapping(receiver) => receiver.has_leftover(),
            Receiving::Sctp(inbox) => inbox.has_more(),
            Receiving::Plain(_) => false,
        }
    }

    /// Whether the application got a part of a message that may still be retracted.
    pub(super) fn is_inside(&self) -> bool {
        match self {
            Receiving::Sctp(inbox) => inbox.is_inside(),
            Receiving::Mapping(_) | Receiving::Plain(_) => false,
        }
    }

    /// The next control message.
    pub(super) fn control(&mut self) -> Option<Vec<u8>> {
        match self {
            Receiving::Mapping(receiver) => receiver.control(),
            Receiving::Sctp(inbox) => inbox.control(),
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
