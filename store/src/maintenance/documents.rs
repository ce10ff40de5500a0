//! What manifests and indexes hold. A document is immutable by its digest, so that it is read and parsed
//! once however often the collector passes.

use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::{HashMap, HashSet};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};

use super::mark::Key;
use crate::StoreError;
use crate::content::Content;
use crate::layers::chain::chain_ids;
use crate::manifest::{DOCUMENT_BYTES_MAX, Document, is_config, parse_config};

/// Digests that are remembered, of documents and in them: about 20 MB.
const WEIGHT_MAX: usize = 128 * 1024;
/// What is smaller has no room for a digest with its media type and size: it holds nothing.
const DOCUMENT_BYTES_MIN: u64 = 100;

/// What a document holds.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// All blobs that it names.
    pub(super) blobs: Vec<Digest>,
    /// Of these.
    pub(super) keys: Vec<Key>,
    /// Those may be documents too.
    pub(super) is_index: bool,
    /// Names of the committed snapshots of its layers.
    pub(super) snapshots: Vec<Arc<str>>,
    /// What it refers to without holding it.
    pub(super) subject: Option<Key>,
}

/// Reads documents; clones share what is remembered.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    content: Content,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` for a blob that is no document.
    links: HashMap<Key, Option<Arc<Links>>>,
    weight: usize,
}

impl Documents {
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            known: Arc::default(),
        }
    }

    /// What a blob holds; `None` when it is not a document, or not here, or damaged.
    pub(super) fn links(&self, digest: &Digest) -> Result<Option<Arc<Links>>, StoreError> {
        let key = Key::of(digest);
        if let Some(links) = self.remembered(key) {
            return Ok(links);
        }
        match self.read(digest) {
            Ok(Read::Document(links, whole)) => {
                let links = Arc::new(links);
                if whole {
                    self.lock().remember(key, Some(links.clone()));
                }
                Ok(Some(links))
            }
            Ok(Read::Small) => Ok(None),
            Ok(Read::Other) => {
                self.lock().remember(key, None);
                Ok(None)
            }
            Err(StoreError::BlobNotFound { .. }) => Ok(None),
            Err(error @ StoreError::BlobDamaged { .. }) => {
                tracing::error!(%digest, %error, "nothing is known of what a document holds");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, as far as it was read before.
    pub(super) fn remembered(&self, key: Key) -> Option<Option<Arc<Links>>> {
        self.lock().links.get(&key).cloned()
    }

    /// Tells all blobs below one, each at least once.
    pub(super) fn each_below(
        &self,
        root: &Digest,
        tell: &mut dyn FnMut(&Digest),
    ) -> Result<(), StoreError> {
        let mut open = vec![root.clone()];
        let mut seen = HashSet::default();
        while let Some(digest) = open.pop() {
            let Some(links) = self
                .links(&digest)?
                .filter(|_| seen.insert(Key::of(&digest)))
            else {
                continue;
            };
            links.blobs.iter().for_each(&mut *tell);
            if links.is_index {
                open.extend(links.blobs.iter().cloned());
            }
        }
        Ok(())
    }

    fn read(&self, digest: &Digest) -> Result<Read, StoreError> {
        let size = self.content.stat(digest)?.size;
        if size < DOCUMENT_BYTES_MIN {
            return Ok(Read::Small);
        }
        if size > DOCUMENT_BYTES_MAX || !self.looks_like_json(digest)? {
            return Ok(Read::Other);
        }
        let bytes = self.content.read_all(digest, DOCUMENT_BYTES_MAX)?;
        let Ok(document) = Document::parse(&bytes, "") else {
            return Ok(Read::Other);
        };
        let mut links = Links {
            blobs: document
                .children()
                .map(Descriptor::digest)
                .cloned()
                .collect(),
            ..Links::default()
        };
        let (subject, whole) = match &document {
            Document::Index(index) => {
                links.is_index = true;
                (index.subject().as_ref(), true)
            }
            Document::Manifest(manifest) => {
                let chain = self.chain(manifest)?;
                let whole = chain.is_some();
                links.snapshots = chain.unwrap_or_default();
                (manifest.subject().as_ref(), whole)
            }
        };
        links.keys = links.blobs.iter().map(Key::of).collect();
        links.subject = subject.map(|subject| Key::of(subject.digest()));
        Ok(Read::Document(links, whole))
    }

    /// The names of a manifest's snapshots; `None` while its configuration is not here.
    fn chain(&self, manifest: &ImageManifest) -> Result<Option<Vec<Arc<str>>>, StoreError> {
        let config = manifest.config();
        if !is_config(config.media_type().as_ref()) {
            return Ok(Some(Vec::new()));
        }
        let bytes = match self.content.read_all(config.digest(), DOCUMENT_BYTES_MAX) {
            Err(
                StoreError::BlobNotFound { .. }
                | StoreError::BlobDamaged { .. }
                | StoreError::BlobTooLarge { .. },
            ) => return Ok(None),
            other => other?,
        };
        let parsed = parse_config(&bytes, manifest);
        let ids = |config: ImageConfiguration| chain_ids(config.rootfs().diff_ids());
        let names = parsed.ok().map(ids);
        Ok(names.map(|names| names.into_iter().map(Arc::from).collect()))
    }

    fn looks_like_json(&self, digest: &Digest) -> Result<bool, StoreError> {
        let mut first = Vec::new();
        let file = self.content.open_unverified(digest)?;
        file.take(1)
            .read_to_end(&mut first)
            .map_err(StoreError::io("read", self.content.path(digest)))?;
        let begins = |byte: &u8| *byte == b'{' || byte.is_ascii_whitespace();
        Ok(first.first().is_some_and(begins))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Read {
    /// Whether all that it holds is known.
    Document(Links, bool),
    /// No document.
    Other,
    /// The same, and asked again as fast as remembered.
    Small,
}

impl Known {
    /// When there is too much, all is forgotten: what is still needed is read again.
    fn remember(&mut self, key: Key, links: Option<Arc<Links>>) {
        let weight = |links: &Links| links.blobs.len() + links.snapshots.len();
        let weight = 1 + links.as_deref().map_or(0, weight);
        if self.weight + weight > WEIGHT_MAX {
            *self = Self::default();
        }
        self.weight += weight;
        self.links.insert(key, links);
    }
}
