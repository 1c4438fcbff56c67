//! Registrations, selections and bytes of the handlespace, for every policy and size; selections
//! from a pool user's cache.
//!
//! `cargo bench --bench handlespace [-- POLICY ..] [--quick]`. Times are per operation: batches are
//! timed, printed are the fastest and the median batch. The reference is rsplib 3.4.4's handlespace,
//! measured on the same kind of machine: 219 ns per resolution at 1 000 elements, 1.6 to 2.4 µs at
//! 100 000, 0.3 to 0.9 million registrations per second, 532 to 614 bytes per element. Printed
//! ratios take the reference's better figure.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use rserpool::handlespace::{Handlespace, Increment};
use rserpool::machine::Time;
use rserpool::machine::cache::CachedPool;
use rserpool::machine::client::Resolution;
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// The system's allocator, counting live bytes as requested.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Relaxed);
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// rsplib's better figure.
const REFERENCE_REGISTER: f64 = 0.9e6;
const REFERENCE_BYTES: f64 = 532.0;

fn reference_resolve(count: usize) -> Option<f64> {
    match count {
        1_000 => Some(219.0),
        100_000 => Some(1600.0),
        _ => None,
    }
}

/// An element's policy parameter, its values made from a random number.
type Make = fn(u32) -> Policy;

const POLICIES: [(&str, Make); 16] = [
    ("RoundRobin", |_| Policy::RoundRobin),
    ("WeightedRoundRobin", |r| Policy::WeightedRoundRobin { weight: r % 1000 + 1 }),
    ("Random", |_| Policy::Random),
    ("WeightedRandom", |r| Policy::WeightedRandom { weight: r % 1000 + 1 }),
    ("Priority", |r| Policy::Priority { priority: r % 10 }),
    ("LeastUsed", |r| Policy::LeastUsed { load: r }),
    ("LeastUsedDegradation", |r| Policy::LeastUsedDegradation { load: r, degradation: 40_000_000 }),
    ("PriorityLeastUsed", |r| Policy::PriorityLeastUsed { load: r, degradation: r >> 4 }),
    ("RandomizedLeastUsed", |r| Policy::RandomizedLeastUsed { load: r }),
    ("RandomizedPLU", |r| Policy::RandomizedPriorityLeastUsed { load: r, degradation: r >> 4 }),
    ("RandomizedLUD", |r| Policy::RandomizedLeastUsedDegradation { load: r, degradation: 1000 }),
    ("PLUD", |r| Policy::PriorityLeastUsedDegradation { load: r, degradation: 40_000_000 }),
    ("RandomizedPLUD", |r| Policy::RandomizedPriorityLeastUsedDegradation { load: r, degradation: 1000 }),
    ("WeightedRandomDPF", |r| Policy::WeightedRandomDpf {
        weight: r % 1000 + 1,
        weight_dpf: 400_000,
        distance: r % 20 * 50,
    }),
    ("LeastUsedDPF", |r| Policy::LeastUsedDpf { load: r, load_dpf: 400_000, distance: r % 20 * 50 }),
    ("LUD-DPF", |r| Policy::LeastUsedDegradationDpf {
        load: r,
        degradation: 40_000_000,
        load_dpf: 400_000,
        distance: r % 20 * 50,
    }),
];

/// Every number once, in no order; never 0 for `i` > 0.
fn scatter(i: u32) -> u32 {
    let mixed = i.wrapping_mul(0x9e37_79b1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b)
}

fn element(i: u32, policy: Make) -> PoolElement {
    PoolElement {
        id: PeId(scatter(i + 1)),
        home: RegistrarId(1),
        life: 300_000,
        transport: Transport::new(
            Protocol::Tcp,
            TransportUse::DataPlusControl,
            4711,
            vec![std::net::Ipv4Addr::from(i).into()],
        ),
        policy: policy(scatter(!i)),
        asap: None,
    }
}

/// Nanoseconds per operation of the fastest and the median batch.
struct Times {
    least: f64,
    median: f64,
}

fn times(mut batches: Vec<f64>) -> Times {
    batches.sort_by(f64::total_cmp);
    Times { least: batches[0], median: batches[batches.len() / 2] }
}

fn measure(batches: usize, size: usize, mut operation: impl FnMut()) -> Times {
    let mut all = Vec::with_capacity(batches);
    for _ in 0..batches {
        let start = Instant::now();
        for _ in 0..size {
            operation();
        }
        all.push(start.elapsed().as_nanos() as f64 / size as f64);
    }
    times(all)
}

