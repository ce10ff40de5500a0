//! Volumes that are file systems of their own (`type=tmpfs`, `type=nfs`): mounted at the volume's place for
//! the first container that runs with it, unmounted after the last. The mounts outlive this service, as
//! containers do.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::ToSocketAddrs as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::driver::Filesystem;
use crate::error::{Error, Result};

/// Any port will do where only the address of a host is wanted.
const NO_PORT: u16 = 0;

/// Which containers use which of these volumes.
#[derive(Clone, Debug, Default)]
pub(super) struct Users(Arc<Mutex<HashMap<String, Container>>>);

/// The ids of those that use one. A server that does not answer holds up nobody but them.
type Container = Arc<Mutex<HashSet<String>>>;

impl Users {
    /// Mounts a volume for a container. Blocks.
    pub(super) fn join(&self, volume: &str, id: &str, fs: &Filesystem, place: &Path) -> Result<()> {
        let users = self.of(volume);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_mounted(place)? {
            mount(fs, place)?;
        }
        users.insert(id.to_owned());
        Ok(())
    }

    /// A container that ran before this service did has it mounted.
    pub(super) fn adopt(&self, volume: &str, id: &str) {
        let users = self.of(volume);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        users.insert(id.to_owned());
    }

    /// A container does not use it any more; the last one unmounts it. Idempotent. Blocks.
    pub(super) fn leave(&self, volume: &str, id: &str, place: &Path) -> Result<()> {
        let users = self.of(volume);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        users.remove(id);
        match users.is_empty() && is_mounted(place)? {
            true => umount2(place, MntFlags::MNT_DETACH)
                .map_err(|errno| Error::file("unmount the volume", place)(errno.into())),
            false => Ok(()),
        }
    }

    fn of(&self, volume: &str) -> Container {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(volume.to_owned()).or_default())
    }
}

fn is_mounted(place: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, place, flags, StatxFlags::empty());
    let found = found.map_err(|errno| Error::file("look at the volume", place)(errno.into()))?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn mount(fs: &Filesystem, place: &Path) -> Result<()> {
    let failed = |error: io::Error| {
        let problem = format!("type={}: {error}", fs.kind);
        Error::file("mount the volume", place)(io::Error::new(error.kind(), problem))
    };
    let address = fs.address.as_deref().map(resolve).transpose();
    let address = address.map_err(failed)?;
    let made = fsopen(fs.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| failed(unknown(errno)))?;
    configure(&made, fs, address.as_deref()).map_err(|errno| failed(explain(&made, errno)))?;
    let tree = fsmount(&made, FsMountFlags::FSMOUNT_CLOEXEC, fs.attributes)
        .map_err(|errno| failed(explain(&made, errno)))?;
    move_mount(
        &tree,
        "",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| failed(errno.into()))
}

fn configure(made: &OwnedFd, fs: &Filesystem, address: Option<&str>) -> rustix::io::Result<()> {
    fsconfig_set_string(made, "source", fs.source.as_str())?;
    if let Some(address) = address {
        fsconfig_set_string(made, "addr", address)?;
    }
    for (key, value) in &fs.options {
        match value {
            Some(value) => fsconfig_set_string(made, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(made, key.as_str())?,
        }
    }
    fsconfig_create(made)
}

/// The kernel has addresses only.
fn resolve(host: &str) -> io::Result<String> {
    let mut found = (host, NO_PORT).to_socket_addrs()?;
    let none = || io::Error::other(format!("{host} has no address"));
    Ok(found.next().ok_or_else(none)?.ip().to_string())
}

fn unknown(errno: Errno) -> io::Error {
    match errno {
        Errno::NODEV => io::Error::new(
            io::ErrorKind::Unsupported,
            "this host's kernel has no such file system; load its module, if there is one",
        ),
        errno => errno.into(),
    }
}

/// What the kernel has to say about it, if anything.
fn explain(made: &OwnedFd, errno: Errno) -> io::Error {
    let mut buffer = [0; 512];
    let mut said = String::new();
    while let Ok(length @ 1..) = rustix::io::read(made, &mut buffer) {
        let line = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        said = format!("{said}{}; ", line.trim());
    }
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("{said}{error}"))
}
