//! The pool user's cache of resolutions (RFC 5352 section 3.3): a pure structure, so that the
//! runtime can hold one per shard behind a lock and the simulator one per user without.

use super::Time;
use super::client::Resolution;
use crate::handlespace::{Handlespace, Increment, MOST_LOOKS};
use crate::wire::{ParamType, PeId, Policy, PoolElement, PoolHandle, Transport, TransportUse};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a registrar is asked for elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// How many; `None`: as many as the registrar thinks right.
    pub items: Option<u32>,
    /// The answer goes into the cache, and serves all who ask for the pool meanwhile.
    pub share: bool,
}

/// Whoever wants more elements than a registrar gives by itself says how many.
const GIVEN: usize = 3;

impl Question {
    /// For somebody who wants `items` elements and takes what was learnt within `stale`. What goes into the cache should last
    /// for more than one turn, so there the registrar decides how much that is; who wants no cache gets what he asked for.
    pub fn of(items: usize, stale: Duration) -> Question {
        let share = !stale.is_zero();
        let number = u32::try_from(items).unwrap_or(u32::MAX);
        Question { items: (!share || items > GIVEN).then_some(number), share }
    }
}

/// One cached pool: its last resolution, from which elements are chosen by the pool's policy.
#[derive(Debug)]
pub struct CachedPool {
    /// Holds a single pool, by the name `pool`.
    space: Handlespace,
    pool: PoolHandle,
    updated: Time,
    /// A subscription keeps the content up to date.
    pushed: bool,
    /// The content is the whole pool as far as we were told.
    complete: bool,
}

impl CachedPool {
    /// What a registrar answered at `now`.
    pub fn new(now: Time, seed: u64, resolution: &Resolution) -> CachedPool {
        let pool = PoolHandle::new(b"p").expect("one byte is a handle");
        let mut cached =
            CachedPool { space: Handlespace::new(seed), pool, updated: now, pushed: false, complete: false };
        cached.update(now, resolution);
        cached
    }

    /// Takes over a newer answer or push: its elements keep their place in the policy's order if they
    /// were known. Elements that it does not name go, unless it is only a part of a pool that a
    /// subscription keeps here as a whole. Elements that do not fit the pool (another transport type
    /// than the first one's) are left out, as a registrar does. The pool's policy is the answer's overall one; an
    /// element that says another counts with the overall one's values.
    pub fn update(&mut self, now: Time, resolution: &Resolution) {
        let part_of_pushed = self.pushed && self.complete && !resolution.complete;
        if !part_of_pushed {
            self.retain(resolution);
            self.complete = resolution.complete;
            self.pushed = resolution.subscribed;
        }
        let overall = overall(resolution);
        for element in &resolution.elements {
            let _ = self.space.register(&self.pool, &fitted(element, overall));
        }
        self.updated = self.updated.max(now);
    }

    /// Removes what `resolution` does not name, or names with what its pool can't have (policy or transport
    /// type changed): a pool that changed as a whole starts afresh.
    fn retain(&mut self, resolution: &Resolution) {
        let Some(some) = self.space.elements_after(None).next() else { return };
        let common = traits(&some.to_element());
        let overall = overall(resolution);
        let named = resolution.elements.iter().filter(|element| traits(&fitted(element, overall)) == common);
        let named: BTreeSet<PeId> = named.map(|element| element.id).collect();
        let all = self.space.elements_after(None);
        let gone: Vec<_> = all.filter(|e| !named.contains(&e.id())).map(|e| e.key()).collect();
        for key in gone {
            self.space.remove(key);
        }
    }

    /// Whether to answer from here: the content is at most `stale` old, or kept up to date by a
    /// subscription. Never with `stale` 0, and never without an element.
    pub fn fresh(&self, now: Time, stale: Duration) -> bool {
        !stale.is_zero() && !self.is_empty() && (self.pushed || now - self.updated <= stale)
    }

    /// Whether no element is known.
    pub fn is_empty(&self) -> bool {
        self.space.is_empty()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.space.len()
    }

    /// Chooses up to `items` by policy, every returned one counted as used.
    pub fn select(&mut self, items: usize) -> Vec<PoolElement> {
        let mut keys = Vec::new();
        self.space.select(&self.pool, items, Increment::All, &mut keys);
        keys.iter().filter_map(|&key| self.space.get(key)).map(|element| element.to_element()).collect()
    }

