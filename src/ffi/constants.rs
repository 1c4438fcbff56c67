//! The constants of `rserpool.h`. Those that cbindgen cannot express (`RSPGETADDRS_*`, addresses) are
//! text in `cbindgen.toml`'s header parts, see `tests/header.rs`.

#![allow(missing_docs)]

use libc::{c_int, c_uint};

pub const RSPLIB_VERSION: c_uint = 2;
pub const RSPLIB_REVISION: c_uint = 3;

/// Port of ASAP, between registrars and everyone.
pub const ASAP_PORT: u16 = 3863;
/// Port of ENRP, between registrars.
pub const ENRP_PORT: u16 = 9901;

/// Flags of rsp_register and rsp_pe_registration.
/// Don't wait for the registrar's answer.
pub const REGF_DONTWAIT: c_int = 1;
/// The element understands the ASAP control channel (sessions with cookies).
pub const REGF_CONTROLCHANNEL: c_int = 2;
/// Register even if there is no usable local address yet.
pub const REGF_DAEMONMODE: c_int = 4;

/// Flag of rsp_deregister and rsp_pe_deregistration: don't wait for the registrar's answer.
pub const DEREGF_DONTWAIT: c_int = 1;

/// Flags of rsp_forcefailover.
pub const FFF_NONE: c_uint = 0;
/// Report the element as unreachable.
pub const FFF_UNREACHABLE: c_uint = 1;

/// Flags out of rsp_recvmsg: the buffer holds a notification.
pub const MSG_RSERPOOL_NOTIFICATION: c_int = 1;
/// The buffer holds the cookie of a session that came over from another element.
pub const MSG_RSERPOOL_COOKIE_ECHO: c_int = 2;

/// Types of notification.
pub const RSERPOOL_SESSION_CHANGE: u16 = 1;
pub const RSERPOOL_FAILOVER: u16 = 2;
pub const RSERPOOL_SHUTDOWN_EVENT: u16 = 3;

/// Not in rsplib: only who calls rsp_sendto_pool gets it.
pub const RSERPOOL_SEND_FAILED: u16 = 4;

pub const RSERPOOL_FAILOVER_NECESSARY: c_uint = 1;
pub const RSERPOOL_FAILOVER_COMPLETE: c_uint = 2;

pub const RSERPOOL_SESSION_ADD: c_uint = 1;
pub const RSERPOOL_SESSION_REMOVE: c_uint = 2;

/// The element could not be reached.
pub const RSERPOOL_SEND_UNREACHED: c_uint = 1;
/// The connection broke before the element sent anything back: it may have got the message.
pub const RSERPOOL_SEND_UNCERTAIN: c_uint = 2;

/// Options of rsp_sendto_pool (RFC 5352 section 6.5.5).
/// To whom the policy chooses, and to another element if that one can't be reached; to a certain element only.
pub const ASAP_USE_DEFAULT: c_uint = 0x0000;
/// To another element if the first one can't be reached.
pub const ASAP_SEND_FAILOVER: c_uint = 0x0001;
/// To no other element if the first one can't be reached.
pub const ASAP_SEND_NO_FAILOVER: c_uint = 0x0002;
/// To whom the last message to this pool went.
pub const ASAP_SEND_TO_LAST: c_uint = 0x0004;
/// A copy to each of the pool's elements, but not to the descriptor's own.
pub const ASAP_SEND_TO_ALL: c_uint = 0x0008;
/// With ASAP_SEND_TO_ALL: to the descriptor's own element as well.
pub const ASAP_SEND_TO_SELF: c_uint = 0x0010;
/// The message may overtake others (SCTP).
pub const ASAP_SCTP_UNORDER: c_uint = 0x1000;

/// rsplib's limit of sessions per descriptor. Kept for programs that size tables by it; not a limit here.
pub const SESSION_SETSIZE: c_int = 16384;

/// Errors of rsp_getaddrinfo: unknown pool, or an empty one.
pub const REAI_NONAME: c_int = -1;
pub const REAI_MEMORY: c_int = -2;
/// See errno.
pub const REAI_SYSTEM: c_int = -3;
pub const REAI_FAMILY: c_int = -4;

/// Results of rsp_pe_registration, rsp_pe_deregistration and rsp_pe_failure.
pub const RSPERR_OKAY: c_uint = 0x0000;
pub const RSPERR_UNRECOGNIZED_PARAMETER: c_uint = 0x0001;
pub const RSPERR_UNRECOGNIZED_MESSAGE: c_uint = 0x0002;
pub const RSPERR_INVALID_TLV: c_uint = 0x0003;
pub const RSPERR_INCOMPATIBLE_POOL_POLICY: c_uint = 0x0005;
pub const RSPERR_OUT_OF_MEMORY: c_uint = 0x0006;
pub const RSPERR_WRONG_CONTROLCHANNEL_HANDLING: c_uint = 0x0008;
pub const RSPERR_NOT_FOUND: c_uint = 0x0009;
pub const RSPERR_INVALID_MESSAGE: c_uint = 0x0010;
pub const RSPERR_INVALID_VALUE: c_uint = 0x0011;
pub const RSPERR_NOT_INITIALIZED: c_uint = 0x1000;
pub const RSPERR_BUFFERSIZE_EXCEEDED: c_uint = 0x1001;
pub const RSPERR_READ_ERROR: c_uint = 0x1003;
pub const RSPERR_WRITE_ERROR: c_uint = 0x1004;
pub const RSPERR_CONNECTION_FAILURE_SOCKET: c_uint = 0x1005;
pub const RSPERR_CONNECTION_FAILURE_CONNECT: c_uint = 0x1006;
pub const RSPERR_NO_REGISTRAR: c_uint = 0x1007;
pub const RSPERR_TIMEOUT: c_uint = 0x1008;
pub const RSPERR_UNRECOGNIZED_PARAMETER_SILENT: c_uint = 0x1009;
pub const RSPERR_WRONG_PROTOCOL: c_uint = 0x100a;
pub const RSPERR_UNSUPPORTED_POOL_POLICY: c_uint = 0x100b;
pub const RSPERR_INVALID_ID: c_uint = 0xf000;
pub const RSPERR_OWN_ID: c_uint = 0xf001;
pub const RSPERR_DUPLICATE_ID: c_uint = 0xf002;
pub const RSPERR_INVALID_POOL_POLICY: c_uint = 0xf003;
pub const RSPERR_INVALID_POOL_HANDLE: c_uint = 0xf004;
pub const RSPERR_INVALID_ADDRESSES: c_uint = 0xf005;
pub const RSPERR_INVALID_REGISTRATOR: c_uint = 0xf006;
pub const RSPERR_NO_USABLE_ASAP_ADDRESSES: c_uint = 0xf007;
pub const RSPERR_NO_USABLE_USER_ADDRESSES: c_uint = 0xf008;
