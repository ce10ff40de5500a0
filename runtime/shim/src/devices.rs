//! `/dev`: exactly the devices that the OCI specification asks for, on a tmpfs of our own; the
//! container's terminal; and what is hidden behind the null device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use orlop_sys::mount::{self, attributes};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use rustix::pty::OpenptFlags;

use crate::error::{Error, Result};
use crate::mounts::{DEVPTS_MAGIC, TMPFS_MAGIC, open_checked};
use crate::rootfs;

/// Name, major and minor number: config-linux.md of the OCI runtime specification, "Default Devices".
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Name and target: the same document.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Group `tty`, as every Linux distribution numbers it.
const TTY_GROUP: u32 = 5;

/// The terminal of a process: the shim's side and the process's.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// The container's `/dev`, checked to be a tmpfs: below anything else the image decides what is where.
pub(crate) fn open(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_checked(root, "/dev", TMPFS_MAGIC, "a tmpfs")
}

/// Makes the devices and links in `dev`, and those that the specification adds.
pub(crate) fn populate(dev: &OwnedFd, more: &[LinuxDevice]) -> Result<()> {
    for (name, major, minor) in DEVICES {
        make(dev, name, FileType::CharacterDevice, 0o666, (major, minor))?;
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail(name)(errno)),
        }
    }
    for device in more {
        add(dev, device)?;
    }
    Ok(())
}

fn fail(name: &str) -> impl FnOnce(Errno) -> Error + use<> {
    let path = Path::new("/dev").join(name);
    move |errno| Error::Device {
        path,
        source: errno.into(),
    }
}

fn make(dev: &OwnedFd, name: &str, kind: FileType, mode: u32, number: (u32, u32)) -> Result<()> {
    let device = makedev(number.0, number.1);
    match rustix::fs::mknodat(dev, name, kind, Mode::from_raw_mode(mode), device) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(fail(name)(errno)),
    }
}

/// A device of the specification. Only below `/dev`; directories on the way are made.
fn add(dev: &OwnedFd, device: &LinuxDevice) -> Result<()> {
    let outside = || Error::Unsupported(format!("the device {:?} outside of /dev", device.path()));
    let name = device.path().strip_prefix("/dev").map_err(|_| outside())?;
    let name = name
        .to_str()
        .filter(|name| !name.is_empty())
        .ok_or_else(outside)?;
    if DEVICES.iter().any(|(known, ..)| *known == name) {
        return Ok(());
    }
    let (directory, name) = match name.rsplit_once('/') {
        Some((directory, name)) => {
            let path = Path::new("/dev").join(directory);
            (rootfs::ensure_in_dev(dev.as_fd(), &path)?, name)
        }
        None => (
            dev.try_clone()
                .map_err(|e| fail(name)(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?,
            name,
        ),
    };
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::Unsupported("a device of type \"a\"".to_owned())),
    };
    let number = |value: i64| u32::try_from(value).unwrap_or_default();
    let numbers = (number(device.major()), number(device.minor()));
    let mode = device.file_mode().unwrap_or(0o666) & 0o777;
    make(&directory, name, kind, mode, numbers)?;
    let owner = Uid::from_raw(device.uid().unwrap_or(0));
    let group = Gid::from_raw(device.gid().unwrap_or(0));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(&directory, name, Some(owner), Some(group), flags).map_err(fail(name))
}

