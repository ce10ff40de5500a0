//! Removing what nothing needs: committed snapshots that no root reaches, then layers of none.

use std::sync::{Arc, MutexGuard};

use ahash::{HashMap, HashSet};
use jiff::Timestamp;

use crate::error::Result;
use crate::files::{touch, touched};
use crate::locks::Mutex;
use crate::snapshots::Snapshots;
use crate::snapshots::family::Family;
use crate::snapshots::record::{Kind, Record};

/// Names of committed snapshots.
pub type Names = HashSet<Arc<str>>;

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of their trees.
    pub bytes: u64,
}

/// A committed snapshot that nothing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its name.
    pub name: String,
    /// When it, or one that is built on it, was last wanted.
    pub wanted: Timestamp,
    /// Bytes on the disk that are free when it and all before it in the list are gone.
    pub bytes: u64,
}

/// What is remembered beside the records.
#[derive(Debug)]
pub(super) struct Wishes {
    /// When committed snapshots were last wanted, as far as this process knows; the time of their
    /// descriptions tells the rest.
    times: Mutex<HashMap<String, Timestamp>>,
}

impl Snapshots {
    /// Removes committed snapshots that are neither in `live` nor below a live, an active or a viewed
    /// one. `live` holds names, for example the chain ids of the images. What was wanted since `cutoff`
    /// is live: a caller that has just committed it may be about to hold it.
    pub fn collect(&self, live: &Names, cutoff: Timestamp, dry_run: bool) -> Result<Collected> {
        let mut collected = Collected::default();
        for dead in self.dead(live, cutoff)? {
            if dry_run || self.remove_unless_wanted(&dead.name, cutoff)? {
                crate::failpoint::reach("collect.snapshot.removed");
                collected.snapshots += 1;
                collected.bytes += dead.bytes;
            }
        }
        if !dry_run {
            self.remove_unused_layers(cutoff)?;
        }
        Ok(collected)
    }

    /// What [`Self::collect`] would remove, in an order that can be stopped anywhere: children before
    /// their parents. What is made or wanted meanwhile may be in it: the removal looks again.
    pub fn dead(&self, live: &Names, cutoff: Timestamp) -> Result<Vec<Dead>> {
        let all = self.list();
        let times = self.wanted_times(&all, cutoff);
        let family = Family::of(&all);
        let reached = family.reached(|at, record| match record.kind {
            Kind::Committed => live.contains(record.key.as_str()) || times[at] >= cutoff,
            Kind::Active | Kind::View => true,
        });
        let mut users: HashMap<&str, usize> = HashMap::default();
        for layer in all.iter().filter_map(|record| record.layer.as_deref()) {
            *users.entry(layer).or_default() += 1;
        }
        let mut found = Vec::new();
        let mut wanted = times.clone();
        for at in family.children_first() {
            let record = &all[at];
            if reached[at] {
                continue;
            }
            if let Some(parent) = family.parents[at] {
                wanted[parent] = wanted[parent].max(wanted[at]);
            }
            found.push(Dead {
                name: record.key.clone(),
                wanted: wanted[at],
                bytes: self.bytes_without(record, &mut users)?,
            });
        }
        Ok(found)
    }

    /// When each of these was last wanted. Forgets those that are gone and were wanted before `cutoff`.
    fn wanted_times(&self, all: &[Arc<Record>], cutoff: Timestamp) -> Vec<Timestamp> {
        let mut times = self.inner.wishes.times();
        let known: Vec<_> = all
            .iter()
            .map(|record| times.get(&record.key).copied())
            .collect();
        if times.len() > all.len() {
            let here: HashSet<&str> = all.iter().map(|record| record.key.as_str()).collect();
            times.retain(|name, time| *time >= cutoff || here.contains(name.as_str()));
        }
        drop(times);
        all.iter()
            .zip(known)
            .map(|(record, known)| known.unwrap_or_else(|| self.touched_at(record)))
            .collect()
    }

