//! ASAP service: what elements and users ask (RFC 5352 section 3). Resolutions: [`super::resolve`].

use super::measure::{self, Bucket, MAX_MESSAGE};
use super::{Link, LinkId, Registrar, Role, What};
use crate::handlespace::ElementKey;
use crate::machine::LinkProtocol;
use crate::wire::{
    Asap, CauseCode, DecodeError, OperationError, PeId, PoolElement, PoolHandle, Protocol, Transport,
    TransportUse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// An ASAP link: a process with elements, users, or both.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Elements registered over it.
    pub elements: BTreeSet<ElementKey>,
    /// The element that the last keep-alive named.
    pub turn: Option<ElementKey>,
    /// Elements removed since they did not answer, although the process speaks: an answer that comes
    /// late brings them back.
    pub overdue: BTreeMap<(PoolHandle, PeId), PoolElement>,
    /// Pools it subscribed to.
    pub subscriptions: BTreeSet<PoolHandle>,
    /// Requests from before the service started.
    pub deferred: Vec<Vec<u8>>,
    pub resolutions: Bucket,
    reports: Bucket,
}

/// Bounds on requests that wait for the service to start: bytes in all, beyond: the link is closed.
const MAX_DEFERRED: usize = 4 << 20;
/// The same for each link.
const MAX_DEFERRED_PER_LINK: usize = 64 << 10;

impl Registrar {
    /// The client of an ASAP link.
    pub(super) fn client(&mut self, link: LinkId) -> Option<&mut Client> {
        match self.links.get_mut(&link) {
            Some(Link { role: Role::Asap(client), .. }) => Some(client),
            _ => None,
        }
    }

    pub(super) fn send_asap(&mut self, link: LinkId, message: &Asap) {
        self.outbox.send_with(link, message.encoded_len(), |out| message.encode_into(out));
    }

