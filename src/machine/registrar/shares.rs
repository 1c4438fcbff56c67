//! Who may have how much of what there is only so much of.
//!
//! A link has at most as much as is left for all others, and a host at most a few times that, over however many links,
//! so that something is always left for those who come. Whoever is at a host that has taken its share is refused first.

use super::{LinkId, LiveLink, Registrar, Role, reach};
use crate::handlespace::Bounds;
use crate::machine::Time;
use crate::wire::{PeId, PoolHandle, RegistrarId};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A host may have so many times as much as is left for all others.
const HOST: usize = 7;
/// Of the places for peers, one host's that have elements may take so many times as many as are left for all others.
const PLACES: usize = 3;
/// Of all bytes, peers' elements may take so many of so many.
const PEERS_BYTES: (usize, usize) = (7, 8);
/// Of all links so many make room at a time, so that it is rarely asked who.
const LEAVERS: (usize, usize) = (8, 32);

/// What the links of one host have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub elements: usize,
    /// Bytes of their names.
    pub bytes: usize,
    pub subscriptions: usize,
    /// What they take.
    pub subscribed: usize,
}

/// What each host has over ASAP.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<IpAddr, Share>);

impl Shares {
    /// What a host has.
    pub(super) fn of(&self, host: Option<IpAddr>) -> Share {
        host.and_then(|host| self.0.get(&host)).copied().unwrap_or_default()
    }

    /// Notes what a host has more, or less.
    pub(super) fn change(&mut self, host: Option<IpAddr>, change: impl FnOnce(&mut Share)) {
        let Some(host) = host else { return };
        let share = self.0.entry(host).or_default();
        change(share);
        if *share == Share::default() {
            self.0.remove(&host);
        }
    }

    /// A link is gone, with all that it had.
    pub(super) fn without(&mut self, host: Option<IpAddr>, gone: Share) {
        self.change(host, |share| {
            share.elements -= gone.elements;
            share.bytes -= gone.bytes;
            share.subscriptions -= gone.subscriptions;
            share.subscribed -= gone.subscribed;
        });
    }

    /// Whether this is what links have.
    pub(super) fn check(&self, links: impl Iterator<Item = (Option<IpAddr>, Share)>) -> bool {
        let mut fresh = Shares::default();
        for (host, has) in links.filter(|(_, has)| *has != Share::default()) {
            fresh.change(host, |share| {
                share.elements += has.elements;
                share.bytes += has.bytes;
                share.subscriptions += has.subscriptions;
                share.subscribed += has.subscribed;
            });
        }
        fresh.0 == self.0
    }
}

/// A link that makes room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaver {
    /// Which it is.
    pub link: LinkId,
    /// The host at its other end.
    pub host: Option<IpAddr>,
    /// Something hangs on it, and its host has more than half of all places: for others only.
    pub settled: bool,
}

impl Registrar {
    /// Whether there is room for one more element of a link.
    pub(super) fn has_share(&self, link: LinkId, handle: &PoolHandle, id: PeId) -> bool {
        if self.space.find(handle, id).is_some() {
            return true;
        }
        let left = self.config.max_elements.saturating_sub(self.space.len());
        let bytes_left = Bounds::default().bytes.saturating_sub(self.space.bytes());
        let Some(LiveLink { role: Role::Asap(client), .. }) = self.links.get(&link) else { return true };
        let share = self.shares.of(client.host);
        client.elements.len() < left
            && client.bytes < bytes_left
            && share.elements < HOST * left
            && share.bytes < HOST * bytes_left
    }

    /// Whether there is room for one more subscription of a link, beside the bounds on all.
    pub(super) fn has_subscribers_share(&self, host: Option<IpAddr>, left: usize, bytes_left: usize) -> bool {
        let share = self.shares.of(host);
        share.subscriptions < HOST * left && share.subscribed < HOST * bytes_left
    }

    /// Whether there is room for one more element of a peer. One that has none yet keeps its place when it has one, and
    /// so not all of one host's get any, nor as many that there is no place for those that are configured.
    pub(super) fn has_peers_share(&self, home: RegistrarId) -> bool {
        if self.is_configured(home) {
            return true;
        }
        let bytes = Bounds::default().bytes / PEERS_BYTES.1 * PEERS_BYTES.0;
        if self.space.bytes() >= bytes {
            return false;
        }
        let host = self.peers_host(home);
        let alike = |id: RegistrarId| self.peers_host(id) == host;
        if self.space.owned_count(home) == 0 {
            let owners: Vec<RegistrarId> = (self.peers.table.keys().copied())
                .filter(|&id| self.space.owned_count(id) > 0 && !self.is_configured(id))
                .collect();
            let left = self.config.max_peers.saturating_sub(self.statics.len() + owners.len());
            if owners.iter().filter(|&&id| alike(id)).count() >= PLACES * left {
                return false;
            }
        }
        let most = self.config.max_elements;
        if self.space.len() <= most / 2 {
            return true;
        }
        let theirs: usize = (self.peers.table.keys().copied())
            .filter(|&id| alike(id))
            .map(|id| self.space.owned_count(id))
            .sum();
        theirs < HOST * most.saturating_sub(self.space.len())
    }

    /// Where a peer's link comes from.
    pub(super) fn peers_host(&self, id: RegistrarId) -> Option<IpAddr> {
        let link = self.peers.get(id)?.link?;
        reach::host(&self.links.get(&link)?.ends)
    }

    /// All places are taken: some of those who make room for others, first those on whose links nothing hangs, of the
    /// host that has most of them, those first of whom nothing was heard for longest. Where something hangs on all,
    /// somebody of a host that has more than half of all.
    pub fn who_makes_room(&self) -> Vec<Leaver> {
        struct Candidate {
            link: LinkId,
            host: Option<IpAddr>,
            hangs: usize,
            heard: Time,
        }
        let candidate = |(&link, state): (&LinkId, &LiveLink)| {
            let hangs = match &state.role {
                Role::Asap(client) => client.elements.len() + client.subscriptions.len(),
                // The one that a peer is spoken to over stays.
                Role::Enrp(peer_link) => {
                    let peer = peer_link.peer.and_then(|id| self.peers.get(id));
                    (peer.and_then(|peer| peer.link) != Some(link)).then_some(0)?
                }
            };
            let host = reach::host(&state.ends);
            link.is_incoming().then_some(Candidate { link, host, hangs, heard: state.heard })
        };
        let (idle, settled): (Vec<Candidate>, Vec<Candidate>) =
            self.links.iter().filter_map(candidate).partition(|candidate| candidate.hangs == 0);
        let is_settled = idle.is_empty();
        let from = if is_settled { settled } else { idle };
        let mut hosts: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        for candidate in &from {
            *hosts.entry(candidate.host).or_default() += 1;
        }
        let Some((&host, &count)) = hosts.iter().max_by_key(|&(_, &count)| count) else { return Vec::new() };
        let mut all: Vec<Candidate> = from.into_iter().filter(|candidate| candidate.host == host).collect();
        all.sort_by_key(|candidate| (candidate.hangs, candidate.heard));
        // Not so many that another host has most.
        let second = hosts.into_iter().filter(|&(other, _)| other != host).map(|(_, count)| count).max();
        let beyond = match is_settled {
            true => count.saturating_sub(self.links.len() / 2),
            false => (count - second.unwrap_or(0)).max(1),
        };
        let most = (self.links.len() / LEAVERS.1).max(LEAVERS.0).min(beyond);
        let leaver = |candidate: Candidate| Leaver { link: candidate.link, host, settled: is_settled };
        all.into_iter().take(most).map(leaver).collect()
    }
}
