//! `rspregistrar`: a registrar process. Options, signals, status page around the library's
//! `Server`; one thread, one poll.
#![allow(clippy::disallowed_methods)]
// What stands at options is their help.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::bare_urls)]

#[path = "../common/allocator.rs"]
mod allocator;
mod api;
mod configuration;
mod daemon;
mod dns;
#[path = "../common/dns_metrics.rs"]
mod dns_metrics;
#[path = "../common/dns.rs"]
mod dns_sockets;
mod events;
mod figures;
mod handles;
mod http;
mod logging;
mod metrics;
mod mib;
mod options;
mod page;
mod pieces;
mod process;
mod process_metrics;
mod request;
mod signals;
mod tide;
#[path = "../common/tls.rs"]
mod tls;
#[path = "../common/usage.rs"]
mod usage;
mod wire;

use clap::CommandFactory;
use configuration::{Configuration, Failure};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::never_tidies_up_at_once();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match Configuration::load(&arguments) {
        Ok(configuration) => run(arguments, configuration),
        Err(Failure::Wrong(wrong)) => Err(wrong),
        Err(Failure::Usage(error)) => {
            // rsplib's registrar ends with 1.
            let code = u8::from(error.use_stderr());
            let _ = error.print();
            return code.into();
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "rspregistrar: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>, configuration: Configuration) -> Result<(), String> {
    if configuration.options.check {
        return check(&configuration);
    }
    if let Some(shell) = configuration.options.completions {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut options::Options::command(), "rspregistrar", &mut text);
        let mut out = io::stdout().lock();
        return match out.write_all(&text).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(format!("standard output: {error}"))
            }
            _ => Ok(()),
        };
    }
    let asked = signals::start().map_err(|error| format!("signals: {error}"))?;
    let pid_file = configuration.options.daemonpidfile.clone();
    if let Some(path) = &pid_file {
        let wrong = |error: io::Error| format!("--daemonpidfile={}: {error}", path.display());
        if !daemon::is_background() {
            return daemon::start().map_err(wrong);
        }
        daemon::take_pid_file(path).map_err(wrong)?;
    }
    let result = process::run(arguments, configuration, &asked);
    daemon::remove_pid_file();
    result
}

/// Says what can be said without starting.
fn check(configuration: &Configuration) -> Result<(), String> {
    let options = &configuration.options;
    let server = options.server().and_then(|server| server.tls.open().map_err(|error| error.to_string()));
    let wrong = server
        .err()
        .or_else(|| options.http().err())
        .or_else(|| options.dns().err())
        .or_else(|| options.reports().err());
    let wrong = wrong.or_else(|| options.token().err());
    if let Some(wrong) = wrong {
        return Err(configuration.explain(wrong));
    }
    let mut out = io::stdout();
    for note in options.notes() {
        let _ = writeln!(out, "rspregistrar: {}", configuration.explain(note));
    }
    let from =
        configuration.file.as_ref().map_or("the command line".into(), |path| path.display().to_string());
    let _ = writeln!(out, "rspregistrar: {from} is good");
    Ok(())
}
