//! The receiving half of a session over the TCP mapping: payload goes straight to the application's
//! buffer, messages of middling size come several per system call, and what is not whole yet stays here.

use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::ahead::{Ahead, SCRATCH, borrow, give_back};
use crate::socket::channel::carrier::Carrier;
use crate::socket::error::Result;
use crate::transport::stream;
use crate::wire::session_frame::{Data, FrameError, FrameHeader, FrameReader, HEADER_LENGTH, Item};
use crate::wire::show;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::AsFd;

/// Messages up to this size are delivered whole; of longer ones, what has come may be delivered.
pub(crate) const WHOLE: usize = 64 << 10;
/// Behind messages from this size on, only the next header: copying them costs more than a system call.
const LONG: usize = 4 << 10;
/// Messages longer than this are read straight into the application's buffer.
const DIRECT: usize = 2 << 10;
/// Most bytes read straight into the application's buffer on a guess.
const GUESS: usize = 256 << 10;
/// Control messages that wait for the session to look at them.
const MAX_CONTROLS: usize = 64;

/// Application data that was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) length: usize,
    /// The message ends with it.
    pub(crate) end: bool,
    pub(crate) ppid: [u8; 4],
    pub(crate) stream: u16,
}

/// What one attempt to receive came to.
#[derive(Debug)]
pub(crate) enum Arrival {
    Data(Piece),
    /// So many bytes of a message that is delivered whole lie in the buffer, and no more have come:
    /// [`Receiver::resume`] when there are some, else [`Receiver::put_back`].
    Begun(usize),
    /// Nothing deliverable for now.
    Nothing,
    /// The parts of the message that were delivered are void: the rest will never come (SCTP).
    Retracted,
    /// The peer ended the session in order.
    Closed,
    /// The connection broke, or the peer broke the protocol.
    Broken(io::Error),
}

/// The receiving half. Whoever receives has it locked, but not while waiting for a message to begin.
#[derive(Debug)]
pub(crate) struct Receiver {
    reader: FrameReader,
    /// Read, but not taken apart.
    ahead: Ahead,
    /// Control messages in front of the next data.
    controls: VecDeque<Vec<u8>>,
    /// Payload of the last message, or of its last piece: a guess at the next.
    expected: usize,
    end: Option<StreamEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    Closed,
    Broken(i32),
}

/// How far a message in hand has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Bytes of it in the buffer.
    have: usize,
    /// The socket has no more.
    dry: bool,
    /// Whether the caller would wait for the others.
    stays: bool,
}

/// What a read brought.
enum Read {
    Bytes(usize),
    Dry,
    End,
}

impl Receiver {
    pub(crate) fn new(peer_accepts: bool) -> Receiver {
        Receiver {
            reader: FrameReader::new(peer_accepts),
            ahead: Ahead::default(),
            controls: VecDeque::new(),
            expected: 0,
            end: None,
        }
    }

    /// The next control message, to be looked at before any further data.
    pub(crate) fn control(&mut self) -> Option<Vec<u8>> {
        self.controls.pop_front()
    }

    /// One attempt, without waiting. Stops at control messages: `Nothing`, and
    /// [`Receiver::control`] has them, because what they say comes before the data behind them. A message of at
    /// most [`WHOLE`] bytes is delivered as one piece if `buffer` is long enough; bytes of a message that could not
    /// be delivered stay here, or, if the caller `stays` to wait for the others, in `buffer`.
    pub(crate) fn receive(&mut self, socket: &Carrier, buffer: &mut [u8], stays: bool) -> Arrival {
        let input = self.attempt(socket, buffer, stays);
        self.ahead.keep();
        input
    }

