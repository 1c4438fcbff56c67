//! Error causes (RFC 5354 section 3.12), why bytes could not be decoded, and such bytes for people.

use super::code::code_points;
use std::fmt::{self, Display, Formatter};

/// The longest piece of a message that is put into an error cause.
const MAX_CAUSE_DATA: usize = 65_000;
/// The most bytes of opaque data, and the most parameters of a broken message, that are shown.
pub(super) const SHOWN: usize = 32;

code_points! {
    /// A cause code; every 16-bit value is legal. From 0x10 on rsplib's own numbers, understood by
    /// its clients.
    CauseCode: u16 {
        UNSPECIFIED = 0x0 "unspecified error",
        UNRECOGNIZED_PARAMETER = 0x1 "unrecognized parameter",
        UNRECOGNIZED_MESSAGE = 0x2 "unrecognized message",
        INVALID_VALUES = 0x3 "invalid values",
        NON_UNIQUE_PE_ID = 0x4 "PE identifier not unique",
        INCONSISTENT_POLICY = 0x5 "inconsistent pool policy",
        LACK_OF_RESOURCES = 0x6 "lack of resources",
        INCONSISTENT_TRANSPORT = 0x7 "inconsistent transport type",
        INCONSISTENT_CONTROL = 0x8 "inconsistent data/control configuration",
        UNKNOWN_POOL = 0x9 "unknown pool handle",
        SECURITY = 0xa "rejected for security reasons",
        INVALID_MESSAGE = 0x10 "invalid message",
        INVALID_VALUE = 0x11 "invalid value",
        WRONG_PROTOCOL = 0x100a "wrong protocol",
        UNSUPPORTED_POLICY = 0x100b "unsupported policy",
        INVALID_ID = 0xf000 "invalid identifier",
        INVALID_POLICY = 0xf003 "invalid pool policy",
        INVALID_HANDLE = 0xf004 "invalid pool handle",
        INVALID_ADDRESSES = 0xf005 "invalid addresses",
        INVALID_REGISTRAR = 0xf006 "invalid registrar",
        NO_USABLE_ASAP_ADDRESSES = 0xf007 "no usable ASAP addresses",
        NO_USABLE_USER_ADDRESSES = 0xf008 "no usable user addresses",
    }
}

/// An error cause: code and cause-specific information.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cause {
    /// What went wrong.
    pub code: CauseCode,
    /// Details, e.g. the offending parameter.
    pub data: Vec<u8>,
}

impl Cause {
    /// A cause without information.
    pub fn bare(code: CauseCode) -> Cause {
        Cause { code, data: Vec::new() }
    }
}

/// `unknown pool handle (0x9)`, and the information if there is some.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code.name() {
            Some(name) => write!(f, "{name} ({:#x})", self.code.0)?,
            None => write!(f, "cause {:#x}", self.code.0)?,
        }
        if self.data.is_empty() { Ok(()) } else { write!(f, ": {}", Bytes(&self.data)) }
    }
}

/// As much of a message or parameter as fits an error cause.
pub(crate) fn excerpt(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(MAX_CAUSE_DATA)].to_vec()
}

/// Bytes for people: text if it is text, otherwise hexadecimal, cut where it gets long.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Display for Bytes<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        if !shown.is_empty()
            && shown.iter().all(|byte| (0x20..0x7f).contains(byte) && !b"\"\\".contains(byte))
        {
            write!(f, "\"{}\"", String::from_utf8_lossy(shown))?;
        } else if shown.is_empty() {
            f.write_str("\"\"")?;
        } else {
            f.write_str("0x")?;
            shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        if shown.len() < self.0.len() { write!(f, "...({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// Why bytes are not a message: where, what, and the cause to answer with, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Offset into the message.
    pub at: usize,
    /// A short reason for the log.
    pub reason: &'static str,
    /// What to tell the sender; `None` where the rules say silence (type bits `00` and `10`).
    pub cause: Option<Cause>,
}

impl DecodeError {
    /// A message type nobody here knows: reported if its two high bits are `01` (RFC 5354 section 4).
    pub(crate) fn unknown_message(bytes: &[u8]) -> DecodeError {
        let report = bytes.first().is_some_and(|kind| kind >> 6 == 1);
        let cause = Cause { code: CauseCode::UNRECOGNIZED_MESSAGE, data: excerpt(bytes) };
        DecodeError { at: 0, reason: "unknown message type", cause: report.then_some(cause) }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.reason)
    }
}

impl std::error::Error for DecodeError {}
