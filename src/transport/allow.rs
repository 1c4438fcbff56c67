//! From which addresses connections are taken: `--allow=10.0.0.0/8,fd00::/8,192.0.2.1`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A list of networks; the empty one has everybody in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<(IpAddr, u32)>);

impl Networks {
    /// Whether nobody is left out.
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of them. IPv4-mapped addresses count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.is_everybody() || self.0.iter().any(|&(network, length)| is_within(address, network, length))
    }
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - length).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - length).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

impl FromStr for Networks {
    type Err = String;

    /// Networks or addresses, commas between them. Errors: the part that is none.
    fn from_str(text: &str) -> Result<Networks, String> {
        let network = |part: &str| {
            let (address, length) = match part.split_once('/') {
                Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
                None => (part, None),
            };
            let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
            let most = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
            let length = length.unwrap_or(most);
            (length <= most).then_some((address, length))
        };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks: Result<Vec<_>, String> =
            parts.map(|part| network(part).ok_or_else(|| format!("{part}: no network"))).collect();
        match networks? {
            none if none.is_empty() => Err("no network".into()),
            networks => Ok(Networks(networks)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_or_out() {
        let networks: Networks = "10.0.0.0/8, 192.0.2.1,fd00::/8,[::1]".parse().unwrap();
        for (address, inside) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:10.1.1.1", true),
            ("fd12::1", true),
            ("fe80::1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), inside, "{address}");
        }
        let all: Networks = "0.0.0.0/0,::/0".parse().unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && all.contains("2001:db8::1".parse().unwrap()));
        assert!(Networks::default().contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_none() {
        for text in ["", ",", "10.0.0.0/33", "::/129", "10.0.0/8", "lan", "10.0.0.0/-1", "10.0.0.1,x"] {
            assert!(text.parse::<Networks>().is_err(), "{text}");
        }
    }
}
