//! COPY and ADD of files of the context and of heredocs.

use std::io::Read as _;

use bytes::Bytes;
use orlop_proto::store::{CopyEntries, Entry, EntryKind, Extract, FileOp, file_op};

use super::{Task, operation, owner};
use crate::error::{BuildError, Doing as _};
use crate::plan::{CopyOp, Item, Place};

/// Entries of one operation: small enough that a message holds several.
const ENTRIES_PER_OP: usize = 500;
/// What is read of a file to see whether it is an archive: a tar header, compressed at worst.
const HEAD_BYTES: i64 = 64 * 1024;
/// A tar's block, and where its magic is (POSIX `ustar`, GNU the same letters).
const TAR_BLOCK: usize = 512;
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

pub(super) async fn perform(task: &Task, copy: &CopyOp, key: &str) -> Result<(), BuildError> {
    inline(task, copy).await?;
    let mut entries = Vec::new();
    let mut ops = Vec::new();
    for item in &copy.items {
        match copy.add && item.direct && is_archive(task, &item.entry).await? {
            true => ops.push(operation(file_op::Op::Extract(Extract {
                digest: item.entry.digest.clone(),
                dest: copy.place.dest.clone().into(),
                owner: owner(&copy.place),
            }))),
            false => entries.push(item.entry.clone()),
        }
    }
    // A directory without entries is still made.
    if !entries.is_empty() || ops.is_empty() {
        let parts = entries.chunks(ENTRIES_PER_OP).map(<[Entry]>::to_vec);
        let mut parts: Vec<Vec<Entry>> = parts.collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let copies: Vec<FileOp> = parts
            .into_iter()
            .map(|part| copy_op(&copy.place, part))
            .collect();
        ops.splice(0..0, copies);
    }
    task.ports
        .layers
        .apply(key, ops)
        .await
        .doing(|| task.doing())
}

fn copy_op(place: &Place, entries: Vec<Entry>) -> FileOp {
    operation(file_op::Op::CopyEntries(CopyEntries {
        dest: place.dest.clone().into(),
        dest_is_dir: place.dest_is_dir,
        entries,
        owner: owner(place),
        mode: place.mode,
    }))
}

/// Heredocs become blobs too.
async fn inline(task: &Task, copy: &CopyOp) -> Result<(), BuildError> {
    let blob = |item: &Item| Some((item.entry.digest.clone(), item.inline.clone()?));
    let blobs: Vec<(String, Bytes)> = copy.items.iter().filter_map(blob).collect();
    if blobs.is_empty() {
        return Ok(());
    }
    task.ports
        .content
        .put_many(blobs, &task.lease)
        .await
        .doing(|| task.doing())
}

async fn is_archive(task: &Task, entry: &Entry) -> Result<bool, BuildError> {
    if entry.kind() != EntryKind::File {
        return Ok(false);
    }
    let head = task.ports.content.head(&entry.digest, HEAD_BYTES).await;
    let head = head.doing(|| task.doing())?;
    match kind(&head) {
        Some(known) => Ok(known),
        None => Err(task
            .vertex
            .span
            .error("ADD of a tar compressed with bzip2 or xz is not built in this version")
            .into()),
    }
}

/// Whether the bytes begin a tar, plain or compressed; `None` for a compression that is not built.
fn kind(head: &[u8]) -> Option<bool> {
    if head.starts_with(&[0x1f, 0x8b]) {
        return Some(begins_tar(flate2::read::GzDecoder::new(head)));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Some(zstd::Decoder::new(head).is_ok_and(begins_tar));
    }
    if head.starts_with(b"BZh") || head.starts_with(b"\xfd7zXZ\0") {
        return None;
    }
    Some(begins_tar(head))
}

fn begins_tar(plain: impl std::io::Read) -> bool {
    let mut block = Vec::new();
    let limit = TAR_BLOCK as u64;
    plain.take(limit).read_to_end(&mut block).is_ok()
        && block.len() == TAR_BLOCK
        && &block[TAR_MAGIC] == b"ustar"
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn tar() -> Vec<u8> {
        let mut block = vec![0; 1024];
        block[TAR_MAGIC].copy_from_slice(b"ustar");
        block
    }

    #[test]
    fn an_archive_is_told_by_its_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar()).unwrap();
        assert_eq!(kind(&gzip.finish().unwrap()), Some(true));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"no tar at all").unwrap();
        assert_eq!(kind(&gzip.finish().unwrap()), Some(false));
        assert_eq!(kind(&zstd::encode_all(&tar()[..], 1).unwrap()), Some(true));
        assert_eq!(kind(&tar()), Some(true));
        assert_eq!(kind(b"text"), Some(false));
        assert_eq!(kind(b""), Some(false));
        assert_eq!(kind(b"BZh91AY"), None);
    }
}
