//! The pools that this process follows, and the connections that it has with their elements. Made when a name of a
//! pool is first asked for, and anew in a child after fork(2): the thread that hears of changes stays in the parent.

use parking_lot::Mutex;
use rserpool::machine::Time;
use rserpool::machine::client::Resolution;
use rserpool::runtime::{Directory, Follower, Pool, Runtime, Settings};
use rserpool::transport::host;
use rserpool::wire::{PeId, PoolHandle};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Weak};

/// Connections of which is remembered where they go.
const MAX_CONNECTIONS: usize = 65_536;

/// A connection, which is the one of its descriptor as long as the cookie is that socket's.
#[derive(Debug, Clone)]
pub struct Connection {
    pub cookie: u64,
    pub handle: PoolHandle,
    pub id: PeId,
    pub to: SocketAddr,
}

/// See the module.
pub struct Guest {
    forks: u64,
    runtime: Runtime,
    pools: Mutex<HashMap<PoolHandle, Arc<Pool>>>,
    connections: Arc<Mutex<HashMap<i32, Connection>>>,
}

static GUEST: AtomicPtr<Guest> = AtomicPtr::new(std::ptr::null_mut());

/// Ends the connections of elements that are lost.
struct Loss {
    handle: PoolHandle,
    connections: Weak<Mutex<HashMap<i32, Connection>>>,
}

impl Follower for Loss {
    fn pool(&self, _: Time, _: &Resolution) {}

    fn left(&self, id: PeId, lost: bool) {
        let Some(connections) = self.connections.upgrade() else { return };
        if lost {
            let mut connections = connections.lock();
            for (&fd, connection) in connections.iter() {
                if connection.id == id && connection.handle == self.handle {
                    crate::connect::break_off(fd, connection.cookie);
                }
            }
            connections.retain(|_, connection| connection.id != id || connection.handle != self.handle);
        }
    }
}

impl Guest {
    /// This process's, if it has used a pool.
    pub fn known() -> Option<&'static Guest> {
        // SAFETY: what is put there is never freed.
        let guest = unsafe { GUEST.load(Ordering::Acquire).as_ref() }?;
        (guest.forks == host::forks()).then_some(guest)
    }

    /// This process's; `None` where none can be made.
    pub fn get() -> Option<&'static Guest> {
        if let Some(guest) = Guest::known() {
            return Some(guest);
        }
        let before = GUEST.load(Ordering::Acquire);
        let runtime = Settings::from_env().and_then(Runtime::start).ok()?;
        let guest = Guest {
            forks: host::forks(),
            runtime,
            pools: Mutex::new(HashMap::new()),
            connections: Arc::new(Mutex::new(HashMap::new())),
        };
        let made = Box::into_raw(Box::new(guest));
        match GUEST.compare_exchange(before, made, Ordering::AcqRel, Ordering::Acquire) {
            // What a parent had is left where it is: its thread is not here to be ended.
            Ok(_) => {}
            // SAFETY: made above, and known to nobody.
            Err(_) => drop(unsafe { Box::from_raw(made) }),
        }
        Guest::known()
    }

    /// A pool, followed from the first time on.
    pub fn pool(&self, handle: &PoolHandle) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(handle) {
            return pool.clone();
        }
        let loss = Loss { handle: handle.clone(), connections: Arc::downgrade(&self.connections) };
        let pool = self.runtime.follow_pool(handle, Some(Arc::new(loss)));
        pools.insert(handle.clone(), pool.clone());
        pool
    }

    pub fn connection(&self, fd: i32) -> Option<Connection> {
        self.connections.lock().get(&fd).cloned()
    }

    pub fn remember(&self, fd: i32, connection: Connection) {
        let mut connections = self.connections.lock();
        if connections.len() >= MAX_CONNECTIONS {
            // Most of them were closed without our knowing.
            connections.retain(|&fd, connection| crate::connect::cookie(fd) == Some(connection.cookie));
        }
        if connections.len() < MAX_CONNECTIONS {
            connections.insert(fd, connection);
        }
    }

    /// An element could not be reached.
    pub fn failed(&self, handle: &PoolHandle, id: PeId) {
        if self.pool(handle).failed(id) {
            self.runtime.report_unreachable(handle, id);
        }
    }
}
