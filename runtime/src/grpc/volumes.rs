//! `Volumes`.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use orlop_files::{Chunks, Joined};
use orlop_proto::runtime as wire;
use orlop_proto::runtime::volumes_server::Volumes;
use orlop_wire::CHUNK_BYTES;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::volume;
use super::{Answers, status};
use crate::containers::Containers;
use crate::error::{Error, blocking};
use crate::volumes::driver::Options;
use crate::volumes::filter::Filters;

/// Chunks between a thread and its stream.
const IN_FLIGHT: usize = 4;

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
            let options = Options::parse(request.options)?;
            let made = volumes.create(&request.name, request.labels, options, anonymous)?;
            Ok(volume(&volumes, made))
        });
        made.await.map(Response::new).map_err(status)
    }

    async fn list(
        &self,
        request: Request<wire::ListVolumesRequest>,
    ) -> Result<Response<wire::ListVolumesResponse>, Status> {
        let wire::ListVolumesRequest { filters, usage } = request.into_inner();
        let filters = Filters::parse(&filters).map_err(status)?;
        let (volumes, users) = (self.0.volumes().clone(), self.0.users_of_volumes());
        let all = blocking(move || {
            let mut all = volumes.list()?;
            all.retain(|volume| filters.fits(volume, users.contains_key(&volume.name)));
            let all = all.into_iter().map(|found| wire::Volume {
                bytes: usage.then(|| volumes.bytes(&found)),
                containers: users.get(&found.name).copied().unwrap_or_default(),
                ..volume(&volumes, found)
            });
            Ok(all.collect())
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
        let wire::PruneVolumesRequest { all, filters } = request.into_inner();
        let filters = Filters::parse(&filters).map_err(status)?;
        let (volumes, users) = (self.0.volumes().clone(), self.0.users_of_volumes());
        let listing = volumes.clone();
        let mut candidates = blocking(move || listing.list()).await.map_err(status)?;
        candidates.retain(|volume| {
            let used = users.contains_key(&volume.name);
            !used && (all || volume.anonymous) && filters.fits(volume, used)
        });
        let mut answer = wire::PruneVolumesResponse::default();
        for candidate in candidates {
            let (counting, counted) = (volumes.clone(), candidate.clone());
            let bytes = blocking(move || Ok(counting.bytes(&counted))).await;
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

    type ExportStream = Answers<wire::ExportVolumeResponse>;

    async fn export(
        &self,
        request: Request<wire::ExportVolumeRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let name = request.into_inner().name;
        self.0.volumes().get(&name).map_err(status)?;
        let volumes = self.0.volumes().clone();
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(async move {
            let chunks = sender.clone();
            let out = Chunks::new(CHUNK_BYTES, move |data| {
                let sent =
                    chunks.blocking_send(Ok(wire::ExportVolumeResponse { data: data.into() }));
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            });
            if let Err(error) = blocking(move || volumes.export(&name, out)).await {
                // Who is gone does not take the error either.
                sender.send(Err(status(error))).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn import(
        &self,
        request: Request<Streaming<wire::ImportVolumeRequest>>,
    ) -> Result<Response<wire::ImportVolumeResponse>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap_or_default();
        self.0.volumes().get(&first.name).map_err(status)?;
        let volumes = self.0.volumes().clone();
        let (sender, mut chunks) = mpsc::channel(IN_FLIGHT);
        let name = first.name;
        tokio::spawn(forward(first.data, stream, sender));
        let tar = Joined::new(move || chunks.blocking_recv().transpose());
        let imported = blocking(move || volumes.import(&name, tar)).await;
        let bytes = imported.map_err(status)?;
        Ok(Response::new(wire::ImportVolumeResponse { bytes }))
    }
}

/// Ends with the stream, or with who reads it; a stream that breaks is an error, not an end.
async fn forward(
    first: Bytes,
    mut stream: Streaming<wire::ImportVolumeRequest>,
    to: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut next = Some(Ok(first));
    while let Some(chunk) = next {
        let last = chunk.is_err();
        if to.send(chunk).await.is_err() || last {
            return;
        }
        next = match stream.message().await {
            Ok(message) => message.map(|message| Ok(message.data)),
            Err(_) => Some(Err(io::ErrorKind::ConnectionAborted.into())),
        };
    }
}
