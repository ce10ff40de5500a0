//! The last steps of every process of the container, first or later: working directory, limits,
//! identity, capabilities, seccomp, and the search for its program.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use oci_spec::runtime::{PosixRlimitType, Process};
use orlop_sys::seccomp::Instruction;
use orlop_sys::{process as sys, seccomp};
use rustix::fs::{Access, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};

use crate::capabilities::Sets;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::hooks::{self, Hooks};
use crate::init;
use crate::lsm;
use crate::rootfs::{self, Kind};
use crate::user::{Accounts, Identity};

/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The rest of a process's mask of access bits, unless the specification has one.
pub(crate) const DEFAULT_UMASK: u32 = 0o022;

/// All that the last steps need, made while the shim's own memory is at hand.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    pub(crate) process: &'a Process,
    pub(crate) user: &'a str,
    /// More groups, by name or number.
    pub(crate) groups: &'a [String],
    pub(crate) create_cwd: bool,
    /// Leave a first process of ours behind, and run the command below it.
    pub(crate) init: bool,
    /// It dies with the process that started it.
    pub(crate) tied: bool,
    pub(crate) sets: Sets,
    pub(crate) filter: Option<&'a [Instruction]>,
    /// Who takes part just before the command.
    pub(crate) hooks: Option<&'a dyn Hooks>,
    /// How many descriptors of the caller, from 3 on, the command has as well.
    pub(crate) kept: u32,
}

