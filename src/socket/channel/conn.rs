//! One connection of a session, whatever it runs over.

use crate::runtime::complaints::SESSIONS;
use crate::runtime::counters::COUNTERS;
use crate::socket::channel::association::{Arrivals, Association, Kept, KeptBytes};
use crate::socket::channel::carrier::Carrier;
use crate::socket::channel::parameters::{SessionParameters, liveness};
use crate::socket::channel::receiver::{Arrival, Piece, Receiver};
use crate::socket::channel::sender::{Outgoing, Sender};
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{Deadline, Patience};
use crate::transport::stream;
use crate::wire::session_frame::FrameHeader;
use crate::wire::show;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A connection. It ends when the last call that uses it is over.
#[derive(Debug)]
pub(crate) struct Conn {
    kind: ConnKind,
    /// Under which number [`super::linger`] sees to it; 0: it does not.
    pub(crate) lingering: AtomicU64,
    /// Whether [`super::silence`] looks whether the peer's host answers.
    pub(crate) listened_to: AtomicBool,
    /// For how long it may not (milliseconds); 0: that is the kernel's business.
    patience: AtomicU32,
}

#[derive(Debug)]
enum ConnKind {
    /// TCP with the session mapping (`docs/tcp-mapping.md`).
    Mapping { socket: Carrier, sender: Sender, receiver: Mutex<Receiver> },
    /// A plain byte stream to an element that has no control channel (transport use 0).
    Plain { socket: Carrier, writing: Mutex<()>, reading: Mutex<()> },
    /// Kernel SCTP, with or without control channel.
    Sctp(Association),
}

impl Drop for Conn {
    fn drop(&mut self) {
        let (sent, received) = self.bytes();
        COUNTERS.bytes_sent.fetch_add(sent, Relaxed);
        COUNTERS.bytes_received.fetch_add(received, Relaxed);
    }
}

