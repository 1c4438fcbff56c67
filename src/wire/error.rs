//! Operation errors and their causes (RFC 5354 section 3.12), and why bytes could not be decoded.

/// A cause code; every 16-bit value is legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CauseCode(pub u16);

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

#[allow(missing_docs)]
impl CauseCode {
    pub const UNSPECIFIED: CauseCode = CauseCode(0x0);
    pub const UNRECOGNIZED_PARAMETER: CauseCode = CauseCode(0x1);
    pub const UNRECOGNIZED_MESSAGE: CauseCode = CauseCode(0x2);
    pub const INVALID_VALUES: CauseCode = CauseCode(0x3);
    pub const NON_UNIQUE_PE_ID: CauseCode = CauseCode(0x4);
    pub const INCONSISTENT_POLICY: CauseCode = CauseCode(0x5);
    pub const LACK_OF_RESOURCES: CauseCode = CauseCode(0x6);
    pub const INCONSISTENT_TRANSPORT: CauseCode = CauseCode(0x7);
    pub const INCONSISTENT_CONTROL: CauseCode = CauseCode(0x8);
    pub const UNKNOWN_POOL: CauseCode = CauseCode(0x9);
    pub const SECURITY: CauseCode = CauseCode(0xa);
    // rsplib's own numbers, understood by its clients.
    pub const INVALID_MESSAGE: CauseCode = CauseCode(0x10);
    pub const INVALID_VALUE: CauseCode = CauseCode(0x11);
    pub const WRONG_PROTOCOL: CauseCode = CauseCode(0x100a);
    pub const UNSUPPORTED_POLICY: CauseCode = CauseCode(0x100b);
    pub const INVALID_ID: CauseCode = CauseCode(0xf000);
    pub const INVALID_POLICY: CauseCode = CauseCode(0xf003);
    pub const INVALID_HANDLE: CauseCode = CauseCode(0xf004);
    pub const INVALID_ADDRESSES: CauseCode = CauseCode(0xf005);
    pub const INVALID_REGISTRAR: CauseCode = CauseCode(0xf006);
    pub const NO_USABLE_ASAP_ADDRESSES: CauseCode = CauseCode(0xf007);
    pub const NO_USABLE_USER_ADDRESSES: CauseCode = CauseCode(0xf008);
}

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
