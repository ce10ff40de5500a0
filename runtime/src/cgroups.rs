//! Control groups: where a container's limits are written. What is written is planned first
//! ([`v1::plan`], [`v2::plan`], pure), then done.

pub(crate) mod freeze;
pub(crate) mod live;
pub(crate) mod usage;
pub mod v1;
pub mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use orlop_shim::config::Cgroup;

use crate::error::{Error, Result};

/// How often a group that still has a dying process in it is tried again, and how long in between.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// One value for one control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Name of the controller, for whom the file is missing.
    pub controller: &'static str,
    /// File name in the group's directory.
    pub file: &'static str,
    /// What to write.
    pub value: String,
    /// The container may start without it: the kernel was built without this file.
    pub optional: bool,
}

/// What this host offers, and the part of the tree that belongs to this instance.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Layout,
    /// `orlop/<instance>`.
    parent: String,
}

#[derive(Clone, Debug)]
enum Layout {
    /// One mount for all controllers.
    V2(PathBuf),
    /// A mount per hierarchy.
    V1(Vec<v1::Hierarchy>),
}

impl Cgroups {
    /// Looks at this host's mounts.
    pub fn discover(instance: &str) -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        Ok(Self::from_mountinfo(&text, instance))
    }

    fn from_mountinfo(text: &str, instance: &str) -> Self {
        let hierarchies = v1::hierarchies(text);
        let layout = match v2::mount_point(text) {
            Some(path) if hierarchies.is_empty() => Layout::V2(path),
            _ => Layout::V1(hierarchies),
        };
        Self {
            layout,
            parent: format!("orlop/{instance}"),
        }
    }

    /// A container's path below each mount.
    pub fn path_of(&self, id: &str) -> String {
        format!("/{}/{id}", self.parent)
    }

    /// Makes a container's groups and sets their limits. On error nothing is left.
    pub fn create(&self, id: &str, limits: &LinuxResources) -> Result<Vec<Cgroup>> {
        let mut made = Vec::new();
        let result = match &self.layout {
            Layout::V2(mount) => self.create_v2(mount, id, limits, &mut made),
            Layout::V1(hierarchies) => self.create_v1(hierarchies, id, limits, &mut made),
        };
        match result {
            Ok(()) => Ok(made),
            Err(error) => {
                self.remove(&made);
                Err(error)
            }
        }
    }

    fn create_v2(
        &self,
        mount: &Path,
        id: &str,
        limits: &LinuxResources,
        made: &mut Vec<Cgroup>,
    ) -> Result<()> {
        let parent = mount.join(&self.parent);
        make(&parent)?;
        for level in [mount, &mount.join("orlop"), &parent] {
            v2::delegate(level);
        }
        let path = parent.join(id);
        make(&path)?;
        made.push(Cgroup {
            path: path.clone(),
            controllers: None,
        });
        apply(&path, &v2::plan(limits))
    }

    fn create_v1(
        &self,
        hierarchies: &[v1::Hierarchy],
        id: &str,
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
            let path = hierarchy.mount.join(&self.parent).join(id);
            make(&path)?;
            made.push(Cgroup {
                path: path.clone(),
                controllers: Some(hierarchy.controllers.clone()),
            });
            if hierarchy.has("cpuset") {
                v1::inherit_cpuset(&hierarchy.mount, &path)?;
            }
            let own: Vec<Write> = plan
                .iter()
                .filter(|write| hierarchy.has(write.controller))
                .cloned()
                .collect();
            apply(&path, &own)?;
        }
        Ok(())
    }

    /// Removes a container's groups; a group that is not there is success. Blocks while dying processes
    /// are in them.
    pub fn remove(&self, groups: &[Cgroup]) {
        for group in groups {
            if let Err(error) = remove(&group.path, groups) {
                tracing::warn!(path = %group.path.display(), %error, "cannot remove a cgroup");
            }
        }
    }

    /// Every group of this instance that belongs to none of these containers.
    pub fn orphans(&self, known: impl Fn(&str) -> bool) -> Vec<Cgroup> {
        let mounts: Vec<&Path> = match &self.layout {
            Layout::V2(mount) => vec![mount],
            Layout::V1(hierarchies) => hierarchies.iter().map(|h| h.mount.as_path()).collect(),
        };
        let mut orphans = Vec::new();
        for mount in mounts {
            let Ok(entries) = fs::read_dir(mount.join(&self.parent)) else {
                continue;
            };
            for entry in entries.flatten() {
                let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let name = entry.file_name();
                if is_group && !name.to_str().is_some_and(&known) {
                    orphans.push(Cgroup {
                        path: entry.path(),
                        controllers: None,
                    });
                }
            }
        }
        orphans
    }

    /// Removes the instance's own groups, once they are empty.
    pub fn release(&self) {
        let mounts: Vec<&Path> = match &self.layout {
            Layout::V2(mount) => vec![mount],
            Layout::V1(hierarchies) => hierarchies.iter().map(|h| h.mount.as_path()).collect(),
        };
        for mount in mounts {
            // Fails while another instance or a container is below, which is as it should be.
            if fs::remove_dir(mount.join(&self.parent)).is_ok() {
                fs::remove_dir(mount.join("orlop")).ok();
            }
        }
    }
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("make the cgroup", path))
}

fn apply(group: &Path, plan: &[Write]) -> Result<()> {
    for write in plan {
        let path = group.join(write.file);
        match fs::write(&path, &write.value) {
            Ok(()) => {}
            Err(_) if write.optional => {
                tracing::debug!(path = %path.display(), "control file not available");
            }
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

fn remove(path: &Path, all: &[Cgroup]) -> io::Result<()> {
    let mut attempt = 0;
    loop {
        match fs::remove_dir(path) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && attempt < REMOVE_ATTEMPTS =>
            {
                attempt += 1;
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
    use crate::spec::resources::limits;
    use orlop_proto::runtime::Resources;

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
        let v2 = Cgroups::from_mountinfo(V2, "main");
        assert!(matches!(v2.layout, Layout::V2(ref path) if path == Path::new("/sys/fs/cgroup")));
        let Layout::V1(found) = Cgroups::from_mountinfo(HYBRID, "main").layout else {
            unreachable!("a host with v1 hierarchies uses them");
        };
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|h| h.has("cpu") && h.has("cpuacct")));
        assert_eq!(v2.path_of("abc"), "/orlop/main/abc");
    }

    #[test]
    fn groups_are_made_limited_and_removed_on_this_host() {
        let cgroups = Cgroups::discover(&format!("test-{}", std::process::id())).unwrap();
        let asked = Resources {
            pids: Some(7),
            ..Resources::default()
        };
        let made = cgroups.create("c1", &limits(&asked).unwrap()).unwrap();
        let group = made
            .iter()
            .find(|group| group.path.join("pids.max").exists())
            .unwrap();
        let limit = fs::read_to_string(group.path.join("pids.max")).unwrap();
        assert_eq!(limit.trim(), "7");
        assert_eq!(cgroups.orphans(|id| id == "c1").len(), 0);
        assert_eq!(cgroups.orphans(|_| false).len(), made.len());
        cgroups.remove(&made);
        cgroups.remove(&made);
        cgroups.release();
        assert!(made.iter().all(|group| !group.path.exists()));
    }
}
