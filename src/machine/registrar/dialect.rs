//! What differs for a peer that is a registrar of rsplib's: what it may be told, how long it may take, who
//! withdraws from a takeover. The rest of the machine asks here and knows nothing of rsplib.
//!
//! ```text
//!   meet ──► Unknown ──► Rfc       it is one of ours, speaks TCP, took the probe, or let it pass without a word
//!               └──────► Rsplib    it lists its loopback addresses to everybody, or refused the probe as only rsplib does
//! ```
//!
//! The probe is a LIST_REQUEST with a parameter at its end that nobody knows and that says "skip me" (RFC 5354
//! section 3). Whoever follows the RFC skips it and answers. rsplib's registrars refuse a whole message for one
//! parameter too many, by an ENRP_ERROR in which they put what stood in the message for their own identifier.
//! Exactly one SCTP transport, on the other hand, is what every registrar of the RFC has. Until it is known, a
//! peer gets nothing that would end one of rsplib's.

use super::{Config, Dialect, LinkId, Registrar, Timer};
use crate::machine::{LinkEnds, LinkProtocol};
use crate::wire::scope::{Scope, reaches};
use crate::wire::{
    CauseCode, Enrp, EnrpMessage, MAX_MESSAGE, OperationError, Policy, PoolElement, PoolHandle, Protocol,
    RegistrarId, ServerInformation, Transport,
};
use std::time::Duration;

/// Why an element leaves the handlespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It can't be reached any more, or its registration ended.
    Lost,
    /// It deregistered.
    Deregistered,
}

/// The longest pool handle that rsplib survives.
const RSPLIB_MAX_HANDLE: usize = 32;
/// The most addresses in a transport that rsplib takes: of SCTP, and of the others.
const RSPLIB_MAX_ADDRESSES: (usize, usize) = (64, 2);
/// Bytes in one part of a table: rsplib's, whose registrar ends when an element does not fit in one, and ours.
const TABLE_PART: (usize, usize) = (1400, 32 << 10);
/// Elements in one part of a table for rsplib.
const RSPLIB_TABLE_ELEMENTS: usize = 128;
/// rsplib's clients take no more elements in one answer.
const RSPLIB_MAX_ELEMENTS: usize = 128;
/// rsplib's registrars wait 5 s for acknowledgements, and never say that they took over: their next
/// presence does, by its checksum.
const RSPLIB_TAKEOVER: Duration = Duration::from_secs(8);
/// A probe without any answer for so long was skipped by one that does not answer.
const PROBE: Duration = Duration::from_secs(5);
/// A type that is nobody's, with the bits for "skip".
const UNASSIGNED: u16 = 0x803c;

impl Dialect {
    /// Whether to be careful.
    pub(super) fn may_be_rsplib(self) -> bool {
        matches!(self, Dialect::Unknown | Dialect::Rsplib)
    }

    /// MAX-TIME-LAST-HEARD.
    pub(super) fn last_heard_limit(self, config: &Config) -> Duration {
        match self {
            Dialect::Rsplib => config.rsplib_max_time_last_heard,
            _ => config.peer_max_time_last_heard,
        }
    }

    /// MAX-TIME-NO-RESPONSE.
    pub(super) fn no_response_limit(self, config: &Config) -> Duration {
        match self {
            Dialect::Rsplib => config.rsplib_max_time_no_response,
            _ => config.peer_max_time_no_response,
        }
    }

    /// How long a takeover that it announced may last.
    pub(super) fn takeover_patience(self, config: &Config) -> Duration {
        match self {
            Dialect::Rsplib => config.takeover_expiry_interval.max(RSPLIB_TAKEOVER),
            _ => config.takeover_expiry_interval,
        }
    }

