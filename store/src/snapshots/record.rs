//! What is known of each snapshot. In memory for answers, in `meta.json` for good.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::layers::compress::Codec;
use crate::layers::shelf::Shelf;
use crate::locks::Mutex;
use crate::quarantine::{Quarantine, Suspect};
use crate::snapshots::files::{self, Trash};
use crate::snapshots::not_found;

const META: &str = "meta.json";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Writable, over its parent.
    Active,
    /// Its parent, read-only.
    View,
    /// Read-only, and can be a parent.
    Committed,
}

/// A snapshot as a layer blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Of the blob.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// The snapshot changed nothing.
    pub empty: bool,
}

/// What `meta.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Key of an active snapshot or a view, name of a committed one.
    pub key: String,
    /// Which of them.
    pub kind: Kind,
    /// The committed snapshot below.
    pub parent: Option<String>,
    /// The layer of a committed one.
    pub layer: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// The caller's own words.
    pub labels: HashMap<String, String>,
    /// Digest of the plain tar of its changes, once known.
    pub diff_id: Option<String>,
    /// Blobs that were made of it, or that it was made of.
    pub blobs: BTreeMap<Codec, Packed>,
}

impl Record {
    /// A new snapshot.
    pub fn new(
        key: &str,
        kind: Kind,
        parent: Option<String>,
        labels: HashMap<String, String>,
    ) -> Self {
        Self {
            key: key.to_owned(),
            kind,
            parent,
            layer: None,
            created: Timestamp::now(),
            labels,
            diff_id: None,
            blobs: BTreeMap::new(),
        }
    }

    /// The error of an operation that needs another kind.
    pub fn wrong_kind(&self, needed: &'static str) -> StoreError {
        StoreError::SnapshotKind {
            key: self.key.clone(),
            is: match self.kind {
                Kind::Active => "active",
                Kind::View => "a view",
                Kind::Committed => "committed",
            },
            needed,
        }
    }
}

/// All records.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    known: Mutex<BTreeMap<String, Arc<Record>>>,
}

/// The directory of a key. A colon would part directories in the options of an overlay mount.
fn place_name(key: &str) -> String {
    key.replace(':', "%3A")
}

impl Records {
    /// Reads all; what is not whole goes to the trash.
    pub fn open(directory: PathBuf, shelf: &Shelf, trash: &Trash) -> Result<Self> {
        files::make_directory(&directory)?;
        let records = Self {
            directory,
            known: Mutex::new("snapshots", BTreeMap::new()),
        };
        for name in files::entries(&records.directory)? {
            let place = records.directory.join(&name);
            match files::read_json::<Record>(&place.join(META)) {
                Ok(mut record) if !name.starts_with('.') && whole(&record, &place, shelf) => {
                    record.key = Self::key_of(&name);
                    records.known().insert(record.key.clone(), Arc::new(record));
                }
                Err(_) if !name.starts_with('.') && has_content(&place.join(META)) => {
                    let quarantine = Quarantine::beside(&records.directory);
                    quarantine.put(Suspect::Snapshot, &name, &place)?;
                }
                _ => {
                    tracing::warn!(name, "a snapshot that was not finished is dropped");
                    trash.throw(&place)?;
                }
            }
        }
        Ok(records)
    }

    /// One record.
    pub fn get(&self, key: &str) -> Result<Record> {
        let known = self.known().get(key).cloned();
        known
            .map(Arc::unwrap_or_clone)
            .ok_or_else(|| not_found(key))
    }

