//! What a descriptor is: readiness, and what is behind it.
//!
//! | file | what |
//! |---|---|
//! | `entry` | one descriptor and its role |
//! | `base` | what it has whatever its role |
//! | `endpoint`, `addresses` | its own system socket, and how users reach that |
//! | `listener`, `many` | the roles of those that listen: `SOCK_STREAM`, `SOCK_SEQPACKET` |
//! | `strangers` | their connections that have not said hello |
//! | `door` | the same where they have to prove themselves (TLS): on a thread of its own |
//! | `partners` | the elements that a one-to-many descriptor sends to without a session |
//! | `table` | descriptors by number |

pub(crate) mod addresses;
pub(crate) mod base;
pub(crate) mod door;
pub(crate) mod endpoint;
pub(crate) mod entry;
pub(crate) mod listener;
pub(crate) mod many;
pub(crate) mod partners;
pub(crate) mod strangers;
pub(crate) mod table;
