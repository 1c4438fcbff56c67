//! The sending half of a session over the TCP mapping: one system call per message, and a message
//! once begun is never cut.

use crate::socket::channel::carrier::Carrier;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::{Deadline, Patience};
use crate::transport::sctp_socket::send_flags;
use crate::wire::session_frame::{FrameHeader, Greeting, HEADER_LENGTH, MAX_FRAME};
use parking_lot::Mutex;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Up to this size, copying a frame together costs less than having the kernel gather it.
const SMALL: usize = 1024;

/// The backlog of a message up to this size is taken for granted.
const SPARE: usize = 64 << 10;
/// The same as [`SMALL`], for what most messages are.
const TINY: usize = 128;

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) ppid: [u8; 4],
    pub(crate) stream: u16,
    /// [`send_flags::UNORDERED`], and others that only the kernel's SCTP knows.
    pub(crate) flags: u16,
    /// Milliseconds; 0: for ever. TCP gives nothing up.
    pub(crate) time_to_live: u32,
    /// An ASAP message instead of application data.
    pub(crate) control: bool,
}

impl<'a> Outgoing<'a> {
    /// One message for the control channel.
    pub(crate) fn control(data: &'a [u8]) -> Outgoing<'a> {
        Outgoing { data, ppid: [0; 4], stream: 0, flags: 0, time_to_live: 0, control: true }
    }

    fn header(&self, length: usize, begin: bool, end: bool) -> FrameHeader {
        if self.control {
            return FrameHeader::control(length);
        }
        FrameHeader {
            begin,
            end,
            unordered: self.flags & send_flags::UNORDERED != 0,
            control: false,
            stream: self.stream,
            length: length as u32,
            ppid: self.ppid,
        }
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// The kernel has it.
    Whole,
    /// The kernel has its beginning, the backlog its end.
    Begun,
}

/// The sending half. One sender at a time; the lock is held while it waits for room.
#[derive(Debug)]
pub(crate) struct Sender {
    half: Mutex<Half>,
    backlogged: AtomicBool,
}

#[derive(Debug, Default)]
struct Half {
    /// Goes out before the next frame: our greeting, a business card. Alone it isn't worth waking the
    /// peer's application.
    ahead: Vec<u8>,
    /// The rest of a frame that the kernel didn't take whole; at most one.
    backlog: Vec<u8>,
    written: usize,
    /// The application sends nothing more.
    ended: bool,
}

impl Half {
    /// Whether there is a backlog.
    fn behind(&self) -> bool {
        self.written < self.backlog.len()
    }

    /// Room for the backlog of a long message, before it begins: once begun, there is no way back.
    fn provide(&mut self, length: usize) -> Result<()> {
        if length <= SPARE {
            return Ok(());
        }
        let frames = length.div_ceil(MAX_FRAME);
        let most = self.ahead.len() + length + frames * HEADER_LENGTH;
        self.backlog.try_reserve_exact(most).map_err(|_| SocketError::NoMemory)
    }

    /// It was not needed.
    fn provided(&mut self) {
        if self.backlog.is_empty() && self.backlog.capacity() > 0 {
            self.backlog = Vec::new();
        }
    }
}

impl Sender {
    /// A sender whose first bytes are our greeting.
    pub(crate) fn new(accepting: bool) -> Sender {
        let ahead = Greeting::ours(accepting).encode().to_vec();
        Sender { half: Mutex::new(Half { ahead, ..Half::default() }), backlogged: AtomicBool::new(false) }
    }

    /// Whether something waits for the socket to become writable ([`Sender::flush`]).
    pub(crate) fn backlogged(&self) -> bool {
        self.backlogged.load(SeqCst)
    }

    /// A control message that travels with the next frame.
    pub(crate) fn enclose(&self, message: &[u8]) {
        let mut half = self.half.lock();
        half.ahead.extend(FrameHeader::control(message.len()).encode());
        half.ahead.extend_from_slice(message);
    }

    /// Sends a message whole. [`SocketError::WouldBlock`]: time was over before it had begun. Once it has begun, what the
    /// kernel does not take in time goes to the backlog, and the message counts as sent. Every other error means that the connection is of
    /// no further use.
    pub(crate) fn send(&self, socket: &Carrier, out: &Outgoing<'_>, patience: &Patience<'_>) -> Result<()> {
        let mut half = patience.deadline().lock(&self.half)?;
        if half.ended {
            return Err(SocketError::SessionOver);
        }
        while half.behind() && !self.push(&mut half, socket)? {
            if !patience.writable(socket.as_fd())? {
                return Err(SocketError::WouldBlock);
            }
        }
        // What can't be put off must not begin.
        half.provide(out.data.len())?;
        let sent = if out.data.len() <= MAX_FRAME {
            let header = out.header(out.data.len(), true, true);
            self.frame(&mut half, socket, &header, out.data, patience).map(|_| ())
        } else {
            self.frames(&mut half, socket, out, patience)
        };
        half.provided();
        sent
    }

    /// A message of several frames. Nobody may come between the parts, so from the first one on there is no way back:
    /// what the kernel does not take in time goes to the backlog, however slowly the peer reads.
    fn frames(
        &self,
        half: &mut Half,
        socket: &Carrier,
        out: &Outgoing<'_>,
        patience: &Patience<'_>,
    ) -> Result<()> {
        if matches!(patience.deadline(), Deadline::Now) {
            return Err(SocketError::TooLong);
        }
        let (first, mut left) = out.data.split_at(MAX_FRAME);
        let header = out.header(first.len(), true, false);
        let mut written = self.frame(half, socket, &header, first, patience)?;
        while !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(MAX_FRAME));
            let header = out.header(part.len(), false, rest.is_empty());
            if written == Written::Whole {
                match self.frame(half, socket, &header, part, patience) {
                    Ok(now) => written = now,
                    Err(error) if error.is_too_early() => {
                        written = Written::Begun;
                        self.put_off(half, &header, part);
                    }
                    Err(error) => return Err(error),
                }
            } else {
                self.put_off(half, &header, part);
            }
            left = rest;
        }
        Ok(())
    }

