//! Bytes to values and back: RFC 5354 parameters, RFC 5352 (ASAP) and RFC 5353 (ENRP) messages,
//! RFC 5356 policies, the session frames of the TCP mapping, CSP reports, one-line printing.
//!
//! Promises, each held by a test and a fuzz target:
//! - decoding never panics and never reads past a declared length;
//! - encoding cannot fail, and fixes every length and all padding itself;
//! - `decode(encode(m)) == m` for every message that fits and says things the one way there is
//!   (no IPv4 address in IPv6 clothes, no `Other(0)`), and what rsplib writes is encoded to the same
//!   bytes again.
//!
//! Where RFC and rsplib 3.4.4 differ, both readings are accepted, and what is sent is what both
//! understand. Parameters may come in any order, among others that have no business there. Nothing in this room knows the rest of the crate, a clock, a socket or randomness.

#[doc(hidden)]
pub mod asap;
#[doc(hidden)]
pub mod cause;
#[doc(hidden)]
pub mod code;
#[doc(hidden)]
pub mod csp;
#[doc(hidden)]
pub mod enrp;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod frame;
pub mod handle;
pub mod param;
pub mod policy;
pub(crate) mod reader;
#[doc(hidden)]
pub mod scope;
#[doc(hidden)]
pub mod session_frame;
#[doc(hidden)]
pub mod show;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

pub use cause::{Cause, CauseCode};
pub use error::OperationError;
pub use handle::{MAX_HANDLE, PeId, PoolHandle, RegistrarId};
pub use param::{PoolElement, Protocol, Transport, TransportUse};
pub use policy::{Policy, PolicyType, policy_name, policy_type_by_name};

// Messages and what they are made of: for machines, programs and tests.
#[doc(hidden)]
pub use asap::{ALL_ITEMS, Asap};
#[doc(hidden)]
pub use cause::DecodeError;
#[doc(hidden)]
pub use code::{AsapType, EnrpType, ParamType, Unknown};
#[doc(hidden)]
pub use csp::{CspAssociation, CspId, CspReport};
#[doc(hidden)]
pub use enrp::{Enrp, EnrpMessage};
#[doc(hidden)]
pub use param::ServerInformation;
#[doc(hidden)]
pub use writer::{Lengths, MAX_MESSAGE};

/// The result of decoding: the message, and the unknown parameters that the sender wants reported
/// (type bits `01` and `11`, RFC 5354 section 3.13), each as its whole TLV.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<M> {
    /// The message itself.
    pub message: M,
    /// Whole TLVs of unknown parameters to be reported with cause 0x1; always few and short enough
    /// for one error message, and none of an Error message.
    pub unrecognized: Vec<Vec<u8>>,
}

impl<M> Decoded<M> {
    /// The error that reports the unknown parameters, if there are any to report.
    pub fn report(&self) -> Option<OperationError> {
        let cause = |data: &Vec<u8>| Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data: data.clone() };
        let causes: Vec<Cause> = self.unrecognized.iter().map(cause).collect();
        (!causes.is_empty()).then_some(OperationError(causes))
    }
}

/// SCTP payload protocol identifier of ASAP (RFC 5352 section 7.2; host order).
pub const PPID_ASAP: u32 = 11;
/// SCTP payload protocol identifier of ENRP (RFC 5353 section 6.2; host order).
pub const PPID_ENRP: u32 = 12;
/// Default ASAP port (IANA).
pub const ASAP_PORT: u16 = 3863;
/// Default port of ASAP over TLS (IANA: asap-tcp-tls).
pub const ASAP_TLS_PORT: u16 = 3864;
/// Default ENRP port (IANA).
pub const ENRP_PORT: u16 = 9901;
/// Default port of ENRP over TLS (IANA: enrp-sctp-tls).
pub const ENRP_TLS_PORT: u16 = 9902;
