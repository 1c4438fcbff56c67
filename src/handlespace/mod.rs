//! Pools, elements, selection policies, ownership, incremental checksums.
//!
//! Pure data: no clock, socket, thread or lock; randomness comes from the seed given at
//! construction. Every operation is O(log n) or better in the pool's size, for every policy.

use crate::wire::{CauseCode, PeId, Policy, PoolElement, PoolHandle, RegistrarId};

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
    /// 1 for deterministic and adaptive policies, 0 for random ones.
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
    /// The pool's elements use another protocol.
    WrongProtocol,
    /// No address or port 0.
    InvalidAddresses,
    /// The pool's elements have another transport use.
    WrongControlChannel,
    /// The pool has another policy.
    IncompatiblePolicy,
    /// Policy that nobody here knows or that cannot be encoded.
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

/// The handlespace of an operation scope.
#[derive(Debug)]
pub struct Handlespace {
    _seed: u64,
}

/// Read access to one element.
#[derive(Debug, Clone, Copy)]
pub struct ElementRef<'a> {
    _space: &'a Handlespace,
}

/// Read access to one pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolRef<'a> {
    _space: &'a Handlespace,
}

#[allow(unused_variables, missing_docs)]
impl<'a> ElementRef<'a> {
    pub fn key(&self) -> ElementKey {
        todo!()
    }
    pub fn handle(&self) -> &'a PoolHandle {
        todo!()
    }
    pub fn id(&self) -> PeId {
        todo!()
    }
    pub fn home(&self) -> RegistrarId {
        todo!()
    }
    pub fn life(&self) -> u32 {
        todo!()
    }
    /// The whole element as it stands in messages, `asap` included.
    pub fn to_element(&self) -> PoolElement {
        todo!()
    }
}

#[allow(unused_variables, missing_docs)]
impl<'a> PoolRef<'a> {
    pub fn handle(&self) -> &'a PoolHandle {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The policy parameter for the pool as a whole (values of some element).
    pub fn policy(&self) -> Policy {
        todo!()
    }
    /// Elements in order of identifier.
    pub fn elements(&self) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
        todo!()
    }
}

#[allow(unused_variables)]
impl Handlespace {
    /// An empty handlespace; `seed` feeds the random policies.
    pub fn new(seed: u64) -> Handlespace {
        Handlespace { _seed: seed }
    }
    /// Adds or updates an element under the home registrar it names.
    pub fn register(
        &mut self,
        handle: &PoolHandle,
        element: &PoolElement,
    ) -> Result<(ElementKey, Change), Reject> {
        todo!()
    }
    /// Removes an element; `None` if the key is stale.
    pub fn remove(&mut self, key: ElementKey) -> Option<PoolElement> {
        todo!()
    }
    /// Finds an element.
    pub fn find(&self, handle: &PoolHandle, id: PeId) -> Option<ElementKey> {
        todo!()
    }
    /// Reads an element.
    pub fn get(&self, key: ElementKey) -> Option<ElementRef<'_>> {
        todo!()
    }
    /// Makes `owner` the element's home registrar. `false` if the key is stale.
    pub fn set_home(&mut self, key: ElementKey, owner: RegistrarId) -> bool {
        todo!()
    }
    /// Chooses up to `items` different elements by the pool's policy, best first, into `out`
    /// (cleared first). `false`: no such pool.
    pub fn select(
        &mut self,
        handle: &PoolHandle,
        items: usize,
        increment: Increment,
        out: &mut Vec<ElementKey>,
    ) -> bool {
        todo!()
    }
    /// Reads a pool.
    pub fn pool(&self, handle: &PoolHandle) -> Option<PoolRef<'_>> {
        todo!()
    }
    /// All pools in order of handle.
    pub fn pools(&self) -> Box<dyn Iterator<Item = PoolRef<'_>> + '_> {
        todo!()
    }
    /// Elements in order of (handle, id), those after `after` only; O(log n) to start.
    pub fn elements_after<'a>(
        &'a self,
        after: Option<(&PoolHandle, PeId)>,
    ) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
        todo!()
    }
    /// The same, of one home registrar only; O(log n) to start.
    pub fn owned_after<'a>(
        &'a self,
        owner: RegistrarId,
        after: Option<(&PoolHandle, PeId)>,
    ) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
        todo!()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Number of pools.
    pub fn pool_count(&self) -> usize {
        todo!()
    }
    /// Number of elements of one home registrar.
    pub fn owned_count(&self, owner: RegistrarId) -> usize {
        todo!()
    }
    /// The PE checksum over the elements of `owner`, as the two bytes of the wire (kept incrementally).
    pub fn checksum(&self, owner: RegistrarId) -> [u8; 2] {
        todo!()
    }
    /// The same, computed afresh, for tests and audits.
    pub fn recompute_checksum(&self, owner: RegistrarId) -> [u8; 2] {
        todo!()
    }
}
