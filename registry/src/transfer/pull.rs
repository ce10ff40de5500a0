//! Pull.

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use orlop_proto::error::Kind;
use orlop_proto::types::Descriptor;

use super::lease::Lease;
use super::plan::{self, Blob};
use super::progress::Progress;
use super::{BLOBS_AT_ONCE, Outcome, Pull, Tally, Transfer};
use crate::manifest::{Body, Document, MANIFEST_BYTES_MAX};
use crate::remote::{Fetched, Remote, Wanted};
use crate::{Error, Result};

/// What a name led to: the manifest for the platform, and the index that it came out of.
struct Resolved {
    index: Option<Fetched>,
    manifest: Fetched,
}

impl Transfer {
    /// Pulls an image: see the head of [`super`].
    pub async fn pull(&self, pull: Pull, progress: &Progress) -> Result<Outcome> {
        let name = pull.reference.to_string();
        let before = self.store.images.get(&name).await?;
        let remote = self.remotes.connect(wanted(&pull)).await?;
        let lease = Lease::take(&self.store, "pull").await?;
        let resolved = resolve(&remote, &pull).await?;
        let blobs = plan::blobs(&resolved.manifest.document);
        check_config(&resolved.manifest, remote.host())?;
        lease.add(resolved.digests(&blobs)).await?;
        let document = &resolved.manifest.document;
        let tally = self
            .fetch_all(&remote, document, &blobs, &lease, progress)
            .await?;
        let manifests = resolved.all();
        let stored = manifests.map(|m| (m.digest.clone(), m.bytes.clone()));
        self.store.content.put(stored.collect(), &lease.id).await?;
        for blob in &blobs {
            let repository = pull.reference.repository();
            self.known.learn(remote.host(), repository, &blob.digest);
        }
        self.unpack(&resolved.manifest, &lease, progress).await?;
        let target = self.name(&name, &resolved).await?;
        Ok(Outcome {
            up_to_date: before.is_some_and(|before| before.digest == target.digest),
            name,
            target,
            tally,
        })
    }

    /// The configuration of an image comes first: it has the diff ids by which the store unpacks
    /// layers on their way.
    async fn fetch_all(
        &self,
        remote: &Remote<'_>,
        document: &Document,
        blobs: &[Blob],
        lease: &Lease,
        progress: &Progress,
    ) -> Result<Tally> {
        let Some(image) = plan::image(document) else {
            return self.fetch_each(remote, blobs, lease, progress).await;
        };
        let digest = image.config().digest().to_string();
        let (config, mut layers): (Vec<_>, Vec<_>) = blobs
            .iter()
            .cloned()
            .partition(|blob| blob.digest == digest);
        let first = self.fetch_each(remote, &config, lease, progress).await?;
        let config = self.store.read_small(&digest, MANIFEST_BYTES_MAX).await?;
        let mut diff_ids = plan::diff_ids(image, &config);
        for layer in &mut layers {
            layer.diff_id = diff_ids.remove(&layer.digest).unwrap_or_default();
        }
        let rest = self.fetch_each(remote, &layers, lease, progress).await?;
        Ok(first.add(rest))
    }

    async fn fetch_each(
        &self,
        remote: &Remote<'_>,
        blobs: &[Blob],
        lease: &Lease,
        progress: &Progress,
    ) -> Result<Tally> {
        let digests = blobs.iter().map(|blob| blob.digest.clone());
        let missing = self.store.content.find_missing(digests.collect()).await?;
        let missing: HashSet<String> = missing.into_iter().collect();
        // Boxed: the compiler cannot see otherwise that the futures may cross threads.
        let fetches: Vec<BoxFuture<'_, Result<Tally>>> = blobs
            .iter()
            .map(|blob| {
                if missing.contains(&blob.digest) {
                    return self.fetch(remote, blob, lease, progress).boxed();
                }
                exists(blob, progress).boxed()
            })
            .collect();
        stream::iter(fetches)
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_fold(Tally::default(), |sum, one| async move { Ok(sum.add(one)) })
            .await
    }

