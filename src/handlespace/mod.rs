//! Pools, elements, selection policies, ownership, incremental checksums.
//!
//! Pure data: no clock, socket, thread or lock; randomness comes from the seed given at
//! construction. Every operation is O(log n) or better in the pool's size, for every policy. What grows with the
//! handlespace grows in steps (`chunks`, the parts of tables in `hash`), so that no registration pays for a copy of all.
//!
//! How a pool chooses is in `sorted` (round robin, priority, least used ..) and `lottery` (the random
//! policies), what each policy's values mean in `policy`, what an operator decides about elements in `marks`.

mod checksum;
pub(crate) mod chunks;
mod element;
mod hash;
mod lottery;
pub mod marks;
mod policy;
mod pool;
mod sorted;
mod spelling;
#[cfg(test)]
mod tests;
mod tree;
mod view;

pub use checksum::Sum;
pub use spelling::Spelled;
pub use view::{ElementRef, PoolRef};

use crate::wire::{CauseCode, PeId, Policy, PoolElement, PoolHandle, RegistrarId, Transport};
use checksum::Owners;
use chunks::Places;
use element::{Element, NewElement, Rare, Slab};
use fastrand::Rng;
use hash::{PartedTable, Spread};
use policy::{Carried, Rule, Values};
use pool::{PoolEntry, control};
use std::collections::BTreeMap;
use std::fmt;

/// Names an element as long as it is registered; small and dense, for side tables. A key of a
/// removed element stays invalid (generation check).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementKey {
    /// Slot, dense from 0.
    pub index: u32,
    /// Which occupant of the slot.
    pub generation: u32,
}

/// How many of the selected elements count as used (behaviour of rsplib: "max increment").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Increment {
    /// Every one for policies with degradation, 1 for the other ordered and adaptive ones, 0 for random ones.
    PolicyDefault,
    /// That many.
    Up(usize),
    /// Every returned element: what a pool user does with its cache.
    All,
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// New element.
    Added,
    /// Known element, something differs (policy values, transports, life).
    Updated,
    /// Known element, nothing differs.
    Same,
    /// Known element, owned by that registrar until now (values may differ too).
    Moved {
        /// Home registrar until now.
        from: RegistrarId,
    },
}

/// Why a registration is refused; each has its cause for the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// PE id 0.
    InvalidId,
    /// The pool's elements have another transport type.
    WrongProtocol,
    /// No address or port 0.
    InvalidAddresses,
    /// The pool's elements have another transport use (of SCTP, which alone has one).
    WrongControlChannel,
    /// The pool has another policy.
    IncompatiblePolicy,
    /// A policy type that is invalid: 0x00000000 or 0x40000000 (RFC 5356 section 7.1).
    UnsupportedPolicy,
    /// A bound was reached.
    Full,
}

impl Reject {
    /// The cause that rsplib's clients understand.
    pub fn cause(self) -> CauseCode {
        match self {
            Reject::InvalidId => CauseCode::INVALID_ID,
            Reject::WrongProtocol => CauseCode::WRONG_PROTOCOL,
            Reject::InvalidAddresses => CauseCode::INVALID_ADDRESSES,
            Reject::WrongControlChannel => CauseCode::INCONSISTENT_CONTROL,
            Reject::IncompatiblePolicy => CauseCode::INCONSISTENT_POLICY,
            Reject::UnsupportedPolicy => CauseCode::UNSUPPORTED_POLICY,
            Reject::Full => CauseCode::LACK_OF_RESOURCES,
        }
    }
}

/// How much a handlespace takes in; what is beyond gets [`Reject::Full`].
///
/// Besides, there can be 4096 home registrars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Elements in all pools together.
    pub elements: usize,
    /// Pools.
    pub pools: usize,
    /// Bytes of pool handles, of unknown policies, and of transports other than a single IPv4 address, in all. What is
    /// registered once they are used up must do without.
    pub bytes: usize,
}

