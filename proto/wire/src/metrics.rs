//! What a process counts, and how Prometheus reads it: one registry per process, served as text at
//! `/metrics` when the operator gave an address.
//!
//! - `calls` counts the rpcs, [`process`] says what the process itself takes, [`endpoint`] answers.
//! - A service keeps its own metrics in statics and gives them to [`register`] once.
//!
//! Counting costs an atomic addition or a short uncontended lock whether or not anyone reads.

mod calls;
mod endpoint;
mod process;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text::encode;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Metric;
pub use prometheus_client::registry::Registry;

pub(crate) use calls::CallsLayer;
pub use endpoint::{MetricsError, serve};

/// Bounds of a histogram of seconds, from a system call to a large transfer. They have 0.05 in them:
/// the longest that a lock may be waited for at the 99th percentile.
pub const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| {
    let mut registry = Registry::default();
    process::register(&mut registry);
    Mutex::new(registry)
});

/// Makes a metric part of what this process tells. A counter's name is completed with `_total`. Each
/// name is registered once: keep the metric in a static.
pub fn register<M: Metric + Clone>(name: &str, help: &str, metric: M) -> M {
    registry().register(name, help, metric.clone());
    metric
}

/// A histogram of seconds; for [`Family::new_with_constructor`].
pub fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// All metrics as OpenMetrics text, which Prometheus reads as its own.
pub fn text() -> String {
    let mut text = String::new();
    // Writing to a string fails only if a metric does not know how to write itself.
    if let Err(error) = encode(&mut text, &registry()) {
        tracing::error!(%error, "the metrics cannot be written");
    }
    text
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
