//! A session over the kernel's SCTP: one association on a one-to-one socket of its own.
//!
//! Messages are the kernel's, and the control channel is what carries ASAP's PPID (RFC 5352 section 2):
//! no greeting, no framing, nothing is read ahead. What the kernel tells of the association becomes the
//! end of the session, or nothing.

use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::parameters::SessionParameters;
use crate::socket::channel::receiver::{Arrival, Piece};
use crate::socket::channel::sender::Outgoing;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Patience;
use crate::transport::sctp_socket::{Incoming, Parameters, SctpNotification, SctpSocket, SendInfo, Upcoming};
use crate::transport::{scratch, stream};
use crate::wire::PPID_ASAP;
use crate::wire::frame::LONGEST_MESSAGE;
use crate::wire::show;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

/// Control messages that wait for the session to look at them.
const MAX_CONTROLS: usize = 64;
/// The send buffer is enlarged for messages up to this size; the system allows up to twice its
/// `net.core.wmem_max`.
const MAX_SEND_BUFFER: usize = 16 << 20;
/// What a message takes in the kernel beside its bytes, roughly.
const OVERHEAD: usize = 900;
/// While the kernel has no memory for SCTP, a socket is writable and takes nothing: it is tried again after that.
const NO_MEMORY: Duration = Duration::from_millis(20);

/// An association.
#[derive(Debug)]
pub(crate) struct Association {
    socket: SctpSocket,
    /// ASAP's PPID is the control channel's.
    control: bool,
    /// The application sends nothing more.
    ended: AtomicBool,
    /// We broke it.
    given_up: AtomicBool,
    /// A whole message has come.
    spoke: AtomicBool,
    /// What the kernel was given to send, as it counts.
    sent: AtomicU64,
    arrivals: Mutex<Arrivals>,
}

/// The receiving half. Whoever receives has it locked.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Control messages in front of the next data.
    controls: VecDeque<Vec<u8>>,
    /// A control message of which the end has not come.
    gathering: Option<Gathering>,
    /// The last data was not the end of its message.
    inside: bool,
    end: Option<AssociationEnd>,
}

#[derive(Debug)]
enum Gathering {
    Part(Vec<u8>),
    /// It is too long to be one.
    Refused,
}

/// What a look at an association came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Its peer's host answers nothing.
    Gone {
        /// How long what it is asked again takes to be answered or not.
        again: Duration,
    },
    Bytes(KeptBytes),
}

/// What the kernel keeps for an association, headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeptBytes {
    /// What came and can't be received.
    pub(crate) stuck: usize,
    /// What was sent and is not acknowledged, or waits to be sent.
    pub(crate) unacknowledged: usize,
    /// All that was ever sent, roughly.
    pub(crate) sent: u64,
    /// Whether the peer ever said anything whole.
    pub(crate) spoke: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AssociationEnd {
    Closed,
    Broken(i32),
}

impl Arrivals {
    /// The next control message, to be looked at before any further data.
    pub(crate) fn control(&mut self) -> Option<Vec<u8>> {
        self.controls.pop_front()
    }

    /// Whether a receive would find something without asking the kernel.
    pub(crate) fn settled(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the rest of a message is to come.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside
    }

    /// A part of a control message, the last one perhaps; `false`: it has just become too long to be one.
    fn gather(&mut self, part: &[u8], end: bool) -> bool {
        let before = match self.gathering.take() {
            None => Gathering::Part(Vec::new()),
            Some(before) => before,
        };
        let was_refused = matches!(before, Gathering::Refused);
        let now = match before {
            Gathering::Part(bytes) if bytes.len() + part.len() <= LONGEST_MESSAGE => {
                Gathering::Part([&bytes, part].concat())
            }
            Gathering::Part(_) | Gathering::Refused => Gathering::Refused,
        };
        let refused = matches!(now, Gathering::Refused);
        match now {
            Gathering::Part(whole) if end => self.controls.push_back(whole),
            Gathering::Refused if end => {}
            unfinished => self.gathering = Some(unfinished),
        }
        was_refused || !refused
    }

