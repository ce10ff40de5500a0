//! A layer as one EROFS image: our own writer, one pass over the tar. The bytes of files go into the
//! image as they arrive, the tree is kept in memory, and its metadata follows them; the superblock is
//! written last, so that what is not finished cannot be mounted.
//!
//! The tree is the one that [`apply`](super::apply) would make of the same members, with the same
//! errors, but for what only a directory on disk can show: the limits of its file system.
//!
//! - [`tree`] holds what is in which directory; [`attributes`] and [`acl`] are what may be said of a
//!   file.
//! - [`data`] is where the bytes of a file are, [`blocks`] the image file while it grows.
//! - [`layout`] gives inodes and directories their places; [`format`] is their bytes.

use std::fs::File;
use std::io::Read;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::{Result, StoreError};
use crate::layers::apply::{Attributes, OPAQUE_XATTR, Space, bad_link};
use crate::layers::entry::Action;
use crate::layers::root::{failed, join, split_last};
use crate::layers::tar::{Kind, Member, TarReader};

mod acl;
mod attributes;
mod blocks;
mod data;
mod format;
mod layout;
mod tree;

use blocks::Blocks;
use data::{Data, TAILS_MAX};
use tree::{Body, Node, NodeId, PATH_MAX, ROOT, Tree};

/// Bytes of memory that the tree of one layer may take: about two million files.
const TREE_BYTES_MAX: usize = 512 << 20;

/// Writes the members of a layer into an image.
#[derive(Debug)]
pub struct ImageWriter {
    tree: Tree,
    blocks: Blocks,
    space: Space,
    disk_reserve: u64,
    /// Bytes that the ends of files may still take in memory.
    tails: usize,
    /// The parent of the last member; honest archives stay in a directory for long.
    parent: Option<(Vec<u8>, NodeId)>,
    made: u64,
}

impl ImageWriter {
    /// `file` is new and empty. `bytes_max` bounds the bytes of all files together, holes included;
    /// `disk_reserve` are the bytes that stay free on its disk.
    pub fn new(file: File, bytes_max: u64, disk_reserve: u64) -> Result<Self> {
        Ok(Self {
            tree: Tree::new(),
            blocks: Blocks::new(file),
            space: Space::new(bytes_max, disk_reserve),
            disk_reserve,
            tails: TAILS_MAX,
            parent: None,
            made: 0,
        })
    }

    /// Performs one action; `tar` stands at the member's body.
    pub fn perform<R: Read>(&mut self, action: Action, tar: &mut TarReader<R>) -> Result<()> {
        match action {
            Action::Skip => return Ok(()),
            Action::Root(member) => self.describe_directory(ROOT, &member, b"/")?,
            Action::Make {
                parent,
                name,
                member,
            } => self.make(&parent, &name, member, tar)?,
            Action::Whiteout { parent, name } => self.whiteout(&parent, &name)?,
            Action::Opaque { directory } => {
                let id = self.tree.find_or_make(&directory);
                self.set_opaque(id.map_err(failed("make the directory", &directory))?);
            }
        }
        if self.tree.memory() > TREE_BYTES_MAX {
            return Err(StoreError::LayerTree {
                limit: TREE_BYTES_MAX,
            });
        }
        Ok(())
    }

    /// Bytes of all files by now, holes included.
    pub fn file_bytes(&self) -> u64 {
        self.space.taken()
    }

    /// Things made by now.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Directories that no member described, parents first; the root is the empty path. Not those
    /// whose paths are too long for a system call: no layer below can have them.
    pub fn implicit(&self) -> Vec<Vec<u8>> {
        self.tree.implicit()
    }

    /// Gives such a directory its attributes. Without, it is 0755, root's, and as old as the epoch.
    pub fn describe(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let id = self.tree.find(path).map_err(failed("look at", path))?;
        self.tree.count(xattrs);
        attributes::set(self.tree.node_mut(id), attributes, xattrs, path)
    }

    /// Writes the metadata, then the superblock; gives back the file and its length in bytes. Nothing
    /// is synced.
    pub fn finish(self) -> Result<(File, u64)> {
        layout::write(&self.tree, self.blocks, self.disk_reserve)
    }

    fn parent(&mut self, path: &[u8]) -> Result<NodeId> {
        if let Some((known, id)) = &self.parent
            && known == path
        {
            return Ok(*id);
        }
        let id = self.tree.find_or_make(path);
        let id = id.map_err(failed("make the directory", path))?;
        self.parent = Some((path.to_vec(), id));
        Ok(id)
    }

    fn make<R: Read>(
        &mut self,
        parent_path: &[u8],
        name: &[u8],
        member: Member,
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        let parent = self.parent(parent_path)?;
        let path = join(parent_path, name);
        self.made += 1;
        let body = match member.kind {
            Kind::Directory => return self.directory(parent, name, &path, &member),
            Kind::HardLink => return self.hard_link(parent, name, &path, &member),
            Kind::File => Body::File(self.read_body(&member, tar)?),
            Kind::Symlink => self.symlink(&member, &path)?,
            Kind::CharDevice => device(FileType::CharacterDevice, &member),
            Kind::BlockDevice => device(FileType::BlockDevice, &member),
            Kind::Fifo => Body::Fifo,
            _ => return Err(failed("make", &path)(Errno::INVAL)),
        };
        let mut node = Node::new(body);
        attributes::set(&mut node, &of_member(&member), &member.xattrs, &path)?;
        self.replace(parent, name, &path)?;
        let added = self.tree.add(parent, name, node);
        added.map_err(failed("make", &path)).map(drop)
    }

