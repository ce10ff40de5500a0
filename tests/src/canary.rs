//! What is the host's and nobody else's: a test of an attack looks whether it stayed as it was.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tempfile::TempDir;

/// What a canary's file says.
pub const SONG: &str = "the host's own\n";

/// A directory of the host with one file in it, which are to keep their content, modes, owners and times;
/// a path of nothing that a container could have.
#[derive(Debug)]
pub struct Canary {
    directory: TempDir,
    before: Vec<String>,
    opened: OwnedFd,
}

impl Canary {
    /// A new one, watched from here on.
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// One with more in its directory.
    pub fn with(more: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("canary-")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::write(directory.path().join("file"), SONG).unwrap();
        more(directory.path());
        let before = state(directory.path());
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&opened, directory.path(), WatchFlags::OPEN).unwrap();
        Self {
            directory,
            before,
            opened,
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The file in it.
    pub fn file(&self) -> PathBuf {
        self.path().join("file")
    }

    /// Fails the test, saying after what, if anything changed.
    #[track_caller]
    pub fn assert_untouched(&self, after: &str) {
        assert_eq!(state(self.path()), self.before, "after {after}");
        self.events();
    }

    /// The same, and nobody but this test opened a file in it.
    #[track_caller]
    pub fn assert_unopened(&self, after: &str) {
        assert_eq!(self.events(), Vec::<String>::new(), "after {after}");
        self.assert_untouched(after);
    }

    /// Which files were opened since they were last asked for. The directory itself may be listed by
    /// whoever looks through `/var/tmp`.
    fn events(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.opened, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.extend(
                event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
        names
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

/// A line for the directory and for each thing in it.
fn state(directory: &Path) -> Vec<String> {
    let mut paths = vec![directory.to_owned()];
    paths.extend(
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    paths.sort();
    paths.iter().map(|path| describe(path)).collect()
}

fn describe(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let content = match meta.is_file() {
        true => fs::read_to_string(path).unwrap_or_default(),
        false => String::new(),
    };
    format!(
        "{} {:o} {}:{} {}.{} {content:?}",
        path.display(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "after a look")]
    fn a_canary_tells_that_it_was_opened() {
        let canary = Canary::new();
        fs::read(canary.file()).unwrap();
        canary.assert_unopened("a look");
    }

    #[test]
    #[should_panic(expected = "after a new file")]
    fn a_canary_tells_that_it_was_changed() {
        let canary = Canary::new();
        canary.assert_untouched("nothing");
        fs::write(canary.path().join("new"), "").unwrap();
        canary.assert_untouched("a new file");
    }
}
