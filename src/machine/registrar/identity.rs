//! Who is at the other end of a peer's link: whether it is who it says it is, where nothing but its word and its address
//! can tell.

use super::aged::Aged;
use super::links::{PeerLink, SIMULTANEOUS};
use super::peers::Life;
use super::reach;
use super::{Dial, LinkId, Registrar, Service, Timer};
use crate::machine::Time;
use crate::wire::{CauseCode, RegistrarId, ServerInformation, Transport};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Links of one host over which one registrar may speak. Of more than two none is any use.
const MAX_LINKS: usize = 8;
/// Registrars that are gone of which is remembered where they were, and for how long.
const FORMER: (usize, Duration) = (1024, Duration::from_secs(3600));
/// Who was here for so long is remembered, whoever had its identifier before.
const SETTLED: Duration = Duration::from_secs(60);
/// So often another identifier is drawn.
const DRAWS: u32 = 8;

/// What to make of a message that came over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the sender's.
    Proved,
    /// The sender has a link that lives, and this is another one.
    Unproved,
    /// The link was closed.
    None,
}

/// Who had which identifier, and how we came to ours.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Ours is drawn at random.
    pub drawn: bool,
    draws: u32,
    /// Where registrars were that are gone, and since when.
    former: Aged<RegistrarId, (Time, Vec<IpAddr>)>,
}

impl Twins {
    /// Notes where a registrar was for so long that is gone now.
    pub(super) fn was_here(&mut self, now: Time, id: RegistrarId, time: Duration, at: Vec<IpAddr>) {
        let known = self.former.get(&id).filter(|(since, _)| now - *since < FORMER.1);
        let elsewhere = known.is_some_and(|(_, known)| !at.iter().any(|ip| known.contains(ip)));
        if !at.is_empty() && (!elsewhere || time >= SETTLED) {
            *self.former.touch(id, FORMER.0, (now, Vec::new())) = (now, at);
        }
    }

    fn is_where_it_was(&self, now: Time, id: RegistrarId, at: IpAddr) -> bool {
        self.former.get(&id).is_some_and(|(since, known)| now - *since < FORMER.1 && known.contains(&at))
    }
}

impl Registrar {
    /// Our own ID came over a link: a configured peer is us, or somebody has our ID.
    pub(super) fn met_ourselves(&mut self, link: LinkId) {
        if let Some(other) = self.other_end(link) {
            let ends = [Some(link), Some(other)];
            if let Some(entry) = self.statics.iter_mut().find(|entry| ends.contains(&entry.link)) {
                entry.ourselves = true;
            }
        } else {
            let at = self.links.get(&link).map(|link| reach::named(&link.ends)).unwrap_or_default();
            self.complain_about_twin(&at);
        }
        self.close_link(link);
        self.seek_mentor();
    }

    fn complain_about_twin(&mut self, at: &str) {
        let id = self.id;
        self.complain("our identifier", || {
            format!("another registrar, at {at}, has our identifier {id}: one of the two must be started with another")
        });
    }

    /// The other end of a link, if that is ours as well: the link that has the two ends the other way round.
    fn other_end(&self, link: LinkId) -> Option<LinkId> {
        let state = self.links.get(&link)?;
        let same =
            |one: &[SocketAddr], other: &[SocketAddr]| one.iter().any(|address| other.contains(address));
        let turned = |&(&other, back): &(&LinkId, &super::LiveLink)| {
            other != link
                && same(&back.ends.local, &state.ends.peer)
                && same(&back.ends.peer, &state.ends.local)
        };
        self.links.iter().find(turned).map(|(&other, _)| other)
    }

    /// A presence with our ID came to the group. What we say ourselves comes back to us, too.
    pub(super) fn met_twin_by_datagram(&mut self, from: SocketAddr, server: &ServerInformation) {
        let ours: Vec<SocketAddr> =
            self.config.enrp_transports.iter().flat_map(Transport::socket_addresses).collect();
        let mut theirs = server.transports.iter().flat_map(Transport::socket_addresses);
        if !ours.is_empty() && !server.transports.is_empty() && !theirs.any(|at| ours.contains(&at)) {
            self.complain_about_twin(&from.ip().to_string());
        }
    }