    async fn unpack(&self, manifest: &Fetched, lease: &Lease, progress: &Progress) -> Result<()> {
        if plan::image(&manifest.document).is_none() {
            return Ok(());
        }
        let digest = &manifest.digest;
        progress.state(digest, "unpacking", 0, String::new()).await;
        Ok(self.store.snapshots.unpack(digest, &lease.id).await?)
    }

    /// Sets the name: to the index, where the store takes one of which it has a single platform, else
    /// to that platform's manifest.
    async fn name(&self, name: &str, resolved: &Resolved) -> Result<Descriptor> {
        let manifest = resolved.manifest.descriptor();
        if let Some(index) = &resolved.index {
            let target = index.descriptor();
            match self.store.images.put(name, target.clone()).await {
                Ok(()) => return Ok(target),
                Err(failure) if failure.kind == Kind::FailedPrecondition => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        self.store.images.put(name, manifest.clone()).await?;
        Ok(manifest)
    }
}

impl Resolved {
    fn all(&self) -> impl Iterator<Item = &Fetched> {
        std::iter::once(&self.manifest).chain(&self.index)
    }

    fn digests(&self, blobs: &[Blob]) -> Vec<String> {
        let blobs = blobs.iter().map(|blob| blob.digest.clone());
        blobs.chain(self.all().map(|m| m.digest.clone())).collect()
    }
}

impl Fetched {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.document.media_type.to_owned(),
            digest: self.digest.clone(),
            size: i64::try_from(self.bytes.len()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        }
    }
}

async fn exists(blob: &Blob, progress: &Progress) -> Result<Tally> {
    let (digest, size) = (&blob.digest, blob.size);
    progress.state(digest, "exists", size, String::new()).await;
    Ok(Tally::existed())
}

fn wanted(pull: &Pull) -> Wanted {
    Wanted {
        host: pull.reference.registry().to_owned(),
        repository: pull.reference.repository().to_owned(),
        credential: pull.credential.clone(),
        insecure: pull.insecure,
        ..Wanted::default()
    }
}

async fn resolve(remote: &Remote<'_>, pull: &Pull) -> Result<Resolved> {
    let top = remote.manifest(pull.reference.target()).await?;
    let Body::Index(index) = &top.document.body else {
        return Ok(Resolved {
            index: None,
            manifest: top,
        });
    };
    let platform = plan::platform(pull.platform.clone());
    let chosen = plan::choose(index, &platform, &pull.reference.familiar())?;
    let digest: &str = chosen.digest().as_ref();
    let manifest = remote.manifest(digest).await?;
    if manifest.bytes.len() as u64 != chosen.size() {
        return Err(Error::WrongBytes {
            host: remote.host().to_owned(),
            digest: digest.to_owned(),
            detail: format!(
                "the manifest has {} bytes, and the index says {}",
                manifest.bytes.len(),
                chosen.size()
            ),
        });
    }
    if let Body::Index(_) = manifest.document.body {
        return Err(Error::WrongBytes {
            host: remote.host().to_owned(),
            digest: digest.to_owned(),
            detail: "it is an index inside an index".to_owned(),
        });
    }
    Ok(Resolved {
        index: Some(top),
        manifest,
    })
}

/// A configuration is read into memory, so it is no larger than a manifest (`SECURITY` row I1).
fn check_config(manifest: &Fetched, host: &str) -> Result<()> {
    match &manifest.document.body {
        Body::Manifest(document) if document.config().size() > MANIFEST_BYTES_MAX as u64 => {
            Err(Error::TooLarge {
                what: format!("the configuration {} of {host}", document.config().digest()),
                most: MANIFEST_BYTES_MAX,
            })
        }
        _ => Ok(()),
    }
}
