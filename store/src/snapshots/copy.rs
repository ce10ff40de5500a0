//! COPY --from: sources inside another snapshot, with Docker's wildcards and directory rules.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::error::{Result, StoreError};
use crate::layers::apply::{Attributes, create, mtime, set_attributes, set_attributes_of_name};
use crate::layers::pack::xattrs;
use crate::layers::root::{
    Root, failed, file_type, join, list, lstat, names, open_directory, os, split_last,
};
use crate::layers::tar::Time;
use crate::snapshots::apply::{Session, bad_path, check_path, clear, copy_bytes, make_directory};

mod pattern;

/// Matches of all sources together; more is an accident.
const MATCHES_MAX: usize = 100_000;

/// What is copied, and as what.
struct Plan {
    owner: (u32, u32),
    mode: Option<u32>,
}

impl Session<'_> {
    /// `dest` comes with whether it is a directory even if it does not exist.
    pub(crate) fn copy_snapshot(
        &mut self,
        from: &str,
        sources: &[Vec<u8>],
        dest: (&[u8], bool),
        spec: &str,
        mode: Option<u32>,
    ) -> Result<()> {
        check_path(dest.0)?;
        let plan = Plan {
            owner: self.owner(spec)?,
            mode,
        };
        let record = self.snapshots.stat(from)?;
        let source = self.snapshots.merged(&record)?;
        let mut matches = Vec::new();
        for pattern in sources {
            check_path(pattern)?;
            let found = expand(&source, pattern)?;
            if found.is_empty() {
                return Err(StoreError::PathNotFound {
                    key: from.to_owned(),
                    path: String::from_utf8_lossy(pattern).into_owned(),
                });
            }
            matches.extend(found);
        }
        let into = dest.1 || matches.len() > 1 || self.is_directory(dest.0);
        let target = self.follow_last(dest.0)?;
        for path in matches {
            self.copy_one(&source, &path, (&target, into), &plan)?;
        }
        Ok(())
    }

    /// A directory stands for its contents; a link is followed inside its own root.
    fn copy_one(
        &mut self,
        source: &Root,
        path: &[u8],
        (dest, into): (&[u8], bool),
        plan: &Plan,
    ) -> Result<()> {
        let stat = source.stat(path).map_err(failed("look at", path))?;
        if file_type(&stat) == FileType::Directory {
            let from = source.directory(path).map_err(failed("open", path))?;
            return self.copy_contents(from, &stat, dest, plan);
        }
        let name = split_last(path).map_or(&b""[..], |(_, name)| name);
        let target = if into {
            join(dest, name)
        } else {
            dest.to_vec()
        };
        let handle = source
            .open(path, OFlags::PATH)
            .map_err(failed("open", path))?;
        let (parent, name) =
            split_last(&target).ok_or_else(|| bad_path(&target, "it is the root directory"))?;
        let parent = self.root.directory_made(parent)?;
        self.copy_leaf(&handle, &stat, (parent.as_fd(), name, &target), plan)
    }

    /// The destination's root keeps what it has, unless it is made now.
    fn copy_contents(
        &mut self,
        from: OwnedFd,
        stat: &Stat,
        dest: &[u8],
        plan: &Plan,
    ) -> Result<()> {
        let existed = self.is_directory(dest);
        let to = self.root.directory_made(dest)?;
        let mut directories = Vec::new();
        if !existed {
            set_attributes(to.as_fd(), &plan.attributes(stat), &[], dest)?;
            directories.push((dest.to_vec(), mtime(stat)));
            self.entries += 1;
        }
        let mut walk = Walk {
            links: HashMap::new(),
            directories,
            todo: vec![(from, dest.to_vec())],
        };
        while let Some((from, dest)) = walk.todo.pop() {
            self.copy_directory(&mut walk, &from, &dest, plan)?;
        }
        self.set_times(&walk.directories)
    }

    fn copy_directory(
        &mut self,
        walk: &mut Walk,
        from: &OwnedFd,
        dest: &[u8],
        plan: &Plan,
    ) -> Result<()> {
        let to = self.root.directory_made(dest)?;
        for name in list(from.as_fd()).map_err(failed("list", dest))? {
            let path = join(dest, &name);
            let stat = lstat(from.as_fd(), &name).map_err(failed("look at", &path))?;
            let Some(stat) = stat else {
                continue;
            };
            if file_type(&stat) == FileType::Directory {
                let before = self.is_directory(&path);
                make_directory(to.as_fd(), &name, &path, &plan.attributes(&stat))?;
                if !before {
                    walk.directories.push((path.clone(), mtime(&stat)));
                }
                self.entries += 1;
                let below = open_directory(from.as_fd(), &name).map_err(failed("open", &path))?;
                walk.todo.push((below, path));
                continue;
            }
            if stat.st_nlink > 1
                && let Some(first) = walk.links.get(&(stat.st_dev, stat.st_ino))
            {
                self.link(first, (to.as_fd(), &name, &path))?;
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(from, os(&name), flags, Mode::empty())
                .map_err(failed("open", &path))?;
            self.copy_leaf(&handle, &stat, (to.as_fd(), &name, &path), plan)?;
            walk.links.insert((stat.st_dev, stat.st_ino), path);
        }
        Ok(())
    }

    fn link(&mut self, first: &[u8], to: (BorrowedFd<'_>, &[u8], &[u8])) -> Result<()> {
        let (parent, name, path) = to;
        let (from, first_name) = split_last(first).unwrap_or((&[], first));
        let from = self.root.directory(from).map_err(failed("open", from))?;
        clear(parent, name, path)?;
        self.entries += 1;
        rustix::fs::linkat(&from, os(first_name), parent, os(name), AtFlags::empty())
            .map_err(failed("link", path))
    }

    /// A file, a link, a device or a pipe.
    fn copy_leaf(
        &mut self,
        handle: &OwnedFd,
        stat: &Stat,
        to: (BorrowedFd<'_>, &[u8], &[u8]),
        plan: &Plan,
    ) -> Result<()> {
        let (parent, name, path) = to;
        let attributes = plan.attributes(stat);
        let xattrs = xattrs(handle, path)?;
        if file_type(stat) == FileType::Socket {
            return Ok(());
        }
        clear(parent, name, path)?;
        self.entries += 1;
        match file_type(stat) {
            FileType::RegularFile => {
                let file = create(parent, name).map_err(failed("make", path))?;
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let magic = crate::layers::root::proc_path(handle.as_fd());
                let from =
                    rustix::fs::open(magic, flags, Mode::empty()).map_err(failed("open", path))?;
                copy_bytes(from.as_fd(), file.as_fd()).map_err(failed("write", path))?;
                return set_attributes(file.as_fd(), &attributes, &xattrs, path);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(handle, "", Vec::new())
                    .map_err(failed("read the link", path))?;
                rustix::fs::symlinkat(&target, parent, os(name)).map_err(failed("link", path))?;
            }
            kind => {
                rustix::fs::mknodat(parent, os(name), kind, Mode::empty(), stat.st_rdev)
                    .map_err(failed("make", path))?;
            }
        }
        set_attributes_of_name(parent, name, &attributes, &xattrs, path)
    }
}

struct Walk {
    /// First copy of a file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    directories: Vec<(Vec<u8>, Time)>,
    todo: Vec<(OwnedFd, Vec<u8>)>,
}

impl Plan {
    fn attributes(&self, stat: &Stat) -> Attributes {
        Attributes {
            uid: self.owner.0,
            gid: self.owner.1,
            mode: self.mode.unwrap_or(stat.st_mode) & 0o7777,
            mtime: mtime(stat),
        }
    }
}

/// The paths that a source names. Without wildcards it names itself, if it exists.
fn expand(root: &Root, source: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for part in names(source) {
        if !pattern::is_pattern(part) {
            for path in &mut found {
                *path = join(path, part);
            }
            found.retain(|path| root.stat_nofollow(path).is_ok());
            continue;
        }
        let mut next = Vec::new();
        for path in found {
            let Ok(directory) = root.directory(&path) else {
                continue;
            };
            let names = list(directory.as_fd()).map_err(failed("list", &path))?;
            let fitting = names.iter().filter(|name| pattern::matches(part, name));
            next.extend(fitting.map(|name| join(&path, name)));
            if next.len() > MATCHES_MAX {
                return Err(bad_path(source, "it fits too many paths"));
            }
        }
        found = next;
    }
    Ok(found)
}
