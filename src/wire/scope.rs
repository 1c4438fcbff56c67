//! How far an address reaches, and with that: who may be told about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The reach of an address, smallest first. The numbers are those that rsplib compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// `0.0.0.0`, `::`, and the IPv4 broadcast address: nobody's own address.
    Unspecified = 0,
    /// IPv6 multicast within a node.
    MulticastNode = 1,
    /// `127.0.0.0/8`, `::1`.
    Loopback = 2,
    /// IPv6 multicast within a link.
    MulticastLink = 3,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal = 4,
    /// IPv6 multicast within a site.
    MulticastSite = 5,
    /// RFC 1918 networks, `fec0::/10`.
    SiteLocal = 6,
    /// IPv6 multicast within an organisation.
    MulticastOrganization = 7,
    /// Every IPv4 multicast address, IPv6 multicast without a boundary.
    MulticastGlobal = 8,
    /// Everything else, unique local addresses (`fc00::/7`) included.
    Global = 10,
}

/// The scope of `address`; IPv4-mapped IPv6 addresses count as IPv4.
pub fn scope(address: IpAddr) -> Scope {
    match address.to_canonical() {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(address: Ipv4Addr) -> Scope {
    if address.is_unspecified() || address.is_broadcast() {
        Scope::Unspecified
    } else if address.is_multicast() {
        Scope::MulticastGlobal
    } else if address.is_loopback() {
        Scope::Loopback
    } else if address.is_link_local() {
        Scope::LinkLocal
    } else if address.is_private() {
        Scope::SiteLocal
    } else {
        Scope::Global
    }
}

fn scope_v6(address: Ipv6Addr) -> Scope {
    let first = address.segments()[0];
    if address.is_unspecified() {
        Scope::Unspecified
    } else if address.is_loopback() {
        Scope::Loopback
    } else if address.is_multicast() {
        match first & 0x000f {
            0..=1 => Scope::MulticastNode,
            2..=3 => Scope::MulticastLink,
            4..=5 => Scope::MulticastSite,
            6..=8 => Scope::MulticastOrganization,
            _ => Scope::MulticastGlobal,
        }
    } else {
        match first & 0xffc0 {
            0xfe80 => Scope::LinkLocal,
            0xfec0 => Scope::SiteLocal,
            _ => Scope::Global,
        }
    }
}

/// Addresses of one host in the order in which others should try them, and some try the first one only: those that
/// reach farthest first, of these IPv4, and equal ones as they came. A unique local address reaches as far as
/// IPv4's private ones.
pub fn best_first(addresses: &mut [IpAddr]) {
    let reach = |address: IpAddr| match address.to_canonical() {
        IpAddr::V6(six) if six.is_unique_local() => Scope::SiteLocal,
        other => scope(other),
    };
    addresses.sort_by_key(|&address| (std::cmp::Reverse(reach(address)), address.to_canonical().is_ipv6()));
}

/// Whether a host can be reached at `address` by those at distance `minimum`: a unicast address of at
/// least that scope.
pub fn reaches(address: IpAddr, minimum: Scope) -> bool {
    let scope = scope(address);
    let unicast = scope > Scope::Unspecified && !address.to_canonical().is_multicast();
    unicast && scope >= minimum
}

/// Leaves the addresses that reach at least `minimum`, farthest reaching first, otherwise in the order
/// given, each once and in its own family (an IPv4-mapped address becomes IPv4).
pub fn usable(addresses: &[SocketAddr], minimum: Scope) -> Vec<SocketAddr> {
    let mut kept: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    for address in addresses.iter().map(unmapped) {
        if reaches(address.ip(), minimum) && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept.sort_by_key(|address| std::cmp::Reverse(scope(address.ip())));
    kept
}

/// An IPv4-mapped IPv6 address as the IPv4 address that it stands for; any other as it is.
pub fn unmapped(address: &SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
        IpAddr::V6(_) => *address,
    }
}

/// By what a host is told from others: an IPv6 one by its network's 64 bits, in which it takes as many addresses as
/// it likes (RFC 8981).
pub fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unicast_link_local() => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u8 {
        scope(text.parse().unwrap()) as u8
    }

    #[test]
    fn who_tries_only_the_first_address_gets_the_widest() {
        let texts = ["fe80::1", "10.0.0.2", "fd00::1", "10.0.0.1", "192.0.2.1", "127.0.0.1", "fec0::1"];
        let mut list: Vec<IpAddr> = texts.map(|text| text.parse().unwrap()).into();
        best_first(&mut list);
        let sorted: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(
            sorted,
            ["192.0.2.1", "10.0.0.2", "10.0.0.1", "fd00::1", "fec0::1", "fe80::1", "127.0.0.1"]
        );
    }

    #[test]
    fn every_address_has_rsplibs_number() {
        for (value, addresses) in [
            (0, &["0.0.0.0", "::", "255.255.255.255"] as &[&str]),
            (1, &["ff01::1", "ff11::1"]),
            (2, &["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]),
            (3, &["ff02::1", "ff12::1", "ff03::1"]),
            (4, &["169.254.1.1", "fe80::1", "febf::1", "::ffff:169.254.9.9"]),
            (5, &["ff05::133", "ff15::133"]),
            (6, &["10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.255.255", "fec0::1", "::ffff:10.1.1.1"]),
            (7, &["ff08::1"]),
            (8, &["224.0.0.1", "239.0.0.50", "ff0e::1", "::ffff:239.0.0.50"]),
            (
                10,
                &["192.0.2.1", "172.32.0.1", "100.64.0.1", "255.1.2.3", "fd00::1", "2001:db8::1", "11.0.0.1"],
            ),
        ] {
            for address in addresses {
                assert_eq!(of(address), value, "{address}");
            }
        }
    }

    #[test]
    fn scopes_are_ordered_by_reach() {
        assert!(Scope::Loopback < Scope::LinkLocal && Scope::LinkLocal < Scope::SiteLocal);
        assert!(Scope::SiteLocal < Scope::Global);
    }

    #[test]
    fn groups_and_nobodys_addresses_are_never_usable() {
        for text in ["0.0.0.0", "::", "255.255.255.255", "239.0.0.50", "ff0e::1", "::ffff:224.0.0.1"] {
            assert!(!reaches(text.parse().unwrap(), Scope::Unspecified), "{text}");
        }
    }

    #[test]
    fn usable_filters_orders_and_unmaps() {
        let given = ["127.0.0.1:7", "10.0.0.1:7", "[fe80::1]:7", "[2001:db8::1]:7", "[::ffff:10.0.0.1]:7"];
        let given: Vec<SocketAddr> = given.iter().map(|text| text.parse().unwrap()).collect();
        let texts = |minimum| usable(&given, minimum).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(Scope::SiteLocal), ["[2001:db8::1]:7", "10.0.0.1:7"]);
        assert_eq!(texts(Scope::Loopback), ["[2001:db8::1]:7", "10.0.0.1:7", "[fe80::1]:7", "127.0.0.1:7"]);
        assert_eq!(texts(Scope::Global), ["[2001:db8::1]:7"]);
    }
}
