//! Taking over a dead registrar: arbitration (RFC 5353 section 3.5).
//!
//! ```text
//!   peer dead ──► INIT_TAKEOVER to all ──► all alive ones acknowledged, or time over ──► TAKEOVER_SERVER to all,
//!       ▲              │       │                                                         its elements are ours,
//!       │              │       └─ heard from it: called off                              and are asked (`claims`)
//!       │              └─ INIT_TAKEOVER from one that we give way to (`dialect`): acknowledge,
//!       └───────────────── and try again if that one doesn't finish; a third time nobody is given way to
//! ```
//!
//! What is said of a registrar that is up changes nothing, and whoever says more than once that it takes over has
//! no more time for it. Who came only after a registrar was last heard is neither given way to nor its heir: it may be
//! anybody. If it has asked the elements its table says so of each, and we ask those that are left.

use super::chores::Chore;
use super::peers::{Life, MAX_YIELDS};
use super::{Event, Registrar, Timer, What};
use crate::handlespace::ElementKey;
use crate::wire::{Enrp, RegistrarId};
use std::collections::BTreeSet;

/// Our takeover of one registrar.
#[derive(Debug)]
pub(super) struct Takeover {
    /// Those whose acknowledgement is missing.
    waiting: BTreeSet<RegistrarId>,
}

impl Registrar {
    pub(super) fn start_takeover(&mut self, target: RegistrarId) {
        if self.takeovers.contains_key(&target) || self.chores.inherits(target) || !self.is_serving() {
            return;
        }
        self.event(Event::TakeoverStarted { target });
        let peers = self.peers.linked();
        for &id in &peers {
            self.send_enrp(id, Enrp::InitTakeover { target });
        }
        let alive = |id: &RegistrarId| {
            *id != target && self.peers.get(*id).is_some_and(|peer| !peer.life.is_silent())
        };
        let waiting: BTreeSet<RegistrarId> = peers.into_iter().filter(alive).collect();
        let nobody = waiting.is_empty();
        self.takeovers.insert(target, Takeover { waiting });
        if nobody {
            self.finish_takeover(target);
        } else {
            let due = self.now + self.config.takeover_expiry_interval;
            self.timers.set(Timer::Takeover(target), due);
        }
    }

    /// Whether who says that it takes a registrar over may be believed: it is configured, or was here before that one was
    /// last heard.
    fn may_inherit(&self, by: RegistrarId, target: RegistrarId) -> bool {
        let met = self.peers.get(by).and_then(|peer| peer.met);
        let heard = self.peers.get(target).map(|peer| peer.heard);
        self.is_configured(by) || met.zip(heard).is_some_and(|(met, heard)| met <= heard)
    }

    /// Ends our takeover without success.
    pub(super) fn call_off_takeover(&mut self, target: RegistrarId) {
        if self.takeovers.remove(&target).is_some() {
            self.timers.clear(&Timer::Takeover(target));
        }
    }

    /// RFC 5353 section 3.5.1, the receiver's rules.
    pub(super) fn init_takeover(&mut self, sender: RegistrarId, target: RegistrarId) {
        if target == self.id {
            self.announce_presence(false);
            for id in self.peers.linked() {
                self.send_presence(id, false);
            }
            return;
        }
        let dialect = self.dialect(sender);
        let trusted = self.may_inherit(sender, target);
        let Some(peer) = self.peers.get_mut(target) else {
            return self.send_enrp(sender, Enrp::InitTakeoverAck { target });
        };
        if self.takeovers.contains_key(&target) {
            if !trusted || !dialect.withdraws(self.id, sender) || peer.yields >= MAX_YIELDS {
                return;
            }
            peer.yields += 1;
            self.call_off_takeover(target);
        }
        self.send_enrp(sender, Enrp::InitTakeoverAck { target });
        let due = self.now + dialect.takeover_patience(&self.config);
        if let Some(peer) = self.peers.get_mut(target)
            && peer.life != Life::Alive
            && peer.taken_by.is_none()
            && trusted
        {
            peer.taken_by = Some(sender);
            self.timers.set(Timer::TakenBy(target), due);
        }
    }

    pub(super) fn takeover_acknowledged(&mut self, sender: RegistrarId, target: RegistrarId) {
        let Some(takeover) = self.takeovers.get_mut(&target) else { return };
        takeover.waiting.remove(&sender);
        if takeover.waiting.is_empty() {
            self.finish_takeover(target);
        }
    }

