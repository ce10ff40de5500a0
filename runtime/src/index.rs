//! The index of containers: the one file that knows sled. It saves reading and parsing every record
//! file at start-up, and can be deleted at any time: each entry carries the stamp of the file that it
//! was made from, and counts only while the file still has that stamp.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::containers::record::{self, Record};
use crate::error::{Error, Result};

/// What sled says when it fails.
pub(crate) type IndexError = sled::Error;

/// Entries are written often and read once, at the start; sled's default is 1 GiB.
const CACHE_BYTES: u64 = 1024 * 1024;

/// The index; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    records: sled::Tree,
    /// `ROOT/runtime/containers`.
    containers: PathBuf,
}

/// What tells two states of a file apart.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

#[derive(Serialize)]
struct Entry<'a> {
    stamp: Stamp,
    record: &'a Record,
}

#[derive(Deserialize)]
struct OwnedEntry {
    stamp: Stamp,
    record: Record,
}

impl Index {
    /// Opens the index; one that cannot be opened is put aside and begun anew.
    pub(crate) fn open(path: &Path, containers: PathBuf) -> Result<Self> {
        let records = open(path).or_else(|error| {
            let aside = path.with_extension(format!("damaged-{}", Timestamp::now().as_second()));
            tracing::warn!(%error, aside = %aside.display(), "the index is damaged: starting a new one");
            fs::rename(path, &aside).map_err(Error::file("put aside", path))?;
            open(path).map_err(|source| Error::Index {
                path: path.to_owned(),
                source,
            })
        })?;
        Ok(Self {
            records,
            containers,
        })
    }

    /// Keeps a record as its file has it now. A failure costs a slower start-up, nothing else.
    pub(crate) fn put(&self, record: &Record) {
        let Some(stamp) = stamp(&self.containers.join(&record.id)) else {
            return;
        };
        let entry = serde_json::to_vec(&Entry { stamp, record });
        let kept = entry.map(|bytes| self.records.insert(&record.id, bytes));
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "cannot write to the index");
        }
    }

    /// Drops an entry.
    pub(crate) fn remove(&self, id: &str) {
        if let Err(error) = self.records.remove(id) {
            tracing::warn!(%error, "cannot write to the index");
        }
    }

    /// A record, if its file is still the one that it was made from.
    pub(crate) fn get(&self, directory: &Path, id: &str) -> Option<Record> {
        let bytes = self.records.get(id).ok()??;
        let entry: OwnedEntry = serde_json::from_slice(&bytes).ok()?;
        (Some(entry.stamp) == stamp(directory)).then_some(entry.record)
    }
}

fn open(path: &Path) -> Result<sled::Tree, IndexError> {
    let config = sled::Config::new();
    let config = config.path(path).cache_capacity(CACHE_BYTES);
    orlop_wire::when_free(|| config.open(), is_locked)?.open_tree("records")
}

/// sled says it in words.
fn is_locked(error: &IndexError) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

fn stamp(directory: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(directory.join(record::FILE)).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        size: metadata.len(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_index_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("index");
        fs::write(&path, b"not a directory").unwrap();
        let index = Index::open(&path, root.path().to_owned()).unwrap();
        assert!(index.get(root.path(), "x").is_none());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
