//! Noticing that a container ended, and what follows: its network and control groups go, it is removed
//! if it was to be, or started again by its policy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use orlop_shim::config::{EXIT_FILE, ExitStatus};
use orlop_shim::protocol::{Reply, Request};

use super::policy::{self, wants_restart};
use super::record::Record;
use super::state::{Action, next};
use super::{Container, Containers};
use crate::error::blocking;
use crate::network::Attachment;
use crate::shim::Connection;

/// How long a shim that closed its connection may take to leave its exit status.
const GRACE: Duration = Duration::from_secs(2);
const GRACE_STEP: Duration = Duration::from_millis(20);

impl Containers {
    /// Waits in the background for the end of a container that runs, on a connection whose shim waits as
    /// well: as long as it stands, what follows the end is left to this service.
    pub(super) fn monitor(&self, container: &Arc<Container>, connection: Connection) {
        let (this, container) = (self.clone(), Arc::clone(container));
        tokio::spawn(async move {
            let shim = this.listen(&container, connection).await;
            if let Err(error) = &shim {
                tracing::debug!(id = container.id, %error, "the shim went away");
            }
            // Apart, so that what waits meanwhile, one for each container, is small.
            let end = async {
                let exit = read_exit(&container, GRACE).await;
                this.ended(&container, exit, shim.ok()).await;
            };
            Box::pin(end).await;
        });
    }

    /// Hears what a shim has to say; resolves when it says that its container ended. The shim, which
    /// would start it again itself if this service were gone, is told not to, and lets go by and by.
    async fn listen(
        &self,
        container: &Arc<Container>,
        mut shim: Connection,
    ) -> io::Result<Connection> {
        let mut first = true;
        loop {
            match shim.reader.reply().await {
                Ok(Reply::Exited { .. }) => {
                    shim.writer.request(&Request::Take).await?;
                    return Ok(shim);
                }
                Ok(Reply::Health(health)) => Box::pin(self.heard(container, health, first)).await,
                // A shim of a later version has more to say.
                Ok(reply) => tracing::debug!(id = container.id, ?reply, "not for this service"),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::debug!(id = container.id, %error, "not for this service");
                }
                Err(error) => return Err(error),
            }
            first = false;
        }
    }

    /// Keeps how a container ended and takes down what it had. `None`: nobody knows. Its shim, if that is
    /// still there, unmounts the container meanwhile.
    pub(super) async fn ended(
        &self,
        container: &Arc<Container>,
        exit: Option<ExitStatus>,
        shim: Option<Connection>,
    ) {
        let teardown = Arc::clone(&container.teardown).lock_owned().await;
        let before = container.record();
        self.settle_end(container, &before, exit.as_ref()).await;
        let record = container.record();
        if let Some(shim) = shim {
            shim.has_let_go().await;
        }
        let lost = exit.is_none() && !record.config.runtime.is_empty();
        self.remove_groups(&before, lost).await;
        drop(teardown);
        if record.config.auto_remove && !record.hidden {
            let _gate = container.gate.lock().await;
            self.remove_held(container, true).await;
        } else {
            self.consider_restart(container, &record);
        }
    }

    /// What those wait for who wait for the end: free ports, the record, and that the container is in no
    /// list if it is to be removed.
    #[tracing::instrument(name = "end", skip_all)]
    async fn settle_end(
        &self,
        container: &Arc<Container>,
        before: &Arc<Record>,
        exit: Option<&ExitStatus>,
    ) {
        if let Some(attachment) = &before.attachment {
            self.detach(&container.id, attachment).await;
        }
        self.parts().subids.release(&container.id);
        let kept = container.update(|record| apply_exit(record, exit));
        if let Err(error) = kept.await {
            // In memory at least: nobody may wait for ever on a container that ended.
            tracing::error!(%error, id = container.id, "cannot keep a container's exit");
            let mut record = Record::clone(before);
            apply_exit(&mut record, exit);
            container.publish(&Arc::new(record));
        }
        let record = container.record();
        self.unmount_volumes(&record).await;
        self.tell_end(&record, before.attachment.as_ref());
        self.parts().index.put(&record);
        if record.config.auto_remove && !record.hidden {
            self.forget(container);
        }
    }

    /// Removes the control groups of a container; `lost`: with whatever is still in them.
    async fn remove_groups(&self, record: &Record, lost: bool) {
        let (cgroups, groups) = (self.parts().cgroups.clone(), record.cgroups.clone());
        let (id, parent) = (record.id.clone(), record.config.cgroup_parent.clone());
        let removed = blocking(move || {
            match lost {
                true => cgroups.clear(&id, &parent, &groups),
                false => cgroups.remove(&groups),
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, id = record.id, "cannot remove the cgroups of a container");
        }
    }

    fn tell_end(&self, record: &Record, attachment: Option<&Attachment>) {
        if record.state.oom_killed {
            self.tell(record, "oom", &[]);
        }
        let details = [
            ("exitCode", record.state.exit_code.to_string()),
            ("execDuration", ran(record).as_secs().to_string()),
        ];
        self.tell(record, "die", &details);
        if let Some(attachment) = attachment {
            self.tell_networks(record, "disconnect", attachment);
        }
        self.tell_volumes(record, "unmount");
    }
}

