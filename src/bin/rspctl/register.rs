//! `rspctl register`: put an existing server into a pool, and keep it there while it answers.

use clap::Args;
use rserpool::machine::client::Registration;
use rserpool::runtime::{Answer, Directory, Runtime, address};
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Put an existing TCP server into a pool as a data-only element (transport use 0), and keep it there
/// while it accepts connections. Ends, deregistering, with SIGINT or SIGTERM.
#[derive(Args)]
pub struct RegisterArgs {
    /// Pool handle.
    pool: String,
    /// The server: where users connect, and what is probed.
    #[arg(long, value_name = "HOST:PORT")]
    tcp: String,
    /// Element identifier; random if not given.
    #[arg(long, value_name = "0xHEX", value_parser = identifier)]
    identifier: Option<u32>,
    /// Policy and its values in the order of the parameter, e.g. RoundRobin or WeightedRandom:10.
    #[arg(long, default_value = "RoundRobin", value_name = "NAME[:VALUE[:VALUE]]", value_parser = policy)]
    policy: Policy,
    /// Milliseconds between probes (100 to 60000).
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval: u64,
    /// A registrar; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
}

/// Runs the subcommand. Exit status 0 after a signal; 1 when it could not start.
pub fn run(args: &RegisterArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("rspctl: register: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &RegisterArgs) -> Result<(), String> {
    let handle = PoolHandle::new(args.pool.as_bytes()).ok_or("empty or too long pool handle")?;
    let server = address::parse_one(&args.tcp, 80).map_err(|error| format!("--tcp={}: {error}", args.tcp))?;
    let runtime = super::resolve::start(&args.registrar)?;
    let id = PeId(args.identifier.unwrap_or_else(|| fastrand::u32(1..u32::MAX)));
    let interval = Duration::from_millis(args.interval);
    let registration = Registration {
        element: PoolElement {
            id,
            home: RegistrarId(0),
            // Three missed re-registrations, as the library does it.
            life: 3 * 30_000,
            transport: Transport::new(
                Protocol::Tcp,
                TransportUse::DataOnly,
                server.port(),
                vec![server.ip()],
            ),
            policy: args.policy.clone(),
            asap: None,
        },
        handle,
        interval: Duration::from_secs(30),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| error.to_string())?;
    }
    let mut proxy = Proxy { runtime, registration, server, registered: None };
    while !stop.load(Ordering::Relaxed) {
        proxy.probe(interval.min(Duration::from_secs(2)));
        pause(interval, &stop);
    }
    proxy.leave("ending");
    proxy.runtime.shutdown();
    Ok(())
}

struct Proxy {
    runtime: Runtime,
    registration: Registration,
    server: SocketAddr,
    registered: Option<bool>,
}

impl Proxy {
    /// Connects once, and enters or leaves the pool accordingly.
    fn probe(&mut self, patience: Duration) {
        match TcpStream::connect_timeout(&self.server, patience) {
            Ok(_) if self.registered == Some(true) => {}
            Ok(_) => self.enter(),
            Err(error) if self.registered != Some(false) => self.leave(&error.to_string()),
            Err(_) => {}
        }
    }

    fn enter(&mut self) {
        let (id, handle, server) = (self.registration.element.id, &self.registration.handle, self.server);
        match self.runtime.register(self.registration.clone()).and_then(Answer::wait) {
            Ok(home) => {
                self.registered = Some(true);
                // A registrar tells its identifier with the first keep-alive at the latest.
                let home = if home.0 == 0 { String::new() } else { format!(", home registrar {home}") };
                println!("{id} in \"{handle}\": {server} answers{home}");
            }
            Err(error) => eprintln!("rspctl: register: {id} in \"{handle}\": {error}; trying again"),
        }
    }

    fn leave(&mut self, why: &str) {
        let (id, handle, server) = (self.registration.element.id, &self.registration.handle, self.server);
        if self.registered == Some(true) {
            let _ = self.runtime.deregister(handle, id).and_then(Answer::wait);
        }
        self.registered = Some(false);
        println!("{id} not in \"{handle}\": {server}: {why}");
    }
}

/// Sleeps for `interval`, at most 50 ms past a signal.
fn pause(interval: Duration, stop: &AtomicBool) {
    let step = Duration::from_millis(50);
    let mut left = interval;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(left.min(step));
        left = left.saturating_sub(step);
    }
}

fn identifier(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) => Err("0 is not a legal identifier".into()),
        Ok(id) => Ok(id),
        Err(error) => Err(error.to_string()),
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let mut values = Vec::new();
    for part in parts {
        values.push(part.parse::<u32>().map_err(|error| format!("{part}: {error}"))?);
    }
    let mut value = |default: u32| if values.is_empty() { default } else { values.remove(0) };
    let policy = match name {
        "RoundRobin" => Policy::RoundRobin,
        "Random" => Policy::Random,
        "WeightedRoundRobin" => Policy::WeightedRoundRobin { weight: value(1) },
        "WeightedRandom" => Policy::WeightedRandom { weight: value(1) },
        "Priority" => Policy::Priority { priority: value(0) },
        "LeastUsed" => Policy::LeastUsed { load: value(0) },
        "RandomizedLeastUsed" => Policy::RandomizedLeastUsed { load: value(0) },
        "LeastUsedDegradation" => Policy::LeastUsedDegradation { load: value(0), degradation: value(0) },
        "PriorityLeastUsed" => Policy::PriorityLeastUsed { load: value(0), degradation: value(0) },
        _ => return Err(format!("unknown policy {name}")),
    };
    if values.is_empty() { Ok(policy) } else { Err(format!("too many values for {name}")) }
}
