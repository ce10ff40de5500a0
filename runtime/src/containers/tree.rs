//! The files of a container as it sees them, by handle: of one that runs through its own mounts, of one
//! that does not through the same mounts made again, in a namespace that ends with the handle.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use orlop_files::{Owners, Root};
use orlop_shim::overlay;
use orlop_sys::mount::{self, Propagation, attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsmount, fsopen, move_mount, open_tree,
};

use super::record::{Below, Mount, MountKind, Record};
use crate::error::{Error, Result};

/// Bytes of `/proc/PID/cgroup` that are read.
const CGROUP_BYTES_MAX: u64 = 64 * 1024;
/// What only the kernel and the runtime have files in.
const SPECIAL: [&str; 3] = ["proc", "sys", "dev"];

/// A container's root, and what keeps it.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Paths in it are the container's.
    pub(crate) root: Root,
    /// Devices of mounts whose content is not copied.
    pub(crate) special: Vec<u64>,
    /// The mounts live as long as this.
    _namespace: Option<File>,
}

impl Tree {
    /// Of a running container. Blocks.
    pub(crate) fn of_running(record: &Record, group: &str) -> Result<Self> {
        let fail = |source: io::Error| Error::file("open the root of", record.title())(source);
        let process = format!("/proc/{}", record.state.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::open(process, flags, Mode::empty());
        let process = process.map_err(|errno| fail(errno.into()))?;
        // The handle stays that of one process: what is in the container's group is not another's that
        // got its number.
        if !is_in_group(&process, group).map_err(fail)? {
            return Err(fail(io::ErrorKind::NotFound.into()));
        }
        let root = rustix::fs::openat(&process, "root", flags, Mode::empty());
        let mut tree = Self::new(root.map_err(|errno| fail(errno.into()))?, None).map_err(fail)?;
        if let Some(ids) = record.ids {
            tree.root = tree.root.owned(Owners::mapped(ids.first, ids.size));
        }
        Ok(tree)
    }

    /// Of a container that does not run. `place` is any directory of the host; in the host's namespace
    /// nothing is mounted on it. Runs on a thread of its own, which ends.
    pub(crate) fn of_stopped(record: &Record, place: &Path) -> Result<Self> {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| mount_here(record, place));
            made.join().unwrap_or(Err(Error::ShuttingDown))
        })
    }

    fn new(root: OwnedFd, namespace: Option<File>) -> io::Result<Self> {
        let own = rustix::fs::fstat(&root)?.st_dev;
        let mut special = Vec::new();
        for name in SPECIAL {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
                Ok(handle) => special.push(rustix::fs::fstat(handle)?.st_dev),
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        special.retain(|device| *device != own);
        Ok(Self {
            root: Root::of_container(root),
            special,
            _namespace: namespace,
        })
    }
}

fn is_in_group(process: &OwnedFd, group: &str) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(process, "cgroup", flags, Mode::empty())?;
    let mut text = String::new();
    File::from(file)
        .take(CGROUP_BYTES_MAX)
        .read_to_string(&mut text)?;
    let below = |path: &str| {
        let rest = path.strip_prefix(group);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    Ok(text
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(below))
}

/// This thread stays in the new namespace: it must end after this.
fn mount_here(record: &Record, place: &Path) -> Result<Tree> {
    let fail = |step| move |source: io::Error| Error::file(step, record.title())(source);
    let kernel = |step| move |errno: Errno| fail(step)(errno.into());
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| fail("make a namespace for")(errno.into()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = rustix::fs::open("/", flags, Mode::empty()).map_err(kernel("open the host of"))?;
    mount::set(host.as_fd(), 0, 0, Some(Propagation::Slave), true)
        .map_err(fail("make a namespace for"))?;
    let root = overlay::assemble(&record.root, &mut |note| tracing::warn!(note, "overlay"))
        .map_err(|error| fail("mount the files of")(io::Error::other(error)))?;
    let over = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&root, "", CWD, place, over).map_err(kernel("mount the files of"))?;
    let mut asked: Vec<_> = record.mounts.iter().collect();
    asked.sort_by_key(|mount| mount.target.matches('/').count());
    for mount in asked {
        attach(&root, mount).map_err(Error::file("mount", &mount.target))?;
    }
    if record.config.read_only {
        mount::set(root.as_fd(), attributes::READ_ONLY, 0, None, false)
            .map_err(fail("mount the files of"))?;
    }
    let namespace = File::open("/proc/thread-self/ns/mnt").map_err(fail("keep the mounts of"))?;
    Tree::new(root, Some(namespace)).map_err(fail("open the root of"))
}

/// Mounts a volume or a bind mount where the container will have it. Nothing is in a tmpfs before the
/// container runs, nor can anything be put there.
fn attach(root: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let tree = match mount.kind {
        MountKind::Tmpfs => empty()?,
        MountKind::Bind | MountKind::Volume { .. } => source(mount)?,
    };
    let stat = rustix::fs::fstat(&tree)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let target = Root::of_container(root.try_clone()?);
    let target = target.open_or_make(mount.target.as_bytes(), directory);
    let target = target.map_err(io::Error::other)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, "", &target, "", flags)?)
}

fn source(mount: &Mount) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, mount.below != Below::LeftOut);
    let whole = rustix::fs::open(&mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let part = match mount.subpath.as_str() {
        "" => whole,
        subpath => part(&whole, subpath)?,
    };
    let tree = open_tree(part, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
    let set = match mount.read_only {
        true => attributes::READ_ONLY,
        false => 0,
    };
    let deep = mount.below == Below::Alike;
    mount::set(tree.as_fd(), set, 0, None, deep)?;
    mount::set(tree.as_fd(), 0, 0, Some(Propagation::Private), true)?;
    Ok(tree)
}

/// As the shim finds it: links in the volume stay inside.
fn part(volume: &OwnedFd, subpath: &str) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        volume,
        subpath,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

fn empty() -> io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(fsmount(&fs, flags, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}
