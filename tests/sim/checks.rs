//! What must hold: after every step, and once the faults have stopped.

use super::network::HostId;
use super::strangers::is_invented;
use super::world::{Machine, World, address, timers};
use rserpool::machine::client::{Event, Resolution};
use rserpool::machine::registrar::{self, Registrar};
use rserpool::machine::{RequestId, Time};
use rserpool::wire::{PeId, PoolHandle, RegistrarId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A request is answered (or refused with a clear error) at the latest after this.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process waits for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks at who owns the elements.
const LOOK: Duration = Duration::from_millis(100);

/// What the checks remember from step to step.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when a registrar holds elements of a registrar that is dead.
    orphans: BTreeMap<(HostId, RegistrarId), Time>,
    /// Since when no registrar says that an element is its own.
    unowned: BTreeMap<(PoolHandle, PeId), Time>,
    looked: Time,
    /// Whether nothing happens but what strangers do.
    pub strict: bool,
    /// Since when a registrar has an element otherwise than it is.
    stolen: BTreeMap<(HostId, PoolHandle, PeId), Time>,
    /// Dials of each host in the second that began then.
    dials: BTreeMap<HostId, (Time, u32)>,
}

/// Dials of one host within a second: all elements' processes, and all registrars a few times.
const DIALS: u32 = 150;

impl World {
    /// Whether strangers are about.
    pub fn is_invaded(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host.machine, Machine::Stranger(_)))
    }

    /// From the death of a registrar to the end of its takeover, as the timers promise it: silence,
    /// no answer, one acknowledgement that does not come; and a second to put it into effect.
    pub fn takeover_bound(&self) -> Duration {
        let config = timers(!self.plan.slow.is_empty());
        config.peer_heartbeat_cycle / 8
            + config.peer_max_time_last_heard
            + config.peer_max_time_no_response
            + config.takeover_expiry_interval
            + Duration::from_secs(1)
    }

    /// How long after its end at `left` an element may be resolved. Its registrar may wait for an answer that was lost, measure
    /// its link once more, and have a slow clock. Or its registrar dies with it, so does whoever announced to take over, its process
    /// is dialled twice in vain, or the second time as a partition ends, and then does not answer. Where somebody was harmed
    /// since, one may follow on the other: its registrar dies as it is about to give the element up. Sleep of those asked comes on top.
    pub fn stale_bound(&self, left: Time) -> Duration {
        let config = timers(!self.plan.slow.is_empty());
        let answer = config.endpoint_keep_alive_timeout_interval;
        let keep_alive = config.endpoint_keep_alive_transmission_interval.mul_f64(1.5)
            + answer.max(config.lossy_link_timeout)
            + Duration::from_millis(500);
        let (dial, pause) = (2 * answer, Duration::from_millis(500));
        let dials = dial + pause + dial + answer;
        let chain = self.takeover_bound() + config.takeover_expiry_interval + dials;
        if self.disturbed > left { keep_alive + chain } else { keep_alive.max(chain) }
    }

    /// Whether nothing was done to anybody for so long.
    fn quiet_for(&self, time: Duration) -> bool {
        self.network.is_whole() && self.now - self.disturbed > time
    }
}

/// Something that a process's machine told its application.
pub fn event(world: &mut World, host: HostId, event: Event) {
    match event {
        Event::Registered { request, result } => {
            let element = answered(world, request, result.is_ok());
            if let Some(key) =
                element.filter(|key| result.is_ok() && world.hosts[host].elements.contains_key(key))
            {
                world.registered.insert(key, host);
            }
        }
        Event::Deregistered { request, result } => {
            answered(world, request, result.is_ok());
        }
        Event::Resolved { requests, handle, result } => {
            for request in requests {
                answered(world, request, result.is_ok());
            }
            if let Ok(resolution) = result {
                no_ghosts(world, &handle, &resolution);
            }
        }
        Event::Pool { handle, resolution } => {
            world.tally.event("pool pushed or polled");
            no_ghosts(world, &handle, &resolution);
            let ids = resolution.elements.iter().map(|element| element.id).collect();
            if let Some(known) = world.hosts[host].pools.get_mut(&handle) {
                *known = Some(ids);
            }
        }
        Event::Home { registrar: Some(_), .. } => world.tally.event("home adopted"),
        _ => {}
    }
}

