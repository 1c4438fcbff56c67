//! Which names and addresses are pools', and the placeholder addresses that programs get for them.
//!
//! A placeholder is in 127.214.0.0/16, or, for who wants IPv6, in fd52:5350:706f:6f6c::/64: addresses that never leave
//! the machine. It follows from the name, so that parent, child and a program after exec agree.

use crate::guest::{self, Making};
use crate::socket;
use rserpool::transport::host;
use rserpool::wire::PoolHandle;
use std::cell::UnsafeCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

const RANGE: [u8; 2] = [127, 214];
const RANGE_V6: [u16; 4] = [0xfd52, 0x5350, 0x706f, 0x6f6c];
/// Names that get placeholders; beyond, names are libc's.
const MAX_NAMES: usize = 4096;
/// Placeholders of each name: programs that go through the addresses of a host then try another element by themselves.
pub const EACH: usize = 2;

/// What the environment says.
#[derive(Debug)]
struct Config {
    /// RSP_SUFFIX, in lower case, with its dot.
    suffix: String,
    /// RSP_POOLS: handles as they are spelled.
    pools: Vec<PoolHandle>,
    /// RSP_MAP.
    map: Vec<Mapped>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapped {
    host: String,
    /// The host, where it is an address.
    ip: Option<IpAddr>,
    port: u16,
    pool: PoolHandle,
}

/// What stands behind an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// A pool.
    Pool(PoolHandle),
    /// A host of which only another port is mapped.
    Host(String),
    /// A placeholder that nobody here asked for.
    Nobody,
}

/// A name that has a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Pool(PoolHandle),
    /// Ports of it are mapped.
    Host(String),
}

static NAMES: Mutex<Vec<(Slots, Named)>> = Mutex::new(Vec::new());

type Names = MutexGuard<'static, Vec<(Slots, Named)>>;

fn names() -> Names {
    // Who has to wait for a lock may find EAGAIN there.
    let before = socket::errno();
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    socket::set_errno(before);
    names
}

/// What is locked during a fork(2), so that the child finds it unlocked, and nothing half made by a thread that it has not.
struct Held(UnsafeCell<Option<(Making, Names)>>);

// SAFETY: only who forks touches it, and only one thread at a time has the lock.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

extern "C" fn before_fork() {
    let held = (guest::making(), names());
    // SAFETY: this thread has the locks.
    unsafe { *HELD.0.get() = Some(held) };
}

extern "C" fn after_fork() {
    // SAFETY: this thread, or the one that it was in the parent, has the lock.
    drop(unsafe { (*HELD.0.get()).take() });
}

/// The places of a name in the range.
type Slots = [u16; EACH];

/// Run as the library is loaded, when there is one thread and nobody forks: what is made once is made then.
#[used]
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = {
    extern "C" fn early() {
        // Before any fork: a handler that is added while one is under way is not run in its child.
        host::forks();
        config();
    }
    early
};

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        // SAFETY: the two functions only lock and unlock.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let config = Config::parse(&variable("RSP_SUFFIX"), &variable("RSP_POOLS"), &variable("RSP_MAP"));
        for pool in &config.pools {
            slots(&Named::Pool(pool.clone()));
        }
        for mapped in config.map.iter().filter(|mapped| mapped.ip.is_none()) {
            slots(&Named::Host(mapped.host.clone()));
        }
        config
    })
}

impl Config {
    /// What can't be read is left out: a program runs as without us.
    fn parse(suffix: &str, pools: &str, map: &str) -> Config {
        let suffix = if suffix.is_empty() { "pool" } else { suffix };
        let handle = |text: &str| PoolHandle::read(text.trim().as_bytes()).ok();
        let entry = |text: &str| {
            let (place, pool) = text.rsplit_once('=')?;
            let (host, port) = place.trim().rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
            let ip = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
            Some(Mapped { host, ip, port: port.parse().ok()?, pool: handle(pool)? })
        };
        Config {
            suffix: format!(".{}", suffix.trim_matches('.').to_ascii_lowercase()),
            pools: pools.split(',').filter_map(handle).collect(),
            map: map.split(',').filter_map(entry).collect(),
        }
    }

    /// Whether [`Config::named`] may know a name: all that is done for those that it does not.
    fn may_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let start = name.len().checked_sub(self.suffix.len());
        start.is_some_and(|start| name[start..].eq_ignore_ascii_case(self.suffix.as_bytes()))
            || self.map.iter().any(|mapped| mapped.host.as_bytes().eq_ignore_ascii_case(name))
    }

    fn named(&self, name: &str) -> Option<Named> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let lower = name.to_ascii_lowercase();
        if let Some(pool) = lower.strip_suffix(&self.suffix).filter(|pool| !pool.is_empty()) {
            // Programs write hosts' names in lower case; handles have the case that they have.
            let spelled = &name[..pool.len()];
            let same = |handle: &&PoolHandle| handle.as_bytes().eq_ignore_ascii_case(spelled.as_bytes());
            let known = self.pools.iter().find(same).cloned();
            return known.or_else(|| PoolHandle::new(spelled.as_bytes())).map(Named::Pool);
        }
        self.map.iter().any(|mapped| mapped.host == lower).then_some(Named::Host(lower))
    }
}

