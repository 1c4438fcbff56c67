//! Keeping handlespaces equal: handle updates, handle tables, audit (RFC 5353 sections 3.3, 3.6).

use super::measure::{self, MAX_MESSAGE};
use super::{LinkId, Registrar, Timer};
use crate::handlespace::{ElementKey, ElementRef};
use crate::machine::{LinkProtocol, Time};
use crate::wire::{Enrp, EnrpMessage, PeId, PoolElement, PoolHandle, RegistrarId, enrp::UpdateAction};
use std::collections::BTreeMap;
use std::time::Duration;

/// Updates that wait for a peer which does not read as fast as we send: the newest for each element.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    updates: BTreeMap<(PoolHandle, PeId), Waiting>,
    /// Too many: the peer shall read our table instead.
    overflow: bool,
    /// Bytes sent at the same instant, that is without the driver in between.
    burst: (Time, usize),
}

#[derive(Debug, Default)]
struct Waiting {
    /// A removed element's last state.
    last: Option<PoolElement>,
    /// It was lost meanwhile: if it deregistered later, that was another life of it.
    lost: bool,
}

/// Bound on waiting updates for each peer.
const MAX_BACKLOG: usize = 4096;
/// Bound on bytes of updates sent to a peer at once.
const MAX_BURST: usize = 512 << 10;
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
        self.overflow = false;
    }

    fn add(&mut self, name: (PoolHandle, PeId), last: Option<PoolElement>) {
        if self.overflow {
            return;
        }
        let waiting = self.updates.entry(name).or_default();
        waiting.lost |= last.as_ref().is_some_and(|element| !is_retired(element));
        waiting.last = last;
        if self.updates.len() > MAX_BACKLOG {
            self.updates.clear();
            self.overflow = true;
        }
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
        self.updates.len() <= MAX_BACKLOG
    }
}

/// Our comparison of a peer's elements with what we know of them.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// While one runs: the number of the newest record when it began.
    since: Option<u64>,
    /// When its last part was asked for.
    progress: Time,
    /// Updates may have been lost: compare whatever the checksum says.
    needed: bool,
    /// The last one did not help, so the next one waits this long.
    pause: Duration,
    not_before: Time,
}

/// An audit without an answer for so long is begun anew.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause after an audit that did not help.
const AUDIT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Audit {
    pub(super) fn stop(&mut self) {
        self.since = None;
    }

    pub(super) fn link_lost(&mut self) {
        self.since = None;
        self.needed = true;
        self.pause = Duration::ZERO;
        self.not_before = Time::default();
    }

    /// The whole table was read: nothing can be missing.
    pub(super) fn done_otherwise(&mut self) {
        self.needed = false;
    }
}

/// How far a peer has read our table.
#[derive(Debug)]
pub(super) struct TableCursor {
    own_only: bool,
    pub link: LinkId,
    after: (PoolHandle, PeId),
    when: Time,
}

/// A reading that pauses for longer starts anew.
const TABLE_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes in one part of a table: rsplib's, and ours.
const TABLE_PART: (usize, usize) = (measure::RSPLIB_MAX_TABLE, 32 << 10);
/// Elements in one part for rsplib.
const RSPLIB_TABLE_ELEMENTS: usize = 128;

/// Where elements come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A handle update: something just happened.
    News,
    /// A handle table: how things are.
    State,
}

/// Why a deleting update takes an element away is said by its registration life, for which rsplib's registrars don't
/// look: 0 if it deregistered itself.
fn set_retired(element: &mut PoolElement, retired: bool) {
    element.life = if retired { 0 } else { element.life.max(1) };
}

fn is_retired(element: &PoolElement) -> bool {
    element.life == 0
}

