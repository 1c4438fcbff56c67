//! What must hold: after every step, and once the faults have stopped.

use super::network::HostId;
use super::world::{Machine, World};
use rserpool::machine::Time;
use rserpool::machine::client::{Event, Resolution};
use rserpool::wire::{PeId, PoolHandle, RegistrarId};
use std::collections::BTreeMap;
use std::time::Duration;

/// No resolution returns an element that left longer ago than this: the keep-alive interval and its
/// time-out, or the detection of a dead registrar and the keep-alives after the takeover; doubled,
/// since a partition may hide the end of an element from its registrar until the transport gives up.
pub const STALE_BOUND: Duration = Duration::from_secs(30);
/// A request is answered (or refused with a clear error) at the latest after this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Something that a process's machine told its application.
pub fn event(world: &mut World, _host: HostId, event: Event) {
    match event {
        Event::Registered { request, result } => answered(world, request, result.is_ok()),
        Event::Deregistered { request, result } => answered(world, request, result.is_ok()),
        Event::Resolved { request, handle, result } => {
            answered(world, request, result.is_ok());
            if let Ok(resolution) = result {
                no_ghosts(world, &handle, &resolution);
            }
        }
        _ => {}
    }
}

fn answered(world: &mut World, request: rserpool::machine::RequestId, good: bool) {
    let known = world.requests.remove(&request);
    assert!(known.is_some(), "{request:?} is answered twice, or was never made");
    if good {
        world.counts.answers += 1;
    } else {
        world.counts.errors += 1;
    }
}

fn no_ghosts(world: &World, handle: &PoolHandle, resolution: &Resolution) {
    for element in &resolution.elements {
        if let Some(&since) = world.left.get(&(handle.clone(), element.id)) {
            let ago = world.now - since;
            assert!(ago <= STALE_BOUND, "{handle:?} {} is resolved {ago:?} after it left", element.id);
        }
    }
}

/// After every step.
pub fn always(world: &mut World) {
    // Recomputing every checksum after every step would be most of the run: one registrar each time.
    let registrars: Vec<HostId> = world.registrars().map(|(host, _)| host).collect();
    if registrars.is_empty() {
        return;
    }
    let host = registrars[(world.counts.steps as usize) % registrars.len()];
    if let Machine::Registrar(registrar) = &world.hosts[host].machine
        && let Err(broken) = registrar.invariants()
    {
        panic!("registrar on h{host}: {broken}");
    }
    world.counts.checks += 1;
    let late = world
        .requests
        .iter()
        .find(|(_, (owner, since))| !world.hosts[*owner].paused && world.now - *since > PATIENCE);
    if let Some((request, (owner, since))) = late {
        panic!("{request:?} of h{owner}, made at {since:?}, has no answer");
    }
}

/// Handle, element → home registrar, as one registrar sees it.
type View = BTreeMap<(PoolHandle, PeId), RegistrarId>;

fn view(registrar: &rserpool::machine::registrar::Registrar) -> View {
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
    // Users go on asking in the calm; what they asked just now may be under way.
    let old = world.requests.iter().find(|(_, (_, since))| world.now - *since > Duration::from_secs(15));
    old.map(|(request, (owner, _))| format!("{request:?} of h{owner} is open"))
}

/// Once faults have stopped: within `patience`, everything is as it should be, and stays so.
pub fn settles(world: &mut World, patience: Duration) {
    let deadline = world.now + patience;
    while let Some(reason) = unsettled(world) {
        assert!(world.now < deadline, "{patience:?} after the last fault: {reason}");
        let next: Time = world.now + Duration::from_millis(100);
        world.run(next, &mut always);
    }
    let later = world.now + Duration::from_secs(5);
    world.run(later, &mut always);
    if let Some(reason) = unsettled(world) {
        panic!("settled, but not for long: {reason}");
    }
}
