//! File operations on an active snapshot, through its merged tree: what COPY, ADD and WORKDIR need.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use orlop_proto::descriptor::parse_digest;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Result, StoreError};
use crate::layers::apply::{
    Attributes, check_space, create, set_attributes, set_attributes_of_name, times,
};
use crate::layers::root::{
    Root, failed, file_type, join, lstat, names, open_directory, os, remove_tree, split_last,
};
use crate::layers::tar::Time;
use crate::layers::unpack::extract;
use crate::snapshots::copy::SnapshotCopy;
use crate::snapshots::{Snapshots, Turn, owner};

/// Symbolic links in the last place that are followed for a destination.
const LINKS_MAX: usize = 40;
const DIRECTORY_MODE: u32 = 0o755;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file, by the digest of its bytes.
    File(String),
    /// A directory.
    Directory,
    /// A symbolic link, by its target.
    Symlink(Vec<u8>),
}

/// Something to be placed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative to the destination.
    pub path: Vec<u8>,
    /// What it is.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
    /// Last modification.
    pub mtime: Time,
}

/// One operation; see the contract for each.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Makes a directory and its missing parents.
    Mkdir {
        /// Where.
        path: Vec<u8>,
        /// 0: 0755.
        mode: u32,
        /// `user[:group]`.
        owner: String,
        /// Of what is made; absent: now.
        mtime: Option<Time>,
    },
    /// Places entries whose bytes are blobs.
    CopyEntries {
        /// Where to.
        dest: Vec<u8>,
        /// Into the directory, even if it does not exist.
        dest_is_dir: bool,
        /// Parents before children.
        entries: Vec<Entry>,
        /// `user[:group]`.
        owner: String,
        /// For everything made.
        mode: Option<u32>,
    },
    /// Copies out of another snapshot.
    CopySnapshot(SnapshotCopy),
    /// Unpacks a tar below a directory.
    Extract {
        /// Of the blob.
        digest: String,
        /// Where to.
        dest: Vec<u8>,
        /// `user[:group]`; empty: what the archive says.
        owner: String,
    },
    /// Removes a path and all below it.
    Remove {
        /// Which.
        path: Vec<u8>,
    },
}

/// An active snapshot that operations are applied to; one at a time for each.
#[derive(Debug)]
pub struct Session<'a> {
    pub(crate) snapshots: &'a Snapshots,
    pub(crate) root: Root,
    pub(crate) entries: u64,
    _turn: Turn<'a>,
}

impl Snapshots {
    /// Opens an active snapshot for operations, when nobody else works on it.
    pub fn session(&self, key: &str) -> Result<Session<'_>> {
        let turn = self.inner.turns.take(vec![key.to_owned()]);
        let record = self.active(key)?;
        let root = self.merged(&record)?;
        Ok(Session {
            snapshots: self,
            root,
            entries: 0,
            _turn: turn,
        })
    }
}

