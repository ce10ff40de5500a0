//! The sled index over the registry's files: lookups, lists in order, and who has which blob. It can
//! be deleted: every entry except what was learnt about other registries is in a file, and those are
//! only good guesses. This is the one file of the crate that names sled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sled::{Db, IVec, Tree};

/// Holds the working set of a large registry without weighing on a small host.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Present while the index was closed in order; without it the files are read again.
const CLEAN: &str = "clean";

/// The index, or its files, failed.
#[derive(Debug, thiserror::Error)]
#[error("the index at {path} failed", path = .path.display())]
pub struct IndexError {
    path: PathBuf,
    source: Arc<sled::Error>,
}

/// Why the index cannot be opened, even after the broken one was moved aside.
type Result<T> = std::result::Result<T, IndexError>;

/// A kind of entry; each is a tree of its own. Keys are parts joined by NUL, which is in no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// repository
    Repositories,
    /// repository, digest
    Blobs,
    /// digest, repository: the same the other way round
    Holders,
    /// repository, digest → the manifest's record
    Manifests,
    /// repository, tag → digest
    Tags,
    /// repository, subject's digest, digest → descriptor
    Referrers,
    /// another registry's host, digest, repository
    Remotes,
}

const TABLES: [(Table, &str); 7] = [
    (Table::Repositories, "repositories"),
    (Table::Blobs, "blobs"),
    (Table::Holders, "holders"),
    (Table::Manifests, "manifests"),
    (Table::Tags, "tags"),
    (Table::Referrers, "referrers"),
    (Table::Remotes, "remotes"),
];

/// The index.
#[derive(Debug)]
pub struct Index {
    db: Db,
    trees: Vec<Tree>,
    path: PathBuf,
}

impl Index {
    /// Opens the index, and tells whether it must be filled from the files: it is new, was broken, or
    /// was not closed in order.
    pub fn open(path: &Path) -> Result<(Self, bool)> {
        let failed = |source| IndexError {
            path: path.to_owned(),
            source: Arc::new(source),
        };
        let clean = fs::remove_file(path.join(CLEAN)).is_ok();
        let (db, whole) = match open_db(path) {
            Ok(db) => (db, clean),
            Err(error) if is_locked(&error) => return Err(failed(error)),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the index is broken: made anew from the files");
                set_aside(path).map_err(|error| failed(error.into()))?;
                (open_db(path).map_err(failed)?, false)
            }
        };
        let trees: std::result::Result<Vec<_>, _> =
            TABLES.iter().map(|(_, name)| db.open_tree(name)).collect();
        let index = Self {
            trees: trees.map_err(failed)?,
            db,
            path: path.to_owned(),
        };
        if !whole {
            index.clear()?;
        }
        Ok((index, !whole))
    }

    /// Writes everything and marks the index as whole. Nothing may be changed after it.
    pub fn close(&self) -> Result<()> {
        self.db.flush().map_err(|error| self.failed(error))?;
        fs::File::create(self.path.join(CLEAN))
            .and_then(|file| file.sync_all())
            .map_err(|error| self.failed(error.into()))
    }

    /// The value at a key.
    pub fn get(&self, table: Table, key: &[&str]) -> Result<Option<String>> {
        let value = self.tree(table).get(join(key));
        Ok(value.map_err(|error| self.failed(error))?.map(text))
    }

    /// Whether a key is there.
    pub fn has(&self, table: Table, key: &[&str]) -> Result<bool> {
        let found = self.tree(table).contains_key(join(key));
        found.map_err(|error| self.failed(error))
    }

    /// Sets a key.
    pub fn set(&self, table: Table, key: &[&str], value: &str) -> Result<()> {
        let done = self.tree(table).insert(join(key), value.as_bytes());
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// Removes a key.
    pub fn remove(&self, table: Table, key: &[&str]) -> Result<()> {
        let done = self.tree(table).remove(join(key));
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// Up to `most` entries below a prefix of whole parts, in order, after the part `last` (empty: from
    /// the first): what follows the prefix, and the value.
    pub fn list(
        &self,
        table: Table,
        prefix: &[&str],
        last: &str,
        most: usize,
    ) -> Result<Vec<(String, String)>> {
        let prefix = join_prefix(prefix);
        let mut from = prefix.clone();
        from.extend_from_slice(last.as_bytes());
        if !last.is_empty() {
            // The smallest key after `last` itself, which no part can be.
            from.push(0);
        }
        let mut entries = Vec::new();
        for entry in self.tree(table).range(from..) {
            let (key, value) = entry.map_err(|error| self.failed(error))?;
            let Some(rest) = key.strip_prefix(prefix.as_slice()) else {
                break;
            };
            if entries.len() == most {
                break;
            }
            entries.push((String::from_utf8_lossy(rest).into_owned(), text(value)));
        }
        Ok(entries)
    }

    fn clear(&self) -> Result<()> {
        for tree in &self.trees {
            tree.clear().map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn tree(&self, table: Table) -> &Tree {
        let position = TABLES.iter().position(|(t, _)| *t == table);
        &self.trees[position.unwrap_or_default()]
    }

    fn failed(&self, source: sled::Error) -> IndexError {
        IndexError {
            path: self.path.clone(),
            source: Arc::new(source),
        }
    }
}

fn open_db(path: &Path) -> std::result::Result<Db, sled::Error> {
    let config = sled::Config::new();
    let config = config.path(path).cache_capacity(CACHE_BYTES);
    orlop_wire::when_free(|| config.open(), is_locked)
}

/// sled says it in words.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

fn set_aside(path: &Path) -> io::Result<()> {
    let seconds = jiff::Timestamp::now().as_second();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".broken.{seconds}"));
    fs::rename(path, PathBuf::from(name))
}

fn join(parts: &[&str]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

fn join_prefix(parts: &[&str]) -> Vec<u8> {
    let mut key = join(parts);
    if !parts.is_empty() {
        key.push(0);
    }
    key
}

fn text(value: IVec) -> String {
    String::from_utf8_lossy(&value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_order_and_go_on_after_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let (index, new) = Index::open(&directory.path().join("index")).unwrap();
        assert!(new);
        for tag in ["a", "a-1", "b", "c"] {
            index.set(Table::Tags, &["team/app", tag], "d").unwrap();
        }
        index.set(Table::Tags, &["team/app2", "x"], "d").unwrap();
        let names = |last, most| -> Vec<String> {
            let list = index.list(Table::Tags, &["team/app"], last, most).unwrap();
            list.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("", 9), ["a", "a-1", "b", "c"]);
        assert_eq!(names("a", 2), ["a-1", "b"]);
        assert_eq!(names("c", 2), Vec::<String>::new());
    }

    #[test]
    fn a_broken_index_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("conf"), "nonsense").unwrap();
        fs::write(path.join("db"), vec![7; 4096]).unwrap();
        let (index, rebuild) = Index::open(&path).unwrap();
        assert!(rebuild);
        index.set(Table::Repositories, &["a"], "").unwrap();
        assert!(index.has(Table::Repositories, &["a"]).unwrap());
    }
}
