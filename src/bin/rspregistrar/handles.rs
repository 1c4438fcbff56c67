//! What an operator may change over the page: POST requests with the token of `--httptoken`, so that neither a
//! page elsewhere in the operator's browser nor another user of the host can; or with an operator's certificate.
//! Neither is of use where others on the way could read or change the request.

use super::request::Request;
use rserpool::machine::registrar::{Impossible, Operated, Operation};
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, Policy, PoolHandle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Elements that one request changes at most.
const MOST: usize = 10_000;

/// The status and what to say.
pub fn answer(server: &mut Server, token: Option<&[u8]>, request: &Request) -> (&'static str, Value) {
    let refused = |status, why: &str| (status, json!({ "error": why }));
    let Some(action) = request.path.strip_prefix("/api/") else {
        return refused("405 Method Not Allowed", "only /api/.. takes POST");
    };
    if !request.is_private {
        return refused(
            "403 Forbidden",
            "changes are taken over TLS (https) or on the registrar's host only",
        );
    }
    match token {
        _ if request.is_operators => {
            if request.is_foreign() {
                return refused("403 Forbidden", "a page of another site may not change anything");
            }
        }
        None => {
            let why = "the registrar has no --httptoken, so nobody without an operator's certificate may change anything";
            return refused("403 Forbidden", why);
        }
        Some(token) if request.token.as_deref().is_some_and(|given| same(given, token)) => {}
        Some(_) => return refused("401 Unauthorized", "the token is missing or wrong"),
    }
    if action == "maintenance" {
        return maintenance(server, request);
    }
    let (Some(handle), Some(id)) = (request.handle("pool"), request.id("id")) else {
        return refused("400 Bad Request", "pool and id are wanted");
    };
    let operation = match action {
        "drain" => Operation::Drain,
        "undrain" => Operation::Undrain,
        "deregister" => Operation::Deregister,
        "set" => match wanted(server, request, &handle, id) {
            Ok(operation) => operation,
            Err(why) => return refused("400 Bad Request", &why),
        },
        _ => return refused("404 Not Found", "no such action"),
    };
    match server.operate(&handle, id, &operation) {
        Ok(Operated::Done) => ("200 OK", json!({ "done": operation.name() })),
        Ok(Operated::Asked(home)) => ("202 Accepted", json!({ "asked": home.to_string() })),
        Err(why) => (status(why), json!({ "error": why.to_string() })),
    }
}

fn status(why: Impossible) -> &'static str {
    match why {
        Impossible::Unknown => "404 Not Found",
        Impossible::OtherPolicy => "400 Bad Request",
        Impossible::Foreign(_) => "501 Not Implemented",
        Impossible::Unreachable(_) => "503 Service Unavailable",
    }
}

/// Compares without telling by its time how much is right.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len() && given.iter().zip(token).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The element's policy with some of its values replaced; with `own`, its own ones again.
fn wanted(server: &Server, request: &Request, handle: &PoolHandle, id: PeId) -> Result<Operation, String> {
    if request.text("own").is_some() {
        return Ok(Operation::UnsetPolicy);
    }
    let space = server.machine().handlespace();
    let element = space.find(handle, id).and_then(|key| space.get(key)).ok_or("no such element")?;
    let mut policy = element.policy();
    let mut set = 0;
    for name in ["weight", "priority", "load", "degradation"] {
        let Some(text) = request.text(name) else { continue };
        let value = text.parse::<u32>().map_err(|_| format!("{name}={text}: not a number"))?;
        if !put_value(&mut policy, name, value) {
            return Err(format!("{name}: policy {policy} has no such value"));
        }
        set += 1;
    }
    match set {
        0 => Err("weight, priority, load, degradation or own is wanted".into()),
        _ => Ok(Operation::SetPolicy(policy)),
    }
}

/// Replaces one value; `false`: the policy has none of that name.
fn put_value(policy: &mut Policy, name: &str, value: u32) -> bool {
    let place = match (policy, name) {
        (
            Policy::WeightedRoundRobin { weight }
            | Policy::WeightedRandom { weight }
            | Policy::WeightedRandomDpf { weight, .. },
            "weight",
        ) => weight,
        (Policy::Priority { priority }, "priority") => priority,
        (
            Policy::LeastUsed { load }
            | Policy::RandomizedLeastUsed { load }
            | Policy::LeastUsedDegradation { load, .. }
            | Policy::PriorityLeastUsed { load, .. },
            "load",
        ) => load,
        (
            Policy::LeastUsedDegradation { degradation, .. } | Policy::PriorityLeastUsed { degradation, .. },
            "degradation",
        ) => degradation,
        _ => return false,
    };
    *place = value;
    true
}

/// Drains (or undrains) everything that is served from an address, which is about to be worked on.
fn maintenance(server: &mut Server, request: &Request) -> (&'static str, Value) {
    let address = request.text("address").and_then(|text| text.parse::<IpAddr>().ok());
    let Some(address) = address.map(|address| address.to_canonical()) else {
        return ("400 Bad Request", json!({ "error": "address is wanted" }));
    };
    let end = request.text("end").is_some();
    let operation = if end { Operation::Undrain } else { Operation::Drain };
    let there = |element: &rserpool::handlespace::ElementRef<'_>| {
        let transport = element.to_client_element().transport;
        element.marks().drained == end && transport.addresses().iter().any(|ip| ip.to_canonical() == address)
    };
    let space = server.machine().handlespace();
    let found: Vec<(PoolHandle, PeId)> = space
        .elements_after(None)
        .filter(there)
        .take(MOST)
        .map(|element| (element.handle().clone(), element.id()))
        .collect();
    let (mut done, mut asked, mut homes, mut failed) = (0, 0, BTreeSet::new(), Vec::new());
    for (handle, id) in found {
        match server.operate(&handle, id, &operation) {
            Ok(Operated::Done) => done += 1,
            Ok(Operated::Asked(home)) => {
                asked += 1;
                homes.insert(home.to_string());
            }
            Err(why) => failed.push(format!("{handle}/{id}: {why}")),
        }
    }
    failed.truncate(100);
    ("200 OK", json!({ "done": done, "asked": asked, "homes": homes, "failed": failed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_compared_as_a_whole() {
        assert!(same(b"secret", b"secret"));
        for wrong in [&b"secreT"[..], b"secre", b"secret1", b""] {
            assert!(!same(wrong, b"secret"));
        }
    }

    #[test]
    fn values_by_their_names() {
        let mut policy = Policy::LeastUsedDegradation { load: 1, degradation: 2 };
        assert!(put_value(&mut policy, "load", 7) && put_value(&mut policy, "degradation", 8));
        assert!(!put_value(&mut policy, "weight", 1));
        assert_eq!(policy, Policy::LeastUsedDegradation { load: 7, degradation: 8 });
        assert!(!put_value(&mut Policy::RoundRobin, "weight", 1));
    }
}
