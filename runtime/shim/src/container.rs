//! The container's first process: what is opened on the host, and the ordered list of steps inside.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::config::Cgroup;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};
use orlop_sys::mount::{self, attributes};
use orlop_sys::process::{self as sys, Fork, namespaces};
use rustix::fs::{Mode, OFlags};

use crate::capabilities::Sets;
use crate::channel::{Channel, Gate, Report};
use crate::child::{self, Child};
use crate::error::{Error, Result};
use crate::hooks::{self, Hooks};
use crate::lsm;
use crate::mounts::PROC_MAGIC;
use crate::process::{Steps, adopt_streams, adopt_terminal};
use crate::seccomp;
use crate::stdio::{self, Ends, Streams, Wanted};
use crate::sysctls::DOMAIN_NAME;
use crate::userns::{self, UserNamespace};
use crate::{devices, mounts, rootfs, shared};

/// A namespace that exists already.
#[derive(Debug)]
struct Join {
    path: PathBuf,
    file: File,
}

/// The namespaces of the specification. Those that are joined are open: their paths are of processes
/// that may be gone when the container is started again.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    new: u64,
    join: Vec<Join>,
    /// Joined by a process that has let go of the host.
    pid: Option<Join>,
    cgroup: bool,
}

/// What a container gets from its host that its specification does not say.
pub(crate) struct Host<'a> {
    /// A directory of the host that its root covers, in its own mount namespace, while it is entered.
    pub(crate) place: &'a Path,
    /// Its root file system, attached nowhere.
    pub(crate) root: OwnedFd,
    /// Its user namespace, if that is not the host's; its root file system is mapped already.
    pub(crate) user: Option<&'a UserNamespace>,
    pub(crate) cgroups: &'a [Cgroup],
    /// Another mount namespace, whose `/dev/shm` it has.
    pub(crate) shm_from: Option<&'a Path>,
    pub(crate) window: Option<(u16, u16)>,
    pub(crate) streams: Wanted,
    /// Where it waits for its beginning, if that is not up to the shim that made it.
    pub(crate) gate: Option<&'a Gate>,
    /// Who takes part in its making.
    pub(crate) hooks: Option<&'a dyn Hooks>,
}

/// What a container is made of, opened on the host.
pub(crate) struct Plan<'a> {
    host: Host<'a>,
    spec: &'a Spec,
    linux: &'a Linux,
    namespaces: &'a Namespaces,
    trees: Vec<Option<OwnedFd>>,
    groups: mounts::Groups<'a>,
    steps: Steps<'a>,
}

/// The container's process before its command, and its streams.
pub(crate) struct Created {
    pub(crate) child: Child,
    pub(crate) streams: Streams,
}

/// The process of the specification.
pub(crate) fn process(spec: &Spec) -> Result<&oci_spec::runtime::Process> {
    spec.process().as_ref().ok_or(Error::Missing("a process"))
}

/// What the specification says of Linux.
pub(crate) fn linux(spec: &Spec) -> Result<&Linux> {
    let linux = spec.linux().as_ref();
    linux.ok_or(Error::Missing("a section for linux"))
}

/// Capabilities and filter of the specification, which later processes get as well.
pub(crate) fn confinement(
    spec: &Spec,
) -> Result<(Sets, Option<Vec<orlop_sys::seccomp::Instruction>>)> {
    let sets = Sets::from_spec(process(spec)?.capabilities().as_ref());
    let filter = seccomp::filter(spec, &sets)?;
    Ok((sets, filter))
}

impl<'a> Plan<'a> {
    /// Opens everything that a path of the host leads to.
    pub(crate) fn open(
        host: Host<'a>,
        spec: &'a Spec,
        namespaces: &'a Namespaces,
        steps: Steps<'a>,
    ) -> Result<Self> {
        let linux = linux(spec)?;
        lsm::check(steps.process)?;
        lsm::check_mounts(linux)?;
        let user = host.user;
        if user.is_some() && namespaces.pid.is_some() {
            // The kernel shows a new /proc only to those who see the host's, or none at all.
            let what = "a user namespace with the processes of another container";
            return Err(Error::Unsupported(what.to_owned()));
        }
        let sources = spec.mounts().iter().flatten();
        let sources = sources.map(|mount| mounts::open_source(mount, user));
        let mut trees = sources.collect::<Result<Vec<_>>>()?;
        if let Some(user) = user {
            let devices = linux.devices().as_deref().unwrap_or_default();
            let label = lsm::mount_label(linux);
            let all = spec.mounts().iter().flatten().zip(&mut trees);
            for (mount, tree) in all.filter(|(mount, _)| is_dev(mount)) {
                *tree = Some(mounts::open_dev(mount, devices, user, label)?);
            }
        }
        if let Some(other) = host.shm_from {
            let shared = spec.mounts().iter().flatten().zip(&mut trees);
            for (_, tree) in shared.filter(|(mount, _)| is_shm(mount)) {
                *tree = Some(shared::clone_shm(other)?);
            }
        }
        let groups = mounts::Groups::open(host.cgroups, namespaces.cgroup, user.is_some())?;
        Ok(Self {
            host,
            spec,
            linux,
            namespaces,
            trees,
            groups,
            steps,
        })
    }

