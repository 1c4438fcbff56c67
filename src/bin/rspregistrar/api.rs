//! What the page and `rspctl` read: pools, elements, registrars, status, happenings as JSON, a page of them at a
//! time, so that no question costs more than a few milliseconds.

use super::figures::{Figures, is_up};
use super::request::Request;
use rserpool::handlespace::{ElementRef, PoolRef};
use rserpool::machine::Time;
use rserpool::machine::registrar::{Happening, PoolRecord, What};
use rserpool::runtime::registrar::Server;
use rserpool::wire::{Policy, PoolHandle, Transport};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Pools or elements in an answer: usual and most.
const LIMIT: (usize, usize) = (100, 1000);
/// Pools or elements looked at for an answer: of a search, or of a pool's load.
const LOOKS: usize = 10_000;
/// Emptied pools in an answer.
const MAX_EMPTIED: usize = 100;
/// Happenings in an answer.
pub const MAX_HAPPENINGS: usize = 200;

/// Seconds of the Unix epoch, of a time of the machine's.
fn clock(now: Time, at: Time) -> f64 {
    let clock = SystemTime::now().checked_sub(now - at).unwrap_or(UNIX_EPOCH);
    let since = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1000.0
}

fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// The scope at a glance.
pub fn status(server: &Server, started: SystemTime) -> Value {
    let machine = server.machine();
    let figures = Figures::read(server);
    let checksum = machine.handlespace().checksum(machine.id());
    let bounds: Vec<Value> = figures
        .bounds
        .iter()
        .map(|(of, used, most)| json!({ "of": of, "used": used, "most": most }))
        .collect();
    let addresses = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let stats = machine.stats();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "registrar": machine.id().to_string(),
        "serving": figures.serving,
        "time": clock(server.now(), server.now()),
        "uptime_s": seconds(started.elapsed().unwrap_or_default()),
        "asap": addresses(server.asap_addresses()),
        "enrp": addresses(server.enrp_addresses()),
        "sctp_ports": server.sctp_ports(),
        "pool_count": figures.pools,
        "element_count": figures.elements,
        "owned_count": figures.owned,
        "emptied_count": figures.emptied,
        "peer_count": figures.peers.len(),
        "peers_up": figures.peers.iter().filter(|peer| is_up(peer)).count(),
        "checksum": format!("0x{:02x}{:02x}", checksum[0], checksum[1]),
        "links": figures.links,
        "bounds": bounds,
        "last_happening": machine.last_happening(),
        "registrations": stats.registrations,
        "resolutions": stats.handle_resolutions,
        "unknown_pools": stats.unknown_pools,
        "lost": stats.elements_lost,
        "adoptions": stats.adoptions,
        "peers_died": stats.peers_dead,
        "takeovers": stats.takeovers_seen,
    })
}

/// The other registrars.
pub fn peers(server: &Server) -> Value {
    let peers: Vec<Value> = server
        .machine()
        .peers()
        .into_iter()
        .map(|peer| {
            json!({
                "id": peer.id.to_string(),
                "state": peer.state,
                "addresses": peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "last_heard_s": peer.last_heard.map(seconds),
                "agrees": peer.agrees,
                "elements": peer.elements,
                "queue": peer.queue,
                "resynchronisations": peer.resynchronisations,
                "refuses": peer.refuses,
            })
        })
        .collect();
    json!({ "peers": peers })
}

fn record(now: Time, record: Option<&PoolRecord>) -> Map<String, Value> {
    let record = record.copied().unwrap_or_default();
    let mut values = Map::new();
    let known = record != PoolRecord::default();
    values.insert("changed".into(), if known { clock(now, record.changed).into() } else { Value::Null });
    values.insert("lost".into(), record.lost.into());
    values.insert("retired".into(), record.retired.into());
    values.insert("unknown".into(), record.unknown.into());
    values.insert("empty_since".into(), record.empty_since.map(|since| clock(now, since)).into());
    values
}

/// Whether a search finds a pool: its words stand in the handle, whatever their case.
fn finds(search: &str, handle: &PoolHandle) -> bool {
    search.is_empty() || handle.to_string().to_lowercase().contains(search)
}

