//! `Maintenance`.

use orlop_proto::error::unimplemented;
use orlop_proto::store as pb;
use tonic::{Request, Response, Status};

use super::blocking;
use super::streams::Outgoing;
use crate::maintenance::Maintenance;

#[derive(Debug)]
pub(super) struct MaintenanceRpc {
    maintenance: Maintenance,
}

impl MaintenanceRpc {
    pub(super) fn new(maintenance: Maintenance) -> Self {
        Self { maintenance }
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
        _request: Request<pb::CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        Err(unimplemented("Maintenance.Check"))
    }
}