impl Steps<'_> {
    /// The identity, by the container's account files.
    pub(crate) fn identity(&self, root: BorrowedFd<'_>) -> Result<Identity> {
        let names = self.groups.iter().map(String::as_str).chain([self.user]);
        let plain = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b':')
        };
        let accounts = match Accounts::read(root) {
            // Numbers need no account file, hence no readable one.
            Err(_) if names.into_iter().all(plain) => Accounts::default(),
            read => read?,
        };
        let numbers = self.process.user().additional_gids().iter().flatten();
        let mut more: Vec<u32> = numbers.copied().collect();
        for group in self.groups {
            more.push(accounts.group_number(group)?);
        }
        accounts.resolve(self.user, &more)
    }

    /// A handle of the working directory, which is inside of the container: magic links, which lead
    /// to whatever some descriptor was opened on, are not followed.
    pub(crate) fn open_cwd(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        let path = self.process.cwd().as_path();
        let fail = |source| Error::WorkingDirectory {
            path: path.into(),
            source,
        };
        if !path.is_absolute() {
            return Err(fail(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not an absolute path",
            )));
        }
        match rootfs::open_in(root, path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.create_cwd => {
                rootfs::ensure(root, path, Kind::Directory)
            }
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
                Err(Error::WorkingDirectoryOutside { path: path.into() })
            }
            result => result.map_err(fail),
        }
    }

    /// The descriptors that the command has besides its streams.
    pub(crate) fn kept(&self) -> impl Iterator<Item = RawFd> {
        (3..).take(self.kept as usize)
    }

    /// Fails if there is no program to execute.
    pub(crate) fn find_program(&self, identity: &Identity) -> Result<()> {
        Program::new(self.process, identity)?.find()
    }

    /// Becomes the container's process. Returns only with an error.
    pub(crate) fn run(
        &self,
        cwd: BorrowedFd<'_>,
        identity: &Identity,
        shim: &Channel,
    ) -> Result<Infallible> {
        let setup = |step| move |source| Error::Setup { step, source };
        self.enter(cwd)?;
        sys::new_session_keyring()
            .or_else(ignore_missing)
            .map_err(setup("session keyring"))?;
        let umask = self.process.user().umask().unwrap_or(DEFAULT_UMASK);
        rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
        let program = Program::new(self.process, identity)?;
        if self.init {
            init::stay_behind(|| {
                lsm::at_once(self.process)?;
                self.confine(identity, shim)
            })?;
        }
        sys::reset_signals().map_err(setup("signals"))?;
        sys::close_on_exec_from(3 + self.kept).map_err(setup("descriptors"))?;
        lsm::at_exec(self.process)?;
        self.limit();
        self.confine(identity, shim)?;
        if let Some(hooks) = self.hooks {
            hooks::run(hooks.start_container())?;
        }
        program.exec()
    }

    /// Identity, capabilities and filter, for ever.
    fn confine(&self, identity: &Identity, shim: &Channel) -> Result<()> {
        let setup = |step| move |source| Error::Setup { step, source };
        shim.stop_waiting().map_err(setup("channel"))?;
        let locked = self.process.no_new_privileges().unwrap_or(false);
        if !locked {
            self.load_filter()?;
        }
        self.assume(identity)?;
        // Without its shim it has no streams and nobody records its exit; a change of the user undoes
        // this, so it comes after. A program with set-user-id bits undoes it as well.
        let signal = self.tied.then_some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal)
            .map_err(|errno| setup("death signal")(errno.into()))?;
        // The signal of a death before that never comes.
        if self.tied && shim.is_deserted() {
            sys::exit_now(1);
        }
        if locked {
            rustix::thread::set_no_new_privs(true)
                .map_err(|errno| setup("no new privileges")(errno.into()))?;
            self.load_filter()?;
        }
        Ok(())
    }

    fn enter(&self, cwd: BorrowedFd<'_>) -> Result<()> {
        let path = self.process.cwd();
        let fail = |errno: rustix::io::Errno| Error::WorkingDirectory {
            path: path.clone(),
            source: errno.into(),
        };
        rustix::process::fchdir(cwd).map_err(fail)?;
        let now = rustix::process::getcwd(Vec::new()).map_err(fail)?;
        // The kernel puts "(unreachable)" before a directory that is not below the root.
        if now.as_bytes().starts_with(b"/") {
            Ok(())
        } else {
            Err(Error::WorkingDirectoryOutside { path: path.clone() })
        }
    }

    /// Raises hard limits as far as they are wanted and allowed: in a user namespace of its own a
    /// process may not. Nothing is lowered yet.
    pub(crate) fn raise_limits(&self) {
        for limit in self.process.rlimits().iter().flatten() {
            let resource = resource(limit.typ());
            let now = rustix::process::getrlimit(resource);
            let wanted = Some(limit.hard()).filter(|value| *value != u64::MAX);
            let raises = now
                .maximum
                .is_some_and(|now| wanted.is_none_or(|wanted| wanted > now));
            if raises {
                let current = now.current;
                let maximum = wanted;
                rustix::process::setrlimit(resource, Rlimit { current, maximum }).ok();
            }
        }
    }

    /// A hard limit cannot be raised without `CAP_SYS_RESOURCE`; then the one in force stays, as the
    /// service said when the container was made. Near the end: a low limit may stop anything else.
    fn limit(&self) {
        for limit in self.process.rlimits().iter().flatten() {
            let resource = resource(limit.typ());
            let value = |value: u64| Some(value).filter(|value| *value != u64::MAX);
            let wanted = Rlimit {
                current: value(limit.soft()),
                maximum: value(limit.hard()),
            };
            if rustix::process::setrlimit(resource, wanted).is_ok() {
                continue;
            }
            let maximum = rustix::process::getrlimit(resource).maximum;
            let current = match (wanted.current, maximum) {
                (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
                (wanted, maximum) => wanted.or(maximum),
            };
            rustix::process::setrlimit(resource, Rlimit { current, maximum }).ok();
        }
    }

    fn load_filter(&self) -> Result<()> {
        self.filter.map_or(Ok(()), |filter| {
            seccomp::load(filter).map_err(Error::Seccomp)
        })
    }

    fn assume(&self, identity: &Identity) -> Result<()> {
        let uid = identity.uid;
        let fail = |step| move |source: io::Error| Error::Become { uid, step, source };
        let groups: Vec<Gid> = identity
            .groups
            .iter()
            .map(|&gid| Gid::from_raw(gid))
            .collect();
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(identity.gid));
        rustix::thread::set_thread_groups(&groups).map_err(|e| fail("groups")(e.into()))?;
        rustix::thread::set_thread_res_gid(group, group, group)
            .map_err(|e| fail("group")(e.into()))?;
        self.sets.bound().map_err(fail("bounding capabilities"))?;
        rustix::thread::set_thread_res_uid(user, user, user).map_err(|e| fail("user")(e.into()))?;
        self.sets.apply(uid).map_err(fail("capabilities"))
    }
}

