//! The other services in memory: they keep what they are given and check what a real one would.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use orlop_builder::ports::{
    Content, Exec, Images, Layer, Layers, Leases, Output, Ports, Pull, Reply,
};
use orlop_proto::error::{Failure, Kind};
use orlop_proto::reference::Reference;
use orlop_proto::registry::PullRequest;
use orlop_proto::runtime::CreateRequest;
use orlop_proto::store::{FileOp, ResolvedImage, Resource, file_op};
use orlop_proto::types::{Descriptor, Progress};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

#[derive(Clone, Default)]
pub(crate) struct Store(Arc<State>);

#[derive(Default)]
struct State {
    blobs: Mutex<HashMap<String, Bytes>>,
    names: Mutex<BTreeMap<String, Descriptor>>,
    images: Mutex<HashMap<String, ResolvedImage>>,
    /// Key to whether it is committed.
    snapshots: Mutex<HashMap<String, bool>>,
    leases: Mutex<HashSet<String>>,
    commands: Mutex<Vec<String>>,
    running: AtomicUsize,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn failure(kind: Kind, message: &str) -> Failure {
    Failure {
        kind,
        message: message.to_owned(),
        reason: String::new(),
        hints: Vec::new(),
        metadata: HashMap::new(),
    }
}

fn reply<'a, T: Send + 'a>(value: Result<T, Failure>) -> Reply<'a, T> {
    std::future::ready(value).boxed()
}

impl Store {
    pub(crate) fn ports(&self) -> Ports {
        let it = Arc::new(self.clone());
        Ports {
            layers: it.clone(),
            content: it.clone(),
            images: it.clone(),
            leases: it.clone(),
            exec: it.clone(),
            pull: it,
        }
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.0.commands.lock().unwrap().clone()
    }

    pub(crate) fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }

    pub(crate) fn has_blob(&self, bytes: &[u8]) -> bool {
        self.0.blobs.lock().unwrap().contains_key(&digest(bytes))
    }

    pub(crate) fn json(&self, id: &str) -> Value {
        serde_json::from_slice(&self.0.blobs.lock().unwrap()[id]).unwrap()
    }

    pub(crate) async fn eventually_no_active_snapshot(&self) {
        for _ in 0..6000 {
            if self
                .0
                .snapshots
                .lock()
                .unwrap()
                .values()
                .all(|committed| *committed)
                && self.running() == 0
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("an active snapshot stays");
    }

    pub(crate) fn add_image(&self, name: &str) {
        self.add_broken_image(name, "{}");
    }

    /// An image of one layer with fields of its configuration replaced.
    pub(crate) fn add_broken_image(&self, name: &str, change: &str) {
        let layer = digest(name.as_bytes());
        let mut config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created_by": "base"}],
        });
        let change: Value = serde_json::from_str(change).unwrap();
        config
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config.as_bytes()), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer, "size": name.len()}],
        })
        .to_string();
        self.0
            .blobs
            .lock()
            .unwrap()
            .insert(layer, Bytes::copy_from_slice(name.as_bytes()));
        let descriptor = Descriptor {
            digest: digest(manifest.as_bytes()),
            ..Descriptor::default()
        };
        let image = ResolvedImage {
            manifest: Some(descriptor),
            manifest_json: manifest.into(),
            config_json: config.into(),
            ..ResolvedImage::default()
        };
        let name = name.parse::<Reference>().unwrap().to_string();
        self.0.images.lock().unwrap().insert(name, image);
    }
}

impl Layers for Store {
    fn unpack<'a>(&'a self, manifest: &'a str, lease: &'a str) -> Reply<'a, String> {
        assert!(self.0.leases.lock().unwrap().contains(lease));
        self.0
            .snapshots
            .lock()
            .unwrap()
            .insert(manifest.to_owned(), true);
        reply(Ok(manifest.to_owned()))
    }

    fn prepare<'a>(&'a self, key: &'a str, parent: &'a str, lease: &'a str) -> Reply<'a, ()> {
        assert!(self.0.leases.lock().unwrap().contains(lease));
        let mut snapshots = self.0.snapshots.lock().unwrap();
        assert!(parent.is_empty() || snapshots[parent]);
        assert!(snapshots.insert(key.to_owned(), false).is_none());
        reply(Ok(()))
    }

    fn apply<'a>(&'a self, key: &'a str, ops: Vec<FileOp>) -> Reply<'a, ()> {
        assert!(!self.0.snapshots.lock().unwrap()[key]);
        let blobs = self.0.blobs.lock().unwrap();
        for op in ops {
            match op.op.unwrap() {
                file_op::Op::CopyEntries(copy) => {
                    for entry in copy.entries.iter().filter(|entry| !entry.digest.is_empty()) {
                        assert!(
                            blobs.contains_key(&entry.digest),
                            "a file's bytes are missing"
                        );
                    }
                }
                file_op::Op::CopySnapshot(copy) => {
                    assert!(self.0.snapshots.lock().unwrap()[&copy.from]);
                }
                _ => {}
            }
        }
        reply(Ok(()))
    }

    fn commit<'a>(&'a self, key: &'a str, name: &'a str, lease: &'a str) -> Reply<'a, ()> {
        assert!(self.0.leases.lock().unwrap().contains(lease));
        let mut snapshots = self.0.snapshots.lock().unwrap();
        assert_eq!(snapshots.remove(key), Some(false));
        snapshots.insert(name.to_owned(), true);
        reply(Ok(()))
    }

    fn remove<'a>(&'a self, key: &'a str) -> Reply<'a, ()> {
        self.0.snapshots.lock().unwrap().remove(key);
        reply(Ok(()))
    }

    fn exists<'a>(&'a self, name: &'a str) -> Reply<'a, bool> {
        reply(Ok(self.0.snapshots.lock().unwrap().contains_key(name)))
    }

    fn diff<'a>(&'a self, name: &'a str, _: &'a str) -> Reply<'a, Layer> {
        let digest = digest(name.as_bytes());
        self.0
            .blobs
            .lock()
            .unwrap()
            .insert(digest.clone(), Bytes::copy_from_slice(name.as_bytes()));
        reply(Ok(Layer {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            diff_id: digest.clone(),
            digest,
            size: 1,
            empty: false,
        }))
    }

    fn usage<'a>(&'a self, _: &'a str) -> Reply<'a, i64> {
        reply(Ok(7))
    }
}

