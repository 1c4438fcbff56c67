//! Log lines that others can cause: each cause once, then at most once a minute with a count. A cause is what
//! happened and whose doing it was: nobody's line is left out for what somebody else does. Of very many hosts that do the same, most
//! count as one crowd.

#![expect(clippy::disallowed_methods, reason = "a minute of real time")]

use crate::machine::Time;
use crate::transport::host::PerProcess;
use crate::wire::scope::host_of;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);
/// Causes told apart. Where there are more, everybody else's of one kind count as one.
const MAX_CAUSES: usize = 4096;

/// What one kind of line may come to in a minute.
#[derive(Debug, Clone, Copy)]
struct Most {
    /// Hosts told apart. Everybody else's count as one.
    hosts: usize,
    /// Things that are told of by name, of each host.
    names: usize,
}

const WARNINGS: Most = Most { hosts: 1, names: 1 };
const NEWS: Most = Most { hosts: 16, names: 16 };

/// How many lines of a kind were left out before this one, as text behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} times of this kind since the last such line)"),
        }
    }
}

/// What was told of a cause in the minute since `since`, and how often it came besides. `T`: a clock's time.
#[derive(Debug)]
struct Throttle<T> {
    since: Option<T>,
    names: Vec<u64>,
    left_out: u64,
}

impl<T: Copy + PartialOrd + std::ops::Add<Duration, Output = T>> Throttle<T> {
    const fn new() -> Throttle<T> {
        Throttle { since: None, names: Vec::new(), left_out: 0 }
    }

    /// Whether a line about `name` is due: the first one of it in a minute, for so many names. If so, how many were
    /// left out.
    fn due(&mut self, now: T, name: u64, names: usize) -> Option<LeftOut> {
        if !self.is_recent(now, INTERVAL) {
            self.since = Some(now);
            self.names.clear();
        }
        if self.names.len() >= names || self.names.contains(&name) {
            self.left_out += 1;
            return None;
        }
        self.names.push(name);
        Some(LeftOut(std::mem::take(&mut self.left_out)))
    }

    fn is_recent(&self, now: T, span: Duration) -> bool {
        self.since.is_some_and(|since| now < since + span)
    }
}

/// What happened, and the host whose doing it was (`None`: nobody's, or somebody of the crowd that is not told apart).
type Deed = (Cow<'static, str>, Option<IpAddr>);

/// Many causes.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    causes: HashMap<Deed, Throttle<Time>>,
    /// How many hosts are told apart in `causes` for what happened.
    hosts: HashMap<Cow<'static, str>, usize>,
    /// Kinds that are news, and no warning.
    news: BTreeSet<&'static str>,
    looked: Option<Time>,
}

impl Complaints {
    /// Logs `detail` as a warning unless `cause` was logged less than a minute ago.
    pub fn note(
        &mut self,
        now: Time,
        cause: impl Into<Cow<'static, str>>,
        by: Option<IpAddr>,
        detail: fmt::Arguments<'_>,
    ) {
        if let Some(left_out) = self.due(now, (cause.into(), by), 0, WARNINGS) {
            log::warn!("{detail}{left_out}");
        }
    }

    /// Whether a line is due that tells of something by its name: once a minute each, and at most 16 of a host. If so, how
    /// many of the cause were left out.
    pub fn news(&mut self, now: Time, cause: &'static str, by: Option<IpAddr>, name: u64) -> Option<LeftOut> {
        self.news.insert(cause);
        self.due(now, (cause.into(), by), name, NEWS)
    }

    fn due(&mut self, now: Time, cause: Deed, name: u64, most: Most) -> Option<LeftOut> {
        if let Some(throttle) = self.causes.get_mut(&cause) {
            return throttle.due(now, name, most.names);
        }
        let hosts = self.hosts.get(&cause.0).copied().unwrap_or(0);
        if cause.1.is_some() && (hosts >= most.hosts || self.causes.len() >= MAX_CAUSES) {
            return self.due(now, (cause.0, None), name, most);
        }
        if self.causes.len() >= 2 * MAX_CAUSES {
            return self.causes.entry(Deed::default()).or_insert_with(Throttle::new).due(now, name, 1);
        }
        if cause.1.is_some() {
            *self.hosts.entry(cause.0.clone()).or_default() += 1;
        }
        self.causes.entry(cause).or_insert_with(Throttle::new).due(now, name, most.names)
    }

    /// Tells of what was left out, where no line came in the minute after it to say so, and forgets what is over.
    pub fn settle(&mut self, now: Time) {
        for (level, line) in self.rests(now) {
            log::log!(level, "{line}");
        }
    }