/// What the shim left. It is durable before the shim tells anyone, and before its socket goes.
pub(super) async fn read_exit(container: &Container, grace: Duration) -> Option<ExitStatus> {
    let path = container.directory.join(EXIT_FILE);
    let deadline = tokio::time::Instant::now() + grace;
    loop {
        let path = path.clone();
        let read = blocking(move || Ok(std::fs::read(path))).await;
        match read {
            Ok(Ok(json)) => {
                let parsed = serde_json::from_slice(&json);
                if let Err(error) = &parsed {
                    tracing::error!(id = container.id, %error, "malformed exit status");
                }
                return parsed.ok();
            }
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(id = container.id, %error, "cannot read an exit status");
                return None;
            }
            _ if tokio::time::Instant::now() > deadline => return None,
            _ => tokio::time::sleep(GRACE_STEP).await,
        }
    }
}

/// The record of a container that ended.
fn apply_exit(record: &mut Record, exit: Option<&ExitStatus>) {
    let action = if exit.is_some() {
        Action::Exit
    } else {
        Action::Lose
    };
    let state = &mut record.state;
    state.status = next(state.status, action).unwrap_or(state.status);
    state.pid = 0;
    state.exits += 1;
    state.exit_code = exit.map_or(255, |exit| exit.code);
    state.oom_killed = exit.is_some_and(|exit| exit.oom_killed);
    let finished = exit.and_then(|exit| time(exit.finished_at));
    state.finished = finished.or_else(|| Some(Timestamp::now()));
    if let Some(exit) = exit {
        policy::catch_up(state, exit.restarts, exit.started_at);
        state.stopped |= exit.stopped;
    }
    if exit.is_none() {
        state.error = "its shim went away and left no exit status".to_owned();
    }
    record.attachment = None;
    record.cgroups.clear();
    record.ids = None;
    let restarts = policy::restarts(&record.state).after(ran(record));
    record.state.short_runs = restarts.short_runs;
    record.state.restarting = wants_restart(record);
}

pub(super) fn time(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into())
        .ok()
        .filter(|_| nanoseconds > 0)
}

/// How long the last run was.
fn ran(record: &Record) -> Duration {
    let ran = match (record.state.started, record.state.finished) {
        (Some(started), Some(finished)) => finished.duration_since(started),
        _ => jiff::SignedDuration::ZERO,
    };
    ran.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use orlop_proto::runtime::{HealthCheck, RestartPolicy};
    use orlop_shim::health::{Health, HealthStatus};

    use super::*;
    use crate::containers::record::State;
    use crate::containers::state::Status;

    fn policy(name: &str, maximum_retries: u32) -> Record {
        let mut record = Record::example();
        record.config.restart = Some(RestartPolicy {
            name: name.to_owned(),
            maximum_retries,
        });
        record.state.status = Status::Running;
        record
    }

    /// What an end after so many seconds makes of a container.
    fn ended(mut record: Record, seconds: i64, code: i32) -> State {
        let start = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1);
        record.state.started = Some(start);
        let status = ExitStatus {
            code,
            oom_killed: false,
            started_at: 1_000_000_000,
            finished_at: (1 + seconds) * 1_000_000_000,
            restarts: None,
            stopped: false,
        };
        apply_exit(&mut record, Some(&status));
        record.state
    }

    #[test]
    fn policies_look_at_the_exit_code_and_at_what_a_person_wants() {
        for (name, retries, code, again) in [
            ("no", 0, 1, false),
            ("on-failure", 0, 1, true),
            ("on-failure", 0, 0, false),
            ("on-failure", 4, 1, true),
            ("on-failure", 3, 1, false),
            ("always", 0, 0, true),
            ("unless-stopped", 0, 0, true),
        ] {
            let mut record = policy(name, retries);
            record.state.restart_count = 3;
            assert_eq!(
                ended(record.clone(), 1, code).restarting,
                again,
                "{name}:{retries} {code}"
            );
            record.state.stopped = true;
            assert!(!ended(record, 1, code).restarting, "{name} and stopped");
        }
    }

    #[test]
    fn a_run_of_ten_seconds_begins_the_pauses_anew() {
        let mut record = policy("always", 0);
        record.state.short_runs = 6;
        assert_eq!(ended(record.clone(), 9, 1).short_runs, 6);
        assert_eq!(ended(record, 10, 1).short_runs, 0);
    }

    #[test]
    fn an_unhealthy_end_is_followed_by_a_start_where_that_was_asked_for() {
        for (action, status, again) in [
            ("restart", HealthStatus::Unhealthy, true),
            ("restart", HealthStatus::Healthy, false),
            ("kill", HealthStatus::Unhealthy, false),
        ] {
            let mut record = policy("no", 0);
            record.config.health = Some(HealthCheck {
                on_failure: action.to_owned(),
                ..HealthCheck::default()
            });
            let health = Health {
                status,
                ..Health::default()
            };
            record.state.health = Some(Arc::new(health));
            assert_eq!(
                ended(record.clone(), 1, 0).restarting,
                again,
                "{action} {status:?}"
            );
            record.state.stopped = true;
            assert!(!ended(record, 1, 0).restarting, "{action} and stopped");
        }
    }
}
