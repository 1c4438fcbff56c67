//! Descriptors, blocking, time-outs, sessions: what happens on the caller's thread.
//!
//! A descriptor is the number of an epoll instance, so it is a real file descriptor: readable when `recv` or `accept`
//! has something. Errors are [`SocketError`]s: what happened; which errno that is, `ffi` knows.
//!
//! Five steps; each uses those below it and knows nothing of those above (`tests/tidy.rs` holds it):
//!
//! | step | what | files |
//! |---|---|---|
//! | `api` | the RSerPool socket API: [`Library`] | `mod`, `registration`, `basic`, `connect`, `data`, `sendto`, `mapped`, `poll`, `waitset`, `report`, `fork` |
//! | `descriptor` | what an application's number stands for | `entry`, `base`, `endpoint`, `addresses`, `listener`, `many`, `strangers`, `door`, `partners`, `table` |
//! | `session` | one session: its state, what its owner is told | `mod`, `receiving`, `sending`, `hub`, `pool`, `told` |
//! | `channel` | one connection of a session | `conn`, `carrier`, `sender`, `receiver`, `ahead`, `association`, `linger`, `silence`, `hoards`, `parameters`, `stranger` |
//! | `readiness` | being readable, waiting, waking | `mod`, `wait`, `waitset`, `attendant` |
//!
//! Below all of them: `error`.

mod api;
pub(crate) mod channel;
mod descriptor;
mod error;
mod readiness;
mod session;

#[cfg(test)]
mod sctp_tests;
#[cfg(test)]
mod tests;

pub use crate::transport::sctp_socket::send_flags;
pub(crate) use crate::transport::sockaddr;
pub use api::Library;
pub use api::basic::OwnElement;
pub(crate) use api::fork::Process;
pub use api::poll::PollEntry;
pub use api::registration::Registration;
pub use channel::parameters::SessionParameters;
pub use descriptor::entry::Style;
pub use error::SocketError;
pub use session::told::{
    ConnectOptions, NOTIFICATION_ROOM, Notification, Received, Recipient, Room, SendOptions, SessionId,
    ToPool,
};
