//! The PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt section 2.2): who the client is.

use super::stream::Stream;
use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a client.
pub fn version2(client: &Stream) -> Vec<u8> {
    encode(client.ends())
}

/// A client without addresses came from this machine.
fn encode(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((from, to)) = ends else {
        header.extend([VERSION_2_LOCAL, 0, 0, 0]);
        return header;
    };
    let addresses = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [from, to].into_iter().flat_map(|ip| mapped(ip).octets()).collect(),
    };
    let family = if addresses.len() == 8 { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    header.extend([VERSION_2_PROXY, family, 0, if addresses.len() == 8 { 12 } else { 36 }]);
    header.extend(addresses);
    header.extend(ports);
    header
}

fn mapped(ip: IpAddr) -> std::net::Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_the_specification_has_them() {
        let ends = |from: &str, to: &str| Some((from.parse().unwrap(), to.parse().unwrap()));
        let four = encode(ends("192.0.2.1:4660", "[::ffff:192.0.2.2]:80"));
        let text = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x50";
        assert_eq!(four, text);
        let six = encode(ends("[2001:db8::1]:1", "[2001:db8::2]:2"));
        assert_eq!((six.len(), &six[12..16]), (16 + 36, &b"\x21\x21\0\x24"[..]));
        assert_eq!(&encode(None)[12..], b"\x20\0\0\0");
    }
}
