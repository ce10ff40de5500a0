//! What an image consists of: its blobs, checked, and the facts that a list needs.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Deserialize, Serialize};

use super::resolve::{self, Wanted};
use crate::StoreError;
use crate::content::Content;
use crate::manifest::{
    DOCUMENT_BYTES_MAX, Document, is_config, is_index, is_manifest, parse_config,
};

/// How deep indexes may lie in indexes.
const DEPTH_MAX: usize = 4;

/// The facts of a list, about the manifest for this host's platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The configuration's digest; empty when there is none.
    pub image_id: String,
    /// The digests by which a person may name this image: configurations and manifests.
    pub ids: Vec<String>,
    /// By its own account.
    pub created: Option<Timestamp>,
    /// The layers, bottom first: diff id, and bytes of the blob.
    pub layers: Vec<(String, u64)>,
    /// `os`, `architecture`, `variant`.
    pub platform: (String, String, String),
    /// The configuration's.
    pub labels: BTreeMap<String, String>,
}

/// An image's blobs.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// All blobs of it that are here, the target among them.
    pub blobs: HashSet<Digest>,
    /// The diff ids of each of its configurations, bottom first.
    pub stacks: Vec<Vec<String>>,
    /// The facts.
    pub summary: Summary,
}

impl Tree {
    /// Reads and checks everything below a target. A manifest needs all its children here; an index
    /// needs at least one whole manifest (none if it has no entries): of images for many platforms
    /// most hosts keep one.
    pub fn read(content: &Content, name: &str, target: &Descriptor) -> Result<Self, StoreError> {
        let mut tree = Self::default();
        let reader = Reader { content, name };
        reader.document(target, &mut tree, 0)?;
        if let Some((manifest, config)) = resolve::pick(content, name, target, &Wanted::host())
            .ok()
            .flatten()
        {
            tree.summary.describe(&manifest, config.as_ref());
        }
        Ok(tree)
    }
}

impl Summary {
    fn describe(&mut self, manifest: &ImageManifest, config: Option<&ImageConfiguration>) {
        let Some(config) = config else {
            return;
        };
        self.image_id = manifest.config().digest().to_string();
        let sizes = manifest.layers().iter().map(Descriptor::size);
        let diff_ids = config.rootfs().diff_ids().iter().cloned();
        self.layers = diff_ids.zip(sizes).collect();
        self.created = config
            .created()
            .as_ref()
            .and_then(|created| created.parse().ok());
        self.platform = (
            config.os().to_string(),
            config.architecture().to_string(),
            config.variant().clone().unwrap_or_default(),
        );
        let labels = config.labels_of_config().cloned().unwrap_or_default();
        self.labels = labels.into_iter().collect();
    }
}

struct Reader<'a> {
    content: &'a Content,
    name: &'a str,
}

impl Reader<'_> {
    fn document(
        &self,
        target: &Descriptor,
        tree: &mut Tree,
        depth: usize,
    ) -> Result<(), StoreError> {
        let document = read_document(self.content, self.name, target)?;
        match &document {
            Document::Manifest(manifest) => self.manifest(manifest, tree)?,
            Document::Index(index) => self.index(index, tree, depth)?,
        }
        tree.blobs.insert(target.digest().clone());
        tree.summary.ids.push(target.digest().to_string());
        Ok(())
    }

    fn manifest(&self, manifest: &ImageManifest, tree: &mut Tree) -> Result<(), StoreError> {
        for child in std::iter::once(manifest.config()).chain(manifest.layers()) {
            self.present(child)?;
        }
        if let Some(config) = read_config(self.content, manifest)? {
            tree.stacks.push(config.rootfs().diff_ids().clone());
            tree.summary
                .ids
                .push(manifest.config().digest().to_string());
        }
        let children = std::iter::once(manifest.config()).chain(manifest.layers());
        tree.blobs
            .extend(children.map(|child| child.digest().clone()));
        Ok(())
    }

    fn index(&self, index: &ImageIndex, tree: &mut Tree, depth: usize) -> Result<(), StoreError> {
        if depth >= DEPTH_MAX {
            return Err(StoreError::Request("indexes lie too deep in indexes"));
        }
        let mut missing = None;
        let mut whole = index.manifests().is_empty();
        for entry in index.manifests() {
            let known =
                is_manifest(entry.media_type().as_ref()) || is_index(entry.media_type().as_ref());
            let outcome = if known {
                self.document(entry, tree, depth + 1)
            } else {
                self.present(entry)
                    .map(|()| tree.blobs.extend([entry.digest().clone()]))
            };
            match outcome {
                Ok(()) => whole = true,
                Err(
                    error @ (StoreError::ChildMissing { .. } | StoreError::BlobNotFound { .. }),
                ) => {
                    missing.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if !whole => Err(error),
            _ => Ok(()),
        }
    }

    fn present(&self, child: &Descriptor) -> Result<(), StoreError> {
        let blob = match self.content.stat(child.digest()) {
            Ok(blob) => blob,
            Err(StoreError::BlobNotFound { digest }) => {
                return Err(StoreError::ChildMissing {
                    name: self.name.to_owned(),
                    digest,
                });
            }
            Err(error) => return Err(error),
        };
        check_size(child, blob.size)
    }
}

/// A descriptor's size must be its blob's (`SECURITY` row H6).
fn check_size(descriptor: &Descriptor, actual: u64) -> Result<(), StoreError> {
    if descriptor.size() == actual {
        return Ok(());
    }
    Err(StoreError::SizeMismatch {
        what: descriptor.digest().to_string(),
        expected: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
        actual,
    })
}

/// Reads the manifest or index that a descriptor points at.
pub(super) fn read_document(
    content: &Content,
    name: &str,
    target: &Descriptor,
) -> Result<Document, StoreError> {
    let bytes = match content.read_all(target.digest(), DOCUMENT_BYTES_MAX) {
        Err(StoreError::BlobNotFound { digest }) => {
            return Err(StoreError::ChildMissing {
                name: name.to_owned(),
                digest,
            });
        }
        other => other?,
    };
    check_size(target, bytes.len() as u64)?;
    Document::parse(&bytes, target.media_type().as_ref()).map_err(|source| StoreError::Manifest {
        subject: target.digest().to_string(),
        source,
    })
}

/// Reads a manifest's configuration, if it is an image's.
pub(super) fn read_config(
    content: &Content,
    manifest: &ImageManifest,
) -> Result<Option<ImageConfiguration>, StoreError> {
    let descriptor = manifest.config();
    if !is_config(descriptor.media_type().as_ref()) {
        return Ok(None);
    }
    let bytes = content.read_all(descriptor.digest(), DOCUMENT_BYTES_MAX)?;
    let config = parse_config(&bytes, manifest).map_err(|source| StoreError::Manifest {
        subject: descriptor.digest().to_string(),
        source,
    })?;
    Ok(Some(config))
}
