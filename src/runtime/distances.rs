//! Which links to measure the round trip of: those over which somebody tells of elements whose policy wants
//! to know how far they are.

use crate::machine::{LinkId, Time};
use crate::wire::Policy;
use std::collections::BTreeMap;
use std::time::Duration;

/// A link is measured no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// For each element that a measurement changed, it takes so much longer to the next one.
const PAUSE_FOR_EACH: Duration = Duration::from_micros(100);

/// The links, with the time from which on each may be measured again.
#[derive(Debug, Default)]
pub(super) struct Distances {
    links: BTreeMap<LinkId, Time>,
    due: Vec<LinkId>,
}

impl Distances {
    /// A message came. Whatever it is, it may have made the kernel measure.
    pub fn heard(&mut self, now: Time, link: LinkId, bytes: &[u8]) {
        let next = match self.links.get(&link) {
            Some(&next) => next,
            None if Policy::may_have_distance(bytes) => now,
            None => return,
        };
        if next <= now {
            self.links.insert(link, now + PAUSE);
            self.due.push(link);
        }
    }

    /// A link to another registrar is up: what it brings is measured from the first message on.
    pub fn peer(&mut self, now: Time, link: LinkId) {
        self.links.insert(link, now);
    }

    /// A measurement changed so many elements.
    pub fn changed(&mut self, now: Time, link: LinkId, elements: usize) {
        let pause = PAUSE_FOR_EACH * u32::try_from(elements).unwrap_or(u32::MAX);
        if let Some(next) = self.links.get_mut(&link) {
            *next = (now + pause).max(*next);
        }
    }

    /// A link is down, or closed by us.
    pub fn gone(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// Those to measure now.
    pub fn take_due(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Asap, PeId, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};

    fn registration(policy: Policy) -> Vec<u8> {
        let addresses = vec!["10.0.0.9".parse().unwrap()];
        let transport = Transport::new(Protocol::Tcp, TransportUse::DataOnly, 7, addresses);
        let (id, home) = (PeId(1), RegistrarId(0));
        let element = PoolElement { id, home, life: 30_000, transport, policy, asap: None };
        Asap::Registration { handle: PoolHandle::new(b"pools").unwrap(), element }.encode()
    }

    #[test]
    fn only_links_that_tell_of_distant_elements_are_measured_and_not_too_often() {
        let mut distances = Distances::default();
        let near = registration(Policy::LeastUsed { load: 1 });
        let far = registration(Policy::LeastUsedDpf { load: 1, load_dpf: 2, distance: 3 });
        let [one, two] = [LinkId(1), LinkId(2)];
        let second = |count: u64| Time(count * 1_000_000);
        distances.heard(second(1), one, &near);
        assert!(distances.take_due().is_empty());
        distances.heard(second(2), two, &far);
        distances.heard(second(2), two, &far);
        assert_eq!(distances.take_due(), [two]);
        distances.heard(second(3), one, &near);
        distances.heard(second(3), two, &near);
        assert_eq!(distances.take_due(), [two], "an answer to a keep-alive, say");
        // A hundred thousand elements are told of again after ten seconds.
        distances.changed(second(3), two, 100_000);
        distances.heard(second(12), two, &near);
        assert!(distances.take_due().is_empty());
        distances.heard(second(13), two, &near);
        assert_eq!(distances.take_due(), [two]);
        distances.peer(second(14), one);
        distances.heard(second(14), one, &near);
        assert_eq!(distances.take_due(), [one]);
        distances.gone(two);
        distances.heard(second(99), two, &near);
        assert!(distances.take_due().is_empty());
    }

    #[test]
    fn no_policy_with_a_distance_is_missed() {
        for policy in [
            Policy::WeightedRandomDpf { weight: 1, weight_dpf: 0, distance: 0 },
            Policy::LeastUsedDpf { load: 0, load_dpf: 0, distance: 0 },
            Policy::LeastUsedDegradationDpf { load: 0, degradation: 0, load_dpf: 0, distance: 0 },
        ] {
            let mut policy = policy;
            assert!(Policy::may_have_distance(&registration(policy.clone())), "{policy}");
            *policy.distance_mut().unwrap() = 50;
            assert!(policy.to_string().contains("distance=50ms"), "{policy}");
        }
        let others = [Policy::RoundRobin, Policy::LeastUsedDegradation { load: 7, degradation: 9 }];
        for mut other in others {
            assert!(!Policy::may_have_distance(&registration(other.clone())), "{other}");
            assert_eq!(other.distance_mut(), None);
        }
    }
}
