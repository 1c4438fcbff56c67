//! Log lines that strangers can cause, at most once a minute each.

#![expect(clippy::disallowed_methods, reason = "a minute of real time")]

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Says yes at most once a minute: for log lines that strangers can cause.
#[derive(Debug)]
pub(crate) struct Occasionally(Mutex<(Option<Instant>, u64)>);

/// How many lines of the kind were left out before this one, as text behind it.
pub(crate) struct LeftOut(u64);

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} times of this kind since the last such line)"),
        }
    }
}

impl Occasionally {
    pub(crate) const fn new() -> Occasionally {
        Occasionally(Mutex::new((None, 0)))
    }

    /// How many were left out since the last time, or `None`: keep quiet.
    pub(crate) fn now(&self) -> Option<LeftOut> {
        const INTERVAL: Duration = Duration::from_secs(60);
        let (last, left_out) = &mut *self.0.lock();
        let now = Instant::now();
        if last.is_some_and(|last| now < last + INTERVAL) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        Some(LeftOut(std::mem::take(left_out)))
    }
}
