//! The room as a whole: rejects, walks, sequences and distributions of every policy. The comparison
//! with a naive implementation is in `model`.

use super::*;
use crate::wire::{Policy, Protocol, Transport, TransportUse};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod model;

const MAX: u32 = u32::MAX;

pub(super) fn handle(name: &str) -> PoolHandle {
    PoolHandle::new(name.as_bytes()).unwrap()
}

pub(super) fn element(id: u32, home: u32, policy: Policy) -> PoolElement {
    let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + id));
    PoolElement {
        id: PeId(id),
        home: RegistrarId(home),
        life: 300_000,
        transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 4711, vec![address]),
        policy,
        asap: None,
    }
}

/// A pool "p" with elements 1, 2, .. of these policies.
fn pool(policies: impl IntoIterator<Item = Policy>) -> Handlespace {
    let mut space = Handlespace::new(1);
    for (id, policy) in (1..).zip(policies) {
        space.register(&handle("p"), &element(id, 1, policy)).unwrap();
    }
    space
}

pub(super) fn choose(space: &mut Handlespace, items: usize, increment: Increment) -> Vec<u32> {
    let mut keys = vec![ElementKey { index: 9, generation: 9 }];
    assert!(space.select(&handle("p"), items, increment, &mut keys));
    keys.iter().map(|&key| space.get(key).unwrap().id().0).collect()
}

/// The next `count` single selections.
fn run(space: &mut Handlespace, count: usize) -> Vec<u32> {
    (0..count).flat_map(|_| choose(space, 1, Increment::PolicyDefault)).collect()
}

fn register(space: &mut Handlespace, id: u32, policy: Policy) -> Change {
    space.register(&handle("p"), &element(id, 1, policy)).unwrap().1
}

fn wrr(weight: u32) -> Policy {
    Policy::WeightedRoundRobin { weight }
}

fn lud(load: u32, degradation: u32) -> Policy {
    Policy::LeastUsedDegradation { load, degradation }
}

#[test]
fn round_robin_advances_by_one_per_request() {
    let mut space = pool(vec![Policy::RoundRobin; 5]);
    let three = |space: &mut _| choose(space, 3, Increment::PolicyDefault);
    assert_eq!(three(&mut space), [1, 2, 3]);
    assert_eq!(three(&mut space), [2, 3, 4]);
    assert_eq!(three(&mut space), [3, 4, 5]);
    assert_eq!(three(&mut space), [4, 5, 1]);
    assert_eq!(choose(&mut space, 3, Increment::Up(2)), [5, 1, 2]);
    assert_eq!(choose(&mut space, 3, Increment::Up(0)), [2, 3, 4]);
    assert_eq!(choose(&mut space, 3, Increment::All), [2, 3, 4]);
    assert_eq!(choose(&mut space, 9, Increment::All), [5, 1, 2, 3, 4]);
    assert_eq!(choose(&mut space, usize::MAX, Increment::Up(9)), [5, 1, 2, 3, 4]);
    assert_eq!(choose(&mut space, 0, Increment::All), Vec::<u32>::new());
    assert_eq!(run(&mut space, 6), [5, 1, 2, 3, 4, 5]);
}

#[test]
fn reregistration_keeps_the_place_and_new_elements_come_last() {
    let mut space = pool(vec![Policy::RoundRobin; 3]);
    assert_eq!(run(&mut space, 1), [1]);
    assert_eq!(register(&mut space, 2, Policy::RoundRobin), Change::Same);
    assert_eq!(register(&mut space, 4, Policy::RoundRobin), Change::Added);
    assert_eq!(run(&mut space, 5), [2, 3, 1, 4, 2]);
    let key = space.find(&handle("p"), PeId(1)).unwrap();
    assert_eq!(space.remove(key).unwrap(), element(1, 1, Policy::RoundRobin));
    assert_eq!(run(&mut space, 4), [3, 4, 2, 3]);
    assert!(space.set_home(space.find(&handle("p"), PeId(4)).unwrap(), RegistrarId(2)));
    assert_eq!(run(&mut space, 3), [4, 2, 3]);
}

