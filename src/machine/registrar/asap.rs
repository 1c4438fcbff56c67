//! ASAP service: what elements and users ask (RFC 5352 section 3). Resolutions: [`super::resolve`].

use super::deferred::Deferred;
use super::dialect::{self, assigned, client_may_be_rsplibs, knows_rsplibs_causes};
use super::shares::Share;
use super::{LinkId, LiveLink, Registrar, Role, What, reach};
use crate::handlespace::{ElementKey, Reject};
use crate::machine::bucket::Bucket;
use crate::machine::{LinkEnds, LinkProtocol, Target};
use crate::wire::scope::Scope;
use crate::wire::{
    Asap, Cause, CauseCode, DecodeError, EnrpMessage, MAX_MESSAGE, OperationError, PeId, PoolElement,
    PoolHandle, Protocol, Transport, TransportUse, scope,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An ASAP link: a process with elements, users, or both.
#[derive(Debug, Default)]
pub(super) struct AsapLink {
    /// Where its other end is.
    pub host: Option<IpAddr>,
    /// We dialled it, and it has said nothing yet.
    pub silent: bool,
    /// We dialled it to ask these, and wait for it to say that it speaks ASAP.
    pub awaited: Option<Target>,
    /// Elements registered over it.
    pub elements: BTreeSet<ElementKey>,
    /// Bytes of their names.
    pub bytes: usize,
    /// The element that the last keep-alive named.
    pub turn: Option<ElementKey>,
    /// Elements removed since they did not answer, although the process speaks: an answer that comes
    /// late brings them back.
    pub overdue: BTreeMap<(PoolHandle, PeId), PoolElement>,
    /// Elements whose keep-alives lack answers: how the link is decides what that means.
    pub unanswered: BTreeSet<ElementKey>,
    /// Pools it subscribed to.
    pub subscriptions: BTreeSet<PoolHandle>,
    /// What they take, see [`super::subscriptions::weight`].
    pub subscribed: usize,
    /// Requests from before the service started.
    pub deferred: Deferred,
    /// Bytes of its questions for pools that may come back.
    pub held: usize,
    pub resolutions: Bucket,
    reports: Bucket,
}

impl AsapLink {
    /// What hangs on it.
    pub(super) fn share(&self) -> Share {
        Share {
            elements: self.elements.len(),
            bytes: self.bytes,
            subscriptions: self.subscriptions.len(),
            subscribed: self.subscribed,
        }
    }

    pub(super) fn new(host: Option<IpAddr>) -> AsapLink {
        AsapLink { host, ..AsapLink::default() }
    }
}

/// A question for a pool that there is not yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldQuestion {
    pub link: LinkId,
    pub subscribe: bool,
    pub items: Option<u32>,
}

/// What one of them takes.
pub(super) fn held_size(handle: &PoolHandle) -> usize {
    const RECORD: usize = 128;
    RECORD + handle.as_bytes().len()
}

/// Bounds on requests that wait for the service to start: bytes in all, beyond: the link is closed.
pub(super) const MAX_DEFERRED: usize = 4 << 20;
/// The same for each link.
pub(super) const MAX_DEFERRED_PER_LINK: usize = 64 << 10;

impl Registrar {
    /// The client of an ASAP link.
    pub(super) fn client(&mut self, link: LinkId) -> Option<&mut AsapLink> {
        match self.links.get_mut(&link) {
            Some(LiveLink { role: Role::Asap(client), .. }) => Some(client),
            _ => None,
        }
    }

    pub(super) fn send_asap(&mut self, link: LinkId, message: &Asap) {
        let lengths = self.config.lengths();
        self.outbox.send_with(link, message.encoded_len(), |out| message.encode_with(lengths, out));
    }

    pub(super) fn asap_message(&mut self, link: LinkId, bytes: &[u8]) {
        // What we dialled for is answered over that link whether or not we serve others yet.
        if link.is_incoming() && (!self.is_serving() || self.has_deferred(link)) {
            return self.defer(link, bytes);
        }
        self.asap_request(link, bytes);
    }

