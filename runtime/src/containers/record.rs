//! What is known of one container, as it is kept in `container.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use orlop_proto::runtime::CreateRequest;
use orlop_shim::config::{Cgroup, RootMount};
use orlop_shim::health::{Health, HealthStatus};
use prost::Message as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::state::{Action, Status, next};
use crate::error::{Error, Result};
use crate::files::{self, Durability};
use crate::network::{Attachment, Membership, NetworkMode};
use crate::subids::IdRange;

/// File name of a record in its container's directory.
pub const FILE: &str = "container.json";
/// Grows with every change that an older version would misread.
const VERSION: u32 = 1;

/// One container, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Of the format.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique among all containers; empty for a hidden one.
    pub name: String,
    /// Belongs to one call of Run: in no list, and removed when the call ends.
    pub hidden: bool,
    /// As given at creation.
    #[serde(serialize_with = "encode_config", deserialize_with = "decode_config")]
    pub config: CreateRequest,
    /// The name that the image was asked by; empty without one.
    pub image: String,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// Digest of the image's manifest; empty in records of before there was a commit.
    #[serde(default)]
    pub manifest: String,
    /// When it was made.
    pub created: Timestamp,
    /// What runs, after the image's configuration was merged.
    pub process: Process,
    /// What is mounted besides the root and the kernel's file systems.
    pub mounts: Vec<Mount>,
    /// Ports that the image exposes, `80/tcp`.
    pub exposed: Vec<String>,
    /// Key of the writable snapshot.
    pub snapshot: String,
    /// The snapshot goes with the container.
    pub owns_snapshot: bool,
    /// How the root is mounted.
    pub root: RootMount,
    /// What Stop sends.
    pub stop_signal: i32,
    /// Seconds that Stop waits.
    pub stop_timeout: u32,
    /// What became of it.
    pub state: State,
    /// The bridge networks that it is in whenever it runs.
    pub memberships: Vec<Membership>,
    /// Its place in the network while it runs.
    pub attachment: Option<Attachment>,
    /// Its control groups while it runs.
    pub cgroups: Vec<Cgroup>,
    /// Its ids on the host while it runs, if it has a user namespace of its own.
    #[serde(default)]
    pub ids: Option<IdRange>,
}

/// The process to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// `user[:group]`; empty: root.
    pub user: String,
    /// With a terminal.
    pub tty: bool,
    /// First window size: rows, columns.
    pub window: Option<(u16, u16)>,
}

/// Something of the host's, or a tmpfs, at a path in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// On the host; empty for a tmpfs.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// Not writable through this mount.
    pub read_only: bool,
    /// `rprivate` and so on.
    pub propagation: String,
    /// Tmpfs: bytes; 0: the kernel's default.
    pub size: i64,
    /// Tmpfs: permission bits.
    pub mode: u32,
    /// Bind: what becomes of the mounts below its source.
    #[serde(default)]
    pub below: Below,
    /// Volume: what of it is mounted; empty: all.
    #[serde(default)]
    pub subpath: String,
    /// Tmpfs: programs can be run from it.
    #[serde(default)]
    pub exec: bool,
}

impl Mount {
    /// The name of the volume that it is of.
    pub(crate) fn volume(&self) -> Option<&str> {
        match &self.kind {
            MountKind::Volume { name, .. } => Some(name),
            MountKind::Bind | MountKind::Tmpfs => None,
        }
    }
}

/// What becomes of the mounts below the source of a bind mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Below {
    /// They are there, and read-only with it.
    #[default]
    Alike,
    /// They are not there.
    LeftOut,
    /// They are there, as writable as on the host.
    Writable,
}

/// What a mount is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// Made for this container.
        anonymous: bool,
        /// To be filled with what the image has at the target.
        copy: bool,
    },
    /// Memory.
    Tmpfs,
}

/// What became of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// On the host; 0 when it does not run.
    pub pid: i32,
    /// Of the last run, or of the failed start.
    pub exit_code: i32,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Last start.
    pub started: Option<Timestamp>,
    /// Last exit.
    pub finished: Option<Timestamp>,
    /// Why the last start failed.
    pub error: String,
    /// Restarts by policy since the last start by a person.
    pub restart_count: u32,
    /// Restarts in a row without a run that was long enough to count as settled.
    #[serde(default)]
    pub short_runs: u32,
    /// What its shim said of its health, which keeps it in a file of its own.
    #[serde(skip)]
    pub health: Option<Arc<Health>>,
    /// It does not run, and is to be started again after a pause. Decided anew when the service starts.
    #[serde(skip)]
    pub restarting: bool,
    /// A person stopped it: no policy starts it again.
    pub stopped: bool,
    /// How many times it ended.
    pub exits: u64,
}