/// Something that a registrar told its operator.
pub fn registrar_event(world: &mut World, host: HostId, event: registrar::Event) {
    use registrar::Event::*;
    match event {
        PeerDead { id } => {
            world.tally.event("peer declared dead");
            let alive = world
                .registrars()
                .any(|(other, peer)| peer.id() == id && !world.hosts[other].paused && other != host);
            // Without TLS, one that met a stranger of its name first takes that for it.
            let deceived = world.is_invaded() && !world.plan.tls && !world.memory.strict;
            if alive && !deceived && world.quiet_for(world.takeover_bound()) {
                panic!("h{host} takes {id} for dead, which is well");
            }
            world.tally.check("no live peer is declared dead without reason");
        }
        TakeoverStarted { .. } => world.tally.event("takeover started"),
        TakeoverDone { by, .. } if by == world.hosts[host].id => world.tally.event("takeover done"),
        Serving => world.tally.event("service started"),
        _ => {}
    }
}

fn answered(world: &mut World, request: RequestId, good: bool) -> Option<(PoolHandle, PeId)> {
    let known = world.requests.remove(&request);
    let Some(open) = known else { panic!("{request:?} is answered twice, or was never made") };
    world.tally.check("each request is answered once");
    world.tally.event(if good { "request answered" } else { "request refused with an error" });
    let took = world.now - open.since;
    world.tally.worst("ms from request to answer", took.as_millis() as u64);
    open.element
}

fn no_ghosts(world: &mut World, handle: &PoolHandle, resolution: &Resolution) {
    if world.is_invaded() && !world.plan.tls {
        // Whoever is let in may register what it likes.
        return;
    }
    // What has the name of one that left may have been a stranger's own: that left when the stranger ended.
    let ended = if world.plan.tls { Time(0) } else { world.stranger_ended };
    for element in &resolution.elements {
        world.tally.check("no element is resolved long after it left");
        if let Some(&left) = world.left.get(&(handle.clone(), element.id)) {
            let ago = world.now - left.max(world.woken).max(ended);
            let name = if world.plan.slow.is_empty() { "ms stale" } else { "ms stale, rsplib's timers" };
            world.tally.worst(name, ago.as_millis() as u64);
            assert!(
                ago <= world.stale_bound(left),
                "{handle:?} {} is resolved {ago:?} after it left",
                element.id
            );
        }
    }
}

/// After every step.
pub fn always(world: &mut World) {
    for host in std::mem::take(&mut world.touched) {
        match &world.hosts[host].machine {
            Machine::Registrar(registrar) => {
                if let Err(broken) = registrar.invariants() {
                    panic!("registrar on h{host}: {broken}");
                }
                world.tally.check("registrar: checksums recomputed, queues and tables in bounds");
                no_orphans(world, host);
            }
            Machine::Process(client) => {
                if let Err(broken) = client.invariants() {
                    panic!("process on h{host}: {broken}");
                }
                world.tally.check("process: queues and tables in bounds");
                let links = world.hosts[host].opened.len();
                assert!(links <= 3, "process on h{host} holds {links} links to registrars");
                world.tally.check("process: at most three links to registrars");
            }
            Machine::Stranger(_) | Machine::Nothing => {}
        }
    }
    if world.now - world.memory.looked >= LOOK {
        world.memory.looked = world.now;
        nothing_unowned(world);
        nothing_unanswered(world);
        nothing_stolen(world);
    }
}

