//! A store with images of one busybox layer, as far as the runtime needs one. Snapshots are plain
//! directories.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::stream::Empty;
use orlop_proto::store as wire;
use orlop_proto::store::images_server::{Images, ImagesServer};
use orlop_proto::store::leases_server::{Leases, LeasesServer};
use orlop_proto::store::snapshots_server::{Snapshots, SnapshotsServer};
use orlop_proto::types::Descriptor;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

const APPLETS: [&str; 19] = [
    "sh", "cat", "echo", "env", "false", "hostname", "id", "kill", "ls", "nc", "pwd", "seq",
    "sleep", "stty", "tail", "test", "touch", "true", "wc",
];

/// The store's state, shared with the test.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<State>);

#[derive(Debug)]
struct State {
    directory: PathBuf,
    /// Configuration by name of image.
    images: HashMap<&'static str, String>,
    leased: Mutex<bool>,
}

type Answer<T> = Result<Response<T>, Status>;
type Nothing<T> = Empty<Result<T, Status>>;

impl Store {
    /// Makes the layer and serves at `socket`.
    pub(crate) fn serve(directory: &Path, socket: &Path, images: &[(&'static str, &str)]) -> Self {
        let image = |config: &str| {
            format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#
            )
        };
        let store = Self(Arc::new(State {
            directory: directory.to_owned(),
            images: images
                .iter()
                .map(|(name, config)| (*name, image(config)))
                .collect(),
            leased: Mutex::new(false),
        }));
        busybox(&directory.join("layer"));
        fs::create_dir_all(directory.join("snapshots")).unwrap();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(ImagesServer::new(store.clone()))
            .add_service(SnapshotsServer::new(store.clone()))
            .add_service(LeasesServer::new(store.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        store
    }

    /// The keys of all snapshots.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.directory.join("snapshots")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Makes an active snapshot, as a build would.
    pub(crate) fn prepare_snapshot(&self, key: &str) {
        for part in ["upper", "work"] {
            fs::create_dir_all(self.snapshot(key).join(part)).unwrap();
        }
    }

    /// A file that a container wrote.
    pub(crate) fn upper(&self, key: &str) -> PathBuf {
        self.snapshot(key).join("upper")
    }

    fn snapshot(&self, key: &str) -> PathBuf {
        self.0.directory.join("snapshots").join(key)
    }

    fn mount(&self, key: &str) -> Answer<wire::SnapshotMount> {
        if !self.snapshot(key).is_dir() {
            return Err(Status::not_found(format!("no such snapshot: {key}")));
        }
        let path = |part: &str| self.snapshot(key).join(part).display().to_string();
        Ok(Response::new(wire::SnapshotMount {
            key: key.to_owned(),
            lower: vec![self.0.directory.join("layer").display().to_string()],
            upper: path("upper"),
            work: path("work"),
        }))
    }
}

fn busybox(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "seeded"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("install busybox-static");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    fs::write(root.join("seeded/from-image"), "seed").unwrap();
    fs::write(root.join("etc/not-a-program"), "text").unwrap();
}

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("not in the store of the tests"))
}

#[tonic::async_trait]
impl Images for Store {
    type WatchStream = Nothing<wire::ImageEvent>;

    async fn resolve(
        &self,
        request: Request<wire::ResolveImageRequest>,
    ) -> Answer<wire::ResolvedImage> {
        let reference = request.into_inner().reference;
        let config = self.0.images.get(reference.as_str());
        let config =
            config.ok_or_else(|| Status::not_found(format!("no such image: {reference}")))?;
        let descriptor = |digest: String| {
            Some(Descriptor {
                digest,
                ..Descriptor::default()
            })
        };
        Ok(Response::new(wire::ResolvedImage {
            name: format!("docker.io/library/{reference}:latest"),
            manifest: descriptor(format!("sha256:{}", "a".repeat(64))),
            config: descriptor(format!("sha256:{}", "b".repeat(64))),
            config_json: config.clone().into(),
            ..wire::ResolvedImage::default()
        }))
    }

    async fn get(&self, _: Request<wire::GetImageRequest>) -> Answer<wire::Image> {
        not_here()
    }

    async fn put(&self, _: Request<wire::PutImageRequest>) -> Answer<wire::Image> {
        not_here()
    }

    async fn delete(
        &self,
        _: Request<wire::DeleteImageRequest>,
    ) -> Answer<wire::DeleteImageResponse> {
        not_here()
    }

    async fn list(&self, _: Request<wire::ListImagesRequest>) -> Answer<wire::ListImagesResponse> {
        not_here()
    }