    /// What [`Complaints::settle`] has to tell.
    fn rests(&mut self, now: Time) -> Vec<(log::Level, String)> {
        let mut lines = Vec::new();
        if self.looked.is_some_and(|looked| now < looked + INTERVAL / 60) {
            return lines;
        }
        self.looked = Some(now);
        let (news, hosts) = (&self.news, &mut self.hosts);
        self.causes.retain(|cause, throttle| {
            let stays = throttle.is_recent(now, if throttle.left_out > 0 { 2 * INTERVAL } else { INTERVAL });
            if !stays && throttle.left_out > 0 {
                lines.push((level(news, cause), rest(cause, throttle.left_out)));
            }
            if !stays
                && cause.1.is_some()
                && let Some(count) = hosts.get_mut(&cause.0)
            {
                *count -= 1;
            }
            stays
        });
        self.hosts.retain(|_, count| *count > 0);
        lines
    }

    /// The last lines of all causes.
    fn end(self) -> Vec<(log::Level, String)> {
        let told = self.causes.iter().filter(|(_, throttle)| throttle.left_out > 0);
        told.map(|(cause, throttle)| (level(&self.news, cause), rest(cause, throttle.left_out))).collect()
    }
}

/// Where their lines come from, for whoever picks some.
const SESSIONS_ROOM: &str = "rserpool::socket";

/// What peers of this process's sessions do: complaints from any thread. No line is written while others wait.
pub(crate) static SESSIONS: PerProcess<SharedComplaints> = PerProcess::new(SharedComplaints::default);

/// [`Complaints`] that threads share.
#[derive(Debug)]
pub(crate) struct SharedComplaints {
    began: Instant,
    all: Mutex<Complaints>,
}

impl Default for SharedComplaints {
    fn default() -> SharedComplaints {
        SharedComplaints { began: Instant::now(), all: Mutex::default() }
    }
}

impl SharedComplaints {
    /// See [`Complaints::note`].
    pub(crate) fn note(
        &self,
        cause: impl Into<Cow<'static, str>>,
        by: Option<IpAddr>,
        detail: fmt::Arguments<'_>,
    ) {
        let cause = (cause.into(), by.map(host_of));
        if let Some(left_out) = self.ask(|all, now| all.due(now, cause, 0, WARNINGS)) {
            log::warn!(target: SESSIONS_ROOM, "{detail}{left_out}");
        }
    }

    /// Logs `detail`, which tells of something by its name. See [`Complaints::news`].
    pub(crate) fn news(
        &self,
        cause: &'static str,
        by: Option<IpAddr>,
        name: u64,
        detail: fmt::Arguments<'_>,
    ) {
        if let Some(left_out) = self.ask(|all, now| all.news(now, cause, by.map(host_of), name)) {
            log::info!(target: SESSIONS_ROOM, "{detail}{left_out}");
        }
    }

    /// See [`Complaints::settle`].
    pub(crate) fn settle(&self) {
        self.ask(|_, _| ());
    }

    /// The library ends: what was left out is told, and nothing is kept.
    pub(crate) fn end(&self) {
        let all = std::mem::take(&mut *self.all.lock());
        for (level, line) in all.end() {
            log::log!(target: SESSIONS_ROOM, level, "{line}");
        }
    }

    /// Somebody is at it meanwhile.
    #[cfg(test)]
    pub(crate) fn while_held(&self, then: impl FnOnce()) {
        let _held = self.all.lock();
        then();
    }

    fn ask<R>(&self, ask: impl FnOnce(&mut Complaints, Time) -> R) -> R {
        let now = Time(0) + self.began.elapsed();
        let mut all = self.all.lock();
        let rests = all.rests(now);
        let answer = ask(&mut all, now);
        drop(all);
        for (level, line) in rests {
            log::log!(target: SESSIONS_ROOM, level, "{line}");
        }
        answer
    }
}

fn level(news: &BTreeSet<&'static str>, (what, _): &Deed) -> log::Level {
    if news.contains(&**what) { log::Level::Info } else { log::Level::Warn }
}

/// The last line of a cause that came to its end.
fn rest((what, by): &Deed, count: u64) -> String {
    let by = by.map_or(String::new(), |host| format!(" by {host}"));
    format!("{count} times more, and not any more: {what}{by}")
}

/// For tests: the lines that are written.
#[cfg(test)]
pub(crate) mod written {
    use parking_lot::Mutex;
    use std::sync::Once;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Ear;

