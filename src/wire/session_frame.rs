//! The frames of a session over TCP: greeting, header, and a reader of the peer's byte stream
//! (`docs/tcp-mapping.md`, version 1).

use std::fmt;

/// The version spoken here.
pub const VERSION: u8 = 1;
/// First bytes of every session.
pub const MAGIC: [u8; 8] = *b"RSerPool";
/// Bytes of a greeting without extension.
pub const GREETING_LENGTH: usize = 12;
/// Bytes of a frame header.
pub const HEADER_LENGTH: usize = 12;
/// Most payload bytes of one frame; longer messages take several.
pub const MAX_FRAME: usize = 16 << 20;
/// Most bytes of a control frame: one padded ASAP message.
pub const MAX_CONTROL: usize = 1 << 16;
/// Most bytes of a greeting's extension.
pub const MAX_EXTENSION: u16 = 4096;

const BEGIN: u8 = 0x01;
const END: u8 = 0x02;
const UNORDERED: u8 = 0x04;
const CONTROL: u8 = 0x08;
const ACCEPTING: u8 = 0x01;

/// The first thing each end sends.
///
/// ```text
///  0                   1                   2                   3
///  |     'R'     |     'S'     |     'e'     |     'r'     |
///  |     'P'     |     'o'     |     'o'     |     'l'     |
///  |   Version   |    Flags    |     Extension Length      |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The sender's version.
    pub version: u8,
    /// Whether the sender accepted the connection.
    pub accepting: bool,
}

impl Greeting {
    /// Our greeting.
    pub fn ours(accepting: bool) -> Greeting {
        Greeting { version: VERSION, accepting }
    }

    /// The bytes, without an extension.
    pub fn encode(self) -> [u8; GREETING_LENGTH] {
        let mut bytes = [0; GREETING_LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.version;
        bytes[9] = if self.accepting { ACCEPTING } else { 0 };
        bytes
    }
}

/// What precedes the payload of a frame.
///
/// ```text
///  0                   1                   2                   3
///  |  0 0 0 0 C U E B  |  Reserved  |     Stream Number     |
///  |                        Length                          |
///  |             Payload Protocol Identifier                |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// First frame of its message.
    pub begin: bool,
    /// Last frame of its message.
    pub end: bool,
    /// SCTP's unordered flag, for information.
    pub unordered: bool,
    /// Carries an ASAP message instead of application data.
    pub control: bool,
    /// SCTP stream number, for information.
    pub stream: u16,
    /// Payload bytes that follow.
    pub length: u32,
    /// Four opaque bytes, exactly as the application passed them.
    pub ppid: [u8; 4],
}

impl FrameHeader {
    /// The header of one ASAP message on the control channel.
    pub fn control(length: usize) -> FrameHeader {
        FrameHeader {
            begin: true,
            end: true,
            unordered: false,
            control: true,
            stream: 0,
            length: length as u32,
            ppid: super::PPID_ASAP.to_be_bytes(),
        }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.begin, BEGIN)
            | flag(self.end, END)
            | flag(self.unordered, UNORDERED)
            | flag(self.control, CONTROL);
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0] = flags;
        bytes[2..4].copy_from_slice(&self.stream.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ppid);
        bytes
    }

    /// Decodes a header on its own; the order of frames is [`FrameReader`]'s business.
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<FrameHeader, FrameError> {
        let flags = bytes[0];
        if flags & !(BEGIN | END | UNORDERED | CONTROL) != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        let header = FrameHeader {
            begin: flags & BEGIN != 0,
            end: flags & END != 0,
            unordered: flags & UNORDERED != 0,
            control: flags & CONTROL != 0,
            stream: u16::from_be_bytes([bytes[2], bytes[3]]),
            length: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            ppid: [bytes[8], bytes[9], bytes[10], bytes[11]],
        };
        let bound = if header.control { MAX_CONTROL } else { MAX_FRAME };
        if header.length == 0 || header.length as usize > bound {
            return Err(FrameError::Length(header.length));
        }
        if header.control && !(header.begin && header.end) {
            return Err(FrameError::Order);
        }
        Ok(header)
    }
}

