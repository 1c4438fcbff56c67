//! The command line: rsplib's spelling, with one or two dashes, always `--option=value`.

use crate::dns_sockets::MAX_ADDRESSES;
use crate::tls::TlsArgs;
use clap::Parser;
use rserpool::dns::{DNS_PORT, Zone};
use rserpool::machine::registrar::{Config, Dialect};
use rserpool::machine::{LinkProtocol, Target};
use rserpool::runtime::registrar::{Listen, Options as ServerOptions};
use rserpool::runtime::{MIN_CSP_INTERVAL, Tls, address, parse_announce, parse_transport, targets};
use rserpool::transport::allow::Networks;
use rserpool::transport::multicast::{ASAP_GROUP, ENRP_GROUP};
use rserpool::wire::scope::Scope;
use rserpool::wire::{ASAP_PORT, ASAP_TLS_PORT, ENRP_PORT, ENRP_TLS_PORT, RegistrarId};
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// A registrar for Reliable Server Pooling (RFC 5351-5356).
///
/// Options may be written with one dash or two, as --option=value.
#[derive(Debug, Parser)]
#[command(name = "rspregistrar", version, max_term_width = 100, args_override_self = true)]
pub struct Options {
    /// Read options from FILE, whose keys are their names; the command line wins; off: from none
    /// [default: /etc/rserpool/registrar.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say whether the configuration is good, and end
    #[arg(long)]
    pub check: bool,
    /// Print what completes the options in a shell, and end
    #[arg(long, value_name = "SHELL", hide = true)]
    pub completions: Option<clap_complete::Shell>,
    /// Our ID, decimal or 0xHEX; 0: random
    #[arg(long, value_name = "ID", default_value = "0", value_parser = identifier)]
    identifier: u32,
    /// Where elements and users reach us: auto (all addresses, port 3863, or any if that is taken) or
    /// ADDRESS[:PORT][,ADDRESS...]; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "auto")]
    asap: String,
    /// Where other registrars reach us: as --asap, port 9901
    #[arg(long, value_name = "ADDRESS", default_value = "auto")]
    enrp: String,
    /// Group for announcements to elements and users: auto (239.0.0.50:3863 and [ff05::133]:3863), off, or ADDRESS[:PORT];
    /// 224.0.1.185 (RFC 5352) beside those of auto
    #[arg(long, value_name = "GROUP", default_value = "auto")]
    asapannounce: String,
    /// Group of the registrars: auto (239.0.0.51:9901 and [ff15::133]:9901), off, or ADDRESS[:PORT]
    #[arg(long, value_name = "GROUP", default_value = "auto", alias = "enrpmulticast")]
    enrpannounce: String,
    /// Time to live of what goes to the groups, 1 to 255; beyond that the nearest of these
    #[arg(long, value_name = "N", default_value_t = 30, allow_negative_numbers = true)]
    announcettl: i64,
    /// Another registrar: ADDRESS[:PORT][,ADDRESS...], one host; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    peer: Vec<String>,
    /// Over what to serve: auto (all that the kernel has), sctp or tcp
    #[arg(long, value_name = "PROTOCOL", default_value = "auto")]
    transport: String,
    /// Serve the operator's page, /healthz, /handlespace (JSON) and /metrics (Prometheus) at ADDRESS:PORT;
    /// PORT alone: of localhost
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Answer DNS queries for pools at ADDRESS[:PORT][,ADDRESS...], port 53, over UDP and TCP; PORT alone: of localhost
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Option<String>,
    /// The zone below which each pool has its name
    #[arg(long, value_name = "NAME", default_value = "pool")]
    dnszone: String,
    /// How long answers may be kept, seconds
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub dnsttl: u32,
    /// Connections at a time [default: what the descriptor limit allows]
    #[arg(long, value_name = "N")]
    maxconnections: Option<usize>,
    /// Elements at a time
    #[arg(long, value_name = "N")]
    maxelements: Option<usize>,
    /// Whoever sends the first line of FILE as a bearer token may change things over --http
    #[arg(long, value_name = "FILE")]
    httptoken: Option<PathBuf>,
    /// Pools that /metrics tells apart; the others are summed up
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub maxmetricpools: usize,
    /// Smallest scope of addresses that elements are registered with: loopback, sitelocal or global;
    /// loopback addresses of elements on this host are always taken
    #[arg(long, value_name = "SCOPE", default_value = "sitelocal")]
    minaddressscope: String,

