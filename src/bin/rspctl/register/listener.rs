//! A server that is known by its port: the element is in its pool while somebody listens there. Started by `rspctl run
//! --serve`, or by the preload library when the server listens (RSP_SERVE), beside the server and not in it: so it survives that the
//! server turns into a daemon, has many processes, restarts, or was given its socket by somebody else, and the server needs no
//! thread of ours.
//!
//! Its abstract UNIX socket ([`keeper_name`]) makes it the only one for its pool and port, and takes calls:
//!
//! | call | who | answer |
//! |---|---|---|
//! | `T` | a process of the server that was told to end (SIGTERM), before it does | the end of the connection, once the element has left if the server ends with that process |
//! | `R` and 8 bytes | another keeper, whose options have this hash | `=`: they are ours as well; the end of the connection: the place is free |

use super::holders;
use super::keeper::Keeper;
use super::{ServerArgs, stop_flag};
use crate::out;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rserpool::runtime::{Settings, keeper_name};
use rserpool::transport::diag::{self, ListeningSocket};
use rserpool::transport::interfaces::interfaces;
use rserpool::wire::scope::Scope;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
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
/// How long it may have something to say to who started it.
const SILENT: Duration = Duration::from_secs(1);

pub fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the process in the background.
pub fn start() -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "1").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(drop)
}

/// What may be said to another one, and by whom it is heard.
const CALL: Duration = Duration::from_millis(500);
const TERMINATED: u8 = b'T';
const REPLACES: u8 = b'R';
const SAME: u8 = b'=';

/// What a keeper is told to do, so that others are known that were told the same.
fn fingerprint(pool: &[u8]) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    pool.hash(&mut hasher);
    std::env::args_os().skip(3).collect::<Vec<_>>().hash(&mut hasher);
    let is_ours = |name: &std::ffi::OsString| name.as_bytes().starts_with(b"RSP_");
    let for_users = ["RSP_POOLS", "RSP_MAP", "RSP_SUFFIX", "RSP_SERVE"];
    let mut variables: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| is_ours(name) && !for_users.iter().any(|other| name == other))
        .collect();
    variables.sort();
    variables.hash(&mut hasher);
    hasher.finish().to_ne_bytes()
}

/// One keeper for a pool and port: the place of one that was told otherwise is taken. `None`: there is one already.
fn take_place(pool: &[u8], port: u16, fingerprint: [u8; 8]) -> io::Result<Option<UnixListener>> {
    let address = UnixAddress::from_abstract_name(keeper_name(port, pool))?;
    let begun = Instant::now();
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return Ok(Some(socket));
            }
            Err(error) if error.kind() != ErrorKind::AddrInUse => return Err(error),
            Err(_) if begun.elapsed() > AGAIN => return Ok(None),
            Err(_) => {}
        }
        let mut answer = [0];
        let asked = UnixStream::connect_addr(&address).and_then(|mut other| {
            other.set_read_timeout(Some(AGAIN))?;
            other.write_all(&[&[REPLACES], &fingerprint[..]].concat())?;
            other.read(&mut answer)
        });
        if asked.is_ok() && answer[0] == SAME {
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}

/// A call that was taken.
enum Call {
    /// That process of the server was told to end.
    Terminated(i32, UnixStream),
    /// Another one takes our place.
    Replaced(UnixStream),
}

/// The socket of the keeper, and what it was told to do.
struct KeeperSocket {
    socket: UnixListener,
    fingerprint: [u8; 8],
}

impl KeeperSocket {
    /// The next call. Nobody is waited for: who calls has something to say.
    fn call(&self, listening: &[ListeningSocket]) -> Option<Call> {
        let (mut caller, _) = self.socket.accept().ok()?;
        let who = getsockopt(&caller, PeerCredentials).ok()?;
        caller.set_nonblocking(false).and_then(|()| caller.set_read_timeout(Some(CALL))).ok()?;
        let mut call = [0; 9];
        let length = caller.read(&mut call).ok()?;
        // SAFETY: no memory is involved.
        let own = unsafe { libc::geteuid() };
        let may = who.uid() == own || who.uid() == 0 || {
            let inodes: Vec<u32> = listening.iter().map(|listener| listener.inode).collect();
            holders::find(&inodes).contains_key(&who.pid())
        };
        match (&call[..length], may) {
            ([TERMINATED], true) => Some(Call::Terminated(who.pid(), caller)),
            ([REPLACES, theirs @ ..], true) if *theirs == self.fingerprint => {
                let _ = caller.write_all(&[SAME]);
                None
            }
            ([REPLACES, ..], true) => Some(Call::Replaced(caller)),
            _ => None,
        }
    }
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

/// Whoever reads what the server says is not kept waiting for its end.
fn let_go_of_pipes() {
    let is_pipe = std::fs::metadata("/proc/self/fd/2").is_ok_and(|meta| meta.file_type().is_fifo());
    if is_pipe && let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        // SAFETY: both are open.
        unsafe { libc::dup2(null.as_raw_fd(), 2) };
    }
}

