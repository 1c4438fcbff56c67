//! Session parameters: SCTP's, and what they are for TCP.

use crate::transport::stream::Liveness;
use std::time::Duration;

/// How a session's connection notices that its peer is gone (RFC 4960's names; milliseconds and counts). As a
/// change, 0 leaves a value as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct SessionParameters {
    pub rto_initial: u32,
    pub rto_min: u32,
    pub rto_max: u32,
    pub assoc_max_rxt: u32,
    pub path_max_rxt: u32,
    pub hb_interval: u32,
}

impl SessionParameters {
    /// These, with those of `change` that are not 0.
    pub(crate) fn changed(self, change: SessionParameters) -> SessionParameters {
        let pick = |old: u32, new: u32| if new == 0 { old } else { new };
        SessionParameters {
            rto_initial: pick(self.rto_initial, change.rto_initial),
            rto_min: pick(self.rto_min, change.rto_min),
            rto_max: pick(self.rto_max, change.rto_max),
            assoc_max_rxt: pick(self.assoc_max_rxt, change.assoc_max_rxt),
            path_max_rxt: pick(self.path_max_rxt, change.path_max_rxt),
            hb_interval: pick(self.hb_interval, change.hb_interval),
        }
    }
}

/// rsplib's values (milliseconds).
pub(crate) const DEFAULT_PARAMETERS: SessionParameters = SessionParameters {
    rto_initial: 2000,
    rto_min: 1000,
    rto_max: 5000,
    assoc_max_rxt: 8,
    path_max_rxt: 3,
    hb_interval: 15_000,
};

/// SCTP's parameters for TCP: a heartbeat is a keep-alive probe, and the peer's host may answer nothing as long as SCTP
/// would retransmit on one path.
pub(crate) fn liveness(parameters: &SessionParameters) -> Liveness {
    let milliseconds = |value: u32| Duration::from_millis(u64::from(value));
    let second = Duration::from_secs(1);
    let longest = parameters.rto_max.max(parameters.rto_min);
    let mut rto = u64::from(parameters.rto_initial.clamp(parameters.rto_min.min(longest), longest));
    let mut total = 0;
    for _ in 0..=parameters.path_max_rxt.min(100) {
        total += rto;
        rto = (rto * 2).min(u64::from(longest));
    }
    Liveness {
        // The kernel takes up to 32767 seconds and 127 probes.
        probe_after: milliseconds(parameters.hb_interval).clamp(second, 32_767 * second),
        probe_interval: milliseconds(longest).clamp(second, 32_767 * second),
        probes: parameters.path_max_rxt.clamp(1, 100),
        patience: Duration::from_millis(total.clamp(100, u64::from(u32::MAX >> 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_time_outs() {
        let usual = liveness(&DEFAULT_PARAMETERS);
        // 2 + 4 + 5 + 5 seconds.
        assert_eq!(usual.patience, Duration::from_secs(16));
        assert_eq!((usual.probe_after, usual.probes), (Duration::from_secs(15), 3));
        let extreme = SessionParameters {
            rto_initial: u32::MAX,
            rto_min: u32::MAX,
            rto_max: 1,
            assoc_max_rxt: u32::MAX,
            path_max_rxt: u32::MAX,
            hb_interval: 1,
        };
        let liveness = liveness(&extreme);
        assert_eq!((liveness.probes, liveness.probe_after), (100, Duration::from_secs(1)));
    }
}
