//! The pools that this process follows, and the connections that it has with their elements. Made when a name of a
//! pool is first asked for, and anew in a child after fork(2): the thread that hears of changes stays in the parent.

use crate::socket::{self, TCP_CLOSE, TCP_SYN_SENT};
use parking_lot::Mutex;
use rserpool::machine::Time;
use rserpool::machine::client::Resolution;
use rserpool::runtime::{Directory, Follower, Pool, Runtime, Settings};
use rserpool::transport::host;
use rserpool::wire::{PeId, PoolHandle};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Connections of which is remembered where they go.
const MAX_CONNECTIONS: usize = 65_536;
/// Connects that are looked after at each further one.
const LOOKS: usize = 16;
/// How long an element may take to accept before others are preferred.
const PATIENCE: Duration = Duration::from_secs(1);

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
    process: i32,
    runtime: Runtime,
    pools: Mutex<HashMap<PoolHandle, Arc<Pool>>>,
    connections: Arc<Mutex<HashMap<i32, Connection>>>,
    /// Connects that had not ended when they returned: descriptor, cookie, since when.
    under_way: Mutex<VecDeque<(i32, u64, Instant)>>,
}

/// Held while this process's guest is made: a child would wait for ever for what a thread that it has not was making.
static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());

pub type Making = std::sync::MutexGuard<'static, ()>;

pub fn making() -> Making {
    MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
                    socket::break_off(fd, connection.cookie);
                }
            }
            connections.retain(|_, connection| connection.id != id || connection.handle != self.handle);
        }
    }
}

fn process() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::getpid() }
}

impl Guest {
    /// This process's, if it has used a pool. None in a child of vfork(2), whose memory is its parent's.
    pub fn known() -> Option<&'static Guest> {
        // SAFETY: what is put there is never freed.
        let guest = unsafe { GUEST.load(Ordering::Acquire).as_ref() }?;
        (guest.forks == host::forks() && guest.process == process()).then_some(guest)
    }

    /// This process's; `None` where none can be made.
    pub fn get() -> Option<&'static Guest> {
        if let Some(found) = Guest::found() {
            return found;
        }
        let _making = making();
        // Perhaps another thread was faster.
        if let Some(found) = Guest::found() {
            return found;
        }
        let runtime = Settings::from_env().and_then(Runtime::start).ok()?;
        let guest = Guest {
            forks: host::forks(),
            process: process(),
            runtime,
            pools: Mutex::new(HashMap::new()),
            connections: Arc::new(Mutex::new(HashMap::new())),
            under_way: Mutex::new(VecDeque::new()),
        };
        // What a parent had is left where it is: its thread is not here to be ended.
        GUEST.store(Box::into_raw(Box::new(guest)), Ordering::Release);
        Guest::known()
    }

    /// The one that is there, or that none can be; `None`: it is to be made.
    fn found() -> Option<Option<&'static Guest>> {
        // SAFETY: what is put there is never freed.
        match unsafe { GUEST.load(Ordering::Acquire).as_ref() } {
            Some(guest) if guest.forks != host::forks() => None,
            Some(guest) if guest.process != process() => Some(None),
            // Whoever closes all files closes those of the thread as well, which ends then.
            Some(guest) if !guest.runtime.is_robbed() && guest.runtime.is_alive() => Some(Some(guest)),
            _ => None,
        }
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
            connections.retain(|&fd, connection| socket::cookie(fd) == Some(connection.cookie));
        }
        if connections.len() < MAX_CONNECTIONS {
            connections.insert(fd, connection);
        }
    }

    pub fn forget(&self, fd: i32) {
        self.connections.lock().remove(&fd);
    }

    /// A connect of that descriptor goes on by itself.
    pub fn begun(&self, fd: i32, cookie: u64) {
        let mut under_way = self.under_way.lock();
        if under_way.len() < MAX_CONNECTIONS {
            under_way.push_back((fd, cookie, Instant::now()));
        }
    }

    /// Looks after connects that went on by themselves: not every program asks its socket what became of them. The one
    /// of this descriptor, which connects anew, is gone.
    pub fn settle(&self, anew: i32) {
        let mut failed = Vec::new();
        let mut under_way = self.under_way.lock();
        for _ in 0..under_way.len().min(LOOKS) {
            let Some((fd, cookie, since)) = under_way.pop_front() else { break };
            // What is connected has not failed, whichever socket it is: most are, and need no second look.
            let waits = match (fd != anew).then(|| socket::state(fd)).flatten() {
                Some(TCP_CLOSE) => false,
                Some(TCP_SYN_SENT) => since.elapsed() < PATIENCE,
                _ => continue,
            };
            if socket::cookie(fd) != Some(cookie) {
                continue;
            }
            match waits {
                true => under_way.push_back((fd, cookie, since)),
                false => failed.extend(self.connection(fd).filter(|connection| connection.cookie == cookie)),
            }
        }
        drop(under_way);
        for connection in failed {
            self.failed(&connection.handle, connection.id);
        }
    }

    /// An element could not be reached.
    pub fn failed(&self, handle: &PoolHandle, id: PeId) {
        if self.pool(handle).failed(id) {
            self.runtime.report_unreachable(handle, id);
        }
    }
}