    /// Two registrars take over the same third one: whether the one with the identifier `ours` withdraws from a
    /// peer of this dialect. By RFC 5353 section 3.5.1 the smaller identifier withdraws, rsplib has it stay. Both
    /// sides go by the same rule, since each knows the other's dialect.
    pub(super) fn withdraws(self, ours: RegistrarId, theirs: RegistrarId) -> bool {
        match self {
            Dialect::Rsplib => theirs < ours,
            _ => theirs > ours,
        }
    }

    /// The checksum of our elements as the peer reckons it: rsplib's own, of what rsplib can hold, or that of the RFC.
    pub(super) fn checksum<T>(self, rfc: T, rsplib: T) -> T {
        if self.may_be_rsplib() { rsplib } else { rfc }
    }

    /// Whether a presence must have a checksum. While updates for the peer wait, ours does not fit what it knows;
    /// of a peer that needs one, the whole presence waits.
    pub(super) fn needs_checksum(self) -> bool {
        self.may_be_rsplib()
    }

    /// Who is named as the receiver of a handle update: nobody (RFC 5353 sections 3.3.1 and 3.3.2); rsplib names
    /// each peer.
    pub(super) fn receiver_of_updates(self, id: RegistrarId) -> RegistrarId {
        if self.may_be_rsplib() { id } else { RegistrarId(0) }
    }

    /// How many elements and bytes go into one part of a table, over a link of this protocol.
    pub(super) fn table_part(self, config: &Config, protocol: LinkProtocol) -> (usize, usize) {
        let most = config.max_elements_per_handle_table_request.max(1);
        match self.may_be_rsplib() || protocol == LinkProtocol::Sctp {
            true => (most.min(RSPLIB_TABLE_ELEMENTS), TABLE_PART.0),
            false => (most, TABLE_PART.1),
        }
    }

    /// Whether a peer is not told of an element; `can`: rsplib can hold it.
    pub(super) fn withholds(self, can: bool) -> bool {
        self.may_be_rsplib() && !can
    }

    /// Whether a peer can hold the element.
    pub(super) fn can_hold(self, handle: &PoolHandle, element: &PoolElement) -> bool {
        !self.may_be_rsplib() || rsplib_can_hold(handle, element)
    }
}

impl Removal {
    /// Why an element goes is said by its registration life in the update that deletes it, where rsplib's
    /// registrars don't look: 0 if it deregistered.
    pub(super) fn encode(self, element: &mut PoolElement) {
        element.life = match self {
            Removal::Deregistered => 0,
            Removal::Lost => element.life.max(1),
        };
    }

    /// What a deleting update says.
    pub(super) fn decode(element: &PoolElement) -> Removal {
        if element.life == 0 { Removal::Deregistered } else { Removal::Lost }
    }
}

/// Whether rsplib's registrars can hold the element: a short handle, an SCTP transport for
/// keep-alives, addresses that they do not drop as too local, and nothing at which they end.
pub(super) fn rsplib_can_hold(handle: &PoolHandle, element: &PoolElement) -> bool {
    let reachable = |transport: &Transport| {
        let addresses = transport.addresses();
        let most = match transport.protocol() {
            Some(Protocol::Sctp) => RSPLIB_MAX_ADDRESSES.0,
            _ => RSPLIB_MAX_ADDRESSES.1,
        };
        transport.port() != 0
            && addresses.len() <= most
            && addresses.iter().any(|&address| reaches(address, Scope::MulticastSite))
    };
    // A pool without any weight ends rsplib's registrar at the next question for it.
    let weightless = matches!(
        element.policy,
        Policy::WeightedRandom { weight: 0 } | Policy::WeightedRandomDpf { weight: 0, .. }
    );
    handle.as_bytes().len() <= RSPLIB_MAX_HANDLE
        && !weightless
        && element.id.0 != 0
        && EnrpMessage::HEADER_LEN + handle.encoded_len() + element.encoded_len() <= TABLE_PART.0
        && element
            .asap
            .as_ref()
            .is_some_and(|asap| asap.protocol() == Some(Protocol::Sctp) && reachable(asap))
        && reachable(&element.transport)
        && !matches!(element.transport.protocol(), None | Some(Protocol::UdpLite | Protocol::Dccp { .. }))
        && !matches!(element.policy, Policy::Unknown { .. })
}

