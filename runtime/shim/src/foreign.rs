//! Another OCI runtime (runc, crun, …) makes the container and its later processes; the shim stays with
//! them as with its own.
//!
//! The runtime is called as everybody calls it, by its command line. The shim adopts what it leaves
//! behind: orphans below it become its children. Bundle, root file system and the runtime's own state
//! are mounted in a mount namespace of the shim's: however the shim ends, nothing of them is left.

mod bundle;
mod console;
mod report;

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use orlop_sys::mount::{self, Propagation, attributes};
use orlop_sys::process::{self as sys, namespaces};
use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{Signal, getpid, set_child_subreaper};
use serde::Serialize;

use crate::channel::Report;
use crate::child::Child;
use crate::container::{Created, Host, is_shm};
use crate::error::{Error, Result, note};
use crate::process::{Steps, adopt_streams};
use crate::rootfs::{self, Kind};
use crate::stdio::{self, Ends, Streams, Wanted};
use crate::{mounts, seccomp, shared, userns};
use console::Console;

/// The bundle in a container's directory.
const BUNDLE: &str = "bundle";
/// The most that the bundle and the runtime's state may take.
const BUNDLE_SIZE: &str = "64m";
/// Where the runtime finds helpers of its own.
const PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the runtime may take for one of its commands.
const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// A runtime, and the bundle of the one container that it has here. Names of files are relative to
/// the bundle: a socket's address is short.
#[derive(Debug)]
pub(crate) struct Foreign<'a> {
    program: &'a Path,
    id: &'a str,
    directory: PathBuf,
    bundle: OwnedFd,
    deleted: Cell<bool>,
}

impl<'a> Foreign<'a> {
    /// Leaves the host's mount namespace and makes an empty bundle in the container's directory.
    pub(crate) fn open(program: &'a Path, id: &'a str, container: &Path) -> Result<Self> {
        let fail = |step| {
            move |source: io::Error| Error::Runtime {
                program: program.into(),
                step,
                source,
            }
        };
        set_child_subreaper(Some(getpid())).map_err(|errno| fail("adopt orphans")(errno.into()))?;
        leave_mounts().map_err(fail("leave the host's mounts"))?;
        let directory = container.join(BUNDLE);
        let bundle = mount_bundle(&directory).map_err(fail("make the bundle"))?;
        Ok(Self {
            program,
            id,
            directory,
            bundle,
            deleted: Cell::new(false),
        })
    }

    /// Makes the container, up to the step before its command.
    pub(crate) fn create(
        &self,
        host: &Host<'_>,
        spec: &Spec,
        steps: &Steps<'_>,
    ) -> Result<Created> {
        refuse_user_namespace(spec)?;
        let identity = steps.identity(host.root.as_fd())?;
        let mounts = self.stage(spec, host.shm_from)?;
        self.attach(&host.root, "rootfs")?;
        let process = bundle::process(steps.process, &identity);
        let filter = seccomp::document(spec, &steps.sets)?;
        let complete = bundle::complete(spec, process, mounts, filter);
        self.write("config.json", &complete)?;
        let args = ["create", "--bundle", "."];
        let tty = steps.process.terminal().unwrap_or(false);
        let (child, streams) = self.launch(&args, tty, host.streams, host.window)?;
        let read_only = spec.root().as_ref().and_then(|root| root.readonly());
        if read_only == Some(true)
            && let Err(error) = forbid_devices(&child)
        {
            child.abandon();
            return Err(error);
        }
        Ok(Created { child, streams })
    }

    /// Lets the container's command begin.
    pub(crate) fn start(&self) -> Result<()> {
        self.call(&["start"], None)
    }

