//! The walk of a context: handle-relative, in order of names, without what is ignored.

use std::os::fd::OwnedFd;

use orlop_proto::builder::{ContextEntry, ContextEntryKind};
use orlop_proto::dockerignore::Matcher;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::error::CliError;

/// Deeper trees than this are a mistake or an attack: a path of 4,096 bytes has at most 2,048 components.
const DEPTH_MAX: usize = 2048;

/// All entries of the context that are not ignored, parents first.
pub(super) fn walk(root: &OwnedFd, ignore: &Matcher) -> Result<Vec<ContextEntry>, CliError> {
    let mut walk = Walk {
        ignore,
        entries: Vec::new(),
    };
    walk.directory(root, &[], &mut Vec::new(), 0)?;
    Ok(walk.entries)
}

struct Walk<'a> {
    ignore: &'a Matcher,
    entries: Vec<ContextEntry>,
}

impl Walk<'_> {
    /// `pending` are ignored parents, which are listed only once something below them is.
    fn directory(
        &mut self,
        directory: &OwnedFd,
        prefix: &[u8],
        pending: &mut Vec<ContextEntry>,
        depth: usize,
    ) -> Result<(), CliError> {
        if depth > DEPTH_MAX {
            return Err(failed(prefix, "is nested too deeply"));
        }
        for name in names(directory, prefix)? {
            let mut path = prefix.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let ignored = self.ignore.ignored(&path);
            if ignored && !self.ignore.may_reinclude_below(&path) {
                continue;
            }
            let stat = rustix::fs::statat(directory, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed(&path, error))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if ignored && kind != FileType::Directory {
                continue;
            }
            let Some(entry) = entry(directory, &name, path.clone(), kind, &stat)? else {
                continue;
            };
            let level = pending.len();
            if ignored {
                pending.push(entry);
            } else {
                self.entries.append(pending);
                self.entries.push(entry);
            }
            if kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let child = rustix::fs::openat(directory, &name[..], flags, Mode::empty())
                    .map_err(|error| failed(&path, error))?;
                self.directory(&child, &path, pending, depth + 1)?;
            }
            pending.truncate(level);
        }
        Ok(())
    }
}

fn names(directory: &OwnedFd, prefix: &[u8]) -> Result<Vec<Vec<u8>>, CliError> {
    let listing = Dir::read_from(directory).map_err(|error| failed(prefix, error))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| failed(prefix, error))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// `None` for what no image can hold of a context: sockets, pipes, devices.
fn entry(
    directory: &OwnedFd,
    name: &[u8],
    path: Vec<u8>,
    kind: FileType,
    stat: &Stat,
) -> Result<Option<ContextEntry>, CliError> {
    let (wire_kind, link_target) = match kind {
        FileType::RegularFile => (ContextEntryKind::File, Vec::new()),
        FileType::Directory => (ContextEntryKind::Directory, Vec::new()),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())
                .map_err(|error| failed(&path, error))?;
            (ContextEntryKind::Symlink, target.into_bytes())
        }
        _ => return Ok(None),
    };
    let nanos = |nanos: u64| i32::try_from(nanos).unwrap_or(0);
    #[allow(
        clippy::unnecessary_fallible_conversions,
        clippy::useless_conversion,
        reason = "types differ by architecture"
    )]
    let entry = ContextEntry {
        path: path.into(),
        kind: wire_kind.into(),
        mode: stat.st_mode & 0o7777,
        size: if kind == FileType::RegularFile {
            stat.st_size
        } else {
            0
        },
        mtime: Some(prost_types::Timestamp {
            seconds: stat.st_mtime,
            nanos: nanos(u64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        }),
        link_target: link_target.into(),
        ctime_nanos: stat
            .st_ctime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        inode: stat.st_ino,
    };
    Ok(Some(entry))
}

pub(super) fn failed(path: &[u8], reason: impl std::fmt::Display) -> CliError {
    CliError::Context(format!("{}: {reason}", String::from_utf8_lossy(path)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn walked(root: &Path, ignore: &str) -> Vec<String> {
        let root = OwnedFd::from(fs::File::open(root).unwrap());
        let matcher = Matcher::parse(ignore).unwrap();
        let show = |entry: ContextEntry| String::from_utf8(entry.path.to_vec()).unwrap();
        walk(&root, &matcher)
            .unwrap()
            .into_iter()
            .map(show)
            .collect()
    }

    #[test]
    fn entries_come_in_order_with_parents_first_and_without_the_ignored() {
        let context = tempfile::tempdir().unwrap();
        let root = context.path();
        fs::create_dir_all(root.join("a/deep/er")).unwrap();
        for name in ["a/deep/er/x", "a/deep/y", "b", "c.log"] {
            fs::write(root.join(name), "1").unwrap();
        }
        assert_eq!(
            walked(root, "*.log"),
            ["a", "a/deep", "a/deep/er", "a/deep/er/x", "a/deep/y", "b"]
        );
        assert_eq!(walked(root, "a"), ["b", "c.log"]);
        assert_eq!(
            walked(root, "a\n!a/deep/er/x"),
            ["a", "a/deep", "a/deep/er", "a/deep/er/x", "b", "c.log"]
        );
    }

    #[test]
    fn links_are_not_followed_and_pipes_are_left_out() {
        let context = tempfile::tempdir().unwrap();
        let root = context.path();
        symlink("/etc", root.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let handle = OwnedFd::from(fs::File::open(root).unwrap());
        let entries = walk(&handle, &Matcher::default()).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].kind(), ContextEntryKind::Symlink);
        assert_eq!(entries[0].link_target, "/etc");
    }
}