    /// Makes the container, up to the step before its command. `made` is told of its process before
    /// that lets go of the host, if there are hooks for it.
    pub(crate) fn create(&self, made: impl FnOnce(i32) -> Result<()>) -> Result<Created> {
        let tty = self.steps.process.terminal().unwrap_or(false);
        let (streams, ends) = self.host.streams.open(tty)?;
        let oom_score = self.steps.process.oom_score_adj();
        let flags = match self.host.user {
            Some(_) => 0,
            None => self.namespaces.new,
        };
        let mut child = Child::spawn(flags, self.host.cgroups, oom_score, |channel| {
            self.live(channel, ends.as_ref())
        })?;
        drop(ends);
        let streams = match child.ready(made)? {
            Some(master) => Streams::terminal(master)?,
            None => streams,
        };
        Ok(Created { child, streams })
    }

    /// The container's side, in order.
    fn live(&self, channel: &Channel, ends: Option<&Ends>) -> Result<Infallible> {
        let setup = |step| {
            move |errno: rustix::io::Errno| Error::Setup {
                step,
                source: errno.into(),
            }
        };
        if self.namespaces.pid.is_some() {
            stdio::silence().map_err(|source| Error::Setup {
                step: "streams",
                source,
            })?;
        }
        let kernels = self.settle(channel)?;
        let hooks = self.early_hooks()?;
        let root = match hooks {
            Some(_) => rootfs::same(&self.host.root)?,
            None => self.let_go(channel, ends)?,
        };
        rustix::process::setsid().map_err(setup("session"))?;
        rustix::process::umask(Mode::empty());
        self.furnish(root.as_fd(), &kernels)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if let Some(hooks) = hooks {
            take_part(hooks, channel)?;
            rootfs::enter(root.as_fd())?;
        }
        let identity = self.steps.identity(root.as_fd())?;
        let cwd = self.steps.open_cwd(root.as_fd())?;
        let terminal = match ends {
            Some(_) => None,
            None => {
                let uid = identity.uid;
                let terminal = devices::open_terminal(root.as_fd(), uid, self.host.window)?;
                devices::bind_console(root.as_fd(), terminal.slave.as_fd())?;
                Some(terminal)
            }
        };
        self.hide(root.as_fd())?;
        if self.host.gate.is_some() {
            // Whoever opens the gate may be unable to undo the container; its maker is not.
            self.steps.find_program(&identity)?;
        }
        if let Some(ends) = ends {
            adopt_streams([ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()])?;
        } else if let Some(terminal) = &terminal {
            adopt_terminal(&terminal.slave)?;
        }
        let master = terminal.map(|terminal| terminal.master);
        channel
            .report(&Report::Ready, master.as_ref())
            .map_err(Error::Silent)?;
        drop(master);
        let begin = || self.steps.run(cwd.as_fd(), &identity, channel);
        match self.host.gate {
            Some(gate) => child::begin_at(gate, begin),
            None if channel.wait_go() => begin(),
            None => sys::exit_now(1),
        }
    }

    /// Enters the namespaces and shows the root in them. Answers the file systems of the kernel that are
    /// made already, by mount.
    fn settle(&self, channel: &Channel) -> Result<Vec<Option<OwnedFd>>> {
        let kernels = match self.host.user {
            Some(user) => self.move_to(user, channel)?,
            None => {
                self.namespaces.enter()?;
                Vec::new()
            }
        };
        rootfs::show(self.host.root.as_fd(), self.host.place)?;
        if self.host.user.is_some() {
            userns::become_root()?;
            // Only now: /dev/mqueue belongs to who makes the namespace.
            let ipc = self.namespaces.new & namespaces::IPC;
            sys::unshare(ipc).map_err(Error::Namespaces)?;
        }
        Ok(kernels)
    }

