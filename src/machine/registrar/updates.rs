//! Telling peers what changed: handle updates (RFC 5353 section 3.3), and those that wait for a peer.

use super::dialect::{Removal, rsplib_can_hold};
use super::{Dialect, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::machine::Time;
use crate::wire::{
    Enrp, EnrpMessage, Lengths, PeId, PoolElement, PoolHandle, RegistrarId, enrp::UpdateAction,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Updates that wait for a peer which does not read as fast as we send: the newest for each element.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    updates: BTreeMap<(PoolHandle, PeId), WaitingUpdate>,
    bytes: usize,
    /// Too many: the peer shall read our table instead.
    overflow: bool,
    /// Bytes sent at the same instant, that is without the driver in between.
    burst: (Time, usize),
}

#[derive(Debug, Default)]
struct WaitingUpdate {
    /// A removed element's last state, and why it went.
    last: Option<(PoolElement, Removal)>,
    /// It was lost meanwhile: if it deregistered later, that was another life of it.
    lost: bool,
}

impl WaitingUpdate {
    fn bytes(&self, handle: &PoolHandle) -> usize {
        const RECORD: usize = 128;
        RECORD + handle.as_bytes().len() + self.last.as_ref().map_or(0, |(element, _)| element.encoded_len())
    }
}

/// Bound on waiting updates for each peer, and on their bytes.
const MAX_BACKLOG: usize = 4096;
pub(super) const MAX_BACKLOG_BYTES: usize = 1 << 20;
/// Bound on bytes of updates sent to a peer at once.
const MAX_BURST: usize = 128 << 10;
/// So many updates that won't be sent are forgotten at once.
const DISCARDED: usize = 8;
/// Pause between bursts.
const BURST_PAUSE: Duration = Duration::from_millis(5);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.updates.is_empty() && !self.overflow
    }

    pub(super) fn len(&self) -> usize {
        self.updates.len()
    }

    pub(super) fn clear(&mut self) {
        self.updates.clear();
        self.bytes = 0;
        self.overflow = false;
    }

    fn add(&mut self, name: (PoolHandle, PeId), last: Option<(PoolElement, Removal)>) {
        if self.overflow {
            return self.discard(DISCARDED);
        }
        let before = self.updates.get(&name).map_or(0, |waiting| waiting.bytes(&name.0));
        let waiting = self.updates.entry(name.clone()).or_default();
        waiting.lost |= last.as_ref().is_some_and(|(_, why)| *why == Removal::Lost);
        waiting.last = last;
        self.bytes = self.bytes - before + waiting.bytes(&name.0);
        while self.updates.len() > MAX_BACKLOG || self.bytes > MAX_BACKLOG_BYTES {
            self.overflow = true;
            self.discard(1);
        }
    }

    /// Forgets some of what won't be sent. Many peers may fall behind at once, so not all of it at a time.
    fn discard(&mut self, most: usize) {
        for _ in 0..most {
            self.next();
        }
    }

    fn next(&mut self) -> Option<((PoolHandle, PeId), WaitingUpdate)> {
        let (name, waiting) = self.updates.pop_first()?;
        self.bytes -= waiting.bytes(&name.0);
        Some((name, waiting))
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether so many bytes more can be sent now.
    fn may_send(&mut self, now: Time, bytes: usize) -> bool {
        if self.burst.0 != now {
            self.burst = (now, 0);
        }
        self.burst.1 += bytes;
        self.burst.1 <= MAX_BURST
    }

    pub(super) fn check(&self) -> bool {
        let bytes: usize = self.updates.iter().map(|((handle, _), waiting)| waiting.bytes(handle)).sum();
        self.updates.len() <= MAX_BACKLOG && bytes == self.bytes && bytes <= MAX_BACKLOG_BYTES
    }
}

