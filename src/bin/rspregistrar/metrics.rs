//! Counters and sizes for Prometheus. The machine counts in plain numbers; they become metrics here, when somebody
//! asks, in pieces: between two of them others are served. However many pools and peers there are, so many series
//! there are at most.

use super::figures::{Figures, is_up};
use super::process_metrics::ProcessMetrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rserpool::dns::Counts;
use rserpool::machine::registrar::{Histogram, Stats};
use rserpool::runtime::registrar::{LinkStats, Server};
use rserpool::wire::{CauseCode, PoolHandle, RegistrarId};
use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Handles that are longer are not told apart.
const LONGEST_HANDLE: usize = 128;
/// Pools looked at, or written of under one name, in a piece: about a millisecond's work.
const PIECE: usize = 256;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format 0.0.4.
    Text,
}

impl Format {
    /// What suits an Accept header best: OpenMetrics where it is named, text where that is or nothing.
    pub fn wanted(accept: &str) -> Format {
        let names = |word: &str| accept.split(',').any(|kind| kind.trim().starts_with(word));
        match names("application/openmetrics-text") || !names("text/") && names("*/*") {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    /// The Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the program knows beside the server.
#[derive(Debug, Clone)]
pub struct Program {
    /// Pools that are told apart.
    pub max_pools: usize,
    /// When it started.
    pub started: SystemTime,
    /// When the configuration was read again last, and whether that was a success.
    pub reload: Option<(SystemTime, bool)>,
    /// Open event streams.
    pub streams: usize,
    /// What was asked over DNS, and connections for that.
    pub dns: Option<(Counts, usize)>,
}

#[derive(Debug)]
struct PoolSample {
    handle: String,
    elements: usize,
    drained: usize,
    selected: u64,
    lost: u64,
    unknown: u64,
    changed: f64,
}

#[derive(Debug)]
struct PeerSample {
    id: String,
    up: bool,
    heard: Option<f64>,
    agrees: Option<bool>,
    elements: usize,
    queue: usize,
    resynchronisations: u64,
}

#[derive(Debug)]
struct Snapshot {
    stats: Stats,
    links: LinkStats,
    gauges: Vec<(&'static str, &'static str, f64)>,
    pools: Vec<PoolSample>,
    peers: Vec<PeerSample>,
    refusals: Vec<(&'static str, CauseCode, u64)>,
    bounds: Vec<(&'static str, usize, usize)>,
    answers: Histogram,
    turns: Histogram,
    dns: Option<(Counts, usize)>,
}

/// What a name says of a pool.
enum OfPool {
    Counter(fn(&PoolSample) -> u64),
    Gauge(fn(&PoolSample) -> f64),
}

const OF_POOLS: [(&str, &str, OfPool); 6] = [
    ("pool_selected", "Elements of the pool given to users", OfPool::Counter(|pool| pool.selected)),
    ("pool_lost", "Elements of the pool that were lost", OfPool::Counter(|pool| pool.lost)),
    (
        "pool_unknown_answers",
        "Users told that the pool is unknown, while it was empty",
        OfPool::Counter(|pool| pool.unknown),
    ),
    (
        "pool_elements",
        "Elements of the pool; for an hour after it became empty: 0",
        OfPool::Gauge(|pool| pool.elements as f64),
    ),
    (
        "pool_drained_elements",
        "Elements of the pool that get no new users",
        OfPool::Gauge(|pool| pool.drained as f64),
    ),
    (
        "pool_last_change_timestamp_seconds",
        "When an element came into the pool or left it last",
        OfPool::Gauge(|pool| pool.changed),
    ),
];

/// Writes the samples of one name.
struct Samples<'a> {
    encoder: MetricEncoder<'a>,
}

impl Samples<'_> {
    fn counter(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.encoder.encode_family(&labels)?)
    }

    fn gauge(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.encoder.encode_family(&labels)?)
    }
}

fn samples<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
    kind: MetricType,
) -> Result<Samples<'a>, fmt::Error> {
    Ok(Samples { encoder: encoder.encode_descriptor(name, help, None, kind)? })
}

