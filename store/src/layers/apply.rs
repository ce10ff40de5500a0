//! Performs what [`entry`](super::entry) decided, below a [`Root`].
//!
//! Nothing here follows a link in the last place, and a name that exists is replaced, never written
//! through (`SECURITY` rows A1, A2, A6, A8, A13, A17, A20).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Result, StoreError};
use crate::layers::entry::Action;
use crate::layers::root::{
    Root, failed, file_type, is_whiteout, join, lstat, open_directory, os, proc_path, remove_tree,
    split_last,
};
use crate::layers::tar::{Kind, Member, TarReader, Time};

/// The mark of a directory that hides what lower layers have in it.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// The access list that a directory hands down to what is made in it (acl(5)).
const DEFAULT_LIST_XATTR: &str = "system.posix_acl_default";
/// Attributes with these prefixes steer overlayfs: an archive must not set them.
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const BUFFER_BYTES: usize = 256 * 1024;
/// How often the free space is looked at.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

/// Writes members below a root.
#[derive(Debug)]
pub struct Applier {
    root: Root,
    /// Directories that no member described yet, by inode.
    implicit: HashMap<u64, Vec<u8>>,
    root_described: bool,
    /// Directories get their times last, as making things in them changes these.
    times: Vec<(Vec<u8>, Time)>,
    default_lists: Vec<(Vec<u8>, Vec<u8>)>,
    /// The parent of the last member; honest archives stay in a directory for long.
    parent: Option<(Vec<u8>, OwnedFd)>,
    owner: Option<(u32, u32)>,
    space: Space,
    buffer: Vec<u8>,
    made: u64,
}

/// What may still be written.
#[derive(Debug)]
pub(crate) struct Space {
    bytes_left: u64,
    bytes_max: u64,
    disk_reserve: u64,
    unchecked: u64,
}

/// Metadata of something made, whatever kind it is.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Last modification.
    pub mtime: Time,
}

impl Applier {
    /// `bytes_max` bounds the bytes of all files together, holes included.
    pub fn new(root: Root, bytes_max: u64, disk_reserve: u64) -> Self {
        Self {
            root,
            implicit: HashMap::new(),
            root_described: false,
            times: Vec::new(),
            default_lists: Vec::new(),
            parent: None,
            owner: None,
            space: Space::new(bytes_max, disk_reserve),
            buffer: vec![0; BUFFER_BYTES],
            made: 0,
        }
    }

    /// Gives everything this owner, whatever the archive says.
    pub fn owned_by(mut self, owner: Option<(u32, u32)>) -> Self {
        self.owner = owner;
        self
    }

    /// Performs one action; `tar` stands at the member's body.
    pub fn perform<R: Read>(&mut self, action: Action, tar: &mut TarReader<R>) -> Result<()> {
        match action {
            Action::Skip => Ok(()),
            Action::Root(member) => self.root_metadata(&member),
            Action::Make {
                parent,
                name,
                member,
            } => self.make(&parent, &name, &member, tar),
            Action::Whiteout { parent, name } => self.whiteout(&parent, &name),
            Action::Opaque { directory } => {
                let fd = self.directory_made(&directory)?;
                set_opaque(fd.as_fd(), &directory)
            }
        }
    }

    /// Bytes of all files written by now, holes included.
    pub fn file_bytes(&self) -> u64 {
        self.space.taken()
    }

    /// Number of things made by now.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Whether a member described the root.
    pub fn root_described(&self) -> bool {
        self.root_described
    }

