//! `Content`.

use bytes::Bytes;
use oci_spec::image::Digest;
use orlop_proto::store as pb;
use orlop_proto::store::write_request::Message;
use orlop_wire::telemetry::about;
use orlop_wire::{CHUNK_BYTES, is_local};
use tokio::sync::mpsc::{Receiver, Sender};
use tonic::{Request, Response, Status, Streaming};

use super::streams::{Outgoing, incoming, of_values, outgoing, send};
use super::values::{signed, time};
use super::{blocking, status};
use crate::content::{self, Blob, BlobReader, Content, IngestInfo, IngestWriter, Sealed, digest};
use crate::leases::{Leases, Resource};
use crate::snapshots::arrival::Arrival;
use crate::{Store, StoreError};

const FIND_MISSING_MAX: usize = 100_000;
const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Blobs of `PutMany` that share one sync.
const BATCH_BLOBS: usize = 1024;

#[derive(Debug)]
pub(super) struct ContentRpc {
    store: Store,
}

impl ContentRpc {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    fn content(&self) -> Content {
        self.store.content.clone()
    }
}

#[tonic::async_trait]
impl pb::content_server::Content for ContentRpc {
    type ReadStream = Outgoing<pb::ReadResponse>;
    type ListIngestsStream = Outgoing<pb::IngestInfo>;
    type ListStream = Outgoing<pb::BlobInfo>;

    async fn stat(
        &self,
        request: Request<pb::StatRequest>,
    ) -> Result<Response<pb::BlobInfo>, Status> {
        let content = self.content();
        let digest = request.into_inner().digest;
        about(&digest);
        let blob = blocking(move || content.stat(&content::digest(&digest)?)).await?;
        Ok(Response::new(blob_info(&blob)))
    }

    async fn find_missing(
        &self,
        request: Request<pb::FindMissingRequest>,
    ) -> Result<Response<pb::FindMissingResponse>, Status> {
        let content = self.content();
        let digests = request.into_inner().digests;
        let missing = blocking(move || find_missing(&content, digests)).await?;
        Ok(Response::new(pb::FindMissingResponse { missing }))
    }

    async fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let content = self.content();
        let request = request.into_inner();
        about(&request.digest);
        let range = blocking(move || open_range(&content, &request)).await?;
        Ok(Response::new(outgoing(move |sender| {
            send_range(range, sender)
        })))
    }

    async fn locate(
        &self,
        request: Request<pb::LocateRequest>,
    ) -> Result<Response<pb::LocateResponse>, Status> {
        if !is_local(&request) {
            return Err(status(&StoreError::NotLocal));
        }
        let content = self.content();
        let digest = request.into_inner().digest;
        about(&digest);
        let blob = blocking(move || {
            let digest = content::digest(&digest)?;
            let file = content.open(&digest)?;
            let path = content.path(&digest);
            let metadata = file.metadata().map_err(StoreError::io("examine", &path))?;
            Ok((path, metadata.len()))
        });
        let (path, size) = blob.await?;
        let path = path.to_string_lossy().into_owned();
        Ok(Response::new(pb::LocateResponse {
            path,
            size: signed(size),
        }))
    }

    async fn write(
        &self,
        request: Request<Streaming<pb::WriteRequest>>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let store = self.store.clone();
        let messages = incoming(request.into_inner());
        let response = blocking(move || write(&store, messages)).await?;
        Ok(Response::new(response))
    }

    async fn put_many(
        &self,
        request: Request<Streaming<pb::PutManyRequest>>,
    ) -> Result<Response<pb::PutManyResponse>, Status> {
        let (content, leases) = (self.content(), self.store.leases.clone());
        let messages = incoming(request.into_inner());
        let response = blocking(move || put_many(&content, &leases, messages)).await?;
        Ok(Response::new(response))
    }

    async fn stat_ingest(
        &self,
        request: Request<pb::StatIngestRequest>,
    ) -> Result<Response<pb::IngestInfo>, Status> {
        let content = self.content();
        let id = request.into_inner().ingest_id;
        let info = blocking(move || content.stat_ingest(&id)).await?;
        Ok(Response::new(ingest_info(info)))
    }

    async fn list_ingests(
        &self,
        _request: Request<pb::ListIngestsRequest>,
    ) -> Result<Response<Self::ListIngestsStream>, Status> {
        let content = self.content();
        let infos = blocking(move || content.list_ingests()).await?;
        Ok(Response::new(of_values(
            infos.into_iter().map(ingest_info).collect(),
        )))
    }

    async fn abort_ingest(
        &self,
        request: Request<pb::AbortIngestRequest>,
    ) -> Result<Response<pb::AbortIngestResponse>, Status> {
        let content = self.content();
        let id = request.into_inner().ingest_id;
        blocking(move || content.abort_ingest(&id)).await?;
        Ok(Response::new(pb::AbortIngestResponse {}))
    }

    async fn list(
        &self,
        _request: Request<pb::ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let content = self.content();
        Ok(Response::new(outgoing(move |sender| {
            content.each_in_order(|blob| send(sender, blob_info(&blob)))
        })))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let maintenance = self.store.maintenance.clone();
        let digest = request.into_inner().digest;
        about(&digest);
        blocking(move || maintenance.delete_blob(&content::digest(&digest)?)).await?;
        Ok(Response::new(pb::DeleteResponse {}))
    }
}

