//! `Images`.

use orlop_proto::error::unimplemented;
use orlop_proto::store as pb;
use orlop_proto::types::Platform;
use tonic::{Request, Response, Status};

use super::blocking;
use super::streams::Outgoing;
use super::values::{descriptor, image, platform, signed, time};
use crate::images::{Expected, Images, Listed, PAGE_MAX, Resolved};
use crate::snapshots::Snapshots;

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
        let found = blocking(move || images.get(&name)).await?;
        Ok(Response::new(image(&found)))
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveImageRequest>,
    ) -> Result<Response<pb::ResolvedImage>, Status> {
        let images = self.images.clone();
        let request = request.into_inner();
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
        let listed = blocking(move || images.list(&request.prefix, &request.page_token, limit));
        let listed = listed.await?;
        let next_page_token = match listed.last() {
            Some(last) if listed.len() == limit => last.image.name.clone(),
            _ => String::new(),
        };
        let images = listed.into_iter().map(|listed| self.summary(listed));
        let images = images.collect();
        Ok(Response::new(pb::ListImagesResponse {
            images,
            next_page_token,
        }))
    }

    async fn watch(
        &self,
        _request: Request<pb::WatchImagesRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(unimplemented("Images.Watch"))
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

impl ImagesRpc {
    fn summary(&self, listed: Listed) -> pb::ImageSummary {
        let summary = listed.summary;
        let size = summary
            .layers
            .iter()
            .map(|(diff_id, blob)| self.snapshots.layer_bytes(diff_id).unwrap_or(*blob))
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
            last_used: None,
        }
    }
}
