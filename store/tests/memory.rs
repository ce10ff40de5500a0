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
use orlop_proto::store::import_request::Message;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_wire::{Endpoint, connect};
use smith::Tar;
use tonic::transport::Channel;
use tonic::{Code, Status};

#[path = "support/smith.rs"]
mod smith;

/// What the store may take at most (`SECURITY` row A5).
const MEMORY_KIB_MAX: u64 = 128 * 1024;
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
