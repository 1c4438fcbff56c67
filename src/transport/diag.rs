//! What the kernel knows of TCP sockets of this network namespace (sock_diag(7)): whether a connection was
//! accepted, how many a port has, whether it is listened on. Without permissions, without touching the sockets'
//! processes.

use super::structures::{bytes_of, read, structures};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// States as the kernel numbers them.
const ESTABLISHED: u8 = 1;
const SYN_RECEIVED: u8 = 3;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;
const NEW_SYN_RECEIVED: u8 = 12;

structures! {
    /// `struct nlmsghdr`.
    NetlinkHeader: 16 {
        length: u32,
        kind: u16,
        flags: u16,
        sequence: u32,
        port: u32,
    }
    /// `struct nlmsgerr`, without what was asked.
    NetlinkError: 4 {
        error: i32,
    }
    /// `struct inet_diag_sockid`; ports and addresses in network byte order.
    DiagEnds: 48 {
        port: [u8; 2],
        peer_port: [u8; 2],
        address: [u8; 16],
        peer_address: [u8; 16],
        interface: u32,
        cookie: [u8; 8],
    }
    /// `struct inet_diag_req_v2`.
    DiagRequest: 56 {
        family: u8,
        protocol: u8,
        extensions: u8,
        gap: u8,
        states: u32,
        ends: DiagEnds,
    }
    /// `struct inet_diag_msg`.
    DiagAnswer: 72 {
        family: u8,
        state: u8,
        timer: u8,
        retransmissions: u8,
        ends: DiagEnds,
        expires: u32,
        receive_queue: u32,
        send_queue: u32,
        user: u32,
        inode: u32,
    }
}

/// One socket of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FoundSocket {
    state: u8,
    /// 0: no process has it.
    inode: u32,
    /// Its own address.
    ip: IpAddr,
}

/// What became of a connection that somebody on this machine made to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A process has it.
    Yes,
    /// It waits in the listener's queue.
    NotYet,
    /// The kernel does not know it: its other end is elsewhere.
    Unknown,
}

/// Whether the other end of a connection of ours, from `own` to `peer`, was accepted.
pub fn accepted(own: SocketAddr, peer: SocketAddr) -> io::Result<Accepted> {
    let families = match (own.ip().to_canonical(), own.is_ipv6()) {
        // The other end of an IPv4 connection may be a socket for both.
        (IpAddr::V4(_), _) => &[libc::AF_INET, libc::AF_INET6][..],
        _ => &[libc::AF_INET6][..],
    };
    for &family in families {
        let found = ask(0, &request(family, 0, Some((peer, own)), peer.port()))?;
        match found.first() {
            Some(FoundSocket { state: SYN_RECEIVED | NEW_SYN_RECEIVED, .. }) => return Ok(Accepted::Unknown),
            // One that ends without a process had one, which was quick to close it.
            Some(FoundSocket { state: ESTABLISHED | CLOSE_WAIT, inode: 0, .. }) => {
                return Ok(Accepted::NotYet);
            }
            Some(_) => return Ok(Accepted::Yes),
            None => {}
        }
    }
    Ok(Accepted::Unknown)
}

/// Connections that a local port has, accepted or not.
pub fn connections(port: u16) -> io::Result<usize> {
    all(port, 1 << ESTABLISHED | 1 << CLOSE_WAIT).map(|found| found.len())
}

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListeningSocket {
    /// At which it listens; unspecified: at all.
    pub ip: IpAddr,
    /// Its number in the file system of sockets, as in the links of /proc/PID/fd.
    pub inode: u32,
}

/// The sockets that listen on a local port, in order.
pub fn listeners(port: u16) -> io::Result<Vec<ListeningSocket>> {
    let listener = |found: &FoundSocket| ListeningSocket { ip: found.ip, inode: found.inode };
    let mut listeners: Vec<_> = all(port, 1 << LISTEN)?.iter().map(listener).collect();
    listeners.sort_unstable();
    Ok(listeners)
}

fn all(port: u16, states: u32) -> io::Result<Vec<FoundSocket>> {
    let mut found = ask(NLM_F_DUMP, &request(libc::AF_INET, states, None, port))?;
    found.extend(ask(NLM_F_DUMP, &request(libc::AF_INET6, states, None, port))?);
    Ok(found)
}

