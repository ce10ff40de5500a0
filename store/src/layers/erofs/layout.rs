//! From the finished tree to the metadata of the image: inodes in the order of the tree, breadth
//! first, then the directories that do not fit beside their inodes.

use std::fs::File;

use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::layers::apply::check_space;
use crate::layers::erofs::blocks::{Blocks, address};
use crate::layers::erofs::data::{Data, Place};
use crate::layers::erofs::format::{
    self, BLOCK, CHUNK_ADDRESS, Entry, EntryType, HOLE, INODE, Inode, Layout, SLOT, Superblock,
};
use crate::layers::erofs::tree::{Body, Directory, Node, NodeId, ROOT, Tree};

/// Where the first inode is: not at 0, because no file may have the number 0.
const FIRST_INODE: u64 = INODE as u64;

/// Writes everything that follows the data, and the superblock; gives back the file and its length.
pub(super) fn write(tree: &Tree, mut blocks: Blocks, disk_reserve: u64) -> Result<(File, u64)> {
    let plan = Plan::of(tree);
    check_space(blocks.fd(), disk_reserve.saturating_add(plan.bytes))?;
    blocks.pad()?;
    let mut writer = Writer {
        tree,
        plan: &plan,
        start: blocks.position(),
        hash: Sha256::new(),
        next_directory: 0,
        blocks,
    };
    writer.next_directory = address(writer.start + plan.inode_bytes)?;
    writer.inodes()?;
    writer.directories()?;
    writer.finish()
}

/// Where everything goes.
struct Plan {
    /// Each node once.
    order: Vec<NodeId>,
    /// Of each node of the tree, from the start of the metadata; 0 for what is gone.
    offsets: Vec<u64>,
    /// Bytes of all inodes with what follows them, whole blocks.
    inode_bytes: u64,
    /// The same with the directories after them.
    bytes: u64,
    chunked: bool,
}

/// What follows an inode, in bytes.
struct Record {
    xattrs: usize,
    /// Must be within one block, in that of the inode if all of it fits.
    tail: usize,
    map: u64,
    /// Whole blocks of a directory.
    blocks: u64,
}

impl Plan {
    fn of(tree: &Tree) -> Self {
        let mut plan = Self {
            order: order(tree),
            offsets: vec![0; tree.len()],
            inode_bytes: FIRST_INODE,
            bytes: 0,
            chunked: false,
        };
        for id in &plan.order {
            let record = Record::of(tree, *id);
            let offset = record.offset(plan.inode_bytes);
            plan.offsets[*id] = offset;
            // No inode crosses a block.
            plan.inode_bytes = offset + record.bytes().next_multiple_of(INODE as u64);
            plan.bytes += record.blocks * BLOCK as u64;
            plan.chunked |= record.map > 0;
        }
        // `fsck.erofs` 1.5 reads the header of attributes also where there are none, and the last
        // inode must not be the end of the file for it.
        plan.inode_bytes = (plan.inode_bytes + SLOT).next_multiple_of(BLOCK as u64);
        plan.bytes += plan.inode_bytes;
        plan
    }

    fn inode(&self, id: NodeId) -> u64 {
        self.offsets[id] / SLOT
    }
}

impl Record {
    fn of(tree: &Tree, id: NodeId) -> Self {
        let node = tree.node(id);
        let mut record = Self {
            xattrs: format::xattr_bytes(&node.xattrs),
            tail: 0,
            map: 0,
            blocks: 0,
        };
        match &node.body {
            Body::Directory(directory) => {
                let names = listing(directory, id);
                let (blocks, tail) = split_in_blocks(&names, record.xattrs);
                record.blocks = blocks.len() as u64;
                record.tail = block_bytes(tail);
            }
            Body::File(data) | Body::Symlink { data, .. } => {
                record.map = data.chunks() * CHUNK_ADDRESS as u64;
                if let Place::Dense { tail, .. } = &data.place {
                    record.tail = tail.len();
                }
            }
            _ => {}
        }
        record
    }

