//! Handle resolution (RFC 5352 section 3.3): what registrars are asked most.

use super::asap::{HeldQuestion, MAX_DEFERRED, MAX_DEFERRED_PER_LINK, held_size};
use super::chores::Chore;
use super::dialect::most_elements;
use super::{LinkId, LiveLink, Registrar, Role, Timer};
use crate::handlespace::{ElementKey, Increment, MOST_LOOKS};
use crate::machine::{LinkEnds, Time};
use crate::wire::{
    ALL_ITEMS, Asap, CauseCode, MAX_MESSAGE, OperationError, Policy, PoolElement, PoolHandle, Transport,
};

/// More elements than this fit no message.
const MAX_ELEMENTS_PER_MESSAGE: usize = 2048;
/// Memory for more elements than this is not kept.
const MAX_SPARE: usize = 64;

/// Memory of the last resolution, for the next one.
#[derive(Debug, Default)]
pub(super) struct ResolveScratch {
    keys: Vec<ElementKey>,
    elements: Vec<PoolElement>,
}

impl Registrar {
    /// Answers a request that asks for nothing but elements of a pool that there is: no subscription begins or
    /// ends, and there is nothing to complain about. `false`: it is not of that kind, and nothing was done.
    pub(super) fn resolve_plainly(&mut self, link: LinkId, bytes: &[u8]) -> bool {
        let Some((handle, items)) = Asap::plain_resolution(bytes) else { return false };
        let Some(LiveLink { role: Role::Asap(client), ends, .. }) = self.links.get(&link) else {
            return false;
        };
        if self.config.max_handle_resolution_rate.is_some() || !client.subscriptions.is_empty() {
            return false;
        }
        if ends.roles.as_ref().is_some_and(|roles| !roles.may_resolve(handle)) {
            return false;
        }
        let items = self.wanted(ends, false, items);
        let mut keys = std::mem::take(&mut self.spare.keys);
        let found = self.space.select(handle, items, self.increment(true), &mut keys);
        if found {
            self.stats.handle_resolutions += 1;
            self.send_chosen(link, handle, &keys, false);
        }
        self.spare.keys = keys;
        found
    }

    /// Any request.
    pub(super) fn resolve(&mut self, link: LinkId, subscribe: bool, handle: PoolHandle, items: Option<u32>) {
        if self.returning && self.space.pool(&handle).is_none() && self.hold(link, subscribe, &handle, items)
        {
            return;
        }
        self.stats.handle_resolutions += 1;
        let rate = self.config.max_handle_resolution_rate;
        let now = self.now;
        if self.client(link).is_some_and(|client| !client.resolutions.take(now, rate)) {
            *self.refusals.entry(("resolution beyond the rate", CauseCode::UNKNOWN_POOL)).or_default() += 1;
            return self.send_asap(link, &no_answer(handle, false, CauseCode::UNKNOWN_POOL));
        }
        if !self.may_resolve(link, handle.as_bytes()) {
            *self.refusals.entry(("resolution", CauseCode::SECURITY)).or_default() += 1;
            return self.send_asap(link, &no_answer(handle, false, CauseCode::SECURITY));
        }
        // Who only begins or ends a subscription chooses nobody.
        let had = self.client(link).is_some_and(|client| client.subscriptions.contains(&handle));
        let chooses = if subscribe { had || items != Some(u32::MAX) } else { !had || items.is_none() };
        if had && subscribe {
            // What it has not been told of yet explains the answer: who deregistered is not lost.
            self.push_now(link, &handle);
        }
        // A subscription lasts as long as its association (RFC 5352 section 2.2.5). Our own users, who say how
        // many elements they want, end it by saying so without the flag, and subscribe to pools that don't exist.
        let plain = items.is_none();
        let subscribed = match subscribe {
            true if plain && self.space.pool(&handle).is_none() => had,
            true => self.subscribe(link, &handle, plain),
            false if plain => had,
            false => {
                self.unsubscribe(link, &handle);
                false
            }
        };
        let Some(state) = self.links.get(&link) else { return };
        let items = self.wanted(&state.ends, subscribe, items);
        let mut keys = Vec::new();
        match self.space.select(handle.as_bytes(), items, self.increment(chooses), &mut keys) {
            true => self.send_chosen(link, handle.as_bytes(), &keys, subscribed),
            false => {
                self.stats.unknown_pools += 1;
                *self.refusals.entry(("resolution", CauseCode::UNKNOWN_POOL)).or_default() += 1;
                self.chronicle.unknown(&handle);
                self.send_asap(link, &no_answer(handle, subscribed, CauseCode::UNKNOWN_POOL))
            }
        }
    }

    /// Keeps a question for a pool whose elements may be on their way back; `false`: there is no room.
    fn hold(&mut self, link: LinkId, subscribe: bool, handle: &PoolHandle, items: Option<u32>) -> bool {
        let size = held_size(handle);
        let total = self.deferred + size;
        let Some(client) = self.client(link) else { return false };
        if total > MAX_DEFERRED || client.held + size > MAX_DEFERRED_PER_LINK {
            return false;
        }
        client.held += size;
        self.deferred = total;
        self.held.entry(handle.clone()).or_default().push(HeldQuestion { link, subscribe, items });
        true
    }

