//! Mounting the image of a layer: detached, or at a directory below the store's own root.
//!
//! An image is mounted straight from its file, which the kernel does since Linux 6.12
//! (`CONFIG_EROFS_FS_BACKED_BY_FILE`). Overlayfs keeps what it is stacked on by itself, so that
//! unmounting a layer takes nothing from a container that runs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{Result, StoreError};

/// Mounts the image in a file where nobody sees it; the mount ends with the handle.
pub fn open_image(image: &Path) -> Result<OwnedFd> {
    detached(image).map_err(|errno| failed("mount the image", image, errno))
}

/// Mounts the image in a file at a directory.
pub fn attach(image: &Path, at: &Path) -> Result<()> {
    let mount = open_image(image)?;
    move_mount(
        mount.as_fd(),
        "",
        CWD,
        at,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| failed("mount the image of a layer at", at, errno))
}

/// Takes the mount at a directory away, for new users at once; success when there is none.
pub fn detach(at: &Path) -> Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match unmount(at, flags) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(failed("unmount", at, errno)),
    }
}

/// Whether something is mounted at a directory.
pub fn is_attached(at: &Path) -> Result<bool> {
    let known = rustix::fs::statx(CWD, at, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .map_err(|errno| failed("look at", at, errno))?;
    Ok(known.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Nothing on the host may be run, or opened as a device, through the store's own mounts (row J3).
fn detached(image: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", image)?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn failed(action: &'static str, path: &Path, errno: Errno) -> StoreError {
    StoreError::Tree {
        action,
        path: path.display().to_string(),
        source: errno.into(),
    }
}
