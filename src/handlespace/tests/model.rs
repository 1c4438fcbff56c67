//! The handlespace against a naive one: a `Vec` that is searched, sorted and summed afresh each time.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
struct Entry {
    pool: u8,
    element: PoolElement,
    used: u64,
    /// Weighted round robin: laps begun, turns had in the latest.
    lap: u64,
    turns: u64,
    /// When it was last put behind its equals.
    order: u64,
}

/// Lap and fraction of a weighted element's next turn, compared exactly; elements without weight last.
fn turn(entry: &Entry, weight: u32) -> (bool, u64, u64) {
    match weight {
        0 => (true, 0, 0),
        _ => (false, entry.lap, (entry.turns << 32) / u64::from(weight)),
    }
}

#[derive(Debug, Default)]
struct Model {
    entries: Vec<Entry>,
    clock: u64,
}

impl Model {
    fn position(&self, pool: u8, id: u32) -> Option<usize> {
        self.entries.iter().position(|e| e.pool == pool && e.element.id.0 == id)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Where a pool's weighted round robin stands: the foremost turn of an element with weight; the
    /// start of the next lap if nobody has a turn left in this one.
    fn front(&self, pool: u8, laps: &[u64]) -> (u64, u64) {
        let turns = self.entries.iter().filter(|e| e.pool == pool).filter_map(|e| match e.element.policy {
            Policy::WeightedRoundRobin { weight } if weight > 0 => {
                let (_, lap, fraction) = turn(e, weight);
                Some((lap, fraction))
            }
            _ => None,
        });
        let current = laps[pool as usize];
        turns.min().filter(|front| front.0 == current).unwrap_or((current + 1, 0))
    }

    fn enter(entry: &mut Entry, (lap, fraction): (u64, u64)) {
        let Policy::WeightedRoundRobin { weight } = entry.element.policy else { return };
        let turns = (u128::from(fraction) * u128::from(weight)).div_ceil(1 << 32) as u64;
        (entry.lap, entry.turns) = if turns < u64::from(weight) { (lap, turns) } else { (lap + 1, 0) };
    }

    fn register(&mut self, pool: u8, element: &PoolElement, laps: &[u64]) -> Change {
        let order = self.tick();
        let Some(at) = self.position(pool, element.id.0) else {
            let mut entry = Entry { pool, element: element.clone(), used: 0, lap: 0, turns: 0, order };
            Model::enter(&mut entry, self.front(pool, laps));
            self.entries.push(entry);
            return Change::Added;
        };
        let mut entry = self.entries.remove(at);
        let old = std::mem::replace(&mut entry.element, element.clone());
        if let Policy::WeightedRoundRobin { weight } = old.policy
            && old.policy != element.policy
        {
            entry.order = order;
            let from = match weight {
                0 => self.front(pool, laps),
                _ => {
                    let (_, lap, fraction) = turn(&entry, weight);
                    (lap, fraction)
                }
            };
            Model::enter(&mut entry, from);
        } else if (old.policy != element.policy && pool != UNKNOWN) || entry.used > 0 {
            (entry.order, entry.used) = (order, 0);
        }
        self.entries.push(entry);
        match () {
            () if old.home != element.home => Change::Moved { from: old.home },
            () if old == *element => Change::Same,
            () => Change::Updated,
        }
    }

    /// The pool's elements, best first.
    fn ranking(&self, pool: u8) -> Vec<u32> {
        let mut all: Vec<&Entry> = self.entries.iter().filter(|e| e.pool == pool).collect();
        all.sort_by_key(|e| {
            let rank = match e.element.policy {
                Policy::WeightedRoundRobin { weight } => turn(e, weight),
                _ => (false, 0, load_seen(e)),
            };
            (rank, e.order)
        });
        all.iter().map(|e| e.element.id.0).collect()
    }

    fn mark_used(&mut self, pool: u8, id: u32, lap: u64) {
        let order = self.tick();
        let at = self.position(pool, id).unwrap();
        let entry = &mut self.entries[at];
        entry.order = order;
        match entry.element.policy {
            Policy::WeightedRoundRobin { weight } if weight > 0 && entry.lap == lap => {
                entry.turns += 1;
                if entry.turns == u64::from(weight) {
                    (entry.lap, entry.turns) = (entry.lap + 1, 0);
                }
            }
            Policy::LeastUsedDegradation { degradation, .. }
            | Policy::PriorityLeastUsedDegradation { degradation, .. }
            | Policy::LeastUsedDegradationDpf { degradation, .. }
            | Policy::RandomizedLeastUsedDegradation { degradation, .. }
            | Policy::RandomizedPriorityLeastUsedDegradation { degradation, .. }
                if degradation > 0 =>
            {
                entry.used += 1;
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register { pool: u8, id: u32, home: u32, value: u32, variant: u8 },
    Remove { pool: u8, id: u32 },
    SetHome { pool: u8, id: u32, home: u32 },
    Select { pool: u8, items: usize, increment: Increment },
}

fn step() -> impl Strategy<Value = Step> {
    let pool = 0..POOLS;
    let value = prop_oneof![4 => 0u32..6, 1 => Just(MAX), 1 => any::<u32>()];
    let increment = prop_oneof![
        Just(Increment::PolicyDefault),
        Just(Increment::All),
        (0usize..4).prop_map(Increment::Up)
    ];
    prop_oneof![
        5 => (pool.clone(), 1u32..25, 0u32..4, value, 0u8..6)
            .prop_map(|(pool, id, home, value, variant)| Step::Register { pool, id, home, value, variant }),
        1 => (pool.clone(), 1u32..25).prop_map(|(pool, id)| Step::Remove { pool, id }),
        1 => (pool.clone(), 1u32..25, 0u32..4).prop_map(|(pool, id, home)| Step::SetHome { pool, id, home }),
        6 => (pool, prop_oneof![3 => Just(1usize), 2 => 0usize..30], increment)
            .prop_map(|(pool, items, increment)| Step::Select { pool, items, increment }),
    ]
}

const POOLS: u8 = 17;
/// Pools from here on draw by chance.
const RANDOM: u8 = 9;
/// But for the one of a policy that nobody knows.
const UNKNOWN: u8 = 16;

/// Each pool has its policy, so that every policy has a pool.
fn policy_of(pool: u8, value: u32) -> Policy {
    let (load, degradation, small) = (value, value % 5, value % 3);
    // Large enough to fill an element's load in a few selections.
    let large = value % 7 * 0x2000_0000;
    match pool {
        0 => Policy::RoundRobin,
        1 => wrr(value),
        2 => Policy::Priority { priority: value },
        3 => Policy::LeastUsed { load },
        4 => lud(load, degradation),
        5 => Policy::PriorityLeastUsed { load, degradation },
        6 => Policy::PriorityLeastUsedDegradation { load, degradation },
        7 => Policy::LeastUsedDpf { load, load_dpf: degradation, distance: small },
        8 => Policy::LeastUsedDegradationDpf { load, degradation, load_dpf: small, distance: 2 },
        9 => Policy::Random,
        10 => Policy::WeightedRandom { weight: value },
        11 => Policy::RandomizedLeastUsed { load },
        12 => Policy::RandomizedPriorityLeastUsed { load, degradation: large },
        13 => Policy::RandomizedLeastUsedDegradation { load, degradation: large },
        14 => Policy::RandomizedPriorityLeastUsedDegradation { load, degradation: large },
        UNKNOWN => {
            let value = value.to_be_bytes()[..value as usize % 5].to_vec();
            Policy::Unknown { policy_type: 0x8000_1234, value }
        }
        _ => Policy::WeightedRandomDpf { weight: value, weight_dpf: MAX / 4, distance: small },
    }
}

/// An element's load as an ordered policy other than weighted round robin sees it.
fn load_seen(entry: &Entry) -> u64 {
    let sum = |load: u32, more: u64| u64::from(load) + more;
    let times = |one: u32, other: u64| u64::from(one) * other;
    match entry.element.policy {
        Policy::Priority { priority } => u64::from(!priority),
        Policy::LeastUsed { load } => load.into(),
        Policy::LeastUsedDegradation { load, degradation } => sum(load, times(degradation, entry.used)),
        Policy::PriorityLeastUsed { load, degradation } => sum(load, degradation.into()),
        Policy::PriorityLeastUsedDegradation { load, degradation } => {
            sum(load, times(degradation, entry.used + 1))
        }
        Policy::LeastUsedDpf { load, load_dpf, distance } => sum(load, times(load_dpf, distance.into())),
        Policy::LeastUsedDegradationDpf { load, degradation, load_dpf, distance } => {
            sum(load, times(degradation, entry.used) + times(load_dpf, distance.into()))
        }
        _ => 0,
    }
}

/// Whether an element is drawn only where no other is left.
fn is_weightless(entry: &Entry) -> bool {
    let full = |load: u32, degradation: u32, count: u64| {
        u64::from(load) + u64::from(degradation) * count >= u64::from(MAX)
    };
    match entry.element.policy {
        Policy::WeightedRandom { weight } | Policy::WeightedRandomDpf { weight, .. } => weight == 0,
        Policy::RandomizedLeastUsed { load } => load == MAX,
        Policy::RandomizedPriorityLeastUsed { load, degradation } => full(load, degradation, 1),
        Policy::RandomizedLeastUsedDegradation { load, degradation } => full(load, degradation, entry.used),
        Policy::RandomizedPriorityLeastUsedDegradation { load, degradation } => {
            full(load, degradation, entry.used + 1)
        }
        _ => true,
    }
}

fn make(pool: u8, id: u32, home: u32, value: u32, variant: u8) -> PoolElement {
    let mut made = element(id, home, policy_of(pool, value));
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    match variant {
        1 => made.life = 1,
        2 => made.transport = Transport::new(Protocol::Tcp, TransportUse::DataOnly, 1, vec![v6]),
        3 => made.asap = Some(Transport::new(Protocol::Sctp, TransportUse::DataOnly, 1, vec![v6, v6])),
        _ => {}
    }
    made
}

fn name(pool: u8) -> PoolHandle {
    // Handles whose order is not the order of their numbers, one a prefix of another.
    let names = ["m", "z", "a", "aa", "q", "b", "ab", "c", "zz", "n", "aab", "mm", "y", "x", "bc", "d", "u"];
    handle(names[pool as usize])
}

/// The space and its model side by side; `laps` is the lap that each pool is in.
struct Pair {
    space: Handlespace,
    model: Model,
    laps: [u64; POOLS as usize],
}

impl Pair {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Register { pool, id, home, value, variant } => {
                let element = make(pool, id, home, value, variant);
                if self.space.pool(&name(pool)).is_none() {
                    self.laps[pool as usize] = 0;
                }
                let change = self.model.register(pool, &element, &self.laps);
                let (key, got) = self.space.register(&name(pool), &element).unwrap();
                assert_eq!(got, change);
                assert_eq!(self.space.get(key).unwrap().to_element(), element);
            }
            Step::Remove { pool, id } => {
                let key = self.space.find(&name(pool), PeId(id));
                let at = self.model.position(pool, id);
                assert_eq!(key.is_some(), at.is_some());
                if let (Some(key), Some(at)) = (key, at) {
                    let gone = self.model.entries.remove(at).element;
                    assert_eq!(self.space.remove(key), Some(gone));
                    assert!(self.space.get(key).is_none());
                }
            }
            Step::SetHome { pool, id, home } => {
                if let Some(key) = self.space.find(&name(pool), PeId(id)) {
                    assert!(self.space.set_home(key, RegistrarId(home)));
                    let at = self.model.position(pool, id).unwrap();
                    self.model.entries[at].element.home = RegistrarId(home);
                }
            }
            Step::Select { pool, items, increment } => self.select(pool, items, increment),
        }
    }

    fn select(&mut self, pool: u8, items: usize, increment: Increment) {
        let mut keys = Vec::new();
        let known = self.space.select(&name(pool), items, increment, &mut keys);
        let ranking = self.model.ranking(pool);
        assert_eq!(known, !ranking.is_empty());
        let ids: Vec<u32> = keys.iter().map(|&key| self.space.get(key).unwrap().id().0).collect();
        if pool == 1 && items > 0 && self.model.front(pool, &self.laps) == (self.laps[1] + 1, 0) {
            let waiting = self.model.entries.iter().any(|e| e.pool == 1 && e.element.policy != wrr(0));
            self.laps[1] += u64::from(waiting);
        }
        if pool < RANDOM || pool == UNKNOWN {
            assert_eq!(ids, ranking[..items.min(ranking.len())]);
        } else {
            self.check_draw(pool, &ids, items.min(ranking.len()));
        }
        let count = match increment {
            // With degradation, all that are returned.
            Increment::PolicyDefault if matches!(pool, 4 | 6 | 8 | 13 | 14) => usize::MAX,
            Increment::PolicyDefault => usize::from(!matches!(pool, 9 | 10 | 15)),
            Increment::Up(count) => count,
            Increment::All => usize::MAX,
        };
        for &id in ids.iter().take(count) {
            self.model.mark_used(pool, id, self.laps[pool as usize]);
        }
    }

    /// Different members, those without a weight after all others.
    fn check_draw(&self, pool: u8, ids: &[u32], items: usize) {
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), items);
        let weightless =
            |id: &u32| is_weightless(&self.model.entries[self.model.position(pool, *id).unwrap()]);
        let members = self.model.entries.iter().filter(|e| e.pool == pool).map(|e| e.element.id.0);
        let weighted = members.filter(|id| !weightless(id)).count();
        let flags: Vec<bool> = ids.iter().map(weightless).collect();
        let expected: Vec<bool> = (0..items).map(|place| place >= weighted).collect();
        assert_eq!(flags, expected);
    }

