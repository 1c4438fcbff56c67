//! Messages as JSON: the fields of the Rust types under the same names.
//!
//! Every message has `protocol` (`asap`, `enrp`, `csp`), `type` (as `show` prints it) and
//! `unrecognized` (whole TLVs in hexadecimal); ENRP ones also `sender` and `receiver`. Identifiers
//! and other byte strings are hexadecimal text, pool handles UTF-8 text with `\xNN` for
//! other bytes, as `rspctl` reads them back, and loads, degradations and distance penalties the plain 32-bit numbers of the wire.

use rserpool::wire::enrp::UpdateAction;
use rserpool::wire::{
    Asap, CspReport, DecodeError, Decoded, Enrp, EnrpMessage, OperationError, Policy, PoolElement, Protocol,
    ServerInformation, Transport, TransportUse,
};
use serde_json::{Map, Value, json};

/// Lowercase hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An ASAP message.
pub fn asap(decoded: &Decoded<Asap>) -> Value {
    let fields = match &decoded.message {
        Asap::Registration { handle, element: pe } => {
            json!({ "handle": handle.to_string(), "element": element(pe) })
        }
        Asap::Deregistration { handle, id }
        | Asap::EndpointKeepAliveAck { handle, id }
        | Asap::EndpointUnreachable { handle, id } => {
            json!({ "handle": handle.to_string(), "id": id.to_string() })
        }
        Asap::RegistrationResponse { rejected, handle, id, error } => json!({
            "rejected": rejected,
            "handle": handle.to_string(),
            "id": id.to_string(),
            "error": error.as_ref().map(causes),
        }),
        Asap::DeregistrationResponse { handle, id, error } => json!({
            "handle": handle.to_string(),
            "id": id.to_string(),
            "error": error.as_ref().map(causes),
        }),
        Asap::HandleResolution { subscribe, handle, items } => {
            json!({ "subscribe": subscribe, "handle": handle.to_string(), "items": items })
        }
        Asap::HandleResolutionResponse {
            subscribed,
            handle,
            error,
            policy: pool_policy,
            elements: list,
            total,
            lost,
            deregistered,
        } => json!({
            "subscribed": subscribed,
            "handle": handle.to_string(),
            "error": error.as_ref().map(causes),
            "policy": pool_policy.as_ref().map(policy),
            "elements": elements(list),
            "total": total,
            "lost": lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "deregistered": deregistered.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Asap::EndpointKeepAlive { home, registrar, handle, id } => json!({
            "home": home,
            "registrar": registrar.to_string(),
            "handle": handle.to_string(),
            "id": id.as_ref().map(ToString::to_string),
        }),
        Asap::ServerAnnounce { registrar, transports: list } => {
            json!({ "registrar": registrar.to_string(), "transports": transports(list) })
        }
        Asap::Cookie { cookie } | Asap::CookieEcho { cookie } => json!({ "cookie": hex(cookie) }),
        Asap::BusinessCard { handle, policy: pool_policy, elements: list } => json!({
            "handle": handle.to_string(),
            "policy": pool_policy.as_ref().map(policy),
            "elements": elements(list),
        }),
        Asap::Error { error } => json!({ "error": causes(error) }),
    };
    message("asap", decoded.message.kind().to_string(), json!({}), fields, &decoded.unrecognized)
}

/// An ENRP message.
pub fn enrp(decoded: &Decoded<EnrpMessage>) -> Value {
    let EnrpMessage { sender, receiver, body } = &decoded.message;
    let fields = match body {
        Enrp::Presence { reply_required, checksum, server: information } => json!({
            "reply_required": reply_required,
            "checksum": checksum.map(|bytes| hex(&bytes)),
            "server": information.as_ref().map(server),
        }),
        Enrp::HandleTableRequest { own_only } => json!({ "own_only": own_only }),
        Enrp::HandleTableResponse { rejected, more, pools } => {
            let pools: Vec<Value> = pools
                .iter()
                .map(|(handle, list)| json!({ "handle": handle.to_string(), "elements": elements(list) }))
                .collect();
            json!({ "rejected": rejected, "more": more, "pools": pools })
        }
        Enrp::HandleUpdate { takeover_suggested, action, handle, element: pe } => json!({
            "takeover_suggested": takeover_suggested,
            "action": match action {
                UpdateAction::Add => "add",
                UpdateAction::Delete => "delete",
            },
            "handle": handle.to_string(),
            "element": element(pe),
        }),
        Enrp::ListRequest => json!({}),
        Enrp::ListResponse { rejected, servers } => {
            json!({ "rejected": rejected, "servers": servers.iter().map(server).collect::<Vec<_>>() })
        }
        Enrp::InitTakeover { target }
        | Enrp::InitTakeoverAck { target }
        | Enrp::TakeoverServer { target } => json!({ "target": target.to_string() }),
        Enrp::Error { error } => json!({ "error": causes(error) }),
    };
    let ids = json!({ "sender": sender.to_string(), "receiver": receiver.to_string() });
    message("enrp", body.kind().to_string(), ids, fields, &decoded.unrecognized)
}

/// A CSP report. `sender` and `receiver` have `group` and `object`; times are microseconds.
pub fn csp(report: &CspReport) -> Value {
    let id =
        |id: rserpool::wire::CspId| json!({ "group": id.group(), "object": format!("{:#x}", id.object()) });
    let associations: Vec<Value> = report
        .associations
        .iter()
        .map(|association| {
            json!({
                "receiver": id(association.receiver),
                "duration": association.duration,
                "flags": association.flags,
                "protocol": association.protocol,
                "ppid": association.ppid,
            })
        })
        .collect();
    let fields = json!({
        "last": report.last,
        "sender": id(report.sender),
        "timestamp": report.timestamp,
        "interval": report.interval,
        "location": String::from_utf8_lossy(&report.location),
        "status": String::from_utf8_lossy(&report.status),
        "workload": report.workload,
        "associations": associations,
    });
    message("csp", "Report".into(), json!({}), fields, &[])
}

/// A message that cannot be decoded: where and why not, the cause to answer with (`null`: none), and
/// its bytes.
pub fn broken(protocol: &str, bytes: &[u8], error: &DecodeError) -> Value {
    json!({
        "protocol": protocol,
        "broken": {
            "at": error.at,
            "reason": error.reason,
            "cause": error.cause.as_ref().map(|cause| cause.code.0),
        },
        "bytes": hex(bytes),
    })
}

/// Puts a message's parts into one object.
fn message(protocol: &str, kind: String, ids: Value, fields: Value, unrecognized: &[Vec<u8>]) -> Value {
    let mut object = Map::new();
    object.insert("protocol".into(), protocol.into());
    object.insert("type".into(), kind.into());
    for part in [ids, fields] {
        if let Value::Object(part) = part {
            object.extend(part);
        }
    }
    let unrecognized: Vec<String> = unrecognized.iter().map(|tlv| hex(tlv)).collect();
    object.insert("unrecognized".into(), unrecognized.into());
    Value::Object(object)
}

/// A pool element; `life` in milliseconds.
pub fn element(element: &PoolElement) -> Value {
    json!({
        "id": element.id.to_string(),
        "home": element.home.to_string(),
        "life": element.life,
        "transport": transport(&element.transport),
        "policy": policy(&element.policy),
        "asap": element.asap.as_ref().map(transport),
    })
}

fn elements(list: &[PoolElement]) -> Vec<Value> {
    list.iter().map(element).collect()
}

/// A transport: `protocol` (`sctp`, `tcp`, `udp`, `udplite`, `dccp`) with `port`, `usage` and
/// `addresses`, or `opaque` with `data`.
pub fn transport(transport: &Transport) -> Value {
    let (protocol, port, usage, addresses) = match transport {
        Transport::Opaque(data) => return json!({ "protocol": "opaque", "data": hex(data) }),
        Transport::Address { protocol, port, usage, addresses } => (protocol, port, usage, addresses),
    };
    let mut object = json!({
        "protocol": match protocol {
            Protocol::Dccp { .. } => "dccp".to_owned(),
            other => other.to_string(),
        },
        "port": port,
        "usage": match usage {
            TransportUse::DataOnly => json!("data"),
            TransportUse::DataPlusControl => json!("data+control"),
            TransportUse::Other(code) => json!(code),
        },
        "addresses": addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if let Protocol::Dccp { service_code } = protocol {
        object["service_code"] = json!(service_code);
    }
    object
}

fn transports(list: &[Transport]) -> Vec<Value> {
    list.iter().map(transport).collect()
}

/// A policy: `type`, `name`, and the policy's own values (of an unknown one: `value`).
pub fn policy(policy: &Policy) -> Value {
    let mut object = json!({ "type": policy.type_code(), "name": policy.name() });
    policy.each_value(|name, value| object[name] = json!(value));
    if let Policy::Unknown { value, .. } = policy {
        object["value"] = json!(hex(value));
    }
    object
}

fn server(server: &ServerInformation) -> Value {
    json!({ "id": server.id.to_string(), "transports": transports(&server.transports) })
}

/// An error: its causes with `code`, `name` and `data`.
pub fn causes(error: &OperationError) -> Value {
    let causes = error.0.iter();
    causes
        .map(|cause| json!({ "code": cause.code.0, "name": cause.code.name(), "data": hex(&cause.data) }))
        .collect()
}
