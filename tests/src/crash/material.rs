//! What the workload stores: blobs, layers and images that are the same for the same seed, with what
//! is to be found in them afterwards.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256, Sha512};

use super::chance::Chance;

const OCI: &str = "application/vnd.oci.image";
/// How many different layers there are: few, so that images share them.
const LAYERS: u64 = 10;
/// One in so many layers of an image is nobody else's: it is not on the store's shelf when it comes.
const FRESH: u64 = 3;

/// Bytes and their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:…` or `sha512:…`.
    pub digest: String,
    /// What it names.
    pub bytes: bytes::Bytes,
    /// Of a layer: the digest of its plain tar. Empty for everything else.
    pub diff_id: String,
}

/// A layer, and the files in it.
#[derive(Debug)]
pub struct Layer {
    /// Plain or compressed.
    pub blob: Blob,
    /// Path to content.
    pub files: BTreeMap<String, Vec<u8>>,
    media_type: String,
}

/// An image of a few layers.
#[derive(Clone, Debug)]
pub struct Image {
    /// What a name points at.
    pub manifest: Blob,
    /// What the manifest names beside layers.
    pub config: Blob,
    /// Lowest first.
    pub layers: Vec<Arc<Layer>>,
}

/// The digest of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Blob {
    /// Names bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: sha256(&bytes),
            bytes: bytes.into(),
            diff_id: String::new(),
        }
    }

    /// Bytes that nobody has had before; at times named by the rarer algorithm.
    pub fn random(chance: &mut Chance) -> Self {
        let size = chance.size();
        let blob = Self::new(chance.bytes(size));
        if !chance.one_in(8) {
            return blob;
        }
        let digest = format!("sha512:{}", hex::encode(Sha512::digest(&blob.bytes)));
        Self { digest, ..blob }
    }
}

impl Layer {
    /// A layer that nobody has had before.
    pub fn fresh(chance: &mut Chance) -> Arc<Self> {
        Arc::new(Self::numbered(chance.number()))
    }

    /// The layer of a number. Every other one describes its directory; those that do not cannot be
    /// finished while they arrive, because they take its attributes from the layers below.
    fn numbered(number: u64) -> Self {
        let mut chance = Chance::new(number);
        let mut files = BTreeMap::new();
        for file in 0..4 + chance.below(12) {
            let size = usize::try_from(chance.below(32 << 10)).unwrap();
            files.insert(format!("d{number}/f{file}"), chance.bytes(size));
        }
        files.insert("top".to_owned(), number.to_string().into_bytes());
        let mut members = files.clone();
        if number.is_multiple_of(2) {
            members.insert(format!("d{number}/"), Vec::new());
        }
        let plain = tar_of(&members);
        let (packed, suffix) = match number % 3 {
            0 => (plain.clone(), ""),
            1 => (gzip(&plain), "+gzip"),
            _ => (zstd::encode_all(plain.as_slice(), 1).unwrap(), "+zstd"),
        };
        let diff_id = sha256(&plain);
        let blob = Blob {
            diff_id,
            ..Blob::new(packed)
        };
        Self {
            blob,
            files,
            media_type: format!("{OCI}.layer.v1.tar{suffix}"),
        }
    }

    fn descriptor(&self) -> serde_json::Value {
        descriptor(&self.media_type, &self.blob)
    }
}

/// The layers that images share.
#[derive(Clone, Debug)]
pub struct Shelf(Vec<Arc<Layer>>);

impl Shelf {
    /// Makes them.
    pub fn make() -> Self {
        Self((0..LAYERS).map(Layer::numbered).map(Arc::new).collect())
    }

    /// An image of one to three different layers that nobody has made before.
    pub fn image(&self, chance: &mut Chance) -> Image {
        let mut layers: Vec<Arc<Layer>> = Vec::new();
        for _ in 0..=chance.below(3) {
            let layer = self.layer(chance);
            if !layers.iter().any(|other| Arc::ptr_eq(other, &layer)) {
                layers.push(layer);
            }
        }
        Image::new(layers, chance.number())
    }

    fn layer(&self, chance: &mut Chance) -> Arc<Layer> {
        if chance.one_in(FRESH) {
            return Layer::fresh(chance);
        }
        chance.pick(&self.0).unwrap().clone()
    }
}

impl Image {
    fn new(layers: Vec<Arc<Layer>>, label: u64) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.blob.diff_id).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Labels": { "number": label.to_string() } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob::new(serde_json::to_vec(&config).unwrap());
        let descriptors: Vec<_> = layers.iter().map(|layer| layer.descriptor()).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": manifest_type(),
            "config": descriptor(&format!("{OCI}.config.v1+json"), &config),
            "layers": descriptors,
        });
        let manifest = Blob::new(serde_json::to_vec(&manifest).unwrap());
        Self {
            manifest,
            config,
            layers,
        }
    }

    /// Every blob, children first.
    pub fn blobs(&self) -> Vec<Blob> {
        let layers = self.layers.iter().map(|layer| layer.blob.clone());
        layers
            .chain([self.config.clone(), self.manifest.clone()])
            .collect()
    }

    /// The name of its topmost snapshot (OCI image specification, chain id).
    pub fn chain_id(&self) -> String {
        let diff_ids = self.layers.iter().map(|layer| layer.blob.diff_id.clone());
        diff_ids
            .reduce(|below, own| sha256(format!("{below} {own}").as_bytes()))
            .unwrap()
    }

    /// Its files; an upper layer's are over a lower one's.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let layers = self.layers.iter().flat_map(|layer| layer.files.clone());
        layers.collect()
    }

    /// The descriptor of its manifest.
    pub fn target(&self) -> orlop_proto::types::Descriptor {
        orlop_proto::types::Descriptor {
            media_type: manifest_type(),
            digest: self.manifest.digest.clone(),
            size: i64::try_from(self.manifest.bytes.len()).unwrap(),
            ..Default::default()
        }
    }

    /// The image as the tar of an OCI layout that names it.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        let mut entry = descriptor(&manifest_type(), &self.manifest);
        entry["annotations"] = serde_json::json!({ "io.containerd.image.name": name });
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
        let mut files = BTreeMap::new();
        files.insert("index.json".into(), serde_json::to_vec(&index).unwrap());
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        files.insert("oci-layout".to_owned(), layout.to_vec());
        for blob in self.blobs() {
            let hex = blob.digest.trim_start_matches("sha256:");
            files.insert(format!("blobs/sha256/{hex}"), blob.bytes.to_vec());
        }
        tar_of(&files)
    }
}

/// The tar of these files; a path that ends with a slash is a directory.
pub fn tar_of(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_mode(0o755);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_mtime(1_000_000_000);
        tar.append_data(&mut header, path, content.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn descriptor(media_type: &str, blob: &Blob) -> serde_json::Value {
    serde_json::json!({
        "mediaType": media_type, "digest": blob.digest, "size": blob.bytes.len(),
    })
}

fn manifest_type() -> String {
    format!("{OCI}.manifest.v1+json")
}
