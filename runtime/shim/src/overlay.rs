//! The overlay of a container's root file system: the shim makes it for a container that starts, the
//! service for the files of one that does not run.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::config::RootMount;

/// Overlay layers of one mount, as the kernel's own limit.
const LAYERS_MAX: usize = 500;

/// Why there is no overlay.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// So many layers cannot be stacked.
    #[error("an image of {0} layers")]
    Layers(usize),
    /// The kernel refused a step.
    #[error("cannot put the root file system together: {0}")]
    Step(&'static str, #[source] io::Error),
}

fn fail(step: &'static str) -> impl Fn(Errno) -> OverlayError {
    move |source| OverlayError::Step(step, source.into())
}

/// The image's layers and the container's own, attached nowhere. `note` is told what the kernel has to
/// say about a failure.
pub fn assemble(root: &RootMount, note: &mut dyn FnMut(&str)) -> Result<OwnedFd, OverlayError> {
    if root.lower.is_empty() || root.lower.len() > LAYERS_MAX {
        return Err(OverlayError::Layers(root.lower.len()));
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("fsopen overlay"))?;
    let set = |key, value: &Path| fsconfig_set_string(&fs, key, value);
    set("source", Path::new("overlay")).map_err(fail("source"))?;
    if root.lower.len() == 1 || set_layers(&fs, root).is_err() {
        set_lowerdir(&fs, root).map_err(fail("lowerdir"))?;
    }
    set("upperdir", &root.upper).map_err(fail("upperdir"))?;
    set("workdir", &root.work).map_err(fail("workdir"))?;
    fsconfig_create(&fs).map_err(|errno| fail(explain(&fs, errno, note))(errno))?;
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
fn set_lowerdir(fs: &OwnedFd, root: &RootMount) -> rustix::io::Result<()> {
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
    fsconfig_set_string(fs, "lowerdir", value.as_os_str())
}

fn explain(fs: &OwnedFd, errno: Errno, note: &mut dyn FnMut(&str)) -> &'static str {
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(fs, &mut buffer) {
        note(&String::from_utf8_lossy(&buffer[..length]));
    }
    match errno {
        Errno::NOENT => "a layer of the image is missing",
        _ => "fsconfig create",
    }
}
