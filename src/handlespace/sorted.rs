//! The ordered policies: elements by sort key, equals taking turns.
//!
//! Equals form a ring-like list through the elements themselves, so what most selections do, to send
//! the first of its equals to their end, costs the same in a pool of ten and of a million. Only a
//! changed key goes through the tree of keys.
//!
//! Weighted round robin runs in laps. Within a lap an element of weight w stands at the fractions
//! 0/w, 1/w .. (w-1)/w, so that its turns spread evenly (RFC 5356 section 4.2.2); after the last it
//! waits for the next lap. Weights 1 and 3 give `1 2 2 2`, 2 and 3 give `1 2 2 1 2`.

use super::element::{Element, NONE, Slab};
use super::policy::{Rule, Values};
use super::tree::Tree;
use std::mem;

/// Where elements wait that had all their turns in this lap. Keys below: their place in this lap.
const NEXT_LAP: u64 = 1 << 32;
/// Elements of weight 0: behind all others, never counted.
const WEIGHTLESS: u64 = u64::MAX;

/// Who is so many places behind the first is expected to be looked at soon ([`Slab::expect`]).
const AHEAD: usize = 5;
/// First and last of equal elements.
#[derive(Debug, Clone, Copy)]
struct Equals {
    first: u32,
    last: u32,
}

/// Whether a selection may change the key of an element that is at `key`.
///
/// An element whose turns were over and that was taken for want of others is not charged for it: a debt
/// of laps could grow without end.
fn moves(kind: Rule, key: u64) -> bool {
    match kind {
        Rule::WeightedRoundRobin => key < NEXT_LAP,
        _ => kind.degrades(),
    }
}

#[derive(Debug)]
pub(super) struct Sorted {
    kind: Rule,
    keys: Tree<u64, Equals>,
    /// Which of the two laps is under way.
    lap: bool,
}

impl Sorted {
    pub(super) fn new(kind: Rule) -> Sorted {
        Sorted { kind, keys: Tree::new(), lap: false }
    }

    fn key(&self, element: &Element) -> u64 {
        if self.kind != Rule::WeightedRoundRobin {
            return self.kind.rank(&element.values, element.used);
        }
        match element.values[0] {
            0 => WEIGHTLESS,
            _ if element.lap != self.lap => NEXT_LAP,
            weight => (u64::from(element.used) << 32) / u64::from(weight),
        }
    }

    /// Takes in a new element, behind its equals.
    pub(super) fn insert(&mut self, elements: &mut Slab, slot: u32) {
        if self.kind == Rule::WeightedRoundRobin {
            let now = self.keys.first().map_or(NEXT_LAP, |(key, _)| key.min(NEXT_LAP));
            self.join_lap(&mut elements[slot], now);
        }
        self.append(elements, slot);
    }

    /// Brings an element into the lap at fraction `now`: earlier turns are not made up for.
    fn join_lap(&self, element: &mut Element, now: u64) {
        let weight = u64::from(element.values[0]);
        let turn = (now * weight).div_ceil(NEXT_LAP);
        if turn < weight {
            (element.lap, element.used) = (self.lap, turn as u32);
        } else {
            (element.lap, element.used) = (!self.lap, 0);
        }
    }

    pub(super) fn remove(&mut self, elements: &mut Slab, slot: u32) {
        let key = self.key(&elements[slot]);
        let [before, after] = elements[slot].links;
        if before == NONE && after == NONE {
            self.keys.remove(key);
            return;
        }
        if before != NONE {
            elements[before].links[1] = after;
        }
        if after != NONE {
            elements[after].links[0] = before;
        }
        if (before == NONE || after == NONE)
            && let Some(equals) = self.keys.get_mut(key)
        {
            if before == NONE {
                equals.first = after;
            } else {
                equals.last = before;
            }
        }
    }

    /// Links `slot` in as the last of its equals.
    fn append(&mut self, elements: &mut Slab, slot: u32) {
        let key = self.key(&elements[slot]);
        let mut before = NONE;
        if let Some(equals) = self.keys.get_or_insert(key, Equals { first: slot, last: slot }) {
            before = mem::replace(&mut equals.last, slot);
        }
        elements[slot].links = [before, NONE];
        if before != NONE {
            elements[before].links[1] = slot;
        }
    }

