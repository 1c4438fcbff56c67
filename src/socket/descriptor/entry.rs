//! One descriptor and its role.

use crate::machine::LinkProtocol;
use crate::socket::channel::parameters::SessionParameters;
use crate::socket::descriptor::base::Base;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::listener::Listener;
use crate::socket::descriptor::many::Many;
use crate::socket::readiness::Readiness;
use crate::socket::session::Session;
use parking_lot::RwLock;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

/// `SOCK_STREAM` or `SOCK_SEQPACKET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One session per descriptor; no notifications.
    Stream,
    /// Many sessions per descriptor; notifications.
    SeqPacket,
}

/// One RSerPool descriptor.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) base: Arc<Base>,
    pub(crate) style: Style,
    pub(crate) domain: i32,
    /// What it listens over; SCTP's users may connect over TCP as well.
    pub(crate) protocol: LinkProtocol,
    pub(crate) role: RwLock<EntryRole>,
}

/// What a descriptor is used for.
#[derive(Debug, Clone)]
pub(crate) enum EntryRole {
    /// Nothing yet; perhaps there is a system socket, perhaps bound.
    Fresh { endpoint: Option<Arc<Endpoint>>, bound: bool },
    /// `SOCK_STREAM`: accepts sessions, each for a descriptor of its own.
    Listener(Arc<Listener>),
    /// `SOCK_SEQPACKET`: accepts and serves sessions.
    Many(Arc<Many>),
    /// One session: connected, or accepted.
    Single(Arc<Session>),
}

impl Entry {
    pub(crate) fn new(
        base: Arc<Base>,
        style: Style,
        domain: i32,
        protocol: LinkProtocol,
        role: EntryRole,
    ) -> Entry {
        Entry { base, style, domain, protocol, role: RwLock::new(role) }
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.base.readiness
    }

    pub(crate) fn number(&self) -> RawFd {
        self.base.readiness.number()
    }

    pub(crate) fn role(&self) -> EntryRole {
        self.role.read().clone()
    }

    /// Changes what is not 0; what holds then. Applies to the sessions that there are as well.
    pub(crate) fn change_parameters(&self, change: SessionParameters) -> SessionParameters {
        let mut parameters = self.base.parameters.lock();
        *parameters = parameters.changed(change);
        let parameters = *parameters;
        if change != SessionParameters::default() {
            let tune = |session: &Session| {
                if let Some(conn) = session.conn() {
                    conn.tune(&parameters);
                }
            };
            match self.role() {
                EntryRole::Single(session) => tune(&session),
                EntryRole::Many(many) => {
                    many.endpoint().set_parameters(&parameters);
                    many.sessions().iter().for_each(|session| tune(session));
                }
                EntryRole::Listener(listener) => listener.endpoint().set_parameters(&parameters),
                EntryRole::Fresh { endpoint: Some(endpoint), .. } => endpoint.set_parameters(&parameters),
                EntryRole::Fresh { .. } => {}
            }
        }
        parameters
    }

    /// The system socket that stands for the descriptor.
    pub(crate) fn system_socket(&self) -> Option<RawFd> {
        match self.role() {
            EntryRole::Fresh { endpoint, .. } => endpoint.map(|endpoint| endpoint.as_fd().as_raw_fd()),
            EntryRole::Listener(listener) => Some(listener.endpoint().as_fd().as_raw_fd()),
            EntryRole::Many(many) => Some(many.endpoint().as_fd().as_raw_fd()),
            EntryRole::Single(session) => session.conn().map(|conn| conn.as_fd().as_raw_fd()),
        }
    }
}
