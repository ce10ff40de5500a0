//! What a snapshot changed: as a layer blob, as a list, in bytes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use orlop_proto::descriptor::parse_digest;

use crate::content::BlobWriter;
use crate::error::{Result, StoreError};
use crate::layers::compress::{Codec, Compressor};
use crate::layers::decompress::plain;
use crate::layers::pack::{Hashing, pack};
use crate::layers::root::Root;
use crate::layers::shelf::LayerMeta;
use crate::layers::usage::{Usage, usage_of};
use crate::layers::walk::{Met, walk};
use crate::leases::Resource;
use crate::snapshots::record::{Kind, Packed, Record};
use crate::snapshots::{Snapshots, files};

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
        crate::failpoint::reach("snapshot.diff.packed");
        self.remember(record, codec, &packed, &diff_id)?;
        crate::failpoint::reach("snapshot.diff.remembered");
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
            // A layer that came from a tar keeps the digest of that one, whatever a new tar of it has.
            let unnamed = |id: &&String| {
                self.inner
                    .shelf
                    .meta(id)
                    .is_none_or(|m| m.diff_id.is_none())
            };
            if let Some(layer) = record.layer.as_ref().filter(unnamed) {
                let meta = LayerMeta {
                    diff_id: Some(diff_id.to_owned()),
                    bytes: Some(walked(&self.own_tree(&record)?)?.file_bytes),
                    empty: packed.empty,
                    ..LayerMeta::default()
                };
                self.inner.shelf.describe(layer, meta)?;
                crate::failpoint::reach("snapshot.diff.layer_described");
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
            .hold(lease, Resource::Blob(digest.to_owned()))?;
        self.inner.leases.settle(lease)
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
        match (&record.layer, record.kind) {
            (Some(layer), Kind::Committed) => self.layer_usage(layer),
            _ => walked(&self.own_tree(&record)?),
        }
    }

    /// What a layer takes.
    pub(crate) fn layer_usage(&self, id: &str) -> Result<Usage> {
        self.inner
            .shelf
            .usage_or(id, || walked(&self.inner.shelf.tree(id)?))
    }
}

fn walked(tree: &Path) -> Result<Usage> {
    usage_of(&Root::new(files::open_directory(tree)?))
}

fn write_failed(source: io::Error) -> StoreError {
    StoreError::Tree {
        action: "write the layer of",
        path: "a snapshot".to_owned(),
        source,
    }
}
