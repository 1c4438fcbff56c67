//! What an operator sets, sees and counts.

use crate::machine::Target;
use crate::wire::scope::Scope;
use crate::wire::{Lengths, PeId, PoolHandle, RegistrarId, Transport};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Whose registrar a peer is, as far as that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Not known yet.
    #[default]
    Unknown,
    /// Goes by the RFCs, as ours do.
    Rfc,
    /// One of rsplib's.
    Rsplib,
}

/// Timers and bounds, named after the RFCs where these have a name. Defaults in [`Config::default`].
///
/// The defaults keep these promises: a registrar that falls silent is declared dead after at most
/// `peer_heartbeat_cycle` (+12.5 %) + `peer_max_time_last_heard` + `peer_max_time_no_response`
/// minus what was heard late, that is 2.3 s after its last sign of life, and taken over one round
/// trip later; an element that hangs is gone after at most 1.5 times
/// `endpoint_keep_alive_transmission_interval` plus `endpoint_keep_alive_timeout_interval`, 1.9 s
/// on a link on which nothing gets lost; else at most `path_change_timeout` or `lossy_link_timeout` take
/// the place of the time-out.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our ID: random, not 0, and a new one for each start (RFC 5353 section 3.2.1).
    pub id: RegistrarId,
    /// The scope that peers' certificates must name; `None`: any of our authority.
    pub scope: Option<String>,
    /// Where elements and users reach us. May change: [`super::Registrar::set_transports`].
    pub asap_transports: Vec<Transport>,
    /// Where peers reach us; their protocols are also those that we dial peers with (none: TCP).
    pub enrp_transports: Vec<Transport>,
    /// Static peers.
    pub peers: Vec<Target>,
    /// There are others, whose names are still being looked up: [`super::Registrar::set_peers`] tells where they are.
    pub awaits_peers: bool,
    /// Whether to send ASAP announcements by multicast.
    pub announce_asap: bool,
    /// Whether to send ENRP presences by multicast.
    pub announce_enrp: bool,
    /// T6-Serverannounce, randomised by ±12.5 %.
    pub server_announce_cycle: Duration,
    /// Time between two keep-alives on a link with elements, randomised by ±50 % (RFC 5352 section 3.4).
    /// One keep-alive per link and interval names the link's elements in turn, since it is the
    /// process that answers.
    pub endpoint_keep_alive_transmission_interval: Duration,
    /// How long an element may take to answer; on a link whose round trips take longer than a third of
    /// that: three of them.
    pub endpoint_keep_alive_timeout_interval: Duration,
    /// How long an element may take to answer where the kernel found a loss within 30 s, or waits for an acknowledgement, and
    /// over associations with several paths: when one path is lost, each side waits for its retransmission time-out
    /// (rsplib's: 1 s) before it takes another.
    pub path_change_timeout: Duration,
    /// How long an element may take to answer where the kernel found two losses within 30 s, or one over an association or one
    /// of several paths: each
    /// transmission may get lost, and so may its acknowledgement.
    pub lossy_link_timeout: Duration,
    /// With more links than this rate can watch, the interval stretches.
    pub max_keep_alives_per_second: u32,
    /// So many recent reports remove an element (MAX-BAD-PE-REPORT).
    pub max_bad_pe_reports: u32,
    /// An unreachability report counts for this long.
    pub bad_pe_report_decay: Duration,
    /// Elements per answer when the request names no number.
    pub max_handle_resolution_items: usize,
    /// Elements per part of a handle table; rsplib-like peers get at most 128.
    pub max_elements_per_handle_table_request: usize,
    /// PEER-HEARTBEAT-CYCLE, randomised by ±12.5 %.
    pub peer_heartbeat_cycle: Duration,
    /// MAX-TIME-LAST-HEARD.
    pub peer_max_time_last_heard: Duration,
    /// MAX-TIME-NO-RESPONSE.
    pub peer_max_time_no_response: Duration,
    /// MAX-TIME-LAST-HEARD of peers that are rsplib's: these send a presence every 2.4 s.
    pub rsplib_max_time_last_heard: Duration,
    /// MAX-TIME-NO-RESPONSE of peers that are rsplib's.
    pub rsplib_max_time_no_response: Duration,
    /// How long to look for a mentor before we serve alone.
    pub mentor_discovery_timeout: Duration,
    /// One that begins alone may have been started again: for so long it does not say that there is no such pool,
    /// but waits for the pool's elements to come back.
    pub return_time: Duration,
    /// How long to wait for acknowledgements of a takeover, or for its end if it is another's.
    pub takeover_expiry_interval: Duration,
    /// Handle resolutions per second and link, `None`: no limit. Beyond: cause 9, as rsplib.
    pub max_handle_resolution_rate: Option<u32>,
    /// Unreachability reports per second and link, `None`: no limit. Beyond: ignored.
    pub max_endpoint_unreachable_rate: Option<u32>,
    /// Take over an element when its registrar suggests it (rsplib's T flag).
    pub support_takeover_suggestion: bool,
    /// A burst of changes costs a subscriber one message in this time.
    pub subscription_interval: Duration,
    /// How many selected elements count as used; 0: policy default.
    pub max_increment: usize,
    /// Rounding of distances for the policies with a distance penalty; at least 1 ms.
    pub distance_step: Duration,
    /// Smallest scope of element addresses served.
    pub min_address_scope: Scope,
    /// What peers speak; `None`: that is found out for each.
    pub dialect: Option<Dialect>,
    /// Bound on elements; beyond: registrations are refused with cause 6.
    pub max_elements: usize,
    /// Bound on subscriptions per link; beyond: answered without the A flag.
    pub max_subscriptions_per_link: usize,
    /// Bound on peers; beyond: strangers are ignored.
    pub max_peers: usize,
}

