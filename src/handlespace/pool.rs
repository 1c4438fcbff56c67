//! One pool: what its elements have in common, who owns which of them, and how to choose.

use super::checksum::Sum;
use super::element::{Element, Slab};
use super::lottery::Lottery;
use super::marks::is_drained;
use super::policy::{self, Rule, Values};
use super::sorted::Sorted;
use super::tree::Tree;
use super::{ElementKey, Increment};
use crate::wire::{ParamType, PoolHandle, Protocol, Transport, TransportUse};
use fastrand::Rng;

/// A pool, named by its first element's transport type, transport use and policy.
#[derive(Debug)]
pub(super) struct PoolEntry {
    pub handle: PoolHandle,
    /// What the handle contributes to its elements' checksum.
    pub sum: Sum,
    pub transport: ParamType,
    pub control: bool,
    pub kind: Rule,
    pub len: usize,
    /// How many of them are drained: not among those to choose from.
    pub drained: usize,
    /// How often elements were chosen.
    pub selected: u64,
    /// Elements by identifier, per home registrar (by index). Few registrars, many elements.
    pub owned: Vec<(u16, Tree<u32, u32>)>,
    order: Order,
}

#[derive(Debug)]
enum Order {
    Sorted(Sorted),
    Lottery(Lottery),
}

impl PoolEntry {
    pub(super) fn new(handle: PoolHandle, transport: &Transport, kind: Rule) -> PoolEntry {
        let order = match kind.is_random() {
            true => Order::Lottery(Lottery::new(kind)),
            false => Order::Sorted(Sorted::new(kind)),
        };
        let sum = Sum::of_handle(&handle);
        let (transport, control) = (transport.kind(), control(transport));
        PoolEntry {
            handle,
            sum,
            transport,
            control,
            kind,
            len: 0,
            drained: 0,
            selected: 0,
            owned: Vec::new(),
            order,
        }
    }

    /// Puts an element where its registrar's are found. `true`: the registrar's first in this pool.
    pub(super) fn own(&mut self, owner: u16, id: u32, slot: u32) -> bool {
        let at = self.owned.binary_search_by_key(&owner, |entry| entry.0);
        let first = at.is_err();
        let at = at.unwrap_or_else(|at| {
            self.owned.insert(at, (owner, Tree::new()));
            at
        });
        self.owned[at].1.get_or_insert(id, slot);
        first
    }

    /// The reverse of [`PoolEntry::own`]. `true`: it was the registrar's last in this pool.
    pub(super) fn disown(&mut self, owner: u16, id: u32) -> bool {
        let Ok(at) = self.owned.binary_search_by_key(&owner, |entry| entry.0) else { return false };
        self.owned[at].1.remove(id);
        let last = self.owned[at].1.is_empty();
        if last {
            self.owned.remove(at);
        }
        last
    }

    /// One registrar's elements.
    pub(super) fn owned_by(&self, owner: u16) -> Option<&Tree<u32, u32>> {
        let at = self.owned.binary_search_by_key(&owner, |entry| entry.0).ok()?;
        Some(&self.owned[at].1)
    }

    /// Takes an element into the pool, and into the selection unless it is drained.
    pub(super) fn insert(&mut self, elements: &mut Slab, slot: u32) {
        self.len += 1;
        if is_drained(elements[slot].life) {
            self.drained += 1;
            return;
        }
        match &mut self.order {
            Order::Sorted(sorted) => sorted.insert(elements, slot),
            Order::Lottery(lottery) => lottery.insert(elements, slot),
        }
    }

    /// Takes it out again.
    pub(super) fn remove(&mut self, elements: &mut Slab, slot: u32) {
        self.len -= 1;
        if is_drained(elements[slot].life) {
            self.drained -= 1;
            return;
        }
        match &mut self.order {
            Order::Sorted(sorted) => sorted.remove(elements, slot),
            Order::Lottery(lottery) => lottery.remove(elements, slot),
        }
    }

    /// An element reports its values: they replace the old ones, and what was added to its load for
    /// selections since the last report goes. A new distance alone is no report: it comes from a registrar.
    /// Its life says whether it is drained.
    pub(super) fn report(&mut self, elements: &mut Slab, slot: u32, values: Values, life: u32) {
        if is_drained(elements[slot].life) || is_drained(life) {
            self.remove(elements, slot);
            let element = &mut elements[slot];
            (element.values, element.used, element.life) = (values, 0, life);
            return self.insert(elements, slot);
        }
        elements[slot].life = life;
        let (old, used) = (elements[slot].values, elements[slot].used);
        let used = if policy::differ_in_distance_only(&old, &values) { used } else { 0 };
        match &mut self.order {
            Order::Sorted(sorted) => sorted.update(elements, slot, values, used),
            Order::Lottery(lottery) => lottery.update(elements, slot, values, used),
        }
    }

