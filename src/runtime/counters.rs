//! What the library did since the process began, for programs that export it. There is one set per process: it
//! outlives the library, which may be ended and started again.

use crate::machine::client::ClientCounts;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters; see [`COUNTERS`].
        #[derive(Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// What they are at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters of this process.
        pub static COUNTERS: Counters = Counters { $($name: AtomicU64::new(0),)* };

        impl Counters {
            /// All of them. Each is right; they are read one after the other.
            pub fn read(&self) -> Counted {
                Counted { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Resolutions answered from the cache, of pools that have left it.
    cache_hits,
    /// Resolutions for which a registrar had to be asked, or somebody else's question to be waited for.
    cache_misses,
    /// Questions about pools that a registrar answered.
    resolutions,
    /// Those that nobody answered.
    resolutions_failed,
    /// Registrations of elements that were granted.
    registrations,
    /// Those of elements that had been registered before.
    reregistrations,
    /// Registrations refused, or without an answer.
    registrations_failed,
    /// Deregistrations confirmed.
    deregistrations,
    /// Keep-alives answered, once for each element named.
    keep_alives,
    /// Registrars that became our home, and homes that were lost or left.
    registrars_found,
    /// See `registrars_found`.
    registrars_lost,
    /// Elements said to be unreachable, whether a registrar was told or not.
    reports,
    /// Sessions that connected to an element for the first time.
    sessions_connected,
    /// Sessions that came to an element of this process.
    sessions_accepted,
    /// Sessions that moved to another element.
    failovers,
    /// Elements that could not be connected to.
    connects_failed,
    /// Connections at session ports that were refused, or dropped before they were sessions.
    connections_refused,
    /// Bytes that went out over TCP connections of sessions that have ended, as acknowledged.
    bytes_sent,
    /// Those that came.
    bytes_received,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Adds what the client machine counted since `before`.
pub(super) fn add(before: &mut ClientCounts, now: ClientCounts) {
    let add = |counter: &AtomicU64, before: u64, now: u64| {
        if now != before {
            counter.fetch_add(now - before, Relaxed);
        }
    };
    let all = &COUNTERS;
    add(&all.resolutions, before.resolutions, now.resolutions);
    add(&all.resolutions_failed, before.resolutions_failed, now.resolutions_failed);
    add(&all.registrations, before.registrations, now.registrations);
    add(&all.reregistrations, before.reregistrations, now.reregistrations);
    add(&all.registrations_failed, before.registrations_failed, now.registrations_failed);
    add(&all.deregistrations, before.deregistrations, now.deregistrations);
    add(&all.keep_alives, before.keep_alives, now.keep_alives);
    add(&all.registrars_found, before.homes_found, now.homes_found);
    add(&all.registrars_lost, before.homes_lost, now.homes_lost);
    *before = now;
}
