//! Memory goes back to the kernel after a mass departure. By itself the allocator gives back only what lies at its heap's end,
//! where there is mostly something left. 270 MB of small pieces take 12 ms of processor time, and 50 where one of fifty stays (glibc 2.36).

use rserpool::machine::Time;
use std::time::Duration;

/// So much has to leave.
const EBB: usize = 32 << 20;
/// Between two looks.
const LOOKS: Duration = Duration::from_millis(250);
/// For so long no more of it leaves.
const CALM: Duration = Duration::from_secs(2);
/// Between one time and the next.
const REST: Duration = Duration::from_secs(60);

/// Has all pages that nothing lies in given back to the kernel.
fn gives_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and moves nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How much is kept, more or less, as time goes.
#[derive(Debug, Default)]
pub struct Tide {
    /// Most of it since memory was last given back.
    high: usize,
    /// What there was, but for little, since it last fell.
    level: usize,
    fell: Time,
    given: Option<Time>,
    next: Time,
}

impl Tide {
    /// When to look again, if there is anything else to do.
    pub fn next(&self) -> Time {
        self.next
    }

    /// One look: gives memory back if much left, and no more is leaving just now.
    pub fn look(&mut self, now: Time, kept: usize) {
        self.next = now + LOOKS;
        if self.is_low(now, kept) {
            gives_back();
        }
    }

    fn is_low(&mut self, now: Time, kept: usize) -> bool {
        self.high = self.high.max(kept);
        if kept + EBB / 8 <= self.level {
            (self.level, self.fell) = (kept, now);
        }
        self.level = self.level.max(kept);
        let rested = self.given.is_none_or(|given| now >= given + REST);
        let low = self.high - kept >= EBB && now >= self.fell + CALM && rested;
        if low {
            self.high = kept;
            self.given = Some(now);
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_once_when_much_left_and_not_often() {
        const MIB: usize = 1 << 20;
        let mut tide = Tide::default();
        let mut look = |second: u64, mib: usize| tide.is_low(Time(second * 1_000_000), mib * MIB);
        assert!(!look(0, 10) && !look(5, 200) && !look(10, 180));
        // Still leaving, then gone.
        assert!(!look(15, 60) && !look(20, 20));
        assert!(look(25, 20) && !look(30, 20));
        // Much came and left again within a minute.
        assert!(!look(35, 300) && !look(40, 20) && !look(45, 20) && !look(80, 20));
        assert!(look(85, 20) && !look(90, 20));
        // Little leaves.
        assert!(!look(200, 50) && !look(205, 20) && !look(210, 20));
    }
}
