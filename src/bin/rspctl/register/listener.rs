//! A server that is known by its port: the element is in its pool while somebody listens there. Started by `rspctl run
//! --serve`, beside the server and not in it: so it survives that the server turns into a daemon, has many processes,
//! restarts, or was given its socket by somebody else, and the server needs no thread of ours.

use super::keeper::Keeper;
use super::{ServerArgs, stop_flag};
use crate::out;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use rserpool::runtime::Settings;
use rserpool::transport::diag;
use rserpool::transport::interfaces::interfaces;
use rserpool::transport::scope::Scope;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Tells the program that it is the one in the background.
const VARIABLE: &str = "RSPCTL_IN_BACKGROUND";
/// How often the kernel is asked who listens.
const GLANCE: Duration = Duration::from_millis(25);
/// How long a server may take to listen for the first time, and again.
const FIRST: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(5);

pub fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the process in the background.
pub fn start() -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "1").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(drop)
}

/// One keeper for a pool and port; it is in the way of the next as long as it lives.
fn lock(pool: &str, port: u16) -> nix::Result<OwnedFd> {
    let name = format!("rserpool-serve-{port}-{pool}");
    let name = &name.as_bytes()[..name.len().min(100)];
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    Ok(socket)
}

/// Where users reach what listens at these addresses: who listens at all has those of the machine.
fn reached(listening: &[IpAddr]) -> Vec<IpAddr> {
    let (any, mut given): (Vec<IpAddr>, Vec<IpAddr>) =
        listening.iter().map(IpAddr::to_canonical).partition(IpAddr::is_unspecified);
    if !any.is_empty() {
        let all = interfaces().unwrap_or_default();
        given = all.iter().flat_map(|interface| interface.addresses_from(Scope::SiteLocal)).collect();
        if !any.iter().any(IpAddr::is_ipv6) {
            given.retain(IpAddr::is_ipv4);
        }
        if given.is_empty() {
            given.push(Ipv4Addr::LOCALHOST.into());
        }
    }
    given.sort_unstable();
    given.dedup();
    given
}

/// Until nobody listens any more, or a signal.
pub fn keep(args: &ServerArgs, settings: &Settings, port: u16) -> Result<(), String> {
    let stop = stop_flag()?;
    // Every process of a server that has several may start one.
    let Ok(_lock) = lock(&args.pool.to_string_lossy(), port) else { return Ok(()) };
    let mut missing = Instant::now();
    let mut patience = FIRST;
    while !stop.load(Ordering::Relaxed) && missing.elapsed() < patience {
        let listening = diag::listeners(port).map_err(|error| format!("port {port}: {error}"))?;
        if listening.is_empty() {
            thread::sleep(GLANCE);
            continue;
        }
        serve(args, settings, port, &listening, &stop)?;
        (missing, patience) = (Instant::now(), AGAIN);
    }
    Ok(())
}

/// As long as somebody listens.
fn serve(
    args: &ServerArgs,
    settings: &Settings,
    port: u16,
    listening: &[IpAddr],
    stop: &Arc<AtomicBool>,
) -> Result<(), String> {
    let first = listening.first().map_or(Ipv4Addr::LOCALHOST.into(), IpAddr::to_canonical);
    let checked = if first.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { first };
    let reached = reached(listening);
    let keeper: Keeper = args.keeper_of(settings, SocketAddr::new(checked, port), reached.clone())?;
    out::complain(format_args!(
        "rspctl: port {port} is listened on: {} is in its pool",
        keeper.registration.element.id
    ));
    let closed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keeper.run(&closed));
        while !stop.load(Ordering::Relaxed) && diag::listeners(port).is_ok_and(|now| !now.is_empty()) {
            thread::sleep(GLANCE);
        }
        closed.store(true, Ordering::Relaxed);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_users_reach() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(reached(&[ip("192.0.2.1"), ip("192.0.2.1")]), [ip("192.0.2.1")]);
        let any = reached(&[ip("0.0.0.0")]);
        assert!(!any.is_empty() && any.iter().all(|ip| ip.is_ipv4() && !ip.is_unspecified()), "{any:?}");
    }

    #[test]
    fn one_keeper_for_a_port() {
        let pool = format!("test-{}", std::process::id());
        let first = lock(&pool, 1).unwrap();
        assert!(lock(&pool, 1).is_err() && lock(&pool, 2).is_ok());
        drop(first);
        assert!(lock(&pool, 1).is_ok());
    }
}
