//! What Prometheus users expect to know of every process, under its usual names.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// See the module; what the system does not tell is left out.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    cpu_seconds: Option<f64>,
    gauges: Vec<(&'static str, &'static str, f64)>,
}

impl ProcessMetrics {
    /// Reads them from /proc.
    pub fn read(started: SystemTime) -> ProcessMetrics {
        let mut gauges = Vec::new();
        let mut add = |name, help, value: Option<f64>| gauges.extend(value.map(|value| (name, help, value)));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let kib = |name| field(name).map(|kib| kib * 1024.0);
        add("process_resident_memory_bytes", "Resident memory", kib("VmRSS:"));
        add("process_virtual_memory_bytes", "Virtual memory", kib("VmSize:"));
        add("process_threads", "Threads", field("Threads:"));
        // Linux 6.2 and later tell the number here; before, it would have to be counted, one by one.
        let open =
            fs::metadata("/proc/self/fd").ok().map(|metadata| metadata.len()).filter(|&count| count > 0);
        add("process_open_fds", "Open descriptors", open.map(|count| count as f64));
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok();
        add("process_max_fds", "Descriptors that may be open", limit.map(|(soft, _)| soft as f64));
        let started = started.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
        add("process_start_time_seconds", "When the process started, since 1970", started);
        ProcessMetrics { cpu_seconds: cpu_seconds(), gauges }
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time used";
            let descriptor =
                encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        for &(name, help, value) in &self.gauges {
            let gauge = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }
}