    /// Time between announcements, ms
    #[arg(long, value_name = "MS")]
    serverannouncecycle: Option<u64>,
    /// Time between keep-alives to an element, ms
    #[arg(long, value_name = "MS")]
    endpointkeepalivetransmissioninterval: Option<u64>,
    /// Time that an element may take to answer, ms
    #[arg(long, value_name = "MS")]
    endpointkeepalivetimeoutinterval: Option<u64>,
    /// Recent reports of unreachability that remove an element
    #[arg(long, value_name = "N")]
    maxbadpereports: Option<u32>,
    /// Rounding of distances (half round trips, for policies with a distance penalty), ms
    #[arg(long, value_name = "MS")]
    distancestep: Option<u64>,
    /// Selected elements that count as used; 0: what suits the policy
    #[arg(long, value_name = "N")]
    maxincrement: Option<usize>,
    /// Elements per answer if the question names no number
    #[arg(long, value_name = "N")]
    maxhresitems: Option<usize>,
    /// Handle resolutions per second and connection; up to 0: no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    maxhrrate: Option<i64>,
    /// Reports of unreachability per second and connection; up to 0: no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    maxeurate: Option<i64>,
    /// Elements per part of a handle table
    #[arg(long, value_name = "N")]
    maxelementsperhtrequest: Option<usize>,
    /// Time between presences, ms
    #[arg(long, value_name = "MS")]
    peerheartbeatcycle: Option<u64>,
    /// Silence after which a peer is asked whether it is there, ms
    #[arg(long, value_name = "MS")]
    peermaxtimelastheard: Option<u64>,
    /// Time that it may take to answer that, ms
    #[arg(long, value_name = "MS")]
    peermaxtimenoresponse: Option<u64>,
    /// Time to look for a registrar to learn from, ms
    #[arg(long, value_name = "MS")]
    mentordiscoverytimeout: Option<u64>,
    /// Time that a takeover may take, ms
    #[arg(long, value_name = "MS")]
    takeoverexpiryinterval: Option<u64>,
    /// Take over an element when its registrar suggests so
    #[arg(long)]
    supporttakeoversuggestion: bool,
    /// What peers speak: auto, rfc or rsplib
    #[arg(long, value_name = "WORD", default_value = "auto")]
    dialect: String,

    /// Take connections and announcements from these networks only, for ASAP, ENRP, HTTP and DNS: NETWORK/BITS or
    /// ADDRESS, commas between them [default: from everywhere]
    #[arg(long, value_name = "NETWORKS")]
    allow: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,

    /// Component status reports go to ADDRESS[:PORT] (or CSP_SERVER)
    #[arg(long, value_name = "ADDRESS")]
    cspserver: Option<String>,
    /// Time between them, ms; 0: none (or CSP_INTERVAL)
    #[arg(long, value_name = "MS")]
    cspinterval: Option<u64>,

    /// Log to a file, emptied first; SIGHUP opens it again
    #[arg(long, value_name = "FILE")]
    pub logfile: Option<PathBuf>,
    /// Log to a file, adding to it; SIGHUP opens it again
    #[arg(long, value_name = "FILE", overrides_with = "logfile")]
    pub logappend: Option<PathBuf>,
    /// Log nothing
    #[arg(long)]
    pub logquiet: bool,
    /// error, warn, info, debug or trace, or rsplib's 0 to 9 (or RSP_LOG) [default: warn]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub loglevel: Option<log::LevelFilter>,
    /// text, json (an object a line), or journal (systemd's: priorities instead of times)
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json", "journal"])]
    pub logformat: String,
    /// on or off
    #[arg(long, value_name = "WORD", default_value = "on")]
    pub logcolor: String,
    /// Print nothing at start and end
    #[arg(long)]
    pub quiet: bool,
    /// Use IPv4 only
    #[arg(long)]
    disable_ipv6: bool,
    /// Run in the background, its process ID in FILE
    #[arg(long, value_name = "FILE")]
    pub daemonpidfile: Option<PathBuf>,

