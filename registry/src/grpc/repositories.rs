//! `orlop.registry.v1.Repositories`.

use std::sync::Arc;

use orlop_proto::descriptor::parse_digest;
use orlop_proto::error::to_status;
use orlop_proto::registry as pb;
use tonic::{Request, Response, Status};

use super::Where;
use crate::names::{Repository, Tag};
use crate::repositories::{PAGE_MAX, Repositories};
use crate::{Error, Result};

pub(super) struct Rpc {
    pub(super) repositories: Arc<Repositories>,
    pub(super) http: Where,
}

#[tonic::async_trait]
impl pb::repositories_server::Repositories for Rpc {
    async fn list(
        &self,
        request: Request<pb::ListRepositoriesRequest>,
    ) -> Result<Response<pb::ListRepositoriesResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size);
        answer(self.repositories.list(&request.last, size))
            .map(|names| Response::new(pb::ListRepositoriesResponse { names }))
    }

    async fn list_tags(
        &self,
        request: Request<pb::ListTagsRequest>,
    ) -> Result<Response<pb::ListTagsResponse>, Status> {
        let request = request.into_inner();
        let repository = repository(&request.repository)?;
        let size = page_size(request.page_size);
        let tags = answer(self.repositories.tags(&repository, &request.last, size))?;
        let tags = tags
            .into_iter()
            .map(|(name, digest)| pb::Tag { name, digest });
        Ok(Response::new(pb::ListTagsResponse {
            tags: tags.collect(),
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRepositoryRequest>,
    ) -> Result<Response<pb::DeleteRepositoryResponse>, Status> {
        answer(self.remove(request.into_inner()).await)?;
        Ok(Response::new(pb::DeleteRepositoryResponse {}))
    }

    async fn mount(
        &self,
        request: Request<pb::MountBlobRequest>,
    ) -> Result<Response<pb::MountBlobResponse>, Status> {
        answer(self.mount_blob(request.into_inner()).await)?;
        Ok(Response::new(pb::MountBlobResponse {}))
    }

    async fn endpoint(
        &self,
        _request: Request<pb::EndpointRequest>,
    ) -> Result<Response<pb::EndpointResponse>, Status> {
        let address = self.http.clone().map_err(Error::NoEndpoint);
        let address = answer(address)?.to_string();
        Ok(Response::new(pb::EndpointResponse { address }))
    }
}

impl Rpc {
    async fn remove(&self, request: pb::DeleteRepositoryRequest) -> Result<()> {
        let repository: Repository = request.repository.parse()?;
        match (request.tag.as_str(), request.digest.as_str()) {
            ("", "") => self.repositories.delete(&repository).await,
            (tag, "") => {
                let tag: Tag = tag.parse()?;
                self.repositories.delete_tag(&repository, &tag).await
            }
            ("", digest) => {
                let digest = parse_digest(digest)?.to_string();
                self.repositories
                    .delete_manifest(&repository, &digest)
                    .await
            }
            _ => Err(Error::Request("a tag or a digest, not both".to_owned())),
        }
    }

    async fn mount_blob(&self, request: pb::MountBlobRequest) -> Result<()> {
        let (from, to): (Repository, Repository) = (request.from.parse()?, request.to.parse()?);
        let digest = parse_digest(&request.digest)?.to_string();
        if self.repositories.mount(Some(&from), &to, &digest).await? {
            return Ok(());
        }
        Err(Error::NotFound {
            repository: from.to_string(),
            what: format!("blob {digest}"),
        })
    }
}

fn answer<T>(result: Result<T>) -> Result<T, Status> {
    result.map_err(|error| to_status(&error))
}

fn repository(text: &str) -> Result<Repository, Status> {
    answer(text.parse().map_err(Error::Name))
}

fn page_size(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => PAGE_MAX,
        Ok(size) => size.min(PAGE_MAX),
    }
}
