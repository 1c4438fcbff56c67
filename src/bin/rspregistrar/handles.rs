//! What an operator may change over the page: POST requests with the token of `--httptoken`, so that neither a
//! page elsewhere in the operator's browser nor another user of the host can; or with an operator's certificate.
//! Neither is of use where others on the way could read or change the request.

use super::pieces::Piece;
use super::request::Request;
use rserpool::machine::registrar::{Impossible, Operated, Operation};
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, Policy, PoolHandle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Elements that one request changes at most.
const MOST: usize = 10_000;

/// What becomes of a request.
#[derive(Debug)]
pub enum Doing {
    /// The status and what to say.
    Now(&'static str, Value),
    /// It is done piece by piece.
    Goes(Maintenance),
}

/// Does what is asked, or begins with it.
pub fn answer(server: &mut Server, token: Option<&[u8]>, request: &Request) -> Doing {
    let refused = |status, why: &str| Doing::Now(status, json!({ "error": why }));
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
        return match Maintenance::new(request) {
            Some(maintenance) => Doing::Goes(maintenance),
            None => refused("400 Bad Request", "address is wanted"),
        };
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
        Ok(Operated::Done) => Doing::Now("200 OK", json!({ "done": operation.name() })),
        Ok(Operated::Asked(home)) => Doing::Now("202 Accepted", json!({ "asked": home.to_string() })),
        Err(why) => Doing::Now(status(why), json!({ "error": why.to_string() })),
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
#[derive(Debug)]
pub struct Maintenance {
    address: IpAddr,
    end: bool,
    /// How far it has come.
    last: Option<(PoolHandle, PeId)>,
    done: usize,
    asked: usize,
    /// The homes of those that are others' to change.
    homes: BTreeSet<String>,
    failed: Vec<String>,
    changed: usize,
}

impl Maintenance {
    /// `None`: no address is named.
    fn new(request: &Request) -> Option<Maintenance> {
        let address = request.text("address")?.parse::<IpAddr>().ok()?.to_canonical();
        let end = request.text("end").is_some();
        let (homes, failed) = (BTreeSet::new(), Vec::new());
        Some(Maintenance { address, end, last: None, done: 0, asked: 0, homes, failed, changed: 0 })
    }

    /// Does the next piece; after the last, what to say.
    pub fn next_piece(&mut self, server: &mut Server) -> Option<String> {
        let mut piece = Piece::new();
        let mut found = Vec::new();
        let last = self.last.clone();
        let space = server.machine().handlespace();
        for element in space.elements_after(last.as_ref().map(|(handle, id)| (handle, *id))) {
            if piece.is_spent() || self.changed >= MOST {
                break;
            }
            let key = (element.handle().clone(), element.id());
            piece.spend(key.0.as_bytes().len());
            let transport = element.to_client_element().transport;
            if element.marks().drained == self.end
                && transport.addresses().iter().any(|ip| ip.to_canonical() == self.address)
            {
                self.changed += 1;
                found.push(key.clone());
            }
            self.last = Some(key);
        }
        let operation = if self.end { Operation::Undrain } else { Operation::Drain };
        for (handle, id) in found {
            match server.operate(&handle, id, &operation) {
                Ok(Operated::Done) => self.done += 1,
                Ok(Operated::Asked(home)) => {
                    self.asked += 1;
                    self.homes.insert(home.to_string());
                }
                Err(why) if self.failed.len() < 100 => self.failed.push(format!("{handle}/{id}: {why}")),
                Err(_) => {}
            }
        }
        if piece.is_spent() && self.changed < MOST {
            return None;
        }
        let Maintenance { done, asked, homes, failed, .. } = self;
        Some(json!({ "done": done, "asked": asked, "homes": homes, "failed": failed }).to_string())
    }
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
