//! From a container to an image: the way back of [`super::from_image`].

use jiff::Timestamp;
use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageManifest, ImageManifestBuilder, MediaType,
};
use orlop_proto::change;
use orlop_proto::descriptor::parse_digest;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::containers::record::{MountKind, Record};
use crate::error::{Error, Result};

/// Docker's leftovers of the container that an earlier layer came from.
const LEFTOVERS: [&str; 5] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
];

/// The image that the container was made of.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// Its manifest.
    pub manifest: &'a [u8],
    /// Its configuration.
    pub config: &'a [u8],
}

/// What the container changed, as a layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `application/vnd.oci.image.layer.v1.tar+gzip`.
    pub media_type: String,
    /// Of the blob.
    pub digest: String,
    /// Of the blob, in bytes.
    pub size: i64,
    /// Of the plain tar.
    pub diff_id: String,
    /// Nothing was changed.
    pub empty: bool,
}

/// What the caller says about the image.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Who made it.
    pub author: String,
    /// A line for the history.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
}

/// The two documents of an image.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The configuration.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

/// The digest of a document.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The image of a container at a time.
pub fn documents(
    record: &Record,
    base: Base<'_>,
    layer: &Layer,
    asked: &Asked,
    now: Timestamp,
) -> Result<Documents> {
    let bad = |problem: String| Error::BadImage {
        image: record.image.clone(),
        problem,
    };
    let manifest: ImageManifest = serde_json::from_slice(base.manifest)
        .map_err(|error| bad(format!("its manifest is malformed: {error}")))?;
    let mut document: Map<String, Value> = serde_json::from_slice(base.config)
        .map_err(|error| bad(format!("its configuration is malformed: {error}")))?;
    let layers = manifest.layers().len();
    describe(&mut document, record, layer, asked, (layers, now))?;
    let config = serde_json::to_vec(&document).map_err(|error| bad(error.to_string()))?;
    let mut descriptors: Vec<Descriptor> =
        manifest.layers().iter().cloned().map(oci_layer).collect();
    if !layer.empty {
        descriptors.push(descriptor(&layer.media_type, &layer.digest, layer.size)?);
    }
    let size = i64::try_from(config.len()).unwrap_or(i64::MAX);
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(
            MediaType::ImageConfig.as_ref(),
            &digest(&config),
            size,
        )?)
        .layers(descriptors)
        .build()?;
    let manifest = serde_json::to_vec(&manifest).map_err(|error| bad(error.to_string()))?;
    Ok(Documents { config, manifest })
}

fn describe(
    document: &mut Map<String, Value>,
    record: &Record,
    layer: &Layer,
    asked: &Asked,
    (layers, now): (usize, Timestamp),
) -> Result<()> {
    for field in LEFTOVERS {
        document.remove(field);
    }
    let mut config = match document.remove("config") {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    created_with(&mut config, record);
    change::apply(&mut config, &asked.changes).map_err(|error| {
        Error::invalid("change", format!("{:?}: {}", error.change, error.problem))
    })?;
    document.insert("config".to_owned(), Value::Object(config));
    document.insert("created".to_owned(), json!(now.to_string()));
    if !asked.author.is_empty() {
        document.insert("author".to_owned(), json!(asked.author));
    }
    if !layer.empty {
        let rootfs = document
            .entry("rootfs")
            .or_insert_with(|| json!({"type": "layers"}));
        if let Value::Object(rootfs) = rootfs {
            list(rootfs, "diff_ids").push(json!(layer.diff_id));
        }
    }
    let history = list(document, "history");
    // Ours must count the layers below as well.
    if history.is_empty() {
        history.extend((0..layers).map(|_| json!({"comment": "layer of the base image"})));
    }
    history.push(entry(record, layer, asked, now));
    Ok(())
}

fn entry(record: &Record, layer: &Layer, asked: &Asked, now: Timestamp) -> Value {
    let mut entry = json!({
        "created": now.to_string(),
        "created_by": record.process.args.join(" "),
    });
    let optional = [("author", &asked.author), ("comment", &asked.message)];
    for (field, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
        entry[field] = json!(text);
    }
    if layer.empty {
        entry["empty_layer"] = json!(true);
    }
    entry
}

/// What the container was created with goes over the image's, as in Docker: its command, variables,
/// user, directory, labels, ports and anonymous volumes.
fn created_with(config: &mut Map<String, Value>, record: &Record) {
    let request = &record.config;
    if request.entrypoint_set {
        config.insert("Entrypoint".to_owned(), json!(request.entrypoint));
        config.remove("Cmd");
    }
    if !request.command.is_empty() {
        config.insert("Cmd".to_owned(), json!(request.command));
    }
    let asked = request.process.clone().unwrap_or_default();
    for (field, text) in [
        ("User", &asked.user),
        ("WorkingDir", &asked.cwd),
        ("StopSignal", &request.stop_signal),
    ] {
        if !text.is_empty() {
            config.insert(field.to_owned(), json!(text));
        }
    }
    let lines = list(config, "Env");
    for line in asked.env.iter().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap_or_default();
        let same = |known: &Value| known.as_str().and_then(|k| k.split('=').next()) == Some(name);
        lines.retain(|known| !same(known));
        lines.push(json!(line));
    }
    keys(
        config,
        "Labels",
        request.labels.iter().map(|(k, v)| (k.clone(), json!(v))),
    );
    let ports = request.ports.iter().map(|port| {
        let protocol = if port.protocol.is_empty() {
            "tcp"
        } else {
            &port.protocol
        };
        (format!("{}/{protocol}", port.container_port), json!({}))
    });
    keys(config, "ExposedPorts", ports);
    let exposed = request.expose.iter();
    keys(
        config,
        "ExposedPorts",
        exposed.map(|port| (port.clone(), json!({}))),
    );
    let anonymous = |kind: &MountKind| {
        matches!(
            kind,
            MountKind::Volume {
                anonymous: true,
                ..
            }
        )
    };
    let volumes = record.mounts.iter().filter(|mount| anonymous(&mount.kind));
    keys(
        config,
        "Volumes",
        volumes.map(|mount| (mount.target.clone(), json!({}))),
    );
}

