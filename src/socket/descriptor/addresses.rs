//! Where an element's users reach it: the one address of its TCP transport (RFC 5354 section 3.5 has
//! room for one), the addresses of its SCTP transport.

use crate::transport::interfaces::{Interface, interfaces};
use crate::wire::scope::{Scope, best_first, scope, unmapped};
use crate::wire::{Protocol, Transport, TransportUse};
use std::net::{IpAddr, SocketAddr};

/// More addresses than this are left out (rsplib's limit of an association).
const MAX_ADDRESSES: usize = 32;

/// The transport of an SCTP socket that can be reached at `local`: what others can use, or loopback if
/// there is nothing else. The widest come first, because rsplib 3.5 dials the first one. `None` when there is no usable
/// address.
pub(crate) fn sctp(port: u16, local: &[SocketAddr]) -> Option<Transport> {
    let of = |usable: fn(Scope) -> bool| -> Vec<IpAddr> {
        let mut list: Vec<IpAddr> = Vec::new();
        for address in local.iter().map(|address| unmapped(address).ip()) {
            if usable(scope(address)) && !address.is_multicast() && !list.contains(&address) {
                list.push(address);
            }
        }
        best_first(&mut list);
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
        best(&interfaces().unwrap_or_default(), local.is_ipv4())?
    } else {
        local.ip()
    };
    let usage = TransportUse::DataPlusControl;
    Some(Transport::new(Protocol::Tcp, usage, local.port(), vec![address]))
}

/// One that others can use, the most likely first: of interfaces that have a carrier, not of bridges to this host's
/// own guests; IPv4 because everybody has it; public ones before private ones. Loopback if there is nothing else,
/// so that a machine on its own works. Link-local ones need more than an address. Equal ones in the kernel's order.
fn best(interfaces: &[Interface], ipv4_only: bool) -> Option<IpAddr> {
    let up = interfaces.iter().filter(|interface| interface.up);
    let all = up.flat_map(|interface| interface.addresses.iter().map(move |&address| (interface, address)));
    let mut usable: Vec<(&Interface, IpAddr)> = all
        .filter(|(_, address)| address.is_ipv4() || !ipv4_only)
        .filter(|(_, address)| {
            let scope = scope(*address);
            !address.is_multicast() && (scope == Scope::Loopback || scope >= Scope::SiteLocal)
        })
        .collect();
    usable.sort_by_key(|(interface, address)| {
        let scope = scope(*address);
        let guests = interface.is_bridge();
        (scope < Scope::SiteLocal, !interface.carrier, guests, address.is_ipv6(), scope < Scope::Global)
    });
    let (interface, address) = *usable.first()?;
    log::debug!("of {} usable addresses, users get {address} ({})", usable.len(), interface.name);
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, carrier: bool, addresses: &[&str]) -> Interface {
        Interface {
            index: 1,
            name: name.into(),
            up: true,
            carrier,
            multicast: true,
            loopback: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn pick(addresses: &[&str], ipv4_only: bool) -> Option<String> {
        best(&[interface("eth0", true, addresses)], ipv4_only).map(|address| address.to_string())
    }

    /// RFC 5354 section 3.4 gives the list no order; rsplib 3.5 dials the first one.
    #[test]
    fn the_widest_addresses_of_an_association_come_first() {
        let listed = |local: &[&str]| -> Vec<String> {
            let local: Vec<SocketAddr> =
                local.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 7)).collect();
            let transport = sctp(7, &local).unwrap();
            transport.addresses().iter().map(ToString::to_string).collect()
        };
        let all = ["::1", "fe80::1", "10.0.0.1", "192.168.0.1", "2001:db8::1", "127.0.0.1", "192.0.2.1"];
        assert_eq!(listed(&all), ["192.0.2.1", "2001:db8::1", "10.0.0.1", "192.168.0.1"]);
        assert_eq!(listed(&["10.0.0.2", "10.0.0.1", "::ffff:10.0.0.2"]), ["10.0.0.2", "10.0.0.1"]);
        assert_eq!(listed(&["::1", "fe80::1", "127.0.0.1"]), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn bridges_to_guests_come_late_and_interfaces_without_a_carrier_last() {
        let public = || interface("eth1", true, &["192.0.2.1"]);
        let private = || interface("eth0", true, &["10.0.0.1"]);
        let bridge = || interface("docker0", true, &["172.17.0.1"]);
        let dead = || interface("eth2", false, &["192.0.2.9"]);
        let lo = || interface("lo", true, &["127.0.0.1"]);
        let pick = |list: &[Interface]| best(list, false).unwrap().to_string();
        assert_eq!(pick(&[lo(), dead(), bridge(), private(), public()]), "192.0.2.1");
        assert_eq!(pick(&[lo(), dead(), bridge(), private()]), "10.0.0.1");
        assert_eq!(pick(&[lo(), dead(), bridge()]), "172.17.0.1");
        assert_eq!(pick(&[lo(), dead()]), "192.0.2.9");
        assert_eq!(pick(&[dead(), lo()][1..]), "127.0.0.1");
    }

    #[test]
    fn the_farthest_reaching_address_is_registered() {
        let all = ["127.0.0.1", "::1", "fe80::1", "2001:db8::1", "10.0.0.1", "192.0.2.1"];
        assert_eq!(pick(&all, false).as_deref(), Some("192.0.2.1"));
        assert_eq!(pick(&all[..5], false).as_deref(), Some("10.0.0.1"));
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