    fn bytes(&self) -> u64 {
        (INODE + self.xattrs + self.tail) as u64 + self.map
    }

    /// The first place for it from here on.
    fn offset(&self, from: u64) -> u64 {
        let block = BLOCK as u64;
        let fits = |offset: &u64| {
            let tail = offset + (INODE + self.xattrs) as u64;
            let first = if self.bytes() <= block { *offset } else { tail };
            self.tail == 0 || first / block == (tail + self.tail as u64 - 1) / block
        };
        (from..).step_by(INODE).find(fits).unwrap_or(from)
    }
}

/// All nodes that have a name, breadth first: what is listed together lies together.
fn order(tree: &Tree) -> Vec<NodeId> {
    let mut order = vec![ROOT];
    let mut seen = vec![false; tree.len()];
    let mut next = 0;
    while let Some(id) = order.get(next) {
        next += 1;
        let Ok(directory) = tree.directory(*id) else {
            continue;
        };
        for child in directory.children.values() {
            if !std::mem::replace(&mut seen[*child], true) {
                order.push(*child);
            }
        }
    }
    order
}

type Name<'a> = (&'a [u8], NodeId);

/// The names in a directory with `.` and `..`, in the order of their bytes.
fn listing(directory: &Directory, id: NodeId) -> Vec<Name<'_>> {
    let children = directory.children.iter();
    let mut names: Vec<Name<'_>> = vec![(b".", id), (b"..", directory.parent)];
    names.extend(children.map(|(name, child)| (&**name, *child)));
    names.sort();
    names
}

/// As many names a block as it holds; apart from them the last ones, if they fit beside an inode with
/// this many bytes of attributes.
fn split_in_blocks<'a, 'b>(
    mut names: &'b [Name<'a>],
    xattr_bytes: usize,
) -> (Vec<&'b [Name<'a>]>, &'b [Name<'a>]) {
    let mut blocks = Vec::new();
    while !names.is_empty() {
        let mut bytes = 0;
        let fits = |(name, _): &&Name<'_>| {
            bytes += format::entry_bytes(name);
            bytes <= BLOCK
        };
        let (block, rest) = names.split_at(names.iter().take_while(fits).count());
        blocks.push(block);
        names = rest;
    }
    let inline = |block: &mut &[Name<'_>]| INODE + xattr_bytes + block_bytes(block) <= BLOCK;
    let tail = blocks.pop_if(inline).unwrap_or_default();
    (blocks, tail)
}

fn block_bytes(names: &[Name<'_>]) -> usize {
    let each = |(name, _): &Name<'_>| format::entry_bytes(name);
    names.iter().map(each).sum()
}

struct Writer<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    start: u64,
    /// Of the metadata: names the image.
    hash: Sha256,
    /// The address of the next directory's first block.
    next_directory: u32,
    blocks: Blocks,
}

