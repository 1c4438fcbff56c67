//! `rspregistrar`: a registrar process.
#![allow(clippy::disallowed_methods)]

mod http;
mod options;

use clap::Parser;
use mio::{Interest, Token};
use options::Arguments;
use rserpool::runtime::address;
use rserpool::runtime::registrar::{FIRST_TOKEN, Server};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How long peers and elements may take to hear of our end.
const FAREWELL: Duration = Duration::from_secs(2);
const SIGNALS: Token = Token(FIRST_TOKEN);

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(options::normalise(std::env::args()));
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("rspregistrar: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let options = arguments.options()?;
    if let Some(path) = &arguments.daemonpidfile {
        daemonize(path)?;
    }
    start_log(arguments)?;
    raise_descriptor_limit();
    let mut server = Server::bind(options).map_err(|error| format!("cannot bind: {error}"))?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| error.to_string())?;
    let registry = server.registry();
    registry.register(&mut signals, SIGNALS, Interest::READABLE).map_err(|error| error.to_string())?;
    let mut page = match &arguments.http {
        Some(text) => {
            let at = address::parse_one(text, 80).map_err(|error| format!("--http={text}: {error}"))?;
            Some(http::Page::bind(at, registry).map_err(|error| format!("--http={text}: {error}"))?)
        }
        None => None,
    };
    if !arguments.quiet {
        say_where(&server, page.as_ref());
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled().map(|interval| interval / 2);
    let mut ready = Vec::new();
    'serving: loop {
        let until = watchdog.map(|interval| server.now() + interval);
        server.turn(until, &mut ready).map_err(|error| error.to_string())?;
        if watchdog.is_some() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        for token in ready.drain(..) {
            if token == SIGNALS {
                // SIGHUP is for daemons that read their configuration again; ours is the command line.
                if signals.pending().any(|signal| signal != SIGHUP) {
                    break 'serving;
                }
            } else if let Some(page) = &mut page {
                page.ready(token, &server);
            }
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    server.shutdown(FAREWELL);
    if !arguments.quiet {
        println!("registrar ended");
    }
    Ok(())
}

/// One line per service, then the line that scripts wait for.
fn say_where(server: &Server, page: Option<&http::Page>) {
    let mut out = std::io::stdout().lock();
    let list = |addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(out, "ASAP tcp {}", list(server.asap_addresses()));
    let _ = writeln!(out, "ENRP tcp {}", list(server.enrp_addresses()));
    if let (Some(asap), Some(enrp)) = server.sctp_ports() {
        let _ = writeln!(out, "ASAP sctp port {asap}\nENRP sctp port {enrp}");
    }
    if let Some(address) = page.and_then(|page| page.address().ok()) {
        let _ = writeln!(out, "HTTP {address}");
    }
    let _ = writeln!(out, "registrar {} is ready", server.machine().id());
    let _ = out.flush();
}

fn start_log(arguments: &Arguments) -> Result<(), String> {
    if arguments.logquiet {
        return Ok(());
    }
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&std::env::var("RSP_LOG").unwrap_or_else(|_| arguments.log_filter()));
    if arguments.logcolor == "off" {
        builder.write_style(env_logger::WriteStyle::Never);
    }
    let (path, append) = match (&arguments.logfile, &arguments.logappend) {
        (Some(path), _) => (path, false),
        (None, Some(path)) => (path, true),
        (None, None) => {
            builder.init();
            return Ok(());
        }
    };
    let file = OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path);
    let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
    builder.target(env_logger::Target::Pipe(Box::new(file))).init();
    Ok(())
}

/// Goes to the background; the parent writes the process ID to `path` and ends.
fn daemonize(path: &std::path::Path) -> Result<(), String> {
    let mut file = std::fs::File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // The child is this program again: nothing is lost by that, since nothing has been started yet.
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let own = |argument: &String| {
        !argument.contains("-daemonpidfile=") && argument.trim_start_matches('-') != "quiet"
    };
    let arguments = std::env::args().skip(1).filter(own);
    let child = std::process::Command::new(program)
        .args(arguments)
        .arg("--quiet")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    writeln!(file, "{}", child.id()).map_err(|error| format!("{}: {error}", path.display()))?;
    std::process::exit(0);
}

/// Every connection is a descriptor: as many as the system lets us have.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("descriptors stay limited to {soft}: {error}");
    }
}