    /// Directories below the root that no member described, parents first.
    pub fn implicit(&self) -> Result<Vec<Vec<u8>>> {
        let mut paths = Vec::new();
        for (inode, path) in &self.implicit {
            match self.root.stat_nofollow(path) {
                Ok(stat) if stat.st_ino == *inode => paths.push(path.clone()),
                // Something else has the name now.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed("look at", path)(errno)),
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }

    /// Gives an existing directory its attributes.
    pub(crate) fn describe(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let fd = self
            .root
            .directory(path)
            .map_err(failed("open the directory", path))?;
        self.directory_attributes(fd.as_fd(), attributes, xattrs, path)
    }

    fn directory_made(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let (root, implicit) = (&self.root, &mut self.implicit);
        root.directory_noted(path, &mut |made| {
            let stat = rustix::fs::fstat(made).map_err(failed("look at", path))?;
            let own = root.path_of(made).map_err(failed("name", path))?;
            // A directory above may hand its group down.
            rustix::fs::fchown(made, Some(Uid::ROOT), Some(Gid::ROOT))
                .map_err(failed("set the owner of", path))?;
            implicit.insert(stat.st_ino, own);
            Ok(())
        })
    }

    /// Sets the times of the directories; gives the number of things made.
    pub fn finish(self) -> Result<u64> {
        for (path, list) in &self.default_lists {
            if let Some(fd) = self.directory_still(path)? {
                let set = rustix::fs::fsetxattr(&fd, DEFAULT_LIST_XATTR, list, XattrFlags::empty());
                tolerated(DEFAULT_LIST_XATTR.as_bytes(), set)
                    .map_err(failed("set an attribute of", path))?;
            }
        }
        for (path, mtime) in &self.times {
            if let Some(fd) = self.directory_still(path)? {
                rustix::fs::futimens(&fd, &times(*mtime))
                    .map_err(failed("set the times of", path))?;
            }
        }
        Ok(self.made)
    }

    /// A directory, unless something else has its name by now.
    fn directory_still(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match self.root.open_itself(path, flags) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(failed("open the directory", path)(errno)),
        }
    }

    /// Directories get their times and their lists for what is made in them last: an archive says all
    /// of that itself.
    fn directory_attributes(
        &mut self,
        fd: BorrowedFd<'_>,
        attributes: &Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        path: &[u8],
    ) -> Result<()> {
        let is_list = |name: &[u8]| name == DEFAULT_LIST_XATTR.as_bytes();
        let (lists, xattrs): (Vec<_>, Vec<_>) =
            xattrs.iter().cloned().partition(|(name, _)| is_list(name));
        // Where it is: the links that led there may lead elsewhere by the end. The kernel does not tell a path
        // that is too long.
        let place = self.root.path_of(fd).unwrap_or_else(|_| path.to_vec());
        let lists = lists.into_iter().map(|(_, list)| (place.clone(), list));
        self.default_lists.extend(lists);
        self.times.push((place, attributes.mtime));
        set_attributes(fd, attributes, &xattrs, path)
    }

    fn root_metadata(&mut self, member: &Member) -> Result<()> {
        let attributes = self.attributes(member);
        self.root_described = true;
        let root = rustix::io::fcntl_dupfd_cloexec(self.root.fd(), 0);
        let root = root.map_err(failed("open the directory", b"/"))?;
        self.directory_attributes(root.as_fd(), &attributes, &member.xattrs, b"")
    }

    fn attributes(&self, member: &Member) -> Attributes {
        let (uid, gid) = self.owner.unwrap_or((member.uid, member.gid));
        Attributes {
            uid,
            gid,
            mode: member.mode,
            mtime: member.mtime,
        }
    }

    /// The handle of a parent, opened once for many members in a row. It is dropped whenever a name
    /// was replaced, because the same path may then lead elsewhere (row A13).
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let fd = self.directory_made(path)?;
            self.parent = Some((path.to_vec(), fd));
        }
        let (_, fd) = self
            .parent
            .as_ref()
            .ok_or_else(|| failed("open", path)(Errno::NOENT))?;
        rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(failed("open the directory", path))
    }

    fn make<R: Read>(
        &mut self,
        parent_path: &[u8],
        name: &[u8],
        member: &Member,
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        let parent = self.parent(parent_path)?;
        let path = join(parent_path, name);
        self.made += 1;
        match member.kind {
            Kind::Directory => self.directory(parent.as_fd(), name, &path, member),
            Kind::HardLink => self.hard_link(parent.as_fd(), name, &path, member),
            Kind::File => {
                let file = self.replacing(parent.as_fd(), name, &path, |parent, name| {
                    create(parent, name)
                })?;
                self.write_body(&file, &path, member, tar)?;
                set_attributes(
                    file.as_fd(),
                    &self.attributes(member),
                    &member.xattrs,
                    &path,
                )
            }
            _ => {
                self.replacing(parent.as_fd(), name, &path, |parent, name| {
                    make_special(parent, name, member)
                })?;
                let attributes = self.attributes(member);
                set_attributes_of_name(parent.as_fd(), name, &attributes, &member.xattrs, &path)
            }
        }
    }

    /// Tries, and when the name is taken removes what has it and tries again.
    fn replacing<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.parent = None;
                remove_tree(parent, name).map_err(failed("replace", path))?;
                make(parent, name).map_err(failed("make", path))
            }
            other => other.map_err(failed("make", path)),
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        member: &Member,
    ) -> Result<()> {
        let before = lstat(parent, name).map_err(failed("look at", path))?;
        if before.as_ref().map(file_type) != Some(FileType::Directory) {
            self.replacing(parent, name, path, |parent, name| {
                rustix::fs::mkdirat(parent, os(name), Mode::RWXU)
            })?;
        }
        let fd = open_directory(parent, name).map_err(failed("open the directory", path))?;
        if before.as_ref().is_some_and(is_whiteout) {
            set_opaque(fd.as_fd(), path)?;
        }
        if !self.implicit.is_empty() {
            let stat = rustix::fs::fstat(&fd).map_err(failed("look at", path))?;
            self.implicit.remove(&stat.st_ino);
        }
        let attributes = self.attributes(member);
        self.directory_attributes(fd.as_fd(), &attributes, &member.xattrs, path)
    }

    /// A hard link has the metadata of what it links to; its own header repeats it at best.
    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        member: &Member,
    ) -> Result<()> {
        let (target_parent, target_name) =
            split_last(&member.link).ok_or_else(|| failed("link", path)(Errno::NOENT))?;
        if join(target_parent, target_name) == path {
            return Ok(());
        }
        let from = self
            .root
            .directory(target_parent)
            .map_err(|errno| bad_link(path, &member.link, errno))?;
        let target = lstat(from.as_fd(), target_name).map_err(failed("link", path))?;
        if target.is_none_or(|stat| file_type(&stat) == FileType::Directory) {
            return Err(bad_link(path, &member.link, Errno::NOENT));
        }
        self.replacing(parent, name, path, |parent, name| {
            rustix::fs::linkat(&from, os(target_name), parent, os(name), AtFlags::empty())
        })
    }

    fn write_body<R: Read>(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        member: &Member,
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        self.space.take(member.size, self.root.fd())?;
        let file =
            File::from(rustix::io::fcntl_dupfd_cloexec(file, 0).map_err(failed("open", path))?);
        let mut end = 0;
        while let Some((offset, count)) = tar.read_piece(&mut self.buffer)? {
            file.write_all_at(&self.buffer[..count], offset)
                .map_err(|source| write_failed(path, source))?;
            end = offset + count as u64;
        }
        if end < member.size {
            file.set_len(member.size)
                .map_err(|source| write_failed(path, source))?;
        }
        Ok(())
    }

    /// What the same layer made under that name stays: a whiteout speaks of the layers below.
    fn whiteout(&mut self, parent_path: &[u8], name: &[u8]) -> Result<()> {
        let parent = self.parent(parent_path)?;
        let path = join(parent_path, name);
        match make_whiteout(parent.as_fd(), name) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match open_directory(parent.as_fd(), name) {
                Ok(fd) => set_opaque(fd.as_fd(), &path),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(failed("hide", &path)(errno)),
            },
            Err(errno) => Err(failed("hide", &path)(errno)),
        }
    }
}