    fn attempt(&mut self, socket: &Carrier, buffer: &mut [u8], stays: bool) -> Arrival {
        if !self.controls.is_empty() {
            return Arrival::Nothing;
        }
        loop {
            if let Some(data) = self.reader.data() {
                return self.deliver(socket, data, buffer, Progress { have: 0, dry: false, stays });
            }
            let item = match self.step(socket) {
                Ok(item) => item,
                Err(end) => return end,
            };
            match item {
                Item::Control(message) => {
                    self.controls.push_back(message);
                    return Arrival::Nothing;
                }
                Item::Greeting(_) | Item::Data(_) => {}
                Item::More if self.end.is_some() => return self.ended(),
                Item::More => {
                    let guess = self.expected.min(buffer.len()).min(GUESS);
                    if guess > DIRECT && self.reader.at_header() {
                        if let Some(input) = self.receive_directly(socket, &mut buffer[..], guess, stays) {
                            return input;
                        }
                    } else if let Read::Dry = self.read_with_scratch(socket, &mut []) {
                        return Arrival::Nothing;
                    }
                }
            }
        }
    }

    /// Reads header and payload of the next message at once, the payload to where it belongs.
    /// `None`: look again at what is there.
    fn receive_directly(
        &mut self,
        socket: &Carrier,
        buffer: &mut [u8],
        guess: usize,
        stays: bool,
    ) -> Option<Arrival> {
        let mut header = [0; HEADER_LENGTH];
        let mut scratch = borrow();
        let mut parts = [
            IoSliceMut::new(&mut header),
            IoSliceMut::new(&mut buffer[..guess]),
            IoSliceMut::new(self.beyond(guess, &mut scratch)),
        ];
        let room = parts.iter().map(|part| part.len()).sum();
        let count = match self.read(socket, &mut parts) {
            Read::Bytes(count) => count,
            Read::Dry => {
                give_back(scratch);
                return Some(Arrival::Nothing);
            }
            Read::End => {
                give_back(scratch);
                return None;
            }
        };
        let direct = count.saturating_sub(HEADER_LENGTH).min(guess);
        let further = count.saturating_sub(HEADER_LENGTH + guess);
        let mut input = &header[..count.min(HEADER_LENGTH)];
        let result = self.reader.next(&mut input);
        let fits = match &result {
            Ok(Item::Data(data)) => direct.min(data.left),
            _ => 0,
        };
        // What is not payload of this message goes back in line.
        let kept = self.ahead.push(&buffer[fits..direct]).and_then(|()| self.ahead.lend(scratch, further));
        self.keep_or_break(socket, kept);
        match result {
            Ok(Item::Data(data)) => {
                let dry = count < room;
                Some(self.deliver(socket, data, buffer, Progress { have: fits, dry, stays }))
            }
            Ok(_) => None,
            Err(error) => {
                self.violation(socket, error);
                None
            }
        }
    }

    /// After [`Arrival::Begun`], with the same buffer.
    pub(crate) fn resume(&mut self, socket: &Carrier, buffer: &mut [u8], have: usize) -> Arrival {
        let input = match self.reader.data() {
            Some(data) => self.deliver(socket, data, buffer, Progress { have, dry: false, stays: true }),
            None => Arrival::Nothing,
        };
        self.ahead.keep();
        input
    }

    /// The reader stands in a data frame.
    fn deliver(&mut self, socket: &Carrier, data: Data, buffer: &mut [u8], so_far: Progress) -> Arrival {
        let want = data.left.min(buffer.len());
        let hold = data.left <= WHOLE;
        let Progress { mut have, mut dry, stays } = so_far;
        have += self.take_ahead(&mut buffer[have..want]);
        // Everything of the message before it can be delivered; of a long one, what is there.
        while have < want {
            let rest = &mut buffer[have..want];
            let read = match want == data.left {
                _ if dry => Read::Dry,
                true => self.read_with_scratch(socket, rest),
                false => self.read(socket, &mut [IoSliceMut::new(rest)]),
            };
            match read {
                Read::Bytes(count) => {
                    have += count.min(want - have);
                    // Less than there was room for: that was all.
                    dry = true;
                }
                Read::Dry | Read::End if !hold && have > 0 => break,
                Read::Dry if hold && stays && have > 0 => return Arrival::Begun(have),
                Read::Dry if hold => {
                    self.put_back(socket, &buffer[..have]);
                    return Arrival::Nothing;
                }
                Read::Dry => return Arrival::Nothing,
                // The rest of the message never comes.
                Read::End => return self.ended(),
            }
        }
        self.reader.taken(have);
        self.expected = if data.single && data.left == have { have } else { self.expected };
        let end = data.last && have == data.left;
        Arrival::Data(Piece { length: have, end, ppid: data.ppid, stream: data.stream })
    }

