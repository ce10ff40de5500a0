//! The merged tree of a snapshot, as a mount that no namespace ever sees: it lives as long as its
//! handle, so that a crash leaves no mount behind.

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
        for lower in &self.lower {
            set("lowerdir+", lower)?;
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
