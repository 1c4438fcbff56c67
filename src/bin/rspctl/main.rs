//! `rspctl`: resolve, register, decode and measure from a shell.
#![allow(clippy::disallowed_methods)]
// What stands at options is their help.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::bare_urls)]

mod bench;
mod ca;
mod decode;
mod dns;
#[path = "../common/dns_metrics.rs"]
mod dns_metrics;
#[path = "../common/dns.rs"]
mod dns_sockets;
mod doctor;
mod handle;
mod json;
mod operate;
mod out;
mod page;
mod pcap;
mod proxy;
mod register;
mod resolve;
mod run;
mod scrape;
#[path = "../common/tls.rs"]
mod tls;
#[path = "../common/usage.rs"]
mod usage;
mod watch;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Reliable Server Pooling from a shell (RFC 5351-5356).
#[derive(Parser)]
#[command(name = "rspctl", version, max_term_width = 100)]
struct Options {
    #[command(flatten)]
    tls: tls::TlsArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Resolve(resolve::ResolveArgs),
    Register(register::RegisterArgs),
    Proxy(proxy::ProxyArgs),
    Watch(watch::WatchArgs),
    Dns(dns::DnsArgs),
    Run(run::RunArgs),
    /// Print messages given in hexadecimal, one line each.
    Decode(decode::DecodeArgs),
    Ca(ca::CaArgs),
    #[command(flatten)]
    See(operate::See),
    #[command(flatten)]
    Act(operate::Act),
    Doctor(doctor::DoctorArgs),
    /// Print what completes commands in a shell: bash, zsh, fish, elvish, powershell.
    #[command(hide = true)]
    Completions {
        shell: clap_complete::Shell,
    },
    /// Measure a registrar under load.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// Log lines to standard error: warnings, or what RSP_LOG says.
fn start_logging() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn).format_timestamp_millis();
    if let Ok(filters) = std::env::var("RSP_LOG") {
        builder.parse_filters(&filters);
    }
    builder.init();
}

fn main() -> ExitCode {
    start_logging();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = usage::with_negative_numbers(Options::command());
    let matches = command
        .try_get_matches_from_mut(&arguments)
        .map_err(|error| usage::explained(error, &mut command, &arguments));
    let options = matches.and_then(|matches| Options::from_arg_matches(&matches));
    let options = options.unwrap_or_else(|error| error.exit());
    resolve::TLS.get_or_init(|| options.tls);
    match options.command {
        Command::Resolve(args) => resolve::run(&args),
        Command::Register(args) => register::run(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Dns(args) => dns::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Ca(args) => ca::run(&args),
        Command::See(see) => operate::see(&see),
        Command::Act(act) => operate::act(&act),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Options::command(), "rspctl", &mut text);
            out::status("completions", out::all(&text).map(|()| ExitCode::SUCCESS))
        }
        Command::Bench(command) => bench::run(&command),
    }
}
