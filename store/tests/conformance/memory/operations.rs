//! File operations in memory: Docker's rules on maps.

use bytes::Bytes;
use orlop_proto::dockerignore::{Glob, Matcher};
use orlop_proto::error::Kind as ErrorKind;
use orlop_proto::store as pb;
use orlop_proto::store::EntryKind;
use orlop_proto::store::file_op::Op;
use tonic::Status;

use super::tars::{Extraction, extract, plain};
use super::tree::{Kind, Node, Path, Tree, join, names, text};
use super::{State, invalid, refuse};

/// What is to be made, and where.
struct Making<'a> {
    tree: &'a mut Tree,
    serial: u64,
    made: u64,
}

/// Owners and modes of what a copy makes.
#[derive(Clone, Copy)]
struct As {
    owner: (u32, u32),
    mode: Option<u32>,
}

impl State {
    /// Performs one operation on an active snapshot. How many entries it made.
    pub(super) fn perform(&mut self, key: &str, operation: &pb::FileOp) -> Result<u64, Status> {
        let serial = self.next_serial();
        let operation = operation.op.as_ref();
        let operation = operation.ok_or_else(|| invalid("an operation without its kind"))?;
        let mut tree = self.active(key)?.tree.clone();
        let mut making = Making {
            tree: &mut tree,
            serial,
            made: 0,
        };
        let performed = match operation {
            Op::Mkdir(mkdir) => making.mkdir(mkdir),
            Op::CopyEntries(copy) => making.copy_entries(self, copy),
            Op::CopySnapshot(copy) => making.copy_snapshot(self, copy),
            Op::Extract(extract) => making.extract(self, extract),
            Op::Remove(remove) => making.remove(&remove.path),
        };
        let made = making.made;
        // On error the snapshot is left as it is by then.
        self.active(key)?.tree = tree;
        performed.map(|()| made)
    }
}

fn not_found(path: &[u8]) -> Status {
    let path = String::from_utf8_lossy(path);
    refuse(
        ErrorKind::NotFound,
        format!("no such file or directory: {path}"),
    )
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `user[:group]`, each a number or a name of the tree's own files.
fn owner(tree: &Tree, owner: Option<&pb::Owner>) -> Result<Option<(u32, u32)>, Status> {
    let Some(spec) = owner
        .map(|owner| owner.spec.as_str())
        .filter(|spec| !spec.is_empty())
    else {
        return Ok(None);
    };
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let (uid, gid) = match number(user)? {
        Some(id) => (id, id),
        None => (
            looked_up(tree, b"etc/passwd", user, 2)?,
            looked_up(tree, b"etc/passwd", user, 3)?,
        ),
    };
    let gid = match group {
        None => gid,
        Some(group) => match number(group)? {
            Some(id) => id,
            None => looked_up(tree, b"etc/group", group, 2)?,
        },
    };
    Ok(Some((uid, gid)))
}

fn number(text: &str) -> Result<Option<u32>, Status> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let named = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match text
        .parse::<i32>()
        .ok()
        .and_then(|id| u32::try_from(id).ok())
    {
        Some(id) if digits => Ok(Some(id)),
        None if named && !digits => Ok(None),
        _ => Err(invalid(format!("malformed owner {text:?}"))),
    }
}

fn looked_up(tree: &Tree, path: &[u8], name: &str, field: usize) -> Result<u32, Status> {
    let file = tree.file(path).cloned().unwrap_or_default();
    let file = lossy(&file);
    let line = file
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    let id = line.and_then(|line| line.split(':').nth(field)?.parse().ok());
    id.ok_or_else(|| invalid(format!("{name} is not in the snapshot")))
}

