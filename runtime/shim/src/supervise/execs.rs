//! Processes that are added to the container, from the request to their command. The loop goes on
//! meanwhile: a process that is frozen on its way, or waits for a dead disk, holds up only who asked.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::protocol::Reply;
use oci_spec::runtime::Process;
use orlop_sys::process as sys;

use super::{Running, Supervisor};
use crate::capabilities::Sets;
use crate::child::Step;
use crate::connection::Role;
use crate::container::Created;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::process::Steps;
use crate::stdio::{Streams, Wanted};

/// How long a process may be on its way; only a hostile file system takes longer, or a freezer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far a process is that has no command yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    began: Instant,
    /// Only its command is missing.
    ready: bool,
}

impl Start {
    /// When it has taken too long.
    pub(super) fn due(&self) -> Instant {
        self.began + PATIENCE
    }
}

impl Running {
    /// Takes the next step to the command; true when that runs.
    fn advance(&mut self) -> Result<bool> {
        let ready = self.start.is_some_and(|start| start.ready);
        match self.child.step()? {
            // What ended was its predecessor.
            Step::Replaced => self.end = None,
            Step::Ready(master) => {
                if let Some(master) = master {
                    self.streams = Streams::terminal(master)?;
                }
                self.child.go()?;
                self.start.iter_mut().for_each(|start| start.ready = true);
            }
            Step::Closed if ready => self.start = None,
            Step::Made | Step::Closed => {
                let code = self.end.map(|end| end.code);
                return Err(Error::Vanished(
                    code.unwrap_or_else(|| self.child.abandon()),
                ));
            }
        }
        Ok(self.start.is_none())
    }
}

impl Supervisor<'_> {
    /// Runs one more process for a peer, who hears of it when its command runs.
    pub(super) fn exec(
        &mut self,
        id: u64,
        process: &Process,
        user: &str,
        streams: Wanted,
        window: Option<(u16, u16)>,
    ) {
        match self.spawn_exec(process, user, streams, window) {
            Ok(running) => {
                let (pid, runs) = (running.child.pid, running.start.is_none());
                self.execs.insert(id, running);
                match runs {
                    true => self.reply(id, &Reply::Started { pid }, Role::Exec),
                    false => self.set_role(id, Role::Exec),
                }
            }
            Err(error) => self.fail(id, error.failure(), error.message()),
        }
    }

    /// Sends a process on its way.
    pub(super) fn spawn_exec(
        &self,
        process: &Process,
        user: &str,
        streams: Wanted,
        window: Option<(u16, u16)>,
    ) -> Result<Running> {
        if self.main.end.is_some() || self.started_at.is_none() {
            return Err(Error::Ended);
        }
        let own = process.capabilities().as_ref();
        let sets = own.map_or(self.given.sets, |own| Sets::from_spec(Some(own)));
        // Which calls the built-in profile lets through depends on the capabilities.
        let filter = match sets == self.given.sets {
            true => None,
            false => Some(crate::seccomp::filter(self.given.spec, &sets)?),
        };
        let steps = Steps {
            process,
            user,
            groups: &self.given.config.groups,
            create_cwd: false,
            init: false,
            tied: true,
            sets,
            hooks: None,
            kept: 0,
            filter: filter
                .as_ref()
                .map_or(self.given.filter, |own| own.as_deref()),
        };
        if let Some(foreign) = self.given.foreign {
            let (child, streams) = foreign.exec(self.main.child.pid, &steps, streams, window)?;
            return Ok(Running::from(Created { child, streams }));
        }
        let exec = Exec {
            steps,
            init: self.main.child.pidfd.as_fd(),
            cgroups: &self.given.config.cgroups,
            mapped: self.given.user.is_some(),
            streams,
            window,
        };
        let (child, streams) = exec.spawn()?;
        let (began, ready) = (Instant::now(), false);
        Ok(Running {
            child,
            streams,
            start: Some(Start { began, ready }),
            end: None,
        })
    }

    /// Hears what a process says on its way.
    pub(super) fn serve_start(&mut self, id: u64) {
        let Some(exec) = self.execs.get_mut(&id) else {
            return;
        };
        match exec.advance() {
            Ok(false) => {}
            Ok(true) => {
                let pid = exec.child.pid;
                self.reply(id, &Reply::Started { pid }, Role::Exec);
            }
            Err(error) => self.fail_start(id, &error),
        }
    }

    /// Gives up processes that are on their way for too long.
    pub(super) fn tend_starts(&mut self) {
        let now = Instant::now();
        let late = self.execs.iter().filter(|(_, exec)| {
            let start = exec.start.as_ref();
            start.is_some_and(|start| start.due() <= now)
        });
        let late: Vec<u64> = late.map(|(&id, _)| id).collect();
        for id in late {
            let silent = Error::Silent(io::ErrorKind::TimedOut.into());
            self.fail_start(id, &silent);
        }
    }

    fn fail_start(&mut self, id: u64, error: &Error) {
        self.forget_start(id);
        match self.connections.contains_key(&id) {
            true => self.fail(id, error.failure(), error.message()),
            false => self.fail_probe(id, error),
        }
    }

    /// Kills a process that is on its way, without waiting for its end: it may be frozen.
    pub(super) fn forget_start(&mut self, id: u64) {
        if let Some(exec) = self.execs.remove(&id) {
            drop(sys::send_signal(exec.child.pidfd.as_fd(), 9));
        }
    }
}