impl Snapshot {
    fn totals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { stats, links, .. } = self;
        for (name, help, value) in [
            ("registrations", "Registrations and re-registrations", stats.registrations),
            ("deregistrations", "Deregistrations", stats.deregistrations),
            ("handle_resolutions", "Handle resolutions", stats.handle_resolutions),
            ("unknown_pools", "Handle resolutions answered with: unknown pool", stats.unknown_pools),
            ("endpoint_unreachables", "Reports of unreachable elements", stats.endpoint_unreachables),
            ("keep_alives", "Keep-alives sent to elements", stats.keep_alives_sent),
            ("keep_alives_missed", "Keep-alives not answered in time", stats.keep_alives_missed),
            ("elements_lost", "Elements removed because they were gone", stats.elements_lost),
            (
                "adoptions",
                "Elements that we became the home registrar of instead of another",
                stats.adoptions,
            ),
            ("subscription_messages", "Changed pools told to subscribers", stats.subscription_messages),
            ("handle_updates_sent", "Handle updates sent to peers", stats.handle_updates_sent),
            ("handle_updates_received", "Handle updates from peers", stats.handle_updates_received),
            ("peers_died", "Other registrars that died", stats.peers_dead),
            ("takeovers", "Takeovers completed by us", stats.takeovers),
            ("takeovers_seen", "Takeovers of dead registrars, by us or others", stats.takeovers_seen),
            ("resynchronisations", "Handle tables asked for after an audit", stats.resynchronisations),
            ("handle_table_requests", "Parts of our handle table asked for", stats.handle_table_requests),
            (
                "messages_rejected",
                "Messages that could not be decoded or were refused",
                stats.messages_rejected,
            ),
            ("messages", "Messages received over connections", links.messages),
            ("links_accepted", "Connections accepted", links.accepted),
            ("links_refused", "Connections closed because there were too many", links.refused),
            ("garbage", "Connections dropped for sending no messages", links.garbage),
            ("half_messages", "Connections dropped for not ending a message", links.half_messages),
            ("overflows", "Connections dropped for not reading", links.overflows),
            ("tls_handshakes", "TLS handshakes begun", links.handshakes),
            ("tls_handshakes_failed", "TLS handshakes that failed, or never ended", links.handshakes_failed),
            ("links_plain", "Connections without TLS where both are allowed", links.plain),
        ] {
            let counter = ConstCounter::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        for &(name, help, value) in &self.gauges {
            let gauge = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }

    /// The samples of one name, of the pools from `from` on: a piece of them.
    fn of_pools(&self, encoder: &mut DescriptorEncoder<'_>, name: usize, from: usize) -> fmt::Result {
        let (name, help, value) = &OF_POOLS[name];
        let kind = match value {
            OfPool::Counter(_) => MetricType::Counter,
            OfPool::Gauge(_) => MetricType::Gauge,
        };
        let mut samples = samples(encoder, name, help, kind)?;
        self.pools.iter().skip(from).take(PIECE).try_for_each(|pool| {
            let labels = [("pool", pool.handle.as_str())];
            match value {
                OfPool::Counter(value) => samples.counter(&labels, value(pool)),
                OfPool::Gauge(value) => samples.gauge(&labels, value(pool)),
            }
        })
    }

    fn of_peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauges = |name, help, value: fn(&PeerSample) -> Option<f64>| {
            let mut samples = samples(encoder, name, help, MetricType::Gauge)?;
            self.peers.iter().try_for_each(|peer| match value(peer) {
                Some(value) => samples.gauge(&[("peer", &peer.id)], value),
                None => Ok(()),
            })
        };
        gauges("peer_up", "Whether the other registrar is heard", |peer| Some(f64::from(u8::from(peer.up))))?;
        gauges("peer_last_heard_seconds", "Time since the other registrar was heard", |peer| peer.heard)?;
        gauges("peer_agrees", "Whether its checksum was right when it was compared last", |peer| {
            peer.agrees.map(|agrees| f64::from(u8::from(agrees)))
        })?;
        gauges("peer_elements", "Elements whose home registrar it is", |peer| Some(peer.elements as f64))?;
        gauges("peer_queued_updates", "Updates that wait for it to read", |peer| Some(peer.queue as f64))?;
        let help = "Handle tables asked for after an audit";
        let mut samples = samples(encoder, "peer_resynchronisations", help, MetricType::Counter)?;
        self.peers.iter().try_for_each(|peer| samples.counter(&[("peer", &peer.id)], peer.resynchronisations))
    }

