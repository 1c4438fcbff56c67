//! One connection of a session: what it runs over, sending, receiving, lingering, parameters. It knows nothing
//! of sessions and descriptors.
//!
//! | file | what |
//! |---|---|
//! | `conn` | a connection, whatever it runs over |
//! | `carrier` | the byte stream under a session over TCP |
//! | `sender`, `receiver` | the two halves of a session over the TCP mapping |
//! | `ahead` | what the receiving half has read and not taken apart |
//! | `association` | a session over the kernel's SCTP |
//! | `linger` | what goes on when the caller is gone: backlogs, ends in order |
//! | `silence` | noticing that a peer's host is gone |
//! | `hoards` | what the kernel keeps for sessions over SCTP, and whose hosts are gone |
//! | `parameters` | session parameters, and what they are for TCP |
//! | `stranger` | a connection for the fuzz target |

pub(crate) mod ahead;
pub(crate) mod association;
pub(crate) mod carrier;
pub(crate) mod conn;
pub(crate) mod hoards;
pub(crate) mod linger;
pub(crate) mod parameters;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod silence;
#[cfg(any(test, fuzzing))]
pub(crate) mod stranger;
