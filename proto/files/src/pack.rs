//! Files as a tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::PATH_BYTES_MAX;
use crate::error::{CopyError, Result, failed, refused};
use crate::owners::Owners;
use crate::root::{Root, file_type, is_directory, join, os, split};
use crate::target::Kind;

/// Directories in directories; each is an open file while it is read.
const DEPTH_MAX: usize = 512;
/// Bytes of the names of files with several names that are remembered; beyond, each name becomes a file
/// of its own.
const LINK_BYTES_MAX: usize = 16 << 20;
/// Bytes of a name in a header.
const NAME_BYTES: usize = 100;

/// What is copied: a handle of it, so that it stays what it is.
#[derive(Debug)]
pub struct Source {
    handle: OwnedFd,
    /// What it is.
    pub kind: Kind,
    /// What it is called in the archive.
    pub name: Vec<u8>,
    owners: Owners,
}

impl Source {
    /// Finds it. A link at the end of the path is copied as a link, unless it is to be followed or the
    /// path says by its last slash that it is a directory.
    pub fn find(root: &Root, path: &[u8], follow: bool) -> Result<Self> {
        if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains(&0) {
            return Err(refused(path, "no path of a file"));
        }
        let name = split(strip_slashes(path)).1;
        let contents = matches!(name, b"" | b"." | b"..");
        let directory = contents || path.ends_with(b"/");
        let mut flags = OFlags::PATH;
        if directory {
            flags |= OFlags::DIRECTORY;
        } else if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let handle = root.open(path, flags).map_err(failed("open", path))?;
        let stat = rustix::fs::fstat(&handle).map_err(failed("look at", path))?;
        let (kind, name) = match is_directory(&stat) {
            true if contents => (Kind::Contents, &b"."[..]),
            true => (Kind::Directory, name),
            false => (Kind::File, name),
        };
        Ok(Self {
            handle,
            kind,
            name: name.to_vec(),
            owners: root.owners(),
        })
    }
}

fn strip_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/');
    &path[..end.map_or(0, |last| last + 1)]
}

