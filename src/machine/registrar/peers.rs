//! Peers: who they are, whether they live, presence (RFC 5353 sections 3.4.1 to 3.4.3).

use super::measure;
use super::sync::{Audit, Backlog, TableCursor};
use super::{Event, LinkId, PeerView, Registrar, Service, Timer};
use crate::machine::{Output, Target, Time};
use crate::wire::{
    CauseCode, DecodeError, Enrp, EnrpMessage, OperationError, Protocol, RegistrarId, ServerInformation,
    Transport,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A peer waits this long for the one with the lower ID to dial first.
pub(super) const POLITENESS: Duration = Duration::from_millis(200);

/// A peer, or a registrar that we only heard of.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where to dial it, in turn.
    pub targets: Vec<Target>,
    pub next_target: usize,
    /// What it says about itself, for lists.
    pub info: Option<ServerInformation>,
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
    /// Whether it was ever heard itself.
    pub met: bool,
    /// Since when we wait for a sign of life that we asked for.
    pub silent: Option<Time>,
    /// Silent for too long.
    pub dead: bool,
    /// Exactly one SCTP transport: a registrar of rsplib.
    pub rsplib: bool,
    /// Whether it was asked for its peers since the link came up.
    pub listed: bool,
    pub backlog: Backlog,
    pub audit: Audit,
    /// Whether its checksum was right when it was compared last.
    pub agrees: Option<bool>,
    /// How often its table was asked for after an audit.
    pub resynchronisations: u64,
    /// How far it has read our table.
    pub table: Option<TableCursor>,
    /// Who announced to take it over.
    pub taken_by: Option<RegistrarId>,
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
            last_heard: peer.met.then(|| self.now - peer.heard),
            elements: self.space.owned_count(id),
            state: match peer {
                Peer { dead: true, .. } => "dead",
                Peer { silent: Some(_), .. } => "silent",
                Peer { met: false, .. } => "hearsay",
                Peer { link: None, .. } => "connecting",
                _ => "alive",
            },
            agrees: peer.agrees,
            queue: peer.backlog.len(),
            resynchronisations: peer.resynchronisations,
        };
        self.peers.table.iter().map(view).collect()
    }

    /// Makes sure that a peer is known; `false` if there are too many.
    pub(super) fn meet(&mut self, id: RegistrarId) -> bool {
        if self.peers.table.contains_key(&id) {
            return true;
        }
        if self.peers.table.len() >= self.config.max_peers && !self.forget_some_peer() {
            let most = self.config.max_peers;
            self.complain("too many peers", 0, || format!("more peers than {most}"));
            return false;
        }
        let peer = Peer {
            targets: Vec::new(),
            next_target: 0,
            info: None,
            link: None,
            link_used: false,
            dial: None,
            dialled: Time::default(),
            failed: 0,
            heard: self.now,
            met: false,
            silent: None,
            dead: false,
            rsplib: false,
            listed: false,
            backlog: Backlog::default(),
            audit: Audit::default(),
            agrees: None,
            resynchronisations: 0,
            table: None,
            taken_by: None,
        };
        let limit = self.last_heard_limit(&peer);
        self.peers.table.insert(id, peer);
        self.timers.set(Timer::LastHeard(id), self.now + limit);
        self.event(Event::PeerAdded { id });
        true
    }

    /// Makes room in the table: somebody of whom there is only hearsay and who owns nothing.
    fn forget_some_peer(&mut self) -> bool {
        let nobody = |(id, peer): (&RegistrarId, &Peer)| {
            (!peer.met && peer.link.is_none() && self.space.owned_count(*id) == 0).then_some(*id)
        };
        match self.peers.table.iter().find_map(nobody) {
            Some(id) => {
                self.forget_peer(id);
                true
            }
            None => false,
        }
    }

    /// Removes a peer and its links.
    pub(super) fn forget_peer(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.table.remove(&id) else { return };
        let timers = [
            Timer::LastHeard(id),
            Timer::NoResponse(id),
            Timer::Redial(id),
            Timer::Flush(id),
            Timer::TakenBy(id),
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

    fn last_heard_limit(&self, peer: &Peer) -> Duration {
        match peer.rsplib {
            true => self.config.rsplib_max_time_last_heard,
            false => self.config.peer_max_time_last_heard,
        }
    }

    fn no_response_limit(&self, id: RegistrarId) -> Duration {
        match self.peers.get(id).is_some_and(|peer| peer.rsplib) {
            true => self.config.rsplib_max_time_no_response,
            false => self.config.peer_max_time_no_response,
        }
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, id: RegistrarId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.heard = now;
        peer.met = true;
        peer.failed = 0;
        if peer.silent.take().is_some() {
            peer.dead = false;
            self.timers.clear(&Timer::NoResponse(id));
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.taken_by.take().is_some() {
            self.timers.clear(&Timer::TakenBy(id));
        }
        self.call_off_takeover(id);
        if self.timers.get(&Timer::LastHeard(id)).is_none()
            && let Some(peer) = self.peers.get(id)
        {
            let limit = self.last_heard_limit(peer);
            self.timers.set(Timer::LastHeard(id), now + limit);
        }
    }

    pub(super) fn last_heard_expired(&mut self, id: RegistrarId) {
        let Some(peer) = self.peers.get(id) else { return };
        let limit = self.last_heard_limit(peer);
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
        if peer.silent.is_none() {
            peer.silent = Some(now);
            peer.failed = 0;
            self.timers.set(Timer::NoResponse(id), now + limit);
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
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.dead {
            return;
        }
        peer.dead = true;
        peer.silent.get_or_insert(now);
        peer.table = None;
        peer.audit.stop();
        if peer.met {
            self.event(Event::PeerDead { id });
        }
        self.mentor_gone(id);
        self.takeovers_without(id);
        let heirs_of: Vec<RegistrarId> = self.targets_of(id);
        if self.space.owned_count(id) == 0 {
            self.forget_peer(id);
        } else {
            let taken = self.peers.get(id).and_then(|peer| peer.taken_by);
            if taken.is_none_or(|by| self.peers.get(by).is_none_or(|by| by.dead)) {
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
        let rsplib = peer.is_some_and(|peer| peer.rsplib);
        let checksum =
            if rsplib { measure::fold_checksum(self.rsplib_sum) } else { self.space.checksum(self.id) };
        // What waits for the peer is in our checksum and not in its copy yet.
        let waiting = peer.is_some_and(|peer| !peer.backlog.is_empty());
        Enrp::Presence {
            reply_required,
            checksum: (rsplib || !waiting).then_some(checksum),
            server: Some(self.server_information()),
        }
    }

    /// What we say about ourselves.
    fn server_information(&self) -> ServerInformation {
        let mut transports = self.config.enrp_transports.clone();
        // rsplib knows one SCTP transport and skips what follows.
        transports.sort_by_key(|transport| transport.protocol() != Some(Protocol::Sctp));
        if let [only] = &transports[..]
            && only.protocol() == Some(Protocol::Sctp)
        {
            // Twice, so that our own peers don't take us for one of rsplib's.
            transports.push(only.clone());
        }
        ServerInformation { id: self.id, transports }
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
                // To rsplib no presence goes without a checksum, and with one it would read our whole table
                // for what is on its way already. Whoever misses our presence asks for it.
                if !peer.rsplib || peer.backlog.is_empty() {
                    self.send_presence(id, false);
                }
            } else if !peer.dead && self.timers.get(&Timer::Redial(id)).is_none() {
                self.dial_peer(id);
            }
        }
    }

    pub(super) fn announce_presence(&mut self, reply_required: bool) {
        if self.config.announce_enrp {
            let body = self.presence(None, reply_required);
            let bytes = EnrpMessage { sender: self.id, receiver: RegistrarId(0), body }.encode();
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
        self.outbox.send_early(link, &message.encode());
    }

    /// One message from a peer's link.
    pub(super) fn enrp_message(&mut self, link: LinkId, bytes: &[u8]) {
        let decoded = match EnrpMessage::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.enrp_undecodable(link, bytes, error),
        };
        let EnrpMessage { sender, mut body, .. } = decoded.message;
        self.seen_from_here(link, &mut body);
        if sender == self.id {
            return self.met_ourselves(link);
        }
        if sender == RegistrarId(0) {
            self.stats.messages_rejected += 1;
            return self.complain("sender 0", 0, || format!("ENRP message with sender 0 from {link:?}"));
        }
        if !decoded.unrecognized.is_empty() && !matches!(body, Enrp::Error { .. }) {
            let causes = decoded
                .unrecognized
                .into_iter()
                .map(|data| crate::wire::Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data });
            self.report_error(link, sender, OperationError(causes.collect()));
        }
        let stranger = self.peers.get(sender).is_none_or(|peer| !peer.met);
        if !self.meet(sender) || !self.came_over(link, sender) {
            return;
        }
        self.heard(sender);
        if stranger && !matches!(body, Enrp::Presence { .. }) {
            // RFC 5353 section 3.4.1: it shall introduce itself.
            self.send_presence(sender, true);
        }
        match body {
            Enrp::Presence { reply_required, checksum, server } => {
                self.presence_over_link(link, sender, reply_required, checksum, server)
            }
            Enrp::HandleTableRequest { own_only } => self.table_request(link, sender, own_only),
            Enrp::HandleTableResponse { rejected, more, pools } => {
                self.table_response(sender, rejected, more, pools)
            }
            Enrp::HandleUpdate { takeover_suggested, action, handle, element } => {
                self.handle_update(sender, takeover_suggested, action, handle, element)
            }
            Enrp::ListRequest => self.list_request(link, sender),
            Enrp::ListResponse { rejected, servers } => self.list_response(rejected, servers),
            Enrp::InitTakeover { target } => self.init_takeover(sender, target),
            Enrp::InitTakeoverAck { target } => self.takeover_acknowledged(sender, target),
            Enrp::TakeoverServer { target } => self.takeover_server(sender, target),
            Enrp::Error { error } => {
                let code = error.code();
                self.complain("enrp error", u64::from(sender.0) << 16 | u64::from(code.0), || {
                    format!("peer {sender} reports {code:?}")
                });
            }
        }
    }

    fn enrp_undecodable(&mut self, link: LinkId, bytes: &[u8], error: DecodeError) {
        const ENRP_ERROR: u8 = 0x0a;
        self.stats.messages_rejected += 1;
        let kind = bytes.first().copied().unwrap_or(0);
        // One line for all types that nobody knows.
        let about = if kind <= ENRP_ERROR { kind } else { 0xff };
        self.complain("enrp undecodable", u64::from(about), || {
            format!("ENRP message of type {kind:#04x} at byte {}: {}", error.at, error.reason)
        });
        if let Some(cause) = error.cause
            && kind != ENRP_ERROR
        {
            let sender =
                bytes.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
            self.report_error(link, RegistrarId(sender), OperationError(vec![cause]));
        }
    }

    /// Sends an error, unless what it quotes is too long for a message.
    fn report_error(&mut self, link: LinkId, receiver: RegistrarId, error: OperationError) {
        let message = EnrpMessage { sender: self.id, receiver, body: Enrp::Error { error } };
        if message.fits() {
            self.outbox.send_early(link, &message.encode());
        }
    }

    fn presence_over_link(
        &mut self,
        link: LinkId,
        id: RegistrarId,
        reply_required: bool,
        checksum: Option<[u8; 2]>,
        server: Option<ServerInformation>,
    ) {
        if let Some(server) = server.filter(|server| server.id == id) {
            self.learn(id, server, None);
        }
        if reply_required {
            let body = self.presence(Some(id), false);
            self.send_enrp_over(link, id, body);
        }
        let list = self.peers.get_mut(id).is_some_and(|peer| !std::mem::replace(&mut peer.listed, true));
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

    /// A datagram from the ENRP group: presences only. Anybody can send one, so it is no more than a
    /// hint where to dial.
    pub(super) fn multicast_message(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Ok(decoded) = EnrpMessage::decode(bytes) else {
            self.stats.messages_rejected += 1;
            return;
        };
        let EnrpMessage { sender, body, .. } = decoded.message;
        let Enrp::Presence { server: Some(server), .. } = body else { return };
        if sender == self.id || sender == RegistrarId(0) || server.id != sender {
            return;
        }
        if !self.meet(sender) {
            return;
        }
        self.learn(sender, server, Some(from));
        if self.peers.get(sender).is_some_and(|peer| peer.link.is_some() || peer.met) {
            self.heard(sender);
        }
        self.dial_politely(sender);
    }

    /// Takes over what a registrar says about itself, or a third one about it.
    pub(super) fn learn(&mut self, id: RegistrarId, server: ServerInformation, source: Option<SocketAddr>) {
        let targets = self.targets(&server.transports, source);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let sctp = |transport: &Transport| transport.protocol() == Some(Protocol::Sctp);
        peer.rsplib = server.transports.len() == 1 && server.transports.iter().all(sctp);
        // The source of a datagram is better knowledge than what a registrar behind a
        // translator lists, but only the latter comes over a link.
        if !targets.is_empty() && (source.is_none() || peer.targets.is_empty() || peer.link.is_none()) {
            // Heard over several interfaces and groups, the addresses change from one datagram to the next.
            let protocols =
                |targets: &[Target]| targets.iter().map(|target| target.protocol).collect::<Vec<_>>();
            if protocols(&peer.targets) != protocols(&targets) {
                peer.next_target = 0;
            }
            peer.targets = targets;
        }
        peer.info = Some(server);
    }
}
