//! From the start of the shim to the container that waits for its command.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config::{SHIM_FILE, SPEC_FILE, ShimConfig};
use crate::protocol::{Kind, Reply, VERSION, encode, write_frame};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{CWD, Mode, OFlags};

use crate::container::{Created, Host, Namespaces, Plan, confinement, linux, process};
use crate::error::{Error, Result, note};
use crate::foreign::Foreign;
use crate::process::Steps;
use crate::supervise::{Given, Supervisor, listen};
use crate::userns::UserNamespace;
use crate::{cgroup, copy_up, document, rootfs, stdio};

/// Name of the shim's own log.
const OWN_LOG: &str = "shim.log";
/// The largest document that is read.
const DOCUMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Starts the container of `directory` and stays until its end.
pub(crate) fn run(directory: &Path) -> Result<()> {
    let setup = |step| move |source: io::Error| Error::Setup { step, source };
    let start = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(setup("start socket"))?;
    detach(directory).map_err(setup("detach"))?;
    let mut start = UnixStream::from(start);
    let result = start_container(directory, &start);
    if let Err(error) = &result {
        note(&error.message());
        let reply = Reply::Failed {
            failure: error.failure(),
            message: error.message(),
        };
        // The service may be gone; then the log has it.
        drop(encode(&reply).and_then(|payload| write_frame(&mut start, Kind::Message, &payload)));
    }
    result
}

/// Out of the service's session, directory and streams.
fn detach(directory: &Path) -> io::Result<()> {
    // Fails only for the leader of a group, to which no terminal of the service's sends signals.
    rustix::process::setsid().ok();
    orlop_sys::process::ignore_hangups();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let path = directory.join(OWN_LOG);
    let log = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600))?;
    stdio::detach(&log)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::chdir("/")?;
    Ok(())
}

fn start_container(directory: &Path, start: &UnixStream) -> Result<()> {
    let path = directory.join(SHIM_FILE);
    let config: ShimConfig = serde_json::from_slice(&read(&path)?).map_err(malformed(&path))?;
    if config.version != VERSION {
        return Err(Error::Version(config.version));
    }
    let path = directory.join(SPEC_FILE);
    let json = read(&path)?;
    let spec = document::spec(&mut serde_json::Deserializer::from_slice(&json))
        .map_err(malformed(&path))?;
    let (sets, filter) = confinement(&spec)?;
    let setup = |step| move |source: io::Error| Error::Setup { step, source };
    let open = |program| Foreign::open(program, &config.id, directory);
    let foreign = config.runtime.as_deref().map(open).transpose()?;
    let given = Given {
        directory,
        spec: &spec,
        config: &config,
        namespaces: Namespaces::open(&spec)?,
        user: linux(&spec).and_then(UserNamespace::open)?,
        sets,
        filter: filter.as_deref(),
        foreign: foreign.as_ref(),
        listener: listen(&config.socket).map_err(setup("socket"))?,
        signals: signals().map_err(setup("signals"))?,
    };
    let result = create_and_run(given, start);
    if result.is_err() {
        drop(std::fs::remove_file(&config.socket));
        cgroup::kill_all(&config.cgroups);
    }
    if let Some(foreign) = &foreign {
        foreign.delete();
    }
    result
}

fn create_and_run(given: Given<'_>, start: &UnixStream) -> Result<()> {
    let root = given.assemble()?;
    given.fill_volumes(root.as_fd())?;
    let created = given.create(root)?;
    restrict_devices(&given, &created)?;
    let start = start.try_clone().map_err(|source| Error::Setup {
        step: "start socket",
        source,
    })?;
    Supervisor::new(given, created, start)?.run();
    Ok(())
}

/// Also what another runtime has made: it may allow more than it is told to.
fn restrict_devices(given: &Given<'_>, created: &Created) -> Result<()> {
    let resources = given
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let rules = resources
        .and_then(|resources| resources.devices().as_deref())
        .unwrap_or_default();
    cgroup::restrict_devices(&given.config.cgroups, rules).inspect_err(|_| {
        created.child.abandon();
    })
}

impl Given<'_> {
    /// Its root file system.
    pub(crate) fn assemble(&self) -> Result<OwnedFd> {
        match &self.user {
            Some(user) => user.assemble(&self.config.root, self.directory),
            None => rootfs::assemble(&self.config.root),
        }
    }

    /// Gives new volumes what the image has at their places.
    fn fill_volumes(&self, root: BorrowedFd<'_>) -> Result<()> {
        let fill = |(volume, target): &(PathBuf, PathBuf)| match &self.user {
            Some(user) => user.act(|| copy_up::fill(user.open_mapped(volume), root, target)),
            None => copy_up::fill(copy_up::open_volume(volume), root, target),
        };
        self.config.copy_up.iter().try_for_each(fill)
    }

    /// The container with this root, up to the step before its command.
    pub(crate) fn create(&self, root: OwnedFd) -> Result<Created> {
        let steps = Steps {
            process: process(self.spec)?,
            user: &self.config.user,
            groups: &self.config.groups,
            create_cwd: self.config.create_cwd,
            init: self.config.init,
            tied: true,
            sets: self.sets,
            hooks: None,
            kept: 0,
            filter: self.filter,
        };
        let host = self.host(root);
        match self.foreign {
            Some(foreign) => foreign.create(&host, self.spec, &steps),
            None => Plan::open(host, self.spec, &self.namespaces, steps)?.create(|_| Ok(())),
        }
    }

    fn host(&self, root: OwnedFd) -> Host<'_> {
        Host {
            place: self.directory,
            root,
            user: self.user.as_ref(),
            cgroups: &self.config.cgroups,
            shm_from: self.config.shm_from.as_deref(),
            window: self.config.window,
            streams: stdio::Wanted::Pipes {
                stdin: self.config.open_stdin,
                output: true,
            },
            gate: None,
            hooks: None,
        }
    }
}

/// Ends of children come as readable bytes; a request to end is not the host's to make here.
fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    let read = file.and_then(|file| file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(Error::Read {
            path: path.into(),
            source,
        }),
    }
}

fn malformed(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    |source| Error::Parse {
        path: path.into(),
        source,
    }
}
