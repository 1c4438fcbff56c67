//! Links that somebody else opened: registrars that took over our elements, or anybody.

use super::effects::{Effects, Timer};
use super::{LinkId, RegistrarId, Time};
use crate::machine::LinkEnds;
use crate::wire::scope::host_of;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Incoming links that may be open.
pub(super) const MAX_STRANGERS: usize = 16;
/// A keep-alive for one of our elements must come within this time.
const PROOF: Duration = Duration::from_secs(5);
/// Between one keep-alive and the next.
const IDLE: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct StrangerLink {
    ends: LinkEnds,
    /// What it wants to be while the home is asked whether it lives.
    suit: Option<Suit>,
}

/// A registrar that says it is the home of our elements now, which another one is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suit {
    pub registrar: RegistrarId,
    /// Numbers of the elements that it named.
    pub named: BTreeSet<u64>,
    since: Time,
}

#[derive(Debug, Default)]
pub(super) struct StrangerLinks {
    links: BTreeMap<LinkId, StrangerLink>,
}

impl StrangerLinks {
    /// Takes a new link in, if there is a place, or somebody leaves his. Known are the hosts of registrars.
    pub fn welcome(
        &mut self,
        fx: &mut Effects,
        link: LinkId,
        ends: LinkEnds,
        known: impl FnOnce() -> BTreeSet<IpAddr>,
    ) {
        if self.links.len() >= MAX_STRANGERS {
            let Some(leaver) = self.who_leaves(&ends, &known()) else { return fx.close(link) };
            self.dismiss(fx, leaver);
        }
        self.links.insert(link, StrangerLink { ends, suit: None });
        fx.timers.set(Timer::Stranger(link), fx.now + PROOF);
    }

    /// When all places are taken: of the host that has most links, the newcomer's with the newcomer, the oldest, and
    /// last those whose suit is not decided. What a link named does not count, since anybody may know it, and who was
    /// answered comes again if it wants more. A registrar's host keeps one for as long as others' come.
    fn who_leaves(&self, newcomer: &LinkEnds, known: &BTreeSet<IpAddr>) -> Option<LinkId> {
        let host = |ends: &LinkEnds| ends.peer.first().map(|peer| host_of(peer.ip()));
        let is_known = |ends: &LinkEnds| host(ends).is_some_and(|host| known.contains(&host));
        let mut counts: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        for ends in self.links.values().map(|other| &other.ends).chain([newcomer]) {
            *counts.entry(host(ends)).or_default() += 1;
        }
        let rank = |(&link, other): (&LinkId, &StrangerLink)| {
            let count = counts.get(&host(&other.ends)).copied().unwrap_or(0);
            (is_known(&other.ends) && count == 1, Reverse(count), other.suit.is_some(), link)
        };
        let (stays, _, _, link) = self.links.iter().map(rank).min()?;
        (!stays || is_known(newcomer)).then_some(link)
    }

    /// How many incoming links there are.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    pub fn contains(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// It named an element of ours.
    pub fn proved(&mut self, fx: &mut Effects, link: LinkId) {
        if self.links.contains_key(&link) {
            fx.timers.set(Timer::Stranger(link), fx.now + IDLE);
        }
    }

    /// It wants to be the home of these elements.
    pub fn court(&mut self, now: Time, link: LinkId, registrar: RegistrarId, named: BTreeSet<u64>) {
        let Some(stranger) = self.links.get_mut(&link) else { return };
        match &mut stranger.suit {
            Some(suit) if suit.registrar == registrar => suit.named.extend(named),
            other => *other = Some(Suit { registrar, named, since: now }),
        }
    }

    /// Ends all suits; the last one who came.
    pub fn last_suit(&mut self) -> Option<(LinkId, Suit)> {
        let suits = self.links.iter_mut().filter_map(|(&link, stranger)| Some((link, stranger.suit.take()?)));
        suits.max_by_key(|(_, suit)| suit.since)
    }

    /// It becomes the home.
    pub fn take(&mut self, fx: &mut Effects, link: LinkId) -> Option<LinkEnds> {
        fx.timers.clear(&Timer::Stranger(link));
        Some(self.links.remove(&link)?.ends)
    }

    /// Its link is gone.
    pub fn forget(&mut self, fx: &mut Effects, link: LinkId) {
        self.take(fx, link);
    }

    pub fn dismiss(&mut self, fx: &mut Effects, link: LinkId) {
        if self.take(fx, link).is_some() {
            fx.close(link);
        }
    }

    pub fn dismiss_all(&mut self, fx: &mut Effects) {
        for link in std::mem::take(&mut self.links).into_keys() {
            fx.timers.clear(&Timer::Stranger(link));
            fx.close(link);
        }
    }
}
