//! What must stay: everything that names and leases hold, and what refers to it.

use ahash::{HashMap, HashSet};
use oci_spec::image::Digest;
use orlop_proto::descriptor::parse_digest;

use super::Maintenance;
use super::documents::{Documents, Links};
use crate::StoreError;
use crate::content::ALGORITHMS;
use crate::leases::Resource;
use crate::snapshots::collect::Names;

/// 128 bits of a digest: enough that nobody finds two blobs with the same, and small enough for a
/// million of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn of(digest: &Digest) -> Self {
        Self::of_digits(digest.digest())
    }

    /// Of a digest as text.
    fn of_text(digest: &str) -> Self {
        let digits = |algorithm: &&str| digest.strip_prefix(*algorithm)?.strip_prefix(':');
        Self::of_digits(ALGORITHMS.iter().find_map(digits).unwrap_or_default())
    }

    /// Of the hexadecimal digits of a digest; others than these have one key in common.
    pub(super) fn of_digits(digits: &str) -> Self {
        let half = |at: std::ops::Range<usize>| {
            let digits = digits.get(at)?;
            u64::from_str_radix(digits, 16).ok().map(u128::from)
        };
        let halves = half(0..16).zip(half(16..32));
        Self(halves.map_or(0, |(high, low)| high << 64 | low))
    }
}

/// What must stay.
#[derive(Debug, Default)]
pub(super) struct Marks {
    blobs: HashSet<Key>,
    documents: HashSet<Key>,
    /// Names of committed snapshots.
    pub(super) snapshots: Names,
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
            self.add_links(key, &links);
            if links.is_index {
                open.extend(links.blobs.iter().cloned());
            }
        }
        Ok(())
    }

    /// The same for a root of which only the text is at hand. Leases hold thousands, of nearly all of which
    /// is known what is below: then no digest is made of the text.
    fn add_text(&mut self, root: &str, documents: &Documents) -> Result<(), StoreError> {
        let key = Key::of_text(root);
        match documents.remembered(key) {
            Some(None) => {
                self.blobs.insert(key);
                Ok(())
            }
            Some(Some(links)) if !links.is_index => {
                self.blobs.insert(key);
                self.add_links(key, &links);
                Ok(())
            }
            _ => parse_digest(root).map_or(Ok(()), |digest| self.add(&digest, documents)),
        }
    }

    fn add_links(&mut self, document: Key, links: &Links) {
        if self.documents.insert(document) {
            self.blobs.extend(&links.keys);
            self.snapshots.extend(links.snapshots.iter().cloned());
        }
    }
}

impl Maintenance {
    /// Marks what must stay. What becomes needed while it runs is wanted since then.
    pub(super) fn mark(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        self.leases.each_held(|held, _| match held {
            Resource::Snapshot(key) => {
                marks.snapshots.insert(key.as_str().into());
                Ok(())
            }
            Resource::Blob(digest) => marks.add_text(digest, &self.documents),
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
        let mut referrers: HashMap<Key, Vec<Digest>> = HashMap::default();
        let marked = |digits: &str| marks.holds(Key::of_digits(digits));
        self.content.each_but(marked, |digest| {
            let links = self.documents.links(&digest)?;
            if let Some(subject) = links.and_then(|links| links.subject) {
                referrers.entry(subject).or_default().push(digest);
            }
            Ok(())
        })?;
        Ok(referrers)
    }
}
