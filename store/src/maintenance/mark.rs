//! What must stay: everything that names and leases hold, and what refers to it.

use std::collections::{HashMap, HashSet};

use oci_spec::image::Digest;
use orlop_proto::descriptor::parse_digest;

use super::Maintenance;
use super::documents::Documents;
use crate::StoreError;
use crate::leases::Resource;

/// 128 bits of a digest: enough that nobody finds two blobs with the same, and small enough for a
/// million of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn of(digest: &Digest) -> Self {
        let hex = digest.digest();
        let head = hex.get(..32).unwrap_or(hex);
        Self(u128::from_str_radix(head, 16).unwrap_or_default())
    }
}

/// What must stay.
#[derive(Debug, Default)]
pub(super) struct Marks {
    blobs: HashSet<Key>,
    documents: HashSet<Key>,
    /// Names of committed snapshots.
    pub(super) snapshots: HashSet<String>,
}

impl Marks {
    pub(super) fn holds(&self, key: Key) -> bool {
        self.blobs.contains(&key)
    }

    /// Marks a blob and, if it is a document, all that is below it.
    pub(super) fn add(&mut self, root: &Digest, documents: &Documents) -> Result<(), StoreError> {
        let mut open = vec![root.clone()];
        while let Some(digest) = open.pop() {
            let key = Key::of(&digest);
            self.blobs.insert(key);
            // A blob may be marked as the layer of another before it is met as a document.
            if self.documents.contains(&key) {
                continue;
            }
            let Some(links) = documents.links(&digest)? else {
                continue;
            };
            self.documents.insert(key);
            self.blobs.extend(links.blobs.iter().map(Key::of));
            self.snapshots.extend(links.snapshots.iter().cloned());
            if links.is_index {
                open.extend(links.blobs.iter().cloned());
            }
        }
        Ok(())
    }
}

impl Maintenance {
    /// Marks what must stay. What becomes needed while it runs is wanted since then.
    pub(super) fn mark(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        self.leases.each_held(|held, _| match held {
            Resource::Snapshot(key) => {
                marks.snapshots.insert(key.clone());
                Ok(())
            }
            Resource::Blob(digest) => match parse_digest(digest) {
                Ok(digest) => marks.add(&digest, &self.documents),
                Err(_) => Ok(()),
            },
        })?;
        self.images
            .each_target(|_, target| marks.add(target, &self.documents))?;
        self.mark_referrers(&mut marks)?;
        Ok(marks)
    }

    /// What refers to something that stays (a signature, a list of its parts) stays, and so does what
    /// refers to that.
    fn mark_referrers(&self, marks: &mut Marks) -> Result<(), StoreError> {
        let mut referrers = self.unmarked_referrers(marks)?;
        let mut reached: Vec<Key> = referrers
            .keys()
            .filter(|subject| marks.holds(**subject))
            .copied()
            .collect();
        while let Some(subject) = reached.pop() {
            for referrer in referrers.remove(&subject).unwrap_or_default() {
                marks.add(&referrer, &self.documents)?;
                reached.push(Key::of(&referrer));
            }
        }
        Ok(())
    }

    fn unmarked_referrers(&self, marks: &Marks) -> Result<HashMap<Key, Vec<Digest>>, StoreError> {
        let mut referrers: HashMap<Key, Vec<Digest>> = HashMap::new();
        self.content.each(|digest| {
            if marks.holds(Key::of(&digest)) {
                return Ok(());
            }
            let links = self.documents.links(&digest)?;
            if let Some(subject) = links.and_then(|links| links.subject) {
                referrers.entry(subject).or_default().push(digest);
            }
            Ok(())
        })?;
        Ok(referrers)
    }
}
