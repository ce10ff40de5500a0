//! `Maintenance` in memory: mark and sweep over maps. Nothing here can be damaged.

use std::collections::BTreeSet;

use orlop_proto::store as pb;
use orlop_proto::store::SnapshotKind;
use tonic::Request;

use super::{Answer, Answers, Memory, State, answer, answers, images};

/// What must stay.
#[derive(Default)]
pub(super) struct Live {
    pub(super) blobs: BTreeSet<String>,
    snapshots: BTreeSet<String>,
}

fn count(number: usize) -> u64 {
    number as u64
}

fn bytes(size: i64) -> u64 {
    u64::try_from(size).unwrap_or_default()
}

impl State {
    /// All that names, leases and active snapshots need.
    pub(super) fn live(&self) -> Live {
        let mut live = Live::default();
        let targets = self.images.values().map(|named| named.target.clone());
        let held = self.living().flat_map(|held| &held.blobs);
        let documents = held.flat_map(|digest| self.target(digest));
        for target in targets.chain(documents) {
            if let Ok(tree) = self.tree(&target) {
                live.snapshots.extend(tree.snapshots());
                live.blobs.extend(tree.blobs);
            }
        }
        for held in self.living() {
            live.blobs.extend(held.blobs.iter().cloned());
            live.snapshots.extend(held.snapshots.iter().cloned());
        }
        let used = self.snapshots.values();
        let used = used.filter(|snapshot| snapshot.kind() != SnapshotKind::Committed);
        live.snapshots
            .extend(used.map(|snapshot| snapshot.info.key.clone()));
        self.add_parents(&mut live.snapshots);
        live
    }

    fn add_parents(&self, keys: &mut BTreeSet<String>) {
        let mut todo: Vec<_> = keys.iter().cloned().collect();
        while let Some(key) = todo.pop() {
            if let Some(snapshot) = self.snapshots.get(&key)
                && keys.insert(snapshot.info.parent.clone())
            {
                todo.push(snapshot.info.parent.clone());
            }
        }
    }

    fn collect(&mut self, dry_run: bool) -> pb::CollectResponse {
        let live = self.live();
        let dead = |state: &Self| -> (Vec<String>, Vec<String>) {
            let gone = |live: &BTreeSet<String>, key: &&String| !live.contains(*key);
            let blobs = state.blobs.keys().filter(|key| gone(&live.blobs, key));
            let snapshots = state
                .snapshots
                .keys()
                .filter(|key| gone(&live.snapshots, key));
            (blobs.cloned().collect(), snapshots.cloned().collect())
        };
        let (blobs, snapshots) = dead(self);
        let of_blobs = blobs
            .iter()
            .map(|digest| count(self.blobs[digest].bytes.len()));
        let of_snapshots = snapshots
            .iter()
            .map(|key| bytes(self.snapshots[key].bytes()));
        let response = pb::CollectResponse {
            blobs: count(blobs.len()),
            snapshots: count(snapshots.len()),
            bytes: of_blobs.chain(of_snapshots).sum(),
        };
        if !dry_run {
            self.blobs.retain(|digest, _| !blobs.contains(digest));
            self.snapshots.retain(|key, _| !snapshots.contains(key));
        }
        response
    }

    fn usage(&mut self) -> pb::DiskUsageResponse {
        let of_kind = |committed: bool| {
            let all = self.snapshots.values();
            all.filter(move |one| (one.kind() == SnapshotKind::Committed) == committed)
        };
        let sum = |committed| of_kind(committed).map(|one| bytes(one.bytes())).sum();
        pb::DiskUsageResponse {
            blobs: count(self.blobs.len()),
            blob_bytes: self
                .blobs
                .values()
                .map(|blob| count(blob.bytes.len()))
                .sum(),
            layers: count(of_kind(true).count()),
            layer_bytes: sum(true),
            snapshots: count(self.snapshots.len()),
            snapshot_bytes: sum(false),
            ingest_bytes: self
                .ingests
                .values()
                .map(|one| count(one.bytes.len()))
                .sum(),
            images: images::count(self),
            reclaimable_bytes: self.collect(true).bytes,
            budget_bytes: 0,
        }
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for Memory {
    type CheckStream = Answers<pb::CheckFinding>;

    async fn collect(&self, request: Request<pb::CollectRequest>) -> Answer<pb::CollectResponse> {
        answer(self.lock().collect(request.into_inner().dry_run))
    }

    async fn disk_usage(&self, _: Request<pb::DiskUsageRequest>) -> Answer<pb::DiskUsageResponse> {
        answer(self.lock().usage())
    }

    async fn check(&self, _: Request<pb::CheckRequest>) -> Answer<Self::CheckStream> {
        answers([])
    }
}