/// Adds to an object; nothing to add makes none.
fn keys(
    config: &mut Map<String, Value>,
    field: &str,
    entries: impl Iterator<Item = (String, Value)>,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    let object = config.entry(field).or_insert_with(|| json!({}));
    if !object.is_object() {
        *object = json!({});
    }
    if let Value::Object(object) = object {
        object.extend(entries);
    }
}

fn list<'a>(object: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let list = object.entry(field).or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    match list {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list"),
    }
}

/// A base image may have Docker's media types; an OCI manifest has OCI's, of the same bytes.
fn oci_layer(mut layer: Descriptor) -> Descriptor {
    match layer.media_type().as_ref() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            layer.set_media_type(MediaType::ImageLayerGzip);
        }
        "application/vnd.docker.image.rootfs.diff.tar" => {
            layer.set_media_type(MediaType::ImageLayer);
        }
        _ => {}
    }
    layer
}

fn descriptor(media_type: &str, digest: &str, size: i64) -> Result<Descriptor> {
    let digest =
        parse_digest(digest).map_err(|error| Error::invalid("digest", error.to_string()))?;
    Ok(DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest)
        .size(u64::try_from(size).unwrap_or(0))
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::record::Process;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn record() -> Record {
        let config = orlop_proto::runtime::CreateRequest {
            command: vec!["sh".to_owned()],
            process: Some(orlop_proto::runtime::Process {
                env: vec![
                    "A=mine".to_owned(),
                    "B=2".to_owned(),
                    "HOST_ONLY".to_owned(),
                ],
                user: "1000".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        Record {
            config,
            process: Process {
                args: vec!["sh".to_owned(), "-l".to_owned()],
                ..Process::default()
            },
            ..Record::example()
        }
    }

    fn made(empty: bool, changes: &[&str]) -> (Value, Value) {
        let layer = Layer {
            media_type: MediaType::ImageLayerGzip.to_string(),
            digest: DIGEST.to_owned(),
            size: 10,
            diff_id: DIGEST.to_owned(),
            empty,
        };
        let manifest = json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2},
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": DIGEST, "size": 9,
            }],
        });
        let config = json!({
            "architecture": "amd64", "os": "linux", "container": "left over", "unknown": 7,
            "config": {"Env": ["A=image"], "Cmd": ["old"], "Shell": ["/bin/ash"]},
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        });
        let (manifest, config) = (manifest.to_string(), config.to_string());
        let base = Base {
            manifest: manifest.as_bytes(),
            config: config.as_bytes(),
        };
        let asked = Asked {
            author: "me".to_owned(),
            message: "why".to_owned(),
            changes: changes.iter().map(|&change| change.to_owned()).collect(),
        };
        let made = documents(&record(), base, &layer, &asked, Timestamp::UNIX_EPOCH).unwrap();
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(
            json(&made.manifest)["config"]["digest"],
            digest(&made.config)
        );
        (json(&made.config), json(&made.manifest))
    }

    #[test]
    fn the_image_is_the_old_one_with_a_layer_and_what_the_container_was_created_with() {
        let (config, manifest) = made(false, &["LABEL k=v"]);
        let own = json!({
            "Env": ["A=mine", "B=2"], "Cmd": ["sh"], "Shell": ["/bin/ash"], "User": "1000",
            "Labels": {"k": "v"},
        });
        assert_eq!(config["config"], own);
        assert_eq!(config["unknown"], 7, "what we do not know survives");
        assert_eq!(config["container"], Value::Null);
        assert_eq!(config["rootfs"]["diff_ids"], json!([DIGEST, DIGEST]));
        let entry = json!({
            "created": "1970-01-01T00:00:00Z", "created_by": "sh -l", "author": "me", "comment": "why",
        });
        assert_eq!(config["history"][1], entry);
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        assert_eq!(
            layers[0]["mediaType"],
            MediaType::ImageLayerGzip.to_string()
        );
    }

    #[test]
    fn a_container_that_changed_nothing_adds_history_and_no_layer() {
        let (config, manifest) = made(true, &[]);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(config["history"][1]["empty_layer"], true);
        assert_eq!(config["rootfs"]["diff_ids"], json!([DIGEST]));
    }
}
