//! What is on disk, by kind: the bytes that the file system has given, as `du` counts them.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::Maintenance;
use crate::StoreError;
use crate::snapshots::record::Kind;

/// What is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes that they take.
    pub blob_bytes: u64,
    /// Number of unpacked layers.
    pub layers: u64,
    /// Bytes that they take.
    pub layer_bytes: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Bytes that was written to active ones takes.
    pub snapshot_bytes: u64,
    /// Bytes of unfinished ingests.
    pub ingest_bytes: u64,
    /// Number of names.
    pub images: u64,
    /// Bytes that nothing references and no lease holds.
    pub reclaimable_bytes: u64,
    /// Bytes that the store may keep in all; 0: no bound.
    pub budget_bytes: u64,
}

impl DiskUsage {
    /// Bytes of everything.
    pub fn bytes(&self) -> u64 {
        self.blob_bytes + self.layer_bytes + self.snapshot_bytes + self.ingest_bytes
    }
}

/// Number and bytes of all blobs, counted again only when one came or went; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Blobs {
    counted: Arc<Mutex<Option<Counted>>>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    changed: Timestamp,
    count: u64,
    bytes: u64,
}

impl Maintenance {
    /// What is on disk now.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        Ok(DiskUsage {
            reclaimable_bytes: self.reclaimable()?,
            ..self.counted()?
        })
    }

    /// Without what needs a look at all references.
    pub(super) fn counted(&self) -> Result<DiskUsage, StoreError> {
        let (blobs, blob_bytes) = self.count_blobs()?;
        let (layers, layer_bytes) = self.snapshots.layers_usage()?;
        let snapshots = self.snapshots.list();
        let active = snapshots
            .iter()
            .filter(|record| record.kind == Kind::Active);
        // One may be removed meanwhile.
        let usages = active.map(|record| self.snapshots.usage(&record.key));
        let ingests = self.content.list_ingests()?;
        Ok(DiskUsage {
            blobs,
            blob_bytes,
            layers,
            layer_bytes,
            snapshots: snapshots.len() as u64,
            snapshot_bytes: usages.flatten().map(|usage| usage.bytes).sum(),
            ingest_bytes: ingests.iter().map(|ingest| ingest.offset).sum(),
            images: self.images.count() as u64,
            reclaimable_bytes: 0,
            budget_bytes: self.budget.unwrap_or_default(),
        })
    }

    fn count_blobs(&self) -> Result<(u64, u64), StoreError> {
        let changed = self.content.changed()?;
        let mut counted = self
            .blobs
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = counted.filter(|known| known.changed == changed) {
            return Ok((known.count, known.bytes));
        }
        let now = Timestamp::now();
        let (mut count, mut bytes) = (0, 0);
        self.content.each(|digest| {
            if let Ok(blob) = self.content.stat(&digest) {
                count += 1;
                bytes += blob.allocated;
            }
            Ok(())
        })?;
        // A change within the tick of the file system's clock does not show.
        let settled = now.duration_since(changed).as_millis() > 100;
        *counted = settled.then_some(Counted {
            changed,
            count,
            bytes,
        });
        Ok((count, bytes))
    }

    fn reclaimable(&self) -> Result<u64, StoreError> {
        let marks = self.mark()?;
        let dead = self.snapshots.dead(&marks.snapshots, Timestamp::MAX)?;
        let mut bytes = dead.iter().map(|dead| dead.bytes).sum();
        self.each_unmarked(&marks, |blob| {
            bytes += blob.allocated;
            Ok(())
        })?;
        Ok(bytes)
    }
}
