//! What the page and `rspctl` read: pools, elements, registrars, status, happenings as JSON, a page of them at a
//! time, and that in pieces, so that nobody waits for a question of others.

use super::figures::{Figures, is_up};
use super::pieces::{Piece, Rows, object};
use super::request::Request;
use rserpool::handlespace::{ElementRef, PoolRef};
use rserpool::machine::Time;
use rserpool::machine::registrar::{Happening, PoolRecord, Removal, What};
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, Policy, PoolHandle, Transport};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Pools or elements in an answer: usual and most.
const LIMIT: (usize, usize) = (100, 1000);
/// Pools or elements looked at for an answer: of a search, or of a pool's load.
const LOOKS: usize = 10_000;
/// Bytes of pools or elements in an answer: handles may be long.
const MAX_TEXT: usize = 4 << 20;
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

/// The other registrars, as they are told piece by piece.
#[derive(Debug, Default)]
pub struct PeerList {
    rows: Rows,
    /// Those that were told; some may come and go meanwhile.
    told: usize,
}

impl PeerList {
    /// Makes the next piece; after the last, the whole text.
    pub fn next_piece(&mut self, server: &Server) -> Option<String> {
        let mut piece = Piece::new();
        for peer in server.machine().peers().iter().skip(self.told) {
            if piece.is_spent() {
                return None;
            }
            self.told += 1;
            let row = json!({
                "id": peer.id.to_string(),
                "state": peer.state,
                "addresses": peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "last_heard_s": peer.last_heard.map(seconds),
                "agrees": peer.agrees,
                "elements": peer.elements,
                "queue": peer.queue,
                "resynchronisations": peer.resynchronisations,
                "refuses": peer.refuses,
            });
            let row = row.to_string();
            piece.spend(row.len());
            self.rows.add(&row);
        }
        Some(object(&json!({}), &[("peers", &self.rows)]))
    }
}

fn record(now: Time, record: Option<&PoolRecord>) -> Map<String, Value> {
    let record = record.copied().unwrap_or_default();
    let mut values = Map::new();
    let known = record != PoolRecord::default();
    values.insert("changed".into(), if known { clock(now, record.changed).into() } else { Value::Null });
    values.insert("lost".into(), record.lost.into());
    values.insert("retired".into(), record.deregistered.into());
    values.insert("unknown".into(), record.unknown.into());
    values.insert("empty_since".into(), record.empty_since.map(|since| clock(now, since)).into());
    values
}

/// Whether a search finds a pool: its words stand in the handle, whatever their case.
fn finds(search: &str, handle: &PoolHandle) -> bool {
    search.is_empty() || handle.to_string().to_lowercase().contains(search)
}

/// Pools in order of handle, from behind `after`; before the first, those that became empty lately. Some may come
/// and go between two pieces; each continues behind the last pool of the one before.
#[derive(Debug)]
pub struct PoolList {
    search: String,
    limit: usize,
    /// Emptied ones that are still to be passed over; `None`: those are done, or not wanted.
    emptied_from: Option<usize>,
    emptied: Rows,
    /// How far it has come.
    last: Option<PoolHandle>,
    looks: usize,
    rows: Rows,
}

impl PoolList {
    pub fn new(request: &Request) -> PoolList {
        let after = request.handle("after");
        PoolList {
            search: request.text("q").unwrap_or_default().to_lowercase(),
            limit: request.number("limit", LIMIT.0, LIMIT.1),
            emptied_from: after.is_none().then_some(0),
            emptied: Rows::default(),
            last: after,
            looks: LOOKS,
            rows: Rows::default(),
        }
    }

