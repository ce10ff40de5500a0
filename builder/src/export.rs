//! The image of a stage: layers, configuration, manifest, and the names last.
//!
//! All times in it come from the records of its steps, so that a build that finds everything done gives
//! the same image, byte by byte.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use oci_spec::image::{Descriptor, DescriptorBuilder, ImageManifestBuilder, MediaType};
use orlop_proto::descriptor::parse_digest;
use orlop_proto::error::Kind;
use orlop_proto::types;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::cache::{Cache, LEASE, Record};
use crate::error::{BuildError, Doing as _};
use crate::lease::Lease;
use crate::plan::{KeyHasher, Plan, own_platform};
use crate::ports::{Layer, Ports};

/// What keeps an image that nobody named, and for how long.
const UNNAMED_LEASE: &str = "builder-unnamed";
const UNNAMED_SECONDS: u64 = 7 * 24 * 3600;

/// What was made.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The configuration's digest.
    pub image_id: String,
    /// The manifest.
    pub manifest: types::Descriptor,
}

/// The parts of an exporter.
#[derive(Debug)]
pub struct Exporter<'a> {
    /// The other services.
    pub ports: &'a Ports,
    /// Where layers and times are remembered.
    pub cache: &'a Cache,
    /// The build's lease.
    pub lease: &'a Lease,
    /// The plan.
    pub plan: &'a Plan,
    /// What its vertices made.
    pub records: HashMap<usize, (Record, bool)>,
}

struct Documents {
    config: Bytes,
    manifest: Bytes,
}

impl Exporter<'_> {
    /// Makes the image and gives it its names.
    pub async fn export(mut self, names: &[String]) -> Result<Exported, BuildError> {
        self.layers(false).await?;
        let documents = self.documents()?;
        let exported = documents.exported();
        if !names.is_empty() && self.named(names, &exported.manifest).await? {
            return Ok(exported);
        }
        self.lease.hold().await?;
        match self.publish(&documents, &exported, names).await {
            // A layer that was remembered is gone: it is made again from its snapshot.
            Err(BuildError::Service { source, .. }) if source.kind == Kind::FailedPrecondition => {
                self.layers(true).await?;
                let documents = self.documents()?;
                let exported = documents.exported();
                self.publish(&documents, &exported, names).await?;
                Ok(exported)
            }
            published => published.map(|()| exported),
        }
    }

    /// Whether all names point there already; then all of it is there.
    async fn named(
        &self,
        names: &[String],
        target: &types::Descriptor,
    ) -> Result<bool, BuildError> {
        let gets = names.iter().map(|name| self.ports.images.get(name));
        let found = try_join_all(gets)
            .await
            .doing(|| "looking at the image's names".to_owned())?;
        let same = |found: &Option<types::Descriptor>| {
            found
                .as_ref()
                .is_some_and(|found| found.digest == target.digest)
        };
        Ok(found.iter().all(same))
    }

    async fn publish(
        &self,
        documents: &Documents,
        exported: &Exported,
        names: &[String],
    ) -> Result<(), BuildError> {
        let doing = || "storing the image".to_owned();
        let lease = match names.is_empty() {
            true => UNNAMED_LEASE,
            false => &self.lease.id,
        };
        if names.is_empty() {
            self.ports
                .leases
                .put(lease, UNNAMED_SECONDS)
                .await
                .doing(doing)?;
        }
        let blobs = vec![
            (exported.image_id.clone(), documents.config.clone()),
            (exported.manifest.digest.clone(), documents.manifest.clone()),
        ];
        self.ports
            .content
            .put_many(blobs, lease)
            .await
            .doing(doing)?;
        for name in names {
            let put = self.ports.images.put(name, exported.manifest.clone()).await;
            put.doing(|| format!("naming the image {name}"))?;
        }
        Ok(())
    }

    /// Makes the layers that the target needs and nobody made yet, all at once.
    async fn layers(&mut self, again: bool) -> Result<(), BuildError> {
        let chain = self.plan.chain(&self.plan.target.root);
        let lacks = |index: &usize| {
            let record = self.records.get(index);
            record.filter(|(record, _)| again || record.layer.is_none())
        };
        let wanted: Vec<(usize, String)> = chain
            .iter()
            .filter_map(|index| Some((*index, lacks(index)?.0.snapshot.clone())))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.lease.hold().await?;
        let diffs = wanted
            .iter()
            .map(|(_, snapshot)| self.ports.layers.diff(snapshot, LEASE));
        let made = try_join_all(diffs)
            .await
            .doing(|| "making the image's layers".to_owned())?;
        for ((index, _), layer) in wanted.into_iter().zip(made) {
            if let Some((record, _)) = self.records.get_mut(&index) {
                record.layer = Some(layer);
                self.cache.put(record)?;
            }
        }
        Ok(())
    }

    fn layer(&self, index: usize) -> Option<(&Record, &Layer)> {
        let (record, _) = self.records.get(&index)?;
        record.layer.as_ref().map(|layer| (record, layer))
    }

    fn documents(&self) -> Result<Documents, BuildError> {
        let target = &self.plan.target;
        let base = target.base.map(|index| &self.plan.bases[index]);
        let mut layers: Vec<Descriptor> = base.map(|b| b.layers.clone()).unwrap_or_default();
        let mut diff_ids: Vec<String> = base.map(|b| b.diff_ids.clone()).unwrap_or_default();
        for index in self.plan.chain(&target.root) {
            if let Some((_, layer)) = self.layer(index).filter(|(_, layer)| !layer.empty) {
                layers.push(descriptor(&layer.media_type, &layer.digest, layer.size)?);
                diff_ids.push(layer.diff_id.clone());
            }
        }
        let mut document = base.map_or_else(Map::new, |base| base.document.clone());
        // Docker's leftovers of the container that a layer came from.
        for field in [
            "container",
            "container_config",
            "docker_version",
            "id",
            "parent",
            "created",
        ] {
            document.remove(field);
        }
        let (os, architecture) = own_platform();
        document
            .entry("architecture")
            .or_insert_with(|| json!(architecture));
        document.entry("os").or_insert_with(|| json!(os));
        if let Some(author) = &target.author {
            document.insert("author".to_owned(), json!(author));
        }
        document.insert("config".to_owned(), Value::Object(target.config.0.clone()));
        document.insert(
            "rootfs".to_owned(),
            json!({"type": "layers", "diff_ids": diff_ids}),
        );
        let created = self.created(&document)?;
        document.insert("created".to_owned(), json!(timestamp(created)?));
        let mut history = base.map(|base| base.history()).unwrap_or_default();
        history.extend(self.history(created)?);
        document.insert("history".to_owned(), Value::Array(history));
        let config = json_bytes("configuration", &document)?;
        let manifest = manifest(&config, layers)?;
        Ok(Documents { config, manifest })
    }

    /// The time of the youngest step; of an image that changes no files, the time it was first made.
    fn created(&self, document: &Map<String, Value>) -> Result<i64, BuildError> {
        let chain = self.plan.chain(&self.plan.target.root);
        let times = chain
            .iter()
            .filter_map(|index| Some(self.records.get(index)?.0.created));
        if let Some(created) = times.max() {
            return Ok(created);
        }
        let mut key = KeyHasher::new("created");
        key.bytes(&json_bytes("configuration", document)?);
        for entry in &self.plan.target.history {
            key.text(&entry.created_by);
        }
        self.cache.first_made(&key.finish())
    }

    fn history(&self, created: i64) -> Result<Vec<Value>, BuildError> {
        let mut last = None;
        let mut entries = Vec::new();
        for entry in &self.plan.target.history {
            let layer = entry.vertex.and_then(|index| self.layer(index));
            if let Some((record, _)) = layer {
                last = Some(record.created.max(last.unwrap_or(i64::MIN)));
            }
            let mut value = json!({
                "created": timestamp(last.unwrap_or(created))?,
                "created_by": entry.created_by,
                "comment": "orlop",
            });
            if layer.is_none_or(|(_, layer)| layer.empty) {
                value["empty_layer"] = json!(true);
            }
            entries.push(value);
        }
        Ok(entries)
    }
}

