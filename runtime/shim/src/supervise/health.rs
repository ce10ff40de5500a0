//! The health check: a process like that of an exec, started by the clock. It goes on whether or not
//! a service listens.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::HEALTH_FILE;
use crate::health::{
    self, Health, HealthCheck, HealthResult, HealthStatus, NOT_RUN, OUTPUT_BYTES_MAX,
};
use crate::protocol::Reply;
use rustix::process::{Pid, Signal};

use super::{End, Supervisor, now};
use crate::cgroup;
use crate::connection::Role;
use crate::error::{Error, note};
use crate::stdio::Wanted;

/// The check of a running container.
#[derive(Debug)]
pub(super) struct Monitor<'a> {
    check: &'a HealthCheck,
    health: Health,
    /// When the container started.
    began: Instant,
    /// When the next check is due.
    next: Instant,
    probe: Option<Probe>,
}

/// One check that runs.
#[derive(Debug)]
struct Probe {
    /// Of its process, among the execs.
    id: u64,
    began: Instant,
    started_at: i64,
    output: Vec<u8>,
    /// It took too long and was killed.
    late: bool,
    /// It took too long because the container is paused, which says nothing.
    void: bool,
}

impl<'a> Monitor<'a> {
    /// Begins with the container.
    pub(super) fn new(check: &'a HealthCheck) -> Self {
        let (health, began) = (Health::default(), Instant::now());
        Self {
            next: began + check.pause(&health, Duration::ZERO),
            check,
            health,
            began,
            probe: None,
        }
    }

    /// When something is to be done next.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.probe {
            Some(probe) if probe.late => None,
            Some(probe) => Some(probe.began + self.check.timeout),
            None => Some(self.next),
        }
    }

    /// The sum of it.
    pub(super) fn status(&self) -> HealthStatus {
        self.health.status
    }

    fn schedule(&mut self) {
        let now = Instant::now();
        self.next = now + self.check.pause(&self.health, now - self.began);
    }

    fn add(&mut self, result: HealthResult, began: Instant) {
        self.health.add(result, self.check, began - self.began);
        self.schedule();
    }
}

impl Supervisor<'_> {
    /// Starts a check that is due, ends one that takes too long.
    pub(super) fn tend_health(&mut self) {
        let over = self.main.end.is_some();
        let Some(monitor) = self.health.as_mut().filter(|_| !over) else {
            return;
        };
        if monitor.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let frozen = cgroup::is_frozen(&self.given.config.cgroups);
        match &mut monitor.probe {
            Some(probe) => {
                (probe.late, probe.void) = (true, frozen);
                let id = probe.id;
                self.kill_probe(id);
            }
            // A process that joins a frozen cgroup stands still.
            None if frozen => monitor.schedule(),
            None => self.start_probe(),
        }
    }

    /// With all that it started, as far as that stayed in its group. The group's number is its own
    /// until it is reaped. One that has no command yet has no group either.
    fn kill_probe(&mut self, id: u64) {
        let probe = self.execs.get(&id).filter(|probe| probe.end.is_none());
        if probe.is_some_and(|probe| probe.start.is_some()) {
            self.forget_start(id);
            let (code, at) = (NOT_RUN, Instant::now());
            return self.finish_probe(id, End { code, at });
        }
        if let Some(pid) = probe.and_then(|probe| Pid::from_raw(probe.child.pid)) {
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
        }
    }

    fn start_probe(&mut self) {
        let Some(monitor) = &self.health else { return };
        let (began, started_at) = (Instant::now(), now());
        let user = &self.given.config.user;
        let (stdin, output) = (false, true);
        let streams = Wanted::Pipes { stdin, output };
        match self.spawn_exec(&monitor.check.process, user, streams, None) {
            Ok(running) => {
                let id = self.next;
                self.next += 1;
                self.execs.insert(id, running);
                let probe = Probe {
                    id,
                    began,
                    started_at,
                    output: Vec::new(),
                    late: false,
                    void: false,
                };
                self.health
                    .as_mut()
                    .map(|monitor| monitor.probe.insert(probe));
            }
            Err(error) => {
                let output = health::shown(error.message().as_bytes());
                self.conclude_probe(began, started_at, NOT_RUN, output);
            }
        }
    }

    /// A check did not come to its command.
    pub(super) fn fail_probe(&mut self, id: u64, error: &Error) {
        let over = self.main.end.is_some();
        let Some(monitor) = self.health.as_mut() else {
            return;
        };
        match monitor.probe.take_if(|probe| probe.id == id) {
            Some(probe) if !over => {
                let output = health::shown(error.message().as_bytes());
                self.conclude_probe(probe.began, probe.started_at, NOT_RUN, output);
            }
            _ => {}
        }
    }

    /// Keeps the beginning of what a check writes; of others nothing is kept.
    pub(super) fn take_probe_output(&mut self, id: u64, bytes: &[u8]) {
        let probe = self
            .health
            .as_mut()
            .and_then(|monitor| monitor.probe.as_mut());
        let Some(probe) = probe.filter(|probe| probe.id == id) else {
            return;
        };
        // One more than is kept tells that there was more.
        let room = (OUTPUT_BYTES_MAX + 1).saturating_sub(probe.output.len());
        probe.output.extend(bytes.iter().take(room));
    }

    /// Judges a check that ended.
    pub(super) fn finish_probe(&mut self, id: u64, end: End) {
        let over = self.main.end.is_some();
        let Some(monitor) = self.health.as_mut() else {
            return;
        };
        let Some(probe) = monitor.probe.take_if(|probe| probe.id == id) else {
            return;
        };
        // What the end of the container took along says nothing either.
        if probe.void || over {
            monitor.schedule();
            return;
        }
        let (code, output) = match probe.late {
            true => (NOT_RUN, late(monitor.check.timeout)),
            false => (end.code, health::shown(&probe.output)),
        };
        self.conclude_probe(probe.began, probe.started_at, code, output);
    }

    fn conclude_probe(&mut self, began: Instant, started_at: i64, exit_code: i32, output: String) {
        let Some(monitor) = self.health.as_mut() else {
            return;
        };
        let result = HealthResult {
            started_at,
            ended_at: now(),
            exit_code,
            output,
        };
        monitor.add(result, began);
        if let Err(error) = record(self.given.directory, &monitor.health) {
            note(&format!("cannot keep the container's health: {error}"));
        }
        let reply = Reply::Health(monitor.health.clone());
        for connection in self.connections.values_mut() {
            if connection.role == Role::Waiting {
                connection.reply(&reply);
            }
        }
        self.act_on_health();
    }

    /// For one who begins to listen.
    pub(super) fn health_reply(&self) -> Option<Reply> {
        let monitor = self.health.as_ref()?;
        Some(Reply::Health(monitor.health.clone()))
    }
}

/// Docker's words.
fn late(timeout: Duration) -> String {
    format!("Health check exceeded timeout ({timeout:?})")
}

/// Complete or not at all; a reboot ends the container, so that it need not survive one.
fn record(directory: &Path, health: &Health) -> io::Result<()> {
    let temporary = directory.join(format!("{HEALTH_FILE}.new"));
    fs::write(&temporary, serde_json::to_vec(health)?)?;
    fs::rename(&temporary, directory.join(HEALTH_FILE))
}