impl Space {
    /// `bytes_max` may be taken, and `disk_reserve` must stay free.
    pub(crate) fn new(bytes_max: u64, disk_reserve: u64) -> Self {
        Self {
            bytes_left: bytes_max,
            bytes_max,
            disk_reserve,
            unchecked: SPACE_CHECK_BYTES,
        }
    }

    /// Bytes taken by now.
    pub(crate) fn taken(&self) -> u64 {
        self.bytes_max - self.bytes_left
    }

    /// Before as many are written on the disk that `on` is on.
    pub(crate) fn take(&mut self, bytes: u64, on: BorrowedFd<'_>) -> Result<()> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes)
            .ok_or(StoreError::LayerTooLarge {
                limit: self.bytes_max,
            })?;
        self.unchecked = self.unchecked.saturating_add(bytes);
        if self.unchecked < SPACE_CHECK_BYTES {
            return Ok(());
        }
        self.unchecked = 0;
        check_space(on, self.disk_reserve.saturating_add(bytes))
    }
}

/// Row I5: the disk is never filled to its end by content.
pub(crate) fn check_space(directory: BorrowedFd<'_>, needed: u64) -> Result<()> {
    let stat =
        rustix::fs::fstatvfs(directory).map_err(failed("look at the free space of", b"/"))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        return Err(StoreError::DiskReserve {
            free,
            reserve: needed,
        });
    }
    Ok(())
}

/// A new file for writing; the name must be free.
pub(crate) fn create(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, os(name), flags, Mode::RUSR | Mode::WUSR)
}

