//! The bytes of an EROFS image: superblock, inodes, directory blocks and attributes, as the kernel's
//! `Documentation/filesystems/erofs.rst` and the project's `core_ondisk` page describe them. All
//! numbers are little endian. No I/O.

use crate::layers::erofs::acl;
use crate::layers::tar::Time;

/// Bytes of a block, log2 and whole: what every kernel with EROFS can mount.
pub(super) const BLOCK_BITS: u8 = 12;
/// The same, whole.
pub(super) const BLOCK: usize = 1 << BLOCK_BITS;
/// Inodes are numbered by their place in the metadata, in units of this many bytes.
pub(super) const SLOT: u64 = 32;
/// Bytes of an inode of the extended kind, which alone has its own times and 32-bit owners.
pub(super) const INODE: usize = 64;
/// The block address of a hole.
pub(super) const HOLE: u32 = u32::MAX;
/// Bytes in one address of a map of chunks.
pub(super) const CHUNK_ADDRESS: usize = 4;
/// The longest name in a directory.
pub(super) const NAME_MAX: usize = 255;

const SUPERBLOCK_OFFSET: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock has a checksum; the time of an inode is that of its modification.
const COMPATIBLE: u32 = 0x1 | 0x2;
const INCOMPATIBLE_CHUNKED: u32 = 0x4;
const DIRENT: usize = 12;
const XATTR_HEADER: usize = 12;
const XATTR_ENTRY: usize = 4;

/// How the data of an inode lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In consecutive blocks.
    Plain,
    /// The same, but what is beyond the last whole block follows the inode.
    Inline,
    /// In chunks, whose addresses follow the inode.
    Chunks,
}

/// What an inode says of itself, besides its attributes.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) layout: Layout,
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) size: u64,
    /// A block address, a device number or the size of chunks.
    pub(super) place: u32,
    /// Counted from 1, for programs that know only 32 bits.
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) links: u32,
    /// Bytes of the attributes that follow it.
    pub(super) xattr_bytes: usize,
}

impl Inode {
    pub(super) fn encode(&self) -> [u8; INODE] {
        let layout = match self.layout {
            Layout::Plain => 0_u16,
            Layout::Inline => 2,
            Layout::Chunks => 4,
        };
        let mut bytes = Bytes([0; INODE]);
        bytes.put(0x00, (layout << 1 | 1).to_le_bytes());
        bytes.put(0x02, xattr_count(self.xattr_bytes).to_le_bytes());
        bytes.put(0x04, self.mode.to_le_bytes());
        bytes.put(0x08, self.size.to_le_bytes());
        bytes.put(0x10, self.place.to_le_bytes());
        bytes.put(0x14, self.number.to_le_bytes());
        bytes.put(0x18, self.uid.to_le_bytes());
        bytes.put(0x1c, self.gid.to_le_bytes());
        bytes.put(0x20, self.mtime.seconds.to_le_bytes());
        bytes.put(0x28, self.mtime.nanos.to_le_bytes());
        bytes.put(0x2c, self.links.to_le_bytes());
        bytes.0
    }
}

/// What the first block says.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) metadata: u32,
    pub(super) uuid: [u8; 16],
    pub(super) chunked: bool,
}

impl Superblock {
    /// The whole first block.
    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut block = Bytes([0; BLOCK]);
        let mut put = |at, value: &[u8]| block.put_slice(SUPERBLOCK_OFFSET + at, value);
        let incompatible = if self.chunked {
            INCOMPATIBLE_CHUNKED
        } else {
            0
        };
        put(0x00, &MAGIC.to_le_bytes());
        put(0x08, &COMPATIBLE.to_le_bytes());
        put(0x0c, &[BLOCK_BITS]);
        put(0x0e, &self.root.to_le_bytes());
        put(0x10, &self.inodes.to_le_bytes());
        put(0x24, &self.blocks.to_le_bytes());
        put(0x28, &self.metadata.to_le_bytes());
        put(0x30, &self.uuid);
        put(0x50, &incompatible.to_le_bytes());
        let checksum = !crc32c(&block.0[SUPERBLOCK_OFFSET..]);
        block.put(SUPERBLOCK_OFFSET + 0x04, checksum.to_le_bytes());
        block.0
    }
}

