//! A store that serves on a socket of its own.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};

use orlop_store::Store;
use orlop_store::config::StoreArgs;
use orlop_wire::{Endpoint, Listener, connect, serve};
use sha2::{Digest as _, Sha256};

/// A running store in a directory that goes with it.
pub(crate) struct Service {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) endpoint: Endpoint,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(StoreArgs::default()).await
    }

    pub(crate) async fn start_with(args: StoreArgs) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("store"), args).unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("s.sock"));
        let listener = Listener::bind(&endpoint, false).await.unwrap();
        let routes = store.routes();
        tokio::spawn(async move {
            serve(listener, routes, &[], std::future::pending())
                .await
                .unwrap();
        });
        Self {
            directory,
            store,
            endpoint,
        }
    }

    /// A client of the generated kind, made from a channel.
    pub(crate) fn client<C>(&self, make: impl FnOnce(Channel) -> C) -> C {
        make(connect(&self.endpoint))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> String {
        self.store.content.put_bytes(bytes).unwrap().to_string()
    }

    /// An image of plain or compressed layers, with what its configuration says of each.
    pub(crate) fn image(&self, layers: &[(&[u8], String)]) -> String {
        let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let descriptor = |media_type: &str, bytes: &[u8]| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{media_type}"),
                "digest": self.put(bytes), "size": bytes.len(),
            })
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|(blob, _)| descriptor("layer.v1.tar", blob))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": layers,
        });
        self.put(&serde_json::to_vec(&manifest).unwrap())
    }

    /// What is below the state directory, without the index and the trash.
    pub(crate) fn left(&self, part: &str) -> Vec<String> {
        names(&self.state().join(part))
    }
}

/// The directory can only go when nothing is mounted in it.
impl Drop for Service {
    fn drop(&mut self) {
        self.store.snapshots.unmount_all().unwrap();
    }
}

/// The sha256 of bytes in the form of a digest.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What `connect` gives.
pub(crate) type Channel = tonic::transport::Channel;