    /// Hooks that run before the container's root is entered. Among the processes of another container,
    /// which may look at it, nothing of the host may be left by then.
    fn early_hooks(&self) -> Result<Option<&'a dyn Hooks>> {
        let hooks = self.host.hooks.filter(|hooks| hooks.early());
        match hooks.is_some() && self.namespaces.pid.is_some() {
            true => Err(Error::Unsupported(
                "a createContainer hook in the pid namespace of another container".to_owned(),
            )),
            false => Ok(hooks),
        }
    }

    /// Enters the container's root, and the processes of another container if they are to be its own; the
    /// root.
    fn let_go(&self, channel: &Channel, ends: Option<&Ends>) -> Result<OwnedFd> {
        rootfs::enter(self.host.root.as_fd())?;
        if let Some(join) = &self.namespaces.pid {
            self.move_in(join, channel, ends)?;
        }
        rootfs::root_handle()
    }

    /// Mounts, devices, the name and kernel parameters.
    fn furnish(&self, root: BorrowedFd<'_>, kernels: &[Option<OwnedFd>]) -> Result<()> {
        self.mount(root, kernels)?;
        if self.host.user.is_none() {
            let more = self.linux.devices().as_deref().unwrap_or_default();
            devices::populate(&devices::open(root)?, more)?;
        }
        self.name()?;
        self.set_parameters()
    }

    /// Goes on as a sibling among the processes of another container, which may look at it: it has its
    /// own root by now, and closes all but what the container is going to have anyway.
    fn move_in(&self, join: &Join, channel: &Channel, ends: Option<&Ends>) -> Result<()> {
        let setup = |step| move |source| Error::Setup { step, source };
        let mut keep = vec![channel.as_fd().as_raw_fd(), join.file.as_raw_fd()];
        keep.extend(self.trees.iter().flatten().map(AsRawFd::as_raw_fd));
        keep.extend(self.groups.handles().map(AsRawFd::as_raw_fd));
        keep.extend(self.steps.kept());
        keep.extend(self.host.gate.map(|gate| gate.as_fd().as_raw_fd()));
        if let Some(ends) = ends {
            keep.extend([&ends.stdin, &ends.stdout, &ends.stderr].map(AsRawFd::as_raw_fd));
        }
        sys::close_others(&mut keep).map_err(setup("descriptors"))?;
        sys::join_namespaces(join.file.as_fd(), namespaces::PID).map_err(|source| Error::Join {
            path: join.path.clone(),
            source,
        })?;
        leave_to_sibling(channel, 0)
    }

    /// Goes on as a sibling in the user namespace, to which all its other namespaces belong; it is nobody
    /// there yet. Answers the kernel's file systems, made while those of the host can still be seen:
    /// afterwards the kernel refuses them.
    fn move_to(&self, user: &UserNamespace, channel: &Channel) -> Result<Vec<Option<OwnedFd>>> {
        self.steps.raise_limits();
        user.join()?;
        self.namespaces.enter()?;
        leave_to_sibling(channel, self.namespaces.new & !namespaces::IPC)?;
        let mounts = self.spec.mounts().iter().flatten();
        mounts.map(mounts::make_kernels).collect()
    }

    fn mount(&self, root: BorrowedFd<'_>, kernels: &[Option<OwnedFd>]) -> Result<()> {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        let label = lsm::mount_label(self.linux);
        for (at, (mount, tree)) in mounts.iter().zip(&self.trees).enumerate() {
            let made = kernels.get(at).and_then(Option::as_ref);
            mounts::attach(root, mount, tree.as_ref().or(made), &self.groups, label)?;
        }
        if mounts.iter().any(is_procfs) {
            mounts::open_checked(root, "/proc", PROC_MAGIC, "the proc file system")?;
        }
        Ok(())
    }

    fn name(&self) -> Result<()> {
        match self.spec.hostname() {
            Some(name) if self.namespaces.new & namespaces::UTS != 0 => {
                nix::unistd::sethostname(name).map_err(|errno| Error::Hostname(errno.into()))
            }
            _ => Ok(()),
        }
    }

    /// Kernel parameters, through a proc file system that nobody else has a path to.
    fn set_parameters(&self) -> Result<()> {
        let Some(parameters) = self.linux.sysctl().as_ref().filter(|all| !all.is_empty()) else {
            return Ok(());
        };
        let private = rustix::mount::MountAttrFlags::MOUNT_ATTR_NOSUID;
        let proc = rootfs::new_filesystem("proc", Path::new("proc"), &[], private);
        let proc = proc.map_err(|errno| Error::Sysctl {
            name: "".to_owned(),
            source: errno.into(),
        })?;
        for (name, value) in parameters {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
            if !name.bytes().all(known) || name.split(['.', '/']).any(str::is_empty) {
                return Err(Error::SysctlName(name.clone()));
            }
            let fail = |source| Error::Sysctl {
                name: name.clone(),
                source,
            };
            if name.replace('/', ".") == DOMAIN_NAME {
                // A user namespace's root may make the call; the file is the host's root's.
                let set = rustix::system::setdomainname(value.as_bytes());
                set.map_err(|errno| fail(errno.into()))?;
                continue;
            }
            let path = PathBuf::from(format!("sys/{}", name.replace('.', "/")));
            let file = rootfs::open_plain(&proc, &path, OFlags::WRONLY).map_err(fail)?;
            File::from(file).write_all(value.as_bytes()).map_err(fail)?;
        }
        Ok(())
    }

    fn hide(&self, root: BorrowedFd<'_>) -> Result<()> {
        devices::mask(
            root,
            self.linux.masked_paths().as_deref().unwrap_or_default(),
        )?;
        devices::make_read_only(
            root,
            self.linux.readonly_paths().as_deref().unwrap_or_default(),
        )?;
        let read_only = self.spec.root().as_ref().and_then(|root| root.readonly());
        if read_only.unwrap_or(false) {
            mount::set(root, attributes::READ_ONLY, 0, None, false).map_err(|source| {
                Error::Root {
                    step: "make it read-only",
                    source,
                }
            })?;
        }
        Ok(())
    }
}

