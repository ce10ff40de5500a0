//! What names point at, in memory: the tree of blobs below a manifest or an index.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, Platform};
use orlop_proto::error::{Kind, reason};
use orlop_proto::types;
use orlop_store::layers::chain::chain_ids;
use orlop_store::manifest::parse_config;
use orlop_store::manifest::{DOCUMENT_BYTES_MAX, Document, is_config, is_index, is_manifest};
use tonic::Status;

use super::{State, invalid, refuse, refuse_for};

/// How deep indexes may lie in indexes.
const DEPTH_MAX: usize = 4;

/// One image: a manifest with its configuration, if that is an image's.
pub(super) struct Single {
    pub(super) descriptor: Descriptor,
    pub(super) manifest: ImageManifest,
    pub(super) config: Option<ImageConfiguration>,
}

/// All that a descriptor needs.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) blobs: BTreeSet<String>,
    pub(super) singles: Vec<Single>,
    /// Manifests and indexes.
    pub(super) documents: BTreeSet<String>,
}

impl Tree {
    /// The names of all snapshots of its layers.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = String> {
        let configs = self.singles.iter().flat_map(|single| &single.config);
        configs.flat_map(|config| chain_ids(config.rootfs().diff_ids()))
    }

    /// The digests of its configurations.
    pub(super) fn image_ids(&self) -> impl Iterator<Item = String> {
        let images = self.singles.iter().filter(|single| single.config.is_some());
        images.map(|single| single.manifest.config().digest().to_string())
    }
}

impl State {
    /// Everything below a target, or what is wrong with it. Of an index one whole image is enough.
    pub(super) fn tree(&self, target: &Descriptor) -> Result<Tree, Status> {
        let mut tree = Tree::default();
        self.add(target, &mut tree, 0)?;
        Ok(tree)
    }

    fn add(&self, target: &Descriptor, tree: &mut Tree, depth: usize) -> Result<(), Status> {
        match self.document(target)? {
            Document::Manifest(manifest) => {
                let single = self.single(target, *manifest, tree)?;
                tree.singles.push(single);
            }
            Document::Index(index) => {
                let children = index.manifests();
                self.add_children(children, tree, depth)?;
            }
        }
        tree.blobs.insert(target.digest().to_string());
        tree.documents.insert(target.digest().to_string());
        Ok(())
    }

    fn add_children(
        &self,
        children: &[Descriptor],
        tree: &mut Tree,
        depth: usize,
    ) -> Result<(), Status> {
        if depth >= DEPTH_MAX {
            return Err(invalid("indexes lie too deep in indexes"));
        }
        let (mut whole, mut lack) = (children.is_empty(), None);
        for child in children {
            let media_type = child.media_type().as_ref();
            let added = match is_manifest(media_type) || is_index(media_type) {
                true => self.add(child, tree, depth + 1),
                false => self.child(child, tree),
            };
            match added {
                Ok(()) => whole = true,
                Err(status) if Kind::of(status.code()) == Kind::FailedPrecondition => {
                    lack = Some(status);
                }
                Err(status) => return Err(status),
            }
        }
        match lack {
            Some(status) if !whole => Err(status),
            _ => Ok(()),
        }
    }

    fn single(
        &self,
        target: &Descriptor,
        manifest: ImageManifest,
        tree: &mut Tree,
    ) -> Result<Single, Status> {
        // An incomplete manifest of an index holds none of its children.
        let mut own = Tree::default();
        for child in std::iter::once(manifest.config()).chain(manifest.layers()) {
            self.child(child, &mut own)?;
        }
        let config = manifest.config();
        let config = match is_config(config.media_type().as_ref()) {
            true => Some(self.config(config, &manifest)?),
            false => None,
        };
        tree.blobs.extend(own.blobs);
        Ok(Single {
            descriptor: target.clone(),
            manifest,
            config,
        })
    }

    fn config(
        &self,
        config: &Descriptor,
        manifest: &ImageManifest,
    ) -> Result<ImageConfiguration, Status> {
        let bytes = self.small(config)?;
        parse_config(bytes, manifest).map_err(|error| invalid(error.to_string()))
    }

    fn child(&self, child: &Descriptor, tree: &mut Tree) -> Result<(), Status> {
        let blob = self.blobs.get(child.digest().as_ref());
        let lack = || {
            let message = format!("not complete: {} is not in the store", child.digest());
            refuse(Kind::FailedPrecondition, message)
        };
        if blob.ok_or_else(lack)?.bytes.len() as u64 != child.size() {
            let message = format!("{} has another size", child.digest());
            let reason = reason::DIGEST_MISMATCH;
            return Err(refuse_for(Kind::InvalidArgument, reason, message));
        }
        tree.blobs.insert(child.digest().to_string());
        Ok(())
    }

    fn document(&self, target: &Descriptor) -> Result<Document, Status> {
        self.child(target, &mut Tree::default())?;
        let bytes = self.small(target)?;
        Document::parse(bytes, target.media_type().as_ref())
            .map_err(|error| invalid(error.to_string()))
    }

    /// The bytes of a document that is here.
    fn small(&self, document: &Descriptor) -> Result<&[u8], Status> {
        let bytes = &self.blob(document.digest().as_ref())?.bytes;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(invalid(format!("more than {DOCUMENT_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    /// The image for a platform. A manifest is the answer whatever it is for.
    pub(super) fn pick(&self, target: &Descriptor, wanted: &Wanted) -> Option<Single> {
        let Document::Index(index) = self.document(target).ok()? else {
            let mut tree = Tree::default();
            self.add(target, &mut tree, 0).ok()?;
            return tree.singles.pop();
        };
        let mut fitting: Vec<_> = index
            .manifests()
            .iter()
            .filter_map(|entry| Some((wanted.fit(entry.platform().as_ref())?, entry)))
            .collect();
        fitting.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
        fitting
            .into_iter()
            .find_map(|(_, entry)| self.pick(entry, wanted))
    }

    /// The descriptor of a document that is known by its digest only.
    pub(super) fn target(&self, digest: &str) -> Result<Descriptor, Status> {
        let bytes = self.blob(digest)?.bytes.clone();
        let document = Document::parse(&bytes, "").map_err(|error| invalid(error.to_string()))?;
        let digest = orlop_proto::descriptor::parse_digest(digest);
        let digest = digest.map_err(|error| invalid(error.to_string()))?;
        let media_type = document.media_type().as_str().into();
        Ok(Descriptor::new(media_type, bytes.len() as u64, digest))
    }
}

/// A platform that is asked for.
pub(super) struct Wanted(pub(super) types::Platform);

impl Wanted {
    pub(super) fn or_host(platform: Option<types::Platform>) -> Self {
        let mut wanted = platform.unwrap_or_default();
        if wanted.os.is_empty() {
            wanted.os = "linux".to_owned();
        }
        if wanted.architecture.is_empty() {
            wanted.architecture = crate::words::ARCHITECTURE.to_owned();
        }
        Self(wanted)
    }

    /// The higher the better; without a platform it may be anything.
    fn fit(&self, platform: Option<&Platform>) -> Option<u32> {
        let Some(platform) = platform else {
            return Some(0);
        };
        let same = platform.os().to_string() == self.0.os
            && platform.architecture().to_string() == self.0.architecture;
        let variant = platform.variant().as_deref().unwrap_or_default();
        match (same, variant == self.0.variant) {
            (false, _) => None,
            (true, true) => Some(3),
            (true, false) if variant.is_empty() || self.0.variant.is_empty() => Some(1),
            (true, false) => None,
        }
    }
}
