//! A file tree as a map from paths to nodes. Several names of one file are several equal files here.

use std::collections::BTreeMap;

use bytes::Bytes;
use tonic::Status;

use super::invalid;

/// The names from the root, which is the empty path.
pub(super) type Path = Vec<Vec<u8>>;

const LINKS_MAX: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File(Bytes),
    Symlink(Vec<u8>),
    /// A device or a pipe, by its type in a tar.
    Special(u8),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// Seconds since 1970.
    pub(super) mtime: u64,
    /// Of its making: what has another one than the same path had before was changed.
    pub(super) serial: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tree(pub(super) BTreeMap<Path, Node>);

impl Node {
    pub(super) fn directory(serial: u64) -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            owner: (0, 0),
            mtime: 0,
            serial,
        }
    }
}

/// The names of a path; `..` stays.
pub(super) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

pub(super) fn join(path: &Path, name: &[u8]) -> Path {
    let mut path = path.clone();
    path.push(name.to_vec());
    path
}

/// With slashes, without one in front.
pub(super) fn text(path: &Path) -> Vec<u8> {
    path.join(&b'/')
}

impl Tree {
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        path.is_empty()
            || self
                .0
                .get(path)
                .is_some_and(|node| node.kind == Kind::Directory)
    }

    /// Where a path leads from a directory: links are followed inside the root, the last one only
    /// with `follow`. There may be nothing.
    pub(super) fn resolve(&self, from: &Path, path: &[u8], follow: bool) -> Result<Path, Status> {
        if path.contains(&0) {
            return Err(invalid("a NUL in a path"));
        }
        let mut at = from.clone();
        let mut todo: Vec<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
        todo.reverse();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                at.pop();
                continue;
            }
            let next = join(&at, &name);
            let Some(Node {
                kind: Kind::Symlink(target),
                ..
            }) = self.0.get(&next)
            else {
                at = next;
                continue;
            };
            if todo.is_empty() && !follow {
                return Ok(next);
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(invalid("too many links"));
            }
            if target.starts_with(b"/") {
                at.clear();
            }
            let target: Vec<_> = names(target).map(<[u8]>::to_vec).collect();
            todo.extend(target.into_iter().rev());
        }
        Ok(at)
    }

    /// Makes the directories of a resolved path that are missing. Those that it made.
    pub(super) fn make_directories(
        &mut self,
        path: &Path,
        serial: u64,
    ) -> Result<Vec<Path>, Status> {
        let mut made = Vec::new();
        for end in 1..=path.len() {
            let prefix = path[..end].to_vec();
            if self.is_directory(&prefix) {
                continue;
            }
            if self.0.contains_key(&prefix) {
                let shown = String::from_utf8_lossy(&text(&prefix)).into_owned();
                return Err(invalid(format!("{shown} exists and is not a directory")));
            }
            self.0.insert(prefix.clone(), Node::directory(serial));
            made.push(prefix);
        }
        Ok(made)
    }

    /// Removes a path and all below it, as far as `gone` says so.
    pub(super) fn remove(&mut self, path: &Path, gone: impl Fn(&Node) -> bool) {
        self.0
            .retain(|at, node| !at.starts_with(path) || !gone(node));
    }

    pub(super) fn below<'a>(
        &'a self,
        path: &'a Path,
    ) -> impl Iterator<Item = (&'a Path, &'a Node)> {
        self.0
            .iter()
            .filter(move |(at, _)| at.starts_with(path) && at.len() > path.len())
    }

    /// The small file at a path, if there is one.
    pub(super) fn file(&self, path: &[u8]) -> Option<&Bytes> {
        let at = self.resolve(&Path::new(), path, true).ok()?;
        match &self.0.get(&at)?.kind {
            Kind::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// What is other than in the tree below, and the directories above it: `None` is deleted.
    pub(super) fn changes<'a>(&'a self, lower: &'a Self) -> BTreeMap<Path, Option<&'a Node>> {
        let mut changes = BTreeMap::new();
        for (path, node) in &self.0 {
            let same = lower
                .0
                .get(path)
                .is_some_and(|old| old.serial == node.serial);
            if !same {
                changes.insert(path.clone(), Some(node));
            }
        }
        for path in lower.0.keys().filter(|path| !self.0.contains_key(*path)) {
            let parent = path[..path.len() - 1].to_vec();
            if self.is_directory(&parent) {
                changes.insert(path.clone(), None);
            }
        }
        for path in changes.keys().cloned().collect::<Vec<_>>() {
            for end in 1..path.len() {
                let parent = path[..end].to_vec();
                let node = self.0.get(&parent);
                changes.entry(parent).or_insert(node);
            }
        }
        changes
    }
}