    /// Without effect: idle connections cost little, and stay
    #[arg(long, value_name = "S", help_heading = WITHOUT_EFFECT)]
    autoclosetimeout: Option<u64>,
    /// Without effect: failures are simulated in tests
    #[arg(long, value_name = "S", help_heading = WITHOUT_EFFECT)]
    uptime: Option<f64>,
    /// Without effect: likewise
    #[arg(long, value_name = "S", help_heading = WITHOUT_EFFECT)]
    downtime: Option<f64>,
    /// Without effect: see --loglevel
    #[arg(long, value_name = "FILE", help_heading = WITHOUT_EFFECT)]
    actionlogfile: Option<PathBuf>,
    /// Without effect: see --http, /metrics
    #[arg(long, value_name = "FILE", help_heading = WITHOUT_EFFECT)]
    statsfile: Option<PathBuf>,
    /// Without effect: likewise
    #[arg(long, value_name = "MS", help_heading = WITHOUT_EFFECT)]
    statsinterval: Option<u64>,
    /// Without effect: likewise
    #[arg(long, value_name = "FILE", help_heading = WITHOUT_EFFECT)]
    scalar: Option<PathBuf>,
    /// Without effect: likewise
    #[arg(long, value_name = "NAME", help_heading = WITHOUT_EFFECT)]
    object: Option<String>,
}

const WITHOUT_EFFECT: &str = "rsplib's options that are accepted without effect";

fn identifier(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "not an ID: decimal or 0xHEX".into())
}

/// A name, or rsplib's number: 1 error, 2 warning, 3 note, 4 action, 5 to 9 more and more.
fn level(text: &str) -> Result<log::LevelFilter, String> {
    use log::LevelFilter;
    match text.parse::<u32>() {
        Ok(0) => Ok(LevelFilter::Off),
        Ok(1) => Ok(LevelFilter::Error),
        Ok(2) => Ok(LevelFilter::Warn),
        Ok(3) => Ok(LevelFilter::Info),
        Ok(4..=6) => Ok(LevelFilter::Debug),
        Ok(_) => Ok(LevelFilter::Trace),
        Err(_) => text.parse().map_err(|_| "not error, warn, info, debug, trace or 0 to 9".into()),
    }
}

/// `-option` becomes `--option`.
pub fn with_two_dashes(argument: OsString) -> OsString {
    match argument.as_bytes() {
        [b'-', first, _, ..] if *first != b'-' && !first.is_ascii_digit() => {
            OsString::from_vec([b"-".as_slice(), argument.as_bytes()].concat())
        }
        _ => argument,
    }
}

/// What a complaint about an option's value says, unless it quotes the value already.
fn wrong(name: &str, value: &str, error: impl std::fmt::Display) -> String {
    let error = error.to_string();
    let why = error.strip_prefix(&format!("\"{value}\": ")).unwrap_or(&error);
    format!("--{name}={value}: {why}")
}

/// A port without an address.
fn port_alone(text: &str) -> Option<Result<u16, String>> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().map_err(|_| "no port: 0 to 65535".into()))
}

/// Puts numbers into their ranges, and says so.
#[derive(Debug, Default)]
struct Ranges(Vec<String>);

impl Ranges {
    fn number(&mut self, name: &str, value: Option<u64>, range: RangeInclusive<u64>) -> Option<u64> {
        let value = value?;
        let taken = value.clamp(*range.start(), *range.end());
        if taken != value {
            let (first, last) = range.into_inner();
            let range = match last {
                ..=MOST => format!("not within {first} to {last}"),
                _ => format!("less than {first}"),
            };
            self.0.push(format!("--{name}={value}: {range}, taken as {taken}"));
        }
        Some(taken)
    }

    fn milliseconds(
        &mut self,
        name: &str,
        value: Option<u64>,
        range: RangeInclusive<u64>,
        settings: &mut [&mut Duration],
    ) {
        if let Some(value) = self.number(name, value, range) {
            settings.iter_mut().for_each(|setting| **setting = Duration::from_millis(value));
        }
    }

