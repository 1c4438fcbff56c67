//! Which addresses mean something to whom.

use crate::machine::LinkEnds;
use crate::wire::scope::{Scope, reaches, scope};
use crate::wire::{PoolElement, Transport};
use std::net::{IpAddr, SocketAddr};

/// Whether an address given over this link is one that others may be told: it reaches far enough,
/// or means this host and was given on this host.
pub(super) fn acceptable(ends: &LinkEnds, minimum: Scope, address: IpAddr) -> bool {
    reaches(address, minimum) || (scope(address) == Scope::Loopback && is_local(ends))
}

/// Whether both ends are on this host: over the loopback interface, or from one of its addresses to the same.
pub(super) fn is_local(ends: &LinkEnds) -> bool {
    let ours: Vec<IpAddr> = ends.local.iter().map(|local| local.ip().to_canonical()).collect();
    let mut peer = ends.peer.iter().map(|peer| peer.ip().to_canonical());
    peer.any(|ip| scope(ip) == Scope::Loopback || ours.contains(&ip))
}

/// Whether a link comes from an address of the other one's peer. Of an association's addresses only the
/// first counts: the others are what its peer lists.
pub(super) fn same_host(link: &LinkEnds, other: &LinkEnds) -> bool {
    let from = link.peer.first().map(|peer| peer.ip().to_canonical());
    other.peer.iter().any(|peer| Some(peer.ip().to_canonical()) == from)
}

/// Whether a link comes from an address that is known of an element.
pub(super) fn from_element(link: &LinkEnds, element: &PoolElement) -> bool {
    let from = link.peer.first().map(|peer| peer.ip().to_canonical());
    let mut known =
        element.transport.addresses().iter().chain(element.asap.iter().flat_map(Transport::addresses));
    known.any(|ip| Some(ip.to_canonical()) == from)
}

/// Whether the peer of an association is in several networks: several addresses of one family. One of
/// each family is the usual host on one network.
pub(super) fn has_several_paths(ends: &LinkEnds) -> bool {
    let far = |ip: &IpAddr| reaches(*ip, Scope::MulticastSite);
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        ends.peer.iter().map(|peer| peer.ip().to_canonical()).filter(far).partition(IpAddr::is_ipv4);
    v4.len() > 1 || v6.len() > 1
}

/// Whether an address that a registrar names can be used from here: no group, and nothing that means each host
/// itself unless that registrar is on this host.
pub(super) fn usable_from(near: bool, address: IpAddr) -> bool {
    reaches(address, if near { Scope::Loopback } else { Scope::MulticastLink })
}

/// Fits what a registrar tells of an element to what may be passed on and dialled from here: `false` if that is
/// nothing.
pub(super) fn check_element(near: bool, element: &mut PoolElement) -> bool {
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

/// Best first: what reaches farthest. rsplib's clients dial the first address of a list.
pub(super) fn best_first(addresses: &mut [IpAddr]) {
    addresses.sort_by_key(|&ip| std::cmp::Reverse(scope(ip)));
}

/// Where a link leads to, for the log.
pub(super) fn named(ends: &LinkEnds) -> String {
    ends.peer.first().map_or_else(|| "nowhere".into(), SocketAddr::to_string)
}