/// The type of a directory's entry, as `linux/fs_types.h` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryType {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A character device.
    CharDevice = 3,
    /// A block device.
    BlockDevice = 4,
    /// A named pipe.
    Fifo = 5,
    /// A symbolic link.
    Symlink = 7,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) kind: EntryType,
}

/// One block of a directory: the entries, then their names. Not padded.
pub(super) fn directory_block(entries: &[Entry<'_>], block: &mut Vec<u8>) {
    let mut name_at = entries.len() * DIRENT;
    for entry in entries {
        block.extend_from_slice(&entry.inode.to_le_bytes());
        block.extend_from_slice(&u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
        block.extend_from_slice(&[entry.kind as u8, 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        block.extend_from_slice(entry.name);
    }
}

/// Bytes that a name needs in a directory.
pub(super) fn entry_bytes(name: &[u8]) -> usize {
    DIRENT + name.len()
}

/// The number of an attribute's prefix, and what is left of its name. `None` for a prefix that the
/// format does not know, as the kernel does not either.
pub(super) fn xattr_prefix(name: &[u8]) -> Option<(u8, &[u8])> {
    const PREFIXES: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
    match name {
        acl::ACCESS => Some((2, b"")),
        acl::DEFAULT => Some((3, b"")),
        _ => PREFIXES
            .iter()
            .find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?))),
    }
}

/// Attributes as they follow an inode; empty if there are none. Names and values are within the
/// kernel's limits.
pub(super) fn xattrs(xattrs: &[(Vec<u8>, Vec<u8>)], bytes: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    bytes.extend_from_slice(&[0; XATTR_HEADER]);
    for (name, value) in xattrs {
        let Some((index, name)) = xattr_prefix(name) else {
            continue;
        };
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.push(index);
        bytes.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(XATTR_ENTRY), 0);
    }
}

/// Bytes of [`xattrs`].
pub(super) fn xattr_bytes(xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    if xattrs.is_empty() {
        return 0;
    }
    let each = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let name = xattr_prefix(name).map_or(0, |(_, rest)| rest.len());
        (XATTR_ENTRY + name + value.len()).next_multiple_of(XATTR_ENTRY)
    };
    XATTR_HEADER + xattrs.iter().map(each).sum::<usize>()
}

/// The most that the attributes of one inode may need: their size is a count of 16 bits.
pub(super) const XATTR_BYTES_MAX: usize = XATTR_HEADER + (u16::MAX as usize - 1) * XATTR_ENTRY;

fn xattr_count(bytes: usize) -> u16 {
    let count = match bytes {
        0 => 0,
        bytes => (bytes - XATTR_HEADER) / XATTR_ENTRY + 1,
    };
    u16::try_from(count).unwrap_or(u16::MAX)
}

struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Bytes<N> {
    fn put<const M: usize>(&mut self, at: usize, value: [u8; M]) {
        self.put_slice(at, &value);
    }

    fn put_slice(&mut self, at: usize, value: &[u8]) {
        self.0[at..at + value.len()].copy_from_slice(value);
    }
}

/// CRC-32C (Castagnoli, RFC 3720), bit by bit: it is needed for 3 KiB an image.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn attributes_take_the_bytes_that_were_counted() {
        let some = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let all = [
            some("user.a", b"12345"),
            some("security.capability", &[1; 20]),
            some("system.posix_acl_access", &[2; 28]),
        ];
        for count in 0..=all.len() {
            let mut bytes = Vec::new();
            xattrs(&all[..count], &mut bytes);
            assert_eq!(bytes.len(), xattr_bytes(&all[..count]));
        }
    }
}
