//! Collection of what nothing needs, and accounts of what is on disk.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use oci_spec::image::{Descriptor, Digest};
use orlop_proto::descriptor::parse_digest;

use crate::StoreError;
use crate::content::Content;
use crate::images::{Images, Tree};
use crate::layers::chain::chain_ids;
use crate::leases::{Leases, Resource};
use crate::manifest::{DOCUMENT_BYTES_MAX, Document};
use crate::snapshots::Snapshots;

/// Collects. Clones share the turn: one run at a time.
#[derive(Clone, Debug)]
pub struct Maintenance {
    content: Content,
    images: Images,
    leases: Leases,
    snapshots: Snapshots,
    grace: Duration,
    turn: Arc<Mutex<()>>,
}

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// What is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of them.
    pub blob_bytes: u64,
    /// Number of unpacked layers.
    pub layers: u64,
    /// Bytes of them.
    pub layer_bytes: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Bytes written to active ones.
    pub snapshot_bytes: u64,
    /// Bytes of unfinished ingests.
    pub ingest_bytes: u64,
    /// Number of names.
    pub images: u64,
}

/// Everything that must stay.
#[derive(Debug, Default)]
struct Roots {
    blobs: HashSet<Digest>,
    snapshots: HashSet<String>,
}

impl Maintenance {
    /// `grace`: how long something that nothing needs stays after somebody last wanted it.
    pub fn new(
        content: Content,
        images: Images,
        leases: Leases,
        snapshots: Snapshots,
        grace: Duration,
    ) -> Self {
        Self {
            content,
            images,
            leases,
            snapshots,
            grace,
            turn: Arc::default(),
        }
    }

    /// Removes what nothing references and no lease holds. Online: what is wanted after it has begun
    /// stays.
    pub fn collect(&self, dry_run: bool) -> Result<Collected, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let grace = SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX);
        let cutoff = Timestamp::now()
            .saturating_sub(grace)
            .unwrap_or(Timestamp::MIN);
        let roots = self.mark()?;
        let snapshots = self.snapshots.collect(&roots.snapshots, cutoff, dry_run)?;
        let mut collected = Collected {
            snapshots: snapshots.snapshots,
            bytes: snapshots.bytes,
            blobs: 0,
        };
        for blob in self.content.list()? {
            if blob.wanted >= cutoff || roots.blobs.contains(&blob.digest) {
                continue;
            }
            if dry_run || self.content.remove_unless_wanted(&blob.digest, cutoff)? {
                collected.blobs += 1;
                collected.bytes += blob.size;
            }
        }
        Ok(collected)
    }

    /// Removes one blob at once, unless something needs it.
    pub fn delete_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = self.holder(digest)? {
            return Err(StoreError::BlobInUse {
                digest: digest.to_string(),
                holder,
            });
        }
        self.content.remove(digest).map(drop)
    }

    /// What is on disk now.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let blobs = self.content.list()?;
        let (layers, layer_bytes) = self.snapshots.layers_usage()?;
        let snapshots = self.snapshots.list();
        let mut usage = DiskUsage {
            blobs: blobs.len() as u64,
            blob_bytes: blobs.iter().map(|blob| blob.size).sum(),
            layers,
            layer_bytes,
            snapshots: snapshots.len() as u64,
            ingest_bytes: self
                .content
                .list_ingests()?
                .iter()
                .map(|ingest| ingest.offset)
                .sum(),
            images: self.images.count() as u64,
            snapshot_bytes: 0,
        };
        for record in snapshots
            .iter()
            .filter(|record| record.kind == crate::snapshots::record::Kind::Active)
        {
            // It may be removed meanwhile.
            usage.snapshot_bytes += self
                .snapshots
                .usage(&record.key)
                .map_or(0, |usage| usage.bytes);
        }
        Ok(usage)
    }

    fn mark(&self) -> Result<Roots, StoreError> {
        let mut roots = Roots::default();
        for (resource, _) in self.leases.held()? {
            match resource {
                Resource::Snapshot(key) => drop(roots.snapshots.insert(key)),
                Resource::Blob(digest) => roots.add_tree(self.blob_tree(&digest)),
            }
        }
        for listed in self.images.all()? {
            // A name whose tree is damaged keeps at least what it points at.
            roots.blobs.insert(listed.image.target.digest().clone());
            match self.images.tree(&listed.image) {
                Ok(tree) => roots.add_tree(tree),
                Err(error) => {
                    tracing::error!(name = listed.image.name, %error, "an image is not complete");
                }
            }
        }
        Ok(roots)
    }

    /// A held blob with all that is below it, as far as it is here.
    fn blob_tree(&self, digest: &str) -> Tree {
        let mut tree = Tree::default();
        let Ok(digest) = parse_digest(digest) else {
            return tree;
        };
        let document = self.document(&digest);
        if let Some((document, size)) = document {
            let target =
                Descriptor::new(document.media_type().as_str().into(), size, digest.clone());
            match Tree::read(&self.content, "of a lease", &target) {
                Ok(whole) => tree = whole,
                Err(_) => tree
                    .blobs
                    .extend(document.children().map(|child| child.digest().clone())),
            }
        }
        tree.blobs.insert(digest);
        tree
    }

    fn document(&self, digest: &Digest) -> Option<(Document, u64)> {
        let size = self.content.stat(digest).ok()?.size;
        if size > DOCUMENT_BYTES_MAX || !self.looks_like_json(digest) {
            return None;
        }
        let bytes = self.content.read_all(digest, DOCUMENT_BYTES_MAX).ok()?;
        Some((Document::parse(&bytes, "").ok()?, size))
    }

    fn looks_like_json(&self, digest: &Digest) -> bool {
        use std::io::Read as _;
        let mut first = [0; 1];
        let read = self.content.open(digest).and_then(|mut file| {
            file.read_exact(&mut first)
                .map_err(StoreError::io("read", self.content.path(digest)))
        });
        read.is_ok() && (first == *b"{" || first[0].is_ascii_whitespace())
    }

    fn holder(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        for listed in self.images.all()? {
            let tree = self.images.tree(&listed.image)?;
            if tree.blobs.contains(digest) {
                return Ok(Some(format!("image {}", listed.image.name)));
            }
        }
        for (resource, lease) in self.leases.held()? {
            if let Resource::Blob(held) = resource
                && self.blob_tree(&held).blobs.contains(digest)
            {
                return Ok(Some(format!("lease {lease}")));
            }
        }
        Ok(None)
    }
}

impl Roots {
    fn add_tree(&mut self, tree: Tree) {
        self.blobs.extend(tree.blobs);
        for stack in tree.stacks {
            self.snapshots.extend(chain_ids(&stack));
        }
    }
}
