//! Counters and sizes for Prometheus. The machine counts in plain numbers; they become metrics here,
//! when somebody asks. However many pools and peers there are, so many series there are at most.

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
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Handles that are longer are not told apart.
const LONGEST_HANDLE: usize = 128;

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

    fn of_pools(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut counters = |name, help, value: fn(&PoolSample) -> u64| {
            let mut samples = samples(encoder, name, help, MetricType::Counter)?;
            self.pools.iter().try_for_each(|pool| samples.counter(&[("pool", &pool.handle)], value(pool)))
        };
        counters("pool_selected", "Elements of the pool given to users", |pool| pool.selected)?;
        counters("pool_lost", "Elements of the pool that were lost", |pool| pool.lost)?;
        counters(
            "pool_unknown_answers",
            "Users told that the pool is unknown, while it was empty",
            |pool| pool.unknown,
        )?;
        let mut gauges = |name, help, value: fn(&PoolSample) -> f64| {
            let mut samples = samples(encoder, name, help, MetricType::Gauge)?;
            self.pools.iter().try_for_each(|pool| samples.gauge(&[("pool", &pool.handle)], value(pool)))
        };
        gauges("pool_elements", "Elements of the pool; for an hour after it became empty: 0", |pool| {
            pool.elements as f64
        })?;
        gauges("pool_drained_elements", "Elements of the pool that get no new users", |pool| {
            pool.drained as f64
        })?;
        gauges(
            "pool_last_change_timestamp_seconds",
            "When an element came into the pool or left it last",
            |pool| pool.changed,
        )
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

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.totals(&mut encoder)?;
        self.of_pools(&mut encoder)?;
        self.of_peers(&mut encoder)?;
        self.of_bounds(&mut encoder)?;
        let help = "How long elements took to answer keep-alives";
        histogram(&mut encoder, "keep_alive_answer_seconds", help, &self.answers)?;
        let help = "How long turns of the event loop took, without waiting: nobody is served sooner";
        histogram(&mut encoder, "turn_seconds", help, &self.turns)?;
        match &self.dns {
            Some((counts, open)) => crate::dns_metrics::encode(&mut encoder, counts, *open),
            None => Ok(()),
        }
    }
}

/// Pools to tell apart, those that became empty first; how many others there are, and their elements.
fn pools(server: &Server, most: usize) -> (Vec<PoolSample>, usize, usize) {
    let (machine, now) = (server.machine(), server.now());
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let short = |handle: &PoolHandle| handle.as_bytes().len() <= LONGEST_HANDLE;
    let mut samples = Vec::new();
    let mut elements = 0;
    let sample = |handle: &PoolHandle, [size, drained]: [usize; 2], selected| {
        let record = machine.pool_record(handle).copied().unwrap_or_default();
        PoolSample {
            handle: handle.to_string(),
            elements: size,
            drained,
            selected,
            lost: record.lost,
            unknown: record.unknown,
            changed: (clock.as_secs_f64() - (now - record.changed).as_secs_f64()).max(0.0),
        }
    };
    let emptied = machine.emptied_pools(now).filter(|(handle, _)| short(handle));
    samples.extend(emptied.take(most).map(|(handle, _)| sample(handle, [0; 2], 0)));
    let space = machine.handlespace();
    for pool in space.pools_after(None).filter(|pool| short(pool.handle())) {
        if samples.len() >= most {
            break;
        }
        elements += pool.len();
        samples.push(sample(pool.handle(), [pool.len(), pool.drained()], pool.selected()));
    }
    let shown = samples.iter().filter(|sample| sample.elements > 0).count();
    (samples, space.pool_count() - shown, space.len() - elements)
}

fn snapshot(server: &Server, program: &Program) -> Snapshot {
    let (machine, links) = (server.machine(), server.link_stats());
    let space = machine.handlespace();
    let peers = machine.peers();
    let flag = |flag: bool| f64::from(u8::from(flag));
    let (pools, other_pools, other_elements) = pools(server, program.max_pools);
    let mut gauges = vec![
        ("pools", "Pools", space.pool_count() as f64),
        ("elements", "Elements of the operation scope", space.len() as f64),
        ("owned_elements", "Elements whose home registrar we are", space.owned_count(machine.id()) as f64),
        ("peers", "Other registrars", peers.len() as f64),
        ("links", "Connections", links.open as f64),
        ("serving", "Whether the ASAP service has started", flag(machine.is_serving())),
        (
            "emptied_pools",
            "Pools that became empty within the last hour and still are",
            machine.emptied_pools(server.now()).count() as f64,
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
    let peers = peers.into_iter().map(|peer| PeerSample {
        id: id(peer.id),
        up: peer.state == "alive",
        heard: peer.last_heard.map(|ago| ago.as_secs_f64()),
        agrees: peer.agrees,
        elements: peer.elements,
        queue: peer.queue,
        resynchronisations: peer.resynchronisations,
    });
    let mut bounds = machine.bounds();
    bounds.push(("links", links.open, links.most));
    bounds.push(("bytes of queues and half messages", links.held, links.most_held));
    Snapshot {
        stats: machine.stats(),
        links,
        gauges,
        pools,
        peers: peers.collect(),
        refusals: machine.refusals().collect(),
        bounds,
        answers: *machine.keep_alive_answers(),
        turns: *server.turn_times(),
        dns: program.dns.clone(),
    }
}

/// The metrics of now.
pub fn encode(server: &Server, program: &Program, format: Format) -> String {
    let mut registry = Registry::with_prefix("rserpool");
    registry.register_collector(Box::new(snapshot(server, program)));
    let mut process = Registry::default();
    process.register_collector(Box::new(ProcessMetrics::read(program.started)));
    let mut text = String::new();
    // Writing into a string can't fail.
    let _ = encode_registry(&mut text, &registry);
    let _ = encode_registry(&mut text, &process);
    match format {
        Format::OpenMetrics => {
            let _ = encode_eof(&mut text);
            text
        }
        Format::Text => as_text(&text),
    }
}

/// OpenMetrics as text 0.0.4: there, a counter's name ends with `_total` in its description as well.
fn as_text(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(described) = line.strip_prefix("# ") else {
            text += line;
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
    text
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
        assert_eq!(as_text(open), text);
    }
}
