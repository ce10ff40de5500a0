//! Leases: what the collector must not touch. One file per lease is the truth: its first line says
//! what the lease is, each later line adds or releases one resource or says anew what the lease is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files::Group;
use crate::locks::Mutex;
use crate::quarantine::{Quarantine, Suspect};
use crate::turns::{Turn, Turns};
use crate::{StoreError, files, ids};

/// Resources that are copied while nobody else can look at the leases.
const HELD_AT_ONCE: usize = 512;
/// Lines of a lease's file about what is no more, before it is worth writing anew.
const PAST_LINES: usize = 1024;

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
    Put(Lease),
    Add(Resource),
    Release(Resource),
}

/// A lease and what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    lease: Lease,
    resources: BTreeSet<Arc<Resource>>,
    /// Of the file.
    lines: usize,
}

/// All leases; clones share them.
///
/// A change has the turn of its lease while it is made in memory and written to the file, so that both
/// have the same order; what waits for the disk after that waits in a group, without the turn.
#[derive(Clone, Debug)]
pub struct Leases {
    directory: PathBuf,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    turns: Arc<Turns>,
    group: Group,
}

impl Leases {
    /// Reads the leases of a directory, and drops those that have expired. A damaged file is put
    /// aside: what it may hold is safe there, because nothing is collected until a person knows.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        files::make_directory(directory)?;
        files::remove_unfinished(directory)?;
        let mut entries = HashMap::new();
        for name in files::names(directory)? {
            let path = directory.join(&name);
            match read_mended(directory, &name)? {
                Some(entry) => drop(entries.insert(name, entry)),
                None => drop(Quarantine::beside(directory).put(Suspect::Lease, &name, &path)?),
            }
        }
        let leases = Self {
            directory: directory.to_owned(),
            entries: Arc::new(Mutex::new("leases", entries)),
            turns: Arc::new(Turns::named("turn of a lease")),
            group: Group::new(directory),
        };
        leases.drop_expired()?;
        Ok(leases)
    }

    /// Where the files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes or extends a lease. Its resources stay. Durable.
    pub fn put(
        &self,
        id: &str,
        expires: Option<Timestamp>,
        labels: BTreeMap<String, String>,
    ) -> Result<Lease, StoreError> {
        ids::check("lease", id)?;
        let turn = self.turn(id);
        let old = self
            .lock()
            .get(id)
            .map(|old| (old.lease.created, old.is_long()));
        let lease = Lease {
            id: id.to_owned(),
            created: old.map_or_else(Timestamp::now, |(created, _)| created),
            expires,
            labels,
        };
        if old.is_none_or(|(_, is_long)| is_long) {
            self.rewrite(lease.clone())?;
            return Ok(lease);
        }
        let file = self.append(id, &[Change::Put(lease.clone())])?;
        drop(turn);
        self.group.sync(&file)?;
        Ok(lease)
    }

    /// Writes the file of a lease anew, from what is known of it.
    pub(crate) fn restore(&self, lease: Lease) -> Result<(), StoreError> {
        let _turn = self.turn(&lease.id);
        self.rewrite(lease)
    }

    /// Writes the file of a lease anew. The caller has its turn.
    fn rewrite(&self, lease: Lease) -> Result<(), StoreError> {
        let id = lease.id.clone();
        let resources = self
            .lock()
            .get(&id)
            .map(|old| old.resources.clone())
            .unwrap_or_default();
        let entry = Entry {
            lines: resources.len() + 1,
            lease,
            resources,
        };
        self.group.replace(&id, &format(&entry)?)?;
        crate::failpoint::reach("lease.put.written");
        self.lock().insert(id, entry);
        Ok(())
    }

    /// Holds one resource by a lease; an empty id holds nothing. Call it before the resource becomes
    /// visible, so that the collector never sees it without its holder, and [`Self::settle`] before it
    /// is acknowledged.
    pub fn hold(&self, id: &str, resource: Resource) -> Result<(), StoreError> {
        if id.is_empty() {
            return Ok(());
        }
        self.change(id, [resource], Change::Add).map(drop)
    }

    /// Makes durable what a lease holds; an empty id or an ended lease holds nothing. Costs nothing
    /// when it is durable already.
    pub fn settle(&self, id: &str) -> Result<(), StoreError> {
        if id.is_empty() {
            return Ok(());
        }
        let path = self.directory.join(id);
        match File::open(&path).and_then(|file| file.sync_data()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StoreError::io("sync", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Adds resources, durably.
    pub fn add(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
    ) -> Result<(), StoreError> {
        self.change_durably(id, resources, Change::Add)
    }

    /// Takes resources out, durably.
    pub fn release(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
    ) -> Result<(), StoreError> {
        self.change_durably(id, resources, Change::Release)
    }

    /// Ends a lease; an unknown one is fine.
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        ids::check("lease", id)?;
        let _turn = self.turn(id);
        self.remove(id)
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
        let held = entry.resources.iter();
        Ok(held.map(|resource| resource.as_ref().clone()).collect())
    }

    /// Tells everything that a living lease holds, with the lease's id. Expired leases go. Nobody waits
    /// while it is told: what is added meanwhile may be told or not.
    pub fn each_held(
        &self,
        mut tell: impl FnMut(&Resource, &str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.drop_expired()?;
        for lease in self.list() {
            let mut some = self.some_held(&lease.id, None);
            while let Some(last) = some.last().cloned() {
                some.iter().try_for_each(|held| tell(held, &lease.id))?;
                some = self.some_held(&lease.id, Some(last));
            }
        }
        Ok(())
    }

    /// The next resources of a lease in order, as many as may be copied in one go.
    fn some_held(&self, id: &str, after: Option<Arc<Resource>>) -> Vec<Arc<Resource>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.lock();
        let Some(entry) = entries.get(id) else {
            return Vec::new();
        };
        let rest = entry.resources.range((start, Bound::Unbounded));
        rest.take(HELD_AT_ONCE).cloned().collect()
    }

    /// What was there already may have been held without a sync: the file is synced all the same.
    fn change_durably(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
        change: fn(Resource) -> Change,
    ) -> Result<(), StoreError> {
        let file = self.change(id, resources, change)?;
        self.group.sync(&file)?;
        crate::failpoint::reach("lease.change.synced");
        Ok(())
    }

    /// Changes a lease in its file and in memory. Gives the file, for a caller that has it synced.
    fn change(
        &self,
        id: &str,
        resources: impl IntoIterator<Item = Resource>,
        change: fn(Resource) -> Change,
    ) -> Result<File, StoreError> {
        ids::check("lease", id)?;
        let _turn = self.turn(id);
        let changes: Vec<Change> = {
            let entries = self.lock();
            let entry = live(&entries, id)?;
            let all = resources.into_iter().map(change);
            all.filter(|change| entry.lacks(change)).collect()
        };
        self.append(id, &changes)
    }

    /// The open file stays the one that was written to, whatever its name becomes. The caller has the
    /// turn of the lease. What cannot be written whole is taken back.
    fn append(&self, id: &str, changes: &[Change]) -> Result<File, StoreError> {
        let path = self.directory.join(id);
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mut lines = Vec::new();
        for change in changes {
            lines.extend(line(change)?);
        }
        let length = file.metadata().map_err(StoreError::io("examine", &path))?;
        if let Err(error) = file.write_all(&lines) {
            file.set_len(length.len())
                .map_err(StoreError::io("shorten", &path))?;
            return Err(StoreError::io("write", &path)(error));
        }
        crate::failpoint::reach("lease.change.appended");
        if let Some(entry) = self.lock().get_mut(id) {
            changes.iter().for_each(|change| entry.apply(change));
        }
        Ok(file)
    }

    fn drop_expired(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let expired: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, entry)| !entry.lives(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            let _turn = self.turn(&id);
            // It may have been extended meanwhile.
            if live(&self.lock(), &id).is_err() {
                self.remove(&id)?;
            }
        }
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<(), StoreError> {
        self.group.remove(id)?;
        crate::failpoint::reach("lease.delete.removed");
        self.lock().remove(id);
        Ok(())
    }

    fn turn(&self, id: &str) -> Turn<'_> {
        self.turns.take(vec![id.to_owned()])
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock()
    }
}

