//! The service in this process, on a socket and a port of its own.

use std::path::{Path, PathBuf};

use clap::Parser as _;
use futures_util::StreamExt as _;
use orlop_proto::error::Failure;
use orlop_proto::registry as pb;
use orlop_proto::registry::repositories_client::RepositoriesClient;
use orlop_proto::registry::transfer_client::TransferClient;
use orlop_proto::types::{Credential, Descriptor, Progress};
use orlop_registry::manifest::{OCI_MANIFEST, digest_like};
use orlop_registry::{Config, server};
use reqwest::{Client, Method, RequestBuilder, Response};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::store::Memory;

/// A running service.
pub struct Service {
    pub memory: Memory,
    pub address: String,
    root: PathBuf,
    channel: Channel,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<orlop_registry::Result<()>>>,
    _directory: Option<tempfile::TempDir>,
}

/// An image made of bytes.
pub struct Image {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

pub struct Done {
    pub result: pb::TransferResult,
    pub progress: Vec<Progress>,
}

impl Service {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        let mut service = Self::at(directory.path(), memory).await;
        service._directory = Some(directory);
        service
    }

    async fn at(root: &Path, memory: Memory) -> Self {
        let config = Config::parse_from([
            "orlop-registry",
            "--root",
            root.to_str().unwrap(),
            "--registry-http",
            "127.0.0.1:0",
        ]);
        let channel = orlop_wire::connect(&config.listen());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            stopped.await.ok();
        };
        let running = tokio::spawn(server::serve_with(config, memory.store(), shutdown));
        let address = loop {
            let mut client = RepositoriesClient::new(channel.clone());
            match client.endpoint(pb::EndpointRequest {}).await {
                Ok(answer) => break answer.into_inner().address,
                Err(_) if !running.is_finished() => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                Err(status) => panic!("{status} {:?}", running.await),
            }
        };
        let client = Client::builder().no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none());
        Self {
            memory,
            address,
            root: root.to_owned(),
            channel,
            client: client.build().unwrap(),
            stop: Some(stop),
            running: Some(running),
            _directory: None,
        }
    }

    /// Stops it in order, and starts it again on the same root and store.
    pub async fn restart(mut self, meanwhile: impl FnOnce(&Path)) -> Self {
        self.stop.take().unwrap().send(()).unwrap();
        self.running.take().unwrap().await.unwrap().unwrap();
        meanwhile(&self.root.join("registry"));
        let mut next = Self::at(&self.root, self.memory.clone()).await;
        next._directory = self._directory.take();
        next
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.client
            .request(method, format!("http://{}{path}", self.address))
    }

    pub async fn send(&self, method: &str, path: &str) -> Response {
        self.request(method, path).send().await.unwrap()
    }

    pub fn repositories(&self) -> RepositoriesClient<Channel> {
        RepositoriesClient::new(self.channel.clone())
    }

    pub fn transfer(&self) -> TransferClient<Channel> {
        TransferClient::new(self.channel.clone())
    }

    /// Uploads a blob in one request.
    pub async fn upload(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_like("sha256", bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let request = self.request("POST", &path).body(bytes.to_vec());
        assert_eq!(request.send().await.unwrap().status(), 201);
        digest
    }

    /// Uploads an image; returns its digest.
    pub async fn upload_image(&self, repository: &str, tag: &str, image: &Image) -> String {
        self.upload(repository, &image.config).await;
        for layer in &image.layers {
            self.upload(repository, layer).await;
        }
        let response = self
            .put_manifest(repository, tag, OCI_MANIFEST, image.manifest())
            .await;
        assert_eq!(response.status(), 201);
        header(&response, "docker-content-digest")
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        target: &str,
        media_type: &str,
        bytes: impl Into<reqwest::Body>,
    ) -> Response {
        let path = format!("/v2/{repository}/manifests/{target}");
        let request = self
            .request("PUT", &path)
            .header("content-type", media_type);
        request.body(bytes).send().await.unwrap()
    }

    /// Puts an image into the store under a name.
    pub fn name_image(&self, name: &str, image: &Image) -> String {
        self.memory.put(&image.config);
        for layer in &image.layers {
            self.memory.put(layer);
        }
        let manifest = image.manifest();
        let digest = self.memory.put(&manifest);
        let target = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: digest.clone(),
            size: i64::try_from(manifest.len()).unwrap(),
            ..Descriptor::default()
        };
        let name = name.parse::<orlop_proto::reference::Reference>().unwrap();
        let mut state = self.memory.state();
        state.images.insert(name.to_string(), target);
        digest
    }

    pub async fn pull(&self, reference: &str) -> Result<Done, Failure> {
        self.pull_as(reference, None).await
    }

    pub async fn pull_as(
        &self,
        reference: &str,
        credential: Option<Credential>,
    ) -> Result<Done, Failure> {
        let request = pb::PullRequest {
            reference: reference.to_owned(),
            credential,
            ..pb::PullRequest::default()
        };
        collect(self.transfer().pull(request).await?.into_inner()).await
    }

    pub async fn push(&self, reference: &str) -> Result<Done, Failure> {
        let request = pb::PushRequest {
            reference: reference.to_owned(),
            ..pb::PushRequest::default()
        };
        collect(self.transfer().push(request).await?.into_inner()).await
    }
}

impl Image {
    pub fn new(name: &str) -> Self {
        let layer = |n: u8| -> Vec<u8> {
            let seed = format!("{name} {n} ");
            seed.bytes().cycle().take(100_000).collect()
        };
        let layers = vec![layer(1), layer(2)];
        // A plain layer: its diff id is its digest.
        let diff_ids: Vec<_> = layers.iter().map(|l| digest_like("sha256", l)).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "author": name,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self {
            config: serde_json::to_vec(&config).unwrap(),
            layers,
        }
    }

    pub fn manifest(&self) -> Vec<u8> {
        let link = |media_type: &str, bytes: &[u8]| {
            serde_json::json!({
                "mediaType": media_type, "digest": digest_like("sha256", bytes), "size": bytes.len(),
            })
        };
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<_> = self.layers.iter().map(|l| link(layer, l)).collect();
        let config = link("application/vnd.oci.image.config.v1+json", &self.config);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        serde_json::to_vec(&manifest).unwrap()
    }
}

async fn collect(mut events: tonic::Streaming<pb::TransferEvent>) -> Result<Done, Failure> {
    let mut progress = Vec::new();
    while let Some(event) = events.next().await {
        match event?.event.unwrap() {
            pb::transfer_event::Event::Progress(step) => progress.push(step),
            pb::transfer_event::Event::Result(result) => return Ok(Done { result, progress }),
        }
    }
    panic!("a transfer ended without a result")
}

pub fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value
        .map(|v| v.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

/// The code of an error answer.
pub async fn code(response: Response) -> String {
    let body: serde_json::Value = json(response).await;
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

/// The body of an answer as JSON.
pub async fn json(response: Response) -> serde_json::Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}
