//! Watching a socket for a moment before one sleeps on it: a sleeper has to be woken by whoever sends, which
//! costs both sides more than a few looks, and a peer that answers or streams has something soon.

#![expect(clippy::disallowed_methods, reason = "microseconds of real time")]

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Time between two looks.
const PAUSE: Duration = Duration::from_micros(10);
/// Where messages come one after the other: it brings more of them in it, and then costs both sides less.
const FLOWING_PAUSE: Duration = Duration::from_micros(20);
/// Who gives the processor away and gets it back later than this found others there who have a lot to do.
const CROWDED: Duration = Duration::from_micros(50);
/// A peer that sleeps as well has to be woken first. It is given that many times as long, so that one of two
/// can begin with watching, and the other find that it pays off.
const WAKING: u32 = 4;
/// Waits in a row that don't watch: at most so many because it was in vain ..
const MOST: u16 = 64;
/// .. and because others wanted the processor, which they may keep for milliseconds, or because the peer is just slow.
const LONG_REST: u16 = 1024;
/// Watches in a row in which the peer may be slow.
const PATIENCE: u16 = 4 * MOST;

/// Whether watching has paid off lately: after each watch in vain, twice as many waits go without.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Waits that are to go without after a watch in vain.
    rest: AtomicU16,
    /// How many of them are left.
    left: AtomicU16,
    /// Watches since the peer was last quick.
    slow: AtomicU16,
}

/// How a watch ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Quick,
    Slow,
    InVain,
    /// Others wanted the processor.
    Crowded,
}

impl Watch {
    /// Looks every now and then for as long as `time`, if that makes sense; less often where messages are
    /// `flowing`. Leaves the processor to whoever else wants it, and stops if they keep it.
    pub(super) fn watch<T>(
        &self,
        time: Duration,
        flowing: bool,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if time.is_zero() || !self.makes_sense() {
            return None;
        }
        // What is there already says nothing about watching.
        let found = look();
        if found.is_some() {
            return found;
        }
        let pause_time = if flowing { FLOWING_PAUSE } else { PAUSE };
        let begin = Instant::now();
        let mut now = begin;
        loop {
            let Some(later) = pause(now, pause_time) else {
                self.learn(End::Crowded);
                return look();
            };
            now = later;
            let found = look();
            if found.is_some() {
                self.learn(if now - begin <= time { End::Quick } else { End::Slow });
                return found;
            }
            if now - begin >= time * WAKING {
                self.learn(End::InVain);
                return None;
            }
        }
    }

    fn learn(&self, end: End) {
        let rest = self.rest.load(Relaxed);
        let slow = if matches!(end, End::Quick) { 0 } else { self.slow.load(Relaxed) + 1 };
        let next = match end {
            End::Quick => 0,
            _ if slow >= PATIENCE => LONG_REST,
            End::Slow => {
                // The next one watches as well; what later ones do stays open.
                self.left.store(0, Relaxed);
                return self.slow.store(slow, Relaxed);
            }
            End::InVain => (rest * 2).clamp(1, MOST),
            End::Crowded => (rest * 2).clamp(MOST, LONG_REST),
        };
        self.slow.store(slow % PATIENCE, Relaxed);
        self.rest.store(next, Relaxed);
        self.left.store(next, Relaxed);
    }

    /// Whether to watch this time.
    fn makes_sense(&self) -> bool {
        let left = self.left.load(Relaxed);
        if left > 0 {
            self.left.store(left - 1, Relaxed);
        }
        left == 0
    }
}

/// When it is over; `None`: others want the processor.
fn pause(begin: Instant, time: Duration) -> Option<Instant> {
    let mut last = begin;
    while last - begin < time {
        std::thread::yield_now();
        let now = Instant::now();
        if now - last > CROWDED {
            return None;
        }
        last = now;
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// How many looks it takes to find something at the `at`th.
    fn looks(watch: &Watch, time: Duration, at: u32) -> (u32, bool) {
        let mut looks = 0;
        let found = watch.watch(time, false, || {
            looks += 1;
            (looks == at).then_some(())
        });
        (looks, found.is_some())
    }

    #[test]
    fn finds_what_comes() {
        let watch = Watch::default();
        assert_eq!(looks(&watch, LONG, 1), (1, true));
        // The processor may be wanted by others at any time, but there is always another look after that.
        assert_eq!(looks(&watch, LONG, 2), (2, true));
        assert_eq!(looks(&watch, Duration::ZERO, 1), (0, false));
    }

    #[test]
    fn gives_up_in_time() {
        let begin = Instant::now();
        let (looks, found) = looks(&Watch::default(), Duration::from_micros(30), u32::MAX);
        assert!(!found && (2..=13).contains(&looks), "{looks}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    /// Waits without before one with, which ends like that.
    fn without(watch: &Watch, end: End) -> usize {
        let count = (0..).take_while(|_| !watch.makes_sense()).count();
        watch.learn(end);
        count
    }

    #[test]
    fn what_does_not_pay_off_is_done_ever_more_seldom() {
        let watch = Watch::default();
        let all = |count, end| (0..count).map(|_| without(&watch, end)).collect::<Vec<_>>();
        assert_eq!(all(9, End::InVain), [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(all(3, End::Quick), [64, 0, 0]);
        assert_eq!(all(7, End::Crowded), [0, 64, 128, 256, 512, 1024, 1024]);
    }

    #[test]
    fn what_is_there_already_says_nothing() {
        let watch = Watch::default();
        watch.learn(End::InVain);
        watch.learn(End::InVain);
        let found: Vec<_> = (0..6).map(|_| looks(&watch, LONG, 1)).collect();
        assert_eq!(found, [(0, false), (0, false), (1, true), (1, true), (1, true), (1, true)]);
        // Twice as many as before, and not the one of a first time.
        assert_eq!(without(&watch, End::InVain), 0);
        assert_eq!(without(&watch, End::Quick), 4);
    }

    #[test]
    fn a_slow_peer_is_waited_for_until_it_must_have_woken_up() {
        let watch = Watch::default();
        for _ in 1..PATIENCE {
            assert_eq!(without(&watch, End::Slow), 0);
        }
        assert_eq!(without(&watch, End::Quick), 0);
        for _ in 0..PATIENCE {
            assert_eq!(without(&watch, End::Slow), 0);
        }
        assert_eq!(without(&watch, End::InVain), usize::from(LONG_REST));
        assert_eq!(without(&watch, End::Slow), usize::from(MOST));
    }
}
