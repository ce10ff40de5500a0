//! Leases: what the collector must not touch. One file per lease is the truth: its first line says
//! what the lease is, each later line adds or releases one resource.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{StoreError, files, ids};

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Absent: it holds until it is deleted.
    pub expires: Option<Timestamp>,
    /// The owner's own words.
    pub labels: BTreeMap<String, String>,
}

/// Something that a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// A blob, by its digest. A manifest or an index holds its children too.
    Blob(String),
    /// A snapshot, by its key or name.
    Snapshot(String),
}

/// A line of a lease's file after the first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Add(Resource),
    Release(Resource),
}

#[derive(Debug)]
struct Entry {
    lease: Lease,
    resources: BTreeSet<Resource>,
}

/// All leases; clones share them.
#[derive(Clone, Debug)]
pub struct Leases {
    directory: PathBuf,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl Leases {
    /// Reads the leases of a directory, and drops those that have expired.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        files::make_directory(directory)?;
        files::remove_unfinished(directory)?;
        let mut entries = HashMap::new();
        for name in files::names(directory)? {
            let path = directory.join(&name);
            let text = fs::read_to_string(&path).map_err(StoreError::io("read", &path))?;
            match parse(&text) {
                Ok(entry) => drop(entries.insert(name, entry)),
                Err(source) => return Err(StoreError::DamagedFile { path, source }),
            }
        }
        let leases = Self {
            directory: directory.to_owned(),
            entries: Arc::new(Mutex::new(entries)),
        };
        leases.drop_expired()?;
        Ok(leases)
    }

    /// Makes or extends a lease. Its resources stay. Durable.
    pub fn put(
        &self,
        id: &str,
        expires: Option<Timestamp>,
        labels: BTreeMap<String, String>,
    ) -> Result<Lease, StoreError> {
        ids::check("lease", id)?;
        let mut entries = self.lock();
        let old = entries.remove(id);
        let lease = Lease {
            id: id.to_owned(),
            created: old
                .as_ref()
                .map_or_else(Timestamp::now, |old| old.lease.created),
            expires,
            labels,
        };
        let resources = old.map(|old| old.resources).unwrap_or_default();
        let entry = Entry {
            lease: lease.clone(),
            resources,
        };
        let written = files::write(&self.directory, id, &format(&entry)?);
        entries.insert(id.to_owned(), entry);
        written.map(|()| lease)
    }

    /// Holds one resource by a lease; an empty id holds nothing. Call it before the resource becomes
    /// visible, so that the collector never sees it without its holder.
    ///
    /// The line reaches the disk with the file system's next journal commit: what is lost with the
    /// power is at most a hold on something made in the last seconds.
    pub fn hold(&self, id: &str, resource: Resource) -> Result<(), StoreError> {
        if id.is_empty() {
            return Ok(());
        }
        self.change(id, [resource], Change::Add, false)
    }

    /// Adds resources, durably.
    pub fn add(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
    ) -> Result<(), StoreError> {
        self.change(id, resources, Change::Add, true)
    }

    /// Takes resources out, durably.
    pub fn release(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
    ) -> Result<(), StoreError> {
        self.change(id, resources, Change::Release, true)
    }

