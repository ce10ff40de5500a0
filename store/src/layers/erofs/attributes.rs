//! What an archive may say of a file, under the rules by which the kernel would set it.

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::Result;
use crate::layers::apply::{Attributes, settable, tolerated};
use crate::layers::erofs::acl::{self, Acl};
use crate::layers::erofs::format::{self, XATTR_BYTES_MAX};
use crate::layers::erofs::tree::Node;
use crate::layers::root::failed;
use crate::layers::tar::malformed;

/// Bytes of an attribute's name (`XATTR_NAME_MAX`), and of its value, which has a 16-bit length.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = u16::MAX as usize;
/// What `chown` takes for "as it is".
const UNCHANGED: u32 = u32::MAX;

/// Gives a node these attributes, in the order of [`apply`](crate::layers::apply).
pub(super) fn set(
    node: &mut Node,
    attributes: &Attributes,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    path: &[u8],
) -> Result<()> {
    let own = &mut node.attributes;
    own.mtime = attributes.mtime;
    if attributes.uid != UNCHANGED {
        own.uid = attributes.uid;
    }
    if attributes.gid != UNCHANGED {
        own.gid = attributes.gid;
    }
    chmod(node, attributes.mode & 0o7777);
    for (name, value) in settable(xattrs) {
        let set = set_xattr(node, name, value);
        tolerated(name, set).map_err(failed("set an attribute of", path))?;
    }
    if format::xattr_bytes(&node.xattrs) > XATTR_BYTES_MAX {
        let path = String::from_utf8_lossy(path);
        return Err(malformed(&format!(
            "{path:?} has more than {XATTR_BYTES_MAX} bytes of extended attributes"
        )));
    }
    Ok(())
}

fn chmod(node: &mut Node, mode: u32) {
    node.attributes.mode = mode;
    let list = node.xattrs.iter_mut().find(|(name, _)| name == acl::ACCESS);
    if let Some((_, value)) = list
        && let Ok(Some(mut list)) = Acl::parse(value)
    {
        list.chmod(mode);
        *value = list.encode();
    }
}

/// As `setxattr(2)`.
fn set_xattr(node: &mut Node, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::RANGE);
    }
    if name.contains(&0) {
        return Err(Errno::INVAL);
    }
    if value.len() > VALUE_MAX {
        return Err(Errno::TOOBIG);
    }
    let (_, rest) = format::xattr_prefix(name).ok_or(Errno::OPNOTSUPP)?;
    if name == acl::ACCESS || name == acl::DEFAULT {
        return set_acl(node, name, value);
    }
    let file_type = node.file_type();
    let holds_user = matches!(file_type, FileType::RegularFile | FileType::Directory);
    match name {
        _ if name.starts_with(b"user.") && !holds_user => return Err(Errno::PERM),
        // The names of access lists are all prefix.
        _ if rest.is_empty() && !name.starts_with(b"system.") => return Err(Errno::INVAL),
        b"security.capability" if !is_capability(value) => return Err(Errno::INVAL),
        _ => {}
    }
    put(&mut node.xattrs, name, value);
    Ok(())
}

fn set_acl(node: &mut Node, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    let list = Acl::parse(value)?;
    let file_type = node.file_type();
    if file_type == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    if name == acl::DEFAULT && file_type != FileType::Directory && list.is_some() {
        return Err(Errno::ACCESS);
    }
    node.xattrs.retain(|(known, _)| known != name);
    let Some(list) = list else {
        return Ok(());
    };
    if name == acl::ACCESS {
        let (mode, says_all) = list.mode(node.attributes.mode);
        node.attributes.mode = mode;
        if says_all {
            return Ok(());
        }
    }
    put(&mut node.xattrs, name, &list.encode());
    Ok(())
}

/// A later value takes the place of an earlier one.
pub(super) fn put(xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>, name: &[u8], value: &[u8]) {
    match xattrs.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.to_vec(),
        None => xattrs.push((name.to_vec(), value.to_vec())),
    }
}

/// Versions 2 and 3 of `struct vfs_ns_cap_data` (`linux/capability.h`), which the kernel takes.
fn is_capability(value: &[u8]) -> bool {
    const EFFECTIVE: u32 = 1;
    let Some(magic) = value.first_chunk::<4>() else {
        return false;
    };
    matches!(
        (u32::from_le_bytes(*magic) & !EFFECTIVE, value.len()),
        (0x0200_0000, 20) | (0x0300_0000, 24)
    )
}
