//! The registrar: ASAP service, peers (ENRP), download, takeover, audit.

use super::{LinkChange, LinkId, Output, Service, Target, Time};
use crate::handlespace::Handlespace;
use crate::wire::{PeId, PoolHandle, RegistrarId, Transport};
use std::net::SocketAddr;
use std::time::Duration;

/// Timers and bounds, named after the RFCs where these have a name. Defaults in [`Config::default`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Config {
    pub id: RegistrarId,
    /// What we tell the world: ASAP and ENRP transports. May change: [`Registrar::set_transports`].
    pub asap_transports: Vec<Transport>,
    pub enrp_transports: Vec<Transport>,
    /// Static peers.
    pub peers: Vec<Target>,
    /// Whether to send ASAP announcements and ENRP presences by multicast.
    pub announce_asap: bool,
    pub announce_enrp: bool,
    pub server_announce_cycle: Duration,
    pub endpoint_keep_alive_transmission_interval: Duration,
    pub endpoint_keep_alive_timeout_interval: Duration,
    pub max_bad_pe_reports: u32,
    /// An unreachability report counts for this long.
    pub bad_pe_report_decay: Duration,
    /// Elements per answer when the request names no number.
    pub max_handle_resolution_items: usize,
    pub max_elements_per_handle_table_request: usize,
    pub peer_heartbeat_cycle: Duration,
    pub peer_max_time_last_heard: Duration,
    pub peer_max_time_no_response: Duration,
    pub mentor_discovery_timeout: Duration,
    pub takeover_expiry_interval: Duration,
    /// Requests per second and link, `None`: no limit.
    pub max_handle_resolution_rate: Option<u32>,
    pub max_endpoint_unreachable_rate: Option<u32>,
    pub support_takeover_suggestion: bool,
    /// A burst of changes costs a subscriber one message in this time.
    pub subscription_interval: Duration,
    /// 0: policy default.
    pub max_increment: usize,
    pub distance_step: Duration,
    /// Smallest scope of element addresses served: see `transport::scope`.
    pub min_address_scope: u8,
    /// Bounds; each has its answer when full.
    pub max_elements: usize,
    pub max_subscriptions_per_link: usize,
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
    /// A line for the log that must appear once per cause, however often it happens.
    Complaint {
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
    pub subscription_messages: u64,
    pub handle_updates_sent: u64,
    pub handle_updates_received: u64,
    pub takeovers: u64,
    pub resynchronisations: u64,
    pub messages_rejected: u64,
}

/// One registrar.
#[derive(Debug)]
pub struct Registrar {
    _private: (),
}

#[allow(unused_variables)]
impl Registrar {
    /// A registrar that starts looking for a mentor.
    pub fn new(config: Config, seed: u64, now: Time) -> Registrar {
        todo!()
    }
    /// Our transports changed (an interface came or went).
    pub fn set_transports(&mut self, now: Time, asap: Vec<Transport>, enrp: Vec<Transport>) {
        todo!()
    }
    /// Leaves in order: peers are told, links closed.
    pub fn shutdown(&mut self, now: Time) {
        todo!()
    }

    /// One whole message.
    pub fn handle_message(&mut self, now: Time, link: LinkId, bytes: &[u8]) {
        todo!()
    }
    /// A link came, went, filled or drained.
    pub fn handle_link(&mut self, now: Time, link: LinkId, change: LinkChange) {
        todo!()
    }
    /// A datagram from the ENRP group.
    pub fn handle_announce(&mut self, now: Time, service: Service, from: SocketAddr, bytes: &[u8]) {
        todo!()
    }
    /// Time has come.
    pub fn handle_timeout(&mut self, now: Time) {
        todo!()
    }
    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }
    /// The next effect.
    pub fn poll_output(&mut self) -> Option<Output<Event>> {
        todo!()
    }

    /// Our ID.
    pub fn id(&self) -> RegistrarId {
        todo!()
    }
    /// The handlespace, to read.
    pub fn handlespace(&self) -> &Handlespace {
        todo!()
    }
    /// Counters.
    pub fn stats(&self) -> Stats {
        todo!()
    }
    /// Whether ASAP service has started.
    pub fn is_serving(&self) -> bool {
        todo!()
    }
    /// Known peers, by ID.
    pub fn peers(&self) -> Vec<PeerView> {
        todo!()
    }
    /// Seconds since an element's last (re-)registration or answer, for the status page.
    pub fn element_age(&self, now: Time, key: crate::handlespace::ElementKey) -> Option<Duration> {
        todo!()
    }
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
}
