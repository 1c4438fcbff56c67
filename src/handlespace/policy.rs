//! What each policy means: how its elements are ordered or weighed (RFC 5356, and rsplib's private
//! policies).

use crate::wire::Policy;

/// Up to four values of one element, named by the constants below.
pub(super) type Values = [u32; 4];
/// Weight, priority or load.
const MAIN: usize = 0;
const DEGRADATION: usize = 1;
const PENALTY: usize = 2;
const DISTANCE: usize = 3;

/// The policy of a pool, without anybody's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    RoundRobin,
    WeightedRoundRobin,
    Random,
    WeightedRandom,
    Priority,
    LeastUsed,
    LeastUsedDegradation,
    PriorityLeastUsed,
    RandomizedLeastUsed,
    RandomizedPriorityLeastUsed,
    RandomizedLeastUsedDegradation,
    PriorityLeastUsedDegradation,
    RandomizedPriorityLeastUsedDegradation,
    WeightedRandomDpf,
    LeastUsedDpf,
    LeastUsedDegradationDpf,
    /// One that nobody here knows, by its type: carried for others, its elements take turns. What stands behind
    /// the type is kept in [`Carried`], at the place that the first of the values names.
    Unknown(u32),
}

/// What elements of unknown policies say behind their policy's type.
pub(super) type Carried = slab::Slab<Box<[u8]>>;