/// A filled handlespace, the nanoseconds per registration, the bytes per element.
fn fill(pool: &PoolHandle, count: usize, policy: Make) -> (Handlespace, f64, f64) {
    let before = LIVE.load(Relaxed);
    let mut space = Handlespace::new(1);
    let mut nanoseconds = 0;
    for first in (0..count).step_by(1000) {
        let elements: Vec<_> = (first..count.min(first + 1000)).map(|i| element(i as u32, policy)).collect();
        let start = Instant::now();
        for element in &elements {
            space.register(pool, element).expect("a good element");
        }
        nanoseconds += start.elapsed().as_nanos();
    }
    let bytes = LIVE.load(Relaxed) - before;
    assert_eq!(space.len(), count);
    assert!(count < 100_000 || bytes <= 200 * count, "{} bytes per element", bytes / count);
    (space, nanoseconds as f64 / count as f64, bytes as f64 / count as f64)
}

fn handlespace(names: &[String], quick: bool) {
    println!(
        "{:>20} {:>9} | {:>12} {:>6} {:>6} | {:>11} {:>6} | {:>11} | {:>9} | {:>7}",
        "policy", "elements", "register", "M/s", "ratio", "resolve 1", "ratio", "resolve 3", "again", "bytes"
    );
    let pool = PoolHandle::new(b"a pool").expect("a handle");
    for (name, policy) in POLICIES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        for count in [1_000, 100_000, 1_000_000] {
            let repeats = if quick { 1 } else { (1_000_000 / count).clamp(3, 100) };
            let mut register = Vec::new();
            let mut filled = fill(&pool, count, policy);
            register.push(filled.1);
            for _ in 1..repeats {
                filled = fill(&pool, count, policy);
                register.push(filled.1);
            }
            let (mut space, _, bytes) = filled;
            let register = times(register);
            let mut out = Vec::new();
            let batches = if quick { 50 } else { 300 };
            let mut select = |items| {
                measure(batches, 1000, || {
                    space.select(&pool, items, Increment::PolicyDefault, &mut out);
                    black_box(&out);
                })
            };
            select(1);
            let (one, three) = (select(1), select(3));
            // Re-registrations with another load each.
            let again = reregister(&mut space, &pool, count, policy, batches / 5);
            let rate = 1e9 / register.median;
            let ratio = reference_resolve(count).map_or(String::new(), |r| format!("{:.1}x", r / one.median));
            println!(
                "{name:>20} {count:>9} | {:>4.0} {:>4.0} ns {:>6.2} {:>5.1}x | {:>4.0} {:>4.0} ns {ratio:>6} | {:>4.0} {:>4.0} ns | {:>6.0} ns | {bytes:>4.0} {:.1}x",
                register.least,
                register.median,
                rate / 1e6,
                rate / REFERENCE_REGISTER,
                one.least,
                one.median,
                three.least,
                three.median,
                again.median,
                REFERENCE_BYTES / bytes,
            );
        }
    }
}

fn reregister(
    space: &mut Handlespace,
    pool: &PoolHandle,
    count: usize,
    policy: Make,
    batches: usize,
) -> Times {
    let mut all = Vec::new();
    for batch in 0..batches as u32 {
        let elements: Vec<_> = (0..1000)
            .map(|i| {
                let mut element = element(scatter(batch * 1000 + i) % count as u32, policy);
                element.policy = policy(scatter(batch * 7919 + i));
                element
            })
            .collect();
        let start = Instant::now();
        for element in &elements {
            let _ = black_box(space.register(pool, element));
        }
        all.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    times(all)
}

fn cache() {
    println!("\n{:>20} {:>9} | {:>11} (target: 300 ns)", "cache", "elements", "resolve");
    for (name, policy) in POLICIES {
        for count in [3, 100, 10_000] {
            let elements = (0..count).map(|i| element(i, policy)).collect();
            let answer = Resolution { policy: None, elements, complete: true, subscribed: false };
            let mut cached = CachedPool::new(Time(0), 1, &answer);
            let now = Time(1);
            let one = measure(200, 1000, || {
                assert!(cached.fresh(now, std::time::Duration::from_secs(1)));
                black_box(cached.select_one());
            });
            println!("{name:>20} {count:>9} | {:>4.0} {:>4.0} ns", one.least, one.median);
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|a| a == "--quick");
    let names: Vec<String> = arguments.into_iter().filter(|a| !a.starts_with("--")).collect();
    println!("reference (rsplib 3.4.4): 219 ns/resolve at 1 000 elements, 1600-2400 ns at 100 000;");
    println!("0.3-0.9 M registrations/s; 532-614 bytes per element. Ours: least and median of batches.\n");
    handlespace(&names, quick);
    cache();
}
