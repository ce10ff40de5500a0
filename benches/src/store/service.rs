//! A store of its own, as a process, and its clients.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use orlop_proto::store as pb;
use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::maintenance_client::MaintenanceClient;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::types::Descriptor;
use orlop_tests::{binary, eventually};
use orlop_wire::{Endpoint, connect};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tonic::transport::Channel;

/// Bytes of one message.
const CHUNK: usize = 512 * 1024;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A running store. Its directory is on the disk that everybody's containers are on.
pub(crate) struct Service {
    child: Child,
    pub(crate) channel: Channel,
    pub(crate) directory: TempDir,
    form: &'static str,
}

impl Service {
    pub(crate) fn start(runtime: &tokio::runtime::Runtime, form: &'static str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let _entered = runtime.enter();
        let channel = connect(&Endpoint::Unix(directory.path().join("run/store.sock")));
        let child = spawn(directory.path(), form);
        let service = Self {
            child,
            channel,
            directory,
            form,
        };
        service.wait();
        service
    }

    /// Ends it and starts it again on the same state.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.directory.path(), self.form);
        self.wait();
    }

    fn wait(&self) {
        let socket = self.directory.path().join("run/store.sock");
        eventually("the store listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    /// The most memory that it ever held, and what it holds now, in KiB.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let digits = line.unwrap_or_default().trim().trim_end_matches(" kB");
            digits.parse().unwrap_or_default()
        };
        (field("VmHWM:"), field("VmRSS:"))
    }

    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub(crate) fn archives(&self) -> ArchivesClient<Channel> {
        ArchivesClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// Writes a blob; gives its descriptor.
    pub(crate) async fn put(&self, bytes: Vec<u8>, media_type: &str, diff_id: &str) -> Descriptor {
        use pb::write_request::Message;
        let digest = digest(&bytes);
        let size = i64::try_from(bytes.len()).unwrap();
        let open = Message::Open(pb::OpenIngest {
            ingest_id: digest.replace(':', "-"),
            truncate: true,
            diff_id: diff_id.to_owned(),
            ..pb::OpenIngest::default()
        });
        let commit = Message::Commit(pb::CommitIngest {
            digest: digest.clone(),
            size,
        });
        let bytes = bytes::Bytes::from(bytes);
        let data = (0..bytes.len().div_ceil(CHUNK)).map(move |n| {
            let end = ((n + 1) * CHUNK).min(bytes.len());
            Message::Data(bytes.slice(n * CHUNK..end))
        });
        let messages = std::iter::once(open).chain(data).chain([commit]);
        let messages = messages.map(|message| pb::WriteRequest {
            message: Some(message),
        });
        let stream = tokio_stream::iter(messages.collect::<Vec<_>>());
        self.content().write(stream).await.unwrap();
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            ..Descriptor::default()
        }
    }

    /// Writes the configuration and the manifest of an image whose layers are here; gives the
    /// manifest's digest.
    pub(crate) async fn manifest(&self, layers: &[Descriptor], diff_ids: &[String]) -> Descriptor {
        let config = serde_json::json!({
            "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = self.put(config.to_string().into_bytes(), kind, "").await;
        let json = |one: &Descriptor| serde_json::json!({ "mediaType": one.media_type, "digest": one.digest, "size": one.size });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": json(&config),
            "layers": layers.iter().map(json).collect::<Vec<_>>(),
        });
        self.put(manifest.to_string().into_bytes(), MANIFEST, "")
            .await
    }

    /// Makes an image mountable; gives the snapshot's name.
    pub(crate) async fn unpack(&self, digest: &str) -> String {
        let request = pb::UnpackRequest {
            digest: digest.to_owned(),
            ..pb::UnpackRequest::default()
        };
        let answer = self.snapshots().unpack(request).await.unwrap();
        answer.into_inner().name
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(root: &Path, form: &str) -> Child {
    Command::new(binary("orlop-store"))
        .args(["--collect-grace-seconds", "0", "--layers", form, "--root"])
        .arg(root)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(root.join("log")).unwrap())
        .spawn()
        .unwrap()
}

/// `sha256:…`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