/// Pools in order of handle, from behind `after`; before the first, those that became empty lately.
pub fn pools(server: &Server, request: &Request) -> Value {
    let (machine, now) = (server.machine(), server.now());
    let space = machine.handlespace();
    let search = request.text("q").unwrap_or_default().to_lowercase();
    let limit = request.number("limit", LIMIT.0, LIMIT.1);
    let after = request.handle("after");
    let mut looks = LOOKS;
    let mut pools = Vec::new();
    let mut last: Option<&PoolHandle> = None;
    let mut more = false;
    for pool in space.pools_after(after.as_ref()) {
        if pools.len() >= limit || looks == 0 {
            more = true;
            break;
        }
        looks -= 1;
        last = Some(pool.handle());
        if finds(&search, pool.handle()) {
            pools.push(describe_pool(pool, now, machine.pool_record(pool.handle()), &mut looks));
        }
    }
    let emptied: Vec<Value> = match after {
        Some(_) => Vec::new(),
        None => {
            let emptied = machine.emptied_pools(now).filter(|(handle, _)| finds(&search, handle));
            let emptied = emptied.map(|(handle, known)| {
                let mut values = record(now, Some(known));
                values.insert("handle".into(), handle.to_string().into());
                values.insert("hex".into(), hex(handle).into());
                Value::Object(values)
            });
            emptied.take(MAX_EMPTIED).collect()
        }
    };
    json!({
        "pools": pools,
        "emptied": emptied,
        "next": last.filter(|_| more).map(hex),
        "pool_count": space.pool_count(),
        "element_count": space.len(),
    })
}

