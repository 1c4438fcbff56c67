//! Reading: elements, pools, and the ordered walks that tables are sent from.

use super::element::Element;
use super::marks::{self, Marks};
use super::pool::PoolEntry;
use super::{ElementKey, Handlespace, policy, tree};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, RegistrarId, Transport};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;
use std::ops::Bound;

/// Read access to one element.
#[derive(Clone, Copy)]
pub struct ElementRef<'a> {
    space: &'a Handlespace,
    slot: u32,
}

/// Read access to one pool.
#[derive(Clone, Copy)]
pub struct PoolRef<'a> {
    space: &'a Handlespace,
    index: u32,
}

impl<'a> ElementRef<'a> {
    fn element(&self) -> &'a Element {
        &self.space.elements[self.slot]
    }

    fn pool(&self) -> &'a PoolEntry {
        self.space.pool_at(self.element().pool)
    }

    /// Its key.
    pub fn key(&self) -> ElementKey {
        self.space.elements.key(self.slot)
    }

    /// Its pool's handle.
    pub fn handle(&self) -> &'a PoolHandle {
        &self.pool().handle
    }

    /// Its identifier, unique in the pool.
    pub fn id(&self) -> PeId {
        PeId(self.element().id)
    }

    /// Its home registrar.
    pub fn home(&self) -> RegistrarId {
        self.space.owners.get(self.element().home).id
    }

    /// Registration life in milliseconds; all ones: no end.
    pub fn life(&self) -> u32 {
        marks::life(self.element().life)
    }

    /// What an operator has decided about it.
    pub fn marks(&self) -> Marks {
        marks::marks(self.element().life)
    }

    /// Its policy values.
    pub fn policy(&self) -> Policy {
        policy::join(self.pool().kind, &self.element().values, &self.space.carried)
    }

    /// How often it was selected since it last reported its load (policies with degradation only;
    /// otherwise without meaning).
    pub fn degradation_count(&self) -> u32 {
        self.element().used
    }

    /// Where its users reach it.
    pub fn transport(&self) -> Transport {
        self.space.rare.load(self.element().transport).unwrap_or(Transport::Opaque(Vec::new()))
    }

    /// Where registrars reach it.
    pub fn asap(&self) -> Option<Transport> {
        self.space.rare.load(self.element().asap)
    }

    /// The whole element as it stands in messages, `asap` included.
    pub fn to_element(&self) -> PoolElement {
        PoolElement { asap: self.asap(), ..self.to_client_element() }
    }

    /// The element as clients see it, without `asap`.
    pub fn to_client_element(&self) -> PoolElement {
        let element = self.element();
        PoolElement {
            id: PeId(element.id),
            home: self.home(),
            life: element.life,
            transport: self.transport(),
            policy: self.policy(),
            asap: None,
        }
    }
}

impl fmt::Debug for ElementRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ElementRef").field(self.handle()).field(&self.to_element()).finish()
    }
}

impl<'a> PoolRef<'a> {
    fn pool(&self) -> &'a PoolEntry {
        self.space.pool_at(self.index)
    }

    /// Its handle.
    pub fn handle(&self) -> &'a PoolHandle {
        &self.pool().handle
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.pool().len
    }

    /// Never: a pool goes with its last element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of its elements are drained.
    pub fn drained(&self) -> usize {
        self.pool().drained
    }

    /// How often its elements were chosen since it exists.
    pub fn selected(&self) -> u64 {
        self.pool().selected
    }

    /// The policy parameter for the pool as a whole (values of some element).
    pub fn policy(&self) -> Policy {
        let some = self.pool().owned.iter().find_map(|(_, ids)| ids.first());
        let values = some.map_or([0; 4], |(_, slot)| self.space.elements[slot].values);
        policy::join(self.pool().kind, &values, &self.space.carried)
    }

    /// Elements in order of identifier.
    pub fn elements(&self) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
        Box::new(self.elements_after(None))
    }

    /// Elements in order of identifier, those after `after` only.
    pub fn elements_after(self, after: Option<PeId>) -> impl Iterator<Item = ElementRef<'a>> + 'a {
        let space = self.space;
        Merged::new(self.pool(), after).map(move |slot| ElementRef { space, slot })
    }
}

impl fmt::Debug for PoolRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolRef").field("handle", self.handle()).field("len", &self.len()).finish()
    }
}