#[test]
fn weighted_round_robin_spreads_turns_by_weight() {
    let runs = |weights: &[u32], count| run(&mut pool(weights.iter().map(|&w| wrr(w))), count);
    assert_eq!(runs(&[1, 3], 12), [1, 2, 2, 2, 1, 2, 2, 2, 1, 2, 2, 2]);
    assert_eq!(runs(&[2, 3], 10), [1, 2, 2, 1, 2, 1, 2, 2, 1, 2]);
    assert_eq!(runs(&[1, 1, 1], 6), [1, 2, 3, 1, 2, 3], "weights of 1 are round robin");
    assert_eq!(runs(&[1, 2, 4], 7), [1, 2, 3, 3, 2, 3, 3]);
    // The largest of weights: one lap of element 2 is longer than any test.
    assert_eq!(runs(&[1, MAX], 5), [1, 2, 2, 2, 2]);
}

#[test]
fn weighted_round_robin_weight_zero_serves_only_when_nobody_else_can() {
    let mut space = pool([wrr(0), wrr(2), wrr(0), wrr(1)]);
    assert_eq!(run(&mut space, 6), [2, 4, 2, 4, 2, 2]);
    assert_eq!(choose(&mut space, 4, Increment::Up(0)), [4, 2, 1, 3]);
    for id in [2, 4] {
        register(&mut space, id, wrr(0));
    }
    assert_eq!(run(&mut space, 5), [1, 3, 2, 4, 1], "all 0: round robin");
    register(&mut space, 3, wrr(5));
    assert_eq!(run(&mut space, 3), [3, 3, 3]);
}

#[test]
fn weighted_round_robin_newcomers_do_not_catch_up() {
    let mut space = pool([wrr(4)]);
    assert_eq!(run(&mut space, 4 * 100 + 2), vec![1; 402]);
    register(&mut space, 2, wrr(4));
    assert_eq!(run(&mut space, 8), [1, 2, 1, 2, 1, 2, 1, 2]);
    // Changing the weight again and again gains no turns.
    let mut turns = 0;
    for round in 0..100 {
        register(&mut space, 2, wrr(4 + round % 2));
        turns += run(&mut space, 2).iter().filter(|&&id| id == 2).count();
    }
    assert!((80..=120).contains(&turns), "{turns} of 200");
}

#[test]
fn weighted_round_robin_with_many_items_owes_nothing() {
    let mut space = pool([wrr(1), wrr(3)]);
    for _ in 0..1000 {
        assert_eq!(choose(&mut space, 2, Increment::All).len(), 2);
    }
    let next = run(&mut space, 8);
    assert_eq!(next.iter().filter(|&&id| id == 1).count(), 2, "{next:?}");
}

#[test]
fn priority_prefers_the_larger_and_takes_turns_among_equals() {
    let priority = |priority| Policy::Priority { priority };
    let mut space = pool([priority(1), priority(MAX), priority(0), priority(MAX)]);
    assert_eq!(run(&mut space, 4), [2, 4, 2, 4]);
    assert_eq!(choose(&mut space, 9, Increment::Up(0)), [2, 4, 1, 3]);
    assert_eq!(register(&mut space, 2, priority(0)), Change::Updated);
    assert_eq!(choose(&mut space, 9, Increment::Up(0)), [4, 1, 3, 2]);
}

#[test]
fn least_used_prefers_the_smaller_load() {
    let load = |load| Policy::LeastUsed { load };
    let mut space = pool([load(50), load(10), load(MAX), load(10), load(MAX)]);
    assert_eq!(run(&mut space, 3), [2, 4, 2]);
    assert_eq!(choose(&mut space, 9, Increment::Up(0)), [4, 2, 1, 3, 5]);
    for id in 1..=5 {
        register(&mut space, id, load(MAX));
    }
    assert_eq!(run(&mut space, 6), [3, 5, 1, 2, 4, 3], "3 and 5 kept their places");
}

#[test]
fn degradation_counts_once_per_selection_until_the_load_is_reported() {
    let mut space = pool([lud(0, 10), lud(35, 10)]);
    // Loads as seen: 0 10 20 30 40/35 40/45 50/45 50/55.
    assert_eq!(run(&mut space, 8), [1, 1, 1, 1, 2, 1, 2, 1]);
    assert_eq!(register(&mut space, 1, lud(0, 10)), Change::Same);
    assert_eq!(run(&mut space, 6), [1, 1, 1, 1, 1, 1], "the same load, newly reported");
    let key = space.find(&handle("p"), PeId(1)).unwrap();
    assert_eq!(space.get(key).unwrap().degradation_count(), 6);
}

