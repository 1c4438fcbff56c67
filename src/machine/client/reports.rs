//! Reports of unreachable elements (RFC 5352 section 3.5), and how many of them go out (section 9.1, threat 8).

use super::effects::{Effects, Timer};
use super::{LinkId, Time};
use crate::machine::bucket::Bucket;
use crate::wire::{Asap, PeId, PoolHandle};
use std::collections::VecDeque;
use std::time::Duration;

/// Reports that wait, and for how long they are of use.
const MAX_REPORTS: usize = 1_024;
const REPORT_LIFE: Duration = Duration::from_secs(10);
/// An element is reported once in this time: what else many sessions notice of it is the same event.
const ONE_EVENT: Duration = Duration::from_secs(1);
/// Reports in a second, with a second's worth of burst.
const RATE: u32 = 100;
/// What is beyond that is tried again after this.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Report {
    handle: PoolHandle,
    id: PeId,
    until: Time,
}

/// What is to be reported, and what was a moment ago.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: VecDeque<Report>,
    sent: VecDeque<Report>,
    bucket: Bucket,
}

impl Reports {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An element does not answer: said when there is a registrar and time for it.
    pub fn add(&mut self, now: Time, handle: PoolHandle, id: PeId) {
        self.forget_old(now);
        let same = |report: &Report| report.id == id && report.handle == handle;
        if self.waiting.iter().any(same) || self.sent.iter().any(same) {
            return;
        }
        if self.waiting.len() >= MAX_REPORTS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Report { handle, id, until: now + REPORT_LIFE });
    }

    /// Says what may be said now to the home registrar, if there is one.
    pub fn send(&mut self, home: Option<LinkId>, fx: &mut Effects) {
        let now = fx.now;
        self.forget_old(now);
        while let Some(link) = home
            && !self.waiting.is_empty()
            && self.bucket.take(now, Some(RATE))
            && let Some(report) = self.waiting.pop_front()
        {
            let (handle, id) = (report.handle.clone(), report.id);
            fx.send(link, &Asap::EndpointUnreachable { handle, id });
            self.sent.push_back(Report { until: now + ONE_EVENT, ..report });
        }
        let due = self.waiting.front().map(|oldest| match home {
            Some(_) => now + PAUSE,
            None => oldest.until,
        });
        fx.wind(Timer::Reports, due);
    }

    pub fn clear(&mut self, fx: &mut Effects) {
        self.waiting.clear();
        fx.timers.clear(&Timer::Reports);
    }

    fn forget_old(&mut self, now: Time) {
        for reports in [&mut self.waiting, &mut self.sent] {
            while reports.front().is_some_and(|report| report.until <= now) {
                reports.pop_front();
            }
        }
    }
}
