//! UDP multicast: announcements of registrars to clients (ASAP) and to each other (ENRP).
//!
//! A group is joined, and each datagram sent, on every interface that is up, can multicast and has an
//! address of the group's family. The loopback interface is used when asked for, or when there is no
//! other: Linux does not flag it as multicast-capable, but IPv4 multicast works on it when it is
//! chosen explicitly, so processes on a machine without any network find each other. IPv6 needs a
//! route for it (`ip -6 route add local ff05::133 dev lo`), which Linux does not set up by itself;
//! without it sending fails with `ENETUNREACH`.
//! Processes on one host hear each other on the other interfaces as well (`IP_MULTICAST_LOOP`).

use super::descriptors::Held;
use super::descriptors::lift;
use super::interfaces::Interface;
use crate::wire::scope::scope;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Where registrars announce themselves to clients by RFC 5352 section 8.4 (rserpool.mcast.net).
pub const ASAP_GROUP_IANA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 1, 185)), 3863);
/// Where rsplib's registrars announce themselves to clients.
pub const ASAP_GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 0, 0, 50)), 3863);
/// Where rsplib's registrars meet each other.
pub const ENRP_GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 0, 0, 51)), 9901);
/// Default IPv6 group for clients: the site-local one of RFC 5352 section 8.4.
pub const ASAP_GROUP_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x133)), 3863);
/// Default IPv6 group among registrars: no RFC names one, so a transient (self-chosen) site-local one.
pub const ENRP_GROUP_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x133)), 9901);
/// The groups to use for a configured one: the defaults of IPv4 have theirs of IPv6 with them, so that
/// registrars are found on networks of either family, and IANA's has rsplib's with it, where most clients listen.
pub fn groups_of(group: SocketAddr) -> Vec<SocketAddr> {
    match group {
        ASAP_GROUP => vec![group, ASAP_GROUP_V6],
        ASAP_GROUP_IANA => vec![group, ASAP_GROUP, ASAP_GROUP_V6],
        ENRP_GROUP => vec![group, ENRP_GROUP_V6],
        group => vec![group],
    }
}

/// The groups in which a client listens for a configured one: with the default also IANA's, where registrars that
/// know nothing but the RFC announce themselves.
pub fn heard_for(group: SocketAddr) -> Vec<SocketAddr> {
    match group {
        ASAP_GROUP => groups_of(ASAP_GROUP_IANA),
        group => groups_of(group),
    }
}

/// Default time to live (IPv4) or hop limit (IPv6).
pub const DEFAULT_TTL: u8 = 30;

/// The interfaces of `list` on which `group` is to be used; `loopback`: on the loopback interface too.
pub fn usable_interfaces<'a>(
    list: &'a [Interface],
    group: &SocketAddr,
    loopback: bool,
) -> Vec<&'a Interface> {
    let has_family = |interface: &Interface| {
        interface.addresses.iter().any(|address| address.is_ipv4() == group.is_ipv4())
    };
    let candidates = || list.iter().filter(|interface| interface.up && has_family(interface));
    let capable = candidates().any(|interface| interface.multicast && !interface.loopback);
    let chosen = |interface: &&Interface| match interface.loopback {
        true => loopback || !capable,
        false => interface.multicast,
    };
    candidates().filter(chosen).collect()
}

/// A non-blocking, close-on-exec UDP socket whose port can be shared with others that agree to it.
fn udp_socket(group: &SocketAddr) -> io::Result<Socket> {
    if !group.ip().is_multicast() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let socket =
        lift(Socket::new(Domain::for_address(*group), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?)?;
    socket.set_reuse_address(true)?;
    // Else every group that any process on this host has joined is heard, on every interface.
    match group {
        SocketAddr::V4(_) => socket.set_multicast_all_v4(false)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_all_v6(false)?;
        }
    }
    Ok(socket)
}

/// Hears a group.
#[derive(Debug)]
pub struct GroupReceiver {
    socket: Held<UdpSocket>,
    group: SocketAddr,
    joined: BTreeSet<u32>,
}

impl GroupReceiver {
    /// Binds to the group's address and port, shared with every process on this host that does the
    /// same (rsplib's do): each gets its own copy. Nothing is heard before [`GroupReceiver::refresh`].
    ///
    /// Errors: `EINVAL` if `group` is no multicast address, `EADDRINUSE` if the port is taken by a
    /// program that does not share it, and the system's.
    pub fn bind(group: SocketAddr) -> io::Result<GroupReceiver> {
        let socket = udp_socket(&group)?;
        socket.bind(&SockAddr::from(group))?;
        Ok(GroupReceiver { socket: UdpSocket::from(socket).into(), group, joined: BTreeSet::new() })
    }