    /// Whether a receive would find something now; reads what the application does not see.
    pub(crate) fn look(&mut self, socket: &Carrier) -> bool {
        let found = self.find(socket);
        self.ahead.keep();
        found
    }

    fn find(&mut self, socket: &Carrier) -> bool {
        loop {
            self.adopt(socket);
            if self.settle(socket) {
                return true;
            }
            if self.controls.len() >= MAX_CONTROLS {
                // First they have to be looked at.
                return false;
            }
            if let Some(data) = self.reader.data() {
                let missing = data.left.min(WHOLE).saturating_sub(self.ahead.len());
                let enough = if data.left > WHOLE { 1 } else { missing };
                if socket.pending() >= enough {
                    return true;
                }
            } else if self.reader.at_header() && self.ahead.is_empty() && !socket.is_secure() {
                match self.header_ahead(socket) {
                    Some(true) => return true,
                    Some(false) => return false,
                    None => {}
                }
            }
            if let Read::Dry = self.read_ahead(socket) {
                return false;
            }
        }
    }

    /// Looks at the next header in the socket: `Some`: that decides it; `None`: it has to be read.
    fn header_ahead(&self, socket: &Carrier) -> Option<bool> {
        let mut header = [0; HEADER_LENGTH];
        match socket.peek(&mut header) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return None,
            Ok(0) | Err(_) => return Some(true),
            Ok(count) if count < HEADER_LENGTH => return None,
            Ok(_) => {}
        }
        match FrameHeader::decode(&header) {
            Err(_) => Some(true),
            Ok(header) if header.control => None,
            Ok(header) if header.length as usize > WHOLE => Some(true),
            Ok(header) => (socket.pending() >= HEADER_LENGTH + header.length as usize).then_some(true),
        }
    }

    /// What TLS has decrypted beyond what was asked for is read ahead, since the socket no longer tells of it.
    pub(crate) fn adopt(&mut self, socket: &Carrier) {
        socket.take_ahead(&mut self.ahead);
    }

    /// Takes the control messages in front of the next data apart. Whether a receive would find
    /// something without asking the socket.
    pub(crate) fn settle(&mut self, socket: &Carrier) -> bool {
        loop {
            if let Some(data) = self.reader.data() {
                let there = self.ahead.len();
                return self.end.is_some() || there >= data.left || (data.left > WHOLE && there > 0);
            }
            if self.controls.len() >= MAX_CONTROLS {
                return false;
            }
            match self.step(socket) {
                Err(_) => return true,
                Ok(Item::More) => return self.end.is_some(),
                Ok(Item::Control(message)) => self.controls.push_back(message),
                Ok(Item::Greeting(_) | Item::Data(_)) => {}
            }
        }
    }

    /// Reads the peer's greeting. `Ok(false)`: it has not come whole.
    pub(crate) fn greet(&mut self, socket: &Carrier) -> io::Result<bool> {
        let greeted = self.meet(socket);
        self.ahead.keep();
        greeted
    }

    fn meet(&mut self, socket: &Carrier) -> io::Result<bool> {
        loop {
            if self.reader.greeted() {
                return Ok(true);
            }
            match self.next() {
                Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
                Ok(Item::More) => match self.read_ahead(socket) {
                    Read::Dry => return Ok(false),
                    Read::Bytes(_) => {}
                    Read::End => return Err(ErrorKind::UnexpectedEof.into()),
                },
                // Behind the extension of a greeting, the reader goes on to what follows it.
                Ok(Item::Control(message)) => self.controls.push_back(message),
                Ok(_) => {}
            }
        }
    }

    /// The next item out of what was read ahead.
    fn step(&mut self, socket: &Carrier) -> std::result::Result<Item, Arrival> {
        self.next().map_err(|error| {
            self.violation(socket, error);
            self.ended()
        })
    }

    fn next(&mut self) -> std::result::Result<Item, FrameError> {
        if self.ahead.is_empty() && self.reader.at_header() {
            return Ok(Item::More);
        }
        let there = self.ahead.rest();
        let mut input = there;
        let result = self.reader.next(&mut input);
        let count = there.len() - input.len();
        self.ahead.consume(count);
        result
    }

    /// What was read and can't be kept is a hole in the stream.
    fn keep_or_break(&mut self, socket: &Carrier, kept: Result<()>) {
        if kept.is_err() {
            let peer = stream::peer(socket.as_fd());
            SESSIONS.note(
                "no memory for what a session's peer sent",
                peer.map(|peer| peer.ip()),
                format_args!("a session is broken: no memory for what its peer{} sent", show::at(peer)),
            );
            self.end = Some(StreamEnd::Broken(Errno::ENOMEM as i32));
        }
    }

    fn violation(&mut self, socket: &Carrier, error: impl std::fmt::Display) {
        if !matches!(self.end, Some(StreamEnd::Broken(_))) {
            let peer = stream::peer(socket.as_fd());
            SESSIONS.note(
                "a session's peer broke the protocol",
                peer.map(|peer| peer.ip()),
                format_args!("a session's peer{} broke the protocol: {error}", show::at(peer)),
            );
        }
        self.end = Some(StreamEnd::Broken(Errno::EPROTO as i32));
    }

    fn ended(&self) -> Arrival {
        match self.end {
            Some(StreamEnd::Closed) if self.reader.at_boundary() || !self.reader.greeted() => Arrival::Closed,
            // In the middle of a message.
            Some(StreamEnd::Closed) | None => Arrival::Broken(ErrorKind::ConnectionReset.into()),
            Some(StreamEnd::Broken(code)) => Arrival::Broken(io::Error::from_raw_os_error(code)),
        }
    }

    /// One read(2) of any shape.
    fn read(&mut self, socket: &Carrier, parts: &mut [IoSliceMut<'_>]) -> Read {
        if self.end.is_some() {
            return Read::End;
        }
        loop {
            match socket.receive(parts) {
                Ok(0) => self.end = Some(StreamEnd::Closed),
                Ok(count) => return Read::Bytes(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Read::Dry,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.end = Some(StreamEnd::Broken(error.raw_os_error().unwrap_or(Errno::EIO as i32)));
                }
            }
            return Read::End;
        }
    }

    /// Reads into `rest`, and what follows it into `ahead`.
    fn read_with_scratch(&mut self, socket: &Carrier, rest: &mut [u8]) -> Read {
        let mut scratch = borrow();
        let length = rest.len();
        let beyond = self.beyond(length, &mut scratch);
        let read = match length {
            // What has no message to belong to.
            0 => self.read(socket, &mut [IoSliceMut::new(beyond)]),
            _ => self.read(socket, &mut [IoSliceMut::new(rest), IoSliceMut::new(beyond)]),
        };
        let count = if let Read::Bytes(count) = read { count.saturating_sub(length) } else { 0 };
        let kept = self.ahead.lend(scratch, count);
        self.keep_or_break(socket, kept);
        read
    }

    /// Where to put what comes behind so many bytes of a message.
    fn beyond<'a>(&self, length: usize, scratch: &'a mut [u8]) -> &'a mut [u8] {
        let most = if length >= LONG { HEADER_LENGTH } else { SCRATCH }.min(scratch.len());
        &mut scratch[..most]
    }

    fn read_ahead(&mut self, socket: &Carrier) -> Read {
        self.read_with_scratch(socket, &mut [])
    }

    /// Moves payload from `ahead`; how many bytes.
    fn take_ahead(&mut self, to: &mut [u8]) -> usize {
        let from = self.ahead.rest();
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        self.ahead.consume(count);
        count
    }

    /// `bytes`, the first of the message in hand, could not be delivered: they stand in front again.
    pub(crate) fn put_back(&mut self, socket: &Carrier, bytes: &[u8]) {
        // What was in `ahead` has all been taken, or there would have been enough.
        let kept = self.ahead.push(bytes);
        self.keep_or_break(socket, kept);
    }
}