    /// The bytes of a layer are free when its last user goes.
    fn bytes_without(&self, record: &Record, users: &mut HashMap<&str, usize>) -> Result<u64> {
        let Some(layer) = record.layer.as_deref() else {
            return Ok(0);
        };
        let Some(left) = users.get_mut(layer) else {
            return Ok(0);
        };
        *left -= 1;
        if *left > 0 {
            return Ok(0);
        }
        self.layer_disk_bytes(layer)
    }

    /// Notes that somebody wants these committed snapshots now, so that the collector leaves them, and
    /// what they are built on, for a while. Who wants before looking finds what stays.
    pub fn want<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let now = Timestamp::now();
        for name in names {
            self.inner.wishes.times().insert(name.to_owned(), now);
            touch(&self.inner.records.place(name).join("meta.json"));
        }
    }

    /// Takes the grace of these committed snapshots away: the name that they belonged to is gone.
    /// Those that something else needs stay all the same.
    pub fn unwant(&self, names: impl IntoIterator<Item = String>) {
        // As for blobs: what was wanted while a collection runs stays wanted.
        let began = self.inner.content.collection_began();
        let taken_back = |record| began.is_none_or(|began| self.wanted_at(&record) < began);
        for name in names {
            if self.stat(&name).is_ok_and(taken_back) {
                let mut times = self.inner.wishes.times();
                times.insert(name, Timestamp::MIN);
            }
        }
    }

    fn wanted_at(&self, record: &Record) -> Timestamp {
        let known = self.inner.wishes.times().get(&record.key).copied();
        known.unwrap_or_else(|| self.touched_at(record))
    }

    fn touched_at(&self, record: &Record) -> Timestamp {
        let meta = self.inner.records.place(&record.key).join("meta.json");
        touched(&meta).map_or(record.created, |used| used.max(record.created))
    }

    /// Removes a committed snapshot that nobody has wanted since `cutoff` and nothing is built on;
    /// whether it is gone by this call. Nobody can want it between the look and the removal.
    pub fn remove_unless_wanted(&self, name: &str, cutoff: Timestamp) -> Result<bool> {
        let inner = &self.inner;
        let _turn = inner.turns.take(vec![name.to_owned()]);
        let Ok(record) = inner.records.get(name) else {
            return Ok(false);
        };
        let before = self.wanted_at(&record);
        let mut times = inner.wishes.times();
        let wanted = times.get(name).copied().unwrap_or(before);
        if wanted >= cutoff || inner.records.child_of(name).is_some() {
            return Ok(false);
        }
        inner.records.remove(name, &inner.trash)?;
        times.remove(name);
        drop(times);
        if let Some(layer) = record.layer {
            inner.remove_layer_unless_used(&layer)?;
        }
        Ok(true)
    }

    /// Layers that belong to no snapshot: what a crash left between the two. One that has just arrived
    /// waits for its snapshot.
    pub(crate) fn remove_unused_layers(&self, cutoff: Timestamp) -> Result<()> {
        let inner = &self.inner;
        let used = inner.records.layers();
        for layer in inner.shelf.ids().difference(&used) {
            if inner.shelf.made(layer).is_some_and(|made| made < cutoff) {
                inner.remove_layer_unless_used(layer)?;
            }
        }
        Ok(())
    }

    /// Number of layers, and bytes that they take on the disk.
    pub fn layers_usage(&self) -> Result<(u64, u64)> {
        let ids = self.inner.shelf.ids();
        let bytes = ids.iter().map(|id| self.layer_disk_bytes(id));
        Ok((ids.len() as u64, bytes.sum::<Result<u64>>()?))
    }

    /// Bytes that a layer takes on the disk; 0 when it is not here. An image is one file.
    pub fn layer_disk_bytes(&self, id: &str) -> Result<u64> {
        let shelf = &self.inner.shelf;
        match shelf.image_bytes(id) {
            Some(bytes) => Ok(bytes),
            None if shelf.contains(id) => Ok(self.layer_usage(id)?.bytes),
            None => Ok(0),
        }
    }
}

impl Wishes {
    fn times(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.times.lock()
    }
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            times: Mutex::new("snapshot wishes", HashMap::default()),
        }
    }
}
