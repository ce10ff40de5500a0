//! Images that are cheap to make and share layers, each with a file of its own to be known by.

use std::io::Write as _;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use crate::fixtures;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Middle layers: enough that images share some and differ in others.
const SHARED: u64 = 6;
const SHARED_BYTES: u64 = 512 * 1024;

/// The file that an image is known by.
pub const MARKER: &str = "marker";

/// A layer's blob, and the digest of its plain tar.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The gzip.
    pub blob: Vec<u8>,
    /// `sha256:…` of the plain tar.
    pub diff_id: String,
}

/// An image as `orlop load` takes it.
#[derive(Debug)]
pub struct Archive {
    /// A tar of an OCI layout.
    pub bytes: Vec<u8>,
    /// Of the manifest.
    pub digest: String,
}

static BASE: LazyLock<Layer> = LazyLock::new(|| Layer::of(&fixtures::busybox_rootfs()));
static MIDDLE: LazyLock<Vec<Layer>> = LazyLock::new(|| {
    let bytes = |number| noise(number, SHARED_BYTES);
    let layers = (0..SHARED).map(|number| (format!("shared/{number}"), bytes(number + 1)));
    layers
        .map(|(path, bytes)| Layer::of(&tar_of(&[(&path, &bytes)])))
        .collect()
});

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut dice = super::work::Dice::new(seed);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes());
    words.collect()
}

/// A tar of files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

impl Layer {
    /// Compresses a tar, fast.
    pub fn of(tar: &[u8]) -> Self {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(tar).unwrap();
        Self {
            blob: gzip.finish().unwrap(),
            diff_id: digest(tar),
        }
    }
}

/// An image of three layers: a base that all have, one that some have, and one of its own. It prints
/// the marker.
pub fn layered(name: &str, marker: &str, middle: u64) -> Archive {
    let middle = usize::try_from(middle % SHARED).unwrap_or_default();
    let own = Layer::of(&tar_of(&[(MARKER, marker.as_bytes())]));
    archive(name, &[&BASE, &MIDDLE[middle], &own])
}

/// A tar of a root file system that prints the marker.
pub fn flat(marker: &str) -> Vec<u8> {
    fixtures::rootfs_with(&[(MARKER, 0o644, marker.as_bytes())])
}

/// An image of these layers as an OCI layout.
pub fn archive(name: &str, layers: &[&Layer]) -> Archive {
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Cmd": ["cat", format!("/{MARKER}")], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let links: Vec<_> = layers
        .iter()
        .map(|layer| link(LAYER, &layer.blob))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": link(CONFIG, &config), "layers": links,
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = link(MANIFEST, &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

    let mut blobs: Vec<&[u8]> = vec![&config, &manifest];
    blobs.extend(layers.iter().map(|layer| layer.blob.as_slice()));
    let paths: Vec<_> = blobs
        .iter()
        .map(|blob| digest(blob).replace("sha256:", "blobs/sha256/"))
        .collect();
    let mut files: Vec<(&str, &[u8])> = vec![
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
    ];
    files.extend(paths.iter().map(String::as_str).zip(blobs));
    Archive {
        bytes: tar_of(&files),
        digest: digest(&manifest),
    }
}

fn link(media_type: &str, blob: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