/// Where nothing happens but what strangers do, no honest element is lost or moved at its home; where TLS is required,
/// nobody else believes otherwise either.
fn nothing_stolen(world: &mut World) {
    if !world.is_invaded() || !world.memory.strict {
        return;
    }
    let mut wrong: BTreeMap<(HostId, PoolHandle, PeId), String> = BTreeMap::new();
    for ((handle, id), &at) in &world.registered {
        let Some(wanted) = world.hosts[at].elements.get(&(handle.clone(), *id)) else { continue };
        let mut kept = 0;
        for (host, registrar) in world.registrars() {
            let space = registrar.handlespace();
            let known =
                space.find(handle, *id).and_then(|key| space.get(key)).map(|known| known.to_element());
            let Some(known) = known else {
                wrong.insert((host, handle.clone(), *id), "is not there".into());
                continue;
            };
            let same = known.transport == wanted.element.transport;
            let honest = world.registrars().any(|(_, registrar)| registrar.id() == known.home);
            kept += usize::from(same && known.home == registrar.id());
            if !same || !honest {
                let found = format!("is {:?} with home {}", known.transport, known.home);
                wrong.insert((host, handle.clone(), *id), found);
            }
        }
        assert!(kept > 0, "{handle:?} {id} of h{at} is kept by nobody: {wrong:?}");
        world.tally.check("no honest element is lost or moved by a stranger");
    }
    let now = world.now;
    world.memory.stolen.retain(|name, _| wrong.contains_key(name));
    for (name, what) in wrong {
        let since = *world.memory.stolen.entry(name.clone()).or_insert(now);
        world
            .tally
            .worst("ms that a stranger was believed where it was not", (now - since).as_millis() as u64);
        // Without TLS others may believe news for a while; what they believe in the end is looked at then.
        assert!(!world.plan.tls, "at h{} {:?} {} {what} for {:?}", name.0, name.1, name.2, now - since);
    }
}

/// Nobody dials again and again without end.
pub fn no_spin(world: &mut World, host: HostId) {
    let now = world.now;
    let (since, count) = world.memory.dials.entry(host).or_insert((now, 0));
    if now - *since > Duration::from_secs(1) {
        (*since, *count) = (now, 0);
    }
    *count += 1;
    let count = *count;
    if world.is_strange(host) {
        return;
    }
    world.tally.check("nobody dials without end");
    world.tally.worst("dials of a host in a second", u64::from(count));
    let most = DIALS * if world.plan.strangers > 0 { 4 } else { 1 };
    assert!(count <= most, "h{host} dials {count} times in a second");
}

/// No registrar holds elements of a dead one for longer than a takeover takes.
fn no_orphans(world: &mut World, host: HostId) {
    let registrar = world.registrar(host);
    let mut alive: Vec<RegistrarId> = world.registrars().map(|(_, registrar)| registrar.id()).collect();
    if !world.plan.tls {
        // A dead one's identifier may be a stranger's, over links that answer.
        alive.extend(world.hosts.iter().flat_map(|host| match &host.machine {
            Machine::Stranger(stranger) => stranger.names(),
            _ => BTreeSet::new(),
        }));
    }
    let mut dead = BTreeSet::new();
    if registrar.is_serving() {
        let homes = registrar.handlespace().elements_after(None).map(|element| element.home());
        let invaded = world.is_invaded();
        dead.extend(homes.filter(|home| !(alive.contains(home) || invaded && is_invented(*home))));
    }
    world.memory.orphans.retain(|(at, home), _| *at != host || dead.contains(home));
    let (now, bound, disturbed) = (world.now, world.takeover_bound(), world.disturbed);
    for home in dead {
        let since = *world.memory.orphans.entry((host, home)).or_insert(now);
        world.tally.check("elements of a dead registrar are taken over in time");
        let waited = now - since.max(disturbed);
        if world.network.is_whole() {
            world.tally.worst("ms without takeover", waited.as_millis() as u64);
            assert!(waited <= bound, "h{host} has elements of {home} {waited:?} after its death");
        }
    }
}

