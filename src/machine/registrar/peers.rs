//! Peers: who they are, whether they live, presence (RFC 5353 sections 3.4.1 to 3.4.3).

use super::absent::Absent;
use super::dialect::{self, is_rsplibs_refusal, server_information};
use super::hearsay::Naming;
use super::reach;
use super::sync::{Audit, Backlog, TableCursor};
use super::{Dialect, Event, LinkId, PeerView, Registrar, Service, Timer, What};
use crate::machine::{Output, Target, Time};
use crate::wire::scope::host_of;
use crate::wire::show;
use crate::wire::{
    Cause, CauseCode, DecodeError, Enrp, EnrpMessage, OperationError, RegistrarId, ServerInformation,
    Transport,
};
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
/// A list that was refused is asked for again after so long.
const LIST_PAUSE: Duration = Duration::from_secs(2);
/// So often a takeover is left to somebody who does not finish it.
pub(super) const MAX_YIELDS: u8 = 2;

/// Whether a peer lives. Only what comes over its link counts as a sign of life: anybody can send datagrams.
///
/// ```text
///                 sign of life              MAX-TIME-LAST-HEARD without one, or link lost
///   Hearsay ──────────────────────► Alive ──────────────────────────────────────────────► Silent
///      │                            ▲   ▲          sign of life                           │   │
///      │ MAX-TIME-LAST-HEARD        │   └─────────────────────────────────────────────────┘   │ MAX-TIME-NO-RESPONSE,
///      └──────────► Silent          │ sign of life                                            │ or refused everywhere
///                                   └────────────────────────────── Dead ◄────────────────────┘
///                                                                    │
///                                                    owns nothing, or was taken over: forgotten
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Never heard itself.
    Hearsay,
    /// Heard lately.
    Alive,
    /// Asked for a sign of life. `met`: it was heard before.
    Silent { met: bool },
    /// It gave none.
    Dead { met: bool },
}

impl Life {
    /// Whether it was ever heard itself.
    pub(super) fn is_met(self) -> bool {
        !matches!(self, Life::Hearsay | Life::Silent { met: false } | Life::Dead { met: false })
    }

    /// Whether we miss a sign of life that we asked for.
    pub(super) fn is_silent(self) -> bool {
        matches!(self, Life::Silent { .. } | Life::Dead { .. })
    }