    fn count(&mut self, name: &str, value: Option<usize>, setting: &mut usize) {
        let value = value.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
        if let Some(value) = self.number(name, value, 1..=u64::MAX) {
            *setting = usize::try_from(value).unwrap_or(usize::MAX);
        }
    }
}

/// Above it, an upper bound is none that an operator meets.
const MOST: u64 = 1 << 32;

impl Options {
    /// The machine's timers and bounds; ranges are rsplib's. With what was put into its range.
    fn machine(&self) -> Result<(Config, Vec<String>), String> {
        let mut config = Config { id: RegistrarId(self.identifier), ..Config::default() };
        let mut ranges = Ranges::default();
        let mut ms = |name, value, range, settings: &mut [&mut Duration]| {
            ranges.milliseconds(name, value, range, settings);
        };
        let cycle = &mut config.server_announce_cycle;
        ms("serverannouncecycle", self.serverannouncecycle, 100..=60_000, &mut [cycle]);
        let interval = self.endpointkeepalivetransmissioninterval;
        let setting = &mut config.endpoint_keep_alive_transmission_interval;
        ms("endpointkeepalivetransmissioninterval", interval, 300..=300_000, &mut [setting]);
        let patience = self.endpointkeepalivetimeoutinterval;
        let both = &mut [&mut config.endpoint_keep_alive_timeout_interval, &mut config.path_change_timeout];
        ms("endpointkeepalivetimeoutinterval", patience, 100..=60_000, both);
        ms("distancestep", self.distancestep, 1..=u64::MAX / 1000, &mut [&mut config.distance_step]);
        let cycle = &mut config.peer_heartbeat_cycle;
        ms("peerheartbeatcycle", self.peerheartbeatcycle, 100..=300_000, &mut [cycle]);
        // What is asked for explicitly is meant for all peers.
        let both = &mut [&mut config.peer_max_time_last_heard, &mut config.rsplib_max_time_last_heard];
        ms("peermaxtimelastheard", self.peermaxtimelastheard, 100..=300_000, both);
        let both = &mut [&mut config.peer_max_time_no_response, &mut config.rsplib_max_time_no_response];
        ms("peermaxtimenoresponse", self.peermaxtimenoresponse, 100..=60_000, both);
        let time = &mut config.mentor_discovery_timeout;
        ms("mentordiscoverytimeout", self.mentordiscoverytimeout, 0..=60_000, &mut [time]);
        let time = &mut config.takeover_expiry_interval;
        ms("takeoverexpiryinterval", self.takeoverexpiryinterval, 100..=60_000, &mut [time]);
        let reports = ranges.number("maxbadpereports", self.maxbadpereports.map(u64::from), 1..=u64::MAX);
        if let Some(reports) = reports {
            config.max_bad_pe_reports = u32::try_from(reports).unwrap_or(u32::MAX);
        }
        config.max_increment = self.maxincrement.unwrap_or(config.max_increment);
        ranges.count("maxhresitems", self.maxhresitems, &mut config.max_handle_resolution_items);
        let part = &mut config.max_elements_per_handle_table_request;
        ranges.count("maxelementsperhtrequest", self.maxelementsperhtrequest, part);
        ranges.count("maxelements", self.maxelements, &mut config.max_elements);
        ranges.number("cspinterval", self.cspinterval.filter(|ms| *ms > 0), LEAST_CSP_INTERVAL..=u64::MAX);
        let rate = |rate: Option<i64>| {
            rate.filter(|rate| *rate > 0).map(|rate| u32::try_from(rate).unwrap_or(u32::MAX))
        };
        config.max_handle_resolution_rate = rate(self.maxhrrate);
        config.max_endpoint_unreachable_rate = rate(self.maxeurate);
        config.support_takeover_suggestion = self.supporttakeoversuggestion;
        config.dialect = match self.dialect.as_str() {
            "auto" => None,
            "rfc" => Some(Dialect::Rfc),
            "rsplib" => Some(Dialect::Rsplib),
            other => return Err(wrong("dialect", other, "not auto, rfc or rsplib")),
        };
        if config.dialect == Some(Dialect::Rfc) && self.maxhresitems.is_none() {
            // RFC 5352 section 3.3: all of the pool.
            config.max_handle_resolution_items = usize::MAX;
        }
        config.min_address_scope = match self.minaddressscope.as_str() {
            "loopback" => Scope::Loopback,
            "sitelocal" | "site-local" => Scope::SiteLocal,
            "global" => Scope::Global,
            other => return Err(wrong("minaddressscope", other, "not loopback, sitelocal or global")),
        };
        Ok((config, ranges.0))
    }