    fn of_bounds(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Refused requests by what was asked and the cause told";
        let mut refused = samples(encoder, "refusals", help, MetricType::Counter)?;
        for &(request, cause, count) in &self.refusals {
            refused.counter(&[("request", request), ("cause", &cause_name(cause))], count)?;
        }
        let mut most = samples(encoder, "bound", "What there can be at most", MetricType::Gauge)?;
        for &(of, _, bound) in &self.bounds {
            most.gauge(&[("of", of)], bound as f64)?;
        }
        let mut used =
            samples(encoder, "bound_used", "How much there is of what is bounded", MetricType::Gauge)?;
        for &(of, count, _) in &self.bounds {
            used.gauge(&[("of", of)], count as f64)?;
        }
        let version = env!("CARGO_PKG_VERSION");
        let mut build =
            samples(encoder, "build_info", "Always 1; its labels say what runs", MetricType::Gauge)?;
        build.gauge(&[("version", version)], 1.0)
    }
}

fn cause_name(cause: CauseCode) -> String {
    format!("{cause:?}")
}

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &Histogram,
) -> fmt::Result {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let bounds = Histogram::BOUNDS.iter().map(|&bound| seconds(bound)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts).collect();
    let count = histogram.counts.iter().sum();
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    metric.encode_histogram::<[(&str, &str); 0]>(seconds(histogram.sum), count, &buckets, None)
}

/// What a piece of the text is of.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Up to the pools.
    Totals,
    /// A name's samples of the pools from a number on.
    Pools { name: usize, from: usize },
    /// Behind the pools.
    Rest,
}

#[derive(Debug)]
struct MetricsPiece {
    snapshot: Arc<Snapshot>,
    part: Part,
}

impl Collector for MetricsPiece {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        match self.part {
            Part::Totals => return snapshot.totals(&mut encoder),
            Part::Pools { name, from } => return snapshot.of_pools(&mut encoder, name, from),
            Part::Rest => {}
        }
        snapshot.of_peers(&mut encoder)?;
        snapshot.of_bounds(&mut encoder)?;
        let help = "How long elements took to answer keep-alives";
        histogram(&mut encoder, "keep_alive_answer_seconds", help, &snapshot.answers)?;
        let help = "How long turns of the event loop took, without waiting: nobody is served sooner";
        histogram(&mut encoder, "turn_seconds", help, &snapshot.turns)?;
        match &snapshot.dns {
            Some((counts, open)) => crate::dns_metrics::encode(&mut encoder, counts, *open),
            None => Ok(()),
        }
    }
}

/// The pools that are told apart, while they are collected: those that became empty first.
#[derive(Debug, Default)]
struct ToldPools {
    samples: Vec<PoolSample>,
    known: HashSet<PoolHandle>,
    begun: bool,
    /// How far it has come.
    last: Option<PoolHandle>,
    /// Those among them that were not empty, and their elements.
    filled: usize,
    elements: usize,
}

impl ToldPools {
    fn add(&mut self, server: &Server, handle: &PoolHandle, [size, drained]: [usize; 2], selected: u64) {
        // Pools come and go between two pieces; none may be told twice.
        if handle.as_bytes().len() > LONGEST_HANDLE || !self.known.insert(handle.clone()) {
            return;
        }
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = server.machine().pool_record(handle).copied().unwrap_or_default();
        self.samples.push(PoolSample {
            handle: handle.to_string(),
            elements: size,
            drained,
            selected,
            lost: record.lost,
            unknown: record.unknown,
            changed: (clock.as_secs_f64() - (server.now() - record.changed).as_secs_f64()).max(0.0),
        });
        self.filled += usize::from(size > 0);
        self.elements += size;
    }

