//! `rspctl register`: put existing servers into pools, and keep them there while they serve: a proxy pool element.

pub mod check;
mod holders;
pub mod keeper;
mod listener;
mod place;
pub mod policy;

use crate::{handle, out};
use check::Check;
use clap::{Args, Parser};
use keeper::{Health, Keeper};
use place::Place;
use rserpool::machine::client::Registration;
use rserpool::runtime::Settings;
use rserpool::wire::{PeId, Policy, PoolElement, Protocol, RegistrarId, Transport, TransportUse};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Put an existing TCP server into a pool as a data-only element (transport use 0), and keep it there
/// while it serves. Ends, deregistering, with SIGINT or SIGTERM.
#[derive(Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    server: Option<ServerArgs>,
    /// A file with servers, one a line, each as it is written here: POOL --tcp HOST:PORT ...
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A registrar; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
}

/// One server.
#[derive(Args, Debug)]
pub struct ServerArgs {
    /// Pool handle.
    #[arg(required = false)]
    pool: OsString,
    /// The server: where users connect, and what is checked.
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// The server is whoever listens on that port of this machine, as long as somebody does: runs in the background,
    /// and ends when nobody listens any more.
    #[arg(long, value_name = "PORT", conflicts_with = "tcp", value_parser = clap::value_parser!(u16).range(1..))]
    while_listening: Option<u16>,
    /// Where users connect, if that is not where it is checked: behind NAT, a published port.
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Element identifier; random if not given.
    #[arg(long, value_name = "0xHEX", value_parser = identifier)]
    identifier: Option<u32>,
    /// Policy and its values in the order of the parameter, e.g. RoundRobin or WeightedRandom:10.
    #[arg(long, default_value = "RoundRobin", value_name = "NAME[:VALUE[:VALUE]]", value_parser = policy::parse)]
    policy: Policy,
    /// Weight of the server (1 to 4294967295), with WeightedRoundRobin unless --policy names another one that has a weight.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    weight: Option<u32>,
    /// The server's load is its connections divided by N (1 to 1000000), for policies that have a load.
    #[arg(long, value_name = "connections/N", value_parser = load)]
    load: Option<u32>,
    /// Check by GET PATH: a status from 200 to 399 is good.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["check_command", "check_expect"])]
    check_http: Option<String>,
    /// Check by a shell command: status 0 is good. It finds RSP_SERVER_HOST and RSP_SERVER_PORT.
    #[arg(long, value_name = "COMMAND", conflicts_with = "check_expect")]
    check_command: Option<String>,
    /// Check by sending TEXT; \r, \n, \t, \0, \\ and \xNN as in C. With --check-expect.
    #[arg(long, value_name = "TEXT", requires = "check_expect", value_parser = check::unescape_argument)]
    check_send: Option<Bytes>,
    /// Check for TEXT in what the server sends.
    #[arg(long, value_name = "TEXT", value_parser = check::unescape_argument)]
    check_expect: Option<Bytes>,
    /// Milliseconds between checks (100 to 60000).
    #[arg(long, default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval: u64,
    /// Milliseconds that a check may take (10 to 60000).
    #[arg(long, default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    timeout: u64,
    /// Good checks in a row after which the server enters the pool (1 to 100).
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rise: u32,
    /// Bad checks in a row, in quick succession, after which it leaves (1 to 100).
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    fall: u32,
}

/// What an argument with escapes stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A line of a configuration.
#[derive(Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the subcommand. Exit status 0 after a signal; 1 when it could not start.
pub fn run(args: &RegisterArgs) -> ExitCode {
    out::status("register", serve(args).map(|()| ExitCode::SUCCESS))
}

