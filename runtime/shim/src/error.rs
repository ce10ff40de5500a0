//! Everything that can go wrong between the runtime's request and the container's first instruction.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use crate::protocol::Failure;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// One variant for each step that can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a document this shim understands")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the container was written for version {0} of the shim's protocol, this is another")]
    Version(u32),
    #[error("the container's specification lacks {0}")]
    Missing(&'static str),
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("cannot keep the shim's program file from the container")]
    Program(#[source] io::Error),
    #[error("cannot set up the shim: {step}")]
    Setup {
        step: &'static str,
        source: io::Error,
    },
    #[error("cannot make the container's namespaces")]
    Namespaces(#[source] io::Error),
    #[error("cannot join the namespace {path}")]
    Join { path: PathBuf, source: io::Error },
    #[error("cannot use the cgroup {path}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("cannot make the root file system: {step}")]
    Root {
        step: &'static str,
        source: io::Error,
    },
    #[error("cannot open {path}, the source of the mount at {destination}")]
    Source {
        path: PathBuf,
        destination: PathBuf,
        source: io::Error,
    },
    #[error("cannot mount at {destination}: {step}")]
    Mount {
        destination: PathBuf,
        step: &'static str,
        source: io::Error,
    },
    #[error("the mount at {destination} has the option {option:?}, which its type does not know")]
    Option {
        destination: PathBuf,
        option: String,
    },
    #[error("{path} leads through a symbolic link; below /proc, /sys and /dev none is allowed")]
    Link { path: PathBuf },
    #[error("{path} cannot be made in the container")]
    Target { path: PathBuf, source: io::Error },
    #[error("{path} is not the file system that it has to be: {expected} is expected there")]
    WrongFilesystem {
        path: &'static str,
        expected: &'static str,
    },
    #[error("cannot make the device {path}")]
    Device { path: PathBuf, source: io::Error },
    #[error("/dev/null of the container is not the null device")]
    NotNull,
    #[error("cannot make the terminal: {step}")]
    Terminal {
        step: &'static str,
        source: io::Error,
    },
    #[error("cannot hide {path}")]
    Mask { path: PathBuf, source: io::Error },
    #[error("{0:?} is not the name of a kernel parameter")]
    SysctlName(String),
    #[error("cannot set the kernel parameter {name}")]
    Sysctl { name: String, source: io::Error },
    #[error("cannot set the host name")]
    Hostname(#[source] io::Error),
    #[error("cannot fill the volume for {path}")]
    CopyUp { path: PathBuf, source: io::Error },
    #[error("{0:?} is not a user or a group: a number has to be below 2147483648")]
    UserNumber(String),
    #[error("no user {0:?} in the container's /etc/passwd")]
    UserUnknown(String),
    #[error("no group {0:?} in the container's /etc/group")]
    GroupUnknown(String),
    #[error("cannot read {path} of the container")]
    Accounts {
        path: &'static str,
        source: io::Error,
    },
    #[error("cannot become user {uid}: {step}")]
    Become {
        uid: u32,
        step: &'static str,
        source: io::Error,
    },
    #[error("cannot use the working directory {path:?}")]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("the working directory {path:?} is outside of the container")]
    WorkingDirectoryOutside { path: PathBuf },
    #[error("the seccomp profile is not usable: {0}")]
    SeccompProfile(String),
    #[error("{module} cannot confine the container as {name:?}: {problem}")]
    NoLabel {
        module: &'static str,
        name: String,
        problem: &'static str,
    },
    #[error("{module} does not confine the container as {name:?}; is that loaded?")]
    Label {
        module: &'static str,
        name: String,
        source: io::Error,
    },
    #[error("cannot load the seccomp filter")]
    Seccomp(#[source] io::Error),
    #[error("cannot connect the standard streams: {step}")]
    Streams {
        step: &'static str,
        source: io::Error,
    },
    #[error("no command is given")]
    NoCommand,
    #[error("an argument or a variable contains a zero byte")]
    ZeroByte,
    #[error("exec: {command:?}: executable file not found in $PATH")]
    NotInPath { command: String },
    #[error("exec: {command:?}")]
    NotFound { command: String, source: io::Error },
    #[error("exec: {command:?}")]
    NotExecutable { command: String, source: io::Error },
    #[error("exec: {command:?}")]
    Exec { command: String, source: io::Error },
    #[error("{0}")]
    Hook(String),
    #[error("the container has ended")]
    Ended,
    #[error("the process ended before its command began; its exit status was {0}")]
    Vanished(i32),
    #[error("the process did not become ready")]
    Silent(#[source] io::Error),
    #[error("{0}")]
    Child(ChildFailure),
    #[error("cannot use the runtime {program}: {step}")]
    Runtime {
        program: PathBuf,
        step: &'static str,
        source: io::Error,
    },
}

/// What a child, or another runtime, told of its failure.
#[derive(Debug)]
pub(crate) struct ChildFailure {
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

impl std::fmt::Display for ChildFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// For programs.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Child(child) => child.failure,
            Self::NotInPath { .. } | Self::NotFound { .. } => Failure::CommandNotFound,
            Self::NotExecutable { .. } => Failure::CommandNotExecutable,
            Self::Ended => Failure::NotRunning,
            Self::Unsupported(_)
            | Self::Missing(_)
            | Self::Option { .. }
            | Self::Link { .. }
            | Self::WrongFilesystem { .. }
            | Self::SysctlName(_)
            | Self::UserNumber(_)
            | Self::UserUnknown(_)
            | Self::GroupUnknown(_)
            | Self::Accounts { .. }
            | Self::WorkingDirectory { .. }
            | Self::WorkingDirectoryOutside { .. }
            | Self::SeccompProfile(_)
            | Self::NoLabel { .. }
            | Self::Label { .. }
            | Self::NoCommand
            | Self::ZeroByte
            | Self::Source { .. } => Failure::Invalid,
            _ => Failure::System,
        }
    }

    /// For people: the error and what caused it, in one line.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(message, ": {}", describe(error)).ok();
            cause = error.source();
        }
        message
    }
}

/// The system's words for an error, without Rust's "(os error N)".
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

/// Writes a line to the shim's log.
pub(crate) fn note(message: &str) {
    use std::io::Write as _;
    drop(writeln!(io::stderr(), "orlop-shim: {message}"));
}
