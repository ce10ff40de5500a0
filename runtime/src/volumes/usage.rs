//! How much is in a volume, walked by handle: containers write there meanwhile.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Result;

/// Directories in directories; each is an open file meanwhile. What is deeper counts nothing.
const DEPTH_MAX: usize = 512;
/// Files of several names that are remembered; beyond, each name counts.
const LINKED_MAX: usize = 1 << 20;

/// Bytes of the files, each counted once. What vanishes meanwhile, or cannot be read, counts nothing;
/// nor does what is mounted below.
pub(super) fn bytes(directory: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(directory, flags, Mode::empty());
    top.and_then(walk).unwrap_or_default()
}

fn walk(top: OwnedFd) -> Result<u64> {
    let mut count = Count {
        device: rustix::fs::fstat(&top)?.st_dev,
        linked: HashSet::new(),
        bytes: 0,
    };
    let mut stack = vec![Dir::new(top)?];
    while let Some(directory) = stack.last_mut() {
        match directory.read() {
            Some(Ok(entry)) => {
                let below = count
                    .entry(directory, entry.file_name())
                    .unwrap_or_default();
                let room = stack.len() < DEPTH_MAX;
                stack.extend(below.filter(|_| room));
            }
            Some(Err(_)) | None => drop(stack.pop()),
        }
    }
    Ok(count.bytes)
}

struct Count {
    device: u64,
    linked: HashSet<u64>,
    bytes: u64,
}

impl Count {
    /// Counts a file; answers a directory, which is to be read next.
    fn entry(&mut self, directory: &Dir, name: &CStr) -> Result<Option<Dir>> {
        if name == c"." || name == c".." {
            return Ok(None);
        }
        let parent = directory.fd()?;
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_dev != self.device {
            return Ok(None);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if stat.st_nlink < 2 || self.is_new(stat.st_ino) {
                self.bytes += u64::try_from(stat.st_size).unwrap_or_default();
            }
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        match rustix::fs::fstat(below.as_fd())?.st_dev == self.device {
            true => Dir::new(below).map(Some),
            false => Ok(None),
        }
    }

    fn is_new(&mut self, inode: u64) -> bool {
        self.linked.len() >= LINKED_MAX || self.linked.insert(inode)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_counts_once_and_links_do_not_lead_out() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), [0; 4096]).unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/f"), b"four").unwrap();
        fs::hard_link(root.path().join("a/b/f"), root.path().join("g")).unwrap();
        assert_eq!(bytes(root.path()), 4);
        let link = outside.path().as_os_str().len() as u64;
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        assert_eq!(bytes(root.path()), 4 + link);
    }

    #[test]
    fn directories_without_end_end() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        for _ in 0..DEPTH_MAX + 8 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.path().join("f"), b"one").unwrap();
        assert_eq!(bytes(root.path()), 3);
    }
}