#[test]
fn degradation_beyond_full_load_keeps_the_order() {
    let mut space = pool([lud(MAX, 3), lud(MAX, 1), lud(MAX, 0)]);
    assert_eq!(run(&mut space, 5), [1, 2, 3, 3, 3]);
    let mut space = pool([lud(MAX, MAX), lud(MAX, MAX)]);
    assert_eq!(run(&mut space, 5), [1, 2, 1, 2, 1]);
    let mut space = pool([lud(5, 0), lud(5, 0), lud(6, 0)]);
    assert_eq!(run(&mut space, 5), [1, 2, 1, 2, 1], "no degradation: least used");
}

#[test]
fn degradation_counts_every_element_of_a_list() {
    let mut space = pool([lud(0, 10), lud(5, 10), lud(8, 10)]);
    assert_eq!(choose(&mut space, 2, Increment::PolicyDefault), [1, 2]);
    // 10, 15, 8.
    assert_eq!(choose(&mut space, 3, Increment::Up(1)), [3, 1, 2]);
    // 10, 15, 18.
    assert_eq!(choose(&mut space, 3, Increment::PolicyDefault), [1, 2, 3]);
    // 20, 25, 28.
    assert_eq!(choose(&mut space, 3, Increment::Up(0)), [1, 2, 3]);
    for policy in [
        Policy::PriorityLeastUsedDegradation { load: 0, degradation: 1 },
        Policy::LeastUsedDegradationDpf { load: 0, degradation: 1, load_dpf: 0, distance: 0 },
        Policy::RandomizedLeastUsedDegradation { load: 0, degradation: 1 },
        Policy::RandomizedPriorityLeastUsedDegradation { load: 0, degradation: 1 },
    ] {
        let mut space = pool(vec![policy; 5]);
        let chosen = choose(&mut space, 3, Increment::PolicyDefault);
        let count = |id| space.get(space.find(&handle("p"), PeId(id)).unwrap()).unwrap().degradation_count();
        assert!((1..=5).all(|id| count(id) == u32::from(chosen.contains(&id))), "{chosen:?}");
    }
}

#[test]
fn priority_least_used_adds_the_degradation_to_come() {
    let plu = |load, degradation| Policy::PriorityLeastUsed { load, degradation };
    let mut space = pool([plu(50, 50), plu(50, 10), plu(30, 30)]);
    assert_eq!(run(&mut space, 4), [2, 3, 2, 3]);
    let plud = |load, degradation| Policy::PriorityLeastUsedDegradation { load, degradation };
    let mut space = pool([plud(50, 50), plud(50, 10), plud(30, 30)]);
    // Sums as seen by element 2: 60 70 80 90 100; 3: 60 90 120.
    assert_eq!(run(&mut space, 7), [2, 3, 2, 2, 3, 2, 1]);
}

#[test]
fn distance_makes_an_element_look_loaded() {
    let lu = |load, load_dpf, distance| Policy::LeastUsedDpf { load, load_dpf, distance };
    let mut space = pool([lu(10, 2, 50), lu(100, 2, 0), lu(MAX, MAX, MAX)]);
    assert_eq!(choose(&mut space, 3, Increment::PolicyDefault), [2, 1, 3]);
    let degrading =
        |load, distance| Policy::LeastUsedDegradationDpf { load, degradation: 30, load_dpf: 2, distance };
    let mut space = pool([degrading(0, 50), degrading(50, 0)]);
    // 100 against 50, 80, 110, then 130 against 110.
    assert_eq!(run(&mut space, 4), [2, 2, 1, 2]);
}

/// A registrar measures anew: that says nothing of the load.
#[test]
fn a_new_distance_forgets_no_selection() {
    let far = |distance| Policy::LeastUsedDegradationDpf { load: 0, degradation: 100, load_dpf: 1, distance };
    let mut space = pool([far(0), far(0)]);
    assert_eq!(run(&mut space, 2), [1, 2]);
    let count = |space: &Handlespace, id| {
        space.get(space.find(&handle("p"), PeId(id)).unwrap()).unwrap().degradation_count()
    };
    assert_eq!(register(&mut space, 1, far(2)), Change::Updated);
    assert_eq!(count(&space, 1), 1);
    // Selected once, and farther than the other.
    assert_eq!(run(&mut space, 2), [2, 1]);
    assert_eq!(register(&mut space, 1, far(2)), Change::Same);
    assert_eq!(count(&space, 1), 0);
}

