//! What was asked and answered over DNS, as metrics of both programs.

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rserpool::dns::{Counts, TYPES};
use std::fmt;

/// The counts, and connections `open` at present.
pub fn encode(encoder: &mut DescriptorEncoder<'_>, counts: &Counts, open: usize) -> fmt::Result {
    let mut families = |name, help, label: &str, values: &[(&str, u64)]| {
        let mut samples = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(of, value)| {
            ConstCounter::new(*value).encode(samples.encode_family(&[(label, *of)].as_slice())?)
        })
    };
    let queries: Vec<(&str, u64)> = TYPES.into_iter().zip(counts.queries).collect();
    families("dns_queries", "DNS queries by type", "type", &queries)?;
    families("dns_answers", "DNS answers by what they said", "result", &counts.answers())?;
    for (name, help, value) in [
        ("dns_tcp_queries", "DNS queries over TCP", counts.over_tcp),
        ("dns_truncated", "DNS answers of which a part was left out", counts.truncated),
        ("dns_dropped", "Datagrams that were no DNS queries", counts.dropped),
        ("dns_not_allowed", "DNS datagrams and connections from networks not allowed", counts.not_allowed),
        ("dns_connections", "TCP connections for DNS", counts.connections),
        (
            "dns_connections_dropped",
            "TCP connections for DNS closed for want of room",
            counts.connections_dropped,
        ),
    ] {
        let counter = ConstCounter::new(value);
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    gauge(encoder, "dns_connections_open", "TCP connections for DNS at present", open)
}

/// A number of things.
pub fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