/// The elements of a pool in order of identifier, merged from its home registrars' trees.
struct Merged<'a> {
    trees: Vec<tree::Iter<'a, u32, u32>>,
    /// (identifier, slot, which tree it is from) of the next of each tree.
    next: BinaryHeap<Reverse<(u32, u32, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(pool: &'a PoolEntry, after: Option<PeId>) -> Merged<'a> {
        let after = after.map(|id| id.0);
        let mut trees: Vec<_> = pool.owned.iter().map(|(_, ids)| ids.after(after)).collect();
        let first = |(tree, ids): (usize, &mut tree::Iter<'a, u32, u32>)| {
            ids.next().map(|(id, slot)| Reverse((id, slot, tree)))
        };
        let next = trees.iter_mut().enumerate().filter_map(first).collect();
        Merged { trees, next }
    }
}

impl Iterator for Merged<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let mut top = self.next.peek_mut()?;
        let Reverse((_, slot, tree)) = *top;
        match self.trees[tree].next() {
            Some((id, following)) => *top = Reverse((id, following, tree)),
            None => _ = PeekMut::pop(top),
        }
        Some(slot)
    }
}

impl Handlespace {
    fn pool_at(&self, index: u32) -> &PoolEntry {
        self.pools.get(index).expect("an index in use names a pool")
    }

    /// Reads an element.
    pub fn get(&self, key: ElementKey) -> Option<ElementRef<'_>> {
        self.elements.slot(key).map(|slot| ElementRef { space: self, slot })
    }

    /// Reads a pool.
    pub fn pool(&self, handle: &PoolHandle) -> Option<PoolRef<'_>> {
        self.pool_index(handle).map(|index| PoolRef { space: self, index })
    }

    /// The same by the handle's bytes.
    pub fn pool_named(&self, handle: &[u8]) -> Option<PoolRef<'_>> {
        self.handles.get(handle).map(|index| PoolRef { space: self, index })
    }

    /// All pools in order of handle.
    pub fn pools(&self) -> Box<dyn Iterator<Item = PoolRef<'_>> + '_> {
        Box::new(self.by_handle.values().map(|&index| PoolRef { space: self, index }))
    }

    /// Pools in order of handle, those after `after` only. To start costs O(log n).
    pub fn pools_after(&self, after: Option<&PoolHandle>) -> impl Iterator<Item = PoolRef<'_>> + '_ {
        let from = after.map_or(Bound::Unbounded, |handle| Bound::Excluded(handle.as_bytes()));
        let pools = self.by_handle.range::<[u8], _>((from, Bound::Unbounded));
        pools.map(|(_, &index)| PoolRef { space: self, index })
    }

    /// The first pool at or after a handle, in order of handle; O(log n).
    pub(super) fn pool_from(&self, handle: &[u8]) -> Option<PoolRef<'_>> {
        let mut pools = self.by_handle.range::<[u8], _>((Bound::Included(handle), Bound::Unbounded));
        pools.next().map(|(_, &index)| PoolRef { space: self, index })
    }

    /// Elements in order of (handle, id), those after `after` only. To start costs O(log n) and the
    /// number of home registrars.
    pub fn elements_after<'a>(
        &'a self,
        after: Option<(&PoolHandle, PeId)>,
    ) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
        let from = after.map_or(Bound::Unbounded, |(handle, _)| Bound::Included(handle.as_bytes()));
        let after = after.map(|(handle, id)| (handle.clone(), id));
        let pools = self.by_handle.range::<[u8], _>((from, Bound::Unbounded));
        Box::new(pools.flat_map(move |(handle, &index)| {
            let after = after.as_ref().filter(|(pool, _)| pool == handle).map(|&(_, id)| id);
            PoolRef { space: self, index }.elements_after(after)
        }))
    }

    /// The same, of one home registrar only; O(log n) to start.
    pub fn owned_after<'a>(
        &'a self,
        owner: RegistrarId,
        after: Option<(&PoolHandle, PeId)>,
    ) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
        let Some(owner) = self.owners.index(owner) else { return Box::new(std::iter::empty()) };
        let from = after.map_or(Bound::Unbounded, |(handle, _)| Bound::Included(handle.as_bytes()));
        let after = after.map(|(handle, id)| (handle.clone(), id));
        let pools = self.owners.get(owner).pools.range::<[u8], _>((from, Bound::Unbounded));
        Box::new(pools.flat_map(move |(handle, &index)| {
            let after = after.as_ref().filter(|(pool, _)| pool == handle).map(|&(_, id)| id);
            let ids = self.pool_at(index).owned_by(owner);
            let slots = ids.map(|ids| ids.after(after.map(|id| id.0)));
            slots.into_iter().flatten().map(|(_, slot)| ElementRef { space: self, slot })
        }))
    }
}
