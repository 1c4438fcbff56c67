//! What a process can set, and the `RSP_*` variables that set it from outside.

use super::{Tls, address};
use crate::machine::seal::{CookieKey, SHORTEST_KEY};
use crate::machine::{LinkProtocol, Target, client};
use crate::transport::allow::Networks;
use crate::transport::multicast::ASAP_GROUP;
use crate::transport::sctp;
use crate::wire::csp::CSP_PORT;
use crate::wire::{ASAP_PORT, ASAP_TLS_PORT};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// The shortest CSP interval that the environment can ask for (rsplib).
pub const MIN_CSP_INTERVAL: Duration = Duration::from_millis(250);

/// Everything a process can set: what `struct rsp_info`, `rsp_initarg` and `RSP_*` variables say.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Settings {
    /// Static registrars, first tried first.
    pub registrars: Vec<Target>,
    /// Static registrars that are given by name, `host:port` as written; they are looked up by the event thread.
    pub registrar_names: Vec<String>,
    /// Start a registrar inside this process (`RSP_REGISTRAR=embedded`).
    pub embedded_registrar: bool,
    /// Which protocols may be used, best first (`RSP_TRANSPORT`).
    pub protocols: Vec<LinkProtocol>,
    /// Certificates and what is done with them (`RSP_TLS`, `RSP_TLS_DIR` ..).
    pub tls: Tls,
    /// From where registrars and users may connect (`RSP_ALLOW`).
    pub allow: Networks,
    /// Where users reach elements, `host[:port]`, if that is not where they listen (`RSP_ADVERTISE`).
    pub advertise: Option<String>,
    /// What elements sign their cookies with (`RSP_COOKIE_KEY` names its file).
    pub cookie_key: Option<CookieKey>,
    /// Announce group to listen on; `None`: off.
    pub announce: Option<SocketAddr>,
    pub announce_timeout: Duration,
    pub connect_timeout: Duration,
    pub connect_max_trials: u32,
    pub request_timeout: Duration,
    pub response_timeout: Duration,
    pub request_max_trials: u32,
    pub csp_identifier: u64,
    pub csp_server: Option<SocketAddr>,
    /// The CSP server by name, `host[:port]`; it counts where there is no `csp_server`.
    pub csp_server_name: Option<String>,
    pub csp_interval: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        let machine = client::Config::default();
        Settings {
            registrars: Vec::new(),
            registrar_names: Vec::new(),
            embedded_registrar: false,
            protocols: vec![LinkProtocol::Sctp, LinkProtocol::Tcp],
            tls: Tls::default(),
            allow: Networks::default(),
            cookie_key: None,
            announce: Some(ASAP_GROUP),
            announce_timeout: machine.announce_timeout,
            connect_timeout: machine.connect_timeout,
            connect_max_trials: machine.connect_max_trials,
            request_timeout: machine.request_timeout,
            response_timeout: machine.response_timeout,
            request_max_trials: machine.request_max_trials,
            csp_identifier: 0,
            advertise: None,
            csp_server: None,
            csp_server_name: None,
            csp_interval: Duration::ZERO,
        }
    }
}

fn bad(name: &str, value: &str, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{name}={value}: {why}"))
}

fn number(name: &str, value: &str) -> io::Result<u64> {
    let value = value.trim();
    let parsed = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| bad(name, value, "not a number"))
}

/// Milliseconds, at least 1.
fn milliseconds(name: &str, value: &str) -> io::Result<Duration> {
    Ok(Duration::from_millis(number(name, value)?.max(1)))
}

fn trials(name: &str, value: &str) -> io::Result<u32> {
    Ok(u32::try_from(number(name, value)?).unwrap_or(u32::MAX).max(1))
}

/// Whether this kernel has the protocol.
pub(super) fn is_available(protocol: LinkProtocol) -> bool {
    match protocol {
        LinkProtocol::Tcp => true,
        LinkProtocol::Sctp => sctp::available(),
    }
}

/// `auto`, `sctp`, `tcp`: which protocols, best first.
pub fn parse_transport(value: &str) -> Option<Vec<LinkProtocol>> {
    match value.trim().to_ascii_lowercase().as_str() {
        "auto" => Some(vec![LinkProtocol::Sctp, LinkProtocol::Tcp]),
        "sctp" => Some(vec![LinkProtocol::Sctp]),
        "tcp" => Some(vec![LinkProtocol::Tcp]),
        _ => None,
    }
}

/// `auto`, `off` (or `none`), or a group's address with a port: the group, if any.
pub fn parse_announce(value: &str, auto: SocketAddr) -> io::Result<Option<SocketAddr>> {
    match value.trim() {
        value if value.eq_ignore_ascii_case("auto") => Ok(Some(auto)),
        value if value.eq_ignore_ascii_case("off") || value.eq_ignore_ascii_case("none") => Ok(None),
        value => {
            let group = address::parse_one(value, auto.port())?;
            match group.ip().is_multicast() {
                true => Ok(Some(group)),
                false => Err(bad("group", value, "not a multicast address")),
            }
        }
    }
}