fn blob_info(blob: &Blob) -> pb::BlobInfo {
    pb::BlobInfo {
        digest: blob.digest.to_string(),
        size: signed(blob.size),
        created: Some(time(blob.created)),
        last_used: Some(time(blob.wanted)),
    }
}

fn ingest_info(info: IngestInfo) -> pb::IngestInfo {
    pb::IngestInfo {
        ingest_id: info.id,
        offset: signed(info.offset),
        started: Some(time(info.started)),
        updated: Some(time(info.updated)),
    }
}

fn find_missing(content: &Content, digests: Vec<String>) -> Result<Vec<String>, StoreError> {
    if digests.len() > FIND_MISSING_MAX {
        return Err(StoreError::Request(
            "more than 100,000 digests in one request",
        ));
    }
    let mut missing = Vec::new();
    for text in digests {
        if !content.want(&digest(&text)?) {
            missing.push(text);
        }
    }
    Ok(missing)
}

fn open_range(content: &Content, request: &pb::ReadRequest) -> Result<BlobReader, StoreError> {
    let digest = digest(&request.digest)?;
    content.reader(&digest, request.offset, request.length, request.verify)
}

fn send_range(
    mut reader: BlobReader,
    sender: &Sender<Result<pb::ReadResponse, Status>>,
) -> Result<(), StoreError> {
    while let Some(data) = reader.piece(CHUNK_BYTES)? {
        send(sender, pb::ReadResponse { data: data.into() })?;
    }
    Ok(())
}

/// Takes one message; an end of the stream is `None`, and so is a client that went away.
fn take<M>(messages: &mut Receiver<Result<M, Status>>) -> Option<Result<M, StoreError>> {
    Some(
        messages
            .blocking_recv()?
            .map_err(|_| StoreError::ClientGone),
    )
}

