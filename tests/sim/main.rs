//! The simulated world: the production machines under a virtual clock and a seeded network.
//!
//! `RSP_SEED=0x… cargo test --test sim seeds` replays one run, `RSP_TRACE=1` prints every
//! effect of it, `RSP_SEEDS=N` runs more of them (from `RSP_FIRST`), `RSP_ARBITRATIONS=N` more worlds in
//! which two take over a third; `RSP_SOAK=1 cargo test --release
//! --test sim soak` runs new seeds until stopped.
#![allow(clippy::disallowed_methods)]

mod acts;
#[path = "../../src/bin/common/allocator.rs"]
mod allocator;
mod checks;
mod cost;
mod join;
mod network;
mod regressions;
mod scenarios;
mod show;
mod size;
mod strangers;
mod tally;
mod world;

use acts::Act;
use network::{Happening, Weather};
use rserpool::machine::Time;
use rserpool::wire::{PeId, PoolHandle};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tally::Tally;
use world::{Discovery, Plan, World};

/// How long faults go on.
const STORM: Duration = Duration::from_secs(40);
/// Everything is in order again at the latest after this.
const CALM: Duration = Duration::from_secs(60);

pub fn pool(number: usize) -> PoolHandle {
    PoolHandle::new(format!("pool{number}").as_bytes()).expect("short")
}

/// What kind of world a seed makes.
fn plan(rng: &mut fastrand::Rng, hostile: bool) -> Plan {
    let registrars = if hostile { rng.usize(2..=6) } else { rng.usize(1..=5) };
    let most = Duration::from_micros(rng.u64(100..if hostile { 80_000 } else { 30_000 }));
    let weather = Weather {
        delay: (Duration::from_micros(50), most),
        datagram_loss: rng.f64() * if hostile { 0.5 } else { 0.2 },
        datagram_repetition: rng.f64() * 0.1,
        loss: 0.0,
        half_open: if rng.u32(..3) == 0 { 0.05 } else { 0.0 },
        width: (rng.u32(..4) == 0).then(|| rng.u64(10_000..200_000)),
        // Each holds a handle table of these small worlds.
        queue: if rng.u32(..3) == 0 { rng.usize(12_000..60_000) } else { 4 << 20 },
    };
    let discovery = match rng.u32(..5) {
        0 => Discovery::Static,
        1 => Discovery::Both,
        _ => Discovery::Multicast,
    };
    let slow = match rng.u32(..6) {
        0 => (0..registrars).filter(|_| rng.bool()).collect(),
        _ => Vec::new(),
    };
    Plan {
        registrars,
        processes: rng.usize(1..=if hostile { 16 } else { 12 }),
        discovery,
        weather,
        sctp: rng.u32(..4) == 0,
        slow,
        skew: if rng.bool() { 0 } else { 10_000 },
        loopback: rng.u32(..4) == 0,
        strangers: 0,
        tls: false,
    }
}

/// One run of mixed faults.
pub fn mixed_faults(seed: u64) -> Tally {
    faults_and_strangers(seed, 0, false)
}

/// The same while so many strangers do what they can.
fn faults_and_strangers(seed: u64, strangers: usize, tls: bool) -> Tally {
    let mut rng = fastrand::Rng::with_seed(seed);
    let hostile = rng.u32(..4) == 0;
    let plan = Plan { strangers, tls, ..plan(&mut rng, hostile) };
    let (registrars, processes) = (plan.registrars, plan.processes);
    let mut world = World::new(seed, plan);
    let start = world.now;
    let at =
        |rng: &mut fastrand::Rng, from: f64, to: f64| start + STORM.mul_f64(from + (to - from) * rng.f64());
    for host in 0..registrars + processes {
        let time = at(&mut rng, 0.0, 0.05);
        world.network.schedule(time, Happening::Act(Act::Start { host, same_id: false }));
    }
    for host in registrars..registrars + processes {
        for _ in 0..rng.usize(1..=3) {
            let (handle, id) = (pool(rng.usize(0..3)), PeId(rng.u32(1..)));
            let time = at(&mut rng, 0.06, 0.3);
            world.network.schedule(time, Happening::Act(Act::Register { host, handle, id }));
        }
        if rng.bool() {
            let (handle, time) = (pool(rng.usize(0..3)), at(&mut rng, 0.05, 0.5));
            world.network.schedule(time, Happening::Act(Act::Subscribe { host, handle }));
        }
        for _ in 0..rng.usize(0..12) {
            let (handle, time) = (pool(rng.usize(0..3)), at(&mut rng, 0.05, 1.3));
            world.network.schedule(time, Happening::Act(Act::Resolve { host, handle }));
        }
    }
    for _ in 0..rng.usize(0..=if hostile { 60 } else { 25 }) {
        let time = start + STORM.mul_f64(0.1 + 0.8 * rng.f64());
        for (at, act) in fault(&mut rng, registrars, processes, time) {
            world.network.schedule(at, Happening::Act(act));
        }
    }
    world.invade(tls);
    world.run(start + STORM);
    calm(&mut world);
    checks::settles(&mut world, CALM);
    world.tally
}

