//! Removing what nothing needs: committed snapshots that no root reaches, then layers of none.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::error::Result;
use crate::snapshots::Snapshots;
use crate::snapshots::record::{Kind, Record};

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of their trees.
    pub bytes: u64,
}

impl Snapshots {
    /// Removes committed snapshots that are neither in `live` nor below a live, an active or a viewed
    /// one. `live` holds names, for example the chain ids of the images. What was made since `cutoff`
    /// is live: a caller that has just committed it may be about to hold it.
    pub fn collect(
        &self,
        live: &HashSet<String>,
        cutoff: Timestamp,
        dry_run: bool,
    ) -> Result<Collected> {
        let mut collected = Collected::default();
        let reached = self.reached(live, cutoff);
        let mut dead: Vec<_> = self.list();
        dead.retain(|record| record.kind == Kind::Committed && !reached.contains(&record.key));
        // Children go before their parents.
        dead.sort_by_key(|record| {
            let below = self.parents_of(&record.key).map_or(0, |chain| chain.len());
            std::cmp::Reverse(below)
        });
        for record in dead {
            let bytes = self.usage(&record.key).map_or(0, |usage| usage.bytes);
            if !dry_run {
                self.remove_unless_used(&record.key)?;
            }
            collected.snapshots += 1;
            collected.bytes += bytes;
        }
        if !dry_run {
            self.remove_unused_layers(cutoff)?;
        }
        Ok(collected)
    }

    /// Takes the grace of these committed snapshots away: the name that they belonged to is gone.
    /// Those that something else needs stay all the same.
    pub fn unwant(&self, names: impl IntoIterator<Item = String>) {
        let mut unwanted = self.inner.unwanted();
        unwanted.extend(names.into_iter().filter(|name| self.stat(name).is_ok()));
    }

    fn reached(&self, live: &HashSet<String>, cutoff: Timestamp) -> HashSet<String> {
        let mut unwanted = self.inner.unwanted();
        unwanted.retain(|name| self.stat(name).is_ok());
        let wanted = |record: &Record| {
            let fresh = record.created >= cutoff && !unwanted.contains(&record.key);
            fresh || live.contains(&record.key)
        };
        let roots = self
            .list()
            .into_iter()
            .filter_map(|record| match record.kind {
                Kind::Committed => wanted(&record).then_some(record.key),
                Kind::Active | Kind::View => record.parent,
            });
        let mut reached = HashSet::new();
        for root in roots {
            let chain = self.parents_of(&root).unwrap_or_default();
            reached.extend(chain.into_iter().map(|record| record.key));
        }
        reached
    }

    /// Something may have been built on it since it was found dead: then it stays.
    fn remove_unless_used(&self, key: &str) -> Result<()> {
        match self.remove(key) {
            Err(crate::error::StoreError::SnapshotInUse { .. }) => Ok(()),
            other => other,
        }
    }

    /// A layer that has just arrived waits for its snapshot.
    fn remove_unused_layers(&self, cutoff: Timestamp) -> Result<()> {
        let inner = &self.inner;
        for layer in inner.shelf.ids() {
            if inner.shelf.made(&layer).is_some_and(|made| made < cutoff) {
                inner.remove_layer_unless_used(&layer)?;
            }
        }
        Ok(())
    }

    /// Bytes and inodes of all layers.
    pub fn layers_usage(&self) -> Result<(u64, u64)> {
        let mut bytes = 0;
        let ids = self.inner.shelf.ids();
        for id in &ids {
            bytes += self.layer_usage(id)?.bytes;
        }
        Ok((ids.len() as u64, bytes))
    }
}
