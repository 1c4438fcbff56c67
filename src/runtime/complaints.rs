//! Log lines that others can cause: each cause once, then at most once a minute with a count.

#![expect(clippy::disallowed_methods, reason = "a minute of real time")]

use crate::machine::Time;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);
/// Causes told apart; what comes on top counts as one.
const MAX_CAUSES: usize = 256;

/// How many lines of a kind were left out before this one, as text behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} times of this kind since the last such line)"),
        }
    }
}

/// When a cause was last logged, and how often it came since. `T`: a clock's time.
#[derive(Debug)]
struct Throttle<T> {
    last: Option<T>,
    left_out: u64,
}

impl<T: Copy + PartialOrd + std::ops::Add<Duration, Output = T>> Throttle<T> {
    const fn new() -> Throttle<T> {
        Throttle { last: None, left_out: 0 }
    }

    /// Whether a line is due; if so, how many were left out.
    fn due(&mut self, now: T) -> Option<LeftOut> {
        if self.is_held_back(now) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(LeftOut(std::mem::take(&mut self.left_out)))
    }

    fn is_held_back(&self, now: T) -> bool {
        self.last.is_some_and(|last| now < last + INTERVAL)
    }
}

/// One cause, known by the place in the source.
#[derive(Debug)]
pub(crate) struct Occasionally(Mutex<Throttle<Instant>>);

impl Occasionally {
    pub(crate) const fn new() -> Occasionally {
        Occasionally(Mutex::new(Throttle::new()))
    }

    /// How many were left out since the last time, or `None`: keep quiet.
    pub(crate) fn now(&self) -> Option<LeftOut> {
        self.0.lock().due(Instant::now())
    }
}

/// Many causes, known by name.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    causes: HashMap<String, Throttle<Time>>,
}

impl Complaints {
    /// Logs `detail` as a warning unless `cause` was logged less than a minute ago.
    pub fn note(&mut self, now: Time, cause: &str, detail: fmt::Arguments<'_>) {
        if let Some(left_out) = self.due(now, cause) {
            log::warn!("{detail}{left_out}");
        }
    }

    fn due(&mut self, now: Time, cause: &str) -> Option<LeftOut> {
        if let Some(throttle) = self.causes.get_mut(cause) {
            return throttle.due(now);
        }
        if self.causes.len() >= MAX_CAUSES {
            self.causes.retain(|_, throttle| throttle.is_held_back(now));
        }
        let known = if self.causes.len() >= MAX_CAUSES { "" } else { cause };
        self.causes.entry(known.to_string()).or_insert_with(Throttle::new).due(now)
    }
}

/// Lines of one kind that are news up to a number and an attack beyond it: so many a minute.
#[derive(Debug, Default)]
pub(crate) struct Sparing {
    since: Option<Time>,
    lines: u32,
    left_out: u64,
}

impl Sparing {
    /// Lines of one kind in a minute.
    pub(crate) const MOST: u32 = 16;

    /// How many were left out since the last line, or `None`: this one is left out.
    pub(crate) fn due(&mut self, now: Time) -> Option<LeftOut> {
        if self.since.is_none_or(|since| now >= since + INTERVAL) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= Sparing::MOST {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(LeftOut(std::mem::take(&mut self.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_a_minute() {
        let (mut sparing, start) = (Sparing::default(), Time(5));
        let said =
            |sparing: &mut Sparing, now| (0..1000).filter_map(|_| sparing.due(now)).collect::<Vec<_>>();
        assert_eq!(said(&mut sparing, start), vec![LeftOut(0); 16]);
        assert_eq!(said(&mut sparing, start + Duration::from_secs(59)), []);
        let later = said(&mut sparing, start + INTERVAL);
        assert_eq!((later.len(), later[0], later[1]), (16, LeftOut(1984), LeftOut(0)));
    }

    #[test]
    fn once_then_once_a_minute() {
        let mut complaints = Complaints::default();
        let start = Time(5);
        assert_eq!(complaints.due(start, "garbage"), Some(LeftOut(0)));
        for _ in 0..10_000 {
            assert_eq!(complaints.due(start + Duration::from_secs(59), "garbage"), None);
        }
        assert_eq!(complaints.due(start, "other"), Some(LeftOut(0)));
        assert_eq!(complaints.due(start + INTERVAL, "garbage"), Some(LeftOut(10_000)));
        assert_eq!(complaints.due(start + INTERVAL, "garbage"), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut complaints = Complaints::default();
        let logged = (0..100_000).filter(|n| complaints.due(Time(1), &format!("{n}")).is_some()).count();
        assert_eq!(logged, MAX_CAUSES + 1);
        assert!(complaints.causes.len() <= MAX_CAUSES + 1);
        assert_eq!(complaints.due(Time(1) + INTERVAL, "fresh"), Some(LeftOut(0)));
        assert_eq!(complaints.causes.len(), 1);
    }
}