    /// Pools came that somebody waits for.
    pub(super) fn answer_arrived(&mut self) {
        for handle in std::mem::take(&mut self.arrived) {
            if let Some(questions) = self.held.remove(&handle) {
                self.start(Chore::Held { handle, questions });
            }
        }
    }

    /// Whoever has not come back by now is not there.
    pub(super) fn all_returned(&mut self) {
        self.returning = false;
        while self.chores.left() > 0
            && let Some((handle, questions)) = self.held.pop_first()
        {
            self.chores.spend(1);
            self.start(Chore::Held { handle, questions });
        }
        if !self.held.is_empty() {
            self.timers.set(Timer::Returned, Time(self.now.0 + 1));
        }
    }

    /// Answers what was kept.
    pub(super) fn answer_held(
        &mut self,
        handle: &PoolHandle,
        HeldQuestion { link, subscribe, items }: HeldQuestion,
    ) {
        let size = held_size(handle);
        self.deferred -= size;
        if let Some(client) = self.client(link) {
            client.held -= size;
            self.resolve(link, subscribe, handle.clone(), items);
        }
    }

    /// Chooses elements for somebody who speaks something else than ASAP, as a handle resolution does, among
    /// those whose transport is `usable`. `None`: no such pool.
    pub fn choose(
        &mut self,
        handle: &PoolHandle,
        items: usize,
        usable: impl Fn(&Transport) -> bool,
    ) -> Option<Vec<PoolElement>> {
        self.stats.handle_resolutions += 1;
        let (mut keys, count) = (Vec::new(), [items, items.max(MOST_LOOKS)]);
        if !self.space.select_usable(handle, count, self.increment(true), usable, &mut keys) {
            self.stats.unknown_pools += 1;
            return None;
        }
        let elements = keys.into_iter().filter_map(|key| self.space.get(key));
        Some(elements.map(|element| element.to_client_element()).collect())
    }

    /// How many elements to choose.
    fn wanted(&self, ends: &LinkEnds, subscribe: bool, items: Option<u32>) -> usize {
        let all = items == Some(ALL_ITEMS);
        let mut items = match items {
            None | Some(0) => self.config.max_handle_resolution_items,
            Some(items) => items as usize,
        };
        items = items.min(most_elements(&self.config, ends, subscribe || all));
        items.clamp(1, MAX_ELEMENTS_PER_MESSAGE)
    }

    /// What counts as used; if nobody `chooses`, nothing.
    fn increment(&self, chooses: bool) -> Increment {
        match self.config.max_increment {
            _ if !chooses => Increment::Up(0),
            0 => Increment::PolicyDefault,
            count => Increment::Up(count),
        }
    }

    /// Sends elements of a pool that there is.
    fn send_chosen(&mut self, link: LinkId, handle: &[u8], keys: &[ElementKey], subscribed: bool) {
        let first = keys.first().and_then(|&key| self.space.get(key));
        // A draw may find nobody.
        let found = first.map(|element| (element.handle(), element.policy()));
        let pool = || self.space.pool_named(handle);
        let Some((handle, policy)) = found.or_else(|| pool().map(|pool| (pool.handle(), pool.policy())))
        else {
            return;
        };
        let (handle, policy) = (handle.clone(), Some(policy));
        let mut elements = std::mem::take(&mut self.spare.elements);
        let all = MAX_MESSAGE - resolution_len(&handle, policy.as_ref());
        let left = self.fitting(keys.iter().copied(), all, &mut elements);
        let total = match subscribed {
            true => self.space.pool(&handle).map(|pool| pool.len()).filter(|&total| total > elements.len()),
            false => None,
        };
        let message = Asap::HandleResolutionResponse {
            subscribed,
            handle,
            error: None,
            policy,
            elements,
            total: total.map(|total| total as u32),
            lost: Vec::new(),
            deregistered: Vec::new(),
        };
        let lengths = self.config.lengths();
        self.outbox.send_with(link, MAX_MESSAGE - left, |out| message.encode_with(lengths, out));
        if let Asap::HandleResolutionResponse { mut elements, .. } = message
            && elements.capacity() <= MAX_SPARE
        {
            elements.clear();
            self.spare.elements = elements;
        }
    }

    /// The elements as clients see them, as many as fit `room` bytes; what is left of those.
    pub(super) fn fitting(
        &self,
        keys: impl Iterator<Item = ElementKey>,
        mut room: usize,
        elements: &mut Vec<PoolElement>,
    ) -> usize {
        for element in keys.filter_map(|key| self.space.get(key)) {
            let element = element.to_client_element();
            match room.checked_sub(element.encoded_len()) {
                Some(rest) => room = rest,
                None => break,
            }
            elements.push(element);
        }
        room
    }
}

/// A response without elements, and why.
pub(super) fn no_answer(handle: PoolHandle, subscribed: bool, why: CauseCode) -> Asap {
    Asap::HandleResolutionResponse {
        subscribed,
        handle,
        error: Some(OperationError::from(why)),
        policy: None,
        elements: Vec::new(),
        total: None,
        lost: Vec::new(),
        deregistered: Vec::new(),
    }
}

/// Length of a response without elements.
pub(super) fn resolution_len(handle: &PoolHandle, policy: Option<&Policy>) -> usize {
    const HEADER: usize = 4;
    const TOTAL: usize = 8;
    HEADER + handle.encoded_len() + policy.map_or(0, Policy::encoded_len) + TOTAL
}