/// For one connection (its own address and its peer), or for all of a port.
fn request(family: i32, states: u32, ends: Option<(SocketAddr, SocketAddr)>, port: u16) -> DiagRequest {
    let address = |ip: IpAddr| match (ip.to_canonical(), family) {
        (IpAddr::V4(ip), libc::AF_INET) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&ip.octets());
            words
        }
        (IpAddr::V4(ip), _) => ip.to_ipv6_mapped().octets(),
        (IpAddr::V6(ip), _) => ip.octets(),
    };
    let (own, peer) = ends.map_or(([0; 16], [0; 16]), |(own, peer)| (address(own.ip()), address(peer.ip())));
    DiagRequest {
        family: family as u8,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: 0,
        gap: 0,
        states,
        ends: DiagEnds {
            port: port.to_be_bytes(),
            peer_port: ends.map_or(0, |(_, peer)| peer.port()).to_be_bytes(),
            address: own,
            peer_address: peer,
            // Any.
            interface: 0,
            cookie: [0xff; 8],
        },
    }
}

fn ask(flags: u16, request: &DiagRequest) -> io::Result<Vec<FoundSocket>> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let header = NetlinkHeader {
        length: (size_of::<NetlinkHeader>() + size_of::<DiagRequest>()) as u32,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: NLM_F_REQUEST | flags,
        sequence: 0,
        port: 0,
    };
    send(netlink.as_raw_fd(), &[bytes_of(&header), bytes_of(request)].concat(), MsgFlags::empty())?;
    answers(&netlink, flags & NLM_F_DUMP != 0)
}

fn answers(netlink: &OwnedFd, is_dump: bool) -> io::Result<Vec<FoundSocket>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(header) = read::<NetlinkHeader>(rest) {
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            let Some(message) = rest.get(size_of::<NetlinkHeader>()..length) else {
                return Err(ErrorKind::InvalidData.into());
            };
            match header.kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return refused(message).map(|()| found),
                SOCK_DIAG_BY_FAMILY => {
                    found.push(read(message).map(found_socket).ok_or(ErrorKind::InvalidData)?);
                    if !is_dump {
                        return Ok(found);
                    }
                }
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn found_socket(answer: DiagAnswer) -> FoundSocket {
    let DiagAnswer { state, inode, ends: DiagEnds { address, .. }, .. } = answer;
    let ip = match (i32::from(answer.family), address) {
        (libc::AF_INET, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(address),
    };
    FoundSocket { state, inode, ip }
}

/// That there is no such socket is an answer.
fn refused(message: &[u8]) -> io::Result<()> {
    let NetlinkError { error } = read(message).ok_or(ErrorKind::InvalidData)?;
    match -error {
        0 | libc::ENOENT => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_tells_who_was_accepted() {
        for place in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(place) else { continue };
            let port = listener.local_addr().unwrap().port();
            let host = if place.starts_with("[::1]") { "[::1]" } else { "127.0.0.1" };
            let found = listeners(port).unwrap();
            assert_eq!((found.len(), found[0].ip), (1, listener.local_addr().unwrap().ip()), "{place}");
            let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("socket:[{}]", found[0].inode));
            assert_eq!(connections(port).unwrap(), 0, "{place}");
            let user = TcpStream::connect(format!("{host}:{port}")).unwrap();
            let (own, peer) = (user.local_addr().unwrap(), user.peer_addr().unwrap());
            assert_eq!(accepted(own, peer).unwrap(), Accepted::NotYet, "{place}");
            assert_eq!(connections(port).unwrap(), 1);
            let (server, _) = listener.accept().unwrap();
            assert_eq!(accepted(own, peer).unwrap(), Accepted::Yes, "{place}");
            drop(server);
            assert_eq!(accepted(own, peer).unwrap(), Accepted::Yes, "{place}: closed by who accepted");
            drop(listener);
            assert!(listeners(port).unwrap().is_empty());
            drop(user);
        }
        let nobody = "192.0.2.1:9".parse().unwrap();
        assert_eq!(accepted("127.0.0.1:9".parse().unwrap(), nobody).unwrap(), Accepted::Unknown);
    }
}
