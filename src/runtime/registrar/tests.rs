//! Ports and groups: what is taken, what is asked for, and what happens then.

use super::listening::at_port_or_any;
use super::*;
use crate::transport::interfaces::interfaces;
use crate::transport::multicast::{ASAP_GROUP, ENRP_GROUP, GroupReceiver};
use crate::transport::netns::{in_namespace, skipped};
use crate::transport::sctp::{self, SctpEndpoint};
use crate::wire::Asap;
use crate::wire::PPID_ASAP;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};

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

/// RFC 5352 section 8.2 and RFC 5353 section 5.3: where the services are when nothing else is said.
#[test]
fn the_well_known_ports_are_the_usual_ones() {
    use crate::transport::tls::tests::{Authority, Kind};
    in_namespace(|_| {
        let authority = Authority::new("here");
        let files = authority.files("registrar", &Kind::default());
        let directory = files.ca.parent().unwrap().to_str().unwrap();
        let usual = || Options { protocols: vec![LinkProtocol::Tcp], ..Options::default() };
        let ports = |options: Options| {
            let server = Server::bind(options).unwrap();
            let ports = |all: &[SocketAddr]| all.iter().map(SocketAddr::port).collect::<Vec<u16>>();
            (ports(server.asap_addresses()), ports(server.enrp_addresses()))
        };
        assert_eq!(ports(usual()), (vec![3863], vec![9901]));
        // With TLS for who wants it, that has ports of its own.
        let mut mixed = usual();
        assert!(mixed.tls.set("dir", directory) && mixed.tls.set("", "allow"));
        let reached = |port| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let _server = Server::bind(mixed).unwrap();
        assert_eq!([3863, 3864, 9901, 9902].map(reached), [true; 4]);
    });
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

/// A program that has a UDP port of this network for itself.
fn hog(port: u16) -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
}

/// What is heard in a group within 20 s, and from which port.
fn heard(receiver: &GroupReceiver, server: &mut Server) -> (u16, Vec<u8>) {
    let end = server.now() + Duration::from_secs(20);
    loop {
        let until = server.now() + Duration::from_millis(10);
        server.turn(Some(until), &mut Vec::new()).unwrap();
        if let Some((from, bytes)) = receiver.recv(&mut [0; 1500]).unwrap() {
            return (from.port(), bytes.to_vec());
        }
        assert!(server.now() < end, "silence");
    }
}

#[test]
fn announcements_go_out_although_their_port_is_taken() {
    in_namespace(|_| {
        let _hog = hog(4000);
        let mut receiver = GroupReceiver::bind(ASAP_GROUP).unwrap();
        receiver.refresh(&interfaces().unwrap(), false);
        let options = options(wanted(4000, false), &[LinkProtocol::Tcp]);
        let mut server = Server::bind(Options { asap_announce: Some(ASAP_GROUP), ..options }).unwrap();
        let (port, bytes) = heard(&receiver, &mut server);
        assert_ne!(port, 4000);
        let Asap::ServerAnnounce { registrar, transports } = Asap::decode(&bytes).unwrap().message else {
            panic!("{bytes:?}")
        };
        assert_eq!(registrar, server.machine().id());
        assert_eq!((transports.len(), transports[0].port()), (1, 4000), "that is where it is reached");
    });
}

/// Registrars whose group can't be heard at first meet when it can.
#[test]
fn a_group_whose_port_is_taken_is_heard_later() {
    in_namespace(|_| {
        let hog = hog(ENRP_GROUP.port());
        let start = || {
            let options = options(wanted(0, false), &[LinkProtocol::Tcp]);
            Server::bind(Options { enrp_announce: Some(ENRP_GROUP), ..options }).unwrap()
        };
        let mut servers = [start(), start()];
        let mut turn = |until: Time| {
            for server in &mut servers {
                server.turn(Some(server.now() + Duration::from_millis(5)), &mut Vec::new()).unwrap();
            }
            let known: Vec<usize> = servers.iter().map(|server| server.machine().peers().len()).collect();
            (servers[0].now() < until, known == [1, 1], known)
        };
        // Long enough for several presences, and a try in vain.
        let silent = Time(1_500_000);
        while let (true, _, known) = turn(silent) {
            assert_eq!(known, [0, 0], "nobody can have heard anybody");
        }
        drop(hog);
        let (mut goes_on, mut met) = (true, false);
        while goes_on && !met {
            (goes_on, met, _) = turn(silent + Duration::from_secs(20));
        }
        assert!(met, "the group is still not heard");
    });
}