impl Content for Store {
    fn missing(&self, digests: Vec<String>) -> Reply<'_, Vec<String>> {
        let blobs = self.0.blobs.lock().unwrap();
        reply(Ok(digests
            .into_iter()
            .filter(|digest| !blobs.contains_key(digest))
            .collect()))
    }

    fn put_many<'a>(&'a self, blobs: Vec<(String, Bytes)>, lease: &'a str) -> Reply<'a, ()> {
        assert!(self.0.leases.lock().unwrap().contains(lease));
        for (claimed, data) in blobs {
            assert_eq!(claimed, digest(&data));
            self.0.blobs.lock().unwrap().insert(claimed, data);
        }
        reply(Ok(()))
    }

    fn write<'a>(
        &'a self,
        claimed: &'a str,
        mut data: mpsc::Receiver<Bytes>,
        _: &'a str,
    ) -> Reply<'a, ()> {
        async move {
            let mut bytes = Vec::new();
            while let Some(part) = data.recv().await {
                bytes.extend_from_slice(&part);
            }
            assert_eq!(claimed, digest(&bytes));
            self.0
                .blobs
                .lock()
                .unwrap()
                .insert(claimed.to_owned(), bytes.into());
            Ok(())
        }
        .boxed()
    }

    fn head<'a>(&'a self, digest: &'a str, _: i64) -> Reply<'a, Bytes> {
        reply(Ok(self.0.blobs.lock().unwrap()[digest].clone()))
    }
}

impl Images for Store {
    fn resolve<'a>(&'a self, reference: &'a str) -> Reply<'a, Option<ResolvedImage>> {
        reply(Ok(self.0.images.lock().unwrap().get(reference).cloned()))
    }

    fn get<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Descriptor>> {
        reply(Ok(self.0.names.lock().unwrap().get(name).cloned()))
    }

    fn put<'a>(&'a self, name: &'a str, target: Descriptor) -> Reply<'a, ()> {
        assert!(self.0.blobs.lock().unwrap().contains_key(&target.digest));
        self.0.names.lock().unwrap().insert(name.to_owned(), target);
        reply(Ok(()))
    }
}

impl Leases for Store {
    fn put<'a>(&'a self, id: &'a str, _: u64) -> Reply<'a, ()> {
        self.0.leases.lock().unwrap().insert(id.to_owned());
        reply(Ok(()))
    }

    fn add<'a>(&'a self, id: &'a str, _: Vec<Resource>) -> Reply<'a, ()> {
        assert!(self.0.leases.lock().unwrap().contains(id));
        reply(Ok(()))
    }

    fn release<'a>(&'a self, id: &'a str, _: Vec<Resource>) -> Reply<'a, ()> {
        assert!(self.0.leases.lock().unwrap().contains(id));
        reply(Ok(()))
    }

    fn delete<'a>(&'a self, id: &'a str) -> Reply<'a, ()> {
        self.0.leases.lock().unwrap().remove(id);
        reply(Ok(()))
    }
}

/// Counts a command as running until it is dropped.
struct Running(Store);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Exec for Store {
    fn run(
        &self,
        container: CreateRequest,
    ) -> Reply<'_, BoxStream<'static, Result<Output, Failure>>> {
        let command = container.process.unwrap().args.join(" ");
        self.0.commands.lock().unwrap().push(command.clone());
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(self.clone());
        let output = stream::once(async move {
            let _running = running;
            if command.ends_with("forever") {
                std::future::pending::<()>().await;
            }
            if command.ends_with("slow") {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let code = command
                .split("fail ")
                .nth(1)
                .map_or(0, |code| code.parse().unwrap());
            Ok(Output::Exited(code))
        });
        let said = stream::iter([Ok(Output::Data(1, Bytes::from_static(b"said\n")))]);
        reply(Ok(said.chain(output).boxed()))
    }
}

impl Pull for Store {
    fn pull(
        &self,
        request: PullRequest,
    ) -> Reply<'_, BoxStream<'static, Result<Progress, Failure>>> {
        reply(Err(failure(
            Kind::NotFound,
            &format!("{} is in no registry", request.reference),
        )))
    }
}
