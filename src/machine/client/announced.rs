//! Registrars heard by multicast (RFC 5352 section 3.6), until they have not been heard for too long.

use super::{LinkProtocol, RegistrarId, Target, Time};
use crate::wire::{ASAP_PORT, Protocol, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Announcements remembered; the one heard longest ago makes room.
pub(super) const MAX_ANNOUNCED: usize = 64;
/// Transports believed per announcement.
const MAX_WAYS: usize = 8;

#[derive(Debug)]
struct AnnouncedRegistrar {
    targets: Vec<Target>,
    /// So many of them it has said to have; the rest is guessed, and another's who says that it has it.
    said: usize,
    heard: Time,
    outdated: Time,
}

impl AnnouncedRegistrar {
    /// Whether one of the first so many of its targets is that way.
    fn leads(&self, first: usize, way: &Target) -> bool {
        self.targets.iter().take(first).any(|target| same_way(target, way))
    }
}

/// By registrar and by where the datagram came from: without transport parameters each source
/// address is a way of its own to the registrar.
#[derive(Debug, Default)]
pub(super) struct Announced {
    entries: BTreeMap<(RegistrarId, SocketAddr), AnnouncedRegistrar>,
}

impl Announced {
    /// Takes note of an announcement; returns the ways to the registrar that are news.
    pub fn hear(
        &mut self,
        now: Time,
        timeout: Duration,
        from: SocketAddr,
        registrar: RegistrarId,
        transports: &[Transport],
    ) -> Vec<Target> {
        let targets = targets(from, transports);
        let known: Vec<Target> = self.entries.values().flat_map(|entry| entry.targets.clone()).collect();
        let news = targets.iter().filter(|target| !known.iter().any(|old| same_way(old, target)));
        let news = news.cloned().collect();
        if targets.is_empty() {
            return news;
        }
        let said = if transports.is_empty() { 1 } else { targets.len() };
        let entry = AnnouncedRegistrar { targets, said, heard: now, outdated: now + timeout };
        self.entries.insert((registrar, from), entry);
        if self.entries.len() > MAX_ANNOUNCED {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.heard).map(|(&key, _)| key);
            oldest.and_then(|key| self.entries.remove(&key));
        }
        news
    }

    /// Forgets those that were not heard for too long.
    pub fn outdate(&mut self, now: Time) {
        self.entries.retain(|_, entry| entry.outdated > now);
    }

    /// When the next one is outdated.
    pub fn next_outdated(&self) -> Option<Time> {
        self.entries.values().map(|entry| entry.outdated).min()
    }

    /// Which registrar announces any of these addresses.
    pub fn registrar_at(&self, protocol: LinkProtocol, addresses: &[SocketAddr]) -> Option<RegistrarId> {
        let way = Target { protocol, addresses: addresses.to_vec() };
        let guessed = || self.entries.iter().find(|(_, entry)| entry.leads(entry.targets.len(), &way));
        let found = self.entries.iter().find(|(_, entry)| entry.leads(entry.said, &way)).or_else(guessed);
        found.map(|(&(registrar, _), _)| registrar).filter(|registrar| registrar.0 != 0)
    }

    /// All ways to each registrar.
    pub fn registrars(&self) -> Vec<(RegistrarId, Vec<Target>)> {
        let mut registrars: Vec<(RegistrarId, Vec<Target>)> = Vec::new();
        for (&(registrar, _), entry) in &self.entries {
            let (said, guessed) = entry.targets.split_at(entry.said.min(entry.targets.len()));
            let nobodys =
                |target: &&Target| !self.entries.values().any(|other| other.leads(other.said, target));
            let ways = said.iter().chain(guessed.iter().filter(nobodys)).cloned();
            match registrars.last_mut() {
                Some(last) if last.0 == registrar && registrar.0 != 0 => last.1.extend(ways),
                _ => registrars.push((registrar, ways.collect())),
            }
        }
        registrars
    }

    /// All ways to any of them.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.entries.values().flat_map(|entry| &entry.targets)
    }

    /// How many announcements are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Whether two targets lead to the same socket of the same host.
