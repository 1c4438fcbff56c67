//! A descriptor's own system socket, before it is a session's: bound, listening, or carrying options for
//! the first connection.

use crate::machine::LinkProtocol;
use crate::runtime::Reachable;
use crate::socket::channel::association::{self, Association};
use crate::socket::channel::carrier::{Carrier, Proof};
use crate::socket::channel::conn::Conn;
use crate::socket::channel::parameters::SessionParameters;
use crate::socket::descriptor::addresses;
use crate::transport::descriptors::Held;
use crate::transport::sctp_socket::{SctpSocket, SocketStyle};
use crate::transport::stream;
use crate::wire::Transport;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A socket that sessions can be accepted from or connected with.
#[derive(Debug)]
pub(crate) enum Endpoint {
    Tcp(Held<OwnedFd>),
    /// One-to-one, for both styles of descriptors: each session has a socket of its own.
    Sctp(SctpSocket),
}

impl Endpoint {
    /// Neither bound nor connected.
    pub(crate) fn unbound(protocol: LinkProtocol, domain: i32) -> io::Result<Endpoint> {
        Ok(match protocol {
            LinkProtocol::Tcp => Endpoint::Tcp(stream::unbound(domain == libc::AF_INET6)?.into()),
            LinkProtocol::Sctp => Endpoint::Sctp(new_sctp(domain == libc::AF_INET)?),
        })
    }

    /// Bound to `addresses`; none: any.
    pub(crate) fn bind(
        protocol: LinkProtocol,
        domain: i32,
        addresses: &[SocketAddr],
    ) -> io::Result<Endpoint> {
        match protocol {
            LinkProtocol::Tcp => Ok(Endpoint::Tcp(bind_tcp(domain, addresses)?.into())),
            LinkProtocol::Sctp => {
                let ipv4_only = match addresses {
                    [] => domain == libc::AF_INET,
                    list => list.iter().all(SocketAddr::is_ipv4),
                };
                let socket = new_sctp(ipv4_only)?;
                if addresses.first().is_some_and(|first| first.port() != 0) {
                    socket.set_reuse_address()?;
                }
                socket.bind(addresses)?;
                Ok(Endpoint::Sctp(socket))
            }
        }
    }

    /// For an association with the host that has all of `addresses`.
    pub(crate) fn sctp_for(
        domain: i32,
        addresses: &[SocketAddr],
        parameters: &SessionParameters,
    ) -> io::Result<SctpSocket> {
        let ipv4_only = domain == libc::AF_INET || addresses.iter().all(SocketAddr::is_ipv4);
        let socket = new_sctp(ipv4_only)?;
        tune(&socket, parameters);
        Ok(socket)
    }

    pub(crate) fn listen(&self, backlog: i32) -> io::Result<()> {
        match self {
            Endpoint::Tcp(socket) => stream::listen(socket.as_fd(), backlog),
            Endpoint::Sctp(socket) => socket.listen(backlog),
        }
    }

    /// The next connection, tuned, and where it came from; `None`: nobody waits.
    /// Over TCP it has to prove what `proof` asks for.
    pub(crate) fn accept(
        &self,
        parameters: &SessionParameters,
        proof: impl FnOnce() -> Option<Proof>,
    ) -> io::Result<Option<(Conn, SocketAddr)>> {
        let accepted = match self {
            Endpoint::Tcp(socket) => match stream::accept(socket.as_fd())? {
                Some((connected, peer)) => {
                    let carrier = Carrier::accepted(connected, proof())?;
                    Some((Conn::mapping(carrier, true), Some(peer)))
                }
                None => None,
            },
            Endpoint::Sctp(socket) => socket
                .accept()?
                .map(|(connected, peer)| (Conn::sctp(Association::new(connected, true)), peer)),
        };
        Ok(accepted.map(|(conn, peer)| {
            conn.tune(parameters);
            (conn, peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))))
        }))
    }

    /// What sessions to come have. TCP's can only be told once they are there.
    pub(crate) fn set_parameters(&self, parameters: &SessionParameters) {
        if let Endpoint::Sctp(socket) = self {
            tune(socket, parameters);
        }
    }

    /// How users reach it; `None`: by no address.
    pub(crate) fn transport(&self) -> io::Result<Option<Transport>> {
        Ok(match self {
            Endpoint::Tcp(socket) => addresses::tcp(stream::local_address(socket.as_fd())?),
            Endpoint::Sctp(socket) => addresses::sctp(socket.local_port()?, &socket.local_addresses(0)?),
        })
    }
}

impl Reachable for Endpoint {
    fn transport(&self) -> Option<Transport> {
        Endpoint::transport(self).ok().flatten()
    }
}

/// Linux announces half of a receive buffer as its window, and a message that is longer comes at the pace
/// of window probes: some 400 kB (`net.core.rmem_max` allows no more by default) instead of 200.
const RECEIVE_BUFFER: usize = 1 << 20;

fn new_sctp(ipv4_only: bool) -> io::Result<SctpSocket> {
    let socket = match ipv4_only {
        true => SctpSocket::new(SocketStyle::OneToOne, false)?,
        false => SctpSocket::of_any_family(SocketStyle::OneToOne)?,
    };
    socket.set_receive_buffer(RECEIVE_BUFFER)?;
    Ok(socket)
}

/// What the kernel refuses (a maximum below the minimum) stays as it was.
fn tune(socket: &SctpSocket, parameters: &SessionParameters) {
    if let Err(error) = association::tune(socket, parameters) {
        log::debug!("parameters of associations to come: {error}");
    }
}

/// TCP binds to one address or to any.
fn bind_tcp(domain: i32, addresses: &[SocketAddr]) -> io::Result<OwnedFd> {
    match addresses {
        [] => stream::bind_any(0, domain == libc::AF_INET),
        [address] => stream::bind(*address),
        [first, ..] => {
            log::info!("TCP binds to one address or to any: any, port {}", first.port());
            stream::bind_any(first.port(), addresses.iter().all(SocketAddr::is_ipv4))
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Endpoint::Tcp(socket) => socket.as_fd(),
            Endpoint::Sctp(socket) => socket.as_fd(),
        }
    }
}
