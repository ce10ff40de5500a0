//! Trees to tars and back, in memory, and their compressions.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use orlop_proto::store::Compression;
use tonic::Status;

use super::invalid;
use super::tree::{Kind, Node, Path, Tree, join, text};

/// What is done with the entries of a tar.
#[derive(Clone)]
pub(super) struct Extraction {
    /// Where to, resolved.
    pub(super) dest: Path,
    /// Names with `.wh.` delete.
    pub(super) whiteouts: bool,
    /// Of everything.
    pub(super) owner: Option<(u32, u32)>,
    /// Of everything that is made; what whiteouts speak of has another one.
    pub(super) serial: u64,
}

fn malformed(error: impl std::fmt::Display) -> Status {
    invalid(format!("malformed tar: {error}"))
}

/// The plain bytes of a blob, told by its first ones.
pub(super) fn plain(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let mut plain = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(bytes).read_to_end(&mut plain).map(drop),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::copy_decode(bytes, &mut plain),
        _ => return Ok(bytes.to_vec()),
    }
    .map_err(malformed)?;
    Ok(plain)
}

pub(super) fn compress(plain: &[u8], compression: Compression) -> Result<Vec<u8>, Status> {
    match compression {
        Compression::None => Ok(plain.to_vec()),
        Compression::Zstd => zstd::bulk::compress(plain, 3).map_err(malformed),
        Compression::Gzip | Compression::Unspecified => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).map_err(malformed)?;
            encoder.finish().map_err(malformed)
        }
    }
}

/// The names of an entry, or why it is refused.
pub(super) fn clean(path: &[u8]) -> Result<Path, Status> {
    if path.contains(&0) {
        return Err(malformed("a NUL in a name"));
    }
    let mut names = Path::new();
    for name in super::tree::names(path) {
        if name != b".." {
            names.push(name.to_vec());
        } else if names.pop().is_none() && !path.starts_with(b"/") {
            return Err(malformed("a name leads out"));
        }
    }
    Ok(names)
}

/// Whether the tar was cut: it ends with a block of zeros, unless it is empty.
fn check_end(tar: &[u8]) -> Result<(), Status> {
    let cut = !tar.len().is_multiple_of(512);
    let ends = tar.is_empty() || tar.rchunks(512).next().is_some_and(|last| last == [0; 512]);
    if cut || !ends {
        return Err(malformed("its end was not reached"));
    }
    Ok(())
}

/// Puts the entries of a plain tar into a tree. How many.
pub(super) fn extract(tree: &mut Tree, tar: &[u8], how: &Extraction) -> Result<u64, Status> {
    check_end(tar)?;
    let mut made = 0;
    for entry in tar::Archive::new(tar).entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let path = clean(&entry.path_bytes())?;
        let mut data = Vec::new();
        entry.read_to_end(&mut data).map_err(malformed)?;
        let kind = entry.header().entry_type();
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let Some((name, parent)) = path.split_last() else {
            if kind.is_dir() {
                continue;
            }
            return Err(malformed("an entry would replace the root"));
        };
        let parent = tree.resolve(&how.dest, &parent.join(&b'/'), true)?;
        tree.make_directories(&parent, how.serial)?;
        if how.whiteouts && hide(tree, &parent, name, how.serial)? {
            continue;
        }
        let header = entry.header();
        let node = Node {
            kind: match kind {
                tar::EntryType::Directory => Kind::Directory,
                tar::EntryType::Symlink => Kind::Symlink(link),
                tar::EntryType::Link => linked(tree, how, &link)?,
                kind if kind.is_file() => Kind::File(data.into()),
                kind => Kind::Special(kind.as_byte()),
            },
            mode: header.mode().map_err(malformed)? & 0o7777,
            owner: match how.owner {
                Some(owner) => owner,
                None => (id(header.uid())?, id(header.gid())?),
            },
            mtime: header.mtime().map_err(malformed)?,
            serial: how.serial,
        };
        let path = join(&parent, name);
        if node.kind != Kind::Directory || !tree.is_directory(&path) {
            tree.remove(&path, |_| true);
        }
        tree.0.insert(path, node);
        made += 1;
    }
    Ok(made)
}

fn id(id: std::io::Result<u64>) -> Result<u32, Status> {
    u32::try_from(id.map_err(malformed)?).map_err(malformed)
}

fn linked(tree: &Tree, how: &Extraction, link: &[u8]) -> Result<Kind, Status> {
    let target = tree.resolve(&how.dest, &text(&clean(link)?), false)?;
    let node = tree
        .0
        .get(&target)
        .filter(|node| node.kind != Kind::Directory);
    let node = node.ok_or_else(|| malformed("a hard link to nothing"))?;
    Ok(node.kind.clone())
}

/// Performs a whiteout, if the name is one. What this tar made itself stays.
fn hide(tree: &mut Tree, parent: &Path, name: &[u8], serial: u64) -> Result<bool, Status> {
    let Some(hidden) = name.strip_prefix(b".wh.") else {
        return Ok(false);
    };
    match hidden {
        b"" | b"." | b".." => return Err(malformed("a whiteout of no name")),
        b".wh..opq" => tree.0.retain(|path, node| {
            !(path.starts_with(parent) && path.len() > parent.len() && node.serial != serial)
        }),
        hidden if hidden.starts_with(b".wh.") => {}
        hidden => tree.remove(&join(parent, hidden), |node| node.serial != serial),
    }
    Ok(true)
}

/// A tar of nodes, in order; `None` is a whiteout.
pub(super) fn pack<'a>(
    nodes: impl Iterator<Item = (Path, Option<&'a Node>)>,
) -> Result<Vec<u8>, Status> {
    let mut tar = tar::Builder::new(Vec::new());
    for (mut path, node) in nodes {
        let mut header = tar::Header::new_ustar();
        let Some(node) = node else {
            if let Some(name) = path.last_mut() {
                *name = [b".wh.", name.as_slice()].concat();
            }
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0);
            append(&mut tar, header, &path, &Bytes::new())?;
            continue;
        };
        header.set_mode(node.mode);
        header.set_uid(node.owner.0.into());
        header.set_gid(node.owner.1.into());
        header.set_mtime(node.mtime);
        let mut data = Bytes::new();
        let kind = match &node.kind {
            Kind::Directory => tar::EntryType::Directory,
            Kind::Symlink(target) => {
                header.set_link_name_literal(target).map_err(malformed)?;
                tar::EntryType::Symlink
            }
            Kind::Special(kind) => tar::EntryType::new(*kind),
            Kind::File(bytes) => {
                data = bytes.clone();
                tar::EntryType::Regular
            }
        };
        header.set_entry_type(kind);
        append(&mut tar, header, &path, &data)?;
    }
    tar.into_inner().map_err(malformed)
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    mut header: tar::Header,
    path: &Path,
    data: &Bytes,
) -> Result<(), Status> {
    use std::os::unix::ffi::OsStrExt as _;
    header.set_size(data.len() as u64);
    let path = text(path);
    let path = std::ffi::OsStr::from_bytes(&path);
    tar.append_data(&mut header, path, data.as_ref())
        .map_err(malformed)
}
