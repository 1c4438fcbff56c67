//! Where a registrar listens, what it says to groups, and what it tells others of where it is.

use crate::machine::{LinkProtocol, Service};
use crate::runtime::Keeper;
use crate::runtime::groups::{GroupPurpose, MissingGroups};
use crate::runtime::reactor::{Admission, Reactor};
use crate::runtime::security::without_sctp;
use crate::transport::interfaces::Interface;
use crate::transport::multicast::groups_of;
use crate::transport::tls::Mode;
use crate::wire::scope::{Scope, best_first, reaches, usable};
use crate::wire::{Protocol, Transport, TransportUse};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a service is offered.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Local addresses; port 0: any free one.
    pub addresses: Vec<SocketAddr>,
    /// If the port is taken, use any free one instead, with a warning.
    pub fallback: bool,
}

impl Listen {
    /// Every address, the default port, and any other if that is taken.
    pub fn auto(port: u16) -> Listen {
        Listen { addresses: vec![(Ipv6Addr::UNSPECIFIED, port).into()], fallback: true }
    }

    /// Whether nobody asked for a certain port. With port 0, SCTP tries the one that TCP got.
    pub(super) fn any_port_will_do(&self) -> bool {
        self.fallback || self.addresses.first().is_none_or(|address| address.port() == 0)
    }
}

/// Where a service listens.
#[derive(Debug, Clone, Default)]
pub(super) struct Bound {
    pub tcp: Vec<SocketAddr>,
    /// The addresses, which share one port; the unspecified one stands for all.
    pub sctp: Vec<SocketAddr>,
}

impl Bound {
    pub fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.tcp.iter().chain(&self.sctp)
    }
}

/// Has links prove themselves. Errors: our own certificate is none of a registrar.
pub(super) fn secure(
    reactor: &mut Reactor,
    keeper: &Keeper,
    protocols: &mut Vec<LinkProtocol>,
) -> io::Result<()> {
    let (roles, scope) = (keeper.roles(), keeper.scope());
    if !roles.is_registrar(scope.as_deref()) {
        let scope = scope.unwrap_or_else(|| "any scope".into());
        let text = format!("TLS: our certificate is none of a registrar of {scope}: it says {roles}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if keeper.mode() == Mode::Require {
        without_sctp(protocols);
    }
    reactor.secure(keeper.mode(), Some(keeper.credentials().clone()));
    Ok(())
}

/// Where both are admitted, those who insist on TLS find it at its own port as well.
pub(super) fn listen_for_tls(reactor: &mut Reactor, service: Service, at: &Listen, port: u16) {
    if !at.fallback {
        return;
    }
    for address in &at.addresses {
        let address = SocketAddr::new(address.ip(), port);
        if let Err(error) = listen_at(reactor, service, address, Admission::Proved) {
            log::warn!("{service:?}: no TLS at {address}: {error}");
        }
    }
}

/// Binds a service's addresses; where it listens in the end.
pub(super) fn listen(
    reactor: &mut Reactor,
    service: Service,
    listen: &Listen,
    protocols: &[LinkProtocol],
    admission: Admission,
) -> io::Result<Bound> {
    let mut bound = Bound::default();
    // The addresses of an SCTP endpoint share one port.
    let mut port = listen.addresses.first().map_or(0, SocketAddr::port);
    if protocols.contains(&LinkProtocol::Tcp) {
        for &address in &listen.addresses {
            let local = match listen_at(reactor, service, address, admission) {
                Err(error) if listen.fallback && address.port() != 0 => {
                    let local = listen_at(reactor, service, SocketAddr::new(address.ip(), 0), admission)?;
                    log::warn!("{service:?}: {address}: {error}; using port {} instead", local.port());
                    local
                }
                other => other.map_err(|error| {
                    io::Error::new(error.kind(), format!("{service:?} at {address}: {error}"))
                })?,
            };
            bound.tcp.push(local);
        }
        port = bound.tcp.first().map_or(port, SocketAddr::port);
    }
    if protocols.contains(&LinkProtocol::Sctp) {
        let sctp = associate(reactor, service, listen, port);
        match sctp {
            // A port that was asked for and is taken is an error over either protocol.
            Err(error) if bound.tcp.is_empty() || error.kind() == io::ErrorKind::AddrInUse => {
                let text = format!("{service:?} over SCTP at port {port}: {error}");
                return Err(io::Error::new(error.kind(), text));
            }
            Err(error) => log::warn!("{service:?} only over TCP: {error}"),
            Ok(addresses) => bound.sctp = addresses,
        }
    }
    Ok(bound)
}

/// Where the endpoint is in the end.
fn associate(
    reactor: &mut Reactor,
    service: Service,
    listen: &Listen,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let addresses = &listen.addresses;
    let all = addresses.iter().find(|address| address.ip().is_unspecified());
    let at = |port| match all {
        Some(all) => vec![SocketAddr::new(all.ip(), port)],
        None => addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect(),
    };
    let bound = at_port_or_any(port, listen.any_port_will_do(), |port| reactor.associate(service, &at(port)));
    let (bound, taken) = bound?;
    if let Some(error) = taken {
        log::warn!("{service:?} over SCTP: port {port}: {error}; using port {bound} instead");
    }
    Ok(at(bound))
}

/// Binds `port`, or if that is taken and another will do, any; which one, and why not `port`.
pub(super) fn at_port_or_any(
    port: u16,
    any_will_do: bool,
    mut bind: impl FnMut(u16) -> io::Result<u16>,
) -> io::Result<(u16, Option<io::Error>)> {
    match bind(port) {
        Err(error) if any_will_do && error.kind() == io::ErrorKind::AddrInUse => Ok((bind(0)?, Some(error))),
        other => Ok((other?, None)),
    }
}

/// Where there is no IPv6, the unspecified address is IPv4's.
fn listen_at(
    reactor: &mut Reactor,
    service: Service,
    address: SocketAddr,
    admission: Admission,
) -> io::Result<SocketAddr> {
    match reactor.listen(service, address, admission) {
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            reactor.listen(service, (Ipv4Addr::UNSPECIFIED, address.port()).into(), admission)
        }
        other => other,
    }
}