    /// Adds a process to the container whose first process is `init`; when this returns its command runs.
    pub(crate) fn exec(
        &self,
        init: i32,
        steps: &Steps<'_>,
        streams: Wanted,
        window: Option<(u16, u16)>,
    ) -> Result<(Child, Streams)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The number is its own until the shim reaps it.
        let root = rustix::fs::open(format!("/proc/{init}/root"), flags, Mode::empty());
        let root = root.map_err(|_| Error::Ended)?;
        let identity = steps.identity(root.as_fd())?;
        self.write("process.json", &bundle::process(steps.process, &identity))?;
        let args = ["exec", "--detach", "--process", "process.json"];
        let tty = steps.process.terminal().unwrap_or(false);
        self.launch(&args, tty, streams, window)
    }

    /// Takes down what the runtime has of the container, and its mounts; once.
    pub(crate) fn delete(&self) {
        if self.deleted.replace(true) {
            return;
        }
        if let Err(error) = self.call(&["delete", "--force"], None) {
            note(&error.message());
        }
        // The next start mounts the same root file system.
        if let Err(errno) = unmount(&self.directory, UnmountFlags::DETACH) {
            note(&self.fail("unmount the bundle")(errno.into()).message());
        }
    }

    /// Every bind mount as the shim makes it, at a place in the bundle: the runtime need not look for
    /// the part of a volume in a tree that other containers write to, nor know all of mount(8)'s words.
    fn stage(&self, spec: &Spec, shm_from: Option<&Path>) -> Result<Vec<Mount>> {
        let mut staged = Vec::new();
        for (at, mount) in spec.mounts().iter().flatten().enumerate() {
            let tree = match shm_from {
                Some(other) if is_shm(mount) => Some(shared::clone_shm(other)?),
                _ => mounts::open_source(mount, None)?,
            };
            let Some(tree) = tree else {
                staged.push(mount.clone());
                continue;
            };
            let place = format!("mounts/{at}");
            self.attach(&tree, &place)?;
            staged.push(bundle::bind(mount, self.directory.join(place)));
        }
        Ok(staged)
    }

    fn attach(&self, tree: &OwnedFd, name: &str) -> Result<()> {
        let kind = match rootfs::is_directory(tree.as_fd()) {
            true => Kind::Directory,
            false => Kind::File,
        };
        let target = rootfs::ensure(self.bundle.as_fd(), Path::new(name), kind)?;
        rootfs::attach(tree.as_fd(), target.as_fd())
            .map_err(|errno| self.fail("fill the bundle")(errno.into()))
    }

    fn write<T: Serialize>(&self, name: &str, document: &T) -> Result<()> {
        let written = serde_json::to_vec(document)
            .map_err(io::Error::other)
            .and_then(|bytes| fs::write(self.directory.join(name), bytes));
        written.map_err(self.fail("write its documents"))
    }

    /// Calls the runtime for a new process, and adopts that.
    fn launch(
        &self,
        args: &[&str],
        tty: bool,
        wanted: Wanted,
        window: Option<(u16, u16)>,
    ) -> Result<(Child, Streams)> {
        let (streams, ends) = wanted.open(tty)?;
        let console = tty.then(|| Console::listen(&self.directory)).transpose()?;
        let mut args = [args, &["--pid-file", "pid"]].concat();
        if console.is_some() {
            args.extend(["--console-socket", console::NAME]);
        }
        self.call(&args, ends.as_ref())?;
        drop(ends);
        let child = Child::adopt(self.pid()?)?;
        let received = console.map(|console| console.receive(window)).transpose();
        match received {
            Ok(terminal) => Ok((child, terminal.unwrap_or(streams))),
            Err(error) => {
                child.abandon();
                Err(error)
            }
        }
    }

    fn pid(&self) -> Result<i32> {
        let text = fs::read_to_string(self.directory.join("pid"));
        let text = text.map_err(self.fail("read its pid file"))?;
        let number = text.trim().parse().map_err(io::Error::other);
        number.map_err(self.fail("read its pid file"))
    }

    /// Has the runtime do something, with these streams or none, and waits until that is done.
    fn call(&self, args: &[&str], ends: Option<&Ends>) -> Result<()> {
        let log = self.directory.join(report::LOG);
        drop(fs::remove_file(&log));
        let general = [
            "--root",
            "state",
            "--log",
            report::LOG,
            "--log-format",
            "json",
        ];
        let args: Vec<&str> = [&general, args, &[self.id]].concat();
        let args = self.command(&args)?;
        let mut child = Child::spawn(0, &[], None, |_| self.execute(&args, ends))?;
        match child.end(&PATIENCE)? {
            Some(0) => Ok(()),
            Some(status) => Err(Error::Child(report::failure(self.program, &log, status))),
            None => Err(self.fail("it takes too long")(
                io::ErrorKind::TimedOut.into(),
            )),
        }
    }

    fn command(&self, args: &[&str]) -> Result<Vec<CString>> {
        let program = self.program.as_os_str().as_bytes();
        let all = std::iter::once(program).chain(args.iter().map(|arg| arg.as_bytes()));
        let all: std::result::Result<_, _> = all.map(CString::new).collect();
        all.map_err(|_| Error::ZeroByte)
    }

    /// In a child: becomes the runtime. It ends with the shim, and the container begins with an
    /// ordinary mask of access bits.
    fn execute(&self, args: &[CString], ends: Option<&Ends>) -> Result<Infallible> {
        let fail = |errno: Errno| self.fail("execute it")(errno.into());
        match ends {
            Some(ends) => {
                adopt_streams([ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()])?;
            }
            None => stdio::silence().map_err(self.fail("silence it"))?,
        }
        rustix::process::fchdir(&self.bundle).map_err(fail)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(fail)?;
        sys::reset_signals().map_err(self.fail("reset its signals"))?;
        sys::close_on_exec_from(3).map_err(self.fail("close descriptors"))?;
        let Some(program) = args.first() else {
            return Err(Error::NoCommand);
        };
        let Err(errno) = nix::unistd::execve(program, args, &[PATH]);
        Err(self.fail("execute it")(errno.into()))
    }

    fn fail(&self, step: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let program = self.program.to_owned();
        move |source| Error::Runtime {
            program,
            step,
            source,
        }
    }
}