impl Entry {
    fn lacks(&self, change: &Change) -> bool {
        match change {
            Change::Put(_) => true,
            Change::Add(resource) => !self.resources.contains(resource),
            Change::Release(resource) => self.resources.contains(resource),
        }
    }

    fn apply(&mut self, change: &Change) {
        self.lines += 1;
        match change {
            Change::Put(lease) => self.lease = lease.clone(),
            Change::Add(resource) => drop(self.resources.insert(resource.clone().into())),
            Change::Release(resource) => drop(self.resources.remove(resource)),
        }
    }

    /// The file tells more of the past than of what is.
    fn is_long(&self) -> bool {
        self.lines > 2 * self.resources.len() + PAST_LINES
    }

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
        bytes.extend(line(&Change::Add(resource.as_ref().clone()))?);
    }
    Ok(bytes)
}

/// What the file of a lease holds; `None` when it is damaged.
pub(crate) fn read(path: &Path) -> Option<Entry> {
    parse(&text(path)?).ok().map(|(entry, _)| entry)
}

/// The same. What a loss of power left at its end goes, so that the next line does not become a part of
/// it.
fn read_mended(directory: &Path, name: &str) -> Result<Option<Entry>, StoreError> {
    let Some(text) = text(&directory.join(name)) else {
        return Ok(None);
    };
    let Ok((entry, whole)) = parse(&text) else {
        return Ok(None);
    };
    if !whole {
        files::write(directory, name, &format(&entry)?)?;
    }
    Ok(Some(entry))
}