fn serve(args: &RegisterArgs) -> Result<(), String> {
    let settings = crate::resolve::settings(&args.registrar)?;
    // The library is started anew with each registration: what it could never start with is said now.
    settings.tls.open().map_err(|error| error.to_string())?;
    if let Some((server, port)) =
        args.server.as_ref().and_then(|server| Some((server, server.while_listening?)))
    {
        // What is wrong with the arguments is said before.
        server.keeper_of(&settings, SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(), Vec::new())?;
        return match listener::is_background() {
            true => listener::keep(server, &settings, port),
            false => listener::start().map_err(|error| error.to_string()),
        };
    }
    let mut keepers = Vec::new();
    if let Some(server) = &args.server {
        keepers.push(server.keeper(&settings)?);
    }
    if let Some(path) = &args.config {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("--config={}: {error}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let keeper =
                read_line(line).and_then(|server| server.map(|server| server.keeper(&settings)).transpose());
            let at = |error: String| format!("{}:{}: {error}", path.display(), number + 1);
            keepers.extend(keeper.map_err(at)?);
        }
    }
    if keepers.is_empty() {
        return Err("no server: POOL and --tcp=HOST:PORT, or --config=FILE".into());
    }
    keep(keepers)
}

/// Set by a signal that says that it is enough.
fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| error.to_string())?;
    }
    Ok(stop)
}

/// One thread each, until a signal.
fn keep(keepers: Vec<Keeper>) -> Result<(), String> {
    let stop = stop_flag()?;
    std::thread::scope(|scope| {
        for keeper in keepers {
            let stop = &stop;
            scope.spawn(move || keeper.run(stop));
        }
    });
    Ok(())
}

/// Words of a line, as a shell would have them; none: nothing but a comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), inside) => word.get_or_insert_default().push(inside),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(format!("a closing {open} is missing")),
        None => Ok(words),
    }
}

fn read_line(line: &str) -> Result<Option<ServerArgs>, String> {
    let words = words(line)?;
    if words.is_empty() {
        return Ok(None);
    }
    let line = Line::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    Ok(Some(line.server))
}

impl ServerArgs {
    fn check(&self) -> Check {
        if let Some(path) = &self.check_http {
            Check::Http(path.clone())
        } else if let Some(command) = &self.check_command {
            Check::Command(command.clone())
        } else if let Some(Bytes(expect)) = &self.check_expect {
            let send = self.check_send.as_ref().map_or(Vec::new(), |Bytes(send)| send.clone());
            Check::Talks { send, expect: expect.clone() }
        } else {
            Check::Accepts
        }
    }

    fn keeper(&self, settings: &Settings) -> Result<Keeper, String> {
        let server = self.tcp.as_ref().ok_or("--tcp=HOST:PORT is missing")?;
        let server = server_place(server)?;
        let reached = server.addresses().iter().take(1).map(SocketAddr::ip).collect();
        Ok(Keeper { follows: true, ..self.keeper_of(settings, server, reached)? })
    }

    /// Of a server whose users connect to these addresses, unless something else is advertised.
    fn keeper_of(&self, settings: &Settings, server: Place, reached: Vec<IpAddr>) -> Result<Keeper, String> {
        let handle = handle::parse(&self.pool)?;
        let port = server.port();
        let users = match &self.advertise {
            Some(text) => {
                let users = Place::parse(text, server.port())
                    .map_err(|error| format!("--advertise={text}: {error}"))?;
                if users.addresses().iter().any(|address| address.ip().is_unspecified()) {
                    return Err(format!("--advertise={text}: users need an address; \"any\" is none"));
                }
                Some(users)
            }
            None => None,
        };
        let advertised = users.as_ref().and_then(|users| users.addresses().first());
        let (reached, port) = advertised.map_or((reached, port), |first| (vec![first.ip()], first.port()));
        let mut policy = self.policy.clone();
        if let Some(weight) = self.weight {
            policy = policy::weighted(policy, weight).ok_or_else(|| {
                format!("--weight: {} has no weight", self.policy.name().unwrap_or("that policy"))
            })?;
        }
        if self.load.is_some() && policy::load_mut(&mut policy).is_none() {
            return Err(format!("--load: {} has no load", policy.name().unwrap_or("that policy")));
        }
        let id = PeId(self.identifier.unwrap_or_else(|| fastrand::u32(1..u32::MAX)));
        Ok(Keeper {
            settings: settings.clone(),
            registration: Registration {
                element: PoolElement {
                    id,
                    home: RegistrarId(0),
                    // Three missed re-registrations, as the library does it.
                    life: 3 * 30_000,
                    transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, port, reached),
                    policy,
                    asap: None,
                },
                handle,
                interval: Duration::from_secs(30),
            },
            follows: users.is_some(),
            users,
            at: None,
            server,
            health: Health {
                check: self.check(),
                interval: Duration::from_millis(self.interval),
                timeout: Duration::from_millis(self.timeout),
                rise: self.rise,
                fall: self.fall,
            },
            full: self.load,
            runtime: None,
        })
    }
}