/// Why a byte stream is no session of ours. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// It does not begin with a greeting.
    Stranger,
    /// A greeting of a version that is not spoken here.
    Version(u8),
    /// The greeting claims the wrong end of the connection, or too long an extension.
    Greeting,
    /// Flag bits that version 1 does not know.
    UnknownFlags(u8),
    /// A length of 0 or beyond the bound.
    Length(u32),
    /// A beginning inside a message, a continuation outside one, or a control message in parts.
    Order,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Stranger => f.write_str("it does not speak the RSerPool session protocol"),
            FrameError::Version(version) => {
                write!(f, "it speaks version {version} of the session protocol, we speak {VERSION}")
            }
            FrameError::Greeting => f.write_str("bad greeting"),
            FrameError::UnknownFlags(flags) => write!(f, "unknown frame flags 0x{flags:02x}"),
            FrameError::Length(length) => write!(f, "bad frame length {length}"),
            FrameError::Order => f.write_str("fragments out of order"),
        }
    }
}

impl std::error::Error for FrameError {}

/// What comes next in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The input is used up; nothing is complete.
    More,
    /// The peer's greeting.
    Greeting(Greeting),
    /// A whole ASAP message from the control channel.
    Control(Vec<u8>),
    /// Application data: the reader stands in front of `left` payload bytes, which the caller takes
    /// from the input (or from the socket) and confirms with [`FrameReader::taken`].
    Data(Data),
}

/// A data frame, as far as it has not been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// Payload bytes still to be taken from this frame.
    pub left: usize,
    /// Whether the message ends with this frame.
    pub last: bool,
    /// Whether the whole message is this one frame.
    pub single: bool,
    /// Stream number.
    pub stream: u16,
    /// Opaque.
    pub ppid: [u8; 4],
}

/// Takes a peer's bytes apart, in pieces of any size, without touching payload.
///
/// ```text
/// Greeting ──► Extension ──► Header ──► Data ──┐
///                              ▲  └──► Control ┤
///                              └───────────────┘
/// ```
#[derive(Debug)]
pub struct FrameReader {
    state: FrameState,
    /// Inside a message of several frames.
    open: bool,
    /// Which end we expect the peer to be.
    peer_accepts: bool,
}

#[derive(Debug)]
enum FrameState {
    Greeting { bytes: [u8; GREETING_LENGTH], have: usize },
    Extension { left: u16 },
    Header { bytes: [u8; HEADER_LENGTH], have: usize },
    Data(Data),
    Control { bytes: Vec<u8>, length: usize },
    Dead(FrameError),
}

impl FrameReader {
    /// A reader at the very beginning. `peer_accepts`: we dialled.
    pub fn new(peer_accepts: bool) -> FrameReader {
        let state = FrameState::Greeting { bytes: [0; GREETING_LENGTH], have: 0 };
        FrameReader { state, open: false, peer_accepts }
    }

    /// Whether the peer's greeting has come.
    pub fn greeted(&self) -> bool {
        !matches!(self.state, FrameState::Greeting { .. } | FrameState::Extension { .. })
    }

    /// Whether nothing of a frame or message has begun: the one place where a stream may end.
    pub fn at_boundary(&self) -> bool {
        match &self.state {
            FrameState::Header { have, .. } => *have == 0 && !self.open,
            _ => false,
        }
    }

    /// Whether bytes read now would be a header from its first byte on.
    pub fn at_header(&self) -> bool {
        matches!(self.state, FrameState::Header { have: 0, .. })
    }

    /// Whether the header of a frame has come, and not all the rest of it.
    pub fn in_frame(&self) -> bool {
        matches!(self.state, FrameState::Data(_) | FrameState::Control { .. })
    }

    /// The data frame in front of which the reader stands.
    pub fn data(&self) -> Option<Data> {
        match self.state {
            FrameState::Data(data) => Some(data),
            _ => None,
        }
    }

    /// Confirms that `count` payload bytes of the current data frame were taken.
    pub fn taken(&mut self, count: usize) {
        if let FrameState::Data(data) = &mut self.state {
            data.left = data.left.saturating_sub(count);
            if data.left == 0 {
                self.open = !data.last;
                self.state = FrameState::header();
            }
        }
    }

