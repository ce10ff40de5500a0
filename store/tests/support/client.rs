//! A client of snapshots, with the service that it talks to, and short ways to say what is wanted.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use orlop_proto::error::{Failure, Kind};
use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::store::{
    ApplyRequest, Change, ChangeKind, ChangesRequest, CommitRequest, Compression, DiffRequest,
    DiffResponse, Entry, EntryKind, ExportSnapshotRequest, FileOp, LoadRequest, Owner,
    PrepareRequest, ReadFileRequest, RemoveSnapshotRequest, SnapshotMount, UnpackRequest,
    UnpackResponse,
};
use orlop_store::config::StoreArgs;
use prost_types::Timestamp;

use crate::service::{Channel, Service, names, sha256};
use crate::smith::Tar;

pub(crate) struct Client {
    pub(crate) service: Service,
    pub(crate) rpc: SnapshotsClient<Channel>,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Client {
    pub(crate) async fn start() -> Self {
        Self::start_with(StoreArgs::default()).await
    }

    pub(crate) async fn start_with(args: StoreArgs) -> Self {
        let service = Service::start_with(args).await;
        let rpc = service.client(SnapshotsClient::new);
        Self { service, rpc }
    }

    pub(crate) async fn unpack(&mut self, digest: &str) -> Outcome<UnpackResponse> {
        let request = UnpackRequest {
            digest: digest.to_owned(),
            ..Default::default()
        };
        Ok(self.rpc.unpack(request).await?.into_inner())
    }

    pub(crate) async fn prepare(&mut self, key: &str, parent: &str) -> Outcome<SnapshotMount> {
        Ok(self.rpc.prepare(request(key, parent)).await?.into_inner())
    }

    pub(crate) async fn view(&mut self, key: &str, parent: &str) -> Outcome<SnapshotMount> {
        Ok(self.rpc.view(request(key, parent)).await?.into_inner())
    }

    /// The merged tree as a tar.
    pub(crate) async fn export(&mut self, key: &str) -> Vec<u8> {
        let request = ExportSnapshotRequest { key: key.into() };
        let mut stream = self.rpc.export(request).await.unwrap().into_inner();
        let mut tar = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            tar.extend_from_slice(&message.data);
        }
        tar
    }

    /// Loads an archive of images; the digest of the first one.
    pub(crate) async fn load(&mut self, archive: &Path) -> Outcome<String> {
        let mut archives = self.service.client(ArchivesClient::new);
        let file = fs::File::open(archive).unwrap();
        let pieces = pieces(file).map(|data| LoadRequest { data: data.into() });
        let loaded = archives
            .load(tokio_stream::iter(pieces))
            .await?
            .into_inner();
        let named = loaded.images.first().and_then(|image| image.target.clone());
        Ok(named.map_or_else(|| loaded.unnamed[0].clone(), |target| target.digest))
    }

    pub(crate) async fn commit(&mut self, key: &str, name: &str) -> Outcome<()> {
        let request = CommitRequest {
            key: key.into(),
            name: name.into(),
            ..Default::default()
        };
        self.rpc.commit(request).await?;
        Ok(())
    }

    pub(crate) async fn diff(&mut self, key: &str, compression: Compression) -> DiffResponse {
        let request = DiffRequest {
            key: key.into(),
            compression: compression.into(),
            ..Default::default()
        };
        self.rpc.diff(request).await.unwrap().into_inner()
    }

    pub(crate) async fn apply(&mut self, key: &str, ops: Vec<Op>) -> Outcome<u64> {
        let ops = ops.into_iter().map(|op| FileOp { op: Some(op) }).collect();
        let message = ApplyRequest {
            key: key.into(),
            ops,
        };
        Ok(self
            .rpc
            .apply(tokio_stream::once(message))
            .await?
            .into_inner()
            .entries)
    }

    pub(crate) async fn read(&mut self, key: &str, path: &str) -> Outcome<Vec<u8>> {
        let request = ReadFileRequest {
            key: key.into(),
            path: bytes(path),
        };
        Ok(self
            .rpc
            .read_file(request)
            .await?
            .into_inner()
            .data
            .to_vec())
    }

    pub(crate) async fn changes(&mut self, key: &str) -> Vec<(String, ChangeKind)> {
        let request = ChangesRequest { key: key.into() };
        let mut stream = self.rpc.changes(request).await.unwrap().into_inner();
        let mut changes = Vec::new();
        while let Some(Change { path, kind }) = stream.message().await.unwrap() {
            let path = String::from_utf8(path.to_vec()).unwrap();
            changes.push((path, ChangeKind::try_from(kind).unwrap()));
        }
        changes
    }

    pub(crate) async fn remove(&mut self, key: &str) -> Outcome<()> {
        self.rpc
            .remove(RemoveSnapshotRequest { key: key.into() })
            .await?;
        Ok(())
    }

    /// A committed snapshot with these files.
    pub(crate) async fn base(&mut self, tar: Vec<u8>) -> String {
        let image = self.service.image(&[(&tar, sha256(&tar))]);
        self.unpack(&image).await.unwrap().name
    }
}

/// A file in pieces that fit into messages.
fn pieces(mut file: fs::File) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        let mut limited = (&mut file).take(orlop_wire::CHUNK_BYTES as u64);
        limited.read_to_end(&mut piece).unwrap();
        (!piece.is_empty()).then_some(piece)
    })
}

pub(crate) fn request(key: &str, parent: &str) -> PrepareRequest {
    PrepareRequest {
        key: key.into(),
        parent: parent.into(),
        ..Default::default()
    }
}

pub(crate) fn bytes(text: &str) -> bytes::Bytes {
    text.to_owned().into()
}

pub(crate) fn kind<T>(outcome: Outcome<T>) -> Kind {
    outcome.err().unwrap().kind
}

pub(crate) fn owner(spec: &str) -> Option<Owner> {
    Some(Owner { spec: spec.into() })
}

pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 5 })
}

pub(crate) fn file(path: &str, digest: &str, mode: u32) -> Entry {
    Entry {
        path: bytes(path),
        kind: EntryKind::File.into(),
        mode,
        mtime: at(1000),
        digest: digest.into(),
        ..Default::default()
    }
}

pub(crate) fn passwd() -> Tar {
    Tar::new()
        .directory("etc", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:\nweb:x:33:34::/:\n")
        .file("etc/group", b"web:x:35:\n")
        .directory("usr", 0o755)
        .directory("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("usr/lib/a.js", b"a")
        .file("usr/lib/b.js", b"b")
        .file("usr/lib/c.txt", b"c")
}

pub(crate) async fn emptied(trash: &Path) {
    let start = Instant::now();
    while !names(trash).is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the trash is not emptied"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn read_blob(client: &Client, digest: &str) -> Vec<u8> {
    let digest = orlop_proto::descriptor::parse_digest(digest).unwrap();
    client
        .service
        .store
        .content
        .read_all(&digest, 1 << 30)
        .unwrap()
}

/// Runs a line of Python on an archive `t`.
pub(crate) fn python(tar: &[u8], line: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.tar");
    fs::write(&path, tar).unwrap();
    let script = format!("import tarfile,sys\nt=tarfile.open(sys.argv[1])\n{line}");
    let out = std::process::Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(path)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
