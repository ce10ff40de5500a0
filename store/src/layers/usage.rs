//! What a tree takes on the disk.

use std::collections::HashSet;

use rustix::fs::FileType;

use crate::error::Result;
use crate::layers::root::{Root, file_type};
use crate::layers::walk::walk;

/// Disk space is counted in these (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// What a tree takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, holes not counted.
    pub bytes: u64,
    /// Inodes; a file with several names is one.
    pub inodes: u64,
    /// Bytes of regular files, holes included; a file with several names is one.
    pub file_bytes: u64,
}

/// Bytes and inodes below a root, and of the root.
pub(crate) fn usage_of(root: &Root) -> Result<Usage> {
    let mut usage = Usage {
        bytes: 0,
        inodes: 1,
        file_bytes: 0,
    };
    let mut seen = HashSet::new();
    walk(root.fd(), None, &mut |stop| {
        let stat = stop.stat;
        let counted_before = stat.st_nlink > 1
            && file_type(stat) != FileType::Directory
            && !seen.insert((stat.st_dev, stat.st_ino));
        if !counted_before {
            usage.inodes += 1;
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            usage.bytes += blocks * STAT_BLOCK_BYTES;
            if file_type(stat) == FileType::RegularFile {
                usage.file_bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
        }
        Ok(())
    })?;
    Ok(usage)
}