    /// Removes what has the name.
    fn replace(&mut self, parent: NodeId, name: &[u8], path: &[u8]) -> Result<()> {
        let removed = self.tree.remove(parent, name);
        if removed.map_err(failed("replace", path))? {
            // The same path may lead elsewhere now (row A13).
            self.parent = None;
        }
        Ok(())
    }

    fn read_body<R: Read>(&mut self, member: &Member, tar: &mut TarReader<R>) -> Result<Data> {
        self.space.take(member.size, self.blocks.fd())?;
        Data::read(&mut self.blocks, tar, member.size, &mut self.tails)
    }

    fn symlink(&mut self, member: &Member, path: &[u8]) -> Result<Body> {
        let fail = failed("make", path);
        if member.link.len() >= PATH_MAX {
            return Err(fail(Errno::NAMETOOLONG));
        }
        if member.link.contains(&0) {
            return Err(fail(Errno::INVAL));
        }
        let xattrs = format::xattr_bytes(&member.xattrs);
        let inline = format::INODE + xattrs + member.link.len() <= format::BLOCK;
        Ok(Body::Symlink {
            target: member.link.as_slice().into(),
            data: Data::of_bytes(&mut self.blocks, &member.link, inline)?,
        })
    }

    fn directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
        member: &Member,
    ) -> Result<()> {
        let before = self.tree.child(parent, name);
        let before = before.map_err(failed("look at", path))?;
        let whiteout = before.is_some_and(|id| self.tree.node(id).is_whiteout());
        let id = match before {
            Some(id) if self.tree.directory(id).is_ok() => id,
            _ => {
                self.replace(parent, name, path)?;
                let made = self.tree.make_directory(parent, name);
                made.map_err(failed("make", path))?
            }
        };
        if whiteout {
            self.set_opaque(id);
        }
        self.describe_directory(id, member, path)
    }

    fn describe_directory(&mut self, id: NodeId, member: &Member, path: &[u8]) -> Result<()> {
        if let Ok(directory) = self.tree.directory_mut(id) {
            directory.described = true;
        }
        self.tree.count(&member.xattrs);
        let node = self.tree.node_mut(id);
        attributes::set(node, &of_member(member), &member.xattrs, path)
    }

    /// As [`apply`](super::apply): the target must be there, and still be there when what had the
    /// name is gone.
    fn hard_link(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
        member: &Member,
    ) -> Result<()> {
        let (from_path, target_name) =
            split_last(&member.link).ok_or_else(|| failed("link", path)(Errno::NOENT))?;
        if join(from_path, target_name) == path {
            return Ok(());
        }
        let bad = |errno| bad_link(path, &member.link, errno);
        let from = self.tree.find(from_path).map_err(bad)?;
        let target = self.tree.child(from, target_name);
        let target = target.map_err(failed("link", path))?;
        let target = target.filter(|id| self.tree.directory(*id).is_err());
        let target = target.ok_or_else(|| bad(Errno::NOENT))?;
        self.replace(parent, name, path)?;
        match self.tree.child(from, target_name) {
            Ok(Some(_)) => {}
            _ => return Err(failed("make", path)(Errno::NOENT)),
        }
        let added = self.tree.add_link(parent, name, target);
        added.map_err(failed("make", path))
    }

    /// What the same layer made under that name stays: a whiteout speaks of the layers below.
    fn whiteout(&mut self, parent_path: &[u8], name: &[u8]) -> Result<()> {
        let parent = self.parent(parent_path)?;
        let path = join(parent_path, name);
        let there = self.tree.child(parent, name);
        match there.map_err(failed("hide", &path))? {
            Some(id) if self.tree.directory(id).is_ok() => self.set_opaque(id),
            Some(_) => {}
            None => {
                let mut mark = Node::new(Body::Device {
                    kind: FileType::CharacterDevice,
                    number: 0,
                });
                mark.attributes.mode = 0;
                let added = self.tree.add(parent, name, mark);
                added.map_err(failed("hide", &path))?;
            }
        }
        Ok(())
    }

    fn set_opaque(&mut self, id: NodeId) {
        let xattrs = &mut self.tree.node_mut(id).xattrs;
        attributes::put(xattrs, OPAQUE_XATTR.as_bytes(), b"y");
    }
}

/// The kernel's `mknod` takes 32 bits.
fn device(kind: FileType, member: &Member) -> Body {
    let (major, minor) = member.device;
    let number = (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12;
    Body::Device { kind, number }
}

fn of_member(member: &Member) -> Attributes {
    Attributes {
        uid: member.uid,
        gid: member.gid,
        mode: member.mode,
        mtime: member.mtime,
    }
}
