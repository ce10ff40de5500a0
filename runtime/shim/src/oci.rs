//! Containers as the command line of OCI runtimes has them: one process makes a container and goes,
//! another one lets it begin, and who watches it is neither's business. Its streams are the maker's.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Process, Spec};
use orlop_sys::mount::{self, Propagation};
use orlop_sys::process as sys;
use orlop_sys::seccomp::Instruction;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::capabilities::Sets;
use crate::cgroup;
use crate::channel::Gate;
use crate::child::{self, Child};
use crate::config::Cgroup;
use crate::container::{Host, Namespaces, Plan, linux, process};
use crate::error;
use crate::exec::Exec;
use crate::hooks;
pub use crate::hooks::Hooks;
use crate::init;
use crate::process::Steps;
use crate::program;
use crate::seccomp;
use crate::stdio::{Streams, Wanted};
use crate::userns::{self, UserNamespace};

/// Type, numbers (`None`: any) and access.
type DeviceRule = (LinuxDeviceType, Option<i64>, Option<i64>, &'static str);

/// The devices that every container may use, whatever its specification says, as config-linux.md of the
/// OCI runtime specification has it ("Default Devices"), and terminals; nodes of all may be made.
const ALWAYS: [DeviceRule; 11] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(1), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
];

/// What went wrong; its text is one line for people.
#[derive(Debug)]
pub struct Error(error::Error);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message())
    }
}

impl std::error::Error for Error {}

impl From<error::Error> for Error {
    fn from(error: error::Error) -> Self {
        Self(error)
    }
}

/// A container, made or to be made.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Its specification.
    pub spec: &'a Spec,
    /// The directory that is its root.
    pub rootfs: &'a Path,
    /// Its groups, which exist.
    pub cgroups: &'a [Cgroup],
    /// A directory of ours, in which it waits for its beginning.
    pub directory: &'a Path,
}

