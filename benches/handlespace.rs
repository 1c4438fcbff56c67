//! Registrations, selections and bytes of the handlespace, for every policy and size; selections
//! from a pool user's cache.
//!
//! `cargo bench --bench handlespace [-- POLICY .. ELEMENTS .. --quick]`. Times are per operation: batches are
//! timed, printed are the fastest and the median batch. The reference is rsplib's handlespace, given the
//! same elements in the same run where its library is installed; second lines are its. Where it isn't,
//! it is what was published of it: 219 ns per resolution at 1 000 elements, 1.6 to 2.4 µs at 100 000, 0.3
//! to 0.9 million registrations per second, 532 to 614 bytes per element, of which ratios take the better.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "../tests/common/counting.rs"]
mod counting;
#[path = "handlespace/rsplib.rs"]
mod rsplib;

use counting::LIVE;
use rserpool::handlespace::{Handlespace, Increment};
use rserpool::machine::Time;
use rserpool::machine::cache::CachedPool;
use rserpool::machine::client::Resolution;
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use std::hint::black_box;
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What to compare with: nanoseconds per registration and per resolution of one and of three elements
/// (where known), bytes per element.
struct Reference {
    register: f64,
    one: Option<f64>,
    three: Option<f64>,
    bytes: f64,
}

/// The better of the figures published for rsplib.
fn published(count: usize) -> Reference {
    let one = match count {
        1_000 => Some(219.0),
        100_000 => Some(1600.0),
        _ => None,
    };
    Reference { register: 1e9 / 0.9e6, one, three: None, bytes: 532.0 }
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

/// What a handlespace of some size and policy cost.
struct Measured {
    register: Times,
    one: Times,
    three: Times,
    /// Registrations of known elements.
    again: Option<Times>,
    bytes: f64,
}

impl Measured {
    fn reference(&self) -> Reference {
        let (one, three) = (Some(self.one.median), Some(self.three.median));
        Reference { register: self.register.median, one, three, bytes: self.bytes }
    }
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

fn handlespace(names: &[String], sizes: &[usize], quick: bool, reference: Option<&rsplib::Library>) {
    println!(
        "{:>20} {:>9} | {:>12} {:>5} {:>6} | {:>12} {:>6} | {:>12} {:>6} | {:>7} | {:>5} {:>6}",
        "policy",
        "elements",
        "register",
        "M/s",
        "ratio",
        "resolve 1",
        "ratio",
        "resolve 3",
        "ratio",
        "again",
        "bytes",
        "ratio"
    );
    let pool = PoolHandle::new(b"a pool").expect("a handle");
    for (name, policy) in POLICIES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        for &count in sizes {
            let repeats =
                if quick { (300_000 / count).clamp(1, 3) } else { (1_000_000 / count).clamp(3, 100) };
            let batches = if quick { 50 } else { 300 };
            let ours = ours(&pool, count, policy, repeats, batches);
            let theirs =
                reference.map(|library| library.measure(&pool, count, policy, repeats.min(10), batches));
            row(name, count, &ours, theirs.as_ref());
            if name == "WeightedRoundRobin" {
                floor(count, batches);
            }
        }
    }
}

fn ours(pool: &PoolHandle, count: usize, policy: Make, repeats: usize, batches: usize) -> Measured {
    let mut register = Vec::new();
    let mut filled = fill(pool, count, policy);
    register.push(filled.1);
    for _ in 1..repeats {
        filled = fill(pool, count, policy);
        register.push(filled.1);
    }
    let (mut space, _, bytes) = filled;
    let mut out = Vec::new();
    // As rsplib's registrar counts: the first of an answer, none of a draw.
    let increment = match policy(1) {
        Policy::Random | Policy::WeightedRandom { .. } | Policy::WeightedRandomDpf { .. } => Increment::Up(0),
        _ => Increment::Up(1),
    };
    let mut select = |items| {
        measure(batches, 1000, || {
            space.select(pool, items, increment, &mut out);
            black_box(&out);
        })
    };
    select(1);
    let (one, three) = (select(1), select(3));
    // Re-registrations with another load each.
    let again = Some(reregister(&mut space, pool, count, policy, batches / 5));
    Measured { register: times(register), one, three, again, bytes }
}

/// What placing an element anew costs a weighted round robin at least, with nothing around it: its new key, a search
/// among a thousand of them in one list, and the cache lines of the element, of the next one, and of the one
/// that it goes behind. A resolution does that besides what one by round robin does.
fn floor(count: usize, batches: usize) {
    #[repr(align(64))]
    struct Line {
        weight: u32,
        links: [usize; 2],
    }
    let lines = (0..count).map(|i| Line { weight: scatter(!(i as u32)) % 1000 + 1, links: [0; 2] });
    let mut elements: Vec<Line> = lines.collect();
    let key = |weight: u32| (1_u64 << 32) / u64::from(weight);
    let keys: Vec<u64> = (1..=1000).rev().map(key).collect();
    let mut lasts = vec![0; keys.len()];
    let mut first = 0;
    let mut place = || {
        let (slot, next) = (first, (first + 1) % count);
        let new = key(elements[slot].weight);
        let last = mem::replace(&mut lasts[keys.partition_point(|&key| key < new)], slot);
        elements[next].links[0] = 0;
        elements[last].links[1] = slot;
        elements[slot].links = [last, 0];
        first = black_box(next);
    };
    measure(batches, 1000, &mut place);
    let times = measure(batches, 1000, &mut place);
    let (least, median) = (times.least, times.median);
    println!("{:>20} {count:>9} | {:>25} | {least:>4.0} {median:>4.0} ns", "least to place one", "");
}

/// Ours with its ratios, then the reference as measured.
fn row(name: &str, count: usize, ours: &Measured, theirs: Option<&Measured>) {
    let reference = theirs.map_or_else(|| published(count), Measured::reference);
    line(name, count, ours, Some(&reference));
    if let Some(theirs) = theirs {
        line("rsplib", count, theirs, None);
    }
}

fn line(name: &str, count: usize, measured: &Measured, reference: Option<&Reference>) {
    let Measured { register, one, three, again, bytes } = measured;
    let ratio = |reference: Option<f64>, ours: f64| {
        reference.map_or(String::new(), |reference| format!("{:.1}x", reference / ours))
    };
    println!(
        "{name:>20} {count:>9} | {:>4.0} {:>4.0} ns {:>5.2} {:>6} | {:>4.0} {:>4.0} ns {:>6} | {:>4.0} {:>4.0} ns {:>6} | {:>7} | {bytes:>5.0} {:>6}",
        register.least,
        register.median,
        1e3 / register.median,
        ratio(reference.map(|r| r.register), register.median),
        one.least,
        one.median,
        ratio(reference.and_then(|r| r.one), one.median),
        three.least,
        three.median,
        ratio(reference.and_then(|r| r.three), three.median),
        again.as_ref().map_or(String::new(), |again| format!("{:.0} ns", again.median)),
        ratio(reference.map(|r| r.bytes), *bytes),
    );
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
    let words = || arguments.iter().filter(|argument| !argument.starts_with("--"));
    let mut sizes: Vec<usize> =
        words().filter_map(|word| word.parse().ok()).filter(|&size| size > 0).collect();
    let names: Vec<String> = words().filter(|word| word.parse::<usize>().is_err()).cloned().collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 100_000, 1_000_000];
    }
    let reference = rsplib::Library::load();
    match &reference {
        Ok(_) => {
            println!("Reference: rsplib's handlespace, measured beside ours. Least and median of batches.\n")
        }
        Err(why) => {
            println!("rsplib's handlespace is NOT measured beside ours: {why}");
            println!("Reference: its published figures (3.4.4): 219 ns per resolution at 1 000 elements,");
            println!(
                "1600 ns at 100 000; 0.9 M registrations/s; 532 bytes. Ours: least and median of batches.\n"
            );
        }
    }
    handlespace(&names, &sizes, quick, reference.as_ref().ok());
    cache();
}
