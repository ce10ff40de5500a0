//! The sources of COPY and ADD in the context: wildcards, directories, symbolic links.

use std::collections::HashSet;

use bytes::Bytes;
use orlop_proto::dockerignore::Glob;
use orlop_proto::store::{Entry, EntryKind};

use super::KeyHasher;
use crate::context::{Kind, Tree};

/// Where a copy goes, and whose it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Absolute.
    pub dest: String,
    /// Into it, rather than to that name.
    pub dest_is_dir: bool,
    /// `user[:group]`; empty: 0:0.
    pub owner: String,
    /// Permission bits for everything.
    pub mode: Option<u32>,
}

/// One thing to copy.
#[derive(Clone, Debug)]
pub struct Item {
    /// Relative to the destination; its digest is that of the file's bytes.
    pub entry: Entry,
    /// Which entry of the context it is; none for a heredoc.
    pub index: Option<usize>,
    /// A heredoc's text.
    pub inline: Option<Bytes>,
    /// Named itself as a source: ADD looks whether it is an archive.
    pub direct: bool,
}

/// A copy of context files and heredocs.
#[derive(Clone, Debug, Default)]
pub struct CopyOp {
    /// What.
    pub items: Vec<Item>,
    /// Where to.
    pub place: Place,
    /// ADD: archives are unpacked.
    pub add: bool,
}

impl Place {
    pub(super) fn hash(&self, key: &mut KeyHasher) {
        key.text(&self.dest);
        key.number(u64::from(self.dest_is_dir));
        key.text(&self.owner);
        key.number(self.mode.map_or(u64::MAX, u64::from));
    }
}

impl CopyOp {
    /// Times do not count: the same files at another time are the same files.
    pub(super) fn hash(&self, key: &mut KeyHasher) {
        key.number(u64::from(self.add));
        self.place.hash(key);
        key.number(self.items.len() as u64);
        for Item { entry, direct, .. } in &self.items {
            key.bytes(&entry.path);
            key.number(u64::from(*direct));
            key.number(u64::from(entry.kind.unsigned_abs()));
            key.number(u64::from(entry.mode));
            key.text(&entry.digest);
            key.bytes(&entry.link_target);
        }
    }
}

/// A path from a Dockerfile, without `.`, `..` and empty components; `..` stops at the top.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The entries that one source of COPY names, as they go below the destination. An error is a message.
pub(super) fn resolve(tree: &Tree, source: &str) -> Result<(Vec<Item>, bool), String> {
    let missing = || format!("{source:?} not found in the build context");
    let path = clean(source);
    let literal = tree.follow(path.as_bytes());
    if let Some(found) = literal {
        return Ok(items(tree, path.as_bytes(), &found));
    }
    if !Glob::is_pattern(&path) {
        return Err(missing());
    }
    let glob = Glob::plain(&path).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let mut directory = false;
    for name in tree.paths().filter(|name| glob.matches(name)) {
        if let Some(found) = tree.follow(name) {
            let (items, is_directory) = items(tree, name, &found);
            directory |= is_directory;
            all.extend(items);
            directory |= all.len() > 1;
        }
    }
    match all.is_empty() && !directory {
        true => Err(missing()),
        false => Ok((all, directory)),
    }
}

/// A file under its own name; a directory as its contents.
fn items(tree: &Tree, named: &[u8], found: &[u8]) -> (Vec<Item>, bool) {
    let name = named.rsplit(|b| *b == b'/').next().unwrap_or_default();
    if let Some(index) = tree
        .index(found)
        .filter(|i| tree.kind(*i) != Kind::Directory)
    {
        return (vec![item(tree, index, name, true)], false);
    }
    let skip = if found.is_empty() { 0 } else { found.len() + 1 };
    let below = tree.below(found);
    let items = below.map(|index| item(tree, index, &tree.path(index)[skip..], false));
    (items.collect(), true)
}

fn item(tree: &Tree, index: usize, path: &[u8], direct: bool) -> Item {
    let entry = tree.entry(index);
    let kind = match tree.kind(index) {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
    };
    Item {
        entry: Entry {
            path: Bytes::copy_from_slice(path),
            kind: kind.into(),
            mode: entry.mode & 0o7777,
            mtime: entry.mtime,
            digest: tree.digest(index).to_owned(),
            link_target: entry.link_target.clone(),
        },
        index: Some(index),
        inline: None,
        direct,
    }
}

/// Of several sources that bring the same path, the last one stays.
pub(super) fn last_wins(items: Vec<Item>) -> Vec<Item> {
    let mut seen = HashSet::new();
    let mut kept: Vec<Item> = items
        .into_iter()
        .rev()
        .filter(|item| seen.insert(item.entry.path.clone()))
        .collect();
    kept.reverse();
    kept
}
