//! `rsp_getcounters`: what the library did, for programs that export it.

#![allow(non_camel_case_types)]

use super::current::library;
use super::guard::{Errno, guard_alone};
use crate::runtime::counters::COUNTERS;
use libc::{c_int, size_t};

/// What the library did since the process began; counters never go back. Later versions add members at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct rsp_counters {
    /// Resolutions answered from the cache.
    pub rc_cache_hits: u64,
    /// Resolutions for which a registrar was asked.
    pub rc_cache_misses: u64,
    /// Questions about pools that a registrar answered ...
    pub rc_resolutions: u64,
    /// ... and those that got no answer.
    pub rc_resolutions_failed: u64,
    /// Registrations granted, but for those of elements that had been registered before ...
    pub rc_registrations: u64,
    /// ... which are here, as when their life is renewed or their home registrar is another ...
    pub rc_reregistrations: u64,
    /// ... and those refused, or without an answer.
    pub rc_registrations_failed: u64,
    /// Deregistrations confirmed.
    pub rc_deregistrations: u64,
    /// Keep-alives answered, one for each element.
    pub rc_keepalives: u64,
    /// Registrars that became the home registrar ...
    pub rc_registrars_found: u64,
    /// ... and how often it was lost.
    pub rc_registrars_lost: u64,
    /// Elements reported as unreachable.
    pub rc_reports: u64,
    /// Sessions connected to an element, as users.
    pub rc_sessions_connected: u64,
    /// Sessions accepted, as an element.
    pub rc_sessions_accepted: u64,
    /// Sessions that moved to another element.
    pub rc_failovers: u64,
    /// Elements that could not be connected to.
    pub rc_connects_failed: u64,
    /// Connections to our elements that were refused, or dropped before they were sessions.
    pub rc_connections_refused: u64,
    /// Bytes acknowledged by peers of sessions over TCP, framing and TLS included ...
    pub rc_bytes_sent: u64,
    /// ... and received from them.
    pub rc_bytes_received: u64,
}

/// Writes what was counted since the process began: at most `size` bytes, sizeof(struct rsp_counters) as the program
/// knows it; members that this library does not know become 0. Works at any time, also before rsp_initialize and
/// after rsp_cleanup. Returns how many bytes this library knows; -1: EFAULT (NULL), EINVAL (size is not a multiple
/// of 8, or 0), EDEADLK (in a signal handler that interrupted a call of this library).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getcounters(counters: *mut rsp_counters, size: size_t) -> c_int {
    guard_alone(|| {
        if counters.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        if size == 0 || !size.is_multiple_of(size_of::<u64>()) {
            return Err(Errno(libc::EINVAL));
        }
        let known = read();
        let ours = size_of::<rsp_counters>();
        let (to, from) = (counters.cast::<u8>(), (&raw const known).cast::<u8>());
        // SAFETY: the caller's memory of `size` bytes, and a structure of ours.
        unsafe {
            to.write_bytes(0, size);
            to.copy_from_nonoverlapping(from, size.min(ours));
        }
        Ok(ours as c_int)
    })
}

fn read() -> rsp_counters {
    let all = COUNTERS.read();
    // What is still going on is counted where it goes on.
    let (hits, sent, received) = library().map(|library| library.running_counts()).unwrap_or_default();
    rsp_counters {
        rc_cache_hits: all.cache_hits + hits,
        rc_cache_misses: all.cache_misses,
        rc_resolutions: all.resolutions,
        rc_resolutions_failed: all.resolutions_failed,
        rc_registrations: all.registrations,
        rc_reregistrations: all.reregistrations,
        rc_registrations_failed: all.registrations_failed,
        rc_deregistrations: all.deregistrations,
        rc_keepalives: all.keep_alives,
        rc_registrars_found: all.registrars_found,
        rc_registrars_lost: all.registrars_lost,
        rc_reports: all.reports,
        rc_sessions_connected: all.sessions_connected,
        rc_sessions_accepted: all.sessions_accepted,
        rc_failovers: all.failovers,
        rc_connects_failed: all.connects_failed,
        rc_connections_refused: all.connections_refused,
        rc_bytes_sent: all.bytes_sent + sent,
        rc_bytes_received: all.bytes_received + received,
    }
}
