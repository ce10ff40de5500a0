//! The merged tree of a snapshot, as a mount that no namespace ever sees: it lives as long as its
//! handle, so that a crash leaves no mount behind.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::error::{Result, StoreError};
use crate::layers::root::Root;
use crate::snapshots::files;

/// What is stacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Topmost first; never empty.
    pub lower: Vec<PathBuf>,
    /// The writable directory and the one that overlayfs works in.
    pub upper: Option<(PathBuf, PathBuf)>,
}

impl Stack {
    /// Mounts it.
    pub fn open(&self) -> Result<Root> {
        if let (None, [single]) = (&self.upper, self.lower.as_slice()) {
            return files::open_directory(single).map(Root::new);
        }
        self.mount()
            .map(Root::new)
            .map_err(|errno| StoreError::Tree {
                action: "mount the tree of",
                path: self
                    .lower
                    .first()
                    .map_or_else(String::new, |path| path.display().to_string()),
                source: errno.into(),
            })
    }

    fn mount(&self) -> rustix::io::Result<rustix::fd::OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &Path| fsconfig_set_string(&context, key, value);
        let each = self
            .lower
            .iter()
            .try_for_each(|lower| set("lowerdir+", lower));
        if each.is_err() {
            set("lowerdir", Path::new(&lowerdir(&self.lower)))?;
        }
        if let Some((upper, work)) = &self.upper {
            set("upperdir", upper)?;
            set("workdir", work)?;
        }
        // What a layer says must not lead into another directory, and what we leave in an upper
        // directory must be whole without the layers below.
        for (key, value) in [
            ("redirect_dir", "nofollow"),
            ("metacopy", "off"),
            ("index", "off"),
        ] {
            match fsconfig_set_string(&context, key, value) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }
}

/// All layers in one option, for Linux before 6.7, which does not know `lowerdir+`: parted by colons,
/// with what would part or end them escaped.
fn lowerdir(layers: &[PathBuf]) -> OsString {
    let mut value = Vec::new();
    for layer in layers {
        if !value.is_empty() {
            value.push(b':');
        }
        for &byte in layer.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\' | b',') {
                value.push(b'\\');
            }
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    /// The kernel itself reads the option, of directories whose names need every escape but that of
    /// a comma, which it does not need in an option of its own.
    #[test]
    fn layers_in_one_option_are_the_same_layers() {
        let directory = tempfile::tempdir().unwrap();
        let layers = ["a:b", "c\\d", "e"].map(|name| directory.path().join(name));
        for (number, layer) in layers.iter().enumerate() {
            std::fs::create_dir(layer).unwrap();
            std::fs::write(layer.join(format!("f{number}")), b"x").unwrap();
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "lowerdir", lowerdir(&layers)).unwrap();
        fsconfig_create(&context).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let mount = fsmount(&context, flags, MountAttrFlags::empty()).unwrap();
        for number in 0..layers.len() {
            let name = format!("f{number}");
            rustix::fs::openat(&mount, name, OFlags::RDONLY, Mode::empty()).unwrap();
        }
    }
}
