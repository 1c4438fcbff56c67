//! Peers: who they are and whether they live (RFC 5353 sections 3.4.1 to 3.4.3). What they say: [`super::enrp`].

use super::absent::Absent;
use super::audit::{Audit, TableCursor};
use super::hearsay::Naming;
use super::reach;
use super::updates::Backlog;
use super::{Dialect, Event, LinkId, PeerView, Registrar, Timer, What};
use crate::machine::{Output, Target, Time};
use crate::wire::scope::host_of;
use crate::wire::show;
use crate::wire::{RegistrarId, ServerInformation, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A peer waits this long for the one with the lower ID to dial first.
pub(super) const POLITENESS: Duration = Duration::from_millis(200);

/// Bound on server information kept of one peer, in bytes, and on addresses of one transport: so many are dialled.
const MAX_INFO: usize = 512;
pub(super) const MAX_ADDRESSES: usize = 15;
/// Addresses of a peer that are remembered.
const MAX_SEEN: usize = 16;
/// So often a takeover is left to somebody who does not finish it.
pub(super) const MAX_YIELDS: u8 = 2;

/// Whether a peer lives. Only what comes over its link counts as a sign of life: anybody can send datagrams.
///
/// ```text
///                 sign of life              MAX-TIME-LAST-HEARD without one, or link lost
///   Hearsay ──────────────────────► Alive ──────────────────────────────────────────────► Silent
///      │                            ▲   ▲          sign of life                           │   │
///      │ MAX-TIME-LAST-HEARD,       │   └─────────────────────────────────────────────────┘   │ MAX-TIME-NO-RESPONSE,
///      │ or link lost               │ sign of life                                            │ or refused everywhere
///      └──────────► Silent          │                                                         │
///                                   └────────────────────────────── Dead ◄────────────────────┘
///                                                                    │
///                                                    owns nothing, or was taken over: forgotten
/// ```
///
/// Where there are too many peers, one that owns nothing is forgotten whatever its life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Never heard itself.
    Hearsay,
    /// Heard lately.
    Alive,
    /// Asked for a sign of life.
    Silent,
    /// It gave none.
    Dead,
}

impl Life {
    /// Whether we miss a sign of life that we asked for.
    pub(super) fn is_silent(self) -> bool {
        matches!(self, Life::Silent | Life::Dead)
    }

    /// Whether it was given up.
    pub(super) fn is_dead(self) -> bool {
        self == Life::Dead
    }
}

/// A peer, or a registrar that we only heard of.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where to dial it, in turn.
    pub targets: Vec<Target>,
    pub next_target: usize,
    /// What it says about itself, as far as it is for lists.
    pub info: Option<Tellable>,
    /// Who said where it is.
    pub naming: Naming,
    /// Over which we send.
    pub link: Option<LinkId>,
    /// Something was sent over `link` whose loss or overtaking would matter.
    pub link_used: bool,
    pub dial: Option<LinkId>,
    /// When it was last dialled.
    pub dialled: Time,
    /// Dials that failed since it was last reached.
    pub failed: u32,
    pub heard: Time,
    /// When it was heard itself for the first time; `None`: never.
    pub met: Option<Time>,
    pub life: Life,
    pub dialect: Dialect,
    /// Whether it was asked what it speaks.
    pub probed: bool,
    /// Whether it was asked for its peers since the link came up, and when it may be asked again.
    pub listed: bool,
    pub list_after: Time,
    pub backlog: Backlog,
    /// Elements that it says it has and that we hold otherwise, or not at all.
    pub absent: Absent,
    /// Elements that it has and that others say they have.
    pub wanted: Absent,
    /// Which host told of it first.
    pub told: Option<IpAddr>,
    /// Addresses at which it was when nobody had to doubt that it is itself, or which it named then.
    pub seen: Vec<IpAddr>,
    pub audit: Audit,
    /// Whether its checksum was right when it was compared last.
    pub agrees: Option<bool>,
    /// How often its table was asked for after an audit.
    pub resynchronisations: u64,
    /// How far it has read our table.
    pub table: Option<TableCursor>,
    /// Who announced to take it over.
    pub taken_by: Option<RegistrarId>,
    /// Who says that it took it over.
    pub heir: Option<RegistrarId>,
    /// How often its takeover was left to somebody who did not finish it.
    pub yields: u8,
    /// When it was asked last to do what an operator wants, and whether it refused.
    pub asked: Option<Time>,
    pub refuses: bool,
}

/// All peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub table: BTreeMap<RegistrarId, Peer>,
}

impl Peers {
    pub(super) fn get(&self, id: RegistrarId) -> Option<&Peer> {
        self.table.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RegistrarId) -> Option<&mut Peer> {
        self.table.get_mut(&id)
    }