/// Whether a registrar that an element's process may have for its home takes the element for a registrar's that a stranger made up: without TLS,
/// who has an identifier first keeps it, and the process is refused. One that was refused from the beginning does not know its home's
/// identifier. The same where it takes it for another honest registrar's, for which somebody else is that home: the two never hear of each other
/// what the other one has given up.
fn is_squatted(world: &World, key: &(PoolHandle, PeId), host: HostId) -> bool {
    let Machine::Process(client) = &world.hosts[host].machine else { return false };
    let home = client.home();
    let is_elsewhere = |at: HostId, id: RegistrarId, of: &registrar::Registrar| {
        let known = of.peers().into_iter().find(|peer| peer.id == id);
        known.is_some_and(|peer| !peer.addresses.iter().any(|known| known.ip() == address(at)))
    };
    let invented = |(at, registrar): &(HostId, &registrar::Registrar)| {
        let space = registrar.handlespace();
        let known = space.find(&key.0, key.1).and_then(|found| space.get(found));
        let estranged = |home| {
            world
                .registrars()
                .any(|(_, other)| other.id() == home && is_elsewhere(*at, registrar.id(), other))
        };
        known.is_some_and(|element| is_invented(element.home()) || estranged(element.home()))
    };
    let is_home = |registrar: &registrar::Registrar| home.is_none_or(|home| home == registrar.id());
    !world.plan.tls && world.registrars().any(|found| is_home(found.1) && invented(&found))
}

/// Each registered element is some living registrar's own.
fn nothing_unowned(world: &mut World) {
    // Who could call them its own?
    if !world.registrars().any(|(host, registrar)| registrar.is_serving() && !world.hosts[host].paused) {
        world.memory.unowned.clear();
        world.disturbed = world.now;
        return;
    }
    let mut unowned = BTreeMap::new();
    // A process that turned to a registrar that hangs waits for it until the response timer ends.
    let bound = world.takeover_bound() + RESPONSE_TIMEOUT;
    let (now, disturbed) = (world.now, world.disturbed);
    let mut looked = 0;
    for (key, &host) in &world.registered {
        looked += 1;
        let owned = world.registrars().any(|(_, registrar)| {
            let space = registrar.handlespace();
            let known = space.find(&key.0, key.1).and_then(|found| space.get(found));
            known.is_some_and(|element| element.home() == registrar.id())
        });
        if !owned && !world.hosts[host].paused && !is_squatted(world, key, host) {
            let since = world.memory.unowned.get(key).copied().unwrap_or(now);
            unowned.insert(key.clone(), since);
        }
    }
    for (key, &since) in &unowned {
        let waited = now - since.max(disturbed);
        if world.network.is_whole() {
            world.tally.worst("ms owned by nobody", waited.as_millis() as u64);
            let homes = || {
                let at = |(host, registrar): (HostId, &registrar::Registrar)| {
                    let space = registrar.handlespace();
                    (
                        host,
                        space
                            .find(&key.0, key.1)
                            .and_then(|found| space.get(found))
                            .map(|found| found.home()),
                    )
                };
                world.registrars().map(at).collect::<Vec<_>>()
            };
            assert!(
                waited <= bound,
                "{key:?} is owned by nobody for {waited:?}; what each registrar takes for its home: {:?}",
                homes()
            );
        }
    }
    world.memory.unowned = unowned;
    *world.tally.checks.entry("a registered element is somebody's").or_default() += looked;
}

fn nothing_unanswered(world: &mut World) {
    let asleep = |host: HostId| world.hosts[host].paused;
    let late =
        world.requests.iter().find(|(_, open)| !asleep(open.host) && world.now - open.since > PATIENCE);
    if let Some((request, open)) = late {
        panic!("{request:?} of h{}, made at {:?}, has no answer", open.host, open.since);
    }
    world.tally.check("no request is open for too long");
}

/// Handle, element → home registrar, as one registrar sees it.
type View = BTreeMap<(PoolHandle, PeId), RegistrarId>;

fn view(registrar: &Registrar) -> View {
    let space = registrar.handlespace();
    space
        .elements_after(None)
        .map(|element| ((element.handle().clone(), element.id()), element.home()))
        .collect()
}