/// Overlayfs' mark of a deleted name.
pub(crate) fn make_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let device = rustix::fs::makedev(0, 0);
    rustix::fs::mknodat(
        parent,
        os(name),
        FileType::CharacterDevice,
        Mode::empty(),
        device,
    )
}

fn make_special(parent: BorrowedFd<'_>, name: &[u8], member: &Member) -> rustix::io::Result<()> {
    let node = |kind| {
        let device = rustix::fs::makedev(member.device.0, member.device.1);
        rustix::fs::mknodat(parent, os(name), kind, Mode::empty(), device)
    };
    match member.kind {
        Kind::Symlink => rustix::fs::symlinkat(os(&member.link), parent, os(name)),
        Kind::CharDevice => node(FileType::CharacterDevice),
        Kind::BlockDevice => node(FileType::BlockDevice),
        Kind::Fifo => node(FileType::Fifo),
        _ => Err(Errno::INVAL),
    }
}

fn set_opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(failed("make opaque", path))
}

/// In this order: a change of owner clears setuid and capabilities, and all of it the change time.
pub(crate) fn set_attributes(
    fd: BorrowedFd<'_>,
    attributes: &Attributes,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    path: &[u8],
) -> Result<()> {
    rustix::fs::fchown(fd, Some(uid(attributes)), Some(gid(attributes)))
        .map_err(failed("set the owner of", path))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))
        .map_err(failed("set the mode of", path))?;
    for (name, value) in settable(xattrs) {
        let set = rustix::fs::fsetxattr(fd, os(name), value, XattrFlags::empty());
        tolerated(name, set).map_err(failed("set an attribute of", path))?;
    }
    rustix::fs::futimens(fd, &times(attributes.mtime)).map_err(failed("set the times of", path))
}

/// The same for what cannot be opened: links, devices and pipes.
pub(crate) fn set_attributes_of_name(
    parent: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    path: &[u8],
) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(parent, os(name), flags, Mode::empty()).map_err(failed("open", path))?;
    let stat = rustix::fs::fstat(&fd).map_err(failed("look at", path))?;
    let (owner, group) = (Some(uid(attributes)), Some(gid(attributes)));
    rustix::fs::chownat(&fd, "", owner, group, AtFlags::EMPTY_PATH)
        .map_err(failed("set the owner of", path))?;
    let handle = proc_path(fd.as_fd());
    if file_type(&stat) != FileType::Symlink {
        rustix::fs::chmod(&handle, Mode::from_raw_mode(attributes.mode))
            .map_err(failed("set the mode of", path))?;
    }
    for (name, value) in settable(xattrs) {
        let set = rustix::fs::setxattr(&handle, os(name), value, XattrFlags::empty());
        tolerated(name, set).map_err(failed("set an attribute of", path))?;
    }
    rustix::fs::utimensat(
        parent,
        os(name),
        &times(attributes.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(failed("set the times of", path))
}

pub(crate) fn settable(
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
    let steers_overlay = |name: &[u8]| OVERLAY_XATTRS.iter().any(|p| name.starts_with(p));
    xattrs
        .iter()
        .filter(move |(name, _)| !steers_overlay(name))
        .map(|(name, value)| (name, value))
}

/// As Docker: a file system without attributes, or `user.*` where the kernel forbids it (links,
/// devices), is no reason to refuse an image.
pub(crate) fn tolerated(name: &[u8], result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        other => other,
    }
}

/// -1 is no owner: to `chown` it says that nothing changes (chown(2)).
fn uid(attributes: &Attributes) -> Uid {
    match attributes.uid {
        u32::MAX => Uid::ROOT,
        uid => Uid::from_raw(uid),
    }
}

fn gid(attributes: &Attributes) -> Gid {
    match attributes.gid {
        u32::MAX => Gid::ROOT,
        gid => Gid::from_raw(gid),
    }
}

/// The access time is set to the same: the true one is nobody's business.
pub(crate) fn times(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: i64::from(mtime.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The modification time in a stat.
pub(crate) fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

pub(crate) fn bad_link(path: &[u8], link: &[u8], errno: Errno) -> StoreError {
    let (path, link) = (String::from_utf8_lossy(path), String::from_utf8_lossy(link));
    crate::layers::tar::malformed(&format!(
        "{path:?} is a hard link to {link:?}, which cannot be linked ({errno})"
    ))
}

pub(crate) fn write_failed(path: &[u8], source: io::Error) -> StoreError {
    StoreError::Tree {
        action: "write",
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    }
}
