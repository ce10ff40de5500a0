//! One more process in a running container.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::config::Cgroup;
use orlop_sys::process::{self as sys, Fork, namespaces};
use rustix::fs::Mode;

use crate::channel::{Channel, Report};
use crate::child::Child;
use crate::devices;
use crate::error::{Error, Result};
use crate::lsm;
use crate::process::{Steps, adopt_streams, adopt_terminal};
use crate::rootfs;
use crate::stdio::{self, Ends, Streams, Wanted};
use crate::userns;

/// What a process joins.
const JOINED: u64 = namespaces::MOUNT
    | namespaces::UTS
    | namespaces::IPC
    | namespaces::NETWORK
    | namespaces::CGROUP;

/// A process to be run.
#[derive(Debug)]
pub(crate) struct Exec<'a> {
    pub(crate) steps: Steps<'a>,
    /// The container's first process.
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) cgroups: &'a [Cgroup],
    /// The container has a user namespace of its own.
    pub(crate) mapped: bool,
    pub(crate) streams: Wanted,
    pub(crate) window: Option<(u16, u16)>,
}

impl Exec<'_> {
    /// Makes it, on its way to its command. A terminal comes with the report that it is ready.
    pub(crate) fn spawn(&self) -> Result<(Child, Streams)> {
        lsm::check(self.steps.process)?;
        let tty = self.steps.process.terminal().unwrap_or(false);
        let (streams, ends) = self.streams.open(tty)?;
        let oom_score = self.steps.process.oom_score_adj();
        let child = Child::spawn(0, self.cgroups, oom_score, |channel| {
            self.live(channel, ends.as_ref())
        })?;
        Ok((child, streams))
    }

    /// Starts it; when this returns its command runs.
    pub(crate) fn start(&self) -> Result<(Child, Streams)> {
        let (mut child, streams) = self.spawn()?;
        let streams = match child.ready(|_| Ok(()))? {
            Some(master) => Streams::terminal(master)?,
            None => streams,
        };
        child.begin()?;
        Ok((child, streams))
    }

    /// In a child that the container cannot see. It closes what it has of the host, joins all
    /// namespaces and leaves the rest to a sibling, the first that is visible in there: even a
    /// container that may trace (`CAP_SYS_PTRACE`) finds no descriptor or path of the host in it.
    fn live(&self, channel: &Channel, ends: Option<&Ends>) -> Result<Infallible> {
        let setup = |step| move |source| Error::Setup { step, source };
        match ends {
            Some(ends) => {
                adopt_streams([ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()])?;
            }
            None => stdio::silence().map_err(setup("streams"))?,
        }
        let mut keep = vec![channel.as_fd().as_raw_fd(), self.init.as_raw_fd()];
        keep.extend(self.steps.kept());
        sys::close_others(&mut keep).map_err(setup("descriptors"))?;
        let user = if self.mapped { namespaces::USER } else { 0 };
        let joined = JOINED | namespaces::PID | user;
        if self.mapped {
            self.steps.raise_limits();
        }
        sys::join_namespaces(self.init, joined).map_err(|_| Error::Ended)?;
        match sys::fork_sibling(0).map_err(Error::Namespaces)? {
            Fork::Child => self.live_inside(channel, ends.is_none()),
            Fork::Parent { pid, pidfd } => {
                let replaced = Report::Replaced { pid };
                channel
                    .report(&replaced, Some(&pidfd))
                    .map_err(Error::Silent)?;
                sys::exit_now(0)
            }
        }
    }

    /// In the container. The channel and the handle that led here are closed by the exec.
    fn live_inside(&self, channel: &Channel, tty: bool) -> Result<Infallible> {
        let setup = |step| move |source| Error::Setup { step, source };
        if !channel.wait_go() {
            sys::exit_now(1);
        }
        rustix::process::setsid().map_err(|errno| setup("session")(errno.into()))?;
        if self.mapped {
            userns::become_root()?;
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let root = rootfs::root_handle()?;
        let identity = self.steps.identity(root.as_fd())?;
        let cwd = self.steps.open_cwd(root.as_fd())?;
        let open = || devices::open_terminal(root.as_fd(), identity.uid, self.window);
        let terminal = tty.then(open).transpose()?;
        let master = terminal.as_ref().map(|terminal| &terminal.master);
        channel
            .report(&Report::Ready, master)
            .map_err(Error::Silent)?;
        if !channel.wait_go() {
            sys::exit_now(1);
        }
        if let Some(terminal) = &terminal {
            adopt_terminal(&terminal.slave)?;
        }
        self.steps.run(cwd.as_fd(), &identity, channel)
    }
}
