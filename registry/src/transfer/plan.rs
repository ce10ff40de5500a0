//! What an image is made of: the platform's manifest of an index, the blobs of a manifest.

use std::collections::{HashMap, HashSet};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use orlop_proto::types::Platform;
use serde::Deserialize;

use crate::manifest::{Body, Document, is_foreign};
use crate::{Error, Result};

/// A blob to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) size: u64,
    /// Of a layer, once the configuration is here; otherwise empty.
    pub(super) diff_id: String,
}

/// The blobs of a manifest, each once, without those that are never moved.
pub(super) fn blobs(document: &Document) -> Vec<Blob> {
    let mut seen = HashSet::new();
    let links = document.links().into_iter();
    links
        .filter(|link| !is_foreign(link) && seen.insert(link.digest().to_string()))
        .map(|link| Blob {
            digest: link.digest().to_string(),
            size: link.size(),
            diff_id: String::new(),
        })
        .collect()
}

/// The manifest, if it is of an image: charts, signatures and the like have no file tree.
pub(super) fn image(document: &Document) -> Option<&ImageManifest> {
    let Body::Manifest(manifest) = &document.body else {
        return None;
    };
    let config = manifest.config().media_type().to_string();
    let image = config.contains("image.config") || config.contains("container.image");
    image.then_some(manifest)
}

/// What is read of a configuration here.
#[derive(Debug, Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The diff ids of the layers by their digests. A configuration that does not fit has none: who unpacks
/// the image says what is wrong with it.
pub(super) fn diff_ids(manifest: &ImageManifest, configuration: &[u8]) -> HashMap<String, String> {
    let diff_ids = serde_json::from_slice(configuration)
        .map(|configuration: Configuration| configuration.rootfs.diff_ids)
        .unwrap_or_default();
    let layers = manifest
        .layers()
        .iter()
        .map(|link| link.digest().to_string());
    if layers.len() != diff_ids.len() {
        return HashMap::new();
    }
    layers.zip(diff_ids).collect()
}

/// This host's platform, in Go's words.
pub(super) fn host_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        "x86" => ("386", ""),
        "arm" => ("arm", "v7"),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
    }
}

/// What was asked for, with what was left out filled in from this host.
pub(super) fn platform(asked: Option<Platform>) -> Platform {
    let host = host_platform();
    match asked {
        Some(asked) if !asked.architecture.is_empty() => Platform {
            os: Some(asked.os)
                .filter(|os| !os.is_empty())
                .unwrap_or(host.os),
            ..asked
        },
        _ => host,
    }
}

/// The manifest for a platform: one of the same variant before one of another or none.
pub(super) fn choose<'a>(
    index: &'a ImageIndex,
    wanted: &Platform,
    name: &str,
) -> Result<&'a Descriptor> {
    let fits = |link: &&Descriptor| {
        link.platform().as_ref().is_some_and(|p| {
            p.os().to_string() == wanted.os && p.architecture().to_string() == wanted.architecture
        })
    };
    let same_variant = |link: &&Descriptor| {
        let variant = link
            .platform()
            .as_ref()
            .and_then(|p| p.variant().as_deref());
        variant.unwrap_or_default() == wanted.variant
    };
    let entries = index.manifests();
    let fitting = || entries.iter().filter(fits);
    let only =
        || Some(entries.first()?).filter(|link| entries.len() == 1 && link.platform().is_none());
    fitting()
        .find(same_variant)
        .or_else(|| fitting().next())
        .or_else(only)
        .ok_or_else(|| Error::NoPlatform {
            name: name.to_owned(),
            wanted: show(&wanted.os, &wanted.architecture),
            offered: offered(entries),
        })
}

fn offered(entries: &[Descriptor]) -> String {
    let platforms = entries.iter().filter_map(|link| link.platform().as_ref());
    let shown = platforms.map(|p| show(&p.os().to_string(), &p.architecture().to_string()));
    let list: Vec<String> = shown.take(12).collect();
    if list.is_empty() {
        return "none that it names".to_owned();
    }
    list.join(", ")
}

fn show(os: &str, architecture: &str) -> String {
    format!("{os}/{architecture}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(&str, Option<&str>)]) -> ImageIndex {
        let entries: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(n, (architecture, variant))| {
                serde_json::json!({
                    "mediaType": crate::manifest::OCI_MANIFEST, "size": n,
                    "digest": format!("sha256:{}", "a".repeat(64)),
                    "platform": {"os": "linux", "architecture": architecture, "variant": variant},
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": entries}))
            .unwrap()
    }

    fn wanted(architecture: &str, variant: &str) -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    #[test]
    fn the_variant_decides_between_equals() {
        let index = index(&[("amd64", None), ("arm", Some("v6")), ("arm", Some("v7"))]);
        let size = |w: Platform| choose(&index, &w, "x").unwrap().size();
        assert_eq!(size(wanted("amd64", "")), 0);
        assert_eq!(size(wanted("arm", "v7")), 2);
        assert_eq!(size(wanted("arm", "")), 1);
        let error = choose(&index, &wanted("s390x", ""), "x").unwrap_err();
        assert!(error.to_string().contains("linux/arm"), "{error}");
    }
}
