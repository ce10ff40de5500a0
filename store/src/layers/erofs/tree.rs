//! The tree of a layer while its archive is read: what a directory on disk would be, in memory, with
//! the same rules for links on the way and the same errors.

use std::collections::BTreeMap;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::layers::apply::Attributes;
use crate::layers::erofs::data::Data;
use crate::layers::erofs::format::NAME_MAX;
use crate::layers::root::names;
use crate::layers::tar::Time;

/// The root directory.
pub(super) const ROOT: NodeId = 0;
/// Links that are followed in one look-up, and bytes of a path with its end: as the kernel.
const LINKS_MAX: usize = 40;
/// The same, with the byte that ends it.
pub(super) const PATH_MAX: usize = 4096;

/// A node, by its place in the tree's list.
pub(super) type NodeId = usize;

/// A file, whatever kind it is, under all its names.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its names; not counted for directories.
    pub(super) links: u32,
    pub(super) body: Body,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Body {
    Directory(Directory),
    File(Data),
    Symlink {
        target: Box<[u8]>,
        data: Data,
    },
    Device {
        kind: FileType,
        number: u32,
    },
    Fifo,
    /// Nothing any more: it was replaced.
    Gone,
}

/// Names in one directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) parent: NodeId,
    pub(super) children: BTreeMap<Box<[u8]>, NodeId>,
    /// Whether a member said how it is to be.
    pub(super) described: bool,
    /// Bytes of its path.
    path_bytes: usize,
}

/// All nodes; the first one is the root.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    memory: usize,
}

impl Node {
    /// With default attributes: 0755, owned by root, as old as the epoch.
    pub(super) fn new(body: Body) -> Self {
        Self {
            attributes: Attributes {
                uid: 0,
                gid: 0,
                mode: 0o755,
                mtime: Time::default(),
            },
            xattrs: Vec::new(),
            links: 1,
            body,
        }
    }

    pub(super) fn file_type(&self) -> FileType {
        match self.body {
            Body::Directory(_) => FileType::Directory,
            Body::File(_) | Body::Gone => FileType::RegularFile,
            Body::Symlink { .. } => FileType::Symlink,
            Body::Device { kind, .. } => kind,
            Body::Fifo => FileType::Fifo,
        }
    }

    /// Overlayfs' mark of a deleted name.
    pub(super) fn is_whiteout(&self) -> bool {
        matches!(
            self.body,
            Body::Device {
                kind: FileType::CharacterDevice,
                number: 0
            }
        )
    }

    /// Bytes that it takes, roughly.
    fn memory(&self) -> usize {
        let body = match &self.body {
            // A path that can be asked for may be asked for, by [`Tree::implicit`].
            Body::Directory(directory) if directory.path_bytes < PATH_MAX => directory.path_bytes,
            Body::File(data) => data.memory(),
            Body::Symlink { target, data } => target.len() + data.memory(),
            _ => 0,
        };
        size_of::<Self>() + memory_of(&self.xattrs) + body
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Directory {
            parent: ROOT,
            children: BTreeMap::new(),
            described: false,
            path_bytes: 0,
        };
        Self {
            nodes: vec![Node::new(Body::Directory(root))],
            memory: 0,
        }
    }

