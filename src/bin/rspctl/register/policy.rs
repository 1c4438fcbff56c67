//! Policies as they are written: `NAME[:VALUE[:VALUE]]`.

use rserpool::wire::Policy;

/// With the names that are close to a mistyped one.
pub fn parse(text: &str) -> Result<Policy, String> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let mut values = Vec::new();
    for part in parts {
        values.push(part.parse::<u32>().map_err(|_| format!("{part}: not a number from 0 to {}", u32::MAX))?);
    }
    let known = NAMES.iter().find(|known| known.eq_ignore_ascii_case(name));
    let Some(known) = known else {
        let near = NAMES.iter().max_by(|a, b| likeness(a, name).total_cmp(&likeness(b, name)));
        let hint =
            near.filter(|near| likeness(near, name) > 0.7).map(|near| format!("; did you mean {near}?"));
        let hint = hint.unwrap_or_else(|| format!("; there are {}", NAMES.join(", ")));
        return Err(format!("unknown policy {name}{hint}"));
    };
    let wanted = values.len();
    let mut values = values.into_iter();
    let policy = make(known, &mut values);
    match values.next() {
        None => Ok(policy),
        Some(_) => Err(format!("{known} has {} values, not {wanted}", wanted - 1 - values.len())),
    }
}

fn likeness(known: &str, name: &str) -> f64 {
    strsim::jaro_winkler(&known.to_ascii_lowercase(), &name.to_ascii_lowercase())
}

const NAMES: [&str; 13] = [
    "RoundRobin",
    "WeightedRoundRobin",
    "Random",
    "WeightedRandom",
    "Priority",
    "LeastUsed",
    "LeastUsedDegradation",
    "PriorityLeastUsed",
    "RandomizedLeastUsed",
    "RandomizedPriorityLeastUsed",
    "RandomizedLeastUsedDegradation",
    "PriorityLeastUsedDegradation",
    "RandomizedPriorityLeastUsedDegradation",
];

/// A policy of [`NAMES`] with as many of the values as it has.
fn make(name: &str, values: &mut impl Iterator<Item = u32>) -> Policy {
    let mut value = |default: u32| values.next().unwrap_or(default);
    match name {
        "WeightedRoundRobin" => Policy::WeightedRoundRobin { weight: value(1) },
        "Random" => Policy::Random,
        "WeightedRandom" => Policy::WeightedRandom { weight: value(1) },
        "Priority" => Policy::Priority { priority: value(0) },
        "LeastUsed" => Policy::LeastUsed { load: value(0) },
        "LeastUsedDegradation" => Policy::LeastUsedDegradation { load: value(0), degradation: value(0) },
        "PriorityLeastUsed" => Policy::PriorityLeastUsed { load: value(0), degradation: value(0) },
        "RandomizedLeastUsed" => Policy::RandomizedLeastUsed { load: value(0) },
        "RandomizedPriorityLeastUsed" => {
            Policy::RandomizedPriorityLeastUsed { load: value(0), degradation: value(0) }
        }
        "RandomizedLeastUsedDegradation" => {
            Policy::RandomizedLeastUsedDegradation { load: value(0), degradation: value(0) }
        }
        "PriorityLeastUsedDegradation" => {
            Policy::PriorityLeastUsedDegradation { load: value(0), degradation: value(0) }
        }
        "RandomizedPriorityLeastUsedDegradation" => {
            Policy::RandomizedPriorityLeastUsedDegradation { load: value(0), degradation: value(0) }
        }
        _ => Policy::RoundRobin,
    }
}

/// A policy with that weight; round robin, which has none, becomes its weighted sister. `None`: it has no weight.
pub fn weighted(policy: Policy, weight: u32) -> Option<Policy> {
    match policy {
        Policy::RoundRobin | Policy::WeightedRoundRobin { .. } => Some(Policy::WeightedRoundRobin { weight }),
        Policy::WeightedRandom { .. } => Some(Policy::WeightedRandom { weight }),
        _ => None,
    }
}

/// The load of a policy that has one.
pub fn load_mut(policy: &mut Policy) -> Option<&mut u32> {
    match policy {
        Policy::LeastUsed { load }
        | Policy::LeastUsedDegradation { load, .. }
        | Policy::PriorityLeastUsed { load, .. }
        | Policy::RandomizedLeastUsed { load }
        | Policy::RandomizedPriorityLeastUsed { load, .. }
        | Policy::RandomizedLeastUsedDegradation { load, .. }
        | Policy::PriorityLeastUsedDegradation { load, .. }
        | Policy::RandomizedPriorityLeastUsedDegradation { load, .. } => Some(load),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read() {
        assert_eq!(parse("RoundRobin"), Ok(Policy::RoundRobin));
        assert_eq!(parse("weightedrandom:10"), Ok(Policy::WeightedRandom { weight: 10 }));
        assert_eq!(
            parse("LeastUsedDegradation:1:2"),
            Ok(Policy::LeastUsedDegradation { load: 1, degradation: 2 })
        );
        for name in NAMES {
            assert_eq!(parse(name).unwrap().name(), Some(name));
        }
    }

    #[test]
    fn mistakes_are_explained() {
        assert!(parse("RoundRobbin").unwrap_err().ends_with("did you mean RoundRobin?"));
        assert!(parse("xyz").unwrap_err().contains("there are RoundRobin, "));
        assert_eq!(parse("LeastUsed:1:2").unwrap_err(), "LeastUsed has 1 values, not 2");
        assert!(parse("LeastUsed:5000000000").unwrap_err().contains("not a number"));
    }
}