/// A kernel without keyrings has nothing to protect.
fn ignore_missing(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(code) if code == Errno::ENOSYS as i32 => Ok(()),
        _ => Err(error),
    }
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// Program, arguments and environment, as the kernel takes them.
struct Program {
    name: String,
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    fn new(process: &Process, identity: &Identity) -> Result<Self> {
        let args = process.args().as_deref().unwrap_or_default();
        let name = args
            .first()
            .filter(|name| !name.is_empty())
            .ok_or(Error::NoCommand)?
            .clone();
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|variable| variable.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        let path = env
            .iter()
            .rev()
            .find_map(|variable| variable.strip_prefix("PATH="));
        let path = path.unwrap_or(DEFAULT_PATH);
        let candidates: Vec<String> = if name.contains('/') {
            vec![name.clone()]
        } else {
            let directories = path.split(':').filter(|directory| !directory.is_empty());
            directories
                .map(|directory| format!("{directory}/{name}"))
                .collect()
        };
        Ok(Self {
            name,
            candidates: strings(&candidates)?,
            args: strings(args)?,
            env: strings(&env)?,
        })
    }

    /// Tries one candidate after another; the most telling error is the answer.
    fn exec(&self) -> Result<Infallible> {
        let mut worst = None;
        for candidate in &self.candidates {
            let Err(errno) = nix::unistd::execve(candidate, &self.args, &self.env);
            match errno {
                Errno::ENOENT | Errno::ENOTDIR if !exists(candidate) => {}
                errno => {
                    worst.get_or_insert(errno);
                }
            }
        }
        let Some(errno) = worst else {
            return Err(self.missing());
        };
        let command = self.name.clone();
        let source = io::Error::from(errno);
        Err(match errno {
            Errno::ENOENT | Errno::ENOTDIR => Error::NotFound { command, source },
            Errno::EACCES | Errno::ENOEXEC | Errno::EPERM | Errno::EISDIR | Errno::ELIBBAD => {
                Error::NotExecutable { command, source }
            }
            _ => Error::Exec { command, source },
        })
    }
}

impl Program {
    /// Says what [`Self::exec`] would say of a program that is not there, or that nobody may execute.
    fn find(&self) -> Result<()> {
        // What a relative path means is known only in the working directory.
        let relative = self.name.contains('/') && !self.name.starts_with('/');
        let executable =
            |candidate: &CString| rustix::fs::access(candidate.as_c_str(), Access::EXEC_OK).is_ok();
        if relative || self.candidates.iter().any(executable) {
            Ok(())
        } else if self.candidates.iter().any(exists) {
            Err(Error::NotExecutable {
                command: self.name.clone(),
                source: Errno::EACCES.into(),
            })
        } else {
            Err(self.missing())
        }
    }

    fn missing(&self) -> Error {
        let command = self.name.clone();
        match self.name.contains('/') {
            true => Error::NotFound {
                command,
                source: Errno::ENOENT.into(),
            },
            false => Error::NotInPath { command },
        }
    }
}

/// Whether there is a file: then `ENOENT` speaks of its interpreter.
fn exists(candidate: &CString) -> bool {
    rustix::fs::stat(candidate.as_c_str()).is_ok()
}

fn strings(strings: &[String]) -> Result<Vec<CString>> {
    let strings = strings.iter().map(|text| CString::new(text.as_str()));
    strings
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Error::ZeroByte)
}

/// Makes `slave` the controlling terminal and the standard streams.
pub(crate) fn adopt_terminal(slave: &OwnedFd) -> Result<()> {
    let fail = |step| {
        move |errno: rustix::io::Errno| Error::Terminal {
            step,
            source: errno.into(),
        }
    };
    rustix::process::ioctl_tiocsctty(slave).map_err(fail("make it the controlling one"))?;
    adopt_streams([slave.as_fd(), slave.as_fd(), slave.as_fd()])
}

/// Makes these the standard streams.
pub(crate) fn adopt_streams([stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> Result<()> {
    let fail = |errno: rustix::io::Errno| Error::Streams {
        step: "dup",
        source: errno.into(),
    };
    rustix::stdio::dup2_stdin(stdin).map_err(fail)?;
    rustix::stdio::dup2_stdout(stdout).map_err(fail)?;
    rustix::stdio::dup2_stderr(stderr).map_err(fail)
}
