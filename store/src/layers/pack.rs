//! A tree, or what a snapshot changed, as a tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::error::{Result, StoreError};
use crate::layers::apply::mtime;
use crate::layers::entry::{OPAQUE, WHITEOUT};
use crate::layers::root::{failed, file_type, join, os, proc_path};
use crate::layers::tar::{Kind, Member, Time};
use crate::layers::tarwrite::TarWriter;
use crate::layers::walk::{Met, Stop, walk};

const BUFFER_BYTES: usize = 256 * 1024;
/// Attributes of one file; ext4 and xfs keep at most 64 KiB.
const XATTR_BYTES_MAX: usize = 1 << 20;

/// Hashes what passes.
#[derive(Debug)]
pub struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    /// Starts at nothing.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// The writer, and the digest of all that passed: `sha256:…`.
    pub fn finish(self) -> (W, String) {
        let digest = format!("sha256:{}", hex::encode(self.hash.finalize()));
        (self.inner, digest)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes what `upper` changed of `lower` as a layer's tar; gives the writer back, and the number of
/// members.
pub fn pack<W: Write>(
    upper: BorrowedFd<'_>,
    lower: Option<BorrowedFd<'_>>,
    out: W,
) -> Result<(W, u64)> {
    let mut packer = Packer {
        tar: TarWriter::new(out),
        links: HashMap::new(),
        buffer: vec![0; BUFFER_BYTES],
        members: 0,
    };
    walk(upper, lower, &mut |stop| packer.visit(stop))?;
    let members = packer.members;
    let out = packer.tar.finish().map_err(write_failed)?;
    Ok((out, members))
}

struct Packer<W> {
    tar: TarWriter<W>,
    /// First path of a file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    members: u64,
}

impl<W: Write> Packer<W> {
    fn visit(&mut self, stop: &Stop<'_>) -> Result<()> {
        match stop.met {
            Met::Present { .. } => self.present(stop),
            Met::Deleted => {
                let parent = &stop.path[..stop.path.len() - stop.name.len()];
                self.mark([parent, WHITEOUT, stop.name].concat())
            }
            Met::Opaque => self.mark(join(stop.path, OPAQUE)),
        }
    }

    /// A mark has no time: the same deletion is the same layer.
    fn mark(&mut self, path: Vec<u8>) -> Result<()> {
        self.header(&Member {
            path,
            link: Vec::new(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        })
    }

    fn present(&mut self, stop: &Stop<'_>) -> Result<()> {
        let Some(kind) = kind(stop.stat) else {
            return Ok(());
        };
        let mut member = self.member(stop, kind)?;
        if let Some(first) = self.other_name(stop, kind) {
            member.kind = Kind::HardLink;
            member.link = first;
            return self.header(&member);
        }
        match kind {
            Kind::File => self.file(stop, member),
            Kind::Symlink => {
                let link = rustix::fs::readlinkat(stop.parent, os(stop.name), Vec::new())
                    .map_err(failed("read the link", stop.path))?;
                member.link = link.into_bytes();
                member.xattrs = xattrs(&handle(stop)?, stop.path)?;
                self.header(&member)
            }
            _ => {
                member.xattrs = xattrs(&handle(stop)?, stop.path)?;
                self.header(&member)
            }
        }
    }

    fn member(&self, stop: &Stop<'_>, kind: Kind) -> Result<Member> {
        let mut path = stop.path.to_vec();
        if kind == Kind::Directory {
            path.push(b'/');
        }
        let negative = |_| failed("read the size of", stop.path)(Errno::OVERFLOW);
        Ok(Member {
            path,
            link: Vec::new(),
            kind,
            mode: stop.stat.st_mode & 0o7777,
            uid: stop.stat.st_uid,
            gid: stop.stat.st_gid,
            mtime: mtime(stop.stat),
            size: u64::try_from(stop.stat.st_size).map_err(negative)?,
            device: (
                rustix::fs::major(stop.stat.st_rdev),
                rustix::fs::minor(stop.stat.st_rdev),
            ),
            xattrs: Vec::new(),
        })
    }

    fn other_name(&mut self, stop: &Stop<'_>, kind: Kind) -> Option<Vec<u8>> {
        if stop.stat.st_nlink < 2 || kind == Kind::Directory {
            return None;
        }
        match self.links.entry((stop.stat.st_dev, stop.stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(stop.path.to_vec());
                None
            }
        }
    }

    /// A file that shrinks while it is read (a running container) is filled up with zeros: the
    /// header was written already.
    fn file(&mut self, stop: &Stop<'_>, mut member: Member) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(stop.parent, os(stop.name), flags, Mode::empty())
            .map_err(failed("open", stop.path))?;
        member.xattrs = xattrs(&fd, stop.path)?;
        self.header(&member)?;
        let mut file = File::from(fd);
        let mut left = member.size;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(BUFFER_BYTES);
            let read = file.read(&mut self.buffer[..most]);
            let mut count = read.map_err(|source| read_failed(stop.path, source))?;
            if count == 0 {
                self.buffer[..most].fill(0);
                count = most;
            }
            self.tar.body(&self.buffer[..count]).map_err(write_failed)?;
            left -= count as u64;
        }
        Ok(())
    }

    fn header(&mut self, member: &Member) -> Result<()> {
        self.members += 1;
        self.tar.header(member).map_err(write_failed)
    }
}

/// `None` for a socket, which no archive can hold.
fn kind(stat: &Stat) -> Option<Kind> {
    Some(match file_type(stat) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => return None,
    })
}

fn handle(stop: &Stop<'_>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(stop.parent, os(stop.name), flags, Mode::empty())
        .map_err(failed("open", stop.path))
}

/// Attributes that belong to the file; not those that the host's own machinery puts on everything.
fn belongs(name: &[u8]) -> bool {
    let of_overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let of_host = name.starts_with(b"security.") && name != b"security.capability";
    !of_overlay && !of_host
}

pub(crate) fn xattrs(fd: impl AsFd, path: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let handle = proc_path(fd.as_fd());
    let names = match read_grown(&mut |buffer| rustix::fs::listxattr(&handle, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other.map_err(failed("list the attributes of", path))?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| belongs(name)) {
        if name.is_empty() {
            continue;
        }
        let value = read_grown(&mut |buffer| rustix::fs::getxattr(&handle, os(name), buffer))
            .map_err(failed("read an attribute of", path))?;
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}

fn read_grown(
    read: &mut dyn FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < XATTR_BYTES_MAX => {
                let length = buffer.len() * 8;
                buffer.resize(length, 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn write_failed(source: io::Error) -> StoreError {
    StoreError::Tree {
        action: "write the archive of",
        path: "a snapshot".to_owned(),
        source,
    }
}

fn read_failed(path: &[u8], source: io::Error) -> StoreError {
    StoreError::Tree {
        action: "read",
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    }
}
