//! The root file system: put together as a detached mount, entered by pivoting, and walked by handles.
//!
//! Nothing is ever mounted in the host's mount namespace. After [`enter`] no path leads out of the
//! container any more: what its mounts need of the host was opened before.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::config::RootMount;
use crate::overlay::{self, OverlayError};
use orlop_sys::mount::{self, Propagation};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{Error, Result};

/// Symbolic links on one path, as the kernel's own limit.
const LINKS_MAX: usize = 40;

/// What has to be at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// The overlay of the image's layers and the container's own, attached nowhere. What the kernel has to
/// say about a failure goes to the shim's log.
pub(crate) fn assemble(root: &RootMount) -> Result<OwnedFd> {
    overlay::assemble(root, &mut |note| crate::error::note(note)).map_err(|error| match error {
        OverlayError::Layers(count) => Error::Unsupported(format!("an image of {count} layers")),
        OverlayError::Step(step, source) => Error::Root { step, source },
    })
}

fn fail(step: &'static str) -> impl FnOnce(Errno) -> Error {
    move |source| Error::Root {
        step,
        source: source.into(),
    }
}

/// Attaches `root` at `place`, in the mount namespace of the process.
///
/// `place` is any directory of the host; it is covered in the container's namespace only, and gone
/// with the old root.
pub(crate) fn show(root: BorrowedFd<'_>, place: &Path) -> Result<()> {
    let old = open_path(CWD, Path::new("/")).map_err(fail("open the old root"))?;
    // Slave, not private: an unmount on the host then also lets go of the copy here.
    mount::set(old.as_fd(), 0, 0, Some(Propagation::Slave), true).map_err(|source| {
        Error::Root {
            step: "propagation of the old root",
            source,
        }
    })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, "", CWD, place, flags).map_err(fail("attach"))
}

/// Makes `root`, which was attached, the root of the process, and lets go of the old one.
pub(crate) fn enter(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).map_err(fail("enter"))?;
    rustix::process::pivot_root(".", ".").map_err(fail("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(fail("detach the old root"))?;
    rustix::process::chdir("/").map_err(fail("enter"))
}

/// A handle of `path`, which may be anything but a symbolic link at its end.
fn open_path<Fd: AsFd>(directory: Fd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, path, flags, Mode::empty())
}

/// One more handle of a root.
pub(crate) fn same(root: &OwnedFd) -> Result<OwnedFd> {
    root.try_clone().map_err(|source| Error::Root {
        step: "open the root",
        source,
    })
}

/// A handle of the root directory of the process.
pub(crate) fn root_handle() -> Result<OwnedFd> {
    open_path(CWD, Path::new("/")).map_err(|source| Error::Root {
        step: "open the root",
        source: source.into(),
    })
}

/// A handle of an existing `path` below `root`: links are followed inside, magic links are not.
pub(crate) fn open_in<Fd: AsFd>(root: Fd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// As [`open_in`], but any symbolic link is an error (`ELOOP`).
pub(crate) fn open_plain<Fd: AsFd>(root: Fd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// Whether `path` is in one of the trees that only the kernel may provide.
pub(crate) fn is_special(path: &Path) -> bool {
    let first = path.components().find_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    first.is_some_and(|name| name == "proc" || name == "sys" || name == "dev")
}

/// A handle of `path` below `root`, made if it is missing. Links are followed inside of `root`, one
/// component at a time by handle, so that nothing changes its meaning between two looks; below
/// `/proc`, `/sys` and `/dev` a link is an error.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> Result<OwnedFd> {
    walk(root, path, components(path.as_os_str()), kind)
}

/// The same for a directory below `/dev`, of which `dev` is a handle.
pub(crate) fn ensure_in_dev(dev: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let mut names = components(path.as_os_str());
    names.pop_front();
    walk(dev, path, names, Kind::Directory)
}

fn walk(
    root: BorrowedFd<'_>,
    path: &Path,
    mut pending: VecDeque<OsString>,
    kind: Kind,
) -> Result<OwnedFd> {
    let fail = |source: io::Error| Error::Target {
        path: path.into(),
        source,
    };
    let mut handles = vec![root.try_clone_to_owned().map_err(fail)?];
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            handles.truncate((handles.len() - 1).max(1));
            continue;
        }
        let Some(top) = handles.last() else { break };
        let last = pending.is_empty();
        let next = step(
            top.as_fd(),
            &name,
            if last { kind } else { Kind::Directory },
        );
        let next = next.map_err(|errno| fail(errno.into()))?;
        let stat = rustix::fs::fstat(&next).map_err(|errno| fail(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            handles.push(next);
            continue;
        }
        links += 1;
        if is_special(path) || links > LINKS_MAX {
            return Err(Error::Link { path: path.into() });
        }
        let target = rustix::fs::readlinkat(&next, "", Vec::new());
        let target = target.map_err(|errno| fail(errno.into()))?.into_bytes();
        if target.starts_with(b"/") {
            handles.truncate(1);
        }
        let mut target = components(OsStr::from_bytes(&target));
        target.append(&mut pending);
        pending = target;
    }
    handles
        .pop()
        .ok_or_else(|| fail(io::ErrorKind::NotFound.into()))
}

/// Opens `name` in `directory`, making it first if it is missing.
fn step(directory: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> rustix::io::Result<OwnedFd> {
    match open_path(directory, Path::new(name)) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let made = match kind {
        Kind::Directory => rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat(directory, name, flags | OFlags::WRONLY, mode).map(drop)
        }
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => open_path(directory, Path::new(name)),
        Err(errno) => Err(errno),
    }
}

fn components(path: &OsStr) -> VecDeque<OsString> {
    let parts = path.as_bytes().split(|&byte| byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    parts
        .map(|part| OsStr::from_bytes(part).to_owned())
        .collect()
}

/// A new, empty file system of `kind` with its own options, attached nowhere.
pub(crate) fn new_filesystem(
    kind: &str,
    source: &Path,
    options: &[(String, Option<String>)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", source)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&fs, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&fs, key.as_str())?,
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches the detached `tree` over `target`.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags)
}

/// Whether the handle is a directory's.
pub(crate) fn is_directory(handle: BorrowedFd<'_>) -> bool {
    let stat = rustix::fs::statat(handle, "", AtFlags::EMPTY_PATH);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
