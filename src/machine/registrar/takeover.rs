//! Taking over a dead registrar: arbitration (RFC 5353 section 3.5).
//!
//! ```text
//!   peer dead ──► INIT_TAKEOVER to all ──► all alive ones acknowledged, or time over ──► TAKEOVER_SERVER to all,
//!       ▲              │       │                                                         its elements are ours,
//!       │              │       └─ heard from it: called off                              and are asked (`claims`)
//!       │              └─ INIT_TAKEOVER from a lower ID: give up, acknowledge,
//!       └───────────────── and try again if that one doesn't finish
//! ```

use super::{Event, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::wire::{Enrp, RegistrarId};
use std::collections::BTreeSet;
use std::time::Duration;

/// rsplib's registrars wait 5 s for acknowledgements, and never say that they took over: their next
/// presence does, by its checksum.
const RSPLIB_TAKEOVER: Duration = Duration::from_secs(8);

/// Our takeover of one registrar.
#[derive(Debug)]
pub(super) struct Takeover {
    /// Those whose acknowledgement is missing.
    waiting: BTreeSet<RegistrarId>,
}

impl Registrar {
    pub(super) fn start_takeover(&mut self, target: RegistrarId) {
        if self.takeovers.contains_key(&target) || !self.is_serving() {
            return;
        }
        self.event(Event::TakeoverStarted { target });
        let peers = self.peers.linked();
        for &id in &peers {
            self.send_enrp(id, Enrp::InitTakeover { target });
        }
        let alive =
            |id: &RegistrarId| *id != target && self.peers.get(*id).is_some_and(|peer| peer.silent.is_none());
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
        if self.takeovers.contains_key(&target) {
            if sender > self.id {
                return;
            }
            self.call_off_takeover(target);
        }
        self.send_enrp(sender, Enrp::InitTakeoverAck { target });
        let mut patience = self.config.takeover_expiry_interval;
        if self.peers.get(sender).is_some_and(|peer| peer.rsplib) {
            patience = patience.max(RSPLIB_TAKEOVER);
        }
        let due = self.now + patience;
        if let Some(peer) = self.peers.get_mut(target) {
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
        let keys = self.owned_by(target);
        for &key in &keys {
            self.rehome(key, self.id);
            self.claim_inherited(key);
        }
        self.forget_peer(target);
        self.stats.takeovers += 1;
        self.stats.takeovers_seen += 1;
        self.event(Event::TakeoverDone { target, by: self.id, elements: keys.len() });
        // With the new checksum, so that whoever knew less or more finds out now.
        for id in self.peers.linked() {
            self.send_presence(id, false);
        }
        self.dial_claims();
    }

    fn owned_by(&self, id: RegistrarId) -> Vec<ElementKey> {
        self.space.owned_after(id, None).map(|element| element.key()).collect()
    }

    /// Another registrar took one over.
    pub(super) fn takeover_server(&mut self, sender: RegistrarId, target: RegistrarId) {
        if sender == target {
            return;
        }
        let keys = self.owned_by(target);
        let ours = target == self.id;
        for &key in &keys {
            if ours {
                self.contest_key(key);
            }
            self.rehome(key, sender);
        }
        if ours {
            return;
        }
        self.call_off_takeover(target);
        if self.peers.get(target).is_some() {
            self.mentor_gone(target);
            self.forget_peer(target);
            self.stats.takeovers_seen += 1;
            self.event(Event::TakeoverDone { target, by: sender, elements: keys.len() });
        }
    }

    /// Another's takeover did not end: ours then, if the target is still silent.
    pub(super) fn other_takeover_expired(&mut self, target: RegistrarId) {
        self.timers.clear(&Timer::TakenBy(target));
        let Some(peer) = self.peers.get_mut(target) else { return };
        peer.taken_by = None;
        if !peer.dead {
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