    fn add_emptied(&mut self, server: &Server, most: usize) {
        for (handle, _) in server.machine().emptied_pools(server.now()) {
            if self.samples.len() >= most {
                break;
            }
            self.add(server, handle, [0; 2], 0);
        }
    }

    /// Looks at the next pools; whether those were the last.
    fn go_on(&mut self, server: &Server, most: usize) -> bool {
        if !self.begun {
            self.begun = true;
            self.add_emptied(server, most);
            return false;
        }
        let after = self.last.clone();
        for (count, pool) in server.machine().handlespace().pools_after(after.as_ref()).enumerate() {
            if self.samples.len() >= most {
                return true;
            }
            if count == PIECE {
                return false;
            }
            self.last = Some(pool.handle().clone());
            self.add(server, pool.handle(), [pool.len(), pool.drained()], pool.selected());
        }
        // Some may have become empty meanwhile, before their turn.
        self.add_emptied(server, most);
        true
    }
}

fn snapshot(server: &Server, program: &Program, pools: ToldPools) -> Snapshot {
    let machine = server.machine();
    let figures = Figures::read(server);
    let flag = |flag: bool| f64::from(u8::from(flag));
    // Some may have gone since they were looked at.
    let other_pools = figures.pools.saturating_sub(pools.filled);
    let other_elements = figures.elements.saturating_sub(pools.elements);
    let mut gauges = vec![
        ("pools", "Pools", figures.pools as f64),
        ("elements", "Elements of the operation scope", figures.elements as f64),
        ("owned_elements", "Elements whose home registrar we are", figures.owned as f64),
        ("peers", "Other registrars", figures.peers.len() as f64),
        ("links", "Connections", figures.links as f64),
        ("serving", "Whether the ASAP service has started", flag(figures.serving)),
        (
            "emptied_pools",
            "Pools that became empty within the last hour and still are",
            figures.emptied as f64,
        ),
        (
            "other_pools",
            "Pools that are not told apart here, for the sake of their number",
            other_pools as f64,
        ),
        ("other_pools_elements", "Elements of the pools that are not told apart", other_elements as f64),
        ("event_streams", "Readers of /events", program.streams as f64),
    ];
    if let Some(tls) = server.tls_status() {
        let expires = "When our certificate is no longer valid";
        gauges.push(("tls_certificate_expiry_timestamp_seconds", expires, tls.certificate_expires as f64));
        if let Some(list) = tls.list_expires {
            let expires = "When the revocation list is out of date";
            gauges.push(("tls_revocation_list_expiry_timestamp_seconds", expires, list as f64));
        }
        gauges.push(("tls_reload_failures", "How often new files could not be used", tls.failures as f64));
    }
    if let Some((when, good)) = program.reload {
        let when = when.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        gauges.push(("config_last_reload_successful", "Whether the last reload was taken", flag(good)));
        gauges.push((
            "config_last_reload_timestamp_seconds",
            "When the configuration was read again last",
            when,
        ));
    }
    let id = |id: RegistrarId| id.to_string();
    let peers = figures.peers.into_iter().map(|peer| PeerSample {
        id: id(peer.id),
        up: is_up(&peer),
        heard: peer.last_heard.map(|ago| ago.as_secs_f64()),
        agrees: peer.agrees,
        elements: peer.elements,
        queue: peer.queue,
        resynchronisations: peer.resynchronisations,
    });
    Snapshot {
        stats: machine.stats(),
        links: server.link_stats(),
        gauges,
        pools: pools.samples,
        peers: peers.collect(),
        refusals: machine.refusals().collect(),
        bounds: figures.bounds,
        answers: *machine.keep_alive_answers(),
        turns: *server.turn_times(),
        dns: program.dns.clone(),
    }
}

