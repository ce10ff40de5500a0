//! Control groups: where the limits of containers are written. What is written is planned first
//! ([`v1::plan`], [`v2::plan`], pure), then done.

pub mod counters;
pub mod freeze;
pub mod live;
pub mod v1;
pub mod v2;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxHugepageLimit, LinuxResources};

use rustix::process::Signal;

use crate::cgroup;
use crate::config::Cgroup;

/// How often a group that still has a dying process in it is tried again, and how long in between.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// One value for one control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Name of the controller, for whom the file is missing.
    pub controller: &'static str,
    /// File name in the group's directory.
    pub file: Cow<'static, str>,
    /// What to write.
    pub value: String,
    /// The container may start without it: the kernel was built without this file.
    pub optional: bool,
}

/// Why groups are not as they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A limit could not be set.
    #[error("cannot set the limit {value:?} in {path}")]
    Limit {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// The processes of a container could not be frozen in time; they were thawed again.
    #[error("the processes of the container do not freeze ({0}): one may be waiting for a disk")]
    NotFrozen(PathBuf),
    /// A limit was asked that this host's kernel or cgroups cannot set.
    #[error("this host has no {0} cgroup controller, which a requested limit needs")]
    NoController(&'static str),
}

/// What became of groups.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

/// What a host offers.
#[derive(Clone, Debug)]
pub enum Layout {
    /// One mount for all controllers.
    V2(PathBuf),
    /// A mount per hierarchy.
    V1(Vec<v1::Hierarchy>),
}

impl Layout {
    /// Looks at this host's mounts.
    pub fn discover() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        Ok(Self::from_mountinfo(&text))
    }

    /// Looks at mounts in the form of `/proc/self/mountinfo`.
    pub fn from_mountinfo(text: &str) -> Self {
        let hierarchies = v1::hierarchies(text);
        match v2::mount_point(text) {
            Some(path) if hierarchies.is_empty() => Self::V2(path),
            _ => Self::V1(hierarchies),
        }
    }

    /// Where groups are mounted.
    pub fn mounts(&self) -> Vec<&Path> {
        match self {
            Self::V2(mount) => vec![mount],
            Self::V1(hierarchies) => hierarchies.iter().map(|h| h.mount.as_path()).collect(),
        }
    }

    /// Where hierarchies are mounted that are not used here.
    pub fn others(&self) -> Result<Vec<PathBuf>> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        Ok(self.others_in(&text))
    }

    fn others_in(&self, mountinfo: &str) -> Vec<PathBuf> {
        let all = mountinfo.lines().filter(|line| {
            let kind = line.split_once(" - ").map_or("", |(_, right)| right);
            kind.starts_with("cgroup ") || kind.starts_with("cgroup2 ")
        });
        let all = all
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from);
        let used = self.mounts();
        all.filter(|mount| !used.contains(&mount.as_path()))
            .collect()
    }

    /// Makes the groups of the relative path `group` below each mount, and sets their limits. On error
    /// nothing is left of the last level.
    pub fn create(&self, group: &Path, limits: &LinuxResources) -> Result<Vec<Cgroup>> {
        let mut made = Vec::new();
        let result = match self {
            Self::V2(mount) => create_v2(mount, group, limits, &mut made),
            Self::V1(hierarchies) => create_v1(hierarchies, group, limits, &mut made),
        };
        match result {
            Ok(()) => Ok(made),
            Err(error) => {
                for group in &made {
                    remove(&group.path, &made).ok();
                }
                Err(error)
            }
        }
    }
}

fn create_v2(
    mount: &Path,
    group: &Path,
    limits: &LinuxResources,
    made: &mut Vec<Cgroup>,
) -> Result<()> {
    let path = mount.join(group);
    make(&path)?;
    let mut above: Vec<&Path> = group.ancestors().skip(1).collect();
    above.reverse();
    for level in above {
        v2::delegate(&mount.join(level));
    }
    made.push(Cgroup {
        path: path.clone(),
        controllers: None,
    });
    apply(&path, &v2::plan(limits))
}

