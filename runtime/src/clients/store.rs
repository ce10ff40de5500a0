//! The store: images to run, snapshots to run on.

use futures_util::stream::{BoxStream, StreamExt as _};
use oci_spec::image::ImageManifest;
use orlop_proto::error::{Failure, reason};
use orlop_proto::store as wire;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::store::leases_client::LeasesClient;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::types::{Descriptor, Platform};
use orlop_shim::config::RootMount;
use orlop_wire::{Endpoint, MESSAGE_BYTES_MAX};
use tonic::transport::Channel;

use crate::error::{Error, Result};
use crate::spec::to_image::{Documents, Layer, digest};

/// The lease that holds the snapshots of this service's containers; it never expires.
const LEASE: &str = "runtime";
/// What keeps an image until it has its name, and for how many seconds.
const COMMIT_LEASE: &str = "runtime-commit";
const COMMIT_SECONDS: u64 = 3600;
/// The repository of images that were given no name: their digest is the rest of it.
const UNNAMED: &str = "localhost/commit";
/// The most that a manifest or a configuration may have, as in the store.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The media type of a manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A client of the store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    content: ContentClient<Channel>,
    images: ImagesClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
    leases: LeasesClient<Channel>,
}

/// An image that is to be run.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Digest of the manifest.
    pub(crate) manifest: String,
    /// Digest of the configuration.
    pub(crate) image_id: String,
    /// The configuration's bytes.
    pub(crate) config: bytes::Bytes,
    /// The manifest's bytes.
    pub(crate) manifest_json: bytes::Bytes,
}

/// One path that a snapshot changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Absolute.
    pub(crate) path: Vec<u8>,
    /// How.
    pub(crate) kind: ChangeKind,
}

/// How a path was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It was there and is different, or something below it is.
    Modified,
    /// It was not there.
    Added,
    /// It is not there any more.
    Deleted,
}

impl Store {
    /// A client; it connects at its first use.
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        let channel = orlop_wire::connect(endpoint);
        Self {
            content: ContentClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            images: ImagesClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            snapshots: SnapshotsClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            leases: LeasesClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// What a person typed, down to the configuration for a platform.
    pub(crate) async fn resolve(
        &self,
        reference: &str,
        platform: Option<Platform>,
    ) -> Result<Resolved> {
        let request = wire::ResolveImageRequest {
            reference: reference.to_owned(),
            platform,
        };
        let answer = self.images.clone().resolve(request).await;
        let image = answer.map_err(|status| {
            let mut failure = Failure::from(status);
            // The reason by which the command line knows that it should pull.
            if failure.kind == orlop_proto::error::Kind::NotFound && failure.reason.is_empty() {
                failure.reason = reason::IMAGE_NOT_FOUND.to_owned();
            }
            Error::Store(Box::new(failure))
        })?;
        let image = image.into_inner();
        Ok(Resolved {
            manifest: image.manifest.unwrap_or_default().digest,
            image_id: image.config.unwrap_or_default().digest,
            config: image.config_json,
            manifest_json: image.manifest_json,
        })
    }

    /// Makes an image's layers mountable and a writable snapshot over them.
    pub(crate) async fn prepare(&self, manifest: &str, key: &str) -> Result<RootMount> {
        match self.try_prepare(manifest, key).await {
            // The lease went away with the store's state, or was never made.
            Err(error) if is_missing_lease(&error) => {
                self.put_lease().await?;
                self.try_prepare(manifest, key).await
            }
            result => result,
        }
    }

    async fn try_prepare(&self, manifest: &str, key: &str) -> Result<RootMount> {
        let unpack = wire::UnpackRequest {
            digest: manifest.to_owned(),
            lease: LEASE.to_owned(),
        };
        let unpacked = self.snapshots.clone().unpack(unpack).await;
        let parent = unpacked.map_err(failed)?.into_inner().name;
        let request = wire::PrepareRequest {
            key: key.to_owned(),
            parent,
            lease: LEASE.to_owned(),
            labels: std::collections::HashMap::new(),
        };
        let mount = self.snapshots.clone().prepare(request).await;
        root(mount.map_err(failed)?.into_inner())
    }

    /// Makes the lease that holds everything of ours.
    pub(crate) async fn put_lease(&self) -> Result<()> {
        let request = wire::PutLeaseRequest {
            id: LEASE.to_owned(),
            ..wire::PutLeaseRequest::default()
        };
        let put = self.leases.clone().put(request).await;
        put.map(drop).map_err(failed)
    }

    /// How an existing snapshot is mounted.
    pub(crate) async fn mount(&self, key: &str) -> Result<RootMount> {
        let request = wire::GetMountRequest {
            key: key.to_owned(),
        };
        let mount = self.snapshots.clone().get_mount(request).await;
        root(mount.map_err(failed)?.into_inner())
    }

    /// The image that a manifest names, if both its documents are still here.
    pub(crate) async fn image(&self, manifest: &str) -> Result<Resolved> {
        let manifest_json = self.document(manifest).await?;
        let parsed: ImageManifest = serde_json::from_slice(&manifest_json)
            .map_err(|error| Error::Json(manifest.into(), error))?;
        let image_id = parsed.config().digest().to_string();
        Ok(Resolved {
            manifest: manifest.to_owned(),
            config: self.document(&image_id).await?,
            image_id,
            manifest_json,
        })
    }

    async fn document(&self, digest: &str) -> Result<bytes::Bytes> {
        let request = wire::ReadRequest {
            digest: digest.to_owned(),
            verify: true,
            ..wire::ReadRequest::default()
        };
        let chunks = self.content.clone().read(request).await;
        let mut chunks = chunks.map_err(failed)?.into_inner();
        let mut document = bytes::BytesMut::new();
        while let Some(chunk) = chunks.message().await.map_err(failed)? {
            document.extend_from_slice(&chunk.data);
            if document.len() > DOCUMENT_BYTES_MAX {
                let problem = format!("{digest} has more than {DOCUMENT_BYTES_MAX} bytes");
                return Err(Error::invalid("image document", problem));
            }
        }
        Ok(document.freeze())
    }

    /// Bytes of a snapshot's own changes.
    pub(crate) async fn usage(&self, key: &str) -> Result<u64> {
        let request = wire::UsageRequest {
            key: key.to_owned(),
        };
        let usage = self.snapshots.clone().usage(request).await;
        let bytes = usage.map_err(failed)?.into_inner().bytes;
        Ok(u64::try_from(bytes).unwrap_or_default())
    }

    /// The snapshot that another one is made over; empty: none.
    pub(crate) async fn parent(&self, key: &str) -> Result<String> {
        let request = wire::StatSnapshotRequest {
            key: key.to_owned(),
        };
        let found = self.snapshots.clone().stat(request).await;
        Ok(found.map_err(failed)?.into_inner().parent)
    }

    /// The snapshot's own changes, parents before children.
    pub(crate) async fn changes(&self, key: &str) -> Result<BoxStream<'static, Result<Change>>> {
        let request = wire::ChangesRequest {
            key: key.to_owned(),
        };
        let changes = self.snapshots.clone().changes(request).await;
        let changes = changes.map_err(failed)?.into_inner();
        let change = |change: wire::Change| Change {
            kind: match change.kind() {
                wire::ChangeKind::Added => ChangeKind::Added,
                wire::ChangeKind::Deleted => ChangeKind::Deleted,
                _ => ChangeKind::Modified,
            },
            path: change.path.into(),
        };
        Ok(changes
            .map(move |answer| answer.map(change).map_err(failed))
            .boxed())
    }

