//! The store's own files around trees: descriptions, names that appear at once, and the trash.
//!
//! All paths here are below the store's root, which nobody else may enter, and are made of names
//! that were checked or made up by us.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::{CWD, IFlags, Mode, OFlags, RenameFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, StoreError};
use crate::layers::mounts;
use crate::layers::root::remove_tree;
use crate::layers::shelf::TREE;

/// A description is small; a larger file is not one.
const JSON_BYTES_MAX: u64 = 4 << 20;

/// Wraps an error of the system with what was done, and to what.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::Tree {
        action,
        path,
        source,
    }
}

/// Makes a directory that only we may enter, if it is missing.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make", path))
}

/// Sets permission bits, whatever the umask said.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(failed("set the mode of", path))
}

/// Has the directories in this one placed far from each other, where the file system knows of such a
/// thing. ext4 passes over inodes that were freed in the last minutes, one by one: a tree made where
/// another was just removed takes three times as long.
pub(crate) fn spread(path: &Path) -> Result<()> {
    let directory = open_directory(path)?;
    let spread = rustix::fs::ioctl_getflags(&directory)
        .and_then(|flags| rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR));
    if let Err(errno) = spread {
        tracing::debug!(path = %path.display(), error = %errno, "the file system places trees as it likes");
    }
    Ok(())
}

/// The names in a directory; names that are not UTF-8 are not ours.
pub(crate) fn entries(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// 32 hexadecimal digits.
pub(crate) fn random_name() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        failed("get random bytes for", Path::new("a name"))(io::Error::other(error.to_string()))
    })?;
    Ok(hex::encode(bytes))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed("open", path))?;
    file.take(JSON_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(failed("read", path))?;
    serde_json::from_slice(&text).map_err(|error| failed("understand", path)(error.into()))
}

/// Writes a new file, and gives it open: the caller decides when it is synced.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<File> {
    let text = serde_json::to_vec(value).map_err(|error| failed("write", path)(error.into()))?;
    let mut file = File::create_new(path).map_err(failed("write", path))?;
    file.write_all(&text).map_err(failed("write", path))?;
    Ok(file)
}

/// Replaces a file at once and durably.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let draft = directory.join(format!(".tmp-{}", random_name()?));
    let file = write_json(&draft, value)?;
    file.sync_data().map_err(failed("sync", &draft))?;
    crate::failpoint::reach("snapshot.describe.synced");
    fs::rename(&draft, path).map_err(failed("rename", path))?;
    crate::failpoint::reach("snapshot.describe.renamed");
    sync_directory(directory)
}

/// Renames, unless the new name exists.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        .map_err(|errno| failed("rename to", to)(errno.into()))
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed("open", path)(errno.into()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = open_directory(path)?;
    rustix::fs::fsync(&directory).map_err(|errno| failed("sync", path)(errno.into()))
}

/// Makes the bytes of a file durable.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_data())
        .map_err(failed("sync", path))
}

/// Makes everything on the file system of a directory durable: one sync for a whole batch.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let directory = open_directory(path)?;
    rustix::fs::syncfs(&directory).map_err(|errno| failed("sync", path)(errno.into()))
}

/// Where things go to be unmounted and deleted by a thread of its own, so that removing answers at once.
#[derive(Debug)]
pub struct Trash {
    directory: PathBuf,
    names: Sender<Vec<u8>>,
}

impl Trash {
    /// Goes on with what an earlier process left.
    pub fn open(directory: PathBuf) -> Result<Self> {
        make_directory(&directory)?;
        let handle = open_directory(&directory)?;
        let place = directory.clone();
        let (names, receiver) = channel();
        std::thread::Builder::new()
            .name("trash".to_owned())
            .spawn(move || empty(&place, &handle, &receiver))
            .map_err(failed("start the thread of", &directory))?;
        let trash = Self { directory, names };
        for entry in fs::read_dir(&trash.directory).map_err(failed("list", &trash.directory))? {
            let entry = entry.map_err(failed("list", &trash.directory))?;
            trash.announce(entry.file_name().as_bytes());
        }
        Ok(trash)
    }

    /// Renames a thing aside; it is gone from its place when this returns. A missing one is success.
    pub fn throw(&self, path: &Path) -> Result<()> {
        let name = random_name()?;
        match fs::rename(path, self.directory.join(&name)) {
            Ok(()) => {
                crate::failpoint::reach("trash.throw.renamed");
                self.announce(name.as_bytes());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", path)(error)),
        }
        Ok(())
    }

    fn announce(&self, name: &[u8]) {
        if self.names.send(name.to_vec()).is_err() {
            tracing::warn!("the trash is not emptied any more; it will be at the next start");
        }
    }
}

/// A store that ends leaves no mount behind, nor waits for what it deletes.
impl Drop for Trash {
    fn drop(&mut self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        for entry in entries.flatten() {
            unmount(&entry.path());
        }
    }
}

fn empty(place: &Path, directory: &OwnedFd, names: &Receiver<Vec<u8>>) {
    for name in names {
        unmount(&place.join(OsStr::from_bytes(&name)));
        if let Err(errno) = remove_tree(directory.as_fd(), &name) {
            let name = String::from_utf8_lossy(&name);
            tracing::warn!(%name, error = %errno, "cannot delete from the trash");
        }
    }
}

/// A layer that was thrown away may be mounted still.
fn unmount(thrown: &Path) {
    if let Err(error) = mounts::detach(&thrown.join(TREE)) {
        tracing::warn!(%error, "what was thrown away stays mounted");
    }
}
