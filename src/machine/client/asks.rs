//! What the registrar is asked and has not answered yet. Asks outlive links: each new home gets them
//! all, in the order in which they were made.

use super::effects::Timer;
use super::{Client, Event, RequestError, RequestId, Time};
use crate::wire::{Asap, OperationError, PeId, PoolHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All elements of a pool.
pub(super) const ALL: u32 = u32::MAX;

/// A pool element's place: pool and identifier.
pub(super) type Key = (PoolHandle, PeId);

/// What may be under way on a link: further asks wait for answers, so that no send queue overflows.
const WINDOW_ASKS: usize = 8_192;
const WINDOW_BYTES: usize = 1 << 20;
/// However often its links break, a request ends after its patience times this.
const PATIENCE_CAP: u32 = 4;

/// When nobody is there who could be asked, it is said after so long, or found out that often.
const REFUSED: Duration = Duration::from_millis(500);
const REFUSED_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Nobody waits for a re-registration.
    Register { key: Key, requests: Vec<RequestId> },
    /// Nobody waits at shutdown.
    Deregister { key: Key, request: Option<RequestId> },
    /// The application wants to know. Who may share an answer waits for the same one.
    Resolve { handle: PoolHandle, items: Option<u32>, requests: Vec<RequestId>, shared: bool },
    /// First question, poll or sign of life of a subscription.
    Subscribe { handle: PoolHandle },
    /// The end of a subscription.
    Unsubscribe { handle: PoolHandle },
}

/// What answers are matched by, beside handle and identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Registration,
    Deregistration,
    Resolution,
}

impl What {
    fn index(&self) -> (Kind, PoolHandle, PeId) {
        match self {
            What::Register { key, .. } => (Kind::Registration, key.0.clone(), key.1),
            What::Deregister { key, .. } => (Kind::Deregistration, key.0.clone(), key.1),
            What::Resolve { handle, .. } | What::Subscribe { handle } | What::Unsubscribe { handle } => {
                (Kind::Resolution, handle.clone(), PeId(0))
            }
        }
    }

    /// What tells that the answer to this ask is overdue.
    fn timer(&self, number: u64) -> Timer {
        match self {
            What::Resolve { .. } | What::Subscribe { .. } | What::Unsubscribe { .. } => {
                Timer::T1EnrpRequest(number)
            }
            What::Register { .. } => Timer::T2Registration(number),
            What::Deregister { .. } => Timer::T3Deregistration(number),
        }
    }

    /// Whether it is asked on our own account, and made anew for each home that needs it.
    fn is_background(&self) -> bool {
        match self {
            What::Register { requests, .. } => requests.is_empty(),
            What::Deregister { .. } | What::Resolve { .. } => false,
            What::Subscribe { .. } | What::Unsubscribe { .. } => true,
        }
    }
}

/// The last transmission of an ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub at: Time,
    /// Counts all transmissions of the client.
    pub sequence: u64,
    /// Whether the 'S' flag was set.
    pub subscribing: bool,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Ask {
    pub what: What,
    /// When it has waited too long without a link.
    deadline: Option<Time>,
    /// Since when it waits for one.
    waiting: Time,
    /// And beyond what no deadline is put off.
    last_deadline: Time,
    /// `None`: waits to be sent.
    pub sent: Option<Sent>,
    /// Transmissions that were not answered in time.
    pub trials: u32,
}

#[derive(Debug, Default)]
pub(super) struct Asks {
    table: BTreeMap<u64, Ask>,
    index: BTreeSet<(Kind, PoolHandle, PeId, u64)>,
    unsent: BTreeSet<u64>,
    /// Asks that got no answer as often as they may: they end unless another registrar is found.
    exhausted: BTreeSet<u64>,
    /// Resolutions whose answer others may share.
    shared: BTreeMap<(PoolHandle, Option<u32>), u64>,
    /// Requests that share the answer of an earlier one.
    sharing: usize,
    last: u64,
    transmissions: u64,
    bytes_under_way: usize,
}

impl Asks {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Requests that wait for the answer to an earlier one.
    pub fn sharing(&self) -> usize {
        self.sharing
    }

    /// Lets a request wait for the answer to the same question, if somebody has asked it.
    pub fn share(&mut self, handle: &PoolHandle, items: Option<u32>, request: RequestId) -> bool {
        let number = self.shared.get(&(handle.clone(), items));
        let ask = number.and_then(|number| self.table.get_mut(number));
        let Some(Ask { what: What::Resolve { requests, .. }, .. }) = ask else { return false };
        requests.push(request);
        self.sharing += 1;
        true
    }