    /// The hot path of [`CachedPool::select`]: the next element, without allocation beyond its clone.
    pub fn select_one(&mut self) -> Option<PoolElement> {
        let key = self.space.select_one(&self.pool, Increment::All)?;
        Some(self.space.get(key)?.to_element())
    }

    /// Chooses up to `items` by policy among those whose transport is `usable`; as many count as used as at a
    /// registrar.
    pub fn select_usable(&mut self, items: usize, usable: impl Fn(&Transport) -> bool) -> Vec<PoolElement> {
        let (mut keys, looks) = (Vec::new(), items.max(MOST_LOOKS));
        self.space.select_usable(&self.pool, [items, looks], Increment::PolicyDefault, usable, &mut keys);
        keys.iter().filter_map(|&key| self.space.get(key)).map(|element| element.to_element()).collect()
    }

    /// An element.
    pub fn element(&self, id: PeId) -> Option<PoolElement> {
        self.space.get(self.space.find(&self.pool, id)?).map(|element| element.to_element())
    }

    /// Whether an element is known.
    pub fn contains(&self, id: PeId) -> bool {
        self.space.find(&self.pool, id).is_some()
    }

    /// All elements, by identifier.
    pub fn elements(&self) -> Vec<PoolElement> {
        self.space.elements_after(None).map(|element| element.to_element()).collect()
    }

    /// Forgets an element reported unreachable.
    pub fn remove(&mut self, id: PeId) {
        if let Some(key) = self.space.find(&self.pool, id) {
            self.space.remove(key);
        }
    }
}

/// The pool's policy, whatever its elements say (RFC 5352 section 2.2.6).
fn overall(resolution: &Resolution) -> &Policy {
    resolution.policy.as_ref().unwrap_or(&Policy::RoundRobin)
}

/// An element with the pool's policy: with its own values if it has them.
fn fitted<'a>(element: &'a PoolElement, overall: &Policy) -> Cow<'a, PoolElement> {
    match element.policy.type_code() == overall.type_code() {
        true => Cow::Borrowed(element),
        false => Cow::Owned(PoolElement { policy: overall.clone(), ..element.clone() }),
    }
}

