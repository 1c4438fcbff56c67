//! TLS 1.3 (RFC 8446) with certificates at both ends, over TCP: RFC 5355's answer to most of its threats.
//!
//! | file | what |
//! |---|---|
//! | `credentials` | certificate, key, authority: who we are, whom we believe |
//! | `engine` | one connection's cryptography, without a socket |
//! | `link` | ASAP or ENRP messages over it |
//! | `stream` | a session's bytes over it |
//! | `der` | the dates in certificates |
//!
//! A client that has finished its handshake does not know yet whether the server likes its certificate; a
//! refusal would come with the first read. So the client asks for new keys right away (KeyUpdate, RFC 8446
//! section 4.6.3), and the server's answer proves that it was let in: the peer has *proved itself*. That
//! costs one round trip, in the same flight as the end of the handshake, and any TLS 1.3 server gives it.

mod credentials;
mod der;
mod engine;
mod link;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

pub use credentials::{Credentials, Fault, Files, Judge, Mode, Purpose};
pub use engine::{Engine, Failure};
pub use link::TlsLink;
pub use stream::TlsStream;

pub use super::tcp::FIRST_BYTE;