/// One fault at a time, and usually its end.
fn fault(rng: &mut fastrand::Rng, registrars: usize, processes: usize, time: Time) -> Vec<(Time, Act)> {
    let hosts = registrars + processes;
    let host = rng.usize(..hosts);
    let registrar = rng.usize(..registrars);
    let soon = time + Duration::from_millis(rng.u64(0..1000));
    let later = |rng: &mut fastrand::Rng| time + Duration::from_millis(rng.u64(10..15_000));
    let start = |rng: &mut fastrand::Rng, host| (later(rng), Act::Start { host, same_id: rng.bool() });
    match rng.u32(..16) {
        0..=2 => vec![(time, Act::Kill(registrar)), start(rng, registrar)],
        3 => vec![(time, Act::Kill(host)), start(rng, host)],
        4 | 5 => vec![(time, Act::Pause(host)), (later(rng), Act::Resume(host))],
        6 => vec![(time, Act::Pause(registrar)), (later(rng), Act::Resume(registrar))],
        7 | 8 => {
            let mut cut: Vec<usize> = (0..hosts).collect();
            rng.shuffle(&mut cut);
            cut.truncate(rng.usize(1..=hosts.div_ceil(2)));
            let one_way = rng.u32(..3) == 0;
            vec![(time, Act::Partition { hosts: cut, one_way }), (later(rng), Act::Heal)]
        }
        9 if registrar != host => {
            let one_way = rng.bool();
            vec![(time, Act::Cut { hosts: [registrar, host], one_way }), (later(rng), Act::Heal)]
        }
        10 => {
            let mut victims: Vec<usize> = (0..registrars).collect();
            rng.shuffle(&mut victims);
            victims.truncate(rng.usize(1..=registrars));
            let starts: Vec<(Time, Act)> = victims.iter().map(|&victim| start(rng, victim)).collect();
            [(time, Act::KillAll(victims))].into_iter().chain(starts).collect()
        }
        // One joins while another dies.
        11 => vec![
            (time, Act::Kill(registrar)),
            (soon, Act::Start { host: registrar, same_id: rng.bool() }),
            (soon + Duration::from_millis(rng.u64(0..800)), Act::Kill(rng.usize(..registrars))),
            (soon + Duration::from_millis(rng.u64(0..800)), Act::Kill(registrar)),
            start(rng, registrar),
        ],
        12 => (0..rng.u64(1..100))
            .map(|n| (time + Duration::from_millis(n * 20), Act::Update { host, load: rng.u32(..) }))
            .collect(),
        13 => vec![(time, Act::Leave(host)), start(rng, host)],
        14 => match rng.u32(..3) {
            0 => vec![(time, Act::Deregister(host))],
            1 => vec![(time, Act::Report { host, handle: pool(rng.usize(0..3)) })],
            _ => vec![(time, Act::Update { host, load: rng.u32(..) })],
        },
        _ => vec![(time, Act::Drop(host))],
    }
}

/// Ends all faults: everything runs, nothing is cut off, slow or lost.
fn calm(world: &mut World) {
    world.network.queue.retain(|_, happening| !matches!(happening, Happening::Act(act) if act.is_fault()));
    world.network.weather = Weather { delay: world.network.weather.delay, ..Weather::FAIR };
    world.act(Act::Heal);
    for host in 0..world.hosts.len() {
        if world.is_strange(host) {
            world.act(Act::Kill(host));
            continue;
        }
        world.act(Act::Resume(host));
        world.act(Act::Start { host, same_id: true });
    }
}

/// Runs a seed; a failure prints the one line that replays it.
fn run(seed: u64) -> Tally {
    catch_unwind(AssertUnwindSafe(|| mixed_faults(seed))).unwrap_or_else(|_| {
        panic!("replay: RSP_SEED={seed:#x} cargo test --test sim seeds");
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Runs the seed of RSP_SEED, or RSP_SEEDS of them (`few` without that) from RSP_FIRST on; `test` is what replays one,
/// and each is to have `faults` at the least.
fn run_seeds(test: &str, few: u64, faults: u64, run: fn(u64) -> Tally) {
    let mut total = Tally::default();
    if let Some(seed) = number("RSP_SEED") {
        total.add(&run(seed));
        return total.print(1);
    }
    let (first, runs) = (number("RSP_FIRST").unwrap_or(1), number("RSP_SEEDS").unwrap_or(few));
    let mut failed = Vec::new();
    for seed in first..first + runs {
        match catch_unwind(|| run(seed)) {
            Ok(tally) => total.add(&tally),
            Err(_) => failed.push(seed),
        }
    }
    total.print(runs);
    assert!(failed.is_empty(), "replay each with RSP_SEED=N cargo test --test sim {test}: {failed:?}");
    assert!(total.total_faults() > faults * runs, "the seeds hardly did anything");
}

#[test]
fn seeds_of_mixed_faults() {
    run_seeds("seeds_of_mixed_faults", 500, 10, run);
}

#[test]
fn soak() {
    if std::env::var_os("RSP_SOAK").is_none() {
        return;
    }
    let mut rng = fastrand::Rng::new();
    let (mut total, mut runs) = (Tally::default(), 0);
    loop {
        total.add(&run(rng.u64(..)));
        runs += 1;
        if runs % 100 == 0 {
            total.print(runs);
        }
    }
}