/// The places of a name in the range: by its hash, or the next that are free.
fn slots(named: &Named) -> Option<Slots> {
    let mut names = names();
    if let Some((slots, _)) = names.iter().find(|(_, known)| known == named) {
        return Some(*slots);
    }
    if names.len() >= MAX_NAMES {
        return None;
    }
    let bytes = match named {
        Named::Pool(handle) => handle.as_bytes(),
        Named::Host(host) => host.as_bytes(),
    };
    // FNV-1a, folded; the addresses that end with 0 or 255 look like networks.
    let hash =
        bytes.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let mut next = (hash >> 16 ^ hash) as u16;
    let mut slots = [0; EACH];
    for slot in &mut slots {
        while matches!(next & 0xff, 0 | 0xff) || names.iter().any(|(taken, _)| taken.contains(&next)) {
            next = next.wrapping_add(1);
        }
        *slot = next;
        next = next.wrapping_add(1);
    }
    names.push((slots, named.clone()));
    Some(slots)
}

/// A name's placeholder.
#[derive(Debug, Clone, Copy)]
pub struct Placeholder(u16);

impl Placeholder {
    pub fn v4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(RANGE[0], RANGE[1], high, low)
    }

    pub fn v6(self) -> Ipv6Addr {
        let [a, b, c, d] = RANGE_V6;
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, self.0)
    }
}

/// Whether a name needs a closer look.
pub fn may_name(name: &str) -> bool {
    config().may_name(name)
}

/// The placeholders of a name that is a pool's, or a mapped host's.
pub fn placeholders(name: &str) -> Option<([Placeholder; EACH], Option<PoolHandle>)> {
    let named = config().named(name)?;
    let slots = slots(&named)?;
    let pool = match named {
        Named::Pool(pool) => Some(pool),
        Named::Host(_) => None,
    };
    Some((slots.map(Placeholder), pool))
}

/// Whether an address needs a closer look: the only thing that is done for all of them.
pub fn concerns(address: SocketAddr) -> Option<Behind> {
    let slot = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.octets()[..2] == RANGE => {
            Some(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]]))
        }
        IpAddr::V6(ip) if ip.segments()[..4] == RANGE_V6 => Some(ip.segments()[7]),
        _ => None,
    };
    let config = config();
    let Some(slot) = slot else {
        if config.map.is_empty() {
            return None;
        }
        let ip = address.ip().to_canonical();
        let mapped = config.map.iter().find(|mapped| mapped.port == address.port() && mapped.ip == Some(ip));
        return mapped.map(|mapped| Behind::Pool(mapped.pool.clone()));
    };
    let named = names().iter().find(|(known, _)| known.contains(&slot)).map(|(_, named)| named.clone());
    Some(match named {
        None => Behind::Nobody,
        Some(Named::Pool(pool)) => Behind::Pool(pool),
        Some(Named::Host(host)) => {
            let mapped =
                config.map.iter().find(|mapped| mapped.port == address.port() && mapped.host == host);
            mapped.map_or(Behind::Host(host), |mapped| Behind::Pool(mapped.pool.clone()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> Named {
        Named::Pool(PoolHandle::new(name.as_bytes()).unwrap())
    }

    #[test]
    fn names_below_the_suffix_are_pools() {
        let config = Config::parse("", "WebPool", "db.example:5432=Db,10.0.0.5:6379=Cache,bad,x:y=z");
        assert_eq!(config.named("Echo.pool"), Some(pool("Echo")));
        assert_eq!(config.named("webpool.POOL."), Some(pool("WebPool")));
        assert_eq!(config.named("a.b.pool"), Some(pool("a.b")));
        assert_eq!(
            (config.named("pool"), config.named(".pool"), config.named("example.com")),
            (None, None, None)
        );
        assert_eq!(config.named("DB.example"), Some(Named::Host("db.example".into())));
        assert_eq!(config.map.len(), 2);
        for name in ["Echo.pool", "webpool.POOL.", "DB.example", "db.example."] {
            assert!(config.may_name(name) && config.named(name).is_some(), "{name}");
        }
        assert!(!config.may_name("example.com") && !config.may_name("pool") && !config.may_name(""));
        let other = Config::parse(".rsp.internal", "", "");
        assert_eq!(other.named("Echo.rsp.internal"), Some(pool("Echo")));
        assert_eq!(other.named("Echo.pool"), None);
    }

    #[test]
    fn placeholders_follow_from_the_name() {
        let ([first, other], _) = placeholders("Echo.pool").unwrap();
        assert_eq!(placeholders("Echo.pool").unwrap().0[0].v4(), first.v4());
        let ([second, _], _) = placeholders("Other.pool").unwrap();
        assert!(first.v4() != second.v4() && first.v4() != other.v4());
        let behind = |ip: IpAddr| concerns(SocketAddr::new(ip, 80));
        let echo = Some(Behind::Pool(PoolHandle::new(b"Echo").unwrap()));
        assert_eq!(behind(first.v4().into()), echo);
        assert_eq!(behind(other.v4().into()), echo);
        assert_eq!(behind(first.v4().to_ipv6_mapped().into()), echo);
        assert_eq!(behind(first.v6().into()), echo);
        assert_eq!(behind("127.0.0.1".parse().unwrap()), None);
        assert_eq!(behind("127.214.0.0".parse().unwrap()), Some(Behind::Nobody));
    }
}
