//! `orlop.store.v1.Content`.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use orlop_proto::error::{Failure, Kind};
use orlop_proto::store as pb;
use orlop_proto::store::content_client::ContentClient;
use orlop_wire::MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{found, signed, unsigned};
use crate::ports::{Answer, ByteStream, Content, Open, Piece};

/// The most that `PutMany` takes as one blob.
const PUT_MANY_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct Remote(ContentClient<Channel>);

impl Remote {
    pub(super) fn new(channel: Channel) -> Self {
        Self(
            ContentClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }

    async fn put_large(&self, digest: String, data: Bytes, lease: &str) -> Result<(), Failure> {
        let (sender, pieces) = mpsc::channel(1);
        let open = Open {
            id: format!("put-{}", digest.replace(':', "-")),
            truncate: true,
            lease: lease.to_owned(),
            ..Open::default()
        };
        let feed = async move {
            let mut data = data;
            let size = data.len() as u64;
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(orlop_wire::CHUNK_BYTES));
                if sender.send(Piece::Data(piece)).await.is_err() {
                    return;
                }
            }
            // A store that stopped listening says why in its answer.
            sender.send(Piece::Commit { digest, size }).await.ok();
        };
        let (written, ()) = tokio::join!(self.write(open, pieces), feed);
        written.map(drop)
    }
}

impl Content for Remote {
    fn size<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<u64>> {
        let mut client = self.0.clone();
        let request = pb::StatRequest {
            digest: digest.to_owned(),
        };
        async move {
            let info = found(client.stat(request).await)?;
            Ok(info.map(|info| unsigned(info.into_inner().size)))
        }
        .boxed()
    }

    fn find_missing(&self, digests: Vec<String>) -> Answer<'_, Vec<String>> {
        let mut client = self.0.clone();
        async move {
            let request = pb::FindMissingRequest { digests };
            Ok(client.find_missing(request).await?.into_inner().missing)
        }
        .boxed()
    }

    fn read<'a>(&'a self, digest: &'a str, offset: u64, length: u64) -> Answer<'a, ByteStream> {
        let mut client = self.0.clone();
        let request = pb::ReadRequest {
            digest: digest.to_owned(),
            offset: signed(offset),
            length: signed(length),
            verify: false,
        };
        async move {
            let chunks = client.read(request).await?.into_inner();
            Ok(chunks
                .map_ok(|chunk| chunk.data)
                .map_err(Failure::from)
                .boxed())
        }
        .boxed()
    }

    fn locate<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<(PathBuf, u64)>> {
        let mut client = self.0.clone();
        let request = pb::LocateRequest {
            digest: digest.to_owned(),
        };
        async move {
            match client.locate(request).await.map_err(Failure::from) {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    Ok(Some((answer.path.into(), unsigned(answer.size))))
                }
                Err(failure) if failure.kind == Kind::FailedPrecondition => Ok(None),
                Err(failure) => Err(failure),
            }
        }
        .boxed()
    }

    fn ingest_offset<'a>(&'a self, id: &'a str) -> Answer<'a, Option<u64>> {
        let mut client = self.0.clone();
        let request = pb::StatIngestRequest {
            ingest_id: id.to_owned(),
        };
        async move {
            let info = found(client.stat_ingest(request).await)?;
            Ok(info.map(|info| unsigned(info.into_inner().offset)))
        }
        .boxed()
    }

    fn write(&self, open: Open, pieces: mpsc::Receiver<Piece>) -> Answer<'_, u64> {
        let mut client = self.0.clone();
        let first = pb::OpenIngest {
            ingest_id: open.id,
            offset: signed(open.offset),
            truncate: open.truncate,
            lease: open.lease,
            diff_id: open.diff_id,
        };
        let first = message(pb::write_request::Message::Open(first));
        let rest = ReceiverStream::new(pieces).map(|piece| {
            message(match piece {
                Piece::Data(data) => pb::write_request::Message::Data(data),
                Piece::Commit { digest, size } => {
                    let size = signed(size);
                    pb::write_request::Message::Commit(pb::CommitIngest { digest, size })
                }
            })
        });
        let messages = stream::once(async { first }).chain(rest);
        async move { Ok(unsigned(client.write(messages).await?.into_inner().offset)) }.boxed()
    }

    fn abort<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::AbortIngestRequest {
            ingest_id: id.to_owned(),
        };
        async move { Ok(client.abort_ingest(request).await.map(drop)?) }.boxed()
    }

    fn put<'a>(&'a self, blobs: Vec<(String, Bytes)>, lease: &'a str) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        async move {
            let (small, large): (Vec<_>, Vec<_>) = blobs
                .into_iter()
                .partition(|(_, data)| data.len() <= PUT_MANY_BYTES_MAX);
            for (digest, data) in large {
                self.put_large(digest, data, lease).await?;
            }
            let lease = lease.to_owned();
            let requests = small
                .into_iter()
                .map(move |(digest, data)| pb::PutManyRequest {
                    digest,
                    data,
                    lease: lease.clone(),
                });
            Ok(client.put_many(stream::iter(requests)).await.map(drop)?)
        }
        .boxed()
    }
}

fn message(message: pb::write_request::Message) -> pb::WriteRequest {
    pb::WriteRequest {
        message: Some(message),
    }
}