    /// Everything that can be read agrees.
    fn compare(&self) {
        let mut entries: Vec<&Entry> = self.model.entries.iter().collect();
        entries.sort_by_key(|e| (name(e.pool), e.element.id));
        let all: Vec<_> = entries.iter().map(|e| (name(e.pool), e.element.clone())).collect();
        let list = |walk: Box<dyn Iterator<Item = ElementRef<'_>> + '_>| -> Vec<_> {
            walk.map(|e| (e.handle().clone(), e.to_element())).collect()
        };
        assert_eq!(list(self.space.elements_after(None)), all);
        assert_eq!(self.space.len(), all.len());
        for owner in (0..4).map(RegistrarId) {
            let owned: Vec<_> = all.iter().filter(|(_, e)| e.home == owner).cloned().collect();
            assert_eq!(list(self.space.owned_after(owner, None)), owned);
            assert_eq!(self.space.owned_count(owner), owned.len());
            assert_eq!(self.space.checksum(owner), self.space.recompute_checksum(owner));
            if let Some((handle, middle)) = owned.get(owned.len() / 2) {
                let rest = list(self.space.owned_after(owner, Some((handle, middle.id))));
                assert_eq!(rest, owned[owned.len() / 2 + 1..]);
            }
        }
        if let Some((handle, middle)) = all.get(all.len() / 2) {
            let rest = list(self.space.elements_after(Some((handle, middle.id))));
            assert_eq!(rest, all[all.len() / 2 + 1..]);
        }
        let pools: Vec<_> = self.space.pools().map(|pool| (pool.handle().clone(), pool.len())).collect();
        let mut expected: Vec<(PoolHandle, usize)> = Vec::new();
        for (handle, _) in &all {
            match expected.last_mut() {
                Some((last, count)) if last == handle => *count += 1,
                _ => expected.push((handle.clone(), 1)),
            }
        }
        assert_eq!(pools, expected);
        assert_eq!(self.space.pool_count(), expected.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_naive_one(seed: u64, steps in prop::collection::vec(step(), 1..200)) {
        let mut pair =
            Pair { space: Handlespace::new(seed), model: Model::default(), laps: [0; POOLS as usize] };
        for step in &steps {
            pair.apply(step);
            pair.compare();
        }
    }
}
