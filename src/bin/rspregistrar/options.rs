//! The command line: rsplib's spelling, with one or two dashes, always `--option=value`.

use clap::Parser;
use rserpool::machine::registrar::Config;
use rserpool::machine::{LinkProtocol, Target};
use rserpool::runtime::registrar::{Listen, Options};
use rserpool::runtime::{address, parse_announce, parse_transport, targets};
use rserpool::transport::multicast;
use rserpool::wire::{ASAP_PORT, ENRP_PORT, RegistrarId};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A registrar (ENRP server) of Reliable Server Pooling, RFC 5351-5356.
///
/// Options may be written with one dash or two. Times are in milliseconds unless said otherwise.
#[derive(Parser, Debug)]
#[command(name = "rspregistrar", version, max_term_width = 100)]
pub struct Arguments {
    /// Registrar ID, 0xHEX or decimal; 0: random.
    #[arg(long, default_value = "0", value_parser = number)]
    pub identifier: u32,
    /// Where ASAP is served: auto (every address, port 3863, or any if that is taken) or ADDR:PORT[,ADDR...].
    #[arg(long, default_value = "auto")]
    pub asap: String,
    /// Group of ASAP announcements: auto (239.0.0.50:3863), off, or ADDR:PORT.
    #[arg(long, default_value = "auto")]
    pub asapannounce: String,
    /// Where ENRP is served: auto (every address, port 9901, or any if that is taken) or ADDR:PORT[,ADDR...].
    #[arg(long, default_value = "auto")]
    pub enrp: String,
    /// Group of ENRP presences: auto (239.0.0.51:9901), off, or ADDR:PORT.
    #[arg(long, default_value = "auto", alias = "enrpmulticast")]
    pub enrpannounce: String,
    /// A static peer, ADDR[:PORT][,ADDR...], port 9901 if missing; repeatable.
    #[arg(long)]
    pub peer: Vec<String>,
    /// Transports: auto (SCTP where the kernel has it, and TCP), sctp or tcp.
    #[arg(long, default_value = "auto")]
    pub transport: String,
    /// Smallest scope of addresses that elements may have: loopback, sitelocal or global.
    #[arg(long, default_value = "loopback", value_parser = scope)]
    pub minaddressscope: u8,
    /// Time to live of multicast packets (1 to 255).
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..))]
    pub announcettl: u8,
    /// Between two announcements (100 to 60000) [default: 1000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub serverannouncecycle: Option<u64>,
    /// Between two keep-alives to an element, randomised by half (300 to 300000) [default: 750].
    #[arg(long, value_parser = clap::value_parser!(u64).range(300..=300_000))]
    pub endpointkeepalivetransmissioninterval: Option<u64>,
    /// How long an element may take to answer (100 to 60000) [default: 750].
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub endpointkeepalivetimeoutinterval: Option<u64>,
    /// Unreachability reports that remove an element [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub maxbadpereports: Option<u32>,
    /// Rounding of distances (1 or more) [default: 50].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub distancestep: Option<u64>,
    /// How many of the selected elements count as used; 0: as the policy has it.
    #[arg(long)]
    pub maxincrement: Option<usize>,
    /// Elements per resolution when the request names no number [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub maxhresitems: Option<u32>,
    /// Handle resolutions per second and connection; 0 or less: no limit.
    #[arg(long, allow_negative_numbers = true, default_value_t = -1.0)]
    pub maxhrrate: f64,
    /// Unreachability reports per second and connection; 0 or less: no limit.
    #[arg(long, allow_negative_numbers = true, default_value_t = -1.0)]
    pub maxeurate: f64,
    /// Elements per part of a handle table [default: 512; at most 128 to rsplib's registrars].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub maxelementsperhtrequest: Option<u32>,
    /// Between two presences (100 to 300000) [default: 500].
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=300_000))]
    pub peerheartbeatcycle: Option<u64>,
    /// Silence after which a peer is asked (100 to 300000) [default: 1400].
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=300_000))]
    pub peermaxtimelastheard: Option<u64>,
    /// How long it may take to answer then (100 to 60000) [default: 900].
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub peermaxtimenoresponse: Option<u64>,
    /// How long to look for a mentor at start (0 to 60000) [default: 2000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub mentordiscoverytimeout: Option<u64>,
    /// How long to wait for the acknowledgements of a takeover (100 to 60000) [default: 1500].
    #[arg(long, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub takeoverexpiryinterval: Option<u64>,
    /// Adopt elements that another registrar suggests.
    #[arg(long)]
    pub supporttakeoversuggestion: bool,
    /// Status page: /healthz, /handlespace (JSON) and /metrics (Prometheus) at ADDR:PORT.
    #[arg(long)]
    pub http: Option<String>,
    /// error, warn, info, debug, trace, or rsplib's 0 to 9.
    #[arg(long, default_value = "warn")]
    pub loglevel: String,
    /// Write the log to that file, anew.
    #[arg(long)]
    pub logfile: Option<PathBuf>,
    /// Write the log to the end of that file.
    #[arg(long)]
    pub logappend: Option<PathBuf>,
    /// No log.
    #[arg(long)]
    pub logquiet: bool,
    /// on or off.
    #[arg(long, default_value = "on")]
    pub logcolor: String,
    /// No line on standard output at start and end.
    #[arg(long)]
    pub quiet: bool,
    /// Go to the background and write the process ID to that file.
    #[arg(long)]
    pub daemonpidfile: Option<PathBuf>,
    /// IPv4 only.
    #[arg(long = "disable-ipv6")]
    pub disable_ipv6: bool,
    /// Accepted for rsplib's sake, without effect: idle connections are never closed.
    #[arg(long, hide_short_help = true)]
    pub autoclosetimeout: Option<u64>,
    /// Accepted for rsplib's sake, without effect: component status reports are the library's.
    #[arg(long, hide_short_help = true)]
    pub cspserver: Option<String>,
    /// Accepted for rsplib's sake, without effect.
    #[arg(long, hide_short_help = true)]
    pub cspinterval: Option<u64>,
    /// Accepted for rsplib's sake, without effect: see --http for statistics.
    #[arg(long, hide_short_help = true, aliases = ["statsinterval", "actionlogfile", "scalar", "object"])]
    pub statsfile: Vec<String>,
}

