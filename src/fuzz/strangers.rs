//! What comes from nobody in particular: datagrams to the groups, and what the kernel tells of associations.

use super::Input;
use crate::machine::client::{self, Client};
use crate::machine::registrar::{self, Registrar};
use crate::machine::{LinkProtocol, Service, Time};
use crate::runtime::{parse_announce, parse_transport};
use crate::transport::sctp_socket::SctpNotification;
use crate::wire::RegistrarId;
use std::net::SocketAddr;
use std::time::Duration;

/// What one datagram may have us do at most, timers that were due included.
const MOST: usize = 1000;

/// Any datagrams from anywhere to the groups of a registrar and of a process with elements and users: neither does
/// more for one than a bounded number of things, and the registrar knows no more peers than it may.
pub fn datagrams(data: &[u8]) {
    let mut input = Input(data);
    let mut now = Time(1_000_000_000);
    let protocols = vec![LinkProtocol::Sctp, LinkProtocol::Tcp];
    let mut client = Client::new(client::Config { protocols, ..client::Config::default() }, 1, now);
    let config = registrar::Config { id: RegistrarId(1), max_peers: 8, ..registrar::Config::default() };
    let mut registrar = Registrar::new(config, 1, now);
    while !input.0.is_empty() {
        let from = SocketAddr::from(([10, 0, 0, input.byte()], 3863 + u16::from(input.byte() % 3)));
        let service = if input.flag() { Service::Asap } else { Service::Enrp };
        now = now + Duration::from_millis(u64::from(input.byte()) * 8);
        let length = usize::from(input.byte());
        let bytes = input.bytes(length);
        client.handle_announce(now, from, bytes);
        registrar.handle_announce(now, service, from, bytes);
        client.handle_timeout(now);
        registrar.handle_timeout(now);
        let asked = (0..).take_while(|_| client.poll_output().is_some()).take(MOST).count();
        let done = (0..).take_while(|_| registrar.poll_output().is_some()).take(MOST).count();
        assert!(asked < MOST && done < MOST, "{asked} and {done} things to do for one datagram");
        assert!(registrar.peers().len() <= 8, "more peers than there may be");
    }
}

/// Notifications of the kernel's SCTP, whole and cut off: never a panic, and none that is not there.
pub fn notifications(data: &[u8]) {
    let whole = SctpNotification::parse(data);
    // What stands behind a notification says nothing about it.
    if let (Some(_), Some(header)) = (whole, data.first_chunk::<8>()) {
        let length = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let _ = SctpNotification::parse(&data[..length.min(data.len())]);
    }
}

/// Values of settings, as they come from the environment.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse_transport(&text);
    if let Ok(Some(group)) = parse_announce(&text, SocketAddr::from(([239, 0, 0, 50], 3863))) {
        assert!(group.ip().is_multicast(), "{text} is no group");
    }
}
