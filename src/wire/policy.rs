//! Pool member selection policies: RFC 5356 and rsplib's private ones.

use super::cause::DecodeError;
use super::code::{ParamType, code_points};
use super::reader::{Param, Reader};
use super::writer::{Writer, param_len};
use std::fmt;

/// A pool member selection policy parameter: the policy and one element's values for it.
///
/// Loads, degradations and distance penalty factors are fractions of 2^32-1; distances are
/// milliseconds; of priorities, the larger is preferred.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Policy {
    RoundRobin,
    WeightedRoundRobin {
        weight: u32,
    },
    Random,
    WeightedRandom {
        weight: u32,
    },
    Priority {
        priority: u32,
    },
    LeastUsed {
        load: u32,
    },
    LeastUsedDegradation {
        load: u32,
        degradation: u32,
    },
    PriorityLeastUsed {
        load: u32,
        degradation: u32,
    },
    RandomizedLeastUsed {
        load: u32,
    },
    RandomizedPriorityLeastUsed {
        load: u32,
        degradation: u32,
    },
    RandomizedLeastUsedDegradation {
        load: u32,
        degradation: u32,
    },
    PriorityLeastUsedDegradation {
        load: u32,
        degradation: u32,
    },
    RandomizedPriorityLeastUsedDegradation {
        load: u32,
        degradation: u32,
    },
    WeightedRandomDpf {
        weight: u32,
        weight_dpf: u32,
        distance: u32,
    },
    LeastUsedDpf {
        load: u32,
        load_dpf: u32,
        distance: u32,
    },
    LeastUsedDegradationDpf {
        load: u32,
        degradation: u32,
        load_dpf: u32,
        distance: u32,
    },
    /// A policy type nobody here knows, kept byte for byte.
    Unknown {
        policy_type: u32,
        value: Vec<u8>,
    },
}

code_points! {
    /// A policy type: RFC 5356, from 0xb0001001 on rsplib's own. The last two have a name but no
    /// encoding: rsplib knows what they are called, and refuses them.
    PolicyType: u32 {
        ROUND_ROBIN = 0x0000_0001 "RoundRobin",
        WEIGHTED_ROUND_ROBIN = 0x0000_0002 "WeightedRoundRobin",
        RANDOM = 0x0000_0003 "Random",
        WEIGHTED_RANDOM = 0x0000_0004 "WeightedRandom",
        PRIORITY = 0x0000_0005 "Priority",
        LEAST_USED = 0x4000_0001 "LeastUsed",
        LEAST_USED_DEGRADATION = 0x4000_0002 "LeastUsedDegradation",
        PRIORITY_LEAST_USED = 0x4000_0003 "PriorityLeastUsed",
        RANDOMIZED_LEAST_USED = 0x4000_0004 "RandomizedLeastUsed",
        RANDOMIZED_PRIORITY_LEAST_USED = 0xb000_1001 "RandomizedPriorityLeastUsed",
        RANDOMIZED_LEAST_USED_DEGRADATION = 0xb000_1002 "RandomizedLeastUsedDegradation",
        PRIORITY_LEAST_USED_DEGRADATION = 0xb000_1003 "PriorityLeastUsedDegradation",
        RANDOMIZED_PRIORITY_LEAST_USED_DEGRADATION = 0xb000_1004 "RandomizedPriorityLeastUsedDegradation",
        WEIGHTED_RANDOM_DPF = 0xb000_2001 "WeightedRandomDPF",
        LEAST_USED_DPF = 0xb000_2002 "LeastUsedDPF",
        LEAST_USED_DEGRADATION_DPF = 0xb000_2003 "LeastUsedDegradationDPF",
        PRIORITY_LEAST_USED_DPF = 0xb000_2004 "PriorityLeastUsedDPF",
        PRIORITY_LEAST_USED_DEGRADATION_DPF = 0xb000_2005 "PriorityLeastUsedDegradationDPF",
    }
}

/// The name of a policy type, as the classic API spells it (`RoundRobin`).
pub fn policy_name(policy_type: u32) -> Option<&'static str> {
    PolicyType(policy_type).name()
}

/// The policy type of that exact name.
pub fn policy_type_by_name(name: &str) -> Option<u32> {
    PolicyType::by_name(name).map(|found| found.0)
}

