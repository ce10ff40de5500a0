//! Reading a snapshot: one small file, or the whole tree as a tar.

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::fd::AsFd as _;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Result, StoreError};
use crate::layers::pack::pack;
use crate::layers::root::{Root, failed, file_type, proc_path};
use crate::snapshots::Snapshots;

/// The most that one answer holds.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Snapshots {
    /// The bytes of one regular file, links followed inside the root.
    pub fn read_file(&self, key: &str, path: &[u8]) -> Result<Vec<u8>> {
        let record = self.inner.records.get(key)?;
        let root = self.merged(&record)?;
        read_small(&root, path).map_err(|error| match error {
            StoreError::Tree { source, path, .. }
                if source.kind() == std::io::ErrorKind::NotFound
                    || source.kind() == std::io::ErrorKind::NotADirectory =>
            {
                StoreError::PathNotFound {
                    key: key.to_owned(),
                    path,
                }
            }
            other => other,
        })
    }

    /// Writes the whole tree as a tar.
    pub fn export(&self, key: &str, out: impl Write) -> Result<()> {
        let record = self.inner.records.get(key)?;
        let root = self.merged(&record)?;
        let (mut out, _) = pack(root.fd(), None, out)?;
        out.flush().map_err(|source| StoreError::Tree {
            action: "send the archive of",
            path: key.to_owned(),
            source,
        })
    }
}

/// Opens a regular file and nothing else: what it is is known before anything is opened that could
/// block or act (row B26).
pub(crate) fn open_regular(root: &Root, path: &[u8]) -> Result<(File, u64)> {
    let handle = root
        .open(path, OFlags::PATH)
        .map_err(failed("open", path))?;
    let stat = rustix::fs::fstat(&handle).map_err(failed("look at", path))?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(StoreError::Path {
            path: String::from_utf8_lossy(path).into_owned(),
            problem: "it is not a regular file",
        });
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(proc_path(handle.as_fd()), flags, Mode::empty())
        .map_err(failed("open", path))?;
    let size = u64::try_from(stat.st_size)
        .map_err(|_| failed("read the size of", path)(Errno::OVERFLOW))?;
    Ok((File::from(file), size))
}

pub(crate) fn read_small(root: &Root, path: &[u8]) -> Result<Vec<u8>> {
    let (file, size) = open_regular(root, path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| StoreError::Tree {
            action: "read",
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(StoreError::FileTooLarge {
            path: String::from_utf8_lossy(path).into_owned(),
            size,
            max: FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}
