//! Where an element's users reach it: the one address of its TCP transport (RFC 5354 section 3.5 has
//! room for one), the addresses of its SCTP transport.

use crate::transport::interfaces::interfaces;
use crate::transport::scope::{Scope, scope, unmapped};
use crate::wire::{Protocol, Transport, TransportUse};
use std::net::{IpAddr, SocketAddr};

/// More addresses than this are left out (rsplib's limit of an association).
const MAX_ADDRESSES: usize = 32;

/// The transport of an SCTP socket that can be reached at `local`: what others can use, or loopback if
/// there is nothing else. `None` when there is no usable address.
pub(crate) fn sctp(port: u16, local: &[SocketAddr]) -> Option<Transport> {
    let of = |usable: fn(Scope) -> bool| -> Vec<IpAddr> {
        let mut list: Vec<IpAddr> = Vec::new();
        for address in local.iter().map(|address| unmapped(address).ip()) {
            if usable(scope(address)) && !address.is_multicast() && !list.contains(&address) {
                list.push(address);
            }
        }
        list.truncate(MAX_ADDRESSES);
        list
    };
    let wide = of(|scope| scope >= Scope::SiteLocal);
    let list = if wide.is_empty() { of(|scope| scope == Scope::Loopback) } else { wide };
    let usage = TransportUse::DataPlusControl;
    (!list.is_empty()).then(|| Transport::new(Protocol::Sctp, usage, port, list))
}

/// The transport of a TCP socket bound to `local`; `None` when no interface has a usable address.
pub(crate) fn tcp(local: SocketAddr) -> Option<Transport> {
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
    fn all_that_others_can_use_are_registered_over_sctp() {
        let local = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 7)).collect()
        };
        let listed = |texts: &[&str]| -> Option<Vec<String>> {
            let transport = sctp(9, &local(texts))?;
            assert_eq!(transport.usage(), TransportUse::DataPlusControl);
            Some(transport.socket_addresses().map(|address| address.to_string()).collect())
        };
        let all = ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"];
        assert_eq!(listed(&all).unwrap(), ["10.0.0.1:9", "[fd00::1]:9"]);
        assert_eq!(listed(&["127.0.0.1", "::1", "fe80::1"]).unwrap(), ["127.0.0.1:9", "[::1]:9"]);
        assert_eq!(listed(&["fe80::1"]), None);
        let many: Vec<String> = (1..=99).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(listed(&many).unwrap().len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_bound_address_is_taken_as_it_is() {
        let transport = tcp("[::ffff:192.0.2.9]:80".parse().unwrap()).unwrap();
        let addresses: Vec<SocketAddr> = transport.socket_addresses().collect();
        assert_eq!(addresses, ["192.0.2.9:80".parse().unwrap()]);
    }
}
