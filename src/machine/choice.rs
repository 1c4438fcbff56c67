//! Choosing elements for plain connections (a proxy's, a program's that knows nothing of pools): by the pool's
//! policy, with a memory for those that failed lately. A pure structure, like the cache.

use super::Time;
use super::cache::CachedPool;
use super::client::Resolution;
use crate::wire::{PeId, Policy, PoolElement, Transport};
use std::collections::BTreeMap;
use std::time::Duration;

/// For how long an element is passed over after its first failure; after the n-th in a row n times that.
const PENALTY: Duration = Duration::from_secs(1);
const LONGEST_PENALTY: Duration = Duration::from_secs(60);
/// How many elements are looked at when the first choice is none.
const FURTHER: usize = 128;

/// An element that failed.
#[derive(Debug, Clone, Copy)]
struct FailedElement {
    until: Time,
    times: u32,
}

/// A pool as it was pushed, and what happened to those who used it.
#[derive(Debug)]
pub struct Choice {
    pool: CachedPool,
    failed: BTreeMap<PeId, FailedElement>,
    heard: bool,
    seed: u64,
}

impl Choice {
    /// Of a pool of which nothing is known yet.
    pub fn new(seed: u64) -> Choice {
        let nothing = Resolution { policy: None, elements: Vec::new(), complete: false, subscribed: false };
        Choice { pool: CachedPool::new(Time(0), seed, &nothing), failed: BTreeMap::new(), heard: false, seed }
    }

    /// What a registrar pushed. Elements that it does not name stay until somebody says that they [`left`]:
    /// a registrar that has just been started may not know them yet.
    ///
    /// [`left`]: Choice::left
    pub fn update(&mut self, now: Time, resolution: &Resolution) {
        let known = std::mem::replace(&mut self.heard, true);
        let part = Resolution { complete: !known, subscribed: true, ..resolution.clone() };
        self.pool.update(now, &part);
        if resolution.elements.iter().any(|element| !self.pool.contains(element.id)) {
            // A pool of another policy or protocol than it was.
            self.pool.update(now, &Resolution { complete: true, ..part });
            let pool = &self.pool;
            self.failed.retain(|id, _| pool.contains(*id));
        }
        if !known && matches!(resolution.policy, Some(Policy::RoundRobin | Policy::WeightedRoundRobin { .. }))
        {
            // Many short-lived users in turn must not all begin with the same element.
            let first = self.seed % self.len().clamp(1, FURTHER) as u64;
            (0..first).for_each(|_| _ = self.pool.select_one());
        }
    }

    /// An element left.
    pub fn left(&mut self, id: PeId) {
        self.pool.remove(id);
        self.failed.remove(&id);
    }