/// The most elements in one answer to a client of this link.
pub(super) fn most_elements(config: &Config, ends: &LinkEnds, subscribes: bool) -> usize {
    if client_may_be_rsplibs(config, ends) && !subscribes { RSPLIB_MAX_ELEMENTS } else { usize::MAX }
}

/// Whether somebody at an ASAP link may be a client of rsplib's, which knows SCTP only. Nothing that it says tells.
pub(super) fn client_may_be_rsplibs(config: &Config, ends: &LinkEnds) -> bool {
    ends.protocol == LinkProtocol::Sctp && config.dialect != Some(Dialect::Rfc)
}

/// Whether clients of an ASAP link are told why in rsplib's numbers. Its elements read RFC 5354's as well, with what
/// they are about, and take them for refusals, so that these go to whoever may be anybody's.
pub(super) fn knows_rsplibs_causes(config: &Config, ends: &LinkEnds) -> bool {
    ends.protocol == LinkProtocol::Sctp && config.dialect == Some(Dialect::Rsplib)
}

/// Brings the transports of an announcement into the order that rsplib understands: it ignores announcements in which
/// anything follows the SCTP transport.
pub(super) fn order_announced(transports: &mut [Transport]) {
    transports.sort_by_key(|transport| transport.protocol() == Some(Protocol::Sctp));
}

/// Our server information as rsplib reads it and as ours recognise it. rsplib takes the first transport, which must
/// be the SCTP one, and skips the others.
pub(super) fn server_information(id: RegistrarId, transports: &[Transport]) -> ServerInformation {
    let mut transports = transports.to_vec();
    transports.sort_by_key(|transport| transport.protocol() != Some(Protocol::Sctp));
    if let [only] = &transports[..]
        && only.protocol() == Some(Protocol::Sctp)
    {
        // Twice is what nobody else does.
        transports.push(only.clone());
    }
    ServerInformation { id, transports }
}

/// Whether only our registrars describe themselves like this.
fn is_ours(server: &ServerInformation) -> bool {
    let sctp = |transport: &Transport| transport.protocol() == Some(Protocol::Sctp);
    server.transports.len() > 1 && sctp(&server.transports[0])
}

/// Whether a registrar lists what its host has, down to the loopback interface, beside addresses that others can use:
/// so does rsplib's where it is not told which address to take. That alone is not asked for.
fn lists_all(server: &ServerInformation) -> bool {
    let [Transport::Address { protocol: Protocol::Sctp, addresses, .. }] = &server.transports[..] else {
        return false;
    };
    let far = |ip: &std::net::IpAddr| reaches(*ip, Scope::MulticastSite);
    addresses.iter().any(far) && addresses.iter().any(|ip| ip.to_canonical().is_loopback())
}

/// Whether an ENRP_ERROR comes from rsplib: the identifiers are those of the message that it refuses, or none.
pub(super) fn is_rsplibs_refusal(us: RegistrarId, sender: RegistrarId, error: &OperationError) -> bool {
    (sender == us || sender == RegistrarId(0)) && error.code() == CauseCode::INVALID_MESSAGE
}

impl Registrar {
    /// The dialect of a peer.
    pub(super) fn dialect(&self, id: RegistrarId) -> Dialect {
        self.peers.get(id).map_or(Dialect::Unknown, |peer| peer.dialect)
    }

