//! The index: small typed tables over sled. It holds nothing that cannot be made again from files: a
//! value that is missing, damaged or stale is a question that the files answer.
//!
//! sled trusts what it finds on the disk: damage makes it panic, wait for ever, or give back something
//! else. So it is opened on a thread of its own within a bound of time, every call is guarded, every
//! value carries a checksum over its key and itself, and the first failure ends its use: the index then
//! knows nothing, until a fresh one is opened a while later.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Raise it when a table's values change their form: an index of another version is filled anew.
const SCHEMA: &[u8] = b"3";
const SCHEMA_KEY: &[u8] = b"schema";
/// sled's own default of 1 GiB is for databases.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// A whole index opens in milliseconds; a damaged one may never.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long a failed index rests before a fresh one is tried.
const REST: Duration = Duration::from_secs(10);
const CHECKSUM_BYTES: usize = 8;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Image name → where it points, and the facts of a list.
    Names,
}

/// A handle; clones share the database. No call fails: what the index does not know is asked of the
/// files.
#[derive(Clone, Debug)]
pub struct Index {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Database),
    /// Since when it is not used.
    Failed(Instant),
}

#[derive(Clone, Debug)]
struct Database {
    names: sled::Tree,
}

/// An index, and whether it has to be filled from files.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub index: Index,
    /// It is empty because it is new, or because the earlier one could not be used.
    pub empty: bool,
}

/// What an index says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<T> {
    /// A value whose checksum is right.
    Value(T),
    /// Nothing.
    Absent,
    /// Something that was not written like that.
    Damaged,
}

/// Why sled is not used.
#[derive(Debug, thiserror::Error)]
enum IndexError {
    #[error("the database failed")]
    Database(#[from] sled::Error),
    #[error("the database panicked")]
    Panicked,
    #[error("the database did not open within {} s", OPEN_MAX.as_secs())]
    Hangs,
    #[error("its tables are gone, or have another form")]
    Schema,
    #[error("cannot put it aside")]
    Aside(#[source] std::io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl Index {
    /// Opens the index at a path. A damaged or foreign one is put aside and replaced by an empty one;
    /// where even that fails, the index knows nothing. The caller holds the lock on the state directory.
    pub fn open(path: &Path) -> Opened {
        let fresh = !path.exists();
        let (state, empty) = match open_on_thread(path) {
            Ok(database) => (State::Open(database), fresh),
            Err(error) => {
                log("the index cannot be used and is made anew", path, &error);
                (replace(path), true)
            }
        };
        let inner = Inner {
            path: path.to_owned(),
            state: Mutex::new(state),
        };
        let index = Self {
            inner: Arc::new(inner),
        };
        Opened { index, empty }
    }

    /// The value of a key.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Entry<T> {
        let found = self.guarded(|database| database.tree(table).get(key));
        match found.flatten() {
            Some(bytes) => match parse(key, &bytes) {
                Some(value) => Entry::Value(value),
                None => Entry::Damaged,
            },
            None => Entry::Absent,
        }
    }

    /// Sets the value of a key. It reaches the disk soon; the file it was made from is the truth.
    pub fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) {
        let Ok(json) = serde_json::to_vec(value) else {
            return;
        };
        let mut bytes = checksum(key, &json).to_vec();
        bytes.extend(json);
        self.guarded(|database| database.tree(table).insert(key, bytes.as_slice()));
    }

    /// Removes a key; an unknown one is fine.
    pub fn remove(&self, table: Table, key: &str) {
        self.guarded(|database| database.tree(table).remove(key));
    }

    /// All keys of a table, as far as it can be read.
    pub fn keys(&self, table: Table) -> Vec<String> {
        let read = |database: &Database| {
            let keys = database.tree(table).iter().keys();
            let text = |key: sled::IVec| String::from_utf8_lossy(&key).into_owned();
            keys.map(|key| key.map(text)).collect()
        };
        self.guarded(read).unwrap_or_default()
    }

    /// Whether it is in use; otherwise every answer comes from files.
    pub fn works(&self) -> bool {
        matches!(*self.state(), State::Open(_))
    }

    /// Puts the index aside, and goes on with an empty one.
    pub fn renew(&self) {
        let mut state = self.state();
        let old = std::mem::replace(&mut *state, State::Failed(Instant::now()));
        close(old);
        *state = replace(&self.inner.path);
    }

    /// `None` when the index is not in use, or not any more.
    fn guarded<T>(&self, work: impl FnOnce(&Database) -> sled::Result<T>) -> Option<T> {
        let database = self.database()?;
        let result = catch_unwind(AssertUnwindSafe(|| work(&database)))
            .map_err(|_| IndexError::Panicked)
            .and_then(|result| result.map_err(IndexError::Database));
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                log("the index failed; files answer", &self.inner.path, &error);
                let failed = State::Failed(Instant::now());
                close(std::mem::replace(&mut *self.state(), failed));
                None
            }
        }
    }

    /// The database, a fresh one if the last has failed some time ago.
    fn database(&self) -> Option<Database> {
        let mut state = self.state();
        if let State::Failed(since) = *state
            && since.elapsed() > REST
        {
            *state = replace(&self.inner.path);
        }
        match &*state {
            State::Open(database) => Some(database.clone()),
            State::Failed(_) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    fn tree(&self, table: Table) -> &sled::Tree {
        match table {
            Table::Names => &self.names,
        }
    }
}

/// sled writes what it has when its last handle goes.
impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        close(std::mem::replace(state, State::Failed(Instant::now())));
    }
}