/// Opens a new terminal in the container's own devpts. Neither side is ever opened by a path that
/// the container could have made: the slave comes from the master.
pub(crate) fn open_terminal(
    root: BorrowedFd<'_>,
    uid: u32,
    window: Option<(u16, u16)>,
) -> Result<Terminal> {
    let fail = |step| {
        move |errno: Errno| Error::Terminal {
            step,
            source: errno.into(),
        }
    };
    let pts = open_checked(root, "/dev/pts", DEVPTS_MAGIC, "a devpts")?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(&pts, "ptmx", flags, Mode::empty()).map_err(fail("open"))?;
    rustix::pty::unlockpt(&master).map_err(fail("unlock"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(fail("open the peer"))?;
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(TTY_GROUP));
    rustix::fs::fchown(&slave, Some(owner), Some(group)).map_err(fail("change the owner"))?;
    if let Some((rows, columns)) = window {
        resize(&master, rows, columns).map_err(fail("set the window size"))?;
    }
    Ok(Terminal { master, slave })
}

/// Sets a terminal's window size.
pub(crate) fn resize(master: &OwnedFd, rows: u16, columns: u16) -> rustix::io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size)
}

/// Shows the terminal as `/dev/console`.
pub(crate) fn bind_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> Result<()> {
    let dev = open(root)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(&dev, "console", flags, Mode::from_raw_mode(0o620)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(fail("console")(errno)),
    }
    let target = rootfs::open_plain(&dev, Path::new("console"), OFlags::PATH);
    let target = target.map_err(|source| Error::Device {
        path: "/dev/console".into(),
        source,
    })?;
    let tree = clone_of(slave, false).map_err(fail("console"))?;
    rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail("console"))
}

/// A mount that shows what `handle` shows, attached nowhere.
pub(crate) fn clone_of(handle: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(handle, "", flags)
}

/// Hides `paths`: files behind the null device, directories behind an empty file system.
pub(crate) fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = open_null(root)?;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let fail = |errno: Errno| Error::Mask {
            path: path.into(),
            source: errno.into(),
        };
        let Some(target) = existing(root, path)? else {
            continue;
        };
        if !rootfs::is_directory(target.as_fd()) {
            let tree = clone_of(null.as_fd(), false).map_err(fail)?;
            rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail)?;
            continue;
        }
        let tree = match &empty {
            Some(first) => clone_of(first.as_fd(), false).map_err(fail)?,
            None => {
                let bits = MountAttrFlags::MOUNT_ATTR_RDONLY
                    | MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                let options = [("nr_inodes".to_owned(), Some("1".to_owned()))];
                rootfs::new_filesystem("tmpfs", Path::new("tmpfs"), &options, bits).map_err(fail)?
            }
        };
        rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail)?;
        empty.get_or_insert(tree);
    }
    Ok(())
}

/// The null device that this shim made, and nothing that took its place.
fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let dev = open(root)?;
    let null = rootfs::open_plain(&dev, Path::new("null"), OFlags::PATH | OFlags::NOFOLLOW);
    let null = null.map_err(|_| Error::NotNull)?;
    let stat = rustix::fs::fstat(&null).map_err(|_| Error::NotNull)?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if character && stat.st_rdev == makedev(1, 3) {
        Ok(null)
    } else {
        Err(Error::NotNull)
    }
}

/// A handle of `path`, `None` if this kernel does not have it.
fn existing(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>> {
    match rootfs::open_plain(root, Path::new(path), OFlags::PATH) {
        Ok(handle) => Ok(Some(handle)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Some(Errno::LOOP) => Err(Error::Link { path: path.into() }),
            _ => Err(Error::Mask {
                path: path.into(),
                source: error,
            }),
        },
    }
}

/// Makes `paths`, and all below them, read-only.
pub(crate) fn make_read_only(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    for path in paths {
        let path = PathBuf::from(path);
        let Some(target) = existing(root, &path.to_string_lossy())? else {
            continue;
        };
        let fail = |source| Error::Mask {
            path: path.clone(),
            source,
        };
        let tree = clone_of(target.as_fd(), true).map_err(|errno| fail(errno.into()))?;
        mount::set(tree.as_fd(), attributes::READ_ONLY, 0, None, true).map_err(fail)?;
        rootfs::attach(tree.as_fd(), target.as_fd()).map_err(|errno| fail(errno.into()))?;
    }
    Ok(())
}
