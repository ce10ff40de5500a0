//! The rpcs of service `Snapshots`.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use orlop_proto::descriptor::parse_digest;
use orlop_proto::error::to_status;
use orlop_proto::store::snapshots_server::Snapshots as Rpc;
use orlop_proto::store::{
    ApplyRequest, ApplyResponse, Change, ChangesRequest, CommitRequest, DiffRequest, DiffResponse,
    ExportSnapshotRequest, ExportSnapshotResponse, GetMountRequest, ListSnapshotsRequest,
    PrepareRequest, ReadFileRequest, ReadFileResponse, RemoveSnapshotRequest,
    RemoveSnapshotResponse, RenameSnapshotRequest, SnapshotInfo, SnapshotMount,
    StatSnapshotRequest, UnpackRequest, UnpackResponse, UsageRequest, UsageResponse,
};
use orlop_wire::telemetry::about;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::error::{Result as StoreResult, StoreError};
use crate::snapshots::Snapshots;
use crate::snapshots::lifecycle::Wanted;
use crate::snapshots::record::Record;

mod convert;

/// Bytes of one message of an exported tar.
const EXPORT_BYTES: usize = 512 * 1024;
/// Messages between a thread and a stream.
const IN_FLIGHT: usize = 8;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves snapshots.
#[derive(Clone, Debug)]
pub(super) struct SnapshotsRpc {
    snapshots: Snapshots,
}

impl SnapshotsRpc {
    /// Serves these.
    pub(super) fn new(snapshots: Snapshots) -> Self {
        Self { snapshots }
    }

    /// Calls on a thread that may block.
    async fn call<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Self) -> StoreResult<T> + Send + 'static,
    ) -> Answer<T> {
        let service = self.clone();
        let rpc = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || rpc.in_scope(|| action(&service))).await;
        match done {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(error)) => Err(to_status(&error)),
            Err(error) => Err(stopped(&error)),
        }
    }

    /// Streams from a thread that may block.
    fn stream<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Self, &Sender<Result<T, Status>>) -> StoreResult<()> + Send + 'static,
    ) -> Response<Answers<T>> {
        let service = self.clone();
        let (sender, receiver) = channel(IN_FLIGHT);
        let rpc = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = rpc.in_scope(|| action(&service, &sender))
                && sender.blocking_send(Err(to_status(&error))).is_err()
            {
                tracing::debug!(%error, "nobody listens to a stream any more");
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }

    fn mount(&self, record: &Record) -> StoreResult<SnapshotMount> {
        let stack = self.snapshots.stack(record)?;
        Ok(convert::mount(record, stack))
    }
}

#[tonic::async_trait]
impl Rpc for SnapshotsRpc {
    type ChangesStream = Answers<Change>;
    type ListStream = Answers<SnapshotInfo>;
    type ExportStream = Answers<ExportSnapshotResponse>;

    async fn unpack(&self, request: Request<UnpackRequest>) -> Answer<UnpackResponse> {
        let request = request.into_inner();
        about(&request.digest);
        self.call(move |service| {
            let digest = parse_digest(&request.digest)?;
            let done = service.snapshots.unpack_image(&digest, &request.lease)?;
            Ok(UnpackResponse {
                name: done.name,
                unpacked: done.unpacked,
                existed: done.existed,
            })
        })
        .await
    }

    async fn prepare(&self, request: Request<PrepareRequest>) -> Answer<SnapshotMount> {
        let wanted = wanted(request.into_inner());
        about(&wanted.key);
        self.call(move |service| service.mount(&service.snapshots.prepare(wanted)?))
            .await
    }

    async fn view(&self, request: Request<PrepareRequest>) -> Answer<SnapshotMount> {
        let wanted = wanted(request.into_inner());
        about(&wanted.key);
        self.call(move |service| service.mount(&service.snapshots.view(wanted)?))
            .await
    }

