//! The pool user: resolutions, subscriptions, reports of unreachable elements.

use super::asks::{ALL, Kind, What};
use super::effects::{Effects, Timer};
use super::reports::Reports;
use super::{Client, Event, MAX_SUBSCRIPTIONS, RequestError, RequestId, Resolution};
use crate::machine::timer::jitter;
use crate::wire::{CauseCode, OperationError, PeId, Policy, PoolElement, PoolHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a pool is asked for whose registrar does not push.
const POLL: Duration = Duration::from_secs(1);
/// A registrar that has just become the home may not know all elements yet.
const GRACE: Duration = Duration::from_secs(10);
/// A subscription outlives its last user by this: sessions come and go.
const LINGER: Duration = Duration::from_secs(5);
/// Elements of a pool of which is known that they were there.
const MAX_KNOWN: usize = 1 << 20;
/// rsplib's registrars list no more elements than this, and don't say that there are more.
const RSPLIB_LIMIT: usize = 128;
/// A longer answer may be one that left elements out for want of room.
const NEARLY_FULL: usize = 60_000;

#[derive(Debug, Default)]
struct Subscription {
    number: u64,
    /// `subscribe`s without their `unsubscribe`.
    users: usize,
    /// Whether the home pushes; `None`: it has not said yet.
    granted: Option<bool>,
    /// Elements that were in the pool when last heard of.
    known: BTreeSet<PeId>,
    /// Those of them that a new home did not list.
    missing: BTreeSet<PeId>,
    /// Whether absence proves nothing yet.
    grace: bool,
    /// Watched elements, with the numbers of their watches.
    watches: BTreeSet<(PeId, u64)>,
    /// Whether its elements were told since it has users.
    told: bool,
    /// Whether a list of all its elements came since the last watch began for one that was in none. An
    /// empty list does not count: the registrar may have just been started.
    listed: bool,
    /// Whether a question of ours is under way.
    asking: bool,
}

#[derive(Debug, Default)]
pub(super) struct User {
    pools: BTreeMap<PoolHandle, Subscription>,
    numbers: BTreeMap<u64, PoolHandle>,
    last: u64,
    pub reports: Reports,
}

/// A HANDLE_RESOLUTION_RESPONSE, its handle apart.
pub(super) struct ResolutionAnswer {
    pub subscribed: bool,
    pub error: Option<OperationError>,
    pub policy: Option<Policy>,
    pub elements: Vec<PoolElement>,
    pub total: Option<u32>,
    pub lost: Vec<PeId>,
    pub deregistered: Vec<PeId>,
    /// Bytes of the whole message.
    pub length: usize,
}

impl ResolutionAnswer {
    /// Whether the answer lists the whole pool, if it answers a question for `items` elements.
    fn is_complete(&self, items: Option<u32>) -> bool {
        let listed = self.elements.len();
        match (self.total, items) {
            (Some(total), _) => listed >= total as usize,
            (None, _) if self.subscribed => true,
            (None, Some(ALL)) => listed < RSPLIB_LIMIT && self.length < NEARLY_FULL,
            (None, Some(items)) => listed < items as usize,
            (None, None) => false,
        }
    }
}

impl User {
    pub fn has_business(&self) -> bool {
        !self.reports.is_empty() || self.pools.values().any(|pool| pool.users > 0)
    }

    /// Whether a question about the pool must carry the 'S' flag to keep the subscription.
    pub fn keeps_subscription(&self, handle: &PoolHandle) -> bool {
        self.pools.get(handle).is_some_and(|pool| pool.users > 0 && pool.granted != Some(false))
    }

    pub fn is_subscribed(&self, handle: &PoolHandle) -> bool {
        self.pools.get(handle).is_some_and(|pool| pool.users > 0)
    }

    /// Nobody wants anything any more.
    pub fn clear(&mut self, fx: &mut Effects) {
        for handle in self.pools.keys().cloned().collect::<Vec<_>>() {
            self.remove(fx, &handle);
        }
        self.reports.clear(fx);
        fx.timers.clear(&Timer::Refresh);
    }

    fn remove(&mut self, fx: &mut Effects, handle: &PoolHandle) -> Option<Subscription> {
        let pool = self.pools.remove(handle)?;
        self.numbers.remove(&pool.number);
        for timer in [Timer::Poll(pool.number), Timer::Grace(pool.number), Timer::Linger(pool.number)] {
            fx.timers.clear(&timer);
        }
        Some(pool)
    }
}

impl Client {
    pub(super) fn ask_resolution(
        &mut self,
        request: RequestId,
        handle: PoolHandle,
        items: Option<u32>,
        shared: bool,
    ) {
        // Without the 'S' flag the question ends a subscription that only lingers.
        if self.user.pools.get(&handle).is_some_and(|pool| pool.users == 0) {
            self.user.remove(&mut self.fx, &handle);
        }
        self.ask(What::Resolve { handle, items, requests: vec![request], shared });
    }

    pub(super) fn add_subscription(&mut self, handle: &PoolHandle) {
        if !self.user.pools.contains_key(handle) {
            if self.user.pools.len() >= MAX_SUBSCRIPTIONS {
                return;
            }
            self.user.last += 1;
            let pool = Subscription { number: self.user.last, ..Subscription::default() };
            self.user.numbers.insert(pool.number, handle.clone());
            self.user.pools.insert(handle.clone(), pool);
        }
        let Some(pool) = self.user.pools.get_mut(handle) else { return };
        pool.users += 1;
        if pool.users == 1 {
            self.fx.timers.clear(&Timer::Linger(pool.number));
            self.ask_subscription(handle.clone());
            self.watch_pushes();
        }
    }

    pub(super) fn drop_subscription(&mut self, handle: &PoolHandle) {
        let Some(pool) = self.user.pools.get_mut(handle).filter(|pool| pool.users > 0) else { return };
        pool.users -= 1;
        if pool.users > 0 {
            return;
        }
        pool.listed = false;
        if std::mem::take(&mut pool.told) {
            self.fx.event(Event::Unsubscribed { handle: handle.clone() });
        }
        if self.home.is_some() && pool.granted != Some(false) {
            self.fx.timers.clear(&Timer::Poll(pool.number));
            self.fx.timers.set(Timer::Linger(pool.number), self.fx.now + LINGER);
        } else {
            self.user.remove(&mut self.fx, handle);
        }
    }

    pub(super) fn add_watch(&mut self, handle: &PoolHandle, id: PeId, number: u64) {
        self.add_subscription(handle);
        let Some(pool) = self.user.pools.get_mut(handle) else { return };
        pool.watches.insert((id, number));
        if pool.known.contains(&id) {
            return;
        }
        // It may be gone already, and then nobody will say so again.
        match pool.listed && pool.granted == Some(true) && !pool.grace {
            true => self.fx.event(Event::WatchedGone { number }),
            false => pool.listed = false,
        }
    }

    pub(super) fn drop_watch(&mut self, handle: &PoolHandle, id: PeId, number: u64) {
        if self.user.pools.get_mut(handle).is_some_and(|pool| pool.watches.remove(&(id, number))) {
            self.drop_subscription(handle);
        }
    }

    /// Nobody came back for it: the registrar may stop pushing.
    pub(super) fn linger_over(&mut self, number: u64) {
        let Some(handle) = self.user.numbers.get(&number).cloned() else { return };
        self.user.remove(&mut self.fx, &handle);
        if self.home.is_some() {
            self.ask(What::Unsubscribe { handle });
        }
    }

    /// Asks for the whole pool and for pushes, unless that is under way.
    fn ask_subscription(&mut self, handle: PoolHandle) {
        if self.home.is_some()
            && let Some(pool) = self.user.pools.get_mut(&handle).filter(|pool| !pool.asking)
        {
            pool.asking = true;
            self.ask(What::Subscribe { handle });
        }
    }

    /// Every subscription is made anew with a new home: registrars don't tell each other.
    pub(super) fn subscribe_all(&mut self) {
        let lingering = |pool: &Subscription| pool.users == 0;
        let pools = &self.user.pools;
        let gone: Vec<_> =
            pools.iter().filter(|(_, pool)| lingering(pool)).map(|(handle, _)| handle.clone()).collect();
        for handle in gone {
            self.user.remove(&mut self.fx, &handle);
        }
        let mut handles = Vec::new();
        for (handle, pool) in &mut self.user.pools {
            pool.granted = None;
            pool.asking = false;
            pool.missing.clear();
            self.fx.timers.clear(&Timer::Poll(pool.number));
            if !pool.known.is_empty() {
                pool.grace = true;
                self.fx.timers.set(Timer::Grace(pool.number), self.fx.now + GRACE);
            }
            handles.push(handle.clone());
        }
        for handle in handles {
            self.ask_subscription(handle);
        }
        self.watch_pushes();
    }

    /// A question failed or the registrar does not push: asks again soon.
    pub(super) fn poll_later(&mut self, handle: &PoolHandle) {
        if let Some(pool) = self.user.pools.get_mut(handle).filter(|pool| pool.users > 0) {
            pool.asking = false;
            self.fx.timers.set(Timer::Poll(pool.number), self.fx.now + POLL);
        }
    }

    pub(super) fn poll_pool(&mut self, number: u64) {
        let Some(handle) = self.user.numbers.get(&number).cloned() else { return };
        self.ask_subscription(handle);
    }

    /// A registrar that pushes may be silent because nothing changes, or because it hangs.
    fn watch_pushes(&mut self) {
        if self.home.is_some() && !self.user.pools.is_empty() && self.fx.timers.get(&Timer::Refresh).is_none()
        {
            let later = jitter(&mut self.fx.rng, self.config.response_timeout, 25);
            self.fx.timers.set(Timer::Refresh, self.fx.now + later);
        }
    }

    /// Asks a registrar from which nothing was heard for long about the smallest pool.
    pub(super) fn refresh(&mut self) {
        let Some(home) = &self.home else { return };
        let quiet = self.fx.now - home.heard.unwrap_or_default();
        let pools = self.user.pools.iter().filter(|(_, pool)| pool.users > 0);
        let smallest = pools.min_by_key(|(_, pool)| pool.known.len()).map(|(handle, _)| handle.clone());
        if quiet >= self.config.response_timeout / 2
            && self.asks.is_empty()
            && let Some(handle) = smallest
        {
            self.ask_subscription(handle);
        }
        self.watch_pushes();
    }

    /// HANDLE_RESOLUTION_RESPONSE: answers a question, or is a push.
    pub(super) fn resolution_answered(&mut self, handle: PoolHandle, mut answer: ResolutionAnswer) {
        let number = self.asks.find_sent(Kind::Resolution, &handle, PeId(0));
        let ask = number.and_then(|number| self.take_answered(number));
        let subscribing = ask.as_ref().is_some_and(|ask| ask.sent.is_some_and(|sent| sent.subscribing));
        if let Some(What::Subscribe { .. }) = ask.as_ref().map(|ask| &ask.what)
            && let Some(pool) = self.user.pools.get_mut(&handle)
        {
            pool.asking = false;
        }
        let items = match ask.as_ref().map(|ask| &ask.what) {
            _ if subscribing => Some(ALL),
            Some(What::Resolve { items, .. }) => *items,
            _ => Some(ALL),
        };
        let complete = answer.is_complete(items);
        let error = answer.error.take();
        let resolution = Resolution {
            // RFC 5352 section 2.2.6: what elements say of their policy is not what the pool's is.
            policy: answer.policy.take().or_else(|| error.is_none().then_some(Policy::RoundRobin)),
            elements: std::mem::take(&mut answer.elements),
            complete,
            subscribed: answer.subscribed,
        };
        if answer.subscribed || subscribing {
            self.pool_heard(&handle, &resolution, error.as_ref(), &answer);
        }
        if let Some(What::Resolve { requests, .. }) = ask.map(|ask| ask.what) {
            self.fx.counts.resolutions += 1;
            let result = error.map_or(Ok(resolution), |error| Err(RequestError::Rejected(error)));
            self.fx.event(Event::Resolved { requests, handle, result });
        }
    }

    /// What the home says about a subscribed pool.
    fn pool_heard(
        &mut self,
        handle: &PoolHandle,
        resolution: &Resolution,
        error: Option<&OperationError>,
        answer: &ResolutionAnswer,
    ) {
        let now = self.fx.now;
        let Some(pool) = self.user.pools.get_mut(handle).filter(|pool| pool.users > 0) else { return };
        let refused = pool.granted.replace(resolution.subscribed) == Some(true) && !resolution.subscribed;
        if refused && error.is_some() {
            // A registrar that limits rates says "unknown" to those who ask too often.
            pool.grace = true;
            self.fx.timers.set(Timer::Grace(pool.number), now + GRACE);
        }
        if resolution.subscribed {
            self.fx.timers.clear(&Timer::Poll(pool.number));
        } else {
            self.fx.timers.set(Timer::Poll(pool.number), now + POLL);
        }
        // A pool that is not there has no elements; other errors say nothing about it. Nor does it from a
        // registrar that does not push: rsplib's forget whole pools for a while when one of them comes back
        // from a standstill. Where a pool is empty there is nobody else to go to anyway.
        let believed =
            |error: &OperationError| error.code() == CauseCode::UNKNOWN_POOL && resolution.subscribed;
        if error.is_some_and(|error| !believed(error)) {
            return;
        }
        let complete = resolution.complete || error.is_some();
        let (gone, deregistered) = pool.update(&resolution.elements, complete, answer);
        let absent = pool.absent(resolution, complete, &gone, &deregistered);
        pool.told = true;
        let resolution = Resolution { complete, ..resolution.clone() };
        self.fx.event(Event::Pool { handle: handle.clone(), resolution });
        for id in deregistered {
            self.fx.event(Event::ElementRetired { handle: handle.clone(), id });
        }
        for id in gone {
            self.fx.event(Event::ElementGone { handle: handle.clone(), id });
        }
        for number in absent {
            self.fx.event(Event::WatchedGone { number });
        }
    }

    /// What the new home has not listed by now, it does not have.
    pub(super) fn grace_over(&mut self, number: u64) {
        let Some(handle) = self.user.numbers.get(&number) else { return };
        let Some(pool) = self.user.pools.get_mut(handle) else { return };
        pool.grace = false;
        for id in std::mem::take(&mut pool.missing) {
            pool.known.remove(&id);
            self.fx.event(Event::ElementGone { handle: handle.clone(), id });
            for number in pool.watches_of(id) {
                self.fx.event(Event::WatchedGone { number });
            }
        }
    }

    pub(super) fn send_reports(&mut self) {
        let home = self.home.as_ref().map(|home| home.link);
        self.user.reports.send(home, &mut self.fx);
    }
}

impl Subscription {
    fn watches_of(&self, id: PeId) -> impl Iterator<Item = u64> {
        self.watches.range((id, 0)..=(id, u64::MAX)).map(|&(_, number)| number)
    }

    /// The watches of elements of which a listing says that they are gone, or were so before it.
    fn absent(
        &mut self,
        resolution: &Resolution,
        complete: bool,
        gone: &[PeId],
        deregistered: &[PeId],
    ) -> Vec<u64> {
        let whole = complete && !resolution.elements.is_empty();
        if !whole || std::mem::replace(&mut self.listed, true) {
            return gone.iter().flat_map(|&id| self.watches_of(id)).collect();
        }
        let is_there = |id| self.known.contains(id) || deregistered.contains(id);
        self.watches.iter().filter(|(id, _)| !is_there(id)).map(|&(_, number)| number).collect()
    }

    /// Takes a listing in; returns who is gone, and who deregistered.
    fn update(
        &mut self,
        elements: &[PoolElement],
        complete: bool,
        answer: &ResolutionAnswer,
    ) -> (Vec<PeId>, Vec<PeId>) {
        let listed: BTreeSet<PeId> = elements.iter().map(|element| element.id).collect();
        let mut take = |ids: &[PeId]| -> Vec<PeId> {
            let left = ids.iter().copied().filter(|id| !listed.contains(id));
            left.filter(|id| self.known.remove(id)).collect()
        };
        let (mut gone, deregistered) = (take(&answer.lost), take(&answer.deregistered));
        if complete {
            let missing: BTreeSet<PeId> = self.known.difference(&listed).copied().collect();
            if self.grace {
                self.missing = missing;
            } else {
                self.known.retain(|id| !missing.contains(id));
                gone.extend(missing);
            }
        }
        self.missing.retain(|id| !listed.contains(id) && self.known.contains(id));
        self.known.extend(listed);
        while self.known.len() > MAX_KNOWN {
            self.known.pop_last();
        }
        (gone, deregistered)
    }
}