    /// All, in order of the key.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.known().values().cloned().collect()
    }

    /// A committed snapshot and what it is built on, topmost first.
    pub fn chain(&self, top: Option<&str>) -> Result<Vec<Record>> {
        let known = self.known();
        let mut chain: Vec<Record> = Vec::new();
        let mut next = top.map(str::to_owned);
        while let Some(name) = next.take() {
            let record = known.get(&name).ok_or_else(|| not_found(&name))?;
            next.clone_from(&record.parent);
            chain.push(Record::clone(record));
        }
        Ok(chain)
    }

    /// Something that is built on a snapshot.
    pub fn child_of(&self, key: &str) -> Option<String> {
        self.known()
            .values()
            .find(|record| record.parent.as_deref() == Some(key))
            .map(|record| record.key.clone())
    }

    /// The layers of all.
    pub fn layers(&self) -> HashSet<String> {
        let known = self.known();
        known
            .values()
            .filter_map(|record| record.layer.clone())
            .collect()
    }

    /// Whether a layer belongs to a snapshot.
    pub fn uses_layer(&self, layer: &str) -> bool {
        self.known()
            .values()
            .any(|record| record.layer.as_deref() == Some(layer))
    }

    /// `upper` and `work` of an active snapshot.
    pub fn work_of(&self, key: &str) -> (PathBuf, PathBuf) {
        let place = self.place(key);
        (place.join(UPPER), place.join(WORK))
    }

    /// The key of a directory.
    pub(crate) fn key_of(name: &str) -> String {
        name.replace("%3A", ":")
    }

    /// What the file of a snapshot says.
    pub(crate) fn read(&self, key: &str) -> Result<Record> {
        files::read_json(&self.place(key).join(META))
    }

    /// Where a snapshot is.
    pub fn place(&self, key: &str) -> PathBuf {
        self.directory.join(place_name(key))
    }

    /// The directory of all.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Refuses a key that is taken.
    pub fn check_free(&self, key: &str) -> Result<()> {
        if self.known().contains_key(key) {
            return Err(StoreError::SnapshotExists {
                key: key.to_owned(),
            });
        }
        Ok(())
    }

    /// A place in the making; with directories to write into for an active snapshot.
    pub fn draft(&self, record: &Record) -> Result<(PathBuf, std::fs::File)> {
        let place = self
            .directory
            .join(format!(".tmp-{}", files::random_name()?));
        files::make_directory(&place)?;
        if record.kind == Kind::Active {
            files::make_directory(&place.join(UPPER))?;
            files::make_directory(&place.join(WORK))?;
            files::set_mode(&place.join(UPPER), 0o755)?;
        }
        let file = files::write_json(&place.join(META), record)?;
        Ok((place, file))
    }

    /// The upper directory of a draft.
    pub fn upper_of_draft(draft: &Path) -> PathBuf {
        draft.join(UPPER)
    }

    /// Gives a draft its name. The caller syncs.
    pub fn publish(&self, draft: &Path, record: Record) -> Result<()> {
        let mut known = self.known();
        if known.contains_key(&record.key) {
            return Err(StoreError::SnapshotExists { key: record.key });
        }
        files::rename_new(draft, &self.place(&record.key))?;
        known.insert(record.key.clone(), Arc::new(record));
        Ok(())
    }

    /// Gives a draft its name on the disk only: a committed snapshot whose layer is still to be
    /// filled. An open without the layer drops it. The caller has the turn of the key.
    pub fn announce(&self, draft: &Path, record: &Record) -> Result<()> {
        self.check_free(&record.key)?;
        files::rename_new(draft, &self.place(&record.key))
    }

    /// Makes an announced snapshot known.
    pub fn admit(&self, record: Record) {
        self.known().insert(record.key.clone(), Arc::new(record));
    }

    /// Replaces what is known of a snapshot, durably.
    pub fn update(&self, record: Record) -> Result<()> {
        files::replace_json(&self.place(&record.key).join(META), &record)?;
        self.known().insert(record.key.clone(), Arc::new(record));
        Ok(())
    }

    /// Gives a snapshot another key: the name of its directory is the key, whatever is in it.
    pub fn rename(&self, record: Record, new_key: &str) -> Result<Record> {
        self.check_free(new_key)?;
        files::rename_new(&self.place(&record.key), &self.place(new_key))?;
        crate::failpoint::reach("snapshot.rename.renamed");
        let mut known = self.known();
        known.remove(&record.key);
        let renamed = Record {
            key: new_key.to_owned(),
            ..record
        };
        known.insert(renamed.key.clone(), Arc::new(renamed.clone()));
        drop(known);
        files::sync_directory(&self.directory)?;
        crate::failpoint::reach("snapshot.rename.durable");
        Ok(renamed)
    }

    /// Forgets a snapshot and throws away what is at its place.
    pub fn remove(&self, key: &str, trash: &Trash) -> Result<()> {
        let mut known = self.known();
        trash.throw(&self.place(key))?;
        known.remove(key);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Record>>> {
        self.known.lock()
    }
}

/// A description that was not finished when the power went is empty; one with something in it that
/// cannot be understood was damaged later.
fn has_content(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file() || metadata.len() > 0)
}

fn whole(record: &Record, place: &Path, shelf: &Shelf) -> bool {
    match record.kind {
        // What was written is in `upper`; `work` is overlayfs's own, and empty between two mounts.
        Kind::Active => {
            place.join(UPPER).is_dir() && files::make_directory(&place.join(WORK)).is_ok()
        }
        Kind::View => true,
        Kind::Committed => record.layer.as_ref().is_some_and(|id| shelf.contains(id)),
    }
}
