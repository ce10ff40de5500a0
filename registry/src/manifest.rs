//! Strict reading of manifests and indexes, of OCI and of Docker's schema 2. A document is refused
//! when two programs could understand it differently (`SECURITY` row H1): both kinds in one, a media
//! type that is not what the sender said, a key twice, a key in other letters.

use std::fmt;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use orlop_proto::descriptor::parse_digest;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// The largest manifest, index or configuration (`SECURITY` rows F1 and I1; distribution and zot
/// have the same limit).
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How deep a document may nest (`SECURITY` section 6.2).
const DEPTH_MAX: usize = 64;
/// How many blobs or manifests one document may name (`SECURITY` row I4).
const LINKS_MAX: usize = 10_000;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// All that we read, in the order of preference.
pub const MEDIA_TYPES: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

const KEYS: [&str; 10] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
    "blobs",
];

/// A document that was understood.
#[derive(Clone, Debug)]
pub struct Document {
    /// One of [`MEDIA_TYPES`].
    pub media_type: &'static str,
    /// What it says.
    pub body: Body,
}

/// The two kinds.
#[derive(Clone, Debug)]
pub enum Body {
    /// One image.
    Manifest(Box<ImageManifest>),
    /// Images for several platforms.
    Index(Box<ImageIndex>),
}

/// A document that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, a key twice, or nested too deeply.
    #[error("manifest is not well-formed JSON")]
    Json(#[source] serde_json::Error),
    /// A media type that we do not know.
    #[error(
        "manifest has the media type {0:?}: expected an OCI or Docker schema 2 manifest or index"
    )]
    MediaType(String),
    /// It can be read in more than one way, or lacks what its kind must have.
    #[error("manifest is refused: {0}")]
    Shape(String),
}

/// Reads a document. `content_type` is what the sender said that it is; empty when nothing was said.
pub fn parse(bytes: &[u8], content_type: &str) -> Result<Document, ManifestError> {
    let value = strict_json(bytes)?;
    let Value::Object(map) = &value else {
        return Err(shape("it is not an object"));
    };
    refuse_lookalikes(map)?;
    let media_type = media_type(map, content_type)?;
    let body = body(media_type, map, &value)?;
    let document = Document { media_type, body };
    document.check_links()?;
    Ok(document)
}

/// The digest of bytes, with the algorithm of `like` (`sha256` when that has none that we know).
pub fn digest_like(like: &str, bytes: &[u8]) -> String {
    match like.split(':').next() {
        Some("sha512") => format!("sha512:{}", hex::encode(Sha512::digest(bytes))),
        Some("sha384") => format!("sha384:{}", hex::encode(Sha384::digest(bytes))),
        _ => format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
    }
}

fn media_type(map: &Map<String, Value>, content_type: &str) -> Result<&'static str, ManifestError> {
    let said = content_type.split(';').next().unwrap_or_default().trim();
    let inside = match map.get("mediaType") {
        None => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(shape("`mediaType` is not a string")),
    };
    // Servers that do not know better send these.
    let said = Some(said).filter(|s| {
        !matches!(
            *s,
            "" | "application/json" | "text/plain" | "application/octet-stream"
        )
    });
    if let (Some(said), Some(inside)) = (said, inside)
        && said != inside
    {
        return Err(shape(&format!(
            "it came as {said:?} and calls itself {inside:?}"
        )));
    }
    let name = match said.or(inside) {
        Some(name) => name,
        None if map.contains_key("manifests") => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    MEDIA_TYPES
        .into_iter()
        .find(|known| *known == name)
        .ok_or_else(|| ManifestError::MediaType(name.chars().take(100).collect()))
}

fn body(media_type: &str, map: &Map<String, Value>, value: &Value) -> Result<Body, ManifestError> {
    let index = matches!(media_type, OCI_INDEX | DOCKER_LIST);
    let foreign: &[&str] = if index {
        &["config", "layers", "fsLayers", "blobs"]
    } else {
        &["manifests", "fsLayers", "blobs"]
    };
    if let Some(key) = foreign.iter().find(|key| map.contains_key(**key)) {
        return Err(shape(&format!("{media_type} must not have `{key}`")));
    }
    let read = |error: serde_json::Error| shape(&error.to_string());
    if map.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err(shape("`schemaVersion` is not 2"));
    }
    if index {
        return Ok(Body::Index(Box::new(
            ImageIndex::deserialize(value).map_err(read)?,
        )));
    }
    Ok(Body::Manifest(Box::new(
        ImageManifest::deserialize(value).map_err(read)?,
    )))
}