impl Session<'_> {
    /// Files, directories and links made or replaced so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Performs one operation.
    pub fn perform(&mut self, operation: &Operation) -> Result<()> {
        check_space(self.root.fd(), self.snapshots.inner.limits.disk_reserve)?;
        match operation {
            Operation::Mkdir {
                path,
                mode,
                owner,
                mtime,
            } => self.mkdir(path, *mode, owner, *mtime),
            Operation::CopyEntries {
                dest,
                dest_is_dir,
                entries,
                owner,
                mode,
            } => self.copy_entries(dest, *dest_is_dir, entries, owner, *mode),
            Operation::CopySnapshot(copy) => self.copy_snapshot(copy),
            Operation::Extract {
                digest,
                dest,
                owner,
            } => self.extract(digest, dest, owner),
            Operation::Remove { path } => self.remove(path),
        }
    }

    /// Empty: root.
    pub(crate) fn owner(&self, spec: &str) -> Result<(u32, u32)> {
        Ok(owner::resolve(&self.root, spec)?.unwrap_or((0, 0)))
    }

    fn mkdir(&mut self, path: &[u8], mode: u32, spec: &str, mtime: Option<Time>) -> Result<()> {
        check_path(path)?;
        let (uid, gid) = self.owner(spec)?;
        if self.existing_directory(path)?.is_some() {
            return Ok(());
        }
        let made = self.missing_parents(path);
        let directory = self.root.directory_made(path)?;
        self.entries += made.len() as u64;
        let attributes = Attributes {
            uid,
            gid,
            mode: if mode == 0 {
                DIRECTORY_MODE
            } else {
                mode & 0o7777
            },
            mtime: mtime.unwrap_or_default(),
        };
        let Some(mtime) = mtime else {
            let owner = (
                rustix::fs::Uid::from_raw(uid),
                rustix::fs::Gid::from_raw(gid),
            );
            rustix::fs::fchown(&directory, Some(owner.0), Some(owner.1))
                .map_err(failed("set the owner of", path))?;
            return rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode))
                .map_err(failed("set the mode of", path));
        };
        set_attributes(directory.as_fd(), &attributes, &[], path)?;
        for parent in made.iter().rev() {
            let fd = self
                .root
                .directory(parent)
                .map_err(failed("open", parent))?;
            rustix::fs::futimens(&fd, &times(mtime)).map_err(failed("set the times of", parent))?;
        }
        Ok(())
    }

    /// The prefixes of a path that do not exist yet.
    fn missing_parents(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut prefix = Vec::new();
        let mut missing = Vec::new();
        for name in names(path) {
            prefix = join(&prefix, name);
            if self.root.directory(&prefix).is_err() {
                missing.push(prefix.clone());
            }
        }
        missing
    }

    /// `None` when there is nothing; an error when there is something else.
    fn existing_directory(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        match self.root.directory(path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(bad_path(path, "it exists and is not a directory")),
            Err(errno) => Err(failed("open the directory", path)(errno)),
        }
    }

    fn copy_entries(
        &mut self,
        dest: &[u8],
        dest_is_dir: bool,
        entries: &[Entry],
        spec: &str,
        mode: Option<u32>,
    ) -> Result<()> {
        check_path(dest)?;
        let owner = self.owner(spec)?;
        if let (false, [only]) = (dest_is_dir, entries)
            && matches!(only.content, Content::File(_))
            && !self.is_directory(dest)
        {
            let dest = self.follow_last(dest)?;
            return self.place(&dest, only, owner, mode);
        }
        let target = self.follow_last(dest)?;
        drop(self.root.directory_made(&target)?);
        let mut directories = Vec::new();
        for entry in entries {
            check_relative(&entry.path)?;
            let path = join(&target, &entry.path);
            if entry.content == Content::Directory && !self.is_directory(&path) {
                directories.push((path.clone(), entry.mtime));
            }
            self.place(&path, entry, owner, mode)?;
        }
        self.set_times(&directories)
    }

    /// After everything below them is made.
    pub(crate) fn set_times(&self, directories: &[(Vec<u8>, Time)]) -> Result<()> {
        for (path, mtime) in directories.iter().rev() {
            let fd = self.root.directory(path).map_err(failed("open", path))?;
            rustix::fs::futimens(&fd, &times(*mtime)).map_err(failed("set the times of", path))?;
        }
        Ok(())
    }

    pub(crate) fn is_directory(&self, path: &[u8]) -> bool {
        let stat = self.root.stat(path);
        stat.is_ok_and(|stat| file_type(&stat) == FileType::Directory)
    }

    /// Follows links in the last place, so that what they point at is replaced, as Docker does.
    pub(crate) fn follow_last(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut path = names(path).collect::<Vec<_>>().join(&b'/');
        for _ in 0..LINKS_MAX {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let Ok(handle) = self.root.open(&path, flags) else {
                return Ok(path);
            };
            let stat = rustix::fs::fstat(&handle).map_err(failed("look at", &path))?;
            if file_type(&stat) != FileType::Symlink {
                return Ok(path);
            }
            let target = rustix::fs::readlinkat(&handle, "", Vec::new())
                .map_err(failed("read the link", &path))?
                .into_bytes();
            path = match split_last(&path) {
                Some((parent, _)) if !target.starts_with(b"/") => join(parent, &target),
                _ => names(&target).collect::<Vec<_>>().join(&b'/'),
            };
        }
        Err(failed("follow the links of", &path)(Errno::LOOP))
    }

    fn place(
        &mut self,
        path: &[u8],
        entry: &Entry,
        owner: (u32, u32),
        mode: Option<u32>,
    ) -> Result<()> {
        let (parent, name) =
            split_last(path).ok_or_else(|| bad_path(path, "it is the root directory"))?;
        let directory = self.root.directory_made(parent)?;
        let attributes = Attributes {
            uid: owner.0,
            gid: owner.1,
            mode: mode.unwrap_or(entry.mode) & 0o7777,
            mtime: entry.mtime,
        };
        self.entries += 1;
        match &entry.content {
            Content::Directory => make_directory(directory.as_fd(), name, path, &attributes),
            Content::Symlink(target) => {
                clear(directory.as_fd(), name, path)?;
                rustix::fs::symlinkat(os(target), &directory, os(name))
                    .map_err(failed("make the link", path))?;
                set_attributes_of_name(directory.as_fd(), name, &attributes, &[], path)
            }
            Content::File(digest) => {
                let blob = self.snapshots.inner.content.open(&parse_digest(digest)?)?;
                clear(directory.as_fd(), name, path)?;
                let file = create(directory.as_fd(), name).map_err(failed("make", path))?;
                copy_bytes(blob.as_fd(), file.as_fd()).map_err(failed("write", path))?;
                set_attributes(file.as_fd(), &attributes, &[], path)
            }
        }
    }

    fn extract(&mut self, digest: &str, dest: &[u8], spec: &str) -> Result<()> {
        check_path(dest)?;
        let owner = owner::resolve(&self.root, spec)?;
        let blob = self.snapshots.inner.content.open(&parse_digest(digest)?)?;
        let dest = self.follow_last(dest)?;
        let directory = self.root.directory_made(&dest)?;
        self.entries += extract(blob, directory, owner, self.snapshots.inner.limits)?;
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Result<()> {
        check_path(path)?;
        let (parent, name) =
            split_last(path).ok_or_else(|| bad_path(path, "the root cannot be removed"))?;
        if name == b"." || name == b".." {
            return Err(bad_path(path, "it has no name"));
        }
        match self.root.directory(parent) {
            Ok(directory) => remove_tree(directory.as_fd(), name).map_err(failed("remove", path)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(failed("remove", path)(errno)),
        }
    }
}

/// Makes a directory; one that exists keeps what it has, as with Docker.
pub(crate) fn make_directory(
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    attributes: &Attributes,
) -> Result<()> {
    match rustix::fs::mkdirat(parent, os(name), Mode::RWXU) {
        Ok(()) => {
            let made = open_directory(parent, name).map_err(failed("open", path))?;
            set_attributes(made.as_fd(), attributes, &[], path)
        }
        Err(Errno::EXIST) if directory_or_link_to_one(parent, name) => Ok(()),
        Err(Errno::EXIST) => Err(bad_path(
            path,
            "it exists and is not a directory, but a directory is copied to it",
        )),
        Err(errno) => Err(failed("make the directory", path)(errno)),
    }
}

/// A link is left to the look-up of what is below it, which resolves it inside the root.
fn directory_or_link_to_one(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    let kind = lstat(parent, name)
        .ok()
        .flatten()
        .map(|stat| file_type(&stat));
    matches!(kind, Some(FileType::Directory | FileType::Symlink))
}

/// Makes room for a file or a link.
pub(crate) fn clear(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
    match lstat(parent, name).map_err(failed("look at", path))? {
        None => Ok(()),
        Some(stat) if file_type(&stat) == FileType::Directory => Err(bad_path(
            path,
            "it exists and is a directory, but a file is copied to it",
        )),
        Some(_) => remove_tree(parent, name).map_err(failed("replace", path)),
    }
}

/// Lets the file system share the bytes where it can, and the kernel copy them where it cannot.
pub(crate) fn copy_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let chunk = 1 << 30;
    let mut copied = false;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => copied = true,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !copied => {
                return copy_by_hand(from, to);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let open = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 0).map(std::fs::File::from);
    let (mut from, mut to) = (open(from)?, open(to)?);
    io::copy(&mut from, &mut to)
        .map(drop)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

pub(crate) fn bad_path(path: &[u8], problem: &'static str) -> StoreError {
    StoreError::Path {
        path: String::from_utf8_lossy(&path[..path.len().min(500)]).into_owned(),
        problem,
    }
}

pub(crate) fn check_path(path: &[u8]) -> Result<()> {
    if path.contains(&0) {
        return Err(bad_path(path, "a NUL in a path"));
    }
    Ok(())
}

fn check_relative(path: &[u8]) -> Result<()> {
    check_path(path)?;
    let odd = |name: &[u8]| name.is_empty() || name == b"." || name == b"..";
    if path.split(|byte| *byte == b'/').any(odd) {
        return Err(bad_path(
            path,
            "expected a relative path without `.` and `..`",
        ));
    }
    Ok(())
}