fn text(path: &Path) -> Option<String> {
    let regular = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    regular.then(|| fs::read_to_string(path).ok()).flatten()
}

/// A lease, and whether its file is whole. A line that is cut short, or has zeros in it because the
/// file's new length reached the disk without the bytes, was never acknowledged, and neither was what
/// follows it: each acknowledgement syncs the file from its start. Any other line that cannot be
/// understood is damage.
fn parse(text: &str) -> Result<(Entry, bool), serde_json::Error> {
    let mut lines = text.split_inclusive('\n');
    let mut entry = Entry {
        lease: serde_json::from_str(lines.next().unwrap_or_default())?,
        resources: BTreeSet::new(),
        lines: 1,
    };
    for line in lines {
        if !line.ends_with('\n') || line.contains('\0') {
            return Ok((entry, false));
        }
        entry.apply(&serde_json::from_str(line)?);
    }
    Ok((entry, text.ends_with('\n')))
}

#[cfg(test)]
#[allow(clippy::panic, reason = "test code")]
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
        leases
            .add("l", [Resource::Blob("sha256:b".into())])
            .unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        assert_eq!(leases.resources("l").unwrap().len(), 3);
    }

    #[test]
    fn a_lease_that_is_extended_for_ever_does_not_grow_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        leases.put("l", None, BTreeMap::new()).unwrap();
        leases.hold("l", Resource::Blob("sha256:a".into())).unwrap();
        for _ in 0..PAST_LINES + 10 {
            leases.hold("l", Resource::Blob("x".into())).unwrap();
            leases
                .change("l", [Resource::Blob("x".into())], Change::Release)
                .unwrap();
        }
        leases.put("l", None, BTreeMap::new()).unwrap();
        let text = fs::read_to_string(directory.path().join("l")).unwrap();
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn everything_held_is_told_once_in_however_many_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        for (lease, count) in [("a", 2 * HELD_AT_ONCE + 1), ("b", HELD_AT_ONCE), ("c", 0)] {
            leases.put(lease, None, BTreeMap::new()).unwrap();
            let names = (0..count).map(|n| Resource::Snapshot(format!("{lease}{n}")));
            leases.add(lease, names).unwrap();
        }
        let mut told = Vec::new();
        leases
            .each_held(|held, lease| {
                told.push((held.clone(), lease.to_owned()));
                Ok(())
            })
            .unwrap();
        let count = told.len();
        told.sort();
        told.dedup();
        assert_eq!((count, told.len()), (3 * HELD_AT_ONCE + 1, count));
    }

    #[test]
    fn what_many_add_at_once_is_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..16 {
                let leases = &leases;
                scope.spawn(move || {
                    let lease = format!("l{}", writer % 4);
                    for n in 0..8 {
                        leases.put(&lease, None, BTreeMap::new()).unwrap();
                        let held = Resource::Snapshot(format!("{writer}-{n}"));
                        leases.add(&lease, [held]).unwrap();
                    }
                });
            }
        });
        let again = Leases::open(directory.path()).unwrap();
        for lease in ["l0", "l1", "l2", "l3"] {
            let resources = again.resources(lease).unwrap();
            assert_eq!(resources.len(), 4 * 8);
            assert_eq!(resources, leases.resources(lease).unwrap());
        }
    }

    #[test]
    fn what_a_power_cut_left_of_a_lease_is_the_lease_and_can_be_added_to() {
        for torn in [
            &b"{\"add\":{\"sn"[..],
            &[0; 40],
            b"\0\0\0\0\n{\"add\":{\"blob\":\"x\"}}\n",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let leases = Leases::open(directory.path()).unwrap();
            leases.put("l", None, BTreeMap::new()).unwrap();
            let mut held = vec![Resource::Blob("sha256:a".into())];
            leases.add("l", held.clone()).unwrap();
            let path = directory.path().join("l");
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(torn).unwrap();

            let leases = Leases::open(directory.path()).unwrap();
            assert_eq!(leases.resources("l").unwrap(), held);
            held.push(Resource::Snapshot("s".into()));
            leases.add("l", held.clone()).unwrap();
            let leases = Leases::open(directory.path()).unwrap();
            assert_eq!(leases.resources("l").unwrap(), held);
        }
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
        leases
            .each_held(|held, _| panic!("{held:?} is held"))
            .unwrap();
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
