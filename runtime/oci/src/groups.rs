//! The control groups of a container: where its specification wants them, under its limits.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use orlop_shim::cgroups::{self, Layout, live};
use orlop_shim::config::Cgroup;
use orlop_shim::oci;

use crate::error::{Error, Result};
use crate::scope::{self, Held, Scope};

/// The groups of a container that is being made.
#[derive(Debug)]
pub(crate) struct Groups {
    /// One per hierarchy.
    pub(crate) all: Vec<Cgroup>,
    /// The unit that they are, where systemd made them.
    pub(crate) scope: Option<String>,
    /// Until there is a process of the container.
    held: Option<Held>,
}

impl Groups {
    /// Makes them, in systemd's tree by systemd.
    pub(crate) fn create(spec: &Spec, id: &str, by_systemd: bool) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let wanted = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let limits = linux.and_then(|linux| linux.resources().clone());
        let limits = limits.map(limits_of).unwrap_or_default();
        let scope = by_systemd.then(|| Scope::of(wanted, id)).transpose()?;
        let group = match &scope {
            Some(scope) => scope.group(),
            None => below_mount(wanted.unwrap_or(Path::new(id)))?,
        };
        let layout = Layout::discover()?;
        let held = scope.as_ref().map(|scope| scope.begin(&limits, &layout));
        let held = held.transpose()?;
        let tracked = match held {
            Some(_) => tracked(&layout, &group)?,
            None => Vec::new(),
        };
        let mut all = layout.create(&group, &limits)?;
        all.extend(tracked);
        Ok(Self {
            all,
            scope: scope.map(|scope| scope.unit),
            held,
        })
    }

    /// Removes them and what is in them: there will be no container.
    pub(crate) fn abandon(self) {
        // A process that nobody has waited for keeps a group from going.
        drop(self.held);
        oci::kill_all(&self.all);
        drop(remove(&self.all, self.scope.as_deref()));
    }
}

/// Groups by which systemd knows where processes belong, in hierarchies without limits: beside those of
/// version 1. A scope that has no process there ends.
fn tracked(layout: &Layout, group: &Path) -> Result<Vec<Cgroup>> {
    let paths = layout.others()?.into_iter().map(|mount| mount.join(group));
    let made = paths.filter(|path| path.is_dir());
    let tracked = made.map(|path| {
        let controllers = match path.join("tasks").exists() {
            true => "name=systemd",
            false => "",
        };
        let controllers = Some(controllers.to_owned());
        Cgroup { path, controllers }
    });
    Ok(tracked.collect())
}

/// The path relative to each mount.
fn below_mount(path: &Path) -> Result<PathBuf> {
    let plain = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    let group: PathBuf = path.strip_prefix("/").unwrap_or(path).into();
    match path.components().all(|part| plain(&part)) && group.components().next().is_some() {
        true => Ok(group),
        false => Err(Error::CgroupsPath(path.into())),
    }
}

/// Limits without those that are 0, by which callers say that there is none.
pub(crate) fn limits_of(mut asked: LinuxResources) -> LinuxResources {
    if let Some(memory) = asked.memory_mut() {
        memory.set_limit(memory.limit().filter(|limit| *limit != 0));
        memory.set_swap(memory.swap().filter(|limit| *limit != 0));
        memory.set_reservation(memory.reservation().filter(|limit| *limit != 0));
    }
    if let Some(cpu) = asked.cpu_mut() {
        cpu.set_shares(cpu.shares().filter(|shares| *shares != 0));
        cpu.set_quota(cpu.quota().filter(|quota| *quota != 0));
        // The kernel's own period goes with a quota alone.
        let period = cpu.period().filter(|period| *period != 0);
        cpu.set_period(period.or(Some(100_000)));
        cpu.set_cpus(cpu.cpus().clone().filter(|cpus| !cpus.is_empty()));
        cpu.set_mems(cpu.mems().clone().filter(|mems| !mems.is_empty()));
    }
    if let Some(io) = asked.block_io_mut() {
        io.set_weight(io.weight().filter(|weight| *weight != 0));
    }
    if asked.pids().is_some_and(|pids| pids.limit() == 0) {
        asked.set_pids(None);
    }
    asked
}

/// Changes the limits of a container.
pub(crate) fn change(
    groups: &[Cgroup],
    scope: Option<&str>,
    limits: &LinuxResources,
) -> Result<()> {
    live::change(groups, limits)?;
    scope.map_or(Ok(()), |unit| scope::change(unit, limits))
}

/// Removes them.
pub(crate) fn remove(groups: &[Cgroup], scope: Option<&str>) -> Result<()> {
    for group in groups {
        let removed = cgroups::remove(&group.path, groups);
        removed.map_err(Error::file("remove", &group.path))?;
    }
    scope.into_iter().for_each(scope::end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_below_its_mount() {
        let below = |path: &str| below_mount(Path::new(path)).ok();
        assert_eq!(below("/docker/abc"), Some(PathBuf::from("docker/abc")));
        assert_eq!(below("abc"), Some(PathBuf::from("abc")));
        for wrong in ["/", "", "../x", "/a/../../b", "./a"] {
            assert_eq!(below(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let asked = r#"{"cpu": {"shares": 0}, "pids": {"limit": 0}, "blockIO": {"weight": 0}}"#;
        let limits = limits_of(serde_json::from_str(asked).unwrap());
        assert_eq!(cgroups::v1::plan(&limits), []);
    }
}