/// The right to receive from a connection.
pub(crate) enum Receiving<'a> {
    Mapping(MutexGuard<'a, Receiver>),
    Plain(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>),
    Sctp(MutexGuard<'a, Arrivals>),
}

impl Conn {
    fn new(kind: ConnKind) -> Conn {
        Conn {
            kind,
            lingering: AtomicU64::new(0),
            listened_to: AtomicBool::new(false),
            patience: AtomicU32::new(0),
        }
    }

    /// A TCP connection that speaks the mapping; `accepting`: the peer dialled.
    pub(crate) fn mapping(socket: Carrier, accepting: bool) -> Conn {
        let receiver = Mutex::new(Receiver::new(!accepting));
        Conn::new(ConnKind::Mapping { socket, sender: Sender::new(accepting), receiver })
    }

    /// A plain byte stream.
    pub(crate) fn plain(socket: Carrier) -> Conn {
        let (writing, reading) = (Mutex::new(()), Mutex::new(()));
        Conn::new(ConnKind::Plain { socket, writing, reading })
    }

    /// An association.
    pub(crate) fn sctp(association: Association) -> Conn {
        Conn::new(ConnKind::Sctp(association))
    }

    /// Bytes that the peer has acknowledged and that it sent, as the kernel counts them; over TCP only.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        match &self.kind {
            ConnKind::Mapping { socket, .. } | ConnKind::Plain { socket, .. } => socket.bytes(),
            ConnKind::Sctp(_) => (0, 0),
        }
    }

    /// Whether the peer understands business cards: not over SCTP, because rsplib does not.
    pub(crate) fn takes_cards(&self) -> bool {
        matches!(self.kind, ConnKind::Mapping { .. })
    }

    /// Whether closing the socket with unread data would destroy what is under way to the peer.
    pub(crate) fn must_be_drained(&self) -> bool {
        match &self.kind {
            ConnKind::Mapping { .. } => true,
            ConnKind::Sctp(association) => !association.is_given_up(),
            // Tickets, for example, that a server sends unasked.
            ConnKind::Plain { socket, .. } => socket.is_secure(),
        }
    }

    /// Applies a descriptor's parameters. One that can't take them is gone already, which shows soon.
    pub(crate) fn tune(&self, parameters: &SessionParameters) {
        match &self.kind {
            ConnKind::Mapping { socket, .. } | ConnKind::Plain { socket, .. } => {
                let liveness = liveness(parameters);
                self.patience
                    .store(u32::try_from(liveness.patience.as_millis()).unwrap_or(u32::MAX), Relaxed);
                if let Err(error) = stream::tune(socket.as_fd(), &liveness) {
                    log::debug!("parameters of a connection: {error}");
                }
            }
            ConnKind::Sctp(association) => association.tune(parameters),
        }
    }

    /// Says hello, and then the control message that is to come first.
    pub(crate) fn open(&self, first: Option<&[u8]>) -> Result<()> {
        match (&self.kind, first) {
            (ConnKind::Mapping { socket, sender, .. }, first) => {
                let frame =
                    |message: &[u8]| [&FrameHeader::control(message.len()).encode(), message].concat();
                Ok(sender.open(socket, &first.map(frame).unwrap_or_default())?)
            }
            (ConnKind::Sctp(association), first) => {
                association.begin(&mut association.arrivals().lock());
                match first.filter(|_| association.has_control()) {
                    // On a new association there is room for the longest one.
                    Some(message) => association.send(&Outgoing::control(message), &Patience::none()),
                    None => Ok(()),
                }
            }
            (ConnKind::Plain { .. }, _) => Ok(()),
        }
    }

    /// Sends a message; how much of it. See [`Sender::send`]; a byte stream may take less.
    pub(crate) fn send(&self, out: &Outgoing<'_>, patience: &Patience<'_>) -> Result<usize> {
        match &self.kind {
            ConnKind::Mapping { socket, sender, .. } => {
                sender.send(socket, out, patience).map(|()| out.data.len())
            }
            ConnKind::Plain { .. } if out.control => Err(SocketError::Unsupported),
            ConnKind::Plain { writing, .. } => {
                let _turn = patience.deadline().lock(writing)?;
                self.write(out.data, patience)
            }
            ConnKind::Sctp(association) => association.send(out, patience).map(|()| out.data.len()),
        }
    }

    fn write(&self, data: &[u8], patience: &Patience<'_>) -> Result<usize> {
        let mut done = 0;
        while done < data.len() {
            let more = match self.carrier().send(&[IoSlice::new(&data[done..])]) {
                Ok(count) => {
                    done += count;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => patience.writable(self.as_fd()),
                Err(error) => Err(error.into()),
            };
            match more {
                Ok(true) => {}
                Ok(false) if done == 0 => return Err(SocketError::WouldBlock),
                Err(error) if done == 0 => return Err(error),
                _ => break,
            }
        }
        Ok(done)
    }

    /// How long the peer's host may leave what it is sent unanswered; `None`: the kernel sees to that.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.patience.load(Relaxed) {
            0 => None,
            milliseconds => Some(Duration::from_millis(u64::from(milliseconds))),
        }
    }

    /// Whether it is one over SCTP.
    pub(crate) fn is_association(&self) -> bool {
        matches!(self.kind, ConnKind::Sctp(_))
    }

    /// What the kernel keeps for it, over SCTP.
    pub(crate) fn kept(&self) -> Kept {
        match &self.kind {
            ConnKind::Sctp(association) => association.kept(),
            ConnKind::Mapping { .. } | ConnKind::Plain { .. } => Kept::Bytes(KeptBytes::default()),
        }
    }

    /// A control message that travels with the next data.
    pub(crate) fn enclose(&self, message: &[u8]) {
        if let ConnKind::Mapping { sender, .. } = &self.kind {
            sender.enclose(message);
        }
    }

    /// The right to receive, waiting for it until `deadline`.
    pub(crate) fn receiving(&self, deadline: Deadline) -> Result<Receiving<'_>> {
        match &self.kind {
            ConnKind::Mapping { receiver, .. } => deadline.lock(receiver).map(Receiving::Mapping),
            ConnKind::Plain { reading, .. } => deadline.lock(reading).map(Receiving::Plain),
            ConnKind::Sctp(association) => deadline.lock(association.arrivals()).map(Receiving::Sctp),
        }
    }

    /// One attempt to receive, without waiting. Only if the caller `stays` for it, a message may have
    /// [`Arrival::Begun`].
    pub(crate) fn receive(&self, turn: &mut Receiving<'_>, buffer: &mut [u8], stays: bool) -> Arrival {
        match turn {
            Receiving::Mapping(receiver) => receiver.receive(self.carrier(), buffer, stays),
            Receiving::Sctp(arrivals) => self.association().receive(arrivals, buffer),
            Receiving::Plain(_) => match self.carrier().receive(&mut [IoSliceMut::new(buffer)]) {
                Ok(0) if buffer.is_empty() => Arrival::Nothing,
                Ok(0) => Arrival::Closed,
                Ok(length) => Arrival::Data(Piece { length, end: true, ppid: [0; 4], stream: 0 }),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    Arrival::Nothing
                }
                Err(error) => Arrival::Broken(error),
            },
        }
    }

    /// More of a message that has [`Arrival::Begun`].
    pub(crate) fn resume(&self, turn: &mut Receiving<'_>, buffer: &mut [u8], have: usize) -> Arrival {
        match turn {
            Receiving::Mapping(receiver) => receiver.resume(self.carrier(), buffer, have),
            Receiving::Sctp(_) | Receiving::Plain(_) => Arrival::Nothing,
        }
    }

    /// Nobody waits for the rest of a message that has [`Arrival::Begun`] with `bytes`.
    pub(crate) fn put_back(&self, turn: &mut Receiving<'_>, bytes: &[u8]) {
        if let Receiving::Mapping(receiver) = turn
            && !bytes.is_empty()
        {
            receiver.put_back(self.carrier(), bytes);
        }
    }

    /// Whether a receive would find something; may leave control messages behind.
    pub(crate) fn look(&self, turn: &mut Receiving<'_>) -> bool {
        match turn {
            Receiving::Mapping(receiver) => receiver.look(self.carrier()),
            Receiving::Sctp(arrivals) => self.association().look(arrivals),
            Receiving::Plain(_) => self.carrier().look(),
        }
    }

    /// Whether a receive would find something without asking the kernel.
    pub(crate) fn settle(&self, turn: &mut Receiving<'_>) -> bool {
        match turn {
            Receiving::Mapping(receiver) => {
                receiver.adopt(self.carrier());
                receiver.settle(self.carrier())
            }
            Receiving::Sctp(arrivals) => arrivals.settled(),
            Receiving::Plain(_) => self.carrier().is_ahead(),
        }
    }

    /// The dialler's proof, if there is to be one, and its greeting, which only the mapping has; `Ok(false)`: not whole
    /// yet.
    pub(crate) fn greet(&self, turn: &mut Receiving<'_>) -> io::Result<bool> {
        if let ConnKind::Mapping { socket, .. } = &self.kind
            && !socket.prove()?
        {
            return Ok(false);
        }
        match turn {
            Receiving::Mapping(receiver) => receiver.greet(self.carrier()),
            Receiving::Sctp(arrivals) => {
                self.association().begin(arrivals);
                Ok(true)
            }
            Receiving::Plain(_) => Ok(true),
        }
    }

    /// Whether somebody has to [`Conn::flush`] when the socket becomes writable.
    pub(crate) fn backlogged(&self) -> bool {
        match &self.kind {
            ConnKind::Mapping { sender, .. } => sender.backlogged(),
            ConnKind::Plain { socket, .. } => socket.is_holding(),
            ConnKind::Sctp(_) => false,
        }
    }

    /// Writes more of the backlog; `true`: nothing is left.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        match &self.kind {
            ConnKind::Mapping { socket, sender, .. } => sender.flush(socket),
            ConnKind::Plain { socket, .. } => socket.flush(),
            ConnKind::Sctp(_) => Ok(true),
        }
    }

    /// Ends our direction in order; `false`: [`Conn::flush`] does it.
    pub(crate) fn finish(&self) -> bool {
        match &self.kind {
            ConnKind::Mapping { socket, sender, .. } => sender.finish(socket),
            ConnKind::Plain { socket, .. } => socket.finish(),
            ConnKind::Sctp(association) => {
                association.finish();
                true
            }
        }
    }

    /// Who dialled was refused: lets it hear why, as far as that is possible at once.
    pub(crate) fn dismiss(&self) {
        if let ConnKind::Mapping { socket, .. } = &self.kind {
            socket.dismiss();
        }
    }

    /// Whether it is inside TLS.
    #[cfg(test)]
    pub(crate) fn is_secure(&self) -> bool {
        matches!(&self.kind, ConnKind::Mapping { socket, .. } | ConnKind::Plain { socket, .. } if socket.is_secure())
    }

    /// Breaks the connection. Over SCTP the peer hears of it when the last call that uses it is over.
    pub(crate) fn abort(&self) {
        match &self.kind {
            ConnKind::Mapping { socket, .. } | ConnKind::Plain { socket, .. } => socket.abort(),
            ConnKind::Sctp(association) => association.abort(),
        }
    }

    /// The peer's host answers nothing any more: the connection is over.
    pub(crate) fn host_is_gone(&self) {
        let peer = stream::peer(self.as_fd());
        let host = peer.map(|peer| peer.ip());
        SESSIONS.news(
            "a session's peer answers nothing any more",
            host,
            0,
            format_args!("a session's peer{} answers nothing any more: its host is gone", show::at(peer)),
        );
        self.abort();
    }

    /// Which of the peer's addresses is in use.
    #[cfg(test)]
    pub(crate) fn primary(&self) -> io::Result<std::net::SocketAddr> {
        self.association().primary()
    }

    fn carrier(&self) -> &Carrier {
        match &self.kind {
            ConnKind::Mapping { socket, .. } | ConnKind::Plain { socket, .. } => socket,
            ConnKind::Sctp(_) => unreachable!("an association has no byte stream"),
        }
    }

    fn association(&self) -> &Association {
        match &self.kind {
            ConnKind::Sctp(association) => association,
            ConnKind::Mapping { .. } | ConnKind::Plain { .. } => {
                unreachable!("only an association has an inbox")
            }
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            ConnKind::Mapping { socket, .. } | ConnKind::Plain { socket, .. } => socket.as_fd(),
            ConnKind::Sctp(association) => association.as_fd(),
        }
    }
}

impl Receiving<'_> {
    /// Whether the application got a part of a message that may still be retracted.
    pub(crate) fn is_inside(&self) -> bool {
        match self {
            Receiving::Sctp(arrivals) => arrivals.is_inside(),
            Receiving::Mapping(_) | Receiving::Plain(_) => false,
        }
    }

    /// The next control message.
    pub(crate) fn control(&mut self) -> Option<Vec<u8>> {
        match self {
            Receiving::Mapping(receiver) => receiver.control(),
            Receiving::Sctp(arrivals) => arrivals.control(),
            Receiving::Plain(_) => None,
        }
    }
}
