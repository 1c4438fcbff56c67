//! Handle resolutions per second at a registrar over TCP, beside a bare single-threaded epoll server
//! that answers the same bytes without looking at them. Same client program, same message sizes,
//! in turns. `cargo bench --bench resolve`; RSP_BENCH_SECONDS sets the length of a run.
#![allow(clippy::disallowed_methods)]

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rserpool::wire::{
    Asap, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse, frame,
};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--bare-server") => bare_server(),
        _ => compare(),
    }
}

/// A process that ends with us.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compare() {
    let seconds = std::env::var("RSP_BENCH_SECONDS").unwrap_or_else(|_| "2".into());
    let (_registrar, registrar_port) = start_registrar();
    let (_bare, bare_port) = start_bare();
    register(registrar_port);
    println!("handle resolutions per second over TCP on loopback, {seconds} s each");
    println!("connections depth    registrar   bare epoll  ratio     p50 us     p99 us");
    for connections in ["1", "32", "256"] {
        for depth in ["1", "16"] {
            // In turns, twice each; the better of each, since noise only ever takes away.
            let mut best = [Run::default(); 2];
            for _ in 0..2 {
                for (best, port) in best.iter_mut().zip([registrar_port, bare_port]) {
                    let run = load(port, connections, depth, &seconds);
                    if run.rate > best.rate {
                        *best = run;
                    }
                }
            }
            let [ours, bare] = best;
            assert_eq!(ours.bytes, bare.bytes, "answers of different sizes can't be compared");
            println!(
                "{connections:>11} {depth:>5} {:>12.0} {:>12.0} {:>6.2} {:>10.1} {:>10.1}",
                ours.rate,
                bare.rate,
                ours.rate / bare.rate,
                ours.p50,
                ours.p99
            );
        }
    }
}

/// What one run of the load came to: answers per second, microseconds, bytes of an answer.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
    bytes: u64,
}

/// Runs `rspctl bench resolve`.
fn load(port: u16, connections: &str, depth: &str, seconds: &str) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_rspctl"))
        .args(["bench", "resolve", "EchoPool", "--json", "--connections", connections, "--depth", depth])
        .args(["--seconds", seconds, "--registrar", &format!("127.0.0.1:{port}")])
        .output()
        .expect("rspctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("rspctl prints JSON");
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    Run {
        rate: number(&report["per_second"]),
        p50: number(&report["latency_us"]["p50"]),
        p99: number(&report["latency_us"]["p99"]),
        bytes: report["response_bytes"].as_u64().expect("a length"),
    }
}

fn start_registrar() -> (Server, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rspregistrar"))
        .args(["--asap=127.0.0.1:0", "--enrp=127.0.0.1:0", "--asapannounce=off", "--enrpannounce=off"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("rspregistrar starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let port =
        lines.map_while(Result::ok).find_map(|line| asap_port(&line)).expect("rspregistrar says its port");
    (Server(child), port)
}

/// The TCP port in the registrar's line about ASAP.
fn asap_port(line: &str) -> Option<u16> {
    let rest = line.split("127.0.0.1:").nth(1)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    line.to_lowercase().contains("asap").then(|| digits.parse().ok())?
}

/// Registers one element and answers its keep-alives in the background.
fn register(port: u16) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("registrar listens");
    stream.write_all(&Asap::Registration { handle: pool(), element: element() }.encode()).expect("sent");
    std::thread::spawn(move || {
        let ack = Asap::EndpointKeepAliveAck { handle: pool(), id: element().id }.encode();
        let mut bytes = [0; 4096];
        while let Ok(length) = stream.read(&mut bytes) {
            // 7: ENDPOINT_KEEP_ALIVE.
            if length == 0 || (bytes[0] == 7 && stream.write_all(&ack).is_err()) {
                break;
            }
        }
    });
}

fn pool() -> PoolHandle {
    PoolHandle::new(b"EchoPool").expect("short")
}

fn element() -> PoolElement {
    let transport =
        Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 7, vec![[127, 0, 0, 1].into()]);
    PoolElement {
        id: PeId(7),
        home: RegistrarId(1),
        life: 300_000,
        transport,
        policy: Policy::RoundRobin,
        asap: None,
    }
}

fn start_bare() -> (Server, u16) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .arg("--bare-server")
        .stdout(Stdio::piped())
        .spawn()
        .expect("bare server starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    (Server(child), line.trim().parse().expect("a port"))
}

/// Answers each frame with the same canned response: one read and one write per readable event.
fn bare_server() {
    let response = Asap::HandleResolutionResponse {
        subscribed: false,
        handle: pool(),
        error: None,
        policy: Some(Policy::RoundRobin),
        elements: vec![element()],
        total: None,
        lost: Vec::new(),
        deregistered: Vec::new(),
    }
    .encode();
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().expect("address")).expect("loopback");
    println!("{}", listener.local_addr().expect("bound").port());
    let mut poll = Poll::new().expect("epoll");
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).expect("epoll");
    let mut streams: Vec<Option<TcpStream>> = vec![None];
    let mut events = Events::with_capacity(1024);
    let (mut input, mut output) = (vec![0; 65536], Vec::new());
    loop {
        poll.poll(&mut events, None).expect("epoll");
        for event in &events {
            let token = event.token().0;
            if token == 0 {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_nodelay(true);
                    let token = Token(streams.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE).expect("epoll");
                    streams.push(Some(stream));
                }
            } else if !answer(streams[token].as_mut(), &mut input, &mut output, &response) {
                streams[token] = None;
            }
        }
    }
}

/// Serves one readable event; false at the end of the connection.
fn answer(stream: Option<&mut TcpStream>, input: &mut [u8], output: &mut Vec<u8>, response: &[u8]) -> bool {
    let Some(stream) = stream else { return true };
    loop {
        let length = match stream.read(input) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        output.clear();
        let mut at = 0;
        // The load's requests are short and never cut by a read of this size.
        while let Ok(Some(frame)) = frame::first_message(&input[at..length]) {
            output.extend_from_slice(response);
            at += frame;
        }
        if stream.write_all(output).is_err() {
            return false;
        }
        // What did not fill the buffer has emptied the socket: whoever sends more is a new event.
        if length < input.len() {
            return true;
        }
    }
}
