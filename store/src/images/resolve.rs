//! What a person may have typed, made one image.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Platform};
use orlop_proto::reference::Reference;

use super::tree::{read_config, read_document};
use super::{Images, Listed};
use crate::StoreError;
use crate::content::Content;
use crate::manifest::{DOCUMENT_BYTES_MAX, Document, is_index, is_manifest};

/// How deep indexes may lie in indexes.
const DEPTH_MAX: usize = 4;

/// The platform that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Go's name, for example `linux`.
    pub os: String,
    /// Go's name, for example `amd64`.
    pub architecture: String,
    /// Empty for any.
    pub variant: String,
}

/// An image down to the configuration of one platform.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Empty when the image was named by an id or a digest.
    pub name: String,
    /// Where the name points.
    pub target: Descriptor,
    /// The manifest of the platform.
    pub manifest: Descriptor,
    /// Its bytes.
    pub manifest_json: Vec<u8>,
    /// The configuration.
    pub config: Descriptor,
    /// Its bytes.
    pub config_json: Vec<u8>,
    /// All names of the same target.
    pub names: Vec<String>,
}

impl Wanted {
    /// This host's platform.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
        }
    }

    /// How well a platform fits: `None` for not at all, else the higher the better. An image that
    /// names no variant fits every one, but one that names it fits better.
    fn fit(&self, platform: &Platform) -> Option<u32> {
        if platform.os().to_string() != self.os
            || platform.architecture().to_string() != self.architecture
        {
            return None;
        }
        let variant = platform.variant().as_deref().unwrap_or_default();
        if variant == self.variant {
            return Some(2);
        }
        let assumed = self.variant.is_empty() || variant.is_empty();
        assumed.then_some(u32::from(self.architecture == "arm64" && variant == "v8"))
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.variant)
    }
}

impl Images {
    /// Finds the image that `text` means: a name first, then an image id or a prefix of one.
    pub fn resolve(&self, text: &str, wanted: &Wanted) -> Result<Resolved, StoreError> {
        let (name, target) = self.locate(text)?;
        let manifest =
            find_manifest(&self.content, text, &target, wanted, 0)?.ok_or_else(|| {
                StoreError::PlatformNotFound {
                    name: text.to_owned(),
                    platform: wanted.to_string(),
                }
            })?;
        let manifest_json = self
            .content
            .read_all(manifest.digest(), DOCUMENT_BYTES_MAX)?;
        let Document::Manifest(document) = read_document(&self.content, text, &manifest)? else {
            return Err(StoreError::Request(
                "an index lies where a manifest was said to be",
            ));
        };
        let config = document.config().clone();
        let config_json = self.content.read_all(config.digest(), DOCUMENT_BYTES_MAX)?;
        let names = self.names_of(&target)?;
        if name.is_empty() {
            names.iter().for_each(|name| self.touch(name));
        } else {
            self.touch(&name);
        }
        Ok(Resolved {
            name,
            target,
            manifest,
            manifest_json,
            config,
            config_json,
            names,
        })
    }

    /// The name (empty if it was not one) and the target.
    fn locate(&self, text: &str) -> Result<(String, Descriptor), StoreError> {
        if text.starts_with("sha256:")
            && let Some(found) = self.by_id(text)?
        {
            return Ok((String::new(), found));
        }
        let parsed = text.parse::<Reference>();
        if let Ok(reference) = &parsed
            && let Some(listed) = self.by_reference(reference)?
        {
            return Ok((listed.image.name, listed.image.target));
        }
        if let Some(target) = self.by_id(text)? {
            return Ok((String::new(), target));
        }
        match parsed {
            Err(error) if !text.starts_with("sha256:") => Err(error.into()),
            _ => Err(StoreError::ImageNotFound {
                name: text.to_owned(),
            }),
        }
    }

    /// By exact name; with a digest, also any name of the repository that points there.
    fn by_reference(&self, reference: &Reference) -> Result<Option<Listed>, StoreError> {
        let name = reference.to_string();
        let exact = self.find(&name)?;
        let (Some(digest), None) = (reference.digest(), &exact) else {
            return Ok(exact);
        };
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let listed = self.catalog.list(&repository, "", usize::MAX);
        Ok(listed.into_iter().find(|listed| {
            let same = listed.image.name[repository.len()..].starts_with([':', '@']);
            same && listed.image.target.digest().as_ref() == digest
        }))
    }

    /// By image id, or a unique prefix of one.
    fn by_id(&self, text: &str) -> Result<Option<Descriptor>, StoreError> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(hexadecimal) {
            return Ok(None);
        }
        let mut ids = BTreeSet::new();
        let mut target = None;
        for listed in self.all()? {
            let digests = std::iter::once(&listed.summary.image_id)
                .chain(listed.summary.ids.iter().filter(|_| prefix.len() == 64));
            let fits = |id: &&String| {
                id.strip_prefix("sha256:")
                    .is_some_and(|hex| hex.starts_with(prefix))
            };
            if let Some(id) = digests.into_iter().find(fits) {
                ids.insert(id.clone());
                target.get_or_insert(listed.image.target);
            }
        }
        match ids.len() {
            0 | 1 => Ok(target),
            count => Err(StoreError::AmbiguousImage {
                prefix: text.to_owned(),
                count,
            }),
        }
    }

    fn names_of(&self, target: &Descriptor) -> Result<Vec<String>, StoreError> {
        let images = self.all()?.into_iter().map(|listed| listed.image);
        let same = images.filter(|image| image.target.digest() == target.digest());
        Ok(same.map(|image| image.name).collect())
    }
}

/// The manifest of a platform below a target, and its configuration if it is an image's.
pub(crate) fn pick(
    content: &Content,
    name: &str,
    target: &Descriptor,
    wanted: &Wanted,
) -> Result<Option<(ImageManifest, Option<ImageConfiguration>)>, StoreError> {
    let Some(descriptor) = find_manifest(content, name, target, wanted, 0)? else {
        return Ok(None);
    };
    match read_document(content, name, &descriptor)? {
        Document::Manifest(manifest) => {
            let config = read_config(content, &manifest)?;
            Ok(Some((*manifest, config)))
        }
        Document::Index(_) => Ok(None),
    }
}

/// A target that is a manifest is the answer whatever its platform: its owner chose it by name.
fn find_manifest(
    content: &Content,
    name: &str,
    target: &Descriptor,
    wanted: &Wanted,
    depth: usize,
) -> Result<Option<Descriptor>, StoreError> {
    if depth > DEPTH_MAX {
        return Ok(None);
    }
    match read_document(content, name, target)? {
        Document::Manifest(_) => Ok(Some(target.clone())),
        Document::Index(index) => {
            for entry in candidates(&index, wanted) {
                if content.exists(entry.digest())
                    && let Some(found) = find_manifest(content, name, entry, wanted, depth + 1)?
                {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
    }
}

/// The entries that fit, best first. Entries without a platform come last: they may be anything.
fn candidates<'a>(index: &'a ImageIndex, wanted: &Wanted) -> Vec<&'a Descriptor> {
    let mut fitting: Vec<(u32, &Descriptor)> = index
        .manifests()
        .iter()
        .filter(|entry| {
            let media_type = entry.media_type().as_ref();
            is_manifest(media_type) || is_index(media_type)
        })
        .filter_map(|entry| match entry.platform() {
            Some(platform) => wanted.fit(platform).map(|fit| (fit + 1, entry)),
            None => Some((0, entry)),
        })
        .collect();
    fitting.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
    fitting.into_iter().map(|(_, entry)| entry).collect()
}
