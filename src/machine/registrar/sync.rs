//! What to believe of what peers say about elements: handle updates and tables (RFC 5353 section 3.3).

use super::dialect::Removal;
use super::{LinkId, Registrar, reach};
use crate::handlespace::ElementKey;
use crate::machine::Time;
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId, enrp::UpdateAction};
use std::time::Duration;

/// Where elements come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A handle update: something just happened.
    News,
    /// A handle table: how things are.
    State,
}

/// For so long whoever spoke last is believed about an element of which nobody could say whose it is.
const DOUBT: Duration = Duration::from_secs(60);

impl Registrar {
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
}
