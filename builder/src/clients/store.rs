//! The store as four ports.

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream;
use orlop_proto::error::{Failure, Kind};
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::store::leases_client::LeasesClient;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::store::write_request::Message;
use orlop_proto::store::{
    AddResourcesRequest, ApplyRequest, CommitIngest, CommitRequest, DeleteLeaseRequest,
    DiffRequest, FileOp, FindMissingRequest, GetImageRequest, OpenIngest, PrepareRequest,
    PutImageRequest, PutLeaseRequest, PutManyRequest, ReadRequest, ReleaseResourcesRequest,
    RemoveSnapshotRequest, ResolveImageRequest, ResolvedImage, Resource, StatSnapshotRequest,
    UnpackRequest, UsageRequest, WriteRequest,
};
use orlop_proto::types::Descriptor;
use orlop_wire::MESSAGE_BYTES_MAX;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::ports::{Content, Images, Layer, Layers, Leases, Reply};

/// Operations travel in messages of about this many bytes.
const APPLY_BYTES: usize = 1024 * 1024;
/// Digests of one FindMissing; the contract allows 100,000.
const MISSING_MAX: usize = 50_000;

#[derive(Debug)]
pub(super) struct Store {
    content: ContentClient<Channel>,
    images: ImagesClient<Channel>,
    leases: LeasesClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
}

impl Store {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            content: ContentClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            images: ImagesClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            leases: LeasesClient::new(channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX),
            snapshots: SnapshotsClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        }
    }
}

/// An answer, or `None` for NOT_FOUND.
fn found<T>(answer: Result<Response<T>, Status>) -> Result<Option<T>, Failure> {
    match answer.map_err(Failure::from) {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl Layers for Store {
    fn unpack<'a>(&'a self, manifest: &'a str, lease: &'a str) -> Reply<'a, String> {
        let request = UnpackRequest {
            digest: manifest.to_owned(),
            lease: lease.to_owned(),
        };
        let mut client = self.snapshots.clone();
        async move { Ok(client.unpack(request).await?.into_inner().name) }.boxed()
    }

    fn prepare<'a>(&'a self, key: &'a str, parent: &'a str, lease: &'a str) -> Reply<'a, ()> {
        let request = PrepareRequest {
            key: key.to_owned(),
            parent: parent.to_owned(),
            lease: lease.to_owned(),
            ..PrepareRequest::default()
        };
        let mut client = self.snapshots.clone();
        async move { Ok(client.prepare(request).await.map(|_| ())?) }.boxed()
    }

    fn apply<'a>(&'a self, key: &'a str, ops: Vec<FileOp>) -> Reply<'a, ()> {
        let mut requests = vec![ApplyRequest {
            key: key.to_owned(),
            ops: Vec::new(),
        }];
        let mut bytes = 0;
        for op in ops {
            bytes += op.encoded_len();
            if bytes > APPLY_BYTES {
                bytes = 0;
                requests.push(ApplyRequest::default());
            }
            requests
                .last_mut()
                .into_iter()
                .for_each(|request| request.ops.push(op.clone()));
        }
        let mut client = self.snapshots.clone();
        async move { Ok(client.apply(stream::iter(requests)).await.map(|_| ())?) }.boxed()
    }

    fn commit<'a>(&'a self, key: &'a str, name: &'a str, lease: &'a str) -> Reply<'a, ()> {
        let request = CommitRequest {
            key: key.to_owned(),
            name: name.to_owned(),
            lease: lease.to_owned(),
            ..CommitRequest::default()
        };
        let mut client = self.snapshots.clone();
        async move { Ok(client.commit(request).await.map(|_| ())?) }.boxed()
    }

    fn remove<'a>(&'a self, key: &'a str) -> Reply<'a, ()> {
        let request = RemoveSnapshotRequest {
            key: key.to_owned(),
        };
        let mut client = self.snapshots.clone();
        async move { Ok(client.remove(request).await.map(|_| ())?) }.boxed()
    }

    fn exists<'a>(&'a self, name: &'a str) -> Reply<'a, bool> {
        let request = StatSnapshotRequest {
            key: name.to_owned(),
        };
        let mut client = self.snapshots.clone();
        async move { Ok(found(client.stat(request).await)?.is_some()) }.boxed()
    }

    fn diff<'a>(&'a self, name: &'a str, lease: &'a str) -> Reply<'a, Layer> {
        let request = DiffRequest {
            key: name.to_owned(),
            lease: lease.to_owned(),
            ..DiffRequest::default()
        };
        let mut client = self.snapshots.clone();
        async move {
            let answer = client.diff(request).await?.into_inner();
            let descriptor = answer.descriptor.unwrap_or_default();
            Ok(Layer {
                media_type: descriptor.media_type,
                digest: descriptor.digest,
                size: descriptor.size,
                diff_id: answer.diff_id,
                empty: answer.empty,
            })
        }
        .boxed()
    }

    fn usage<'a>(&'a self, name: &'a str) -> Reply<'a, i64> {
        let request = UsageRequest {
            key: name.to_owned(),
        };
        let mut client = self.snapshots.clone();
        async move { Ok(found(client.usage(request).await)?.map_or(0, |usage| usage.bytes)) }
            .boxed()
    }
}

