//! `Volumes`.

use orlop_proto::runtime as wire;
use orlop_proto::runtime::volumes_server::Volumes;
use tonic::{Request, Response, Status};

use super::convert::volume;
use super::status;
use crate::containers::Containers;
use crate::error::{Error, blocking};

/// Directories that outlive containers.
#[derive(Debug)]
pub(super) struct Service(pub(super) Containers);

#[tonic::async_trait]
impl Volumes for Service {
    async fn create(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Result<Response<wire::Volume>, Status> {
        let request = request.into_inner();
        let volumes = self.0.volumes().clone();
        let anonymous = request.name.is_empty();
        let made = blocking(move || {
            let made = volumes.create(&request.name, request.labels, anonymous)?;
            Ok(volume(&volumes, made))
        });
        made.await.map(Response::new).map_err(status)
    }

    async fn list(
        &self,
        _request: Request<wire::ListVolumesRequest>,
    ) -> Result<Response<wire::ListVolumesResponse>, Status> {
        let volumes = self.0.volumes().clone();
        let all = blocking(move || {
            let all = volumes.list()?;
            Ok(all.into_iter().map(|v| volume(&volumes, v)).collect())
        });
        let volumes = all.await.map_err(status)?;
        Ok(Response::new(wire::ListVolumesResponse { volumes }))
    }

    async fn inspect(
        &self,
        request: Request<wire::InspectVolumeRequest>,
    ) -> Result<Response<wire::Volume>, Status> {
        let name = request.into_inner().name;
        let volumes = self.0.volumes().clone();
        let found = blocking(move || Ok(volume(&volumes, volumes.get(&name)?)));
        found.await.map(Response::new).map_err(status)
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveVolumeRequest>,
    ) -> Result<Response<wire::RemoveVolumeResponse>, Status> {
        let wire::RemoveVolumeRequest { name, force } = request.into_inner();
        self.0.remove_volume(name, force).await.map_err(status)?;
        Ok(Response::new(wire::RemoveVolumeResponse {}))
    }

    async fn prune(
        &self,
        request: Request<wire::PruneVolumesRequest>,
    ) -> Result<Response<wire::PruneVolumesResponse>, Status> {
        let all = request.into_inner().all;
        let volumes = self.0.volumes().clone();
        let listing = volumes.clone();
        let candidates = blocking(move || listing.list()).await.map_err(status)?;
        let mut answer = wire::PruneVolumesResponse::default();
        for candidate in candidates.into_iter().filter(|v| all || v.anonymous) {
            let (counting, name) = (volumes.clone(), candidate.name.clone());
            let bytes = blocking(move || Ok(counting.bytes(&name))).await;
            match self.0.remove_volume(candidate.name.clone(), true).await {
                Ok(()) => {
                    answer.bytes += bytes.map_err(status)?;
                    answer.names.push(candidate.name);
                }
                Err(Error::VolumeInUse { .. }) => {}
                Err(error) => return Err(status(error)),
            }
        }
        Ok(Response::new(answer))
    }
}
