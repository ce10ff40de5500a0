//! Manifests and tags of a repository.

use std::collections::HashMap;
use std::sync::PoisonError;

use bytes::Bytes;
use orlop_proto::descriptor::parse_digest;
use serde::{Deserialize, Serialize};

use super::files::Kind;
use super::{Repositories, not_found};
use crate::index::{Index, Table};
use crate::manifest::{self, Body, Document, MANIFEST_BYTES_MAX};
use crate::names::{Repository, Tag};
use crate::{Error, Result};

/// Bytes of manifests that are kept in memory; they are what a registry is asked for most.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What the map and the allocator take beside the digest and the bytes of an entry, about.
const ENTRY_BYTES: usize = 128;

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By a tag.
    Tag(Tag),
    /// By its digest.
    Digest(String),
}

/// A manifest of a repository.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, as they were put.
    pub bytes: Bytes,
}

/// A manifest that speaks about another: an entry of a list of referrers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    media_type: String,
    digest: String,
    size: usize,
    /// What kind of thing it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<HashMap<String, String>>,
}

/// What the file of a manifest says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    referrer: Option<Referrer>,
}

/// Bytes by digest: they never change, so nothing here is ever stale. Who may see them is asked of
/// the index each time.
#[derive(Debug, Default)]
pub(super) struct Cache {
    bytes: usize,
    entries: HashMap<String, Bytes>,
}

impl Cache {
    /// Keeps a copy: a body is a slice of the connection's buffer, and would keep all of that.
    fn insert(&mut self, digest: &str, bytes: &[u8]) {
        let size = ENTRY_BYTES + digest.len() + bytes.len();
        if self.bytes + size > CACHE_BYTES_MAX {
            *self = Self::default();
        }
        let copy = Bytes::copy_from_slice(bytes);
        if self.entries.insert(digest.to_owned(), copy).is_none() {
            self.bytes += size;
        }
    }
}