    /// A peer died: nobody waits for its acknowledgement any more.
    pub(super) fn takeovers_without(&mut self, id: RegistrarId) {
        let mut done = Vec::new();
        for (&target, takeover) in &mut self.takeovers {
            if takeover.waiting.remove(&id) && takeover.waiting.is_empty() {
                done.push(target);
            }
        }
        for target in done {
            self.finish_takeover(target);
        }
    }

    /// Somebody alive does not acknowledge. Its elements can't wait: better two registrars that ask
    /// them than none.
    pub(super) fn takeover_expired(&mut self, target: RegistrarId) {
        if self.overslept {
            let due = self.now + self.config.takeover_expiry_interval;
            return self.timers.set(Timer::Takeover(target), due);
        }
        self.finish_takeover(target);
    }

    fn finish_takeover(&mut self, target: RegistrarId) {
        self.call_off_takeover(target);
        for id in self.peers.linked() {
            if id != target {
                self.send_enrp(id, Enrp::TakeoverServer { target });
            }
        }
        self.stats.takeovers += 1;
        self.inherit(target, self.id);
    }

    /// The elements of a registrar that is gone get another home.
    pub(super) fn inherit(&mut self, target: RegistrarId, heir: RegistrarId) {
        if self.chores.inherits(target) {
            return;
        }
        self.start(Chore::Inherit { target, heir, elements: 0 });
    }

    /// Some of them; whether that were all.
    pub(super) fn inherit_some(
        &mut self,
        target: RegistrarId,
        heir: RegistrarId,
        elements: &mut usize,
        units: &mut usize,
    ) -> bool {
        // It may have come back meanwhile, with what it has left.
        let address = self.whereabouts(target);
        let back = self.peers.get(target).is_some_and(|peer| peer.life == Life::Alive);
        if !back {
            let from = self.origin(target);
            let keys: Vec<ElementKey> =
                self.space.owned_after(target, None).take(*units).map(|element| element.key()).collect();
            for key in keys {
                if *units == 0 {
                    break;
                }
                *units -= 1;
                *elements += 1;
                self.rehome(key, heir);
                if self.space.get(key).is_some_and(|element| element.home() == target) {
                    self.remove(key, "too many home registrars");
                } else if heir == self.id {
                    *units = units.saturating_sub(self.claim_inherited(key, from));
                } else {
                    self.doubt(key);
                }
            }
            if self.space.owned_count(target) > 0 {
                self.dial_claims();
                return false;
            }
            self.mentor_gone(target);
            self.forget_peer(target);
        }
        if heir == self.id {
            // With the new checksum, so that whoever knew less or more finds out now.
            for id in self.peers.linked() {
                self.send_presence(id, false);
            }
        }
        self.stats.takeovers_seen += 1;
        let (elements, by_address) = (*elements, self.whereabouts(heir));
        self.chronicle.note(self.now, What::TakenOver { target, address, by: heir, by_address, elements });
        self.event(Event::TakeoverDone { target, by: heir, elements });
        self.dial_claims();
        true
    }

    /// Another registrar took one over.
    pub(super) fn takeover_server(&mut self, sender: RegistrarId, target: RegistrarId) {
        if sender == target {
            return;
        }
        if target == self.id {
            // Whoever says so shall hear that we live. Elements that have gone over to it close their links to us.
            self.announce_presence(false);
            return self.send_presence(sender, false);
        }
        let trusted = self.may_inherit(sender, target);
        let Some(peer) = self.peers.get_mut(target) else { return };
        match peer.life {
            _ if !trusted => {
                let (who, of) = (self.called(sender), self.called(target));
                self.complain("late heir", || {
                    format!("{who} says that it took over {of}, and came only after that was last heard")
                });
            }
            Life::Alive => {
                // It does not look like it, but see.
                peer.heir = Some(sender);
                self.send_presence(target, true);
            }
            // At the end of its time.
            Life::Hearsay | Life::Silent => peer.heir = Some(sender),
            Life::Dead => {
                self.call_off_takeover(target);
                self.inherit(target, sender);
            }
        }
    }

    /// Another's takeover did not end: ours then, if the target is still silent.
    pub(super) fn other_takeover_expired(&mut self, target: RegistrarId) {
        self.timers.clear(&Timer::TakenBy(target));
        let Some(peer) = self.peers.get_mut(target) else { return };
        if peer.taken_by.take().is_some() {
            peer.yields = peer.yields.saturating_add(1);
        }
        if !peer.life.is_dead() || self.chores.inherits(target) {
            return;
        }
        if self.space.owned_count(target) == 0 {
            // It did end, without anybody saying so.
            self.forget_peer(target);
        } else {
            self.start_takeover(target);
        }
    }
}
