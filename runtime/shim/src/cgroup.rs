//! The container's cgroup: joining it, the devices it may open, who is in it, and what the kernel
//! killed in it. The runtime makes the directories, sets their limits and removes them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Cgroup;
use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::process::{Pid, Signal};

use crate::device_program;
use crate::error::{Error, Result};

/// How long processes may take to die of SIGKILL before the shim stops looking.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

fn fail(cgroup: &Cgroup) -> impl Fn(io::Error) -> Error + use<> {
    let path = cgroup.path.clone();
    move |source| Error::Cgroup {
        path: path.clone(),
        source,
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// The v2 cgroup, into which a child is cloned.
pub(crate) fn unified(cgroups: &[Cgroup]) -> Result<Option<OwnedFd>> {
    let Some(cgroup) = cgroups.iter().find(|cgroup| cgroup.controllers.is_none()) else {
        return Ok(None);
    };
    let directory = File::open(&cgroup.path).map_err(fail(cgroup))?;
    Ok(Some(directory.into()))
}

/// The ways into the v1 hierarchies, opened on the host for a child that has yet to be forked.
pub(crate) struct Doors<'a>(Vec<(&'a Cgroup, File)>);

impl<'a> Doors<'a> {
    /// Opens `tasks` of each; v2 beside them has none.
    pub(crate) fn open(cgroups: &'a [Cgroup]) -> Result<Self> {
        let mut doors = Vec::new();
        for cgroup in cgroups {
            let name = match cgroup.controllers.as_deref() {
                Some("") => "cgroup.procs",
                Some(_) => "tasks",
                None => continue,
            };
            let path = cgroup.path.join(name);
            let file = OpenOptions::new().write(true).open(path);
            doors.push((cgroup, file.map_err(fail(cgroup))?));
        }
        Ok(Self(doors))
    }

    /// Puts the caller, which has one thread, into them. A thread that moves itself takes none of the
    /// kernel's global locks; moving another one waits for an RCU grace period, 10 ms and more.
    pub(crate) fn enter(&self) -> Result<()> {
        for (cgroup, door) in &self.0 {
            (&*door).write_all(b"0").map_err(fail(cgroup))?;
        }
        Ok(())
    }
}

/// Puts the device rules of the specification into force.
pub(crate) fn restrict_devices(cgroups: &[Cgroup], rules: &[LinuxDeviceCgroup]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    for cgroup in cgroups {
        match &cgroup.controllers {
            Some(names) if names.split(',').any(|name| name == "devices") => {
                write_rules(&cgroup.path, rules).map_err(fail(cgroup))?;
            }
            Some(_) => {}
            None if cgroups.iter().any(has_devices) => {}
            None => device_program::attach(&cgroup.path, rules).map_err(fail(cgroup))?,
        }
    }
    Ok(())
}

fn has_devices(cgroup: &Cgroup) -> bool {
    let names = cgroup.controllers.as_deref().unwrap_or_default();
    names.split(',').any(|name| name == "devices")
}

fn write_rules(path: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let (allow, deny) = (path.join("devices.allow"), path.join("devices.deny"));
    for rule in rules {
        let file = if rule.allow() { &allow } else { &deny };
        write(file, &device_program::line(rule))?;
    }
    Ok(())
}

/// Whether the processes in the cgroup are frozen, or are about to be.
pub(crate) fn is_frozen(cgroups: &[Cgroup]) -> bool {
    let read = |cgroup: &Cgroup, file| {
        let text = fs::read_to_string(cgroup.path.join(file)).unwrap_or_default();
        text.trim().to_owned()
    };
    cgroups
        .iter()
        .any(|cgroup| match cgroup.controllers.as_deref() {
            Some("freezer") => read(cgroup, "freezer.state").starts_with("FR"),
            Some(_) => false,
            None => read(cgroup, "cgroup.freeze") == "1",
        })
}

/// The processes in the cgroup.
pub(crate) fn members(cgroups: &[Cgroup]) -> Vec<i32> {
    let own = |cgroup: &&Cgroup| match &cgroup.controllers {
        Some(names) => names
            .split(',')
            .any(|name| name == "pids" || name == "freezer"),
        None => true,
    };
    let Some(cgroup) = cgroups.iter().find(own).or(cgroups.first()) else {
        return Vec::new();
    };
    let text = fs::read_to_string(cgroup.path.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|&pid| pid > 0)
        .collect()
}

/// Sends a signal to every process in the cgroup.
pub(crate) fn signal_all(cgroups: &[Cgroup], signal: Signal) {
    for pid in members(cgroups).into_iter().filter_map(Pid::from_raw) {
        // One that is gone by now needs no signal.
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// Kills what is in the cgroup, frozen or not, until it is empty.
pub(crate) fn kill_all(cgroups: &[Cgroup]) {
    let began = Instant::now();
    while !members(cgroups).is_empty() && began.elapsed() < KILL_PATIENCE {
        let killed = cgroups.iter().filter(|cgroup| cgroup.controllers.is_none());
        if killed
            .map(|cgroup| write(&cgroup.path.join("cgroup.kill"), "1"))
            .all(|r| r.is_err())
        {
            signal_all(cgroups, Signal::KILL);
        }
        for cgroup in cgroups {
            // Frozen processes die only when thawed; where nothing is frozen this changes nothing.
            let (file, text) = match cgroup.controllers.as_deref() {
                Some("freezer") => ("freezer.state", "THAWED"),
                None => ("cgroup.freeze", "0"),
                Some(_) => continue,
            };
            drop(write(&cgroup.path.join(file), text));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_cgroup_is_known_on_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        for (controllers, file, frozen, thawed) in [
            (
                Some("freezer".to_owned()),
                "freezer.state",
                "FREEZING\n",
                "THAWED\n",
            ),
            (None, "cgroup.freeze", "1\n", "0\n"),
        ] {
            let cgroups = [Cgroup {
                path: directory.path().into(),
                controllers,
            }];
            assert!(!is_frozen(&cgroups), "no such file: {file}");
            fs::write(directory.path().join(file), frozen).unwrap();
            assert!(is_frozen(&cgroups), "{file}");
            fs::write(directory.path().join(file), thawed).unwrap();
            assert!(!is_frozen(&cgroups), "{file}");
        }
    }
}