    /// Changes what an element's key depends on. It keeps its place unless its key changes.
    pub(super) fn update(&mut self, elements: &mut Slab, slot: u32, values: Values, used: u32) {
        let (old, element) = (self.key(&elements[slot]), &mut elements[slot]);
        if values == element.values && (element.used == 0 || !self.kind.degrades()) {
            return;
        }
        self.remove(elements, slot);
        let element = &mut elements[slot];
        element.values = values;
        if self.kind != Rule::WeightedRoundRobin {
            element.used = used;
        } else if old <= NEXT_LAP {
            self.join_lap(element, old);
        } else {
            return self.insert(elements, slot);
        }
        self.append(elements, slot);
    }

    /// Appends the first `items` to `out`.
    pub(super) fn first(&mut self, elements: &mut Slab, items: usize, out: &mut impl FnMut(u32)) {
        self.begin_lap();
        let mut left = items;
        self.keys.show(|equals| {
            let mut slot = equals.first;
            while left > 0 {
                left -= 1;
                out(slot);
                // An element alone with its key isn't looked at.
                if slot == equals.last {
                    break;
                }
                let before = slot;
                slot = elements[slot].links[1];
                if left == 0 {
                    elements.expect(slot, before);
                }
            }
            left > 0
        });
    }

    /// The first of all.
    pub(super) fn first_one(&mut self) -> Option<u32> {
        self.begin_lap();
        self.keys.first().map(|(_, equals)| equals.first)
    }

    /// A lap begins where everybody waits for it.
    fn begin_lap(&mut self) {
        if self.kind == Rule::WeightedRoundRobin
            && let Some((NEXT_LAP, _)) = self.keys.first()
            && let Some((_, everybody)) = self.keys.pop_first()
        {
            self.keys.get_or_insert(0, everybody);
            self.lap = !self.lap;
        }
    }

    /// The first of all, counted as selected like by `mark_used`. Its place is known, so that less is
    /// searched for; and where it is alone with its key, it leaves the tree without a look at the
    /// element, which is not likely to be in the cache.
    pub(super) fn use_first(&mut self, elements: &mut Slab) -> Option<u32> {
        self.begin_lap();
        let (key, equals) = self.keys.first_mut()?;
        let slot = equals.first;
        let alone = slot == equals.last;
        if !moves(self.kind, key) {
            if !alone {
                let last = mem::replace(&mut equals.last, slot);
                equals.first = elements[slot].links[1];
                elements[equals.first].links[0] = NONE;
                elements[last].links[1] = slot;
                elements[slot].links = [last, NONE];
            }
            return Some(slot);
        }
        if alone {
            if let Some(soon) = self.keys.behind_first(AHEAD) {
                elements.expect(soon.first, NONE);
            }
            self.keys.pop_first();
        } else {
            equals.first = elements[slot].links[1];
            elements[equals.first].links[0] = NONE;
        }
        self.count_use(&mut elements[slot]);
        self.append(elements, slot);
        Some(slot)
    }

    /// What a selection changes in an element.
    fn count_use(&self, element: &mut Element) {
        if self.kind != Rule::WeightedRoundRobin {
            element.used = element.used.saturating_add(u32::from(element.values[1] != 0));
            return;
        }
        element.used += 1;
        if element.used == element.values[0] {
            (element.lap, element.used) = (!self.lap, 0);
        }
    }

    /// Counts a selection of `slot`: behind its equals, with what else the policy demands.
    pub(super) fn mark_used(&mut self, elements: &mut Slab, slot: u32) {
        if moves(self.kind, self.key(&elements[slot])) {
            self.remove(elements, slot);
            self.count_use(&mut elements[slot]);
            return self.append(elements, slot);
        }
        self.requeue(elements, slot);
    }

    /// Sends `slot` behind its equals.
    fn requeue(&mut self, elements: &mut Slab, slot: u32) {
        let [before, after] = elements[slot].links;
        if after == NONE {
            return;
        }
        let key = self.key(&elements[slot]);
        let Some(equals) = self.keys.get_mut(key) else { return };
        let last = equals.last;
        equals.last = slot;
        if before == NONE {
            equals.first = after;
        } else {
            elements[before].links[1] = after;
        }
        elements[after].links[0] = before;
        elements[last].links[1] = slot;
        elements[slot].links = [last, NONE];
    }
}
