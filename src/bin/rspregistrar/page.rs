//! What the operator's page answers: the page itself, `/events`, `/api/..`, `/healthz`, `/handlespace`, `/metrics`,
//! `/mib`.

use super::events::{self, Stream};
use super::metrics::{Format, Program, Scrape};
use super::pieces::opened;
use super::request::Request;
use super::{api, handles, mib};
use rserpool::dns::Counts;
use rserpool::handlespace::ElementRef;
use rserpool::machine::Time;
use rserpool::machine::registrar::Registrar;
use rserpool::runtime::registrar::Server;
use rserpool::wire::{PeId, PoolHandle};
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// Elements per piece of the handlespace: less than a millisecond's work.
const PIECE: usize = 128;
/// Bytes of a piece after which it is not made longer: pool handles may be long.
const PIECE_BYTES: usize = 64 << 10;
/// Refusal of a request without TLS (RFC 9110 section 15.5.22).
pub const WANTS_TLS: &str = "426 Upgrade Required";
/// Refusal of an event stream.
pub const TOO_MANY_STREAMS: &str = "503 Service Unavailable";

/// What answers need to know beside the server.
#[derive(Debug)]
pub struct Site {
    pub started: SystemTime,
    /// Pools that /metrics tells apart.
    pub max_metric_pools: usize,
    /// When the configuration was read again last, and whether it was taken.
    pub reload: Option<(SystemTime, bool)>,
    /// Who knows this may change things.
    pub token: Option<Vec<u8>>,
    /// What was asked over DNS, and connections for that.
    pub dns: Option<(Counts, usize)>,
}

/// What is sent to a request: at once, in pieces, or for ever.
#[derive(Debug)]
pub enum Answer {
    Whole(Vec<u8>),
    Long(Vec<u8>, Page),
    Stream(Vec<u8>, Stream),
}

/// The answer to a request, or to one that is refused.
pub fn answer(
    server: &mut Server,
    site: &Site,
    streams: usize,
    request: Result<Request, &'static str>,
) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(status) => return Answer::Whole(short(status, status, true)),
    };
    let with_body = request.with_body;
    let json = |value: &Value| whole("200 OK", "application/json", &format!("{value}\n"), with_body);
    if request.is_post {
        return match handles::answer(server, site.token.as_deref(), &request) {
            handles::Doing::Now(status, value) => {
                Answer::Whole(whole(status, "application/json", &format!("{value}\n"), true))
            }
            handles::Doing::Goes(maintenance) => made(Made::Maintenance(maintenance), true),
        };
    }
    Answer::Whole(match request.path.as_str() {
        "/" => home(with_body),
        "/healthz" if server.machine().is_serving() => short("200 OK", "ok", with_body),
        "/healthz" => short("503 Service Unavailable", "starting", with_body),
        "/metrics" => {
            let Site { started, max_metric_pools: max_pools, reload, .. } = *site;
            let format = Format::wanted(&request.accept);
            let dns = site.dns.clone();
            let program = Program { max_pools, started, reload, streams, dns };
            let scrape = Box::new(Scrape::new(program, format));
            return made(Made::Metrics(scrape), with_body);
        }
        "/handlespace" => {
            // The end of the connection is the end of the page, since its length is not known yet.
            let head = (head("200 OK", "application/json") + "\r\n").into_bytes();
            return match with_body {
                true => Answer::Long(head, Page::Listing(Listing::default())),
                false => Answer::Whole(head),
            };
        }
        "/events" => {
            let mut out = events::HEAD.as_bytes().to_vec();
            if with_body {
                let last = request.last_event.as_deref().or(request.text("last"));
                let stream = Stream::begin(server, last, site.started, &mut out);
                return Answer::Stream(out, stream);
            }
            out
        }
        "/mib" => return made(Made::Mib(mib::Reading::new(site.started)), with_body),
        "/api/status" => json(&api::status(server, site.started)),
        "/api/peers" => return made(Made::Peers(api::PeerList::default()), with_body),
        "/api/pools" => return made(Made::Pools(api::PoolList::new(&request)), with_body),
        "/api/elements" => match api::ElementList::new(server, &request) {
            Some(list) => return made(Made::Elements(list), with_body),
            None => short("404 Not Found", "no such pool", with_body),
        },
        "/api/happenings" => {
            let after = request.text("after").and_then(|text| text.parse().ok()).unwrap_or(0);
            let (happenings, left_out) = api::happenings_after(server, after);
            json(&json!({ "happenings": happenings, "left_out": left_out }))
        }
        _ => short("404 Not Found", "no such page", with_body),
    })
}

