//! Watching a socket for a moment before one sleeps on it: a sleeper has to be woken by whoever sends, which
//! costs both sides more than a few looks, and a peer that answers or streams has something soon.

#![expect(clippy::disallowed_methods, reason = "microseconds of real time")]

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Time between two looks: a stream brings some messages in it, which then come with one system call.
const PAUSE: Duration = Duration::from_micros(10);
/// Who gives the processor away and gets it back later than this has kept others from their work.
const CROWDED: Duration = Duration::from_micros(5);
/// Waits in a row that don't watch: at most so many because it was in vain ..
const MOST: u16 = 64;
/// .. and because others wanted the processor, which they may keep for milliseconds.
const MOST_CROWDED: u16 = 1024;

/// Whether watching has paid off lately: after each watch in vain, twice as many waits go without.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Waits that are to go without after a watch in vain.
    rest: AtomicU16,
    /// How many of them are left.
    left: AtomicU16,
}

/// How a watch ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Found,
    InVain,
    /// Others wanted the processor.
    Crowded,
}

impl Watch {
    /// Looks every now and then for as long as `time`, if that makes sense. Leaves the processor to whoever
    /// else wants it, and then stops.
    pub(super) fn watch<T>(&self, time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if time.is_zero() || !self.makes_sense() {
            return None;
        }
        let begin = Instant::now();
        let mut now = begin;
        loop {
            let found = look();
            if found.is_some() || now - begin >= time {
                self.learn(if found.is_some() { End::Found } else { End::InVain });
                return found;
            }
            let Some(later) = pause(now) else {
                self.learn(End::Crowded);
                return look();
            };
            now = later;
        }
    }

    fn learn(&self, end: End) {
        let twice = self.rest.load(Relaxed) * 2;
        let rest = match end {
            End::Found => 0,
            End::InVain => twice.clamp(1, MOST),
            End::Crowded => twice.clamp(MOST, MOST_CROWDED),
        };
        self.rest.store(rest, Relaxed);
        self.left.store(rest, Relaxed);
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
fn pause(begin: Instant) -> Option<Instant> {
    let mut last = begin;
    while last - begin < PAUSE {
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
        let found = watch.watch(time, || {
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
        assert!(!found && (2..=4).contains(&looks), "{looks}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_does_not_pay_off_is_done_ever_more_seldom() {
        let watch = Watch::default();
        let without = |end| {
            let count = (0..).take_while(|_| !watch.makes_sense()).count();
            watch.learn(end);
            count
        };
        let in_vain: Vec<_> = (0..9).map(|_| without(End::InVain)).collect();
        assert_eq!(in_vain, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        let found: Vec<_> = (0..3).map(|_| without(End::Found)).collect();
        assert_eq!(found, [64, 0, 0]);
        let crowded: Vec<_> = (0..7).map(|_| without(End::Crowded)).collect();
        assert_eq!(crowded, [0, 64, 128, 256, 512, 1024, 1024]);
    }
}
