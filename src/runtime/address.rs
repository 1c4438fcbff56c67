//! Addresses as people write them: `host`, `host:port`, `host!port`, `[v6]`, `[v6]:port`, bare IPv6.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The longest text taken (rsplib: 128 characters).
const LONGEST: usize = 300;

fn invalid(text: &str, why: &str) -> io::Error {
    let shown: String = text.chars().take(64).collect();
    io::Error::new(ErrorKind::InvalidInput, format!("\"{shown}\": {why}"))
}

/// Splits `text` into host and port; `None`: it names no port.
fn split(text: &str) -> io::Result<(&str, Option<u16>)> {
    let port = |digits: &str| digits.parse().map_err(|_| invalid(text, "bad port number"));
    if text.len() > LONGEST {
        return Err(invalid(text, "too long for an address"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| invalid(text, "']' is missing"))?;
        return match rest.strip_prefix([':', '!']) {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(invalid(text, "':' and a port may follow ']'")),
        };
    }
    if let Some((host, digits)) = text.rsplit_once('!') {
        return Ok((host, Some(port(digits)?)));
    }
    match text.rsplit_once(':') {
        // More than one colon: an IPv6 address without brackets, which can't have a port.
        Some((host, digits)) if !host.contains(':') => Ok((host, Some(port(digits)?))),
        _ => Ok((text, None)),
    }
}

/// The addresses of a host that is known without a name server: given as such, or this one.
fn without_asking(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        // Both families, whatever /etc/hosts has: who is there may listen on either.
        return Some(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Some(vec![SocketAddr::new(host.parse().ok()?, port)])
}

/// One host and port: all its addresses, those given as such without asking a name server. An empty host
/// before a port, or `*`, is every address of this host.
pub fn parse(text: &str, default_port: u16) -> io::Result<Vec<SocketAddr>> {
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid(text, "an address is missing"));
    }
    let (host, port) = split(text)?;
    let port = port.unwrap_or(default_port);
    if host.is_empty() || host == "*" {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into()]);
    }
    if let Some(addresses) = without_asking(host, port) {
        return Ok(addresses);
    }
    let mut found = Vec::new();
    let resolved = (host, port).to_socket_addrs();
    for address in resolved.map_err(|error| invalid(text, &error.to_string()))? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    match found.is_empty() {
        true => Err(invalid(text, "no such host")),
        false => Ok(found),
    }
}

/// Whether a list of addresses can be read without asking a name server. Errors: what is wrong with the spelling.
pub fn is_literal(text: &str) -> io::Result<bool> {
    let mut literal = true;
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (host, _) = split(part)?;
        literal &= host.is_empty() || host == "*" || without_asking(host, 0).is_some();
    }
    Ok(literal)
}

/// One address: the first of [`parse`].
pub fn parse_one(text: &str, default_port: u16) -> io::Result<SocketAddr> {
    Ok(parse(text, default_port)?[0])
}

/// Addresses of one multi-homed host, separated by commas. Those without a port get the first one's.
pub fn parse_list(text: &str, default_port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut port = default_port;
    let mut all: Vec<SocketAddr> = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let addresses = parse(part, port)?;
        if all.is_empty() {
            port = addresses[0].port();
        }
        all.extend(addresses);
    }
    match all.is_empty() {
        true => Err(invalid(text, "an address is missing")),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        parse_one(text, 3863).map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn every_spelling() {
        assert_eq!(one("10.1.1.1"), "10.1.1.1:3863");
        assert_eq!(one("10.1.1.1:5"), "10.1.1.1:5");
        assert_eq!(one("10.1.1.1!5"), "10.1.1.1:5");
        assert_eq!(one("[::1]"), "[::1]:3863");
        assert_eq!(one("[::1]:7"), "[::1]:7");
        assert_eq!(one("[::1]!7"), "[::1]:7");
        assert_eq!(one("fd00::7"), "[fd00::7]:3863");
        assert_eq!(one(":80"), "[::]:80");
        assert_eq!(one("*:80"), "[::]:80");
        assert!(parse("localhost:9", 1).unwrap().iter().all(|found| found.ip().is_loopback()));
    }

    #[test]
    fn localhost_is_both_families_and_names_are_told_apart() {
        let both: Vec<SocketAddr> = ["127.0.0.1:9", "[::1]:9"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(parse("localhost:9", 1).unwrap(), both);
        assert!(is_literal("localhost, 10.1.1.1:7,[::1]!8, *:5").unwrap());
        assert!(!is_literal("10.1.1.1,somewhere.example:5").unwrap());
        assert!(is_literal("somewhere.example:x").is_err());
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(one("10.1.1.1:65536"), "\"10.1.1.1:65536\": bad port number");
        assert_eq!(one("[::1"), "\"[::1\": ']' is missing");
        assert_eq!(one("[::1]7"), "\"[::1]7\": ':' and a port may follow ']'");
        assert!(one(&"x".repeat(1000)).contains("too long"));
        assert!(parse_list(" , ", 1).is_err());
        assert_eq!(one(""), "\"\": an address is missing");
    }

    #[test]
    fn a_list_shares_the_first_port() {
        let list = parse_list("10.1.1.1:4000, 10.1.1.2,10.1.1.3:5", 3863).unwrap();
        let list: Vec<String> = list.iter().map(SocketAddr::to_string).collect();
        assert_eq!(list, ["10.1.1.1:4000", "10.1.1.2:4000", "10.1.1.3:5"]);
    }
}
