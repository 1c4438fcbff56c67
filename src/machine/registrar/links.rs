//! Links between registrars: whom to dial, where, and which link to send over.
//!
//! Either side may dial, so there can be two links between two registrars. Each side sends over one
//! of them, so that what it sends stays in order, and listens to both.

use super::hearsay::{AT_ONCE, TRIES, TURN};
use super::peers::{Life, MAX_ADDRESSES, POLITENESS};
use super::reach;
use super::{Dial, LinkId, Registrar, Role, Service, Timer};
use crate::machine::{LinkProtocol, Output, Target, Time};
use crate::wire::scope::{Scope, reaches};
use crate::wire::{Protocol, RegistrarId, Transport};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An ENRP link.
#[derive(Debug, Default)]
pub(super) struct PeerLink {
    /// Who is at the other end, as far as we know.
    pub peer: Option<RegistrarId>,
    /// Whether it said so itself.
    pub confirmed: bool,
    pub since: Time,
    /// Nobody had to doubt that.
    pub proved: bool,
    /// Its identifier is that of a peer whose link lives: what comes over it counts for nothing until that link
    /// has failed to answer. Since then.
    pub doubted: Option<Time>,
    /// It says that it is where it comes from, so that it can be dialled.
    pub at_home: bool,
    /// When it was told of our peers last.
    pub listed: Option<Time>,
}

/// A configured peer.
#[derive(Debug)]
pub(super) struct StaticPeer {
    pub target: Target,
    pub link: Option<LinkId>,
    pub dialling: bool,
    /// Who answered there last.
    pub id: Option<RegistrarId>,
    pub failed: u32,
    /// It is us.
    pub ourselves: bool,
    /// No longer configured: not dialled again.
    pub dropped: bool,
}

impl StaticPeer {
    pub fn new(target: Target) -> StaticPeer {
        StaticPeer {
            target,
            link: None,
            dialling: false,
            id: None,
            failed: 0,
            ourselves: false,
            dropped: false,
        }
    }
}

/// Two links that came up this close to each other were dialled at the same time.
pub(super) const SIMULTANEOUS: Duration = Duration::from_secs(2);
/// First and longest delay between dials of a peer that can't be reached.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// So many failed dials in a row mean that nobody is there.
const REFUSALS: u32 = 3;

/// Delay before the dial after `failed` failed ones.
fn redial_delay(failed: u32) -> Duration {
    (REDIAL.0 * (1 << failed.saturating_sub(1).min(5))).min(REDIAL.1)
}

