//! The small documents in an archive: a docker-archive's `manifest.json`, and an OCI layout's marker.

use serde::{Deserialize, Serialize};

use crate::StoreError;

/// An OCI layout's marker file, and its content.
pub(super) const OCI_LAYOUT: &str = "oci-layout";
pub(super) const OCI_LAYOUT_JSON: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// An OCI layout's list of images.
pub(super) const INDEX: &str = "index.json";
/// A docker-archive's list of images.
pub(super) const MANIFEST: &str = "manifest.json";
/// The largest of these documents (`SECURITY` rows I1, I2).
pub(super) const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;

/// containerd's annotation of a full name.
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// OCI's annotation: a tag, or a full name.
pub(super) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// One image of a docker-archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Option<Vec<String>>,
}

/// The hexadecimal digest in the name of a docker-archive's configuration: `<hex>`, `<hex>.json`,
/// `sha256:<hex>` or `blobs/sha256/<hex>`, and nothing else (`SECURITY` row A4).
pub(super) fn config_digest(path: &str) -> Result<oci_spec::image::Digest, StoreError> {
    let hex = path.strip_prefix("blobs/sha256/").unwrap_or(path);
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    let hex = hex.strip_suffix(".json").unwrap_or(hex);
    crate::content::digest(&format!("sha256:{hex}"))
        .map_err(|_| entry_error(path, "the name of a configuration is not its digest"))
}

/// The digest that a path of an OCI layout says its bytes have.
pub(super) fn blob_digest(path: &str) -> Option<Result<oci_spec::image::Digest, StoreError>> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    let digest = crate::content::digest(&format!("{algorithm}:{hex}"));
    Some(digest.map_err(|_| entry_error(path, "the name of a blob is not its digest")))
}

/// The error of one entry.
pub(super) fn entry_error(entry: &str, problem: impl Into<String>) -> StoreError {
    StoreError::ArchiveEntry {
        entry: entry.chars().take(100).collect(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_the_name_of_a_configuration_is_its_digest() {
        let hex = "a".repeat(64);
        for good in [
            hex.clone(),
            format!("{hex}.json"),
            format!("sha256:{hex}"),
            format!("blobs/sha256/{hex}"),
        ] {
            assert!(config_digest(&good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "../../x",
            "a/b",
            "x\0",
            &"a".repeat(1 << 20),
            &format!("../{hex}.json"),
        ] {
            assert!(config_digest(bad).is_err());
        }
    }
}