impl Record {
    /// The version that this service writes.
    pub const VERSION: u32 = VERSION;

    /// What changes of this record must survive: a container that is removed at its exit would be
    /// removed at the next boot as well.
    pub(crate) fn durability(&self) -> Durability {
        if self.hidden || self.config.auto_remove {
            Durability::Process
        } else {
            Durability::Power
        }
    }

    /// Writes it into its container's directory.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let json = serde_json::to_vec(self).map_err(|e| Error::Json(path.clone(), e))?;
        files::replace(&path, &json, self.durability()).map_err(Error::file("write", path))
    }

    /// Reads it back.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let json = std::fs::read(&path).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&json).map_err(|e| Error::Json(path, e))
    }

    /// The state after an action, or why it cannot happen; `doing` is the word for a person.
    pub(crate) fn next(&self, action: Action, doing: &'static str) -> Result<Status> {
        next(self.state.status, action).ok_or_else(|| Error::WrongState {
            name: self.title().to_owned(),
            status: self.state.status,
            action: doing,
        })
    }

    /// What to call it before a person.
    pub(crate) fn title(&self) -> &str {
        if self.name.is_empty() {
            self.id.get(..12).unwrap_or(&self.id)
        } else {
            &self.name
        }
    }

    /// As asked; else the host's where the network is the host's, else the short id.
    pub fn hostname(&self) -> String {
        if !self.config.hostname.is_empty() {
            return self.config.hostname.clone();
        }
        if self.config.network == "host" || self.config.uts_mode == "host" {
            let host = rustix::system::uname();
            return host.nodename().to_string_lossy().into_owned();
        }
        self.id.chars().take(12).collect()
    }

    /// Its host name with its domain, if it has one.
    pub(crate) fn full_name(&self) -> String {
        match self.config.domainname.as_str() {
            "" => self.hostname(),
            domain => format!("{}.{domain}", self.hostname()),
        }
    }

    /// What others in its networks call it; the first is also for people.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![self.title().to_owned()];
        for name in [&self.id.chars().take(12).collect(), &self.config.hostname] {
            if !name.is_empty() && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// What its network is to be.
    pub(crate) fn network_mode(&self) -> NetworkMode {
        NetworkMode::from(self.config.network.as_str())
    }

    /// Docker's word for its state.
    pub fn status(&self) -> &'static str {
        match self.state.restarting {
            true => "restarting",
            false => self.state.status.as_str(),
        }
    }

    /// What is known of its health; `None` without a check.
    pub fn health(&self) -> Option<HealthStatus> {
        self.state.health.as_ref().map(|health| health.status)
    }

    /// Whether its command runs, or will after a pause.
    pub fn is_up(&self) -> bool {
        self.is_running() || self.state.restarting
    }

    /// Whether its command runs, or would if it were not paused.
    pub fn is_running(&self) -> bool {
        matches!(self.state.status, Status::Running | Status::Paused)
    }
}

/// The request is kept in the encoding of its contract, which later versions can read.
fn encode_config<S: Serializer>(config: &CreateRequest, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(config.encode_to_vec()))
}

fn decode_config<'a, D: Deserializer<'a>>(from: D) -> Result<CreateRequest, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
    CreateRequest::decode(bytes.as_slice()).map_err(de::Error::custom)
}

#[cfg(test)]
impl Record {
    /// A container of busybox that was never started.
    pub(crate) fn example() -> Self {
        Self {
            version: VERSION,
            id: "ab".repeat(32),
            name: "calm_keel".to_owned(),
            hidden: false,
            config: CreateRequest::default(),
            image: "busybox".to_owned(),
            image_id: format!("sha256:{}", "cd".repeat(32)),
            manifest: String::new(),
            created: Timestamp::UNIX_EPOCH,
            process: Process::default(),
            mounts: Vec::new(),
            exposed: Vec::new(),
            snapshot: String::new(),
            owns_snapshot: true,
            root: RootMount {
                lower: Vec::new(),
                upper: "/u".into(),
                work: "/w".into(),
            },
            stop_signal: 15,
            stop_timeout: 10,
            state: State::default(),
            memberships: vec![Membership {
                network: "bridge".to_owned(),
                ..Membership::default()
            }],
            attachment: None,
            cgroups: Vec::new(),
            ids: None,
        }
    }
}
