//! The store: images to run, snapshots to run on.

use orlop_proto::error::{Failure, reason};
use orlop_proto::store as wire;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::store::leases_client::LeasesClient;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::types::Platform;
use orlop_shim::config::RootMount;
use orlop_wire::{Endpoint, MESSAGE_BYTES_MAX};
use tonic::transport::Channel;

use crate::error::{Error, Result};

/// The lease that holds the snapshots of this service's containers; it never expires.
const LEASE: &str = "runtime";

/// A client of the store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
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
}

impl Store {
    /// A client; it connects at its first use.
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        let channel = orlop_wire::connect(endpoint);
        Self {
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

    /// Bytes of a snapshot's own changes.
    pub(crate) async fn usage(&self, key: &str) -> Result<u64> {
        let request = wire::UsageRequest {
            key: key.to_owned(),
        };
        let usage = self.snapshots.clone().usage(request).await;
        let bytes = usage.map_err(failed)?.into_inner().bytes;
        Ok(u64::try_from(bytes).unwrap_or_default())
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
