//! The store under test: the real binary, and the generated clients of it.

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::store::leases_client::LeasesClient;
use orlop_proto::store::maintenance_client::MaintenanceClient;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::store::{DiskUsageRequest, ListLeasesRequest};
use orlop_wire::{Endpoint, connect};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

use super::disk::Place;
use crate::binary;

/// Longer than any start here takes.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running store.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What talks to it.
    pub clients: Clients,
}

/// A client of each of its services.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Blobs.
    pub content: ContentClient<Channel>,
    /// Names.
    pub images: ImagesClient<Channel>,
    /// File trees.
    pub snapshots: SnapshotsClient<Channel>,
    /// What must stay.
    pub leases: LeasesClient<Channel>,
    /// Tars.
    pub archives: ArchivesClient<Channel>,
    /// What may go.
    pub maintenance: MaintenanceClient<Channel>,
}

impl Process {
    /// Starts the binary; `options` are added to those that every store here has.
    pub fn spawn(place: &Place, options: &[String]) -> Self {
        std::fs::create_dir_all(place.run_dir()).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(place.run_dir().join("store.log"))
            .unwrap();
        let child = Command::new(binary("orlop-store"))
            .arg("--root")
            .arg(place.root())
            .arg("--run-dir")
            .arg(place.run_dir())
            .args(["--collect-grace-seconds", "1", "--disk-reserve-mib", "1"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let socket = place.run_dir().join("store.sock");
        let clients = Clients::new(&connect(&Endpoint::Unix(socket)));
        Self { child, clients }
    }

    /// Waits until it answers. Gives how long that took, or why it never does.
    pub async fn serves(&mut self) -> Result<Duration, String> {
        let start = Instant::now();
        loop {
            let request = ListLeasesRequest::default();
            match self.clients.leases.list(request).await {
                Ok(_) => return Ok(start.elapsed()),
                Err(status) if start.elapsed() > START_TIMEOUT => {
                    return Err(format!("does not serve: {status}"));
                }
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended at its start: {status}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// `kill -9`; returns when the process is gone.
    pub async fn kill(&mut self) {
        self.child.start_kill().ok();
        self.child.wait().await.unwrap();
    }

    /// Whether it dies by itself in that time.
    pub async fn dies_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.child.wait()).await.is_ok()
    }

    /// One of its accounts, for the log of a run.
    pub async fn blobs(&mut self) -> u64 {
        let usage = self.clients.maintenance.disk_usage(DiskUsageRequest {});
        usage.await.map_or(0, |usage| usage.into_inner().blobs)
    }
}

impl Clients {
    fn new(channel: &Channel) -> Self {
        Self {
            content: ContentClient::new(channel.clone()),
            images: ImagesClient::new(channel.clone()),
            snapshots: SnapshotsClient::new(channel.clone()),
            leases: LeasesClient::new(channel.clone()),
            archives: ArchivesClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
        }
    }
}