impl Content for Store {
    fn missing(&self, digests: Vec<String>) -> Reply<'_, Vec<String>> {
        let mut client = self.content.clone();
        async move {
            let mut missing = Vec::new();
            for part in digests.chunks(MISSING_MAX) {
                let request = FindMissingRequest {
                    digests: part.to_vec(),
                };
                missing.extend(client.find_missing(request).await?.into_inner().missing);
            }
            Ok(missing)
        }
        .boxed()
    }

    fn put_many<'a>(&'a self, blobs: Vec<(String, Bytes)>, lease: &'a str) -> Reply<'a, ()> {
        let lease = lease.to_owned();
        let requests = blobs.into_iter().map(move |(digest, data)| PutManyRequest {
            digest,
            data,
            lease: lease.clone(),
        });
        let mut client = self.content.clone();
        async move { Ok(client.put_many(stream::iter(requests)).await.map(|_| ())?) }.boxed()
    }

    fn write<'a>(
        &'a self,
        digest: &'a str,
        data: mpsc::Receiver<Bytes>,
        lease: &'a str,
    ) -> Reply<'a, ()> {
        let open = Message::Open(OpenIngest {
            ingest_id: crate::random_id("context"),
            offset: 0,
            truncate: true,
            lease: lease.to_owned(),
            diff_id: String::new(),
        });
        let commit = Message::Commit(CommitIngest {
            digest: digest.to_owned(),
            size: 0,
        });
        let mut client = self.content.clone();
        async move {
            use futures_util::StreamExt as _;
            let messages = stream::iter([open])
                .chain(ReceiverStream::new(data).map(Message::Data))
                .chain(stream::iter([commit]))
                .map(|message| WriteRequest {
                    message: Some(message),
                });
            Ok(client.write(messages).await.map(|_| ())?)
        }
        .boxed()
    }

    fn head<'a>(&'a self, digest: &'a str, length: i64) -> Reply<'a, Bytes> {
        let mut client = self.content.clone();
        async move {
            // A range beyond the end is an error, so the size comes first.
            let request = orlop_proto::store::StatRequest {
                digest: digest.to_owned(),
            };
            let size = client.stat(request).await?.into_inner().size;
            if size == 0 {
                return Ok(Bytes::new());
            }
            let request = ReadRequest {
                digest: digest.to_owned(),
                offset: 0,
                length: length.min(size),
                verify: false,
            };
            let mut answer = client.read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(part) = answer.message().await? {
                bytes.extend_from_slice(&part.data);
            }
            Ok(bytes.into())
        }
        .boxed()
    }
}

impl Images for Store {
    fn resolve<'a>(&'a self, reference: &'a str) -> Reply<'a, Option<ResolvedImage>> {
        let request = ResolveImageRequest {
            reference: reference.to_owned(),
            platform: None,
        };
        let mut client = self.images.clone();
        async move { found(client.resolve(request).await) }.boxed()
    }

    fn get<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Descriptor>> {
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let mut client = self.images.clone();
        async move { Ok(found(client.get(request).await)?.and_then(|image| image.target)) }.boxed()
    }

    fn put<'a>(&'a self, name: &'a str, target: Descriptor) -> Reply<'a, ()> {
        let request = PutImageRequest {
            name: name.to_owned(),
            target: Some(target),
            expected: None,
        };
        let mut client = self.images.clone();
        async move { Ok(client.put(request).await.map(|_| ())?) }.boxed()
    }
}

impl Leases for Store {
    fn put<'a>(&'a self, id: &'a str, ttl_seconds: u64) -> Reply<'a, ()> {
        let request = PutLeaseRequest {
            id: id.to_owned(),
            ttl_seconds,
            ..PutLeaseRequest::default()
        };
        let mut client = self.leases.clone();
        async move { Ok(client.put(request).await.map(|_| ())?) }.boxed()
    }

    fn add<'a>(&'a self, id: &'a str, resources: Vec<Resource>) -> Reply<'a, ()> {
        let request = AddResourcesRequest {
            lease: id.to_owned(),
            resources,
        };
        let mut client = self.leases.clone();
        async move { Ok(client.add(request).await.map(|_| ())?) }.boxed()
    }

    fn release<'a>(&'a self, id: &'a str, resources: Vec<Resource>) -> Reply<'a, ()> {
        let request = ReleaseResourcesRequest {
            lease: id.to_owned(),
            resources,
        };
        let mut client = self.leases.clone();
        async move { Ok(client.release(request).await.map(|_| ())?) }.boxed()
    }

    fn delete<'a>(&'a self, id: &'a str) -> Reply<'a, ()> {
        let request = DeleteLeaseRequest { id: id.to_owned() };
        let mut client = self.leases.clone();
        async move { Ok(client.delete(request).await.map(|_| ())?) }.boxed()
    }
}
