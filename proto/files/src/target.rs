//! Where a copy goes: Docker's rules for destinations.

use rustix::fs::{FileType, OFlags};

use crate::PATH_BYTES_MAX;
use crate::error::{CopyError, Result, failed, refused, text};
use crate::root::{Root, file_type, is_device, is_directory, join, split};

/// Symbolic links in place of a destination, one after the other: the kernel's own limit.
const LINKS_MAX: usize = 40;

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, or a link.
    File,
    /// A directory with everything in it.
    Directory,
    /// What is in a directory: `SOURCE/.`.
    Contents,
    /// An archive of the caller's.
    Archive,
}

/// A directory, and what the top of the archive is called in it.
#[derive(Debug)]
pub struct Target {
    pub(crate) root: Root,
    /// Below the root; exists.
    pub(crate) directory: Vec<u8>,
    /// Empty: everything goes into the directory under its own name.
    pub(crate) name: Vec<u8>,
}

impl Target {
    /// The destination for a source of this kind and name.
    pub fn find(root: Root, path: &[u8], kind: Kind, name: &[u8]) -> Result<Self> {
        if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains(&0) {
            return Err(refused(path, "no path of a file"));
        }
        if matches!(kind, Kind::File | Kind::Directory) && !is_name(name) {
            return Err(refused(name, "no name of a file"));
        }
        let found = root.look(path, true).map_err(failed("look at", path))?;
        let (directory, name) = match (found, kind) {
            (Some(stat), Kind::File | Kind::Directory) if is_directory(&stat) => {
                (path.to_vec(), name.to_vec())
            }
            (Some(stat), _) if is_directory(&stat) => (path.to_vec(), Vec::new()),
            (Some(stat), Kind::File) if is_device(file_type(&stat)) => {
                return Err(refused(path, "a device is not overwritten"));
            }
            (Some(_), Kind::Archive) => return Err(refused(path, "not a directory")),
            (None, Kind::Archive) => return Err(CopyError::NotFound(text(path))),
            (Some(_), Kind::Directory | Kind::Contents) => {
                return Err(refused(path, "cannot copy a directory to a file"));
            }
            (None, Kind::File) if says_directory(path) => {
                return Err(refused(path, "the destination directory must exist"));
            }
            (_, Kind::File) => named(&root, path)?,
            (None, _) => named(&root, without_dots(path))?,
        };
        Ok(Self {
            root,
            directory,
            name,
        })
    }

    /// The same for an archive that may be hostile to who unpacks it: no link below the directory is
    /// followed from here on.
    pub fn without_links(self) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = self.root.open(&self.directory, flags);
        let directory = directory.map_err(failed("open the directory", &self.directory))?;
        Ok(Self {
            root: Root::without_links(directory).owned(self.root.owners()),
            directory: Vec::new(),
            name: self.name,
        })
    }
}

/// The directory and the name of a file to be made or replaced. A link is not replaced, but what it
/// points at, as with `cp`.
fn named(root: &Root, path: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut path = path.to_vec();
    for _ in 0..LINKS_MAX {
        let (directory, name) = split(&path);
        if name.is_empty() || name == b"." || name == b".." {
            return Err(refused(&path, "no name for a file"));
        }
        let parent = root.look(directory, true);
        match parent.map_err(failed("look at", directory))? {
            Some(stat) if is_directory(&stat) => {}
            Some(_) => return Err(refused(directory, "not a directory")),
            None => return Err(CopyError::NotFound(text(directory))),
        }
        let found = root.look(&path, false).map_err(failed("look at", &path))?;
        if !found.is_some_and(|stat| file_type(&stat) == FileType::Symlink) {
            return Ok((directory.to_vec(), name.to_vec()));
        }
        path = link_target(root, &path)?;
    }
    Err(refused(&path, "too many symbolic links"))
}

fn link_target(root: &Root, path: &[u8]) -> Result<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let link = root.open(path, flags).map_err(failed("open", path))?;
    let target = rustix::fs::readlinkat(link, "", Vec::new());
    let target = target.map_err(failed("read the link", path))?.into_bytes();
    match target.starts_with(b"/") {
        true => Ok(target),
        false => Ok(join(split(path).0, &target)),
    }
}

/// The other side says what the source is called: one name, that leads nowhere.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

fn says_directory(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.")
}

fn without_dots(path: &[u8]) -> &[u8] {
    let mut path = path;
    while path.len() > 1 && says_directory(path) {
        path = &path[..path.len() - 1];
    }
    path
}