    /// Makes the next piece; after the last, the whole text.
    pub fn next_piece(&mut self, server: &Server) -> Option<String> {
        let (machine, now) = (server.machine(), server.now());
        let mut piece = Piece::new();
        self.emptied(server, &mut piece);
        if self.emptied_from.is_some() {
            return None;
        }
        let after = self.last.clone();
        let mut more = false;
        for pool in machine.handlespace().pools_after(after.as_ref()) {
            if piece.is_spent() {
                return None;
            }
            if self.rows.count() >= self.limit || self.looks == 0 || self.rows.size() >= MAX_TEXT {
                more = true;
                break;
            }
            self.looks -= 1;
            self.last = Some(pool.handle().clone());
            piece.spend(pool.handle().as_bytes().len());
            if finds(&self.search, pool.handle()) {
                let looks = self.looks;
                let row = describe_pool(pool, now, machine.pool_record(pool.handle()), &mut self.looks);
                let row = row.to_string();
                self.rows.add(&row);
                // Of each element its load is looked at, no more.
                piece.spend(row.len() + 8 * (looks - self.looks));
            }
        }
        let space = machine.handlespace();
        let rest = json!({
            "next": self.last.as_ref().filter(|_| more).map(hex),
            "pool_count": space.pool_count(),
            "element_count": space.len(),
        });
        Some(object(&rest, &[("emptied", &self.emptied), ("pools", &self.rows)]))
    }

    fn emptied(&mut self, server: &Server, piece: &mut Piece) {
        let Some(from) = &mut self.emptied_from else { return };
        for (handle, known) in server.machine().emptied_pools(server.now()).skip(*from) {
            if piece.is_spent() {
                return;
            }
            if self.emptied.count() >= MAX_EMPTIED || self.emptied.size() >= MAX_TEXT {
                break;
            }
            *from += 1;
            piece.spend(handle.as_bytes().len());
            if finds(&self.search, handle) {
                let mut values = record(server.now(), Some(known));
                values.insert("handle".into(), handle.to_string().into());
                values.insert("hex".into(), hex(handle).into());
                let row = Value::Object(values).to_string();
                piece.spend(row.len());
                self.emptied.add(&row);
            }
        }
        self.emptied_from = None;
    }
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

/// A pool's elements in order of identifier, from behind `after`; in pieces as pools are.
#[derive(Debug)]
pub struct ElementList {
    handle: PoolHandle,
    pool: Option<Value>,
    search: String,
    limit: usize,
    /// How far it has come.
    last: Option<PeId>,
    looks: usize,
    rows: Rows,
}

impl ElementList {
    /// `None`: no such pool.
    pub fn new(server: &Server, request: &Request) -> Option<ElementList> {
        let handle = request.handle("pool")?;
        server.machine().handlespace().pool(&handle)?;
        Some(ElementList {
            handle,
            pool: None,
            search: request.text("q").unwrap_or_default().to_lowercase(),
            limit: request.number("limit", LIMIT.0, LIMIT.1),
            last: request.id("after"),
            looks: LOOKS,
            rows: Rows::default(),
        })
    }

    /// Makes the next piece; after the last, the whole text.
    pub fn next_piece(&mut self, server: &Server) -> Option<String> {
        let (machine, now) = (server.machine(), server.now());
        let mut piece = Piece::new();
        let mut more = false;
        // It may have gone between two pieces.
        if let Some(pool) = machine.handlespace().pool(&self.handle) {
            if self.pool.is_none() {
                let record = machine.pool_record(&self.handle);
                self.pool = Some(describe_pool(pool, now, record, &mut LOOKS.clone()));
                return None;
            }
            for element in pool.elements_after(self.last) {
                if piece.is_spent() {
                    return None;
                }
                if self.rows.count() >= self.limit || self.looks == 0 || self.rows.size() >= MAX_TEXT {
                    more = true;
                    break;
                }
                self.looks -= 1;
                self.last = Some(element.id());
                let row = describe_element(server, element).to_string();
                piece.spend(row.len());
                if self.search.is_empty() || row.to_lowercase().contains(&self.search) {
                    self.rows.add(&row);
                }
            }
        }
        let rest = json!({
            "pool": self.pool,
            "next": self.last.filter(|_| more).map(|id| id.to_string()),
        });
        Some(object(&rest, &[("elements", &self.rows)]))
    }
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
        What::Removed { id, reason, why, address: at, left, .. } => json!({
            "kind": match why {
                Removal::Deregistered => "deregistered",
                Removal::Lost => "lost",
            },
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