    /// What was not taken as it was written.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.machine().map(|(_, notes)| notes).unwrap_or_default();
        let (given, taken) = (self.announcettl, self.ttl());
        if given != i64::from(taken) {
            notes.push(format!("--announcettl={given}: not within 1 to 255, taken as {taken}"));
        }
        notes
    }

    /// As rsplib: the nearest that a datagram can have.
    fn ttl(&self) -> u8 {
        u8::try_from(self.announcettl.clamp(1, 255)).unwrap_or(u8::MAX)
    }

    /// Everything that the server needs. Names are looked up, which may take its time.
    pub fn server(&self) -> Result<ServerOptions, String> {
        let protocols = parse_transport(&self.transport)
            .ok_or_else(|| wrong("transport", &self.transport, "not auto, sctp or tcp"))?;
        let mut tls = Tls::from_env().map_err(|error| error.to_string())?;
        self.tls.apply(&mut tls)?;
        let allow = match &self.allow {
            Some(text) => text.parse().map_err(|error: String| wrong("allow", text, error))?,
            None => Networks::default(),
        };
        let (mut machine, _) = self.machine()?;
        let (peers, peer_names) = self.peers(&protocols, tls.port(ENRP_PORT, ENRP_TLS_PORT))?;
        machine.peers = peers;
        let group = |name: &str, text: &str, usual| {
            parse_announce(text, usual).map_err(|error| wrong(name, text, error))
        };
        Ok(ServerOptions {
            machine,
            peer_names,
            protocols,
            asap: self.listen("asap", &self.asap, tls.port(ASAP_PORT, ASAP_TLS_PORT))?,
            enrp: self.listen("enrp", &self.enrp, tls.port(ENRP_PORT, ENRP_TLS_PORT))?,
            tls,
            allow,
            asap_announce: group("asapannounce", &self.asapannounce, ASAP_GROUP)?,
            enrp_announce: group("enrpannounce", &self.enrpannounce, ENRP_GROUP)?,
            ttl: self.ttl(),
            max_links: self.maxconnections.map(|links| links.max(1)),
        })
    }

    fn listen(&self, name: &str, value: &str, port: u16) -> Result<Listen, String> {
        let mut listen = match value {
            auto if auto.eq_ignore_ascii_case("auto") => Listen::auto(port),
            value => {
                let addresses = match port_alone(value) {
                    // Of all addresses, as with "auto", but this one and no other.
                    Some(port) => port.map(|port| vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]),
                    None => address::parse_list(value, port).map_err(|error| error.to_string()),
                };
                let addresses = addresses.map_err(|error| wrong(name, value, error))?;
                // A name stands for one address to listen at, not for each that it resolves to.
                Listen { addresses, fallback: false }
            }
        };
        if self.disable_ipv6 {
            for address in &mut listen.addresses {
                if address.ip().is_unspecified() {
                    *address = (Ipv4Addr::UNSPECIFIED, address.port()).into();
                }
            }
        }
        Ok(listen)
    }

    /// What those have to know who may change things.
    pub fn token(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(path) = &self.httptoken else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| format!("--httptoken={}: {why}", path.display());
        let text = std::fs::read(path).map_err(|error| wrong(&error))?;
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        match line.len() {
            LEAST_TOKEN.. => Ok(Some(line.to_vec())),
            _ => Err(wrong(&format_args!("its first line has less than {LEAST_TOKEN} bytes"))),
        }
    }

    /// What went wrong with one of our addresses, under its option's name.
    pub fn named(&self, error: &std::io::Error) -> String {
        let text = error.to_string();
        match text.split(' ').next() {
            Some("Asap") => format!("--asap={}: {text}", self.asap),
            Some("Enrp") => format!("--enrp={}: {text}", self.enrp),
            _ => text,
        }
    }

    /// The same of the operator's page.
    pub fn named_http(&self, address: SocketAddr, error: &std::io::Error) -> String {
        let text = self.http.as_deref().unwrap_or_default();
        match text == address.to_string() {
            true => format!("--http={text}: {error}"),
            false => format!("--http={text}: {address}: {error}"),
        }
    }

    /// Where the operator's page is served, if at all.
    pub fn http(&self) -> Result<Option<SocketAddr>, String> {
        let Some(text) = &self.http else { return Ok(None) };
        let address = match port_alone(text) {
            Some(port) => port.map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            None => address::parse_one(text, 80).map_err(|error| error.to_string()),
        };
        address.map(Some).map_err(|error| wrong("http", text, error))
    }

    /// Where DNS queries are answered, if at all, and for which zone.
    pub fn dns(&self) -> Result<Option<(Vec<SocketAddr>, Zone)>, String> {
        let zone = self.dnszone.parse().map_err(|error| wrong("dnszone", &self.dnszone, error))?;
        let Some(text) = &self.dns else { return Ok(None) };
        let addresses = match port_alone(text) {
            Some(port) => port.map(|port| vec![(Ipv4Addr::LOCALHOST, port).into()]),
            None => address::parse_list(text, DNS_PORT).map_err(|error| error.to_string()),
        };
        match addresses.map_err(|error| wrong("dns", text, error))? {
            many if many.len() > MAX_ADDRESSES => {
                Err(wrong("dns", text, format!("{MAX_ADDRESSES} addresses at most")))
            }
            addresses => Ok(Some((addresses, zone))),
        }
    }

    /// Peers by address, and those by name, which are looked up later.
    fn peers(&self, protocols: &[LinkProtocol], port: u16) -> Result<(Vec<Target>, Vec<String>), String> {
        let (mut peers, mut names) = (Vec::new(), Vec::new());
        for peer in &self.peer {
            let addresses = match port_alone(peer) {
                Some(_) => Err("a port without an address".to_string()),
                None if address::is_literal(peer).is_ok_and(|literal| !literal) => {
                    names.push(peer.clone());
                    continue;
                }
                None => address::parse_list(peer, port).map_err(|error| error.to_string()),
            };
            let addresses = addresses.map_err(|error| wrong("peer", peer, error))?;
            if addresses.iter().any(|address| address.port() == 0) {
                return Err(wrong("peer", peer, "nobody has port 0"));
            }
            peers.extend(targets(protocols, &addresses));
        }
        Ok((peers, names))
    }

    /// Where and how often to report our status, if at all.
    pub fn reports(&self) -> Result<Option<(String, Duration)>, String> {
        let variable = |name: &str| match std::env::var_os(name).map(OsString::into_string) {
            Some(Ok(value)) if !value.is_empty() => Ok(Some(value)),
            Some(Err(_)) => Err(format!("{name}: not UTF-8")),
            _ => Ok(None),
        };
        let interval = match (self.cspinterval, variable("CSP_INTERVAL")?) {
            (Some(0), _) => 0,
            (Some(interval), _) => interval.max(LEAST_CSP_INTERVAL),
            (None, Some(text)) => text
                .parse::<u64>()
                .map_err(|_| format!("CSP_INTERVAL={text}: not a number"))?
                .max(LEAST_CSP_INTERVAL),
            // rsplib: naming a server is enough.
            (None, None) if self.cspserver.is_some() => LEAST_CSP_INTERVAL,
            (None, None) => 0,
        };
        if interval == 0 {
            return Ok(None);
        }
        let named = match (&self.cspserver, variable("CSP_SERVER")?) {
            (Some(server), _) => ("--cspserver", server.clone()),
            (None, Some(server)) => ("CSP_SERVER", server),
            (None, None) => ("CSP_SERVER", Ipv4Addr::LOCALHOST.to_string()),
        };
        let spelt = match port_alone(&named.1) {
            Some(_) => Err("a port without an address".to_string()),
            None => address::is_literal(&named.1).map_err(|error| error.to_string()),
        };
        spelt.map_err(|error| format!("{}={}: {error}", named.0, named.1))?;
        Ok(Some((named.1, Duration::from_millis(interval))))
    }
}

