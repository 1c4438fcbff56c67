//! The random policies: a draw without replacement.
//!
//! Elements with a weight stand first, under a tree of sums; those without one follow and are drawn
//! uniformly once no weight is left. Plain Random is the case that nobody has a weight. A draw costs
//! O(log n) per element, with or without weights.

use super::element::Slab;
use super::policy::{Rule, Values};
use fastrand::Rng;

#[derive(Debug)]
pub(super) struct Lottery {
    kind: Rule,
    /// Slots: weighted ones, then the others.
    members: Vec<u32>,
    weights: Weights,
}

impl Lottery {
    pub(super) fn new(kind: Rule) -> Lottery {
        Lottery { kind, members: Vec::new(), weights: Weights::default() }
    }

    fn weight(&self, elements: &Slab, slot: u32) -> u32 {
        let element = &elements[slot];
        self.kind.weight(&element.values, element.used)
    }

    pub(super) fn insert(&mut self, elements: &mut Slab, slot: u32) {
        let weight = self.weight(elements, slot);
        self.members.push(slot);
        let mut at = self.members.len() - 1;
        if weight > 0 {
            self.swap(elements, at, self.weights.len());
            at = self.weights.len();
            self.weights.push(weight);
        }
        elements[slot].links[0] = at as u32;
    }

    pub(super) fn remove(&mut self, elements: &mut Slab, slot: u32) {
        let mut at = elements[slot].links[0] as usize;
        if at < self.weights.len() {
            let last = self.weights.len() - 1;
            self.weights.set(at, self.weights.get(last));
            self.weights.pop();
            self.swap(elements, at, last);
            at = last;
        }
        self.swap(elements, at, self.members.len() - 1);
        self.members.pop();
    }

    /// Changes what an element's weight depends on.
    pub(super) fn update(&mut self, elements: &mut Slab, slot: u32, values: Values, used: u32) {
        let at = elements[slot].links[0] as usize;
        let weight = self.kind.weight(&values, used);
        let stays = (at < self.weights.len()) == (weight > 0);
        if !stays {
            self.remove(elements, slot);
        } else if weight > 0 {
            self.weights.set(at, weight);
        }
        let element = &mut elements[slot];
        (element.values, element.used) = (values, used);
        if !stays {
            self.insert(elements, slot);
        }
    }

    /// Draws up to `items` different elements.
    pub(super) fn draw(
        &mut self,
        elements: &mut Slab,
        rng: &mut Rng,
        items: usize,
        out: &mut impl FnMut(u32),
    ) {
        let weighted = self.weights.len();
        let heavy = items.min(weighted);
        self.draw_weighted(rng, heavy, out);
        let light = (items - heavy).min(self.members.len() - weighted);
        for i in weighted..weighted + light {
            let chosen = rng.usize(i..self.members.len());
            out(self.members[chosen]);
            if i + 1 < weighted + light {
                self.swap(elements, i, chosen);
            }
        }
    }

    /// Draws one.
    pub(super) fn draw_one(&self, rng: &mut Rng) -> Option<u32> {
        match (self.weights.total, self.members.len()) {
            (_, 0) => None,
            (0, len) => Some(self.members[rng.usize(0..len)]),
            (total, _) => Some(self.members[self.weights.find(rng.u64(0..total))]),
        }
    }

    /// Draws `items` of the weighted ones.
    ///
    /// Who is drawn a second time is drawn again, which is the same chance as if the first had been
    /// taken out. Where that becomes likely, those drawn so far are taken out until the end.
    fn draw_weighted(&mut self, rng: &mut Rng, items: usize, out: &mut impl FnMut(u32)) {
        const KNOWN_BY_HEART: usize = 8;
        let mut drawn: Vec<(usize, u32)> = Vec::with_capacity(items);
        let mut taken_out = 0;
        while drawn.len() < items {
            let at = self.weights.find(rng.u64(0..self.weights.total));
            let again = drawn[taken_out..].iter().any(|&(other, _)| other == at);
            if !again {
                drawn.push((at, self.weights.get(at)));
                out(self.members[at]);
            }
            if again || drawn.len() - taken_out > KNOWN_BY_HEART {
                drawn[taken_out..].iter().for_each(|&(at, _)| self.weights.set(at, 0));
                taken_out = drawn.len();
            }
        }
        drawn[..taken_out].iter().for_each(|&(at, weight)| self.weights.set(at, weight));
    }

