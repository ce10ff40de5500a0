//! What the store has acknowledged, and what it may have done besides: the facts that must hold after
//! every crash. The journal is in the memory of the harness, which does not crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::material::{Blob, Image};

/// Things of one kind, by their name.
pub type Registers<V> = BTreeMap<String, Register<V>>;

/// One thing: what was acknowledged of it last, and what requests without an answer may have made of
/// it since. `None` is: not there.
#[derive(Clone, Debug)]
pub struct Register<V> {
    acknowledged: Option<V>,
    maybe: Vec<Option<V>>,
}

/// What is known of a file tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// It can be a parent.
    pub committed: bool,
    /// Key of what is below; empty for nothing.
    pub parent: String,
    /// Path to content.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The digest of its own changes as a plain tar, once told.
    pub diff_id: Option<String>,
}

/// All facts.
#[derive(Debug, Default)]
pub struct Facts {
    /// Names, and the digests that they point at.
    pub names: Registers<String>,
    /// Blobs that a lease holds, by `<lease> <digest>`; bytes.
    pub blobs: Registers<usize>,
    /// Ingests that were left; the offset to go on at, and what is to be written.
    pub ingests: Registers<(usize, Blob)>,
    /// Leases and what they hold.
    pub leases: Registers<BTreeSet<String>>,
    /// Snapshots by key.
    pub trees: Registers<Tree>,
    /// A request that may have made the first key into the second: one of them is there.
    pub moves: Vec<(String, String)>,
    /// Images by the digest of their manifest.
    pub images: BTreeMap<String, Image>,
    /// Acknowledged requests so far.
    pub acknowledged: u64,
    /// Facts that were compared with the store so far.
    pub verified: u64,
    /// What must not be.
    pub violations: Vec<String>,
}

/// A digest that is not known before the answer.
pub const ANY: &str = "*";

/// Shared by the workers of one lane.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Facts>>);

impl Journal {
    /// The facts, for a moment.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap()
    }

    /// Notes something that must not be.
    pub fn violate(&self, what: impl Into<String>) {
        self.facts().violations.push(what.into());
    }
}

impl<V: Clone + PartialEq> Register<V> {
    /// Nothing is known to be there.
    pub fn absent() -> Self {
        Self {
            acknowledged: None,
            maybe: Vec::new(),
        }
    }

    /// A request for this is on its way.
    pub fn begin(&mut self, value: Option<V>) {
        self.maybe.push(value);
    }

    /// It was answered with success.
    pub fn acknowledge(&mut self, value: Option<V>) {
        self.acknowledged = value;
        self.maybe.clear();
    }

    /// It was answered with an error: nothing has changed.
    pub fn refuse(&mut self) {
        self.maybe.pop();
    }

    /// What was acknowledged last.
    pub fn get(&self) -> Option<&V> {
        self.acknowledged.as_ref()
    }

    /// Everything that it can be.
    pub fn allowed(&self) -> impl Iterator<Item = Option<&V>> {
        let maybe = self.maybe.iter().map(Option::as_ref);
        std::iter::once(self.acknowledged.as_ref()).chain(maybe)
    }

    /// Whether it must be there.
    pub fn is_certain(&self) -> bool {
        self.allowed().all(|value| value.is_some())
    }

    /// Whether it must not be there.
    pub fn is_absent(&self) -> bool {
        self.allowed().all(|value| value.is_none())
    }
}

/// Begins, and remembers the thing.
pub fn begin<V: Clone + PartialEq>(registers: &mut Registers<V>, key: &str, value: Option<V>) {
    registers
        .entry(key.to_owned())
        .or_insert_with(Register::absent)
        .begin(value);
}

/// Acknowledges; what is acknowledged to be gone is forgotten only when that was verified.
pub fn acknowledge<V: Clone + PartialEq>(
    registers: &mut Registers<V>,
    key: &str,
    value: Option<V>,
) {
    registers
        .entry(key.to_owned())
        .or_insert_with(Register::absent)
        .acknowledge(value);
}

/// Takes the last beginning back.
pub fn refuse<V: Clone + PartialEq>(registers: &mut Registers<V>, key: &str) {
    if let Some(register) = registers.get_mut(key) {
        register.refuse();
    }
}

/// What was found after a crash is what goes on from there.
pub fn settle<V: Clone + PartialEq>(registers: &mut Registers<V>, key: &str, value: Option<V>) {
    match value {
        Some(value) => acknowledge(registers, key, Some(value)),
        None => drop(registers.remove(key)),
    }
}

/// The keys with a prefix that were acknowledged to be there.
pub fn present<V: Clone + PartialEq>(registers: &Registers<V>, prefix: &str) -> Vec<String> {
    let with_prefix = registers.iter().filter(|(key, _)| key.starts_with(prefix));
    with_prefix
        .filter(|(_, register)| register.get().is_some())
        .map(|(key, _)| key.clone())
        .collect()
}