    /// Those that we can send to.
    pub(super) fn linked(&self) -> Vec<RegistrarId> {
        self.table.iter().filter(|(_, peer)| peer.link.is_some()).map(|(&id, _)| id).collect()
    }
}

impl Registrar {
    /// Known peers, by ID.
    pub fn peers(&self) -> Vec<PeerView> {
        let view = |(&id, peer): (&RegistrarId, &Peer)| PeerView {
            id,
            addresses: peer.targets.iter().flat_map(|target| target.addresses.clone()).collect(),
            last_heard: peer.is_met().then(|| self.now - peer.heard),
            elements: self.space.owned_count(id),
            state: match (peer.life, peer.link) {
                (Life::Dead, _) => "dead",
                (Life::Silent, _) => "silent",
                (Life::Hearsay, _) => "hearsay",
                (Life::Alive, None) => "connecting",
                (Life::Alive, Some(_)) => "alive",
            },
            agrees: peer.agrees,
            queue: peer.backlog.len(),
            resynchronisations: peer.resynchronisations,
            refuses: peer.refuses,
        };
        self.peers.table.iter().map(view).collect()
    }

    /// Where a registrar is, for people: where it is dialled, else where its link leads.
    pub(super) fn whereabouts(&self, id: RegistrarId) -> Option<SocketAddr> {
        if id == self.id {
            return self.config.enrp_transports.iter().find_map(|known| known.socket_addresses().next());
        }
        let peer = self.peers.get(id)?;
        let dialled = peer.targets.iter().find_map(|target| target.addresses.first().copied());
        let said = || peer.info.as_ref().and_then(|info| said_address(&info.server));
        dialled.or_else(said).or_else(|| self.links.get(&peer.link?)?.ends.peer.first().copied())
    }

    /// A registrar in a line for people.
    pub(super) fn called(&self, id: RegistrarId) -> String {
        format!("{id}{}", show::at(self.whereabouts(id)))
    }

    /// Where a link leads to, for people.
    pub(super) fn end_of(&self, link: LinkId) -> String {
        self.links.get(&link).map_or_else(|| "nowhere".into(), |state| reach::named(&state.ends))
    }

    /// Makes sure that a peer is known, who is said to be at `address`; `false` if there are too many.
    pub(super) fn meet(&mut self, id: RegistrarId, address: Option<SocketAddr>) -> bool {
        self.meet_over(id, address, None)
    }

    /// The same for one that came itself, over this link.
    pub(super) fn meet_over(
        &mut self,
        id: RegistrarId,
        address: Option<SocketAddr>,
        link: Option<LinkId>,
    ) -> bool {
        if self.peers.table.contains_key(&id) {
            return true;
        }
        if self.peers.table.len() >= self.config.max_peers
            && !self.forget_some_peer()
            && !link.is_some_and(|link| self.forget_for(link))
        {
            let most = self.config.max_peers;
            let at = show::at(address);
            self.complain("too many peers", || format!("more peers than {most}: {id}{at} is left out"));
            return false;
        }
        let peer = Peer {
            targets: Vec::new(),
            next_target: 0,
            info: None,
            naming: Naming::default(),
            link: None,
            link_used: false,
            dial: None,
            dialled: Time::default(),
            failed: 0,
            heard: self.now,
            met: None,
            life: Life::Hearsay,
            dialect: self.config.dialect.unwrap_or_default(),
            probed: false,
            listed: false,
            list_after: Time::default(),
            backlog: Backlog::default(),
            absent: Absent::default(),
            wanted: Absent::default(),
            told: self.chronicle.by(),
            seen: Vec::new(),
            audit: Audit::default(),
            agrees: None,
            resynchronisations: 0,
            table: None,
            taken_by: None,
            heir: None,
            yields: 0,
            asked: None,
            refuses: false,
        };
        let limit = peer.dialect.last_heard_limit(&self.config);
        self.peers.table.insert(id, peer);
        self.timers.set(Timer::LastHeard(id), self.now + limit);
        self.chronicle.note(self.now, What::PeerFound { id, address });
        self.event(Event::PeerAdded { id });
        true
    }

    /// Makes room in the table: somebody of whom there is only hearsay and who owns nothing.
    fn forget_some_peer(&mut self) -> bool {
        let nobody = |(id, peer): (&RegistrarId, &Peer)| {
            (!peer.is_met() && peer.link.is_none() && self.space.owned_count(*id) == 0).then_some(*id)
        };
        match self.peers.table.iter().find_map(nobody) {
            Some(id) => {
                self.forget_peer(id);
                true
            }
            None => false,
        }
    }

