//! `rsp_getpolicybytype`, `rsp_getpolicybyname`, and `struct rsp_loadinfo` as a policy.

use super::abi::rsp_loadinfo;
use super::guard::{Errno, guard};
use super::policytypes::*;
use crate::wire::{Policy, PolicyType};
use libc::{c_char, c_uint};
use std::ffi::{CStr, CString};
use std::sync::LazyLock;

/// The names of [`PolicyType`] as C has them.
static NAMES: LazyLock<Vec<(u32, CString)>> = LazyLock::new(|| {
    // None has a zero byte in it.
    let named = |&(policy, name): &(PolicyType, &str)| Some((policy.0, CString::new(name).ok()?));
    PolicyType::ALL.iter().filter_map(named).collect()
});

/// The name of a policy type (PPT_*, RFC 5356); NULL if there is no such policy. Works at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getpolicybytype(policyType: c_uint) -> *const c_char {
    guard(|| {
        let found = NAMES.iter().find(|(known, _)| *known == policyType);
        Ok(found.map_or(std::ptr::null(), |(_, name)| name.as_ptr()))
    })
}

/// The policy type (PPT_*) of a name, upper and lower case mattering; PPT_UNDEFINED if there is no such
/// policy. Works at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsp_getpolicybyname(policyName: *const c_char) -> c_uint {
    guard(|| {
        if policyName.is_null() {
            return Ok(PPT_UNDEFINED);
        }
        // SAFETY: the caller's string.
        let name = unsafe { CStr::from_ptr(policyName) };
        Ok(NAMES
            .iter()
            .find(|(_, known)| known.as_c_str() == name)
            .map_or(PPT_UNDEFINED, |(policy, _)| *policy))
    })
}

/// The policy that `info` describes; `None` for one that no message can carry.
pub(super) fn policy(info: &rsp_loadinfo) -> Option<Policy> {
    let rsp_loadinfo { rli_weight: weight, rli_load: load, rli_load_degradation: degradation, .. } = *info;
    let (weight_dpf, load_dpf, distance) = (info.rli_weight_dpf, info.rli_load_dpf, 0);
    Some(match info.rli_policy {
        PPT_ROUNDROBIN => Policy::RoundRobin,
        PPT_WEIGHTED_ROUNDROBIN => Policy::WeightedRoundRobin { weight },
        PPT_RANDOM => Policy::Random,
        PPT_WEIGHTED_RANDOM => Policy::WeightedRandom { weight },
        PPT_PRIORITY => Policy::Priority { priority: weight },
        PPT_LEASTUSED => Policy::LeastUsed { load },
        PPT_LEASTUSED_DEGRADATION => Policy::LeastUsedDegradation { load, degradation },
        PPT_PRIORITY_LEASTUSED => Policy::PriorityLeastUsed { load, degradation },
        PPT_RANDOMIZED_LEASTUSED => Policy::RandomizedLeastUsed { load },
        PPT_RANDOMIZED_PRIORITY_LEASTUSED => Policy::RandomizedPriorityLeastUsed { load, degradation },
        PPT_RANDOMIZED_LEASTUSED_DEGRADATION => Policy::RandomizedLeastUsedDegradation { load, degradation },
        PPT_PRIORITY_LEASTUSED_DEGRADATION => Policy::PriorityLeastUsedDegradation { load, degradation },
        PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION => {
            Policy::RandomizedPriorityLeastUsedDegradation { load, degradation }
        }
        PPT_WEIGHTED_RANDOM_DPF => Policy::WeightedRandomDpf { weight, weight_dpf, distance },
        PPT_LEASTUSED_DPF => Policy::LeastUsedDpf { load, load_dpf, distance },
        PPT_LEASTUSED_DEGRADATION_DPF => {
            Policy::LeastUsedDegradationDpf { load, degradation, load_dpf, distance }
        }
        _ => return None,
    })
}

/// [`policy`] of a pointer: round robin for NULL, EINVAL for what can't be.
pub(super) unsafe fn policy_or_default(info: *const rsp_loadinfo) -> Result<Policy, Errno> {
    // SAFETY: NULL or the caller's.
    match unsafe { info.as_ref() } {
        None => Ok(Policy::RoundRobin),
        Some(info) => policy(info).ok_or(Errno(libc::EINVAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_numbers_are_the_wires() {
        for (number, name) in [
            (PPT_ROUNDROBIN, "RoundRobin"),
            (PPT_WEIGHTED_ROUNDROBIN, "WeightedRoundRobin"),
            (PPT_RANDOM, "Random"),
            (PPT_WEIGHTED_RANDOM, "WeightedRandom"),
            (PPT_PRIORITY, "Priority"),
            (PPT_LEASTUSED, "LeastUsed"),
            (PPT_LEASTUSED_DEGRADATION, "LeastUsedDegradation"),
            (PPT_PRIORITY_LEASTUSED, "PriorityLeastUsed"),
            (PPT_RANDOMIZED_LEASTUSED, "RandomizedLeastUsed"),
            (PPT_RANDOMIZED_PRIORITY_LEASTUSED, "RandomizedPriorityLeastUsed"),
            (PPT_RANDOMIZED_LEASTUSED_DEGRADATION, "RandomizedLeastUsedDegradation"),
            (PPT_PRIORITY_LEASTUSED_DEGRADATION, "PriorityLeastUsedDegradation"),
            (PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION, "RandomizedPriorityLeastUsedDegradation"),
            (PPT_WEIGHTED_RANDOM_DPF, "WeightedRandomDPF"),
            (PPT_LEASTUSED_DPF, "LeastUsedDPF"),
            (PPT_LEASTUSED_DEGRADATION_DPF, "LeastUsedDegradationDPF"),
            (PPT_PRIORITY_LEASTUSED_DPF, "PriorityLeastUsedDPF"),
            (PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF, "PriorityLeastUsedDegradationDPF"),
        ] {
            assert_eq!(PolicyType::by_name(name), Some(PolicyType(number)), "{name}");
        }
        assert_eq!(NAMES.len(), PolicyType::ALL.len());
    }

    #[test]
    fn names_and_types_match() {
        for (policy_type, name) in NAMES.iter() {
            unsafe {
                assert_eq!(rsp_getpolicybyname(name.as_ptr()), *policy_type);
                assert_eq!(CStr::from_ptr(rsp_getpolicybytype(*policy_type)), name.as_c_str());
            }
        }
        unsafe {
            assert_eq!(rsp_getpolicybyname(c"roundrobin".as_ptr()), PPT_UNDEFINED);
            assert_eq!(rsp_getpolicybyname(std::ptr::null()), PPT_UNDEFINED);
            assert!(rsp_getpolicybytype(0).is_null());
        }
    }

    #[test]
    fn all_but_two_named_policies_can_be_sent() {
        let sendable = |policy_type| {
            policy(&rsp_loadinfo { rli_policy: policy_type, rli_weight: 1, ..Default::default() }).is_some()
        };
        for &(policy_type, ref name) in NAMES.iter() {
            let no = [PPT_PRIORITY_LEASTUSED_DPF, PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF];
            assert_eq!(sendable(policy_type), !no.contains(&policy_type), "{name:?}");
        }
        assert!(!sendable(PPT_UNDEFINED));
    }
}
