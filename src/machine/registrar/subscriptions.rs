//! Subscriptions to pools (RFC 5352 section 2.2.5, S and A flags): a subscriber is told of the first
//! change at once and of all further ones together after [`super::Config::subscription_interval`].

use super::chores::Chore;
use super::dialect::Removal;
use super::resolve::{no_answer, resolution_len};
use super::subscribers::{SUBSCRIBER, Subscriber, Subscribers};
use super::{LinkId, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::machine::Time;
use crate::wire::{Asap, CauseCode, MAX_MESSAGE, PeId, PoolHandle};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// Departures remembered for each pool. A subscriber that misses more, because it does not read,
/// finds out from the list of elements, where that is complete.
const MAX_DEPARTED: usize = 4096;
/// Subscriptions of all links together, and bytes that they take. What comes on top is answered without the A flag, as
/// beyond [`super::Config::max_subscriptions_per_link`].
const MAX_SUBSCRIPTIONS: usize = 1 << 20;
pub(super) const MAX_BYTES: usize = 64 << 20;
/// Departures remembered in all, and what they take: a queue may be half empty.
const MAX_DEPARTED_IN_ALL: usize = 1 << 20;
const DEPARTED: usize = 2 * size_of::<Departure>();
pub(super) const MAX_DEPARTED_BYTES: usize = MAX_DEPARTED_IN_ALL * DEPARTED;
/// A place in a tree whose nodes are little more than half full, as they are when what comes is always the last.
const fn place(entry: usize) -> usize {
    2 * entry
}
/// What the allocator adds to each piece, at most.
const PIECE: usize = 24;
/// What a pool with subscribers takes beside its handle: itself, its handle's counters, and its places in the two tables.
const AUDIENCE: usize = size_of::<Audience>()
    + 2 * size_of::<usize>()
    + 2 * PIECE
    + place(size_of::<(u64, Box<Audience>)>())
    + place(size_of::<(PoolHandle, u64)>());
/// What a subscription takes: a subscriber of the pool, and the pool's place in the table of the link.
const SUBSCRIPTION: usize = SUBSCRIBER + place(size_of::<PoolHandle>());
/// Bytes sent to subscribers at once.
const MAX_PUSH: usize = 256 << 10;
/// Bytes a microsecond that a pool's subscribers are told, so that a long list that changes all the time, for many, leaves
/// time for others.
const PUSH_RATE: u64 = 16;
/// So many bytes of a message that lists elements are as much work as one element elsewhere.
const BYTES_PER_UNIT: usize = 1024;
/// And so many subscribers that are looked at.
const SUBSCRIBERS_PER_UNIT: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Departure {
    change: u64,
    id: PeId,
    why: Removal,
}

/// The subscribers of one pool.
#[derive(Debug)]
struct Audience {
    handle: PoolHandle,
    /// Number of the pool's last change.
    change: u64,
    departed: VecDeque<Departure>,
    subscribers: Subscribers,
    /// When its subscribers began to be told last, and how many bytes that was.
    begun: Time,
    pushed: usize,
    /// When the next message may be sent.
    next: Time,
    /// Its subscribers are being told.
    telling: bool,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    audiences: BTreeMap<u64, Box<Audience>>,
    by_handle: BTreeMap<PoolHandle, u64>,
    numbers: u64,
    /// Subscribers of all audiences.
    count: usize,
    /// What all of them take.
    bytes: usize,
    /// Departures of all audiences.
    departures: usize,
    /// Audiences with news, not yet looked at in this call.
    changed: BTreeSet<u64>,
}

/// What a subscription takes of a link's and a host's share: as if nobody else had subscribed to the pool.
pub(super) fn weight(handle: &PoolHandle) -> usize {
    AUDIENCE + SUBSCRIPTION + handle.as_bytes().len()
}

impl Subscriptions {
    /// A pool changed.
    pub(super) fn changed(&mut self, handle: &PoolHandle) {
        let Some(&number) = self.by_handle.get(handle) else { return };
        if let Some(audience) = self.audiences.get_mut(&number) {
            audience.change += 1;
            self.changed.insert(number);
        }
    }

    /// An element left a pool.
    pub(super) fn departed(&mut self, handle: &PoolHandle, id: PeId, why: Removal) {
        self.changed(handle);
        let Some(number) = self.by_handle.get(handle) else { return };
        if let Some(audience) = self.audiences.get_mut(number) {
            if audience.departed.len() >= MAX_DEPARTED || self.departures >= MAX_DEPARTED_IN_ALL {
                self.departures -= usize::from(audience.departed.pop_front().is_some());
            }
            if self.departures < MAX_DEPARTED_IN_ALL {
                audience.departed.push_back(Departure { change: audience.change, id, why });
                self.departures += 1;
            }
        }
    }

    /// What subscriptions take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What departures take.
    pub(super) fn departed_bytes(&self) -> usize {
        self.departures * DEPARTED
    }

    /// Whether there is room for one more.
    fn has_room(&self, handle: &PoolHandle) -> bool {
        let more = if self.by_handle.contains_key(handle) { SUBSCRIPTION } else { weight(handle) };
        self.count < MAX_SUBSCRIPTIONS && self.bytes + more <= MAX_BYTES
    }

    /// Adds one; the handle of the pool, which all its subscribers share.
    fn add(&mut self, link: LinkId, handle: &PoolHandle, plain: bool) -> PoolHandle {
        let number = match self.by_handle.get(handle) {
            Some(&number) => number,
            None => {
                self.numbers += 1;
                self.bytes += weight(handle) - SUBSCRIPTION;
                self.by_handle.insert(handle.clone(), self.numbers);
                self.numbers
            }
        };
        let audience = self.audiences.entry(number).or_insert_with(|| {
            Box::new(Audience {
                handle: handle.clone(),
                change: 0,
                departed: VecDeque::new(),
                subscribers: Subscribers::default(),
                begun: Time::default(),
                pushed: 0,
                next: Time::default(),
                telling: false,
            })
        });
        let told = audience.change;
        if audience.subscribers.put(link, Subscriber { told, plain }) {
            self.count += 1;
            self.bytes += SUBSCRIPTION;
        }
        audience.handle.clone()
    }

    /// Ends a subscription.
    pub(super) fn remove(&mut self, link: LinkId, handle: &PoolHandle) {
        let Some(&number) = self.by_handle.get(handle) else { return };
        let Some(audience) = self.audiences.get_mut(&number) else { return };
        if audience.subscribers.remove(link) {
            self.count -= 1;
            self.bytes -= SUBSCRIPTION;
        }
        if audience.subscribers.len() == 0 {
            self.departures -= audience.departed.len();
            self.audiences.remove(&number);
            self.by_handle.remove(handle);
            self.bytes -= weight(handle) - SUBSCRIPTION;
            self.changed.remove(&number);
        }
    }

    /// How many there are, and how many there can be.
    pub(super) fn use_of_bound(&self) -> (usize, usize) {
        (self.count, MAX_SUBSCRIPTIONS)
    }

    /// Whether tables fit each other, and how many subscriptions there are.
    pub(super) fn check(&self) -> Result<usize, String> {
        if self.audiences.len() != self.by_handle.len() || !self.changed.is_empty() {
            return Err(format!(
                "{} audiences, {} handles, {} unsent",
                self.audiences.len(),
                self.by_handle.len(),
                self.changed.len()
            ));
        }
        if self.audiences.values().any(|audience| audience.departed.len() > MAX_DEPARTED) {
            return Err("too many departures kept".into());
        }
        let bytes: usize = self
            .audiences
            .values()
            .map(|audience| {
                weight(&audience.handle) - SUBSCRIPTION + SUBSCRIPTION * audience.subscribers.len()
            })
            .sum();
        let departures: usize = self.audiences.values().map(|audience| audience.departed.len()).sum();
        if departures != self.departures {
            return Err(format!("{departures} departures, {} counted", self.departures));
        }
        let count: usize = self.audiences.values().map(|audience| audience.subscribers.len()).sum();
        if (self.count, self.bytes) != (count, bytes) {
            return Err(format!("{} subscriptions, {} bytes counted", self.count, self.bytes));
        }
        Ok(count)
    }
}

impl Registrar {
    /// Subscribes a link; `false` if it has too many subscriptions.
    pub(super) fn subscribe(&mut self, link: LinkId, handle: &PoolHandle, plain: bool) -> bool {
        let bound = self.config.max_subscriptions_per_link;
        let room = self.subscriptions.has_room(handle);
        let left = MAX_BYTES.saturating_sub(self.subscriptions.bytes);
        let count_left = MAX_SUBSCRIPTIONS.saturating_sub(self.subscriptions.count);
        let Some(client) = self.client(link) else { return false };
        if client.subscriptions.contains(handle) {
            return true;
        }
        // No link has more than is left for all others.
        if !room || client.subscriptions.len() >= bound || client.subscribed >= left {
            return false;
        }
        let host = client.host;
        if !self.has_subscribers_share(host, count_left, left) {
            return false;
        }
        let handle = self.subscriptions.add(link, handle, plain);
        let bytes = weight(&handle);
        self.shares.change(host, |share| {
            share.subscriptions += 1;
            share.subscribed += bytes;
        });
        if let Some(client) = self.client(link) {
            client.subscriptions.insert(handle);
            client.subscribed += bytes;
        }
        true
    }

    pub(super) fn unsubscribe(&mut self, link: LinkId, handle: &PoolHandle) {
        if let Some(client) = self.client(link)
            && client.subscriptions.remove(handle)
        {
            let bytes = weight(handle);
            client.subscribed -= bytes;
            let host = client.host;
            self.shares.change(host, |share| {
                share.subscriptions -= 1;
                share.subscribed -= bytes;
            });
            self.subscriptions.remove(link, handle);
        }
    }

    /// Tells subscribers of what changed in this call, as far as it is time.
    pub(super) fn push_changes(&mut self) {
        if self.subscriptions.changed.is_empty() {
            return;
        }
        for number in std::mem::take(&mut self.subscriptions.changed) {
            let Some(audience) = self.subscriptions.audiences.get(&number) else { continue };
            let (next, telling) = (audience.next, audience.telling);
            if next <= self.now && !telling {
                self.push(number);
            } else if self.timers.get(&Timer::Push(number)).is_none() {
                self.timers.set(Timer::Push(number), next.max(Time(self.now.0 + 1)));
            }
        }
    }

    pub(super) fn push_due(&mut self, number: u64) {
        let Some(audience) = self.subscriptions.audiences.get(&number) else { return };
        match audience.telling {
            true => self.timers.set(Timer::Push(number), self.now + self.config.subscription_interval),
            false => self.push(number),
        }
    }

    /// Tells one subscriber of what changed in a pool, if it hasn't been told; how many bytes that took.
    pub(super) fn push_now(&mut self, link: LinkId, handle: &PoolHandle) -> usize {
        let Some(&number) = self.subscriptions.by_handle.get(handle) else { return 0 };
        let Some(audience) = self.subscriptions.audiences.get(&number) else { return 0 };
        let Some(subscriber) = audience.subscribers.get(link) else { return 0 };
        let congested = self.links.get(&link).is_none_or(|state| state.congested);
        if congested || subscriber.told >= audience.change {
            return 0;
        }
        let bytes = self.pool_message(number, subscriber);
        self.tell_subscriber(number, link, subscriber, &bytes);
        bytes.len()
    }

    /// A subscriber reads again: the newest state of what it missed.
    pub(super) fn subscriber_drained(&mut self, link: LinkId) {
        if self.client(link).is_some_and(|client| !client.subscriptions.is_empty()) {
            self.start(Chore::Drained { link, after: None });
        }
    }

    /// Some of that, after this pool; whether that was all.
    pub(super) fn drained_some(
        &mut self,
        link: LinkId,
        after: &mut Option<PoolHandle>,
        units: &mut usize,
    ) -> bool {
        let mut sent = 0;
        loop {
            let Some(client) = self.client(link) else { return true };
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = client.subscriptions.range::<PoolHandle, _>((from, Bound::Unbounded)).next();
            let Some(handle) = next.cloned() else { return true };
            if *units == 0 || sent > MAX_PUSH {
                *units = 0;
                return false;
            }
            *units -= 1;
            let bytes = self.push_now(link, &handle);
            sent += bytes;
            *units = units.saturating_sub(bytes / BYTES_PER_UNIT);
            *after = Some(handle);
        }
    }

    /// Sends a pool to all its subscribers that do not have its state yet.
    fn push(&mut self, number: u64) {
        let (now, interval) = (self.now, self.config.subscription_interval);
        let Some(audience) = self.subscriptions.audiences.get_mut(&number) else { return };
        (audience.begun, audience.pushed, audience.next) = (now, 0, now + interval);
        audience.telling = true;
        self.start(Chore::Push { audience: number, after: None });
    }

    /// Sends it to some of them; after whom to go on, if not to all.
    pub(super) fn push_some(
        &mut self,
        number: u64,
        after: Option<LinkId>,
        units: &mut usize,
    ) -> Option<LinkId> {
        let audience = self.subscriptions.audiences.get(&number)?;
        let change = audience.change;
        let some: Vec<(LinkId, Subscriber)> = audience.subscribers.some_after(after, *units);
        let mut sent = 0;
        let mut last: Option<(Subscriber, Vec<u8>)> = None;
        for &(link, subscriber) in &some {
            if sent > MAX_PUSH {
                *units = 0;
            }
            if *units == 0 {
                let done = some.iter().position(|&(other, _)| other == link).and_then(|at| at.checked_sub(1));
                return done.map_or(after.or(Some(LinkId(0))), |at| Some(some[at].0));
            }
            *units -= 1;
            let readable = self.links.get(&link).is_some_and(|state| !state.congested);
            if !readable || subscriber.told >= change {
                continue;
            }
            let bytes = match last {
                Some((same, bytes)) if (same.told, same.plain) == (subscriber.told, subscriber.plain) => {
                    bytes
                }
                _ => {
                    // All departures are looked at, and the elements that fit.
                    let departed = self.subscriptions.audiences.get(&number).map_or(0, |a| a.departed.len());
                    let bytes = self.pool_message(number, subscriber);
                    *units = units.saturating_sub(departed / 32 + bytes.len() / BYTES_PER_UNIT);
                    bytes
                }
            };
            sent += bytes.len();
            self.tell_subscriber(number, link, subscriber, &bytes);
            if let Some(audience) = self.subscriptions.audiences.get_mut(&number) {
                audience.pushed += bytes.len();
                let takes = Duration::from_micros(audience.pushed as u64 / PUSH_RATE);
                audience.next = audience.next.max(audience.begun + takes);
            }
            last = Some((subscriber, bytes));
        }
        if *units == 0 {
            return some.last().map(|&(link, _)| link).or(after);
        }
        let audience = self.subscriptions.audiences.get_mut(&number)?;
        *units = units.saturating_sub(audience.subscribers.len() / SUBSCRIBERS_PER_UNIT);
        audience.telling = false;
        let told = audience.subscribers.told().unwrap_or(change);
        while audience.departed.front().is_some_and(|first| first.change <= told) {
            audience.departed.pop_front();
            self.subscriptions.departures -= 1;
        }
        if audience.departed.len() <= audience.departed.capacity() / 4 {
            audience.departed.shrink_to_fit();
        }
        let more = audience.change > change;
        let next = audience.next;
        if more && self.timers.get(&Timer::Push(number)).is_none() {
            self.timers.set(Timer::Push(number), next.max(Time(self.now.0 + 1)));
        }
        None
    }

    fn tell_subscriber(&mut self, number: u64, link: LinkId, subscriber: Subscriber, bytes: &[u8]) {
        self.outbox.send(link, bytes);
        self.stats.subscription_messages += 1;
        let Some(audience) = self.subscriptions.audiences.get_mut(&number) else { return };
        let handle = audience.handle.clone();
        if subscriber.plain && self.space.pool(&handle).is_none() {
            return self.unsubscribe(link, &handle);
        }
        let told = audience.change;
        audience.subscribers.put(link, Subscriber { told, ..subscriber });
    }

    /// The pool as it is, for a subscriber that knows it as it was at a change.
    fn pool_message(&mut self, number: u64, Subscriber { told, plain }: Subscriber) -> Vec<u8> {
        let Some(audience) = self.subscriptions.audiences.get(&number) else { return Vec::new() };
        let handle = audience.handle.clone();
        if plain && self.space.pool(&handle).is_none() {
            return no_answer(handle, false, CauseCode::UNKNOWN_POOL).encode_as(self.config.lengths());
        }
        // Lost once, and the sessions of then are.
        let mut gone: BTreeMap<PeId, bool> = BTreeMap::new();
        for departure in audience.departed.iter().filter(|departure| !plain && departure.change > told) {
            *gone.entry(departure.id).or_insert(true) &= departure.why == Removal::Deregistered;
        }
        gone.retain(|&id, _| self.space.find(&handle, id).is_none());
        let (policy, size) =
            self.space.pool(&handle).map_or((None, 0), |pool| (Some(pool.policy()), pool.len()));
        // A very long handle leaves little room.
        const TWO_LISTS: usize = 8;
        let room = MAX_MESSAGE.saturating_sub(resolution_len(&handle, policy.as_ref()) + TWO_LISTS);
        let told: Vec<(PeId, bool)> = gone.into_iter().take(room / 4).collect();
        let room = room - 4 * told.len();
        let ids = |wanted| {
            told.iter().filter(|(_, deregistered)| *deregistered == wanted).map(|&(id, _)| id).collect()
        };
        let start = PeId(self.rng.u32(..));
        let mut elements = Vec::new();
        self.fitting(self.pool_from(&handle, size, room, start).into_iter(), room, &mut elements);
        let total = (!plain && elements.len() < size).then_some(size as u32);
        Asap::HandleResolutionResponse {
            subscribed: true,
            handle,
            error: None,
            policy,
            elements,
            total,
            lost: ids(false),
            deregistered: ids(true),
        }
        .encode_as(self.config.lengths())
    }

    /// Elements of a pool; of one too large for a message, those that follow a random identifier, so
    /// that not all subscribers know the same.
    fn pool_from(&self, handle: &PoolHandle, size: usize, room: usize, start: PeId) -> Vec<ElementKey> {
        const SMALLEST_ELEMENT: usize = 16 + 16 + 8;
        let most = room / SMALLEST_ELEMENT;
        let Some(pool) = self.space.pool(handle) else { return Vec::new() };
        let all = || pool.elements().map(|element| element.key());
        if size <= most {
            return all().collect();
        }
        let following = self.space.elements_after(Some((handle, start)));
        let following =
            following.take_while(|element| element.handle() == handle).map(|element| element.key());
        following.chain(all()).take(most.min(size)).collect()
    }
}
