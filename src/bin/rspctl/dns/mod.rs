//! `rspctl dns`: answers DNS queries for pools as a pool user: from what registrars push of the pools that are asked
//! for.
//!
//! | file | what |
//! |---|---|
//! | `followed` | the pools that are followed, by name |

mod followed;

use crate::dns_sockets::{Dns, MAX_ADDRESSES, TOKENS};
use crate::scrape::{self, Scraped};
use crate::{dns_metrics, out};
use clap::Args;
use followed::Followed;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rserpool::dns::{Counts, DNS_PORT, Zone};
use rserpool::machine::Time;
use rserpool::runtime::{Directory, address};
use rserpool::transport::allow::Networks;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WAKER: Token = Token(TOKENS);
const SIGNALS: Token = Token(TOKENS + 1);

/// Answer DNS queries for pools: POOL.pool is the address of an element chosen by the pool's policy.
#[derive(Args)]
pub struct DnsArgs {
    /// Where to listen, over UDP and TCP: ADDRESS[:PORT][,ADDRESS...], port 53; PORT alone: of localhost.
    listen: String,
    /// Pools to answer for, whatever the case they are asked in. Default: every pool that is asked for as it is spelled.
    pool: Vec<OsString>,
    /// The zone below which each pool has its name.
    #[arg(long, default_value = "pool", value_name = "NAME")]
    zone: Zone,
    /// Seconds for which answers may be kept (0 to 86400).
    #[arg(long, default_value_t = 0, value_name = "S", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    ttl: u32,
    /// Answer these networks only: NETWORK/BITS or ADDRESS, commas between them. Default: everybody.
    #[arg(long, value_name = "NETWORKS")]
    allow: Option<Networks>,
    /// Where to serve /metrics and /healthz.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// A registrar; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
}

/// Runs the subcommand. Exit status 0 after a signal; 1 when it could not start.
pub fn run(args: &DnsArgs) -> ExitCode {
    out::status("dns", serve(args).map(|()| ExitCode::SUCCESS))
}

/// What others may see of what goes on here.
#[derive(Debug, Default)]
struct Seen {
    counts: Counts,
    open: usize,
    pools: usize,
    elements: usize,
}

/// The metrics page.
#[derive(Debug, Clone)]
struct MetricsPage(Arc<Mutex<Seen>>);

impl Collector for MetricsPage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let seen = self.0.lock();
        dns_metrics::encode(&mut encoder, &seen.counts, seen.open)?;
        dns_metrics::gauge(&mut encoder, "dns_pools", "Pools that are followed", seen.pools)?;
        dns_metrics::gauge(&mut encoder, "dns_elements", "Elements of those pools", seen.elements)
    }
}

impl Scraped for MetricsPage {
    fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("rserpool");
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing into a string can't fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn ill(&self) -> Option<String> {
        None
    }
}

fn listen(text: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]);
    }
    let addresses = address::parse_list(text, DNS_PORT).map_err(|error| error.to_string())?;
    match addresses.len() > MAX_ADDRESSES {
        true => Err(format!("{text}: {MAX_ADDRESSES} addresses at most")),
        false => Ok(addresses),
    }
}

fn serve(args: &DnsArgs) -> Result<(), String> {
    let addresses = listen(&args.listen)?;
    let handles = args.pool.iter().map(|pool| crate::handle::parse(pool));
    let handles = handles.collect::<Result<Vec<_>, String>>()?;
    let plain = |error: std::io::Error| error.to_string();
    let mut poll = Poll::new().map_err(plain)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(plain)?);
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(plain)?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE).map_err(plain)?;
    let allow = args.allow.clone().unwrap_or_default();
    let mut dns = Dns::bind(poll.registry(), 0, &addresses, args.zone.clone(), args.ttl, allow)
        .map_err(|error| format!("{}: {error}", args.listen))?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let http = args.http.as_ref().map(|text| {
        let at = |error: std::io::Error| format!("--http={text}: {error}");
        let listener = TcpListener::bind(address::parse_one(text, 80).map_err(at)?).map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        scrape::serve(listener, MetricsPage(seen.clone())).map_err(at)?;
        Ok::<_, String>(address)
    });
    let http = http.transpose()?;
    let runtime = crate::resolve::start(&args.registrar)?;
    let mut pools = Followed::new(runtime.clone(), handles, waker);
    for address in dns.addresses() {
        out::line(format_args!("dns {address} for {}", args.zone));
    }
    if let Some(address) = http {
        out::line(format_args!("HTTP {address}"));
    }
    let begun = Instant::now();
    let mut events = Events::with_capacity(256);
    let ended = loop {
        let now = |begun: Instant| Time(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        let until = [dns.poll_timeout(now(begun)), Some(pools.poll_timeout())].into_iter().flatten().min();
        let wait = until.map(|until| until - now(begun)).unwrap_or(Duration::MAX);
        // A whole millisecond more, as poll counts: rather late than again and again.
        let wait = if wait.is_zero() { wait } else { wait + Duration::from_millis(1) };
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => break Err(error.to_string()),
            _ => {}
        }
        let now = now(begun);
        pools.turn(now);
        for event in &events {
            match event.token() {
                WAKER => {}
                SIGNALS if signals.pending().next().is_some() => {
                    drop(dns);
                    drop(pools);
                    runtime.shutdown();
                    return Ok(());
                }
                SIGNALS => {}
                token => dns.ready(token),
            }
        }
        let news = pools.news();
        dns.turn(&mut pools, now, news);
        let (followed, elements) = pools.sizes();
        *seen.lock() = Seen { counts: dns.counts().clone(), open: dns.open(), pools: followed, elements };
    };
    drop(pools);
    runtime.shutdown();
    ended
}
