//! Which addresses mean something to whom.

use crate::machine::LinkEnds;
pub(super) use crate::machine::reach::{check_element, is_local, usable_from};
use crate::wire::scope::{Scope, host_of, reaches, scope};
use crate::wire::show;
use crate::wire::{PoolElement, Transport};
use std::net::{IpAddr, SocketAddr};

/// Whether an address given over this link is one that others may be told: it reaches far enough,
/// or means this host and was given on this host.
pub(super) fn acceptable(ends: &LinkEnds, minimum: Scope, address: IpAddr) -> bool {
    reaches(address, minimum) || (scope(address) == Scope::Loopback && is_local(ends))
}

/// Whether a link comes from an address of the other one's peer. Of an association's addresses only the
/// first counts: the others are what its peer lists.
pub(super) fn same_host(link: &LinkEnds, other: &LinkEnds) -> bool {
    let from = link.peer.first().map(|peer| peer.ip().to_canonical());
    other.peer.iter().any(|peer| Some(peer.ip().to_canonical()) == from)
}

/// The host at the other end of a link.
pub(super) fn host(ends: &LinkEnds) -> Option<IpAddr> {
    ends.peer.first().map(|peer| host_of(peer.ip()))
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

/// Best first: what reaches farthest. rsplib's clients dial the first address of a list.
pub(super) fn best_first(addresses: &mut [IpAddr]) {
    addresses.sort_by_key(|&ip| std::cmp::Reverse(scope(ip)));
}

/// Where an element is, as words behind its identifier.
pub(super) fn named_transport(transport: &Transport) -> String {
    show::at(transport.socket_addresses().next())
}

/// Where a link leads to, for the log.
pub(super) fn named(ends: &LinkEnds) -> String {
    ends.peer.first().map_or_else(|| "nowhere".into(), SocketAddr::to_string)
}
