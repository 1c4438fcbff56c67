//! The groups that a process wants to hear or to speak to. One that it can't use now, because its port is
//! taken or the host has no such network yet, is tried again for as long as the process runs.

use super::reactor::Reactor;
use crate::machine::{Service, Time};
use crate::transport::multicast::{ASAP_GROUP_IANA, ASAP_GROUP_V6, ENRP_GROUP_V6};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// First and longest time between two tries.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What a group is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) enum GroupPurpose {
    Hear,
    /// From `source`, or another port of it.
    Speak {
        source: SocketAddr,
        ttl: u8,
    },
}

/// Groups that are wanted and can't be used yet.
#[derive(Debug, Default)]
pub(super) struct MissingGroups {
    missing: Vec<(Service, SocketAddr, GroupPurpose)>,
    wait: Duration,
    due: Option<Time>,
}

impl MissingGroups {
    /// Begins to use a group; whether that worked at once. If not, that is logged once.
    pub fn want(
        &mut self,
        reactor: &mut Reactor,
        service: Service,
        group: SocketAddr,
        purpose: GroupPurpose,
    ) -> bool {
        let Err(error) = begin(reactor, service, group, purpose) else { return true };
        let hopeless = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EINVAL));
        let (what, then) = (purpose.name(), if hopeless { "" } else { "; will try again" });
        log::log!(level(group), "{service:?}: can't {what} {group}: {error}{then}");
        if !hopeless {
            self.missing.push((service, group, purpose));
            self.wait = RETRY.0;
            self.due = Some(reactor.now() + self.wait);
        }
        false
    }

    /// When to call [`MissingGroups::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Time> {
        self.due
    }

    /// Tries again what is missing, if it is time for that.
    pub fn handle_timeout(&mut self, reactor: &mut Reactor) {
        let now = reactor.now();
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.missing.retain(|&(service, group, purpose)| {
            let tried = begin(reactor, service, group, purpose);
            if tried.is_ok() {
                log::log!(level(group), "{service:?}: can {} {group} now", purpose.name());
            }
            tried.is_err()
        });
        self.wait = (2 * self.wait).min(RETRY.1);
        self.due = (!self.missing.is_empty()).then_some(now + self.wait);
    }
}

impl GroupPurpose {
    fn name(self) -> &'static str {
        match self {
            GroupPurpose::Hear => "listen to the group",
            GroupPurpose::Speak { .. } => "announce to the group",
        }
    }
}

fn begin(
    reactor: &mut Reactor,
    service: Service,
    group: SocketAddr,
    purpose: GroupPurpose,
) -> io::Result<()> {
    match purpose {
        GroupPurpose::Hear => reactor.hear(service, group),
        GroupPurpose::Speak { source, ttl } => speak(reactor, service, source, group, ttl),
    }
}

/// Announcements name our transports. Whoever reads those there, rsplib too, does not need the source port
/// (RFC 5352 section 3.6), so any port is better than silence.
fn speak(
    reactor: &mut Reactor,
    service: Service,
    source: SocketAddr,
    group: SocketAddr,
    ttl: u8,
) -> io::Result<()> {
    match reactor.speak(service, source, group, ttl) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && source.port() != 0 => {
            reactor.speak(service, SocketAddr::new(source.ip(), 0), group, ttl)?;
            log::warn!("{service:?}: UDP {source}: {error}; announcements to {group} come from another port");
            Ok(())
        }
        other => other,
    }
}

/// How loud to say that a group can't be used: a host without IPv6 is nothing unusual, and where IANA's can't be
/// used, the one beside it can't either.
fn level(group: SocketAddr) -> log::Level {
    match [ASAP_GROUP_IANA, ASAP_GROUP_V6, ENRP_GROUP_V6].contains(&group) {
        true => log::Level::Debug,
        false => log::Level::Warn,
    }
}
