//! What the process takes from its host, read from `/proc/self` when somebody asks. The names are those
//! that every Prometheus client library uses.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The process, and when its first metric was made: within milliseconds of its start.
#[derive(Debug)]
struct Process {
    started: f64,
}

pub(super) fn register(registry: &mut Registry) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let started = since.map_or(0.0, |since| since.as_secs_f64());
    registry.register_collector(Box::new(Process { started }));
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let mut gauge = |name: &str, help: &str, value: f64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            bytes(&status, "VmRSS:"),
        )?;
        gauge(
            "process_resident_memory_max_bytes",
            "The most resident memory that there was",
            bytes(&status, "VmHWM:"),
        )?;
        gauge("process_open_fds", "Open file descriptors", count(files))?;
        gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            self.started,
        )
    }
}

/// A line of `/proc/self/status`, which counts in KiB.
fn bytes(status: &str, field: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        assert!((bytes("VmHWM:\t    8 kB\nVmRSS:\t    4 kB\n", "VmRSS:") - 4096.0).abs() < 0.1);
        assert!(bytes("", "VmRSS:").abs() < 0.1);
    }
}
