//! A directory that no path leads out of: every look-up goes through `openat2` with
//! `RESOLVE_IN_ROOT`, and every change through a directory handle and one plain name.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Result, StoreError};

/// How often an interrupted look-up is repeated: the kernel answers EAGAIN when anything on the host
/// was renamed meanwhile (openat2(2)).
const RETRIES: usize = 1000;
/// Dangling symbolic links that are followed while parents are made, as the kernel's own limit.
const LINKS_MAX: usize = 40;

/// The root of a tree.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// Wraps an error of the kernel with what was done, and to what.
pub(crate) fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> StoreError {
    let path = String::from_utf8_lossy(path).into_owned();
    move |errno| StoreError::Tree {
        action,
        path,
        source: io::Error::from(errno),
    }
}

/// The names of a path, without the empty ones and `.`; `..` stays.
pub(crate) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// The path's directory and last name. `None` for the root itself.
pub(crate) fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    })
}

/// Joins with one slash.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, b"/", name].concat()
}

pub(crate) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Where a handle without access rights can be named for calls that take only paths. It is a magic
/// link of our own handle: nothing in the tree has a say in it.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

impl Root {
    /// Takes a directory handle as the root.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The handle of the root itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens below the root, following links inside it. `path` may be absolute: the root is its `/`.
    pub fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_by(path, flags, ResolveFlags::empty())
    }

    /// The same of a path that has no links on its way.
    pub fn open_itself(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_by(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn open_by(
        &self,
        path: &[u8],
        flags: OFlags,
        how: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::empty());
        let resolve = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match rustix::fs::openat2(&self.fd, os(path), flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// A handle of an existing directory.
    pub fn directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::ACCESS) => self.directory_of_anyone(path),
            other => other,
        }
    }

    /// The same where the kernel does not follow the links of others in sticky directories
    /// (`fs.protected_symlinks`, Documentation/admin-guide/sysctl/fs.rst): what an archive means does not
    /// depend on the host's settings.
    fn directory_of_anyone(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut walk = Walk::along(path);
        while let Some(name) = walk.todo.pop() {
            let next = join(&walk.at, &name);
            match self.open(&next, flags) {
                Ok(_) => walk.at = next,
                Err(Errno::ACCESS) => {
                    let parent = self.open(&walk.at, flags)?;
                    let target = rustix::fs::readlinkat(&parent, os(&name), Vec::new());
                    walk.follow(target.map_err(|_| Errno::ACCESS)?.as_bytes())?;
                }
                Err(errno) => return Err(errno),
            }
        }
        self.open(&walk.at, flags)
    }

    /// The same, made with its parents where it is missing: 0755, owned by root. A dangling link on
    /// the way is made to point at something.
    pub fn directory_made(&self, path: &[u8]) -> Result<OwnedFd> {
        self.directory_noted(path, &mut |_| Ok(()))
    }

    /// The same; `note` is called with a handle of each directory that was missing.
    pub fn directory_noted(
        &self,
        path: &[u8],
        note: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<OwnedFd> {
        match self.directory(path) {
            Err(Errno::NOENT) => self.walk_making(path, note),
            found => found.map_err(failed("open the directory", path)),
        }
    }

    fn walk_making(
        &self,
        path: &[u8],
        note: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<OwnedFd> {
        let mut walk = Walk::along(path);
        while let Some(name) = walk.todo.pop() {
            let next = join(&walk.at, &name);
            match self.directory(&next) {
                Ok(_) => walk.at = next,
                Err(Errno::NOENT) => match self.make_or_read_link(&walk.at, &name, path, note)? {
                    Some(target) => {
                        let followed = walk.follow(&target);
                        followed.map_err(failed("make the directory", path))?;
                    }
                    None => walk.at = next,
                },
                Err(errno) => return Err(failed("make the directory", path)(errno)),
            }
        }
        self.directory(&walk.at)
            .map_err(failed("open the directory", path))
    }

    /// Makes one directory; if a dangling link has its name, gives the link's target.
    fn make_or_read_link(
        &self,
        at: &[u8],
        name: &[u8],
        whole: &[u8],
        note: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Option<Vec<u8>>> {
        let fail = || failed("make the directory", whole);
        let parent = self.directory(at).map_err(fail())?;
        match rustix::fs::mkdirat(&parent, os(name), Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = open_directory(parent.as_fd(), name).map_err(fail())?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(fail())?;
                note(made.as_fd())?;
                Ok(None)
            }
            Err(Errno::EXIST) => {
                let target =
                    rustix::fs::readlinkat(&parent, os(name), Vec::new()).map_err(fail())?;
                Ok(Some(target.into_bytes()))
            }
            Err(errno) => Err(fail()(errno)),
        }
    }

    /// The path of a handle below this root, without links; empty for the root itself.
    pub fn path_of(&self, fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<u8>> {
        let whole = |fd| rustix::fs::readlink(proc_path(fd), Vec::new());
        let root = whole(self.fd())?.into_bytes();
        let path = whole(fd)?.into_bytes();
        let below = path.strip_prefix(root.as_slice()).ok_or(Errno::XDEV)?;
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }

    /// What a path is, links followed inside the root.
    pub fn stat(&self, path: &[u8]) -> rustix::io::Result<Stat> {
        rustix::fs::fstat(self.open(path, OFlags::PATH)?)
    }

    /// What a path is, its last name not followed.
    pub fn stat_nofollow(&self, path: &[u8]) -> rustix::io::Result<Stat> {
        rustix::fs::fstat(self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?)
    }
}

/// A way from the root that follows links itself.
#[derive(Debug)]
struct Walk {
    at: Vec<u8>,
    /// The names still to go, the next one last.
    todo: Vec<Vec<u8>>,
    links: usize,
}

impl Walk {
    fn along(path: &[u8]) -> Self {
        let mut walk = Self {
            at: Vec::new(),
            todo: Vec::new(),
            links: 0,
        };
        walk.go(path);
        walk
    }

    fn go(&mut self, path: &[u8]) {
        let before = self.todo.len();
        self.todo.extend(names(path).map(<[u8]>::to_vec));
        self.todo[before..].reverse();
    }

    /// Goes where a link points at.
    fn follow(&mut self, target: &[u8]) -> rustix::io::Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        if target.starts_with(b"/") {
            self.at.clear();
        }
        self.go(target);
        Ok(())
    }
}

/// Opens a directory by one name, never through a link.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, os(name), flags, Mode::empty())
}

