//! The host's network interfaces, and a descriptor that tells when they change.

use super::descriptors::lift;
use crate::wire::scope::{Scope, scope};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrLike, SockaddrStorage,
    bind, recv, socket,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it, from 1.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is switched on. A cable may still be missing.
    pub up: bool,
    /// Whether there is a cable, a network, or whatever it needs (IFF_RUNNING).
    pub carrier: bool,
    /// Whether it carries multicast (Linux: not set for the loopback interface).
    pub multicast: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

/// How the bridges begin that container and virtual machine hosts make for their guests: what is reached there
/// is this host only.
const BRIDGES: [&str; 11] =
    ["docker", "br-", "veth", "cni", "virbr", "lxcbr", "lxdbr", "podman", "flannel", "cali", "vmnet"];

impl Interface {
    /// Whether it leads to guests of this host only, by its name.
    pub fn is_bridge(&self) -> bool {
        BRIDGES.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Its addresses that reach at least `minimum`.
    pub fn addresses_from(&self, minimum: Scope) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().filter(move |address| scope(*address) >= minimum)
    }
}

/// All interfaces, by index.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut list: Vec<Interface> = Vec::new();
    for entry in getifaddrs()? {
        // A labelled IPv4 address ("eth0:1") belongs to the interface before the colon.
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        let known = list.iter().position(|interface| interface.name == name);
        let position = known.or_else(|| {
            let index = index_of(name, entry.address.as_ref())?;
            list.push(Interface {
                index,
                name: name.to_owned(),
                up: entry.flags.contains(InterfaceFlags::IFF_UP),
                carrier: entry.flags.contains(InterfaceFlags::IFF_RUNNING),
                multicast: entry.flags.contains(InterfaceFlags::IFF_MULTICAST),
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                addresses: Vec::new(),
            });
            Some(list.len() - 1)
        });
        if let (Some(position), Some(address)) = (position, entry.address.as_ref().and_then(ip_of)) {
            list[position].addresses.push(address);
        }
    }
    list.sort_by_key(|interface| interface.index);
    Ok(list)
}

/// `None`: the interface vanished while the list was read.
fn index_of(name: &str, address: Option<&SockaddrStorage>) -> Option<u32> {
    let from_link = address.and_then(|address| address.as_link_addr()).map(|link| link.ifindex());
    match from_link {
        Some(index) => u32::try_from(index).ok(),
        None => nix::net::if_::if_nametoindex(name).ok(),
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())),
        _ => None,
    }
}

/// Becomes readable when an interface or an address came, went or changed. Costs nothing in between.
#[derive(Debug)]
pub struct InterfaceChanges {
    fd: OwnedFd,
}

impl InterfaceChanges {
    /// Starts listening to the kernel (`NETLINK_ROUTE`).
    pub fn listen() -> io::Result<InterfaceChanges> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = lift(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?)?;
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        Ok(InterfaceChanges { fd })
    }

    /// Takes what was told, up to a bound; `true`: read the [`interfaces`] again (soon: changes come in
    /// bursts). Reports more often than anything of interest changed, so compare the lists.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        let mut changed = false;
        for _ in 0..64 {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => break,
                // ENOBUFS: more changes than the socket could hold. What they were does not matter.
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(changed)
    }
}

impl AsFd for InterfaceChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::netns::in_namespace;
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn readable(changes: &InterfaceChanges) -> bool {
        let mut fds = [PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap() == 1
    }

    #[test]
    fn loopback_is_there_with_index_flags_and_address() {
        let list = interfaces().unwrap();
        let lo = list.iter().find(|interface| interface.loopback).expect("a loopback interface");
        assert!(lo.index > 0 && lo.up, "{lo:?}");
        assert!(lo.addresses.contains(&"127.0.0.1".parse().unwrap()), "{lo:?}");
        assert_eq!(lo.addresses_from(Scope::LinkLocal).count(), 0);
    }

    #[test]
    fn nothing_is_told_when_nothing_changes_and_everything_otherwise() {
        in_namespace(|ip| {
            let changes = InterfaceChanges::listen().unwrap();
            assert!(!changes.drain().unwrap(), "nothing happened yet");

            ip("link add wire type veth peer name eriw");
            assert!(readable(&changes) && changes.drain().unwrap(), "a new interface");
            ip("addr add 10.9.8.7/24 dev wire label wire:1");
            assert!(readable(&changes) && changes.drain().unwrap(), "a new address");
            ip("link set wire up");
            assert!(readable(&changes) && changes.drain().unwrap(), "switched on");

            let list = interfaces().unwrap();
            let wire = list.iter().find(|interface| interface.name == "wire").unwrap();
            assert!(wire.up && !wire.loopback, "{wire:?}");
            assert!(wire.addresses.contains(&"10.9.8.7".parse().unwrap()), "{wire:?}");

            ip("link del wire");
            assert!(readable(&changes) && changes.drain().unwrap(), "gone");
            assert!(interfaces().unwrap().iter().all(|interface| interface.name != "wire"));
        });
    }
}
