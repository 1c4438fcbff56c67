//! DNS names are answered from the registrar's own handlespace.

use rserpool::dns::{Found, Pools};
use rserpool::handlespace::Spelled;
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, PoolElement, PoolHandle, Transport};

/// See the module.
pub struct Handlespace<'a>(pub &'a mut Server);

impl Pools for Handlespace<'_> {
    fn find(&mut self, name: &[u8]) -> Found {
        let machine = self.0.machine();
        if !machine.is_serving() {
            return Found::Unavailable;
        }
        match machine.handlespace().pool_spelled(name) {
            Spelled::One(pool) => Found::Pool(pool.handle().clone()),
            Spelled::Several => {
                let name = name.escape_ascii();
                log::debug!("DNS: there are pools that differ from \"{name}\" in nothing but case");
                Found::Unknown
            }
            // A pool that has just become empty is still a name.
            Spelled::None => {
                let mut emptied = machine.emptied_pools(self.0.now()).map(|(handle, _)| handle);
                let same = |handle: &&PoolHandle| handle.as_bytes().eq_ignore_ascii_case(name);
                emptied.find(same).map_or(Found::Unknown, |handle| Found::Pool(handle.clone()))
            }
        }
    }

    fn choose(
        &mut self,
        pool: &PoolHandle,
        items: usize,
        usable: &dyn Fn(&Transport) -> bool,
    ) -> Vec<PoolElement> {
        self.0.choose(pool, items, usable).unwrap_or_default()
    }

    fn element(&self, pool: &PoolHandle, id: PeId) -> Option<PoolElement> {
        let space = self.0.machine().handlespace();
        let element = space.get(space.find(pool, id)?)?;
        Some(element.to_client_element())
    }

    fn size(&self, pool: &PoolHandle) -> usize {
        self.0.machine().handlespace().pool(pool).map_or(0, |pool| pool.len())
    }

    fn is_complete(&self) -> bool {
        !self.0.machine().awaits_elements()
    }
}
