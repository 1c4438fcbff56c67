//! `rspctl doctor`: looks at this host, and says what to do where something will not work.

use crate::resolve;
use clap::Args;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rserpool::runtime::address;
use rserpool::wire::scope::{Scope, reaches};
use rserpool::wire::{ASAP_PORT, ENRP_PORT};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Look at this host: kernel, addresses, multicast, ports, limits, names, clock, certificates; and say what to do.
///
/// Exit status: 0, or 1 if something will not work.
#[derive(Args)]
pub struct DoctorArgs {
    /// JSON, an object a line
    #[arg(long)]
    json: bool,
    /// A registrar that this host shall reach; may be given several times [default: RSP_REGISTRAR]
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, but not all of it or not always.
    Warn,
    Bad,
}

struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do, where there is something to do.
    advice: &'static str,
}

fn finding(what: &'static str, verdict: Verdict, found: impl Into<String>, advice: &'static str) -> Finding {
    Finding { what, verdict, found: found.into(), advice }
}

/// Runs the subcommand.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let mut findings = vec![sctp(), addresses(), multicast()];
    findings
        .extend([("ASAP port", ASAP_PORT), ("ENRP port", ENRP_PORT)].map(|(what, port)| port_of(what, port)));
    findings.extend([descriptors(), buffers(), name(), clock()]);
    findings.extend(certificates());
    let variable =
        std::env::var("RSP_REGISTRAR").ok().filter(|value| !value.is_empty() && value != "embedded");
    let named =
        if args.registrar.is_empty() { variable.into_iter().collect() } else { args.registrar.clone() };
    findings.extend(named.iter().map(|registrar| reached(registrar)));
    let mut text = String::new();
    for Finding { what, verdict, found, advice } in &findings {
        let word = match verdict {
            Verdict::Good => "good",
            Verdict::Warn => "warn",
            Verdict::Bad => "BAD",
        };
        let line = match args.json {
            true => serde_json::json!({
                "what": what, "verdict": word.to_lowercase(), "found": found, "advice": advice,
            })
            .to_string(),
            false if advice.is_empty() => format!("{word:4}  {what}: {found}"),
            false => format!("{word:4}  {what}: {found}\n      -> {advice}"),
        };
        text += &line;
        text.push('\n');
    }
    if let Err(wrong) = crate::out::all(text.as_bytes()) {
        return crate::out::status("doctor", Err(wrong));
    }
    match findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn sctp() -> Finding {
    let what = "SCTP";
    match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(libc::IPPROTO_SCTP))) {
        Ok(_) => finding(what, Verdict::Good, "the kernel has it", ""),
        Err(error) => finding(
            what,
            Verdict::Warn,
            format!("the kernel does not have it ({error}); everything runs over TCP"),
            "for rsplib's programs, which need it: modprobe sctp (and remove \"install sctp /bin/false\" from /etc/modprobe.d)",
        ),
    }
}

/// Addresses of interfaces that are up: all of them, and those that others can reach.
fn addresses() -> Finding {
    let what = "addresses";
    let all: Vec<IpAddr> = match getifaddrs() {
        Ok(list) => list
            .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP))
            .filter_map(|entry| entry.address)
            .filter_map(|address| {
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect(),
        Err(error) => {
            let advice = "in a systemd service: RestrictAddressFamilies= must have AF_NETLINK";
            return finding(what, Verdict::Warn, format!("the interfaces can't be listed: {error}"), advice);
        }
    };
    let far: Vec<String> =
        all.iter().filter(|ip| reaches(**ip, Scope::SiteLocal)).map(ToString::to_string).collect();
    let loopback = all.iter().any(|ip| ip.is_loopback());
    match (far.is_empty(), loopback) {
        (false, true) => finding(what, Verdict::Good, far.join(", "), ""),
        (false, false) => finding(what, Verdict::Warn, "the loopback interface is down", "ip link set lo up"),
        (true, true) => finding(
            what,
            Verdict::Warn,
            "none that other hosts reach; only programs of this host find each other",
            "configure an interface; or, for one host, that is all that is needed",
        ),
        (true, false) => {
            finding(what, Verdict::Bad, "no interface is up", "ip link set lo up; configure an interface")
        }
    }
}

