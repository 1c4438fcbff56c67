//! A table that grows without moving: small numbers to shared values, a lock per slot and none for all.

use parking_lot::RwLock;
use std::sync::OnceLock;

/// Slots in the first bucket; each further bucket has twice as many.
const FIRST: usize = 64;
/// Enough for numbers up to 2^30, the kernel's own bound on descriptors.
const BUCKETS: usize = 24;
/// Numbers from here on have no slot.
pub(crate) const CAPACITY: usize = FIRST * ((1 << BUCKETS) - 1);

/// Alone on its cache line: threads that use neighbouring numbers don't disturb each other.
#[repr(align(64))]
struct TableSlot<T>(RwLock<Option<T>>);

/// Values by number. Reading locks the number's own slot, shared, for the time of a clone or a look.
pub(crate) struct Table<T> {
    buckets: [OnceLock<Box<[TableSlot<T>]>>; BUCKETS],
}

impl<T: Clone> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table { buckets: [const { OnceLock::new() }; BUCKETS] }
    }

    pub(crate) fn get(&self, number: usize) -> Option<T> {
        self.look(number, T::clone)
    }

    /// What `look` finds in a number's value.
    pub(crate) fn look<R>(&self, number: usize, look: impl FnOnce(&T) -> R) -> Option<R> {
        let (bucket, at) = place(number)?;
        self.buckets[bucket].get()?[at].0.read().as_ref().map(look)
    }

    /// Sets a number's value (or takes it away); what it had before. `Err` beyond [`CAPACITY`], and without memory.
    pub(crate) fn set(&self, number: usize, value: Option<T>) -> Result<Option<T>, ()> {
        let (bucket, at) = place(number).ok_or(())?;
        let place = &self.buckets[bucket];
        if place.get().is_none() {
            let mut slots = Vec::new();
            slots.try_reserve_exact(FIRST << bucket).map_err(|_| ())?;
            slots.extend((0..FIRST << bucket).map(|_| TableSlot(RwLock::new(None))));
            // Unless somebody else was first.
            let _ = place.set(slots.into_boxed_slice());
        }
        let slots = place.get().ok_or(())?;
        Ok(std::mem::replace(&mut slots[at].0.write(), value))
    }

    pub(crate) fn take(&self, number: usize) -> Option<T> {
        let (bucket, at) = place(number)?;
        self.buckets[bucket].get()?[at].0.write().take()
    }

    /// All numbers that have a value just now.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        let mut numbers = Vec::new();
        for (bucket, slots) in self.buckets.iter().enumerate() {
            let first = FIRST * ((1 << bucket) - 1);
            let slots = slots.get().into_iter().flatten().enumerate();
            numbers.extend(slots.filter(|(_, slot)| slot.0.read().is_some()).map(|(at, _)| first + at));
        }
        numbers
    }
}

/// Bucket and slot of a number.
fn place(number: usize) -> Option<(usize, usize)> {
    if number >= CAPACITY {
        return None;
    }
    let bucket = (number / FIRST + 1).ilog2() as usize;
    Some((bucket, number - FIRST * ((1 << bucket) - 1)))
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_slot_of_its_own() {
        let mut last = None;
        for number in 0..10_000 {
            let (bucket, at) = place(number).unwrap();
            assert!(at < FIRST << bucket, "{number}");
            assert!(last < Some((bucket, at)), "{number}");
            last = Some((bucket, at));
        }
        assert_eq!(place(CAPACITY - 1), Some((BUCKETS - 1, (FIRST << (BUCKETS - 1)) - 1)));
        assert_eq!(place(CAPACITY), None);
    }

    #[test]
    fn values_come_and_go() {
        let table = Table::new();
        for number in [0, 63, 64, 191, 192, 5000] {
            assert_eq!(table.get(number), None);
            assert_eq!(table.set(number, Some(number)), Ok(None));
            assert_eq!(table.set(number, Some(number + 1)), Ok(Some(number)));
            assert_eq!(table.get(number), Some(number + 1));
        }
        assert_eq!(table.numbers(), [0, 63, 64, 191, 192, 5000]);
        assert_eq!(table.take(64), Some(65));
        assert_eq!(table.take(64), None);
        assert_eq!(table.take(65), None);
        assert_eq!(table.set(CAPACITY, Some(1)), Err(()));
    }
}
