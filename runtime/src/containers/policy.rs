//! Restart policies: when a container that ended is started again, by this service or, while there is
//! none, by the container's shim.

use std::sync::Arc;

use orlop_shim::config::Away;
use orlop_shim::protocol::Request;
use orlop_shim::restart::{OnUnhealthy, PAUSE_MAX, Policy, Restarts};

use super::health::wants_restart_of_unhealthy;
use super::monitor::time;
use super::record::{Record, State};
use super::{Container, Containers};
use crate::shim;

impl Containers {
    /// Starts the container again after a pause, if its policy says so; and again when that fails.
    pub(super) fn consider_restart(&self, container: &Arc<Container>, record: &Record) {
        if !record.state.restarting {
            return;
        }
        let (this, container) = (self.clone(), Arc::clone(container));
        let exits = record.state.exits;
        let mut count = record.state.restart_count.saturating_add(1);
        let mut pause = restarts(&record.state).pause();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                if this.restarted(&container, exits, count).await {
                    return;
                }
                count = count.saturating_add(1);
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        });
    }

    /// Tries to start a container again; true when that was done, or is no longer wanted.
    async fn restarted(&self, container: &Arc<Container>, exits: u64, count: u32) -> bool {
        let _gate = container.gate.lock().await;
        let record = container.record();
        let touched = record.state.exits != exits || record.state.stopped;
        let policy = record.config.restart.clone().unwrap_or_default();
        let spent = policy.maximum_retries > 0 && count > policy.maximum_retries;
        // The policy may have been changed since.
        let over = spent || !wants_restart(&record);
        if over && !touched {
            container
                .change(|record| record.state.restarting = false)
                .await;
        }
        if container.is_removed() || record.is_running() || touched || over {
            return true;
        }
        match self.start_held(container, None, count).await {
            Ok(_) => true,
            Err(error) => {
                let error = orlop_proto::error::chain(&error);
                tracing::warn!(id = container.id, error, "cannot restart a container");
                false
            }
        }
    }
}

/// What the policy says of a container that just ended.
pub(super) fn wants_restart(record: &Record) -> bool {
    if record.state.stopped || record.hidden || record.config.auto_remove {
        return false;
    }
    let (code, restarts) = (record.state.exit_code, record.state.restart_count);
    wants_restart_of_unhealthy(record) || policy(record).wants(code, restarts)
}

/// Whether anything but a person could start it again.
pub(super) fn is_any(record: &Record) -> bool {
    let health = record.config.health.as_ref();
    policy(record) != Policy::Never || health.is_some_and(|health| health.on_failure == "restart")
}

fn policy(record: &Record) -> Policy {
    let asked = record.config.restart.clone().unwrap_or_default();
    match asked.name.as_str() {
        "always" | "unless-stopped" => Policy::Always,
        "on-failure" => Policy::OnFailure {
            maximum_retries: asked.maximum_retries,
        },
        _ => Policy::Never,
    }
}

/// Restarts so far.
pub(super) fn restarts(state: &State) -> Restarts {
    Restarts {
        count: state.restart_count,
        short_runs: state.short_runs,
    }
}

/// Restarts as of a start that is the nth by policy.
pub(super) fn restarts_at(state: &State, count: u32) -> Restarts {
    match count {
        0 => Restarts::default(),
        _ => Restarts {
            count,
            ..restarts(state).once_more()
        },
    }
}

/// Takes in what a shim did while there was no service; true if it started its container again.
pub(super) fn catch_up(state: &mut State, told: Option<Restarts>, started_at: i64) -> bool {
    let Some(told) = told else { return false };
    let again = told.count > state.restart_count;
    if again {
        state.started = time(started_at).or(state.started);
    }
    (state.restart_count, state.short_runs) = (told.count, told.short_runs);
    again
}

/// What a shim is to decide while there is no service.
pub(super) fn away(record: &Record, restarts: Restarts) -> Away {
    let health = record.config.health.as_ref();
    Away {
        policy: handed_down(record),
        restarts,
        on_unhealthy: match health.map_or("", |health| &health.on_failure) {
            "kill" => OnUnhealthy::Kill,
            "restart" => OnUnhealthy::Restart,
            "stop" => OnUnhealthy::Stop,
            _ => OnUnhealthy::Nothing,
        },
        stop_signal: record.stop_signal,
        stop_timeout: record.stop_timeout,
    }
}

/// A container that shares what another one has is left to the service: the other has to be looked at. So
/// is one of another runtime, of which nothing is left after its end.
fn handed_down(record: &Record) -> Option<Policy> {
    let config = &record.config;
    let joins = [&config.pid_mode, &config.ipc_mode];
    let joins = joins.iter().any(|mode| mode.starts_with("container:"));
    let others = joins || !config.runtime.is_empty();
    let never = others || record.state.stopped || record.hidden || config.auto_remove;
    (!never).then(|| policy(record))
}

/// Tells the shim of a container that runs what the record says of restarts. One that cannot be told is
/// older than that, or on its way out.
pub(super) async fn hand_down(container: &Container) {
    let record = container.record();
    if !record.is_running() {
        return;
    }
    let request = Request::Restart(handed_down(&record));
    if let Err(error) = shim::ask(&container.socket, &request).await {
        tracing::debug!(id = container.id, %error, "the shim does not take a policy");
    }
}
