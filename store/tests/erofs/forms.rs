//! Both forms of one layer, and what can be seen of a tree.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_proto::error::Classify as _;
use orlop_store::StoreError;
use orlop_store::layers::apply::Applier;
use orlop_store::layers::entry::decide;
use orlop_store::layers::erofs::ImageWriter;
use orlop_store::layers::root::Root;
use orlop_store::layers::tar::TarReader;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use sha2::{Digest as _, Sha256};

/// An image on disk, and what its writer said of it.
#[derive(Debug)]
pub(crate) struct Image {
    directory: tempfile::TempDir,
    pub(crate) implicit: Vec<Vec<u8>>,
    pub(crate) file_bytes: u64,
    pub(crate) made: u64,
    pub(crate) bytes: u64,
}

impl Image {
    pub(crate) fn of(tar: impl Read) -> Result<Self, StoreError> {
        Self::with(tar, |_| {})
    }

    /// `last` has the writer before it finishes.
    pub(crate) fn with(
        tar: impl Read,
        last: impl FnOnce(&mut ImageWriter),
    ) -> Result<Self, StoreError> {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("image")).unwrap();
        let mut writer = ImageWriter::new(file, 1 << 40, 0)?;
        let mut tar = TarReader::new(tar);
        while let Some(member) = tar.next_member()? {
            writer.perform(decide(member)?, &mut tar)?;
        }
        last(&mut writer);
        let (implicit, file_bytes, made) = (writer.implicit(), writer.file_bytes(), writer.made());
        let (_, bytes) = writer.finish()?;
        Ok(Self {
            directory,
            implicit,
            file_bytes,
            made,
            bytes,
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Debian's own checker, where it is installed; the kernel has the last word anyway.
    pub(crate) fn check(&self) {
        match Command::new("fsck.erofs").arg(self.path()).output() {
            Ok(output) => assert!(
                output.status.success() && output.stderr.is_empty(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        }
    }

    pub(crate) fn mount(&self) -> Mount {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "source", self.path()).unwrap();
        fsconfig_create(&context).unwrap();
        Mount::of(context)
    }
}

/// A mount that no namespace sees.
#[derive(Debug)]
pub(crate) struct Mount(OwnedFd);

impl Mount {
    /// Of a context that is configured.
    pub(crate) fn of(context: OwnedFd) -> Self {
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Self(fsmount(&context, flags, MountAttrFlags::empty()).unwrap())
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The same layer as a directory.
pub(crate) fn directory(tar: impl Read) -> Result<(tempfile::TempDir, u64), StoreError> {
    let directory = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let root = Root::new(File::open(directory.path()).unwrap().into());
    let mut applier = Applier::new(root, 1 << 40, 0);
    let mut tar = TarReader::new(tar);
    while let Some(member) = tar.next_member()? {
        applier.perform(decide(member)?, &mut tar)?;
    }
    let made = applier.finish()?;
    Ok((directory, made))
}

/// Everything of one file that a program can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// `None` where nobody said it.
    pub(crate) mtime: Option<(i64, i64)>,
    pub(crate) links: u64,
    /// The first one of its names.
    pub(crate) same_as: PathBuf,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Directory,
    File { size: u64, hash: [u8; 32] },
    Symlink(PathBuf),
    CharDevice(u64),
    BlockDevice(u64),
    Fifo,
    Whiteout,
}

pub(crate) type Tree = BTreeMap<PathBuf, Seen>;

/// What is below a path, itself as the empty path.
pub(crate) fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = if path.as_os_str().is_empty() {
            root.join(".")
        } else {
            root.join(&path)
        };
        let meta = fs::symlink_metadata(&full).unwrap();
        if meta.is_dir() {
            let names = fs::read_dir(&full).unwrap().map(|entry| entry.unwrap());
            let mut names: Vec<_> = names.map(|entry| path.join(entry.file_name())).collect();
            names.sort();
            todo.extend(names.into_iter().rev());
        }
        let same_as = first.entry(meta.ino()).or_insert_with(|| path.clone());
        tree.insert(path.clone(), seen(&full, &meta, same_as.clone()));
    }
    tree
}

fn seen(path: &Path, meta: &fs::Metadata, same_as: PathBuf) -> Seen {
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        What::Directory
    } else if kind.is_symlink() {
        What::Symlink(fs::read_link(path).unwrap())
    } else if kind.is_char_device() && meta.rdev() == 0 {
        What::Whiteout
    } else if kind.is_char_device() {
        What::CharDevice(meta.rdev())
    } else if kind.is_block_device() {
        What::BlockDevice(meta.rdev())
    } else if kind.is_fifo() {
        What::Fifo
    } else {
        What::File {
            size: meta.len(),
            hash: hash(path),
        }
    };
    let nobody_sees = what == What::Whiteout;
    Seen {
        mode: if nobody_sees { 0 } else { meta.mode() },
        owner: if nobody_sees {
            (0, 0)
        } else {
            (meta.uid(), meta.gid())
        },
        mtime: (!nobody_sees).then(|| (meta.mtime(), meta.mtime_nsec())),
        links: meta.nlink(),
        same_as,
        xattrs: xattrs(path),
        what,
    }
}

fn hash(path: &Path) -> [u8; 32] {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).unwrap(), &mut hash).unwrap();
    hash.finalize().into()
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    let names = list[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Forgets what no member said: the times of implicit directories.
pub(crate) fn forget_implicit(tree: &mut Tree, implicit: &[Vec<u8>]) {
    for path in implicit {
        let path = Path::new(OsStr::from_bytes(path));
        let seen = tree.get_mut(path);
        let seen = seen.unwrap_or_else(|| panic!("{path:?} is said to be there"));
        assert_eq!(seen.what, What::Directory);
        seen.mtime = None;
    }
}

/// Makes both forms of a tar and compares them; both may refuse it.
pub(crate) fn compare(tar: impl Fn() -> Box<dyn Read>) -> Option<Tree> {
    let (image, directory) = (Image::of(tar()), directory(tar()));
    let (image, (directory, made)) = match (image, directory) {
        (Ok(image), Ok(directory)) => (image, directory),
        (Err(image), Err(directory)) => {
            assert_eq!(image.kind(), directory.kind(), "{image}, {directory}");
            return None;
        }
        (image, directory) => panic!("one form refuses: {image:?}, {directory:?}"),
    };
    assert_eq!(image.made, made);
    image.check();
    let mount = image.mount();
    let (mut left, mut right) = (look(&mount.path()), look(directory.path()));
    forget_implicit(&mut left, &image.implicit);
    forget_implicit(&mut right, &image.implicit);
    same(&left, &right);
    Some(left)
}

/// [`compare`] of a tar in memory that is good.
pub(crate) fn good(tar: &[u8]) -> Tree {
    let tar = tar.to_vec();
    let tree = compare(|| Box::new(io::Cursor::new(tar.clone())));
    tree.unwrap_or_else(|| panic!("both forms refuse it: {:?}", Image::of(&*tar)))
}

pub(crate) fn same(image: &Tree, directory: &Tree) {
    for path in image.keys().chain(directory.keys()) {
        let (left, right) = (image.get(path), directory.get(path));
        assert_eq!(left, right, "image and directory differ in {path:?}");
    }
}
