//! What the page tells programs, and what they may change by it.

use super::elements::{Elements, element};
use super::{scratch, soon};
use crate::busy::busy;
use crate::process::{Registrar, connect_from};
use rserpool::wire::{Asap, PeId, Policy, PoolElement, Protocol, Transport, TransportUse};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Keep-alives far apart, since the tests' elements answer only when they are looked at.
pub const PATIENT: [&str; 2] = ["-config=off", "-endpointkeepalivetransmissioninterval=300000"];

pub fn get_with(http: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(http).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream.write_all(request.as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_string(), body.to_string())
}

pub fn get(http: SocketAddr, path: &str) -> (String, String) {
    get_with(http, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

pub fn json(http: SocketAddr, path: &str) -> Value {
    let (head, body) = get(http, path);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head} {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

#[test]
fn the_metrics_are_in_the_format_that_is_asked_for() {
    let registrar = Registrar::start(&PATIENT);
    let mut elements = Elements::fill(registrar.asap, b"a\"b\\c\nd", 2);
    elements.resolve(b"a\"b\\c\nd", 1);
    elements.resolve(b"nobody", 1);
    let with = |accept: &str| {
        get_with(
            registrar.http,
            &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"),
        )
    };
    let (head, text) = with("text/plain");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(
        text.contains("# TYPE rserpool_registrations_total counter\n") && !text.contains("# EOF"),
        "{text}"
    );
    let (head, open) = with("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(open.contains("# TYPE rserpool_registrations counter\n") && open.ends_with("# EOF\n"), "{open}");
    let line = |name: &str| {
        let found = text.lines().find(|line| line.starts_with(name)).map(str::to_string);
        found.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let value = |name: &str| line(name).rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    assert_eq!(value("rserpool_registrations_total "), Some(2.0));
    assert_eq!(value("rserpool_unknown_pools_total "), Some(1.0));
    assert_eq!(value("rserpool_refusals_total{request=\"resolution\""), Some(1.0));
    let pool = line("rserpool_pool_elements{");
    assert!(pool.ends_with(" 2") || pool.ends_with(" 2.0"), "{pool}");
    assert_eq!(value("rserpool_pool_selected_total{"), Some(1.0));
    assert_eq!(value("rserpool_build_info{"), Some(1.0));
    assert!(value("process_resident_memory_bytes ").is_some_and(|bytes| bytes > 1e6));
    assert!(value("process_cpu_seconds_total ").is_some());
    assert_eq!(value("process_max_fds ").map(|most| most >= 256.0), Some(true));
    // Every name is described.
    let described: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(described.iter().any(|help| help.split(' ').next() == Some(family)), "{name} has no HELP");
    }
}

/// What there is of what is bounded, and of everything else that both tell, is the same for programs and for Prometheus.
#[test]
fn the_page_and_the_metrics_have_the_same_figures() {
    let registrar = Registrar::start(&PATIENT);
    let _other = Registrar::start(&["-config=off", &format!("-peer={}", registrar.enrp)]);
    let _elements = Elements::fill(registrar.asap, b"echo", 2);
    soon("the peer", || json(registrar.http, "/api/status")["peers_up"] == 1);
    let text = get_with(registrar.http, "GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n").1;
    let status = json(registrar.http, "/api/status");
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap()
    };
    for (name, key) in [
        ("rserpool_pools", "pool_count"),
        ("rserpool_elements", "element_count"),
        ("rserpool_owned_elements", "owned_count"),
        ("rserpool_emptied_pools", "emptied_count"),
        ("rserpool_peers", "peer_count"),
    ] {
        assert_eq!(Some(figure(name)), status[key].as_f64(), "{key}");
    }
    let bounds = status["bounds"].as_array().unwrap();
    assert_eq!(text.matches("rserpool_bound{").count(), bounds.len());
    for bound in bounds {
        let of = bound["of"].as_str().unwrap();
        assert_eq!(Some(figure(&format!("rserpool_bound{{of=\"{of}\"}}"))), bound["most"].as_f64(), "{of}");
    }
}

/// An exposition in either form, judged by Prometheus' own tool.
#[test]
fn promtool_has_no_complaints() {
    let registrar = Registrar::start(&PATIENT);
    let _other = Registrar::start(&["-config=off", &format!("-peer={}", registrar.enrp)]);
    let _elements = Elements::fill(registrar.asap, b"a\"b\\c\nd", 2);
    soon("the peer", || get(registrar.http, "/metrics").1.contains("rserpool_peer_up{"));
    let (_, text) = get_with(registrar.http, "GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n");
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => return super::skipped("promtool", &error.to_string()),
    };
    promtool.stdin.take().expect("input").write_all(text.as_bytes()).expect("write");
    let Output { status, stdout, stderr } = promtool.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn series_are_bounded_however_many_pools_there_are() {
    let registrar = Registrar::start(&[PATIENT[0], PATIENT[1], "-maxmetricpools=10"]);
    let mut elements = Elements::connect(registrar.asap);
    for number in 0..50 {
        assert!(elements.register(format!("pool{number}").as_bytes(), element(1, Policy::Random)));
    }
    let long = vec![b'x'; 10_000];
    assert!(elements.register(&long, element(1, Policy::Random)));
    let (_, text) = get(registrar.http, "/metrics");
    let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(series("rserpool_pool_elements{"), 10);
    assert!(text.contains("rserpool_other_pools 41"), "{text}");
    assert!(text.contains("rserpool_other_pools_elements 41"), "{text}");
}

/// Reads an event stream's events: name, identifier, data.
pub struct Events(BufReader<TcpStream>);

impl Events {
    pub fn open(http: SocketAddr, more: &str) -> Events {
        let mut stream = TcpStream::connect(http).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").expect("request");
        Events(BufReader::new(stream))
    }

    pub fn next(&mut self) -> (String, String, Value) {
        let (mut name, mut id, mut line) = (String::new(), String::new(), String::new());
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "the stream ended");
            if let Some(rest) = line.strip_prefix("event: ") {
                name = rest.trim().into();
            } else if let Some(rest) = line.strip_prefix("id: ") {
                id = rest.trim().into();
            } else if let Some(rest) = line.strip_prefix("data: ") {
                return (name, id, serde_json::from_str(rest).expect("JSON"));
            }
        }
    }
}

fn kinds(data: &Value) -> Vec<String> {
    let list = data["happenings"].as_array().expect("a list");
    list.iter().map(|one| one["kind"].as_str().expect("a kind").to_string()).collect()
}

#[test]
fn events_tell_what_happens_and_go_on_where_a_reader_was() {
    let registrar = Registrar::start(&PATIENT);
    let mut events = Events::open(registrar.http, "");
    let (name, _, data) = events.next();
    assert_eq!(name, "snapshot");
    assert_eq!(data["status"]["pool_count"], 0);
    let elements = Elements::fill(registrar.asap, b"echo", 1);
    let (name, id, data) = events.next();
    assert_eq!((&name[..], &kinds(&data)[..]), ("change", &["registered".to_string()][..]));
    assert_eq!(data["happenings"][0]["pool"], "echo");
    assert_eq!(data["happenings"][0]["address"], "10.0.0.1:80");
    drop(events);
    let begin = Instant::now();
    drop(elements);
    // A reader that comes back misses nothing.
    soon("the loss", || json(registrar.http, "/api/status")["emptied_count"] == 1);
    let took = begin.elapsed();
    assert!(took < busy() * Duration::from_secs(1), "{took:?}");
    let mut events = Events::open(registrar.http, &format!("Last-Event-ID: {id}\r\n"));
    let (name, _, data) = events.next();
    assert_eq!((&name[..], &kinds(&data)[..]), ("change", &["lost".to_string()][..]));
    assert_eq!(
        (&data["happenings"][0]["why"], &data["happenings"][0]["size"]),
        (&"link closed".into(), &0.into())
    );
    // One of another registrar's life begins anew.
    let mut events = Events::open(registrar.http, "Last-Event-ID: 0x00000001-1\r\n");
    assert_eq!(events.next().0, "snapshot");
}

/// What one host has leaves room for others.
#[test]
fn one_host_does_not_keep_others_from_the_page() {
    let registrar = Registrar::start(&PATIENT);
    let open = |from: &str| {
        let mut stream = connect_from(&format!("{from}:0"), registrar.http);
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("request");
        stream
    };
    let starts = |stream: &mut TcpStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a line");
        line
    };
    let mut theirs: Vec<TcpStream> = (0..16).map(|_| open("127.0.0.2")).collect();
    assert!(theirs.iter_mut().all(|stream| starts(stream).starts_with("HTTP/1.1 200")));
    assert!(starts(&mut open("127.0.0.2")).starts_with("HTTP/1.1 503"), "a host's own make no room");
    let mut others: Vec<TcpStream> = ["127.0.0.3", "127.0.0.4"].map(open).into();
    assert!(others.iter_mut().all(|stream| starts(stream).starts_with("HTTP/1.1 200")));
    assert!(get(registrar.http, "/metrics").1.contains("rserpool_event_streams 16"));
    // Requests that never end: the one host's go first, not the other's that is older.
    let mut old = connect_from("127.0.0.3:0", registrar.http);
    let many: Vec<TcpStream> = (0..100).map(|_| connect_from("127.0.0.2:0", registrar.http)).collect();
    assert!(get(registrar.http, "/healthz").0.starts_with("HTTP/1.1 200"));
    write!(old, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("request");
    assert!(starts(&mut old).starts_with("HTTP/1.1 200"));
    drop(many);
}

/// Readers who don't read are cut off, and no number of them keeps others from the page.
#[test]
fn event_streams_are_bounded() {
    let registrar = Registrar::start(&PATIENT);
    let mut streams: Vec<Events> = (0..16).map(|_| Events::open(registrar.http, "")).collect();
    for stream in &mut streams {
        stream.next();
    }
    let (head, _) = get(registrar.http, "/events");
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("Retry-After: "), "{head}");
    let idle: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(registrar.http).expect("connect")).collect();
    assert!(get(registrar.http, "/healthz").0.starts_with("HTTP/1.1 200"));
    drop(idle);
    let before = registrar.process.memory();
    let mut elements = Elements::connect(registrar.asap);
    let name = vec![b'y'; 4000];
    for round in 0..400 {
        assert!(elements.register(&name, element(1 + round % 7, Policy::Random)));
        elements
            .send(&Asap::Deregistration { handle: super::elements::handle(&name), id: PeId(1 + round % 7) });
        if round % 20 == 0 {
            std::thread::sleep(Duration::from_millis(260));
        }
    }
    let grown = registrar.process.memory().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for streams that nobody reads");
    assert!(get(registrar.http, "/healthz").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn lists_come_in_pages() {
    let registrar = Registrar::start(&PATIENT);
    let mut elements = Elements::connect(registrar.asap);
    for number in 0..25 {
        assert!(
            elements.register(&[b'p', number, 0xff], element(1, Policy::LeastUsed { load: u32::MAX / 2 }))
        );
    }
    for id in 1..=30 {
        assert!(elements.register(b"big", element(id, Policy::RoundRobin)));
    }
    let (mut seen, mut path) = (0, "/api/pools?limit=10".to_string());
    loop {
        let page = json(registrar.http, &path);
        seen += page["pools"].as_array().expect("pools").len();
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/pools?limit=10&after={next}");
    }
    assert_eq!(seen, 26);
    let found = json(registrar.http, "/api/pools?q=BIG");
    assert_eq!(found["pools"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["pools"][0]["size"], 30);
    let pool = &json(registrar.http, "/api/pools?limit=2")["pools"][1];
    assert_eq!(pool["load"], 0.5, "{pool}");
    let first = json(registrar.http, "/api/elements?pool=big&limit=20");
    let next = first["next"].as_str().expect("more");
    let rest = json(registrar.http, &format!("/api/elements?pool=big&limit=20&after={next}"));
    assert_eq!(rest["elements"].as_array().map(Vec::len), Some(10));
    assert_eq!(rest["elements"][9]["transport"]["addresses"][0], "10.0.0.30:80");
    assert!(get(registrar.http, "/api/elements?pool=none").0.starts_with("HTTP/1.1 404"));
}

#[test]
fn a_name_that_leads_here_from_elsewhere_is_refused() {
    let registrar = Registrar::start(&PATIENT);
    let (head, _) = get_with(registrar.http, "GET /api/pools HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 421"), "{head}");
}

const SECRET: &str = "0123456789abcdef-secret";

fn token() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = scratch(&format!("token{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&path, format!("{SECRET}\n")).expect("token");
    path
}

fn rspctl(registrar: &Registrar, token: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspctl"));
    command.args(arguments).arg(format!("--http={}", registrar.http));
    let changes = ["drain", "undrain", "set", "deregister", "maintenance"];
    if changes.contains(&arguments[0]) {
        command.arg(format!("--token={}", token.display()));
    }
    command.output().expect("rspctl")
}

fn good(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// It keeps its users and gets no new ones: on all registrars, when it registers again, and when its registrar
/// is taken over.
#[test]
fn a_drained_element_gets_no_new_users_anywhere() {
    let token = token();
    let option = format!("-httptoken={}", token.display());
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|door| door.local_addr()).expect("a port");
    let home = Registrar::start(&[PATIENT[0], PATIENT[1], &option, &format!("-peer={free}")]);
    let (at, peer) = (format!("-enrp={free}"), format!("-peer={}", home.enrp));
    let other = Registrar::start(&[PATIENT[0], PATIENT[1], &option, &at, &peer]);
    let mut elements = Elements::fill(home.asap, b"echo", 2);
    let (mut here, mut there) = (Elements::connect(home.asap), Elements::connect(other.asap));
    let both = |user: &mut Elements| user.resolve(b"echo", 10).is_some_and(|found| found.len() == 2);
    soon("both known to both", || both(&mut here) && both(&mut there));
    // Asked of the other registrar, which asks its home.
    let said = good(&rspctl(&other, &token, &["drain", "echo", "1"]));
    assert!(said.contains("asked its home registrar"), "{said}");
    soon("drained on both", || {
        here.resolve(b"echo", 10) == Some(vec![2]) && there.resolve(b"echo", 10) == Some(vec![2])
    });
    // It is in its pool all the same, so sessions stay.
    here.send(&Asap::HandleResolution {
        subscribe: true,
        handle: super::elements::handle(b"echo"),
        items: Some(u32::MAX),
    });
    let Asap::HandleResolutionResponse { total, lost, .. } = here.receive() else { panic!("an answer") };
    assert_eq!((total, lost.len()), (Some(2), 0));
    let table = good(&rspctl(&home, &token, &["elements", "echo"]));
    assert!(table.contains("0x00000001  drained") && table.contains("0x00000002  in service"), "{table}");
    assert!(elements.register(b"echo", element(1, Policy::RoundRobin)), "it registers again");
    assert_eq!(there.resolve(b"echo", 10), Some(vec![2]));
    // Its registrar dies; it registers with the other one.
    home.process.signal(libc::SIGKILL);
    let mut moved = Elements::connect(other.asap);
    for id in [1, 2] {
        assert!(moved.register(b"echo", element(id, Policy::RoundRobin)));
    }
    assert_eq!(there.resolve(b"echo", 10), Some(vec![2]));
    // All of its elements are elsewhere by then, so there is nothing left to take over.
    soon("the death", || json(other.http, "/api/status")["peers_died"] == 1);
    assert_eq!(there.resolve(b"echo", 10), Some(vec![2]));
    let status = json(other.http, "/api/status");
    assert_eq!(status["adoptions"], 2, "{status}");
    let said = good(&rspctl(&other, &token, &["undrain", "echo", "0x1"]));
    assert_eq!(said, "undrained\n");
    assert!(both(&mut there));
}

/// Without TLS anybody can say that he is a registrar, and that his operator wants this.
#[test]
fn a_home_that_does_not_know_who_asks_says_so() {
    let token = token();
    let option = format!("-httptoken={}", token.display());
    let home = Registrar::start(&[PATIENT[0], PATIENT[1], &option]);
    let other = Registrar::start(&[PATIENT[0], PATIENT[1], &option, &format!("-peer={}", home.enrp)]);
    let _elements = Elements::fill(home.asap, b"echo", 2);
    let (mut here, mut there) = (Elements::connect(home.asap), Elements::connect(other.asap));
    let both = |user: &mut Elements| user.resolve(b"echo", 10).is_some_and(|found| found.len() == 2);
    soon("both known to both", || both(&mut here) && both(&mut there));
    let id = json(other.http, "/api/peers")["peers"][0]["id"].as_str().expect("an identifier").to_string();
    for change in [&["drain", "echo", "1"][..], &["deregister", "echo", "1"], &["maintenance", "10.0.0.1"]] {
        let said = rspctl(&other, &token, change);
        let wrong = String::from_utf8_lossy(&said.stderr);
        let hint = format!("registrar {id} at {} does not let this one change its elements", home.enrp);
        assert!(!said.status.success() && wrong.contains(&hint), "{change:?}: {said:?}");
    }
    assert!(both(&mut here) && both(&mut there));
    soon("a line each", || {
        home.process.log().contains("taken only from registrars whose addresses are given with --peer")
            && other.process.log().contains("does not let this one change its elements")
    });
    assert_eq!(good(&rspctl(&home, &token, &["drain", "echo", "1"])), "drained\n");
}

#[test]
fn policy_values_can_be_set_and_given_back() {
    let token = token();
    let registrar = Registrar::start(&[PATIENT[0], PATIENT[1], &format!("-httptoken={}", token.display())]);
    let mut elements = Elements::connect(registrar.asap);
    let own = || element(7, Policy::WeightedRandom { weight: 3 });
    assert!(elements.register(b"w\\x", own()));
    let policy =
        || json(registrar.http, "/api/elements?pool=w%5cx")["elements"][0]["policy_values"]["weight"].clone();
    assert_eq!(policy(), 3);
    good(&rspctl(&registrar, &token, &["set", "w\\\\x", "7", "--weight=99"]));
    assert_eq!(policy(), 99);
    assert!(elements.register(b"w\\x", own()));
    assert_eq!(policy(), 99, "it stays when the element registers again");
    good(&rspctl(&registrar, &token, &["set", "w\\\\x", "7", "--own"]));
    assert!(elements.register(b"w\\x", own()));
    assert_eq!(policy(), 3);
    let wrong = rspctl(&registrar, &token, &["set", "w\\\\x", "7", "--priority=1"]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("has no such value"));
    // All of a host, and back.
    good(&rspctl(&registrar, &token, &["maintenance", "10.0.0.7"]));
    assert_eq!(elements.resolve(b"w\\x", 1), Some(vec![]));
    good(&rspctl(&registrar, &token, &["maintenance", "10.0.0.7", "--end"]));
    assert_eq!(elements.resolve(b"w\\x", 1), Some(vec![7]));
    good(&rspctl(&registrar, &token, &["deregister", "w\\\\x", "7"]));
    assert_eq!(elements.resolve(b"w\\x", 1), None);
}

#[test]
fn nothing_is_changed_without_the_token() {
    let token = token();
    let with = Registrar::start(&[PATIENT[0], PATIENT[1], &format!("-httptoken={}", token.display())]);
    let without = Registrar::start(&PATIENT);
    for registrar in [&with, &without] {
        let mut elements = Elements::fill(registrar.asap, b"echo", 1);
        for (headers, path) in [
            ("", "/api/drain?pool=echo&id=1"),
            ("Authorization: Bearer wrong\r\n", "/api/drain?pool=echo&id=1"),
            ("Authorization: Bearer wrong\r\n", "/api/deregister?pool=echo&id=1"),
            ("", "/api/maintenance?address=10.0.0.1"),
        ] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            let (head, _) = get_with(registrar.http, &request);
            assert!(head.starts_with("HTTP/1.1 401") || head.starts_with("HTTP/1.1 403"), "{head}");
        }
        let (head, _) = get(registrar.http, "/api/drain?pool=echo&id=1");
        assert!(head.starts_with("HTTP/1.1 404"), "reading changes nothing: {head}");
        assert_eq!(elements.resolve(b"echo", 1), Some(vec![1]));
    }
}

/// When everything is gone, all of it is told, however many pieces that takes.
#[test]
fn all_pools_that_became_empty_are_told() {
    let registrar = Registrar::start(&PATIENT);
    let mut elements = Elements::connect(registrar.asap);
    for number in 0..90 {
        let pool = format!("pool {number}, with a long name that makes its row longer than others' are");
        assert!(elements.register(pool.as_bytes(), element(1, Policy::RoundRobin)));
    }
    drop(elements);
    let told = || json(registrar.http, "/api/pools")["emptied"].as_array().map(Vec::len);
    soon("the loss", || json(registrar.http, "/api/status")["emptied_count"] == 90);
    assert_eq!(told(), Some(90));
    assert_eq!(json(registrar.http, "/api/pools?q=pool%2089")["emptied"].as_array().map(Vec::len), Some(1));
}

#[test]
fn rspctl_shows_what_there_is() {
    let registrar = Registrar::start(&PATIENT);
    let other = Registrar::start(&["-config=off", &format!("-peer={}", registrar.enrp)]);
    let token = token();
    let emptied = Elements::fill(registrar.asap, b"gone", 1);
    let _elements = Elements::fill(registrar.asap, b"echo", 3);
    drop(emptied);
    soon("the loss", || good(&rspctl(&registrar, &token, &["pools"])).contains("gone  EMPTY"));
    let table = good(&rspctl(&registrar, &token, &["pools"]));
    let line = table.lines().find(|line| line.starts_with("echo")).expect("echo");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], ["echo", "3", "0", "RoundRobin"], "{table}");
    let value: Value =
        serde_json::from_str(&good(&rspctl(&registrar, &token, &["elements", "echo", "--json"])))
            .expect("JSON");
    assert_eq!(value["elements"].as_array().map(Vec::len), Some(3));
    soon("the peer", || good(&rspctl(&registrar, &token, &["peers"])).contains("alive"));
    assert!(good(&rspctl(&registrar, &token, &["status"])).contains("element count"));
    let none = rspctl(&registrar, &token, &["elements", "none"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no such pool"));
    let mib: Value =
        serde_json::from_str(&good(&rspctl(&registrar, &token, &["mib", "--json"]))).expect("JSON");
    assert_eq!(mib["rserpoolENRPPoolElementTable"].as_array().map(Vec::len), Some(3), "{mib}");
    let text = good(&rspctl(&registrar, &token, &["mib"]));
    assert!(text.contains("rserpoolENRPTable.rserpoolENRPPort.1 = "), "{text}");
    // What happens, until enough has happened.
    let mut events = Command::new(env!("CARGO_BIN_EXE_rspctl"))
        .args(["events", "--count=1", &format!("--http={}", registrar.http)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("rspctl");
    soon("the reader", || get(registrar.http, "/metrics").1.contains("rserpool_event_streams 1"));
    drop(Elements::fill(registrar.asap, b"new", 1));
    let mut said = String::new();
    events.stdout.take().expect("output").read_to_string(&mut said).expect("text");
    assert!(events.wait().expect("status").success());
    assert!(said.contains(" registered new/0x00000001 at 10.0.0.1:80, 1 in its pool"), "{said}");
    drop(other);
}

/// Every object of the MIB that a registrar can know is there; the RFC's names are in the table of the page.
#[test]
fn the_mib_is_readable() {
    let registrar = Registrar::start(&PATIENT);
    let _other = Registrar::start(&["-config=off", &format!("-peer={}", registrar.enrp)]);
    let mut elements = Elements::connect(registrar.asap);
    let asap =
        Transport::new(Protocol::Tcp, TransportUse::DataOnly, 9, vec![std::net::Ipv4Addr::LOCALHOST.into()]);
    assert!(elements.register(b"echo", PoolElement { asap: Some(asap), ..element(1, Policy::RoundRobin) }));
    soon("the peer", || json(registrar.http, "/mib")["rserpoolENRPPeerAddrTable"].is_array());
    let mib = json(registrar.http, "/mib").to_string();
    let page = include_str!("../../docs/mib.md");
    let (mut objects, mut readable) = (0, 0);
    for line in page.lines().filter(|line| line.starts_with("| `rserpool")) {
        let name = line.split('`').nth(1).expect("a name");
        objects += 1;
        if line.contains("/mib") {
            readable += 1;
            assert!(mib.contains(&format!("\"{name}\"")), "{name} is not in {mib}");
        }
    }
    assert!(objects >= 70 && readable >= 60, "{readable} of {objects}");
}