/// In milliseconds.
const LEAST_CSP_INTERVAL: u64 = MIN_CSP_INTERVAL.as_millis() as u64;
/// Bytes of a token that is not guessed.
const LEAST_TOKEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let arguments = arguments.iter().map(|argument| with_two_dashes(argument.into()));
        Options::try_parse_from(std::iter::once("rspregistrar".into()).chain(arguments))
    }

    #[test]
    fn the_command_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn one_dash_or_two() {
        for dashes in ["-", "--"] {
            let option = |rest: &str| format!("{dashes}{rest}");
            let options = parse(&[
                &option("identifier=0x1234"),
                &option("asap=127.0.0.1:0"),
                &option("enrp=10.0.0.1:5,10.0.0.2"),
                &option("peer=10.0.0.9"),
                &option("peer=10.0.0.8:7"),
                &option("transport=tcp"),
                &option("endpointkeepalivetransmissioninterval=1"),
                &option("maxhrrate=-1"),
                &option("disable-ipv6"),
            ])
            .unwrap();
            let server = options.server().unwrap();
            assert_eq!(server.machine.id, RegistrarId(0x1234));
            assert_eq!(server.asap.addresses, ["127.0.0.1:0".parse().unwrap()]);
            let enrp: Vec<SocketAddr> = ["10.0.0.1:5", "10.0.0.2:5"].map(|text| text.parse().unwrap()).into();
            assert_eq!(server.enrp.addresses, enrp);
            let peers: Vec<_> = server.machine.peers.iter().map(|peer| peer.addresses[0]).collect();
            assert_eq!(peers, ["10.0.0.9:9901".parse().unwrap(), "10.0.0.8:7".parse().unwrap()]);
            let interval = server.machine.endpoint_keep_alive_transmission_interval;
            assert_eq!(interval, Duration::from_millis(300), "clamped");
            assert_eq!(server.machine.max_handle_resolution_rate, None);
        }
    }

    #[test]
    fn the_smallest_scope_is_rsplibs() {
        for (arguments, scope) in [
            (&[][..], Scope::SiteLocal),
            (&["-minaddressscope=loopback"], Scope::Loopback),
            (&["-minaddressscope=global"], Scope::Global),
        ] {
            let server = parse(arguments).unwrap().server().unwrap();
            assert_eq!(server.machine.min_address_scope, scope, "{arguments:?}");
        }
    }

    /// RFC 5352 section 3.3 lists all elements of a pool, rsplib three.
    #[test]
    fn where_all_go_by_the_rfc_answers_list_everybody() {
        for (arguments, most) in [
            (&[][..], 3),
            (&["--dialect=rsplib"], 3),
            (&["--dialect=rfc"], usize::MAX),
            (&["--dialect=rfc", "--maxhresitems=7"], 7),
            (&["--maxhresitems=7"], 7),
        ] {
            let server = parse(arguments).unwrap().server().unwrap();
            assert_eq!(server.machine.max_handle_resolution_items, most, "{arguments:?}");
        }
    }

    /// RFC 5352 section 8.2 and RFC 5353 section 5.3: another pair of ports where TLS is required.
    #[test]
    fn the_ports_are_iana_s() {
        for (arguments, ports) in [
            (&[][..], [3863, 9901]),
            (&["--tls-dir=/nowhere"], [3864, 9902]),
            (&["--tls-dir=/nowhere", "--tls=allow"], [3863, 9901]),
            (&["--tls-dir=/nowhere", "--asap=10.0.0.1:7"], [7, 9902]),
        ] {
            let server = parse(arguments).unwrap().server().unwrap();
            let port = |listen: &rserpool::runtime::registrar::Listen| listen.addresses[0].port();
            assert_eq!([port(&server.asap), port(&server.enrp)], ports, "{arguments:?}");
        }
    }

    #[test]
    fn the_dialect_is_one_of_three() {
        for (arguments, dialect) in [
            (&[][..], None),
            (&["--dialect=auto"], None),
            (&["--dialect=rfc"], Some(Dialect::Rfc)),
            (&["-dialect=rsplib"], Some(Dialect::Rsplib)),
        ] {
            assert_eq!(parse(arguments).unwrap().server().unwrap().machine.dialect, dialect, "{arguments:?}");
        }
        assert!(parse(&["--dialect=klingon"]).unwrap().server().is_err());
    }

    #[test]
    fn a_time_to_live_out_of_range_is_the_nearest_in_it() {
        for (given, ttl) in
            [("1", 1), ("30", 30), ("255", 255), ("0", 1), ("-7", 1), ("256", 255), ("99999", 255)]
        {
            let server = parse(&[&format!("-announcettl={given}")]).unwrap().server().unwrap();
            assert_eq!(server.ttl, ttl, "{given}");
        }
        assert!(parse(&["-announcettl=far"]).is_err());
    }

    #[test]
    fn every_option_of_rsplib_is_taken() {
        let all = "-identifier=1 -asap=auto -asapannounce=off -enrp=auto -enrpannounce=none \
            -peer=10.0.0.1 -minaddressscope=global -serverannouncecycle=1000 \
            -endpointkeepalivetransmissioninterval=5000 -endpointkeepalivetimeoutinterval=5000 \
            -maxbadpereports=3 -distancestep=50 -maxincrement=0 -maxhresitems=3 -maxhrrate=-1 \
            -maxeurate=100 -maxelementsperhtrequest=128 -peerheartbeatcycle=2444 \
            -peermaxtimelastheard=5000 -peermaxtimenoresponse=5000 -mentordiscoverytimeout=5000 \
            -takeoverexpiryinterval=5000 -supporttakeoversuggestion -autoclosetimeout=300 \
            -announcettl=30 -logfile=x -logquiet -loglevel=3 -logcolor=off -quiet -disable-ipv6 \
            -daemonpidfile=x -uptime=1.5 -downtime=2 -actionlogfile=x -statsfile=x -statsinterval=1000 \
            -scalar=x -object=x -cspserver=127.0.0.1 -cspinterval=1000";
        let options = parse(&all.split_whitespace().collect::<Vec<_>>()).unwrap();
        let server = options.server().unwrap();
        assert_eq!(server.enrp_announce, None);
        assert_eq!(server.machine.max_endpoint_unreachable_rate, Some(100));
        let reports = options.reports().unwrap().unwrap();
        // The reporter looks the name up, and knows the port.
        assert_eq!(reports, ("127.0.0.1".into(), Duration::from_secs(1)));
        assert!(parse(&["-enrpmulticast=off"]).unwrap().server().unwrap().enrp_announce.is_none());
    }

    /// Heartbeat, last heard, no response: RFC 5353 section 4.3, and rsplib's defaults.
    #[test]
    fn timers_of_the_rfc_and_of_rsplib_are_taken_as_they_are() {
        for [cycle, heard, response] in [[30_000, 61_000, 5_000], [2444, 5000, 5000]] {
            let options = parse(&[
                &format!("-peerheartbeatcycle={cycle}"),
                &format!("-peermaxtimelastheard={heard}"),
                &format!("-peermaxtimenoresponse={response}"),
                &format!("-endpointkeepalivetransmissioninterval={response}"),
                &format!("-endpointkeepalivetimeoutinterval={response}"),
            ]);
            let machine = options.unwrap().machine().unwrap().0;
            let ms = Duration::from_millis;
            assert_eq!(machine.peer_heartbeat_cycle, ms(cycle));
            assert_eq!(machine.peer_max_time_last_heard, ms(heard));
            assert_eq!(machine.peer_max_time_no_response, ms(response));
            assert_eq!(machine.endpoint_keep_alive_transmission_interval, ms(response));
            assert_eq!(machine.endpoint_keep_alive_timeout_interval, ms(response));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for argument in ["-nonsense", "--asap", "-identifier=x", "-loglevel=much"] {
            assert!(parse(&[argument]).is_err(), "{argument}");
        }
        for argument in ["-asap=[::1", "-minaddressscope=lan", "-transport=udp", "-asapannounce=10.0.0.1"] {
            assert!(parse(&[argument]).unwrap().server().is_err(), "{argument}");
        }
    }
}
