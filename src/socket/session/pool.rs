//! The element that is registered on a descriptor, and what it tells its users about its pool.

use crate::machine::client::RequestError;
use crate::machine::seal::Seal;
use crate::machine::session::business_card;
use crate::runtime::{Answer, Directory, Watcher};
use crate::wire::{PeId, PoolHandle};
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// How many elements a card is chosen from.
const CARD_CHOICE: usize = 64;

/// A registered element.
pub(crate) struct PoolSide {
    pub(crate) handle: PoolHandle,
    pub(crate) id: PeId,
    directory: Arc<dyn Directory>,
    /// Keeps our pool in the cache once somebody uses us.
    watch: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    cards: AtomicUsize,
    /// Signs its cookies.
    pub(crate) seal: Option<Seal>,
    left: AtomicBool,
}

impl std::fmt::Debug for PoolSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolSide").field("handle", &self.handle).field("id", &self.id).finish()
    }
}

/// What a user's session knows of pools beside its own.
pub(crate) struct Circle {
    pub(crate) directory: Arc<dyn Directory>,
    /// The element that this process is as well: its card is for the elements that its users talk to.
    pub(crate) own: Option<Arc<PoolSide>>,
}

struct Nobody;
impl Watcher for Nobody {
    fn element_gone(&self) {}
}

impl PoolSide {
    pub(crate) fn new(
        handle: PoolHandle,
        id: PeId,
        directory: Arc<dyn Directory>,
        seal: Option<Seal>,
    ) -> PoolSide {
        let (watch, cards, left) = (Mutex::new(None), AtomicUsize::new(0), AtomicBool::new(false));
        PoolSide { handle, id, directory, watch, cards, seal, left }
    }

    /// Whether it is still an element.
    pub(crate) fn is_registered(&self) -> bool {
        !self.left.load(Relaxed)
    }

    /// A user came: from now on the other elements are of interest.
    pub(crate) fn used(&self) {
        let mut watch = self.watch.lock();
        if watch.is_none() {
            *watch = Some(self.directory.watch(&self.handle, self.id, Arc::new(Nobody)));
        }
    }

    /// A business card for the next user; `None` while no other element is known.
    pub(crate) fn card(&self) -> Option<Vec<u8>> {
        let others = self.directory.cached(&self.handle, CARD_CHOICE);
        let turn = self.cards.fetch_add(1, Relaxed);
        business_card(&self.handle, self.id, others, turn)
    }

    /// Asks about a pool that somebody's card is for, if nothing is known of it.
    pub(crate) fn acquaint(&self, handle: &PoolHandle) {
        self.directory.acquaint(handle);
    }

    /// Takes the element out of its pool, behind whatever was asked before.
    pub(crate) fn deregister(&self) -> Result<Answer<()>, RequestError> {
        self.left.store(true, Relaxed);
        self.directory.deregister(&self.handle, self.id)
    }

    /// What came of that: the element is not ours any more either way.
    pub(crate) fn gone(&self, result: Result<(), RequestError>) {
        if let Err(error) = result {
            log::info!("deregistration of {} in pool {:?}: {error:?}", self.id, self.handle);
        }
    }
}