fn write(
    store: &Store,
    mut messages: Receiver<Result<pb::WriteRequest, Status>>,
) -> Result<pb::WriteResponse, StoreError> {
    let first = take(&mut messages)
        .transpose()?
        .and_then(|request| request.message);
    let Some(Message::Open(open)) = first else {
        return Err(StoreError::Request(
            "the first message of a write opens the ingest",
        ));
    };
    let content = &store.content;
    let mut writer = content.ingest(&open.ingest_id, open.offset, open.truncate)?;
    let arrival = arrive(store, &open.diff_id, &writer);
    loop {
        let message = match take(&mut messages) {
            None => break suspended(writer),
            Some(Ok(request)) => request.message,
            Some(Err(error)) => break writer.suspend().and(Err(error)),
        };
        match message {
            Some(Message::Data(data)) => {
                if let Err(error) = append(&mut writer, &data) {
                    break writer.suspend().and(Err(error));
                }
                arrival
                    .iter()
                    .for_each(|arrival| arrival.reach(writer.size()));
            }
            Some(Message::Commit(commit)) => {
                arrival.iter().for_each(Arrival::end);
                let response = committed(writer, &commit, &store.leases, &open.lease)?;
                arrival.into_iter().for_each(Arrival::finish);
                break Ok(response);
            }
            _ => {
                let error =
                    StoreError::Request("a write is opened once, then has data or a commit");
                break writer.suspend().and(Err(error));
            }
        }
    }
}

/// A layer is unpacked on its way, where that is of use.
fn arrive(store: &Store, diff_id: &str, writer: &IngestWriter) -> Option<Arrival> {
    if diff_id.is_empty() {
        return None;
    }
    let file = writer.file().ok()?;
    store.snapshots.arrive(diff_id, file, writer.size())
}

fn append(writer: &mut IngestWriter, data: &Bytes) -> Result<(), StoreError> {
    if data.len() > DATA_BYTES_MAX {
        return Err(StoreError::Request("a message has at most 1 MiB of data"));
    }
    writer.write(data)
}

fn suspended(writer: IngestWriter) -> Result<pb::WriteResponse, StoreError> {
    let offset = signed(writer.suspend()?);
    Ok(pb::WriteResponse {
        offset,
        digest: String::new(),
    })
}

fn committed(
    writer: IngestWriter,
    commit: &pb::CommitIngest,
    leases: &Leases,
    lease: &str,
) -> Result<pb::WriteResponse, StoreError> {
    let expected = match commit.digest.as_str() {
        "" => None,
        text => Some(digest(text)?),
    };
    let size = match commit.size {
        0 => None,
        size => Some(u64::try_from(size).map_err(|_| StoreError::Request("a size below 0"))?),
    };
    let (digest, size) = writer.commit(expected.as_ref(), size, leases, lease)?;
    Ok(pb::WriteResponse {
        offset: signed(size),
        digest: digest.to_string(),
    })
}

fn put_many(
    content: &Content,
    leases: &Leases,
    mut messages: Receiver<Result<pb::PutManyRequest, Status>>,
) -> Result<pb::PutManyResponse, StoreError> {
    let mut response = pb::PutManyResponse::default();
    let mut batch = Vec::new();
    let mut lease = None;
    while let Some(request) = take(&mut messages) {
        let request = request?;
        let lease = lease.get_or_insert(request.lease);
        let digest = digest(&request.digest)?;
        leases.hold(lease, Resource::Blob(request.digest))?;
        if content.keep(&digest)? {
            response.existed += 1;
            continue;
        }
        batch.push(seal(content, &digest, &request.data)?);
        crate::failpoint::reach("content.put_many.sealed");
        if batch.len() >= BATCH_BLOBS {
            publish(content, std::mem::take(&mut batch), &mut response)?;
        }
    }
    publish(content, batch, &mut response)?;
    leases.settle(lease.as_deref().unwrap_or_default())?;
    crate::failpoint::reach("content.put_many.published");
    Ok(response)
}

fn seal(content: &Content, digest: &Digest, data: &Bytes) -> Result<Sealed, StoreError> {
    if data.len() > DATA_BYTES_MAX {
        return Err(StoreError::Request("a blob of PutMany has at most 1 MiB"));
    }
    content.seal_bytes(data, digest)
}

fn publish(
    content: &Content,
    batch: Vec<Sealed>,
    response: &mut pb::PutManyResponse,
) -> Result<(), StoreError> {
    let all = batch.len();
    let stored = content.publish(batch)?;
    response.stored += stored as u64;
    response.existed += (all - stored) as u64;
    Ok(())
}
