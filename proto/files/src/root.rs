//! A directory that no path and no link leads out of, whatever is renamed meanwhile.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Result, failed};
use crate::owners::Owners;

/// The kernel gives up on a walk when something is renamed during it; then it is tried again so often.
const ATTEMPTS: usize = 128;
/// File systems whose files are the kernel's (`linux/magic.h`): proc, sysfs, cgroup 1 and 2, debugfs,
/// tracefs, securityfs, bpf, devpts, configfs, efivarfs.
const KERNELS: [u64; 11] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1cd1,
    0x6265_6570,
    0xde5e_81e4,
];

/// A directory as the `/` of all paths that are given to it.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    resolve: ResolveFlags,
    guarded: bool,
    owners: Owners,
}

impl Root {
    /// The root of a container: links lead where they lead for the container. What the kernel shows there
    /// as files is neither read nor written: our rights to it are greater than the container's.
    pub fn of_container(directory: OwnedFd) -> Self {
        Self {
            directory,
            resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            guarded: true,
            owners: Owners::default(),
        }
    }

    /// The same directory, with these owners.
    pub fn owned(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// Whose its files are.
    pub(crate) fn owners(&self) -> Owners {
        self.owners
    }

    /// The caller's own file system.
    pub fn of_host() -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: rustix::fs::openat(CWD, "/", flags, Mode::empty())?,
            resolve: ResolveFlags::IN_ROOT,
            guarded: false,
            owners: Owners::default(),
        })
    }

    /// A directory below which no link is followed at all.
    pub(crate) fn without_links(directory: OwnedFd) -> Self {
        Self {
            directory,
            resolve: ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            guarded: false,
            owners: Owners::default(),
        }
    }

    /// Opens a path; a link at its end is followed unless the flags say otherwise.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            let fd = &self.directory;
            match rustix::fs::openat2(fd, os(path), flags, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(handle) if self.guarded && is_kernels(handle.as_fd())? => {
                    return Err(Errno::PERM);
                }
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// A handle of a directory, or of anything else, that is made with its parents if it is missing: what
    /// something is to be mounted on.
    pub fn open_or_make(&self, path: &[u8], directory: bool) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed("open", path)),
        }
        let (above, name) = split(path);
        let parent = match above {
            b"" | b"/" => self
                .open(b".", OFlags::PATH)
                .map_err(failed("open", path))?,
            above => self.open_or_make(above, true)?,
        };
        let made = if directory {
            rustix::fs::mkdirat(&parent, os(name), Mode::from_raw_mode(0o755))
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, os(name), flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make", path)(errno)),
        }
        self.open(path, OFlags::PATH).map_err(failed("open", path))
    }

    /// What is at a path, links followed or not; `None` for nothing.
    pub(crate) fn look(&self, path: &[u8], follow: bool) -> rustix::io::Result<Option<Stat>> {
        let mut flags = OFlags::PATH;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        match self.open(path, flags) {
            Ok(handle) => rustix::fs::fstat(handle).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// Whether a handle is of a file system whose files are the kernel's.
pub fn is_kernels(handle: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let magic = rustix::fs::fstatfs(handle)?.f_type;
    Ok(u64::try_from(magic).is_ok_and(|magic| KERNELS.contains(&magic)))
}

pub(crate) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    file_type(stat) == FileType::Directory
}

pub(crate) fn is_device(kind: FileType) -> bool {
    matches!(kind, FileType::CharacterDevice | FileType::BlockDevice)
}

/// Joins with one slash; either may be empty.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match (parent, name) {
        (b"", name) => name.to_vec(),
        (parent, b"") => parent.to_vec(),
        (parent, name) if parent.ends_with(b"/") => [parent, name].concat(),
        (parent, name) => [parent, b"/", name].concat(),
    }
}

/// Directory and last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash.max(1)], &path[slash + 1..]),
        None => (b"", path),
    }
}