/// Whether there is a group to speak to, now or later; whether now.
pub(super) fn speak(
    reactor: &mut Reactor,
    groups: &mut MissingGroups,
    service: Service,
    wanted: Option<SocketAddr>,
    bound: &Bound,
    ttl: u8,
) -> (bool, bool) {
    let all = wanted.into_iter().flat_map(groups_of);
    let now = all.filter(|&group| {
        groups.want(reactor, service, group, GroupPurpose::Speak { source: source(group, bound), ttl })
    });
    (wanted.is_some(), now.count() > 0)
}

/// Where what we say to a group comes from: rsplib takes that for our SCTP address if we don't name one.
fn source(group: SocketAddr, bound: &Bound) -> SocketAddr {
    let mut named = bound.sctp.iter().chain(&bound.tcp).map(|address| address.ip());
    let named = named.find(|ip| !ip.is_unspecified() && ip.is_ipv4() == group.is_ipv4());
    let any = match group {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let port = bound.sctp.iter().chain(&bound.tcp).next().map_or(0, SocketAddr::port);
    SocketAddr::new(named.unwrap_or(any), port)
}

/// What we tell the world: one TCP transport per address, best first, then one SCTP transport with all
/// its addresses. Addresses that nobody else can use are left out unless there are no others: rsplib
/// refuses a whole announcement for one transport with nothing but a loopback address.
pub(super) fn transports(bound: &Bound, interfaces: &[Interface], minimum: Scope) -> Vec<Transport> {
    let found = |local: &SocketAddr| reachable(*local, interfaces, minimum);
    let tcp: Vec<SocketAddr> = bound.tcp.iter().flat_map(found).collect();
    let sctp: Vec<SocketAddr> = bound.sctp.iter().flat_map(found).collect();
    let far = |address: &SocketAddr| reaches(address.ip(), Scope::SiteLocal);
    let any_far = tcp.iter().chain(&sctp).any(far);
    let kept = |list: Vec<SocketAddr>| list.into_iter().filter(move |address| !any_far || far(address));
    let data = TransportUse::DataOnly;
    let mut all: Vec<Transport> = kept(tcp)
        .map(|address| Transport::new(Protocol::Tcp, data, address.port(), vec![address.ip()]))
        .collect();
    let mut addresses: Vec<IpAddr> = kept(sctp).map(|address| address.ip()).collect();
    best_first(&mut addresses);
    if let (Some(first), false) = (bound.sctp.first(), addresses.is_empty()) {
        all.push(Transport::new(Protocol::Sctp, data, first.port(), addresses));
    }
    all
}

/// The addresses behind a bound one.
fn reachable(local: SocketAddr, interfaces: &[Interface], minimum: Scope) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        // Asked for explicitly, so it is right whatever its scope.
        return vec![local];
    }
    let all = interfaces.iter().filter(|interface| interface.up).flat_map(|i| &i.addresses);
    let all = all.filter(|ip| local.is_ipv6() || ip.is_ipv4());
    let all: Vec<SocketAddr> = all.map(|&ip| SocketAddr::new(ip, local.port())).collect();
    match usable(&all, minimum) {
        none if none.is_empty() => {
            all.into_iter().filter(|address| reaches(address.ip(), Scope::Loopback)).collect()
        }
        found => found,
    }
}