    /// Ends a lease; an unknown one is fine.
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        ids::check("lease", id)?;
        let mut entries = self.lock();
        files::remove(&self.directory, id)?;
        entries.remove(id);
        Ok(())
    }

    /// All leases that have not expired, in order of id.
    pub fn list(&self) -> Vec<Lease> {
        let now = Timestamp::now();
        let mut leases: Vec<_> = self
            .lock()
            .values()
            .filter(|entry| entry.lives(now))
            .map(|entry| entry.lease.clone())
            .collect();
        leases.sort_by(|a, b| a.id.cmp(&b.id));
        leases
    }

    /// What one lease holds.
    pub fn resources(&self, id: &str) -> Result<Vec<Resource>, StoreError> {
        ids::check("lease", id)?;
        let entries = self.lock();
        let entry = live(&entries, id)?;
        Ok(entry.resources.iter().cloned().collect())
    }

    /// Everything that any living lease holds, with the lease's id. Expired leases go.
    pub fn held(&self) -> Result<Vec<(Resource, String)>, StoreError> {
        self.drop_expired()?;
        let entries = self.lock();
        let pairs = entries.iter().flat_map(|(id, entry)| {
            entry
                .resources
                .iter()
                .map(|resource| (resource.clone(), id.clone()))
        });
        Ok(pairs.collect())
    }

    fn change(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
        change: fn(Resource) -> Change,
        durable: bool,
    ) -> Result<(), StoreError> {
        ids::check("lease", id)?;
        let mut entries = self.lock();
        live(&entries, id)?;
        let Some(entry) = entries.get_mut(id) else {
            return Err(StoreError::LeaseNotFound { id: id.to_owned() });
        };
        let mut lines = Vec::new();
        for resource in resources {
            let change = change(resource.clone());
            let changed = match change {
                Change::Add(_) => entry.resources.insert(resource),
                Change::Release(_) => entry.resources.remove(&resource),
            };
            if changed {
                lines.extend(line(&change)?);
            }
        }
        self.append(id, &lines, durable)
    }

    fn append(&self, id: &str, lines: &[u8], durable: bool) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.directory.join(id);
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        file.write_all(lines)
            .map_err(StoreError::io("write", &path))?;
        if durable {
            file.sync_data().map_err(StoreError::io("sync", &path))?;
        }
        Ok(())
    }

    fn drop_expired(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let mut entries = self.lock();
        let expired: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| !entry.lives(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            files::remove(&self.directory, &id)?;
            entries.remove(&id);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn lives(&self, now: Timestamp) -> bool {
        self.lease.expires.is_none_or(|expires| expires > now)
    }
}

fn live<'a>(entries: &'a HashMap<String, Entry>, id: &str) -> Result<&'a Entry, StoreError> {
    entries
        .get(id)
        .filter(|entry| entry.lives(Timestamp::now()))
        .ok_or_else(|| StoreError::LeaseNotFound { id: id.to_owned() })
}

fn line<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut line = serde_json::to_vec(value).map_err(|source| StoreError::DamagedFile {
        path: "lease".into(),
        source,
    })?;
    line.push(b'\n');
    Ok(line)
}

fn format(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    let mut bytes = line(&entry.lease)?;
    for resource in &entry.resources {
        bytes.extend(line(&Change::Add(resource.clone()))?);
    }
    Ok(bytes)
}

/// A last line that is cut short is one that was never acknowledged.
fn parse(text: &str) -> Result<Entry, serde_json::Error> {
    let mut lines = text.split_inclusive('\n');
    let lease = serde_json::from_str(lines.next().unwrap_or_default())?;
    let mut resources = BTreeSet::new();
    for line in lines.filter(|line| line.ends_with('\n')) {
        match serde_json::from_str(line)? {
            Change::Add(resource) => resources.insert(resource),
            Change::Release(resource) => resources.remove(&resource),
        };
    }
    Ok(Entry { lease, resources })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_reopening_with_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        leases.put("l", None, BTreeMap::new()).unwrap();
        leases.hold("l", Resource::Blob("sha256:a".into())).unwrap();
        leases
            .add(
                "l",
                [
                    Resource::Snapshot("s".into()),
                    Resource::Snapshot("t".into()),
                ],
            )
            .unwrap();
        leases
            .release("l", [Resource::Snapshot("t".into())])
            .unwrap();
        let mut file = OpenOptions::new()
            .append(true)
            .open(directory.path().join("l"))
            .unwrap();
        file.write_all(b"{\"add\":{\"sn").unwrap();

        let leases = Leases::open(directory.path()).unwrap();
        assert_eq!(
            leases.resources("l").unwrap(),
            [
                Resource::Blob("sha256:a".into()),
                Resource::Snapshot("s".into())
            ]
        );
    }

    #[test]
    fn an_expired_lease_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        leases
            .put("l", Some(Timestamp::UNIX_EPOCH), BTreeMap::new())
            .unwrap();
        assert!(leases.list().is_empty());
        assert!(matches!(
            leases.hold("l", Resource::Blob("x".into())),
            Err(StoreError::LeaseNotFound { .. })
        ));
        assert!(leases.held().unwrap().is_empty());
        assert!(!directory.path().join("l").exists());
    }

    #[test]
    fn e8_a_lease_id_is_never_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        for id in ["../x", "/x", &"x".repeat(300)] {
            assert!(matches!(
                leases.put(id, None, BTreeMap::new()),
                Err(StoreError::MalformedId { .. })
            ));
        }
    }
}
