//! The forms in which a store can keep layers, and the trees that it then offers.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_proto::store::SnapshotMount;
use orlop_store::config::StoreArgs;
use orlop_store::layers::form::Form;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// Everything is tested in each of them.
pub(crate) fn forms() -> [StoreArgs; 2] {
    [Form::Directory, Form::Erofs].map(|layers| StoreArgs {
        layers,
        ..StoreArgs::default()
    })
}

/// A mounted snapshot, in no namespace: it goes with its handle.
pub(crate) struct Tree {
    path: PathBuf,
    _mount: Option<OwnedFd>,
}

impl Tree {
    /// As a runtime does it.
    pub(crate) fn of(mount: &SnapshotMount) -> Self {
        if let (true, [single]) = (mount.upper.is_empty(), mount.lower.as_slice()) {
            return Self {
                path: single.into(),
                _mount: None,
            };
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for lower in &mount.lower {
            fsconfig_set_string(&context, "lowerdir+", lower.as_str()).unwrap();
        }
        if !mount.upper.is_empty() {
            fsconfig_set_string(&context, "upperdir", mount.upper.as_str()).unwrap();
            fsconfig_set_string(&context, "workdir", mount.work.as_str()).unwrap();
        }
        fsconfig_create(&context).unwrap();
        let mount = fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
        .unwrap();
        Self {
            path: format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into(),
            _mount: Some(mount),
        }
    }

    /// Also for other processes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// `fsck.erofs` finds nothing in any image below a store's directory, and there are images exactly in
/// the form that has them.
#[track_caller]
pub(crate) fn images_are_sound(state: &Path, form: StoreArgs) {
    let layers = std::fs::read_dir(state.join("layers")).unwrap();
    let images = layers.map(|layer| layer.unwrap().path().join("image.erofs"));
    let images: Vec<_> = images.filter(|image| image.exists()).collect();
    assert_eq!(images.is_empty(), form.layers == Form::Directory);
    for image in &images {
        let out = Command::new("fsck.erofs")
            .arg(image)
            .output()
            .expect("install erofs-utils");
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            out.status.success() && !said.contains("<E>"),
            "{}: {said}",
            image.display()
        );
    }
}
