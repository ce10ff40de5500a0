//! Freezing: the processes of a group get no more time until they are thawed. Version 1 has a hierarchy
//! for it (`freezer.state`), version 2 a file in every group (`cgroup.freeze`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, Result};
use crate::config::Cgroup;

/// How long processes may take to freeze: one that waits for a disk freezes after that.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(2);

/// How a group is frozen.
#[derive(Debug, PartialEq, Eq)]
enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

/// Freezes or thaws all processes of a container, and waits until that is done; blocks. Idempotent. What
/// cannot be frozen in time is thawed again, and is an error.
pub fn set_frozen(cgroups: &[Cgroup], frozen: bool) -> Result<()> {
    let freezer = Freezer::of(cgroups).ok_or(Error::NoController("freezer"))?;
    freezer.write(frozen)?;
    let began = Instant::now();
    while frozen && !freezer.is_done()? {
        if began.elapsed() > PATIENCE {
            freezer.write(false)?;
            return Err(Error::NotFrozen(freezer.file().to_owned()));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// Whether somebody asked for a container's processes to be frozen: what the kernel says, which a crash of
/// this service cannot make untrue.
pub fn is_frozen(cgroups: &[Cgroup]) -> bool {
    let Some(freezer) = Freezer::of(cgroups) else {
        return false;
    };
    let text = fs::read_to_string(freezer.file()).unwrap_or_default();
    matches!(text.trim(), "FREEZING" | "FROZEN" | "1")
}

/// Thaws what is frozen in groups that are to be removed, of whatever version: killed processes leave them
/// only then.
pub fn release(groups: &[Cgroup]) {
    for group in groups {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let path = group.path.join(file);
            if path.exists() {
                // A group that cannot be thawed cannot be removed either, which is said then.
                fs::write(&path, thawed).ok();
            }
        }
    }
}

impl Freezer {
    fn of(cgroups: &[Cgroup]) -> Option<Self> {
        let v1 = cgroups.iter().find(|group| {
            let names = group.controllers.as_deref().unwrap_or_default();
            names.split(',').any(|name| name == "freezer")
        });
        match v1 {
            Some(group) => Some(Self::V1(group.path.join("freezer.state"))),
            None => cgroups
                .iter()
                .find(|group| group.controllers.is_none())
                .map(|group| Self::V2(group.path.join("cgroup.freeze"))),
        }
    }

    fn file(&self) -> &Path {
        let (Self::V1(path) | Self::V2(path)) = self;
        path
    }

    fn write(&self, frozen: bool) -> Result<()> {
        let word = match (self, frozen) {
            (Self::V1(_), true) => "FROZEN",
            (Self::V1(_), false) => "THAWED",
            (Self::V2(_), true) => "1",
            (Self::V2(_), false) => "0",
        };
        let path = self.file();
        fs::write(path, word).map_err(Error::file("write", path))
    }

    /// Whether every process is frozen. Version 1 looks at them when it is asked.
    fn is_done(&self) -> Result<bool> {
        let (path, done) = match self {
            Self::V1(path) => (path.clone(), "FROZEN"),
            Self::V2(path) => (path.with_file_name("cgroup.events"), "frozen 1"),
        };
        let text = fs::read_to_string(&path).map_err(Error::file("read", path))?;
        Ok(text.lines().any(|line| line == done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(path: &Path, controllers: Option<&str>) -> Cgroup {
        Cgroup {
            path: path.to_owned(),
            controllers: controllers.map(str::to_owned),
        }
    }

    #[test]
    fn version_1_has_one_hierarchy_for_it() {
        let tree = tempfile::tempdir().unwrap();
        let (memory, freezer) = (tree.path().join("memory"), tree.path().join("freezer"));
        fs::create_dir_all(&memory).unwrap();
        fs::create_dir_all(&freezer).unwrap();
        let groups = [
            group(&memory, Some("memory")),
            group(&freezer, Some("freezer")),
        ];
        set_frozen(&groups, true).unwrap();
        assert_eq!(
            fs::read_to_string(freezer.join("freezer.state")).unwrap(),
            "FROZEN"
        );
        assert!(is_frozen(&groups));
        set_frozen(&groups, false).unwrap();
        assert!(!is_frozen(&groups));
        assert!(!memory.join("freezer.state").exists());
    }

    #[test]
    fn version_2_says_in_its_events_when_all_are_frozen() {
        let tree = tempfile::tempdir().unwrap();
        let groups = [group(tree.path(), None)];
        fs::write(tree.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        set_frozen(&groups, true).unwrap();
        assert!(is_frozen(&groups));
        set_frozen(&groups, false).unwrap();
        assert!(!is_frozen(&groups));
    }

    #[test]
    fn what_does_not_freeze_in_time_is_thawed_again() {
        let tree = tempfile::tempdir().unwrap();
        let groups = [group(tree.path(), None)];
        fs::write(tree.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert!(matches!(
            set_frozen(&groups, true),
            Err(Error::NotFrozen(_))
        ));
        assert!(!is_frozen(&groups));
    }

    #[test]
    fn a_host_without_a_freezer_is_an_error() {
        let groups = [group(Path::new("/x"), Some("memory"))];
        assert!(matches!(
            set_frozen(&groups, true),
            Err(Error::NoController("freezer"))
        ));
    }
}
