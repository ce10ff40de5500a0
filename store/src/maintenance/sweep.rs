//! Removing everything that is not marked.

use jiff::Timestamp;

use super::mark::{Key, Marks};
use super::{Collected, Maintenance};
use crate::StoreError;

impl Maintenance {
    /// Removes all that is not marked and was not wanted since `cutoff`. Snapshots go first: a layer is
    /// larger than its blob.
    pub(super) fn sweep(&self, cutoff: Timestamp, dry_run: bool) -> Result<Collected, StoreError> {
        let marks = self.mark()?;
        crate::failpoint::reach("collect.mark.done");
        let snapshots = self.snapshots.collect(&marks.snapshots, cutoff, dry_run)?;
        let mut collected = Collected {
            snapshots: snapshots.snapshots,
            bytes: snapshots.bytes,
            blobs: 0,
        };
        self.each_unmarked(&marks, |blob| {
            let old = blob.wanted < cutoff;
            if old && (dry_run || self.content.remove_unless_wanted(&blob.digest, cutoff)?) {
                crate::failpoint::reach("collect.blob.removed");
                collected.blobs += 1;
                collected.bytes += blob.size;
            }
            Ok(())
        })?;
        Ok(collected)
    }

    /// Tells every blob that is not marked. Of those that are, only the name is looked at.
    pub(super) fn each_unmarked(
        &self,
        marks: &Marks,
        mut tell: impl FnMut(crate::content::Blob) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let marked = |digits: &str| marks.holds(Key::of_digits(digits));
        self.content
            .each_but(marked, |digest| match self.content.stat(&digest) {
                Ok(blob) => tell(blob),
                Err(StoreError::BlobNotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            })
    }
}