/// Asserts that `counts` fit `weights` (chi-square, p = 0.0001 for up to 9 degrees of freedom).
fn assert_fits(counts: &[u64], weights: &[f64]) {
    let (n, sum) = (counts.iter().sum::<u64>() as f64, weights.iter().sum::<f64>());
    let chi: f64 = counts
        .iter()
        .zip(weights)
        .filter(|(_, weight)| **weight > 0.0)
        .map(|(&count, weight)| {
            let expected = n * weight / sum;
            (count as f64 - expected).powi(2) / expected
        })
        .sum();
    assert!(chi < 33.7, "chi-square {chi} for {counts:?} with {weights:?}");
    for (&count, &weight) in counts.iter().zip(weights) {
        assert!(weight > 0.0 || count == 0, "{counts:?} with {weights:?}");
    }
}

/// How often each element comes at place `place` of lists of `items`.
fn tally(policies: &[Policy], items: usize, place: usize) -> Vec<u64> {
    let mut space = pool(policies.iter().cloned());
    let mut counts = vec![0; policies.len()];
    for _ in 0..40_000 {
        counts[choose(&mut space, items, Increment::Up(0))[place] as usize - 1] += 1;
    }
    counts
}

#[test]
fn random_policies_draw_by_their_weights() {
    let parts = |parts: u32| MAX / 10 * parts;
    let cases: Vec<(Vec<Policy>, Vec<f64>)> = vec![
        (vec![Policy::Random; 5], vec![1.0; 5]),
        (
            [1, 2, 3, 4, 0].map(|weight| Policy::WeightedRandom { weight }).to_vec(),
            vec![1.0, 2.0, 3.0, 4.0, 0.0],
        ),
        (vec![Policy::WeightedRandom { weight: 0 }; 4], vec![1.0; 4]),
        (vec![Policy::WeightedRandom { weight: MAX }; 9], vec![1.0; 9]),
        (
            [0, 100, 900, 2000]
                .map(|distance| Policy::WeightedRandomDpf { weight: 1000, weight_dpf: MAX / 1000, distance })
                .to_vec(),
            vec![1000.0, 900.0, 100.0, 1.0],
        ),
        (
            [0, 5, 9, 10].map(|load| Policy::RandomizedLeastUsed { load: parts(load) }).to_vec(),
            vec![10.0, 5.0, 1.0, 0.000_001],
        ),
        (vec![Policy::RandomizedLeastUsed { load: MAX }; 3], vec![1.0; 3]),
        (
            [(0, 5), (5, 0), (8, 1), (9, 9)]
                .map(|(load, add)| Policy::RandomizedPriorityLeastUsed {
                    load: parts(load),
                    degradation: parts(add),
                })
                .to_vec(),
            vec![5.0, 5.0, 1.0, 0.0],
        ),
        (
            [0, 5, 9]
                .map(|load| Policy::RandomizedLeastUsedDegradation { load: parts(load), degradation: 9 })
                .to_vec(),
            vec![10.0, 5.0, 1.0],
        ),
        (
            [0, 5, 7]
                .map(|load| Policy::RandomizedPriorityLeastUsedDegradation {
                    load: parts(load),
                    degradation: parts(2),
                })
                .to_vec(),
            vec![8.0, 3.0, 1.0],
        ),
    ];
    for (policies, weights) in cases {
        assert_fits(&tally(&policies, 1, 0), &weights);
        assert_fits(&tally(&policies, policies.len(), 0), &weights);
    }
}

#[test]
fn the_second_of_a_draw_is_drawn_from_the_rest() {
    let weights = [1.0, 2.0, 3.0, 4.0];
    let policies: Vec<Policy> = [1, 2, 3, 4].map(|weight| Policy::WeightedRandom { weight }).to_vec();
    let second: Vec<f64> = (0..4)
        .map(|i| {
            (0..4).filter(|&j| j != i).map(|j| weights[j] / 10.0 * weights[i] / (10.0 - weights[j])).sum()
        })
        .collect();
    assert_fits(&tally(&policies, 2, 1), &second);
    assert_fits(&tally(&vec![Policy::Random; 6], 4, 1), &[1.0; 6]);
    assert_fits(&tally(&vec![Policy::Random; 6], 4, 3), &[1.0; 6]);
}

