//! Collection of what nothing needs, and accounts of what is on disk.
//!
//! A collection marks and sweeps while writers and readers run, and stops nobody:
//!
//! 1. It takes the time, minus the grace: what is *wanted* since then stays, whatever follows. Who is
//!    about to need something wants it first and looks for it then.
//! 2. It marks what names, names in the making and leases hold ([`mark`]), without a lock over it.
//! 3. It sweeps one thing at a time ([`sweep`]): under a lock that only wishes wait for, it looks once
//!    more whether the thing was wanted, and moves it aside.
//!
//! Collections come one after the other; who waits for one shares it with all others who wait ([`rounds`]).
//!
//! - [`documents`]: what manifests and indexes hold, read once. [`budget`]: a bound on all bytes.
//! - [`usage`]: what is on disk.

mod budget;
mod documents;
mod mark;
mod rounds;
mod sweep;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use oci_spec::image::Digest;
use orlop_proto::descriptor::parse_digest;

use crate::StoreError;
use crate::content::Content;
use crate::images::Images;
use crate::leases::{Leases, Resource};
use crate::metrics::METRICS;
use crate::quarantine::Quarantine;
use crate::snapshots::Snapshots;
pub use budget::Keeper;
use documents::Documents;
use mark::{Key, Marks};
use rounds::Rounds;
use usage::Blobs;
pub use usage::DiskUsage;

/// Collects. Clones share the rounds: one collection at a time.
#[derive(Clone, Debug)]
pub struct Maintenance {
    content: Content,
    images: Images,
    leases: Leases,
    snapshots: Snapshots,
    quarantine: Quarantine,
    grace: Duration,
    /// Bytes that the store may keep in all.
    budget: Option<u64>,
    documents: Documents,
    blobs: Blobs,
    rounds: Arc<Rounds>,
}

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of the blobs, and bytes that the trees of the snapshots took on the disk.
    pub bytes: u64,
}

impl Maintenance {
    /// `grace`: how long something that nothing needs stays after somebody last wanted it. `budget`:
    /// bytes that the store may keep in all; without one nothing that nobody needs outlives its grace.
    pub fn new(
        content: Content,
        images: Images,
        leases: Leases,
        snapshots: Snapshots,
        quarantine: Quarantine,
        grace: Duration,
        budget: Option<u64>,
    ) -> Self {
        Self {
            documents: Documents::new(content.clone()),
            content,
            images,
            leases,
            snapshots,
            quarantine,
            grace,
            budget,
            blobs: Blobs::default(),
            rounds: Arc::new(Rounds::new()),
        }
    }

    /// Removes what nothing references and no lease holds; with a budget only as much of it as is over
    /// the budget, the least recently wanted first. Online: what is wanted after it has begun stays.
    /// Those who wait for the same collection are all told what it removed.
    pub fn collect(&self, dry_run: bool) -> Result<Collected, StoreError> {
        // What a damaged name or lease held is not known: see `quarantine`.
        let unseen = self.quarantine.unseen()?;
        if !unseen.is_empty() {
            tracing::error!(
                ?unseen,
                "nothing is collected until `orlop system check --repair` has told of these"
            );
            return Ok(Collected::default());
        }
        if dry_run {
            return self.collect_now(dry_run);
        }
        self.rounds.share(|| {
            let began = Instant::now();
            let _collecting = self.content.collecting();
            let collected = self.collect_now(dry_run)?;
            let seconds = began.elapsed().as_secs_f64();
            METRICS.collection_seconds.observe(seconds);
            METRICS.collected_bytes.inc_by(collected.bytes);
            Ok(collected)
        })
    }

    fn collect_now(&self, dry_run: bool) -> Result<Collected, StoreError> {
        match self.budget {
            None => self.sweep(self.cutoff(), dry_run),
            Some(budget) => self.evict(budget, self.cutoff(), dry_run),
        }
    }

    /// Adds resources to a lease, durably. What is here when it returns stays while the lease lives.
    pub fn hold(&self, lease: &str, resources: Vec<Resource>) -> Result<(), StoreError> {
        self.leases.add(lease, resources.iter().cloned())?;
        for resource in &resources {
            match resource {
                Resource::Snapshot(key) => self.snapshots.want([key.as_str()]),
                Resource::Blob(digest) => self.want_tree(digest)?,
            }
        }
        Ok(())
    }

    /// A collection that has begun may have passed the lease already: for it, all is wanted now.
    fn want_tree(&self, digest: &str) -> Result<(), StoreError> {
        let digest = parse_digest(digest)?;
        self.content.want(&digest);
        self.documents.each_below(&digest, &mut |below| {
            self.content.want(below);
        })
    }

    /// Removes one blob at once, unless something needs it.
    pub fn delete_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let in_use = |holder| {
            Err(StoreError::BlobInUse {
                digest: digest.to_string(),
                holder,
            })
        };
        let now = Timestamp::now();
        if let Some(holder) = self.holder(digest)? {
            return in_use(holder);
        }
        let gone = self.content.remove_unless_wanted(digest, now)?;
        if !gone && self.content.exists(digest) {
            return in_use("somebody who wants it just now".to_owned());
        }
        Ok(())
    }

    fn holder(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        let key = Key::of(digest);
        let mut holder = None;
        let mut look = |root: &Digest, name: &dyn Fn() -> String| {
            if holder.is_none() && self.marked_by(root)?.holds(key) {
                holder = Some(name());
            }
            Ok(())
        };
        self.images
            .each_target(|name, target| look(target, &|| format!("image {name}")))?;
        self.leases.each_held(|held, lease| match held {
            Resource::Blob(held) => look(&parse_digest(held)?, &|| format!("lease {lease}")),
            Resource::Snapshot(_) => Ok(()),
        })?;
        Ok(holder)
    }

    fn marked_by(&self, root: &Digest) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        marks.add(root, &self.documents)?;
        Ok(marks)
    }

    /// What was wanted before may go.
    fn cutoff(&self) -> Timestamp {
        let grace = SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX);
        Timestamp::now()
            .saturating_sub(grace)
            .unwrap_or(Timestamp::MIN)
    }
}
