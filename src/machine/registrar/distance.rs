//! How far elements are, for the policies with a distance penalty (DPF, rsplib's own).
//!
//! Each registrar has a view of its own: to an element that is registered here it is half the round trip of
//! the link, to another's element what that registrar says and half the round trip to it.

use super::chores::Chore;
use super::{LinkId, Registrar};
use crate::handlespace::ElementKey;
use crate::machine::Time;
use crate::wire::{Enrp, PoolElement};
use std::ops::Bound;
use std::time::Duration;

/// A link is measured no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// For each element that a measurement may change, it takes so much longer to the next one.
const PAUSE_FOR_EACH: Duration = Duration::from_micros(100);

/// How far the other end of a link is, and when that is measured.
#[derive(Debug, Default)]
pub(super) struct Distance {
    /// In ms.
    known: Option<u32>,
    /// From when on it may be measured again; `None`: nobody over there wants to know.
    next: Option<Time>,
}

impl Distance {
    /// Somebody over there tells of elements whose policy wants to know.
    pub fn want(&mut self, now: Time) {
        self.next.get_or_insert(now);
    }

    /// Something came, which may have made the kernel measure: whether to ask it.
    pub fn is_due(&mut self, now: Time) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = Some(now + PAUSE);
        }
        due
    }
}

impl Registrar {
    /// The smoothed round trip time of a link was measured. Elements that were registered over it and want to
    /// know have their distance from it, rounded, and changed only by what is more than a jitter about where
    /// one rounds up.
    pub(super) fn set_round_trip(&mut self, link: LinkId, round_trip: Duration) {
        let (now, way, step) = (self.now, round_trip / 2, self.config.distance_step);
        let Some(state) = self.links.get_mut(&link) else { return };
        let distance = rounded(way, step);
        let known = &mut state.distance.known;
        if known.is_some_and(|known| known == distance || is_jitter(way, known, step)) {
            return;
        }
        *known = Some(distance);
        let Some(client) = self.client(link) else { return };
        let elements = u32::try_from(client.elements.len()).unwrap_or(u32::MAX);
        if let Some(next) = self.links.get_mut(&link).and_then(|state| state.distance.next.as_mut()) {
            *next = (now + PAUSE_FOR_EACH * elements).max(*next);
        }
        self.start(Chore::Distance { link, after: None, distance });
    }

    /// Some of the elements of a link, and after which to go on.
    pub(super) fn move_some(
        &mut self,
        link: LinkId,
        after: Option<ElementKey>,
        distance: u32,
        units: &mut usize,
    ) -> Option<ElementKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let client = self.client(link)?;
        let keys: Vec<ElementKey> =
            client.elements.range((from, Bound::Unbounded)).take(*units).copied().collect();
        *units -= keys.len();
        for &key in &keys {
            self.move_to(key, distance);
        }
        if *units > 0 { None } else { keys.last().copied().or(after) }
    }

    /// Changes an element's distance and tells peers, if it wants to know.
    fn move_to(&mut self, key: ElementKey, distance: u32) {
        let Some(found) = self.space.get(key) else { return };
        let mut policy = found.policy();
        match policy.distance_mut() {
            Some(known) if *known != distance => *known = distance,
            _ => return,
        }
        let (handle, element) = (found.handle().clone(), PoolElement { policy, ..found.to_element() });
        if let Ok((key, _)) = self.put(&handle, &element) {
            self.announce_update(key);
        }
    }

    /// How far the other end of a link is, in ms; 0 if that is not known.
    pub(super) fn distance_of(&self, link: LinkId) -> u32 {
        self.links.get(&link).and_then(|state| state.distance.known).unwrap_or(0)
    }

    /// What a peer tells of elements, as it is from here.
    pub(super) fn seen_from_here(&self, link: LinkId, body: &mut Enrp) {
        let way = self.distance_of(link);
        let elements: &mut dyn Iterator<Item = _> = match body {
            Enrp::HandleUpdate { element, .. } => &mut std::iter::once(element),
            Enrp::HandleTableResponse { pools, .. } => &mut pools.iter_mut().flat_map(|(_, all)| all),
            _ => return,
        };
        for element in elements {
            if let Some(distance) = element.policy.distance_mut() {
                *distance = distance.saturating_add(way);
            }
        }
    }
}

/// Whether a way is not further than three quarters of a step from what is known, in ms.
fn is_jitter(way: Duration, known: u32, step: Duration) -> bool {
    let step = step.max(Duration::from_millis(1));
    way.abs_diff(Duration::from_millis(known.into())) <= step * 3 / 4
}

/// To the nearest multiple of `step`, in ms.
fn rounded(way: Duration, step: Duration) -> u32 {
    let step = step.as_micros().max(1000);
    let steps = (way.as_micros() + step / 2) / step;
    u32::try_from(steps * step / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_multiples_of_the_step() {
        let ms = Duration::from_millis;
        for (way, step, distance) in [
            (0, 50, 0),
            (24, 50, 0),
            (25, 50, 50),
            (60, 50, 50),
            (76, 50, 100),
            (7, 1, 7),
            (9, 10, 10),
            (u64::MAX / 1000, 1, u32::MAX),
            (50, u64::MAX / 1000, 0),
        ] {
            assert_eq!(rounded(ms(way), ms(step)), distance, "{way} by {step}");
        }
        assert_eq!(rounded(Duration::from_micros(499), ms(1)), 0);
    }

    #[test]
    fn who_wanders_about_a_boundary_stays_where_he_is() {
        let step = Duration::from_millis(50);
        let is_jitter = |way, known| is_jitter(Duration::from_millis(way), known, step);
        assert!(is_jitter(37, 0) && is_jitter(13, 50) && is_jitter(87, 50));
        assert!(!is_jitter(38, 0) && !is_jitter(12, 50) && !is_jitter(88, 50));
        assert!(super::is_jitter(Duration::from_secs(1), 500, Duration::from_secs(u64::MAX / 8)));
    }
}