/// Until nobody listens any more, or a signal, or another one takes the place.
pub fn keep(args: &ServerArgs, settings: &Settings, port: u16) -> Result<(), String> {
    let stop = stop_flag()?;
    let pool = args.pool.as_bytes();
    let fingerprint = fingerprint(pool);
    let place = take_place(pool, port, fingerprint).map_err(|error| format!("port {port}: {error}"))?;
    // Every process of a server that has several may start one.
    let Some(socket) = place else { return Ok(()) };
    let place = KeeperSocket { socket, fingerprint };
    let at = |error: io::Error| format!("port {port}: {error}");
    let mut missing = Instant::now();
    let mut patience = FIRST;
    // Sockets of a server that was told to end: they are no reason to enter the pool again.
    let mut left = Vec::new();
    while !stop.load(Ordering::Relaxed) && missing.elapsed() < patience {
        let listening = diag::listeners(port).map_err(at)?;
        if listening.is_empty() || listening == left {
            if let Some(Call::Replaced(_)) = place.call(&listening) {
                return Ok(());
            }
            if listening == left && !left.is_empty() {
                missing = Instant::now();
            } else if missing.elapsed() > SILENT {
                let_go_of_pipes();
            }
            thread::sleep(GLANCE);
            continue;
        }
        // Some listen at one address after the other.
        thread::sleep(GLANCE);
        let listening = diag::listeners(port).map_err(at)?;
        let mut caller = None;
        match serve(args, settings, port, &place, &listening, &stop)? {
            Ending::Closed => {}
            Ending::Left(sockets, call) => (left, caller) = (sockets, Some(call)),
            Ending::Replaced(_) => return Ok(()),
        }
        drop(caller);
        (missing, patience) = (Instant::now(), AGAIN);
    }
    Ok(())
}

/// Why a server is served no more. Who called is answered when that is dropped: the element has left.
enum Ending {
    Closed,
    Left(Vec<ListeningSocket>, UnixStream),
    Replaced(#[expect(dead_code, reason = "dropped is the answer")] UnixStream),
}

/// As long as somebody listens.
fn serve(
    args: &ServerArgs,
    settings: &Settings,
    port: u16,
    place: &KeeperSocket,
    listening: &[ListeningSocket],
    stop: &Arc<AtomicBool>,
) -> Result<Ending, String> {
    let addresses: Vec<IpAddr> = listening.iter().map(|listener| listener.ip).collect();
    let first = addresses.first().map_or(Ipv4Addr::LOCALHOST.into(), IpAddr::to_canonical);
    let checked = if first.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { first };
    let at = SocketAddr::new(checked, port).into();
    let keeper: Keeper = args.keeper_of(settings, at, reached(&addresses))?;
    out::complain(format_args!(
        "rspctl: port {port} is listened on: {} is in its pool",
        keeper.registration.element.id
    ));
    let_go_of_pipes();
    let closed = AtomicBool::new(false);
    let mut told = Vec::new();
    let end = thread::scope(|scope| {
        scope.spawn(|| keeper.run(&closed));
        let end = loop {
            let now = diag::listeners(port).unwrap_or_default();
            if now.is_empty() || stop.load(Ordering::Relaxed) {
                break Ending::Closed;
            }
            match place.call(&now) {
                Some(Call::Terminated(process, caller)) => {
                    told.push(process);
                    let inodes: Vec<u32> = now.iter().map(|listener| listener.inode).collect();
                    if holders::end_with(&holders::find(&inodes), &told) {
                        break Ending::Left(now, caller);
                    }
                }
                Some(Call::Replaced(caller)) => break Ending::Replaced(caller),
                None => thread::sleep(GLANCE),
            }
        };
        closed.store(true, Ordering::Relaxed);
        end
    });
    Ok(end)
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
        let pool = pool.as_bytes();
        let first =
            KeeperSocket { socket: take_place(pool, 1, [1; 8]).unwrap().unwrap(), fingerprint: [1; 8] };
        assert!(take_place(pool, 2, [1; 8]).unwrap().is_some());
        thread::scope(|scope| {
            let same = scope.spawn(|| take_place(pool, 1, [1; 8]).unwrap().is_none());
            while !same.is_finished() {
                assert!(first.call(&[]).is_none());
                thread::sleep(GLANCE);
            }
            assert!(same.join().unwrap(), "it is told the same");
            let other = scope.spawn(|| take_place(pool, 1, [2; 8]).unwrap().is_some());
            let call = loop {
                match first.call(&[]) {
                    Some(call) => break call,
                    None => thread::sleep(GLANCE),
                }
            };
            assert!(matches!(call, Call::Replaced(_)));
            drop((first, call));
            assert!(other.join().unwrap(), "it takes the place");
        });
    }
}