    /// The snapshot's whole tree as a tar.
    pub(crate) async fn export(
        &self,
        key: &str,
    ) -> Result<BoxStream<'static, Result<bytes::Bytes>>> {
        let request = wire::ExportSnapshotRequest {
            key: key.to_owned(),
        };
        let tar = self.snapshots.clone().export(request).await;
        let tar = tar.map_err(failed)?.into_inner();
        Ok(tar
            .map(|answer| answer.map(|chunk| chunk.data).map_err(failed))
            .boxed())
    }

    /// The snapshot's own changes as a layer blob, held until [`Self::put_image`] and for an hour.
    pub(crate) async fn layer(&self, key: &str) -> Result<Layer> {
        self.put_commit_lease().await?;
        let request = wire::DiffRequest {
            key: key.to_owned(),
            lease: COMMIT_LEASE.to_owned(),
            ..wire::DiffRequest::default()
        };
        let made = self.snapshots.clone().diff(request).await;
        let made = made.map_err(failed)?.into_inner();
        let descriptor = made.descriptor.unwrap_or_default();
        Ok(Layer {
            media_type: descriptor.media_type,
            digest: descriptor.digest,
            size: descriptor.size,
            diff_id: made.diff_id,
            empty: made.empty,
        })
    }

    /// Stores an image's documents, then its name; answers its id.
    pub(crate) async fn put_image(&self, documents: Documents, name: &str) -> Result<String> {
        let image_id = digest(&documents.config);
        let target = Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: digest(&documents.manifest),
            size: i64::try_from(documents.manifest.len()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        };
        let blob = |digest: &str, data: Vec<u8>| wire::PutManyRequest {
            digest: digest.to_owned(),
            data: data.into(),
            lease: COMMIT_LEASE.to_owned(),
        };
        let blobs = vec![
            blob(&image_id, documents.config),
            blob(&target.digest, documents.manifest),
        ];
        let blobs = futures_util::stream::iter(blobs);
        let put = self.content.clone().put_many(blobs).await;
        put.map_err(failed)?;
        let name = match name {
            "" => format!("{UNNAMED}@{}", target.digest),
            name => name.to_owned(),
        };
        let request = wire::PutImageRequest {
            name,
            target: Some(target),
            expected: None,
        };
        let put = self.images.clone().put(request).await;
        put.map(|_| image_id).map_err(failed)
    }

    /// Each commit puts off the end of the lease, which all share.
    async fn put_commit_lease(&self) -> Result<()> {
        let request = wire::PutLeaseRequest {
            id: COMMIT_LEASE.to_owned(),
            ttl_seconds: COMMIT_SECONDS,
            ..wire::PutLeaseRequest::default()
        };
        let put = self.leases.clone().put(request).await;
        put.map(drop).map_err(failed)
    }

    /// Removes a snapshot; one that is not there is success.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        let request = wire::RemoveSnapshotRequest {
            key: key.to_owned(),
        };
        let removed = self.snapshots.clone().remove(request).await;
        removed.map(drop).map_err(failed)
    }
}

fn failed(status: tonic::Status) -> Error {
    Error::Store(Box::new(Failure::from(status)))
}

/// The store says NOT_FOUND for a blob or a parent as well; trying once more is harmless then.
fn is_missing_lease(error: &Error) -> bool {
    matches!(error, Error::Store(failure) if failure.kind == orlop_proto::error::Kind::NotFound)
}

fn root(mount: wire::SnapshotMount) -> Result<RootMount> {
    if mount.upper.is_empty() || mount.work.is_empty() {
        return Err(Error::invalid(
            "snapshot",
            format!(
                "{} is read-only: a container needs an active one",
                mount.key
            ),
        ));
    }
    Ok(RootMount {
        lower: mount.lower.into_iter().map(Into::into).collect(),
        upper: mount.upper.into(),
        work: mount.work.into(),
    })
}
