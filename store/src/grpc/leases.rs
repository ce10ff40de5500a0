//! `Leases`.

use jiff::{SignedDuration, Timestamp};
use orlop_proto::store as pb;
use orlop_wire::telemetry::about;
use tonic::{Request, Response, Status};

use super::blocking;
use super::streams::{Outgoing, of_values};
use super::values::time;
use crate::leases::{Lease, Leases, Resource};
use crate::maintenance::Maintenance;
use crate::{StoreError, content, ids};

#[derive(Debug)]
pub(super) struct LeasesRpc {
    leases: Leases,
    maintenance: Maintenance,
}

impl LeasesRpc {
    pub(super) fn new(leases: Leases, maintenance: Maintenance) -> Self {
        Self {
            leases,
            maintenance,
        }
    }
}

#[tonic::async_trait]
impl pb::leases_server::Leases for LeasesRpc {
    type ListStream = Outgoing<pb::Lease>;
    type ListResourcesStream = Outgoing<pb::Resource>;

    async fn put(
        &self,
        request: Request<pb::PutLeaseRequest>,
    ) -> Result<Response<pb::Lease>, Status> {
        let leases = self.leases.clone();
        let request = request.into_inner();
        about(&request.id);
        let put = blocking(move || {
            let expires = expiry(request.ttl_seconds)?;
            leases.put(&request.id, expires, request.labels.into_iter().collect())
        });
        Ok(Response::new(lease(put.await?)))
    }

    async fn add(
        &self,
        request: Request<pb::AddResourcesRequest>,
    ) -> Result<Response<pb::AddResourcesResponse>, Status> {
        let maintenance = self.maintenance.clone();
        let request = request.into_inner();
        about(&request.lease);
        blocking(move || maintenance.hold(&request.lease, resources(request.resources)?)).await?;
        Ok(Response::new(pb::AddResourcesResponse {}))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseResourcesRequest>,
    ) -> Result<Response<pb::ReleaseResourcesResponse>, Status> {
        let leases = self.leases.clone();
        let request = request.into_inner();
        about(&request.lease);
        blocking(move || leases.release(&request.lease, resources(request.resources)?)).await?;
        Ok(Response::new(pb::ReleaseResourcesResponse {}))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteLeaseRequest>,
    ) -> Result<Response<pb::DeleteLeaseResponse>, Status> {
        let leases = self.leases.clone();
        let id = request.into_inner().id;
        about(&id);
        blocking(move || leases.delete(&id)).await?;
        Ok(Response::new(pb::DeleteLeaseResponse {}))
    }

    async fn list(
        &self,
        _request: Request<pb::ListLeasesRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let leases = self.leases.clone();
        let all = blocking(move || Ok(leases.list())).await?;
        Ok(Response::new(of_values(
            all.into_iter().map(lease).collect(),
        )))
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Result<Response<Self::ListResourcesStream>, Status> {
        let leases = self.leases.clone();
        let id = request.into_inner().lease;
        let held = blocking(move || leases.resources(&id)).await?;
        Ok(Response::new(of_values(
            held.into_iter().map(resource).collect(),
        )))
    }
}

fn expiry(ttl_seconds: u64) -> Result<Option<Timestamp>, StoreError> {
    if ttl_seconds == 0 {
        return Ok(None);
    }
    let too_long = StoreError::Request("a lease's time to live is too long");
    let Ok(seconds) = i64::try_from(ttl_seconds) else {
        return Err(too_long);
    };
    match Timestamp::now().checked_add(SignedDuration::from_secs(seconds)) {
        Ok(expires) => Ok(Some(expires)),
        Err(_) => Err(too_long),
    }
}

fn resources(wire: Vec<pb::Resource>) -> Result<Vec<Resource>, StoreError> {
    use pb::resource::Resource as Wire;
    let parse = |resource: pb::Resource| match resource.resource {
        Some(Wire::Blob(digest)) => Ok(Resource::Blob(content::digest(&digest)?.to_string())),
        Some(Wire::Snapshot(key)) => ids::check("snapshot", &key).map(|()| Resource::Snapshot(key)),
        None => Err(StoreError::Request("a resource is a blob or a snapshot")),
    };
    wire.into_iter().map(parse).collect()
}

fn resource(resource: Resource) -> pb::Resource {
    use pb::resource::Resource as Wire;
    pb::Resource {
        resource: Some(match resource {
            Resource::Blob(digest) => Wire::Blob(digest),
            Resource::Snapshot(key) => Wire::Snapshot(key),
        }),
    }
}

fn lease(lease: Lease) -> pb::Lease {
    pb::Lease {
        id: lease.id,
        created: Some(time(lease.created)),
        expires: lease.expires.map(time),
        labels: lease.labels.into_iter().collect(),
    }
}
