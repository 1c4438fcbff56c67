//! The status page: `/healthz`, `/handlespace` and `/metrics` on the registrar's own loop.
//!
//! Bounds: [`MAX_CONNECTIONS`] at a time (the oldest gives way), [`MAX_REQUEST`] bytes of request,
//! [`PATIENCE`] for a request and for reading its answer.

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rserpool::handlespace::ElementRef;
use rserpool::machine::registrar::Registrar;
use rserpool::runtime::registrar::{FIRST_TOKEN, LinkStats, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MAX_CONNECTIONS: usize = 64;
const MAX_REQUEST: usize = 8192;
const PATIENCE: Duration = Duration::from_secs(10);
const LISTENER: usize = FIRST_TOKEN + 8;

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    since: Instant,
}

/// The page's listener and connections.
pub struct Page {
    listener: TcpListener,
    connections: BTreeMap<usize, Connection>,
    next: usize,
}

impl Page {
    pub fn bind(address: SocketAddr, registry: &Registry) -> io::Result<Page> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, Token(LISTENER), Interest::READABLE)?;
        Ok(Page { listener, connections: BTreeMap::new(), next: LISTENER + 1 })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// A source of ours may be ready. Tokens of others are ignored.
    pub fn ready(&mut self, token: Token, server: &Server) {
        if token.0 == LISTENER {
            self.accept(server.registry());
        } else if let Some(connection) = self.connections.get_mut(&token.0)
            && !connection.serve(server)
        {
            self.connections.remove(&token.0);
        }
    }

    fn accept(&mut self, registry: &Registry) {
        let now = Instant::now();
        self.connections.retain(|_, connection| now - connection.since < PATIENCE);
        while let Ok((mut stream, _)) = self.listener.accept() {
            if self.connections.len() >= MAX_CONNECTIONS {
                self.connections.pop_first();
            }
            self.next += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut stream, Token(self.next), interest).is_ok() {
                let connection =
                    Connection { stream, input: Vec::new(), output: Vec::new(), written: 0, since: now };
                self.connections.insert(self.next, connection);
            }
        }
    }
}

