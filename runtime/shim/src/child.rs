//! A child of the shim, from its fork to its exec.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::config::Cgroup;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use orlop_sys::process::{self as sys, Fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdFlags;

use crate::cgroup;
use crate::channel::{Channel, Gate, Report};
use crate::error::{ChildFailure, Error, Result, note};

/// How long a killed process may take to be gone.
const DEATH_PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What a child told on its way to its command.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is another process now.
    Replaced,
    /// It waits for what the host has to do on the way.
    Made,
    /// It is prepared and waits for [`Child::go`]; its terminal's master, if it made one.
    Ready(Option<OwnedFd>),
    /// It has no more to say: its command runs, if it was ready, or it died.
    Closed,
}

/// A process that did not `exec` yet.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// What it reports by; another runtime's process reports nothing to us.
    channel: Option<Channel>,
}

impl Child {
    /// Forks into the namespaces of `flags` and the cgroup, and runs `steps` there.
    pub(crate) fn spawn(
        flags: u64,
        cgroups: &[Cgroup],
        oom_score: Option<i32>,
        steps: impl FnOnce(&Channel) -> Result<Infallible>,
    ) -> Result<Self> {
        let (ours, theirs) = Channel::pair().map_err(|source| Error::Setup {
            step: "channel",
            source,
        })?;
        let unified = cgroup::unified(cgroups)?;
        let doors = cgroup::Doors::open(cgroups)?;
        let fork =
            sys::fork(flags, unified.as_ref().map(AsFd::as_fd)).map_err(Error::Namespaces)?;
        let Fork::Parent { pid, pidfd } = fork else {
            drop(ours);
            live(&theirs, &doors, steps);
        };
        drop(theirs);
        let child = Self {
            pid,
            pidfd,
            channel: Some(ours),
        };
        if let Err(error) = child.release(oom_score) {
            child.abandon();
            return Err(error);
        }
        Ok(child)
    }

    /// A process that another runtime made, and left to us.
    pub(crate) fn adopt(pid: i32) -> Result<Self> {
        let setup = |source| Error::Setup {
            step: "process of the runtime",
            source,
        };
        let number = rustix::process::Pid::from_raw(pid);
        let number = number.ok_or_else(|| setup(io::ErrorKind::InvalidData.into()))?;
        let handle = rustix::process::pidfd_open(number, PidfdFlags::empty());
        Ok(Self {
            pid,
            pidfd: handle.map_err(|errno| setup(errno.into()))?,
            channel: None,
        })
    }

    /// Its mount namespace, which lives as long as this handle.
    pub(crate) fn mounts(&self) -> io::Result<fs::File> {
        fs::File::open(format!("/proc/{}/ns/mnt", self.pid))
    }

    fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().ok_or(Error::Missing("a channel"))
    }

    /// Lets it take its first step.
    fn release(&self, oom_score: Option<i32>) -> Result<()> {
        if let Some(score) = oom_score {
            let written = fs::write(
                format!("/proc/{}/oom_score_adj", self.pid),
                score.to_string(),
            );
            // Lowering it takes CAP_SYS_RESOURCE, which not every host lets us have.
            if let Err(error) = written {
                note(&format!("cannot set oom_score_adj to {score}: {error}"));
            }
        }
        self.channel()?.go().map_err(Error::Silent)
    }

    /// What a child of its own makes in the namespaces of `flags`, and hands over.
    pub(crate) fn fetch(
        flags: u64,
        make: impl FnOnce() -> Result<OwnedFd>,
    ) -> Result<Option<OwnedFd>> {
        let mut child = Self::spawn(flags, &[], None, |channel| {
            let sent = channel.report(&Report::Ready, Some(&make()?));
            sent.map_err(Error::Silent)?;
            sys::exit_now(0)
        })?;
        let made = child.ready(|_| Ok(()))?;
        child.abandon();
        Ok(made)
    }

    /// Waits until it is prepared; its terminal's master, if it made one. `made` is what the host has to
    /// do on the way, if it is asked to.
    pub(crate) fn ready(
        &mut self,
        made: impl FnOnce(i32) -> Result<()>,
    ) -> Result<Option<OwnedFd>> {
        let mut made = Some(made);
        loop {
            match self.step()? {
                Step::Ready(master) => return Ok(master),
                Step::Replaced => {}
                Step::Made => {
                    let done = made.take().map_or(Ok(()), |made| made(self.pid));
                    if let Err(error) = done.and_then(|()| self.go_on_patiently()) {
                        self.abandon();
                        return Err(error);
                    }
                }
                Step::Closed => return Err(Error::Vanished(self.abandon())),
            }
        }
    }

    /// Lets it run the hooks of its own, which take the time that they take.
    fn go_on_patiently(&self) -> Result<()> {
        let channel = self.channel()?;
        channel.be_patient().map_err(Error::Silent)?;
        channel.go().map_err(Error::Silent)
    }

    /// Lets it go on to its command; returns when that runs.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.go()?;
        self.executed()
    }

    fn executed(&mut self) -> Result<()> {
        match self.step()? {
            Step::Closed => Ok(()),
            _ => Err(Error::Vanished(self.abandon())),
        }
    }

    /// Lets it go on to its command.
    pub(crate) fn go(&self) -> Result<()> {
        let sent = self.channel()?.go();
        sent.map_err(|_| Error::Vanished(self.abandon()))
    }

    /// What is readable when the next [`Self::step`] waits for nothing.
    pub(crate) fn reports(&self) -> BorrowedFd<'_> {
        let channel = self.channel.as_ref();
        channel.map_or(self.pidfd.as_fd(), Channel::as_fd)
    }

    /// Waits for what it tells next.
    pub(crate) fn step(&mut self) -> Result<Step> {
        match self.channel()?.wait().map_err(Error::Silent) {
            Ok(Some((Report::Ready, master))) => Ok(Step::Ready(master)),
            Ok(Some((Report::Replaced { pid }, Some(pidfd)))) => {
                self.abandon();
                (self.pid, self.pidfd) = (pid, pidfd);
                self.channel()?.go().map_err(Error::Silent)?;
                Ok(Step::Replaced)
            }
            Ok(Some((Report::Made, _))) => Ok(Step::Made),
            Ok(None) => Ok(Step::Closed),
            other => Err(self.failed(other)),
        }
    }

    /// Waits for the end of the program that its steps execute; its exit status. `None`: it took too
    /// long and was killed.
    pub(crate) fn end(&mut self, patience: &Timespec) -> Result<Option<i32>> {
        self.executed()?;
        if self.has_ended(patience) {
            return Ok(Some(self.reap()));
        }
        self.abandon();
        Ok(None)
    }

    /// Takes it down, after anything but what was expected of it.
    fn failed(&self, told: Result<Option<(Report, Option<OwnedFd>)>>) -> Error {
        let status = self.abandon();
        match told {
            Ok(Some((Report::Failed { failure, message }, _))) => {
                Error::Child(ChildFailure { failure, message })
            }
            Ok(_) => Error::Vanished(status),
            Err(error) => error,
        }
    }

    /// Kills and reaps it; its exit status. One that does not die (it is frozen, or waits for a dead
    /// disk) holds up nobody: the shim's loop reaps it.
    pub(crate) fn abandon(&self) -> i32 {
        drop(sys::send_signal(self.pidfd.as_fd(), 9));
        match self.has_ended(&DEATH_PATIENCE) {
            true => self.reap(),
            false => -1,
        }
    }

    fn has_ended(&self, patience: &Timespec) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut ended, Some(patience))) != Ok(0)
    }

    fn reap(&self) -> i32 {
        match waitpid(Pid::from_raw(self.pid), None) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
            _ => -1,
        }
    }
}

/// The child's side: into the cgroup before anything else; never returns into the shim's code.
fn live(
    channel: &Channel,
    doors: &cgroup::Doors<'_>,
    steps: impl FnOnce(&Channel) -> Result<Infallible>,
) -> ! {
    if channel.wait_go() {
        let Err(error) = doors.enter().and_then(|()| steps(channel));
        fail(channel, &error);
    }
    sys::exit_now(1)
}

/// Waits at the gate and begins; who opened it hears of a failure.
pub(crate) fn begin_at(
    gate: &Gate,
    begin: impl FnOnce() -> Result<Infallible>,
) -> Result<Infallible> {
    let opened = gate.wait().map_err(Error::Silent)?;
    let Err(error) = begin();
    fail(&opened, &error);
    sys::exit_now(1)
}

fn fail(channel: &Channel, error: &Error) {
    let report = Report::Failed {
        failure: error.failure(),
        message: error.message(),
    };
    drop(channel.report(&report, None));
}

/// Lets the container that waits at the gate with this path begin; returns when its command runs.
/// `patient`: however long that takes.
pub(crate) fn open_gate(path: &Path, patient: bool) -> Result<()> {
    let channel = Channel::at_gate(path).map_err(Error::Silent)?;
    if patient {
        channel.be_patient().map_err(Error::Silent)?;
    }
    channel.go().map_err(Error::Silent)?;
    match channel.wait().map_err(Error::Silent)? {
        Some((Report::Failed { failure, message }, _)) => {
            Err(Error::Child(ChildFailure { failure, message }))
        }
        _ => Ok(()),
    }
}

/// Clock ticks since boot at which a process began.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in field 2 may hold anything; what follows its last parenthesis is well formed.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let time = fields
        .split_whitespace()
        .nth(19)
        .and_then(|time| time.parse().ok());
    time.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed stat"))
}
