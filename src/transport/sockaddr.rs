//! Socket addresses as C and the kernel lay them out: `sockaddr_in` (16 bytes) and `sockaddr_in6` (28 bytes), one
//! after the other without gaps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a `sockaddr_in`.
const V4: usize = size_of::<libc::sockaddr_in>();
/// Bytes of a `sockaddr_in6`.
const V6: usize = size_of::<libc::sockaddr_in6>();

/// How long an address of that family (`AF_INET`, `AF_INET6`) is; `None`: not one of these.
pub(crate) fn length(family: libc::sa_family_t) -> Option<usize> {
    match libc::c_int::from(family) {
        libc::AF_INET => Some(V4),
        libc::AF_INET6 => Some(V6),
        _ => None,
    }
}

/// `addresses` back to back.
pub(crate) fn pack(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in addresses {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        bytes.extend((family as libc::sa_family_t).to_ne_bytes());
        bytes.extend(address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes.extend(v4.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(v6) => {
                bytes.extend(v6.flowinfo().to_ne_bytes());
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
    }
    bytes
}

/// The first address in `bytes` and how long it was; `None`: cut off, or of another family.
pub(crate) fn unpack(bytes: &[u8]) -> Option<(SocketAddr, usize)> {
    let length = length(libc::sa_family_t::from_ne_bytes(*bytes.first_chunk()?))?;
    let bytes = bytes.get(..length)?;
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    if length == V4 {
        let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
        return Some((SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port), V4));
    }
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
    Some((SocketAddrV6::new(Ipv6Addr::from(ip), port, number(4)?, number(24)?).into(), V6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_packing() {
        let list: Vec<SocketAddr> = ["10.0.0.1:7", "[fe80::1%3]:9", "[2001:db8::1]:65535"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let packed = pack(list.iter().copied());
        assert_eq!(packed.len(), 16 + 28 + 28);
        let mut rest = &packed[..];
        let mut found = Vec::new();
        while let Some((address, length)) = unpack(rest) {
            found.push(address);
            rest = &rest[length..];
        }
        assert_eq!(found, list);
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_short_or_strange_is_refused() {
        let address = "[2001:db8::1]:7".parse().unwrap();
        assert_eq!(unpack(&pack([address])[..27]), None);
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&[libc::AF_UNIX as u8; 28]), None);
    }
}
