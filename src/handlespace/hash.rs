//! A fast hash for the two look-ups on every path. Seeded, so that a stranger who picks handles and
//! identifiers cannot pick collisions; the tables are never iterated, so the seed shows nowhere. And in parts, so that
//! nobody waits until a table of millions has grown.
//!
//! Not the crate foldhash, which takes two thirds of the time: the seed of its `FixedState` goes into one factor of a product
//! only, and the constants that the other meets are public. A handle of 9 to 16 bytes that ends in one of them
//! makes the product 0 whatever stands before it and whatever the seed is, and peers choose handles. Its states that
//! seed both factors are drawn by the process, or live for ever; a handlespace is given its seed, and ends.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Seeded {
        Seeded(fold(seed ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93))
    }
}

/// Both halves of the product, mixed.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl BuildHasher for Seeded {
    type Hasher = Folding;
    fn build_hasher(&self) -> Folding {
        Folding { state: self.0, key: self.0 | 1 }
    }
}

#[derive(Debug)]
pub(super) struct Folding {
    state: u64,
    key: u64,
}

/// The last eight bytes as a number, or all if there are less: then no two of one length are the same number.
fn last_word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.last_chunk() {
        return u64::from_le_bytes(*word);
    }
    // Two halves that may overlap, instead of a loop over the bytes.
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for &word in words {
            self.write_u64(u64::from_le_bytes(word));
        }
        // Which length the rest had, `write_usize` was told before.
        if !rest.is_empty() {
            self.write_u64(last_word(rest));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.key ^ 0xa076_1d64_78bd_642f);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.state, 0xe703_7ed1_a0b4_28db)
    }
}

/// What spreads keys over the parts of a table; it need not be good, but it has to be quick.
pub(super) trait Spread {
    fn word(&self) -> u64;
}

impl Spread for [u8] {
    fn word(&self) -> u64 {
        last_word(self).wrapping_add(self.len() as u64)
    }
}

/// A table of numbers that grows a part at a time.
#[derive(Debug)]
pub(super) struct PartedTable<K> {
    parts: Vec<HashMap<K, u32, Seeded>>,
    seed: u64,
}

const PARTS_LOG: u32 = 7;

impl<K: Hash + Eq> PartedTable<K> {
    pub(super) fn new(seed: u64) -> PartedTable<K> {
        let hasher = Seeded::new(seed);
        PartedTable {
            parts: (0..1 << PARTS_LOG).map(|_| HashMap::with_hasher(hasher)).collect(),
            seed: hasher.0,
        }
    }

    fn part(&self, word: u64) -> usize {
        (fold(word ^ self.seed, 0x8ebc_6af0_9c88_c6e3) >> (64 - PARTS_LOG)) as usize
    }

    pub(super) fn get<Q: Hash + Eq + Spread + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        self.parts[self.part(key.word())].get(key).copied()
    }

    pub(super) fn insert<Q: Spread + ?Sized>(&mut self, key: K, number: u32)
    where
        K: Borrow<Q>,
    {
        let part = self.part(key.borrow().word());
        self.parts[part].insert(key, number);
    }

    pub(super) fn remove<Q: Hash + Eq + Spread + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let part = self.part(key.word());
        self.parts[part].remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let hash = |bytes: &[u8]| (Seeded::new(1).hash_one(bytes), bytes.word());
        for len in 1..40 {
            let plain = vec![0x5a; len];
            for at in 0..len {
                let mut other = plain.clone();
                other[at] ^= 0x10;
                assert_ne!(hash(&plain).0, hash(&other).0, "byte {at} of {len}");
                // The part of the table is chosen by the end.
                assert_eq!(hash(&plain).1 != hash(&other).1, at + 8 >= len, "byte {at} of {len}");
            }
            assert_ne!(hash(&plain).0, hash(&[&plain[..], &[0x5a]].concat()).0);
        }
    }
}
