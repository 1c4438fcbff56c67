//! Limits on rates.

use crate::machine::Time;

/// At most so many events per second, with a second's worth of burst.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::machine) struct Bucket {
    filled: Option<Time>,
    /// In millionths of an event.
    level: u64,
}

impl Bucket {
    /// Whether one more event is within the limit.
    pub fn take(&mut self, now: Time, per_second: Option<u32>) -> bool {
        let Some(rate) = per_second else { return true };
        let full = u64::from(rate.max(1)) * 1_000_000;
        let gained = match self.filled {
            None => full,
            Some(filled) => now.0.saturating_sub(filled.0).saturating_mul(u64::from(rate)),
        };
        self.level = self.level.saturating_add(gained).min(full);
        self.filled = Some(now);
        let granted = self.level >= 1_000_000;
        if granted {
            self.level -= 1_000_000;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::default();
        let start = Time(5_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(start, Some(10))).count(), 10);
        let later = Time(start.0 + 500_000);
        assert_eq!((0..100).filter(|_| bucket.take(later, Some(10))).count(), 5);
        assert!((0..100).all(|_| bucket.take(later, None)));
    }
}
