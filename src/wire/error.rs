//! Operation errors and their causes (RFC 5354 section 3.12), and why bytes could not be decoded.

use super::code::{ParamType, code_points};
use super::reader::{Param, excerpt};
use super::show::Bytes;
use super::writer::{Writer, param_len};
use std::fmt;

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

/// An operation error parameter: one or more causes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperationError(pub Vec<Cause>);

impl Cause {
    /// A cause without information.
    pub fn bare(code: CauseCode) -> Cause {
        Cause { code, data: Vec::new() }
    }
}

impl From<CauseCode> for OperationError {
    fn from(code: CauseCode) -> OperationError {
        OperationError(vec![Cause::bare(code)])
    }
}

impl OperationError {
    /// The first cause's code; an error without any cause is an unspecified one.
    pub fn code(&self) -> CauseCode {
        self.0.first().map_or(CauseCode::UNSPECIFIED, |cause| cause.code)
    }

    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        param_len(self.0.iter().map(|cause| param_len(cause.data.len())).sum())
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.param(ParamType::ERROR, |w| {
            for cause in &self.0 {
                w.tlv(cause.code.0, |w| w.bytes(&cause.data));
            }
        });
    }

    pub(crate) fn decode(mut param: Param<'_>) -> Result<OperationError, DecodeError> {
        let mut causes = Vec::new();
        while !param.value.is_empty() {
            // A cause is laid out as a parameter is.
            let mut cause = param.value.param()?;
            causes.push(Cause { code: CauseCode(cause.kind.0), data: cause.value.rest().to_vec() });
        }
        Ok(OperationError(causes))
    }
}

/// `unknown pool handle (0x9)`, several separated by commas.
impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cause) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{cause}")?;
        }
        if self.0.is_empty() { f.write_str("no cause") } else { Ok(()) }
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
