//! `rspctl ca`: an authority for one scope, and certificates for whoever belongs to it.

mod authority;
mod index;

use authority::{Authority, Names};
use clap::{Args, Subcommand, ValueEnum};
use rserpool::machine::trust::{PREFIX, pool_role};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Make certificates for TLS: an authority, and for registrars, elements and users what they prove themselves by.
#[derive(Args)]
pub struct CaArgs {
    /// The authority's directory.
    #[arg(long, global = true, value_name = "DIR", default_value = "ca")]
    dir: PathBuf,
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Subcommand)]
enum CaCommand {
    /// Make an authority: ca.pem, and ca.key, which never leaves this machine.
    Init {
        /// Name of the scope that registrars belong to.
        #[arg(long, value_name = "NAME", default_value = "rserpool")]
        scope: String,
        /// How long it is valid.
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Make a certificate with its key, in a directory of that name: the one that --tls-dir takes.
    Issue {
        /// What it is called.
        name: String,
        /// What it lets its owner be; repeatable.
        #[arg(long, required = true)]
        role: Vec<CertificateKind>,
        /// For elements and users: pool handle, in which * stands for anything; repeatable. Default: any.
        #[arg(long, value_name = "POOLS")]
        pool: Vec<String>,
        /// An address to be in it; RSerPool does not look at that, others may. Repeatable.
        #[arg(long)]
        ip: Vec<IpAddr>,
        /// A host name to be in it, likewise. Repeatable.
        #[arg(long)]
        dns: Vec<String>,
        /// How long it is valid.
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Replace a certificate and its key. The old one stays valid as long as it is.
    Renew {
        /// What it is called.
        name: String,
        /// How long the new one is valid.
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Take certificates back, and write the revocation list.
    Revoke {
        /// Name, for all of its certificates, or serial number.
        what: String,
    },
    /// Print the certificates made so far: serial number, state, last day, name, roles.
    List,
    /// Write the revocation list anew: it is out of date after 30 days.
    Crl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CertificateKind {
    Registrar,
    Element,
    User,
    Operator,
}

/// Runs the subcommand. Exit status 0: done; 1: not, and why.
pub fn run(args: &CaArgs) -> ExitCode {
    match execute(args) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("rspctl: ca: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn execute(args: &CaArgs) -> Result<String, String> {
    let dir = &args.dir;
    let days = |days: &u32| Duration::from_secs(u64::from(*days) * 86_400);
    match &args.command {
        CaCommand::Init { scope, days: valid } => {
            Authority::init(dir, scope, days(valid))?;
            let shown = dir.display();
            Ok(format!("authority of scope \"{scope}\": {shown}/ca.pem; keep {shown}/ca.key to yourself\n"))
        }
        CaCommand::Issue { name, role, pool, ip, dns, days: valid } => {
            let authority = Authority::open(dir)?;
            let names =
                Names { roles: roles(role, pool, authority.scope()), ip: ip.clone(), dns: dns.clone() };
            authority.issue(name, &names, days(valid))?;
            Ok(usage(dir, name))
        }
        CaCommand::Renew { name, days: valid } => {
            Authority::open(dir)?.renew(name, days(valid))?;
            Ok(usage(dir, name))
        }
        CaCommand::Revoke { what } => {
            let count = Authority::open(dir)?.revoke(what)?;
            Ok(format!("{count} revoked; {}/crl.pem has to get to whoever is to know\n", dir.display()))
        }
        CaCommand::List => Authority::open(dir)?.list(),
        CaCommand::Crl => {
            Authority::open(dir)?.write_list()?;
            Ok(format!("{}/crl.pem\n", dir.display()))
        }
    }
}

fn roles(kinds: &[CertificateKind], pools: &[String], scope: &str) -> Vec<String> {
    let any = ["*".to_string()];
    let pools = if pools.is_empty() { &any } else { pools };
    let of_pools = |kind| pools.iter().map(move |pools| pool_role(kind, pools));
    let mut roles = Vec::new();
    for kind in kinds {
        match kind {
            CertificateKind::Registrar => roles.push(pool_role("registrar", scope)),
            CertificateKind::Element => roles.extend(of_pools("element")),
            CertificateKind::User => roles.extend(of_pools("user")),
            CertificateKind::Operator => roles.push(format!("{PREFIX}operator")),
        }
    }
    roles
}

fn usage(dir: &std::path::Path, name: &str) -> String {
    let at = dir.join(name);
    let at = std::path::absolute(&at).unwrap_or(at);
    format!("programs: --tls-dir={0}\nlibrary:  RSP_TLS_DIR={0}\n", at.display())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
