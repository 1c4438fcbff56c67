//! Subscriptions to pools (RFC 5352 section 2.2.5, S and A flags): a subscriber is told of the first
//! change at once and of all further ones together after [`super::Config::subscription_interval`].

use super::measure::MAX_MESSAGE;
use super::resolve::resolution_len;
use super::{LinkId, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::machine::Time;
use crate::wire::{Asap, PeId, PoolHandle};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Departures remembered for each pool. A subscriber that misses more, because it does not read,
/// finds out from the list of elements, where that is complete.
const MAX_DEPARTED: usize = 4096;
/// Subscriptions of all links together, and bytes of the handles of the pools subscribed to. What comes
/// on top is answered without the A flag, as beyond [`super::Config::max_subscriptions_per_link`].
const MAX_SUBSCRIPTIONS: usize = 1 << 20;
const MAX_HANDLE_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Copy)]
struct Departure {
    change: u64,
    id: PeId,
    /// It deregistered itself.
    retired: bool,
}

/// The subscribers of one pool.
#[derive(Debug)]
struct Audience {
    handle: PoolHandle,
    /// Number of the pool's last change.
    change: u64,
    departed: VecDeque<Departure>,
    /// Each subscriber with the number of the last change that it was told of.
    subscribers: BTreeMap<LinkId, u64>,
    /// When the next message may be sent.
    next: Time,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    audiences: BTreeMap<u64, Audience>,
    by_handle: BTreeMap<PoolHandle, u64>,
    numbers: u64,
    /// Subscribers of all audiences.
    count: usize,
    handle_bytes: usize,
    /// Audiences with news, not yet looked at in this call.
    changed: BTreeSet<u64>,
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

    /// An element left a pool: `retired`, or was lost.
    pub(super) fn departed(&mut self, handle: &PoolHandle, id: PeId, retired: bool) {
        self.changed(handle);
        let Some(number) = self.by_handle.get(handle) else { return };
        if let Some(audience) = self.audiences.get_mut(number) {
            if audience.departed.len() >= MAX_DEPARTED {
                audience.departed.pop_front();
            }
            audience.departed.push_back(Departure { change: audience.change, id, retired });
        }
    }

    /// Whether there is room for one more.
    fn has_room(&self, handle: &PoolHandle) -> bool {
        let name = if self.by_handle.contains_key(handle) { 0 } else { handle.as_bytes().len() };
        self.count < MAX_SUBSCRIPTIONS && self.handle_bytes + name <= MAX_HANDLE_BYTES
    }

    fn add(&mut self, link: LinkId, handle: &PoolHandle) {
        let number = match self.by_handle.get(handle) {
            Some(&number) => number,
            None => {
                self.numbers += 1;
                self.handle_bytes += handle.as_bytes().len();
                self.by_handle.insert(handle.clone(), self.numbers);
                self.numbers
            }
        };
        let audience = self.audiences.entry(number).or_insert_with(|| Audience {
            handle: handle.clone(),
            change: 0,
            departed: VecDeque::new(),
            subscribers: BTreeMap::new(),
            next: Time::default(),
        });
        let change = audience.change;
        if let Entry::Vacant(place) = audience.subscribers.entry(link) {
            place.insert(change);
            self.count += 1;
        }
    }

    /// Ends a subscription.
    pub(super) fn remove(&mut self, link: LinkId, handle: &PoolHandle) {
        let Some(&number) = self.by_handle.get(handle) else { return };
        let Some(audience) = self.audiences.get_mut(&number) else { return };
        self.count -= usize::from(audience.subscribers.remove(&link).is_some());
        if audience.subscribers.is_empty() {
            self.audiences.remove(&number);
            self.by_handle.remove(handle);
            self.handle_bytes -= handle.as_bytes().len();
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
        let bytes: usize = self.by_handle.keys().map(|handle| handle.as_bytes().len()).sum();
        let count: usize = self.audiences.values().map(|audience| audience.subscribers.len()).sum();
        if (self.count, self.handle_bytes) != (count, bytes) {
            return Err(format!("{} subscriptions, {} bytes counted", self.count, self.handle_bytes));
        }
        Ok(count)
    }
}

impl Registrar {
    /// Subscribes a link; `false` if it has too many subscriptions.
    pub(super) fn subscribe(&mut self, link: LinkId, handle: &PoolHandle) -> bool {
        let bound = self.config.max_subscriptions_per_link;
        let room = self.subscriptions.has_room(handle);
        let Some(client) = self.client(link) else { return false };
        if client.subscriptions.contains(handle) {
            return true;
        }
        if !room || client.subscriptions.len() >= bound {
            return false;
        }
        client.subscriptions.insert(handle.clone());
        self.subscriptions.add(link, handle);
        true
    }