/// What all elements of a pool have in common; of SCTP, the transport use as well.
fn traits(element: &PoolElement) -> (u32, ParamType, bool) {
    let kind = element.transport.kind();
    let control = kind == ParamType::SCTP && element.transport.usage() == TransportUse::DataPlusControl;
    (element.policy.type_code(), kind, control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Protocol, RegistrarId};

    fn element(id: u32, policy: Policy) -> PoolElement {
        PoolElement {
            id: PeId(id),
            home: RegistrarId(1),
            life: 1000,
            transport: Transport::new(
                Protocol::Tcp,
                TransportUse::DataPlusControl,
                7,
                vec![[127, 0, 0, 1].into()],
            ),
            policy,
            asap: None,
        }
    }

    /// A part of a pool, not subscribed.
    fn part(ids: &[u32]) -> Resolution {
        let elements = ids.iter().map(|&id| element(id, Policy::RoundRobin)).collect();
        Resolution { policy: Some(Policy::RoundRobin), elements, complete: false, subscribed: false }
    }

    fn pushed(ids: &[u32]) -> Resolution {
        Resolution { complete: true, subscribed: true, ..part(ids) }
    }

    fn ids(elements: Vec<PoolElement>) -> Vec<u32> {
        elements.iter().map(|element| element.id.0).collect()
    }

    fn run(cached: &mut CachedPool, count: usize) -> Vec<u32> {
        ids((0..count).filter_map(|_| cached.select_one()).collect())
    }

    #[test]
    fn who_wants_no_cache_says_how_many() {
        let stale = Duration::from_secs(1);
        assert_eq!(Question::of(1, Duration::ZERO), Question { items: Some(1), share: false });
        assert_eq!(Question::of(3, stale), Question { items: None, share: true });
        assert_eq!(Question::of(4, stale), Question { items: Some(4), share: true });
        assert_eq!(Question::of(usize::MAX, Duration::ZERO).items, Some(u32::MAX));
    }

    #[test]
    fn stale_value_of_the_call_decides() {
        let second = Duration::from_secs(1);
        let born = Time(5_000_000);
        let mut cached = CachedPool::new(born, 1, &part(&[1]));
        assert!(cached.fresh(born + second, second));
        assert!(cached.fresh(born, second) && cached.fresh(Time(0), second));
        assert!(!cached.fresh(born + second + Duration::from_micros(1), second));
        assert!(!cached.fresh(born, Duration::ZERO), "0: always ask");
        cached.update(born + second, &part(&[1]));
        assert!(cached.fresh(born + 2 * second, second));

        cached.update(born, &pushed(&[1]));
        assert!(cached.fresh(born + 9 * second, Duration::from_micros(1)), "pushed");
        assert!(!cached.fresh(born + 9 * second, Duration::ZERO));
        cached.update(born + 3 * second, &part(&[1]));
        assert!(cached.fresh(born + 9 * second, second), "a part does not end the subscription");
        let whole = Resolution { complete: true, ..part(&[1]) };
        cached.update(born + 3 * second, &whole);
        assert!(!cached.fresh(born + 9 * second, second), "an unsubscribed whole does");

        cached.remove(PeId(1));
        assert!(!cached.fresh(born + 3 * second, second), "nothing to answer with");
    }

    #[test]
    fn an_answer_keeps_places_and_drops_who_is_not_named() {
        let mut cached = CachedPool::new(Time(0), 1, &part(&[1, 2, 3]));
        assert_eq!(run(&mut cached, 1), [1]);
        cached.update(Time(1), &part(&[4, 3, 2]));
        assert_eq!(run(&mut cached, 4), [2, 3, 4, 2]);
        assert_eq!(ids(cached.select(9)), [3, 4, 2]);
        assert_eq!(ids(cached.select(2)), [3, 4], "all returned count as used");
        assert_eq!(ids(cached.select(2)), [2, 3]);
        assert_eq!(cached.len(), 3);
    }

    #[test]
    fn a_part_leaves_the_rest_of_a_pushed_pool() {
        let mut cached = CachedPool::new(Time(0), 1, &pushed(&[1, 2, 3]));
        cached.update(Time(1), &part(&[2]));
        assert_eq!(run(&mut cached, 4), [1, 2, 3, 1]);
        cached.update(Time(2), &pushed(&[3, 1]));
        assert_eq!(run(&mut cached, 3), [3, 1, 3]);
        cached.update(Time(3), &pushed(&[]));
        assert_eq!((cached.select_one(), cached.select(3)), (None, vec![]));
        cached.update(Time(4), &pushed(&[7]));
        assert_eq!(run(&mut cached, 2), [7, 7]);
    }

    #[test]
    fn unreachable_elements_go() {
        let mut cached = CachedPool::new(Time(0), 1, &part(&[1, 2, 3]));
        cached.remove(PeId(2));
        cached.remove(PeId(2));
        cached.remove(PeId(99));
        assert_eq!(run(&mut cached, 3), [1, 3, 1]);
    }

    #[test]
    fn loads_grow_with_use_until_the_next_answer() {
        let lud = |id, load| element(id, Policy::LeastUsedDegradation { load, degradation: 10 });
        let policy = Some(Policy::LeastUsedDegradation { load: 0, degradation: 0 });
        let answer = Resolution { policy, elements: vec![lud(1, 0), lud(2, 15)], ..part(&[]) };
        let mut cached = CachedPool::new(Time(0), 1, &answer);
        assert_eq!(run(&mut cached, 4), [1, 1, 2, 1]);
        cached.update(Time(1), &answer);
        assert_eq!(run(&mut cached, 4), [1, 1, 2, 1]);
    }

    #[test]
    fn another_policy_starts_afresh() {
        let mut cached = CachedPool::new(Time(0), 1, &part(&[1, 2]));
        let priority = |id, priority| element(id, Policy::Priority { priority });
        let elements = vec![priority(1, 1), element(2, Policy::Random), priority(3, 9)];
        let policy = Some(Policy::Priority { priority: 5 });
        cached.update(Time(1), &Resolution { policy, elements, ..part(&[]) });
        assert_eq!(run(&mut cached, 2), [3, 3]);
        assert_eq!(
            ids(cached.select(9)),
            [3, 2, 1],
            "who says another policy counts with the overall one's values"
        );

        let mut moved = part(&[3, 1]);
        for element in &mut moved.elements {
            let addresses = vec![[127, 0, 0, 1].into()];
            element.transport = Transport::new(Protocol::Sctp, TransportUse::DataOnly, 7, addresses);
        }
        cached.update(Time(2), &moved);
        assert_eq!(cached.select(9), moved.elements, "all changed their protocol");
    }

    /// RFC 5352 section 2.2.6: the overall policy parameter alone says what a pool's policy is, and its absence
    /// that it is round robin.
    #[test]
    fn the_overall_policy_is_the_pools() {
        let priority = |id, priority| element(id, Policy::Priority { priority });
        let elements = vec![priority(1, 1), priority(2, 9)];
        for policy in [None, Some(Policy::RoundRobin)] {
            let answer = Resolution { policy, elements: elements.clone(), ..part(&[]) };
            assert_eq!(run(&mut CachedPool::new(Time(0), 1, &answer), 4), [1, 2, 1, 2]);
        }
        let policy = Some(Policy::Priority { priority: 0 });
        let answer = Resolution { policy, elements, ..part(&[]) };
        let mut cached = CachedPool::new(Time(0), 1, &answer);
        assert_eq!(run(&mut cached, 2), [2, 2]);
        // Another overall policy begins afresh, with the same elements.
        cached.update(Time(1), &Resolution { policy: None, ..answer });
        assert_eq!(run(&mut cached, 4), [1, 2, 1, 2]);
    }

    /// How often each of elements 1, 2, ... with these policies is chosen, one by one.
    fn chosen(count: usize, policies: &[Policy]) -> Vec<usize> {
        let elements = (1..).zip(policies).map(|(id, policy)| element(id, policy.clone())).collect();
        let answer = Resolution { policy: policies.first().cloned(), elements, ..part(&[]) };
        let mut cached = CachedPool::new(Time(0), 1, &answer);
        let ids = run(&mut cached, count);
        assert_eq!(ids.len(), count);
        (1..=policies.len() as u32).map(|id| ids.iter().filter(|&&chosen| chosen == id).count()).collect()
    }

    /// RFC 5356 sections 4.2.3, 4.3.3, 4.4.3, 4.5.3, 5.1.3, 5.3.3 and 5.4.3: what a user does with the list that it
    /// got. Far beyond what chance does to a thousand draws.
    #[test]
    fn a_user_chooses_by_the_pools_policy() {
        let wrr = |weight| Policy::WeightedRoundRobin { weight };
        assert_eq!(chosen(400, &[wrr(1), wrr(3)]), [100, 300]);
        let random = chosen(4000, &vec![Policy::Random; 4]);
        assert!(random.iter().all(|count| (800..=1200).contains(count)), "{random:?}");
        // By weight, and by what is left of the load, here as at the registrar.
        let heavy = |weight| Policy::WeightedRandom { weight };
        let idle = |load| Policy::RandomizedLeastUsed { load };
        for policies in [[heavy(1), heavy(3)], [idle(u32::MAX - 1000), idle(u32::MAX - 3000)]] {
            let drawn = chosen(4000, &policies);
            assert!((800..=1200).contains(&drawn[0]), "{policies:?}: {drawn:?}");
        }
        let priority = |priority| Policy::Priority { priority };
        assert_eq!(chosen(9, &[priority(1), priority(7), priority(3)]), [0, 9, 0]);
        let load = |load| Policy::LeastUsed { load };
        assert_eq!(chosen(10, &[load(9), load(2), load(2)]), [0, 5, 5]);
        let plu = |load, degradation| Policy::PriorityLeastUsed { load, degradation };
        assert_eq!(chosen(9, &[plu(1, 9), plu(5, 1), plu(7, 0)]), [0, 9, 0]);
    }

    #[test]
    fn an_empty_answer() {
        let mut cached = CachedPool::new(Time(0), 1, &part(&[]));
        assert!(cached.is_empty() && !cached.fresh(Time(0), Duration::MAX));
        assert_eq!(cached.select_one(), None);
    }
}