    /// Notes who is at the other end of a link, and what to make of that.
    pub(super) fn came_over(&mut self, link: LinkId, sender: RegistrarId) -> Standing {
        let now = self.now;
        let Some(peer_link) = self.peer_link(link) else { return Standing::None };
        if peer_link.peer != Some(sender) {
            if peer_link.confirmed {
                let from = self.end_of(link);
                self.complain("two peers on a link", || {
                    format!("{sender} speaks over another's link, which comes from {from}")
                });
                self.close_link(link);
                return Standing::None;
            }
            if self.links_alike(sender, link) >= MAX_LINKS {
                self.complain("many links", || format!("{sender} speaks over very many links of one host"));
                self.close_link(link);
                return Standing::None;
            }
            let Some(peer_link) = self.peer_link(link) else { return Standing::None };
            let expected = peer_link.peer.replace(sender);
            if peer_link.since == Time::default() {
                peer_link.since = now;
            }
            self.peer_links.insert((sender, link));
            // Whoever was expected there is not there any more.
            if let Some(expected) = expected {
                self.peer_links.remove(&(expected, link));
                self.lose_link(expected, link);
            }
        }
        let Some(peer_link) = self.peer_link(link) else { return Standing::None };
        peer_link.confirmed = true;
        if let Some(index) = self.statics.iter().position(|entry| entry.link == Some(link)) {
            self.statics[index].id = Some(sender);
            let target = self.statics[index].target.clone();
            if let Some(peer) = self.peers.get_mut(sender)
                && peer.targets.is_empty()
            {
                peer.targets.push(target);
            }
        }
        let current = self.peers.get(sender).map(|peer| peer.link);
        let proved = self.peer_link(link).is_some_and(|peer_link| peer_link.proved);
        let alive = self.peers.get(sender).is_some_and(|peer| peer.life == Life::Alive);
        // While its own link lives, that is asked.
        let own = current.flatten().is_some_and(|current| alive || current == link);
        if !proved && !own && !self.may_be(sender, link) {
            // Somebody else under its identifier, now that its own link is gone or does not answer.
            let at = self.links.get(&link).map(|link| reach::named(&link.ends)).unwrap_or_default();
            self.complain("registrar elsewhere", || {
                format!("who comes from {at} as registrar {sender} does not count: that one is elsewhere")
            });
            return Standing::Unproved;
        }
        match current {
            Some(None) => self.send_over(sender, link),
            Some(Some(current)) if current != link && self.doubts(sender, link, current) => {
                return Standing::Unproved;
            }
            Some(Some(current)) if current != link => self.consider_link(sender, link),
            _ => {}
        }
        let first =
            self.peer_link(link).is_some_and(|peer_link| !std::mem::replace(&mut peer_link.proved, true));
        if first && let Some(at) = self.links.get(&link).and_then(|state| state.ends.peer.first()) {
            let at = *at;
            self.note_seen(sender, &[at.ip()]);
            if let Some(peer) = self.peers.get_mut(sender) {
                peer.naming.proved = Some(at.ip().to_canonical());
                if !link.is_incoming() {
                    peer.naming.answered = true;
                    self.hearsay.was_true(&mut peer.naming, at);
                }
            }
        }
        Standing::Proved
    }

    /// Whether who speaks as this peer over a link can be it: of one that was here it is known where it is. If it has
    /// moved, it is somebody new as soon as it was missed for long enough.
    pub(super) fn may_be(&self, id: RegistrarId, link: LinkId) -> bool {
        if !self.is_guarded(id) || self.statics.iter().any(|entry| entry.link == Some(link)) {
            return true;
        }
        let (Some(state), Some(peer)) = (self.links.get(&link), self.peers.get(id)) else { return false };
        let seen = |at: &SocketAddr| peer.seen.contains(&at.ip().to_canonical());
        state.ends.peer.first().is_some_and(seen)
    }