/// Four million elements (about half a gigabyte), one million pools, a quarter of a gigabyte for names
/// and many addresses.
impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { elements: 4 << 20, pools: 1 << 20, bytes: 256 << 20 }
    }
}

/// So many elements are worth a look for those that are of use to somebody.
pub const MOST_LOOKS: usize = 128;
/// Most addresses in one transport, as rsplib has it.
const MAX_ADDRESSES: usize = 64;

/// The handlespace of an operation scope.
pub struct Handlespace {
    bounds: Bounds,
    rng: Rng,
    elements: Slab,
    rare: Rare,
    carried: Carried,
    /// Bytes in `carried`.
    carried_bytes: usize,
    owners: Owners,
    pools: Places<PoolEntry>,
    by_handle: BTreeMap<PoolHandle, u32>,
    /// The same once more, for speed.
    handles: PartedTable<PoolHandle>,
    /// Slots by pool and identifier, as one number.
    ids: PartedTable<Name>,
    /// Bytes of all pools' handles.
    handle_bytes: usize,
}

/// Pool index and element identifier. Not one `u64`: that would cost 4 bytes of padding per entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    pool: u32,
    id: u32,
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.word());
    }
}

impl Spread for Name {
    fn word(&self) -> u64 {
        u64::from(self.pool) << 32 | u64::from(self.id)
    }
}

impl fmt::Debug for Handlespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pools()).finish()
    }
}

impl Handlespace {
    /// An empty handlespace; `seed` feeds the random policies.
    pub fn new(seed: u64) -> Handlespace {
        Handlespace {
            bounds: Bounds::default(),
            rng: Rng::with_seed(seed),
            elements: Slab::new(),
            rare: Rare::default(),
            carried: Carried::default(),
            carried_bytes: 0,
            owners: Owners::default(),
            pools: Places::default(),
            by_handle: BTreeMap::new(),
            handles: PartedTable::new(seed),
            ids: PartedTable::new(!seed),
            handle_bytes: 0,
        }
    }

    /// Other bounds than the default ones; elements beyond them stay until they are removed.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Adds or updates an element under the home registrar it names.
    ///
    /// A pool takes transport type, transport use and policy from its first element. Transports and policies that
    /// nobody here knows are carried as they are. A known element keeps
    /// its place among its equals unless its policy values differ; it starts anew with its reported
    /// load. A refused registration changes nothing.
    pub fn register(
        &mut self,
        handle: &PoolHandle,
        element: &PoolElement,
    ) -> Result<(ElementKey, Change), Reject> {
        let pool = self.pool_index(handle);
        let (kind, values) = self.admit(pool, element)?;
        let known = pool.and_then(|pool| self.ids.get(&Name { pool, id: element.id.0 }));
        match known {
            Some(slot) => self.update(slot, values, element),
            None => self.add(pool, handle, kind, values, element),
        }
    }

    /// Whether an element may be in a pool; checks in rsplib's order.
    fn admit(&self, pool: Option<u32>, element: &PoolElement) -> Result<(Rule, Values), Reject> {
        let pool = pool.and_then(|index| self.pools.get(index));
        let transport = &element.transport;
        if element.id == PeId(0) {
            return Err(Reject::InvalidId);
        }
        if pool.is_some_and(|pool| transport.kind() != pool.transport) {
            return Err(Reject::WrongProtocol);
        }
        if matches!(transport, Transport::Address { port, addresses, .. }
            if !(1..=MAX_ADDRESSES).contains(&addresses.len()) || *port == 0)
        {
            return Err(Reject::InvalidAddresses);
        }
        if pool.is_some_and(|pool| control(transport) != pool.control) {
            return Err(Reject::WrongControlChannel);
        }
        let (kind, values) = policy::split(&element.policy).ok_or(Reject::UnsupportedPolicy)?;
        if pool.is_some_and(|pool| kind != pool.kind) {
            return Err(Reject::IncompatiblePolicy);
        }
        Ok((kind, values))
    }

