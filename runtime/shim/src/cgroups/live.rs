//! Changing the limits of groups that are in use: all of them, or none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Result, Write, v1, v2};
use crate::config::Cgroup;
use oci_spec::runtime::LinuxResources;

/// What the changed files held before.
#[derive(Debug, Default)]
pub struct Undo(Vec<(PathBuf, String)>);

/// Sets the limits of a container's groups; without groups there is nothing to do. Answers how to take it
/// back, and which limits this kernel cannot set. On error everything is as it was.
pub fn change(groups: &[Cgroup], limits: &LinuxResources) -> Result<(Undo, Vec<String>)> {
    let mut undo = Undo::default();
    let mut warnings = Vec::new();
    for (group, write) in plan(groups, limits)? {
        match undo.write(&group.join(&*write.file), &write) {
            Ok(true) => {}
            Ok(false) => warnings.push(format!(
                "this kernel has no {}: the limit {} is discarded",
                write.file, write.value
            )),
            Err(error) => {
                undo.undo();
                return Err(error);
            }
        }
    }
    Ok((undo, warnings))
}

/// What is written where, in an order that the kernel takes at each step.
fn plan(groups: &[Cgroup], limits: &LinuxResources) -> Result<Vec<(PathBuf, Write)>> {
    let Some(first) = groups.first() else {
        return Ok(Vec::new());
    };
    if first.controllers.is_none() {
        let writes = v2::plan(limits).into_iter();
        return Ok(writes.map(|write| (first.path.clone(), write)).collect());
    }
    let path = |write: &Write| {
        let own = groups.iter().find(|group| {
            let names = group.controllers.as_deref().unwrap_or_default();
            names.split(',').any(|name| name == write.controller)
        });
        own.map(|group| group.path.clone())
            .ok_or(Error::NoController(write.controller))
    };
    let mut planned = Vec::new();
    for write in v1::plan(limits) {
        match path(&write) {
            Ok(path) => planned.push((path, write)),
            Err(_) if write.optional => {}
            Err(error) => return Err(error),
        }
    }
    v1::order(&mut planned);
    Ok(planned)
}

impl Undo {
    /// Writes one value and keeps what was there; `false`: the kernel has no such file, and it may be
    /// missing.
    fn write(&mut self, path: &Path, write: &Write) -> Result<bool> {
        let before = match fs::read_to_string(path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && write.optional => {
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoController(write.controller));
            }
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        fs::write(path, &write.value).map_err(|source| Error::Limit {
            path: path.to_owned(),
            value: write.value.clone(),
            source,
        })?;
        self.0.push((path.to_owned(), before));
        Ok(true)
    }

    /// Writes back what was there, last change first.
    pub fn undo(self) {
        for (path, before) in self.0.into_iter().rev() {
            // What had it a moment ago takes it again, unless the container has ended.
            fs::write(&path, &before).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with control files in it.
    fn group(files: &[(&str, &str)], controllers: Option<&str>) -> (tempfile::TempDir, Cgroup) {
        let directory = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(directory.path().join(name), value).unwrap();
        }
        let group = Cgroup {
            path: directory.path().to_owned(),
            controllers: controllers.map(str::to_owned),
        };
        (directory, group)
    }

    fn read(group: &Cgroup, file: &str) -> String {
        fs::read_to_string(group.path.join(file)).unwrap()
    }

    fn asked() -> LinuxResources {
        let asked = r#"{"memory": {"limit": 67108864, "swap": 134217728}, "pids": {"limit": 9}}"#;
        serde_json::from_str(asked).unwrap()
    }

    #[test]
    fn version_2_is_changed_and_changed_back() {
        let files = [
            ("memory.max", "max\n"),
            ("memory.swap.max", "max\n"),
            ("pids.max", "2048\n"),
        ];
        let (_directory, group) = group(&files, None);
        let groups = [group.clone()];
        let (undo, warnings) = change(&groups, &asked()).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(read(&group, "memory.max"), "67108864");
        assert_eq!(read(&group, "pids.max"), "9");
        undo.undo();
        assert_eq!(read(&group, "memory.max"), "max");
        assert_eq!(read(&group, "pids.max"), "2048");
    }

    #[test]
    fn a_limit_that_fails_takes_the_others_back() {
        let (_directory, group) = group(&[("memory.max", "max\n")], None);
        let groups = [group.clone()];
        let error = change(&groups, &asked()).unwrap_err();
        assert!(matches!(error, Error::NoController("pids")), "{error}");
        assert_eq!(read(&group, "memory.max"), "max");
    }

    #[test]
    fn swap_that_is_not_accounted_for_is_a_warning() {
        let files = [("memory.max", "max\n"), ("pids.max", "max\n")];
        let (_directory, group) = group(&files, None);
        let (_, warnings) = change(&[group], &asked()).unwrap();
        let [warning] = &warnings[..] else {
            unreachable!("one limit is missing: {warnings:?}");
        };
        assert!(warning.contains("memory.swap.max"), "{warning}");
    }

    #[test]
    fn a_container_that_does_not_run_has_nothing_to_change() {
        let (undo, warnings) = change(&[], &asked()).unwrap();
        assert!(undo.0.is_empty() && warnings.is_empty());
    }

    /// The kernel refuses a limit of memory above the one of memory and swap, at every step.
    #[test]
    fn version_1_raises_memory_with_swap_first_and_lowers_it_last() {
        for (now, first) in [
            ("1048576", "memory.memsw.limit_in_bytes"),
            ("9223372036854771712", "memory.limit_in_bytes"),
        ] {
            let files = [
                ("memory.limit_in_bytes", now),
                ("memory.memsw.limit_in_bytes", now),
            ];
            let (_memory, memory) = group(&files, Some("memory"));
            let (_pids, pids) = group(&[("pids.max", "max")], Some("pids"));
            let planned = plan(&[memory, pids], &asked()).unwrap();
            assert_eq!(planned.first().unwrap().1.file, first);
            assert_eq!(planned.len(), 3);
        }
    }
}