impl Registrar {
    /// Tells all peers of an element of ours.
    pub(super) fn announce_update(&mut self, key: ElementKey) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        self.tell_all(handle, element, None);
    }

    /// Tells all peers that an element is gone, and why.
    pub(super) fn announce_removal(&mut self, handle: PoolHandle, element: PoolElement, why: Removal) {
        self.tell_all(handle, element, Some(why));
    }

    fn author(&self) -> Author {
        Author { id: self.id, lengths: self.config.lengths() }
    }

    fn tell_all(&mut self, handle: PoolHandle, element: PoolElement, removal: Option<Removal>) {
        let peers = self.peers.linked();
        if peers.is_empty() {
            return;
        }
        let mut update = Update::new(self.author(), handle, element, removal);
        for id in peers {
            self.tell(id, &mut update);
        }
    }

    /// Sends an update to one peer, or keeps it until the peer can take it; whether it was sent.
    fn tell(&mut self, id: RegistrarId, update: &mut Update) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return true };
        let Some(link) = peer.link else { return true };
        if peer.dialect.withholds(update.for_rsplib) {
            if peer.dialect == Dialect::Rsplib {
                let handle = update.handle.clone();
                let who = self.called(id);
                self.complain("withheld", || {
                    format!("peer {who} can't hold some of our elements, for example of pool \"{handle}\"")
                });
            }
            return true;
        }
        peer.link_used = true;
        let congested = self.links.get(&link).is_some_and(|link| link.congested);
        if congested || !peer.backlog.is_empty() || !peer.backlog.may_send(now, update.bytes.len()) {
            let last = update.removal.map(|why| (update.element.clone(), why));
            peer.backlog.add((update.handle.clone(), update.element.id), last);
            if !congested && self.timers.get(&Timer::Flush(id)).is_none() {
                self.timers.set(Timer::Flush(id), now + BURST_PAUSE);
            }
            return false;
        }
        let receiver = peer.dialect.receiver_of_updates(id);
        self.stats.handle_updates_sent += 1;
        self.outbox.send(link, update.addressed_to(receiver));
        true
    }

    /// A peer can take more.
    pub(super) fn flush_backlog(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(link) = peer.link else { return };
        if self.links.get(&link).is_none_or(|link| link.congested) || peer.backlog.is_empty() {
            return;
        }
        let now = self.now;
        if peer.backlog.overflow {
            while !peer.backlog.updates.is_empty() {
                if self.chores.left() == 0 {
                    return self.timers.set(Timer::Flush(id), Time(now.0 + 1));
                }
                self.chores.spend(1);
                peer.backlog.discard(DISCARDED);
            }
            peer.backlog.clear();
            return self.force_audit(id);
        }
        let receiver = peer.dialect.receiver_of_updates(id);
        while let Some(peer) = self.peers.get_mut(id) {
            if self.chores.left() == 0 && !peer.backlog.is_empty() {
                return self.timers.set(Timer::Flush(id), Time(now.0 + 1));
            }
            let Some((name, WaitingUpdate { last, lost })) = peer.backlog.next() else { break };
            self.chores.spend(1);
            let known = self.space.find(&name.0, name.1).and_then(|key| self.space.get(key));
            let (element, removal) = match (known.map(|element| element.to_element()), last.clone()) {
                (Some(element), _) if element.home == self.id => (element, None),
                (None, Some((element, why))) => (element, Some(if lost { Removal::Lost } else { why })),
                // Somebody else's meanwhile, who tells the peer.
                _ => continue,
            };
            let mut update = Update::new(self.author(), name.0.clone(), element, removal);
            let Some(peer) = self.peers.get_mut(id) else { return };
            if !peer.backlog.may_send(now, update.bytes.len()) {
                peer.backlog.add(name.clone(), last);
                if lost && let Some(waiting) = peer.backlog.updates.get_mut(&name) {
                    waiting.lost = true;
                }
                return self.timers.set(Timer::Flush(id), now + BURST_PAUSE);
            }
            self.stats.handle_updates_sent += 1;
            self.outbox.send(link, update.addressed_to(receiver));
        }
        self.send_presence(id, false);
    }

    /// Suggests one element to the peer that fits it best, as rsplib does: the largest value of
    /// registrar ID XOR element identifier.
    pub(super) fn suggest_takeover(&mut self, key: ElementKey) {
        if !self.config.support_takeover_suggestion {
            return;
        }
        let Some(element) = self.space.get(key) else { return };
        let fit = |id: RegistrarId| id.0 ^ element.id().0;
        let best = self.peers.linked().into_iter().max_by_key(|&id| fit(id));
        let Some(best) = best.filter(|&id| fit(id) > fit(self.id)) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let mut update = Update::suggesting(self.author(), handle, element);
        self.tell(best, &mut update);
    }

    /// A table says that an element with a link here is another's: tell that one.
    pub(super) fn insist(&mut self, peer: RegistrarId, key: ElementKey) {
        if !self.may_quarrel(key) {
            return;
        }
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let mut update = Update::new(self.author(), handle, element, None);
        self.tell(peer, &mut update);
    }
}

/// A handle update, encoded once for all peers.
struct Update {
    handle: PoolHandle,
    element: PoolElement,
    removal: Option<Removal>,
    for_rsplib: bool,
    bytes: Vec<u8>,
}

/// Who says it, and how.
#[derive(Clone, Copy)]
struct Author {
    id: RegistrarId,
    lengths: Lengths,
}

impl Update {
    /// What is new of an element, or that it is gone.
    fn new(author: Author, handle: PoolHandle, mut element: PoolElement, removal: Option<Removal>) -> Update {
        let for_rsplib = rsplib_can_hold(&handle, &element);
        if let Some(why) = removal {
            why.encode(&mut element);
        }
        let action = if removal.is_some() { UpdateAction::Delete } else { UpdateAction::Add };
        let bytes = Update::encode(author, action, &handle, &element, false);
        Update { handle, element, removal, for_rsplib, bytes }
    }

    /// That the receiver had better be the element's home.
    fn suggesting(author: Author, handle: PoolHandle, element: PoolElement) -> Update {
        let for_rsplib = rsplib_can_hold(&handle, &element);
        let bytes = Update::encode(author, UpdateAction::Add, &handle, &element, true);
        Update { handle, element, removal: None, for_rsplib, bytes }
    }

    fn encode(
        author: Author,
        action: UpdateAction,
        handle: &PoolHandle,
        element: &PoolElement,
        takeover_suggested: bool,
    ) -> Vec<u8> {
        let (handle, element) = (handle.clone(), element.clone());
        let body = Enrp::HandleUpdate { takeover_suggested, action, handle, element };
        EnrpMessage { sender: author.id, receiver: RegistrarId(0), body }.encode_as(author.lengths)
    }

    /// The message with the receiver's ID in its place.
    fn addressed_to(&mut self, receiver: RegistrarId) -> &[u8] {
        self.bytes[8..12].copy_from_slice(&receiver.0.to_be_bytes());
        &self.bytes
    }
}