#[derive(Debug)]
enum Stage {
    Collecting(ToldPools),
    Writing(Arc<Snapshot>, Part),
}

/// The metrics of now, as they are made.
#[derive(Debug)]
pub struct Scrape {
    format: Format,
    program: Program,
    stage: Stage,
    text: String,
}

impl Scrape {
    /// A scrape that has not begun.
    pub fn new(program: Program, format: Format) -> Scrape {
        Scrape { format, program, stage: Stage::Collecting(ToldPools::default()), text: String::new() }
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Makes the next piece; after the last, the whole text.
    pub fn next_piece(&mut self, server: &Server) -> Option<String> {
        let (snapshot, part) = match &mut self.stage {
            Stage::Collecting(pools) => {
                if pools.go_on(server, self.program.max_pools) {
                    let snapshot = Arc::new(snapshot(server, &self.program, std::mem::take(pools)));
                    self.stage = Stage::Writing(snapshot, Part::Totals);
                }
                return None;
            }
            Stage::Writing(snapshot, part) => (snapshot.clone(), part),
        };
        let of = *part;
        let count = snapshot.pools.len();
        *part = match of {
            Part::Totals => Part::Pools { name: 0, from: 0 },
            Part::Pools { name, from } if from + PIECE < count => Part::Pools { name, from: from + PIECE },
            Part::Pools { name, .. } if name + 1 < OF_POOLS.len() => Part::Pools { name: name + 1, from: 0 },
            Part::Pools { .. } | Part::Rest => Part::Rest,
        };
        let mut registry = Registry::with_prefix("rserpool");
        registry.register_collector(Box::new(MetricsPiece { snapshot, part: of }));
        let continued = matches!(of, Part::Pools { from: 1.., .. });
        self.write(&registry, continued);
        if !matches!(of, Part::Rest) {
            return None;
        }
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessMetrics::read(self.program.started)));
        self.write(&process, false);
        if self.format == Format::OpenMetrics {
            // Writing into a string can't fail.
            let _ = encode_eof(&mut self.text);
        }
        Some(std::mem::take(&mut self.text))
    }

    fn write(&mut self, registry: &Registry, continued: bool) {
        let mut open = String::new();
        let _ = encode_registry(&mut open, registry);
        // The name was described with its first samples.
        let described = |line: &&str| line.starts_with("# ");
        let skipped: usize = match continued {
            true => open.split_inclusive('\n').take_while(described).map(str::len).sum(),
            false => 0,
        };
        match self.format {
            Format::OpenMetrics => self.text += &open[skipped..],
            Format::Text => as_text(&open[skipped..], &mut self.text),
        }
    }
}

/// OpenMetrics as text 0.0.4: there, a counter's name ends with `_total` in its description as well.
fn as_text(open: &str, text: &mut String) {
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(described) = line.strip_prefix("# ") else {
            *text += line;
            text.push('\n');
            continue;
        };
        let mut words = described.splitn(3, ' ');
        let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let of_counter = format!("# TYPE {name} counter");
        let is_counter = line == of_counter || lines.peek() == Some(&of_counter.as_str());
        if what == "HELP" || what == "TYPE" {
            let _ = writeln!(text, "# {what} {name}{} {rest}", if is_counter { "_total" } else { "" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_the_reader_takes() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::OpenMetrics),
            ("text/plain", Format::Text),
            ("text/html, */*;q=0.1", Format::Text),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }

    #[test]
    fn counters_are_described_under_their_own_names() {
        let open = "# HELP a_b Help text.\n# TYPE a_b counter\na_b_total 1\n# HELP g G\n# TYPE g gauge\ng 2\n# EOF\n";
        let text = "# HELP a_b_total Help text.\n# TYPE a_b_total counter\na_b_total 1\n# HELP g G\n# TYPE g gauge\ng 2\n";
        let mut made = String::new();
        as_text(open, &mut made);
        assert_eq!(made, text);
    }
}
