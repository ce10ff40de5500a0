//! `Images`.

use orlop_proto::store as pb;
use orlop_proto::types::Platform;
use orlop_wire::telemetry::about;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::streams::Outgoing;
use super::values::{descriptor, image, platform, signed, time};
use super::{blocking, status};
use crate::StoreError;
use crate::images::{Expected, Images, Listed, PAGE_MAX, Resolved, Watch, WatchEnd};
use crate::snapshots::Snapshots;

/// Events between the store and a stream that is not read fast enough.
const IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(super) struct ImagesRpc {
    images: Images,
    snapshots: Snapshots,
}

impl ImagesRpc {
    pub(super) fn new(images: Images, snapshots: Snapshots) -> Self {
        Self { images, snapshots }
    }
}

#[tonic::async_trait]
impl pb::images_server::Images for ImagesRpc {
    type WatchStream = Outgoing<pb::ImageEvent>;

    async fn get(
        &self,
        request: Request<pb::GetImageRequest>,
    ) -> Result<Response<pb::Image>, Status> {
        let images = self.images.clone();
        let name = request.into_inner().name;
        about(&name);
        let found = blocking(move || images.get(&name)).await?;
        Ok(Response::new(image(&found)))
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveImageRequest>,
    ) -> Result<Response<pb::ResolvedImage>, Status> {
        let images = self.images.clone();
        let request = request.into_inner();
        about(&request.reference);
        let wanted = platform(request.platform);
        let resolved = blocking(move || images.resolve(&request.reference, &wanted)).await?;
        Ok(Response::new(resolved_image(resolved)))
    }

    async fn put(
        &self,
        request: Request<pb::PutImageRequest>,
    ) -> Result<Response<pb::Image>, Status> {
        use pb::put_image_request::Expected as Wire;
        let images = self.images.clone();
        let request = request.into_inner();
        about(&request.name);
        let expected = match request.expected {
            Some(Wire::Absent(true)) => Expected::Absent,
            Some(Wire::Digest(digest)) => Expected::Digest(digest),
            Some(Wire::Absent(false)) | None => Expected::Any,
        };
        let put = blocking(move || {
            images.put(
                &request.name,
                descriptor(request.target.as_ref())?,
                &expected,
            )
        });
        Ok(Response::new(image(&put.await?)))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteImageRequest>,
    ) -> Result<Response<pb::DeleteImageResponse>, Status> {
        let images = self.images.clone();
        let request = request.into_inner();
        about(&request.name);
        let expected = match request.expected {
            digest if digest.is_empty() => Expected::Any,
            digest => Expected::Digest(digest),
        };
        let snapshots = self.snapshots.clone();
        blocking(move || {
            snapshots.unwant(images.delete(&request.name, &expected)?);
            Ok(())
        })
        .await?;
        Ok(Response::new(pb::DeleteImageResponse {}))
    }

    async fn list(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        let images = self.images.clone();
        let request = request.into_inner();
        let asked = usize::try_from(request.page_size).unwrap_or(PAGE_MAX);
        let limit = if asked == 0 {
            PAGE_MAX
        } else {
            asked.min(PAGE_MAX)
        };
        let snapshots = self.snapshots.clone();
        let (images, last) = blocking(move || {
            let listed = images.list(&request.prefix, &request.page_token, limit)?;
            let full = listed.len() == limit;
            let last = listed.last().filter(|_| full);
            let last = last.map(|listed| listed.image.name.clone());
            let summary = |listed| summary(listed, &images, &snapshots);
            Ok((listed.into_iter().map(summary).collect(), last))
        })
        .await?;
        Ok(Response::new(pb::ListImagesResponse {
            images,
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn watch(
        &self,
        request: Request<pb::WatchImagesRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let events = self.images.watch();
        let prefix = request.into_inner().prefix;
        let (sender, receiver) = channel(IN_FLIGHT);
        tokio::spawn(forward(events, prefix, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends events until the reader is gone, or too far behind.
async fn forward(
    mut events: Watch,
    prefix: String,
    sender: Sender<Result<pb::ImageEvent, Status>>,
) {
    loop {
        let next = tokio::select! {
            () = sender.closed() => return,
            next = events.next() => next,
        };
        let message = match next {
            Ok(event) if !event.image.name.starts_with(&prefix) => continue,
            Ok(event) => Ok(pb::ImageEvent {
                image: Some(image(&event.image)),
                deleted: event.deleted,
            }),
            Err(WatchEnd::Behind) => Err(status(&StoreError::WatchBehind)),
            Err(WatchEnd::Closed) => return,
        };
        let last = message.is_err();
        if sender.send(message).await.is_err() || last {
            return;
        }
    }
}

fn resolved_image(resolved: Resolved) -> pb::ResolvedImage {
    pb::ResolvedImage {
        name: resolved.name,
        target: Some((&resolved.target).into()),
        manifest: Some((&resolved.manifest).into()),
        manifest_json: resolved.manifest_json.into(),
        config: Some((&resolved.config).into()),
        config_json: resolved.config_json.into(),
        names: resolved.names,
    }
}

fn summary(listed: Listed, images: &Images, snapshots: &Snapshots) -> pb::ImageSummary {
    let summary = listed.summary;
    let size = summary
        .layers
        .iter()
        .map(|(diff_id, blob)| snapshots.layer_bytes(diff_id).unwrap_or(*blob))
        .fold(0, u64::saturating_add);
    let (os, architecture, variant) = summary.platform;
    pb::ImageSummary {
        image: Some(image(&listed.image)),
        image_id: summary.image_id,
        created: summary.created.map(time),
        size: signed(size),
        platform: Some(Platform {
            os,
            architecture,
            variant,
        }),
        labels: summary.labels.into_iter().collect(),
        last_used: images.last_used(&listed.image.name).map(time),
    }
}
