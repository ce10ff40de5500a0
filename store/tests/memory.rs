//! How much memory the real process takes, whatever it is given.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use orlop_proto::store as pb;
use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::import_request::Message;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::store::write_request;
use orlop_wire::{Endpoint, connect};
use sha2::{Digest as _, Sha256};
use smith::Tar;
use tonic::transport::Channel;
use tonic::{Code, Status};

#[path = "support/smith.rs"]
mod smith;

/// What the store may take at most (`SECURITY` row A5).
const MEMORY_KIB_MAX: u64 = 128 * 1024;
/// Layers that arrive at once, and bytes of each: without a bound they take twice the maximum.
const LAYERS: usize = 10;
const LAYER_BYTES: usize = 24 << 20;
const MEMBER_BYTES: usize = 64 << 20;

/// A store in a process of its own, killed when it is dropped.
struct Process {
    child: Child,
    channel: Channel,
    _directory: tempfile::TempDir,
}

impl Process {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("store.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_orlop-store"))
            .arg("--root")
            .arg(directory.path().join("root"))
            .arg("--listen")
            .arg(format!("unix://{}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "no socket");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self {
            child,
            channel: connect(&Endpoint::Unix(socket)),
            _directory: directory,
        }
    }

    async fn import(&self, blob: Vec<u8>) -> Result<pb::ImportResponse, Status> {
        let options = Message::Options(pb::ImportOptions::default());
        let data = Bytes::from(blob);
        let pieces = (0..data.len()).step_by(orlop_wire::CHUNK_BYTES).map(|at| {
            let end = data.len().min(at + orlop_wire::CHUNK_BYTES);
            Message::Data(data.slice(at..end))
        });
        let messages: Vec<_> = std::iter::once(options)
            .chain(pieces)
            .map(|message| pb::ImportRequest {
                message: Some(message),
            })
            .collect();
        let mut archives = ArchivesClient::new(self.channel.clone());
        let answer = archives.import(tokio_stream::iter(messages)).await?;
        Ok(answer.into_inner())
    }

    /// Writes a layer as a pull does, to be unpacked on its way.
    fn write(
        &self,
        id: String,
        blob: Bytes,
        diff_id: String,
    ) -> impl Future<Output = bool> + use<> {
        let open = pb::OpenIngest {
            ingest_id: id,
            diff_id,
            ..pb::OpenIngest::default()
        };
        let pieces = (0..blob.len()).step_by(orlop_wire::CHUNK_BYTES).map(|at| {
            let end = blob.len().min(at + orlop_wire::CHUNK_BYTES);
            write_request::Message::Data(blob.slice(at..end))
        });
        let messages: Vec<_> = std::iter::once(write_request::Message::Open(open))
            .chain(pieces)
            .chain([write_request::Message::Commit(pb::CommitIngest::default())])
            .map(|message| pb::WriteRequest {
                message: Some(message),
            })
            .collect();
        let mut content = ContentClient::new(self.channel.clone());
        async move { content.write(tokio_stream::iter(messages)).await.is_ok() }
    }

    async fn unpack(&self, image: pb::ImportResponse) -> Result<pb::UnpackResponse, Status> {
        let request = pb::UnpackRequest {
            digest: image.target.unwrap().digest,
            ..Default::default()
        };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        Ok(snapshots.unpack(request).await?.into_inner())
    }

    /// The most memory that the process ever took.
    fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap().trim().trim_end_matches(" kB");
        peak.parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A tar of one small file, and gibibytes of zeros after its end. Gzip members may follow each other:
/// one is made, and repeated.
fn bomb(gibibytes: usize, level: Compression) -> Vec<u8> {
    let member = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut blob = member(&Tar::new().file("f", b"x").end());
    let zeros = member(&vec![0; MEMBER_BYTES]);
    blob.extend(zeros.repeat(gibibytes * ((1 << 30) / MEMBER_BYTES)));
    blob
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_i5_gibibytes_of_zeros_take_little_memory() {
    let store = Process::start().await;
    let fair = bomb(3, Compression::fast());
    let image = store.import(fair).await.unwrap();
    assert_eq!(store.unpack(image).await.unwrap().unpacked, 1);
    assert!(store.peak_kib() < MEMORY_KIB_MAX, "{}", store.peak_kib());

    let steep = bomb(4, Compression::best());
    let image = store.import(steep).await.unwrap();
    let refused = store.unpack(image).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(store.peak_kib() < MEMORY_KIB_MAX, "{}", store.peak_kib());
}

/// A layer of many bytes, half of them noise; its blob and its diff id.
fn half_noise(seed: u32) -> (Bytes, String) {
    let noise = (0..LAYER_BYTES / 8).flat_map(|n| {
        let n = u32::try_from(n).unwrap() ^ seed;
        let noise = n.wrapping_mul(2_654_435_761).rotate_left(n % 32);
        u64::from(noise).to_le_bytes()
    });
    let body: Vec<u8> = noise.collect();
    let tar = Tar::new().file("f", &body).end();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar).unwrap();
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
    (encoder.finish().unwrap().into(), diff_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_layers_that_arrive_at_once_take_little_memory() {
    let store = Process::start().await;
    let layers: Vec<_> = (0..LAYERS)
        .map(|n| half_noise(u32::try_from(n).unwrap()))
        .collect();
    let mut writes = tokio::task::JoinSet::new();
    for (n, (blob, diff_id)) in layers.into_iter().enumerate() {
        writes.spawn(store.write(n.to_string(), blob, diff_id));
    }
    assert!(writes.join_all().await.into_iter().all(|written| written));
    assert!(store.peak_kib() < MEMORY_KIB_MAX, "{}", store.peak_kib());
}
