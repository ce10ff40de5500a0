//! COPY --from: sources inside another snapshot, with Docker's wildcards and directory rules.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use orlop_proto::dockerignore::Matcher;
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

/// Copies out of another snapshot.
#[derive(Clone, Debug, Default)]
pub struct SnapshotCopy {
    /// Its key.
    pub from: String,
    /// Paths with wildcards.
    pub sources: Vec<Vec<u8>>,
    /// Where to.
    pub dest: Vec<u8>,
    /// Into the directory, even if it does not exist.
    pub dest_is_dir: bool,
    /// `user[:group]`.
    pub owner: String,
    /// For everything made.
    pub mode: Option<u32>,
    /// What is left out, as in `.dockerignore`.
    pub exclude: Vec<String>,
    /// A source that is a link is copied as a link.
    pub keep_links: bool,
}

/// As what it is copied, and what of it.
struct Plan {
    owner: (u32, u32),
    mode: Option<u32>,
    exclude: Matcher,
    keep_links: bool,
}

/// Directories of one source on their way.
struct Walk {
    /// First copy of a file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Made, with the times that they get at the end.
    directories: Vec<(Vec<u8>, Time)>,
    todo: Vec<Level>,
}

/// One directory.
struct Level {
    from: OwnedFd,
    dest: Vec<u8>,
    to: Option<OwnedFd>,
    /// Its path below the source.
    relative: Vec<u8>,
    /// The directory and those above it that are made only if something in them is copied.
    unmade: Vec<(Vec<u8>, Stat)>,
}

impl Session<'_> {
    pub(crate) fn copy_snapshot(&mut self, copy: &SnapshotCopy) -> Result<()> {
        check_path(&copy.dest)?;
        let plan = Plan {
            owner: self.owner(&copy.owner)?,
            mode: copy.mode,
            exclude: matcher(&copy.exclude)?,
            keep_links: copy.keep_links,
        };
        let record = self.snapshots.stat(&copy.from)?;
        let source = self.snapshots.merged(&record)?;
        let matches = matches(&source, copy)?;
        let into = copy.dest_is_dir || matches.len() > 1 || self.is_directory(&copy.dest);
        let target = self.follow_last(&copy.dest)?;
        for path in matches {
            self.copy_one(&source, &path, (&target, into), &plan)?;
        }
        Ok(())
    }

    /// A directory stands for its contents; a link is followed inside its own root, or kept.
    fn copy_one(
        &mut self,
        source: &Root,
        path: &[u8],
        (dest, into): (&[u8], bool),
        plan: &Plan,
    ) -> Result<()> {
        let mut flags = OFlags::PATH;
        flags.set(OFlags::NOFOLLOW, plan.keep_links);
        let handle = source.open(path, flags).map_err(failed("open", path))?;
        let stat = rustix::fs::fstat(&handle).map_err(failed("look at", path))?;
        if file_type(&stat) == FileType::Directory {
            let from = source.directory(path).map_err(failed("open", path))?;
            return self.copy_contents(from, &stat, dest, plan);
        }
        let name = split_last(path).map_or(&b""[..], |(_, name)| name);
        if plan.exclude.ignored(name) {
            return Ok(());
        }
        let target = if into {
            join(dest, name)
        } else {
            dest.to_vec()
        };
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
        let level = Level {
            from,
            dest: dest.to_vec(),
            to: Some(to),
            relative: Vec::new(),
            unmade: Vec::new(),
        };
        let mut walk = Walk {
            links: HashMap::new(),
            directories,
            todo: vec![level],
        };
        while let Some(level) = walk.todo.pop() {
            self.copy_directory(&mut walk, level, plan)?;
        }
        self.set_times(&walk.directories)
    }

    fn copy_directory(&mut self, walk: &mut Walk, mut level: Level, plan: &Plan) -> Result<()> {
        for name in list(level.from.as_fd()).map_err(failed("list", &level.dest))? {
            let path = join(&level.dest, &name);
            let stat = lstat(level.from.as_fd(), &name).map_err(failed("look at", &path))?;
            let Some(stat) = stat else {
                continue;
            };
            let relative = join(&level.relative, &name);
            let ignored = plan.exclude.ignored(&relative);
            if file_type(&stat) == FileType::Directory {
                if !ignored || plan.exclude.may_reinclude_below(&relative) {
                    let mut below = level.below(&name, relative, &stat)?;
                    if !ignored {
                        self.make_all(walk, &mut below.unmade, plan)?;
                        level.unmade.clear();
                    }
                    walk.todo.push(below);
                }
            } else if !ignored {
                self.make_all(walk, &mut level.unmade, plan)?;
                self.copy_entry(walk, &mut level, (&name, path, &stat), plan)?;
            }
        }
        Ok(())
    }

    /// One that exists keeps what it has.
    fn make_all(
        &mut self,
        walk: &mut Walk,
        unmade: &mut Vec<(Vec<u8>, Stat)>,
        plan: &Plan,
    ) -> Result<()> {
        for (path, stat) in unmade.drain(..) {
            let existed = self.is_directory(&path);
            let (parent, name) = split_last(&path).unwrap_or((&[], &path));
            let parent = self.root.directory_made(parent)?;
            make_directory(parent.as_fd(), name, &path, &plan.attributes(&stat))?;
            if !existed {
                self.entries += 1;
                walk.directories.push((path, mtime(&stat)));
            }
        }
        Ok(())
    }

    /// Anything but a directory.
    fn copy_entry(
        &mut self,
        walk: &mut Walk,
        level: &mut Level,
        (name, path, stat): (&[u8], Vec<u8>, &Stat),
        plan: &Plan,
    ) -> Result<()> {
        let to = match level.to.take() {
            Some(to) => to,
            None => self.root.directory_made(&level.dest)?,
        };
        let to = level.to.insert(to);
        if stat.st_nlink > 1
            && let Some(first) = walk.links.get(&(stat.st_dev, stat.st_ino))
        {
            return self.link(first, (to.as_fd(), name, &path));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&level.from, os(name), flags, Mode::empty())
            .map_err(failed("open", &path))?;
        self.copy_leaf(&handle, stat, (to.as_fd(), name, &path), plan)?;
        walk.links.insert((stat.st_dev, stat.st_ino), path);
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

impl Level {
    fn below(&self, name: &[u8], relative: Vec<u8>, stat: &Stat) -> Result<Self> {
        let dest = join(&self.dest, name);
        let from = open_directory(self.from.as_fd(), name).map_err(failed("open", &dest))?;
        let mut unmade = self.unmade.clone();
        unmade.push((dest.clone(), *stat));
        Ok(Self {
            from,
            dest,
            to: None,
            relative,
            unmade,
        })
    }
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

/// One pattern of each text, so that no text is more than one line.
fn matcher(patterns: &[String]) -> Result<Matcher> {
    if patterns.iter().any(|pattern| pattern.contains('\n')) {
        return Err(StoreError::Request("a pattern with a line break"));
    }
    Ok(Matcher::parse(&patterns.join("\n"))?)
}

/// What all sources name; each must name something.
fn matches(root: &Root, copy: &SnapshotCopy) -> Result<Vec<Vec<u8>>> {
    let mut matches = Vec::new();
    for source in &copy.sources {
        check_path(source)?;
        let found = expand(root, source)?;
        if found.is_empty() {
            return Err(StoreError::PathNotFound {
                key: copy.from.clone(),
                path: String::from_utf8_lossy(source).into_owned(),
            });
        }
        matches.extend(found);
    }
    Ok(matches)
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
