//! A session over the kernel's SCTP: one association on a one-to-one socket of its own.
//!
//! Messages are the kernel's, and the control channel is what carries ASAP's PPID (RFC 5352 section 2):
//! no greeting, no framing, nothing is read ahead. What the kernel tells of the association becomes the
//! end of the session, or nothing.

use super::SessionParameters;
use super::receiver::{Input, Piece};
use super::sender::Outgoing;
use super::wait::{Occasionally, Patience, errno};
use crate::transport::sctp::PPID_ASAP;
use crate::transport::sctp_socket::{Ahead, Incoming, Notification, Parameters, SctpSocket, SendInfo};
use nix::errno::Errno;
use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Control messages that wait for the session to look at them.
const MAX_CONTROLS: usize = 64;
/// The longest control message, with what pads it.
const LONGEST_CONTROL: usize = 65_536;
/// The send buffer is enlarged for messages up to this size; the system allows up to twice its
/// `net.core.wmem_max`.
const MAX_SEND_BUFFER: usize = 16 << 20;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An association.
#[derive(Debug)]
pub(super) struct Association {
    socket: SctpSocket,
    /// ASAP's PPID is the control channel's.
    control: bool,
    /// The application sends nothing more.
    ended: AtomicBool,
    /// We broke it.
    given_up: AtomicBool,
    inbox: Mutex<Inbox>,
}

/// The receiving half. Whoever receives has it locked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Control messages in front of the next data.
    controls: VecDeque<Vec<u8>>,
    /// A control message of which the end has not come.
    gathering: Option<Gathering>,
    /// The last data was not the end of its message.
    inside: bool,
    /// Something waits behind what was received last.
    more: bool,
    end: Option<End>,
}

#[derive(Debug)]
enum Gathering {
    Part(Vec<u8>),
    /// It is too long to be one.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Broken(i32),
}

impl Inbox {
    /// Whether another receive call is worth while.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// The next control message, to be looked at before any further data.
    pub(super) fn control(&mut self) -> Option<Vec<u8>> {
        self.controls.pop_front()
    }

    /// Whether a receive would find something without asking the kernel.
    pub(super) fn settled(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the rest of a message is to come.
    pub(super) fn is_inside(&self) -> bool {
        self.inside
    }

    /// A part of a control message, the last one perhaps.
    fn gather(&mut self, part: &[u8], end: bool) {
        let before = match self.gathering.take() {
            None => Gathering::Part(Vec::new()),
            Some(before) => before,
        };
        let now = match before {
            Gathering::Part(bytes) if bytes.len() + part.len() <= LONGEST_CONTROL => {
                Gathering::Part([&bytes, part].concat())
            }
            Gathering::Part(_) => {
                static QUIET: Occasionally = Occasionally::new();
                if let Some(more) = QUIET.now() {
                    log::warn!("a session's peer sent a control message that is too long to be one{more}");
                }
                Gathering::Refused
            }
            Gathering::Refused => Gathering::Refused,
        };
        match now {
            Gathering::Part(whole) if end => self.controls.push_back(whole),
            Gathering::Refused if end => {}
            unfinished => self.gathering = Some(unfinished),
        }
    }

    fn ended(&self, end: End) -> Input {
        match end {
            End::Closed if !self.inside => Input::Closed,
            // In the middle of a message.
            End::Closed => Input::Broken(errno(Errno::ECONNRESET)),
            End::Broken(code) => Input::Broken(io::Error::from_raw_os_error(code)),
        }
    }
}

impl Association {
    /// An association that is up. `control`: the peer has a control channel.
    pub(super) fn new(socket: SctpSocket, control: bool) -> Association {
        let (ended, given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        Association { socket, control, ended, given_up, inbox: Mutex::default() }
    }

    /// Whether we broke it.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(SeqCst)
    }

    pub(super) fn has_control(&self) -> bool {
        self.control
    }

    pub(super) fn inbox(&self) -> &Mutex<Inbox> {
        &self.inbox
    }

    fn is_control(&self, ppid: u32) -> bool {
        self.control && u32::from_be(ppid) == PPID_ASAP
    }

    #[cfg(test)]
    pub(super) fn primary(&self) -> io::Result<std::net::SocketAddr> {
        self.socket.primary(0)
    }

    // ----- receiving -----------------------------------------------------------------------------

    /// One attempt, without waiting. Stops at control messages: `Nothing`, and [`Inbox::control`] has them.
    pub(super) fn receive(&self, inbox: &mut Inbox, buffer: &mut [u8]) -> Input {
        loop {
            if !inbox.controls.is_empty() {
                return Input::Nothing;
            }
            if let Some(end) = inbox.end {
                return inbox.ended(end);
            }
            let input = match inbox.gathering {
                // The application's buffer may be tiny.
                Some(_) => self.take_aside(inbox),
                None => self.take(inbox, &mut *buffer),
            };
            if let Some(input) = input {
                return input;
            }
        }
    }

    /// Takes one thing out of the socket; `None`: go on.
    fn take(&self, inbox: &mut Inbox, buffer: &mut [u8]) -> Option<Input> {
        let (incoming, more) = match self.socket.recv_and_look(buffer) {
            Ok(Some(found)) => found,
            Ok(None) => {
                inbox.more = false;
                return Some(Input::Nothing);
            }
            Err(error) => {
                inbox.end = Some(broken(&error));
                return None;
            }
        };
        inbox.more = more;
        match incoming {
            Incoming::Closed if self.is_given_up() => {
                inbox.end = Some(End::Broken(Errno::ECONNABORTED as i32));
                None
            }
            Incoming::Closed => {
                inbox.end = Some(End::Closed);
                None
            }
            Incoming::Notification(notification) => self.notified(inbox, notification),
            Incoming::Data { length, end, ppid, .. }
                if inbox.gathering.is_some() || (!inbox.inside && self.is_control(ppid)) =>
            {
                inbox.gather(&buffer[..length], end);
                None
            }
            Incoming::Data { length, end, stream, ppid, .. } => {
                inbox.inside = !end;
                Some(Input::Data(Piece { length, end, ppid: ppid.to_ne_bytes(), stream }))
            }
        }
    }