/// Writes the source and everything below it; answers the bytes of the files. `leave` says of a
/// directory that it is copied without what is in it.
pub fn pack(
    source: &Source,
    leave: &dyn Fn(BorrowedFd<'_>, &Stat) -> bool,
    out: impl Write,
) -> Result<u64> {
    let mut packer = Packer {
        tar: Builder::new(out),
        owners: source.owners,
        links: HashMap::new(),
        link_bytes: 0,
        bytes: 0,
    };
    let mut stack = Vec::new();
    stack.extend(packer.put(source.handle.as_fd(), &source.name, leave)?);
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.next()? else {
            stack.pop();
            continue;
        };
        let path = join(&level.path, &name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = level.entries.fd().map_err(failed("open", &path))?;
        let handle = match rustix::fs::openat(directory, os(&name), flags, Mode::empty()) {
            // It was removed since the directory was listed.
            Err(Errno::NOENT) => continue,
            other => other.map_err(failed("open", &path))?,
        };
        let below = packer.put(handle.as_fd(), &path, leave)?;
        stack.extend(below);
        if stack.len() > DEPTH_MAX || path.len() > PATH_BYTES_MAX {
            return Err(refused(&path, "the directories are too deep"));
        }
    }
    let mut out = packer.tar.into_inner().map_err(CopyError::Stream)?;
    out.flush().map_err(CopyError::Stream)?;
    Ok(packer.bytes)
}

/// A directory that is being read, in the order in which it is stored: a list of its names would have no
/// bound.
struct Level {
    entries: Dir,
    path: Vec<u8>,
}

impl Level {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some(entry) = self.entries.read() {
            let entry = entry.map_err(failed("list", &self.path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                return Ok(Some(name.to_vec()));
            }
        }
        Ok(None)
    }
}

struct Packer<W: Write> {
    tar: Builder<W>,
    owners: Owners,
    /// First path of a file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    link_bytes: usize,
    bytes: u64,
}

impl<W: Write> Packer<W> {
    /// Writes one member; a directory is to be read after that.
    fn put(
        &mut self,
        handle: BorrowedFd<'_>,
        path: &[u8],
        leave: &dyn Fn(BorrowedFd<'_>, &Stat) -> bool,
    ) -> Result<Option<Level>> {
        let mut stat = rustix::fs::fstat(handle).map_err(failed("look at", path))?;
        stat.st_uid = self.owners.in_archive(stat.st_uid);
        stat.st_gid = self.owners.in_archive(stat.st_gid);
        if self.put_link(path, &stat)? {
            return Ok(None);
        }
        match file_type(&stat) {
            FileType::RegularFile => self.put_file(handle, path, &stat)?,
            FileType::Directory => {
                let name = [path, b"/"].concat();
                self.member(&name, b"", header(EntryType::Directory, &stat), io::empty())?;
                return match leave(handle, &stat) {
                    true => Ok(None),
                    false => level(handle, path).map(Some),
                };
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(handle, "", Vec::new());
                let target = target.map_err(failed("read the link", path))?.into_bytes();
                self.member(
                    path,
                    &target,
                    header(EntryType::Symlink, &stat),
                    io::empty(),
                )?;
            }
            FileType::Fifo => {
                self.member(path, b"", header(EntryType::Fifo, &stat), io::empty())?;
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                self.member(path, b"", device(kind, &stat), io::empty())?;
            }
            // No archive holds a socket.
            _ => {}
        }
        Ok(None)
    }

    /// Whether it was one more name of a file that is in the archive.
    fn put_link(&mut self, path: &[u8], stat: &Stat) -> Result<bool> {
        if stat.st_nlink < 2 || is_directory(stat) {
            return Ok(false);
        }
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&inode).cloned() {
            self.member(path, &first, header(EntryType::Link, stat), io::empty())?;
            return Ok(true);
        }
        // An entry takes about as much as a short name.
        self.link_bytes += path.len() + 64;
        if self.link_bytes < LINK_BYTES_MAX {
            self.links.insert(inode, path.to_vec());
        }
        Ok(false)
    }

    fn put_file(&mut self, handle: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Result<()> {
        // Through our own handle: the file that was looked at, and no device or pipe in its place.
        let own = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(own, flags, Mode::empty()).map_err(failed("open", path))?;
        let mut header = header(EntryType::Regular, stat);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        header.set_size(size);
        self.bytes += size;
        let mut exactly = Exactly {
            file: file.into(),
            left: size,
            failure: None,
        };
        let written = self.member(path, b"", header, &mut exactly);
        match exactly.failure {
            Some(source) => Err(CopyError::File {
                action: "read",
                path: crate::error::text(path),
                source,
            }),
            None => written,
        }
    }

    /// Names are written as they are, byte by byte; those that do not fit go before.
    fn member(
        &mut self,
        path: &[u8],
        link: &[u8],
        mut header: Header,
        data: impl Read,
    ) -> Result<()> {
        self.long(EntryType::GNULongLink, link)?;
        self.long(EntryType::GNULongName, path)?;
        let old = header.as_old_mut();
        let fits = |name: &[u8]| name.len().min(NAME_BYTES);
        old.name[..fits(path)].copy_from_slice(&path[..fits(path)]);
        old.linkname[..fits(link)].copy_from_slice(&link[..fits(link)]);
        header.set_cksum();
        self.tar.append(&header, data).map_err(CopyError::Stream)
    }

    fn long(&mut self, kind: EntryType, name: &[u8]) -> Result<()> {
        if name.len() <= NAME_BYTES {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(name.len() as u64 + 1);
        header.set_mode(0o644);
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_cksum();
        let data = name.chain(&b"\0"[..]);
        self.tar.append(&header, data).map_err(CopyError::Stream)
    }
}

fn level(handle: BorrowedFd<'_>, path: &[u8]) -> Result<Level> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(handle, ".", flags, Mode::empty());
    let directory = directory.map_err(failed("open the directory", path))?;
    Ok(Level {
        entries: Dir::new(directory).map_err(failed("list", path))?,
        path: path.to_vec(),
    })
}

fn header(kind: EntryType, stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

fn device(kind: FileType, stat: &Stat) -> Header {
    let entry = match kind {
        FileType::BlockDevice => EntryType::Block,
        _ => EntryType::Char,
    };
    let mut header = header(entry, stat);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_device_major(rustix::fs::major(stat.st_rdev));
        gnu.set_device_minor(rustix::fs::minor(stat.st_rdev));
    }
    header
}

/// As many bytes of a file as its header said: one that shrinks while it is read ends in zeros.
struct Exactly {
    file: File,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = match self.file.read(&mut buffer[..most]) {
            Ok(0) => {
                buffer[..most].fill(0);
                most
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let copy = io::Error::from(error.kind());
                self.failure = Some(error);
                return Err(copy);
            }
        };
        self.left -= count as u64;
        Ok(count)
    }
}
