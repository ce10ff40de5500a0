//! Walks what one snapshot changed, beside the tree that it changed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::error::Result;
use crate::layers::apply::OPAQUE_XATTR;
use crate::layers::root::{failed, file_type, is_whiteout, join, list, lstat, open_directory};

/// What is met at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Something that is there; `replaces` when the lower tree has the name too.
    Present {
        /// Whether the lower tree has the name.
        replaces: bool,
    },
    /// A name of the lower tree was deleted.
    Deleted,
    /// The directory that was met last hides what the lower tree has in it.
    Opaque,
}

/// One stop of the walk.
#[derive(Debug)]
pub struct Stop<'a> {
    /// Relative to the root, without a leading slash.
    pub path: &'a [u8],
    /// The handle of its directory.
    pub parent: BorrowedFd<'a>,
    /// Its last name.
    pub name: &'a [u8],
    /// What it is.
    pub stat: &'a Stat,
    /// Why it is told.
    pub met: Met,
}

struct Level {
    upper: OwnedFd,
    lower: Option<OwnedFd>,
    path: Vec<u8>,
    /// The first one last.
    names: Vec<Vec<u8>>,
}

/// Tells everything below `upper`, directories before what is in them, names in the order of their
/// bytes. With `lower`, marks of overlayfs are told as what they mean for it, and only where they
/// mean something: which marks the kernel leaves elsewhere depends on its version.
pub fn walk(
    upper: BorrowedFd<'_>,
    lower: Option<BorrowedFd<'_>>,
    visit: &mut dyn FnMut(&Stop<'_>) -> Result<()>,
) -> Result<()> {
    let root = Level::open(upper, lower, Vec::new())?;
    let mut stack = vec![root];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.pop() else {
            stack.pop();
            continue;
        };
        if let Some(below) = level.step(&name, visit)? {
            stack.push(below);
        }
    }
    Ok(())
}

impl Level {
    fn open(upper: BorrowedFd<'_>, lower: Option<BorrowedFd<'_>>, path: Vec<u8>) -> Result<Self> {
        let open = |fd| open_directory(fd, b".").map_err(failed("open the directory", &path));
        let upper = open(upper)?;
        let lower = lower.map(open).transpose()?;
        let mut names = list(upper.as_fd()).map_err(failed("list", &path))?;
        names.reverse();
        Ok(Self {
            upper,
            lower,
            path,
            names,
        })
    }

    fn step(
        &self,
        name: &[u8],
        visit: &mut dyn FnMut(&Stop<'_>) -> Result<()>,
    ) -> Result<Option<Self>> {
        let path = join(&self.path, name);
        let Some(stat) = lstat(self.upper.as_fd(), name).map_err(failed("look at", &path))? else {
            return Ok(None);
        };
        let below = self.lower_stat(name, &path)?;
        let mut tell = |met| {
            visit(&Stop {
                path: &path,
                parent: self.upper.as_fd(),
                name,
                stat: &stat,
                met,
            })
        };
        if is_whiteout(&stat) {
            if below.is_some() {
                tell(Met::Deleted)?;
            }
            return Ok(None);
        }
        tell(Met::Present {
            replaces: below.is_some(),
        })?;
        if file_type(&stat) != FileType::Directory {
            return Ok(None);
        }
        let upper = open_directory(self.upper.as_fd(), name)
            .map_err(failed("open the directory", &path))?;
        let both = below.is_some_and(|stat| file_type(&stat) == FileType::Directory);
        let opaque = is_opaque(upper.as_fd()).map_err(failed("read an attribute of", &path))?;
        if both && opaque {
            tell(Met::Opaque)?;
        }
        let lower = if both && !opaque {
            self.lower_directory(name, &path)?
        } else {
            None
        };
        Self::open(upper.as_fd(), lower.as_ref().map(AsFd::as_fd), path).map(Some)
    }

    fn lower_stat(&self, name: &[u8], path: &[u8]) -> Result<Option<Stat>> {
        match &self.lower {
            Some(lower) => lstat(lower.as_fd(), name).map_err(failed("look at", path)),
            None => Ok(None),
        }
    }

    fn lower_directory(&self, name: &[u8], path: &[u8]) -> Result<Option<OwnedFd>> {
        self.lower
            .as_ref()
            .map(|lower| open_directory(lower.as_fd(), name))
            .transpose()
            .map_err(failed("open the directory", path))
    }
}

fn is_opaque(directory: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut value = [0_u8; 1];
    match rustix::fs::fgetxattr(directory, OPAQUE_XATTR, &mut value) {
        Ok(count) => Ok(count == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}