    impl log::Log for Ear {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().push(format!("{} {}", record.level(), record.args()));
        }
        fn flush(&self) {}
    }

    /// The lines from INFO on, of all tests since somebody asked first, that have `text` in them.
    pub(crate) fn lines(text: &str) -> Vec<String> {
        static HEARD: Once = Once::new();
        HEARD.call_once(|| {
            log::set_logger(&Ear).expect("nobody else listens");
            log::set_max_level(log::LevelFilter::Info);
        });
        LINES.lock().iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(5);

    fn host(number: u32) -> Option<IpAddr> {
        Some(std::net::Ipv4Addr::from(number).into())
    }

    fn due(complaints: &mut Complaints, now: Time, cause: &'static str, by: u32) -> Option<LeftOut> {
        complaints.due(now, (cause.into(), host(by)), 0, WARNINGS)
    }

    #[test]
    fn in_the_end_everything_is_told_and_nothing_kept() {
        let complaints = SharedComplaints::default();
        for _ in 0..3 {
            complaints.note("ended in the middle", host(1), format_args!("garbage"));
        }
        let before = written::lines("ended in the middle").len();
        complaints.end();
        let told = written::lines("ended in the middle");
        assert_eq!(told.len(), before + 1);
        assert!(told.last().is_some_and(|line| line.starts_with("WARN 2 times more")), "{told:?}");
        complaints.end();
        assert_eq!(written::lines("ended in the middle").len(), before + 1);
    }

    #[test]
    fn once_then_once_a_minute() {
        let mut complaints = Complaints::default();
        assert_eq!(due(&mut complaints, START, "garbage", 1), Some(LeftOut(0)));
        for _ in 0..10_000 {
            assert_eq!(due(&mut complaints, START + Duration::from_secs(59), "garbage", 1), None);
        }
        assert_eq!(due(&mut complaints, START, "other", 1), Some(LeftOut(0)));
        assert_eq!(due(&mut complaints, START, "garbage", 2), Some(LeftOut(0)), "another host's");
        assert_eq!(due(&mut complaints, START + INTERVAL, "garbage", 1), Some(LeftOut(10_000)));
        assert_eq!(due(&mut complaints, START + INTERVAL, "garbage", 1), None);
    }

    #[test]
    fn names_are_told_once_a_minute_each_and_some_of_them() {
        let mut complaints = Complaints::default();
        let mut said = |now, by| {
            (0..10_000)
                .filter_map(|number| complaints.news(now, "registered", host(by), number % 1000))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(START, 1), vec![LeftOut(0); NEWS.names]);
        assert_eq!(said(START + Duration::from_secs(59), 1), []);
        assert_eq!(said(START + Duration::from_secs(59), 2).len(), NEWS.names, "another host's are told");
        let later = said(START + INTERVAL, 1);
        assert_eq!((later.len(), later[0], later[1]), (NEWS.names, LeftOut(20_000 - 16), LeftOut(0)));
        // One that comes and goes for ever.
        let again = |_| complaints.news(START, "removed", host(1), 7);
        assert_eq!((0..1000).filter_map(again).count(), 1);
    }

    #[test]
    fn the_table_is_bounded_and_no_kind_is_muted_by_another() {
        let mut complaints = Complaints::default();
        let many = 0..100_000;
        let logged = many.filter(|&by| due(&mut complaints, Time(1), "garbage", by).is_some()).count();
        assert_eq!(logged, WARNINGS.hosts + 1);
        assert_eq!(due(&mut complaints, Time(1), "half", 1), Some(LeftOut(0)));
        let mut news = |by| complaints.news(Time(1), "registered", host(by), u64::from(by)).is_some();
        assert_eq!((0..100_000).filter(|&by| news(by)).count(), NEWS.hosts + NEWS.names);
        for number in 0..100_000 {
            complaints.due(Time(1), (format!("{number}").into(), host(number)), 0, WARNINGS);
        }
        assert!(complaints.causes.len() <= 2 * MAX_CAUSES + 1);
        complaints.settle(Time(1) + 2 * INTERVAL);
        assert_eq!((complaints.causes.len(), complaints.hosts.len()), (0, 0));
    }

    #[test]
    fn what_was_left_out_is_told_in_the_end() {
        let mut complaints = Complaints::default();
        for _ in 0..10 {
            due(&mut complaints, START, "half a message", 1);
        }
        let cause: Deed = ("half a message".into(), host(1));
        complaints.settle(START + INTERVAL + Duration::from_secs(59));
        assert_eq!(complaints.causes[&cause].left_out, 9, "a line may still come that says it");
        assert_eq!(rest(&cause, 9), "9 times more, and not any more: half a message by 0.0.0.1");
        complaints.settle(START + 2 * INTERVAL);
        assert!(complaints.causes.is_empty());
    }

    /// Of whom sessions have, whatever one of them does.
    #[test]
    fn who_does_the_same_as_somebody_else_is_told_of() {
        let peers = SharedComplaints::default();
        let lines = || written::lines("is odd (a test's)");
        assert_eq!(lines().len(), 0);
        let complain = |by: u32| {
            let at = host(by);
            peers.note("an odd peer", at, format_args!("{} is odd (a test's)", at.unwrap()));
        };
        (0..1000).for_each(|_| complain(1));
        assert_eq!(lines(), ["WARN 0.0.0.1 is odd (a test's)"]);
        complain(2);
        complain(2);
        assert_eq!(lines()[1..], ["WARN 0.0.0.2 is odd (a test's)"]);
        // Very many are a crowd.
        (3..1000).for_each(complain);
        assert_eq!(lines().len(), 2);
    }
}