/// One table for type code, encoding and decoding: the fields in the order of the wire.
macro_rules! policies {
    ($($variant:ident $code:ident ($($field:ident)*);)*) => {
        impl Policy {
            /// The policy type's code point.
            pub fn type_code(&self) -> u32 {
                match self {
                    $(Policy::$variant { .. } => PolicyType::$code.0,)*
                    Policy::Unknown { policy_type, .. } => *policy_type,
                }
            }

            /// Calls `see` with every value's name and value, in the order of the wire.
            pub fn each_value(&self, mut see: impl FnMut(&'static str, u32)) {
                match self {
                    $(Policy::$variant { $($field),* } => { $(see(stringify!($field), *$field);)* })*
                    Policy::Unknown { .. } => {}
                }
                let _ = &mut see;
            }

            /// Reads the value of a policy parameter. Bytes behind the known fields are passed over.
            fn read(value: &mut Reader<'_>) -> Result<Policy, DecodeError> {
                let policy_type = value.u32()?;
                Ok(match PolicyType(policy_type) {
                    $(PolicyType::$code => Policy::$variant { $($field: value.u32()?),* },)*
                    _ => Policy::Unknown { policy_type, value: value.rest().to_vec() },
                })
            }
        }
    };
}

policies! {
    RoundRobin ROUND_ROBIN ();
    WeightedRoundRobin WEIGHTED_ROUND_ROBIN (weight);
    Random RANDOM ();
    WeightedRandom WEIGHTED_RANDOM (weight);
    Priority PRIORITY (priority);
    LeastUsed LEAST_USED (load);
    LeastUsedDegradation LEAST_USED_DEGRADATION (load degradation);
    PriorityLeastUsed PRIORITY_LEAST_USED (load degradation);
    RandomizedLeastUsed RANDOMIZED_LEAST_USED (load);
    RandomizedPriorityLeastUsed RANDOMIZED_PRIORITY_LEAST_USED (load degradation);
    RandomizedLeastUsedDegradation RANDOMIZED_LEAST_USED_DEGRADATION (load degradation);
    PriorityLeastUsedDegradation PRIORITY_LEAST_USED_DEGRADATION (load degradation);
    RandomizedPriorityLeastUsedDegradation RANDOMIZED_PRIORITY_LEAST_USED_DEGRADATION (load degradation);
    WeightedRandomDpf WEIGHTED_RANDOM_DPF (weight weight_dpf distance);
    LeastUsedDpf LEAST_USED_DPF (load load_dpf distance);
    LeastUsedDegradationDpf LEAST_USED_DEGRADATION_DPF (load degradation load_dpf distance);
}

impl Policy {
    /// The policy's name; `None` for types nobody here knows.
    pub fn name(&self) -> Option<&'static str> {
        policy_name(self.type_code())
    }

    /// The distance, of a policy that has one.
    pub fn distance_mut(&mut self) -> Option<&mut u32> {
        match self {
            Policy::WeightedRandomDpf { distance, .. }
            | Policy::LeastUsedDpf { distance, .. }
            | Policy::LeastUsedDegradationDpf { distance, .. } => Some(distance),
            _ => None,
        }
    }

    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        let mut values = 0;
        match self {
            Policy::Unknown { value, .. } => values = value.len(),
            _ => self.each_value(|_, _| values += 4),
        }
        param_len(4 + values)
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.param(ParamType::POLICY, |w| {
            w.u32(self.type_code());
            match self {
                Policy::Unknown { value, .. } => w.bytes(value),
                _ => self.each_value(|_, value| w.u32(value)),
            }
        });
    }

    pub(crate) fn decode(mut param: Param<'_>) -> Result<Policy, DecodeError> {
        Policy::read(&mut param.value)
    }
}

/// The name and the values: `WeightedRoundRobin(weight=3)`; loads and the like in percent.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", PolicyType(self.type_code()))?;
        let mut values = String::new();
        match self {
            Policy::Unknown { value, .. } => values.extend(value.iter().map(|byte| format!("{byte:02x}"))),
            _ => self.each_value(|name, value| {
                let comma = if values.is_empty() { "" } else { ", " };
                values += &match name {
                    "weight" | "priority" => format!("{comma}{name}={value}"),
                    "distance" => format!("{comma}{name}={value}ms"),
                    _ => format!("{comma}{name}={:.2}%", f64::from(value) / f64::from(u32::MAX) * 100.0),
                };
            }),
        }
        if values.is_empty() { Ok(()) } else { write!(f, "({values})") }
    }
}