/// Why the world is not yet as it should be; `None` when it is.
pub fn unsettled(world: &World) -> Option<String> {
    let alive: Vec<RegistrarId> = world.registrars().map(|(_, registrar)| registrar.id()).collect();
    let mut expected: Vec<(PoolHandle, PeId)> =
        world.hosts.iter().flat_map(|host| host.elements.keys().cloned()).collect();
    expected.sort();
    let mut first: Option<(HostId, View)> = None;
    for (host, registrar) in world.registrars() {
        if !registrar.is_serving() {
            return Some(format!("h{host} does not serve"));
        }
        let peers: Vec<RegistrarId> = registrar.peers().iter().map(|peer| peer.id).collect();
        if let Some(missing) = alive.iter().find(|id| **id != registrar.id() && !peers.contains(id)) {
            return Some(format!("h{host} does not know peer {missing}"));
        }
        if let Some(dead) = peers.iter().find(|id| !alive.contains(id)) {
            return Some(format!("h{host} still lists peer {dead}"));
        }
        let view = view(registrar);
        let found: Vec<(PoolHandle, PeId)> = view.keys().cloned().collect();
        if found != expected {
            return Some(format!("h{host} has {found:?}\n  expected {expected:?}"));
        }
        if let Some(orphan) = view.iter().find(|(_, home)| !alive.contains(home)) {
            return Some(format!("h{host}: {orphan:?} has a home that is dead"));
        }
        match &first {
            Some((other, reference)) if *reference != view => {
                return Some(format!("h{other} and h{host} differ:\n  {reference:?}\n  {view:?}"));
            }
            Some(_) => {}
            None => first = Some((host, view)),
        }
    }
    for (host, node) in world.hosts.iter().enumerate() {
        for (handle, known) in &node.pools {
            let expected = world.expected(handle);
            if known.as_ref().is_none_or(|known| *known != expected) {
                return Some(format!("h{host} takes {handle:?} for {known:?}, it is {expected:?}"));
            }
        }
    }
    // Users go on asking in the calm; what they asked just now may be under way.
    let old = world.requests.iter().find(|(_, open)| world.now - open.since > Duration::from_secs(15));
    old.map(|(request, open)| format!("{request:?} of h{} is open", open.host))
}

/// Resynchronisations and takeovers so far.
pub fn unrest(world: &World) -> u64 {
    world
        .registrars()
        .map(|(_, registrar)| registrar.stats().resynchronisations + registrar.stats().takeovers)
        .sum()
}

/// Once faults have stopped: within `patience`, everything is as it should be, and stays so.
pub fn settles(world: &mut World, patience: Duration) {
    if world.plan.strangers > 0 && !world.plan.tls {
        // What strangers registered in the end may still be on its way over slow links, and is then given up as any process is that
        // answers nothing over a link that loses things.
        let config = timers(!world.plan.slow.is_empty());
        world.run_for(config.lossy_link_timeout + 4 * config.endpoint_keep_alive_transmission_interval);
    }
    let begin = world.now;
    while let Some(reason) = unsettled(world) {
        assert!(world.now - begin < patience, "{patience:?} after the last fault: {reason}");
        world.run_for(Duration::from_millis(100));
    }
    world.tally.worst("ms to settle", (world.now - begin).as_millis() as u64);
    // Where a dead registrar's address is its successor's, it is dialled until it is given up, and who answers there is asked anew
    // when the needless link ends, and once more by the checksum of the next presence: that is as long as a sixth of all after
    // many faults.
    world.run_for(Duration::from_secs(5).max(patience / 6));
    let before = unrest(world);
    world.run_for(Duration::from_secs(5));
    if let Some(reason) = unsettled(world) {
        panic!("settled, but not for long: {reason}");
    }
    assert_eq!(unrest(world), before, "settled, but registrars resynchronise or take over");
    world
        .tally
        .check("in the end: all handlespaces equal, each element one home, no dead one, subscribers right");
}