    fn add(
        &mut self,
        pool: Option<u32>,
        handle: &PoolHandle,
        kind: Rule,
        values: Values,
        element: &PoolElement,
    ) -> Result<(ElementKey, Change), Reject> {
        let name = if pool.is_none() { handle.as_bytes().len() } else { 0 };
        if self.elements.len() >= self.bounds.elements
            || pool.is_none() && self.by_handle.len() >= self.bounds.pools
            || !self.has_room(
                name + carried(&element.policy).len(),
                [Some(&element.transport), element.asap.as_ref()],
            )
        {
            return Err(Reject::Full);
        }
        let home = self.owners.ensure(element.home).ok_or(Reject::Full)?;
        let pool =
            pool.unwrap_or_else(|| self.add_pool(PoolEntry::new(handle.clone(), &element.transport, kind)));
        let values = match kind {
            Rule::Unknown(_) => self.carry(carried(&element.policy)),
            _ => values,
        };
        let slot = self.elements.insert(NewElement {
            id: element.id.0,
            pool,
            life: element.life,
            values,
            transport: self.rare.store(Some(&element.transport)),
            asap: self.rare.store(element.asap.as_ref()),
            home,
        });
        self.ids.insert::<Name>(Name { pool, id: element.id.0 }, slot);
        self.own(slot);
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.insert(&mut self.elements, slot);
        }
        Ok((self.elements.key(slot), Change::Added))
    }

    fn update(
        &mut self,
        slot: u32,
        values: Values,
        element: &PoolElement,
    ) -> Result<(ElementKey, Change), Reject> {
        let known = &self.elements[slot];
        let from = self.owners.get(known.home).id;
        // What is carried stays where it is, though it may be replaced there.
        let new = carried(&element.policy);
        let unknown = matches!(element.policy, Policy::Unknown { .. });
        let values = if unknown { known.values } else { values };
        let carries_the_same = !unknown || self.carried_by(slot) == new;
        let more = if carries_the_same { 0 } else { new.len() };
        let same_transport = self.rare.equals(known.transport, Some(&element.transport));
        let same_asap = self.rare.equals(known.asap, element.asap.as_ref());
        let same_policy = carries_the_same && known.values == values;
        let same = same_transport && same_asap && same_policy && known.life == element.life;
        let transport = (!same_transport).then_some(&element.transport);
        if !self.has_room(more, [transport, element.asap.as_ref().filter(|_| !same_asap)]) {
            return Err(Reject::Full);
        }
        if from != element.home && !self.change_home(slot, element.home) {
            return Err(Reject::Full);
        }
        let known = &mut self.elements[slot];
        if !same_transport {
            self.rare.drop(known.transport);
            known.transport = self.rare.store(Some(&element.transport));
        }
        if !same_asap {
            self.rare.drop(known.asap);
            known.asap = self.rare.store(element.asap.as_ref());
        }
        let pool = known.pool;
        if !carries_the_same && let Some(place) = self.carried.get_mut(values[0]) {
            self.carried_bytes = self.carried_bytes - place.len() + new.len();
            *place = new.into();
        }
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.report(&mut self.elements, slot, values, element.life);
        }
        let change = match same {
            _ if from != element.home => Change::Moved { from },
            true => Change::Same,
            false => Change::Updated,
        };
        Ok((self.elements.key(slot), change))
    }

    /// Removes an element; `None` if the key is stale. A pool goes with its last element.
    pub fn remove(&mut self, key: ElementKey) -> Option<PoolElement> {
        let removed = self.get(key)?.to_element();
        let slot = key.index;
        self.disown(slot);
        let home = self.elements[slot].home;
        self.owners.drop_if_empty(home);
        if matches!(self.pool_of(slot).map(|pool| pool.kind), Some(Rule::Unknown(_))) {
            let carried = self.carried.remove(self.elements[slot].values[0]);
            self.carried_bytes -= carried.map_or(0, |value| value.len());
        }
        let &Element { pool: index, id, transport, asap, .. } = &self.elements[slot];
        self.ids.remove(&Name { pool: index, id });
        if let Some(pool) = self.pools.get_mut(index) {
            pool.remove(&mut self.elements, slot);
            if pool.len == 0 {
                self.handle_bytes -= pool.handle.as_bytes().len();
                self.by_handle.remove(pool.handle.as_bytes());
                self.handles.remove(pool.handle.as_bytes());
                self.pools.remove(index);
            }
        }
        self.rare.drop(transport);
        self.rare.drop(asap);
        self.elements.remove(slot);
        Some(removed)
    }

    /// Finds an element.
    pub fn find(&self, handle: &PoolHandle, id: PeId) -> Option<ElementKey> {
        let pool = self.pool_index(handle)?;
        self.ids.get(&Name { pool, id: id.0 }).map(|slot| self.elements.key(slot))
    }

    /// Makes `owner` the element's home registrar. `false` if the key is stale (or there are too many
    /// home registrars).
    pub fn set_home(&mut self, key: ElementKey, owner: RegistrarId) -> bool {
        self.elements.slot(key).is_some_and(|slot| self.change_home(slot, owner))
    }

    /// Chooses up to `items` different elements by the pool's policy, best first, into `out`
    /// (cleared first). `false`: no such pool.
    pub fn select(
        &mut self,
        handle: &(impl AsRef<[u8]> + ?Sized),
        items: usize,
        increment: Increment,
        out: &mut Vec<ElementKey>,
    ) -> bool {
        out.clear();
        let Some(index) = self.handles.get::<[u8]>(handle.as_ref()) else { return false };
        if let Some(pool) = self.pools.get_mut(index) {
            pool.select(&mut self.elements, &mut self.rng, items, increment, out);
        }
        true
    }

    /// Chooses up to `items` different elements whose transport is `usable`, best first, into `out` (cleared
    /// first); up to `looks` elements are looked at, in the order of the policy. `false`: no such pool.
    pub fn select_usable(
        &mut self,
        handle: &PoolHandle,
        [items, looks]: [usize; 2],
        increment: Increment,
        usable: impl Fn(&Transport) -> bool,
        out: &mut Vec<ElementKey>,
    ) -> bool {
        out.clear();
        let Some(index) = self.pool_index(handle) else { return false };
        let rare = &self.rare;
        let mut usable =
            |element: &Element| rare.load(element.transport).is_some_and(|transport| usable(&transport));
        if let Some(pool) = self.pools.get_mut(index) {
            pool.select_usable(
                &mut self.elements,
                &mut self.rng,
                [items, looks],
                increment,
                &mut usable,
                out,
            );
        }
        true
    }

    /// Chooses one element by the pool's policy; `None`: no such pool.
    pub fn select_one(&mut self, handle: &PoolHandle, increment: Increment) -> Option<ElementKey> {
        let index = self.pool_index(handle)?;
        let pool = self.pools.get_mut(index)?;
        let slot = pool.select_one(&mut self.elements, &mut self.rng, increment)?;
        Some(self.elements.key(slot))
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of pools.
    pub fn pool_count(&self) -> usize {
        self.by_handle.len()
    }

    /// Bytes of handles, of unknown policies, and of transports other than a single IPv4 address ([`Bounds::bytes`]).
    pub fn bytes(&self) -> usize {
        self.handle_bytes + self.rare.bytes() + self.carried_bytes
    }

    /// Number of elements of one home registrar.
    pub fn owned_count(&self, owner: RegistrarId) -> usize {
        self.owners.find(owner).map_or(0, |owner| owner.count)
    }

    /// The PE checksum over the elements of `owner`, as the two bytes of the wire (kept incrementally).
    pub fn checksum(&self, owner: RegistrarId) -> [u8; 2] {
        self.sum(owner).to_wire()
    }

    /// The running sum behind the checksum, to which elements may be added that are not held here.
    pub fn sum(&self, owner: RegistrarId) -> Sum {
        self.owners.find(owner).map_or(Sum::default(), |owner| owner.sum)
    }

    /// The same, computed afresh, for tests and audits.
    pub fn recompute_checksum(&self, owner: RegistrarId) -> [u8; 2] {
        let mut sum = Sum::default();
        for element in self.elements_after(None).filter(|element| element.home() == owner) {
            sum.add(Sum::of_handle(element.handle()).with_id(element.id().0));
        }
        sum.to_wire()
    }

    fn pool_of(&self, slot: u32) -> Option<&PoolEntry> {
        self.pools.get(self.elements[slot].pool)
    }

    /// Keeps what an element of an unknown policy says; the values that lead there.
    fn carry(&mut self, value: &[u8]) -> Values {
        self.carried_bytes += value.len();
        [self.carried.insert(value.into()), 0, 0, 0]
    }

    /// What an element of an unknown policy said; nothing for one of another.
    fn carried_by(&self, slot: u32) -> &[u8] {
        match self.pool_of(slot).map(|pool| pool.kind) {
            Some(Rule::Unknown(_)) => {
                self.carried.get(self.elements[slot].values[0]).map_or(&[], |value| value)
            }
            _ => &[],
        }
    }

    fn pool_index(&self, handle: &PoolHandle) -> Option<u32> {
        self.handles.get(handle.as_bytes())
    }

    /// Whether there is room for a new pool's name (or what else has bytes) and for transports, of which those in
    /// eight bytes need none.
    fn has_room(&self, name: usize, transports: [Option<&Transport>; 2]) -> bool {
        let rare: usize = transports.into_iter().flatten().map(element::extra_bytes).sum();
        let more = name + rare;
        more == 0 || self.bytes() + more <= self.bounds.bytes
    }

    fn add_pool(&mut self, pool: PoolEntry) -> u32 {
        let handle = pool.handle.clone();
        let index = self.pools.insert(pool);
        self.handle_bytes += handle.as_bytes().len();
        self.by_handle.insert(handle.clone(), index);
        self.handles.insert::<[u8]>(handle, index);
        index
    }

    fn change_home(&mut self, slot: u32, owner: RegistrarId) -> bool {
        let Some(new) = self.owners.ensure(owner) else { return false };
        let old = self.elements[slot].home;
        if new != old {
            self.disown(slot);
            self.elements[slot].home = new;
            self.own(slot);
            self.owners.drop_if_empty(old);
        }
        true
    }

    /// Counts an element for the home registrar that it names.
    fn own(&mut self, slot: u32) {
        let element = &self.elements[slot];
        let Some(pool) = self.pools.get_mut(element.pool) else { return };
        let owner = self.owners.get_mut(element.home);
        owner.count += 1;
        owner.sum.add(pool.sum.with_id(element.id));
        if pool.own(element.home, element.id, slot) {
            owner.pools.insert(pool.handle.clone(), element.pool);
        }
    }

    /// The reverse of `own`; an owner left without elements is the caller's to drop.
    fn disown(&mut self, slot: u32) {
        let element = &self.elements[slot];
        let Some(pool) = self.pools.get_mut(element.pool) else { return };
        let owner = self.owners.get_mut(element.home);
        owner.count -= 1;
        owner.sum.subtract(pool.sum.with_id(element.id));
        if pool.disown(element.home, element.id) {
            owner.pools.remove(pool.handle.as_bytes());
        }
    }
}

/// What a policy parameter of an unknown type has behind it.
fn carried(policy: &Policy) -> &[u8] {
    match policy {
        Policy::Unknown { value, .. } => value,
        _ => &[],
    }
}
