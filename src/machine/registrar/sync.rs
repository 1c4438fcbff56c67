//! Keeping handlespaces equal: handle updates, handle tables, audit (RFC 5353 sections 3.3, 3.6).

use super::absent::Absent;
use super::chores::Chore;
use super::dialect::{Removal, rsplib_can_hold};
use super::{Dialect, LinkId, Registrar, Timer, reach};
use crate::handlespace::{ElementKey, ElementRef};
use crate::machine::{LinkProtocol, Time};
use crate::wire::{
    Enrp, EnrpMessage, Lengths, MAX_MESSAGE, PeId, PoolElement, PoolHandle, RegistrarId, enrp::UpdateAction,
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

/// For so long whoever spoke last is believed about an element of which nobody could say whose it is.
const DOUBT: Duration = Duration::from_secs(60);
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
    after: Option<(PoolHandle, PeId)>,
    when: Time,
    /// The next part is still being looked for.
    seeking: bool,
}

/// A reading that pauses for longer starts anew.
const TABLE_PATIENCE: Duration = Duration::from_secs(5);
/// Where elements come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A handle update: something just happened.
    News,
    /// A handle table: how things are.
    State,
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
        if peer.dialect.may_be_rsplib() && !update.for_rsplib {
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
        link: LinkId,
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
                self.accept(link, sender, &handle, element, Source::News);
                if takeover_suggested && self.config.support_takeover_suggestion && home == sender {
                    self.take_suggested(&handle, id);
                }
            }
            UpdateAction::Delete => self.gone_elsewhere(sender, &handle, &element),
        }
    }

    /// A peer says that an element is gone.
    fn gone_elsewhere(&mut self, sender: RegistrarId, handle: &PoolHandle, element: &PoolElement) {
        let why = Removal::decode(element);
        let gone = self.peers.get_mut(sender).and_then(|peer| peer.absent.take(handle, element.id));
        let Some(key) = self.space.find(handle, element.id) else { return };
        let Some(home) = self.space.get(key).map(|known| known.home()) else { return };
        if home == self.id {
            if element.home != self.id {
                // That is about the time when it was somebody else's.
                return;
            }
            // It may have deregistered there. Nobody but itself can say so while it has a link here.
            if let Some(link) = self.side(key).and_then(|side| side.link) {
                return self.contest(key, link, Some(why));
            }
        } else if home != sender {
            // A registrar that lost an element to another one may not know that yet, and whose it is says itself
            // that it went.
            if !self.is_up(home) {
                if home == element.home {
                    self.ask_whether_gone(key, why);
                }
            } else if gone.is_some() {
                self.send_presence(home, true);
            }
            return;
        } else if self.is_wanted(home, handle, element.id) && self.give_way(key) {
            return;
        }
        self.take_out(
            key,
            if why == Removal::Deregistered { "deregistered" } else { "removed by its registrar" },
            why,
        );
    }

    /// What a peer says about an element; see the head of this room for the rules.
    pub(super) fn accept(
        &mut self,
        link: LinkId,
        sender: RegistrarId,
        handle: &PoolHandle,
        mut element: PoolElement,
        source: Source,
    ) {
        let home = element.home;
        if home == RegistrarId(0) {
            return;
        }
        if home == self.id {
            if source == Source::News && self.asked_to_operate(link, sender, handle, &element) {
                return;
            }
            return self.recall(sender, handle, element);
        }
        let near = self.links.get(&link).is_some_and(|link| reach::is_local(&link.ends));
        let first_hand = home == sender;
        let known = self.space.find(handle, element.id);
        let (mut moved, mut doubtful) = (false, false);
        if let Some(key) = known {
            let known_home = self.space.get(key).map(|known| known.home());
            if known_home == Some(self.id) {
                if !first_hand {
                    return;
                }
                let link = self.side(key).and_then(|side| side.link);
                match (source, link) {
                    (_, Some(link)) => {
                        self.note_absent(sender, handle, element);
                        return match source {
                            Source::State => self.insist(sender, key),
                            Source::News => self.contest(key, link, None),
                        };
                    }
                    (Source::News, None) => moved = true,
                    (Source::State, None) => {}
                }
            } else if !first_hand && known_home != Some(sender) {
                return;
            } else if let Some(other) = known_home.filter(|&other| first_hand && other != sender) {
                if self.keeps(other, key) {
                    // It hears the same news, and if it does not have the element any more its checksum says so.
                    self.note_absent(sender, handle, element.clone());
                    return self.note_wanted(other, handle, element);
                }
                doubtful = true;
            }
        }
        if known.is_none() && !first_hand && self.is_up(home) && !self.is_joining_with(sender) {
            // It tells us itself of what it has. Believed, this would make us read all of its table.
            return;
        }
        if !first_hand && !self.meet(home, None) {
            return;
        }
        let id = element.id;
        let whole = element.clone();
        if !reach::check_element(near, &mut element) {
            let from = self.called(sender);
            self.complain("peer's addresses", || {
                format!("element {id} of pool \"{handle}\" from peer {from} has no address that means anything here")
            });
            return self.cannot_hold(sender, known, handle, whole);
        }
        if known.is_none() && !self.has_peers_share(home) {
            let from = self.called(sender);
            self.complain("peer's share", || {
                format!("can't hold element {id} of pool \"{handle}\" from peer {from}: its host has too much already")
            });
            return self.cannot_hold(sender, known, handle, whole);
        }
        if let Err(reject) = self.put(handle, &element) {
            let (from, at) = (self.called(sender), reach::named_transport(&element.transport));
            self.complain("peer's element", || {
                format!("can't hold element {id}{at} of pool \"{handle}\" from peer {from}: {reject:?}")
            });
            return self.cannot_hold(sender, known, handle, whole);
        }
        if let Some(peer) = self.peers.get_mut(home) {
            peer.absent.take(handle, id);
        }
        if doubtful && let Some(key) = known {
            self.doubt(key);
        }
        if moved {
            // Only now: one that can't be held under its new registrar is still ours to ask.
            self.element_moved(handle, id);
        }
    }

    /// An element of a peer can't be held. It exists all the same, so what we know of it is not out of date.
    fn cannot_hold(
        &mut self,
        peer: RegistrarId,
        known: Option<ElementKey>,
        handle: &PoolHandle,
        element: PoolElement,
    ) {
        self.stamp += 1;
        let stamp = self.stamp;
        let theirs = known.filter(|&key| self.space.get(key).is_some_and(|known| known.home() == peer));
        match theirs {
            Some(key) => {
                if let Some(side) = self.side_mut(key) {
                    side.stamp = stamp;
                }
            }
            None if element.home == peer => self.note_absent(peer, handle, element),
            None => {}
        }
    }

    /// A peer has an element that we hold as another's, or not at all.
    fn note_absent(&mut self, id: RegistrarId, handle: &PoolHandle, element: PoolElement) {
        self.stamp += 1;
        let stamp = self.stamp;
        if let Some(peer) = self.peers.get_mut(id) {
            peer.absent.put(handle, element, stamp);
        }
    }

    /// Whether an element stays with the peer that has it when another one says that it has it.
    fn keeps(&self, home: RegistrarId, key: ElementKey) -> bool {
        let doubtful = self
            .side(key)
            .is_some_and(|side| side.doubted != Time::default() && self.now - side.doubted < DOUBT);
        self.is_serving() && self.is_up(home) && !doubtful
    }

    /// Whose an element is nobody could say who should know: whoever says next that it has it is believed.
    pub(super) fn doubt(&mut self, key: ElementKey) {
        let now = self.now;
        if let Some(side) = self.side_mut(key) {
            side.doubted = now;
        }
    }

    /// Another peer says that it has what a peer has that is up.
    fn note_wanted(&mut self, home: RegistrarId, handle: &PoolHandle, element: PoolElement) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(home) else { return };
        let first = peer.wanted.is_empty();
        peer.wanted.put(handle, element, now.0);
        if first {
            self.send_presence(home, true);
        }
    }

    fn is_wanted(&mut self, home: RegistrarId, handle: &PoolHandle, id: PeId) -> bool {
        self.peers.get_mut(home).is_some_and(|peer| peer.wanted.take(handle, id).is_some())
    }

    /// A peer has given up what others say they have; or (`silent`) it does not say any more whether it has.
    pub(super) fn part(&mut self, id: RegistrarId, silent: bool) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        for (handle, pe) in std::mem::take(&mut peer.wanted).into_names() {
            let Some(key) = self.space.find(&handle, pe) else { continue };
            if self.space.get(key).is_none_or(|element| element.home() != id) {
                continue;
            }
            if !self.give_way(key) {
                if !silent {
                    self.remove(key, "unknown to its registrar");
                }
            } else if silent || self.peers.table.values().any(|peer| peer.absent.has(&handle, pe)) {
                self.doubt(key);
            }
        }
    }

    /// An element of ours is not ours any more. If a peer says that it has it, so be it; whether one does.
    pub(super) fn give_way(&mut self, key: ElementKey) -> bool {
        let Some(element) = self.space.get(key) else { return false };
        let (handle, id) = (element.handle().clone(), element.id());
        let mut up =
            self.peers.linked().into_iter().filter(|&peer| self.is_up(peer)).collect::<Vec<_>>().into_iter();
        let taken = |registrar: &mut Registrar, peer: RegistrarId| {
            registrar.peers.get_mut(peer).and_then(|known| known.absent.take(&handle, id))
        };
        let Some((peer, element)) = up.find_map(|peer| taken(self, peer).map(|element| (peer, element)))
        else {
            return false;
        };
        if self.put(&handle, &element).is_err() {
            // What kept it out may be what it was here.
            self.remove(key, "registered elsewhere");
            if self.put(&handle, &element).is_err() {
                self.note_absent(peer, &handle, element);
            }
        }
        true
    }

    /// A peer says that an element is ours. While we join, that is what it remembers from before we
    /// were started anew with the same ID: we ask the element.
    fn recall(&mut self, sender: RegistrarId, handle: &PoolHandle, element: PoolElement) {
        if self.is_joining_with(sender)
            && self.space.find(handle, element.id).is_none()
            && let Ok((key, _)) = self.put(handle, &element)
        {
            self.claim_inherited(key, self.chronicle.by());
        }
    }

    /// A table says that an element with a link here is another's: tell that one.
    fn insist(&mut self, peer: RegistrarId, key: ElementKey) {
        if !self.may_quarrel(key) {
            return;
        }
        let Some(element) = self.space.get(key) else { return };
        let (handle, element) = (element.handle().clone(), element.to_element());
        let mut update = Update::new(self.author(), handle, element, None);
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
        let mut update = Update::suggesting(self.author(), handle, element);
        self.tell(best, &mut update);
    }

    /// Compares a peer's checksum, which came in order with its updates, with ours.
    pub(super) fn compare(&mut self, id: RegistrarId, checksum: [u8; 2]) {
        if self.chores.change_homes() {
            return;
        }
        let held = self.space.sum(id);
        let now = self.now;
        let stamp = self.stamp;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let mut all = held;
        all.add(peer.absent.sum());
        if all.to_wire() != checksum && held.to_wire() == checksum {
            // What it had, too, it has given up since it heard whose that is, and nobody says so.
            peer.absent = Absent::default();
            all = held;
        }
        let mut equal = all.to_wire() == checksum;
        if !peer.wanted.is_empty() {
            let mut rest = all;
            rest.subtract(peer.wanted.sum());
            match rest.to_wire() == checksum {
                true if !equal => {
                    self.part(id, false);
                    return self.compare(id, checksum);
                }
                // One in 65535 names adds nothing to a checksum of 16 bits: only its table tells whether it has that.
                true => equal = false,
                false => {}
            }
        }
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

    /// Somebody is refused an identifier for this peer's sake. Where we knew that we do not know what it has, its table is read
    /// soon, however often that was in vain.
    pub(super) fn look_again(&mut self, id: RegistrarId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.agrees != Some(false) || peer.audit.since.is_some() {
            return;
        }
        peer.audit.not_before = peer.audit.not_before.min(peer.audit.progress + AUDIT_PAUSE.0);
        if peer.audit.not_before <= now {
            self.send_presence(id, true);
        }
    }

    pub(super) fn table_response(
        &mut self,
        link: LinkId,
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
        let mut new = 0;
        for (handle, elements) in pools {
            for element in elements {
                new += u32::from(joining && self.is_told_first(&handle, element.id));
                self.accept(link, sender, &handle, element, Source::State);
            }
        }
        if joining && more && !self.mentor_helps(new) {
            return;
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
            peer.absent.purge(since);
            peer.wanted = Absent::default();
        }
        self.start(Chore::Purge { owner, since, after: None });
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
        if peer.table.as_ref().is_some_and(|cursor| cursor.seeking && cursor.link == link) {
            // One at a time.
            return;
        }
        let cursor = peer.table.take().filter(|cursor| {
            cursor.own_only == own_only && cursor.link == link && now - cursor.when < TABLE_PATIENCE
        });
        let after = cursor.and_then(|cursor| cursor.after);
        peer.table = Some(TableCursor { own_only, link, after, when: now, seeking: true });
        self.start(Chore::Table { id, link });
    }

    /// Sends the next part of our table that has something for the peer, as far as there is one within so many
    /// elements; `true` if it must be looked for on.
    pub(super) fn table_part(&mut self, id: RegistrarId, link: LinkId, units: &mut usize) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get(id) else { return false };
        let Some(cursor) = peer.table.as_ref().filter(|cursor| cursor.seeking && cursor.link == link) else {
            return false;
        };
        let (dialect, own_only) = (peer.dialect, cursor.own_only);
        let protocol = self.links.get(&link).map_or(LinkProtocol::Sctp, |link| link.ends.protocol);
        let (most, room) = dialect.table_part(&self.config, protocol);
        let after = cursor.after.as_ref().map(|after| (&after.0, after.1));
        let mut elements: Box<dyn Iterator<Item = ElementRef<'_>>> = match own_only {
            true => self.space.owned_after(self.id, after),
            false => self.space.elements_after(after),
        };
        let (pools, last, more) = table_part(&mut elements, dialect, (most, room), units);
        drop(elements);
        let seeking = more && pools.is_empty();
        if let Some(peer) = self.peers.get_mut(id) {
            peer.table = match more {
                true => Some(TableCursor { own_only, link, after: last, when: now, seeking }),
                false => None,
            };
        }
        if !seeking {
            self.send_enrp_over(link, id, Enrp::HandleTableResponse { rejected: false, more, pools });
        }
        seeking
    }
}

/// Pools with some of their elements, as in a table response.
type PoolList = Vec<(PoolHandle, Vec<PoolElement>)>;

/// Elements that are told of only, and not looked up or changed, of which so many are as much work as one elsewhere.
const TOLD_OF_A_UNIT: usize = 2;

/// Takes elements as long as they fit, at least one, from so many at most. Returns them, the name of the last one
/// that was looked at, and whether more follow.
fn table_part<'a>(
    elements: &mut dyn Iterator<Item = ElementRef<'a>>,
    dialect: Dialect,
    (most, room): (usize, usize),
    units: &mut usize,
) -> (PoolList, Option<(PoolHandle, PeId)>, bool) {
    let mut pools: PoolList = Vec::new();
    let (mut size, mut count) = (EnrpMessage::HEADER_LEN, 0);
    let mut last = None;
    for (number, element) in elements.enumerate() {
        if *units == 0 && last.is_some() {
            return (pools, last, true);
        }
        *units = units.saturating_sub(usize::from(number % TOLD_OF_A_UNIT == 0));
        let handle = element.handle();
        let record = element.to_element();
        if !dialect.can_hold(handle, &record) {
            last = Some((handle.clone(), record.id));
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
