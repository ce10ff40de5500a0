//! What a snapshot changed: as a layer blob, as a list, in bytes.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use orlop_proto::descriptor::parse_digest;
use rustix::fs::FileType;

use crate::content::BlobWriter;
use crate::error::{Result, StoreError};
use crate::layers::compress::{Codec, Compressor};
use crate::layers::decompress::plain;
use crate::layers::pack::{Hashing, pack};
use crate::layers::root::{Root, file_type};
use crate::layers::shelf::LayerMeta;
use crate::layers::walk::{Met, walk};
use crate::leases::Resource;
use crate::snapshots::record::{Kind, Packed, Record};
use crate::snapshots::{Snapshots, files};

/// Disk space is counted in these (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// One path that a snapshot changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Absolute.
    pub path: Vec<u8>,
    /// How.
    pub kind: ChangeKind,
}

/// How a path was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was there and is different, or something below it is.
    Modified,
    /// It was not there.
    Added,
    /// It is not there any more.
    Deleted,
}

/// What a tree takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, holes not counted.
    pub bytes: u64,
    /// Inodes; a file with several names is one.
    pub inodes: u64,
    /// Bytes of regular files, holes included; a file with several names is one.
    pub file_bytes: u64,
}

impl Snapshots {
    /// The snapshot's changes as a layer blob, and its diff id. A committed snapshot is packed once
    /// per compression, always to the same diff id.
    pub fn diff(&self, key: &str, codec: Codec, lease: &str) -> Result<(Packed, String)> {
        let record = self.inner.records.get(key)?;
        if record.kind == Kind::Active {
            return self.pack(&record, codec, lease);
        }
        let turn = format!("diff {key}");
        let _turn = self.inner.turns.take(vec![turn]);
        let record = self.inner.records.get(key)?;
        if let (Some(packed), Some(diff_id)) = (record.blobs.get(&codec), &record.diff_id)
            && self.is_here(packed)?
        {
            self.hold_blob(lease, &packed.digest)?;
            return Ok((packed.clone(), diff_id.clone()));
        }
        let (packed, diff_id) = match self.other_blob(&record)? {
            Some(other) => self.recompress(&record, &other, codec, lease)?,
            None => self.pack(&record, codec, lease)?,
        };
        self.remember(record, codec, &packed, &diff_id)?;
        Ok((packed, diff_id))
    }

    /// Whether a remembered blob still exists; if so, the collector leaves it for a while.
    fn is_here(&self, packed: &Packed) -> Result<bool> {
        Ok(self.inner.content.want(&parse_digest(&packed.digest)?))
    }

    fn other_blob(&self, record: &Record) -> Result<Option<Packed>> {
        for packed in record.blobs.values() {
            if self.is_here(packed)? {
                return Ok(Some(packed.clone()));
            }
        }
        Ok(None)
    }

    fn remember(&self, record: Record, codec: Codec, packed: &Packed, diff_id: &str) -> Result<()> {
        let mut record = record;
        if record.diff_id.as_deref() != Some(diff_id) {
            record.blobs.clear();
            if let Some(layer) = &record.layer {
                let meta = LayerMeta {
                    diff_id: Some(diff_id.to_owned()),
                    bytes: Some(self.usage(&record.key)?.file_bytes),
                    empty: packed.empty,
                };
                self.inner.shelf.describe(layer, meta)?;
            }
        }
        record.diff_id = Some(diff_id.to_owned());
        record.blobs.insert(codec, packed.clone());
        self.inner.records.update(record)
    }

    fn pack(&self, record: &Record, codec: Codec, lease: &str) -> Result<(Packed, String)> {
        let upper = files::open_directory(&self.own_tree(record)?)?;
        let below = self.below(record)?;
        let blob = Compressor::new(self.inner.content.writer()?, codec);
        let lower = below.as_ref().map(Root::fd);
        let (hashing, members) = pack(upper.as_fd(), lower, Hashing::new(blob))?;
        let (compressor, diff_id) = hashing.finish();
        let packed = self.finish(compressor, members == 0, lease)?;
        Ok((packed, diff_id))
    }