impl Writer<'_> {
    fn inodes(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        for (number, id) in (1..).zip(&self.plan.order) {
            bytes.clear();
            self.inode(*id, number, &mut bytes)?;
            self.blocks.skip_to(self.start + self.plan.offsets[*id])?;
            self.append(&bytes)?;
        }
        self.blocks.skip_to(self.start + self.plan.inode_bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.blocks.append(bytes)
    }

    fn inode(&mut self, id: NodeId, number: u32, bytes: &mut Vec<u8>) -> Result<()> {
        let tree = self.tree;
        let node = tree.node(id);
        let mut inode = inode(node, number);
        bytes.resize(INODE, 0);
        format::xattrs(&node.xattrs, bytes);
        match &node.body {
            Body::Directory(directory) => self.directory(directory, id, &mut inode, bytes)?,
            Body::File(data) | Body::Symlink { data, .. } => file(data, &mut inode, bytes),
            Body::Device { number, .. } => inode.place = *number,
            Body::Fifo | Body::Gone => {}
        }
        bytes[..INODE].copy_from_slice(&inode.encode());
        Ok(())
    }

    fn directory(
        &mut self,
        directory: &Directory,
        id: NodeId,
        inode: &mut Inode,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let names = listing(directory, id);
        let (blocks, tail) = split_in_blocks(&names, inode.xattr_bytes);
        inode.links = 1 + self.subdirectories(&names);
        inode.place = self.next_directory;
        inode.size = (blocks.len() * BLOCK) as u64;
        if let (true, Some(last)) = (tail.is_empty(), blocks.last()) {
            inode.size -= (BLOCK - block_bytes(last)) as u64;
        }
        if !tail.is_empty() {
            inode.layout = Layout::Inline;
            inode.size += block_bytes(tail) as u64;
            self.block(tail, bytes);
        }
        let end = u64::from(self.next_directory) + blocks.len() as u64;
        self.next_directory = address(end * BLOCK as u64)?;
        Ok(())
    }

    /// With `.`, which stands for the name in the parent, and without `..`.
    fn subdirectories(&self, names: &[Name<'_>]) -> u32 {
        let is_directory =
            |(name, id): &&Name<'_>| *name != b".." && self.tree.directory(*id).is_ok();
        u32::try_from(names.iter().filter(is_directory).count()).unwrap_or(u32::MAX)
    }

    fn block(&self, names: &[Name<'_>], bytes: &mut Vec<u8>) {
        let entries: Vec<Entry<'_>> = names
            .iter()
            .map(|(name, id)| Entry {
                name,
                inode: self.plan.inode(*id),
                kind: kind(self.tree.node(*id)),
            })
            .collect();
        format::directory_block(&entries, bytes);
    }

    /// What the inodes left to them: whole blocks, in the same order.
    fn directories(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        for id in &self.plan.order {
            let Ok(directory) = self.tree.directory(*id) else {
                continue;
            };
            let names = listing(directory, *id);
            let xattrs = format::xattr_bytes(&self.tree.node(*id).xattrs);
            for names in split_in_blocks(&names, xattrs).0 {
                bytes.clear();
                self.block(names, &mut bytes);
                self.append(&bytes)?;
                self.blocks.pad()?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(File, u64)> {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.hash.finalize()[..16]);
        let superblock = Superblock {
            root: u16::try_from(self.plan.inode(ROOT)).unwrap_or(0),
            inodes: self.plan.order.len() as u64,
            blocks: address(self.blocks.position())?,
            metadata: address(self.start)?,
            uuid,
            chunked: self.plan.chunked,
        };
        self.blocks.finish(&superblock)
    }
}

fn inode(node: &Node, number: u32) -> Inode {
    let attributes = &node.attributes;
    let file_type = node.file_type();
    let permissions = match file_type {
        FileType::Symlink => 0o777,
        _ => attributes.mode & 0o7777,
    };
    Inode {
        layout: Layout::Plain,
        mode: u16::try_from(file_type.as_raw_mode() | permissions).unwrap_or(0),
        size: 0,
        place: 0,
        number,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        links: node.links,
        xattr_bytes: format::xattr_bytes(&node.xattrs),
    }
}

fn file(data: &Data, inode: &mut Inode, bytes: &mut Vec<u8>) {
    inode.size = data.size;
    match &data.place {
        Place::Dense { block, tail } => {
            inode.place = *block;
            if !tail.is_empty() {
                inode.layout = Layout::Inline;
                bytes.extend_from_slice(tail);
            }
        }
        Place::Sparse { chunk_bits, runs } => {
            inode.layout = Layout::Chunks;
            inode.place = u32::from(*chunk_bits);
            let mut map = vec![HOLE; usize::try_from(data.chunks()).unwrap_or(0)];
            for run in runs {
                run.write(*chunk_bits, &mut map);
            }
            bytes.extend(map.iter().flat_map(|address| address.to_le_bytes()));
        }
    }
}

fn kind(node: &Node) -> EntryType {
    match node.file_type() {
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::CharDevice,
        FileType::BlockDevice => EntryType::BlockDevice,
        FileType::Fifo => EntryType::Fifo,
        _ => EntryType::File,
    }
}
