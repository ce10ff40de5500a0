//! The context of a build: the entries that a client sent, checked before anything believes them
//! (`SECURITY` row E9), and which of their bytes must travel.

mod exchange;
mod memory;

use std::collections::HashMap;

use orlop_proto::builder::{ContextEntry, ContextEntryKind};

use crate::error::BuildError;

pub use exchange::{Exchange, Incoming};
pub use memory::Memory;

/// The most entries of a context.
const ENTRIES_MAX: usize = 2_000_000;
/// The longest path (`PATH_MAX` of Linux) and the longest name (`NAME_MAX`).
const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;
/// Links that are followed for one source, as the kernel does.
const LINKS_MAX: usize = 40;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// The entries, with the digest of each file once it is known.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: Vec<ContextEntry>,
    kinds: Vec<Kind>,
    digests: Vec<String>,
    places: HashMap<Vec<u8>, usize>,
}

impl Tree {
    /// Adds the next entry. Its path must be relative and clean, new, and below a directory that was
    /// sent before: never below a file or a symbolic link.
    pub fn add(&mut self, entry: ContextEntry) -> Result<(), BuildError> {
        let fail = |problem: &str| {
            let path = String::from_utf8_lossy(&entry.path[..entry.path.len().min(200)]);
            Err(BuildError::Context(format!("{path:?} {problem}")))
        };
        if self.entries.len() >= ENTRIES_MAX {
            return fail("is one entry too many: at most 2000000");
        }
        if entry.path.is_empty() || entry.path.len() > PATH_BYTES_MAX || entry.path.contains(&0) {
            return fail("is no path: empty, longer than 4096 bytes, or with a zero byte");
        }
        let mut names = entry.path.split(|b| *b == b'/');
        if names.any(|name| {
            name.is_empty() || name == b"." || name == b".." || name.len() > NAME_BYTES_MAX
        }) {
            return fail("is not a clean relative path");
        }
        let kind = match entry.kind() {
            ContextEntryKind::File if entry.size >= 0 => Kind::File,
            ContextEntryKind::Directory => Kind::Directory,
            ContextEntryKind::Symlink if !entry.link_target.is_empty() => Kind::Symlink,
            _ => return fail("has a kind, a size or a link target that is none"),
        };
        if let Some(end) = entry.path.iter().rposition(|b| *b == b'/') {
            let parent = self
                .places
                .get(&entry.path[..end])
                .map(|place| self.kinds[*place]);
            if parent != Some(Kind::Directory) {
                return fail("is not below a directory that was sent before it");
            }
        }
        let place = self.entries.len();
        if self.places.insert(entry.path.to_vec(), place).is_some() {
            return fail("is there twice");
        }
        self.entries.push(entry);
        self.kinds.push(kind);
        self.digests.push(String::new());
        Ok(())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An entry by its place.
    pub fn entry(&self, place: usize) -> &ContextEntry {
        &self.entries[place]
    }

    /// Its path.
    pub fn path(&self, place: usize) -> &[u8] {
        &self.entries[place].path
    }

    /// Its kind.
    pub fn kind(&self, place: usize) -> Kind {
        self.kinds[place]
    }

    /// Its digest; empty for what is no file.
    pub fn digest(&self, place: usize) -> &str {
        &self.digests[place]
    }

    /// Sets a file's digest.
    pub fn set_digest(&mut self, place: usize, digest: String) {
        self.digests[place] = digest;
    }

    /// The place of a path.
    pub fn index(&self, path: &[u8]) -> Option<usize> {
        self.places.get(path).copied()
    }

    /// All paths, in the order they came.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| &*entry.path)
    }

    /// The places of all that is below a directory (empty: the whole context).
    pub fn below(&self, directory: &[u8]) -> impl Iterator<Item = usize> {
        let inside = move |path: &[u8]| {
            directory.is_empty()
                || path
                    .strip_prefix(directory)
                    .is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        (0..self.len()).filter(move |place| inside(self.path(*place)))
    }

    /// The path that a path leads to when links are followed, all within the context. `None` when
    /// there is nothing.
    pub fn follow(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut open: Vec<Vec<u8>> = names(path);
        let mut done: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = open.pop() {
            if name == b".." {
                let end = done.iter().rposition(|b| *b == b'/').unwrap_or(0);
                done.truncate(end);
                continue;
            }
            let mut next = done.clone();
            if !next.is_empty() {
                next.push(b'/');
            }
            next.extend_from_slice(&name);
            let place = self.index(&next)?;
            if self.kinds[place] != Kind::Symlink {
                done = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = &self.entries[place].link_target;
            if target.first() == Some(&b'/') {
                done.clear();
            }
            open.extend(names(target));
        }
        Some(done)
    }
}

/// The components of a path, the first one last.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path
        .split(|b| *b == b'/')
        .filter(|name| !name.is_empty() && *name != b".");
    let mut names: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: ContextEntryKind) -> ContextEntry {
        ContextEntry {
            path: path.to_owned().into(),
            kind: kind.into(),
            link_target: if kind == ContextEntryKind::Symlink {
                "t".into()
            } else {
                "".into()
            },
            ..ContextEntry::default()
        }
    }

    #[test]
    fn e9_paths_that_leave_the_context_are_refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/",
            "a\0b",
        ] {
            let refused = Tree::default().add(entry(bad, ContextEntryKind::File));
            assert!(matches!(refused, Err(BuildError::Context(_))), "{bad:?}");
        }
    }

    #[test]
    fn e9_a_parent_is_a_directory_and_never_a_link_or_a_file() {
        for kind in [ContextEntryKind::Symlink, ContextEntryKind::File] {
            let mut tree = Tree::default();
            tree.add(entry("a", kind)).unwrap();
            assert!(tree.add(entry("a/b", ContextEntryKind::File)).is_err());
        }
        assert!(
            Tree::default()
                .add(entry("a/b", ContextEntryKind::File))
                .is_err()
        );
    }

    #[test]
    fn e9_a_path_comes_once() {
        let mut tree = Tree::default();
        tree.add(entry("a", ContextEntryKind::Directory)).unwrap();
        for kind in [ContextEntryKind::Directory, ContextEntryKind::File] {
            assert!(tree.add(entry("a", kind)).is_err());
        }
    }

    #[test]
    fn e9_links_are_followed_within_the_context_only() {
        let mut tree = Tree::default();
        tree.add(entry("dir", ContextEntryKind::Directory)).unwrap();
        tree.add(entry("dir/file", ContextEntryKind::File)).unwrap();
        for (path, target) in [("up", "../../dir"), ("abs", "/dir/file"), ("loop", "loop")] {
            let mut link = entry(path, ContextEntryKind::Symlink);
            link.link_target = target.into();
            tree.add(link).unwrap();
        }
        assert_eq!(tree.follow(b"up/file").as_deref(), Some(&b"dir/file"[..]));
        assert_eq!(tree.follow(b"abs").as_deref(), Some(&b"dir/file"[..]));
        assert_eq!(tree.follow(b"loop"), None);
        assert_eq!(tree.follow(b"gone"), None);
    }
}