    fn asap_request(&mut self, link: LinkId, bytes: &[u8]) {
        if self.resolve_plainly(link, bytes) {
            return;
        }
        let decoded = match Asap::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.asap_undecodable(link, bytes, error),
        };
        self.process_speaks(link);
        let is_error = matches!(decoded.message, Asap::Error { .. });
        if !decoded.unrecognized.is_empty() && !is_error {
            let causes = decoded
                .unrecognized
                .into_iter()
                .map(|data| Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data });
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
            // A process that we dialled, see `machine::hello`.
            Asap::Error { error } if error.0.is_empty() => {}
            Asap::Error { error } => {
                let code = error.code();
                let from = self.end_of(link);
                self.complain("asap error", || format!("the client at {from} reports {code:?}"));
            }
            other => {
                self.stats.messages_rejected += 1;
                let kind = other.kind();
                let from = self.end_of(link);
                self.complain("asap kind", || {
                    format!("{kind:?} is no message for a registrar (from {from})")
                });
            }
        }
    }

    /// Keeps a request until we serve.
    fn defer(&mut self, link: LinkId, bytes: &[u8]) {
        let on_link = self.deferred_len(link) + Registrar::deferred_size(bytes);
        if on_link > MAX_DEFERRED_PER_LINK {
            return self.close_link(link);
        }
        self.push_deferred(link, bytes);
        // Whoever has most waiting makes room.
        while self.deferred > MAX_DEFERRED {
            match self.most_deferred() {
                Some((other, most)) if most > on_link => self.close_link(other),
                _ => return self.close_link(link),
            }
        }
    }

    fn has_deferred(&mut self, link: LinkId) -> bool {
        self.deferred > 0 && self.client(link).is_some_and(|client| !client.deferred.is_empty())
    }

    /// The service starts: what waited is answered in order; from which link on if not all of it now.
    pub(super) fn answer_some(&mut self, after: Option<LinkId>, units: &mut usize) -> Option<LinkId> {
        let mut last = after;
        loop {
            let from = last.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let next = self.links.range((from, std::ops::Bound::Unbounded)).next();
            let link = *next?.0;
            if *units == 0 {
                return Some(last.unwrap_or(LinkId(0)));
            }
            *units -= 1;
            while *units > 0
                && let Some(bytes) = self.pop_deferred(link)
            {
                *units -= 1;
                self.asap_request(link, &bytes);
            }
            if !self.has_deferred(link) {
                last = Some(link);
            }
        }
    }

    fn asap_undecodable(&mut self, link: LinkId, bytes: &[u8], error: DecodeError) {
        const ASAP_ERROR: u8 = 0x0e;
        self.stats.messages_rejected += 1;
        let kind = bytes.first().copied().unwrap_or(0);
        let from = self.end_of(link);
        self.complain("asap undecodable", || {
            format!("ASAP message of type {kind:#04x} from {from}, at byte {}: {}", error.at, error.reason)
        });
        if let Some(mut cause) = error.cause
            && kind != ASAP_ERROR
        {
            if self.links.get(&link).is_some_and(|link| !knows_rsplibs_causes(&self.config, &link.ends)) {
                cause.code = assigned(cause.code);
            }
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
        let ends = state.ends.clone();
        let distance = self.distance_of(link);
        let named = element.transport.clone();
        let brief = dialect::registers_briefly(&ends, &element);
        let prepared = prepare(&ends, self.config.min_address_scope, &mut element);
        let from = ends.peer.first().copied();
        element.home = self.id;
        if let Some(known) = element.policy.distance_mut() {
            *known = distance;
            let now = self.now;
            if let Some(state) = self.links.get_mut(&link) {
                state.distance.want(now);
            }
        }
        self.keep_marks(&handle, &mut element);
        let fits = update_len(&handle, &element) <= MAX_MESSAGE;
        let result = match prepared {
            _ if !trusted => Err(Cause::bare(CauseCode::SECURITY)),
            Err(code) => Err(Cause::about_transport(code, &named)),
            Ok(()) if !fits => Err(Cause::bare(CauseCode::LACK_OF_RESOURCES)),
            Ok(()) if !self.may_register(link, &ends, &handle, &element) => {
                let (at, process) = (reach::named_transport(&element.transport), reach::named(&ends));
                self.complain("two elements", || {
                    format!(
                        "element {id}{at} of pool \"{handle}\" is registered by another process than that at {process}"
                    )
                });
                self.note_rival(link, &handle, id);
                if let Some(home) =
                    self.space.find(&handle, id).and_then(|key| Some(self.space.get(key)?.home()))
                {
                    self.look_again(home);
                }
                Err(Cause::bare(CauseCode::NON_UNIQUE_PE_ID))
            }
            Ok(()) if !self.has_share(link, &handle, id) => Err(Cause::bare(CauseCode::LACK_OF_RESOURCES)),
            Ok(()) => match self.registered_since(link, &handle, id) {
                Some(key) => Ok((key, true)),
                None => match self.put(&handle, &element) {
                    Ok((key, _)) => Ok((key, false)),
                    Err(reject) => Err(self.refusal(&handle, &element, reject)),
                },
            },
        };
        let (rejected, error) = match result {
            Ok((_, true)) => (false, None),
            Ok((key, false)) => {
                self.stats.registrations += 1;
                let before = self.side(key).and_then(|side| side.link).filter(|&before| before != link);
                self.attach(key, link);
                if let Some(before) = before {
                    // Another one of the same host, or the same one elsewhere: who is left in the end says so.
                    self.note_rival(before, &handle, id);
                }
                let from = self.mark_of(&ends);
                if let Some(side) = self.side_mut(key) {
                    (side.brief, side.from) = (brief, from);
                }
                self.drop_claim(&handle, id);
                self.announce_update(key);
                self.suggest_takeover(key);
                // RFC 5352 section 2.2.3: it is told of what was changed, unless it would take that for a refusal.
                let less = element.transport.addresses().len() < named.addresses().len();
                let warning = less && !client_may_be_rsplibs(&self.config, &ends);
                (false, warning.then(|| Cause::about_transport(CauseCode::INVALID_VALUES, &named)))
            }
            Err(mut cause) => {
                self.stats.messages_rejected += 1;
                match knows_rsplibs_causes(&self.config, &ends) {
                    // It reads a single cause without information.
                    true => cause.data.clear(),
                    false => cause.code = assigned(cause.code),
                }
                self.refused("registration", cause.code, &handle, id, from);
                (true, Some(cause))
            }
        };
        let error = error.map(|cause| OperationError(vec![cause]));
        let mut response = Asap::RegistrationResponse { rejected, handle, id, error };
        if !response.fits()
            && let Asap::RegistrationResponse { error: Some(error), .. } = &mut response
        {
            error.0.iter_mut().for_each(|cause| cause.data.clear());
        }
        self.send_asap(link, &response);
    }

    /// Why a registration is refused, as RFC 5354 section 3.12 has it.
    fn refusal(&self, handle: &PoolHandle, element: &PoolElement, reject: Reject) -> Cause {
        let code = reject.cause();
        let pool = self.space.pool(handle);
        match reject {
            Reject::IncompatiblePolicy => {
                pool.map_or(Cause::bare(code), |pool| Cause::about_policy(code, &pool.policy()))
            }
            Reject::UnsupportedPolicy => Cause::about_policy(code, &element.policy),
            Reject::WrongProtocol => {
                let theirs =
                    pool.and_then(|pool| pool.elements().next().map(|first| first.to_element().transport));
                theirs.map_or(Cause::bare(code), |transport| Cause::about_transport(code, &transport))
            }
            Reject::InvalidAddresses => Cause::about_transport(code, &element.transport),
            Reject::InvalidId | Reject::WrongControlChannel | Reject::Full => Cause::bare(code),
        }
    }

    /// Whether who registers an element may be that element. While its link is up, only that link may, or the same
    /// process over another one: from the same host, at the same port. While it has none here, only from one of its
    /// addresses, also while its home is gone: who is left alone is most easily robbed.
    fn may_register(
        &self,
        link: LinkId,
        ends: &LinkEnds,
        handle: &PoolHandle,
        element: &PoolElement,
    ) -> bool {
        let Some(key) = self.space.find(handle, element.id) else { return true };
        let Some(known) = self.space.get(key).map(|known| known.to_element()) else { return true };
        let same_port = known.transport.protocol() == element.transport.protocol()
            && known.transport.port() == element.transport.port();
        match self.side(key).and_then(|side| side.link) {
            Some(registered) if registered == link => true,
            Some(registered) => match self.links.get(&registered) {
                Some(other) => reach::same_host(ends, &other.ends) && same_port,
                None => true,
            },
            None => {
                let from = self.side(key).map_or(0, |side| side.from);
                // Where it was registered here it may come from again, whatever addresses it gave. If it was registered
                // elsewhere we don't know from where: one of the RFC's processes, which nobody can ask, is believed
                // if it changes no address.
                let again = from != 0 && from == self.mark_of(ends);
                let plain = from == 0
                    && known.asap.is_none()
                    && known.transport == element.transport
                    && !self.is_up(known.home);
                again || plain || self.comes_from(ends, &known)
            }
        }
    }

    /// Whether a link comes from an address of an element. Here on our host they are all one, as the kernel takes that
    /// at which we are reached, or 127.0.0.1; who has another one of the loopback network has chosen it.
    fn comes_from(&self, ends: &LinkEnds, element: &PoolElement) -> bool {
        let configured = self.config.asap_transports.iter().chain(&self.config.enrp_transports);
        let ours: Vec<IpAddr> = configured
            .flat_map(Transport::addresses)
            .copied()
            .chain(ends.local.iter().map(SocketAddr::ip))
            .map(|ip| ip.to_canonical())
            .filter(|ip| !ip.is_loopback())
            .chain([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            .collect();
        let here = |ip: &IpAddr| ours.contains(&ip.to_canonical());
        let named =
            element.transport.addresses().iter().chain(element.asap.iter().flat_map(Transport::addresses));
        reach::from_element(ends, element)
            || ends.peer.first().is_some_and(|peer| here(&peer.ip())) && named.copied().any(|ip| here(&ip))
    }

    /// A number that stands for where a link comes from; 0: not known. Nobody can choose an address that has another
    /// one's, since nobody knows our seed.
    fn mark_of(&self, ends: &LinkEnds) -> u32 {
        let bits = match ends.peer.first().map(|peer| peer.ip().to_canonical()) {
            Some(IpAddr::V4(v4)) => u128::from(u32::from(v4)),
            Some(IpAddr::V6(v6)) => u128::from(v6),
            None => return 0,
        };
        let halves = (bits as u64 ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (bits >> 64) as u64;
        ((halves.rotate_left(31) ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).max(1) as u32
    }

    /// The element, if its process has registered it over a link that it opened after this one, whoever opened this one: then what
    /// comes over this one was said before, and this one is left.
    fn registered_since(&self, link: LinkId, handle: &PoolHandle, id: PeId) -> Option<ElementKey> {
        let key = self.space.find(handle, id)?;
        let registered = self.side(key)?.link.filter(|&registered| registered != link)?;
        let (old, new) = (self.links.get(&link)?, self.links.get(&registered)?);
        let later = registered.is_incoming() && new.since > old.since;
        later.then_some(key)
    }

    fn deregister(&mut self, link: LinkId, handle: PoolHandle, id: PeId) {
        let mut error = None;
        if let Some(key) = self.space.find(&handle, id) {
            if self.may_serve(link, &handle) && self.may_deregister(link, key) {
                self.stats.deregistrations += 1;
                self.drop_claim(&handle, id);
                self.deregister_and_tell(key);
            } else {
                self.stats.messages_rejected += 1;
                let from = self.links.get(&link).and_then(|state| state.ends.peer.first().copied());
                self.refused("deregistration", CauseCode::SECURITY, &handle, id, from);
                error = Some(OperationError::from(CauseCode::SECURITY));
            }
        }
        self.take_overdue(link, &handle, id);
        self.send_asap(link, &Asap::DeregistrationResponse { handle, id, error });
    }

    /// Counts and notes a refused request.
    pub(super) fn refused(
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

    /// The link it registered over, or while that is up one from the same host; else one from an address of the
    /// element.
    fn may_deregister(&self, link: LinkId, key: ElementKey) -> bool {
        let (Some(state), Some(element)) = (self.links.get(&link), self.space.get(key)) else { return false };
        match self.side(key).and_then(|side| side.link) {
            Some(registered) if registered == link => true,
            Some(registered) => {
                self.links.get(&registered).is_none_or(|other| reach::same_host(&state.ends, &other.ends))
            }
            None => self.comes_from(&state.ends, &element.to_element()),
        }
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
            let address = self.element_address(key);
            self.chronicle.note(now, What::Reported { handle: handle.clone(), id, address, from });
            if let Some(from) = from {
                self.reported_unreachable(key, scope::host_of(from.ip()));
            }
        }
    }
}

/// Fits a registration to the link that it came over: addresses that can be used, and where
/// keep-alives reach the element once the link is gone.
fn prepare(ends: &LinkEnds, minimum: Scope, element: &mut PoolElement) -> Result<(), CauseCode> {
    let own: Vec<IpAddr> = ends.peer.iter().map(|peer| peer.ip().to_canonical()).collect();
    let acceptable = |ip: &IpAddr| reach::acceptable(ends, minimum, *ip);
    if let Transport::Address { addresses, .. } = &mut element.transport {
        addresses.retain(acceptable);
        if ends.protocol == LinkProtocol::Sctp {
            addresses.retain(|ip| own.contains(&ip.to_canonical()));
        }
        if addresses.is_empty() {
            return Err(CauseCode::NO_USABLE_USER_ADDRESSES);
        }
        reach::best_first(addresses);
    }
    let (protocol, port) = match ends.protocol {
        LinkProtocol::Sctp => (Protocol::Sctp, ends.peer.first().map_or(0, SocketAddr::port)),
        LinkProtocol::Tcp => (Protocol::Tcp, element.asap.as_ref().map_or(0, listening_port)),
    };
    let mut usable: Vec<IpAddr> = own.into_iter().filter(acceptable).collect();
    reach::best_first(&mut usable);
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

/// Length of a handle update, which is the longest message about one element.
fn update_len(handle: &PoolHandle, element: &PoolElement) -> usize {
    EnrpMessage::HEADER_LEN + 4 + handle.encoded_len() + element.encoded_len()
}
