//! What names point at and the index does not say: the collector keeps it all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::image::Digest;

/// Targets beside the index; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unlisted {
    targets: Arc<Mutex<Targets>>,
}

#[derive(Debug, Default)]
struct Targets {
    /// Of names that are being put, each as often as it is.
    putting: Vec<Digest>,
    /// Of names whose image was not complete when the index was filled, by name.
    incomplete: HashMap<String, Digest>,
}

/// A name is being put until this is dropped.
#[derive(Debug)]
pub(super) struct Putting<'a> {
    unlisted: &'a Unlisted,
    target: Digest,
}

impl Unlisted {
    /// A name is about to point there.
    pub(super) fn putting(&self, target: &Digest) -> Putting<'_> {
        self.lock().putting.push(target.clone());
        Putting {
            unlisted: self,
            target: target.clone(),
        }
    }

    /// A name points at something that is not whole.
    pub(super) fn incomplete(&self, name: String, target: &Digest) {
        self.lock().incomplete.insert(name, target.clone());
    }

    /// A name is in the index now.
    pub(super) fn complete(&self, name: &str) {
        self.lock().incomplete.remove(name);
    }

    /// All targets.
    pub(super) fn targets(&self) -> Vec<Digest> {
        let targets = self.lock();
        let all = targets.putting.iter().chain(targets.incomplete.values());
        all.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Putting<'_> {
    fn drop(&mut self) {
        let putting = &mut self.unlisted.lock().putting;
        if let Some(position) = putting.iter().position(|target| *target == self.target) {
            putting.swap_remove(position);
        }
    }
}