/// Sends a datagram to the registrars' group, and hears it.
fn multicast() -> Finding {
    let what = "multicast";
    let advice = "ip route add 239.0.0.0/8 dev DEVICE and allow UDP to 239.0.0.50 and 239.0.0.51 in the firewall; \
                  or name registrars: RSP_REGISTRAR, --peer";
    // Another port than the registrars', who would have to take it.
    let heard = || -> io::Result<bool> {
        let group = Ipv4Addr::new(239, 0, 0, 51);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(0)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let to = (group, socket.local_addr()?.port());
        socket.send_to(b"rspctl doctor", to)?;
        let mut buffer = [0; 64];
        match socket.recv_from(&mut buffer) {
            Ok((count, _)) => Ok(&buffer[..count] == b"rspctl doctor"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    };
    match heard() {
        Ok(true) => finding(what, Verdict::Good, "what is sent to 239.0.0.51 comes back on this host", ""),
        Ok(false) => {
            finding(what, Verdict::Warn, "what is sent to 239.0.0.51 is not heard, even on this host", advice)
        }
        Err(error) => finding(
            what,
            Verdict::Warn,
            format!("239.0.0.51: {error}; registrars are not found by it"),
            advice,
        ),
    }
}

fn port_of(what: &'static str, port: u16) -> Finding {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpStream::connect_timeout(&local, Duration::from_secs(1)).is_ok() {
        return match is_registrar(what, local) {
            true => finding(what, Verdict::Good, format!("a registrar answers at port {port}"), ""),
            false => finding(
                what,
                Verdict::Bad,
                format!("something that is no registrar has TCP port {port}"),
                "ss -ltnp shows what; end it, or give the registrar another port by --asap or --enrp",
            ),
        };
    }
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => finding(
            what,
            Verdict::Good,
            format!("TCP port {port} is free; no registrar runs on this host"),
            "",
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => finding(
            what,
            Verdict::Warn,
            format!("TCP port {port} is taken at some address, and nobody answers at localhost"),
            "ss -ltnp shows who has it",
        ),
        Err(error) => {
            finding(what, Verdict::Bad, format!("TCP port {port}: {error}"), "see what forbids to listen")
        }
    }
}

/// Whether who is there speaks our protocol: a resolution of a pool that there is not is answered.
fn is_registrar(what: &str, at: SocketAddr) -> bool {
    use io::{Read, Write};
    let message = match what {
        "ASAP port" => {
            let Some(handle) = rserpool::wire::PoolHandle::new(b"rspctl doctor") else { return false };
            rserpool::wire::Asap::HandleResolution { subscribe: false, handle, items: None }.encode()
        }
        _ => {
            let body = rserpool::wire::Enrp::ListRequest;
            let (sender, receiver) = (rserpool::wire::RegistrarId(1), rserpool::wire::RegistrarId(0));
            rserpool::wire::EnrpMessage { sender, receiver, body }.encode()
        }
    };
    let answer = || -> io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
        // One that has just begun looks for peers first, and then waits for elements of pools that it doesn't know.
        stream.set_read_timeout(Some(Duration::from_secs(6)))?;
        stream.write_all(&message)?;
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    // A message's head: a type that we know, and a length.
    matches!(answer(), Ok([1..=14, _, high, low]) if u16::from_be_bytes([high, low]) >= 4)
}

fn descriptors() -> Finding {
    let what = "descriptors";
    let advice = "LimitNOFILE=1048576 in the service's unit, or /etc/security/limits.conf";
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < 1024 => {
            let found = format!(
                "{hard} at most: a registrar has some {} connections",
                hard.saturating_sub(128).max(16)
            );
            finding(what, Verdict::Bad, found, advice)
        }
        Ok((_, hard)) if hard < 65_536 => {
            finding(what, Verdict::Warn, format!("{hard} at most, as many elements and users"), advice)
        }
        Ok((_, hard)) => finding(what, Verdict::Good, format!("{hard} at most"), ""),
        Err(error) => finding(what, Verdict::Warn, error.to_string(), advice),
    }
}

fn buffers() -> Finding {
    let what = "socket buffers";
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    match (read("wmem_max"), read("rmem_max")) {
        (Some(send), Some(receive)) if send.min(receive) < 200_000 => finding(
            what,
            Verdict::Warn,
            format!("send {send}, receive {receive} bytes: messages over SCTP are at most twice that"),
            "sysctl -w net.core.wmem_max=4194304 net.core.rmem_max=4194304",
        ),
        (Some(send), Some(receive)) => {
            finding(what, Verdict::Good, format!("send {send}, receive {receive} bytes"), "")
        }
        _ => finding(what, Verdict::Good, "the kernel does not tell here (a container)", ""),
    }
}

