//! The objects of the RSerPool MIB (RFC 5525) that a registrar knows, under the RFC's names: its own, and those of
//! the elements that it is home of. Tables are lists of rows; what a row is in (pool, element) stands in it as
//! index. InetAddressType is 1 or 2, addresses are text, TimeTicks hundredths of a second.

use super::pieces::{Piece, Rows, object};
use rserpool::handlespace::ElementRef;
use rserpool::machine::registrar::PeerView;
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, Policy, PoolHandle, Protocol, Transport, TransportUse};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

/// Elements in an answer, and bytes; the others are counted.
const MOST: usize = 1000;
const MOST_TEXT: usize = 8 << 20;

/// Rows of several tables, by the tables' names.
#[derive(Debug, Default)]
struct Tables {
    rows: BTreeMap<String, Rows>,
    /// Bytes of them all.
    size: usize,
}

impl Tables {
    fn add(&mut self, table: &str, row: Value) {
        let row = row.to_string();
        self.size += row.len();
        self.rows.entry(table.into()).or_default().add(&row);
    }

    /// Rows of addresses: `prefix` is what the objects' names begin with.
    fn addresses(&mut self, table: &str, prefix: &str, index: &Value, addresses: &[IpAddr]) {
        for (number, address) in addresses.iter().enumerate() {
            let address = address.to_canonical();
            let mut row = index.as_object().cloned().unwrap_or_default();
            row.insert(format!("{table}Index"), json!(number + 1));
            row.insert(format!("{prefix}L3Type"), json!(if address.is_ipv4() { 1 } else { 2 }));
            row.insert(format!("{prefix}L3Addr"), json!(address.to_string()));
            self.add(table, Value::Object(row));
        }
    }

    /// The same of where users reach an element, which may be something that is no address.
    fn user_addresses(&mut self, table: &str, prefix: &str, index: &Value, transport: &Transport) {
        match transport {
            Transport::Opaque(data) => {
                let mut row = index.as_object().cloned().unwrap_or_default();
                row.insert(format!("{table}Index"), json!(1));
                row.insert(format!("{prefix}L3Type"), json!(0));
                row.insert(format!("{prefix}L3Addr"), json!(""));
                let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
                row.insert(format!("{prefix}L3Opaque"), json!(hex));
                self.add(table, Value::Object(row));
            }
            known => self.addresses(table, prefix, index, known.addresses()),
        }
    }
}

fn number(protocol: Option<Protocol>) -> u8 {
    match protocol {
        Some(Protocol::Tcp) => 6,
        Some(Protocol::Udp) => 17,
        Some(Protocol::Dccp { .. }) => 33,
        Some(Protocol::Sctp) => 132,
        Some(Protocol::UdpLite) => 136,
        None => 0,
    }
}

/// dataOnly(0), dataPlusControl(1).
fn usage(usage: TransportUse) -> u16 {
    match usage {
        TransportUse::DataOnly => 0,
        TransportUse::DataPlusControl => 1,
        TransportUse::Other(other) => other,
    }
}

fn value(policy: &Policy, wanted: &str) -> u32 {
    let mut found = 0;
    policy.each_value(|name, value| {
        if name == wanted {
            found = value;
        }
    });
    found
}

fn ticks(milliseconds: u32) -> u32 {
    milliseconds / 10
}