    pub(super) fn unsubscribe(&mut self, link: LinkId, handle: &PoolHandle) {
        if self.client(link).is_some_and(|client| client.subscriptions.remove(handle)) {
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
            let next = audience.next;
            if next <= self.now {
                self.push(number, None);
            } else if self.timers.get(&Timer::Push(number)).is_none() {
                self.timers.set(Timer::Push(number), next);
            }
        }
    }

    pub(super) fn push_due(&mut self, number: u64) {
        self.push(number, None);
    }

    /// Tells one subscriber of what changed in a pool, if it hasn't been told.
    pub(super) fn push_now(&mut self, link: LinkId, handle: &PoolHandle) {
        if let Some(&number) = self.subscriptions.by_handle.get(handle) {
            self.push(number, Some(link));
        }
    }

    /// A subscriber reads again: the newest state of what it missed.
    pub(super) fn subscriber_drained(&mut self, link: LinkId) {
        let Some(client) = self.client(link) else { return };
        let handles: Vec<PoolHandle> = client.subscriptions.iter().cloned().collect();
        for handle in handles {
            self.push_now(link, &handle);
        }
    }

    /// Sends a pool to all its subscribers, or to one, that do not have its state yet.
    fn push(&mut self, number: u64, only: Option<LinkId>) {
        let Some(audience) = self.subscriptions.audiences.get_mut(&number) else { return };
        let change = audience.change;
        if only.is_none() {
            audience.next = self.now + self.config.subscription_interval;
        }
        let mut behind: Vec<(LinkId, u64)> =
            audience.subscribers.iter().map(|(&link, &told)| (link, told)).collect();
        behind.retain(|&(link, told)| {
            let readable = self.links.get(&link).is_some_and(|state| !state.congested);
            readable && told < change && only.is_none_or(|only| only == link)
        });
        let mut last: Option<(u64, Vec<u8>)> = None;
        for (link, told) in behind {
            let bytes = match last {
                Some((same, bytes)) if same == told => bytes,
                _ => self.pool_message(number, told),
            };
            self.outbox.send(link, &bytes);
            last = Some((told, bytes));
            self.stats.subscription_messages += 1;
            if let Some(audience) = self.subscriptions.audiences.get_mut(&number) {
                audience.subscribers.insert(link, change);
            }
        }
        if let Some(audience) = self.subscriptions.audiences.get_mut(&number) {
            let told = audience.subscribers.values().min().copied().unwrap_or(change);
            while audience.departed.front().is_some_and(|first| first.change <= told) {
                audience.departed.pop_front();
            }
        }
    }

    /// The pool as it is, for a subscriber that knows it as it was at change `told`.
    fn pool_message(&mut self, number: u64, told: u64) -> Vec<u8> {
        let Some(audience) = self.subscriptions.audiences.get(&number) else { return Vec::new() };
        let handle = audience.handle.clone();
        // Lost once, and the sessions of then are.
        let mut gone: BTreeMap<PeId, bool> = BTreeMap::new();
        for departure in audience.departed.iter().filter(|departure| departure.change > told) {
            *gone.entry(departure.id).or_insert(true) &= departure.retired;
        }
        gone.retain(|&id, _| self.space.find(&handle, id).is_none());
        let (policy, size) =
            self.space.pool(&handle).map_or((None, 0), |pool| (Some(pool.policy()), pool.len()));
        // A very long handle leaves little room.
        const TWO_LISTS: usize = 8;
        let room = MAX_MESSAGE.saturating_sub(resolution_len(&handle, policy.as_ref()) + TWO_LISTS);
        let told: Vec<(PeId, bool)> = gone.into_iter().take(room / 4).collect();
        let room = room - 4 * told.len();
        let ids = |wanted| told.iter().filter(|(_, retired)| *retired == wanted).map(|&(id, _)| id).collect();
        let start = PeId(self.rng.u32(..));
        let mut elements = Vec::new();
        self.fitting(self.pool_from(&handle, size, room, start).into_iter(), room, &mut elements);
        let total = (elements.len() < size).then_some(size as u32);
        Asap::HandleResolutionResponse {
            subscribed: true,
            handle,
            error: None,
            policy,
            elements,
            total,
            departed: ids(false),
            retired: ids(true),
        }
        .encode()
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