    /// Whether a second link with a peer's ID must prove itself: both dialled at the same time, or it dials once
    /// more because it lost the link that we still have, or somebody has taken its ID. So we ask over the link that
    /// we have.
    fn doubts(&mut self, id: RegistrarId, link: LinkId, current: LinkId) -> bool {
        let now = self.now;
        let alive = self.peers.get(id).is_some_and(|peer| peer.life == Life::Alive);
        let (Some(new), Some(old)) = (
            self.peer_link(link).map(|link| (link.since, link.doubted, link.proved)),
            self.peer_link(current),
        ) else {
            return false;
        };
        if new.2 {
            return false;
        }
        let old_since = old.since;
        let together = new.0 - old_since <= SIMULTANEOUS && old_since - new.0 <= SIMULTANEOUS;
        let same = match (self.links.get(&link), self.links.get(&current)) {
            (Some(link), Some(current)) => reach::same_host(&link.ends, &current.ends),
            _ => false,
        };
        if new.1.is_some() {
            return true;
        }
        // Who was dialled where the peer said that it is, is the peer; who was dialled for somebody else is not.
        let there = self.may_be(id, link) && (!link.is_incoming() || old_since > new.0);
        if !alive || there || together && same {
            return false;
        }
        if self.leads_to_configured(link) && !self.leads_to_configured(current) {
            self.replace(id, link);
            return false;
        }
        if let Some(peer_link) = self.peer_link(link) {
            peer_link.doubted = Some(now);
        }
        if !same {
            self.look_at_home(id, current);
        }
        let patience = self.dialect(id).no_response_limit(&self.config) / 2;
        self.timers.set(Timer::Doubt(link), now + patience);
        self.send_presence(id, true);
        true
    }

    /// The link that a peer had was asked whether it lives.
    pub(super) fn doubt_over(&mut self, link: LinkId) {
        let Some((id, since)) =
            self.peer_link(link).and_then(|peer_link| Some((peer_link.peer?, peer_link.doubted?)))
        else {
            return;
        };
        let Some(current) = self.peers.get(id).and_then(|peer| peer.link).filter(|&current| current != link)
        else {
            self.end_proofs(id, link);
            if let Some(peer_link) = self.peer_link(link) {
                peer_link.doubted = None;
            }
            return;
        };
        self.end_proofs(id, current);
        if self.links.get(&current).is_some_and(|current| current.heard > since) {
            if self.is_preferred(id, link, current) {
                return self.replace(id, link);
            }
            let at = self.links.get(&link).map(|link| reach::named(&link.ends)).unwrap_or_default();
            self.complain("two registrars", || {
                format!("two registrars have the identifier {id}, the second at {at}")
            });
            // It may draw another one.
            self.report_error(link, id, CauseCode::NON_UNIQUE_PE_ID.into());
            return self.close_link(link);
        }
        if !self.may_be(id, link) {
            return self.close_link(link);
        }
        if let Some(peer_link) = self.peer_link(link) {
            peer_link.doubted = None;
        }
        self.send_over(id, link);
        self.close_link(current);
        self.force_audit(id);
        self.send_presence(id, true);
    }

    fn source(&self, link: LinkId) -> Option<IpAddr> {
        self.links.get(&link)?.ends.peer.first().map(|at| at.ip().to_canonical())
    }

    /// Whether a link is one that the operator wants: with where a configured peer is.
    pub(super) fn leads_to_configured(&self, link: LinkId) -> bool {
        let from = self.source(link);
        let there = |at: &SocketAddr| Some(at.ip().to_canonical()) == from;
        self.statics.iter().any(|entry| {
            entry.link == Some(link) || !entry.dropped && entry.target.addresses.iter().any(there)
        })
    }

    /// Notes whether who speaks over a link says that it is where it comes from.
    pub(super) fn note_home(&mut self, link: LinkId, server: &ServerInformation) {
        let from = self.source(link);
        let mut named = server.transports.iter().flat_map(Transport::addresses);
        let at_home = named.any(|ip| Some(ip.to_canonical()) == from);
        if let Some(peer_link) = self.peer_link(link) {
            peer_link.at_home = at_home;
        }
    }

    /// Whether one that came first is of no use to anybody as far as we know: it has no elements, and was not dialled.
    fn is_of_no_use(&self, id: RegistrarId, current: LinkId) -> bool {
        let answered = self.peers.get(id).is_some_and(|peer| peer.naming.answered);
        self.space.owned_count(id) == 0
            && !answered
            && current.is_incoming()
            && !self.leads_to_configured(current)
    }

    /// Another one has come with a peer's identifier: is the first one where it says it is?
    fn look_at_home(&mut self, id: RegistrarId, current: LinkId) {
        let under_way = self.dials.values().any(|dial| *dial == Dial::Proof(id));
        if under_way || !self.unproved_dials(id).is_empty() || !self.is_of_no_use(id, current) {
            return;
        }
        if let Ok(target) = self.dialable(id) {
            let patience = self.dialect(id).no_response_limit(&self.config) / 2;
            self.open(Service::Enrp, target, Dial::Proof(id), patience);
        }
    }

