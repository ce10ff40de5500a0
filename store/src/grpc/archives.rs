//! `Archives`.

use bytes::Bytes;
use orlop_proto::store as pb;
use orlop_proto::store::import_request::Message;
use tonic::{Request, Response, Status, Streaming};

use super::blocking;
use super::streams::{IncomingBytes, Outgoing, OutgoingBytes, incoming, outgoing};
use super::values::{image, platform};
use crate::StoreError;
use crate::archives::{Archives, ImportOptions};

#[derive(Debug)]
pub(super) struct ArchivesRpc {
    archives: Archives,
}

impl ArchivesRpc {
    pub(super) fn new(archives: Archives) -> Self {
        Self { archives }
    }
}

#[tonic::async_trait]
impl pb::archives_server::Archives for ArchivesRpc {
    type SaveStream = Outgoing<pb::SaveResponse>;

    async fn load(
        &self,
        request: Request<Streaming<pb::LoadRequest>>,
    ) -> Result<Response<pb::LoadResponse>, Status> {
        let archives = self.archives.clone();
        let bytes =
            IncomingBytes::new(incoming(request.into_inner()), |message| Some(message.data));
        let loaded = blocking(move || archives.load(bytes)).await?;
        Ok(Response::new(pb::LoadResponse {
            images: loaded.images.iter().map(image).collect(),
            unnamed: loaded.unnamed.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn save(
        &self,
        request: Request<pb::SaveRequest>,
    ) -> Result<Response<Self::SaveStream>, Status> {
        let archives = self.archives.clone();
        let references = request.into_inner().references;
        Ok(Response::new(outgoing(move |sender| {
            let out = OutgoingBytes::new(sender, |data| pb::SaveResponse { data });
            archives.save(&references, out)
        })))
    }

    async fn import(
        &self,
        request: Request<Streaming<pb::ImportRequest>>,
    ) -> Result<Response<pb::ImportResponse>, Status> {
        let archives = self.archives.clone();
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|request| request.message);
        let Some(Message::Options(options)) = first else {
            let error = StoreError::Request("the first message of an import has its options");
            return Err(super::status(&error));
        };
        let options = ImportOptions {
            name: options.name,
            config_json: options.config_json,
            message: options.message,
            platform: platform(options.platform),
        };
        let bytes = IncomingBytes::new(incoming(stream), data_of);
        let imported = blocking(move || archives.import(bytes, &options)).await?;
        Ok(Response::new(pb::ImportResponse {
            image_id: imported.image_id.to_string(),
            target: Some((&imported.target).into()),
        }))
    }
}

fn data_of(request: pb::ImportRequest) -> Option<Bytes> {
    match request.message {
        Some(Message::Data(data)) => Some(data),
        _ => None,
    }
}
