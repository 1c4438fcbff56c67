//! What the status page says: `/healthz`, `/handlespace`, `/metrics`.

use super::metrics;
use rserpool::handlespace::ElementRef;
use rserpool::machine::Time;
use rserpool::machine::registrar::Registrar;
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, Policy, PoolHandle, Transport};
use serde_json::{Map, Value, json};

/// Elements per piece of the handlespace: less than a millisecond's work.
const PIECE: usize = 128;
/// Bytes of a piece after which it is not made longer: pool handles may be long.
const PIECE_BYTES: usize = 64 << 10;

/// What was asked for: `Ok(path)`, or `Err(status)`. `None`: the request is not complete.
pub type Asked = Result<(String, bool), &'static str>;

/// The answer to a request: what to send at once, and the page that the rest comes from.
pub fn answer(server: &Server, asked: Asked) -> (Vec<u8>, Option<Page>) {
    let (path, with_body) = match asked {
        Ok(asked) => asked,
        Err(status) => return (short(status, status, true), None),
    };
    match path.as_str() {
        "/healthz" if server.machine().is_serving() => (short("200 OK", "ok", with_body), None),
        "/healthz" => (short("503 Service Unavailable", "starting", with_body), None),
        "/metrics" => {
            let body = metrics::encode(server);
            (whole("200 OK", metrics::CONTENT_TYPE, &body, with_body), None)
        }
        "/handlespace" => {
            // The end of the connection is the end of the page, since its length is not known yet.
            let head = head("200 OK", "application/json") + "\r\n";
            (head.into_bytes(), with_body.then(Page::default))
        }
        "/" => (short("200 OK", "rspregistrar: /healthz /handlespace /metrics", with_body), None),
        _ => (short("404 Not Found", "no such page", with_body), None),
    }
}

fn head(status: &str, content_type: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\nConnection: close\r\n"
    )
}

fn whole(status: &str, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let mut out = head(status, content_type);
    out += &format!("Content-Length: {}\r\n\r\n", body.len());
    if with_body {
        out += body;
    }
    out.into_bytes()
}

fn short(status: &str, text: &str, with_body: bool) -> Vec<u8> {
    whole(status, "text/plain; charset=utf-8", &format!("{text}\n"), with_body)
}

/// The handlespace as JSON, in pieces. Elements may come and go between two of them; each piece
/// continues behind the last element of the one before.
#[derive(Debug, Default)]
pub struct Page {
    begun: bool,
    last: Option<(PoolHandle, PeId)>,
}

impl Page {
    /// Adds the next piece; whether that was the last.
    pub fn next_piece(&mut self, server: &Server, out: &mut Vec<u8>) -> bool {
        let registrar = server.machine();
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(beginning(server).as_bytes());
        }
        let after = self.last.clone();
        let after = after.as_ref().map(|(handle, id)| (handle, *id));
        for (count, element) in registrar.handlespace().elements_after(after).enumerate() {
            if count == PIECE || count > 0 && out.len() >= PIECE_BYTES {
                return false;
            }
            self.element(registrar, server.now(), element, out);
        }
        out.extend_from_slice(if self.last.is_some() { b"]}]}\n" } else { b"]}\n" });
        true
    }

    fn element(&mut self, registrar: &Registrar, now: Time, element: ElementRef<'_>, out: &mut Vec<u8>) {
        let handle = element.handle();
        match &self.last {
            Some((last, _)) if last == handle => out.push(b','),
            last => {
                out.extend_from_slice(if last.is_some() { b"]}," } else { b"" });
                out.extend_from_slice(pool(registrar, handle).as_bytes());
            }
        }
        self.last = Some((handle.clone(), element.id()));
        let age = registrar.element_age(now, element.key()).map(|age| age.as_secs_f64());
        out.extend_from_slice(describe(element, age).to_string().as_bytes());
    }
}

/// Up to the list of pools. All of it stands in one line, for the sake of shell scripts.
fn beginning(server: &Server) -> String {
    let registrar = server.machine();
    let space = registrar.handlespace();
    let peers: Vec<Value> = registrar
        .peers()
        .into_iter()
        .map(|peer| {
            json!({
                "id": peer.id.to_string(),
                "addresses": peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "last_heard_s": peer.last_heard.map(|ago| ago.as_secs_f64()),
                "elements": peer.elements,
                "state": peer.state,
            })
        })
        .collect();
    let checksum = space.checksum(registrar.id());
    let beginning = json!({
        "registrar": registrar.id().to_string(),
        "serving": registrar.is_serving(),
        "pool_count": space.pool_count(),
        "element_count": space.len(),
        "owned_count": space.owned_count(registrar.id()),
        "checksum": format!("0x{:02x}{:02x}", checksum[0], checksum[1]),
        "peers": peers,
    });
    opened(&beginning, "pools")
}

/// Up to the list of the pool's elements. Handles that are text as text, others as `\xNN` escapes.
fn pool(registrar: &Registrar, handle: &PoolHandle) -> String {
    let policy = registrar.handlespace().pool(handle).map(|pool| policy_name(&pool.policy()));
    opened(&json!({ "handle": handle.to_string(), "policy": policy }), "elements")
}

/// An object whose last member, a list, is to be continued.
fn opened(object: &Value, list: &str) -> String {
    let mut text = object.to_string();
    text.pop();
    text + &format!(",\"{list}\":[")
}

fn policy_name(policy: &Policy) -> String {
    policy.name().map_or_else(|| format!("0x{:08x}", policy.type_code()), str::to_string)
}

fn describe(element: ElementRef<'_>, age: Option<f64>) -> Value {
    let whole = element.to_element();
    let mut values = Map::new();
    whole.policy.each_value(|name, value| _ = values.insert(name.into(), value.into()));
    json!({
        "id": whole.id.to_string(),
        "home": whole.home.to_string(),
        "life_ms": whole.life,
        "transport": transport(&whole.transport),
        "asap_transport": whole.asap.as_ref().map(transport),
        "policy": whole.policy.to_string(),
        "policy_values": values,
        "age_s": age,
    })
}

fn transport(transport: &Transport) -> Value {
    json!({
        "protocol": transport.protocol().map(|protocol| format!("{protocol:?}").to_lowercase()),
        "use": format!("{:?}", transport.usage()),
        "addresses": transport.socket_addresses().map(|address| address.to_string()).collect::<Vec<_>>(),
    })
}