fn create_v1(
    hierarchies: &[v1::Hierarchy],
    group: &Path,
    limits: &LinuxResources,
    made: &mut Vec<Cgroup>,
) -> Result<()> {
    let plan = v1::plan(limits);
    for write in plan.iter().filter(|write| !write.optional) {
        if !hierarchies.iter().any(|h| h.has(write.controller)) {
            return Err(Error::NoController(write.controller));
        }
    }
    for hierarchy in hierarchies {
        let own: Vec<Write> = plan
            .iter()
            .filter(|write| hierarchy.has(write.controller))
            .cloned()
            .collect();
        if own.is_empty() && hierarchy.controllers == v1::HUGE_PAGES {
            continue;
        }
        let path = hierarchy.mount.join(group);
        make(&path)?;
        made.push(Cgroup {
            path: path.clone(),
            controllers: Some(hierarchy.controllers.clone()),
        });
        if hierarchy.has("cpuset") {
            v1::inherit_cpuset(&hierarchy.mount, &path)?;
        }
        apply(&path, &own)?;
    }
    Ok(())
}

/// `8:0 500` of each disk with a weight of its own.
fn disk_weights(io: &LinuxBlockIo) -> impl Iterator<Item = String> {
    let devices = io.weight_device().iter().flatten();
    devices.filter_map(|device| {
        let (major, minor) = (device.major(), device.minor());
        Some(format!("{major}:{minor} {}", device.weight()?))
    })
}

/// Huge pages are limited by size; `file` is what the limit is called. A size is part of a file's name: what
/// is no size was refused before, and finds no file here.
fn huge_pages(limits: &LinuxResources, file: &str) -> Vec<Write> {
    let is_part = |c: &char| c.is_ascii_alphanumeric();
    let one = |limit: &LinuxHugepageLimit| {
        let size: String = limit.page_size().chars().filter(is_part).collect();
        Write {
            controller: v1::HUGE_PAGES,
            file: format!("hugetlb.{size}.{file}").into(),
            value: limit.limit().to_string(),
            optional: false,
        }
    };
    limits.hugepage_limits().iter().flatten().map(one).collect()
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("make the cgroup", path))
}

fn apply(group: &Path, plan: &[Write]) -> Result<()> {
    for write in plan {
        let path = group.join(&*write.file);
        match fs::write(&path, &write.value) {
            Ok(()) => {}
            Err(_) if write.optional => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoController(write.controller));
            }
            Err(source) => {
                return Err(Error::Limit {
                    path,
                    value: write.value.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Removes one of the groups of a container; one that is not there is success. What is left in it, of
/// a container whose shim was killed, is killed; blocks while it dies.
pub fn remove(path: &Path, all: &[Cgroup]) -> io::Result<()> {
    let mut attempt = 0;
    loop {
        match fs::remove_dir(path) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && attempt < REMOVE_ATTEMPTS =>
            {
                attempt += 1;
                cgroup::signal_all(all, Signal::KILL);
                freeze::release(all);
                remove_below(path);
                std::thread::sleep(REMOVE_PAUSE);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
    }
}

/// Groups that something in the container made below its own; deepest first.
fn remove_below(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            fs::remove_dir(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_layout_is_read_from_the_mounts() {
        let v2 = Layout::from_mountinfo(V2);
        assert!(matches!(v2, Layout::V2(ref path) if path == Path::new("/sys/fs/cgroup")));
        let Layout::V1(found) = Layout::from_mountinfo(HYBRID) else {
            unreachable!("a host with v1 hierarchies uses them");
        };
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|h| h.has("cpu") && h.has("cpuacct")));
        let others = Layout::from_mountinfo(HYBRID).others_in(HYBRID);
        let expected = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];
        assert_eq!(others, expected.map(PathBuf::from));
        assert!(v2.others_in(V2).is_empty());
    }
}
