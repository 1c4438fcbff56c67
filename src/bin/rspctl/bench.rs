//! `rspctl bench`: closed-loop load at a registrar over TCP.

use crate::{handle, out};
use clap::{Args, Subcommand};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rserpool::runtime::address;
use rserpool::wire::{ASAP_PORT, Asap, frame};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Handle resolutions per second: every connection keeps DEPTH requests under way.
    Resolve(ResolveBenchArgs),
}

/// Options of `rspctl bench resolve`.
#[derive(Args)]
pub struct ResolveBenchArgs {
    /// Pool handle to resolve; an unknown one measures the "unknown pool handle" answer.
    pool: OsString,
    /// Registrar's ASAP address over TCP.
    #[arg(long, default_value = "localhost:3863", value_name = "HOST:PORT")]
    registrar: String,
    /// TCP connections (1 to 50000).
    #[arg(long, short, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connections: u32,
    /// Requests under way per connection (1 to 1024).
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// How long to measure, after a tenth of that to warm up (0.1 to 3600).
    #[arg(long, short, default_value_t = 5.0, value_name = "S", value_parser = seconds)]
    seconds: f64,
    /// Elements to ask for in each request; 0 leaves it to the registrar.
    #[arg(long, default_value_t = 1)]
    items: u32,
    /// One line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// How long to wait for a connection, and for an answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(3);

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 3600 is expected".into()),
    }
}

/// Runs the subcommand. Exit status 1 if the registrar could not be reached, or answered nothing.
pub fn run(command: &BenchCommand) -> ExitCode {
    let BenchCommand::Resolve(args) = command;
    match Load::new(args).and_then(|mut load| load.run(args.seconds)) {
        Ok(report) => {
            report.print(args);
            ExitCode::SUCCESS
        }
        Err(error) => {
            out::complain(format_args!("rspctl: bench resolve: {}: {error}", args.registrar));
            ExitCode::FAILURE
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: VecDeque<Instant>,
}

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    request: Vec<u8>,
    depth: usize,
    response_length: usize,
}

struct Report {
    elapsed: Duration,
    latencies: Vec<u32>,
    response_length: usize,
    request_length: usize,
}

impl Load {
    fn new(args: &ResolveBenchArgs) -> io::Result<Load> {
        let invalid = |what: String| io::Error::new(ErrorKind::InvalidInput, what);
        let handle = handle::parse(&args.pool).map_err(invalid)?;
        let items = (args.items > 0).then_some(args.items);
        let request = Asap::HandleResolution { subscribe: false, handle, items }.encode();
        let addresses = address::parse(&args.registrar, ASAP_PORT)?;
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for token in 0..args.connections as usize {
            let stream = connect(&addresses)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
            connections.push(Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                sent: VecDeque::new(),
            });
        }
        Ok(Load { poll, connections, request, depth: args.depth as usize, response_length: 0 })
    }

    fn run(&mut self, seconds: f64) -> io::Result<Report> {
        let begin = Instant::now();
        let warm = begin + Duration::from_secs_f64(seconds / 10.0);
        let end = warm + Duration::from_secs_f64(seconds);
        let mut latencies = Vec::with_capacity(1 << 20);
        for connection in &mut self.connections {
            connection.send(&self.request, self.depth, begin)?;
        }
        let mut events = Events::with_capacity(1024);
        let mut now = begin;
        let mut answered = begin;
        while now < end {
            self.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            now = Instant::now();
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                if event.is_writable() {
                    connection.flush()?;
                }
                if event.is_readable() {
                    let answers = connection.receive(now, |sent, length| {
                        self.response_length = length;
                        if sent >= warm {
                            latencies.push(u32::try_from((now - sent).as_nanos()).unwrap_or(u32::MAX));
                        }
                    })?;
                    if answers > 0 {
                        answered = now;
                        connection.send(&self.request, answers, now)?;
                    }
                }
            }
            if now - answered > ANSWER {
                return Err(io::Error::new(ErrorKind::TimedOut, format!("no answer within {ANSWER:?}")));
            }
        }
        if latencies.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "nothing was answered"));
        }
        Ok(Report {
            elapsed: now - warm,
            latencies,
            response_length: self.response_length,
            request_length: self.request.len(),
        })
    }
}

/// The first address that accepts.
fn connect(addresses: &[SocketAddr]) -> io::Result<std::net::TcpStream> {
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match std::net::TcpStream::connect_timeout(address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl Connection {
    fn send(&mut self, request: &[u8], times: usize, now: Instant) -> io::Result<()> {
        for _ in 0..times {
            self.output.extend_from_slice(request);
            self.sent.push_back(now);
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Calls `answer` with the time of sending and the length of each answer; returns their number.
    fn receive(&mut self, _now: Instant, mut answer: impl FnMut(Instant, usize)) -> io::Result<usize> {
        let mut answers = 0;
        let mut chunk = [0; 65536];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "registrar closed the connection"));
                }
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answers),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let mut at = 0;
            while let Some(length) = frame::first_message(&self.input[at..])
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, "that is no ASAP stream"))?
            {
                // 6: HANDLE_RESOLUTION_RESPONSE. Anything else (an error, a push) is no answer.
                if self.input[at] == 6 {
                    let sent = self.sent.pop_front().ok_or(ErrorKind::InvalidData)?;
                    answer(sent, length);
                    answers += 1;
                }
                at += length;
            }
            self.input.drain(..at);
        }
    }
}

impl Report {
    fn print(mut self, args: &ResolveBenchArgs) {
        self.latencies.sort_unstable();
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.latencies.len() as f64 / seconds;
        let micros = |fraction: f64| {
            let last = self.latencies.len().saturating_sub(1);
            self.latencies.get((last as f64 * fraction) as usize).map_or(0.0, |&ns| f64::from(ns) / 1000.0)
        };
        if args.json {
            let report = serde_json::json!({
                "connections": args.connections, "depth": args.depth, "seconds": seconds,
                "answers": self.latencies.len(), "per_second": rate,
                "request_bytes": self.request_length, "response_bytes": self.response_length,
                "latency_us": { "p50": micros(0.5), "p90": micros(0.9), "p99": micros(0.99),
                                "p999": micros(0.999), "max": micros(1.0) },
            });
            out::line(report);
        } else {
            out::line(format_args!(
                "{} connections, depth {}, {:.1} s: {} answers, {rate:.0}/s ({} B asked, {} B answered)",
                args.connections,
                args.depth,
                seconds,
                self.latencies.len(),
                self.request_length,
                self.response_length
            ));
            out::line(format_args!(
                "latency in us: p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
                micros(0.5),
                micros(0.9),
                micros(0.99),
                micros(0.999),
                micros(1.0)
            ));
        }
    }
}
