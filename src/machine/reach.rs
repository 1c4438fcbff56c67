//! Which addresses that others name mean something here.

use super::LinkEnds;
use crate::wire::scope::{Scope, reaches, scope};
use crate::wire::{PoolElement, Transport};
use std::net::IpAddr;

/// Whether both ends are on this host: over the loopback interface, or from one of its addresses to the same. Of an
/// association's addresses only the first counts, from which it came: the others are what its peer lists.
pub(crate) fn is_local(ends: &LinkEnds) -> bool {
    let mut ours = ends.local.iter().map(|local| local.ip().to_canonical());
    let from = ends.peer.first().map(|peer| peer.ip().to_canonical());
    from.is_some_and(|from| scope(from) == Scope::Loopback || ours.any(|ip| ip == from))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{LinkProtocol, Service};

    /// An INIT lists what it likes, and is believed before anybody has asked there.
    #[test]
    fn who_lists_our_addresses_is_not_here() {
        let ends = |peer: &[&str]| LinkEnds {
            service: Service::Asap,
            protocol: LinkProtocol::Sctp,
            peer: peer.iter().map(|address| address.parse().unwrap()).collect(),
            local: vec!["10.0.0.1:3863".parse().unwrap(), "10.0.1.1:3863".parse().unwrap()],
            roles: None,
        };
        assert!(is_local(&ends(&["127.0.0.1:7"])) && is_local(&ends(&["10.0.1.1:7", "10.0.0.66:7"])));
        assert!(!is_local(&ends(&["10.0.0.66:7", "10.0.0.1:7", "127.0.0.1:7"])) && !is_local(&ends(&[])));
    }
}