    /// A peer introduces itself over its link: what does it speak?
    pub(super) fn judge(&mut self, link: LinkId, id: RegistrarId, server: Option<&ServerInformation>) {
        let tcp = self.links.get(&link).is_some_and(|link| link.ends.protocol == LinkProtocol::Tcp);
        let chosen = self.config.dialect;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let ours = server.is_some_and(is_ours);
        let known = match (chosen, peer.dialect) {
            (Some(chosen), _) => Some(chosen),
            // rsplib does not speak TCP.
            (None, _) if ours || tcp => Some(Dialect::Rfc),
            (None, Dialect::Unknown) if server.is_some_and(lists_all) => Some(Dialect::Rsplib),
            (None, Dialect::Unknown) => None,
            (None, known) => Some(known),
        };
        match known {
            Some(dialect) => self.speaks(id, dialect),
            None if peer.is_met() && !peer.probed => {
                peer.probed = true;
                let due = self.now + PROBE;
                self.timers.set(Timer::Dialect(id), due);
                let mut bytes =
                    EnrpMessage { sender: self.id, receiver: id, body: Enrp::ListRequest }.encode();
                let [high, low] = UNASSIGNED.to_be_bytes();
                bytes.extend_from_slice(&[high, low, 0, 4]);
                let length = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                self.outbox.send(link, &bytes);
            }
            None => {}
        }
    }

    /// The probe was taken or passed over, by one that goes by the RFC.
    pub(super) fn took_probe(&mut self, id: RegistrarId) {
        if self.peers.get(id).is_some_and(|peer| peer.probed && peer.dialect == Dialect::Unknown) {
            self.speaks(id, Dialect::Rfc);
        }
    }

    /// An ENRP_ERROR as only rsplib writes it came over a link.
    pub(super) fn refused_probe(&mut self, link: LinkId) {
        let Some(id) = self.peer_of(link) else { return };
        if self.peers.get(id).is_some_and(|peer| peer.probed && peer.dialect == Dialect::Unknown) {
            self.speaks(id, Dialect::Rsplib);
        }
    }

    fn speaks(&mut self, id: RegistrarId, dialect: Dialect) {
        self.timers.clear(&Timer::Dialect(id));
        let Some(peer) = self.peers.get_mut(id) else { return };
        let before = std::mem::replace(&mut peer.dialect, dialect);
        let withheld = before == Dialect::Unknown && peer.probed && !dialect.may_be_rsplib();
        if withheld && peer.link.is_some() {
            // With the whole checksum, so that it asks for what it has not been told.
            self.send_presence(id, false);
        }
    }
}

const _: () = assert!(TABLE_PART.1 <= MAX_MESSAGE);

/// A cause that IANA has assigned, in place of one of rsplib's own.
pub(super) fn assigned(code: CauseCode) -> CauseCode {
    match code {
        CauseCode::WRONG_PROTOCOL => CauseCode::INCONSISTENT_TRANSPORT,
        CauseCode(0..=0xa) => code,
        _ => CauseCode::INVALID_VALUES,
    }
}

/// How long a registration lasts. RFC 5354 section 3.10 counts seconds, rsplib and we milliseconds. Nobody who counts
/// milliseconds registers for less than a second, and who counts seconds rarely for more than a quarter of an hour.
/// Where all speak one `dialect`, there is nothing to guess.
pub(super) fn life(number: u32, dialect: Option<Dialect>) -> Duration {
    const LEAST_MILLISECONDS: u32 = 1000;
    // An operator's marks are no time.
    let number = crate::handlespace::marks::life(number);
    let seconds = match dialect {
        Some(Dialect::Rfc) => true,
        Some(Dialect::Rsplib) => false,
        _ => number < LEAST_MILLISECONDS,
    };
    if seconds { Duration::from_secs(number.into()) } else { Duration::from_millis(number.into()) }
}

/// Whether an element registers as the RFC has it and neither rsplib's nor ours do: ours say over TCP where they
/// listen for registrars, and nobody's of either says so over SCTP. Of such an element it is not known that its
/// process is gone when its link is.
pub(super) fn registers_briefly(ends: &LinkEnds, element: &PoolElement) -> bool {
    let named = element.asap.as_ref().and_then(Transport::protocol);
    match ends.protocol {
        LinkProtocol::Tcp => named != Some(Protocol::Tcp),
        LinkProtocol::Sctp => named == Some(Protocol::Sctp),
    }
}