    /// Bytes that all nodes took, roughly, those included that were replaced.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id]
    }

    /// The directory that a node is.
    pub(super) fn directory(&self, id: NodeId) -> rustix::io::Result<&Directory> {
        match &self.nodes[id].body {
            Body::Directory(directory) => Ok(directory),
            Body::Gone => Err(Errno::NOENT),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> rustix::io::Result<&mut Directory> {
        match &mut self.nodes[id].body {
            Body::Directory(directory) => Ok(directory),
            Body::Gone => Err(Errno::NOENT),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// What one name is, never through a link.
    pub(super) fn child(
        &self,
        directory: NodeId,
        name: &[u8],
    ) -> rustix::io::Result<Option<NodeId>> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(self.directory(directory)?.children.get(name).copied())
    }

    /// The directory at a path, links followed inside the root as by `openat2` with
    /// `RESOLVE_IN_ROOT`.
    pub(super) fn find(&mut self, path: &[u8]) -> rustix::io::Result<NodeId> {
        self.walk(path, |_, _, _| Err(Errno::NOENT))
    }

    /// The same, made with its parents where it is missing. A dangling link on the way is made to
    /// point at something.
    pub(super) fn find_or_make(&mut self, path: &[u8]) -> rustix::io::Result<NodeId> {
        self.walk(path, |tree, at, name| tree.make_directory(at, name))
    }

    fn walk(
        &mut self,
        path: &[u8],
        missing: impl Fn(&mut Self, NodeId, &[u8]) -> rustix::io::Result<NodeId>,
    ) -> rustix::io::Result<NodeId> {
        if path.len() >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut todo = Vec::new();
        push_names(&mut todo, path);
        let (mut at, mut links) = (ROOT, 0);
        while let Some(name) = todo.pop() {
            if *name == *b".." {
                at = self.directory(at)?.parent;
                continue;
            }
            let Some(next) = self.child(at, &name)? else {
                at = missing(self, at, &name)?;
                continue;
            };
            let Body::Symlink { target, .. } = &self.nodes[next].body else {
                at = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP);
            }
            if target.starts_with(b"/") {
                at = ROOT;
            }
            push_names(&mut todo, target);
        }
        self.directory(at)?;
        Ok(at)
    }

    /// A new directory under a free name, not described by now.
    pub(super) fn make_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
    ) -> rustix::io::Result<NodeId> {
        let directory = Directory {
            parent,
            children: BTreeMap::new(),
            described: false,
            path_bytes: self.directory(parent)?.path_bytes + 1 + name.len(),
        };
        self.add(parent, name, Node::new(Body::Directory(directory)))
    }

    /// A new node under a free name.
    pub(super) fn add(
        &mut self,
        directory: NodeId,
        name: &[u8],
        node: Node,
    ) -> rustix::io::Result<NodeId> {
        let id = self.nodes.len();
        self.memory += node.memory();
        self.link(directory, name, id)?;
        self.nodes.push(node);
        Ok(id)
    }

    /// A name for a node.
    fn link(&mut self, directory: NodeId, name: &[u8], id: NodeId) -> rustix::io::Result<()> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        // A map's node is half full at worst.
        self.memory += 2 * size_of::<(Box<[u8]>, NodeId)>() + name.len();
        let children = &mut self.directory_mut(directory)?.children;
        children.insert(name.into(), id);
        Ok(())
    }

    /// Another name, which is free, for what is no directory.
    pub(super) fn add_link(
        &mut self,
        directory: NodeId,
        name: &[u8],
        id: NodeId,
    ) -> rustix::io::Result<()> {
        self.link(directory, name, id)?;
        self.nodes[id].links += 1;
        Ok(())
    }

    /// Counts attributes that a node got after it was made.
    pub(super) fn count(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) {
        self.memory += memory_of(xattrs);
    }

    /// Removes one name and everything below it; says whether it was there. Not recursive: a tree may
    /// be deeper than a thread's stack.
    pub(super) fn remove(&mut self, directory: NodeId, name: &[u8]) -> rustix::io::Result<bool> {
        let Some(id) = self.directory_mut(directory)?.children.remove(name) else {
            return Ok(false);
        };
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let node = &mut self.nodes[id];
            node.links -= 1;
            if node.links > 0 {
                continue;
            }
            if let Body::Directory(gone) = std::mem::replace(&mut node.body, Body::Gone) {
                todo.extend(gone.children.into_values());
            }
            node.xattrs = Vec::new();
        }
        Ok(true)
    }

    /// Directories that no member described, parents first, as far as a path can name them.
    pub(super) fn implicit(&self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut todo = vec![(ROOT, Vec::new())];
        while let Some((id, path)) = todo.pop() {
            let Ok(directory) = self.directory(id) else {
                continue;
            };
            let below = directory.children.iter().rev();
            let below = below.filter(|(_, child)| self.directory(**child).is_ok());
            todo.extend(below.filter_map(|(name, child)| {
                let path = crate::layers::root::join(&path, name);
                (path.len() < PATH_MAX).then_some((*child, path))
            }));
            if !directory.described {
                found.push(path);
            }
        }
        found
    }
}

fn memory_of(xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    let each = |(name, value): &(Vec<u8>, Vec<u8>)| {
        size_of::<(Vec<u8>, Vec<u8>)>() + name.len() + value.len()
    };
    xattrs.iter().map(each).sum()
}

fn push_names(todo: &mut Vec<Box<[u8]>>, path: &[u8]) {
    let start = todo.len();
    todo.extend(names(path).map(Box::from));
    todo[start..].reverse();
}
