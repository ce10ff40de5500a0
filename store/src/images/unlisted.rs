//! What names are about to point at, before any list says so: the collector keeps it all the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::image::Digest;

/// Targets of names that are being put, each as often as it is; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unlisted {
    targets: Arc<Mutex<Vec<Digest>>>,
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
        self.lock().push(target.clone());
        Putting {
            unlisted: self,
            target: target.clone(),
        }
    }

    /// All targets.
    pub(super) fn targets(&self) -> Vec<Digest> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Putting<'_> {
    fn drop(&mut self) {
        let mut targets = self.unlisted.lock();
        if let Some(position) = targets.iter().position(|target| *target == self.target) {
            targets.swap_remove(position);
        }
    }
}
