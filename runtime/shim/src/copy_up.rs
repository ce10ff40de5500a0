//! Fills a new volume with what the image has at its target, as images with data in a VOLUME expect.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};

use crate::error::{Error, Result};
use crate::rootfs;

/// Directories below each other.
const DEPTH_MAX: usize = 1000;
/// Names, and the value, of the extended attributes of one file, as the kernel's own limit.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// A volume's directory.
pub(crate) fn open_volume(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Copies the tree at `target` of the image into the volume `to`, if that is empty. Ownership, modes,
/// times, links and extended attributes are kept.
pub(crate) fn fill(to: io::Result<OwnedFd>, root: BorrowedFd<'_>, target: &Path) -> Result<()> {
    let fail = |source| Error::CopyUp {
        path: target.into(),
        source,
    };
    copy(root, target, &to.map_err(fail)?)
}

/// The same into a directory that is open.
pub(crate) fn copy(root: BorrowedFd<'_>, target: &Path, to: &OwnedFd) -> Result<()> {
    let fail = |source| Error::CopyUp {
        path: target.into(),
        source,
    };
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let from = match rootfs::open_in(root, target, directory) {
        Ok(from) => from,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(fail(error)),
    };
    if !is_empty(to).map_err(fail)? {
        return Ok(());
    }
    let mut copy = Copy {
        top: to,
        links: HashMap::new(),
    };
    copy.tree(&from, to, Path::new(""), 0).map_err(fail)?;
    let stat = rustix::fs::fstat(&from).map_err(|errno| fail(errno.into()))?;
    dress(from.as_fd(), to.as_fd(), &stat).map_err(fail)
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Copy<'a> {
    top: &'a OwnedFd,
    /// Where the first of a file's names went, below the volume.
    links: HashMap<(u64, u64), std::path::PathBuf>,
}

impl Copy<'_> {
    fn tree(&mut self, from: &OwnedFd, to: &OwnedFd, below: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "directories nested too deeply",
            ));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.entry(from, to, name, below, depth)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        below: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let path = below.join(std::ffi::OsStr::from_encoded(name));
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return Ok(rustix::fs::linkat(
                    self.top,
                    first,
                    to,
                    name,
                    AtFlags::empty(),
                )?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
                self.tree(&source, &target, &path, depth + 1)?;
                dress(source.as_fd(), target.as_fd(), &stat)
            }
            FileType::RegularFile => file(from, to, name, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
                own(to, name, &stat)
            }
            _ => {
                rustix::fs::mknodat(
                    to,
                    name,
                    kind,
                    Mode::from_raw_mode(stat.st_mode),
                    stat.st_rdev,
                )?;
                own(to, name, &stat)
            }
        }
    }
}

/// Names of a directory as parts of a path.
trait FromEncoded {
    fn from_encoded(name: &CStr) -> &Self;
}

impl FromEncoded for std::ffi::OsStr {
    fn from_encoded(name: &CStr) -> &Self {
        std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
    }
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(rustix::fs::openat(
        to,
        name,
        flags,
        Mode::from_raw_mode(0o600),
    )?);
    io::copy(&mut source, &mut target)?;
    dress(source.as_fd(), target.as_fd(), stat)
}

fn own(directory: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        flags,
    )?)
}

/// Owner, extended attributes, mode and times; in this order, as each undoes some of the next.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = rustix::fs::flistxattr(from, &mut names[..]).unwrap_or(0);
    for name in names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}
