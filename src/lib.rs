//! Reliable Server Pooling (RFC 5351-5356).
//!
//! Servers (*pool elements*) register under a *pool handle* with a *registrar*; clients (*pool
//! users*) resolve the handle, choose an element by the pool's policy, and move their session to
//! another element when the one in use fails.
//!
//! A Rust program needs two rooms, and the values of a third:
//!
//! | room | for |
//! |---|---|
//! | [`runtime`] | [`runtime::Runtime`]: registers elements, resolves and follows pools; connections are the program's own |
//! | [`socket`] | [`socket::Library`]: sessions that outlive their elements, on descriptors that poll(2) knows |
//! | [`wire`] | handles, identifiers, transports, policies |
//!
//! An element and a user in one process, with a registrar of its own; without `embedded_registrar`, registrars are found
//! as [`runtime::Settings::from_env`] says, by `RSP_REGISTRAR`, announcements, or at localhost.
//!
//! ```
//! use rserpool::Registration;
//! use rserpool::runtime::{Directory, Runtime, Settings};
//! use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
//! use std::time::Duration;
//!
//! let settings = Settings { embedded_registrar: true, announce: None, ..Settings::default() };
//! let runtime = Runtime::start(settings)?;
//! let handle = PoolHandle::new(b"EchoPool").expect("1 to 65000 bytes");
//!
//! // A server that listens at 127.0.0.1:7 enters the pool, and is kept in it.
//! let address = "127.0.0.1".parse()?;
//! let element = PoolElement {
//!     id: PeId(0x2a),
//!     home: RegistrarId(0),
//!     life: 30_000,
//!     transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 7, vec![address]),
//!     policy: Policy::RoundRobin,
//!     asap: None,
//! };
//! let registration = Registration { handle: handle.clone(), element, interval: Duration::from_secs(10) };
//! runtime.register(registration)?.wait()?;
//!
//! // A user asks who serves.
//! let found = runtime.resolve(&handle, 1, Duration::ZERO)?;
//! assert_eq!(found[0].id, PeId(0x2a));
//! assert_eq!(found[0].transport.socket_addresses().next(), Some("127.0.0.1:7".parse()?));
//! runtime.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! These three and what they name (beside them, at the crate's root) are the crate's API, by semantic versioning; structures that only
//! tell something, and errors, are `#[non_exhaustive]`. The other rooms, and of these three the messages and the registrar, are public for the
//! programs, tests and benchmarks beside them and may change at any time; they are hidden here. `docs/ARCHITECTURE.md` draws all of
//! them and says which may use which. The C API is in `include/rserpool/rserpool.h`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "rserpool needs a 64-bit system: rsplib's structures, which the C API has, and the bounds of its queues are laid out for one"
);
#[cfg(not(target_os = "linux"))]
compile_error!("rserpool needs Linux: descriptors are epoll instances, and SCTP is the kernel's");

#[cfg(feature = "dns")]
#[doc(hidden)]
pub mod dns;
// For the fuzz targets and the crate's own tests (cargo-fuzz sets `fuzzing`); nobody else's build has it.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod handlespace;
#[doc(hidden)]
pub mod machine;
pub mod wire;

// What the API's rooms name of the others.
pub use machine::client::{Registration, RequestError, Resolution};
pub use machine::seal::CookieKey;
pub use machine::{LinkProtocol, Target, Time};
pub use transport::allow::Networks;

// The rooms that do input and output: clocks, sockets and threads are theirs.
// Its texts are the C headers'.
#[allow(clippy::disallowed_methods, rustdoc::broken_intra_doc_links)]
#[doc(hidden)]
pub mod ffi;
#[allow(clippy::disallowed_methods)]
pub mod runtime;
#[allow(clippy::disallowed_methods)]
pub mod socket;
#[allow(clippy::disallowed_methods)]
#[doc(hidden)]
pub mod transport;
