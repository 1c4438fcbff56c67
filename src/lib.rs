//! Reliable Server Pooling (RFC 5351-5356).
//!
//! Servers (*pool elements*) register under a *pool handle* with a *registrar*; clients (*pool
//! users*) resolve the handle, choose an element by the pool's policy, and move their session to
//! another element when the one in use fails. This crate is the registrar, the pool element and
//! the pool user, as Rust rooms (`wire` .. `socket`) and as a C library ([`ffi`]) with the classic
//! RSerPool socket API.
//!
//! `docs/ARCHITECTURE.md` draws the rooms and says which may use which.

#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "rserpool needs a 64-bit system: rsplib's structures, which the C API has, and the bounds of its queues are laid out for one"
);
#[cfg(not(target_os = "linux"))]
compile_error!("rserpool needs Linux: descriptors are epoll instances, and SCTP is the kernel's");

// For the fuzz targets and tests, which have debug assertions; not in what is released.
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(any(test, debug_assertions))]
#[doc(hidden)]
pub mod fuzz;
pub mod handlespace;
pub mod machine;
pub mod wire;

// The rooms that do input and output: clocks, sockets and threads are theirs.
#[allow(clippy::disallowed_methods)]
pub mod ffi;
#[allow(clippy::disallowed_methods)]
pub mod runtime;
#[allow(clippy::disallowed_methods)]
pub mod socket;
#[allow(clippy::disallowed_methods)]
pub mod transport;