    /// Chooses up to `items`, best first.
    pub(super) fn select(
        &mut self,
        elements: &mut Slab,
        rng: &mut Rng,
        items: usize,
        increment: Increment,
        out: &mut Vec<ElementKey>,
    ) {
        if items == 1 {
            out.extend(self.select_one(elements, rng, increment).map(|slot| elements.key(slot)));
            return;
        }
        let items = items.min(self.len - self.drained);
        let mut take = |slot| out.push(ElementKey { index: slot, generation: 0 });
        match &mut self.order {
            Order::Sorted(sorted) => sorted.first(elements, items, &mut take),
            Order::Lottery(lottery) => lottery.draw(elements, rng, items, &mut take),
        }
        for key in out.iter_mut() {
            *key = elements.key(key.index);
        }
        let count = self.increment(increment).min(out.len());
        self.selected += out.len() as u64;
        let mut used = out[..count].iter();
        if let Order::Sorted(sorted) = &mut self.order
            && used.next().is_some()
        {
            sorted.use_first(elements);
        }
        for key in used {
            self.mark_used(elements, key.index);
        }
    }

    /// Chooses the best.
    pub(super) fn select_one(
        &mut self,
        elements: &mut Slab,
        rng: &mut Rng,
        increment: Increment,
    ) -> Option<u32> {
        let counts = self.increment(increment) > 0;
        let slot = match &mut self.order {
            Order::Sorted(sorted) if counts => sorted.use_first(elements),
            Order::Sorted(sorted) => sorted.first_one(),
            Order::Lottery(lottery) => {
                let slot = lottery.draw_one(rng)?;
                if counts {
                    self.mark_used(elements, slot);
                }
                Some(slot)
            }
        };
        self.selected += u64::from(slot.is_some());
        slot
    }

    /// Chooses up to `items` of those that are `usable`, best first, looking at up to `looks` of all. Only who is
    /// chosen counts as used.
    pub(super) fn select_usable(
        &mut self,
        elements: &mut Slab,
        rng: &mut Rng,
        [items, looks]: [usize; 2],
        increment: Increment,
        usable: &mut dyn FnMut(&Element) -> bool,
        out: &mut Vec<ElementKey>,
    ) {
        let looks = looks.min(self.len - self.drained);
        let mut seen = Vec::new();
        // Mostly the first ones will do.
        for looks in [items.min(looks), looks] {
            seen.clear();
            match &mut self.order {
                Order::Sorted(sorted) => sorted.first(elements, looks, &mut |slot| seen.push(slot)),
                Order::Lottery(lottery) => lottery.draw(elements, rng, looks, &mut |slot| seen.push(slot)),
            }
            seen.retain(|&slot| usable(&elements[slot]));
            if seen.len() >= items.min(looks) {
                break;
            }
        }
        seen.truncate(items);
        self.selected += seen.len() as u64;
        out.extend(seen.iter().map(|&slot| elements.key(slot)));
        for &slot in seen.iter().take(self.increment(increment)) {
            self.mark_used(elements, slot);
        }
    }

    fn increment(&self, increment: Increment) -> usize {
        match increment {
            Increment::PolicyDefault => self.kind.default_increment(),
            Increment::Up(count) => count,
            Increment::All => usize::MAX,
        }
    }

    fn mark_used(&mut self, elements: &mut Slab, slot: u32) {
        match &mut self.order {
            Order::Sorted(sorted) => sorted.mark_used(elements, slot),
            Order::Lottery(lottery) => {
                if self.kind.degrades() {
                    let (values, used) = (elements[slot].values, elements[slot].used);
                    lottery.update(elements, slot, values, used.saturating_add(1));
                }
            }
        }
    }
}

/// Whether a pool has a control channel: SCTP's transport use alone says so (RFC 5354 section 3.4), and unknown ones
/// read as data only. The same field of the others is reserved, and where our TCP elements use it, each of a pool
/// may say something else.
pub(super) fn control(transport: &Transport) -> bool {
    transport.protocol() == Some(Protocol::Sctp) && transport.usage() == TransportUse::DataPlusControl
}
