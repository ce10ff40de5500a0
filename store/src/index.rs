//! The index: small typed tables over sled. It holds nothing that cannot be made again from files, so
//! that a lost, damaged or stale one is put aside and filled anew.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Raise it when a table's values change their form: an index of another version is filled anew.
const SCHEMA: &[u8] = b"2";
const SCHEMA_KEY: &[u8] = b"schema";
/// Present only while no process uses the index: without it the last one was killed, and what it
/// wrote last may not have reached the index.
const CLEAN_KEY: &[u8] = b"clean";
/// sled's own default of 1 GiB is for databases.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Image name → where it points, and the facts of a list.
    Names,
}

/// A handle; clones share the database.
#[derive(Clone)]
pub struct Index {
    inner: Arc<Inner>,
}

struct Inner {
    database: sled::Db,
    names: sled::Tree,
}

/// An index, and whether it must be filled from files.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub index: Index,
    /// It is empty because it is new, or because the earlier one could not be trusted.
    pub empty: bool,
}

/// Why the index failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database.
    #[error("the database failed")]
    Database(#[from] sled::Error),
    /// A value that does not have the form of its table.
    #[error("a value of table {table:?} cannot be understood")]
    Value {
        /// Which table.
        table: Table,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The old one cannot be put aside.
    #[error("cannot put {} aside", path.display())]
    Aside {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Index {
    /// Opens the index at a path. A missing, damaged, stale or foreign one is replaced by an empty
    /// one; the caller must hold the lock on the state directory and fill an empty index.
    pub fn open(path: &Path) -> Result<Opened, IndexError> {
        match Self::open_trusted(path) {
            Ok(Some(index)) => Ok(Opened {
                index,
                empty: false,
            }),
            Ok(None) => Self::replace(path),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the index cannot be opened");
                Self::replace(path)
            }
        }
    }

    /// The value of a key.
    pub fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &str,
    ) -> Result<Option<T>, IndexError> {
        match self.tree(table).get(key)? {
            Some(bytes) => parse(table, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Sets the value of a key. It reaches the disk soon; the file it was made from is the truth.
    pub fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<(), IndexError> {
        let bytes =
            serde_json::to_vec(value).map_err(|source| IndexError::Value { table, source })?;
        self.tree(table).insert(key, bytes)?;
        Ok(())
    }

    /// Removes a key; an unknown one is fine.
    pub fn remove(&self, table: Table, key: &str) -> Result<(), IndexError> {
        self.tree(table).remove(key)?;
        Ok(())
    }

    /// All pairs whose key begins with the prefix, in order of the key.
    pub fn scan<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, IndexError> {
        self.scan_after(table, prefix, "", usize::MAX)
    }

    /// Like [`Self::scan`], from behind the key `after`, at most `limit` pairs.
    pub fn scan_after<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, IndexError> {
        use std::ops::Bound;
        let start = if after.is_empty() || after < prefix {
            Bound::Included(prefix.as_bytes().to_vec())
        } else {
            Bound::Excluded(after.as_bytes().to_vec())
        };
        let mut pairs = Vec::new();
        for pair in self.tree(table).range((start, Bound::Unbounded)) {
            let (key, bytes) = pair?;
            if !key.starts_with(prefix.as_bytes()) || pairs.len() >= limit {
                break;
            }
            let key = String::from_utf8_lossy(&key).into_owned();
            pairs.push((key, parse(table, &bytes)?));
        }
        Ok(pairs)
    }

    /// The number of keys.
    pub fn count(&self, table: Table) -> usize {
        self.tree(table).len()
    }

    fn tree(&self, table: Table) -> &sled::Tree {
        match table {
            Table::Names => &self.inner.names,
        }
    }

    /// `None` when it opens and is not to be trusted.
    fn open_trusted(path: &Path) -> Result<Option<Self>, IndexError> {
        if !path.exists() {
            return Ok(None);
        }
        let database = open_database(path)?;
        let schema = database.get(SCHEMA_KEY)?;
        let clean = database.remove(CLEAN_KEY)?.is_some();
        if !clean || schema.as_deref() != Some(SCHEMA) {
            return Ok(None);
        }
        database.flush()?;
        Ok(Some(Self::with(database)?))
    }

    fn replace(path: &Path) -> Result<Opened, IndexError> {
        put_aside(path)?;
        let database = open_database(path)?;
        database.insert(SCHEMA_KEY, SCHEMA)?;
        let index = Self::with(database)?;
        Ok(Opened { index, empty: true })
    }

    fn with(database: sled::Db) -> Result<Self, IndexError> {
        let tree = |name| database.open_tree(name);
        Ok(Self {
            inner: Arc::new(Inner {
                names: tree("names")?,
                database,
            }),
        })
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// The last handle closes the index in order, so that the next process can trust it.
impl Drop for Inner {
    fn drop(&mut self) {
        let closed = self
            .database
            .flush()
            .and_then(|_| self.database.insert(CLEAN_KEY, &[]))
            .and_then(|_| self.database.flush());
        if let Err(error) = closed {
            tracing::warn!(%error, "the index was not closed in order, the next start fills it anew");
        }
    }
}

fn open_database(path: &Path) -> Result<sled::Db, sled::Error> {
    sled::Config::default()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .open()
}

fn parse<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, IndexError> {
    serde_json::from_slice(bytes).map_err(|source| IndexError::Value { table, source })
}

/// One old index is kept, for whoever wants to know what happened to it.
fn put_aside(path: &Path) -> Result<(), IndexError> {
    let aside = path.with_extension("old");
    let failed = |source| IndexError::Aside {
        path: path.to_owned(),
        source,
    };
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    match fs::rename(path, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                copy(&entry.path(), &to.join(entry.file_name()));
            } else {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }

    #[test]
    fn an_index_closed_in_order_is_trusted_and_a_killed_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let opened = Index::open(&path).unwrap();
        assert!(opened.empty);
        opened.index.put(Table::Names, "a", &1).unwrap();
        drop(opened);

        let opened = Index::open(&path).unwrap();
        assert!(!opened.empty);
        assert_eq!(opened.index.get::<i32>(Table::Names, "a").unwrap(), Some(1));
        let killed = directory.path().join("killed");
        copy(&path, &killed);
        let reopened = Index::open(&killed).unwrap();
        assert!(reopened.empty);
        assert_eq!(reopened.index.count(Table::Names), 0);
    }

    #[test]
    fn a_damaged_index_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("conf"), b"garbage").unwrap();
        fs::write(path.join("db"), vec![7; 10_000]).unwrap();
        assert!(Index::open(&path).unwrap().empty);
        assert!(directory.path().join("index.old").exists());
    }

    #[test]
    fn a_scan_is_ordered_and_can_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&directory.path().join("index")).unwrap().index;
        for key in ["b/2", "a", "b/1", "b/3", "c"] {
            index.put(Table::Names, key, &0).unwrap();
        }
        let keys = |pairs: Vec<(String, i32)>| pairs.into_iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(
            keys(index.scan(Table::Names, "b/").unwrap()),
            ["b/1", "b/2", "b/3"]
        );
        let page = index.scan_after(Table::Names, "b/", "b/1", 1).unwrap();
        assert_eq!(keys(page), ["b/2"]);
    }
}
