//! The tags of `rserpool-internals.h`.

#![allow(missing_docs, non_upper_case_globals)]

use libc::c_uint;

/// The pool element's identifier, 1 to 0xffffffff (rsp_register_tags). Default: random.
pub const TAG_PoolElement_Identifier: c_uint = 1_001_000;
/// Where users reach the element, if that is not where it listens: behind NAT, or a published port. The address of a
/// string, "host[:port]"; without a port, its own (rsp_register_tags). None: as the process's -advertise= or RSP_ADVERTISE.
pub const TAG_PoolElement_Advertise: c_uint = 1_009_000;
/// How long connecting to an element may take, in microseconds (rsp_connect_tags). Default: 5000000.
pub const TAG_RspSession_ConnectTimeout: c_uint = 1_002_000;
/// Pause of rsp_forcefailover when the pool is empty, in microseconds (rsp_connect_tags). Default: 250000.
pub const TAG_RspSession_HandleResolutionRetryDelay: c_uint = 1_002_001;
/// The tags from here on are known by name and have no effect: struct rsp_info has these settings.
pub const TAG_RspLib_CacheElementTimeout: c_uint = 1_004_000;
pub const TAG_RspLib_RegistrarAnnounceAddress: c_uint = 1_004_001;
pub const TAG_RspLib_RegistrarAnnounceTimeout: c_uint = 1_004_002;
pub const TAG_RspLib_RegistrarConnectMaxTrials: c_uint = 1_004_003;
pub const TAG_RspLib_RegistrarConnectTimeout: c_uint = 1_004_004;
pub const TAG_RspLib_RegistrarRequestMaxTrials: c_uint = 1_004_005;
pub const TAG_RspLib_RegistrarRequestTimeout: c_uint = 1_004_006;
pub const TAG_RspLib_RegistrarResponseTimeout: c_uint = 1_004_007;