    /// Whether any registrar said anything about the pool.
    pub fn is_known(&self) -> bool {
        self.heard
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// Whether no element is known.
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// Elements that are passed over at present.
    pub fn passed_over(&self, now: Time) -> usize {
        self.failed.values().filter(|failed| failed.until > now).count()
    }

    /// All elements, by identifier.
    pub fn elements(&self) -> Vec<PoolElement> {
        self.pool.elements()
    }

    /// The next element by policy that is `usable` and was not `tried`: one that did not fail lately, if there
    /// is one. Where more than half of the pool has failed, failures say more about us than about them: then all
    /// count.
    pub fn choose(
        &mut self,
        now: Time,
        tried: &[PeId],
        usable: impl Fn(&PoolElement) -> bool,
    ) -> Option<PoolElement> {
        let panic = 2 * self.passed_over(now) > self.len();
        let failed = &self.failed;
        let eligible = |element: &PoolElement| !tried.contains(&element.id) && usable(element);
        let good = |element: &PoolElement| panic || failed.get(&element.id).is_none_or(|f| f.until <= now);
        if let Some(first) = self.pool.select_one()
            && eligible(&first)
            && good(&first)
        {
            return Some(first);
        }
        let others = self.pool.select(FURTHER);
        let mut others = others.into_iter().filter(eligible);
        let first = others.next()?;
        if good(&first) {
            return Some(first);
        }
        others.find(good).or(Some(first))
    }

    /// Up to `items` by policy whose transport is `usable`, for users of whom nobody hears whether it worked.
    pub fn several(&mut self, items: usize, usable: impl Fn(&Transport) -> bool) -> Vec<PoolElement> {
        self.pool.select_usable(items, usable)
    }

    /// An element.
    pub fn element(&self, id: PeId) -> Option<PoolElement> {
        self.pool.element(id)
    }

    /// An element refused, or did not answer. Whether that is news: who fails while it is passed over anyway was
    /// reported already.
    pub fn failed(&mut self, now: Time, id: PeId) -> bool {
        if !self.pool.contains(id) {
            return false;
        }
        let failed = self.failed.entry(id).or_insert(FailedElement { until: now, times: 0 });
        let news = failed.until <= now;
        if news {
            failed.times = failed.times.saturating_add(1);
            failed.until = now + PENALTY.saturating_mul(failed.times).min(LONGEST_PENALTY);
        }
        news
    }

    /// An element answered.
    pub fn worked(&mut self, id: PeId) {
        if !self.failed.is_empty() {
            self.failed.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Protocol, RegistrarId, TransportUse};
    use proptest::prelude::*;

    fn pushed(ids: &[u32], policy: &Policy) -> Resolution {
        let element = |&id: &u32| PoolElement {
            id: PeId(id),
            home: RegistrarId(1),
            life: 1000,
            transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 80, vec![[127, 0, 0, 1].into()]),
            policy: policy.clone(),
            asap: None,
        };
        let elements = ids.iter().map(element).collect();
        Resolution { policy: Some(policy.clone()), elements, complete: true, subscribed: true }
    }

    fn next(choice: &mut Choice, now: Time, tried: &[PeId]) -> Option<u32> {
        choice.choose(now, tried, |_| true).map(|element| element.id.0)
    }

    #[test]
    fn who_failed_is_passed_over_for_a_while_and_longer_each_time() {
        let mut choice = Choice::new(1);
        assert!(!choice.is_known());
        assert_eq!(next(&mut choice, Time(0), &[]), None);
        choice.update(Time(0), &pushed(&[1, 2, 3], &Policy::RoundRobin));
        assert!(choice.is_known());
        let start = Time(1_000_000);
        assert!(
            choice.failed(start, PeId(2)) && !choice.failed(start, PeId(2)) && !choice.failed(start, PeId(7))
        );
        let ids: Vec<_> = (0..6).filter_map(|_| next(&mut choice, start, &[])).collect();
        assert!(ids.len() == 6 && !ids.contains(&2), "{ids:?}");
        let after = start + PENALTY;
        let ids: Vec<_> = (0..3).filter_map(|_| next(&mut choice, after, &[])).collect();
        assert!(ids.contains(&2), "{ids:?}");
        choice.failed(after, PeId(2));
        assert_eq!(choice.passed_over(after + PENALTY), 1);
        assert_eq!(choice.passed_over(after + 2 * PENALTY), 0);
        choice.worked(PeId(2));
        choice.failed(after, PeId(2));
        assert_eq!(choice.passed_over(after + PENALTY), 0, "who answered starts anew");
    }

    #[test]
    fn users_begin_with_different_elements() {
        let first = |seed| {
            let mut choice = Choice::new(seed);
            choice.update(Time(0), &pushed(&[1, 2, 3], &Policy::RoundRobin));
            next(&mut choice, Time(0), &[]).unwrap()
        };
        let mut firsts = [first(0), first(1), first(2)];
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 2, 3]);
    }

    #[test]
    fn with_most_of_the_pool_gone_all_count_again() {
        let mut choice = Choice::new(1);
        choice.update(Time(0), &pushed(&[1, 2], &Policy::RoundRobin));
        choice.failed(Time(1), PeId(1));
        let ids: Vec<_> = (0..4).filter_map(|_| next(&mut choice, Time(2), &[])).collect();
        assert_eq!(ids, [2, 2, 2, 2]);
        choice.failed(Time(1), PeId(2));
        let ids: Vec<_> = (0..4).filter_map(|_| next(&mut choice, Time(2), &[])).collect();
        assert!(ids.contains(&1) && ids.contains(&2), "{ids:?}");
        choice.update(Time(3), &pushed(&[], &Policy::RoundRobin));
        assert_eq!(choice.len(), 2, "a registrar that knows nobody says nothing");
        choice.update(Time(3), &pushed(&[9], &Policy::RoundRobin));
        assert_eq!(choice.elements().iter().map(|element| element.id.0).collect::<Vec<_>>(), [1, 2, 9]);
        choice.left(PeId(1));
        choice.left(PeId(2));
        choice.failed(Time(3), PeId(9));
        assert_eq!(next(&mut choice, Time(4), &[]), Some(9), "the only one is always tried");
        assert_eq!(next(&mut choice, Time(4), &[PeId(9)]), None, "but not twice");
        choice.left(PeId(9));
        assert_eq!(next(&mut choice, Time(4), &[]), None);
        choice.update(Time(5), &pushed(&[7], &Policy::LeastUsed { load: 1 }));
        assert_eq!(next(&mut choice, Time(5), &[]), Some(7));
        choice.update(Time(6), &pushed(&[7, 8], &Policy::Random));
        assert_eq!(choice.len(), 2, "another policy");
    }

    proptest! {
        /// Whatever the policy, the failures and who was tried: one that was not tried is found if there is one.
        #[test]
        fn somebody_is_found(
            count in 1u32..20,
            policy in prop_oneof![
                Just(Policy::RoundRobin),
                Just(Policy::LeastUsed { load: 7 }),
                Just(Policy::WeightedRandom { weight: 3 }),
                Just(Policy::Priority { priority: 1 }),
            ],
            failed in proptest::collection::vec(1u32..20, 0..20),
            tried in proptest::collection::vec(1u32..20, 0..19),
        ) {
            let ids: Vec<u32> = (1..=count).collect();
            let mut choice = Choice::new(5);
            choice.update(Time(0), &pushed(&ids, &policy));
            failed.iter().for_each(|&id| _ = choice.failed(Time(1), PeId(id)));
            let tried: Vec<PeId> = tried.into_iter().map(PeId).collect();
            let left: Vec<u32> = ids.iter().copied().filter(|&id| !tried.contains(&PeId(id))).collect();
            let good: Vec<u32> = left.iter().copied().filter(|id| !failed.contains(id)).collect();
            let panic = 2 * choice.passed_over(Time(2)) > choice.len();
            match next(&mut choice, Time(2), &tried) {
                None => prop_assert!(left.is_empty()),
                Some(id) => {
                    prop_assert!(left.contains(&id));
                    prop_assert!(panic || good.is_empty() || good.contains(&id), "{id} of {good:?}");
                }
            }
        }
    }
}