impl Registrar {
    /// Tells all peers of an element of ours.
    pub(super) fn announce_update(&mut self, key: ElementKey) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        self.tell_all(UpdateAction::Add, handle, element);
    }

    /// Tells all peers that an element is gone: `retired`, or lost.
    pub(super) fn announce_removal(&mut self, handle: PoolHandle, mut element: PoolElement, retired: bool) {
        set_retired(&mut element, retired);
        self.tell_all(UpdateAction::Delete, handle, element);
    }

    fn tell_all(&mut self, action: UpdateAction, handle: PoolHandle, element: PoolElement) {
        let peers = self.peers.linked();
        if peers.is_empty() {
            return;
        }
        let mut update = Update::new(self.id, action, handle, element, false);
        for id in peers {
            self.tell(id, &mut update);
        }
    }

    /// Sends an update to one peer, or keeps it until the peer can take it.
    fn tell(&mut self, id: RegistrarId, update: &mut Update) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(link) = peer.link else { return };
        if peer.rsplib && !update.for_rsplib {
            let handle = update.handle.clone();
            return self.complain("withheld", u64::from(id.0), || {
                format!("peer {id} can't hold some of our elements, for example of pool \"{handle}\"")
            });
        }
        peer.link_used = true;
        let congested = self.links.get(&link).is_some_and(|link| link.congested);
        if congested || !peer.backlog.is_empty() || !peer.backlog.may_send(now, update.bytes.len()) {
            let last = (update.action == UpdateAction::Delete).then(|| update.element.clone());
            peer.backlog.add((update.handle.clone(), update.element.id), last);
            if !congested && self.timers.get(&Timer::Flush(id)).is_none() {
                self.timers.set(Timer::Flush(id), now + BURST_PAUSE);
            }
            return;
        }
        self.stats.handle_updates_sent += 1;
        self.outbox.send_early(link, update.addressed_to(id));
    }

    /// A peer can take more.
    pub(super) fn flush_backlog(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(link) = peer.link else { return };
        if self.links.get(&link).is_none_or(|link| link.congested) || peer.backlog.is_empty() {
            return;
        }
        if peer.backlog.overflow {
            peer.backlog.clear();
            return self.force_audit(id);
        }
        for (name, Waiting { mut last, lost }) in std::mem::take(&mut peer.backlog.updates) {
            if let Some(element) = last.as_mut().filter(|_| lost) {
                set_retired(element, false);
            }
            let known = self.space.find(&name.0, name.1).and_then(|key| self.space.get(key));
            let (action, element) = match (known.map(|element| element.to_element()), last) {
                (Some(element), _) if element.home == self.id => (UpdateAction::Add, element),
                (None, Some(element)) => (UpdateAction::Delete, element),
                // Somebody else's meanwhile, who tells the peer.
                _ => continue,
            };
            // Once one has to wait again, so do all that follow.
            let mut update = Update::new(self.id, action, name.0, element, false);
            self.tell(id, &mut update);
        }
        if self.peers.get(id).is_some_and(|peer| peer.backlog.is_empty()) {
            self.send_presence(id, false);
        }
    }

    /// Makes a peer read our elements: with a checksum that can't be right.
    pub(super) fn force_audit(&mut self, id: RegistrarId) {
        let mut body = self.presence(Some(id), false);
        if let Enrp::Presence { checksum, .. } = &mut body {
            let [a, b] = checksum.unwrap_or_else(|| self.space.checksum(self.id));
            *checksum = Some([!a, !b]);
        }
        self.send_enrp(id, body);
    }

    pub(super) fn handle_update(
        &mut self,
        sender: RegistrarId,
        takeover_suggested: bool,
        action: UpdateAction,
        handle: PoolHandle,
        element: PoolElement,
    ) {
        self.stats.handle_updates_received += 1;
        match action {
            UpdateAction::Add => {
                let (id, home) = (element.id, element.home);
                self.accept(sender, &handle, element, Source::News);
                if takeover_suggested && self.config.support_takeover_suggestion && home == sender {
                    self.take_suggested(&handle, id);
                }
            }
            UpdateAction::Delete => {
                let Some(key) = self.space.find(&handle, element.id) else { return };
                let home = self.space.get(key).map(|known| known.home());
                // A registrar that lost an element to another one may not know that yet.
                if home == Some(sender) || home == Some(element.home) {
                    match is_retired(&element) {
                        true => self.retire(key),
                        false => self.remove(key, "removed by its registrar"),
                    };
                }
            }
        }
    }

    /// What a peer says about an element; see the head of this room for the rules.
    pub(super) fn accept(
        &mut self,
        sender: RegistrarId,
        handle: &PoolHandle,
        element: PoolElement,
        source: Source,
    ) {
        let home = element.home;
        if home == RegistrarId(0) {
            return;
        }
        if home == self.id {
            if source == Source::News && self.asked_to_operate(sender, handle, &element) {
                return;
            }
            return self.recall(sender, handle, element);
        }
        let first_hand = home == sender;
        let known = self.space.find(handle, element.id);
        let mut moved = false;
        if let Some(key) = known {
            let known_home = self.space.get(key).map(|known| known.home());
            if known_home == Some(self.id) {
                if !first_hand {
                    return;
                }
                let link = self.side(key).and_then(|side| side.link);
                match (source, link) {
                    (Source::State, Some(_)) => return self.insist(sender, key),
                    (Source::News, Some(link)) => self.contest(key, link),
                    (Source::News, None) => moved = true,
                    (Source::State, None) => {}
                }
            } else if !first_hand && known_home != Some(sender) {
                return;
            }
        }
        if !first_hand && !self.meet(home) {
            return;
        }
        let id = element.id;
        if let Err(reject) = self.put(handle, &element) {
            let cause = reject.cause();
            self.complain("peer's element", u64::from(sender.0) << 16 | u64::from(cause.0), || {
                format!("can't hold element {id} of pool \"{handle}\" from peer {sender}: {reject:?}")
            });
            // It exists all the same, so what we know of it is not out of date.
            self.stamp += 1;
            let stamp = self.stamp;
            if let Some(side) = known.and_then(|key| self.side_mut(key)) {
                side.stamp = stamp;
            }
        } else if moved {
            // Only now: one that can't be held under its new registrar is still ours to ask.
            self.element_moved(handle, id);
        }
    }

    /// A peer says that an element is ours. While we join, that is what it remembers from before we
    /// were started anew with the same ID: we ask the element.
    fn recall(&mut self, sender: RegistrarId, handle: &PoolHandle, element: PoolElement) {
        if self.is_joining_with(sender)
            && self.space.find(handle, element.id).is_none()
            && let Ok((key, _)) = self.put(handle, &element)
        {
            self.claim_inherited(key);
        }
    }

    /// A table says that an element with a link here is another's: tell that one.
    fn insist(&mut self, peer: RegistrarId, key: ElementKey) {
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let mut update = Update::new(self.id, UpdateAction::Add, handle, element, false);
        self.tell(peer, &mut update);
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
        let mut update = Update::new(self.id, UpdateAction::Add, handle, element, true);
        self.tell(best, &mut update);
    }

    /// Compares a peer's checksum, which came in order with its updates, with ours.
    pub(super) fn compare(&mut self, id: RegistrarId, checksum: [u8; 2]) {
        let equal = self.space.checksum(id) == checksum;
        let now = self.now;
        let stamp = self.stamp;
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.agrees = Some(equal);
        let audit = &mut peer.audit;
        if now - audit.progress > AUDIT_PATIENCE {
            audit.stop();
        }
        if audit.since.is_some() || peer.link.is_none() {
            return;
        }
        if equal && !audit.needed {
            audit.pause = Duration::ZERO;
            audit.not_before = Time::default();
            return;
        }
        if !audit.needed && now < audit.not_before {
            return;
        }
        audit.needed = false;
        audit.since = Some(stamp);
        audit.progress = now;
        // The next one is for free if this one helps.
        audit.pause = (audit.pause * 2).clamp(AUDIT_PAUSE.0, AUDIT_PAUSE.1);
        audit.not_before = now + audit.pause;
        peer.resynchronisations += 1;
        self.stats.resynchronisations += 1;
        self.send_enrp(id, Enrp::HandleTableRequest { own_only: true });
    }

    pub(super) fn table_response(
        &mut self,
        sender: RegistrarId,
        rejected: bool,
        more: bool,
        pools: Vec<(PoolHandle, Vec<PoolElement>)>,
    ) {
        let joining = self.is_joining_with(sender);
        let since = self.peers.get(sender).and_then(|peer| peer.audit.since);
        if !joining && since.is_none() {
            return;
        }
        if rejected {
            if joining {
                self.mentor_rejects(sender);
            } else if let Some(peer) = self.peers.get_mut(sender) {
                peer.audit.stop();
            }
            return;
        }
        for (handle, elements) in pools {
            for element in elements {
                self.accept(sender, &handle, element, Source::State);
            }
        }
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(sender) {
            peer.audit.progress = now;
        }
        if more {
            self.send_enrp(sender, Enrp::HandleTableRequest { own_only: !joining });
            if joining {
                self.mentor_continues();
            }
        } else if joining {
            self.mentor_done(sender);
        } else if let Some(since) = since {
            self.purge(sender, since);
        }
    }

    /// The end of an audit: what the peer did not mention is not its any more.
    fn purge(&mut self, owner: RegistrarId, since: u64) {
        if let Some(peer) = self.peers.get_mut(owner) {
            peer.audit.stop();
        }
        let stale = |key: &ElementKey| self.side(*key).is_some_and(|side| side.stamp <= since);
        let keys: Vec<ElementKey> =
            self.space.owned_after(owner, None).map(|element| element.key()).filter(stale).collect();
        for key in keys {
            self.remove(key, "unknown to its registrar");
        }
    }

    /// The next part of our table for a peer.
    pub(super) fn table_request(&mut self, link: LinkId, id: RegistrarId, own_only: bool) {
        self.stats.handle_table_requests += 1;
        if !self.is_serving() {
            let body = Enrp::HandleTableResponse { rejected: true, more: false, pools: Vec::new() };
            return self.send_enrp_over(link, id, body);
        }
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let cursor = peer.table.take().filter(|cursor| {
            cursor.own_only == own_only && cursor.link == link && now - cursor.when < TABLE_PATIENCE
        });
        let rsplib = peer.rsplib;
        let after = cursor.as_ref().map(|cursor| (&cursor.after.0, cursor.after.1));
        let mut elements: Box<dyn Iterator<Item = ElementRef<'_>>> = match own_only {
            true => self.space.owned_after(self.id, after),
            false => self.space.elements_after(after),
        };
        let short =
            rsplib || self.links.get(&link).is_none_or(|link| link.ends.protocol == LinkProtocol::Sctp);
        let mut most = self.config.max_elements_per_handle_table_request.max(1);
        let mut room = TABLE_PART.1;
        if short {
            (most, room) = (most.min(RSPLIB_TABLE_ELEMENTS), TABLE_PART.0);
        }
        let (pools, last, more) = table_part(&mut elements, rsplib, most, room);
        drop(elements);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.table = last.filter(|_| more).map(|after| TableCursor { own_only, link, after, when: now });
        }
        self.send_enrp_over(link, id, Enrp::HandleTableResponse { rejected: false, more, pools });
    }
}