/// Whether elements can be advertised as `host[:port]`: its spelling, and that it is no wildcard.
pub fn advertised(value: &str) -> io::Result<()> {
    if address::is_literal(value)? {
        let addresses = address::parse_list(value, 0)?;
        if addresses.iter().any(|address| address.ip().is_unspecified() || address.ip().is_multicast()) {
            return Err(bad("address", value, "users can't connect to it"));
        }
    }
    Ok(())
}

/// One host over each of the protocols.
pub fn targets(protocols: &[LinkProtocol], addresses: &[SocketAddr]) -> Vec<Target> {
    protocols.iter().map(|&protocol| Target { protocol, addresses: addresses.to_vec() }).collect()
}

impl Settings {
    /// The defaults, and over them what the `RSP_*` variables say. An empty variable says nothing.
    /// Errors: `InvalidInput` if one makes no sense, naming it.
    pub fn from_env() -> io::Result<Settings> {
        Settings::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> io::Result<Settings> {
        let mut settings = Settings { tls: Tls::from_variables(&variable)?, ..Settings::default() };
        // The transport decides what the registrars' addresses mean, so it comes first.
        const NAMES: [&str; 15] = [
            "RSP_COOKIE_KEY",
            "RSP_ALLOW",
            "RSP_ADVERTISE",
            "RSP_TRANSPORT",
            "RSP_REGISTRAR",
            "RSP_ANNOUNCE",
            "RSP_ANNOUNCE_TIMEOUT",
            "RSP_CONNECT_TIMEOUT",
            "RSP_CONNECT_MAX_TRIALS",
            "RSP_REQUEST_TIMEOUT",
            "RSP_RESPONSE_TIMEOUT",
            "RSP_REQUEST_MAX_TRIALS",
            "RSP_CSP_IDENTIFIER",
            "CSP_SERVER",
            "CSP_INTERVAL",
        ];
        for name in NAMES {
            if let Some(value) = variable(name).filter(|value| !value.trim().is_empty()) {
                settings.set(name, &value)?;
            }
        }
        Ok(settings)
    }

    /// Adds a static registrar, a host with all its addresses: `host:port`, or several of that separated by
    /// commas. Errors: what is wrong with the spelling; a name that can't be resolved is none.
    pub fn add_registrar(&mut self, host: &str) -> io::Result<()> {
        if address::is_literal(host)? {
            let addresses = address::parse_list(host, self.registrar_port())?;
            self.registrars.extend(targets(&self.protocols, &addresses));
        } else {
            self.registrar_names.push(host.to_string());
        }
        Ok(())
    }

    /// The port of registrars that are named without one.
    pub fn registrar_port(&self) -> u16 {
        self.tls.port(ASAP_PORT, ASAP_TLS_PORT)
    }

    /// Whether somebody said which registrars to use: then localhost, where nobody else is known, is none.
    pub fn names_registrars(&self) -> bool {
        self.embedded_registrar || !self.registrars.is_empty() || !self.registrar_names.is_empty()
    }

    fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        match name {
            "RSP_ALLOW" => self.allow = value.parse().map_err(|error: String| bad(name, value, &error))?,
            "RSP_ADVERTISE" => {
                advertised(value).map_err(|error| bad(name, value, &error.to_string()))?;
                self.advertise = Some(value.trim().into());
            }
            "RSP_COOKIE_KEY" => {
                let key = std::fs::read(value).map_err(|error| bad(name, value, &error.to_string()))?;
                let short = || bad(name, value, &format!("a key has at least {SHORTEST_KEY} bytes"));
                self.cookie_key = Some(CookieKey::new(&key).ok_or_else(short)?);
            }
            "RSP_TRANSPORT" => {
                let choice = parse_transport(value);
                self.protocols = choice.ok_or_else(|| bad(name, value, "neither auto, sctp nor tcp"))?;
            }
            "RSP_REGISTRAR" => {
                for host in value.split(';').map(str::trim).filter(|host| !host.is_empty()) {
                    if host.eq_ignore_ascii_case("embedded") {
                        self.embedded_registrar = true;
                        continue;
                    }
                    self.add_registrar(host).map_err(|error| bad(name, value, &error.to_string()))?;
                }
            }
            "RSP_ANNOUNCE" => {
                let group = parse_announce(value, ASAP_GROUP);
                self.announce = group.map_err(|error| bad(name, value, &error.to_string()))?;
            }
            "RSP_ANNOUNCE_TIMEOUT" => self.announce_timeout = milliseconds(name, value)?,
            "RSP_CONNECT_TIMEOUT" => self.connect_timeout = milliseconds(name, value)?,
            "RSP_CONNECT_MAX_TRIALS" => self.connect_max_trials = trials(name, value)?,
            "RSP_REQUEST_TIMEOUT" => self.request_timeout = milliseconds(name, value)?,
            "RSP_RESPONSE_TIMEOUT" => self.response_timeout = milliseconds(name, value)?,
            "RSP_REQUEST_MAX_TRIALS" => self.request_max_trials = trials(name, value)?,
            "RSP_CSP_IDENTIFIER" => self.csp_identifier = number(name, value)?,
            "CSP_SERVER" => {
                let wrong = |error: io::Error| bad(name, value, &error.to_string());
                match address::is_literal(value).map_err(wrong)? {
                    true => self.csp_server = Some(address::parse_one(value, CSP_PORT).map_err(wrong)?),
                    false => self.csp_server_name = Some(value.into()),
                }
            }
            "CSP_INTERVAL" => self.csp_interval = milliseconds(name, value)?.max(MIN_CSP_INTERVAL),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> io::Result<Settings> {
        Settings::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn without_variables_everything_is_default() {
        let settings = from(&[("RSP_REGISTRAR", ""), ("RSP_TRANSPORT", " ")]).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn registrars_over_each_protocol() {
        let settings = from(&[
            ("RSP_REGISTRAR", "10.1.1.1:4000,10.1.1.2; [fd00::1] ;embedded"),
            ("RSP_TRANSPORT", "tcp"),
        ])
        .unwrap();
        let tcp = |addresses: &[&str]| Target {
            protocol: LinkProtocol::Tcp,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        assert_eq!(settings.registrars, [tcp(&["10.1.1.1:4000", "10.1.1.2:4000"]), tcp(&["[fd00::1]:3863"])]);
        assert!(settings.embedded_registrar);
        let settings = from(&[("RSP_REGISTRAR", "10.1.1.1")]).unwrap();
        let protocols: Vec<_> = settings.registrars.iter().map(|target| target.protocol).collect();
        assert_eq!(protocols, [LinkProtocol::Sctp, LinkProtocol::Tcp]);
    }

    #[test]
    fn registrars_by_name_are_looked_up_later() {
        let settings = from(&[("RSP_REGISTRAR", "no-such-host.invalid:4000;10.1.1.1")]).unwrap();
        assert_eq!(settings.registrar_names, ["no-such-host.invalid:4000"]);
        assert!(settings.names_registrars() && !from(&[]).unwrap().names_registrars());
        assert!(from(&[("RSP_REGISTRAR", "no-such-host.invalid:x")]).is_err());
    }

    #[test]
    fn numbers_groups_and_reports() {
        let settings = from(&[
            ("RSP_ANNOUNCE", "239.1.2.3"),
            ("RSP_RESPONSE_TIMEOUT", "250"),
            ("RSP_REQUEST_MAX_TRIALS", "0"),
            ("CSP_SERVER", "10.1.1.1"),
            ("CSP_INTERVAL", "1"),
            ("RSP_CSP_IDENTIFIER", "0x0300000000000007"),
        ])
        .unwrap();
        assert_eq!(settings.announce, Some("239.1.2.3:3863".parse().unwrap()));
        assert_eq!(settings.response_timeout, Duration::from_millis(250));
        assert_eq!(settings.request_max_trials, 1);
        assert_eq!(settings.csp_server, Some("10.1.1.1:2960".parse().unwrap()));
        assert_eq!(settings.csp_interval, MIN_CSP_INTERVAL);
        assert_eq!(settings.csp_identifier, 3 << 56 | 7);
        assert_eq!(from(&[("RSP_ANNOUNCE", "Off")]).unwrap().announce, None);
        let named = from(&[("CSP_SERVER", "monitor.invalid:7")]).unwrap();
        assert_eq!((named.csp_server, named.csp_server_name.as_deref()), (None, Some("monitor.invalid:7")));
    }

    #[test]
    fn where_tls_is_required_registrars_have_its_port() {
        let settings = from(&[("RSP_TLS_DIR", "/x"), ("RSP_REGISTRAR", "10.1.1.1")]).unwrap();
        assert_eq!(settings.registrars[0].addresses, ["10.1.1.1:3864".parse().unwrap()]);
        let settings = from(&[("RSP_TLS_DIR", "/x"), ("RSP_TLS", "allow"), ("RSP_REGISTRAR", "10.1.1.1")]);
        assert_eq!(settings.unwrap().registrars[0].addresses, ["10.1.1.1:3863".parse().unwrap()]);
    }

    #[test]
    fn nonsense_is_named() {
        for (name, value) in [
            ("RSP_TRANSPORT", "pigeon"),
            ("RSP_REGISTRAR", "10.1.1.1:x"),
            ("RSP_ANNOUNCE", "10.1.1.1"),
            ("RSP_CONNECT_TIMEOUT", "soon"),
            ("RSP_CSP_IDENTIFIER", "-1"),
            ("RSP_TLS", "perhaps"),
            ("RSP_ALLOW", "10.0.0.0/99"),
            ("RSP_ADVERTISE", "*:80"),
            ("RSP_ADVERTISE", "192.0.2.1:x"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(&format!("{name}={value}: ")), "{error}");
        }
    }
}
