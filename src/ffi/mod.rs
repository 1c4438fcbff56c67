//! The C library: `rsp_*` functions, `repr(C)` types, errno.
//!
//! Every function is one `guard` around a conversion and one call into `socket` or
//! `runtime`; nothing is decided here. What programs inherited from the classic API and what reads
//! oddly is in [`legacy`]. `include/rserpool/*.h` is made from these files by `tests/header.rs`, so
//! their doc comments are the header's.
//!
//! Pointers are checked for NULL before use; that they are valid otherwise is the caller's duty, as in
//! any C API.

#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)]
// Parameters are spelled as C programmers see them in the headers.
#![allow(non_snake_case)]

pub mod abi;
pub mod basic;
pub mod constants;
mod convert;
pub mod counters;
pub mod csp;
mod current;
pub mod explain;
mod guard;
mod info;
pub mod internals;
pub mod legacy;
pub mod library;
mod logging;
pub mod message;
pub mod policy;
pub mod policytypes;
pub mod poll;
pub mod sendto;
pub mod session;
pub mod socket;

/// The errno that C gets for an error, for tests of the room below.
#[cfg(test)]
pub(crate) fn errno_of(error: crate::socket::SocketError) -> i32 {
    guard::Errno::from(error).0
}