#[test]
fn draws_are_without_replacement_and_leave_the_weights_alone() {
    let mut space = pool((0..20).map(|i| Policy::WeightedRandom { weight: i % 4 * 1000 }));
    for items in 0..30 {
        let mut drawn = choose(&mut space, items, Increment::All);
        let heavy = drawn.iter().take_while(|&&id| (id - 1) % 4 != 0).count();
        assert_eq!(heavy, items.min(15), "those without a weight come last");
        assert!(drawn[heavy..].iter().all(|id| (id - 1) % 4 == 0));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), items.min(20));
    }
    let mut counts = vec![0; 4];
    for _ in 0..40_000 {
        counts[(choose(&mut space, 1, Increment::All)[0] as usize - 1) % 4] += 1;
    }
    assert_fits(&counts, &[0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn randomized_degradation_evens_out() {
    let policy = Policy::RandomizedLeastUsedDegradation { load: 0, degradation: MAX / 100 + 1 };
    let mut space = pool(vec![policy; 10]);
    let mut counts = [0; 10];
    run(&mut space, 1000).iter().for_each(|&id| counts[id as usize - 1] += 1);
    assert_eq!(counts, [100; 10], "each takes 100 until it is full");
    assert_eq!(run(&mut space, 5).len(), 5, "all full: anybody");
}

#[test]
fn same_seed_same_choice() {
    let draw = |seed| {
        let mut space = Handlespace::new(seed);
        for id in 1..100 {
            space.register(&handle("p"), &element(id, 1, Policy::Random)).unwrap();
        }
        choose(&mut space, 99, Increment::PolicyDefault)
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn default_increments() {
    for random in [
        Policy::Random,
        Policy::WeightedRandom { weight: 1 },
        Policy::WeightedRandomDpf { weight: 1, weight_dpf: 0, distance: 0 },
    ] {
        assert_eq!(policy::split(&random).unwrap().0.default_increment(), 0);
    }
    for other in [Policy::RoundRobin, wrr(1), Policy::RandomizedLeastUsed { load: 0 }] {
        assert_eq!(policy::split(&other).unwrap().0.default_increment(), 1);
    }
    for degrading in [lud(0, 0), Policy::RandomizedLeastUsedDegradation { load: 0, degradation: 0 }] {
        assert_eq!(policy::split(&degrading).unwrap().0.default_increment(), usize::MAX);
    }
}

#[test]
fn no_such_pool() {
    let mut space = pool([Policy::RoundRobin]);
    let mut out = vec![ElementKey { index: 0, generation: 0 }];
    assert!(!space.select(&handle("q"), 1, Increment::All, &mut out));
    assert_eq!(out, []);
    let key = space.find(&handle("p"), PeId(1)).unwrap();
    assert!(space.remove(key).is_some());
    assert!(space.remove(key).is_none() && space.get(key).is_none() && !space.set_home(key, RegistrarId(3)));
    assert!(!space.select(&handle("p"), 1, Increment::All, &mut out));
    assert_eq!(space.select_one(&handle("p"), Increment::All), None);
    assert!(space.is_empty() && space.pool_count() == 0 && space.pool(&handle("p")).is_none());
    assert_eq!(space.owned_count(RegistrarId(1)), 0);
    // The pool's name is free for another policy.
    assert_eq!(register(&mut space, 1, Policy::Random), Change::Added);
    assert!(space.get(key).is_none(), "a new element has a new key");
}

/// RFC 5354 section 3.4: SCTP alone has a transport use; the others' field is reserved, and kept as it came.
#[test]
fn the_transport_use_is_sctps() {
    let mut space = Handlespace::new(1);
    let mut register = |name: &str, id: u32, protocol, code: u16| {
        let mut one = element(id, 1, Policy::RoundRobin);
        let usage = TransportUse::from_code(code);
        one.transport = Transport::new(protocol, usage, 4711, vec![one.transport.addresses()[0]]);
        let result = space.register(&handle(name), &one).map(|(key, _)| key);
        if let Ok(key) = result {
            assert_eq!(space.get(key).unwrap().to_element(), one);
        }
        result.map(|_| ())
    };
    assert_eq!(register("sctp", 1, Protocol::Sctp, 1), Ok(()));
    assert_eq!(register("sctp", 2, Protocol::Sctp, 0), Err(Reject::WrongControlChannel));
    assert_eq!(register("sctp", 2, Protocol::Sctp, 2), Err(Reject::WrongControlChannel));
    assert_eq!(register("data", 1, Protocol::Sctp, 0), Ok(()));
    assert_eq!(register("data", 2, Protocol::Sctp, 1), Err(Reject::WrongControlChannel));
    assert_eq!(register("data", 2, Protocol::Sctp, 7), Ok(()), "unknown ones read as data only");
    for (name, protocol) in [
        ("tcp", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp-lite", Protocol::UdpLite),
        ("dccp", Protocol::Dccp { service_code: 5 }),
    ] {
        for (id, code) in (1..).zip([0, 1, 0x1234]) {
            assert_eq!(register(name, id, protocol, code), Ok(()), "{name} {code}");
        }
    }
    // Nor is the service code part of the transport type.
    assert_eq!(register("dccp", 4, Protocol::Dccp { service_code: 6 }, 0), Ok(()));
    assert_eq!(register("dccp", 5, Protocol::Udp, 0), Err(Reject::WrongProtocol));
}

/// Opaque transports (RFC 5354 section 3.16) and policies that nobody here knows are carried byte for byte.
#[test]
fn what_nobody_knows_is_carried() {
    let mut space = Handlespace::new(1);
    let private = |value: &[u8]| Policy::Unknown { policy_type: 0x8000_1234, value: value.to_vec() };
    let opaque = |id, policy| PoolElement {
        transport: Transport::Opaque(vec![id as u8; 3]),
        ..element(id, 1, policy)
    };
    let all = [opaque(1, private(b"one")), opaque(2, private(b"")), opaque(3, private(b"of another length"))];
    for one in &all {
        let (key, change) = space.register(&handle("p"), one).unwrap();
        assert_eq!((change, space.get(key).unwrap().to_element()), (Change::Added, one.clone()));
        assert_eq!(space.register(&handle("p"), one).unwrap(), (key, Change::Same));
    }
    assert_eq!(run(&mut space, 4), [1, 2, 3, 1], "they take turns");
    let changed = opaque(2, private(b"now with something"));
    let (key, change) = space.register(&handle("p"), &changed).unwrap();
    assert_eq!((change, space.get(key).unwrap().to_element()), (Change::Updated, changed));
    assert_eq!(run(&mut space, 2), [2, 3], "and keep their places");
    assert!(matches!(
        space.pool(&handle("p")).unwrap().policy(),
        Policy::Unknown { policy_type: 0x8000_1234, .. }
    ));
    // Another private policy is another policy, another transport another transport.
    let other = opaque(4, Policy::Unknown { policy_type: 0x8000_1235, value: vec![] });
    assert_eq!(space.register(&handle("p"), &other), Err(Reject::IncompatiblePolicy));
    let other = element(4, 1, private(b""));
    assert_eq!(space.register(&handle("p"), &other), Err(Reject::WrongProtocol));
    // What is carried has a bound, and is given back.
    space.set_bounds(Bounds { bytes: 200, ..Bounds::default() });
    let long = opaque(4, private(&[7; 300]));
    assert_eq!(space.register(&handle("p"), &long), Err(Reject::Full));
    assert_eq!(space.register(&handle("p"), &opaque(1, private(&[7; 300]))), Err(Reject::Full));
    for _ in 0..50 {
        let (key, _) = space.register(&handle("p"), &opaque(4, private(&[7; 100]))).unwrap();
        space.remove(key).unwrap();
    }
    for id in 1..=3 {
        space.remove(space.find(&handle("p"), PeId(id)).unwrap()).unwrap();
    }
    assert!(space.is_empty() && space.carried.len() == 0 && space.carried_bytes == 0);
}

#[test]
fn refusals_in_order() {
    let mut space = Handlespace::new(1);
    let p = handle("p");
    let good = element(1, 1, wrr(2));
    let mut bad = good.clone();
    let try_it = |space: &mut Handlespace, e: &PoolElement| space.register(&p, e).map(|_| ());
    // RFC 5356 section 7.1 calls these two invalid.
    for policy_type in [0, 0x4000_0000] {
        bad.policy = Policy::Unknown { policy_type, value: vec![0; 12] };
        assert_eq!(try_it(&mut space, &bad), Err(Reject::UnsupportedPolicy));
    }
    assert_eq!(space.pool_count(), 0, "a refusal leaves nothing behind");
    assert_eq!(try_it(&mut space, &good), Ok(()));
    bad.transport = Transport::Opaque(vec![1]);
    assert_eq!(try_it(&mut space, &bad), Err(Reject::WrongProtocol));

    bad.policy = Policy::RoundRobin;
    let address = good.transport.addresses()[0];
    let control = TransportUse::DataPlusControl;
    bad.id = PeId(0);
    bad.transport = Transport::new(Protocol::Udp, control, 0, vec![]);
    assert_eq!(try_it(&mut space, &bad), Err(Reject::InvalidId));
    bad.id = PeId(2);
    assert_eq!(try_it(&mut space, &bad), Err(Reject::WrongProtocol));
    for (port, count) in [(0, 1), (1, 0), (1, 65)] {
        bad.transport = Transport::new(Protocol::Tcp, control, port, vec![address; count]);
        assert_eq!(try_it(&mut space, &bad), Err(Reject::InvalidAddresses));
    }
    bad.transport = Transport::new(Protocol::Tcp, TransportUse::Other(7), 1, vec![address; 64]);
    assert_eq!(try_it(&mut space, &bad), Err(Reject::IncompatiblePolicy));
    bad.policy = wrr(9);
    assert_eq!(try_it(&mut space, &bad), Ok(()), "what is reserved is no transport use");
    let key = space.find(&p, PeId(2)).unwrap();
    assert_eq!(space.get(key).unwrap().to_element(), bad, "and is kept as it came");
    // A known element is measured by the same rules.
    let mut other = good.clone();
    other.policy = Policy::RoundRobin;
    assert_eq!(try_it(&mut space, &other), Err(Reject::IncompatiblePolicy));
    assert_eq!(space.get(space.find(&p, PeId(1)).unwrap()).unwrap().to_element(), good);
}

#[test]
fn bounds_refuse_newcomers_only() {
    let mut space = Handlespace::new(1);
    space.set_bounds(Bounds { elements: 3, pools: 2, ..Bounds::default() });
    let rr = |id| element(id, 1, Policy::RoundRobin);
    let mut add = |pool, id| space.register(&handle(pool), &rr(id)).map(|(_, change)| change);
    assert_eq!(add("a", 1), Ok(Change::Added));
    assert_eq!(add("b", 1), Ok(Change::Added));
    assert_eq!(add("c", 1), Err(Reject::Full));
    assert_eq!(add("a", 2), Ok(Change::Added));
    assert_eq!(add("a", 3), Err(Reject::Full));
    assert_eq!(add("a", 1), Ok(Change::Same));
    // Names and lists of addresses have a bound of their own.
    let mut space = Handlespace::new(1);
    space.set_bounds(Bounds { bytes: 100, ..Bounds::default() });
    let mut add = |pool: &str, id| space.register(&handle(pool), &rr(id)).map(|(_, change)| change);
    assert_eq!(add(&"x".repeat(90), 1), Ok(Change::Added));
    assert_eq!(add(&"y".repeat(11), 1), Err(Reject::Full));
    assert_eq!(add("p", 1), Ok(Change::Added));
    let mut wide = rr(1);
    let ten = (1..=10).map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))).collect();
    wide.transport = Transport::new(Protocol::Tcp, TransportUse::DataOnly, 1, ten);
    assert_eq!(space.register(&handle("p"), &wide).map(|(_, change)| change), Err(Reject::Full));
    let key = space.find(&handle("p"), PeId(1)).unwrap();
    assert_eq!(space.get(key).unwrap().to_element(), rr(1));
    let key = space.find(&handle(&"x".repeat(90)), PeId(1)).unwrap();
    space.remove(key);
    assert!(space.register(&handle(&"y".repeat(99)), &rr(1)).is_ok(), "the room became free");
    let mut space = Handlespace::new(1);
    for home in 1..=Owners::LIMIT as u32 {
        space.register(&handle("p"), &element(home, home, Policy::RoundRobin)).unwrap();
    }
    let stranger = element(9999, 9999, Policy::RoundRobin);
    assert_eq!(space.register(&handle("p"), &stranger), Err(Reject::Full));
    let key = space.find(&handle("p"), PeId(1)).unwrap();
    assert!(!space.set_home(key, RegistrarId(9999)));
    assert_eq!(space.register(&handle("p"), &element(1, 9999, Policy::RoundRobin)), Err(Reject::Full));
    assert_eq!(space.get(key).unwrap().home(), RegistrarId(1));
    space.remove(key);
    assert!(space.register(&handle("p"), &stranger).is_ok(), "a place became free");
}

#[test]
fn what_changed() {
    let mut space = pool([lud(1, 1)]);
    let p = handle("p");
    let mut known = element(1, 1, lud(1, 1));
    let mut change = |e: &PoolElement| {
        let (key, change) = space.register(&p, e).unwrap();
        assert_eq!(&space.get(key).unwrap().to_element(), e);
        change
    };
    assert_eq!(change(&known), Change::Same);
    known.life = 7;
    assert_eq!(change(&known), Change::Updated);
    known.policy = lud(2, 1);
    assert_eq!(change(&known), Change::Updated);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    known.transport = Transport::new(Protocol::Tcp, TransportUse::DataOnly, 80, vec![v6]);
    assert_eq!(change(&known), Change::Updated);
    known.asap = Some(Transport::new(Protocol::Sctp, TransportUse::DataOnly, 80, vec![v6, v6]));
    assert_eq!(change(&known), Change::Updated);
    assert_eq!(change(&known), Change::Same);
    known.home = RegistrarId(2);
    assert_eq!(change(&known), Change::Moved { from: RegistrarId(1) });
    known.asap = None;
    assert_eq!(change(&known), Change::Updated);
    assert_eq!(space.checksum(RegistrarId(1)), [0xff, 0xff]);
    assert_eq!(space.checksum(RegistrarId(2)), space.recompute_checksum(RegistrarId(2)));
    assert_eq!((space.owned_count(RegistrarId(1)), space.owned_count(RegistrarId(2))), (0, 1));
}

#[test]
fn walks_go_on_after_a_cursor_that_left() {
    let mut space = Handlespace::new(1);
    for (pool, id, home) in [("b", 2, 1), ("b", 9, 2), ("b", 5, 1), ("a", 7, 2), ("c", 1, 1), ("c", 3, 2)] {
        space.register(&handle(pool), &element(id, home, Policy::Random)).unwrap();
    }
    let names = |walk: Box<dyn Iterator<Item = ElementRef<'_>> + '_>| -> Vec<String> {
        walk.map(|e| format!("{}{}", e.handle(), e.id().0)).collect()
    };
    let after =
        |space: &Handlespace, pool: &str, id| names(space.elements_after(Some((&handle(pool), PeId(id)))));
    let one = RegistrarId(1);
    assert_eq!(names(space.elements_after(None)), ["a7", "b2", "b5", "b9", "c1", "c3"]);
    assert_eq!(after(&space, "b", 2), ["b5", "b9", "c1", "c3"]);
    assert_eq!(after(&space, "b", 3), ["b5", "b9", "c1", "c3"], "no such element");
    assert_eq!(after(&space, "bb", 3), ["c1", "c3"], "no such pool");
    assert_eq!(after(&space, "c", MAX), [""; 0]);
    assert_eq!(names(space.owned_after(one, None)), ["b2", "b5", "c1"]);
    assert_eq!(names(space.owned_after(one, Some((&handle("b"), PeId(2))))), ["b5", "c1"]);
    assert_eq!(names(space.owned_after(one, Some((&handle("a"), PeId(9))))), ["b2", "b5", "c1"]);
    assert_eq!(names(space.owned_after(RegistrarId(3), None)), [""; 0]);
    let pools: Vec<_> = space.pools().map(|p| (p.handle().to_string(), p.len())).collect();
    assert_eq!(pools, [("a".into(), 1), ("b".into(), 3), ("c".into(), 2)]);
    assert_eq!(names(space.pool(&handle("b")).unwrap().elements()), ["b2", "b5", "b9"]);
    assert_eq!(space.pool(&handle("b")).unwrap().policy(), Policy::Random);
}
