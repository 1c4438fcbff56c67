//! `rsp_getpolicybytype`, `rsp_getpolicybyname`, and `struct rsp_loadinfo` as a policy.

use super::abi::rsp_loadinfo;
use super::guard::{Errno, guard};
use super::policytypes::*;
use crate::wire::Policy;
use libc::{c_char, c_uint};
use std::ffi::CStr;

const NAMES: [(u32, &CStr); 18] = [
    (PPT_ROUNDROBIN, c"RoundRobin"),
    (PPT_WEIGHTED_ROUNDROBIN, c"WeightedRoundRobin"),
    (PPT_RANDOM, c"Random"),
    (PPT_WEIGHTED_RANDOM, c"WeightedRandom"),
    (PPT_PRIORITY, c"Priority"),
    (PPT_LEASTUSED, c"LeastUsed"),
    (PPT_LEASTUSED_DEGRADATION, c"LeastUsedDegradation"),
    (PPT_PRIORITY_LEASTUSED, c"PriorityLeastUsed"),
    (PPT_RANDOMIZED_LEASTUSED, c"RandomizedLeastUsed"),
    (PPT_RANDOMIZED_PRIORITY_LEASTUSED, c"RandomizedPriorityLeastUsed"),
    (PPT_RANDOMIZED_LEASTUSED_DEGRADATION, c"RandomizedLeastUsedDegradation"),
    (PPT_PRIORITY_LEASTUSED_DEGRADATION, c"PriorityLeastUsedDegradation"),
    (PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION, c"RandomizedPriorityLeastUsedDegradation"),
    (PPT_WEIGHTED_RANDOM_DPF, c"WeightedRandomDPF"),
    (PPT_LEASTUSED_DPF, c"LeastUsedDPF"),
    (PPT_LEASTUSED_DEGRADATION_DPF, c"LeastUsedDegradationDPF"),
    (PPT_PRIORITY_LEASTUSED_DPF, c"PriorityLeastUsedDPF"),
    (PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF, c"PriorityLeastUsedDegradationDPF"),
];

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
        Ok(NAMES.iter().find(|(_, known)| *known == name).map_or(PPT_UNDEFINED, |(policy, _)| *policy))
    })
}

/// A policy's name, or its number.
pub(super) fn name(policy_type: u32) -> String {
    let found = NAMES.iter().find(|(known, _)| *known == policy_type);
    found.map_or_else(|| format!("{policy_type:#x}"), |(_, name)| name.to_string_lossy().into_owned())
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
    fn names_and_types_match() {
        for (policy_type, name) in NAMES {
            unsafe {
                assert_eq!(rsp_getpolicybyname(name.as_ptr()), policy_type);
                assert_eq!(CStr::from_ptr(rsp_getpolicybytype(policy_type)), name);
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
        for (policy_type, name) in NAMES {
            let no = [PPT_PRIORITY_LEASTUSED_DPF, PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF];
            assert_eq!(sendable(policy_type), !no.contains(&policy_type), "{name:?}");
        }
        assert!(!sendable(PPT_UNDEFINED));
    }
}
