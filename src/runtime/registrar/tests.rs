//! Ports and groups: what is taken, what is asked for, and what happens then.

use super::*;
use crate::transport::netns::skipped;
use crate::transport::sctp::{self, PPID_ASAP, SctpEndpoint};
use std::io::ErrorKind;

/// On loopback, without announcements; `asap` is where the ASAP service is wanted.
fn options(asap: Listen, protocols: &[LinkProtocol]) -> Options {
    let enrp = Listen { addresses: vec!["127.0.0.1:0".parse().unwrap()], fallback: false };
    Options { asap, enrp, protocols: protocols.to_vec(), ..Options::default() }
}

fn wanted(port: u16, fallback: bool) -> Listen {
    Listen { addresses: vec![(Ipv4Addr::LOCALHOST, port).into()], fallback }
}

#[test]
fn only_a_port_that_nobody_asked_for_is_replaced() {
    let taken = |port| match port {
        0 => Ok(40_000),
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    };
    let explicit = at_port_or_any(3863, wanted(3863, false).any_port_will_do(), taken);
    assert_eq!(explicit.unwrap_err().kind(), ErrorKind::AddrInUse);
    // TCP got some port, and it is SCTP's that is taken.
    for listen in [Listen::auto(3863), wanted(0, false)] {
        let (port, why) = at_port_or_any(3863, listen.any_port_will_do(), taken).unwrap();
        assert_eq!((port, why.unwrap().kind()), (40_000, ErrorKind::AddrInUse));
    }
    let free = at_port_or_any(3863, true, Ok).unwrap();
    assert!(matches!(free, (3863, None)));
    let other = at_port_or_any(3863, true, |_| Err(ErrorKind::PermissionDenied.into()));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_tcp_port_that_was_asked_for_and_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = Server::bind(options(wanted(port, false), &[LinkProtocol::Tcp])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    assert!(refused.to_string().contains(&format!("Asap at 127.0.0.1:{port}")), "{refused}");
    let elsewhere = Server::bind(options(wanted(port, true), &[LinkProtocol::Tcp])).unwrap();
    assert_ne!(elsewhere.asap_addresses()[0].port(), port);
}

/// Over both protocols, or SCTP alone; TCP's port is free.
#[test]
fn an_sctp_port_that_was_asked_for_and_is_taken_is_an_error() {
    if !sctp::available() {
        return skipped("kernel has no SCTP");
    }
    let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let taken = SctpEndpoint::bind(PPID_ASAP, &[local]).unwrap();
    let port = taken.port();
    let both = [LinkProtocol::Sctp, LinkProtocol::Tcp];
    for protocols in [&both[..], &both[..1]] {
        let refused = Server::bind(options(wanted(port, false), protocols)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(refused.to_string().contains(&format!("Asap over SCTP at port {port}")), "{refused}");
        let elsewhere = Server::bind(options(wanted(port, true), protocols)).unwrap();
        assert_ne!(elsewhere.sctp_ports().0, Some(port));
        assert!(elsewhere.sctp_ports().0.is_some());
    }
}