    async fn watch(&self, _: Request<wire::WatchImagesRequest>) -> Answer<Self::WatchStream> {
        not_here()
    }
}

#[tonic::async_trait]
impl Snapshots for Store {
    type ChangesStream = Nothing<wire::Change>;
    type ListStream = Nothing<wire::SnapshotInfo>;
    type ExportStream = Nothing<wire::ExportSnapshotResponse>;

    async fn unpack(&self, request: Request<wire::UnpackRequest>) -> Answer<wire::UnpackResponse> {
        let lease = request.into_inner().lease;
        if !lease.is_empty() && !*self.0.leased.lock().unwrap() {
            return Err(Status::not_found(format!("no such lease: {lease}")));
        }
        Ok(Response::new(wire::UnpackResponse {
            name: "layer".to_owned(),
            ..wire::UnpackResponse::default()
        }))
    }

    async fn prepare(&self, request: Request<wire::PrepareRequest>) -> Answer<wire::SnapshotMount> {
        let key = request.into_inner().key;
        self.prepare_snapshot(&key);
        self.mount(&key)
    }

    async fn get_mount(
        &self,
        request: Request<wire::GetMountRequest>,
    ) -> Answer<wire::SnapshotMount> {
        self.mount(&request.into_inner().key)
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveSnapshotRequest>,
    ) -> Answer<wire::RemoveSnapshotResponse> {
        let path = self.snapshot(&request.into_inner().key);
        if path.exists() {
            fs::remove_dir_all(path).map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(Response::new(wire::RemoveSnapshotResponse {}))
    }

    async fn usage(&self, _: Request<wire::UsageRequest>) -> Answer<wire::UsageResponse> {
        Ok(Response::new(wire::UsageResponse {
            bytes: 10,
            inodes: 1,
        }))
    }

    async fn rename(&self, _: Request<wire::RenameSnapshotRequest>) -> Answer<wire::SnapshotInfo> {
        not_here()
    }

    async fn view(&self, _: Request<wire::PrepareRequest>) -> Answer<wire::SnapshotMount> {
        not_here()
    }

    async fn commit(&self, _: Request<wire::CommitRequest>) -> Answer<wire::SnapshotInfo> {
        not_here()
    }

    async fn diff(&self, _: Request<wire::DiffRequest>) -> Answer<wire::DiffResponse> {
        not_here()
    }

    async fn changes(&self, _: Request<wire::ChangesRequest>) -> Answer<Self::ChangesStream> {
        not_here()
    }

    async fn apply(
        &self,
        _: Request<tonic::Streaming<wire::ApplyRequest>>,
    ) -> Answer<wire::ApplyResponse> {
        not_here()
    }

    async fn read_file(&self, _: Request<wire::ReadFileRequest>) -> Answer<wire::ReadFileResponse> {
        not_here()
    }

    async fn stat(&self, _: Request<wire::StatSnapshotRequest>) -> Answer<wire::SnapshotInfo> {
        not_here()
    }

    async fn list(&self, _: Request<wire::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        not_here()
    }

    async fn export(&self, _: Request<wire::ExportSnapshotRequest>) -> Answer<Self::ExportStream> {
        not_here()
    }
}

#[tonic::async_trait]
impl Leases for Store {
    type ListStream = Nothing<wire::Lease>;
    type ListResourcesStream = Nothing<wire::Resource>;

    async fn put(&self, request: Request<wire::PutLeaseRequest>) -> Answer<wire::Lease> {
        *self.0.leased.lock().unwrap() = true;
        Ok(Response::new(wire::Lease {
            id: request.into_inner().id,
            ..wire::Lease::default()
        }))
    }

    async fn add(
        &self,
        _: Request<wire::AddResourcesRequest>,
    ) -> Answer<wire::AddResourcesResponse> {
        not_here()
    }

    async fn release(
        &self,
        _: Request<wire::ReleaseResourcesRequest>,
    ) -> Answer<wire::ReleaseResourcesResponse> {
        not_here()
    }

    async fn delete(
        &self,
        _: Request<wire::DeleteLeaseRequest>,
    ) -> Answer<wire::DeleteLeaseResponse> {
        not_here()
    }

    async fn list(&self, _: Request<wire::ListLeasesRequest>) -> Answer<Self::ListStream> {
        not_here()
    }

    async fn list_resources(
        &self,
        _: Request<wire::ListResourcesRequest>,
    ) -> Answer<Self::ListResourcesStream> {
        not_here()
    }
}
