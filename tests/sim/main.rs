//! The simulated world: the production machines under a virtual clock and a seeded network.
//!
//! `RSP_SEED=0x… cargo test --test sim seeds` replays one run, `RSP_TRACE=1` prints every
//! effect of it; `RSP_SOAK=1 cargo test --release --test sim soak` runs new seeds until stopped.
#![allow(clippy::disallowed_methods)]

mod checks;
mod cost;
mod network;
mod regressions;
mod world;

use network::Happening;
use rserpool::machine::Time;
use rserpool::wire::{PeId, Policy, PoolHandle};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use world::{Act, Counts, World};

/// How long faults go on.
const STORM: Duration = Duration::from_secs(40);
/// Everything is in order again at the latest after this.
const CALM: Duration = Duration::from_secs(60);

fn pool(number: usize) -> PoolHandle {
    PoolHandle::new(format!("pool{number}").as_bytes()).expect("short")
}

/// One run of mixed faults.
pub fn mixed_faults(seed: u64) -> Counts {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (registrars, processes) = (rng.usize(1..=5), rng.usize(1..=12));
    let mut world = World::new(seed, registrars, processes);
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
            // One policy per pool; what is refused is not what is tested here.
            let act = Act::Register { host, handle, id, policy: Policy::LeastUsed { load: rng.u32(..) } };
            let time = at(&mut rng, 0.06, 0.3);
            world.network.schedule(time, Happening::Act(act));
        }
        if rng.bool() {
            let time = at(&mut rng, 0.05, 0.5);
            world
                .network
                .schedule(time, Happening::Act(Act::Subscribe { host, handle: pool(rng.usize(0..3)) }));
        }
        for _ in 0..rng.usize(0..12) {
            let time = at(&mut rng, 0.05, 1.3);
            world
                .network
                .schedule(time, Happening::Act(Act::Resolve { host, handle: pool(rng.usize(0..3)) }));
        }
    }
    for _ in 0..rng.usize(0..=25) {
        fault(&mut world, &mut rng, registrars, processes, start);
        world.counts.faults += 1;
    }
    let end = start + STORM;
    world.run(end, &mut checks::always);
    calm(&mut world);
    checks::settles(&mut world, CALM);
    world.counts
}

/// Plans one fault, and usually its end, within the storm.
fn fault(world: &mut World, rng: &mut fastrand::Rng, registrars: usize, processes: usize, start: Time) {
    let hosts = registrars + processes;
    let host = rng.usize(..hosts);
    let time = start + STORM.mul_f64(0.1 + 0.8 * rng.f64());
    let later = time + Duration::from_millis(rng.u64(10..15_000));
    let (first, second) = match rng.u32(..8) {
        0 | 1 => {
            let host = rng.usize(..registrars);
            (Act::Kill(host), Some(Act::Start { host, same_id: rng.bool() }))
        }
        2 => (Act::Kill(host), Some(Act::Start { host, same_id: rng.bool() })),
        3 => (Act::Pause(host), Some(Act::Resume(host))),
        4 => {
            let mut cut: Vec<usize> = (0..hosts).collect();
            rng.shuffle(&mut cut);
            cut.truncate(rng.usize(1..=hosts.div_ceil(2)));
            (Act::Partition { hosts: cut, one_way: rng.u32(..3) == 0 }, Some(Act::Heal))
        }
        5 => (Act::Drop(host), None),
        6 => (Act::Deregister(host), None),
        _ => (Act::Update { host, load: rng.u32(..) }, None),
    };
    world.network.schedule(time, Happening::Act(first));
    if let Some(second) = second {
        world.network.schedule(later, Happening::Act(second));
    }
}

/// Ends all faults: everything runs, nothing is cut off.
fn calm(world: &mut World) {
    world.network.queue.retain(|_, happening| {
        !matches!(
            happening,
            Happening::Act(Act::Kill(_) | Act::Pause(_) | Act::Partition { .. } | Act::Drop(_))
        )
    });
    world.act(Act::Heal);
    for host in 0..world.hosts.len() {
        world.act(Act::Resume(host));
        world.act(Act::Start { host, same_id: true });
    }
}

/// Runs a seed; a failure prints the one line that replays it.
fn run(seed: u64) -> Counts {
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

fn report(runs: u64, total: Counts) {
    println!(
        "{runs} seeds: {} steps, {} faults, {} checks, {} requests answered, {} refused with an error",
        total.steps, total.faults, total.checks, total.answers, total.errors
    );
}

fn add(total: &mut Counts, run: Counts) {
    total.steps += run.steps;
    total.faults += run.faults;
    total.checks += run.checks;
    total.answers += run.answers;
    total.errors += run.errors;
}

#[test]
fn seeds_of_mixed_faults() {
    let mut total = Counts::default();
    if let Some(seed) = number("RSP_SEED") {
        add(&mut total, run(seed));
        return report(1, total);
    }
    let runs = number("RSP_SEEDS").unwrap_or(500);
    for seed in 1..=runs {
        add(&mut total, run(seed));
    }
    report(runs, total);
    assert!(total.answers > runs && total.faults > runs, "the seeds hardly did anything");
}

#[test]
fn soak() {
    if std::env::var_os("RSP_SOAK").is_none() {
        return;
    }
    let mut rng = fastrand::Rng::new();
    let (mut total, mut runs) = (Counts::default(), 0);
    loop {
        add(&mut total, run(rng.u64(..)));
        runs += 1;
        if runs % 100 == 0 {
            report(runs, total);
        }
    }
}