/// A handle's bytes as `%XX` escapes, as a parameter has them.
pub fn hex(handle: &PoolHandle) -> String {
    handle.as_bytes().iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn describe_pool(pool: PoolRef<'_>, now: Time, known: Option<&PoolRecord>, looks: &mut usize) -> Value {
    let mut values = record(now, known);
    let policy = pool.policy();
    values.insert("handle".into(), pool.handle().to_string().into());
    values.insert("hex".into(), hex(pool.handle()).into());
    values.insert("size".into(), pool.len().into());
    values.insert("drained".into(), pool.drained().into());
    values.insert("policy".into(), policy_name(&policy).into());
    values.insert("selected".into(), pool.selected().into());
    values.insert("load".into(), mean_load(pool, &policy, looks).into());
    Value::Object(values)
}

/// The elements' mean load, 0 to 1, of policies that have one and pools that are not too large.
fn mean_load(pool: PoolRef<'_>, policy: &Policy, looks: &mut usize) -> Option<f64> {
    load(policy)?;
    *looks = looks.checked_sub(pool.len())?;
    let sum: f64 = pool.elements_after(None).filter_map(|element| load(&element.policy())).sum();
    Some((sum / pool.len() as f64 * 1000.0).round() / 1000.0)
}

fn load(policy: &Policy) -> Option<f64> {
    let mut load = None;
    policy.each_value(|name, value| {
        if name == "load" {
            load = Some(f64::from(value) / f64::from(u32::MAX));
        }
    });
    load
}

/// A pool's elements in order of identifier, from behind `after`. `None`: no such pool.
pub fn elements(server: &Server, request: &Request) -> Option<Value> {
    let (machine, now) = (server.machine(), server.now());
    let handle = request.handle("pool")?;
    let pool = machine.handlespace().pool(&handle)?;
    let limit = request.number("limit", LIMIT.0, LIMIT.1);
    let search = request.text("q").unwrap_or_default().to_lowercase();
    let mut elements = Vec::new();
    let mut last = None;
    let mut more = false;
    for (looks, element) in pool.elements_after(request.id("after")).enumerate() {
        if elements.len() >= limit || looks == LOOKS {
            more = true;
            break;
        }
        last = Some(element.id());
        let described = describe_element(server, element);
        let found = search.is_empty() || described.to_string().to_lowercase().contains(&search);
        if found {
            elements.push(described);
        }
    }
    let mut looks = LOOKS;
    Some(json!({
        "pool": describe_pool(pool, now, machine.pool_record(&handle), &mut looks),
        "elements": elements,
        "next": last.filter(|_| more).map(|id| id.to_string()),
    }))
}

fn describe_element(server: &Server, element: ElementRef<'_>) -> Value {
    let (machine, now) = (server.machine(), server.now());
    let whole = element.to_element();
    let mut values = Map::new();
    whole.policy.each_value(|name, value| _ = values.insert(name.into(), value.into()));
    json!({
        "id": whole.id.to_string(),
        "home": whole.home.to_string(),
        "drained": element.marks().drained,
        "policy_set": element.marks().policy,
        "transport": transport(&whole.transport),
        "policy": whole.policy.to_string(),
        "policy_values": values,
        "load": load(&whole.policy),
        "life_ms": element.life(),
        "since": machine.element_since(element.key()).map(|since| clock(now, since)),
        "heard_s": machine.element_age(now, element.key()).map(seconds),
    })
}

/// Where somebody is reached.
pub fn transport(transport: &Transport) -> Value {
    json!({
        "protocol": transport.protocol().map(|protocol| format!("{protocol:?}").to_lowercase()),
        "use": format!("{:?}", transport.usage()),
        "addresses": transport.socket_addresses().map(|address| address.to_string()).collect::<Vec<_>>(),
    })
}

/// A policy's name, or its number.
pub fn policy_name(policy: &Policy) -> String {
    policy.name().map_or_else(|| format!("0x{:08x}", policy.type_code()), str::to_string)
}

/// What happened, in words and as values.
pub fn happening(now: Time, happening: &Happening) -> Value {
    let address = |address: &Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    let mut value = match &happening.what {
        What::Registered { id, home, address: at, size, .. } => json!({
            "kind": "registered", "id": id.to_string(), "home": home.to_string(), "address": address(at), "size": size,
        }),
        What::Removed { id, reason, retired, address: at, left, .. } => json!({
            "kind": if *retired { "deregistered" } else { "lost" },
            "id": id.to_string(), "why": reason, "address": address(at), "size": left,
        }),
        What::Refused { id, cause, from, .. } => json!({
            "kind": "refused", "id": id.to_string(), "why": format!("{cause:?}"), "address": address(from),
        }),
        What::Reported { id, address: at, from, .. } => json!({
            "kind": "reported", "id": id.to_string(), "address": address(at),
            "why": format!("said to be unreachable{}", from.map_or(String::new(), |from| format!(" by {from}"))),
        }),
        What::Moved { id, address: at, from, to, .. } => json!({
            "kind": "moved", "id": id.to_string(), "address": address(at), "home": to.to_string(),
            "why": format!("from registrar {from}"),
        }),
        What::Operated { id, address: at, action, .. } => json!({
            "kind": "operated", "id": id.to_string(), "address": address(at), "why": action,
        }),
        What::PeerFound { id, address: at } => json!({
            "kind": "registrar found", "registrar": id.to_string(), "address": address(at),
        }),
        What::PeerDead { id, address: at } => json!({
            "kind": "registrar dead", "registrar": id.to_string(), "address": address(at),
        }),
        What::TakingOver { target, address: at } => json!({
            "kind": "taking over", "registrar": target.to_string(), "address": address(at),
        }),
        What::TakenOver { target, address: at, by, elements, .. } => json!({
            "kind": "taken over", "registrar": target.to_string(), "address": address(at), "home": by.to_string(),
            "size": elements, "why": format!("{elements} elements, by registrar {by}"),
        }),
        What::Serving => json!({ "kind": "serving" }),
    };
    if let Value::Object(values) = &mut value {
        values.insert("number".into(), happening.number.into());
        values.insert("time".into(), clock(now, happening.at).into());
        if let Some(handle) = happening.what.handle() {
            values.insert("pool".into(), handle.to_string().into());
        }
    }
    value
}

/// The last happenings after one; the number of those left out.
pub fn happenings_after(server: &Server, number: u64) -> (Vec<Value>, u64) {
    let (machine, now) = (server.machine(), server.now());
    let last = machine.last_happening();
    let most = MAX_HAPPENINGS as u64;
    let from = number.min(last).max(last.saturating_sub(most));
    let values: Vec<Value> = machine.happenings_after(from).map(|known| happening(now, known)).collect();
    let left_out = (last - number.min(last)).saturating_sub(values.len() as u64);
    (values, left_out)
}
