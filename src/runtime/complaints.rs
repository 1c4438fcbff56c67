//! Log lines about what others do wrong: each cause once, then at most once a minute with a count.

use crate::machine::Time;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(60);
/// Causes told apart; what comes on top counts as one.
const MAX_CAUSES: usize = 256;

/// Which causes were logged when, and how often they came since.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    causes: HashMap<String, (Time, u64)>,
}

impl Complaints {
    /// Logs `detail` as a warning unless `cause` was logged less than a minute ago.
    pub fn note(&mut self, now: Time, cause: &str, detail: fmt::Arguments<'_>) {
        if let Some(unheard) = self.due(now, cause) {
            match unheard {
                0 => log::warn!("{detail}"),
                _ => log::warn!("{detail} (and {unheard} times of this kind since the last such line)"),
            }
        }
    }

    /// Whether to log now; if so, how many were kept back since the last time.
    fn due(&mut self, now: Time, cause: &str) -> Option<u64> {
        if let Some((last, unheard)) = self.causes.get_mut(cause) {
            if now - *last < INTERVAL {
                *unheard += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(unheard));
        }
        if self.causes.len() >= MAX_CAUSES {
            self.causes.retain(|_, (last, _)| now - *last < INTERVAL);
        }
        if self.causes.len() >= MAX_CAUSES {
            return self.due_of_the_others(now);
        }
        self.causes.insert(cause.to_string(), (now, 0));
        Some(0)
    }

    fn due_of_the_others(&mut self, now: Time) -> Option<u64> {
        let (last, unheard) = self.causes.entry(String::new()).or_insert((Time(0), 0));
        if *last != Time(0) && now - *last < INTERVAL {
            *unheard += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(unheard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_then_once_a_minute() {
        let mut complaints = Complaints::default();
        let start = Time(5);
        assert_eq!(complaints.due(start, "garbage"), Some(0));
        for _ in 0..10_000 {
            assert_eq!(complaints.due(start + Duration::from_secs(59), "garbage"), None);
        }
        assert_eq!(complaints.due(start, "other"), Some(0));
        assert_eq!(complaints.due(start + INTERVAL, "garbage"), Some(10_000));
        assert_eq!(complaints.due(start + INTERVAL, "garbage"), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut complaints = Complaints::default();
        let logged = (0..100_000).filter(|n| complaints.due(Time(1), &format!("{n}")).is_some()).count();
        assert_eq!(logged, MAX_CAUSES + 1);
        assert!(complaints.causes.len() <= MAX_CAUSES + 1);
        assert_eq!(complaints.due(Time(1) + INTERVAL, "fresh"), Some(0));
        assert_eq!(complaints.causes.len(), 1);
    }
}