    /// The group that is heard.
    pub fn group(&self) -> SocketAddr {
        self.group
    }

    /// Joins on the interfaces that are new in `list` and leaves where they are gone or no longer
    /// usable. Call at the start and whenever the interfaces change. Returns on how many the group is
    /// joined now; an interface where that fails is left out, and tried again next time.
    pub fn refresh(&mut self, list: &[Interface], loopback: bool) -> usize {
        let usable = usable_interfaces(list, &self.group, loopback);
        let wanted: BTreeSet<u32> = usable.iter().map(|interface| interface.index).collect();
        for index in self.joined.difference(&wanted) {
            if let Err(error) = self.membership(*index, false) {
                log::debug!("multicast: leaving {} on interface {index}: {error}", self.group.ip());
            }
        }
        self.joined.retain(|index| wanted.contains(index));
        for index in wanted {
            match self.membership(index, true) {
                Ok(()) => _ = self.joined.insert(index),
                // Joined already.
                Err(error) if error.kind() == ErrorKind::AddrInUse => _ = self.joined.insert(index),
                Err(error) => {
                    log::debug!("multicast: can't join {} on interface {index}: {error}", self.group.ip());
                    self.joined.remove(&index);
                }
            }
        }
        self.joined.len()
    }

    fn membership(&self, index: u32, member: bool) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let on = InterfaceIndexOrAddress::Index(index);
        match (self.group.ip(), member) {
            (IpAddr::V4(group), true) => socket.join_multicast_v4_n(&group, &on),
            (IpAddr::V4(group), false) => socket.leave_multicast_v4_n(&group, &on),
            (IpAddr::V6(group), true) => socket.join_multicast_v6(&group, index),
            (IpAddr::V6(group), false) => socket.leave_multicast_v6(&group, index),
        }
    }

    /// The next datagram and who sent it (also if it was this process); `None`: nothing more for now.
    /// What does not fit into `buffer` is cut off.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(SocketAddr, &'a [u8])>> {
        loop {
            match self.socket.recv_from(buffer) {
                Ok((length, source)) => return Ok(Some((source, &buffer[..length]))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for GroupReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Speaks to a group.
#[derive(Debug)]
pub struct GroupSender {
    socket: Held<UdpSocket>,
    local: SocketAddr,
    group: SocketAddr,
    /// Where to, and the source address to insist on; unspecified: the kernel's choice.
    copies: Vec<(u32, IpAddr)>,
}

impl GroupSender {
    /// Binds to `source`, of the group's family. Its port is part of the message: rsplib takes the
    /// datagram's source address and port for the registrar's SCTP address. Port 0: the kernel's choice.
    /// Nothing is sent before [`GroupSender::refresh`].
    ///
    /// Errors: `EINVAL` if `group` is no multicast address or of another family, `EADDRINUSE`,
    /// `EADDRNOTAVAIL`, `EACCES` (ports below 1024), and the system's.
    pub fn new(source: SocketAddr, group: SocketAddr, ttl: u8) -> io::Result<GroupSender> {
        let socket = udp_socket(&group)?;
        match group {
            SocketAddr::V4(_) => {
                socket.set_multicast_ttl_v4(u32::from(ttl))?;
                socket.set_multicast_loop_v4(true)?;
            }
            SocketAddr::V6(_) => {
                socket.set_multicast_hops_v6(u32::from(ttl))?;
                socket.set_multicast_loop_v6(true)?;
            }
        }
        // Nobody reads from it; what strays in shall not cost memory.
        socket.set_recv_buffer_size(1)?;
        socket.bind(&SockAddr::from(source))?;
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(GroupSender { socket: socket.into(), local, group, copies: Vec::new() })
    }

    /// The address and port bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// From now on, sends on the usable interfaces of `list`; returns their number.
    pub fn refresh(&mut self, list: &[Interface], loopback: bool) -> usize {
        let usable = usable_interfaces(list, &self.group, loopback);
        self.copies = usable.iter().map(|interface| (interface.index, self.source_on(interface))).collect();
        self.copies.len()
    }

    fn source_on(&self, interface: &Interface) -> IpAddr {
        if !self.local.ip().is_unspecified() || !interface.loopback {
            return self.local.ip();
        }
        // The kernel does not choose a loopback address by itself: it would send from 0.0.0.0.
        let family = interface.addresses.iter().filter(|address| address.is_ipv4() == self.group.is_ipv4());
        family.copied().max_by_key(|address| scope(*address)).unwrap_or(self.local.ip())
    }

    /// Sends one copy on each interface and returns how many the kernel took. An error only if it took
    /// none: `ENETUNREACH`, `ENETDOWN`, `EMSGSIZE`, ... (the last one).
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        let mut failure = None;
        for (index, source) in &self.copies {
            match self.send_on(*index, *source, bytes) {
                Ok(()) => taken += 1,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if taken == 0 => Err(error),
            _ => Ok(taken),
        }
    }

    fn send_on(&self, index: u32, source: IpAddr, bytes: &[u8]) -> io::Result<()> {
        let (v4, v6);
        let interface = match source {
            IpAddr::V4(source) => {
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
                let ifindex = index.cast_signed();
                let nowhere = libc::in_addr { s_addr: 0 };
                v4 = libc::in_pktinfo { ipi_ifindex: ifindex, ipi_spec_dst: source, ipi_addr: nowhere };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            IpAddr::V6(source) => {
                let source = libc::in6_addr { s6_addr: source.octets() };
                v6 = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: index };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let parts = [IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let group = SockaddrStorage::from(self.group);
        sendmsg(self.socket.as_raw_fd(), &parts, &[interface], flags, Some(&group))?;
        Ok(())
    }
}

impl AsFd for GroupSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::interfaces::interfaces;
    use super::super::netns::in_namespace;
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::time::{Duration, Instant};

    fn heard(receiver: &GroupReceiver) -> Option<(SocketAddr, Vec<u8>)> {
        let mut fds = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap();
        receiver.recv(&mut [0; 100]).unwrap().map(|(source, bytes)| (source, bytes.to_vec()))
    }

    fn silent(receiver: &GroupReceiver) -> bool {
        receiver.recv(&mut [0; 100]).unwrap().is_none()
    }

    fn interface(index: u32, kind: &str, up: bool, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let (loopback, multicast) = (kind == "lo", kind == "wire");
        Interface { index, name: kind.to_owned(), up, carrier: up, multicast, loopback, addresses }
    }

    #[test]
    fn loopback_is_the_last_resort() {
        let chosen = |list: &[Interface], group: SocketAddr, loopback| {
            usable_interfaces(list, &group, loopback).iter().map(|one| one.index).collect::<Vec<_>>()
        };
        let lo = interface(1, "lo", true, &["127.0.0.1", "::1"]);
        let wire = interface(2, "wire", true, &["10.0.0.1"]);
        let down = interface(3, "wire", false, &["10.0.1.1"]);
        let tunnel = interface(4, "tun", true, &["10.0.2.1"]);
        let all = [lo.clone(), wire, down.clone(), tunnel.clone()];
        assert_eq!(chosen(&all, ASAP_GROUP, false), [2]);
        assert_eq!(chosen(&all, ASAP_GROUP, true), [1, 2]);
        assert_eq!(chosen(&all, ASAP_GROUP_V6, false), [1], "no other has an IPv6 address");
        assert_eq!(chosen(&[lo, down, tunnel], ASAP_GROUP, false), [1]);
        assert_eq!(chosen(&[], ASAP_GROUP, true), [0_u32; 0]);
    }

    /// RFC 5352 section 8.4, and rsplib.
    #[test]
    fn clients_listen_where_any_registrar_announces() {
        let all =
            ["224.0.1.185:3863", "239.0.0.50:3863", "[ff05::133]:3863"].map(|text| text.parse().unwrap());
        assert_eq!(heard_for(ASAP_GROUP), all);
        assert_eq!(groups_of(ASAP_GROUP), all[1..]);
        assert_eq!((heard_for(all[0]), groups_of(all[0])), (all.to_vec(), all.to_vec()));
        let own: SocketAddr = "239.1.2.3:4000".parse().unwrap();
        assert_eq!((heard_for(own), groups_of(own)), (vec![own], vec![own]));
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let unicast = "10.0.0.1:3863".parse().unwrap();
        assert_eq!(GroupReceiver::bind(unicast).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let any = "0.0.0.0:0".parse().unwrap();
        assert_eq!(GroupSender::new(any, unicast, 1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(GroupSender::new(any, ASAP_GROUP_V6, 1).is_err(), "families differ");
    }

    /// A machine without any network: everybody on it hears everybody, from a usable source address.
    #[test]
    fn with_nothing_but_loopback_all_processes_hear_all() {
        in_namespace(|_| {
            let list = interfaces().unwrap();
            let mut first = GroupReceiver::bind(ASAP_GROUP).unwrap();
            let mut second = GroupReceiver::bind(ASAP_GROUP).unwrap();
            let mut other_group = GroupReceiver::bind(ENRP_GROUP).unwrap();
            // The same port as the group's, which a registrar with default ports has.
            let mut sender =
                GroupSender::new("0.0.0.0:3863".parse().unwrap(), ASAP_GROUP, DEFAULT_TTL).unwrap();
            for receiver in [&mut first, &mut second, &mut other_group] {
                assert_eq!(receiver.refresh(&list, false), 1);
                assert_eq!(receiver.refresh(&list, false), 1, "again changes nothing");
            }
            assert_eq!(sender.refresh(&list, false), 1);
            assert_eq!(sender.send(b"hello").unwrap(), 1);
            let expected = Some(("127.0.0.1:3863".parse().unwrap(), b"hello".to_vec()));
            assert_eq!(heard(&first), expected);
            assert_eq!(heard(&second), expected);
            assert!(silent(&first) && silent(&other_group));
        });
    }

    #[test]
    fn ipv6_on_loopback_needs_the_documented_route() {
        in_namespace(|ip| {
            let list = interfaces().unwrap();
            let mut receiver = GroupReceiver::bind(ASAP_GROUP_V6).unwrap();
            let mut sender = GroupSender::new("[::]:0".parse().unwrap(), ASAP_GROUP_V6, 1).unwrap();
            assert_eq!((receiver.refresh(&list, false), sender.refresh(&list, false)), (1, 1));
            let unrouted = sender.send(b"one").unwrap_err();
            assert_eq!(unrouted.raw_os_error(), Some(libc::ENETUNREACH));
            ip("-6 route add local ff05::133 dev lo");
            assert_eq!(sender.send(b"two").unwrap(), 1);
            let source = SocketAddr::new("::1".parse().unwrap(), sender.local().port());
            assert_eq!(heard(&receiver), Some((source, b"two".to_vec())));
        });
    }

    /// The kernel sets up multicast routes some time after a wire has both its ends, and tells nobody.
    fn until_routed(sender: &GroupSender) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !sender.send(b"early").is_ok_and(|copies| copies == sender.copies.len()) {
            assert!(Instant::now() < deadline, "no route within 20 s");
            poll(&mut [], PollTimeout::from(5_u16)).unwrap();
        }
    }

    #[test]
    fn each_interface_gets_its_copy_and_is_followed_when_it_comes_and_goes() {
        in_namespace(|ip| {
            for (name, network) in [("left", 1), ("right", 2)] {
                ip(&format!("link add {name} type veth peer name {name}2"));
                ip(&format!("addr add 10.0.{network}.1/24 dev {name}"));
                ip(&format!("addr add fd00:{network}::1/64 dev {name} nodad"));
                ip(&format!("link set {name}2 up"));
                ip(&format!("link set {name} up"));
            }
            for (group, sources) in
                [(ENRP_GROUP, ["10.0.1.1", "10.0.2.1"]), (ENRP_GROUP_V6, ["fd00:1::1", "fd00:2::1"])]
            {
                let any = if group.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let mut sender = GroupSender::new(any.parse().unwrap(), group, DEFAULT_TTL).unwrap();
                let list: Vec<_> = interfaces()
                    .unwrap()
                    .into_iter()
                    .filter(|one| !one.name.ends_with('2') && !one.loopback)
                    .collect();
                assert_eq!(sender.refresh(&list, false), 2, "{list:?}");
                until_routed(&sender);
                let mut receiver = GroupReceiver::bind(group).unwrap();
                assert_eq!(receiver.refresh(&list, false), 2);
                assert_eq!(sender.send(b"both").unwrap(), 2);
                let mut from: Vec<_> = (0..2).map(|_| heard(&receiver).unwrap().0.ip().to_string()).collect();
                from.sort();
                assert_eq!(from, sources);

                // The receiver no longer listens on the second.
                assert_eq!(receiver.refresh(&list[..1], false), 1);
                assert_eq!(sender.send(b"one").unwrap(), 2);
                assert!(heard(&receiver).is_some() && silent(&receiver));
                assert_eq!(receiver.refresh(&[], false), 0);
                assert_eq!(receiver.refresh(&list, false), 2);
            }
            ip("link del right");
            let list = interfaces().unwrap();
            let mut sender = GroupSender::new("0.0.0.0:0".parse().unwrap(), ENRP_GROUP, 1).unwrap();
            assert_eq!(sender.refresh(&list, false), 1, "{list:?}");
        });
    }
}
