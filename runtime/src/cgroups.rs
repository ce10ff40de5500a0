//! The part of the host's control groups that belongs to this instance.

pub(crate) mod usage;

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use orlop_shim::cgroups::{self, Layout};
pub(crate) use orlop_shim::cgroups::{freeze, live};
use orlop_shim::config::Cgroup;

use crate::error::Result;

/// What this host offers, and the part of the tree that belongs to this instance.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Layout,
    /// Mounts of hierarchies that we do not use, and that other runtimes do.
    others: Vec<PathBuf>,
    /// `orlop/<instance>`.
    parent: String,
}

impl Cgroups {
    /// Looks at this host's mounts.
    pub fn discover(instance: &str) -> Result<Self> {
        let layout = Layout::discover()?;
        Ok(Self {
            others: layout.others()?,
            layout,
            parent: format!("orlop/{instance}"),
        })
    }

    /// Whether all controllers are in one hierarchy.
    pub(crate) fn is_unified(&self) -> bool {
        matches!(self.layout, Layout::V2(_))
    }

    /// A container's path below each mount; it may have asked for another parent than ours.
    pub fn path_of(&self, id: &str, parent: &str) -> String {
        format!("/{}/{id}", self.parent(parent))
    }

    fn parent<'a>(&'a self, asked: &'a str) -> &'a str {
        match asked.trim_matches('/') {
            "" => &self.parent,
            parent => parent,
        }
    }

    /// Makes a container's groups and sets their limits. On error nothing is left.
    pub fn create(&self, id: &str, parent: &str, limits: &LinuxResources) -> Result<Vec<Cgroup>> {
        let group = Path::new(self.parent(parent)).join(id);
        Ok(self.layout.create(&group, limits)?)
    }

    /// Removes a container's groups; a group that is not there is success. What is left in them is
    /// killed; blocks while it dies.
    pub fn remove(&self, groups: &[Cgroup]) {
        for group in groups {
            if let Err(error) = cgroups::remove(&group.path, groups) {
                tracing::warn!(path = %group.path.display(), %error, "cannot remove a cgroup");
            }
        }
    }

    /// Takes down what is left of a container without a shim: a runtime that is not ours does not end
    /// its processes with their shim, and has groups of its own.
    pub fn clear(&self, id: &str, parent: &str, groups: &[Cgroup]) {
        orlop_shim::oci::kill_all(groups);
        self.remove(groups);
        self.remove(&below(&self.others, &self.path_of(id, parent)));
    }

    /// Every group that a container with a parent of its own may have.
    pub(crate) fn all_of(&self, id: &str, parent: &str) -> Vec<Cgroup> {
        let mounts: Vec<_> = self.mounts().map(Path::to_owned).collect();
        below(&mounts, &self.path_of(id, parent))
    }

    fn mounts(&self) -> impl Iterator<Item = &Path> {
        let others = self.others.iter().map(PathBuf::as_path);
        self.layout.mounts().into_iter().chain(others)
    }

    /// Every group of this instance that belongs to none of these containers.
    pub fn orphans(&self, known: impl Fn(&str) -> bool) -> Vec<Cgroup> {
        let mut orphans = Vec::new();
        for mount in self.mounts() {
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
        for mount in self.mounts() {
            // Fails while another instance or a container is below, which is as it should be.
            if fs::remove_dir(mount.join(&self.parent)).is_ok() {
                fs::remove_dir(mount.join("orlop")).ok();
            }
        }
    }
}

/// The groups of one path below these mounts.
fn below(mounts: &[PathBuf], path: &str) -> Vec<Cgroup> {
    let relative = path.trim_start_matches('/');
    let group = |mount: &PathBuf| Cgroup {
        path: mount.join(relative),
        controllers: None,
    };
    mounts.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::limits;
    use orlop_proto::runtime::Resources;

    #[test]
    fn groups_are_made_limited_and_removed_on_this_host() {
        let cgroups = Cgroups::discover(&format!("test-{}", std::process::id())).unwrap();
        let asked = Resources {
            pids: Some(7),
            ..Resources::default()
        };
        let made = cgroups
            .create("c1", "", &limits(&asked, &Default::default()).unwrap())
            .unwrap();
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
