//! How far elements are, for the policies with a distance penalty (DPF, rsplib's own).
//!
//! Each registrar has a view of its own: to an element that is registered here it is half the round trip of
//! the link, to another's element what that registrar says and half the round trip to it.

use super::{LinkId, Registrar};
use crate::handlespace::ElementKey;
use crate::machine::Time;
use crate::wire::Enrp;
use std::time::Duration;

impl Registrar {
    /// The driver measured the smoothed round trip time of a link. Elements that were registered over it
    /// and want to know have their distance from it, rounded so that a jitter is no news.
    pub fn set_round_trip(&mut self, now: Time, link: LinkId, round_trip: Duration) {
        self.now = now;
        let distance = rounded(round_trip / 2, self.config.distance_step);
        let Some(state) = self.links.get_mut(&link) else { return };
        if std::mem::replace(&mut state.distance, distance) == distance {
            return;
        }
        let Some(client) = self.client(link) else { return };
        let keys: Vec<ElementKey> = client.elements.iter().copied().collect();
        for key in keys {
            let Some(found) = self.space.get(key) else { continue };
            let (handle, mut element) = (found.handle().clone(), found.to_element());
            match element.policy.distance_mut() {
                Some(known) if *known != distance => *known = distance,
                _ => continue,
            }
            if let Ok((key, _)) = self.put(&handle, &element) {
                self.announce_update(key);
            }
        }
    }

    /// How far the other end of a link is, in ms; 0 if that is not known.
    pub(super) fn distance_of(&self, link: LinkId) -> u32 {
        self.links.get(&link).map_or(0, |state| state.distance)
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
}
