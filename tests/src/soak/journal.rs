//! What was acknowledged: which name points at which image, where.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Where a name is: a side's store, or a side's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The names of a store.
    Store(usize),
    /// The tags that a registry serves.
    Registry(usize),
}

/// An image, as it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of its manifest.
    pub digest: String,
    /// What it prints when it is run.
    pub marker: String,
}

/// One name. Whoever changes what it points at holds it for writing from before the first request until the
/// answer; whoever relies on it holds it for reading.
#[derive(Debug)]
pub struct Entry {
    /// Where.
    pub place: Place,
    /// The whole name.
    pub name: String,
    /// `None`: nothing is promised.
    pub state: RwLock<Option<Acknowledged>>,
}

/// All names.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<BTreeMap<(Place, String), Arc<Entry>>>,
}

impl Journal {
    /// The entry of a name; a new one promises nothing.
    pub fn entry(&self, place: Place, name: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry((place, name.to_owned())).or_insert_with(|| {
            Arc::new(Entry {
                place,
                name: name.to_owned(),
                state: RwLock::default(),
            })
        });
        Arc::clone(entry)
    }

    /// All entries of a place, in order of name.
    pub fn of(&self, place: Place) -> Vec<Arc<Entry>> {
        self.all()
            .into_iter()
            .filter(|entry| entry.place == place)
            .collect()
    }

    /// All entries.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().cloned().collect()
    }

    /// Forgets an entry that promises nothing any more.
    pub fn forget(&self, entry: &Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&(entry.place, entry.name.clone()));
    }
}