    pub(super) fn asap_message(&mut self, link: LinkId, bytes: &[u8]) {
        // What we dialled for is answered over that link whether or not we serve others yet.
        if !self.is_serving() && link.is_incoming() {
            return self.defer(link, bytes);
        }
        if self.resolve_plainly(link, bytes) {
            return;
        }
        let decoded = match Asap::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.asap_undecodable(link, bytes, error),
        };
        let is_error = matches!(decoded.message, Asap::Error { .. });
        if !decoded.unrecognized.is_empty() && !is_error {
            let causes = decoded
                .unrecognized
                .into_iter()
                .map(|data| crate::wire::Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data });
            let error = OperationError(causes.collect());
            let report = Asap::Error { error };
            if report.fits() {
                self.send_asap(link, &report);
            }
        }
        match decoded.message {
            Asap::Registration { handle, element } => self.register(link, handle, element),
            Asap::Deregistration { handle, id } => self.deregister(link, handle, id),
            Asap::HandleResolution { subscribe, handle, items } => {
                self.resolve(link, subscribe, handle, items)
            }
            Asap::EndpointKeepAliveAck { handle, id } => self.keep_alive_ack(link, &handle, id),
            Asap::EndpointUnreachable { handle, id } => self.unreachable(link, &handle, id),
            Asap::Error { error } => {
                let code = error.code();
                self.complain("asap error", u64::from(code.0), || format!("a client reports {code:?}"));
            }
            other => {
                self.stats.messages_rejected += 1;
                let kind = other.kind();
                self.complain("asap kind", u64::from(kind.0), || {
                    format!("{kind:?} is no message for a registrar (from {link:?})")
                });
            }
        }
    }

    /// Keeps a request until we serve.
    fn defer(&mut self, link: LinkId, bytes: &[u8]) {
        let total = self.deferred + bytes.len();
        let Some(client) = self.client(link) else { return };
        let on_link: usize = client.deferred.iter().map(Vec::len).sum::<usize>() + bytes.len();
        if total > MAX_DEFERRED || on_link > MAX_DEFERRED_PER_LINK {
            return self.close_link(link);
        }
        client.deferred.push(bytes.to_vec());
        self.deferred = total;
    }

    /// The service starts: what waited is answered in order.
    pub(super) fn answer_deferred(&mut self) {
        let waiting: Vec<LinkId> = self.links.keys().copied().collect();
        self.deferred = 0;
        for link in waiting {
            let Some(client) = self.client(link) else { continue };
            for bytes in std::mem::take(&mut client.deferred) {
                self.asap_message(link, &bytes);
            }
        }
    }

    fn asap_undecodable(&mut self, link: LinkId, bytes: &[u8], error: DecodeError) {
        const ASAP_ERROR: u8 = 0x0e;
        self.stats.messages_rejected += 1;
        let kind = bytes.first().copied().unwrap_or(0);
        // One line for all types that nobody knows.
        let about = if kind <= ASAP_ERROR { kind } else { 0xff };
        self.complain("asap undecodable", u64::from(about), || {
            format!("ASAP message of type {kind:#04x} at byte {}: {}", error.at, error.reason)
        });
        if let Some(cause) = error.cause
            && kind != ASAP_ERROR
        {
            let report = Asap::Error { error: OperationError(vec![cause]) };
            if report.fits() {
                self.send_asap(link, &report);
            }
        }
    }

    fn register(&mut self, link: LinkId, handle: PoolHandle, mut element: PoolElement) {
        let id = element.id;
        let trusted = self.may_serve(link, &handle);
        let Some(state) = self.links.get(&link) else { return };
        let prepared = prepare(&state.ends, self.config.min_address_scope, &mut element);
        let from = state.ends.peer.first().copied();
        element.home = self.id;
        if let Some(distance) = element.policy.distance_mut() {
            *distance = state.distance.unwrap_or(0);
        }
        self.keep_marks(&handle, &mut element);
        let fits = super::sync::update_len(&handle, &element) <= MAX_MESSAGE;
        let result = prepared.and_then(|()| {
            if !trusted {
                return Err(CauseCode::SECURITY);
            }
            if !fits {
                return Err(CauseCode::LACK_OF_RESOURCES);
            }
            self.put(&handle, &element).map_err(|reject| reject.cause())
        });
        let error = match result {
            Ok((key, _)) => {
                self.stats.registrations += 1;
                self.attach(key, link);
                self.drop_claim(&handle, id);
                self.announce_update(key);
                self.suggest_takeover(key);
                None
            }
            Err(code) => {
                self.stats.messages_rejected += 1;
                self.refused("registration", code, &handle, id, from);
                Some(OperationError::from(code))
            }
        };
        let response =
            Asap::RegistrationResponse { rejected: error.is_some(), handle: handle.clone(), id, error };
        self.send_asap(link, &response);
    }

    fn deregister(&mut self, link: LinkId, handle: PoolHandle, id: PeId) {
        let mut error = None;
        if let Some(key) = self.space.find(&handle, id) {
            if self.may_serve(link, &handle) && self.may_deregister(link, key) {
                self.stats.deregistrations += 1;
                self.drop_claim(&handle, id);
                self.retire_and_tell(key);
            } else {
                self.stats.messages_rejected += 1;
                let from = self.links.get(&link).and_then(|state| state.ends.peer.first().copied());
                self.refused("deregistration", CauseCode::SECURITY, &handle, id, from);
                error = Some(OperationError::from(CauseCode::SECURITY));
            }
        }
        if let Some(client) = self.client(link) {
            client.overdue.remove(&(handle.clone(), id));
        }
        self.send_asap(link, &Asap::DeregistrationResponse { handle, id, error });
    }

    /// Counts and notes a refused request.
    fn refused(
        &mut self,
        what: &'static str,
        cause: CauseCode,
        handle: &PoolHandle,
        id: PeId,
        from: Option<SocketAddr>,
    ) {
        *self.refusals.entry((what, cause)).or_default() += 1;
        self.chronicle.note(self.now, What::Refused { handle: handle.clone(), id, cause, from });
    }

    /// The link it registered over, or one from an address of the element or its registering process.
    fn may_deregister(&self, link: LinkId, key: ElementKey) -> bool {
        let (Some(state), Some(element)) = (self.links.get(&link), self.space.get(key)) else { return false };
        let registered = self.side(key).and_then(|side| side.link);
        if registered == Some(link) {
            return true;
        }
        let element = element.to_element();
        let mut known: Vec<IpAddr> = element.transport.addresses().to_vec();
        known.extend(element.asap.iter().flat_map(Transport::addresses));
        if let Some(registered) = registered.and_then(|link| self.links.get(&link)) {
            known.extend(registered.ends.peer.iter().map(SocketAddr::ip));
        }
        state
            .ends
            .peer
            .iter()
            .any(|peer| known.iter().any(|ip| ip.to_canonical() == peer.ip().to_canonical()))
    }

    fn unreachable(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        self.stats.endpoint_unreachables += 1;
        let rate = self.config.max_endpoint_unreachable_rate;
        let now = self.now;
        if self.client(link).is_some_and(|client| !client.reports.take(now, rate)) {
            return;
        }
        if let Some(key) = self.space.find(handle, id)
            && self.may_resolve(link, handle.as_bytes())
        {
            let from = self.links.get(&link).and_then(|state| state.ends.peer.first().copied());
            self.chronicle.note(now, What::Reported { handle: handle.clone(), id, from });
            self.reported_unreachable(key);
        }
    }
}

/// Fits a registration to the link that it came over: addresses that can be used, and where
/// keep-alives reach the element once the link is gone.
fn prepare(ends: &crate::machine::LinkEnds, minimum: u8, element: &mut PoolElement) -> Result<(), CauseCode> {
    let own: Vec<IpAddr> = ends.peer.iter().map(|peer| peer.ip().to_canonical()).collect();
    let acceptable = |ip: &IpAddr| measure::acceptable(ends, minimum, *ip);
    if let Transport::Address { addresses, .. } = &mut element.transport {
        addresses.retain(acceptable);
        if ends.protocol == LinkProtocol::Sctp {
            addresses.retain(|ip| own.contains(&ip.to_canonical()));
        }
        if addresses.is_empty() {
            return Err(CauseCode::NO_USABLE_USER_ADDRESSES);
        }
    }
    let (protocol, port) = match ends.protocol {
        LinkProtocol::Sctp => (Protocol::Sctp, ends.peer.first().map_or(0, SocketAddr::port)),
        LinkProtocol::Tcp => (Protocol::Tcp, element.asap.as_ref().map_or(0, listening_port)),
    };
    let usable: Vec<IpAddr> = own.into_iter().filter(acceptable).collect();
    let known = port != 0 && !usable.is_empty();
    if !known && ends.protocol == LinkProtocol::Sctp {
        return Err(CauseCode::NO_USABLE_ASAP_ADDRESSES);
    }
    element.asap = known.then(|| Transport::new(protocol, TransportUse::DataOnly, port, usable));
    Ok(())
}

/// Where a process says that it listens for registrars by TCP.
fn listening_port(asap: &Transport) -> u16 {
    if asap.protocol() == Some(Protocol::Tcp) { asap.port() } else { 0 }
}
