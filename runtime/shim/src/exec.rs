//! One more process in a running container.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use orlop_shim::config::Cgroup;
use orlop_sys::process::{self as sys, namespaces};
use rustix::fs::Mode;

use crate::channel::{Channel, Report};
use crate::child::Child;
use crate::devices;
use crate::error::{Error, Result, note};
use crate::process::{Steps, adopt_streams, adopt_terminal};
use crate::rootfs;
use crate::stdio::{Ends, Streams};

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
    /// The shim's own pid namespace.
    pub(crate) home: &'a File,
    pub(crate) cgroups: &'a [Cgroup],
    pub(crate) stdin: bool,
    pub(crate) output: bool,
    pub(crate) window: Option<(u16, u16)>,
}

impl Exec<'_> {
    /// Starts it; when this returns its command runs.
    pub(crate) fn start(&self) -> Result<(Child, Streams)> {
        let tty = self.steps.process.terminal().unwrap_or(false);
        let (streams, ends) = match tty {
            true => (Streams::default(), None),
            false => Streams::pipes(self.stdin, self.output)
                .map(|(streams, ends)| (streams, Some(ends)))?,
        };
        let child = self.spawn(ends.as_ref())?;
        drop(ends);
        let streams = match child.ready()? {
            Some(master) => Streams::terminal(master)?,
            None => streams,
        };
        child.begin()?;
        Ok((child, streams))
    }

    /// The pid namespace is the shim's to choose, for the child to be: joining it from within would
    /// take one more process.
    fn spawn(&self, ends: Option<&Ends>) -> Result<Child> {
        sys::join_namespaces(self.init, namespaces::PID).map_err(|_| Error::Ended)?;
        let oom_score = self.steps.process.oom_score_adj();
        let child = Child::spawn(0, self.cgroups, oom_score, |channel| {
            self.live(channel, ends)
        });
        if let Err(error) = sys::join_namespaces(self.home.as_fd(), namespaces::PID) {
            note(&format!(
                "cannot return to the host's pid namespace: {error}"
            ));
        }
        child
    }

    /// In the child. Nothing of the host may be open any more when the container can see it.
    fn live(&self, channel: &Channel, ends: Option<&Ends>) -> Result<Infallible> {
        let setup = |step| move |source| Error::Setup { step, source };
        let mut keep = vec![channel.as_fd().as_raw_fd(), self.init.as_raw_fd()];
        let fds = ends.map(|ends| [&ends.stdin, &ends.stdout, &ends.stderr]);
        keep.extend(fds.iter().flatten().map(|fd| fd.as_raw_fd()));
        sys::close_others(&mut keep).map_err(setup("descriptors"))?;
        sys::join_namespaces(self.init, JOINED).map_err(|_| Error::Ended)?;
        rustix::process::setsid().map_err(|errno| setup("session")(errno.into()))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let root = rootfs::root_handle()?;
        let identity = self.steps.identity(root.as_fd())?;
        let cwd = self.steps.open_cwd(root.as_fd())?;
        let terminal = match ends {
            Some(_) => None,
            None => Some(devices::open_terminal(
                root.as_fd(),
                identity.uid,
                self.window,
            )?),
        };
        self.steps.limit();
        let master = terminal.as_ref().map(|terminal| &terminal.master);
        channel
            .report(&Report::Ready, master)
            .map_err(Error::Silent)?;
        if !channel.wait_go() {
            sys::exit_now(1);
        }
        if let Some(ends) = ends {
            adopt_streams([ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()])?;
        } else if let Some(terminal) = &terminal {
            adopt_terminal(&terminal.slave)?;
        }
        self.steps.run(cwd.as_fd(), &identity)
    }
}