    /// Somebody is there. Whether it is that registrar, it is to say.
    pub(super) fn proof_dialled(&mut self, link: LinkId, id: RegistrarId) {
        let now = self.now;
        if self.peers.get(id).is_none() {
            return self.close_link(link);
        }
        if let Some(peer_link) = self.peer_link(link) {
            *peer_link = PeerLink { peer: Some(id), since: now, ..PeerLink::default() };
            self.peer_links.insert((id, link));
        }
        let body = self.presence(Some(id), true);
        self.send_enrp_over(link, id, body);
    }

    /// Links to who was dialled and has said nothing.
    fn unproved_dials(&mut self, id: RegistrarId) -> Vec<LinkId> {
        let mut links = self.links_of(id);
        links.retain(|&link| {
            !link.is_incoming() && self.peer_link(link).is_some_and(|peer_link| !peer_link.confirmed)
        });
        links
    }

    /// Whoever was dialled for that and has said nothing.
    fn end_proofs(&mut self, id: RegistrarId, current: LinkId) {
        for link in self.unproved_dials(id).into_iter().filter(|&link| link != current) {
            self.close_link(link);
        }
    }

    /// Of two with one identifier that both live, the first one has it, unless it has no elements, and the second one is
    /// where a registrar of that identifier was before, or the first one can't be reached where it says it is and
    /// the second one says that it can.
    fn is_preferred(&mut self, id: RegistrarId, link: LinkId, current: LinkId) -> bool {
        if self.leads_to_configured(current) || self.space.owned_count(id) > 0 {
            return false;
        }
        let was = |link| self.source(link).is_some_and(|at| self.identity.is_where_it_was(self.now, id, at));
        if was(link) && !was(current) {
            return true;
        }
        let at_home = self.peer_link(link).is_some_and(|peer_link| peer_link.at_home);
        let same = self.source(link) == self.source(current);
        at_home && !same && self.is_of_no_use(id, current)
    }

    /// Somebody else is the peer from now on.
    fn replace(&mut self, id: RegistrarId, link: LinkId) {
        let (from, to) = (self.peers.get(id).and_then(|peer| peer.link), self.end_of(link));
        let from = from.map_or_else(|| "nowhere".into(), |from| self.end_of(from));
        self.complain("registrar replaced", || {
            format!(
                "two registrars have the identifier {id}: the one at {to} is it, the one at {from} is not"
            )
        });
        if let Some(peer_link) = self.peer_link(link) {
            peer_link.doubted = None;
        }
        self.timers.clear(&Timer::Doubt(link));
        if let Some(peer) = self.peers.get_mut(id) {
            peer.seen.clear();
            peer.targets.clear();
            peer.naming = Default::default();
        }
        self.send_over(id, link);
        for other in self.links_of(id).into_iter().filter(|&other| other != link) {
            self.close_link(other);
        }
        self.force_audit(id);
        self.send_presence(id, true);
    }

    /// A registrar that we dialled says that another one has our identifier. If ours is a random one and nothing hangs on
    /// it yet, we take another.
    pub(super) fn is_told_that_we_are_two(&mut self, link: LinkId) -> bool {
        let free = self.space.owned_count(self.id) == 0 && self.takeovers.is_empty();
        if link.is_incoming() || !self.identity.drawn || !free || self.identity.draws >= DRAWS {
            let at = self.end_of(link);
            let id = self.id;
            self.complain("our identifier", || {
                format!("the registrar at {at} knows another one with our identifier {id}: one must be started anew")
            });
            return true;
        }
        let before = self.id;
        self.identity.draws += 1;
        while self.id == before || self.peers.get(self.id).is_some() || self.space.owned_count(self.id) > 0 {
            self.id = RegistrarId(self.rng.u32(1..));
        }
        self.config.id = self.id;
        let id = self.id;
        self.complain("our identifier", || {
            format!("another registrar has our identifier {before}, which was drawn: ours is {id} now")
        });
        let links: Vec<LinkId> = self.peer_links.iter().map(|&(_, link)| link).collect();
        for link in links {
            self.close_link(link);
        }
        self.announce_presence(true);
        self.announce_asap();
        true
    }
}
