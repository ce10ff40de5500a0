//! `CopyIn` and `CopyOut`: archives between streams and threads that block.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use orlop_files::{Chunks, Joined, Kind};
use orlop_proto::runtime as wire;
use orlop_proto::runtime::{copy_in_request, copy_out_response};
use orlop_wire::CHUNK_BYTES;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::containers::spawned;
use super::{Answers, status};
use crate::containers::Containers;
use crate::containers::copy::Incoming;
use crate::error::Error;

/// Chunks between a thread and its stream.
const IN_FLIGHT: usize = 4;

/// Takes files in.
pub(super) async fn into_container(
    containers: Containers,
    mut stream: Streaming<wire::CopyInRequest>,
) -> Result<wire::CopyInResponse, Status> {
    let first = stream.message().await?.and_then(|request| request.message);
    let Some(copy_in_request::Message::Start(start)) = first else {
        let problem = "expected the start of a copy";
        return Err(status(Error::invalid("first message", problem)));
    };
    let container = containers.find(&start.id).map_err(status)?;
    let incoming = Incoming {
        kind: kind_of(start.kind()).map_err(status)?,
        path: start.path.into(),
        name: start.name.into(),
        owners: start.archive,
    };
    let (sender, mut chunks) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(forward(stream, sender));
    let tar = Joined::new(move || chunks.blocking_recv().transpose());
    let copied = spawned(async move { containers.copy_in(&container, incoming, tar).await });
    let bytes = copied.await.map_err(status)?;
    Ok(wire::CopyInResponse { bytes })
}

/// Ends with the stream, or with who reads it; a stream that breaks is an error, not an end.
async fn forward(mut stream: Streaming<wire::CopyInRequest>, to: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(answer) = stream.message().await.transpose() {
        let chunk = match answer.map(|request| request.message) {
            Ok(Some(copy_in_request::Message::Data(data))) => Ok(data),
            Ok(_) => Err(io::Error::other("a copy is started once")),
            Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let last = chunk.is_err();
        if to.send(chunk).await.is_err() || last {
            return;
        }
    }
}

/// Gives files out.
pub(super) fn out_of_container(
    containers: Containers,
    request: wire::CopyOutRequest,
) -> Result<Answers<wire::CopyOutResponse>, Status> {
    let container = containers.find(&request.id).map_err(status)?;
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let answer = |message| wire::CopyOutResponse {
        message: Some(message),
    };
    tokio::spawn(async move {
        let (first, chunks) = (sender.clone(), sender.clone());
        let begin = move |kind, name: &[u8]| {
            let start = wire::CopyOutStart {
                kind: wire_kind(kind).into(),
                name: name.to_vec().into(),
            };
            let start = copy_out_response::Message::Start(start);
            // Who is gone does not take the bytes either.
            first.blocking_send(Ok(answer(start))).ok();
        };
        let out = Chunks::new(CHUNK_BYTES, move |chunk| {
            let data = copy_out_response::Message::Data(chunk.into());
            let sent = chunks.blocking_send(Ok(answer(data)));
            sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
        });
        let path = request.path.into();
        let copied = containers.copy_out(&container, path, request.follow, begin, out);
        if let Err(error) = copied.await {
            sender.send(Err(status(error))).await.ok();
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

fn kind_of(kind: wire::CopyKind) -> Result<Kind, Error> {
    Ok(match kind {
        wire::CopyKind::File => Kind::File,
        wire::CopyKind::Directory => Kind::Directory,
        wire::CopyKind::Contents => Kind::Contents,
        wire::CopyKind::Archive => Kind::Archive,
        wire::CopyKind::Unspecified => {
            return Err(Error::invalid("kind", "say what is copied"));
        }
    })
}

fn wire_kind(kind: Kind) -> wire::CopyKind {
    match kind {
        Kind::File => wire::CopyKind::File,
        Kind::Directory => wire::CopyKind::Directory,
        Kind::Contents => wire::CopyKind::Contents,
        Kind::Archive => wire::CopyKind::Archive,
    }
}
