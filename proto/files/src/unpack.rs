//! A tar as files below a target.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::error::{CopyError, Result, failed, refused};
use crate::members::{Member, What, each};
use crate::root::{file_type, is_device, join, os, split};
use crate::target::Target;

/// Directories in directories; each is an open file while something goes into it.
const DEPTH_MAX: usize = 512;

/// How an archive is unpacked.
#[derive(Clone, Debug)]
pub struct Unpacking {
    /// What the top of the archive is called in it; it gets the target's name, if that has one.
    pub top: Vec<u8>,
    /// Keep owners and set-id bits, rather than make everything the caller's.
    pub owners: bool,
}

/// Unpacks a tar; answers the bytes of its files. What was made before an error stays.
pub fn unpack(tar: impl Read, target: &Target, how: &Unpacking) -> Result<u64> {
    let mut unpacker = Unpacker {
        target,
        how,
        open: Vec::new(),
        parent: None,
        bytes: 0,
    };
    each(tar, &mut |member, data| unpacker.put(member, data))?;
    unpacker.close_down_to(0)?;
    Ok(unpacker.bytes)
}

/// A directory whose attributes are set when all is in it.
struct Open {
    path: Vec<u8>,
    handle: OwnedFd,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
}

struct Unpacker<'a> {
    target: &'a Target,
    how: &'a Unpacking,
    /// Each below the one before it.
    open: Vec<Open>,
    /// The directory of the last member.
    parent: Option<(Vec<u8>, OwnedFd)>,
    bytes: u64,
}

/// What has a name already.
struct Existing {
    handle: OwnedFd,
    kind: FileType,
    /// Something is mounted on it.
    mounted: bool,
}

impl Unpacker<'_> {
    fn put(&mut self, member: &Member, data: &mut dyn Read) -> Result<()> {
        let path = self.place(&member.path)?;
        if path.is_empty() {
            return Ok(());
        }
        self.close_unless_above(&path)?;
        let (directory, name) = split(&path);
        let parent = self.directory(directory)?;
        match member.what {
            What::File => self.put_file(parent.as_fd(), name, member, data),
            What::Directory => self.put_directory(parent.as_fd(), path.clone(), member),
            What::Symlink => {
                make_way(parent.as_fd(), name, &path)?;
                rustix::fs::symlinkat(os(&member.link), &parent, os(name))
                    .map_err(failed("make the link", &path))?;
                self.describe(parent.as_fd(), name, member)
            }
            What::Link => {
                let first = self.place(&member.link)?;
                let (directory, first) = split(&first);
                let other = self.directory(directory)?;
                make_way(parent.as_fd(), name, &path)?;
                rustix::fs::linkat(&other, os(first), &parent, os(name), AtFlags::empty())
                    .map_err(failed("make the link", &path))
            }
            What::Fifo => {
                make_way(parent.as_fd(), name, &path)?;
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(&parent, os(name), FileType::Fifo, mode, 0)
                    .map_err(failed("make the pipe", &path))?;
                self.describe(parent.as_fd(), name, member)
            }
            What::Device => Err(refused(&path, "a device is not copied")),
        }
    }

    /// Where a member goes, below the target's directory. Only names count: a path that leads up is
    /// refused, and one from the root is taken from the target.
    fn place(&self, path: &[u8]) -> Result<Vec<u8>> {
        let parts = path.split(|&byte| byte == b'/');
        let parts = parts.filter(|part| !part.is_empty() && *part != b".");
        let mut names: Vec<&[u8]> = parts.collect();
        if names.contains(&&b".."[..]) {
            return Err(refused(path, "the archive leads out of its directory"));
        }
        if names.len() > DEPTH_MAX {
            return Err(refused(path, "the directories are too deep"));
        }
        if !self.target.name.is_empty() {
            let name = self.target.name.as_slice();
            match names.first_mut() {
                // The content of a directory, under a new name.
                _ if self.how.top == b"." => names.insert(0, name),
                Some(first) if *first == self.how.top => *first = name,
                _ => return Err(refused(path, "the archive holds what was not asked for")),
            }
        }
        Ok(names.join(&b'/'))
    }

    /// A handle of a directory below the target's, made with its parents if it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let again = |handle: &OwnedFd| {
            handle.try_clone().map_err(|source| CopyError::File {
                action: "open the directory",
                path: crate::error::text(path),
                source,
            })
        };
        if let Some((known, handle)) = &self.parent
            && known == path
        {
            return again(handle);
        }
        let handle = self.open_or_make(path)?;
        let parent = again(&handle)?;
        self.parent = Some((path.to_vec(), parent));
        Ok(handle)
    }

    /// The target's own directory is never made: if it has gone since it was found, so does the copy.
    fn open_or_make(&self, path: &[u8]) -> Result<OwnedFd> {
        let whole = join(&self.target.directory, path);
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            self.target.root.open(&whole, flags)
        };
        match open() {
            Err(Errno::NOENT) if !path.is_empty() => {}
            other => return other.map_err(failed("open the directory", &whole)),
        }
        let (above, name) = split(path);
        let parent = self.open_or_make(above)?;
        match rustix::fs::mkdirat(&parent, os(name), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make the directory", &whole)(errno)),
        }
        open().map_err(failed("open the directory", &whole))
    }

    fn put_file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        member: &Member,
        data: &mut dyn Read,
    ) -> Result<()> {
        let path = &member.path;
        let handle = match existing(parent, name).map_err(failed("look at", path))? {
            // A file that is mounted is written: its name belongs to the mount.
            Some(file) if file.mounted && file.kind == FileType::RegularFile => {
                return self.write_through(&file, member, data);
            }
            _ => {
                make_way(parent, name, path)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, os(name), flags, Mode::from_raw_mode(0o600))
            }
        };
        let mut file = File::from(handle.map_err(failed("make", path))?);
        self.bytes += copy(data, &mut file, path)?;
        self.describe_open(file.as_fd(), member)
    }

    fn write_through(
        &mut self,
        existing: &Existing,
        member: &Member,
        data: &mut dyn Read,
    ) -> Result<()> {
        let own = format!("/proc/self/fd/{}", existing.handle.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(own, flags, Mode::empty());
        let mut file = File::from(file.map_err(failed("write", &member.path))?);
        self.bytes += copy(data, &mut file, &member.path)?;
        Ok(())
    }

    fn put_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        path: Vec<u8>,
        member: &Member,
    ) -> Result<()> {
        let name = split(&path).1;
        match rustix::fs::mkdirat(parent, os(name), Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make the directory", &path)(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(parent, os(name), flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let problem = "cannot overwrite a non-directory with a directory";
                return Err(refused(&path, problem));
            }
            other => other.map_err(failed("open the directory", &path))?,
        };
        self.open.push(Open {
            path,
            handle,
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
        });
        Ok(())
    }

    /// Ends the directories that the next path is not in.
    fn close_unless_above(&mut self, path: &[u8]) -> Result<()> {
        let above = |open: &&Open| {
            let rest = path.strip_prefix(open.path.as_slice());
            rest.is_some_and(|rest| rest.starts_with(b"/"))
        };
        let keep = self.open.iter().take_while(above).count();
        self.close_down_to(keep)
    }

    fn close_down_to(&mut self, keep: usize) -> Result<()> {
        while self.open.len() > keep
            && let Some(open) = self.open.pop()
        {
            let (handle, path) = (open.handle.as_fd(), &open.path);
            self.attributes(handle, path, (open.uid, open.gid), open.mode)?;
            rustix::fs::futimens(handle, &times(open.mtime))
                .map_err(failed("set the time of", path))?;
        }
        Ok(())
    }

    fn describe_open(&self, handle: BorrowedFd<'_>, member: &Member) -> Result<()> {
        let owner = (member.uid, member.gid);
        self.attributes(handle, &member.path, owner, member.mode)?;
        rustix::fs::futimens(handle, &times(member.mtime))
            .map_err(failed("set the time of", &member.path))
    }

    fn owner(&self, path: &[u8], uid: u32, gid: u32) -> Result<(Uid, Gid)> {
        let owners = self.target.root.owners();
        match (owners.in_tree(uid), owners.in_tree(gid)) {
            (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
            _ => Err(refused(path, "its owner has no number in the container")),
        }
    }

    /// Set-id bits would be of somebody else without the owner that they were set for.
    fn attributes(
        &self,
        handle: BorrowedFd<'_>,
        path: &[u8],
        (uid, gid): (u32, u32),
        mode: u32,
    ) -> Result<()> {
        let mut kept = 0o1777;
        if self.how.owners {
            let (uid, gid) = self.owner(path, uid, gid)?;
            rustix::fs::fchown(handle, Some(uid), Some(gid))
                .map_err(failed("set the owner of", path))?;
            kept = 0o7777;
        }
        let mode = mode & kept;
        rustix::fs::fchmod(handle, Mode::from_raw_mode(mode))
            .map_err(failed("set the mode of", path))
    }

    /// The same for what cannot be opened: a link or a pipe.
    fn describe(&self, parent: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.how.owners {
            let (uid, gid) = self.owner(&member.path, member.uid, member.gid)?;
            rustix::fs::chownat(parent, os(name), Some(uid), Some(gid), flags)
                .map_err(failed("set the owner of", &member.path))?;
        }
        rustix::fs::utimensat(parent, os(name), &times(member.mtime), flags)
            .map_err(failed("set the time of", &member.path))
    }
}