impl Config {
    /// What lengths count: as rsplib has it, unless everybody goes by the RFCs.
    pub(super) fn lengths(&self) -> Lengths {
        if self.dialect == Some(Dialect::Rfc) { Lengths::Exact } else { Lengths::Padded }
    }
}

impl Default for Config {
    fn default() -> Config {
        let ms = Duration::from_millis;
        Config {
            id: RegistrarId(0),
            scope: None,
            asap_transports: Vec::new(),
            enrp_transports: Vec::new(),
            peers: Vec::new(),
            awaits_peers: false,
            announce_asap: false,
            announce_enrp: false,
            server_announce_cycle: ms(1000),
            endpoint_keep_alive_transmission_interval: ms(750),
            endpoint_keep_alive_timeout_interval: ms(750),
            path_change_timeout: ms(3000),
            lossy_link_timeout: ms(10_000),
            max_keep_alives_per_second: 20_000,
            max_bad_pe_reports: 3,
            bad_pe_report_decay: ms(30_000),
            max_handle_resolution_items: 3,
            max_elements_per_handle_table_request: 512,
            peer_heartbeat_cycle: ms(500),
            peer_max_time_last_heard: ms(1400),
            peer_max_time_no_response: ms(900),
            rsplib_max_time_last_heard: ms(5000),
            rsplib_max_time_no_response: ms(5000),
            mentor_discovery_timeout: ms(2000),
            return_time: ms(1500),
            takeover_expiry_interval: ms(1500),
            max_handle_resolution_rate: None,
            max_endpoint_unreachable_rate: None,
            support_takeover_suggestion: false,
            subscription_interval: ms(50),
            max_increment: 0,
            distance_step: ms(50),
            min_address_scope: Scope::SiteLocal,
            dialect: None,
            max_elements: 4_000_000,
            max_subscriptions_per_link: 10_000,
            max_peers: 256,
        }
    }
}

/// What the operator may want to see; each is logged by the driver, none is needed for operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    ElementAdded {
        handle: PoolHandle,
        id: PeId,
    },
    ElementRemoved {
        handle: PoolHandle,
        id: PeId,
        reason: &'static str,
    },
    PeerAdded {
        id: RegistrarId,
    },
    PeerDead {
        id: RegistrarId,
    },
    TakeoverStarted {
        target: RegistrarId,
    },
    TakeoverDone {
        target: RegistrarId,
        by: RegistrarId,
        elements: usize,
    },
    /// The handlespace is whole: ASAP service starts.
    Serving,
    /// A line for the log. It comes every time: whoever writes it has it appear once a minute for each cause,
    /// with a count. `by`: the host whose message or link it came from.
    Complaint {
        cause: &'static str,
        by: Option<IpAddr>,
        about: String,
    },
}

/// Counters for metrics and tests, in one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub registrations: u64,
    pub deregistrations: u64,
    pub handle_resolutions: u64,
    pub endpoint_unreachables: u64,
    pub keep_alives_sent: u64,
    pub elements_lost: u64,
    /// Keep-alives that were not answered in time.
    pub keep_alives_missed: u64,
    /// Elements whose home registrar we became while they had another one.
    pub adoptions: u64,
    /// Resolutions answered "unknown pool".
    pub unknown_pools: u64,
    /// Other registrars that died. Their elements are taken over unless all of them have registered elsewhere by then.
    pub peers_dead: u64,
    /// Takeovers of dead registrars, by us or others.
    pub takeovers_seen: u64,
    pub subscription_messages: u64,
    pub handle_updates_sent: u64,
    pub handle_updates_received: u64,
    pub takeovers: u64,
    pub resynchronisations: u64,
    pub handle_table_requests: u64,
    pub messages_rejected: u64,
    /// Elements whose registration life ended.
    pub lapsed: u64,
}

/// What is kept for others, for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// In a word, for metrics.
    pub cause: &'static str,
    /// Bytes kept now.
    pub bytes: usize,
    /// The most that are kept.
    pub bound: usize,
}

/// A peer as the status page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PeerView {
    pub id: RegistrarId,
    pub addresses: Vec<SocketAddr>,
    pub last_heard: Option<Duration>,
    pub elements: usize,
    pub state: &'static str,
    /// Whether its checksum and ours of its elements were the same when we compared last; `None`: never.
    pub agrees: Option<bool>,
    /// Updates that wait for it.
    pub queue: usize,
    /// How often we asked for its table after an audit.
    pub resynchronisations: u64,
    /// Whether it did not do what an operator asked of it here last.
    pub refuses: bool,
}
