//! A store in a process of its own, killed when it is dropped.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use orlop_proto::store as pb;
use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::import_request::Message;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_wire::{Endpoint, connect};
use tonic::Status;
use tonic::transport::Channel;

pub(crate) struct Process {
    child: Child,
    pub(crate) channel: Channel,
    socket: PathBuf,
    directory: tempfile::TempDir,
}

impl Process {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// In a working directory of its own, with these changes to its command.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("store.sock");
        fs::create_dir(directory.path().join("cwd")).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop-store"));
        command
            .current_dir(directory.path().join("cwd"))
            .arg("--root")
            .arg(directory.path().join("root"))
            .arg("--listen")
            .arg(format!("unix://{}", socket.display()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        change(&mut command);
        let child = command.spawn().unwrap();
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "no socket");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let channel = connect(&Endpoint::Unix(socket.clone()));
        Self {
            child,
            channel,
            socket,
            directory,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// A path below the directory that holds `cwd`, `root` and `log`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) async fn import(&self, blob: Vec<u8>) -> Result<pb::ImportResponse, Status> {
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
        Ok(archives
            .import(tokio_stream::iter(messages))
            .await?
            .into_inner())
    }

    pub(crate) async fn load(&self, archive: Vec<u8>) -> Result<pb::LoadResponse, Status> {
        let message = pb::LoadRequest {
            data: archive.into(),
        };
        let mut archives = ArchivesClient::new(self.channel.clone());
        Ok(archives
            .load(tokio_stream::once(message))
            .await?
            .into_inner())
    }

    pub(crate) async fn unpack(
        &self,
        image: pb::ImportResponse,
    ) -> Result<pb::UnpackResponse, Status> {
        let request = pb::UnpackRequest {
            digest: image.target.unwrap().digest,
            ..Default::default()
        };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        Ok(snapshots.unpack(request).await?.into_inner())
    }

    /// Answers an honest caller.
    pub(crate) async fn answers(&self) -> bool {
        let mut snapshots = SnapshotsClient::new(connect(&Endpoint::Unix(self.socket.clone())));
        snapshots.list(pb::ListSnapshotsRequest {}).await.is_ok()
    }

    /// The most memory that it ever took.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if std::path::Path::new(point).starts_with(self.directory.path()) {
                rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).ok();
            }
        }
    }
}
