//! The memory of what steps made: key to record.

use orlop_proto::store::{Resource, resource};
use serde::{Deserialize, Serialize};

use crate::error::{BuildError, Doing as _};
use crate::index::Index;
use crate::ports::{Layer, Ports};

/// The lease that keeps what records name.
pub const LEASE: &str = "builder-cache";
/// A record's last use is written again only after so long: a cached build writes nothing.
const TOUCH_NANOS: i64 = 60 * 1_000_000_000;

/// These inputs gave that snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the inputs.
    pub key: String,
    /// The committed snapshot.
    pub snapshot: String,
    /// The snapshot below it.
    pub parent: String,
    /// The instruction, without credentials and values of arguments.
    pub description: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// Nanoseconds since 1970.
    pub last_used: i64,
    /// Of the snapshot's own changes.
    pub bytes: i64,
    /// The layer, once something needed it.
    pub layer: Option<Layer>,
}

/// The records.
#[derive(Clone, Debug)]
pub struct Cache {
    index: Index,
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Cache {
    /// Over this index.
    pub fn new(index: Index) -> Self {
        Self { index }
    }

    /// A record; one that cannot be read is none.
    pub fn get(&self, key: &str) -> Result<Option<Record>, BuildError> {
        let bytes = self.index.get(key)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes a record.
    pub fn put(&self, record: &Record) -> Result<(), BuildError> {
        let bytes = serde_json::to_vec(record).map_err(|error| BuildError::State {
            path: record.key.clone(),
            problem: error.to_string(),
        })?;
        self.index.put(&record.key, bytes)
    }

    /// Marks a record as used.
    pub fn touch(&self, record: &Record) -> Result<(), BuildError> {
        let now = now();
        match now - record.last_used > TOUCH_NANOS {
            true => self.put(&Record {
                last_used: now,
                ..record.clone()
            }),
            false => Ok(()),
        }
    }

    /// When an image that changes no files was first made.
    pub fn first_made(&self, key: &str) -> Result<i64, BuildError> {
        self.index.time(key, now())
    }

    /// All records, by key.
    pub fn list(&self) -> Result<Vec<Record>, BuildError> {
        let all = self.index.all()?;
        Ok(all
            .iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok())
            .collect())
    }

    /// Forgets records that were not used for so long, and lets go of what they name. The number of
    /// records.
    pub async fn prune(&self, unused_seconds: u64, ports: &Ports) -> Result<u64, BuildError> {
        let span = i64::try_from(unused_seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000_000);
        let before = now().saturating_sub(span);
        let old: Vec<Record> = self
            .list()?
            .into_iter()
            .filter(|record| unused_seconds == 0 || record.last_used < before)
            .collect();
        if unused_seconds == 0 {
            self.index.forget_times()?;
        }
        old.iter()
            .try_for_each(|record| self.index.remove(&record.key))?;
        let resources: Vec<Resource> = old.iter().flat_map(resources).collect();
        if !resources.is_empty() {
            // The lease is there wherever a record was made, unless the store was emptied since.
            ports
                .leases
                .put(LEASE, 0)
                .await
                .doing(|| "releasing cached snapshots".to_owned())?;
            let released = ports.leases.release(LEASE, resources).await;
            released.doing(|| "releasing cached snapshots".to_owned())?;
        }
        Ok(old.len() as u64)
    }
}

fn resources(record: &Record) -> Vec<Resource> {
    let snapshot = resource::Resource::Snapshot(record.snapshot.clone());
    let blob = record
        .layer
        .as_ref()
        .map(|layer| resource::Resource::Blob(layer.digest.clone()));
    let all = [Some(snapshot), blob].into_iter().flatten();
    all.map(|resource| Resource {
        resource: Some(resource),
    })
    .collect()
}
