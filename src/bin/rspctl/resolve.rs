//! `rspctl resolve`: ask a registrar for a pool's elements.

use crate::tls::TlsArgs;
use crate::{handle, out};
use clap::Args;
use rserpool::runtime::{Directory, Runtime, Settings, Tls};
use rserpool::wire::{ALL_ITEMS, PoolElement};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

/// Resolve a pool handle and print the chosen elements, best first.
#[derive(Args)]
pub struct ResolveArgs {
    /// Pool handle.
    pool: OsString,
    /// How many elements to ask for (1 to 1000).
    #[arg(long, short = 'n', default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    items: u16,
    /// Ask for all of the pool's elements.
    #[arg(long, conflicts_with = "items")]
    all: bool,
    /// A registrar to ask; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
    /// JSON instead of text, one object per element.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand. Exit status 0: found; 1: no such pool, no registrar, or bad arguments.
pub fn run(args: &ResolveArgs) -> ExitCode {
    match resolve(args) {
        Ok(elements) if elements.is_empty() => {
            let pool = args.pool.to_string_lossy();
            out::complain(format_args!("rspctl: resolve: pool \"{pool}\" is empty or unknown"));
            ExitCode::FAILURE
        }
        Ok(elements) => {
            // A reader that has seen enough goes away.
            let _ = elements.iter().all(|element| print(element, args.json));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            out::complain(format_args!("rspctl: resolve: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn resolve(args: &ResolveArgs) -> Result<Vec<PoolElement>, String> {
    let handle = handle::parse(&args.pool)?;
    let runtime = start(&args.registrar)?;
    let items = if args.all { ALL_ITEMS as usize } else { usize::from(args.items) };
    let result = runtime.resolve(&handle, items, Duration::ZERO);
    let answered = runtime.answered_by();
    runtime.shutdown();
    if let Some(registrar) = answered {
        out::complain(format_args!("rspctl: resolve: answered by registrar {registrar}"));
    }
    result.map_err(|error| format!("\"{handle}\": {error}"))
}

/// The options about TLS, for every subcommand that speaks to a registrar.
pub static TLS: OnceLock<TlsArgs> = OnceLock::new();

/// What is set about TLS: the options before the variables.
pub fn tls() -> Result<Tls, String> {
    let mut tls = Tls::from_env().map_err(|error| error.to_string())?;
    TLS.get().map_or(Ok(()), |options| options.apply(&mut tls))?;
    Ok(tls)
}

/// The library's runtime. Registrars of the command line are the only ones: who asks X wants to know what X says.
pub fn start(registrars: &[String]) -> Result<Runtime, String> {
    Runtime::start(settings(registrars)?).map_err(|error| format!("cannot start: {error}"))
}

/// The library's settings with the registrars of the command line before all others.
pub fn settings(registrars: &[String]) -> Result<Settings, String> {
    let mut settings = Settings::from_env().map_err(|error| error.to_string())?;
    if let Some(tls) = TLS.get() {
        tls.apply(&mut settings.tls)?;
    }
    if !registrars.is_empty() {
        settings.registrars.clear();
        settings.registrar_names.clear();
        (settings.embedded_registrar, settings.announce) = (false, None);
    }
    for registrar in registrars {
        settings.add_registrar(registrar).map_err(|error| format!("--registrar={registrar}: {error}"))?;
    }
    Ok(settings)
}

/// `false`: nobody reads any more.
fn print(element: &PoolElement, json: bool) -> bool {
    let addresses: Vec<String> = element.transport.socket_addresses().map(|a| a.to_string()).collect();
    let protocol = element.transport.protocol().map_or("opaque".into(), |p| format!("{p:?}").to_lowercase());
    if json {
        let line = serde_json::json!({
            "id": element.id.to_string(), "home": element.home.to_string(), "life_ms": element.life,
            "protocol": protocol, "use": format!("{:?}", element.transport.usage()),
            "addresses": addresses, "policy": element.policy.to_string(),
        });
        out::line(line)
    } else {
        out::line(format_args!(
            "{} {protocol} {} {} home {} life {} s",
            element.id,
            addresses.join(","),
            element.policy,
            element.home,
            element.life / 1000
        ))
    }
}
