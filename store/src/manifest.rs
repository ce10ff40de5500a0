//! Manifests, indexes and configurations: a strict parser of hostile JSON (`SECURITY` rows H1, E21, I1).
//! Pure: bytes in, values of `oci-spec` out.

mod strict;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use orlop_proto::descriptor::parse_digest;
use serde_json::Value;

/// The largest manifest, index or configuration that is read into memory (as `iolimits` of
/// containers/image).
pub const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the form.
    #[error("it is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// It breaks a rule of the OCI image specification, or one that keeps parsers from disagreeing.
    #[error("{0}")]
    Rule(String),
}

/// What a name can point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image, or an artifact that looks like one.
    Manifest(Box<ImageManifest>),
    /// One image per platform.
    Index(Box<ImageIndex>),
}

/// Whether a media type is one of a manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether a media type is one of an index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Whether a media type is one of an image's configuration, so that its content has rules.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

impl Document {
    /// Parses a manifest or an index. `media_type`: what its descriptor says, empty for unknown.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, ManifestError> {
        let value = strict::parse(bytes)?;
        let has = |key| value.get(key).is_some();
        let index = has("manifests");
        if index && (has("layers") || has("config") || has("fsLayers")) {
            return rule("it is a manifest and an index at once");
        }
        check_media_type(&value, media_type, index)?;
        if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
            return rule("its schemaVersion is not 2");
        }
        let document = if index {
            Self::Index(serde_json::from_value(value)?)
        } else {
            Self::Manifest(serde_json::from_value(value)?)
        };
        document.children().try_for_each(check_descriptor)?;
        Ok(document)
    }

    /// Its media type: what it says itself, else what its form says.
    pub fn media_type(&self) -> String {
        let (said, form) = match self {
            Self::Manifest(manifest) => (manifest.media_type(), OCI_MANIFEST),
            Self::Index(index) => (index.media_type(), OCI_INDEX),
        };
        said.as_ref()
            .map_or_else(|| form.to_owned(), ToString::to_string)
    }

    /// All descriptors in it: an index's entries, or a manifest's configuration and layers.
    pub fn children(&self) -> Box<dyn Iterator<Item = &Descriptor> + '_> {
        match self {
            Self::Manifest(manifest) => {
                Box::new(std::iter::once(manifest.config()).chain(manifest.layers()))
            }
            Self::Index(index) => Box::new(index.manifests().iter()),
        }
    }
}

/// Parses the configuration of a manifest, and compares the two.
pub fn parse_config(
    bytes: &[u8],
    manifest: &ImageManifest,
) -> Result<ImageConfiguration, ManifestError> {
    let config: ImageConfiguration = serde_json::from_value(strict::parse(bytes)?)?;
    let diff_ids = config.rootfs().diff_ids();
    let layers = manifest.layers().len();
    if config.rootfs().typ() != "layers" {
        return rule("the type of its rootfs is not `layers`");
    }
    if diff_ids.len() != layers {
        return rule(format!(
            "it has {} diff ids for {layers} layers",
            diff_ids.len()
        ));
    }
    for diff_id in diff_ids {
        parse_digest(diff_id).map_err(|error| ManifestError::Rule(error.to_string()))?;
    }
    let history = config.history().as_deref().unwrap_or_default();
    let made = history
        .iter()
        .filter(|entry| entry.empty_layer() != Some(true))
        .count();
    if made > layers {
        return rule(format!(
            "its history tells of {made} layers, and there are {layers}"
        ));
    }
    Ok(config)
}

fn rule<T>(text: impl Into<String>) -> Result<T, ManifestError> {
    Err(ManifestError::Rule(text.into()))
}

/// What a document says of itself, what its descriptor says of it and its form must agree, so that
/// everybody reads the same thing in it.
fn check_media_type(value: &Value, expected: &str, index: bool) -> Result<(), ManifestError> {
    let said = match value.get("mediaType") {
        None => "",
        Some(Value::String(said)) => said.as_str(),
        Some(_) => return rule("its mediaType is not a string"),
    };
    if !said.is_empty() && !expected.is_empty() && said != expected {
        return rule(format!(
            "it says it is {said:?}, and it was announced as {expected:?}"
        ));
    }
    for media_type in [said, expected]
        .into_iter()
        .filter(|media_type| !media_type.is_empty())
    {
        let fits = if index {
            is_index(media_type)
        } else {
            is_manifest(media_type)
        };
        if !fits {
            return rule(format!(
                "its form does not fit the media type {media_type:?}"
            ));
        }
    }
    Ok(())
}

fn check_descriptor(descriptor: &Descriptor) -> Result<(), ManifestError> {
    parse_digest(descriptor.digest().as_ref())
        .map_err(|error| ManifestError::Rule(error.to_string()))?;
    if i64::try_from(descriptor.size()).is_err() {
        return rule(format!("{} has an impossible size", descriptor.digest()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
