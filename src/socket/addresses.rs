//! Where an element's users reach it: the one address of its TCP transport (RFC 5354 section 3.5 has
//! room for one).

use crate::transport::interfaces::interfaces;
use crate::transport::scope::{Scope, scope, unmapped};
use crate::wire::{Protocol, Transport, TransportUse};
use std::net::{IpAddr, SocketAddr};

/// The transport of a socket bound to `local`; `None` when no interface has a usable address.
pub(super) fn transport(local: SocketAddr) -> Option<Transport> {
    let local = unmapped(&local);
    let address = if local.ip().is_unspecified() {
        let any = interfaces().unwrap_or_default().into_iter().filter(|interface| interface.up);
        let all: Vec<IpAddr> = any.flat_map(|interface| interface.addresses).collect();
        best(&all, local.is_ipv4())?
    } else {
        local.ip()
    };
    let usage = TransportUse::DataPlusControl;
    Some(Transport::new(Protocol::Tcp, usage, local.port(), vec![address]))
}

/// One that others can use, IPv4 first because everybody has it; loopback if there is nothing else, so
/// that a machine on its own works. Link-local ones need more than an address.
fn best(addresses: &[IpAddr], ipv4_only: bool) -> Option<IpAddr> {
    let usable = |address: &&IpAddr| address.is_ipv4() || !ipv4_only;
    let rank = |address: &&IpAddr| {
        let wide = scope(**address) >= Scope::SiteLocal;
        (wide, address.is_ipv4())
    };
    let candidates = addresses.iter().filter(usable).filter(|address| {
        let scope = scope(**address);
        !address.is_multicast() && (scope == Scope::Loopback || scope >= Scope::SiteLocal)
    });
    // The first of the best: `max_by_key` would take the last.
    candidates.rev().max_by_key(rank).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(addresses: &[&str], ipv4_only: bool) -> Option<String> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        best(&addresses, ipv4_only).map(|address| address.to_string())
    }

    #[test]
    fn the_farthest_reaching_address_is_registered() {
        let all = ["127.0.0.1", "::1", "fe80::1", "2001:db8::1", "10.0.0.1", "192.0.2.1"];
        assert_eq!(pick(&all, false).as_deref(), Some("10.0.0.1"));
        assert_eq!(pick(&all[..4], false).as_deref(), Some("2001:db8::1"));
        assert_eq!(pick(&all[..4], true).as_deref(), Some("127.0.0.1"));
        assert_eq!(pick(&all[..3], false).as_deref(), Some("127.0.0.1"));
        assert_eq!(pick(&all[1..3], false).as_deref(), Some("::1"));
        assert_eq!(pick(&all[2..3], false), None);
    }

    #[test]
    fn a_bound_address_is_taken_as_it_is() {
        let transport = transport("[::ffff:192.0.2.9]:80".parse().unwrap()).unwrap();
        let addresses: Vec<SocketAddr> = transport.socket_addresses().collect();
        assert_eq!(addresses, ["192.0.2.9:80".parse().unwrap()]);
    }
}
