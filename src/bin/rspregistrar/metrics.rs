//! Counters and sizes for Prometheus. The machine counts in plain numbers; they become metrics here,
//! when somebody asks.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rserpool::machine::registrar::Stats;
use rserpool::runtime::registrar::{LinkStats, Server};
use std::fmt;

/// OpenMetrics, which Prometheus prefers.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
struct Snapshot {
    stats: Stats,
    links: LinkStats,
    gauges: [(&'static str, &'static str, u64); 6],
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { stats, links, gauges } = self;
        for (name, help, value) in [
            ("registrations", "Registrations and re-registrations", stats.registrations),
            ("deregistrations", "Deregistrations", stats.deregistrations),
            ("handle_resolutions", "Handle resolutions", stats.handle_resolutions),
            ("endpoint_unreachables", "Reports of unreachable elements", stats.endpoint_unreachables),
            ("keep_alives", "Keep-alives sent to elements", stats.keep_alives_sent),
            ("elements_lost", "Elements removed because they were gone", stats.elements_lost),
            ("subscription_messages", "Changed pools told to subscribers", stats.subscription_messages),
            ("handle_updates_sent", "Handle updates sent to peers", stats.handle_updates_sent),
            ("handle_updates_received", "Handle updates from peers", stats.handle_updates_received),
            ("takeovers", "Takeovers completed by us", stats.takeovers),
            ("resynchronisations", "Handle tables asked for after an audit", stats.resynchronisations),
            ("handle_table_requests", "Parts of our handle table asked for", stats.handle_table_requests),
            ("messages_rejected", "Messages that could not be decoded", stats.messages_rejected),
            ("messages", "Messages received over connections", links.messages),
            ("links_accepted", "Connections accepted", links.accepted),
            ("links_refused", "Connections closed because there were too many", links.refused),
            ("garbage", "Connections dropped for sending no messages", links.garbage),
            ("half_messages", "Connections dropped for not ending a message", links.half_messages),
            ("overflows", "Connections dropped for not reading", links.overflows),
        ] {
            let counter = ConstCounter::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        for &(name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }
}

/// The metrics of now.
pub fn encode(server: &Server) -> String {
    let (machine, links) = (server.machine(), server.link_stats());
    let space = machine.handlespace();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let gauges = [
        ("pools", "Pools", count(space.pool_count())),
        ("elements", "Elements of the operation scope", count(space.len())),
        ("owned_elements", "Elements whose home registrar we are", count(space.owned_count(machine.id()))),
        ("peers", "Other registrars", count(machine.peers().len())),
        ("links", "Connections", count(links.open)),
        ("serving", "Whether the ASAP service has started", u64::from(machine.is_serving())),
    ];
    let mut registry = Registry::with_prefix("rserpool");
    registry.register_collector(Box::new(Snapshot { stats: machine.stats(), links, gauges }));
    let mut text = String::new();
    // Writing into a string can't fail.
    let _ = encode_text(&mut text, &registry);
    text
}