/// What one name is, never through a link; `None` when it does not exist.
pub(crate) fn lstat(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type in a mode.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether it is overlayfs' mark of a deleted name: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The names in a directory, in the order of their bytes.
pub(crate) fn list(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes one name and everything below it, never through a link and never onto another file
/// system (row A26). A missing name is success.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, os(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let device = rustix::fs::fstat(parent)?.st_dev;
    remove_directory(parent, name, device)
}

/// Depth first with a stack of its own: a tree may be deeper than a thread's stack.
fn remove_directory(parent: BorrowedFd<'_>, name: &[u8], device: u64) -> rustix::io::Result<()> {
    let mut stack = vec![Level::open(parent, name, device)?];
    while let Some(level) = stack.last_mut() {
        let Some(child) = level.names.pop() else {
            let done = stack.pop();
            let above = stack.last().map_or(parent, |level| level.fd.as_fd());
            if let Some(done) = done {
                rustix::fs::unlinkat(above, os(&done.name), AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        match rustix::fs::unlinkat(&level.fd, os(&child), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let below = Level::open(level.fd.as_fd(), &child, device)?;
                stack.push(below);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

struct Level {
    fd: OwnedFd,
    name: Vec<u8>,
    names: Vec<Vec<u8>>,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: &[u8], device: u64) -> rustix::io::Result<Self> {
        let fd = open_directory(parent, name)?;
        if rustix::fs::fstat(&fd)?.st_dev != device {
            return Err(Errno::XDEV);
        }
        let names = list(fd.as_fd())?;
        Ok(Self {
            fd,
            name: name.to_vec(),
            names,
        })
    }
}
