//! The root file system: put together as a detached mount, entered by pivoting, and walked by handles.
//!
//! Nothing is ever mounted in the host's mount namespace. After [`enter`] no path leads out of the
//! container any more: what its mounts need of the host was opened before.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use orlop_shim::config::RootMount;
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
/// Overlay layers of one mount, as the kernel's own limit.
const LAYERS_MAX: usize = 500;

/// What has to be at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// The overlay of the image's layers and the container's own, attached nowhere.
pub(crate) fn assemble(root: &RootMount) -> Result<OwnedFd> {
    let fail = |step| {
        move |source: Errno| Error::Root {
            step,
            source: source.into(),
        }
    };
    if root.lower.is_empty() || root.lower.len() > LAYERS_MAX {
        return Err(Error::Unsupported(format!(
            "an image of {} layers",
            root.lower.len()
        )));
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("fsopen overlay"))?;
    let set = |key, value: &Path| fsconfig_set_string(&fs, key, value);
    set("source", Path::new("overlay")).map_err(fail("source"))?;
    if root.lower.len() == 1 || set_layers(&fs, root).is_err() {
        set_lowerdir(&fs, root)?;
    }
    set("upperdir", &root.upper).map_err(fail("upperdir"))?;
    set("workdir", &root.work).map_err(fail("workdir"))?;
    fsconfig_create(&fs).map_err(|source| Error::Root {
        step: explain(&fs, source),
        source: source.into(),
    })?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail("fsmount overlay"))
}

/// Linux 6.7 and later: one key per layer, no limit of a page on their names.
fn set_layers(fs: &OwnedFd, root: &RootMount) -> rustix::io::Result<()> {
    for lower in &root.lower {
        fsconfig_set_string(fs, "lowerdir+", lower.as_path())?;
    }
    Ok(())
}

/// Before: all names in one value, with colons and backslashes escaped.
fn set_lowerdir(fs: &OwnedFd, root: &RootMount) -> Result<()> {
    let mut value = Vec::new();
    for lower in &root.lower {
        if !value.is_empty() {
            value.push(b':');
        }
        for &byte in lower.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\' | b',') {
                value.push(b'\\');
            }
            value.push(byte);
        }
    }
    let value = OsString::from_vec(value);
    fsconfig_set_string(fs, "lowerdir", value.as_os_str()).map_err(|source| Error::Root {
        step: "lowerdir",
        source: source.into(),
    })
}

/// What the kernel has to say about a failed file system goes to the shim's log.
fn explain(fs: &OwnedFd, errno: Errno) -> &'static str {
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(fs, &mut buffer) {
        crate::error::note(&String::from_utf8_lossy(&buffer[..length]));
    }
    match errno {
        Errno::NOENT => "a layer of the image is missing",
        _ => "fsconfig create",
    }
}

/// Makes `root` the root of the process, in its own mount namespace, and lets go of the old one.
///
/// `place` is any directory of the host; it is covered in the container's namespace only, and gone
/// with the old root.
pub(crate) fn enter(root: BorrowedFd<'_>, place: &Path) -> Result<()> {
    let fail = |step| {
        move |source: Errno| Error::Root {
            step,
            source: source.into(),
        }
    };
    let old = open_path(CWD, Path::new("/")).map_err(fail("open the old root"))?;
    // Slave, not private: an unmount on the host then also lets go of the copy here.
    mount::set(old.as_fd(), 0, 0, Some(Propagation::Slave), true).map_err(|source| {
        Error::Root {
            step: "propagation of the old root",
            source,
        }
    })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, "", CWD, place, flags).map_err(fail("attach"))?;
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
    let fail = |source: io::Error| Error::Target {
        path: path.into(),
        source,
    };
    let mut handles = vec![root.try_clone_to_owned().map_err(fail)?];
    let mut pending = components(path.as_os_str());
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
