//! What can go wrong. Some texts are those of runc, by which containerd tells errors apart.

use std::error::Error as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::args::Format;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("{0:?} is not the id of a container: letters, digits and _+-. only")]
    Id(String),
    #[error("container with given ID already exists")]
    Exists,
    #[error("container does not exist")]
    Missing,
    #[error("container not running")]
    NotRunning,
    #[error("cannot start a container that is {0}")]
    NotCreated(&'static str),
    #[error("cannot exec in a container that is {0}")]
    NoExec(&'static str),
    #[error("cannot delete a container that is not stopped: {0}")]
    NotStopped(&'static str),
    #[error("{0:?} is not a signal")]
    Signal(String),
    #[error("{0:?} is not a pair of numbers, UID[:GID]")]
    User(String),
    #[error("cannot set the sysctl {name:?}: {problem}")]
    Sysctl { name: String, problem: &'static str },
    #[error("{0:?} is not a path of a cgroup")]
    CgroupsPath(PathBuf),
    #[error("{0:?} is not a path of a cgroup for --systemd-cgroup, SLICE:PREFIX:NAME")]
    ScopePath(String),
    #[error("systemd does not keep a scope for the container: {0}")]
    Scope(String),
    #[error("the process is to have a terminal: --console-socket has to say who takes it")]
    NoConsole,
    #[error("--console-socket is given, and the process has no terminal")]
    NoTerminal,
    #[error("--preserve-fds and LISTEN_FDS count descriptors from 3 on: {0} is not open")]
    Descriptor(u32),
    #[error("the bundle lacks {0}")]
    Lacks(&'static str),
    #[error("the hook {path} failed: {message}")]
    Hook { path: PathBuf, message: String },
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is not what it has to be")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    Cgroups(#[from] orlop_shim::cgroups::Error),
    #[error(transparent)]
    Container(#[from] orlop_shim::oci::Error),
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// The error and what caused it, in one line.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        message
    }

    /// Tells people, and the caller in its log.
    pub(crate) fn report(&self, log: Option<&Path>, format: Format) {
        let message = self.message();
        drop(writeln!(io::stderr(), "orlop-oci: {message}"));
        let Some(path) = log else { return };
        let time = jiff::Timestamp::now();
        let line = match format {
            Format::Json => serde_json::json!({
                "level": "error", "msg": message, "time": time.to_string(),
            })
            .to_string(),
            Format::Text => format!("time=\"{time}\" level=error msg={message:?}"),
        };
        // It was said on standard error.
        let file = OpenOptions::new().append(true).create(true).open(path);
        drop(file.and_then(|mut file| writeln!(file, "{line}")));
    }
}