    /// Makes room in the table for one that came over this link: of those that own nothing and are not configured,
    /// one of the host that has most of them, unless that is the newcomer's.
    fn forget_for(&mut self, link: LinkId) -> bool {
        let host = |link: LinkId| self.links.get(&link).and_then(|state| reach::host(&state.ends));
        let mut hosts: BTreeMap<Option<IpAddr>, Vec<RegistrarId>> = BTreeMap::new();
        for (&id, peer) in &self.peers.table {
            if self.space.owned_count(id) == 0 && !self.is_configured(id) && !self.is_joining_with(id) {
                hosts.entry(peer.link.and_then(host)).or_default().push(id);
            }
        }
        let wanted = self.leads_to_configured(link);
        let theirs = hosts.get(&host(link)).map_or(0, Vec::len);
        let most = hosts.into_values().max_by_key(Vec::len).filter(|most| wanted || most.len() > theirs + 1);
        // Of many of one host none is better than another; the last one is as good as any.
        let Some(id) = most.and_then(|most| most.last().copied()) else { return false };
        let who = self.called(id);
        self.complain("peers of one host", || {
            format!("too many registrars that own nothing, most of them of one host: {who} made room")
        });
        self.forget_peer(id);
        true
    }

    /// Whether a registrar is known by where it is, too: it was here itself.
    pub(super) fn is_guarded(&self, id: RegistrarId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.is_met() && !peer.seen.is_empty())
    }

    /// From which host it comes what is a registrar's: its own, or that of whoever told of it.
    pub(super) fn origin(&self, id: RegistrarId) -> Option<IpAddr> {
        let peer = self.peers.get(id)?;
        peer.seen.first().map(|&ip| host_of(ip)).or(peer.told)
    }

    /// Notes where a peer is that nobody has to doubt.
    pub(super) fn note_seen(&mut self, id: RegistrarId, at: &[IpAddr]) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        for ip in at.iter().map(IpAddr::to_canonical) {
            if !peer.seen.contains(&ip) && peer.seen.len() < MAX_SEEN {
                peer.seen.push(ip);
            }
        }
    }

    /// Removes a peer and its links.
    pub(super) fn forget_peer(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.table.remove(&id) else { return };
        if let Some(met) = peer.met {
            self.identity.was_here(self.now, id, self.now - met, peer.seen);
        }
        let timers = [
            Timer::LastHeard(id),
            Timer::NoResponse(id),
            Timer::Redial(id),
            Timer::Flush(id),
            Timer::TakenBy(id),
            Timer::Dialect(id),
        ];
        for timer in timers {
            self.timers.clear(&timer);
        }
        if let Some(dial) = peer.dial {
            self.dials.remove(&dial);
            self.timers.clear(&Timer::DialTimeout(dial));
            self.outbox.push(Output::Close { link: dial });
        }
        for link in self.links_of(id) {
            self.close_link(link);
        }
    }

    fn no_response_limit(&self, id: RegistrarId) -> Duration {
        self.dialect(id).no_response_limit(&self.config)
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, id: RegistrarId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let limit = peer.dialect.last_heard_limit(&self.config);
        let before = std::mem::replace(&mut peer.life, Life::Alive);
        peer.heard = now;
        peer.met.get_or_insert(now);
        peer.failed = 0;
        peer.yields = 0;
        peer.heir = None;
        let taken = peer.taken_by.take().is_some();
        if before.is_silent() {
            self.timers.clear(&Timer::NoResponse(id));
        }
        if taken {
            self.timers.clear(&Timer::TakenBy(id));
        }
        self.call_off_takeover(id);
        if self.timers.get(&Timer::LastHeard(id)).is_none() {
            self.timers.set(Timer::LastHeard(id), now + limit);
        }
    }

    /// Whether a peer lives and can be spoken to, as far as we know.
    pub(super) fn is_up(&self, id: RegistrarId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.life == Life::Alive && peer.link.is_some())
    }

    pub(super) fn last_heard_expired(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.get(id) else { return };
        let limit = peer.dialect.last_heard_limit(&self.config);
        let due = peer.heard + limit;
        if due > self.now {
            self.timers.set(Timer::LastHeard(id), due);
        } else if self.overslept {
            self.timers.set(Timer::LastHeard(id), self.now + limit);
        } else {
            self.suspect(id);
        }
    }

    /// A peer may be dead: ask it.
    pub(super) fn suspect(&mut self, id: RegistrarId) {
        let limit = self.no_response_limit(id);
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.life.is_silent() {
            peer.life = Life::Silent;
            peer.failed = 0;
            self.timers.set(Timer::NoResponse(id), now + limit);
            self.part(id, true);
        }
        self.ask_presence(id);
    }

    /// Asks for a sign of life, over a new link if there is none.
    fn ask_presence(&mut self, id: RegistrarId) {
        if self.peers.get(id).is_some_and(|peer| peer.link.is_some()) {
            self.send_presence(id, true);
        } else {
            self.dial_peer(id);
        }
    }

    pub(super) fn no_response(&mut self, id: RegistrarId) {
        if self.overslept {
            self.timers.set(Timer::NoResponse(id), self.now + self.no_response_limit(id));
            self.ask_presence(id);
        } else {
            self.peer_dead(id);
        }
    }

    /// MAX-TIME-NO-RESPONSE is over, or nobody listens where it was.
    pub(super) fn peer_dead(&mut self, id: RegistrarId) {
        self.timers.clear(&Timer::NoResponse(id));
        self.timers.clear(&Timer::LastHeard(id));
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.life.is_dead() {
            return;
        }
        let met = peer.is_met();
        peer.life = Life::Dead;
        peer.table = None;
        peer.audit.stop();
        let heir = peer.heir;
        if met {
            self.event(Event::PeerDead { id });
        }
        self.mentor_gone(id);
        self.takeovers_without(id);
        let heirs_of: Vec<RegistrarId> = self.targets_of(id);
        if let Some(heir) = heir.filter(|&heir| self.is_up(heir)) {
            self.inherit(id, heir);
        } else if self.space.owned_count(id) == 0 {
            self.forget_peer(id);
        } else {
            let taken = self.peers.get(id).and_then(|peer| peer.taken_by);
            if taken.is_none_or(|by| self.peers.get(by).is_none_or(|by| by.life.is_dead())) {
                self.start_takeover(id);
            }
        }
        // Whom it wanted to take over is ours to care for now.
        for target in heirs_of {
            self.other_takeover_expired(target);
        }
    }

    /// Dead registrars that `by` announced to take over.
    fn targets_of(&self, by: RegistrarId) -> Vec<RegistrarId> {
        let taken = self.peers.table.iter().filter(|(_, peer)| peer.taken_by == Some(by));
        taken.map(|(&id, _)| id).collect()
    }

    /// Takes over what a registrar says about itself, or a third one about it. `near`: who says so is on this
    /// host.
    pub(super) fn learn(&mut self, id: RegistrarId, server: ServerInformation, near: bool) {
        let targets = self.targets(&server.transports, None, near);
        let by = self.chronicle.by();
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !targets.is_empty() {
            peer.set_targets(targets);
            peer.naming.told(by);
        }
        peer.set_info(server);
    }
}