    /// Whether it was given up.
    pub(super) fn is_dead(self) -> bool {
        matches!(self, Life::Dead { .. })
    }
}

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
    /// When it was heard itself for the first time.
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
            last_heard: peer.life.is_met().then(|| self.now - peer.heard),
            elements: self.space.owned_count(id),
            state: match (peer.life, peer.link) {
                (Life::Dead { .. }, _) => "dead",
                (Life::Silent { .. }, _) => "silent",
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
    fn meet_over(&mut self, id: RegistrarId, address: Option<SocketAddr>, link: Option<LinkId>) -> bool {
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
            (!peer.life.is_met() && peer.link.is_none() && self.space.owned_count(*id) == 0).then_some(*id)
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
        let from = self.links.get(&link).and_then(|state| state.ends.peer.first()).map(SocketAddr::ip);
        let given = |target: &Target| target.addresses.iter().any(|at| Some(at.ip()) == from);
        let wanted = self.statics.iter().any(|entry| entry.link == Some(link) || given(&entry.target));
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
        self.peers.get(id).is_some_and(|peer| peer.life.is_met() && !peer.seen.is_empty())
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
            peer.life = Life::Silent { met: peer.life.is_met() };
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
        let met = peer.life.is_met();
        peer.life = Life::Dead { met };
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

    /// A presence for a peer, or for all by multicast.
    pub(super) fn presence(&self, to: Option<RegistrarId>, reply_required: bool) -> Enrp {
        let peer = to.and_then(|id| self.peers.get(id));
        let dialect = peer.map_or(Dialect::Rfc, |peer| peer.dialect);
        let sum = if dialect.may_be_rsplib() { self.rsplib_sum } else { self.space.sum(self.id) };
        // What waits for the peer is in our checksum and not in its copy yet.
        let waiting = peer.is_some_and(|peer| !peer.backlog.is_empty());
        Enrp::Presence {
            reply_required,
            checksum: (dialect.needs_checksum() || !waiting).then_some(sum.to_wire()),
            server: Some(server_information(self.id, &self.config.enrp_transports)),
        }
    }

    pub(super) fn send_presence(&mut self, id: RegistrarId, reply_required: bool) {
        let body = self.presence(Some(id), reply_required);
        self.send_enrp(id, body);
    }

    /// PEER-HEARTBEAT-CYCLE: everybody hears that we live.
    pub(super) fn heartbeat(&mut self) {
        let due = self.now + self.jitter(self.config.peer_heartbeat_cycle, 12);
        self.timers.set(Timer::Heartbeat, due);
        self.announce_presence(false);
        let ids: Vec<RegistrarId> = self.peers.table.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get(id) else { continue };
            if peer.link.is_some() {
                // With a checksum it would read our whole table for what is on its way already. Whoever misses
                // our presence asks for it.
                if !peer.dialect.needs_checksum() || peer.backlog.is_empty() {
                    self.send_presence(id, false);
                }
            } else if !peer.life.is_dead() && self.timers.get(&Timer::Redial(id)).is_none() {
                self.dial_peer(id);
            }
        }
    }

    pub(super) fn announce_presence(&mut self, reply_required: bool) {
        if self.config.announce_enrp {
            let body = self.presence(None, reply_required);
            let message = EnrpMessage { sender: self.id, receiver: RegistrarId(0), body };
            let bytes = message.encode_as(self.config.lengths());
            self.outbox.push(Output::Announce { service: Service::Enrp, bytes });
        }
    }

    /// Sends to a peer; dropped when there is no link.
    pub(super) fn send_enrp(&mut self, id: RegistrarId, body: Enrp) {
        if let Some(link) = self.peers.get(id).and_then(|peer| peer.link) {
            self.send_enrp_over(link, id, body);
        }
    }

    pub(super) fn send_enrp_over(&mut self, link: LinkId, receiver: RegistrarId, body: Enrp) {
        let message = EnrpMessage { sender: self.id, receiver, body };
        self.outbox.send(link, &message.encode_as(self.config.lengths()));
    }

    /// One message from a peer's link.
    pub(super) fn enrp_message(&mut self, link: LinkId, bytes: &[u8]) {
        let decoded = match EnrpMessage::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.enrp_undecodable(link, bytes, error),
        };
        let EnrpMessage { sender, mut body, .. } = decoded.message;
        if let Enrp::Error { error } = &body
            && is_rsplibs_refusal(self.id, sender, error)
        {
            return self.refused_probe(link);
        }
        if sender == self.id {
            return self.met_ourselves(link);
        }
        if sender == RegistrarId(0) {
            self.stats.messages_rejected += 1;
            let from = self.end_of(link);
            return self.complain("sender 0", || format!("ENRP message with sender 0 from {from}"));
        }
        let stranger = self.peers.get(sender).is_none_or(|peer| !peer.life.is_met());
        let said = match &body {
            Enrp::Presence { server: Some(server), .. } => said_address(server),
            _ => None,
        };
        let from = || self.links.get(&link)?.ends.peer.first().copied();
        if !self.meet_over(sender, said.or_else(from), Some(link)) {
            return;
        }
        match self.came_over(link, sender) {
            Standing::None => return,
            Standing::Unproved => {
                if let Enrp::Presence { server: Some(server), .. } = &body {
                    self.note_home(link, server);
                }
                // Whoever it is, it may know that we live.
                if let Enrp::Presence { reply_required: true, .. } = body {
                    let body = self.presence(Some(sender), false);
                    self.send_enrp_over(link, sender, body);
                }
                return;
            }
            Standing::Proved => {}
        }
        self.seen_from_here(link, &mut body);
        if !decoded.unrecognized.is_empty() && !matches!(body, Enrp::Error { .. }) {
            let causes = decoded
                .unrecognized
                .into_iter()
                .map(|data| Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data });
            self.report_error(link, sender, OperationError(causes.collect()));
        }
        self.heard(sender);
        if stranger && !matches!(body, Enrp::Presence { .. }) {
            // RFC 5353 section 3.4.1: it shall introduce itself.
            self.send_presence(sender, true);
        }
        match body {
            Enrp::Presence { reply_required, checksum, server } => {
                self.presence_over_link(link, sender, (reply_required, stranger), checksum, server)
            }
            Enrp::HandleTableRequest { own_only } => self.table_request(link, sender, own_only),
            Enrp::HandleTableResponse { rejected, more, pools } => {
                self.table_response(link, sender, rejected, more, pools)
            }
            Enrp::HandleUpdate { takeover_suggested, action, handle, element } => {
                self.handle_update(link, sender, takeover_suggested, action, handle, element)
            }
            Enrp::ListRequest => self.list_request(link),
            Enrp::ListResponse { rejected, servers } => self.list_response(link, sender, rejected, servers),
            Enrp::InitTakeover { target } => self.init_takeover(sender, target),
            Enrp::InitTakeoverAck { target } => self.takeover_acknowledged(sender, target),
            Enrp::TakeoverServer { target } => self.takeover_server(sender, target),
            Enrp::Error { error } if self.operation_refused(sender, &error) => {}
            Enrp::Error { error } => {
                let code = error.code();
                if code == CauseCode::NON_UNIQUE_PE_ID && self.is_told_that_we_are_two(link) {
                    return;
                }
                let who = self.called(sender);
                self.complain("enrp error", || format!("peer {who} reports {code:?}"));
            }
        }
    }

    fn enrp_undecodable(&mut self, link: LinkId, bytes: &[u8], error: DecodeError) {
        const ENRP_ERROR: u8 = 0x0a;
        self.stats.messages_rejected += 1;
        let kind = bytes.first().copied().unwrap_or(0);
        let from = self.end_of(link);
        self.complain("enrp undecodable", || {
            format!("ENRP message of type {kind:#04x} from {from}, at byte {}: {}", error.at, error.reason)
        });
        if let Some(mut cause) = error.cause
            && kind != ENRP_ERROR
        {
            if self
                .links
                .get(&link)
                .is_some_and(|link| !dialect::client_may_be_rsplibs(&self.config, &link.ends))
            {
                cause.code = dialect::assigned(cause.code);
            }
            let sender =
                bytes.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
            self.report_error(link, RegistrarId(sender), OperationError(vec![cause]));
        }
    }

    /// Sends an error, unless what it quotes is too long for a message.
    pub(super) fn report_error(&mut self, link: LinkId, receiver: RegistrarId, error: OperationError) {
        let message = EnrpMessage { sender: self.id, receiver, body: Enrp::Error { error } };
        if message.fits() {
            self.outbox.send(link, &message.encode_as(self.config.lengths()));
        }
    }

    fn presence_over_link(
        &mut self,
        link: LinkId,
        id: RegistrarId,
        (reply_required, stranger): (bool, bool),
        checksum: Option<[u8; 2]>,
        server: Option<ServerInformation>,
    ) {
        let server = server.filter(|server| server.id == id);
        self.judge(link, id, server.as_ref());
        if let Some(server) = server {
            let near = self.links.get(&link).is_some_and(|link| reach::is_local(&link.ends));
            let named: Vec<IpAddr> =
                server.transports.iter().flat_map(Transport::addresses).copied().collect();
            self.note_seen(id, &named);
            self.learn(id, server, near);
        }
        if reply_required || stranger {
            // RFC 5353 section 3.4.1: a stranger is asked for a presence, whatever its first message is.
            let body = self.presence(Some(id), stranger);
            self.send_enrp_over(link, id, body);
        }
        let now = self.now;
        let list = self
            .peers
            .get_mut(id)
            .is_some_and(|peer| now >= peer.list_after && !std::mem::replace(&mut peer.listed, true));
        if list && !self.is_joining_with(id) {
            self.send_enrp(id, Enrp::ListRequest);
        }
        if self.is_serving() {
            if let Some(checksum) = checksum {
                self.compare(id, checksum);
            }
        } else {
            self.seek_mentor();
        }
    }

    /// It does not tell its peers now (RFC 5353 section 3.2.2.2): others are asked, and it again later.
    pub(super) fn list_refused(&mut self, id: RegistrarId) {
        let after = self.now + LIST_PAUSE;
        if let Some(peer) = self.peers.get_mut(id) {
            peer.listed = false;
            peer.list_after = after;
        }
        let other = self.peers.linked().into_iter().find(|&other| other != id && self.is_up(other));
        if let Some(other) = other {
            self.send_enrp(other, Enrp::ListRequest);
        }
    }

    /// A datagram from the ENRP group: presences only. Anybody can send one, so it is no more than a
    /// hint where to dial.
    pub(super) fn multicast_message(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Ok(decoded) = EnrpMessage::decode(bytes) else {
            self.stats.messages_rejected += 1;
            return;
        };
        let EnrpMessage { sender, body, .. } = decoded.message;
        let Enrp::Presence { server: Some(server), .. } = body else { return };
        if sender == RegistrarId(0) || server.id != sender {
            return;
        }
        if sender == self.id {
            return self.met_twin_by_datagram(from, &server);
        }
        if !self.meet(sender, said_address(&server).or(Some(from))) {
            return;
        }
        let mut targets = self.targets(&server.transports, Some(from), self.is_here(from));
        let guarded = self.is_guarded(sender);
        let Some(peer) = self.peers.get_mut(sender) else { return };
        if guarded {
            // Elements hang on who that is.
            let seen = |at: &SocketAddr| peer.seen.contains(&at.ip().to_canonical());
            targets.retain(|target| target.addresses.iter().all(seen));
        }
        if !guarded || !targets.is_empty() {
            peer.naming.announced(from.ip());
        }
        if peer.life == Life::Hearsay {
            peer.set_targets(targets);
            peer.set_info(server);
        } else if peer.link.is_none() {
            // Where it said itself that it is comes first.
            peer.targets.truncate(2);
            for target in targets {
                if peer.targets.len() < 4 && !peer.targets.contains(&target) {
                    peer.targets.push(target);
                }
            }
        }
        self.dial_politely(sender);
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
    fn set_targets(&mut self, targets: Vec<Target>) {
        // Heard over several interfaces and groups, the addresses change from one datagram to the next.
        let protocols = |targets: &[Target]| targets.iter().map(|target| target.protocol).collect::<Vec<_>>();
        if protocols(&self.targets) != protocols(&targets) {
            self.next_target = 0;
        }
        self.targets = targets;
    }

    fn set_info(&mut self, server: ServerInformation) {
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