    pub fn get(&self, number: u64) -> Option<&Ask> {
        self.table.get(&number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Ask> {
        self.table.get_mut(&number)
    }

    fn add(&mut self, what: What) -> u64 {
        self.last += 1;
        let (kind, handle, id) = what.index();
        self.index.insert((kind, handle, id, self.last));
        self.unsent.insert(self.last);
        if let What::Resolve { handle, items, shared: true, .. } = &what {
            self.shared.insert((handle.clone(), *items), self.last);
        }
        let ask = Ask {
            what,
            deadline: None,
            waiting: Time(0),
            last_deadline: Time(u64::MAX),
            sent: None,
            trials: 0,
        };
        self.table.insert(self.last, ask);
        self.last
    }

    /// The oldest ask of a kind about a pool or element, sent or not.
    pub fn find(&self, kind: Kind, handle: &PoolHandle, id: PeId) -> Option<u64> {
        let first = (kind, handle.clone(), id, 0);
        let last = (kind, handle.clone(), id, u64::MAX);
        self.index.range(first..=last).next().map(|entry| entry.3)
    }

    /// The ask that an answer is for: the oldest one sent.
    pub fn find_sent(&self, kind: Kind, handle: &PoolHandle, id: PeId) -> Option<u64> {
        self.find(kind, handle, id).filter(|number| self.table[number].sent.is_some())
    }

    /// All asks of some sort, oldest first.
    pub fn select(&self, wanted: impl Fn(&What) -> bool) -> Vec<u64> {
        self.table.iter().filter(|(_, ask)| wanted(&ask.what)).map(|(&number, _)| number).collect()
    }

    /// The oldest ask under way.
    pub fn oldest_sent(&self) -> Option<(u64, Sent)> {
        let mut sent = self.table.iter().filter_map(|(&number, ask)| ask.sent.map(|sent| (number, sent)));
        // Asks are sent in order, so that the search ends at the first.
        if self.unsent.len() == self.table.len() { None } else { sent.next() }
    }

    /// Whether there is any registration; the index begins with them.
    pub fn any_registration(&self) -> bool {
        self.index.first().is_some_and(|entry| entry.0 == Kind::Registration)
    }

    pub fn any_exhausted(&self) -> bool {
        !self.exhausted.is_empty()
    }

    /// Whether the tables fit each other and the window holds.
    pub fn check(&self) -> Result<(), String> {
        let sent = self.table.values().filter_map(|ask| ask.sent);
        let (count, bytes) = sent.fold((0, 0), |(count, bytes), sent| (count + 1, bytes + sent.bytes));
        let (asks, waiting) = (self.table.len(), self.unsent.len());
        if self.index.len() != asks || asks - waiting != count || self.bytes_under_way != bytes {
            return Err(format!("{asks} asks, {waiting} waiting, {count} with {bytes} bytes under way"));
        }
        // One message may reach beyond the window.
        if count > WINDOW_ASKS || bytes > WINDOW_BYTES + (64 << 10) {
            return Err(format!("{count} asks with {bytes} bytes are under way"));
        }
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Option<Ask> {
        let ask = self.table.remove(&number)?;
        let (kind, handle, id) = ask.what.index();
        self.index.remove(&(kind, handle, id, number));
        self.unsent.remove(&number);
        self.exhausted.remove(&number);
        if let What::Resolve { handle, items, requests, shared: true } = &ask.what {
            self.shared.remove(&(handle.clone(), *items));
            self.sharing -= requests.len() - 1;
        }
        self.bytes_under_way -= ask.sent.map_or(0, |sent| sent.bytes);
        Some(ask)
    }

    /// Puts a sent ask back among those to be sent.
    fn unsend(&mut self, number: u64) {
        if let Some(ask) = self.table.get_mut(&number)
            && let Some(sent) = ask.sent.take()
        {
            self.bytes_under_way -= sent.bytes;
            self.unsent.insert(number);
        }
    }

    /// The next ask to be sent, if the window has room for it.
    fn next_to_send(&self) -> Option<u64> {
        let under_way = self.table.len() - self.unsent.len();
        let room = under_way < WINDOW_ASKS && self.bytes_under_way < WINDOW_BYTES;
        self.unsent.first().copied().filter(|_| room)
    }
}

impl Client {
    /// Asks as soon as there is a link and room; until then patience runs.
    pub(super) fn ask(&mut self, what: What) {
        let number = self.asks.add(what);
        let at_once = self.home.as_ref().is_some_and(|home| !home.congested)
            && self.asks.next_to_send() == Some(number);
        if !at_once {
            self.start_patience(number);
        }
    }

    /// Sends what can be sent.
    pub(super) fn flush(&mut self) {
        let Some(home) = &self.home else { return };
        let (link, congested) = (home.link, home.congested);
        while let Some(number) = self.asks.next_to_send().filter(|_| !congested) {
            self.asks.unsent.remove(&number);
            let Some(message) = self.message(number) else {
                self.take(number);
                continue;
            };
            self.fx.send(link, &message);
            let subscribing = matches!(message, Asap::HandleResolution { subscribe: true, .. });
            self.mark_sent(number, message.encoded_len(), subscribing);
        }
    }

    fn mark_sent(&mut self, number: u64, bytes: usize, subscribing: bool) {
        let now = self.fx.now;
        let Some(ask) = self.asks.table.get_mut(&number) else { return };
        self.asks.transmissions += 1;
        self.asks.bytes_under_way += bytes;
        ask.sent = Some(Sent { at: now, sequence: self.asks.transmissions, subscribing, bytes });
        if ask.deadline.take().is_some() {
            self.fx.timers.clear(&Timer::Patience(number));
        }
        let overdue = now + self.config.response_timeout;
        self.fx.timers.set(ask.what.timer(number), overdue);
        self.watch_silence();
    }

    /// The message of an ask as it is right now; `None` if it has become pointless.
    fn message(&mut self, number: u64) -> Option<Asap> {
        Some(match &self.asks.get(number)?.what {
            What::Register { key, .. } => {
                let key = key.clone();
                return self.registration_message(&key);
            }
            What::Deregister { key: (handle, id), .. } => {
                Asap::Deregistration { handle: handle.clone(), id: *id }
            }
            What::Resolve { handle, items, .. } => {
                let subscribe = self.user.keeps_subscription(handle);
                let items = if subscribe { Some(ALL) } else { *items };
                Asap::HandleResolution { subscribe, handle: handle.clone(), items }
            }
            What::Subscribe { handle } => {
                Asap::HandleResolution { subscribe: true, handle: handle.clone(), items: Some(ALL) }
            }
            What::Unsubscribe { handle } => {
                Asap::HandleResolution { subscribe: false, handle: handle.clone(), items: Some(1) }
            }
        })
    }

    /// Takes an answered ask out of the table.
    pub(super) fn take_answered(&mut self, number: u64) -> Option<Ask> {
        let ask = self.take(number)?;
        if let (Some(home), Some(sent)) = (&mut self.home, ask.sent) {
            home.answered = Some(self.fx.now);
            home.answered_sequence = home.answered_sequence.max(sent.sequence);
            self.hunt.home_answered(home.target.as_ref());
            // It is back: nobody else is needed.
            self.hunt.cease(&mut self.fx);
        }
        Some(ask)
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Ask> {
        let ask = self.asks.remove(number)?;
        if ask.sent.is_some() {
            self.fx.timers.clear(&ask.what.timer(number));
        } else {
            self.fx.timers.clear(&Timer::Patience(number));
        }
        Some(ask)
    }

    /// Ends an ask without an answer.
    pub(super) fn fail(&mut self, number: u64, error: RequestError) {
        match self.asks.get(number).map(|ask| ask.what.clone()) {
            Some(What::Register { key, requests }) => {
                self.take(number);
                self.registration_failed(key, requests, error);
            }
            Some(What::Subscribe { handle }) => {
                self.take(number);
                self.poll_later(&handle);
            }
            Some(_) => self.forget(number, error),
            None => {}
        }
    }

    /// The same, without consequences beyond the answer to whoever asked.
    pub(super) fn forget(&mut self, number: u64, error: RequestError) {
        match self.take(number).map(|ask| ask.what) {
            Some(What::Register { requests, .. }) => {
                for request in requests {
                    self.fx.event(Event::Registered { request, result: Err(error.clone()) });
                }
            }
            Some(What::Deregister { request: Some(request), .. }) => {
                self.fx.event(Event::Deregistered { request, result: Err(error) });
            }
            Some(What::Resolve { handle, requests, .. }) => {
                self.fx.counts.resolutions_failed += 1;
                self.fx.event(Event::Resolved { requests, handle, result: Err(error) });
            }
            _ => {}
        }
    }

    /// The link is gone: everything waits for the next one.
    pub(super) fn unsend_all(&mut self) {
        self.fx.timers.clear(&Timer::Probe);
        for number in self.asks.select(What::is_background) {
            self.take(number);
        }
        for number in self.asks.select(|_| true) {
            if let Some(ask) = self.asks.get(number)
                && ask.sent.is_some()
            {
                self.fx.timers.clear(&ask.what.timer(number));
                self.asks.unsend(number);
            }
            self.start_patience(number);
        }
        self.merge_registrations();
    }

    /// Bounds how long an unsent ask waits. Not for what is asked on our own account.
    pub(super) fn start_patience(&mut self, number: u64) {
        let now = self.fx.now;
        let patience = self.config.patience();
        if let Some(ask) = self.asks.get_mut(number)
            && ask.deadline.is_none()
            && !ask.what.is_background()
        {
            let longest = patience.saturating_add(self.config.request_timeout).saturating_mul(PATIENCE_CAP);
            ask.last_deadline = ask.last_deadline.min(now + longest);
            let deadline = ask.last_deadline.min(now + patience);
            ask.deadline = Some(deadline);
            ask.waiting = now;
            self.fx.timers.set(Timer::Patience(number), deadline);
            if self.home.is_none() && self.fx.timers.get(&Timer::Refused).is_none() {
                self.fx.timers.set(Timer::Refused, (now + REFUSED).max(self.hopeful));
            }
        }
    }

    /// Everybody refuses: then there is no registrar, and nothing to wait for.
    pub(super) fn refused(&mut self) {
        let now = self.fx.now;
        if self.home.is_some() {
            return;
        }
        let everywhere = now >= self.hopeful && self.hunt.is_refused_everywhere();
        let mut others = false;
        for number in self.asks.select(|what| !what.is_background()) {
            let Some(ask) = self.asks.get(number).filter(|ask| ask.sent.is_none()) else { continue };
            if everywhere && now - ask.waiting >= REFUSED && ask.trials == 0 {
                self.fail(number, RequestError::NoRegistrar);
            } else {
                others = true;
            }
        }
        if others {
            self.fx.timers.set(Timer::Refused, (now + REFUSED_AGAIN).max(self.hopeful));
        }
    }

    /// An ask waited long enough for a link.
    pub(super) fn patience_over(&mut self, number: u64) {
        let Some(ask) = self.asks.get_mut(number) else { return };
        ask.deadline = None;
        let may_wait = ask.last_deadline > self.fx.now;
        let answered_by_nobody = ask.trials == 0;
        if self.home.is_some() {
            // It waits behind others for its turn, not for a link.
            return if may_wait {
                self.start_patience(number)
            } else {
                self.fail(number, RequestError::TimedOut)
            };
        }
        if may_wait && !self.hunt.tried_all() {
            return self.start_patience(number);
        }
        let error = if answered_by_nobody { RequestError::NoRegistrar } else { RequestError::TimedOut };
        self.fail(number, error);
    }

    /// T1, T2, T3: an answer is overdue.
    pub(super) fn response_overdue(&mut self, number: u64) {
        let now = self.fx.now;
        let timeout = self.config.response_timeout;
        let (Some(home), Some(ask)) = (&self.home, self.asks.table.get_mut(&number)) else { return };
        let Some(sent) = ask.sent else { return };
        if home.answered_sequence > sent.sequence {
            // The registrar answers in order, and has passed over this one: it would lose all its
            // elements for nothing if we left because of that.
            ask.trials += 1;
            if ask.trials >= self.config.request_max_trials.max(1) {
                return self.fail(number, RequestError::TimedOut);
            }
            return self.asks.unsend(number);
        }
        let silent_since = home.answered.unwrap_or(sent.at).max(sent.at);
        if now < silent_since + timeout && now < ask.last_deadline {
            self.fx.timers.set(ask.what.timer(number), silent_since + timeout);
            return;
        }
        // Those that have waited as long have lost a trial as well.
        let trials = self.config.request_max_trials.max(1);
        for (&number, ask) in &mut self.asks.table {
            if ask.sent.is_some_and(|sent| sent.at + timeout <= now) {
                ask.trials += 1;
                if let What::Register { key: (handle, id), requests } = &ask.what
                    && requests.is_empty()
                {
                    let (handle, id, error) = (handle.clone(), *id, RequestError::TimedOut);
                    self.fx.event(Event::RegistrationFailed { handle, id, error });
                }
                if ask.trials >= trials {
                    self.asks.exhausted.insert(number);
                }
            }
        }
        self.leave_home();
    }

    /// No other registrar was found for those that got no answer often enough.
    pub(super) fn fail_exhausted(&mut self) {
        for number in std::mem::take(&mut self.asks.exhausted) {
            self.fail(number, RequestError::TimedOut);
        }
    }

    /// There is a registrar to ask once more.
    pub(super) fn spare_exhausted(&mut self) {
        self.asks.exhausted.clear();
    }

    /// ASAP_ERROR: ends the ask that it is about, which can only be the oldest one under way.
    pub(super) fn error_answered(&mut self, error: OperationError) {
        use crate::wire::CauseCode;
        // Parameters of the types `11...` were skipped and reported: the answer is still to come.
        let answer_follows = error.0.iter().all(|cause| {
            cause.code == CauseCode::UNRECOGNIZED_PARAMETER
                && cause.data.first().is_some_and(|&first| first >= 0xc0)
        });
        if !answer_follows && let Some((number, sent)) = self.asks.oldest_sent() {
            if let Some(home) = &mut self.home {
                home.answered = Some(self.fx.now);
                home.answered_sequence = home.answered_sequence.max(sent.sequence);
            }
            self.fail(number, RequestError::Rejected(error));
        }
    }
}