/// These addresses, each once, as many as are dialled.
fn different(first: Option<IpAddr>, others: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in first.into_iter().chain(others.map(|ip| ip.to_canonical())) {
        if addresses.len() == MAX_ADDRESSES {
            break;
        }
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

impl Registrar {
    /// Whether an address is one of this host's.
    pub(super) fn is_here(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let mut ours = self.config.enrp_transports.iter().flat_map(Transport::addresses);
        ip.is_loopback() || ours.any(|our| our.to_canonical() == ip)
    }

    /// Who is at the other end of an ENRP link, as far as we know.
    pub(super) fn peer_of(&self, link: LinkId) -> Option<RegistrarId> {
        match &self.links.get(&link)?.role {
            Role::Enrp(peer_link) => peer_link.peer,
            Role::Asap(_) => None,
        }
    }

    /// The ENRP links to a peer.
    pub(super) fn links_of(&self, id: RegistrarId) -> Vec<LinkId> {
        let all = (id, LinkId(0))..=(id, LinkId(u64::MAX));
        self.peer_links.range(all).map(|&(_, link)| link).collect()
    }

    /// How many links to a peer come from the host of this one.
    pub(super) fn links_alike(&self, id: RegistrarId, link: LinkId) -> usize {
        let host = |link: &LinkId| reach::host(&self.links.get(link)?.ends);
        let ours = host(&link);
        self.links_of(id).iter().filter(|&other| host(other) == ours).count()
    }

    pub(super) fn peer_link(&mut self, link: LinkId) -> Option<&mut PeerLink> {
        match &mut self.links.get_mut(&link)?.role {
            Role::Enrp(peer_link) => Some(peer_link),
            Role::Asap(_) => None,
        }
    }

    /// Where the transports of a registrar can be dialled, best first. `source` is where it was
    /// heard from, `near` whether that is this host.
    pub(super) fn targets(
        &self,
        transports: &[Transport],
        source: Option<SocketAddr>,
        near: bool,
    ) -> Vec<Target> {
        let ours = &self.config.enrp_transports;
        let speaks = |protocol| ours.iter().any(|transport| transport.protocol() == Some(protocol));
        let mut targets: Vec<Target> = Vec::new();
        for (protocol, name) in [(LinkProtocol::Sctp, Protocol::Sctp), (LinkProtocol::Tcp, Protocol::Tcp)] {
            if !(speaks(name) || ours.is_empty() && name == Protocol::Tcp) {
                continue;
            }
            for transport in transports.iter().filter(|transport| transport.protocol() == Some(name)) {
                let mut addresses = self.peer_addresses(transport, source, near);
                let others = targets.iter().filter(|other| other.protocol == protocol);
                addresses.retain(|at| !others.clone().any(|other| other.addresses.contains(at)));
                let target = Target { protocol, addresses };
                let usable = transport.port() != 0 && !target.addresses.is_empty();
                if usable && targets.len() < 4 {
                    targets.push(target);
                }
            }
        }
        targets
    }

    /// Addresses of the loopback interface mean this host only if who names them is here. Link-local ones of
    /// IPv6 mean nothing without a scope, which only the source has: the last resort.
    fn peer_addresses(
        &self,
        transport: &Transport,
        source: Option<SocketAddr>,
        near: bool,
    ) -> Vec<SocketAddr> {
        let scoped = |ip: &IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let heard_at = source.map(|source| source.ip().to_canonical());
        let listed = || {
            let addresses = transport.addresses().iter().copied();
            addresses.filter(|&ip| reach::usable_from(near, ip) && scoped(&ip) && heard_at != Some(ip))
        };
        // rsplib lists all that its host has; an address of smaller scope spoils a whole association.
        let beyond = Scope::MulticastSite;
        let minimum = match self.config.min_address_scope {
            low if low < beyond && listed().any(|ip| reaches(ip, beyond)) => beyond,
            other => other,
        };
        let mut addresses = different(heard_at.filter(scoped), listed().filter(|ip| reaches(*ip, minimum)));
        if addresses.is_empty() {
            addresses = different(None, listed());
        }
        let mut all: Vec<SocketAddr> =
            addresses.into_iter().map(|ip| SocketAddr::new(ip, transport.port())).collect();
        // TCP tries one after the other; an association takes all its addresses or fails.
        let last = transport.protocol() == Some(Protocol::Tcp) || all.is_empty();
        if let Some(mut source) = source.filter(|source| last && !scoped(&source.ip())) {
            source.set_port(transport.port());
            all.push(source);
        }
        all
    }

    pub(super) fn open(
        &mut self,
        service: Service,
        target: Target,
        dial: Dial,
        patience: Duration,
    ) -> LinkId {
        let link = self.new_link();
        self.dials.insert(link, dial);
        self.timers.set(Timer::DialTimeout(link), self.now + patience);
        self.outbox.push(Output::Open { link, service, target });
        link
    }

    /// Dials an element's process.
    pub(super) fn dial_elements(&mut self, target: Target) {
        let patience = 2 * self.config.endpoint_keep_alive_timeout_interval;
        self.open(Service::Asap, target.clone(), Dial::Elements(target), patience);
    }

    /// Dials a peer unless it has a link or is being dialled.
    pub(super) fn dial_peer(&mut self, id: RegistrarId) {
        let patience = self.config.peer_max_time_no_response;
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.link.is_some() || peer.dial.is_some() || peer.targets.is_empty() {
            return;
        }
        // One that takes every link and closes it must not keep us busy.
        let due = peer.dialled + REDIAL.0;
        if now < due {
            return self.timers.set(Timer::Redial(id), due);
        }
        // Nor one that names hundreds of others.
        let target = match self.dialable(id) {
            Ok(target) => target,
            Err(true) => return self.timers.set(Timer::Redial(id), now + TURN),
            Err(false) => return,
        };
        self.timers.clear(&Timer::Redial(id));
        let link = self.open(Service::Enrp, target, Dial::Peer(id), patience);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.dial = Some(link);
        }
    }

    /// Where to dial a peer now, which counts as dialled there; else whether it may be dialled soon. Where it came from
    /// itself always may be, and so may configured addresses; what it, or somebody else, merely says, may not.
    pub(super) fn dialable(&mut self, id: RegistrarId) -> Result<Target, bool> {
        let under_way = self.hearsay_dials(id);
        let statics = &self.statics;
        let peer = self.peers.get_mut(id).ok_or(false)?;
        let met = peer.is_met();
        if !met && peer.naming.dials >= TRIES {
            return Err(false);
        }
        if !met && (under_way.0 >= AT_ONCE.0 || under_way.1 >= AT_ONCE.1) {
            return Err(true);
        }
        let proved = peer.naming.proved;
        let configured = |at: &SocketAddr| {
            statics.iter().any(|entry| !entry.dropped && entry.target.addresses.contains(at))
        };
        let sure = |at: &SocketAddr| proved == Some(at.ip().to_canonical()) || configured(at);
        let mut later = false;
        for turn in 0..peer.targets.len() {
            let number = peer.next_target.wrapping_add(turn) % peer.targets.len();
            match self.hearsay.choose(self.now, &mut peer.naming, met, &peer.targets[number], sure) {
                Ok(target) => {
                    peer.next_target = number;
                    peer.dialled = self.now;
                    peer.naming.dials += 1;
                    return Ok(target);
                }
                Err(soon) => later |= soon,
            }
        }
        Err(later)
    }

    /// Dials under way of registrars that nobody has met, and how many of them were named by whoever named this one.
    fn hearsay_dials(&self, id: RegistrarId) -> (usize, usize) {
        let by = self.peers.get(id).and_then(|peer| peer.naming.by);
        let dials = self.peers.table.values().filter(|peer| peer.dial.is_some() && !peer.is_met());
        dials.fold((0, 0), |(all, alike), peer| (all + 1, alike + usize::from(peer.naming.by == by)))
    }

    /// Dials a new peer, at once if our ID is the lower one, else if it does not dial us.
    pub(super) fn dial_politely(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.link.is_some() || peer.dial.is_some() {
            return;
        }
        if self.id < id || peer.failed > 0 {
            self.dial_peer(id);
        } else if self.timers.get(&Timer::Redial(id)).is_none() {
            self.timers.set(Timer::Redial(id), self.now + POLITENESS);
        }
    }

    pub(super) fn peer_dialled(&mut self, link: LinkId, id: RegistrarId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return self.close_link(link) };
        peer.dial = None;
        if let Some(peer_link) = self.peer_link(link) {
            *peer_link = PeerLink { peer: Some(id), since: now, ..PeerLink::default() };
            self.peer_links.insert((id, link));
        }
        if self.peers.get(id).is_some_and(|peer| peer.link.is_none()) {
            self.send_over(id, link);
        } else {
            self.consider_link(id, link);
        }
        let body = self.presence(Some(id), true);
        self.send_enrp_over(link, id, body);
    }

    pub(super) fn peer_dial_failed(&mut self, id: RegistrarId, refused: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.dial = None;
        peer.next_target = peer.next_target.wrapping_add(1);
        peer.failed = peer.failed.saturating_add(1);
        if peer.link.is_some() {
            return;
        }
        let failed = peer.failed;
        let everywhere = REFUSALS.max(peer.targets.len() as u32);
        if refused && matches!(peer.life, Life::Silent) && failed >= everywhere {
            return self.peer_dead(id);
        }
        self.timers.set(Timer::Redial(id), now + redial_delay(failed));
    }

    /// Dials a configured peer, unless whoever answered there last has a link.
    pub(super) fn dial_static(&mut self, index: usize) {
        let patience = self.config.peer_max_time_no_response;
        let Some(entry) = self.statics.get(index) else { return };
        if entry.link.is_some() || entry.dialling || entry.ourselves || entry.dropped {
            return;
        }
        // It may have come to us by itself, under a new ID if it was started anew.
        let is_there = |peer: &&super::peers::Peer| {
            let mut addresses = peer.targets.iter().flat_map(|target| &target.addresses);
            peer.link.is_some() && addresses.any(|address| entry.target.addresses.contains(address))
        };
        let found = || self.peers.table.values().find(is_there);
        let known = entry.id.and_then(|id| self.peers.get(id)).or_else(found);
        if known.is_some_and(|peer| peer.link.is_some() || peer.dial.is_some()) {
            return self.timers.set(Timer::RedialStatic(index), self.now + REDIAL.1);
        }
        let target = entry.target.clone();
        self.open(Service::Enrp, target, Dial::Static(index), patience);
        self.statics[index].dialling = true;
    }

    /// Whether a registrar answered where the operator said that one is, and is there.
    pub(super) fn is_configured(&self, id: RegistrarId) -> bool {
        self.statics.iter().any(|entry| !entry.dropped && entry.id == Some(id))
            && self.links_of(id).into_iter().any(|link| self.leads_to_configured(link))
    }

    pub(super) fn static_dialled(&mut self, link: LinkId, index: usize) {
        let now = self.now;
        if let Some(entry) = self.statics.get_mut(index) {
            entry.dialling = false;
            entry.link = Some(link);
            entry.failed = 0;
        }
        if let Some(peer_link) = self.peer_link(link) {
            peer_link.since = now;
        }
        let body = self.presence(None, true);
        self.send_enrp_over(link, RegistrarId(0), body);
    }

    pub(super) fn static_dial_failed(&mut self, index: usize) {
        let Some(entry) = self.statics.get_mut(index) else { return };
        entry.dialling = false;
        entry.failed = entry.failed.saturating_add(1);
        let due = self.now + redial_delay(entry.failed);
        self.timers.set(Timer::RedialStatic(index), due);
        self.seek_mentor();
    }

    /// Sends over this link from now on.
    pub(super) fn send_over(&mut self, id: RegistrarId, link: LinkId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.link = Some(link);
        peer.link_used = false;
        peer.listed = false;
        // What was to be sent over another link is part of what the peer must now ask for.
        peer.backlog.clear();
        self.timers.clear(&Timer::Redial(id));
    }

    /// There are two links to a peer: which one to send over?
    pub(super) fn consider_link(&mut self, id: RegistrarId, link: LinkId) {
        let Some(current) = self.peers.get(id).and_then(|peer| peer.link) else { return };
        let (Some(new), Some(old)) =
            (self.peer_link(link).map(|link| link.since), self.peer_link(current).map(|link| link.since))
        else {
            return;
        };
        let better = if new - old > SIMULTANEOUS {
            // It opens another one only if it lost the one that we know.
            true
        } else if old - new > SIMULTANEOUS || link.is_incoming() == current.is_incoming() {
            false
        } else {
            // Both dialled at once: the link of the lower ID is the one.
            (self.id < id) != link.is_incoming()
        };
        if !better {
            return;
        }
        let used = self.peers.get(id).is_some_and(|peer| peer.link_used || !peer.backlog.is_empty());
        self.send_over(id, link);
        if new - old > SIMULTANEOUS {
            self.close_link(current);
        }
        if used {
            self.force_audit(id);
        }
    }

    /// A link to a peer is gone.
    pub(super) fn peer_link_lost(&mut self, link: LinkId, peer_link: PeerLink) {
        if let Some(index) = self.statics.iter().position(|entry| entry.link == Some(link)) {
            self.statics[index].link = None;
            let due = self.now + REDIAL.0;
            self.timers.set(Timer::RedialStatic(index), due);
        }
        self.timers.clear(&Timer::Doubt(link));
        self.timers.clear(&Timer::List(link));
        let Some(id) = peer_link.peer else { return };
        // Nobody spoke over it: it led to somebody else.
        if !peer_link.confirmed
            && let Some(peer) = self.peers.get_mut(id)
        {
            peer.next_target = peer.next_target.wrapping_add(1);
        }
        self.lose_link(id, link);
    }

    pub(super) fn lose_link(&mut self, id: RegistrarId, link: LinkId) {
        let all = (id, LinkId(0))..=(id, LinkId(u64::MAX));
        let mut others = self.peer_links.range(all).map(|&(_, other)| other);
        // Who was dialled and has said nothing may be anybody.
        let speaks = |other: LinkId| {
            let role = self.links.get(&other).map(|state| &state.role);
            matches!(role, Some(Role::Enrp(peer_link)) if peer_link.confirmed)
        };
        let other = others.find(|&other| other != link && speaks(other) && self.may_be(id, other));
        let Some(peer) = self.peers.get_mut(id) else { return };
        // It may have sent something that is lost now, and it starts a new reading of our table.
        peer.audit.link_lost();
        if peer.table.as_ref().is_some_and(|table| table.link == link) {
            peer.table = None;
        }
        if peer.link != Some(link) {
            return;
        }
        peer.link = None;
        peer.backlog.clear();
        self.timers.clear(&Timer::Flush(id));
        if let Some(other) = other {
            if let Some(peer_link) = self.peer_link(other) {
                peer_link.doubted = None;
            }
            self.send_over(id, other);
            self.force_audit(id);
        }
        self.mentor_gone(id);
        if self.peers.get(id).is_some_and(|peer| !peer.life.is_dead()) {
            self.suspect(id);
        }
    }
}
