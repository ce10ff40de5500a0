//! What the shim does while there is no service to do it: an unhealthy container is ended, one that
//! ended is started again. A service that lives has a connection that waits, so that never both do it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::cgroups::counters;
use crate::config::{Away, EXIT_FILE, ExitStatus, HEALTH_FILE};
use crate::health::HealthStatus;
use crate::restart::{OnUnhealthy, Policy, Restarts};
use orlop_sys::process as sys;
use rustix::process::Signal;

use super::{Running, Supervisor};
use crate::cgroup;
use crate::child::start_time;
use crate::connection::Role;
use crate::error::{Error, Result, note};

/// What it decides by, and what it has decided.
#[derive(Debug)]
pub(super) struct Decisions {
    away: Away,
    /// The container has ended, and is to be started again then.
    due: Option<Instant>,
    /// It was asked to end because it is unhealthy, and is killed then.
    kill_at: Option<Instant>,
    /// It was ended as a person would.
    stopped: bool,
    /// It ended because it was unhealthy, after which it is to be started again.
    for_health: bool,
    /// How it ended last.
    last: Option<ExitStatus>,
}

impl Decisions {
    pub(super) fn new(away: Away) -> Self {
        Self {
            away,
            due: None,
            kill_at: None,
            stopped: false,
            for_health: false,
            last: None,
        }
    }

    /// Whether the container has ended and what follows is not done yet, nor somebody else's.
    pub(super) fn are_open(&self) -> bool {
        self.due.is_some()
    }

    /// What follows the end is the service's to do.
    pub(super) fn leave(&mut self) {
        self.due = None;
    }

    /// Another policy from now on.
    pub(super) fn set_policy(&mut self, policy: Option<Policy>) {
        self.away.policy = policy;
    }

    /// Restarts so far.
    pub(super) fn restarts(&self) -> Restarts {
        self.away.restarts
    }

    /// How the container ended last.
    pub(super) fn last(&self) -> Option<&ExitStatus> {
        self.last.as_ref()
    }

    /// Takes in how the container ended, or that a restart after that failed; decides what follows.
    fn conclude(&mut self, mut status: ExitStatus) -> ExitStatus {
        let restarts = self.away.restarts;
        (status.restarts, status.stopped) = (Some(restarts), self.stopped);
        let wanted = self
            .away
            .policy
            .is_some_and(|policy| self.for_health || policy.wants(status.code, restarts.count));
        self.due = wanted.then(|| Instant::now() + restarts.pause());
        self.last = Some(status.clone());
        status
    }
}

impl Supervisor<'_> {
    /// Whether a service is there.
    fn is_attended(&self) -> bool {
        let mut all = self.connections.values();
        all.any(|connection| connection.role == Role::Waiting && !connection.over())
    }

    /// When something is to be done, if no service comes.
    pub(super) fn due_alone(&self) -> Option<Instant> {
        let restart = self.decisions.due.filter(|_| !self.is_attended());
        restart.or(self.decisions.kill_at)
    }

    /// Counts the run that ended, and decides whether another one follows.
    pub(super) fn decide(&mut self, status: ExitStatus) -> ExitStatus {
        let nanoseconds = status.finished_at.saturating_sub(status.started_at);
        let run = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
        let unhealthy = self.is_unhealthy();
        let decisions = &mut self.decisions;
        decisions.kill_at = None;
        decisions.for_health = unhealthy && decisions.away.on_unhealthy == OnUnhealthy::Restart;
        decisions.away.restarts = decisions.away.restarts.after(run);
        decisions.conclude(status)
    }

    fn is_unhealthy(&self) -> bool {
        let health = self.health.as_ref();
        health.is_some_and(|health| health.status() == HealthStatus::Unhealthy)
    }

    /// Ends an unhealthy container, as was asked for.
    pub(super) fn act_on_health(&mut self) {
        let decided = self.decisions.kill_at.is_some() || self.main.end.is_some();
        if decided || self.is_attended() || !self.is_unhealthy() {
            return;
        }
        let away = self.decisions.away;
        let signal = match away.on_unhealthy {
            OnUnhealthy::Nothing => return,
            OnUnhealthy::Kill => Signal::KILL.as_raw(),
            OnUnhealthy::Restart | OnUnhealthy::Stop => away.stop_signal,
        };
        if away.on_unhealthy == OnUnhealthy::Stop {
            self.decisions.set_policy(None);
            self.decisions.stopped = true;
        }
        let patience = Duration::from_secs(away.stop_timeout.into());
        self.decisions.kill_at = Some(Instant::now() + patience);
        if let Err(error) = sys::send_signal(self.main.child.pidfd.as_fd(), signal) {
            note(&format!("cannot end the unhealthy container: {error}"));
        }
    }

    /// Does what is due.
    pub(super) fn tend_decisions(&mut self) {
        let past = |due: Option<Instant>| due.is_some_and(|due| due <= Instant::now());
        if past(self.decisions.kill_at) {
            self.decisions.kill_at = None;
            cgroup::kill_all(&self.given.config.cgroups);
        }
        if past(self.decisions.due) && !self.is_attended() {
            self.restart();
        }
    }

    /// Tries to start the container again. After a failure it is tried again, as long as the policy
    /// has it.
    fn restart(&mut self) {
        self.decisions.away.restarts = self.decisions.away.restarts.once_more();
        self.decisions.due = None;
        self.rest.after_work();
        let Err(error) = self.begin_again() else {
            return;
        };
        let error = error.message();
        note(&format!("cannot start the container again: {error}"));
        cgroup::kill_all(&self.given.config.cgroups);
        if let Some(last) = self.decisions.last.clone() {
            let status = self.decisions.conclude(last);
            self.record(&status);
        }
    }

    /// The container anew, from the same documents, on the same writable layer, in the network
    /// namespace and the cgroups that it had.
    fn begin_again(&mut self) -> Result<()> {
        let root = self.given.assemble()?;
        let created = self.given.create(root)?;
        let setup = |step| move |source| Error::Setup { step, source };
        self.start_time = start_time(created.child.pid).map_err(setup("look at the container"))?;
        // From here on what is in the directory is of this run.
        for file in [EXIT_FILE, HEALTH_FILE] {
            remove(&self.given.directory.join(file)).map_err(setup("forget the last run"))?;
        }
        self.oom_kills = counters::oom_kills(&self.given.config.cgroups);
        self.mounts = created.child.mounts().ok();
        let ended = std::mem::replace(&mut self.main, Running::from(created));
        if let Err(error) = self.begin() {
            self.main = ended;
            return Err(error);
        }
        self.told = false;
        Ok(())
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