    /// The same tar in another compression, proven to be the same.
    fn recompress(
        &self,
        record: &Record,
        from: &Packed,
        codec: Codec,
        lease: &str,
    ) -> Result<(Packed, String)> {
        let blob: File = self.inner.content.open(&parse_digest(&from.digest)?)?;
        let mut tar = plain(blob)?;
        let out = Compressor::new(self.inner.content.writer()?, codec);
        let mut hashing = Hashing::new(out);
        io::copy(&mut tar, &mut hashing).map_err(write_failed)?;
        let (compressor, diff_id) = hashing.finish();
        if record
            .diff_id
            .as_ref()
            .is_some_and(|known| *known != diff_id)
        {
            return Err(StoreError::BlobDamaged {
                digest: from.digest.clone(),
                detail: format!("its plain tar has digest {diff_id}"),
            });
        }
        Ok((self.finish(compressor, from.empty, lease)?, diff_id))
    }

    fn finish(
        &self,
        compressor: Compressor<BlobWriter>,
        empty: bool,
        lease: &str,
    ) -> Result<Packed> {
        let blob = compressor.finish().map_err(write_failed)?;
        let (digest, size) = blob.commit(None)?;
        let digest = digest.to_string();
        self.hold_blob(lease, &digest)?;
        Ok(Packed {
            digest,
            size,
            empty,
        })
    }

    fn hold_blob(&self, lease: &str, digest: &str) -> Result<()> {
        if lease.is_empty() {
            return Ok(());
        }
        self.inner
            .leases
            .hold(lease, Resource::Blob(digest.to_owned()))
    }

    /// Tells every path that the snapshot changed, parents before children.
    pub fn changes(&self, key: &str, tell: &mut dyn FnMut(Change) -> Result<()>) -> Result<()> {
        let record = self.inner.records.get(key)?;
        if record.kind == Kind::View {
            return Ok(());
        }
        let upper = files::open_directory(&self.own_tree(&record)?)?;
        let below = self.below(&record)?;
        walk(upper.as_fd(), below.as_ref().map(Root::fd), &mut |stop| {
            let kind = match stop.met {
                Met::Opaque => return Ok(()),
                Met::Deleted => ChangeKind::Deleted,
                Met::Present { replaces: true } => ChangeKind::Modified,
                Met::Present { replaces: false } => ChangeKind::Added,
            };
            let path = [b"/", stop.path].concat();
            tell(Change { path, kind })
        })
    }

    /// Bytes and inodes of the snapshot's own changes.
    pub fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.inner.records.get(key)?;
        if record.kind == Kind::View {
            return Ok(Usage::default());
        }
        let tree = files::open_directory(&self.own_tree(&record)?)?;
        usage_of(&Root::new(tree))
    }
}

/// Bytes and inodes below a root, and of the root.
pub(crate) fn usage_of(root: &Root) -> Result<Usage> {
    let mut usage = Usage {
        bytes: 0,
        inodes: 1,
        file_bytes: 0,
    };
    let mut seen = HashSet::new();
    walk(root.fd(), None, &mut |stop| {
        let stat = stop.stat;
        let counted_before = stat.st_nlink > 1
            && file_type(stat) != FileType::Directory
            && !seen.insert((stat.st_dev, stat.st_ino));
        if !counted_before {
            usage.inodes += 1;
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            usage.bytes += blocks * STAT_BLOCK_BYTES;
            if file_type(stat) == FileType::RegularFile {
                usage.file_bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
        }
        Ok(())
    })?;
    Ok(usage)
}

fn write_failed(source: io::Error) -> StoreError {
    StoreError::Tree {
        action: "write the layer of",
        path: "a snapshot".to_owned(),
        source,
    }
}