/// Pools with some of their elements, as in a table response.
type Pools = Vec<(PoolHandle, Vec<PoolElement>)>;

/// Takes elements as long as they fit; at least one. Returns them, the last one's name, and whether
/// more follow.
fn table_part<'a>(
    elements: &mut dyn Iterator<Item = ElementRef<'a>>,
    rsplib: bool,
    most: usize,
    room: usize,
) -> (Pools, Option<(PoolHandle, PeId)>, bool) {
    let mut pools: Pools = Vec::new();
    let (mut size, mut count) = (EnrpMessage::HEADER_LEN, 0);
    let mut last = None;
    for element in elements {
        let handle = element.handle();
        let record = element.to_element();
        if rsplib && !measure::rsplib_can_hold(handle, &record) {
            continue;
        }
        let same_pool = pools.last().is_some_and(|(last, _)| last == handle);
        let length = record.encoded_len() + if same_pool { 0 } else { handle.encoded_len() };
        if count > 0 && (count == most || size + length > room) {
            return (pools, last, true);
        }
        size += length;
        count += 1;
        last = Some((handle.clone(), record.id));
        match pools.last_mut() {
            Some((_, elements)) if same_pool => elements.push(record),
            _ => pools.push((handle.clone(), vec![record])),
        }
    }
    debug_assert!(size <= MAX_MESSAGE);
    (pools, last, false)
}

