//! Push.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::ImageIndex;
use orlop_proto::types::Descriptor;

use super::lease::Lease;
use super::plan::{self, Blob};
use super::progress::Progress;
use super::{BLOBS_AT_ONCE, Outcome, Push, Tally, Transfer};
use crate::manifest::{self, Body, Document, MANIFEST_BYTES_MAX};
use crate::remote::{Remote, Wanted};
use crate::{Error, Result};

/// Repositories that one token is asked for, besides the own one.
const SOURCES_MAX: usize = 8;

/// A manifest of the store.
struct Local {
    digest: String,
    bytes: Bytes,
    document: Document,
}

impl Transfer {
    /// Pushes an image: see the head of [`super`].
    pub async fn push(&self, push: Push, progress: &Progress) -> Result<Outcome> {
        let name = push.reference.to_string();
        let target = self.store.images.get(&name).await?;
        let target = target.ok_or_else(|| Error::ImageNotFound(push.reference.familiar()))?;
        let lease = Lease::take(&self.store, "push").await?;
        lease.add(vec![target.digest.clone()]).await?;
        let (children, top) = self.manifests(&target.digest, &name).await?;
        let blobs = all_blobs(children.iter().chain([&top]));
        let remote = self.remotes.connect(self.wanted(&push, &blobs)).await?;
        let repository = push.reference.repository();
        let tally = self.send_all(&remote, repository, &blobs, progress).await?;
        for child in &children {
            put(&remote, &child.digest, child).await?;
        }
        let label = push.reference.tag().unwrap_or(&top.digest);
        put(&remote, label, &top).await?;
        progress
            .state(&top.digest, "pushed", top.bytes.len() as u64, String::new())
            .await;
        Ok(Outcome {
            name,
            target: top.descriptor(),
            tally,
            up_to_date: false,
        })
    }

    /// The manifests to push, the one that the name is to point at last. Of an index of which not all
    /// is here, that is this host's manifest.
    async fn manifests(&self, digest: &str, name: &str) -> Result<(Vec<Local>, Local)> {
        let top = self.local(digest, name).await?;
        let Body::Index(index) = &top.document.body else {
            return Ok((Vec::new(), top));
        };
        if let Some(whole) = self.children(index, name).await? {
            return Ok((whole, top));
        }
        let chosen = plan::choose(index, &plan::host_platform(), name)?;
        let manifest = self.local(chosen.digest().as_ref(), name).await?;
        Ok((Vec::new(), manifest))
    }

    /// The manifests of an index, if all of them and of their blobs are here.
    async fn children(&self, index: &ImageIndex, name: &str) -> Result<Option<Vec<Local>>> {
        let links = index.manifests().iter().map(|m| m.digest().to_string());
        let content = &self.store.content;
        if !content
            .find_missing(links.clone().collect())
            .await?
            .is_empty()
        {
            return Ok(None);
        }
        let mut children = Vec::new();
        for digest in links.collect::<BTreeSet<_>>() {
            children.push(self.local(&digest, name).await?);
        }
        let blobs = all_blobs(children.iter());
        let digests = blobs.into_iter().map(|blob| blob.digest).collect();
        let missing = content.find_missing(digests).await?;
        Ok(missing.is_empty().then_some(children))
    }

    async fn local(&self, digest: &str, name: &str) -> Result<Local> {
        let bytes = self.store.read_small(digest, MANIFEST_BYTES_MAX).await?;
        let document = manifest::parse(&bytes, "").map_err(|source| Error::Manifest {
            origin: name.to_owned(),
            source,
        })?;
        Ok(Local {
            digest: digest.to_owned(),
            bytes,
            document,
        })
    }

    fn wanted(&self, push: &Push, blobs: &[Blob]) -> Wanted {
        let (host, repository) = (push.reference.registry(), push.reference.repository());
        let candidates = blobs
            .iter()
            .flat_map(|blob| self.known.candidates(host, repository, &blob.digest));
        let sources: BTreeSet<String> = candidates.collect();
        Wanted {
            host: host.to_owned(),
            repository: repository.to_owned(),
            push: true,
            sources: sources.into_iter().take(SOURCES_MAX).collect(),
            credential: push.credential.clone(),
            insecure: push.insecure,
        }
    }

    async fn send_all(
        &self,
        remote: &Remote<'_>,
        repository: &str,
        blobs: &[Blob],
        progress: &Progress,
    ) -> Result<Tally> {
        // Boxed: the compiler cannot see otherwise that the futures may cross threads.
        let sends: Vec<BoxFuture<'_, Result<Tally>>> = blobs
            .iter()
            .map(|blob| self.upload(remote, repository, blob, progress).boxed())
            .collect();
        stream::iter(sends)
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_fold(Tally::default(), |sum, one| async move { Ok(sum.add(one)) })
            .await
    }
}

impl Local {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.document.media_type.to_owned(),
            digest: self.digest.clone(),
            size: i64::try_from(self.bytes.len()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        }
    }
}

async fn put(remote: &Remote<'_>, label: &str, manifest: &Local) -> Result<()> {
    let media_type = manifest.document.media_type;
    remote
        .put_manifest(label, media_type, manifest.bytes.clone())
        .await
}

/// The blobs of several manifests, each once.
fn all_blobs<'a>(manifests: impl Iterator<Item = &'a Local>) -> Vec<Blob> {
    let mut seen = HashSet::new();
    manifests
        .filter(|m| matches!(m.document.body, Body::Manifest(_)))
        .flat_map(|m| plan::blobs(&m.document))
        .filter(|blob| seen.insert(blob.digest.clone()))
        .collect()
}
