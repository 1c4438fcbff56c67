//! Home registrars: how many elements each has, in which pools, and its PE checksum.
//!
//! The checksum (RFC 5353 section 3.1 and its Internet checksum, behaviour of rsplib) sums 16-bit
//! words of the pool handle, padded with a zero byte, and of the element's identifier in network
//! order. What decides between implementations is overflow: rsplib adds words in memory order
//! into 32 bits and lets them wrap, so ours are little-endian whatever this machine is.

use crate::wire::{PeId, PoolHandle, RegistrarId};
use std::collections::BTreeMap;

/// Running sum over some elements; adding and subtracting commute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u32);

impl Sum {
    /// What one element contributes.
    pub fn of(handle: &PoolHandle, id: PeId) -> Sum {
        Sum::of_handle(handle).with_id(id.0)
    }

    /// What a pool handle contributes for each of its elements.
    pub(super) fn of_handle(handle: &PoolHandle) -> Sum {
        let words = handle
            .as_bytes()
            .chunks(2)
            .map(|pair| u32::from(u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
        Sum(words.fold(0, u32::wrapping_add))
    }

    /// With an element's identifier.
    pub(super) fn with_id(self, id: u32) -> Sum {
        let [a, b, c, d] = id.to_be_bytes();
        let words = u32::from(u16::from_le_bytes([a, b])) + u32::from(u16::from_le_bytes([c, d]));
        Sum(self.0.wrapping_add(words))
    }

    /// One element more.
    pub fn add(&mut self, other: Sum) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// One element less.
    pub fn subtract(&mut self, other: Sum) {
        self.0 = self.0.wrapping_sub(other.0);
    }

    /// The two bytes of the PE checksum parameter.
    pub fn to_wire(self) -> [u8; 2] {
        let once = (self.0 >> 16) + (self.0 & 0xffff);
        let twice = (once >> 16) + (once & 0xffff);
        (!(twice as u16)).to_le_bytes()
    }
}

/// One home registrar.
#[derive(Debug)]
pub(super) struct Owner {
    pub id: RegistrarId,
    pub count: usize,
    pub sum: Sum,
    /// Pools that it has elements in, by handle.
    pub pools: BTreeMap<PoolHandle, u32>,
}

/// All home registrars of at least one element.
#[derive(Debug, Default)]
pub(super) struct Owners {
    slots: Vec<Owner>,
    free: Vec<u16>,
    by_id: BTreeMap<RegistrarId, u16>,
}

impl Owners {
    /// How many there can be.
    pub(super) const LIMIT: usize = 4096;

    pub(super) fn index(&self, id: RegistrarId) -> Option<u16> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn find(&self, id: RegistrarId) -> Option<&Owner> {
        self.index(id).map(|index| &self.slots[index as usize])
    }

    pub(super) fn get(&self, index: u16) -> &Owner {
        &self.slots[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u16) -> &mut Owner {
        &mut self.slots[index as usize]
    }

    /// The index of `id`, made if there is none yet; `None` at the limit.
    pub(super) fn ensure(&mut self, id: RegistrarId) -> Option<u16> {
        if let Some(index) = self.index(id) {
            return Some(index);
        }
        if self.by_id.len() >= Owners::LIMIT {
            return None;
        }
        let owner = Owner { id, count: 0, sum: Sum::default(), pools: BTreeMap::new() };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = owner;
                index
            }
            None => {
                self.slots.push(owner);
                (self.slots.len() - 1) as u16
            }
        };
        self.by_id.insert(id, index);
        Some(index)
    }

    /// Forgets an owner that has no element.
    pub(super) fn drop_if_empty(&mut self, index: u16) {
        let owner = &self.slots[index as usize];
        if owner.count == 0 && self.by_id.remove(&owner.id).is_some() {
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(elements: &[(&str, u32)]) -> [u8; 2] {
        let mut sum = Sum::default();
        for &(handle, id) in elements {
            sum.add(Sum::of_handle(&PoolHandle::new(handle.as_bytes()).unwrap()).with_id(id));
        }
        sum.to_wire()
    }

    #[test]
    fn captured_checksums() {
        assert_eq!(checksum(&[]), [0xff, 0xff]);
        assert_eq!(checksum(&[("EchoPool", 0xabcd_1234)]), [0xd4, 0x4f]);
        assert_eq!(checksum(&[("EchoPool1", 0xabcd_1234)]), [0xa3, 0x4f]);
        assert_eq!(checksum(&[("EchoPool1", 0xabcd_1234), ("P2", 0xabcd_5678)]), [0x50, 0xd7]);
    }

    #[test]
    fn the_sum_wraps_at_32_bits_and_comes_back() {
        let element = Sum::of_handle(&PoolHandle::new(&[0xff; 65_000]).unwrap()).with_id(u32::MAX);
        let mut sum = Sum::default();
        (0..40_000).for_each(|_| sum.add(element));
        let exact = 40_000 * 32_502 * 0xffff_u64;
        assert!(exact > u64::from(u32::MAX));
        assert_eq!(sum, Sum(exact as u32), "wraps, no carry comes back in");
        (0..40_000).for_each(|_| sum.subtract(element));
        assert_eq!(sum, Sum::default());
    }
}
