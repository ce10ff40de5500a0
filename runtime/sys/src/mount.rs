//! `mount_setattr`, which changes attributes of a whole tree of mounts at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::checked;

/// Attributes of a mount, `MOUNT_ATTR_*`.
pub mod attributes {
    /// Read-only.
    pub const READ_ONLY: u64 = 0x1;
    /// Set-user-id bits and file capabilities have no effect.
    pub const NO_SUID: u64 = 0x2;
    /// Device files cannot be opened.
    pub const NO_DEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NO_EXEC: u64 = 0x8;
    /// The field of the access-time modes.
    pub const ATIME_MASK: u64 = 0x70;
    /// Access times are not updated.
    pub const NO_ATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICT_ATIME: u64 = 0x20;
    /// Access times of directories are not updated.
    pub const NO_DIR_ATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NO_SYMLINK_FOLLOW: u64 = 0x20_0000;
}

/// How mounts below one mount travel to its peers, `MS_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// From the master only.
    Slave,
    /// Both ways.
    Shared,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets and clears `attributes` of the mount behind `mount`, and of all below it if `recursive`.
pub fn set(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: Option<Propagation>,
    recursive: bool,
) -> io::Result<()> {
    let attr = MountAttr {
        set,
        clear,
        propagation: propagation.map_or(0, |propagation| match propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }),
        userns: 0,
    };
    setattr(mount, &attr, recursive)
}

/// Shows the owners of the mount behind `mount`, which was never attached, as the user namespace maps
/// them: what is of 0 on the disk is of the namespace's root. `EINVAL` where the file system or the
/// kernel knows no such mounts.
pub fn map_ids(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        set: 0x10_0000, // MOUNT_ATTR_IDMAP
        clear: 0,
        propagation: 0,
        userns: u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?,
    };
    setattr(mount, &attr, false)
}

fn setattr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { 0x8000 } else { 0 }; // AT_RECURSIVE
    let (fd, size) = (mount.as_raw_fd(), size_of::<MountAttr>());
    // SAFETY: the path is an empty C string, `attr` outlives the call and `size` is its size.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size,
        )
    })
    .map(drop)
}