    fn swap(&mut self, elements: &mut Slab, a: usize, b: usize) {
        if a != b {
            self.members.swap(a, b);
            elements[self.members[a]].links[0] = a as u32;
            elements[self.members[b]].links[0] = b as u32;
        }
    }
}

/// A list of weights in blocks of eight, the blocks in blocks of eight, and so on.
#[derive(Debug, Default)]
struct Weights {
    len: usize,
    leaves: Vec<[u32; FAN]>,
    /// From the leaves up; the last has one block. Each entry is the weight of those *before* it in its
    /// block, so that the eight comparisons of a search (one cache line) do not wait for each other.
    levels: Vec<Vec<[u64; FAN]>>,
    total: u64,
}

const FAN: usize = 8;

impl Weights {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, at: usize) -> u32 {
        self.leaves[at / FAN][at % FAN]
    }

    fn set(&mut self, at: usize, weight: u32) {
        let leaf = &mut self.leaves[at / FAN][at % FAN];
        // Modulo 2^64, so that one addition does for more and for less.
        let change = u64::from(weight).wrapping_sub(u64::from(*leaf));
        *leaf = weight;
        self.total = self.total.wrapping_add(change);
        let mut block = at / FAN;
        for level in &mut self.levels {
            for before in &mut level[block / FAN][block % FAN + 1..] {
                *before = before.wrapping_add(change);
            }
            block /= FAN;
        }
    }

    fn push(&mut self, weight: u32) {
        let at = self.len;
        self.len += 1;
        let mut blocks = self.len.div_ceil(FAN);
        if blocks > self.leaves.len() {
            self.leaves.push([0; FAN]);
            for level in &mut self.levels {
                blocks = blocks.div_ceil(FAN);
                if blocks > level.len() {
                    level.push([0; FAN]);
                }
            }
            if blocks > 1 {
                // All there was so far is the first of the new level.
                let mut top = [self.total; FAN];
                top[0] = 0;
                self.levels.push(vec![top]);
            }
        }
        self.set(at, weight);
    }

    fn pop(&mut self) {
        let Some(last) = self.len.checked_sub(1) else { return };
        self.set(last, 0);
        self.len = last;
        let mut blocks = last.div_ceil(FAN);
        self.leaves.truncate(blocks);
        for level in 0..self.levels.len() {
            if blocks <= 1 {
                self.levels.truncate(level);
                return;
            }
            blocks = blocks.div_ceil(FAN);
            self.levels[level].truncate(blocks);
        }
    }

    /// Whom `ticket`, less than `total`, falls on.
    fn find(&self, ticket: u64) -> usize {
        let (mut at, mut left) = (0, ticket);
        // No early exits: where a search ends can't be foretold, and a wrong guess of the processor
        // costs more than the rest of the block.
        for level in self.levels.iter().rev() {
            let block = &level[at];
            let child = block[1..].iter().filter(|&&before| before <= left).count();
            left -= block[child];
            at = at * FAN + child;
        }
        let (mut sum, mut child) = (0, 0);
        for &weight in &self.leaves[at] {
            sum += u64::from(weight);
            child += usize::from(sum <= left);
        }
        at * FAN + child
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ticket_finds_its_weight_while_the_list_grows_and_shrinks() {
        let mut weights = Weights::default();
        let mut plain: Vec<u32> = Vec::new();
        let mut rng = Rng::with_seed(3);
        for round in 0..12_000_u32 {
            // Up over 8^4 weights, so that the fifth level comes and goes.
            if round < 6_000 {
                plain.push(rng.u32(0..5));
                weights.push(plain[plain.len() - 1]);
            } else {
                plain.pop();
                weights.pop();
            }
            if !plain.is_empty() {
                let at = rng.usize(0..plain.len());
                plain[at] = rng.u32(0..5);
                weights.set(at, plain[at]);
            }
            if round % 97 != 0 && plain.len() > 40 {
                continue;
            }
            let total: u64 = plain.iter().copied().map(u64::from).sum();
            assert_eq!((weights.len(), weights.total), (plain.len(), total));
            let mut ticket = 0;
            for (at, &weight) in plain.iter().enumerate().filter(|(_, weight)| **weight > 0) {
                assert_eq!(weights.find(ticket), at);
                ticket += u64::from(weight);
                assert_eq!(weights.find(ticket - 1), at);
            }
        }
        assert!(weights.levels.is_empty());
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let mut weights = Weights::default();
        (0..5000).for_each(|_| weights.push(u32::MAX));
        assert_eq!(weights.total, 5000 * u64::from(u32::MAX));
        assert_eq!(weights.find(weights.total - 1), 4999);
    }
}