/// A handle update, encoded once for all peers.
struct Update {
    action: UpdateAction,
    handle: PoolHandle,
    element: PoolElement,
    for_rsplib: bool,
    bytes: Vec<u8>,
}

impl Update {
    fn new(
        sender: RegistrarId,
        action: UpdateAction,
        handle: PoolHandle,
        element: PoolElement,
        takeover_suggested: bool,
    ) -> Update {
        let for_rsplib = measure::rsplib_can_hold(&handle, &element);
        let body = Enrp::HandleUpdate {
            takeover_suggested,
            action,
            handle: handle.clone(),
            element: element.clone(),
        };
        let bytes = EnrpMessage { sender, receiver: RegistrarId(0), body }.encode();
        Update { action, handle, element, for_rsplib, bytes }
    }

    /// The message with the receiver's ID in its place.
    fn addressed_to(&mut self, receiver: RegistrarId) -> &[u8] {
        self.bytes[8..12].copy_from_slice(&receiver.0.to_be_bytes());
        &self.bytes
    }
}

/// Length of a handle update, which is the longest message about one element.
pub(super) fn update_len(handle: &PoolHandle, element: &PoolElement) -> usize {
    EnrpMessage::HEADER_LEN + 4 + handle.encoded_len() + element.encoded_len()
}
