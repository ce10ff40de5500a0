//! `Maintenance`.

use orlop_proto::store as pb;
use tonic::{Request, Response, Status};

use super::blocking;
use super::streams::{Outgoing, outgoing, send};
use crate::check::{Check, Finding, Options};
use crate::maintenance::Maintenance;

#[derive(Debug)]
pub(super) struct MaintenanceRpc {
    maintenance: Maintenance,
    check: Check,
}

impl MaintenanceRpc {
    pub(super) fn new(maintenance: Maintenance, check: Check) -> Self {
        Self { maintenance, check }
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceRpc {
    type CheckStream = Outgoing<pb::CheckFinding>;

    async fn collect(
        &self,
        request: Request<pb::CollectRequest>,
    ) -> Result<Response<pb::CollectResponse>, Status> {
        let maintenance = self.maintenance.clone();
        let dry_run = request.into_inner().dry_run;
        let collected = blocking(move || maintenance.collect(dry_run)).await?;
        Ok(Response::new(pb::CollectResponse {
            blobs: collected.blobs,
            snapshots: collected.snapshots,
            bytes: collected.bytes,
        }))
    }

    async fn disk_usage(
        &self,
        _request: Request<pb::DiskUsageRequest>,
    ) -> Result<Response<pb::DiskUsageResponse>, Status> {
        let maintenance = self.maintenance.clone();
        let usage = blocking(move || maintenance.disk_usage()).await?;
        Ok(Response::new(pb::DiskUsageResponse {
            blobs: usage.blobs,
            blob_bytes: usage.blob_bytes,
            layers: usage.layers,
            layer_bytes: usage.layer_bytes,
            snapshots: usage.snapshots,
            snapshot_bytes: usage.snapshot_bytes,
            ingest_bytes: usage.ingest_bytes,
            images: usage.images,
            reclaimable_bytes: usage.reclaimable_bytes,
            budget_bytes: usage.budget_bytes,
        }))
    }

    async fn check(
        &self,
        request: Request<pb::CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let check = self.check.clone();
        let pb::CheckRequest { repair, rehash } = request.into_inner();
        let options = Options { repair, rehash };
        Ok(Response::new(outgoing(move |sender| {
            check.run(options, &mut |found| send(sender, finding(found)))
        })))
    }
}

fn finding(found: Finding) -> pb::CheckFinding {
    pb::CheckFinding {
        kind: found.kind.as_str().to_owned(),
        subject: found.subject,
        detail: found.detail,
        repaired: found.repaired,
    }
}
