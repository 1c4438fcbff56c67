//! The subscribers of one pool. Most pools have few, and these lie side by side; where there are many, in a tree.

use super::LinkId;
use std::collections::BTreeMap;
use std::ops::Bound;

/// So many lie side by side.
const FEW: usize = 16;
/// So few do so again.
const FEW_AGAIN: usize = 8;
/// What one takes at most, in a list that is half empty with what the allocator adds, or in a tree.
pub(super) const SUBSCRIBER: usize = 2 * size_of::<(LinkId, Subscriber)>() + 16;

/// A subscriber of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscriber {
    /// Number of the last change that it was told of.
    pub told: u64,
    /// It knows nothing but the RFC: a pool that ends is an unknown pool, and that is the end of the subscription.
    pub plain: bool,
}

/// All of them, by their links.
#[derive(Debug)]
pub(super) enum Subscribers {
    Few(Vec<(LinkId, Subscriber)>),
    Many(BTreeMap<LinkId, Subscriber>),
}

impl Default for Subscribers {
    fn default() -> Subscribers {
        Subscribers::Few(Vec::new())
    }
}

impl Subscribers {
    pub fn len(&self) -> usize {
        match self {
            Subscribers::Few(few) => few.len(),
            Subscribers::Many(many) => many.len(),
        }
    }

    pub fn get(&self, link: LinkId) -> Option<Subscriber> {
        match self {
            Subscribers::Few(few) => few.binary_search_by_key(&link, |one| one.0).ok().map(|at| few[at].1),
            Subscribers::Many(many) => many.get(&link).copied(),
        }
    }

    /// Puts one in, or in place of what was known of it; whether it is new.
    pub fn put(&mut self, link: LinkId, subscriber: Subscriber) -> bool {
        match self {
            Subscribers::Few(few) => match few.binary_search_by_key(&link, |one| one.0) {
                Ok(at) => {
                    few[at].1 = subscriber;
                    false
                }
                Err(_) if few.len() >= FEW => {
                    let all = few.iter().copied().chain([(link, subscriber)]);
                    *self = Subscribers::Many(all.collect());
                    true
                }
                Err(at) => {
                    if few.len() == few.capacity() {
                        few.reserve_exact(few.len().max(1));
                    }
                    few.insert(at, (link, subscriber));
                    true
                }
            },
            Subscribers::Many(many) => many.insert(link, subscriber).is_none(),
        }
    }

    /// Whether it was one.
    pub fn remove(&mut self, link: LinkId) -> bool {
        match self {
            Subscribers::Few(few) => {
                let Ok(at) = few.binary_search_by_key(&link, |one| one.0) else { return false };
                few.remove(at);
                if few.len() <= few.capacity() / 2 {
                    few.shrink_to_fit();
                }
                true
            }
            Subscribers::Many(many) => {
                let was = many.remove(&link).is_some();
                if many.len() <= FEW_AGAIN {
                    *self = Subscribers::Few(
                        many.iter().map(|(&link, &subscriber)| (link, subscriber)).collect(),
                    );
                }
                was
            }
        }
    }

    /// Some of those that follow a link.
    pub fn some_after(&self, after: Option<LinkId>, most: usize) -> Vec<(LinkId, Subscriber)> {
        match self {
            Subscribers::Few(few) => {
                let from = few.partition_point(|&(link, _)| after.is_some_and(|after| link <= after));
                few[from..].iter().copied().take(most).collect()
            }
            Subscribers::Many(many) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let following = many.range((from, Bound::Unbounded));
                following.map(|(&link, &subscriber)| (link, subscriber)).take(most).collect()
            }
        }
    }

    /// The last change that all were told of.
    pub fn told(&self) -> Option<u64> {
        match self {
            Subscribers::Few(few) => few.iter().map(|(_, subscriber)| subscriber.told).min(),
            Subscribers::Many(many) => many.values().map(|subscriber| subscriber.told).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside a plain tree, through both forms and back.
    #[test]
    fn they_are_what_a_tree_would_have() {
        let (mut subscribers, mut tree) = (Subscribers::default(), BTreeMap::new());
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut few, mut many) = (0, 0);
        for step in 0..4000u64 {
            let link = LinkId(rng.u64(0..40));
            let subscriber = Subscriber { told: step, plain: rng.bool() };
            let growing = step / 200 % 2 == 0;
            if rng.u8(0..4) == 0 || !growing {
                assert_eq!(subscribers.remove(link), tree.remove(&link).is_some());
            } else {
                assert_eq!(subscribers.put(link, subscriber), tree.insert(link, subscriber).is_none());
            }
            match &subscribers {
                Subscribers::Few(list) => {
                    few += 1;
                    assert!(list.len() <= FEW && list.capacity() <= 2 * list.len(), "{list:?}");
                }
                Subscribers::Many(_) => many += 1,
            }
            let all: Vec<_> = tree.iter().map(|(&link, &subscriber)| (link, subscriber)).collect();
            assert_eq!((subscribers.len(), subscribers.get(link)), (all.len(), tree.get(&link).copied()));
            assert_eq!(subscribers.some_after(None, 100), all);
            let after: Vec<_> = all.into_iter().filter(|&(other, _)| other > link).take(5).collect();
            assert_eq!(subscribers.some_after(Some(link), 5), after);
            assert_eq!(subscribers.told(), tree.values().map(|subscriber| subscriber.told).min());
        }
        assert!(few > 500 && many > 500, "{few} {many}");
    }
}