/// What an element's row has under names that begin with `prefix`.
fn element_row(prefix: &str, element: ElementRef<'_>) -> Map<String, Value> {
    let whole = element.to_element();
    let port = |transport: Option<&Transport>| transport.map_or(0, Transport::port);
    let values = [
        ("ASAPTransportPort", json!(port(whole.asap.as_ref()))),
        ("UserTransportProto", json!(number(whole.transport.protocol()))),
        ("UserTransportPort", json!(port(Some(&whole.transport)))),
        ("UserTransportUse", json!(usage(whole.transport.usage()))),
        ("PolicyID", json!(whole.policy.type_code())),
        ("PolicyDescription", json!(whole.policy.to_string())),
        ("PolicyWeight", json!(value(&whole.policy, "weight"))),
        ("PolicyLoad", json!(value(&whole.policy, "load"))),
        ("PolicyLoadDeg", json!(value(&whole.policy, "degradation"))),
        ("RegistrationLife", json!(ticks(element.life()))),
        ("HomeENRPServer", json!(whole.home.0)),
    ];
    values.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// All of it, as it is read piece by piece. Elements may come and go between two of them; each piece continues behind the
/// last element of the one before.
#[derive(Debug)]
pub struct Reading {
    started: SystemTime,
    tables: Tables,
    begun: bool,
    /// Other registrars that were told.
    peers: usize,
    last: Option<(PoolHandle, PeId)>,
    /// Elements that were told, and those of them that are ours.
    told: usize,
    own: usize,
    pools: usize,
    in_pool: usize,
}

impl Reading {
    /// One that has not begun.
    pub fn new(started: SystemTime) -> Reading {
        let tables = Tables::default();
        Reading { started, tables, begun: false, peers: 0, last: None, told: 0, own: 0, pools: 0, in_pool: 0 }
    }

    /// Reads the next piece; after the last, the whole text.
    pub fn next_piece(&mut self, server: &Server) -> Option<String> {
        if !self.begun {
            self.begun = true;
            self.registrar(server);
        }
        let mut piece = Piece::new();
        for peer in server.machine().peers().iter().skip(self.peers) {
            if piece.is_spent() {
                return None;
            }
            let before = self.tables.size;
            self.peer(peer);
            piece.spend(self.tables.size - before);
        }
        let space = server.machine().handlespace();
        let last = self.last.clone();
        for element in space.elements_after(last.as_ref().map(|(handle, id)| (handle, *id))) {
            if piece.is_spent() {
                return None;
            }
            if self.told == MOST || self.tables.size >= MOST_TEXT {
                break;
            }
            let before = self.tables.size;
            self.element(server, element);
            piece.spend(self.tables.size - before);
        }
        let total = space.len();
        let rest = json!({ "elements": total, "elements_left_out": total.saturating_sub(self.told) });
        let tables: Vec<(&str, &Rows)> =
            self.tables.rows.iter().map(|(name, rows)| (&name[..], rows)).collect();
        Some(object(&rest, &tables))
    }

    fn registrar(&mut self, server: &Server) {
        let machine = server.machine();
        let uptime = self.started.elapsed().unwrap_or_default().as_millis() / 10;
        let port = |addresses: &[SocketAddr], sctp: Option<u16>| {
            addresses.first().map(SocketAddr::port).or(sctp).unwrap_or_default()
        };
        let (_, enrp_sctp) = server.sctp_ports();
        let group = |prefix: &str, group: Option<SocketAddr>| {
            let kind = group.map_or(0, |group| if group.is_ipv4() { 1 } else { 2 });
            let address = group.map(|group| group.ip().to_string()).unwrap_or_default();
            [
                (format!("rserpoolENRP{prefix}AnnouncePort"), json!(group.map_or(0, |group| group.port()))),
                (format!("rserpoolENRP{prefix}AnnounceAddrType"), json!(kind)),
                (format!("rserpoolENRP{prefix}AnnounceAddr"), json!(address)),
            ]
        };
        let (asap_group, enrp_group) = server.groups();
        let mut own = Map::new();
        own.insert("rserpoolENRPIndex".into(), json!(1));
        own.insert(
            "rserpoolENRPOperationScope".into(),
            json!(enrp_group.map(|group| group.to_string()).unwrap_or_default()),
        );
        own.insert("rserpoolENRPIdentifier".into(), json!(machine.id().0));
        let description = format!("rspregistrar {} at {}", env!("CARGO_PKG_VERSION"), host_name());
        own.insert("rserpoolENRPDescription".into(), json!(description));
        own.insert("rserpoolENRPUptime".into(), json!(u32::try_from(uptime).unwrap_or(u32::MAX)));
        own.insert("rserpoolENRPPort".into(), json!(port(server.enrp_addresses(), enrp_sctp)));
        own.extend(group("ASAP", asap_group).into_iter().chain(group("ENRP", enrp_group)));
        self.tables.add("rserpoolENRPTable", Value::Object(own));
        let here = json!({ "rserpoolENRPIndex": 1 });
        let own_addresses = server.own_enrp_addresses();
        self.tables.addresses("rserpoolENRPENRPAddrTable", "rserpoolENRPENRP", &here, &own_addresses);
    }

    fn peer(&mut self, peer: &PeerView) {
        self.peers += 1;
        self.tables.add(
            "rserpoolENRPPeerTable",
            json!({
                "rserpoolENRPIndex": 1,
                "rserpoolENRPPeerIndex": self.peers,
                "rserpoolENRPPeerIdentifier": peer.id.0,
                "rserpoolENRPPeerPort": peer.addresses.first().map_or(0, SocketAddr::port),
                "rserpoolENRPPeerLastHeard": peer.last_heard.map(|ago| ago.as_millis() / 10),
            }),
        );
        let addresses: Vec<IpAddr> = peer.addresses.iter().map(SocketAddr::ip).collect();
        let index = json!({ "rserpoolENRPIndex": 1, "rserpoolENRPPeerIndex": self.peers });
        self.tables.addresses("rserpoolENRPPeerAddrTable", "rserpoolENRPPeer", &index, &addresses);
    }

    fn element(&mut self, server: &Server, element: ElementRef<'_>) {
        let machine = server.machine();
        let whole = element.to_element();
        self.told += 1;
        if self.last.as_ref().is_none_or(|(last, _)| last != element.handle()) {
            (self.pools, self.in_pool) = (self.pools + 1, 0);
            let handle = element.handle().to_string();
            let row = json!({
                "rserpoolENRPIndex": 1, "rserpoolENRPPoolIndex": self.pools, "rserpoolENRPPoolHandle": handle,
            });
            self.tables.add("rserpoolENRPPoolTable", row);
        }
        self.last = Some((element.handle().clone(), element.id()));
        self.in_pool += 1;
        let index = json!({
            "rserpoolENRPIndex": 1,
            "rserpoolENRPPoolIndex": self.pools,
            "rserpoolENRPPoolElementIndex": self.in_pool,
        });
        let mut row = index.as_object().cloned().unwrap_or_default();
        row.insert("rserpoolENRPPoolElementID".into(), json!(whole.id.0));
        row.extend(element_row("rserpoolENRP", element));
        self.tables.add("rserpoolENRPPoolElementTable", Value::Object(row));
        let asap = whole.asap.as_ref().map(|asap| asap.addresses().to_vec()).unwrap_or_default();
        self.tables.addresses("rserpoolENRPASAPAddrTable", "rserpoolENRPASAP", &index, &asap);
        self.tables.user_addresses("rserpoolENRPUserAddrTable", "rserpoolENRPUser", &index, &whole.transport);
        if whole.home != machine.id() {
            return;
        }
        self.own += 1;
        let index = json!({ "rserpoolPEIndex": self.own });
        let since =
            machine.element_since(element.key()).map(|since| server.now() - since).unwrap_or_default();
        let mut row = index.as_object().cloned().unwrap_or_default();
        let scope = server.groups().1.map(|group| group.to_string()).unwrap_or_default();
        row.insert("rserpoolPEOperationScope".into(), json!(scope));
        row.insert("rserpoolPEPoolHandle".into(), json!(element.handle().to_string()));
        row.insert("rserpoolPEIdentifier".into(), json!(whole.id.0));
        row.insert("rserpoolPEDescription".into(), json!(""));
        row.insert("rserpoolPEUptime".into(), json!(since.as_millis() / 10));
        row.extend(element_row("rserpoolPE", element));
        self.tables.add("rserpoolPETable", Value::Object(row));
        self.tables.addresses("rserpoolPEASAPAddrTable", "rserpoolPEASAP", &index, &asap);
        self.tables.user_addresses("rserpoolPEUserAddrTable", "rserpoolPEUser", &index, &whole.transport);
    }
}