/// What has the name in a directory, without following it.
fn existing(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<Existing>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = match rustix::fs::openat(parent, os(name), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let stat = rustix::fs::fstat(&handle)?;
    // The kernel does not keep us from removing what is mounted in the container's namespace only.
    let mounted = mount_id(handle.as_fd())? != mount_id(parent)?;
    Ok(Some(Existing {
        kind: file_type(&stat),
        handle,
        mounted,
    }))
}

fn mount_id(handle: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let statx = rustix::fs::statx(handle, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(statx.stx_mnt_id)
}

/// Removes what has the name, if it is no directory and no device and nothing is mounted on it.
fn make_way(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
    let Some(existing) = existing(parent, name).map_err(failed("look at", path))? else {
        return Ok(());
    };
    if existing.kind == FileType::Directory {
        let problem = "cannot overwrite a directory with a non-directory";
        return Err(refused(path, problem));
    }
    // Who copies to a device means its driver, which a file in its place would take from everybody.
    if is_device(existing.kind) {
        return Err(refused(path, "a device is not overwritten"));
    }
    if existing.mounted {
        return Err(refused(path, "something is mounted there"));
    }
    match rustix::fs::unlinkat(parent, os(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("replace", path)(errno)),
    }
}

/// An error of the archive is told apart from one of the file.
fn copy(data: &mut dyn Read, file: &mut File, path: &[u8]) -> Result<u64> {
    let mut broken = None;
    let mut watched = Watched {
        inner: data,
        broken: &mut broken,
    };
    let copied = io::copy(&mut watched, file);
    match (copied, broken) {
        (Ok(count), _) => Ok(count),
        (Err(_), Some(source)) => Err(CopyError::Stream(source)),
        (Err(source), None) => Err(CopyError::File {
            action: "write",
            path: crate::error::text(path),
            source,
        }),
    }
}

struct Watched<'a> {
    inner: &'a mut dyn Read,
    broken: &'a mut Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            *self.broken = Some(error);
            kind.into()
        })
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