    /// Advances `input` up to the next item. After an error every call repeats it.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Item, FrameError> {
        let result = self.step(input);
        if let Err(error) = result {
            self.state = FrameState::Dead(error);
        }
        result
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Item, FrameError> {
        loop {
            match &mut self.state {
                FrameState::Greeting { bytes, have } => {
                    let full = fill(bytes, have, input);
                    let prefix = MAGIC.len().min(*have);
                    if bytes[..prefix] != MAGIC[..prefix] {
                        return Err(FrameError::Stranger);
                    }
                    if !full {
                        return Ok(Item::More);
                    }
                    let bytes = *bytes;
                    return self.greeting(bytes).map(Item::Greeting);
                }
                FrameState::Extension { left } => {
                    let skip = input.len().min(usize::from(*left));
                    *input = &input[skip..];
                    *left -= skip as u16;
                    if *left > 0 {
                        return Ok(Item::More);
                    }
                    self.state = FrameState::header();
                }
                FrameState::Header { bytes, have } => {
                    let header = match input.split_first_chunk() {
                        // Most often it has come in one piece.
                        Some((whole, rest)) if *have == 0 => {
                            *input = rest;
                            FrameHeader::decode(whole)?
                        }
                        _ if !fill(bytes, have, input) => return Ok(Item::More),
                        _ => FrameHeader::decode(bytes)?,
                    };
                    self.header(header)?;
                }
                FrameState::Data(data) => return Ok(Item::Data(*data)),
                FrameState::Control { bytes, length } => {
                    let take = input.len().min(*length - bytes.len());
                    bytes.extend_from_slice(&input[..take]);
                    *input = &input[take..];
                    if bytes.len() < *length {
                        return Ok(Item::More);
                    }
                    let message = std::mem::take(bytes);
                    self.state = FrameState::header();
                    return Ok(Item::Control(message));
                }
                FrameState::Dead(error) => return Err(*error),
            }
        }
    }

    fn greeting(&mut self, bytes: [u8; GREETING_LENGTH]) -> Result<Greeting, FrameError> {
        let greeting = Greeting { version: bytes[8], accepting: bytes[9] & ACCEPTING != 0 };
        let left = u16::from_be_bytes([bytes[10], bytes[11]]);
        if greeting.version != VERSION {
            return Err(FrameError::Version(greeting.version));
        }
        if greeting.accepting != self.peer_accepts || left > MAX_EXTENSION {
            return Err(FrameError::Greeting);
        }
        self.state = if left == 0 { FrameState::header() } else { FrameState::Extension { left } };
        Ok(greeting)
    }

    fn header(&mut self, header: FrameHeader) -> Result<(), FrameError> {
        let length = header.length as usize;
        if header.control {
            // Allocated as it arrives: a declared length costs the peer its bytes.
            self.state = FrameState::Control { bytes: Vec::new(), length };
            return Ok(());
        }
        if header.begin == self.open {
            return Err(FrameError::Order);
        }
        self.state = FrameState::Data(Data {
            left: length,
            last: header.end,
            single: header.begin && header.end,
            stream: header.stream,
            ppid: header.ppid,
        });
        Ok(())
    }
}

impl FrameState {
    fn header() -> FrameState {
        FrameState::Header { bytes: [0; HEADER_LENGTH], have: 0 }
    }
}

