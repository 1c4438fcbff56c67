//! The objects of the RSerPool MIB (RFC 5525) that a registrar knows, under the RFC's names: its own, and those of
//! the elements that it is home of. Tables are lists of rows; what a row is in (pool, element) stands in it as
//! index. InetAddressType is 1 or 2, addresses are text, TimeTicks hundredths of a second.

use rserpool::handlespace::ElementRef;
use rserpool::runtime::registrar::Server;
use rserpool::wire::{Policy, Protocol, Transport, TransportUse};
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

/// Elements in an answer; the others are counted.
const MOST: usize = 1000;

/// Rows of several tables, by the tables' names.
#[derive(Default)]
struct Tables(Map<String, Value>);

impl Tables {
    fn add(&mut self, table: &str, row: Value) {
        if let Value::Array(rows) = self.0.entry(table).or_insert_with(|| json!([])) {
            rows.push(row);
        }
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

/// All of it.
pub fn read(server: &Server, started: SystemTime) -> Value {
    let machine = server.machine();
    let mut tables = Tables::default();
    let uptime = started.elapsed().unwrap_or_default().as_millis() / 10;
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
    tables.add("rserpoolENRPTable", Value::Object(own));
    let here = json!({ "rserpoolENRPIndex": 1 });
    let own_addresses = server.own_enrp_addresses();
    tables.addresses("rserpoolENRPENRPAddrTable", "rserpoolENRPENRP", &here, &own_addresses);
    for (number, peer) in machine.peers().into_iter().enumerate() {
        tables.add(
            "rserpoolENRPPeerTable",
            json!({
                "rserpoolENRPIndex": 1,
                "rserpoolENRPPeerIndex": number + 1,
                "rserpoolENRPPeerIdentifier": peer.id.0,
                "rserpoolENRPPeerPort": peer.addresses.first().map_or(0, SocketAddr::port),
                "rserpoolENRPPeerLastHeard": peer.last_heard.map(|ago| ago.as_millis() / 10),
            }),
        );
        let addresses: Vec<IpAddr> = peer.addresses.iter().map(SocketAddr::ip).collect();
        let index = json!({ "rserpoolENRPIndex": 1, "rserpoolENRPPeerIndex": number + 1 });
        tables.addresses("rserpoolENRPPeerAddrTable", "rserpoolENRPPeer", &index, &addresses);
    }
    let total = machine.handlespace().len();
    elements(server, &mut tables);
    let mut all = tables.0;
    all.insert("elements".into(), json!(total));
    all.insert("elements_left_out".into(), json!(total.saturating_sub(MOST)));
    Value::Object(all)
}

fn elements(server: &Server, tables: &mut Tables) {
    let machine = server.machine();
    let (mut pools, mut in_pool, mut own) = (0, 0, 0);
    let mut last = None;
    for element in machine.handlespace().elements_after(None).take(MOST) {
        let whole = element.to_element();
        if last.as_ref() != Some(element.handle()) {
            last = Some(element.handle().clone());
            (pools, in_pool) = (pools + 1, 0);
            let handle = element.handle().to_string();
            let row = json!({
                "rserpoolENRPIndex": 1, "rserpoolENRPPoolIndex": pools, "rserpoolENRPPoolHandle": handle,
            });
            tables.add("rserpoolENRPPoolTable", row);
        }
        in_pool += 1;
        let index = json!({
            "rserpoolENRPIndex": 1, "rserpoolENRPPoolIndex": pools, "rserpoolENRPPoolElementIndex": in_pool,
        });
        let mut row = index.as_object().cloned().unwrap_or_default();
        row.insert("rserpoolENRPPoolElementID".into(), json!(whole.id.0));
        row.extend(element_row("rserpoolENRP", element));
        tables.add("rserpoolENRPPoolElementTable", Value::Object(row));
        let asap = whole.asap.as_ref().map(|asap| asap.addresses().to_vec()).unwrap_or_default();
        tables.addresses("rserpoolENRPASAPAddrTable", "rserpoolENRPASAP", &index, &asap);
        tables.user_addresses("rserpoolENRPUserAddrTable", "rserpoolENRPUser", &index, &whole.transport);
        if whole.home != machine.id() {
            continue;
        }
        own += 1;
        let index = json!({ "rserpoolPEIndex": own });
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
        tables.add("rserpoolPETable", Value::Object(row));
        tables.addresses("rserpoolPEASAPAddrTable", "rserpoolPEASAP", &index, &asap);
        tables.user_addresses("rserpoolPEUserAddrTable", "rserpoolPEUser", &index, &whole.transport);
    }
}
