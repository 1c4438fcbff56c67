//! Multicast groups: hearing them, speaking to them, following the interfaces.

use super::{DATAGRAM_BUDGET, GROUPS, INTERFACES, Input, Reactor, ReactorTimer, register};
use crate::machine::Service;
use crate::transport::interfaces::{Interface, InterfaceChanges, interfaces};
use crate::transport::multicast::{GroupReceiver, GroupSender};
use mio::{Interest, Token};
use std::io;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;

/// Changes of interfaces come in bursts; this long after the first of one the list is read again.
const SETTLING: Duration = Duration::from_millis(200);
/// The largest UDP datagram.
const LARGEST_DATAGRAM: usize = 65_535;

#[derive(Debug, Default)]
pub(super) struct Groups {
    receivers: Vec<(Service, GroupReceiver)>,
    senders: Vec<(Service, GroupSender)>,
    interfaces: Vec<Interface>,
    changes: Option<InterfaceChanges>,
    /// Whether the list of interfaces was asked for.
    followed: bool,
    settling: bool,
    /// Receivers that may have more than one turn's budget.
    ready: Vec<usize>,
    buffer: Vec<u8>,
    /// Use the loopback interface as well.
    loopback: bool,
}

impl Groups {
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn take_ready(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.ready)
    }
}

impl Reactor {
    /// From now on, follows the interfaces ([`Input::Interfaces`]); what they are now.
    pub fn follow_interfaces(&mut self) -> io::Result<&[Interface]> {
        if !std::mem::replace(&mut self.groups.followed, true) {
            match InterfaceChanges::listen().and_then(|changes| Ok((changes, interfaces()?))) {
                Ok((changes, list)) => {
                    register(self.registry(), &changes, INTERFACES, Interest::READABLE)?;
                    self.groups.changes = Some(changes);
                    self.groups.interfaces = list;
                }
                // Services are often kept from it (systemd: RestrictAddressFamilies=).
                Err(error) => {
                    static TOLD: Once = Once::new();
                    TOLD.call_once(|| {
                        log::warn!("no AF_NETLINK ({error}): only addresses that were given are known");
                    });
                    self.groups.interfaces = interfaces().unwrap_or_default();
                }
            }
        }
        Ok(&self.groups.interfaces)
    }

    /// Hears `group`: its datagrams come as [`Input::Announce`].
    pub fn hear(&mut self, service: Service, group: SocketAddr) -> io::Result<()> {
        self.follow_interfaces()?;
        let mut receiver = GroupReceiver::bind(group)?;
        let token = Token(GROUPS + self.groups.receivers.len());
        register(self.registry(), &receiver, token, Interest::READABLE)?;
        if receiver.refresh(&self.groups.interfaces, self.groups.loopback) == 0 {
            log::info!("no interface for the {service:?} group {group} at present");
        }
        self.groups.receivers.push((service, receiver));
        // Reading the interfaces takes its time; who waits for announcements counts from here.
        self.now = self.clock.now();
        Ok(())
    }

    /// Speaks to `group` from `source`; `Output::Announce` goes there.
    pub fn speak(
        &mut self,
        service: Service,
        source: SocketAddr,
        group: SocketAddr,
        ttl: u8,
    ) -> io::Result<()> {
        self.follow_interfaces()?;
        let mut sender = GroupSender::new(source, group, ttl)?;
        sender.refresh(&self.groups.interfaces, self.groups.loopback);
        self.groups.senders.push((service, sender));
        Ok(())
    }

    pub(super) fn announce(&mut self, service: Service, bytes: &[u8]) {
        let (mut failure, mut sent) = (None, 0);
        for (_, sender) in self.groups.senders.iter().filter(|(of, _)| *of == service) {
            match sender.send(bytes) {
                Ok(copies) => sent += copies,
                Err(error) => failure = Some(error),
            }
        }
        // A host often has no route for the group of one family.
        if let Some(error) = failure.filter(|_| sent == 0) {
            self.complain("announce", None, format_args!("{service:?} announcement not sent: {error}"));
        }
    }

    pub(super) fn hear_group<F>(&mut self, group: usize, handler: &mut F)
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        let mut buffer = std::mem::take(&mut self.groups.buffer);
        buffer.resize(LARGEST_DATAGRAM, 0);
        let mut more = true;
        for _ in 0..DATAGRAM_BUDGET {
            let Some((service, receiver)) = self.groups.receivers.get(group) else { break };
            let service = *service;
            match receiver.recv(&mut buffer) {
                Ok(Some((from, bytes))) => {
                    if self.is_allowed(format_args!("{service:?} announcement"), Some(from)) {
                        handler(self, Input::Announce { service, from, bytes });
                    }
                }
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.complain("group", None, format_args!("{service:?} group: {error}"));
                    more = false;
                    break;
                }
            }
        }
        self.groups.buffer = buffer;
        if more {
            self.groups.ready.push(group);
        }
    }

    pub(super) fn interfaces_changed(&mut self) {
        let Some(changes) = &self.groups.changes else { return };
        if matches!(changes.drain(), Ok(true)) && !self.groups.settling {
            self.groups.settling = true;
            self.arm(SETTLING, ReactorTimer::Interfaces);
        }
    }

    /// Reads the interfaces again; the new list if it differs.
    pub(super) fn refresh_groups(&mut self) -> Option<Vec<Interface>> {
        self.groups.settling = false;
        // The drain is bounded, and the source edge-triggered: take what came meanwhile.
        self.interfaces_changed();
        let list = match interfaces() {
            Ok(list) => list,
            Err(error) => {
                self.complain("interfaces", None, format_args!("can't list the interfaces: {error}"));
                return None;
            }
        };
        if list == self.groups.interfaces {
            return None;
        }
        let Groups { receivers, senders, loopback, .. } = &mut self.groups;
        for (_, receiver) in receivers {
            receiver.refresh(&list, *loopback);
        }
        for (_, sender) in senders {
            sender.refresh(&list, *loopback);
        }
        self.groups.interfaces.clone_from(&list);
        Some(list)
    }
}
