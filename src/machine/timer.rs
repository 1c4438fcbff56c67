//! Time-outs: deadlines by key, and chance about how long one lasts. What a deadline means each machine says itself,
//! in an enum `Timer` by the RFCs' names.

use super::Time;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// At most one deadline for each key; earliest first, equal times in the order of their keys.
///
/// Setting, clearing and popping cost O(log n).
#[derive(Debug, Clone)]
pub struct Deadlines<K> {
    by_key: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// No deadlines.
    pub fn new() -> Deadlines<K> {
        Deadlines::default()
    }

    /// Sets the deadline of `key`, in place of the one it may have.
    pub fn set(&mut self, key: K, time: Time) {
        if let Some(old) = self.by_key.insert(key, time) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((time, key));
    }

    /// Removes the deadline of `key`; true if there was one.
    pub fn clear(&mut self, key: &K) -> bool {
        match self.by_key.remove(key) {
            Some(time) => self.by_time.remove(&(time, *key)),
            None => false,
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<Time> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|&(time, _)| time)
    }

    /// Removes and returns the earliest key whose time has come.
    pub fn pop_expired(&mut self, now: Time) -> Option<K> {
        let &(time, key) = self.by_time.first()?;
        if time > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many keys have a deadline.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key has a deadline.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// `mean` times 1 ± up to `spread` per cent, by chance.
pub(super) fn jitter(rng: &mut Rng, mean: Duration, spread: u32) -> Duration {
    mean.saturating_mul(rng.u32(1000 - 10 * spread..=1000 + 10 * spread)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn earliest_first_and_equal_times_by_key() {
        let mut deadlines = Deadlines::new();
        deadlines.set('b', Time(10));
        deadlines.set('c', Time(5));
        deadlines.set('a', Time(10));
        assert_eq!(deadlines.next(), Some(Time(5)));
        assert_eq!(deadlines.pop_expired(Time(4)), None);
        let order: Vec<_> = std::iter::from_fn(|| deadlines.pop_expired(Time(10))).collect();
        assert_eq!(order, ['c', 'a', 'b']);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_key_has_one_deadline() {
        let mut deadlines = Deadlines::new();
        deadlines.set(1, Time(10));
        deadlines.set(1, Time(20));
        assert_eq!(
            (deadlines.len(), deadlines.next(), deadlines.get(&1)),
            (1, Some(Time(20)), Some(Time(20)))
        );
        assert!(deadlines.clear(&1));
        assert!(!deadlines.clear(&1));
        assert!(deadlines.is_empty());
        assert_eq!(deadlines.pop_expired(Time(99)), None);
    }

    #[test]
    fn a_jitter_stays_within_its_spread_and_overflows_nothing() {
        let mut rng = fastrand::Rng::with_seed(7);
        let second = Duration::from_secs(1);
        let drawn: Vec<Duration> = (0..1000).map(|_| jitter(&mut rng, second, 25)).collect();
        let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        let (low, high) = (Duration::from_millis(750), Duration::from_millis(1250));
        assert!((low..low + second / 100).contains(least), "{least:?}");
        assert!((high - second / 100..=high).contains(most), "{most:?}");
        assert!(jitter(&mut rng, Duration::MAX, 25) > Duration::from_secs(1 << 50));
        assert_eq!(jitter(&mut rng, second, 0), second);
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_list(steps in prop::collection::vec((0u8..3, 0u8..8, 0u64..50), 0..200)) {
            let mut deadlines = Deadlines::new();
            let mut model: Vec<(Time, u8)> = Vec::new();
            for (what, key, time) in steps {
                match what {
                    0 => {
                        deadlines.set(key, Time(time));
                        model.retain(|entry| entry.1 != key);
                        model.push((Time(time), key));
                    }
                    1 => {
                        let before = model.len();
                        model.retain(|entry| entry.1 != key);
                        prop_assert_eq!(deadlines.clear(&key), model.len() < before);
                    }
                    _ => {
                        model.sort();
                        let due = model.first().filter(|entry| entry.0 <= Time(time)).copied();
                        if due.is_some() {
                            model.remove(0);
                        }
                        prop_assert_eq!(deadlines.pop_expired(Time(time)), due.map(|entry| entry.1));
                    }
                }
                model.sort();
                prop_assert_eq!(deadlines.next(), model.first().map(|entry| entry.0));
                prop_assert_eq!(deadlines.len(), model.len());
            }
        }
    }
}
