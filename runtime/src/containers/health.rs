//! What a container's health leads to. Its shim checks it, also while this service is down; this
//! service tells of it, and acts on it.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use orlop_shim::config::HEALTH_FILE;
use orlop_shim::health::{Health, HealthStatus};

use super::record::Record;
use super::stop::SIGKILL;
use super::{Container, Containers};

/// Far more than five results take.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

impl Containers {
    /// Takes what the shim says. The first word of a shim may be of something that came about while
    /// nobody listened.
    pub(super) async fn heard(&self, container: &Arc<Container>, health: Health, first: bool) {
        let status = health.status;
        let before = container.record().health();
        let health = Some(Arc::new(health));
        container
            .change(|record| record.state.health = health)
            .await;
        let changed = before != Some(status);
        if changed {
            let action = format!("health_status: {}", status.as_str());
            self.tell(&container.record(), &action, &[]);
        }
        if status == HealthStatus::Unhealthy && (changed || first) {
            let (this, container) = (self.clone(), Arc::clone(container));
            tokio::spawn(async move { this.act(&container).await });
        }
    }

    /// Does with an unhealthy container what was asked for.
    async fn act(&self, container: &Arc<Container>) {
        let _gate = container.gate.lock().await;
        let record = container.record();
        if record.health() != Some(HealthStatus::Unhealthy) {
            // Somebody was faster.
            return;
        }
        let asked = record.config.health.clone().unwrap_or_default();
        let done = match asked.on_failure.as_str() {
            "stop" => self.stop_held(container, None, None).await,
            // What follows the end starts it again, after the pause of a policy.
            "restart" => self.end_held(container, None, None).await,
            "kill" => self.end_held(container, Some(SIGKILL), None).await,
            _ => Ok(()),
        };
        if let Err(error) = done {
            let error = orlop_proto::error::chain(&error);
            let id = &container.id;
            tracing::warn!(id, error, "cannot end an unhealthy container");
        }
    }
}

/// Whether a container ended because it was unhealthy, and is to be started again.
pub(super) fn wants_restart_of_unhealthy(record: &Record) -> bool {
    let check = record.config.health.as_ref();
    let asked = check.is_some_and(|check| check.on_failure == "restart");
    asked && record.health() == Some(HealthStatus::Unhealthy)
}

/// What the shim of a container that was started kept of its health.
pub(super) fn kept(record: &Record, directory: &Path) -> Option<Arc<Health>> {
    record.config.health.as_ref()?;
    record.state.started?;
    let mut json = Vec::new();
    let file = std::fs::File::open(directory.join(HEALTH_FILE)).ok();
    let read = file.map(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut json));
    // None was kept before the first check ended.
    let health = match read {
        Some(Ok(_)) => serde_json::from_slice(&json).unwrap_or_default(),
        _ => Health::default(),
    };
    Some(Arc::new(health))
}
