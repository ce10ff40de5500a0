//! The files by which the runtime tells a shim what to do, and by which a shim tells what became of
//! its container. They live in the container's directory, `ROOT/runtime/containers/ID/`.
//!
//! | file | written by | content |
//! |---|---|---|
//! | `config.json` | runtime | OCI runtime-spec document (the process, namespaces, mounts, limits) |
//! | `shim.json` | runtime | [`ShimConfig`] |
//! | `container.log`, `container.log.1`, … | shim | one JSON line per line of output, Docker's json-file format; the older, the higher the number |
//! | `health.json` | shim | [`crate::health::Health`], after each check of it |
//! | `exit.json` | shim | [`ExitStatus`], on disk before anyone is told |

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::health::HealthCheck;
use crate::restart::{OnUnhealthy, Policy, Restarts};

/// File name of the OCI runtime-spec document.
pub const SPEC_FILE: &str = "config.json";
/// File name of the [`ShimConfig`].
pub const SHIM_FILE: &str = "shim.json";
/// File name of the log.
pub const LOG_FILE: &str = "container.log";
/// File name of the container's health.
pub const HEALTH_FILE: &str = "health.json";
/// File name of the [`ExitStatus`].
pub const EXIT_FILE: &str = "exit.json";

/// What an OCI runtime-spec document has no place for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimConfig {
    /// [`crate::protocol::VERSION`] of the service that wrote it.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// Where the shim listens: a path, never an abstract name.
    pub socket: PathBuf,
    /// The container's root file system.
    pub root: RootMount,
    /// Keep standard input open for attachers; otherwise it is `/dev/null`.
    pub open_stdin: bool,
    /// Directories of the container's cgroup, made by the runtime: one per v1 hierarchy, or one for
    /// v2. The shim puts the container into them before any code of its runs, and kills what is left
    /// in them after its exit.
    pub cgroups: Vec<Cgroup>,
    /// Files written into the root file system's `/etc` as read-write bind mounts come as ordinary
    /// mounts of the spec; this is the log's cap instead: bytes of `container.log` at which it is
    /// rotated to `container.log.1`.
    pub log_bytes_max: u64,
    /// How many files of the log are kept; 0: there is no log.
    #[serde(default = "two")]
    pub log_files: u32,
    /// Volumes that are to be filled with what the image has at their target, before the start:
    /// (directory of the volume on the host, absolute path in the container).
    pub copy_up: Vec<(PathBuf, PathBuf)>,
    /// The window size to begin with, rows and columns, where the process has a terminal.
    pub window: Option<(u16, u16)>,
    /// `user[:group]` as the image or the caller gave it: looked up by the shim in the container's
    /// own `/etc/passwd` and `/etc/group`. It replaces the numbers of the spec's `process.user`.
    pub user: String,
    /// More groups of the process and of those that join it, by name or number.
    pub groups: Vec<String>,
    /// Make `process.cwd` if it is missing, as an image's WORKDIR promises.
    pub create_cwd: bool,
    /// `exit.json` need not survive a power cut: the container is removed at its exit, and would be at
    /// the next boot as well.
    #[serde(default)]
    pub volatile_exit: bool,
    /// The container's first process is one of the shim's own, which reaps orphans and passes signals
    /// on to the command.
    pub init: bool,
    /// The mount namespace of a container whose `/dev/shm` takes the place of the one that the spec
    /// has (a file of `/proc/PID/ns`, or a descriptor of one).
    pub shm_from: Option<PathBuf>,
    /// How to find out about the container's health, if at all.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// What it decides by itself.
    #[serde(default)]
    pub away: Away,
    /// The program of another OCI runtime, which makes the container and its later processes.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
}

/// As many files of a log as versions without [`ShimConfig::log_files`] kept.
fn two() -> u32 {
    2
}

/// What a shim decides about its container while there is no service to do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Away {
    /// When the container is started again; `None`: never, whatever becomes of its health.
    pub policy: Option<Policy>,
    /// Restarts so far.
    pub restarts: Restarts,
    /// What is done when it is unhealthy.
    pub on_unhealthy: OnUnhealthy,
    /// The signal that asks it to end.
    pub stop_signal: i32,
    /// Seconds that it may then take.
    pub stop_timeout: u32,
}

/// How the root file system is put together; the runtime passes on what the store said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootMount {
    /// Read-only directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// Overlay's upper directory.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
}

/// One directory of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// Its path on the host.
    pub path: PathBuf,
    /// The v1 controllers mounted there (`memory`, `cpu,cpuacct`, `name=systemd`); empty for v2 beside v1,
    /// where it has none; `None` for v2 alone.
    pub controllers: Option<String>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code, or 128 + the signal.
    pub code: i32,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// Restarts so far; `None` from shims that did none.
    #[serde(default)]
    pub restarts: Option<Restarts>,
    /// The shim ended it as a person would, because it was unhealthy: no policy starts it again.
    #[serde(default)]
    pub stopped: bool,
}