pub(super) fn same_way(a: &Target, b: &Target) -> bool {
    a.protocol == b.protocol && a.addresses.iter().any(|one| b.addresses.iter().any(|two| same(one, two)))
}

fn same(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

/// Where an announcement says its sender can be reached.
fn targets(from: SocketAddr, transports: &[Transport]) -> Vec<Target> {
    if transports.is_empty() {
        // rsplib sends from its SCTP port; the RFC names SCTP and the well-known port.
        let mut ports = vec![from.port(), ASAP_PORT];
        ports.dedup();
        ports.retain(|&port| port != 0 && !from.ip().is_unspecified());
        let at = |port| {
            let mut address = from;
            address.set_port(port);
            Target { protocol: LinkProtocol::Sctp, addresses: vec![address] }
        };
        return ports.into_iter().map(at).collect();
    }
    transports.iter().filter_map(|transport| target(from, transport)).take(MAX_WAYS).collect()
}

fn target(from: SocketAddr, transport: &Transport) -> Option<Target> {
    let protocol = match transport.protocol()? {
        Protocol::Sctp => LinkProtocol::Sctp,
        Protocol::Tcp => LinkProtocol::Tcp,
        _ => return None,
    };
    let port = transport.port();
    if port == 0 {
        return None;
    }
    let source = from.ip().to_canonical();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for ip in transport.addresses().iter().map(IpAddr::to_canonical) {
        if let Some(address) = reachable(from, source, ip, port)
            && !addresses.iter().any(|known| same(known, &address))
        {
            addresses.push(address);
        }
    }
    // A datagram came from there, so the address is the one most likely to work.
    addresses.sort_by_key(|address| address.ip().to_canonical() != source);
    if addresses.is_empty() {
        let mut address = from;
        address.set_port(port);
        addresses.push(address);
    }
    Some(Target { protocol, addresses })
}

/// The announced address as it is to be dialled from here; `None` if it means something else here.
fn reachable(from: SocketAddr, source: IpAddr, ip: IpAddr, port: u16) -> Option<SocketAddr> {
    let elsewhere = ip.is_loopback() && !source.is_loopback();
    if ip.is_unspecified() || ip.is_multicast() || elsewhere {
        return None;
    }
    match (ip, from) {
        // A link-local address is one of the link by which the datagram came.
        (IpAddr::V6(v6), SocketAddr::V6(from)) if v6.is_unicast_link_local() => {
            Some(std::net::SocketAddrV6::new(v6, port, 0, from.scope_id()).into())
        }
        (IpAddr::V6(v6), SocketAddr::V4(_)) if v6.is_unicast_link_local() => None,
        _ => Some(SocketAddr::new(ip, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TransportUse;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn tcp(port: u16, addresses: &[&str]) -> Transport {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Transport::new(Protocol::Tcp, TransportUse::DataOnly, port, addresses)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_transport_means_sctp_at_the_source() {
        let sctp = |text: &str| Target { protocol: LinkProtocol::Sctp, addresses: vec![at(text)] };
        let ways = [sctp("10.0.0.7:36000"), sctp("10.0.0.7:3863")];
        assert_eq!(targets(at("10.0.0.7:36000"), &[]), ways);
        assert_eq!(targets(at("10.0.0.7:3863"), &[]), ways[1..]);
        assert_eq!(targets(at("10.0.0.7:0"), &[]), ways[1..]);
        assert_eq!(targets(at("0.0.0.0:36000"), &[]), []);
    }

    /// RFC 5352 section 2.2.10.
    #[test]
    fn transports_that_lead_to_no_registrar_are_passed_over() {
        let over =
            |protocol| Transport::new(protocol, TransportUse::DataOnly, 3863, vec![[10, 0, 0, 7].into()]);
        let odd =
            [over(Protocol::Udp), Transport::Opaque(vec![1]), over(Protocol::UdpLite), over(Protocol::Sctp)];
        let way = Target { protocol: LinkProtocol::Sctp, addresses: vec![at("10.0.0.7:3863")] };
        assert_eq!(targets(at("10.0.0.7:9"), &odd), [way]);
        assert_eq!(targets(at("10.0.0.7:9"), &odd[..3]), []);
    }

    /// Of two on one host, one has the well-known port.
    #[test]
    fn what_is_guessed_is_not_taken_from_who_says_to_have_it() {
        let sctp = |text: &str| Target { protocol: LinkProtocol::Sctp, addresses: vec![at(text)] };
        let (known, other) = ("10.0.0.7:3863", "10.0.0.7:36000");
        let mut table = Announced::default();
        table.hear(Time(0), TIMEOUT, at(other), RegistrarId(1), &[]);
        assert_eq!(table.registrars(), [(RegistrarId(1), vec![sctp(other), sctp(known)])]);
        assert_eq!(table.registrar_at(LinkProtocol::Sctp, &[at(known)]), Some(RegistrarId(1)));
        table.hear(Time(0), TIMEOUT, at(known), RegistrarId(2), &[]);
        let each = [(RegistrarId(1), vec![sctp(other)]), (RegistrarId(2), vec![sctp(known)])];
        assert_eq!(table.registrars(), each);
        assert_eq!(table.registrar_at(LinkProtocol::Sctp, &[at(known)]), Some(RegistrarId(2)));
        assert_eq!(table.registrar_at(LinkProtocol::Sctp, &[at(other)]), Some(RegistrarId(1)));
    }

    #[test]
    fn the_source_comes_first_and_foreign_loopback_is_left_out() {
        let found = targets(at("10.0.0.7:3863"), &[tcp(3863, &["127.0.0.1", "10.9.9.9", "10.0.0.7"])]);
        assert_eq!(found[0].addresses, [at("10.0.0.7:3863"), at("10.9.9.9:3863")]);
        let local = targets(at("127.0.0.1:3863"), &[tcp(4000, &["127.0.0.1"])]);
        assert_eq!(local[0].addresses, [at("127.0.0.1:4000")]);
        let any = targets(at("10.0.0.7:3863"), &[tcp(4000, &["0.0.0.0"])]);
        assert_eq!(any[0].addresses, [at("10.0.0.7:4000")]);
    }

    #[test]
    fn a_link_local_address_gets_the_scope_of_the_datagram() {
        let found = targets(at("[fe80::1%3]:3863"), &[tcp(3863, &["fe80::2"])]);
        assert_eq!(found[0].addresses, [at("[fe80::2%3]:3863")]);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_leaves() {
        let mut table = Announced::default();
        for number in 0..100u32 {
            let from = SocketAddr::new(IpAddr::from([10, 0, 0, number as u8]), 3863);
            let news = table.hear(Time(u64::from(number)), TIMEOUT, from, RegistrarId(1000 - number), &[]);
            assert_eq!(news.len(), 1);
        }
        assert_eq!(table.len(), MAX_ANNOUNCED);
        assert_eq!(table.registrar_at(LinkProtocol::Sctp, &[at("10.0.0.35:3863")]), None);
        assert_eq!(table.registrar_at(LinkProtocol::Sctp, &[at("10.0.0.36:3863")]), Some(RegistrarId(964)));
    }

    #[test]
    fn heard_again_is_no_news_and_lives_longer() {
        let mut table = Announced::default();
        let from = at("10.0.0.7:3863");
        assert_eq!(table.hear(Time(0), TIMEOUT, from, RegistrarId(1), &[]).len(), 1);
        assert_eq!(table.hear(Time(1_000_000), TIMEOUT, from, RegistrarId(1), &[]).len(), 0);
        assert_eq!(table.next_outdated(), Some(Time(6_000_000)));
        table.outdate(Time(5_999_999));
        assert_eq!(table.len(), 1);
        table.outdate(Time(6_000_000));
        assert_eq!(table.len(), 0);
    }
}
