//! The random policies: a draw without replacement.
//!
//! Elements with a weight stand first, under a tree of partial sums (Fenwick); those without one
//! follow and are drawn uniformly once no weight is left. Plain Random is the case that nobody has
//! a weight. A draw costs O(log n) per element, with or without weights.

use super::element::Slab;
use super::policy::{Kind, Values};
use fastrand::Rng;

#[derive(Debug)]
pub(super) struct Lottery {
    kind: Kind,
    /// Slots: weighted ones, then the others.
    members: Vec<u32>,
    /// `sums[i]` covers the weights of the (i+1) & -(i+1) members that end at `i`.
    sums: Vec<u64>,
    total: u64,
}

impl Lottery {
    pub(super) fn new(kind: Kind) -> Lottery {
        Lottery { kind, members: Vec::new(), sums: Vec::new(), total: 0 }
    }

    fn weight(&self, elements: &Slab, slot: u32) -> u64 {
        let element = &elements[slot];
        u64::from(self.kind.weight(&element.values, element.used))
    }

    pub(super) fn insert(&mut self, elements: &mut Slab, slot: u32) {
        let weight = self.weight(elements, slot);
        self.members.push(slot);
        let mut at = self.members.len() - 1;
        if weight > 0 {
            self.swap(elements, at, self.sums.len());
            at = self.sums.len();
            self.push_weight(weight);
        }
        elements[slot].links[0] = at as u32;
    }

    pub(super) fn remove(&mut self, elements: &mut Slab, slot: u32) {
        let mut at = elements[slot].links[0] as usize;
        if at < self.sums.len() {
            let last = self.sums.len() - 1;
            let weight = self.weight(elements, slot);
            let moved = self.weight(elements, self.members[last]);
            self.add(at, moved.wrapping_sub(weight));
            self.total = self.total.wrapping_sub(moved);
            self.sums.pop();
            self.swap(elements, at, last);
            at = last;
        }
        self.swap(elements, at, self.members.len() - 1);
        self.members.pop();
    }

    /// Changes what an element's weight depends on.
    pub(super) fn update(&mut self, elements: &mut Slab, slot: u32, values: Values, used: u32) {
        let at = elements[slot].links[0] as usize;
        let old = self.weight(elements, slot);
        let new = u64::from(self.kind.weight(&values, used));
        let stays = (old > 0) == (new > 0);
        if stays && old != new {
            self.add(at, new.wrapping_sub(old));
        } else if !stays {
            self.remove(elements, slot);
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
        let weighted = self.sums.len();
        let heavy = items.min(weighted);
        if heavy == 1 {
            out(self.members[self.find(rng.u64(0..self.total))]);
        } else if heavy > 1 {
            self.draw_weighted(elements, rng, heavy, out);
        }
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
        match (self.total, self.members.len()) {
            (_, 0) => None,
            (0, len) => Some(self.members[rng.usize(0..len)]),
            (total, _) => Some(self.members[self.find(rng.u64(0..total))]),
        }
    }

    /// Draws `items` of the weighted; each has no weight until the draw is over.
    fn draw_weighted(&mut self, elements: &Slab, rng: &mut Rng, items: usize, out: &mut impl FnMut(u32)) {
        let mut drawn = Vec::with_capacity(items);
        for _ in 0..items {
            let at = self.find(rng.u64(0..self.total));
            let slot = self.members[at];
            let weight = self.weight(elements, slot);
            self.add(at, weight.wrapping_neg());
            drawn.push((at, weight));
            out(slot);
        }
        for (at, weight) in drawn {
            self.add(at, weight);
        }
    }

    /// The weighted member that `ticket` of `total` falls on.
    fn find(&self, mut ticket: u64) -> usize {
        let mut at = 0;
        let mut step = (self.sums.len() + 1).next_power_of_two() / 2;
        while step > 0 {
            if let Some(&sum) = self.sums.get(at + step - 1)
                && sum <= ticket
            {
                ticket -= sum;
                at += step;
            }
            step /= 2;
        }
        at
    }

    /// Adds to the weight of member `at`, modulo 2^64 (so that it subtracts as well).
    fn add(&mut self, at: usize, weight: u64) {
        self.total = self.total.wrapping_add(weight);
        let mut i = at + 1;
        while i <= self.sums.len() {
            self.sums[i - 1] = self.sums[i - 1].wrapping_add(weight);
            i += i & i.wrapping_neg();
        }
    }

    fn push_weight(&mut self, weight: u64) {
        let i = self.sums.len() + 1;
        let mut sum = weight;
        let mut below = 1;
        while i & below == 0 {
            sum = sum.wrapping_add(self.sums[i - below - 1]);
            below *= 2;
        }
        self.sums.push(sum);
        self.total = self.total.wrapping_add(weight);
    }

    fn swap(&mut self, elements: &mut Slab, a: usize, b: usize) {
        if a != b {
            self.members.swap(a, b);
            elements[self.members[a]].links[0] = a as u32;
            elements[self.members[b]].links[0] = b as u32;
        }
    }
}