impl Peer {
    /// Whether it was ever heard itself.
    pub(super) fn is_met(&self) -> bool {
        self.met.is_some()
    }

    pub(super) fn set_targets(&mut self, targets: Vec<Target>) {
        // Heard over several interfaces and groups, the addresses change from one datagram to the next.
        let protocols = |targets: &[Target]| targets.iter().map(|target| target.protocol).collect::<Vec<_>>();
        if protocols(&self.targets) != protocols(&targets) {
            self.next_target = 0;
        }
        self.targets = targets;
    }

    pub(super) fn set_info(&mut self, server: ServerInformation) {
        self.info = tellable(server);
    }
}

/// A registrar's transports as others may be told of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tellable {
    pub server: ServerInformation,
    /// It means something on this host only.
    pub here_only: bool,
}

/// Where a registrar says it is.
pub(super) fn said_address(server: &ServerInformation) -> Option<SocketAddr> {
    server.transports.iter().find_map(|transport| transport.socket_addresses().next())
}

/// What others may be told of a registrar, small enough to be told often: not what means each host itself, or one link,
/// unless there is nothing else and it is for this host; `None` if nothing is left.
fn tellable(server: ServerInformation) -> Option<Tellable> {
    use crate::wire::scope::{Scope, reaches};
    let far = |ip: &IpAddr| reaches(*ip, Scope::MulticastSite);
    let here_only = !server.transports.iter().flat_map(Transport::addresses).any(far);
    let minimum = if here_only { Scope::Loopback } else { Scope::MulticastSite };
    let mut told = ServerInformation { id: server.id, transports: Vec::new() };
    let mut size = told.encoded_len();
    for transport in server.transports {
        let Transport::Address { protocol, port, usage, addresses } = transport else { continue };
        let addresses = addresses.into_iter().filter(|&ip| reaches(ip, minimum));
        let addresses: Vec<IpAddr> = addresses.take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            continue;
        }
        let transport = Transport::new(protocol, usage, port, addresses);
        size += transport.encoded_len();
        if size > MAX_INFO {
            break;
        }
        told.transports.push(transport);
    }
    (!told.transports.is_empty()).then_some(Tellable { server: told, here_only })
}
