//! What each policy means: how its elements are ordered or weighed (RFC 5356, and rsplib's private
//! policies).

use super::chunks::Places;
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
pub(super) enum Rule {
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
pub(super) type Carried = Places<Box<[u8]>>;

/// Splits a policy parameter, of an unknown policy without what it says; `None` for the types that RFC 5356
/// section 7.1 calls invalid.
pub(super) fn split(policy: &Policy) -> Option<(Rule, Values)> {
    use Policy as P;
    Some(match *policy {
        P::RoundRobin => (Rule::RoundRobin, [0; 4]),
        P::WeightedRoundRobin { weight } => (Rule::WeightedRoundRobin, [weight, 0, 0, 0]),
        P::Random => (Rule::Random, [0; 4]),
        P::WeightedRandom { weight } => (Rule::WeightedRandom, [weight, 0, 0, 0]),
        P::Priority { priority } => (Rule::Priority, [priority, 0, 0, 0]),
        P::LeastUsed { load } => (Rule::LeastUsed, [load, 0, 0, 0]),
        P::LeastUsedDegradation { load, degradation } => {
            (Rule::LeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::PriorityLeastUsed { load, degradation } => (Rule::PriorityLeastUsed, [load, degradation, 0, 0]),
        P::RandomizedLeastUsed { load } => (Rule::RandomizedLeastUsed, [load, 0, 0, 0]),
        P::RandomizedPriorityLeastUsed { load, degradation } => {
            (Rule::RandomizedPriorityLeastUsed, [load, degradation, 0, 0])
        }
        P::RandomizedLeastUsedDegradation { load, degradation } => {
            (Rule::RandomizedLeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::PriorityLeastUsedDegradation { load, degradation } => {
            (Rule::PriorityLeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::RandomizedPriorityLeastUsedDegradation { load, degradation } => {
            (Rule::RandomizedPriorityLeastUsedDegradation, [load, degradation, 0, 0])
        }
        P::WeightedRandomDpf { weight, weight_dpf, distance } => {
            (Rule::WeightedRandomDpf, [weight, 0, weight_dpf, distance])
        }
        P::LeastUsedDpf { load, load_dpf, distance } => (Rule::LeastUsedDpf, [load, 0, load_dpf, distance]),
        P::LeastUsedDegradationDpf { load, degradation, load_dpf, distance } => {
            (Rule::LeastUsedDegradationDpf, [load, degradation, load_dpf, distance])
        }
        P::Unknown { policy_type: 0 | 0x4000_0000, .. } => return None,
        P::Unknown { policy_type, .. } => (Rule::Unknown(policy_type), [0; 4]),
    })
}

/// The reverse of [`split`].
pub(super) fn join(kind: Rule, values: &Values, carried: &Carried) -> Policy {
    use Policy as P;
    let [weight, degradation, weight_dpf, distance] = *values;
    let (load, load_dpf, priority) = (weight, weight_dpf, weight);
    match kind {
        Rule::RoundRobin => P::RoundRobin,
        Rule::WeightedRoundRobin => P::WeightedRoundRobin { weight },
        Rule::Random => P::Random,
        Rule::WeightedRandom => P::WeightedRandom { weight },
        Rule::Priority => P::Priority { priority },
        Rule::LeastUsed => P::LeastUsed { load },
        Rule::LeastUsedDegradation => P::LeastUsedDegradation { load, degradation },
        Rule::PriorityLeastUsed => P::PriorityLeastUsed { load, degradation },
        Rule::RandomizedLeastUsed => P::RandomizedLeastUsed { load },
        Rule::RandomizedPriorityLeastUsed => P::RandomizedPriorityLeastUsed { load, degradation },
        Rule::RandomizedLeastUsedDegradation => P::RandomizedLeastUsedDegradation { load, degradation },
        Rule::PriorityLeastUsedDegradation => P::PriorityLeastUsedDegradation { load, degradation },
        Rule::RandomizedPriorityLeastUsedDegradation => {
            P::RandomizedPriorityLeastUsedDegradation { load, degradation }
        }
        Rule::WeightedRandomDpf => P::WeightedRandomDpf { weight, weight_dpf, distance },
        Rule::LeastUsedDpf => P::LeastUsedDpf { load, load_dpf, distance },
        Rule::LeastUsedDegradationDpf => P::LeastUsedDegradationDpf { load, degradation, load_dpf, distance },
        Rule::Unknown(policy_type) => {
            let value = carried.get(values[MAIN]).map(|value| value.to_vec());
            P::Unknown { policy_type, value: value.unwrap_or_default() }
        }
    }
}

/// Whether nothing but the distance changed.
pub(super) fn differ_in_distance_only(old: &Values, new: &Values) -> bool {
    old[..3] == new[..3] && old[3] != new[3]
}

impl Rule {
    /// Whether elements are drawn by chance; the others are chosen in an order.
    pub(super) fn is_random(self) -> bool {
        matches!(
            self,
            Rule::Random
                | Rule::WeightedRandom
                | Rule::RandomizedLeastUsed
                | Rule::RandomizedPriorityLeastUsed
                | Rule::RandomizedLeastUsedDegradation
                | Rule::RandomizedPriorityLeastUsedDegradation
                | Rule::WeightedRandomDpf
        )
    }

    /// Whether each selection makes an element look more loaded until it reports its load again.
    pub(super) fn degrades(self) -> bool {
        matches!(
            self,
            Rule::LeastUsedDegradation
                | Rule::PriorityLeastUsedDegradation
                | Rule::LeastUsedDegradationDpf
                | Rule::RandomizedLeastUsedDegradation
                | Rule::RandomizedPriorityLeastUsedDegradation
        )
    }

    /// How many of the selected count as used where the caller does not say. Every one that is returned counts
    /// where that says something of its load (RFC 5356 section 5.2.2); a circular list advances by one (4.1.2).
    pub(super) fn default_increment(self) -> usize {
        match self {
            Rule::Random | Rule::WeightedRandom | Rule::WeightedRandomDpf => 0,
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
            Rule::Priority => u64::from(u32::MAX) - v[MAIN],
            Rule::LeastUsed => v[MAIN],
            Rule::LeastUsedDegradation => v[MAIN] + degraded,
            Rule::PriorityLeastUsed => v[MAIN] + v[DEGRADATION],
            Rule::PriorityLeastUsedDegradation => (v[MAIN] + v[DEGRADATION]).saturating_add(degraded),
            Rule::LeastUsedDpf => v[MAIN].saturating_add(v[PENALTY] * v[DISTANCE]),
            Rule::LeastUsedDegradationDpf => (v[MAIN] + degraded).saturating_add(v[PENALTY] * v[DISTANCE]),
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
            Rule::WeightedRandom => values[MAIN],
            Rule::WeightedRandomDpf => weight_at_distance(values),
            Rule::RandomizedLeastUsed => unload(v[MAIN]),
            Rule::RandomizedPriorityLeastUsed => unload(v[MAIN] + v[DEGRADATION]),
            Rule::RandomizedLeastUsedDegradation => unload(v[MAIN] + degraded),
            Rule::RandomizedPriorityLeastUsedDegradation => {
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
            Rule::LeastUsedDegradation,
            Rule::PriorityLeastUsed,
            Rule::PriorityLeastUsedDegradation,
            Rule::LeastUsedDpf,
            Rule::LeastUsedDegradationDpf,
        ] {
            assert!(kind.rank(&full, u32::MAX) > kind.rank(&[u32::MAX - 1, 0, 0, 0], 0), "{kind:?}");
        }
        for kind in [
            Rule::RandomizedLeastUsed,
            Rule::RandomizedPriorityLeastUsed,
            Rule::RandomizedLeastUsedDegradation,
            Rule::RandomizedPriorityLeastUsedDegradation,
        ] {
            assert_eq!(kind.weight(&full, u32::MAX), 0, "{kind:?}");
            assert_eq!(kind.weight(&[0; 4], 0), u32::MAX, "{kind:?}");
        }
    }

    #[test]
    fn distance_lowers_a_weight_but_not_to_nothing() {
        let weight = |weight, dpf, distance| Rule::WeightedRandomDpf.weight(&[weight, 0, dpf, distance], 0);
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
        assert_eq!(Rule::LeastUsedDpf.rank(&[10, 0, 3, 50], 0), 160);
        assert_eq!(Rule::LeastUsedDegradationDpf.rank(&[10, 7, 3, 50], 2), 174);
        assert_eq!(Rule::PriorityLeastUsed.rank(&[10, 7, 0, 0], 2), 17);
        assert_eq!(Rule::PriorityLeastUsedDegradation.rank(&[10, 7, 0, 0], 2), 31);
    }
}