impl Repositories {
    /// Stores a manifest: its bytes, its record, then the tag. What it names must be in the repository.
    /// Returns its digest.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        document: &Document,
        bytes: Bytes,
    ) -> Result<String> {
        let digest = match target {
            Target::Digest(digest) => digest.clone(),
            Target::Tag(_) => manifest::digest_like("sha256", &bytes),
        };
        let lease = self.lease(repository).await?;
        let _lock = self.lock(repository).await;
        self.check_links(repository, document)?;
        let blob = vec![(digest.clone(), bytes.clone())];
        self.store.content.put(blob, &lease).await?;
        let record = record(document, &digest, bytes.len());
        let text = serde_json::to_string(&record).unwrap_or_default();
        self.put_file(repository, Kind::Manifests, &digest, text.clone())
            .await?;
        super::index_entry(&self.index, repository, Kind::Manifests, &digest, &text)?;
        if let Target::Tag(tag) = target {
            self.put_file(repository, Kind::Tags, tag.as_str(), digest.clone())
                .await?;
            super::index_entry(&self.index, repository, Kind::Tags, tag.as_str(), &digest)?;
        }
        self.cache().insert(&digest, &bytes);
        Ok(digest)
    }

    /// A manifest by tag or digest; `None` when the repository has none such.
    pub async fn manifest(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<Option<StoredManifest>> {
        let Some(digest) = self.digest_of(repository, target)? else {
            return Ok(None);
        };
        let key = [repository.as_str(), digest.as_str()];
        let Some(text) = self.index.get(Table::Manifests, &key)? else {
            return Ok(None);
        };
        let known = self.cache().entries.get(&digest).cloned();
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = self.store.read_small(&digest, MANIFEST_BYTES_MAX).await?;
                self.cache().insert(&digest, &bytes);
                bytes
            }
        };
        let media_type = serde_json::from_str(&text).map_or_else(
            |_| manifest::OCI_MANIFEST.to_owned(),
            |r: Record| r.media_type,
        );
        Ok(Some(StoredManifest {
            digest,
            media_type,
            bytes,
        }))
    }

    /// Removes a manifest and the tags that point at it.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &str) -> Result<()> {
        let _lock = self.lock(repository).await;
        let name = repository.as_str();
        let Some(text) = self.index.get(Table::Manifests, &[name, digest])? else {
            return Err(not_found(repository, digest));
        };
        for (tag, target) in self.index.list(Table::Tags, &[name], "", usize::MAX)? {
            if target == digest {
                self.remove_file(repository, Kind::Tags, &tag).await?;
                self.index.remove(Table::Tags, &[name, &tag])?;
            }
        }
        self.remove_file(repository, Kind::Manifests, digest)
            .await?;
        self.index.remove(Table::Manifests, &[name, digest])?;
        if let Ok(Record {
            subject: Some(subject),
            ..
        }) = serde_json::from_str(&text)
        {
            self.index
                .remove(Table::Referrers, &[name, &subject, digest])?;
        }
        self.release(repository, digest).await
    }

    /// The manifests of the repository that speak about `subject`.
    pub fn referrers(&self, repository: &Repository, subject: &str) -> Result<Vec<Referrer>> {
        let prefix = [repository.as_str(), subject];
        let entries = self.index.list(Table::Referrers, &prefix, "", usize::MAX)?;
        Ok(entries
            .iter()
            .filter_map(|(_, text)| serde_json::from_str(text).ok())
            .collect())
    }

    fn digest_of(&self, repository: &Repository, target: &Target) -> Result<Option<String>> {
        match target {
            Target::Digest(digest) => Ok(Some(digest.clone())),
            Target::Tag(tag) => Ok(self
                .index
                .get(Table::Tags, &[repository.as_str(), tag.as_str()])?),
        }
    }

    fn check_links(&self, repository: &Repository, document: &Document) -> Result<()> {
        let table = match document.body {
            Body::Manifest(_) => Table::Blobs,
            Body::Index(_) => Table::Manifests,
        };
        for link in document.links() {
            let digest: &str = link.digest().as_ref();
            let foreign = manifest::is_foreign(link);
            if !foreign && !self.index.has(table, &[repository.as_str(), digest])? {
                return Err(Error::MissingLink {
                    repository: repository.to_string(),
                    digest: digest.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.manifests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains(':') {
            return Ok(Self::Digest(parse_digest(text)?.to_string()));
        }
        Ok(Self::Tag(text.parse()?))
    }
}

/// Puts what the file of a manifest says into the index.
pub(super) fn index_record(
    index: &Index,
    repository: &str,
    digest: &str,
    text: &str,
) -> Result<()> {
    index.set(Table::Manifests, &[repository, digest], text)?;
    if let Ok(Record {
        subject: Some(subject),
        referrer: Some(referrer),
        ..
    }) = serde_json::from_str(text)
    {
        let entry = serde_json::to_string(&referrer).unwrap_or_default();
        index.set(Table::Referrers, &[repository, &subject, digest], &entry)?;
    }
    Ok(())
}

fn record(document: &Document, digest: &str, size: usize) -> Record {
    let subject = document.subject().map(|s| s.digest().to_string());
    let annotations = match &document.body {
        Body::Manifest(manifest) => manifest.annotations().clone(),
        Body::Index(index) => index.annotations().clone(),
    };
    Record {
        media_type: document.media_type.to_owned(),
        referrer: subject.as_ref().map(|_| Referrer {
            media_type: document.media_type.to_owned(),
            digest: digest.to_owned(),
            size,
            artifact_type: document.artifact_type(),
            annotations,
        }),
        subject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_does_not_keep_the_buffer_that_it_came_in() {
        let buffer = Bytes::from(vec![b' '; 64 * 1024]);
        let mut cache = Cache::default();
        cache.insert("sha256:a", &buffer.slice(..1024));
        assert_eq!(cache.entries["sha256:a"].len(), 1024);
        assert!(buffer.is_unique());
    }

    #[test]
    fn many_small_manifests_are_bounded_as_few_large_ones_are() {
        let mut cache = Cache::default();
        let most = CACHE_BYTES_MAX / ENTRY_BYTES;
        for number in 0..=most {
            cache.insert(&number.to_string(), b"{}");
        }
        assert!(cache.entries.len() < most);
        assert!(cache.bytes <= CACHE_BYTES_MAX);
    }
}