impl Connection {
    /// False when the connection is to be closed.
    fn serve(&mut self, server: &Server) -> bool {
        if self.output.is_empty() {
            match self.read() {
                Ok(true) => self.output = answer(&self.input, server),
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return false,
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // Answered: the end of the stream is the end of the answer.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        false
    }

    /// True when the whole head of the request is here.
    fn read(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.input.windows(4).any(|end| end == b"\r\n\r\n") || self.input.len() > MAX_REQUEST {
                return Ok(true);
            }
        }
    }
}

fn answer(request: &[u8], server: &Server) -> Vec<u8> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let complete = matches!(head.parse(request), Ok(httparse::Status::Complete(_)));
    let (status, kind, body) = match (complete, head.method, head.path) {
        (false, ..) => ("400 Bad Request", "text/plain", "bad request\n".to_string()),
        (_, Some("GET" | "HEAD"), Some(path)) => page(path.split('?').next().unwrap_or(path), server),
        _ => ("405 Method Not Allowed", "text/plain", "only GET\n".to_string()),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if head.method != Some("HEAD") {
        answer += &body;
    }
    answer.into_bytes()
}

fn page(path: &str, server: &Server) -> (&'static str, &'static str, String) {
    match path {
        "/healthz" if server.machine().is_serving() => ("200 OK", "text/plain", "ok\n".into()),
        "/healthz" => ("503 Service Unavailable", "text/plain", "joining the operation scope\n".into()),
        "/handlespace" => ("200 OK", "application/json", format!("{}\n", handlespace(server))),
        "/metrics" => match metrics(server.machine(), server.link_stats()) {
            Ok(text) => ("200 OK", "application/openmetrics-text; version=1.0.0", text),
            Err(error) => ("500 Internal Server Error", "text/plain", format!("{error}\n")),
        },
        _ => ("404 Not Found", "text/plain", "/healthz, /handlespace or /metrics\n".into()),
    }
}

/// Handles that are text as text, others as `\xNN` escapes.
fn handlespace(server: &Server) -> Value {
    let registrar = server.machine();
    let pools: Vec<Value> = registrar
        .handlespace()
        .pools()
        .map(|pool| {
            json!({
                "handle": pool.handle().to_string(),
                "policy": pool.policy().name(),
                "elements": pool.elements().map(|element| element_json(&element, server)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let peers: Vec<Value> = registrar
        .peers()
        .iter()
        .map(|peer| {
            json!({
                "id": peer.id.to_string(),
                "addresses": peer.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
                "elements": peer.elements,
                "state": peer.state,
                "last_heard_s": peer.last_heard.map(|ago| ago.as_secs_f64()),
            })
        })
        .collect();
    json!({
        "registrar": registrar.id().to_string(),
        "serving": registrar.is_serving(),
        "pools": pools,
        "peers": peers,
    })
}

fn element_json(element: &ElementRef<'_>, server: &Server) -> Value {
    let whole = element.to_element();
    let age = server.machine().element_age(server.now(), element.key());
    json!({
        "id": whole.id.to_string(),
        "home": whole.home.to_string(),
        "life_ms": whole.life,
        "transport": transport_json(&whole.transport),
        "asap_transport": whole.asap.as_ref().map(transport_json),
        "policy": whole.policy.to_string(),
        "age_s": age.map(|age| age.as_secs_f64()),
    })
}

fn transport_json(transport: &rserpool::wire::Transport) -> Value {
    json!({
        "protocol": transport.protocol().map(|protocol| format!("{protocol:?}").to_lowercase()),
        "use": format!("{:?}", transport.usage()),
        "addresses": transport.socket_addresses().map(|address| address.to_string()).collect::<Vec<_>>(),
    })
}

fn metrics(registrar: &Registrar, links: LinkStats) -> Result<String, std::fmt::Error> {
    let mut registry = prometheus_client::registry::Registry::with_prefix("rserpool");
    let stats = registrar.stats();
    let gauges = [
        ("pools", "Pools in the handlespace", registrar.handlespace().pool_count()),
        ("elements", "Pool elements in the handlespace", registrar.handlespace().len()),
        (
            "owned_elements",
            "Pool elements whose home this is",
            registrar.handlespace().owned_count(registrar.id()),
        ),
        ("peers", "Registrars known", registrar.peers().len()),
        ("serving", "1 when ASAP is served", usize::from(registrar.is_serving())),
        ("links", "Connections open", links.open),
    ];
    for (name, help, value) in gauges {
        registry.register(name, help, ConstGauge::new(value as i64));
    }
    let counters = [
        ("registrations", "Registrations and re-registrations received", stats.registrations),
        ("deregistrations", "Deregistrations received", stats.deregistrations),
        ("handle_resolutions", "Handle resolutions received", stats.handle_resolutions),
        ("endpoint_unreachables", "Unreachability reports received", stats.endpoint_unreachables),
        ("keep_alives", "Endpoint keep-alives sent", stats.keep_alives_sent),
        (
            "elements_lost",
            "Elements removed for not answering or losing their connection",
            stats.elements_lost,
        ),
        ("subscription_messages", "Changed pools sent to subscribers", stats.subscription_messages),
        ("handle_updates_sent", "Handle updates sent to peers", stats.handle_updates_sent),
        ("handle_updates_received", "Handle updates received from peers", stats.handle_updates_received),
        ("takeovers", "Takeovers done", stats.takeovers),
        ("resynchronisations", "Resynchronisations with a peer", stats.resynchronisations),
        ("messages_rejected", "Messages answered with an error or dropped", stats.messages_rejected),
        ("links_accepted", "Connections accepted", links.accepted),
        ("links_refused", "Connections closed at once, there being too many", links.refused),
        ("messages", "Messages received", links.messages),
        ("garbage", "Connections dropped for sending no messages", links.garbage),
        ("half_messages", "Connections dropped for a message without end", links.half_messages),
        ("overflows", "Connections dropped for not reading", links.overflows),
    ];
    for (name, help, value) in counters {
        registry.register(name, help, ConstCounter::new(value));
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
