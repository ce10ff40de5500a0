//! What is kept of a container, in `ROOT/ID/`: `state.json`, which is a [`Record`], `config.json`, its
//! specification as it was, and the gate where it waits for its start.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, Spec, State};
use orlop_shim::config::Cgroup;
use orlop_shim::{cgroups::freeze, oci};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::bundle::{self, SPEC_FILE};
use crate::error::{Error, Result};
use crate::hooks;

const RECORD_FILE: &str = "state.json";
/// The longest id: runc's.
const ID_BYTES_MAX: usize = 1024;

/// What is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Clock ticks since boot at which that process began: numbers are used again.
    pub(crate) started: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: jiff::Timestamp,
    pub(crate) cgroups: Vec<Cgroup>,
    /// The unit of systemd that these are.
    #[serde(default)]
    pub(crate) scope: Option<String>,
    pub(crate) annotations: HashMap<String, String>,
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container that exists.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) directory: PathBuf,
    pub(crate) record: Record,
}

/// The directory of a container.
pub(crate) fn directory(root: &Path, id: &str) -> Result<PathBuf> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let plain = id.bytes().all(known) && !matches!(id, "" | "." | "..");
    match plain && id.len() <= ID_BYTES_MAX {
        true => Ok(root.join(id)),
        false => Err(Error::Id(id.to_owned())),
    }
}

/// Makes the directory of a new container.
pub(crate) fn reserve(root: &Path, id: &str) -> Result<PathBuf> {
    let directory = directory(root, id)?;
    fs::create_dir_all(root).map_err(Error::file("make", root))?;
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists),
        made => made
            .map_err(Error::file("make", &directory))
            .map(|()| directory),
    }
}

/// Writes a document: complete or not at all, and on disk.
fn write(directory: &Path, name: &str, document: &impl Serialize) -> Result<()> {
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.new"));
    let written = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    written().map_err(Error::file("write", &path))
}

impl Container {
    /// One that was made.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        let directory = directory(root, id)?;
        match bundle::read(&directory.join(RECORD_FILE)) {
            Ok(record) => Ok(Self { directory, record }),
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::Missing)
            }
            Err(error) => Err(error),
        }
    }

    /// All that were made, those that cannot be read left out: one may just have been removed.
    pub(crate) fn all(root: &Path) -> Vec<Self> {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<Self> = names.filter_map(|id| Self::open(root, &id).ok()).collect();
        all.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        all
    }

    /// Writes down what is to be kept.
    pub(crate) fn keep(&self, spec: &Spec) -> Result<()> {
        write(&self.directory, SPEC_FILE, spec)?;
        write(&self.directory, RECORD_FILE, &self.record)
    }

    /// Its specification.
    pub(crate) fn spec(&self) -> Result<Spec> {
        bundle::read(&self.directory.join(SPEC_FILE))
    }

    /// A handle of its first process, unless that has ended.
    pub(crate) fn first(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.record.pid)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let same = oci::start_time(self.record.pid).ok()? == self.record.started;
        (same && !is_zombie(self.record.pid)).then_some(handle)
    }

    /// Where in its life it is.
    pub(crate) fn status(&self) -> Status {
        if self.first().is_none() {
            Status::Stopped
        } else if freeze::is_frozen(&self.record.cgroups) {
            Status::Paused
        } else if oci::gate(&self.directory).exists() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// What hooks are told.
    pub(crate) fn state(&self, status: ContainerState, spec: &Spec) -> State {
        let pid = (status != ContainerState::Stopped).then_some(self.record.pid);
        let mut state = hooks::state(spec, &self.record.id, &self.record.bundle);
        state.set_status(status).set_pid(pid);
        state
    }

    /// What callers are told: the same, and runc's additions.
    pub(crate) fn describe(&self, spec: &Spec) -> serde_json::Value {
        let status = self.status();
        let pid = match status {
            Status::Stopped => 0,
            _ => self.record.pid,
        };
        serde_json::json!({
            "ociVersion": spec.version(),
            "id": self.record.id,
            "pid": pid,
            "status": status.word(),
            "bundle": self.record.bundle,
            "rootfs": self.record.rootfs,
            "created": self.record.created.to_string(),
            "annotations": self.record.annotations,
            "owner": "",
        })
    }
}

/// Whether a process has ended and waits for its parent to know.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.trim_start().starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_name() {
        let root = Path::new("/r");
        assert_eq!(
            directory(root, "a.b-c_d+1").unwrap(),
            Path::new("/r/a.b-c_d+1")
        );
        for id in ["", ".", "..", "a/b", "a b", "ä", &"a".repeat(1025)] {
            assert!(matches!(directory(root, id), Err(Error::Id(_))), "{id}");
        }
    }

    #[test]
    fn an_id_is_given_once() {
        let root = tempfile::tempdir().unwrap();
        reserve(root.path(), "one").unwrap();
        assert!(matches!(reserve(root.path(), "one"), Err(Error::Exists)));
        assert!(matches!(
            Container::open(root.path(), "one"),
            Err(Error::Missing)
        ));
    }
}