/// The hooks of the host, then those in the container's namespaces.
fn take_part(hooks: &dyn Hooks, channel: &Channel) -> Result<()> {
    channel.report(&Report::Made, None).map_err(Error::Silent)?;
    if !channel.wait_go() {
        sys::exit_now(1);
    }
    hooks::run(hooks.create_container())
}

/// Ends, once a sibling in the namespaces of `flags` has taken its place; returns in the sibling.
fn leave_to_sibling(channel: &Channel, flags: u64) -> Result<()> {
    let fork = sys::fork_sibling(flags).map_err(Error::Namespaces)?;
    if let Fork::Parent { pid, pidfd } = fork {
        let replaced = channel.report(&Report::Replaced { pid }, Some(&pidfd));
        replaced.map_err(Error::Silent)?;
        sys::exit_now(0)
    }
    if !channel.wait_go() {
        sys::exit_now(1);
    }
    Ok(())
}

/// The tmpfs that has the devices.
fn is_dev(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("tmpfs") && mount.destination() == Path::new("/dev")
}

/// The tmpfs of an IPC namespace's shared memory.
pub(crate) fn is_shm(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("tmpfs") && mount.destination() == Path::new("/dev/shm")
}

fn is_procfs(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("proc") && mount.destination() == Path::new("/proc")
}

impl Namespaces {
    /// Opens what is joined.
    pub(crate) fn open(spec: &Spec) -> Result<Self> {
        let mut all = Self::default();
        for namespace in linux(spec)?.namespaces().iter().flatten() {
            let kind = namespace.typ();
            if kind == LinuxNamespaceType::User {
                // Joined before all others, by itself.
                continue;
            }
            let Some(path) = namespace.path() else {
                if kind == LinuxNamespaceType::Cgroup {
                    all.cgroup = true;
                } else {
                    all.new |= flag(kind);
                }
                continue;
            };
            if kind == LinuxNamespaceType::Mount {
                return Err(Error::Unsupported(format!(
                    "joining another {kind} namespace"
                )));
            }
            let fail = |source| Error::Join {
                path: path.clone(),
                source,
            };
            let file = File::open(path).map_err(fail)?;
            let join = Join {
                path: path.clone(),
                file,
            };
            match kind {
                LinuxNamespaceType::Pid => all.pid = Some(join),
                _ => all.join.push(join),
            }
        }
        if all.new & namespaces::MOUNT == 0 {
            return Err(Error::Missing("a mount namespace"));
        }
        Ok(all)
    }

    fn enter(&self) -> Result<()> {
        for join in &self.join {
            let fail = |source| Error::Join {
                path: join.path.clone(),
                source,
            };
            sys::join_namespaces(join.file.as_fd(), 0).map_err(fail)?;
        }
        if self.cgroup {
            // Now that it is in its cgroup, which becomes what it sees as the root.
            sys::unshare(namespaces::CGROUP).map_err(Error::Namespaces)?;
        }
        Ok(())
    }
}

fn flag(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::Mount => namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => namespaces::CGROUP,
        LinuxNamespaceType::Uts => namespaces::UTS,
        LinuxNamespaceType::Ipc => namespaces::IPC,
        LinuxNamespaceType::Pid => namespaces::PID,
        LinuxNamespaceType::Network => namespaces::NETWORK,
        LinuxNamespaceType::Time => namespaces::TIME,
        LinuxNamespaceType::User => namespaces::USER,
    }
}
