//! The documents of images, and how to compare trees.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use orlop_proto::types::Descriptor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Of this host.
pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn size(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap()
}

pub(crate) fn target(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest(bytes),
        size: size(bytes),
        ..Default::default()
    }
}

/// A configuration; `word` makes it another one.
pub(crate) fn config(diff_ids: &[String], word: &str) -> String {
    json!({
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": { "Labels": { "word": word } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
}

pub(crate) fn described(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

pub(crate) fn manifest(config: &[u8], layers: &[&[u8]]) -> String {
    let layers: Vec<_> = layers.iter().map(|layer| described(LAYER, layer)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(CONFIG, config),
        "layers": layers,
    })
    .to_string()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

/// Each entry of a tar with all that is said of it.
pub(crate) fn listing(tar: &[u8]) -> BTreeMap<String, String> {
    let mut listing = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let header = entry.header();
        let facts = format!(
            "{:?} {:o} {}:{} {} {:?} {}",
            header.entry_type(),
            header.mode().unwrap() & 0o7777,
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            String::from_utf8_lossy(&link),
            digest(&data),
        );
        listing.insert(path.trim_end_matches('/').to_owned(), facts);
    }
    listing
}