/// A process of a container.
#[derive(Debug)]
pub struct Started {
    child: Child,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Started {
    fn new(child: Child, streams: Streams) -> Self {
        Self {
            child,
            terminal: streams.into_master(),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Kills it.
    pub fn abandon(&self) {
        self.child.abandon();
    }
}

/// Keeps the running program's file from containers. To be called first: it may start the program anew,
/// with the variables of the environment that are named.
pub fn protect(variables: &[&str]) -> Result<(), Error> {
    Ok(program::protect(variables)?)
}

/// Clock ticks since boot at which a process began; an error if there is none with this number.
pub fn start_time(pid: i32) -> std::io::Result<u64> {
    child::start_time(pid)
}

/// Waiting for the end of a process, with signals passed on to it.
#[derive(Debug)]
pub struct Wait(SignalFd);

impl Wait {
    /// To be called before the process starts: from here on signals wait, that of its end as well.
    pub fn prepare() -> Result<Self, Error> {
        let signals = init::hold_signals().map_err(|source| error::Error::Setup {
            step: "signals",
            source,
        })?;
        Ok(Self(signals))
    }

    /// Its exit code, or 128 + the signal.
    pub fn until_end(self, pid: i32) -> u8 {
        u8::try_from(init::serve(pid, &self.0)).unwrap_or(u8::MAX)
    }
}

/// Sends the process behind `pidfd` a signal.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> std::io::Result<()> {
    sys::send_signal(pidfd, signal)
}

/// Sends every process in the groups a signal.
pub fn signal_all(cgroups: &[Cgroup], signal: i32) {
    for pid in cgroup::members(cgroups) {
        // One that is gone by now needs no signal.
        sys::kill(pid, signal).ok();
    }
}

/// The processes in the groups.
pub fn members(cgroups: &[Cgroup]) -> Vec<i32> {
    cgroup::members(cgroups)
}

/// Kills what is in the groups, frozen or not, until they are empty.
pub fn kill_all(cgroups: &[Cgroup]) {
    cgroup::kill_all(cgroups);
}

/// The gate of the container whose directory this is: there from its creation until it begins.
pub fn gate(directory: &Path) -> PathBuf {
    directory.join("gate")
}

/// Lets the container of `directory` begin; returns when its command runs. `patient`: however long that
/// takes, as hooks may.
pub fn begin(directory: &Path, patient: bool) -> Result<(), Error> {
    Ok(child::open_gate(&gate(directory), patient)?)
}

impl Container<'_> {
    /// Makes it, up to the step before its command: there it waits for [`begin`]. Its command has the
    /// first `kept` descriptors of the caller besides its streams.
    pub fn create(&self, hooks: &dyn Hooks, kept: u32) -> Result<Started, Error> {
        let gate = Gate::open(&gate(self.directory)).map_err(|source| error::Error::Setup {
            step: "gate",
            source,
        })?;
        let process = process(self.spec)?;
        let (sets, filter) = self.confinement(process)?;
        let user = user(process);
        let mut steps = steps(process, &user, sets, filter.as_deref());
        (steps.hooks, steps.kept) = (Some(hooks), kept);
        let own = linux(self.spec).and_then(UserNamespace::open)?;
        let host = Host {
            place: self.rootfs,
            root: clone_root(self.rootfs)?,
            user: own.as_ref(),
            cgroups: self.cgroups,
            shm_from: None,
            window: window(process),
            streams: Wanted::Own,
            gate: Some(&gate),
            hooks: Some(hooks),
        };
        let made = |pid| {
            self.restrict_devices()?;
            hooks::run(hooks.create_runtime(pid))
        };
        let namespaces = Namespaces::open(self.spec)?;
        let created = Plan::open(host, self.spec, &namespaces, steps)?.create(made)?;
        let started = Started::new(created.child, created.streams);
        if !hooks.early()
            && let Err(error) = made(started.pid())
        {
            started.abandon();
            return Err(error.into());
        }
        Ok(started)
    }

    /// Adds a process to it; when this returns its command runs. `init` is the first one's handle, `kept`
    /// as for [`Self::create`].
    pub fn exec(
        &self,
        init: BorrowedFd<'_>,
        process: &Process,
        kept: u32,
    ) -> Result<Started, Error> {
        let (sets, filter) = self.confinement(process)?;
        let user = user(process);
        let mut steps = steps(process, &user, sets, filter.as_deref());
        steps.kept = kept;
        let exec = Exec {
            steps,
            init,
            cgroups: self.cgroups,
            mapped: userns::has_own(self.spec),
            streams: Wanted::Own,
            window: window(process),
        };
        let (child, streams) = exec.start()?;
        Ok(Started::new(child, streams))
    }

    /// Capabilities and filter: no filter if the specification has none.
    fn confinement(&self, process: &Process) -> error::Result<(Sets, Option<Vec<Instruction>>)> {
        let sets = Sets::from_spec(process.capabilities().as_ref());
        let linux = self.spec.linux().as_ref();
        let filter = match linux.and_then(|linux| linux.seccomp().as_ref()) {
            Some(_) => seccomp::filter(self.spec, &sets)?,
            None => None,
        };
        Ok((sets, filter))
    }

    /// What the specification does not allow is denied, also where it says nothing of devices (row B24).
    fn restrict_devices(&self) -> error::Result<()> {
        let resources = self.spec.linux().as_ref();
        let resources = resources.and_then(|linux| linux.resources().as_ref());
        let asked = resources.and_then(|resources| resources.devices().as_deref());
        let mut rules = vec![everything_denied()];
        rules.extend_from_slice(asked.unwrap_or_default());
        rules.extend(ALWAYS.map(rule));
        cgroup::restrict_devices(self.cgroups, &rules)
    }
}

fn everything_denied() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(false).set_access(Some("rwm".to_owned()));
    rule
}

fn rule((kind, major, minor, access): DeviceRule) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(kind));
    rule.set_major(major).set_minor(minor);
    rule.set_access(Some(access.to_owned()));
    rule
}

fn steps<'a>(
    process: &'a Process,
    user: &'a str,
    sets: Sets,
    filter: Option<&'a [Instruction]>,
) -> Steps<'a> {
    Steps {
        process,
        user,
        groups: &[],
        create_cwd: true,
        init: false,
        tied: false,
        sets,
        filter,
        hooks: None,
        kept: 0,
    }
}

/// The numbers of the specification, in the form of an image's user.
fn user(process: &Process) -> String {
    format!("{}:{}", process.user().uid(), process.user().gid())
}

fn window(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    let number = |value: u64| u16::try_from(value).ok();
    Some((number(size.height())?, number(size.width())?))
}

/// The tree of mounts at `path`, attached nowhere and private.
fn clone_root(path: &Path) -> error::Result<OwnedFd> {
    let fail = |step| move |source| error::Error::Root { step, source };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let open = open_tree(CWD, path, flags);
    let root = open.map_err(|errno| fail("open the bundle's")(errno.into()))?;
    let private = Some(Propagation::Private);
    mount::set(root.as_fd(), 0, 0, private, true).map_err(fail("make it private"))?;
    Ok(root)
}