/// `-option` becomes `--option`; clap takes one dash for short options.
pub fn normalise(arguments: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    arguments.map(|argument| match argument.strip_prefix('-') {
        Some(rest) if rest.len() > 1 && !rest.starts_with('-') => format!("-{argument}"),
        _ => argument,
    })
}

impl Arguments {
    /// What the registrar loop needs.
    pub fn options(&self) -> Result<Options, String> {
        let named = |option: &str, error: std::io::Error| format!("--{option}: {error}");
        let protocols =
            parse_transport(&self.transport).ok_or("--transport: must be auto, sctp or tcp".to_string())?;
        let group = |option: &str, text: &str, auto: SocketAddr| {
            parse_announce(text, auto).map_err(|error| named(option, error))
        };
        Ok(Options {
            asap: self.listen("asap", &self.asap, ASAP_PORT)?,
            enrp: self.listen("enrp", &self.enrp, ENRP_PORT)?,
            asap_announce: group("asapannounce", &self.asapannounce, multicast::ASAP_GROUP)?,
            enrp_announce: group("enrpannounce", &self.enrpannounce, multicast::ENRP_GROUP)?,
            ttl: self.announcettl,
            max_links: None,
            machine: self.machine(&protocols)?,
            protocols,
        })
    }

    fn listen(&self, option: &str, text: &str, port: u16) -> Result<Listen, String> {
        if text.eq_ignore_ascii_case("auto") && !self.disable_ipv6 {
            return Ok(Listen::auto(port));
        }
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Listen { addresses: vec![([0, 0, 0, 0], port).into()], fallback: true });
        }
        let addresses =
            address::parse_list(text, port).map_err(|error| format!("--{option}={text}: {error}"))?;
        Ok(Listen { addresses, fallback: false })
    }

    fn machine(&self, protocols: &[LinkProtocol]) -> Result<Config, String> {
        let mut peers: Vec<Target> = Vec::new();
        for peer in &self.peer {
            let addresses =
                address::parse_list(peer, ENRP_PORT).map_err(|error| format!("--peer={peer}: {error}"))?;
            peers.extend(targets(protocols, &addresses));
        }
        let defaults = Config::default();
        let ms = |value: Option<u64>, default: Duration| value.map_or(default, Duration::from_millis);
        let rate = |value: f64| (value > 0.0).then_some(value.ceil() as u32);
        let count = |value: Option<u32>, default: usize| value.map_or(default, |value| value as usize);
        Ok(Config {
            id: RegistrarId(if self.identifier == 0 { fastrand::u32(1..) } else { self.identifier }),
            peers,
            server_announce_cycle: ms(self.serverannouncecycle, defaults.server_announce_cycle),
            endpoint_keep_alive_transmission_interval: ms(
                self.endpointkeepalivetransmissioninterval,
                defaults.endpoint_keep_alive_transmission_interval,
            ),
            endpoint_keep_alive_timeout_interval: ms(
                self.endpointkeepalivetimeoutinterval,
                defaults.endpoint_keep_alive_timeout_interval,
            ),
            max_bad_pe_reports: self.maxbadpereports.unwrap_or(defaults.max_bad_pe_reports),
            distance_step: ms(self.distancestep, defaults.distance_step),
            max_increment: self.maxincrement.unwrap_or(defaults.max_increment),
            max_handle_resolution_items: count(self.maxhresitems, defaults.max_handle_resolution_items),
            max_handle_resolution_rate: rate(self.maxhrrate),
            max_endpoint_unreachable_rate: rate(self.maxeurate),
            max_elements_per_handle_table_request: count(
                self.maxelementsperhtrequest,
                defaults.max_elements_per_handle_table_request,
            ),
            peer_heartbeat_cycle: ms(self.peerheartbeatcycle, defaults.peer_heartbeat_cycle),
            peer_max_time_last_heard: ms(self.peermaxtimelastheard, defaults.peer_max_time_last_heard),
            peer_max_time_no_response: ms(self.peermaxtimenoresponse, defaults.peer_max_time_no_response),
            mentor_discovery_timeout: ms(self.mentordiscoverytimeout, defaults.mentor_discovery_timeout),
            takeover_expiry_interval: ms(self.takeoverexpiryinterval, defaults.takeover_expiry_interval),
            support_takeover_suggestion: self.supporttakeoversuggestion,
            min_address_scope: self.minaddressscope,
            ..defaults
        })
    }

    /// The log filter: rsplib's numbers become names.
    pub fn log_filter(&self) -> String {
        let name = match self.loglevel.parse::<u32>() {
            Ok(0) => "off",
            Ok(1) => "error",
            Ok(2) => "warn",
            Ok(3 | 4) => "info",
            Ok(5 | 6) => "debug",
            Ok(_) => "trace",
            Err(_) => return self.loglevel.clone(),
        };
        name.to_string()
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

fn scope(text: &str) -> Result<u8, String> {
    match text {
        "loopback" => Ok(2),
        "sitelocal" => Ok(6),
        "global" => Ok(10),
        _ => Err("must be loopback, sitelocal or global".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Arguments {
        let arguments = std::iter::once("rspregistrar").chain(arguments.iter().copied()).map(String::from);
        Arguments::try_parse_from(normalise(arguments)).expect("good arguments")
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        let one = parse(&[
            "-identifier=0x1234",
            "-peer=192.0.2.1:9901",
            "-maxhrrate=-1",
            "-logcolor=off",
            "-quiet",
        ]);
        assert_eq!(one.identifier, 0x1234);
        assert!(one.quiet);
        let machine = one.options().expect("good options").machine;
        assert_eq!(machine.id, RegistrarId(0x1234));
        assert!(!machine.peers.is_empty());
        assert_eq!(machine.max_handle_resolution_rate, None);
        assert_eq!(parse(&["--identifier=0x1234"]).identifier, 0x1234);
    }

    #[test]
    fn a_random_identifier_is_never_zero() {
        assert_ne!(parse(&[]).options().expect("defaults are good").machine.id, RegistrarId(0));
    }

    #[test]
    fn bad_values_are_named() {
        assert!(
            parse(&["-transport=pigeon"]).options().expect_err("no such transport").contains("--transport")
        );
        assert!(parse(&["-asap=nonsense:port:1"]).options().expect_err("no address").contains("--asap"));
        let too_small = ["rspregistrar", "--serverannouncecycle=1"];
        assert!(Arguments::try_parse_from(too_small).is_err());
    }
}