/// Into a mount namespace of the process's own. Slave, not private: an unmount on the host then also
/// lets go of the copy here.
fn leave_mounts() -> io::Result<()> {
    sys::unshare(namespaces::MOUNT)?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::set(root.as_fd(), 0, 0, Some(Propagation::Slave), true)
}

fn mount_bundle(directory: &Path) -> io::Result<OwnedFd> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let option = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let options = [option("mode", "700"), option("size", BUNDLE_SIZE)];
    let plain = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let bundle = rootfs::new_filesystem("tmpfs", Path::new(BUNDLE), &options, plain)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::open(directory, flags, Mode::empty())?;
    rootfs::attach(bundle.as_fd(), target.as_fd())?;
    Ok(bundle)
}

/// Devices of the image stay closed: runc forgets that when it makes a root read-only.
fn forbid_devices(init: &Child) -> Result<()> {
    let fail = |source| Error::Root {
        step: "forbid its devices",
        source,
    };
    let mut child = Child::spawn(0, &[], None, |channel| {
        sys::join_namespaces(init.pidfd.as_fd(), namespaces::MOUNT).map_err(fail)?;
        let root = rootfs::root_handle()?;
        mount::set(root.as_fd(), attributes::NO_DEV, 0, None, false).map_err(fail)?;
        channel
            .report(&Report::Ready, None)
            .map_err(Error::Silent)?;
        sys::exit_now(0)
    })?;
    child.ready(|_| Ok(()))?;
    child.abandon();
    Ok(())
}

/// Files of its root would have to be given to the users of such a namespace.
fn refuse_user_namespace(spec: &Spec) -> Result<()> {
    match userns::has_own(spec) {
        true => Err(Error::Unsupported(
            "a user namespace of another runtime's making (--runtime)".to_owned(),
        )),
        false => Ok(()),
    }
}