/// Moves bytes from `input` until `bytes` is full; whether it is.
fn fill<const N: usize>(bytes: &mut [u8; N], have: &mut usize, input: &mut &[u8]) -> bool {
    if input.is_empty() {
        return *have == N;
    }
    let take = input.len().min(N - *have);
    bytes[*have..*have + take].copy_from_slice(&input[..take]);
    *have += take;
    *input = &input[take..];
    *have == N
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(begin: bool, end: bool, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            begin,
            end,
            unordered: true,
            control: false,
            stream: 7,
            length: payload.len() as u32,
            ppid: [1, 2, 3, 4],
        };
        [&header.encode()[..], payload].concat()
    }

    /// Everything a stream says, fed in pieces of `piece` bytes, payload joined per message.
    fn read(stream: &[u8], piece: usize) -> Result<Vec<String>, FrameError> {
        let mut reader = FrameReader::new(true);
        let (mut said, mut payload) = (Vec::new(), Vec::new());
        for mut input in stream.chunks(piece) {
            loop {
                match reader.next(&mut input)? {
                    Item::More => break,
                    Item::Greeting(greeting) => said.push(format!("hello {}", greeting.version)),
                    Item::Control(bytes) => said.push(format!("control {bytes:?}")),
                    Item::Data(data) => {
                        let take = data.left.min(input.len());
                        if take == 0 {
                            break;
                        }
                        payload.extend_from_slice(&input[..take]);
                        input = &input[take..];
                        reader.taken(take);
                        if take == data.left && data.last {
                            said.push(format!("data {payload:?} on {}", data.stream));
                            payload.clear();
                        }
                    }
                }
            }
        }
        Ok(said)
    }

    #[test]
    fn the_same_in_pieces_of_any_size() {
        let mut stream = Greeting::ours(true).encode().to_vec();
        stream.extend(data(true, true, b"one"));
        stream.extend(data(true, false, b"tw"));
        stream.extend(FrameHeader::control(4).encode());
        stream.extend(b"asap");
        stream.extend(data(false, true, b"o"));
        let whole = read(&stream, stream.len()).unwrap();
        assert_eq!(
            whole,
            [
                "hello 1",
                "data [111, 110, 101] on 7",
                "control [97, 115, 97, 112]",
                "data [116, 119, 111] on 7"
            ]
        );
        for piece in 1..stream.len() {
            assert_eq!(read(&stream, piece).unwrap(), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn an_extension_is_skipped() {
        let mut stream = Greeting::ours(true).encode().to_vec();
        stream[11] = 5;
        stream.extend([9; 5]);
        stream.extend(data(true, true, b"x"));
        for piece in 1..stream.len() {
            assert_eq!(read(&stream, piece).unwrap(), ["hello 1", "data [120] on 7"]);
        }
    }

    #[test]
    fn strangers_are_known_by_their_first_wrong_byte() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n", 1), Err(FrameError::Stranger));
        assert_eq!(read(b"RSX", 3), Err(FrameError::Stranger));
        let mut other = Greeting::ours(true).encode();
        other[8] = 9;
        assert_eq!(read(&other, 12), Err(FrameError::Version(9)));
        assert_eq!(read(&Greeting::ours(false).encode(), 12), Err(FrameError::Greeting));
        let mut long = Greeting::ours(true).encode();
        long[10] = 0xff;
        assert_eq!(read(&long, 12), Err(FrameError::Greeting));
    }

    #[test]
    fn what_frames_may_not_do() {
        let hello = Greeting::ours(true).encode().to_vec();
        let after = |bytes: Vec<u8>| read(&[hello.clone(), bytes].concat(), 64).unwrap_err();
        assert_eq!(after(data(false, true, b"x")), FrameError::Order);
        assert_eq!(after([data(true, false, b"x"), data(true, true, b"y")].concat()), FrameError::Order);
        assert_eq!(after(data(true, true, b"")), FrameError::Length(0));
        let mut huge = data(true, true, b"x");
        huge[4..8].copy_from_slice(&(MAX_FRAME as u32 + 1).to_be_bytes());
        assert_eq!(after(huge), FrameError::Length(MAX_FRAME as u32 + 1));
        let mut odd = data(true, true, b"x");
        odd[0] |= 0x80;
        assert_eq!(after(odd), FrameError::UnknownFlags(0x87));
        let mut parts = FrameHeader::control(4).encode().to_vec();
        parts[0] = CONTROL | BEGIN;
        assert_eq!(after(parts), FrameError::Order);
        let long = FrameHeader { length: MAX_CONTROL as u32 + 1, ..FrameHeader::control(0) };
        assert_eq!(after(long.encode().to_vec()), FrameError::Length(MAX_CONTROL as u32 + 1));
    }

    #[test]
    fn the_end_is_allowed_between_messages_only() {
        let mut reader = FrameReader::new(true);
        let mut go = |bytes: &[u8]| {
            let mut input = bytes;
            while let Ok(item) = reader.next(&mut input) {
                match item {
                    Item::More => break,
                    Item::Data(data) if !input.is_empty() => {
                        let take = data.left.min(input.len());
                        input = &input[take..];
                        reader.taken(take);
                    }
                    Item::Data(_) => break,
                    _ => {}
                }
            }
            reader.at_boundary()
        };
        assert!(!go(b"RSer"));
        assert!(go(&Greeting::ours(true).encode()[4..]));
        assert!(!go(&data(true, false, b"ab")));
        assert!(!go(&data(false, true, b"cd")[..13]));
        assert!(go(b"d"));
    }

    #[test]
    fn headers_survive_the_round_trip() {
        for flags in 0..16u8 {
            let header = FrameHeader {
                begin: flags & 1 != 0,
                end: flags & 2 != 0,
                unordered: flags & 4 != 0,
                control: flags & 8 != 0,
                stream: 0xfffe,
                length: 65_536,
                ppid: [0, 0, 0, 32],
            };
            match FrameHeader::decode(&header.encode()) {
                Ok(same) => assert_eq!(same, header),
                Err(error) => {
                    assert_eq!(error, FrameError::Order);
                    assert!(header.control && !(header.begin && header.end));
                }
            }
        }
    }
}