    async fn get_mount(&self, request: Request<GetMountRequest>) -> Answer<SnapshotMount> {
        let key = request.into_inner().key;
        self.call(move |service| {
            let record = service.snapshots.stat(&key)?;
            if record.kind == crate::snapshots::record::Kind::Committed {
                return Err(record.wrong_kind("active or a view"));
            }
            service.mount(&record)
        })
        .await
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Answer<SnapshotInfo> {
        let request = request.into_inner();
        about(&request.key);
        let wanted = Wanted {
            key: request.name,
            parent: String::new(),
            lease: request.lease,
            labels: request.labels,
        };
        self.call(move |service| {
            let record = service.snapshots.commit(&request.key, wanted)?;
            Ok(convert::info(record))
        })
        .await
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Answer<DiffResponse> {
        let request = request.into_inner();
        about(&request.key);
        self.call(move |service| {
            let codec = convert::codec(request.compression)?;
            let (packed, diff_id) = service
                .snapshots
                .diff(&request.key, codec, &request.lease)?;
            Ok(convert::diff(packed, diff_id, codec))
        })
        .await
    }

    async fn changes(&self, request: Request<ChangesRequest>) -> Answer<Self::ChangesStream> {
        let key = request.into_inner().key;
        self.call(move |service| service.snapshots.stat(&key).map(drop).map(|()| key))
            .await
            .map(|key| {
                let key = key.into_inner();
                self.stream(move |service, sender| {
                    service
                        .snapshots
                        .changes(&key, &mut |change| send(sender, convert::change(change)))
                })
            })
    }

    async fn apply(&self, request: Request<Streaming<ApplyRequest>>) -> Answer<ApplyResponse> {
        let mut messages = request.into_inner();
        let (sender, receiver) = channel(IN_FLIGHT);
        let service = self.clone();
        let work = tokio::task::spawn_blocking(move || apply(&service, receiver));
        while let Some(message) = messages.next().await {
            if sender.send(message).await.is_err() {
                break;
            }
        }
        drop(sender);
        let entries = work.await.map_err(|error| stopped(&error))??;
        Ok(Response::new(ApplyResponse { entries }))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Answer<ReadFileResponse> {
        let request = request.into_inner();
        self.call(move |service| {
            let data = service.snapshots.read_file(&request.key, &request.path)?;
            Ok(ReadFileResponse { data: data.into() })
        })
        .await
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Answer<SnapshotInfo> {
        let record = self.snapshots.stat(&request.into_inner().key);
        let record = record.map_err(|error| to_status(&error))?;
        Ok(Response::new(convert::info(record)))
    }

    async fn list(&self, _request: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let records = self.snapshots.list().into_iter();
        let infos = records.map(|record| Ok(convert::info(Arc::unwrap_or_clone(record))));
        Ok(Response::new(Box::pin(tokio_stream::iter(infos))))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Answer<UsageResponse> {
        let key = request.into_inner().key;
        self.call(move |service| {
            let usage = service.snapshots.usage(&key)?;
            Ok(UsageResponse {
                bytes: i64::try_from(usage.bytes).unwrap_or(i64::MAX),
                inodes: i64::try_from(usage.inodes).unwrap_or(i64::MAX),
            })
        })
        .await
    }

    async fn rename(&self, request: Request<RenameSnapshotRequest>) -> Answer<SnapshotInfo> {
        let request = request.into_inner();
        self.call(move |service| {
            let record = service.snapshots.rename(&request.key, &request.new_key)?;
            Ok(convert::info(record))
        })
        .await
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Answer<RemoveSnapshotResponse> {
        let key = request.into_inner().key;
        about(&key);
        self.call(move |service| {
            service.snapshots.remove(&key)?;
            Ok(RemoveSnapshotResponse {})
        })
        .await
    }

    async fn export(&self, request: Request<ExportSnapshotRequest>) -> Answer<Self::ExportStream> {
        let key = request.into_inner().key;
        self.snapshots
            .stat(&key)
            .map_err(|error| to_status(&error))?;
        Ok(self.stream(move |service, sender| {
            let out = io::BufWriter::with_capacity(EXPORT_BYTES, Pieces { sender });
            service.snapshots.export(&key, out)
        }))
    }
}

fn wanted(request: PrepareRequest) -> Wanted {
    Wanted {
        key: request.key,
        parent: request.parent,
        lease: request.lease,
        labels: request.labels,
    }
}

fn stopped(error: &tokio::task::JoinError) -> Status {
    Status::internal(format!("a task stopped: {error}"))
}

fn send<T>(sender: &Sender<Result<T, Status>>, answer: T) -> StoreResult<()> {
    sender
        .blocking_send(Ok(answer))
        .map_err(|_| StoreError::ClientGone)
}

/// On its own thread: takes the messages as they come.
fn apply(
    service: &SnapshotsRpc,
    mut messages: Receiver<Result<ApplyRequest, Status>>,
) -> Result<u64, Status> {
    let status = |error: StoreError| to_status(&error);
    let Some(first) = messages.blocking_recv() else {
        return Err(status(StoreError::Request("the first message is missing")));
    };
    let first = first?;
    let mut session = service.snapshots.session(&first.key).map_err(status)?;
    let mut next = Some(Ok(first));
    while let Some(message) = next {
        for operation in message?.ops {
            let operation = convert::operation(operation).map_err(status)?;
            session.perform(&operation).map_err(status)?;
        }
        next = messages.blocking_recv();
    }
    Ok(session.entries())
}

/// Sends what is written to it.
struct Pieces<'a> {
    sender: &'a Sender<Result<ExportSnapshotResponse, Status>>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(EXPORT_BYTES);
        let data = Bytes::copy_from_slice(&bytes[..count]);
        let answer = ExportSnapshotResponse { data };
        send(self.sender, answer).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
