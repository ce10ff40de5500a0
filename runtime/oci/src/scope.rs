//! Scopes of systemd, for `--systemd-cgroup`. Where systemd owns the tree of control groups, what others make
//! in it is a unit of its own, or systemd may undo it (systemd's CONTROL_GROUP_INTERFACE and
//! CGROUP_DELEGATION). A scope begins with a process in it; it is asked for with `busctl`, which is
//! wherever systemd is. [`properties`] tells systemd the limits, so that it sets no others.

mod properties;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use orlop_shim::cgroups::Layout;

use crate::error::{Error, Result};
use properties::{Property, property};

/// How long systemd may take to make a scope, and how often somebody looks.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(1);
/// What systemd leaves to us below a scope. Not devices: it would write its own list again and again.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Where in systemd's tree a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    slice: String,
    /// Its name.
    pub(crate) unit: String,
}

/// A scope that lasts while this does, and as long as there is a process in it.
#[derive(Debug)]
pub(crate) struct Held {
    process: Child,
}

impl Scope {
    /// Of `SLICE:PREFIX:NAME`, the form that callers of runc know; without it by the container's id.
    pub(crate) fn of(path: Option<&Path>, id: &str) -> Result<Self> {
        let text = path.map_or("", |path| path.to_str().unwrap_or("?"));
        let parts: Vec<&str> = text.split(':').collect();
        let (slice, prefix, name) = match parts[..] {
            [""] => ("", "orlop-oci", id),
            [slice, prefix, name] if is_part(name) && (prefix.is_empty() || is_part(prefix)) => {
                (slice, prefix, name)
            }
            _ => return Err(Error::ScopePath(text.to_owned())),
        };
        let slice = match slice {
            "" => "system.slice",
            slice => slice,
        };
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let scope = Self {
            slice: slice.to_owned(),
            unit,
        };
        match scope.above().is_some() {
            true => Ok(scope),
            false => Err(Error::ScopePath(text.to_owned())),
        }
    }

    /// The groups of the slice: `a-b.slice` is in `a.slice` (systemd.slice(5)).
    fn above(&self) -> Option<PathBuf> {
        let name = self.slice.strip_suffix(".slice")?;
        if name == "-" {
            return Some(PathBuf::new());
        }
        let parts: Vec<&str> = name.split('-').collect();
        let levels = 1..=parts.len();
        let slices = levels.map(|count| format!("{}.slice", parts[..count].join("-")));
        parts
            .iter()
            .all(|part| is_part(part))
            .then(|| slices.collect())
    }

    /// Its group, relative to each mount.
    pub(crate) fn group(&self) -> PathBuf {
        self.above().unwrap_or_default().join(&self.unit)
    }

    /// Has systemd make it.
    pub(crate) fn begin(&self, limits: &LinuxResources, layout: &Layout) -> Result<Held> {
        let held = Held::process()?;
        let pid = held.process.id();
        let mut all = vec![
            property("Description", "s", ["a container of orlop-oci"]),
            property("Slice", "s", [&self.slice]),
            property("DefaultDependencies", "b", ["false"]),
            property("CollectMode", "s", ["inactive-or-failed"]),
            property("DelegateControllers", "as", CONTROLLERS).counted(),
            property("PIDs", "au", [pid]).counted(),
        ];
        all.extend(properties::of(limits, layout));
        let head = [self.unit.as_str(), "fail"];
        manager(
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            &head,
            &all,
            &["0"],
        )?;
        self.await_process(pid)?;
        Ok(held)
    }

    /// systemd answers before it has done it.
    fn await_process(&self, pid: u32) -> Result<()> {
        let path = format!("/proc/{pid}/cgroup");
        let end = format!("/{}", self.unit);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let groups = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            if groups.lines().any(|line| line.ends_with(&end)) {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        let message = "it has no process after 30 seconds".to_owned();
        Err(Error::Scope(message))
    }
}

/// Tells systemd other limits of a scope.
pub(crate) fn change(unit: &str, limits: &LinuxResources) -> Result<()> {
    let all = properties::of(limits, &Layout::discover()?);
    if all.is_empty() {
        return Ok(());
    }
    manager("SetUnitProperties", "sba(sv)", &[unit, "true"], &all, &[])
}

/// Has systemd forget a scope whose group is gone; one that it does not know is fine.
pub(crate) fn end(unit: &str) {
    for (method, kinds, args) in [
        ("StopUnit", "ss", &[unit, "replace"][..]),
        ("ResetFailedUnit", "s", &[unit]),
    ] {
        drop(call(method, kinds, args));
    }
}

/// A part of a unit's name: nothing that is a path or has a meaning in slices.
fn is_part(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:@\\".contains(&byte);
    !text.is_empty() && text.bytes().all(known) && !text.starts_with('.')
}

/// Calls a method of systemd that takes properties.
fn manager(
    method: &str,
    kinds: &str,
    head: &[&str],
    properties: &[Property],
    tail: &[&str],
) -> Result<()> {
    let count = properties.len().to_string();
    let words = properties.iter().flat_map(Property::words);
    let args: Vec<&str> = head
        .iter()
        .copied()
        .chain([count.as_str()])
        .chain(words)
        .chain(tail.iter().copied())
        .collect();
    call(method, kinds, &args)
}

fn call(method: &str, kinds: &str, args: &[&str]) -> Result<()> {
    let output = busctl(method, kinds, args).map_err(Error::file("run", "busctl"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Error::Scope(said.trim().to_owned()))
        }
    }
}

fn busctl(method: &str, kinds: &str, args: &[&str]) -> io::Result<Output> {
    Command::new("busctl")
        .args(["--system", "call", "org.freedesktop.systemd1"])
        .args([
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
        ])
        .args([method, kinds, "--"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
}

impl Held {
    /// It ends with us, whatever becomes of us: it reads what nobody writes.
    fn process() -> Result<Self> {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let process = command.spawn().map_err(Error::file("run", "cat"))?;
        Ok(Self { process })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(path: &str) -> Option<(String, PathBuf)> {
        let scope = Scope::of(Some(Path::new(path)), "id").ok()?;
        Some((scope.unit.clone(), scope.group()))
    }

    #[test]
    fn a_scope_is_in_the_groups_of_its_slice() {
        for (path, unit, group) in [
            ("", "orlop-oci-id.scope", "system.slice/orlop-oci-id.scope"),
            (
                "system.slice:docker:abc",
                "docker-abc.scope",
                "system.slice/docker-abc.scope",
            ),
            (
                ":docker:abc",
                "docker-abc.scope",
                "system.slice/docker-abc.scope",
            ),
            (
                "a-b_1-c.slice:cri:x",
                "cri-x.scope",
                "a.slice/a-b_1.slice/a-b_1-c.slice/cri-x.scope",
            ),
            ("-.slice::x", "x.scope", "x.scope"),
        ] {
            assert_eq!(scope(path), Some((unit.to_owned(), group.into())), "{path}");
        }
    }

    #[test]
    fn a_path_of_another_form_is_refused() {
        for path in [
            "/docker/abc",
            "a.slice:b",
            "a.slice:b:c:d",
            "a.slice:b:",
            "a:b:c",
            "../a.slice:b:c",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "a.slice:b:../c",
            "a.slice:b/x:c",
        ] {
            assert_eq!(scope(path), None, "{path}");
        }
    }
}