    /// A frame follows what is in the backlog.
    fn put_off(&self, half: &mut Half, header: &FrameHeader, payload: &[u8]) {
        half.backlog.extend(header.encode());
        half.backlog.extend_from_slice(payload);
        self.backlogged.store(true, SeqCst);
    }

    fn frame(
        &self,
        half: &mut Half,
        socket: &Carrier,
        header: &FrameHeader,
        payload: &[u8],
        patience: &Patience<'_>,
    ) -> Result<Written> {
        let header = header.encode();
        let total = half.ahead.len() + HEADER_LENGTH + payload.len();
        let mut done = 0;
        loop {
            let sent = match payload.len() {
                _ if done > 0 || !half.ahead.is_empty() => {
                    socket.send(&slices([&half.ahead, &header, payload], done))
                }
                length if length <= TINY => {
                    send_together(socket, &header, payload, &mut [0; HEADER_LENGTH + TINY])
                }
                length if length <= SMALL => {
                    send_together(socket, &header, payload, &mut [0; HEADER_LENGTH + SMALL])
                }
                _ => socket.send(&[IoSlice::new(&header), IoSlice::new(payload)]),
            };
            match sent {
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if done == total {
                if !half.ahead.is_empty() {
                    half.ahead = Vec::new();
                }
                if socket.is_holding() {
                    self.backlogged.store(true, SeqCst);
                }
                return Ok(Written::Whole);
            }
            // What the kernel did not take has no room for now.
            let more = match patience.writable(socket.as_fd()) {
                Ok(true) => continue,
                Ok(false) => Err(SocketError::WouldBlock),
                Err(error) => Err(error),
            };
            if done <= half.ahead.len() {
                half.ahead.drain(..done);
                return more.map(|()| Written::Whole);
            }
            let Half { ahead, backlog, .. } = half;
            for part in slices([ahead, &header, payload], done) {
                backlog.extend_from_slice(&part);
            }
            half.written = 0;
            half.ahead = Vec::new();
            self.backlogged.store(true, SeqCst);
            return Ok(Written::Begun);
        }
    }

    /// Sends what has been enclosed now, followed by whole `frames`.
    pub(crate) fn open(&self, socket: &Carrier, frames: &[u8]) -> io::Result<()> {
        let mut half = self.half.lock();
        let mut first = std::mem::take(&mut half.ahead);
        first.extend_from_slice(frames);
        half.backlog = first;
        half.written = 0;
        self.push(&mut half, socket).map(|_| ())
    }

    /// Writes more of the backlog, and the end behind it when the application wants no more.
    /// `true`: nothing is left to do. A sender that is at work does it itself.
    pub(crate) fn flush(&self, socket: &Carrier) -> io::Result<bool> {
        let Some(mut half) = self.half.try_lock() else { return Ok(true) };
        self.push(&mut half, socket)
    }

    fn push(&self, half: &mut Half, socket: &Carrier) -> io::Result<bool> {
        while half.written < half.backlog.len() {
            match socket.send(&[IoSlice::new(&half.backlog[half.written..])]) {
                Ok(count) => half.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.backlogged.store(true, SeqCst);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        if !half.backlog.is_empty() {
            half.backlog = Vec::new();
            half.written = 0;
            if half.ended {
                socket.finish();
            }
        }
        let done = socket.flush()?;
        if done == self.backlogged() {
            self.backlogged.store(!done, SeqCst);
        }
        Ok(done)
    }

    /// The application sends nothing more: ends our direction, behind what is left of the backlog.
    /// `true`: done; `false`: [`Sender::flush`] has to go on.
    pub(crate) fn finish(&self, socket: &Carrier) -> bool {
        // A sender that waits for room has been called off by whoever closes.
        let mut half = self.half.lock();
        half.ended = true;
        match self.push(&mut half, socket) {
            Ok(false) if !half.backlog.is_empty() => false,
            Ok(_) => {
                let done = socket.finish();
                self.backlogged.store(!done, SeqCst);
                done
            }
            Err(_) => true,
        }
    }
}

/// `parts` without their first `skip` bytes.
fn slices<'a>(parts: [&'a [u8]; 3], mut skip: usize) -> [IoSlice<'a>; 3] {
    parts.map(|part| {
        let cut = skip.min(part.len());
        skip -= cut;
        IoSlice::new(&part[cut..])
    })
}

/// Header and payload as one piece.
fn send_together(
    socket: &Carrier,
    header: &[u8; HEADER_LENGTH],
    payload: &[u8],
    piece: &mut [u8],
) -> io::Result<usize> {
    let length = HEADER_LENGTH + payload.len();
    piece[..HEADER_LENGTH].copy_from_slice(header);
    piece[HEADER_LENGTH..length].copy_from_slice(payload);
    socket.send(&[IoSlice::new(&piece[..length])])
}