impl Making<'_> {
    fn place(
        &mut self,
        path: &Path,
        kind: Kind,
        mtime: u64,
        mode: u32,
        to: As,
    ) -> Result<(), Status> {
        if path.is_empty() {
            return Err(invalid("it is the root directory"));
        }
        let directory = self.tree.is_directory(path);
        if kind == Kind::Directory && directory {
            return Ok(());
        }
        if directory || (kind == Kind::Directory && self.tree.0.contains_key(path)) {
            return Err(invalid("a directory and something else have one name"));
        }
        self.directories(&path[..path.len() - 1].to_vec())?;
        let node = Node {
            kind,
            mode: to.mode.unwrap_or(mode) & 0o7777,
            owner: to.owner,
            mtime,
            serial: self.serial,
        };
        self.tree.0.insert(path.clone(), node);
        self.made += 1;
        Ok(())
    }

    fn directories(&mut self, path: &Path) -> Result<Vec<Path>, Status> {
        self.tree.make_directories(path, self.serial)
    }

    fn mkdir(&mut self, mkdir: &pb::Mkdir) -> Result<(), Status> {
        let owner = owner(self.tree, mkdir.owner.as_ref())?.unwrap_or((0, 0));
        let path = self.tree.resolve(&Path::new(), &mkdir.path, true)?;
        let made = self.directories(&path)?;
        self.made += made.len() as u64;
        let mtime = mkdir
            .mtime
            .and_then(|time| u64::try_from(time.seconds).ok());
        for path in &made {
            if let Some(node) = self.tree.0.get_mut(path) {
                node.mtime = mtime.unwrap_or_default();
            }
        }
        if let Some(node) = made.last().and_then(|path| self.tree.0.get_mut(path)) {
            node.owner = owner;
            node.mode = if mkdir.mode == 0 {
                0o755
            } else {
                mkdir.mode & 0o7777
            };
        }
        Ok(())
    }

    fn copy_entries(&mut self, state: &State, copy: &pb::CopyEntries) -> Result<(), Status> {
        let to = As {
            owner: owner(self.tree, copy.owner.as_ref())?.unwrap_or((0, 0)),
            mode: copy.mode,
        };
        let dest = self.tree.resolve(&Path::new(), &copy.dest, true)?;
        let file = |entry: &pb::Entry| entry.kind() == EntryKind::File;
        let single = matches!(copy.entries.as_slice(), [only] if file(only));
        let renamed = !copy.dest_is_dir && single && !self.tree.is_directory(&dest);
        if !renamed {
            self.directories(&dest)?;
        }
        for entry in &copy.entries {
            let mut path = dest.clone();
            if !renamed {
                let odd = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
                if entry.path.split(|byte| *byte == b'/').any(odd) {
                    return Err(invalid("expected a relative path without `.` and `..`"));
                }
                path = self.tree.resolve(&dest, &entry.path, false)?;
            }
            let kind = match entry.kind() {
                EntryKind::File => Kind::File(state.blob(&entry.digest)?.bytes.clone()),
                EntryKind::Directory => Kind::Directory,
                EntryKind::Symlink => Kind::Symlink(entry.link_target.to_vec()),
                EntryKind::Unspecified => return Err(invalid("an entry of an unknown kind")),
            };
            let mtime = entry
                .mtime
                .map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0));
            self.place(&path, kind, mtime, entry.mode, to)?;
        }
        Ok(())
    }

    fn copy_snapshot(&mut self, state: &State, copy: &pb::CopySnapshot) -> Result<(), Status> {
        let to = As {
            owner: owner(self.tree, copy.owner.as_ref())?.unwrap_or((0, 0)),
            mode: copy.mode,
        };
        let exclude = Matcher::parse(&copy.exclude.join("\n"));
        let exclude = exclude.map_err(|error| invalid(error.to_string()))?;
        let from = &state.snapshot(&copy.from)?.tree;
        let mut matches = Vec::new();
        for source in &copy.sources {
            let found = expand(from, source)?;
            if found.is_empty() {
                return Err(not_found(source));
            }
            matches.extend(found);
        }
        let dest = self.tree.resolve(&Path::new(), &copy.dest, true)?;
        let into = copy.dest_is_dir || matches.len() > 1 || self.tree.is_directory(&dest);
        for found in matches {
            let at = from.resolve(&Path::new(), &text(&found), !copy.keep_links)?;
            if from.is_directory(&at) {
                self.copy_contents(from, &at, &dest, &exclude, to)?;
                continue;
            }
            let node = from.0.get(&at).ok_or_else(|| not_found(&text(&found)))?;
            let name = found.last().cloned().unwrap_or_default();
            if exclude.ignored(&name) {
                continue;
            }
            let path = if into {
                join(&dest, &name)
            } else {
                dest.clone()
            };
            self.place(&path, node.kind.clone(), node.mtime, node.mode, to)?;
        }
        Ok(())
    }

    /// A directory that nothing is copied into, and that is left out itself, is not made.
    fn copy_contents(
        &mut self,
        from: &Tree,
        source: &Path,
        dest: &Path,
        exclude: &Matcher,
        to: As,
    ) -> Result<(), Status> {
        if let Some(root) = from.0.get(source) {
            self.place(dest, Kind::Directory, root.mtime, root.mode, to)?;
        }
        self.directories(dest)?;
        for (path, node) in from.below(source) {
            let relative = path[source.len()..].to_vec();
            if exclude.ignored(&text(&relative)) {
                continue;
            }
            for end in 1..relative.len() {
                let above = join_all(source, &relative[..end]);
                if let Some(node) = from.0.get(&above) {
                    let at = self
                        .tree
                        .resolve(dest, &text(&relative[..end].to_vec()), true)?;
                    self.place(&at, Kind::Directory, node.mtime, node.mode, to)?;
                }
            }
            let at = self.tree.resolve(dest, &text(&relative), false)?;
            self.place(&at, node.kind.clone(), node.mtime, node.mode, to)?;
        }
        Ok(())
    }

    fn extract(&mut self, state: &State, operation: &pb::Extract) -> Result<(), Status> {
        let owner = owner(self.tree, operation.owner.as_ref())?;
        let bytes: Bytes = state.blob(&operation.digest)?.bytes.clone();
        let dest = self.tree.resolve(&Path::new(), &operation.dest, true)?;
        self.directories(&dest)?;
        let how = Extraction {
            dest,
            whiteouts: false,
            owner,
            serial: self.serial,
        };
        self.made += extract(self.tree, &plain(&bytes)?, &how)?;
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), Status> {
        let last = names(path).last();
        if last.is_none_or(|name| name == b"..") {
            return Err(invalid("it has no name, or is the root"));
        }
        let path = self.tree.resolve(&Path::new(), path, false)?;
        self.tree.remove(&path, |_| true);
        Ok(())
    }
}

fn join_all(path: &Path, names: &[Vec<u8>]) -> Path {
    [path.as_slice(), names].concat()
}

/// The paths that a source names.
fn expand(tree: &Tree, source: &[u8]) -> Result<Vec<Path>, Status> {
    if source.contains(&0) {
        return Err(invalid("a NUL in a path"));
    }
    let mut found = vec![Path::new()];
    for name in names(source) {
        let name = lossy(name);
        let mut next = Vec::new();
        for path in found {
            let at = tree.resolve(&Path::new(), &text(&path), true)?;
            if !Glob::is_pattern(&name) {
                let exists = name == ".." || tree.0.contains_key(&join(&at, name.as_bytes()));
                next.extend(exists.then(|| join(&path, name.as_bytes())));
                continue;
            }
            let glob = Glob::plain(&name).map_err(|error| invalid(error.to_string()))?;
            let children = tree
                .below(&at)
                .filter(|(path, _)| path.len() == at.len() + 1);
            let names = children.flat_map(|(path, _)| path.last());
            next.extend(
                names
                    .filter(|name| glob.matches(name))
                    .map(|name| join(&path, name)),
            );
        }
        found = next;
    }
    Ok(found)
}
