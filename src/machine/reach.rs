//! Which addresses that others name mean something here.

use super::LinkEnds;
use crate::wire::scope::{Scope, reaches, scope};
use crate::wire::{PoolElement, Transport};
use std::net::IpAddr;

/// Whether both ends are on this host: over the loopback interface, or from one of its addresses to the same.
pub(crate) fn is_local(ends: &LinkEnds) -> bool {
    let ours: Vec<IpAddr> = ends.local.iter().map(|local| local.ip().to_canonical()).collect();
    let mut peer = ends.peer.iter().map(|peer| peer.ip().to_canonical());
    peer.any(|ip| scope(ip) == Scope::Loopback || ours.contains(&ip))
}

/// Whether an address that a registrar names can be used from here: no group, and nothing that means each host
/// itself unless that registrar is on this host.
pub(crate) fn usable_from(near: bool, address: IpAddr) -> bool {
    reaches(address, if near { Scope::Loopback } else { Scope::MulticastLink })
}

/// Fits what a registrar tells of an element to what may be passed on and dialled from here: `false` if that is
/// nothing.
pub(crate) fn check_element(near: bool, element: &mut PoolElement) -> bool {
    let check = |transport: &mut Transport| match transport {
        Transport::Address { port, addresses, .. } => {
            addresses.retain(|&ip| usable_from(near, ip));
            *port != 0 && !addresses.is_empty()
        }
        Transport::Opaque(_) => true,
    };
    if element.asap.as_mut().is_some_and(|asap| !check(asap)) {
        element.asap = None;
    }
    check(&mut element.transport)
}
