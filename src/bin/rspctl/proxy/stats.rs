//! What the proxy counts, and where it is asked for: /metrics (OpenMetrics) and /healthz.

use crate::scrape::Scraped;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use rserpool::runtime::Pool;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// One thread writes, others read.
#[derive(Debug, Default)]
pub struct Stats {
    accepted: AtomicU64,
    open: AtomicU64,
    refused: AtomicU64,
    failed_connects: AtomicU64,
    client_errors: AtomicU64,
    server_errors: AtomicU64,
    shut: AtomicU64,
    bytes: AtomicU64,
    spliced: AtomicU64,
    pools: Mutex<Vec<Arc<Pool>>>,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Stats {
    pub fn accepted(&self) {
        add(&self.accepted, 1);
        add(&self.open, 1);
    }
    pub fn closed(&self) {
        add(&self.open, u64::MAX);
    }
    pub fn refused(&self) {
        add(&self.refused, 1);
    }
    pub fn failed_connect(&self) {
        add(&self.failed_connects, 1);
    }
    pub fn broken(&self, by_server: bool) {
        add(if by_server { &self.server_errors } else { &self.client_errors }, 1);
    }
    pub fn shut(&self) {
        add(&self.shut, 1);
    }
    /// So many bytes, of which so many by splice(2).
    pub fn moved(&self, bytes: u64, spliced: u64) {
        add(&self.bytes, bytes);
        add(&self.spliced, spliced);
    }
    pub fn pools(&self, pools: Vec<Arc<Pool>>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    fn all_pools(&self) -> Vec<Arc<Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As OpenMetrics.
    fn metrics(self: &Arc<Stats>) -> String {
        let mut registry = Registry::with_prefix("rserpool_proxy");
        registry.register_collector(Box::new(Snapshot(self.clone())));
        let elements = Family::<Vec<(String, String)>, Gauge>::default();
        let passed_over = Family::<Vec<(String, String)>, Gauge>::default();
        for pool in self.all_pools() {
            let (all, failed) = pool.counts();
            let label = vec![("pool".to_owned(), pool.handle().to_string())];
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            elements.get_or_create_owned(&label).set(number(all));
            passed_over.get_or_create_owned(&label).set(number(failed));
        }
        registry.register("elements", "Elements of a pool", elements);
        registry.register("elements_passed_over", "Elements that failed lately", passed_over);
        let mut text = String::new();
        // Writing into a string can't fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[derive(Debug)]
struct Snapshot(Arc<Stats>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        for (name, help, value) in [
            ("connections", "Connections accepted", &stats.accepted),
            ("connections_refused", "Connections closed because no element could be reached", &stats.refused),
            ("connects_failed", "Connects that elements refused or did not answer", &stats.failed_connects),
            ("client_errors", "Connections broken by the client", &stats.client_errors),
            ("server_errors", "Connections broken by the element", &stats.server_errors),
            ("connections_shut", "Connections shut because their element was lost", &stats.shut),
            ("bytes", "Bytes passed on, both ways", &stats.bytes),
            ("bytes_spliced", "Of them, those that stayed in the kernel (splice(2))", &stats.spliced),
        ] {
            let counter = ConstCounter::new(value.load(Relaxed));
            let descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        let open = ConstGauge::new(i64::try_from(stats.open.load(Relaxed)).unwrap_or(i64::MAX));
        let descriptor = encoder.encode_descriptor(
            "connections_open",
            "Connections at present",
            None,
            open.metric_type(),
        )?;
        open.encode(descriptor)
    }
}

/// What is asked for.
#[derive(Debug)]
pub struct Page(pub Arc<Stats>);

impl Scraped for Page {
    fn metrics(&self) -> String {
        self.0.metrics()
    }

    fn ill(&self) -> Option<String> {
        let pools = self.0.all_pools();
        let empty: Vec<String> =
            pools.iter().filter(|pool| pool.is_empty()).map(|pool| pool.handle().to_string()).collect();
        (!empty.is_empty()).then(|| format!("no elements in {}", empty.join(", ")))
    }
}
