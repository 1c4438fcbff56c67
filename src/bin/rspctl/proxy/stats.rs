//! What the proxy counts, and where it is asked for: /metrics (OpenMetrics) and /healthz.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use rserpool::runtime::Pool;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long somebody may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_REQUEST: usize = 8192;

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
    pub fn moved(&self, bytes: u64) {
        add(&self.bytes, bytes);
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

/// Answers one after the other, each within a few seconds.
pub fn serve(listener: TcpListener, stats: Arc<Stats>) -> io::Result<()> {
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // Whoever asks badly or goes away misses his answer.
                Ok(stream) => _ = answer(stream, &stats),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    })?;
    Ok(())
}

fn answer(mut stream: TcpStream, stats: &Arc<Stats>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let begun = std::time::Instant::now();
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    let path = loop {
        let count = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) if request.method == Some("GET") => {
                break request.path.unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
            }
            Ok(httparse::Status::Partial)
                if count > 0 && head.len() < MAX_REQUEST && begun.elapsed() < PATIENCE => {}
            _ => {
                return stream.write_all(
                    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
            }
        }
    };
    let (status, kind, body) = match path.as_str() {
        "/metrics" => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", stats.metrics())
        }
        "/healthz" => {
            let pools = stats.all_pools();
            let empty: Vec<String> =
                pools.iter().filter(|pool| pool.is_empty()).map(|pool| pool.handle().to_string()).collect();
            match empty.is_empty() {
                true => ("200 OK", "text/plain", "ok\n".to_owned()),
                false => (
                    "503 Service Unavailable",
                    "text/plain",
                    format!("no elements in {}\n", empty.join(", ")),
                ),
            }
        }
        _ => ("404 Not Found", "text/plain", "/metrics, /healthz\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
