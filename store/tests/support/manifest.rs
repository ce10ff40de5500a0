//! A file tree as a list of all that can be said of it, to be held against another one.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{SeekFrom, lgetxattr, llistxattr};
use sha2::{Digest as _, Sha256};

const BLOCK: u64 = 4096;
const TYPE_MASK: u32 = 0o170_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Everything about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    /// Of a file; the rest has none.
    pub(crate) size: u64,
    /// Digest of a file's bytes.
    pub(crate) content: String,
    pub(crate) target: OsString,
    pub(crate) device: u64,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name of the same file, when it has several.
    pub(crate) same_as: Option<OsString>,
}

impl Node {
    fn is_whiteout(&self) -> bool {
        self.mode & TYPE_MASK == CHARACTER_DEVICE && self.device == 0
    }
}

/// All names of a tree, in the order of their bytes; the root is the empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest(pub(crate) BTreeMap<OsString, Node>);

impl Manifest {
    pub(crate) fn of(root: &Path) -> Self {
        let mut nodes = BTreeMap::new();
        let mut todo = vec![OsString::new()];
        while let Some(name) = todo.pop() {
            let path = root.join(&name);
            // The root may be a link to a handle, with a slash at its end.
            let path = if name.is_empty() {
                root.join(".")
            } else {
                path
            };
            // Overlayfs lists a mark of deletion, and then denies it, in a directory of one layer only.
            let meta = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.unwrap(),
            };
            if meta.is_dir() {
                for entry in fs::read_dir(&path).unwrap() {
                    let child = entry.unwrap().file_name();
                    todo.push(Path::new(&name).join(child).into_os_string());
                }
            }
            nodes.insert(
                name,
                (node(&path, &meta), (meta.dev(), meta.ino(), meta.nlink())),
            );
        }
        Self(with_links(nodes))
    }

    /// Without what a layer deletes: marks of overlayfs, and files named `.wh.`.
    pub(crate) fn without_marks(mut self) -> Self {
        self.0.retain(|name, node| {
            let last = Path::new(name).file_name().unwrap_or_default();
            !node.is_whiteout() && !last.as_bytes().starts_with(b".wh.")
        });
        for node in self.0.values_mut() {
            node.xattrs.remove("trusted.overlay.opaque");
        }
        self
    }

    /// Without the times of these, which nobody stated.
    pub(crate) fn untimed(mut self, names: &[&str]) -> Self {
        for name in names {
            if let Some(node) = self.0.get_mut(OsStr::new(name)) {
                node.mtime = (0, 0);
            }
        }
        self
    }

    /// Without the times of all directories.
    pub(crate) fn directories_untimed(mut self) -> Self {
        for node in self.0.values_mut() {
            if node.mode & TYPE_MASK == 0o040_000 {
                node.mtime = (0, 0);
            }
        }
        self
    }

    /// Without what is said of the root directory itself.
    pub(crate) fn without_root(mut self) -> Self {
        self.0.remove(OsStr::new(""));
        self
    }

    /// Without a name and all below it.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0
            .retain(|known, _| !Path::new(known).starts_with(name));
        self
    }

    /// Fails with the first differences.
    #[track_caller]
    pub(crate) fn must_be(&self, expected: &Self, what: &str) {
        let mut differences = String::new();
        let mut count = 0;
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(expected.0.keys()).collect();
        for name in names {
            let (ours, theirs) = (self.0.get(name), expected.0.get(name));
            if ours != theirs {
                count += 1;
                if count <= 8 {
                    let short = |node| format!("{node:.0?}").chars().take(900).collect::<String>();
                    let name: String = format!("{name:?}").chars().take(120).collect();
                    let (ours, theirs) = (short(ours), short(theirs));
                    writeln!(differences, "{name}\n   is {ours}\n  not {theirs}").unwrap();
                }
            }
        }
        assert!(count == 0, "{what}: {count} names differ\n{differences}");
    }
}

type Identity = (u64, u64, u64);

fn with_links(nodes: BTreeMap<OsString, (Node, Identity)>) -> BTreeMap<OsString, Node> {
    let mut first: HashMap<(u64, u64), OsString> = HashMap::new();
    nodes
        .into_iter()
        .map(|(name, (mut node, (device, inode, links)))| {
            if links > 1 && node.mode & TYPE_MASK != 0o040_000 {
                let known = first.entry((device, inode)).or_insert_with(|| name.clone());
                node.same_as = Some(known.clone());
            }
            (name, node)
        })
        .collect()
}

fn node(path: &Path, meta: &Metadata) -> Node {
    let kind = meta.file_type();
    let special =
        meta.mode() & TYPE_MASK == CHARACTER_DEVICE || meta.mode() & TYPE_MASK == 0o060_000;
    Node {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if kind.is_file() { meta.len() } else { 0 },
        content: if kind.is_file() {
            content(path, meta.len()).unwrap()
        } else {
            String::new()
        },
        target: if kind.is_symlink() {
            fs::read_link(path).unwrap().into_os_string()
        } else {
            OsString::new()
        },
        device: if special { meta.rdev() } else { 0 },
        xattrs: xattrs(path),
        same_as: None,
    }
}

/// Hashes the blocks that are not empty, with their offsets: the same for the same bytes, wherever a
/// file system keeps holes.
fn content(path: &Path, size: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < size {
        let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) else {
            break;
        };
        at = data / BLOCK * BLOCK;
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
        while at < hole {
            let count = file.read_at(&mut buffer, at)?;
            if count == 0 {
                return Ok(hex::encode(hash.finalize()));
            }
            // Only whole blocks, so that the next read starts at one.
            let whole = if at + count as u64 >= size {
                count
            } else {
                count / 4096 * 4096
            };
            for (number, block) in buffer[..whole].chunks(4096).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    hash.update((at + number as u64 * BLOCK).to_le_bytes());
                    hash.update(block);
                }
            }
            at += whole as u64;
        }
    }
    Ok(hex::encode(hash.finalize()))
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0_u8; 65_536];
    let count = match llistxattr(path, &mut names) {
        Ok(count) => count,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => panic!("{}: {errno}", path.display()),
    };
    names[..count]
        .split_inclusive(|byte| *byte == 0)
        .map(|name| CStr::from_bytes_with_nul(name).unwrap())
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            let count = lgetxattr(path, name, &mut value).unwrap();
            value.truncate(count);
            (name.to_string_lossy().into_owned(), value)
        })
        .collect()
}

/// A name of bytes.
pub(crate) fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}