    /// The same for what is not the application's.
    fn take_aside(&self, inbox: &mut Inbox) -> Option<Input> {
        let mut scratch = SCRATCH.take();
        scratch.resize(LONGEST_CONTROL, 0);
        let input = self.take(inbox, &mut scratch);
        SCRATCH.set(scratch);
        input
    }

    fn notified(&self, inbox: &mut Inbox, notification: Notification) -> Option<Input> {
        match notification {
            Notification::PeerShutdown { .. } | Notification::Ended { .. } => inbox.end = Some(End::Closed),
            // A peer that started anew knows nothing of the session.
            Notification::Lost { .. } | Notification::Restarted { .. } | Notification::NotStarted { .. } => {
                inbox.end = Some(End::Broken(Errno::ECONNRESET as i32));
            }
            Notification::PartialDeliveryAborted { .. } => {
                inbox.gathering = None;
                if std::mem::take(&mut inbox.inside) {
                    return Some(Input::Retracted);
                }
            }
            Notification::Up { .. }
            | Notification::Path { .. }
            | Notification::SendFailed { .. }
            | Notification::Other(_) => {}
        }
        None
    }

    /// Whether a receive would find something; takes what the application does not see, up to the next
    /// control message.
    pub(super) fn look(&self, inbox: &mut Inbox) -> bool {
        self.skip(inbox, 1)
    }

    /// A new association: takes the notification that it is up, and what came for the control channel.
    pub(super) fn begin(&self, inbox: &mut Inbox) {
        self.skip(inbox, MAX_CONTROLS);
    }

    /// Takes what is not the application's, with up to `most` control messages; whether what comes then
    /// is.
    fn skip(&self, inbox: &mut Inbox, most: usize) -> bool {
        while inbox.controls.len() < most {
            if inbox.end.is_some() {
                return inbox.controls.is_empty();
            }
            match self.socket.look() {
                Ok(None) => {
                    inbox.more = false;
                    return false;
                }
                Ok(Some(Ahead::Data { ppid }))
                    if inbox.gathering.is_none() && (inbox.inside || !self.is_control(ppid)) =>
                {
                    return inbox.controls.is_empty();
                }
                Ok(Some(_)) => {
                    // Of what is retracted here, the application has a part already.
                    if let Some(Input::Retracted) = self.take_aside(inbox) {
                        inbox.end = Some(End::Broken(Errno::ECONNRESET as i32));
                    }
                }
                Err(error) => inbox.end = Some(broken(&error)),
            }
        }
        false
    }

    // ----- sending -------------------------------------------------------------------------------

    /// Sends a message whole, or nothing: EAGAIN when time is over, EMSGSIZE when it is too long for any
    /// send buffer that the system allows, EINVAL when there is no such stream. Every other error means that
    /// the association is of no further use.
    pub(super) fn send(&self, out: &Outgoing<'_>, patience: &Patience<'_>) -> io::Result<()> {
        let info = SendInfo {
            association: 0,
            stream: out.stream,
            ppid: if out.control { PPID_ASAP.to_be() } else { u32::from_ne_bytes(out.ppid) },
            flags: out.flags,
            time_to_live: out.time_to_live,
        };
        let mut enlarged = false;
        loop {
            if self.ended.load(SeqCst) {
                return Err(errno(Errno::EPIPE));
            }
            match self.socket.send(out.data, info) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !patience.writable(self.as_fd())? {
                        return Err(errno(Errno::EAGAIN));
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && !enlarged => {
                    enlarged = true;
                    if out.data.len() > MAX_SEND_BUFFER || !self.socket.enlarge_send_buffer(out.data.len()) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends nothing more; what was sent still arrives.
    pub(super) fn finish(&self) {
        self.ended.store(true, SeqCst);
        if !self.is_given_up()
            && let Err(error) = self.socket.finish()
        {
            log::debug!("an association was gone before its end: {error}");
        }
    }

    /// Breaks it: the peer gets an ABORT once nobody here uses it any more.
    pub(super) fn abort(&self) {
        self.given_up.store(true, SeqCst);
        if let Err(error) = self.socket.give_up() {
            log::debug!("an association was gone before its abort: {error}");
        }
    }

    /// Applies parameters to it.
    pub(super) fn tune(&self, parameters: &SessionParameters) {
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

fn broken(error: &io::Error) -> End {
    End::Broken(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

/// Applies parameters to an association, or to those that a socket will have.
pub(super) fn tune(socket: &SctpSocket, parameters: &SessionParameters) -> io::Result<()> {
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let most = short(parameters.assoc_max_rxt);
    let per_path = short(parameters.path_max_rxt);
    let paths = Parameters {
        rto_initial: parameters.rto_initial,
        rto_min: parameters.rto_min,
        rto_max: parameters.rto_max,
        assoc_max_rxt: 0,
        path_max_rxt: per_path,
        hb_interval: parameters.hb_interval,
    };
    socket.set_parameters(0, paths)?;
    let total = |most| Parameters { assoc_max_rxt: most, ..Parameters::default() };
    match socket.set_parameters(0, total(most)) {
        // Of several paths, the association may not outlive them all.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let count = socket.peer_addresses(0).map_or(1, |list| list.len().clamp(1, 255)) as u16;
            socket.set_parameters(0, total(most.min(per_path.saturating_mul(count))))
        }
        result => result,
    }
}