/// This host's own name, which others may be told.
fn name() -> Finding {
    let what = "name";
    let Some(name) = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()) else {
        return finding(what, Verdict::Warn, "this host has no name", "hostnamectl hostname NAME");
    };
    let advice = "an entry in /etc/hosts or in the DNS, with the address that others reach";
    match (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>) {
        Err(error) => finding(what, Verdict::Warn, format!("{name} is not found: {error}"), advice),
        Ok(found) if found.iter().all(|address| address.ip().is_loopback()) => {
            let found = format!("{name} is a loopback address here, so servers must not be given by it");
            finding(what, Verdict::Warn, found, advice)
        }
        Ok(found) => finding(what, Verdict::Good, format!("{name} is {}", found[0].ip()), ""),
    }
}

/// Days before the end of a certificate or a list when that is worth a word.
const SOON: u64 = 14;

/// What TLS would use, from the options and variables: can it be used, by whom can the key be read, for how long.
fn certificates() -> Vec<Finding> {
    let what = "certificate";
    let tls = match resolve::tls() {
        Ok(tls) => tls,
        Err(error) => return vec![finding(what, Verdict::Bad, error, "rspctl ca makes what is needed")],
    };
    let keeper = match tls.open() {
        Ok(Some(keeper)) => keeper,
        Ok(None) => {
            let advice = "whoever reaches registrars owns the scope: rspctl ca, RSP_TLS_DIR, or --allow";
            return vec![finding(what, Verdict::Warn, "none is set: connections are without TLS", advice)];
        }
        Err(error) => {
            let advice =
                "give files as rspctl ca makes them: RSP_TLS_DIR=.., or --tls-cert, --tls-key and --tls-ca";
            return vec![finding(what, Verdict::Bad, error.to_string(), advice)];
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let status = keeper.status();
    let until = |what, end: u64, advice| {
        let days = end.saturating_sub(now) / 86_400;
        match (end <= now, days < SOON) {
            (true, _) => finding(what, Verdict::Bad, "it is out of date", advice),
            (false, true) => finding(what, Verdict::Warn, format!("good for {days} more days"), advice),
            (false, false) => finding(what, Verdict::Good, format!("good for {days} more days"), ""),
        }
    };
    let mut findings = vec![until(
        what,
        status.certificate_expires,
        "rspctl ca issue makes a new one; it is taken without a restart",
    )];
    findings
        .extend(status.list_expires.map(|end| until("revocation list", end, "rspctl ca crl writes it anew")));
    let key = keeper.key_file();
    match std::fs::metadata(key).map(|found| found.mode() & 0o7777) {
        Ok(mode) if mode & 0o077 != 0 => findings.push(finding(
            "key",
            Verdict::Bad,
            format!("{} can be read by others (mode {mode:o})", key.display()),
            "chmod 600, and a new one if others were there: rspctl ca issue",
        )),
        Ok(_) => findings.push(finding("key", Verdict::Good, "nobody else reads it", "")),
        Err(error) => findings.push(finding("key", Verdict::Bad, format!("{}: {error}", key.display()), "")),
    }
    findings
}

fn clock() -> Finding {
    let what = "clock";
    let advice =
        "timedatectl set-ntp true (logs of several hosts are put in order by it, certificates judged)";
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // 2025: no program is older than its release.
    if seconds < 1_735_689_600 {
        return finding(what, Verdict::Bad, "it is before the year 2025", advice);
    }
    // SAFETY: all zeros is a request that changes nothing.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer to one.
    match unsafe { libc::adjtimex(&raw mut request) } {
        -1 => finding(what, Verdict::Warn, format!("not known: {}", io::Error::last_os_error()), advice),
        _ if request.status & libc::STA_UNSYNC != 0 => {
            finding(what, Verdict::Warn, "the kernel is not told that it is right", advice)
        }
        _ => finding(what, Verdict::Good, format!("right to {} ms", request.maxerror / 1000), ""),
    }
}

fn reached(registrar: &str) -> Finding {
    let what = "registrar";
    let found = match address::parse_list(registrar, ASAP_PORT) {
        Ok(found) => found,
        Err(error) => return finding(what, Verdict::Bad, error.to_string(), "see the name, and the DNS"),
    };
    let mut last = String::new();
    for at in found {
        match TcpStream::connect_timeout(&at, Duration::from_secs(3)) {
            Ok(_) if is_registrar("ASAP port", at) => {
                return finding(what, Verdict::Good, format!("{registrar} answers at {at}"), "");
            }
            Ok(_) => last = format!("{at}: something that is no registrar answers"),
            Err(error) => last = format!("{at}: {error}"),
        }
    }
    finding(
        what,
        Verdict::Bad,
        last,
        "is rspregistrar running there, and does a firewall let TCP port 3863 through?",
    )
}