    fn ended(&self, end: AssociationEnd) -> Arrival {
        match end {
            AssociationEnd::Closed if !self.inside => Arrival::Closed,
            // In the middle of a message.
            AssociationEnd::Closed => Arrival::Broken(ErrorKind::ConnectionReset.into()),
            AssociationEnd::Broken(code) => Arrival::Broken(io::Error::from_raw_os_error(code)),
        }
    }
}

impl Association {
    /// An association that is up. `control`: the peer has a control channel.
    pub(crate) fn new(socket: SctpSocket, control: bool) -> Association {
        let [ended, given_up, spoke] = [const { AtomicBool::new(false) }; 3];
        let sent = AtomicU64::new(0);
        Association { socket, control, ended, given_up, spoke, sent, arrivals: Mutex::default() }
    }

    /// Whether we broke it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(SeqCst)
    }

    pub(crate) fn has_control(&self) -> bool {
        self.control
    }

    pub(crate) fn arrivals(&self) -> &Mutex<Arrivals> {
        &self.arrivals
    }

    fn is_control(&self, ppid: u32) -> bool {
        self.control && u32::from_be(ppid) == PPID_ASAP
    }

    #[cfg(test)]
    pub(crate) fn primary(&self) -> io::Result<std::net::SocketAddr> {
        self.socket.primary(0)
    }

    // ----- receiving -----------------------------------------------------------------------------

    /// One attempt, without waiting. Stops at control messages: `Nothing`, and [`Arrivals::control`] has them.
    pub(crate) fn receive(&self, arrivals: &mut Arrivals, buffer: &mut [u8]) -> Arrival {
        loop {
            if !arrivals.controls.is_empty() {
                return Arrival::Nothing;
            }
            if let Some(end) = arrivals.end {
                return arrivals.ended(end);
            }
            let input = match arrivals.gathering {
                // The application's buffer may be tiny.
                Some(_) => self.take_aside(arrivals),
                None => self.take(arrivals, &mut *buffer),
            };
            if let Some(input) = input {
                return input;
            }
        }
    }

    /// Takes one thing out of the socket; `None`: go on.
    fn take(&self, arrivals: &mut Arrivals, buffer: &mut [u8]) -> Option<Arrival> {
        let incoming = match self.socket.recv(buffer) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Some(Arrival::Nothing),
            Err(error) => {
                arrivals.end = Some(broken(&error));
                return None;
            }
        };
        if matches!(incoming, Incoming::Data { end: true, .. }) && !self.spoke.load(Relaxed) {
            self.spoke.store(true, Relaxed);
        }
        match incoming {
            Incoming::Closed if self.is_given_up() => {
                arrivals.end = Some(AssociationEnd::Broken(Errno::ECONNABORTED as i32));
                None
            }
            Incoming::Closed => {
                arrivals.end = Some(AssociationEnd::Closed);
                None
            }
            Incoming::Notification(notification) => self.notified(arrivals, notification),
            Incoming::Data { length, end, ppid, .. }
                if arrivals.gathering.is_some() || (!arrivals.inside && self.is_control(ppid)) =>
            {
                if !arrivals.gather(&buffer[..length], end) {
                    let peer = stream::peer(self.as_fd());
                    SESSIONS.note(
                        "a session's control message is too long to be one",
                        peer.map(|peer| peer.ip()),
                        format_args!(
                            "a session's peer{} sent a control message that is too long to be one",
                            show::at(peer)
                        ),
                    );
                }
                None
            }
            Incoming::Data { length, end, stream, ppid, .. } => {
                arrivals.inside = !end;
                Some(Arrival::Data(Piece { length, end, ppid: ppid.to_ne_bytes(), stream }))
            }
        }
    }

    /// The same for what is not the application's.
    fn take_aside(&self, arrivals: &mut Arrivals) -> Option<Arrival> {
        let mut scratch = scratch::take();
        scratch.resize(LONGEST_MESSAGE, 0);
        let input = self.take(arrivals, &mut scratch);
        scratch::give_back(scratch);
        input
    }

    fn notified(&self, arrivals: &mut Arrivals, notification: SctpNotification) -> Option<Arrival> {
        match notification {
            SctpNotification::PeerShutdown { .. } | SctpNotification::Ended { .. } => {
                arrivals.end = Some(AssociationEnd::Closed)
            }
            // A peer that started anew knows nothing of the session.
            SctpNotification::Lost { .. }
            | SctpNotification::Restarted { .. }
            | SctpNotification::NotStarted { .. } => {
                arrivals.end = Some(AssociationEnd::Broken(Errno::ECONNRESET as i32));
            }
            SctpNotification::PartialDeliveryAborted { .. } => {
                arrivals.gathering = None;
                if std::mem::take(&mut arrivals.inside) {
                    return Some(Arrival::Retracted);
                }
            }
            SctpNotification::Up { .. }
            | SctpNotification::Path { .. }
            | SctpNotification::SendFailed { .. }
            | SctpNotification::Other(_) => {}
        }
        None
    }

    /// Whether a receive would find something; takes what the application does not see, up to the next
    /// control message.
    pub(crate) fn look(&self, arrivals: &mut Arrivals) -> bool {
        self.skip(arrivals, 1)
    }

    /// A new association: takes the notification that it is up, and what came for the control channel.
    pub(crate) fn begin(&self, arrivals: &mut Arrivals) {
        self.skip(arrivals, MAX_CONTROLS);
    }

    /// Takes what is not the application's, with up to `most` control messages; whether what comes then
    /// is.
    fn skip(&self, arrivals: &mut Arrivals, most: usize) -> bool {
        while arrivals.controls.len() < most {
            if arrivals.end.is_some() {
                return arrivals.controls.is_empty();
            }
            match self.socket.look() {
                Ok(None) => {
                    return false;
                }
                Ok(Some(Upcoming::Data { ppid }))
                    if arrivals.gathering.is_none() && (arrivals.inside || !self.is_control(ppid)) =>
                {
                    return arrivals.controls.is_empty();
                }
                Ok(Some(_)) => {
                    // Of what is retracted here, the application has a part already.
                    if let Some(Arrival::Retracted) = self.take_aside(arrivals) {
                        arrivals.end = Some(AssociationEnd::Broken(Errno::ECONNRESET as i32));
                    }
                }
                Err(error) => arrivals.end = Some(broken(&error)),
            }
        }
        false
    }

    // ----- sending -------------------------------------------------------------------------------

    /// Sends a message whole, or nothing: [`SocketError::WouldBlock`] when time is over; [`SocketError::TooLong`]
    /// for any send buffer that the system allows, [`SocketError::Invalid`] when there is no such stream. Every other error means that
    /// the association is of no further use.
    pub(crate) fn send(&self, out: &Outgoing<'_>, patience: &Patience<'_>) -> Result<()> {
        let info = SendInfo {
            association: 0,
            stream: out.stream,
            ppid: if out.control { PPID_ASAP.to_be() } else { u32::from_ne_bytes(out.ppid) },
            flags: out.flags,
            time_to_live: out.time_to_live,
        };
        let (mut enlarged, mut writable) = (false, false);
        loop {
            if self.ended.load(SeqCst) {
                return Err(SocketError::SessionOver);
            }
            match self.socket.send(out.data, info) {
                Ok(length) => {
                    self.sent.fetch_add((length + OVERHEAD) as u64, Relaxed);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Writable, and yet: the kernel looks at this socket's memory only, not at SCTP's.
                    let in_time = if std::mem::take(&mut writable) {
                        patience.pause(NO_MEMORY)?
                    } else {
                        writable = patience.writable(self.as_fd())?;
                        writable
                    };
                    if !in_time {
                        return Err(SocketError::WouldBlock);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && !enlarged => {
                    enlarged = true;
                    if out.data.len() > MAX_SEND_BUFFER || !self.socket.enlarge_send_buffer(out.data.len()) {
                        return Err(not_sent(error));
                    }
                }
                Err(error) => return Err(not_sent(error)),
            }
        }
    }

    /// Sends nothing more; what was sent still arrives.
    pub(crate) fn finish(&self) {
        self.ended.store(true, SeqCst);
        if !self.is_given_up()
            && let Err(error) = self.socket.finish()
        {
            log::debug!("an association was gone before its end: {error}");
        }
    }

    /// Breaks it: the peer gets an ABORT once nobody here uses it any more.
    pub(crate) fn abort(&self) {
        self.given_up.store(true, SeqCst);
        if let Err(error) = self.socket.give_up() {
            log::debug!("an association was gone before its abort: {error}");
        }
    }

    /// What the kernel keeps for it.
    pub(crate) fn kept(&self) -> Kept {
        if self.socket.is_unreachable(0).unwrap_or(false) {
            let again = self.socket.parameters(0).map_or(0, |now| now.rto_max);
            return Kept::Gone { again: Duration::from_millis(u64::from(again)) };
        }
        // Before looking, or what is sent meanwhile would count as acknowledged.
        let sent = self.sent.load(Relaxed);
        let (came, unacknowledged) = self.socket.memory().unwrap_or_default();
        let waits = came > 0 && !self.socket.is_readable();
        let stuck = if waits { came } else { 0 };
        Kept::Bytes(KeptBytes { stuck, unacknowledged, sent, spoke: self.spoke.load(Relaxed) })
    }

    /// Applies parameters to it.
    pub(crate) fn tune(&self, parameters: &SessionParameters) {
        if let Err(error) = tune(&self.socket, parameters) {
            log::debug!("parameters of an association: {error}");
        }
    }
}

impl AsFd for Association {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Why a message is not sent. What is wrong with the message says nothing of the peer.
fn not_sent(error: io::Error) -> SocketError {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => SocketError::TooLong,
        Some(libc::EINVAL) => SocketError::Invalid,
        _ => error.into(),
    }
}

fn broken(error: &io::Error) -> AssociationEnd {
    AssociationEnd::Broken(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

/// Applies parameters to an association, or to those that a socket will have.
pub(crate) fn tune(socket: &SctpSocket, parameters: &SessionParameters) -> io::Result<()> {
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let most = short(parameters.assoc_max_rxt);
    let paths = Parameters {
        rto_initial: parameters.rto_initial,
        rto_min: parameters.rto_min,
        rto_max: parameters.rto_max,
        assoc_max_rxt: 0,
        path_max_rxt: short(parameters.path_max_rxt),
        hb_interval: parameters.hb_interval,
    };
    socket.set_parameters(0, paths)?;
    let total = |most| Parameters { assoc_max_rxt: most, ..Parameters::default() };
    match socket.set_parameters(0, total(most)) {
        // More than all paths together may have, Linux refuses, but looks at that here alone. With less, a stall that each of
        // two paths counts for itself ends the association sooner than if it had one.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let per_path = |path_max_rxt| Parameters { path_max_rxt, ..Parameters::default() };
            socket.set_parameters(0, per_path(most))?;
            let result = socket.set_parameters(0, total(most));
            socket.set_parameters(0, per_path(short(parameters.path_max_rxt)))?;
            result
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that the kernel does not take for what it is: nobody's element is reported for it, no session ends.
    #[test]
    fn a_message_that_is_wrong_says_nothing_of_the_peer() {
        for (errno, the_messages) in [
            (Errno::EMSGSIZE, true),
            (Errno::EINVAL, true),
            (Errno::ECONNRESET, false),
            (Errno::EPIPE, false),
        ] {
            let error = not_sent(errno.into());
            assert_eq!((error.is_the_elements(), error.ends_connection()), (!the_messages, !the_messages));
            assert_eq!(crate::socket::tests::code(error), errno as i32);
        }
    }
}
