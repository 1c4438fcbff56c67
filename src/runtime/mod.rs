//! The background event thread: mio poll, waker, command channel, timers. It feeds the machines and
//! carries out their outputs; one reactor serves both the library ([`Runtime`]) and the registrar.
//!
//! | file | what |
//! |---|---|
//! | `settings`, `address` | what a process can set, and how it is written |
//! | `directory` | [`Directory`]: what sockets ask for, and the [`Answer`] |
//! | `shared`, `thread` | what the callers and the event thread share; how threads are started |
//! | `calls` | [`Runtime`]: the callers' side |
//! | `cache` | resolutions, read on the callers' threads |
//! | `pool` | [`Pool`]: a followed pool, for plain connections |
//! | `library` | the event thread's loop around the client machine |
//! | `csp` | reports to a monitor (component status protocol) |
//! | `registrar` | the loop around the registrar machine |
//! | `serving` | where who keeps a server's registration is found |
//! | `embedded` | a registrar in a thread of a program |
//! | `reactor` | the loops' engine: links, listeners, groups, timers |
//! | `guests` | who has to go where places are short, by hosts |
//! | `groups` | multicast groups, tried again while they can't be used |
//! | `security` | what a process proves itself by, kept up to date |
//! | `advertise` | where users reach elements, if that is not where they listen |
//! | `names` | hosts that are given by name, looked up again when nobody answers |
//! | `complaints` | log lines that others can cause: once per cause, host and minute |
//! | `counters` | what the library did, for programs that export it |
//! | `why` | what lies behind an error, in words |

#[doc(hidden)]
pub mod address;
mod advertise;
mod cache;
mod calls;
pub(crate) mod complaints;
pub(crate) mod counters;
#[doc(hidden)]
pub mod csp;
mod directory;
mod embedded;
mod groups;
#[doc(hidden)]
pub mod guests;
mod library;
mod names;
mod pool;
mod reactor;
#[doc(hidden)]
pub mod registrar;
mod security;
mod serving;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
pub(crate) mod thread;
pub mod why;

pub use calls::Runtime;
pub use directory::{Answer, Directory};
pub use pool::{Follower, Pool};
pub use security::{Tls, TlsStatus};
pub use settings::Settings;

// For the programs beside the library, and what is preloaded.
#[doc(hidden)]
pub use reactor::Waker;
#[doc(hidden)]
pub use security::{Keeper, SessionSecurity};
#[doc(hidden)]
pub use serving::keeper_name;
#[doc(hidden)]
pub use settings::{MIN_CSP_INTERVAL, advertised, parse_announce, parse_transport, targets};
#[doc(hidden)]
pub use thread::is_event_thread;

/// Where users reach an element. Asked from the event thread whenever the interfaces change; must not block.
pub trait Reachable: Send + Sync {
    /// How, at present; `None`: by no address.
    fn transport(&self) -> Option<crate::wire::Transport>;
}

/// Told, from the event thread, that a watched element left its pool. Must not block.
pub trait Watcher: Send + Sync {
    /// The element is gone; the session with it must move.
    fn element_gone(&self);
}