fn refuse_lookalikes(map: &Map<String, Value>) -> Result<(), ManifestError> {
    for key in map.keys() {
        let twin = KEYS.iter().find(|known| known.eq_ignore_ascii_case(key));
        if let Some(known) = twin
            && known != key
        {
            return Err(shape(&format!(
                "it has the key {key:?} where `{known}` is known"
            )));
        }
    }
    Ok(())
}

fn shape(reason: &str) -> ManifestError {
    ManifestError::Shape(reason.chars().take(300).collect())
}

impl Document {
    /// What the document points at: for a manifest its configuration, then its layers.
    pub fn links(&self) -> Vec<&Descriptor> {
        match &self.body {
            Body::Manifest(manifest) => std::iter::once(manifest.config())
                .chain(manifest.layers())
                .collect(),
            Body::Index(index) => index.manifests().iter().collect(),
        }
    }

    /// The manifest that this one speaks about (a signature, for example).
    pub fn subject(&self) -> Option<&Descriptor> {
        match &self.body {
            Body::Manifest(manifest) => manifest.subject().as_ref(),
            Body::Index(index) => index.subject().as_ref(),
        }
    }

    /// What a list of referrers tells of it: `artifactType`, or the configuration's media type.
    pub fn artifact_type(&self) -> Option<String> {
        match &self.body {
            Body::Manifest(manifest) => Some(manifest.artifact_type().as_ref().map_or_else(
                || manifest.config().media_type().to_string(),
                ToString::to_string,
            )),
            Body::Index(index) => index.artifact_type().as_ref().map(ToString::to_string),
        }
    }

    fn check_links(&self) -> Result<(), ManifestError> {
        let links = self.links();
        if links.len() > LINKS_MAX {
            return Err(shape(&format!("it names more than {LINKS_MAX} things")));
        }
        for link in links.into_iter().chain(self.subject()) {
            parse_digest(link.digest().as_ref()).map_err(|error| shape(&error.to_string()))?;
            if i64::try_from(link.size()).is_err() {
                return Err(shape(&format!(
                    "{} has the impossible size {}",
                    link.digest(),
                    link.size()
                )));
            }
        }
        Ok(())
    }
}

/// Whether a layer's bytes are kept elsewhere by its publisher's wish; such layers are never pushed.
pub fn is_foreign(link: &Descriptor) -> bool {
    let media_type = link.media_type().to_string();
    media_type.contains("nondistributable") || media_type.contains("rootfs.foreign")
}

/// JSON in which no object has a key twice and nothing nests deeper than [`DEPTH_MAX`].
fn strict_json(bytes: &[u8]) -> Result<Value, ManifestError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .map_err(ManifestError::Json)?;
    deserializer.end().map_err(ManifestError::Json)?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(seed)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} is there twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(extra: &str) -> String {
        let digest = format!("sha256:{}", "a".repeat(64));
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",{extra}
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}},
            "layers":[]}}"#
        )
    }

    #[test]
    fn a_good_manifest_is_read() {
        let document = parse(manifest("").as_bytes(), OCI_MANIFEST).unwrap();
        assert_eq!(document.media_type, OCI_MANIFEST);
        assert_eq!(document.links().len(), 1);
    }

    #[test]
    fn h1_a_document_of_two_kinds_is_refused() {
        for extra in [
            r#""manifests":[],"#,
            r#""fsLayers":[],"#,
            r#""mediaType":"x","#,
            r#""Layers":[],"#,
        ] {
            assert!(
                parse(manifest(extra).as_bytes(), OCI_MANIFEST).is_err(),
                "{extra}"
            );
        }
    }

    #[test]
    fn h1_a_media_type_that_is_not_what_was_said_is_refused() {
        assert!(parse(manifest("").as_bytes(), DOCKER_MANIFEST).is_err());
        assert!(parse(manifest("").as_bytes(), OCI_INDEX).is_err());
        assert!(parse(manifest("").as_bytes(), "text/html").is_err());
    }

    #[test]
    fn g8_a_digest_that_is_a_path_is_refused() {
        let hostile = manifest("").replace(&"a".repeat(64), "../../../etc/passwd");
        assert!(parse(hostile.as_bytes(), OCI_MANIFEST).is_err());
    }

    #[test]
    fn h6_an_impossible_size_is_refused() {
        for size in ["-1", "9223372036854775808", "1e30", "\"2\"", "null"] {
            let hostile = manifest("").replace("\"size\":2", &format!("\"size\":{size}"));
            assert!(parse(hostile.as_bytes(), OCI_MANIFEST).is_err(), "{size}");
        }
    }

    #[test]
    fn i3_nonsense_is_an_error_and_no_panic() {
        let deep = "[".repeat(100_000);
        for text in ["", "{}", "null", "[]", "{\"layers\":null}", &deep] {
            assert!(parse(text.as_bytes(), "").is_err());
        }
    }
}
