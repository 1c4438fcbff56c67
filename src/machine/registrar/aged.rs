//! Things of which only so many are kept, and beyond that the oldest goes.

use std::collections::BTreeMap;

/// Values by key, of which it is known which was touched longest ago.
#[derive(Debug)]
pub(super) struct Aged<K, V> {
    by_key: BTreeMap<K, (u64, V)>,
    by_age: BTreeMap<u64, K>,
    last: u64,
}

impl<K, V> Default for Aged<K, V> {
    fn default() -> Aged<K, V> {
        Aged { by_key: BTreeMap::new(), by_age: BTreeMap::new(), last: 0 }
    }
}

impl<K: Ord + Clone, V> Aged<K, V> {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.by_key.get(key).map(|(_, value)| value)
    }

    /// The value of a key, else this one, which is the newest from now on. If there are more than `most`, the oldest goes.
    pub(super) fn touch(&mut self, key: K, most: usize, or: V) -> &mut V {
        self.last += 1;
        let age = self.last;
        if let Some((before, _)) = self.by_key.get(&key) {
            self.by_age.remove(before);
        } else if self.by_key.len() >= most
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        self.by_age.insert(age, key.clone());
        let (known, value) = self.by_key.entry(key).or_insert((age, or));
        *known = age;
        value
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (age, value) = self.by_key.remove(key)?;
        self.by_age.remove(&age);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_touched_longest_ago_goes() {
        let mut aged: Aged<u32, u32> = Aged::default();
        for key in [3, 1, 2] {
            *aged.touch(key, 3, 0) = 10 * key;
        }
        *aged.touch(3, 3, 0) += 1;
        aged.touch(0, 3, 0);
        assert_eq!(
            [aged.get(&0), aged.get(&1), aged.get(&2), aged.get(&3)],
            [Some(&0), None, Some(&20), Some(&31)]
        );
        assert_eq!((aged.remove(&2), aged.remove(&2), aged.len()), (Some(20), None, 2));
        aged.touch(5, 2, 0);
        assert!(aged.get(&3).is_none() && aged.get(&0).is_some() && !aged.is_empty());
        assert_eq!(aged.by_age.len(), aged.len());
    }
}
