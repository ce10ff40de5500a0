//! The one file that knows sled: cache records by key, and creation times of images. Losing it costs
//! building again, nothing else; a damaged one is put aside.

use std::path::{Path, PathBuf};

use crate::error::BuildError;

/// Bytes of memory that sled may use; records are small.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Keys to bytes.
#[derive(Clone, Debug)]
pub struct Index {
    path: PathBuf,
    records: sled::Tree,
    times: sled::Tree,
}

impl Index {
    /// Opens the index; one that cannot be opened is renamed aside and begun anew.
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        match Self::try_open(path) {
            Ok(index) => Ok(index),
            Err(error) => {
                let aside = path.with_extension(crate::random_id("damaged"));
                tracing::warn!(path = %path.display(), %error, "the cache index is damaged, beginning a new one");
                let failed = |problem: String| state(path, &problem);
                std::fs::rename(path, aside).map_err(|e| failed(e.to_string()))?;
                Self::try_open(path).map_err(|e| failed(e.to_string()))
            }
        }
    }

    fn try_open(path: &Path) -> sled::Result<Self> {
        let config = sled::Config::new();
        let config = config.path(path).cache_capacity(CACHE_BYTES);
        let db = orlop_wire::when_free(|| config.open(), is_locked)?;
        Ok(Self {
            path: path.to_owned(),
            records: db.open_tree("records")?,
            times: db.open_tree("times")?,
        })
    }

    fn failed(&self, error: &sled::Error) -> BuildError {
        state(&self.path, &error.to_string())
    }

    /// A record.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BuildError> {
        let value = self.records.get(key).map_err(|error| self.failed(&error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Writes a record. It reaches the disk in the background: what is lost is built again.
    pub fn put(&self, key: &str, value: Vec<u8>) -> Result<(), BuildError> {
        self.records
            .insert(key, value)
            .map(|_| ())
            .map_err(|error| self.failed(&error))
    }

    /// Removes a record.
    pub fn remove(&self, key: &str) -> Result<(), BuildError> {
        self.records
            .remove(key)
            .map(|_| ())
            .map_err(|error| self.failed(&error))
    }

    /// All records.
    pub fn all(&self) -> Result<Vec<Vec<u8>>, BuildError> {
        let values = self.records.iter().values();
        values
            .map(|value| {
                value
                    .map(|v| v.to_vec())
                    .map_err(|error| self.failed(&error))
            })
            .collect()
    }

    /// The time kept under a key, which becomes `now` the first time.
    pub fn time(&self, key: &str, now: i64) -> Result<i64, BuildError> {
        let kept = self.times.get(key).map_err(|error| self.failed(&error))?;
        if let Some(bytes) = kept.and_then(|value| <[u8; 8]>::try_from(&*value).ok()) {
            return Ok(i64::from_be_bytes(bytes));
        }
        self.times
            .insert(key, &now.to_be_bytes())
            .map_err(|error| self.failed(&error))?;
        Ok(now)
    }

    /// Forgets all times.
    pub fn forget_times(&self) -> Result<(), BuildError> {
        self.times.clear().map_err(|error| self.failed(&error))
    }
}

fn state(path: &Path, problem: &str) -> BuildError {
    BuildError::State {
        path: path.display().to_string(),
        problem: problem.to_owned(),
    }
}

/// sled says it in words.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}