/// Drops a database, which may panic as well.
fn close(state: State) {
    if catch_unwind(AssertUnwindSafe(|| drop(state))).is_err() {
        tracing::warn!("the index was not closed in order");
    }
}

/// An empty index in the place of one that failed.
fn replace(path: &Path) -> State {
    let replaced = put_aside(path)
        .map_err(IndexError::Aside)
        .and_then(|()| open_on_thread(path));
    match replaced {
        Ok(database) => State::Open(database),
        Err(error) => {
            log("there is no index; files answer", path, &error);
            State::Failed(Instant::now())
        }
    }
}

/// A thread that hangs is left behind; it has the old files, which are put aside.
fn open_on_thread(path: &Path) -> Result<Database, IndexError> {
    let (sender, receiver) = channel();
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("index".to_owned())
        .spawn(move || {
            let opened = catch_unwind(|| orlop_wire::when_free(|| open_database(&path), is_locked));
            // Who waits no longer does not want it.
            sender
                .send(opened.unwrap_or(Err(IndexError::Panicked)))
                .ok();
        })
        .map_err(IndexError::Thread)?;
    match receiver.recv_timeout(OPEN_MAX) {
        Ok(opened) => opened,
        Err(RecvTimeoutError::Timeout) => Err(IndexError::Hangs),
        Err(RecvTimeoutError::Disconnected) => Err(IndexError::Panicked),
    }
}

/// sled says it in words.
fn is_locked(error: &IndexError) -> bool {
    matches!(error, IndexError::Database(sled::Error::Io(io))
        if io.to_string().contains("could not acquire lock"))
}

fn open_database(path: &Path) -> Result<Database, IndexError> {
    let fresh = !path.exists();
    let database = sled::Config::default()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .open()?;
    // What sled does not recognize at all it silently begins anew, over what is there.
    match database.insert(SCHEMA_KEY, SCHEMA)? {
        Some(schema) if schema == SCHEMA => {}
        None if fresh => {}
        _ => return Err(IndexError::Schema),
    }
    let names = database.open_tree("names")?;
    Ok(Database { names })
}

fn checksum(key: &str, json: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new()
        .chain_update(key)
        .chain_update([0])
        .chain_update(json)
        .finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    sum
}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Option<T> {
    let (sum, json) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    if sum != checksum(key, json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn log(message: &'static str, path: &Path, error: &IndexError) {
    let error = orlop_proto::error::chain(error);
    tracing::warn!(path = %path.display(), error, "{message}");
}

/// One old index is kept, for whoever wants to know what happened to it.
fn put_aside(path: &Path) -> std::io::Result<()> {
    let aside = path.with_extension("old");
    let missing_is_fine = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let older = match fs::symlink_metadata(&aside) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&aside),
        _ => fs::remove_file(&aside),
    };
    missing_is_fine(older)?;
    missing_is_fine(fs::rename(path, &aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Damage = fn(&Path);

    fn open(path: &Path) -> Opened {
        Index::open(path)
    }

    #[test]
    fn an_index_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let opened = open(&path);
        assert!(opened.empty);
        opened.index.put(Table::Names, "a", &1);
        drop(opened);
        let opened = open(&path);
        assert!(!opened.empty);
        assert_eq!(opened.index.get(Table::Names, "a"), Entry::Value(1));
        assert_eq!(opened.index.keys(Table::Names), ["a"]);
        opened.index.remove(Table::Names, "a");
        assert_eq!(opened.index.get::<i32>(Table::Names, "a"), Entry::Absent);
    }

    #[test]
    fn a_damaged_index_is_put_aside() {
        let damages: [(&str, Damage); 3] = [
            ("garbage", |path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join("conf"), b"garbage").unwrap();
                fs::write(path.join("db"), vec![7; 10_000]).unwrap();
            }),
            ("a file", |path| fs::write(path, b"a file").unwrap()),
            ("a directory in it", |path| {
                fs::create_dir_all(path.join("db")).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("index");
            damage(&path);
            let opened = open(&path);
            assert!(opened.empty, "{what}");
            assert!(opened.index.works(), "{what}");
            assert!(directory.path().join("index.old").exists());
        }
    }

    #[test]
    fn an_index_of_another_form_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let database = sled::open(&path).unwrap();
        database.insert(SCHEMA_KEY, b"2").unwrap();
        drop(database);
        let opened = open(&path);
        assert!(opened.empty);
        assert!(opened.index.keys(Table::Names).is_empty());
    }

    #[test]
    fn a_value_that_was_not_written_like_that_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let index = open(&directory.path().join("index")).index;
        index.put(Table::Names, "a", &1);
        index.guarded(|database| {
            let value = database.names.get("a")?.unwrap_or_default();
            database.names.insert("b", value)
        });
        assert_eq!(index.get(Table::Names, "a"), Entry::Value(1));
        assert_eq!(index.get::<i32>(Table::Names, "b"), Entry::Damaged);
    }

    #[test]
    fn an_index_that_panics_knows_nothing_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let index = open(&directory.path().join("index")).index;
        index.put(Table::Names, "a", &1);
        let broken: Option<()> = index.guarded(|_| panic!("as sled does"));
        assert!(broken.is_none() && !index.works());
        assert_eq!(index.get::<i32>(Table::Names, "a"), Entry::Absent);
        index.put(Table::Names, "a", &2);
        index.renew();
        assert!(index.works());
        assert_eq!(index.get::<i32>(Table::Names, "a"), Entry::Absent);
    }
}