/// Where a server is: with a port, and an address that users can connect to.
fn server_place(text: &str) -> Result<Place, String> {
    let server = Place::parse(text, 0).map_err(|error| format!("--tcp={text}: {error}"))?;
    let any = server.addresses().iter().any(|address| address.ip().is_unspecified());
    match (server.port(), any) {
        (0, _) => Err(format!("--tcp={text}: a port is missing")),
        (_, true) => Err(format!("--tcp={text}: users need an address; \"any\" is none")),
        _ => Ok(server),
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
        Err(error) => Err(format!("{error} (1 to 0xffffffff)")),
    }
}

fn load(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("connections/").ok_or("connections/N is expected")?;
    match number.parse() {
        Ok(full @ 1..=1_000_000) => Ok(full),
        _ => Err(format!("{number}: not from 1 to 1000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_like_the_command_line() {
        assert_eq!(words(r#"a 'b c' "d"e # f"#), Ok(vec!["a".into(), "b c".into(), "de".into()]));
        assert!(words("a 'b").unwrap_err().contains("missing"));
        assert!(read_line("  # nothing").unwrap().is_none());
        let server = read_line("Web --tcp 127.0.0.1:80 --check-http '/a b' --rise 3").unwrap().unwrap();
        assert_eq!((server.check(), server.rise), (Check::Http("/a b".into()), 3));
        let keeper = server.keeper(&Settings::default()).unwrap();
        assert_eq!(keeper.registration.handle.as_bytes(), b"Web");
        for (words, weight) in [("", "WeightedRoundRobin"), ("--policy WeightedRandom", "WeightedRandom")] {
            let server = read_line(&format!("Web --tcp 127.0.0.1:80 --weight 7 {words}")).unwrap().unwrap();
            let policy = server.keeper(&Settings::default()).unwrap().registration.element.policy;
            assert_eq!(policy, policy::parse(&format!("{weight}:7")).unwrap());
        }
        assert!(read_line("Web --tcp 127.0.0.1:80 --rise 0").unwrap_err().contains("--rise"));
        let missing = read_line("Web").unwrap().unwrap().keeper(&Settings::default());
        assert!(missing.err().unwrap().contains("--tcp"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let keeper = |line: &str| read_line(line).unwrap().unwrap().keeper(&Settings::default()).err();
        assert!(keeper("Web --tcp 127.0.0.1").unwrap().contains("a port is missing"));
        assert!(keeper("Web --tcp *:80").unwrap().contains("users need an address"));
        assert!(keeper("Web --tcp 127.0.0.1:80 --load connections/5").unwrap().contains("no load"));
        assert!(keeper("Web --tcp 127.0.0.1:80 --policy Random --weight 5").unwrap().contains("no weight"));
        assert_eq!(load("connections/5"), Ok(5));
        assert!(load("5").is_err() && load("connections/0").is_err());
        assert!(identifier("0").is_err() && identifier("0x1ffffffff").unwrap_err().contains("0xffffffff"));
    }
}