fn made(made: Made, with_body: bool) -> Answer {
    Answer::Long(Vec::new(), Page::Made { made: Box::new(made), with_body })
}

fn head(status: &str, content_type: &str) -> String {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n"
    );
    if status.starts_with("503") {
        head += "Retry-After: 5\r\n";
    }
    if status == WANTS_TLS {
        head += "Upgrade: TLS/1.3, HTTP/1.1\r\nConnection: Upgrade\r\n";
    }
    if status.starts_with("401") {
        head += "WWW-Authenticate: Bearer\r\n";
    }
    head
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

/// The page for people: one file, whose script and style run because they carry this answer's number.
fn home(with_body: bool) -> Vec<u8> {
    let nonce = format!("{:032x}", fastrand::u128(..));
    let body = include_str!("page.html")
        .replace("{{nonce}}", &nonce)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut out = head("200 OK", "text/html; charset=utf-8");
    out += &format!("Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\n");
    out += &format!("Content-Length: {}\r\n\r\n", body.len());
    if with_body {
        out += &body;
    }
    out.into_bytes()
}

/// What is made in pieces, between which others are served.
#[derive(Debug)]
pub enum Page {
    Listing(Listing),
    /// Told when it is whole, with its length.
    Made {
        made: Box<Made>,
        with_body: bool,
    },
}

/// What is told when it is whole.
#[derive(Debug)]
pub enum Made {
    Metrics(Box<Scrape>),
    Mib(mib::Reading),
    Peers(api::PeerList),
    Pools(api::PoolList),
    Elements(api::ElementList),
    Maintenance(handles::Maintenance),
}

impl Page {
    /// Makes the next piece, and adds what can be sent; whether that was the last.
    pub fn next_piece(&mut self, server: &mut Server, out: &mut Vec<u8>) -> bool {
        let (made, with_body) = match self {
            Page::Listing(handlespace) => return handlespace.next_piece(server, out),
            Page::Made { made, with_body } => (&mut **made, *with_body),
        };
        let text = match made {
            Made::Metrics(scrape) => {
                let Some(body) = scrape.next_piece(server) else { return false };
                *out = whole("200 OK", scrape.format().content_type(), &body, with_body);
                return true;
            }
            Made::Mib(reading) => reading.next_piece(server),
            Made::Peers(list) => list.next_piece(server),
            Made::Pools(list) => list.next_piece(server),
            Made::Elements(list) => list.next_piece(server),
            Made::Maintenance(maintenance) => maintenance.next_piece(server),
        };
        let Some(mut text) = text else { return false };
        text.push('\n');
        *out = whole("200 OK", "application/json", &text, with_body);
        true
    }
}

/// The handlespace as JSON, in pieces. Elements may come and go between two of them; each piece
/// continues behind the last element of the one before.
#[derive(Debug, Default)]
pub struct Listing {
    begun: bool,
    last: Option<(PoolHandle, PeId)>,
}

impl Listing {
    /// Adds the next piece; whether that was the last.
    fn next_piece(&mut self, server: &Server, out: &mut Vec<u8>) -> bool {
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
    let policy = registrar.handlespace().pool(handle).map(|pool| api::policy_name(&pool.policy()));
    opened(&json!({ "handle": handle.to_string(), "policy": policy }), "elements")
}

fn describe(element: ElementRef<'_>, age: Option<f64>) -> Value {
    let whole = element.to_element();
    let mut values = Map::new();
    whole.policy.each_value(|name, value| _ = values.insert(name.into(), value.into()));
    json!({
        "id": whole.id.to_string(),
        "home": whole.home.to_string(),
        "life_ms": element.life(),
        "drained": element.marks().drained,
        "transport": api::transport(&whole.transport),
        "asap_transport": whole.asap.as_ref().map(api::transport),
        "policy": whole.policy.to_string(),
        "policy_values": values,
        "age_s": age,
    })
}
