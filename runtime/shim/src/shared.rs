//! What a container shares with another one: `/dev/shm`, which goes with an IPC namespace.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use orlop_sys::process::{self as sys, namespaces};

use crate::child::Child;
use crate::error::{Error, Result};
use crate::mounts::{TMPFS_MAGIC, open_checked};
use crate::{devices, rootfs};

/// A clone of the `/dev/shm` of a mount namespace. A child goes there for it: mounts can be cloned in
/// their own namespace only.
pub(crate) fn clone_shm(namespace: &Path) -> Result<OwnedFd> {
    let fail = |source| Error::Join {
        path: namespace.into(),
        source,
    };
    let file = File::open(namespace).map_err(fail)?;
    let tree = Child::fetch(0, || {
        sys::join_namespaces(file.as_fd(), namespaces::MOUNT).map_err(fail)?;
        let root = rootfs::root_handle()?;
        let shm = open_checked(root.as_fd(), "/dev/shm", TMPFS_MAGIC, "a tmpfs")?;
        devices::clone_of(shm.as_fd(), false).map_err(|errno| fail(errno.into()))
    })?;
    tree.ok_or(Error::Missing("the /dev/shm of the other container"))
}
