//! Directories that an archive holds things in and does not describe: they have the attributes that
//! the layers below give them, as they would if the archive were unpacked over these.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::error::Result;
use crate::layers::apply::{Attributes, OPAQUE_XATTR, mtime};
use crate::layers::making::{Making, plain_directory};
use crate::layers::pack::xattrs;
use crate::layers::root::{Root, failed, file_type, lstat, names, open_directory};

/// Names and values of extended attributes.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What one layer says of a path.
#[derive(Debug)]
enum Found {
    /// A directory.
    Directory(Attributes, Xattrs),
    /// Nothing: ask the layer below.
    Unknown,
    /// That no layer below has a say.
    Hidden,
}

/// Gives the directories that a layer left implicit the attributes they have in the layers below,
/// topmost first.
pub(crate) fn describe(making: &mut Making, below: &[Root]) -> Result<()> {
    for path in making.implicit()? {
        let found = attributes_in(below, &path)?;
        let (attributes, xattrs) = found.unwrap_or_else(|| (plain_directory(), Vec::new()));
        making.describe(&path, &attributes, &xattrs)?;
    }
    Ok(())
}

fn attributes_in(below: &[Root], path: &[u8]) -> Result<Option<(Attributes, Xattrs)>> {
    for layer in below {
        match look(layer, path)? {
            Found::Directory(attributes, xattrs) => return Ok(Some((attributes, xattrs))),
            Found::Unknown => {}
            Found::Hidden => return Ok(None),
        }
    }
    Ok(None)
}

/// Name by name through one layer, never through a link.
fn look(layer: &Root, path: &[u8]) -> Result<Found> {
    let open = |errno| failed("open the directory", path)(errno);
    let mut at: OwnedFd = layer.directory(b"").map_err(open)?;
    let mut opaque = is_opaque(&at, path)?;
    for name in names(path) {
        match lstat(at.as_fd(), name).map_err(failed("look at", path))? {
            None if opaque => return Ok(Found::Hidden),
            None => return Ok(Found::Unknown),
            Some(stat) if file_type(&stat) != FileType::Directory => return Ok(Found::Hidden),
            Some(_) => at = open_directory(at.as_fd(), name).map_err(open)?,
        }
        opaque |= is_opaque(&at, path)?;
    }
    let stat = rustix::fs::fstat(&at).map_err(failed("look at", path))?;
    Ok(Found::Directory(attributes(&stat), xattrs(&at, path)?))
}

fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        mtime: mtime(stat),
    }
}

fn is_opaque(directory: &OwnedFd, path: &[u8]) -> Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(directory, OPAQUE_XATTR, &mut value) {
        Ok(count) => Ok(count == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(failed("read the attributes of", path)(errno)),
    }
}
