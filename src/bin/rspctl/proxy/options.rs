//! What `rspctl proxy` is told: pairs of an address and a pool, from the command line or a file.

use clap::Args;
use rserpool::runtime::address;
use rserpool::wire::PoolHandle;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Take TCP connections and pass each on to an element of a pool, chosen by the pool's policy: a proxy pool user
/// for programs that know nothing of pools.
#[derive(Args)]
pub struct ProxyArgs {
    /// Pairs: where to listen (HOST:PORT, PORT, or unix:PATH), and the pool whose elements serve.
    #[arg(value_names = ["LISTEN", "POOL"], num_args = 0..)]
    pub services: Vec<OsString>,
    /// A file with such pairs, one a line; # begins a comment. Read again with SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Begin each connection to an element with a PROXY protocol header, version 2: who the client is.
    #[arg(long)]
    pub proxy_protocol: bool,
    /// Milliseconds that an element has to accept a connection before the next is tried (10 to 60000).
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub connect_timeout: u64,
    /// Elements tried for one connection (1 to 100).
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub tries: u8,
    /// Milliseconds that a connection waits for an element while the pool is empty (0 to 60000).
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub patience: u64,
    /// Seconds without a byte after which a connection of which one direction has ended is closed (1 to 86400).
    #[arg(long, default_value_t = 300, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub half_closed: u64,
    /// Connections at a time (1 to 1000000); beyond, they wait to be accepted. Default: as many as descriptors allow.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: Option<u32>,
    /// Seconds that connections may take to end after SIGTERM or SIGINT (0 to 86400).
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain: u64,
    /// Where to serve /metrics and /healthz.
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// A registrar; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    pub registrar: Vec<String>,
}

impl ProxyArgs {
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout)
    }

    pub fn half_closed(&self) -> Duration {
        Duration::from_secs(self.half_closed)
    }

    /// What to serve: the command line's, then the file's.
    pub fn read(&self) -> Result<Vec<Wanted>, String> {
        let mut wanted = Vec::new();
        let (pairs, rest) = self.services.as_chunks::<2>();
        if let [alone] = rest {
            return Err(format!("{}: LISTEN without a POOL", alone.to_string_lossy()));
        }
        for [listen, pool] in pairs {
            let listen = listen.to_str().ok_or_else(|| format!("{}: not UTF-8", listen.to_string_lossy()))?;
            wanted.push(Wanted {
                place: ListenPlace::parse(listen)?,
                pool: super::super::handle::parse(pool)?,
            });
        }
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("--config={}: {error}", path.display()))?;
            let lines = parse_lines(&text).map_err(|error| format!("{}:{error}", path.display()))?;
            wanted.extend(lines);
        }
        for (at, one) in wanted.iter().enumerate() {
            if wanted[..at].iter().any(|other| other.place == one.place) {
                return Err(format!("{} is there twice", one.place));
            }
        }
        if wanted.is_empty() {
            return Err("nothing to serve: LISTEN and POOL, or --config=FILE".into());
        }
        Ok(wanted)
    }
}

/// The lines of a configuration; an error begins with the line's number.
fn parse_lines(text: &str) -> Result<Vec<Wanted>, String> {
    let mut wanted = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let at = |error: String| format!("{}: {error}", number + 1);
        let Some((listen, pool)) = line.split_once(char::is_whitespace) else {
            return Err(at(format!("{line}: LISTEN without a POOL")));
        };
        let pool = super::super::handle::parse(pool.trim().as_ref()).map_err(at)?;
        wanted.push(Wanted { place: ListenPlace::parse(listen).map_err(at)?, pool });
    }
    Ok(wanted)
}

/// A pool, and where its users come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub place: ListenPlace,
    pub pool: PoolHandle,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenPlace {
    /// Every address of a host, in the order of its name.
    Tcp(String, Vec<SocketAddr>),
    Unix(PathBuf),
}

impl ListenPlace {
    pub fn parse(text: &str) -> Result<ListenPlace, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err("unix: a path is missing".into()),
                false => Ok(ListenPlace::Unix(path.into())),
            };
        }
        let spelled = match text.parse::<u16>() {
            Ok(port) => format!("*:{port}"),
            Err(_) => text.to_owned(),
        };
        let addresses = address::parse(&spelled, 0).map_err(|error| error.to_string())?;
        if addresses.iter().any(|address| address.port() == 0) && !spelled.ends_with(":0") {
            return Err(format!("{text}: a port is missing"));
        }
        Ok(ListenPlace::Tcp(text.to_owned(), addresses))
    }
}

impl fmt::Display for ListenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenPlace::Tcp(text, _) => f.write_str(text),
            ListenPlace::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let tcp = |text: &str| match ListenPlace::parse(text) {
            Ok(ListenPlace::Tcp(_, addresses)) => addresses[0].to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(tcp("8080"), "[::]:8080");
        assert_eq!(tcp("127.0.0.1:0"), "127.0.0.1:0");
        assert_eq!(tcp("[::1]:80"), "[::1]:80");
        assert_eq!(ListenPlace::parse("unix:/run/x"), Ok(ListenPlace::Unix("/run/x".into())));
        for bad in ["unix:", "127.0.0.1", "127.0.0.1:x", "70000"] {
            assert!(ListenPlace::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines() {
        let wanted = parse_lines("# comment\n\n127.0.0.1:1 Web # more\nunix:/a  Echo\n").unwrap();
        assert_eq!(wanted.len(), 2);
        assert_eq!(wanted[1].pool.as_bytes(), b"Echo");
        assert!(parse_lines("\n127.0.0.1:1").unwrap_err().starts_with("2: "));
        assert!(parse_lines("127.0.0.1:x y").unwrap_err().starts_with("1: "));
    }
}