impl Documents {
    fn exported(&self) -> Exported {
        Exported {
            image_id: digest(&self.config),
            manifest: types::Descriptor {
                media_type: MediaType::ImageManifest.to_string(),
                digest: digest(&self.manifest),
                size: i64::try_from(self.manifest.len()).unwrap_or(i64::MAX),
                ..types::Descriptor::default()
            },
        }
    }
}

fn manifest(config: &[u8], layers: Vec<Descriptor>) -> Result<Bytes, BuildError> {
    let size = i64::try_from(config.len()).unwrap_or(i64::MAX);
    let config = descriptor(MediaType::ImageConfig.as_ref(), &digest(config), size)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers.into_iter().map(oci_layer).collect::<Vec<_>>())
        .build()
        .map_err(|error| problem("manifest", &error))?;
    json_bytes("manifest", &manifest)
}

/// A base image may have Docker's media types; an OCI manifest has OCI's, of the same bytes.
fn oci_layer(mut layer: Descriptor) -> Descriptor {
    let name = layer.media_type().to_string();
    if name == "application/vnd.docker.image.rootfs.diff.tar.gzip" {
        layer.set_media_type(MediaType::ImageLayerGzip);
    } else if name == "application/vnd.docker.image.rootfs.diff.tar" {
        layer.set_media_type(MediaType::ImageLayer);
    }
    layer
}

fn problem(document: &'static str, error: &dyn std::fmt::Display) -> BuildError {
    BuildError::Document {
        document,
        problem: error.to_string(),
    }
}

fn descriptor(media_type: &str, digest: &str, size: i64) -> Result<Descriptor, BuildError> {
    DescriptorBuilder::default()
        .media_type(media_type)
        .digest(parse_digest(digest).map_err(|error| problem("manifest", &error))?)
        .size(u64::try_from(size).unwrap_or(0))
        .build()
        .map_err(|error| problem("manifest", &error))
}

fn json_bytes(document: &'static str, value: &impl serde::Serialize) -> Result<Bytes, BuildError> {
    let bytes = serde_json::to_vec(value).map_err(|error| problem(document, &error))?;
    Ok(bytes.into())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// RFC 3339, in UTC.
fn timestamp(nanos: i64) -> Result<String, BuildError> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanos));
    Ok(time
        .map_err(|error| problem("configuration", &error))?
        .to_string())
}