/// Splits a policy parameter, of an unknown policy without what it says; `None` for the types that RFC 5356
/// section 7.1 calls invalid.
pub(super) fn split(policy: &Policy) -> Option<(Kind, Values)> {
    use Policy as P;
    Some(match *policy {
        P::RoundRobin => (Kind::RoundRobin, [0; 4]),
        P::WeightedRoundRobin { weight } => (Kind::WeightedRoundRobin, [weight, 0, 0, 0]),
        P::Random => (Kind::Random, [0; 4]),
        P::WeightedRandom { weight } => (Kind::WeightedRandom, [weight, 0, 0, 0]),
        P::Priority { priority } => (Kind::Priority, [priority, 0, 0, 0]),
        P::LeastUsed { load } => (Kind::LeastUsed, [load, 0, 0, 0]),
        P::LeastUsedDegradation { load, degradation } => {
            (Kind::LeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::PriorityLeastUsed { load, degradation } => (Kind::PriorityLeastUsed, [load, degradation, 0, 0]),
        P::RandomizedLeastUsed { load } => (Kind::RandomizedLeastUsed, [load, 0, 0, 0]),
        P::RandomizedPriorityLeastUsed { load, degradation } => {
            (Kind::RandomizedPriorityLeastUsed, [load, degradation, 0, 0])
        }
        P::RandomizedLeastUsedDegradation { load, degradation } => {
            (Kind::RandomizedLeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::PriorityLeastUsedDegradation { load, degradation } => {
            (Kind::PriorityLeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::RandomizedPriorityLeastUsedDegradation { load, degradation } => {
            (Kind::RandomizedPriorityLeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::WeightedRandomDpf { weight, weight_dpf, distance } => {
            (Kind::WeightedRandomDpf, [weight, 0, weight_dpf, distance])
        }
        P::LeastUsedDpf { load, load_dpf, distance } => (Kind::LeastUsedDpf, [load, 0, load_dpf, distance]),
        P::LeastUsedDegradationDpf { load, degradation, load_dpf, distance } => {
            (Kind::LeastUsedDegradationDpf, [load, degradation, load_dpf, distance])
        }
        P::Unknown { policy_type: 0 | 0x4000_0000, .. } => return None,
        P::Unknown { policy_type, .. } => (Kind::Unknown(policy_type), [0; 4]),
    })
}

/// The reverse of [`split`].
pub(super) fn join(kind: Kind, values: &Values, carried: &Carried) -> Policy {
    use Policy as P;
    let [weight, degradation, weight_dpf, distance] = *values;
    let (load, load_dpf, priority) = (weight, weight_dpf, weight);
    match kind {
        Kind::RoundRobin => P::RoundRobin,
        Kind::WeightedRoundRobin => P::WeightedRoundRobin { weight },
        Kind::Random => P::Random,
        Kind::WeightedRandom => P::WeightedRandom { weight },
        Kind::Priority => P::Priority { priority },
        Kind::LeastUsed => P::LeastUsed { load },
        Kind::LeastUsedDegradation => P::LeastUsedDegradation { load, degradation },
        Kind::PriorityLeastUsed => P::PriorityLeastUsed { load, degradation },
        Kind::RandomizedLeastUsed => P::RandomizedLeastUsed { load },
        Kind::RandomizedPriorityLeastUsed => P::RandomizedPriorityLeastUsed { load, degradation },
        Kind::RandomizedLeastUsedDegradation => P::RandomizedLeastUsedDegradation { load, degradation },
        Kind::PriorityLeastUsedDegradation => P::PriorityLeastUsedDegradation { load, degradation },
        Kind::RandomizedPriorityLeastUsedDegradation => {
            P::RandomizedPriorityLeastUsedDegradation { load, degradation }
        }
        Kind::WeightedRandomDpf => P::WeightedRandomDpf { weight, weight_dpf, distance },
        Kind::LeastUsedDpf => P::LeastUsedDpf { load, load_dpf, distance },
        Kind::LeastUsedDegradationDpf => P::LeastUsedDegradationDpf { load, degradation, load_dpf, distance },
        Kind::Unknown(policy_type) => {
            let value = carried.get(values[MAIN] as usize).map(|value| value.to_vec());
            P::Unknown { policy_type, value: value.unwrap_or_default() }
        }
    }
}

/// Whether nothing but the distance changed.
pub(super) fn differ_in_distance_only(old: &Values, new: &Values) -> bool {
    old[..3] == new[..3] && old[3] != new[3]
}

impl Kind {
    /// Whether elements are drawn by chance; the others are chosen in an order.
    pub(super) fn is_random(self) -> bool {
        matches!(
            self,
            Kind::Random
                | Kind::WeightedRandom
                | Kind::RandomizedLeastUsed
                | Kind::RandomizedPriorityLeastUsed
                | Kind::RandomizedLeastUsedDegradation
                | Kind::RandomizedPriorityLeastUsedDegradation
                | Kind::WeightedRandomDpf
        )
    }

    /// Whether each selection makes an element look more loaded until it reports its load again.
    pub(super) fn degrades(self) -> bool {
        matches!(
            self,
            Kind::LeastUsedDegradation
                | Kind::PriorityLeastUsedDegradation
                | Kind::LeastUsedDegradationDpf
                | Kind::RandomizedLeastUsedDegradation
                | Kind::RandomizedPriorityLeastUsedDegradation
        )
    }

    /// How many of the selected count as used where the caller does not say. Every one that is returned counts
    /// where that says something of its load (RFC 5356 section 5.2.2); a circular list advances by one (4.1.2).
    pub(super) fn default_increment(self) -> usize {
        match self {
            Kind::Random | Kind::WeightedRandom | Kind::WeightedRandomDpf => 0,
            _ if self.degrades() => usize::MAX,
            _ => 1,
        }
    }

    /// Sort key of an ordered policy other than weighted round robin: the smallest is chosen first,
    /// equals take turns. Sums may exceed a load of 100 %: overloaded elements keep their order.
    pub(super) fn rank(self, values: &Values, used: u32) -> u64 {
        let v = values.map(u64::from);
        let degraded = v[DEGRADATION] * u64::from(used);
        match self {
            Kind::Priority => u64::from(u32::MAX) - v[MAIN],
            Kind::LeastUsed => v[MAIN],
            Kind::LeastUsedDegradation => v[MAIN] + degraded,
            Kind::PriorityLeastUsed => v[MAIN] + v[DEGRADATION],
            Kind::PriorityLeastUsedDegradation => (v[MAIN] + v[DEGRADATION]).saturating_add(degraded),
            Kind::LeastUsedDpf => v[MAIN].saturating_add(v[PENALTY] * v[DISTANCE]),
            Kind::LeastUsedDegradationDpf => (v[MAIN] + degraded).saturating_add(v[PENALTY] * v[DISTANCE]),
            _ => 0,
        }
    }

    /// Weight in the draw of a random policy. An element of weight 0 is drawn only where no other is
    /// left, and then all such have equal chances.
    pub(super) fn weight(self, values: &Values, used: u32) -> u32 {
        let v = values.map(u64::from);
        let unload = |load: u64| u64::from(u32::MAX).saturating_sub(load) as u32;
        let degraded = v[DEGRADATION] * u64::from(used);
        match self {
            Kind::WeightedRandom => values[MAIN],
            Kind::WeightedRandomDpf => weight_at_distance(values),
            Kind::RandomizedLeastUsed => unload(v[MAIN]),
            Kind::RandomizedPriorityLeastUsed => unload(v[MAIN] + v[DEGRADATION]),
            Kind::RandomizedLeastUsedDegradation => unload(v[MAIN] + degraded),
            Kind::RandomizedPriorityLeastUsedDegradation => {
                unload((v[MAIN] + v[DEGRADATION]).saturating_add(degraded))
            }
            _ => 0,
        }
    }
}

/// weight · (1 − distance · DPF), rounded; distance alone never makes an element useless.
fn weight_at_distance(values: &Values) -> u32 {
    let v = values.map(u128::from);
    let whole = u128::from(u32::MAX);
    let penalty = (v[MAIN] * v[PENALTY] * v[DISTANCE] + whole / 2) / whole;
    let rest = v[MAIN].saturating_sub(penalty) as u32;
    rest.max(values[MAIN].min(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_add_up_without_wrapping() {
        let full = [u32::MAX; 4];
        for kind in [
            Kind::LeastUsedDegradation,
            Kind::PriorityLeastUsed,
            Kind::PriorityLeastUsedDegradation,
            Kind::LeastUsedDpf,
            Kind::LeastUsedDegradationDpf,
        ] {
            assert!(kind.rank(&full, u32::MAX) > kind.rank(&[u32::MAX - 1, 0, 0, 0], 0), "{kind:?}");
        }
        for kind in [
            Kind::RandomizedLeastUsed,
            Kind::RandomizedPriorityLeastUsed,
            Kind::RandomizedLeastUsedDegradation,
            Kind::RandomizedPriorityLeastUsedDegradation,
        ] {
            assert_eq!(kind.weight(&full, u32::MAX), 0, "{kind:?}");
            assert_eq!(kind.weight(&[0; 4], 0), u32::MAX, "{kind:?}");
        }
    }

    #[test]
    fn distance_lowers_a_weight_but_not_to_nothing() {
        let weight = |weight, dpf, distance| Kind::WeightedRandomDpf.weight(&[weight, 0, dpf, distance], 0);
        // 0.001 per millisecond.
        let permille = u32::MAX / 1000;
        assert_eq!(weight(1000, permille, 0), 1000);
        assert_eq!(weight(1000, permille, 100), 900);
        assert_eq!(weight(1000, permille, 1000), 1, "exactly used up");
        assert_eq!(weight(1000, permille, 5000), 1, "more than used up");
        assert_eq!(weight(0, permille, 100), 0, "was useless before");
        assert_eq!(weight(u32::MAX, u32::MAX, u32::MAX), 1);
    }

    #[test]
    fn distance_adds_to_a_load() {
        // Load 10 + 50 ms * 3 per ms.
        assert_eq!(Kind::LeastUsedDpf.rank(&[10, 0, 3, 50], 0), 160);
        assert_eq!(Kind::LeastUsedDegradationDpf.rank(&[10, 7, 3, 50], 2), 174);
        assert_eq!(Kind::PriorityLeastUsed.rank(&[10, 7, 0, 0], 2), 17);
        assert_eq!(Kind::PriorityLeastUsedDegradation.rank(&[10, 7, 0, 0], 2), 31);
    }
}
