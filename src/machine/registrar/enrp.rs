//! ENRP service: what registrars say to us and we to them (RFC 5353 section 2). Who they are and whether they live:
//! [`super::peers`].

use super::dialect::{self, is_rsplibs_refusal, server_information};
use super::identity::Standing;
use super::peers::{Life, said_address};
use super::{Dialect, LinkId, Registrar, Service, Timer, reach};
use crate::machine::Output;
use crate::wire::{
    Cause, CauseCode, DecodeError, Enrp, EnrpMessage, MAX_MESSAGE, OperationError, RegistrarId,
    ServerInformation, Transport,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Who asks for our peers again within this time waits for the rest of it.
const LIST_PAUSE: Duration = Duration::from_millis(50);
/// Peers that are told of with as much work as an element.
const PEERS_OF_A_UNIT: usize = 16;
/// A list that was refused is asked for again after so long.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);

impl Registrar {
    /// A presence for a peer, or for all by multicast.
    pub(super) fn presence(&self, to: Option<RegistrarId>, reply_required: bool) -> Enrp {
        let peer = to.and_then(|id| self.peers.get(id));
        let dialect = peer.map_or(Dialect::Rfc, |peer| peer.dialect);
        let sum = dialect.checksum(self.space.sum(self.id), self.rsplib_sum);
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
        let stranger = self.peers.get(sender).is_none_or(|peer| !peer.is_met());
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

    /// A peer asks for our peers. That is told at once, but who asks over and over waits: it is as much work as there are
    /// peers.
    pub(super) fn list_request(&mut self, link: LinkId) {
        let now = self.now;
        let Some(peer_link) = self.peer_link(link) else { return };
        let due = peer_link.listed.map_or(now, |last| last + LIST_PAUSE);
        match due <= now {
            true => self.tell_list(link),
            false => self.timers.set(Timer::List(link), due),
        }
    }

    /// It has waited long enough.
    pub(super) fn list_due(&mut self, link: LinkId) {
        if self.links.get(&link).is_some_and(|state| state.congested) {
            return self.timers.set(Timer::List(link), self.now + LIST_PAUSE);
        }
        self.tell_list(link);
    }

    /// RFC 5353 section 3.2.2.2: the peers that we know to be alive.
    fn tell_list(&mut self, link: LinkId) {
        let now = self.now;
        let Some(asker) = self.peer_of(link) else { return };
        if let Some(peer_link) = self.peer_link(link) {
            peer_link.listed = Some(now);
        }
        self.timers.clear(&Timer::List(link));
        self.chores.spend(1 + self.peers.table.len() / PEERS_OF_A_UNIT);
        let rejected = !self.is_serving();
        let near = self.links.get(&link).is_some_and(|link| reach::is_local(&link.ends));
        let mut servers = Vec::new();
        let mut room = MAX_MESSAGE - 12;
        for (&id, peer) in &self.peers.table {
            let alive = peer.life == Life::Alive && id != asker;
            let Some(info) = peer.info.as_ref().filter(|_| alive && !rejected) else { continue };
            if info.here_only && !near {
                continue;
            }
            let Some(rest) = room.checked_sub(info.server.encoded_len()) else { break };
            room = rest;
            servers.push(info.server.clone());
        }
        self.send_enrp_over(link, asker, Enrp::ListResponse { rejected, servers });
    }

    pub(super) fn list_response(
        &mut self,
        link: LinkId,
        sender: RegistrarId,
        rejected: bool,
        servers: Vec<ServerInformation>,
    ) {
        self.took_probe(sender);
        if rejected {
            return self.list_refused(sender);
        }
        let near = self.links.get(&link).is_some_and(|link| reach::is_local(&link.ends));
        // More than there is room for is nothing that one could do anything with.
        for server in servers.into_iter().take(self.config.max_peers) {
            let id = server.id;
            if id == self.id || id == RegistrarId(0) || !self.meet(id, said_address(&server)) {
                continue;
            }
            if self.peers.get(id).is_some_and(|peer| peer.life == Life::Hearsay && peer.link.is_none()) {
                self.learn(id, server, near);
                self.dial_politely(id);
            }
        }
    }

    /// It does not tell its peers now (RFC 5353 section 3.2.2.2): others are asked, and it again later.
    pub(super) fn list_refused(&mut self, id: RegistrarId) {
        let after = self.now + AFTER_REFUSAL;
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
}
