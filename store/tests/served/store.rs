//! A store served on a socket of its own, and images to put into it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code, shared by several test crates"
)]

use std::path::{Path, PathBuf};

use orlop_proto::store as pb;
use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::store::leases_client::LeasesClient;
use orlop_proto::store::maintenance_client::MaintenanceClient;
use orlop_proto::types::Descriptor;
use orlop_store::Store;
use orlop_store::config::StoreArgs;
use orlop_store::layers::form::Form;
use orlop_wire::{Endpoint, Listener, connect, serve};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub struct Served {
    pub directory: tempfile::TempDir,
    pub channel: Channel,
    pub store: Store,
}

impl Served {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("store");
        Self::at(directory, &state).await
    }

    /// What a kill would leave: a copy of the state of this moment, opened by another process.
    pub async fn after_a_kill(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("store");
        copy(&self.state(), &state);
        Self::at(directory, &state).await
    }

    pub async fn at(directory: tempfile::TempDir, state: &Path) -> Self {
        let args = StoreArgs {
            collect_grace_seconds: 0,
            disk_reserve_mib: 1,
            // Tests look into trees, and change them.
            layers: Form::Directory,
            ..StoreArgs::default()
        };
        let store = Store::open_with(state, args).unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("run").join("s.sock"));
        let listener = Listener::bind(&endpoint, false).await.unwrap();
        let routes = store.routes();
        tokio::spawn(async move {
            serve(listener, routes, &[], std::future::pending())
                .await
                .unwrap();
        });
        Self {
            directory,
            channel: connect(&endpoint),
            store,
        }
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }

    pub fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }

    pub fn archives(&self) -> ArchivesClient<Channel> {
        ArchivesClient::new(self.channel.clone())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub async fn blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let request = pb::PutManyRequest {
            digest: digest.clone(),
            data: bytes.to_vec().into(),
            lease: String::new(),
        };
        self.content()
            .put_many(tokio_stream::iter([request]))
            .await
            .unwrap();
        digest
    }

    /// Like [`Self::blob`], for more bytes than one message holds.
    pub async fn blob_in_pieces(&self, bytes: &[u8]) -> String {
        use pb::write_request::Message;
        let digest = digest(bytes);
        let open = pb::OpenIngest {
            ingest_id: digest.replace(':', "-"),
            ..Default::default()
        };
        let commit = pb::CommitIngest {
            digest: digest.clone(),
            size: i64::try_from(bytes.len()).unwrap(),
        };
        let data = bytes
            .chunks(orlop_wire::CHUNK_BYTES)
            .map(|piece| Message::Data(piece.to_vec().into()));
        let messages: Vec<_> = std::iter::once(Message::Open(open))
            .chain(data)
            .chain([Message::Commit(commit)])
            .map(|message| pb::WriteRequest {
                message: Some(message),
            })
            .collect();
        let written = self.content().write(tokio_stream::iter(messages)).await;
        assert_eq!(written.unwrap().into_inner().digest, digest);
        digest
    }

    /// A whole image of one layer; returns its target.
    pub async fn image(&self, layer: &[u8]) -> Descriptor {
        let layer_digest = self.blob(layer).await;
        let config = config(&[&layer_digest]);
        let config_digest = self.blob(config.as_bytes()).await;
        let json = manifest(
            &config_digest,
            config.len(),
            &[(&layer_digest, layer.len())],
        );
        self.blob(json.as_bytes()).await;
        target(MANIFEST, json.as_bytes())
    }

    pub async fn named(&self, name: &str, layer: &[u8]) -> Descriptor {
        let target = self.image(layer).await;
        self.images().put(put(name, &target)).await.unwrap();
        target
    }
}

pub fn put(name: &str, target: &Descriptor) -> pb::PutImageRequest {
    pb::PutImageRequest {
        name: name.to_owned(),
        target: Some(target.clone()),
        expected: None,
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn target(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest(bytes),
        size: i64::try_from(bytes.len()).unwrap(),
        ..Descriptor::default()
    }
}

pub fn config(diff_ids: &[&str]) -> String {
    serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": { "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
}

pub fn manifest(config: &str, size: usize, layers: &[(&str, usize)]) -> String {
    let layers: Vec<_> = layers
        .iter()
        .map(|(digest, size)| serde_json::json!({"mediaType": LAYER, "digest": digest, "size": size}))
        .collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config, "size": size },
        "layers": layers,
    })
    .to_string()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
