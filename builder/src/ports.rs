//! What the builder asks of the other services, as narrow traits: the adapters in [`crate::clients`]
//! put them on the wire, tests put something smaller behind them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use orlop_proto::error::Failure;
use orlop_proto::registry::PullRequest;
use orlop_proto::runtime::CreateRequest;
use orlop_proto::store::{FileOp, ResolvedImage, Resource};
use orlop_proto::types::{Descriptor, Progress};
use tokio::sync::mpsc;

/// The answer of another service.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// A layer of an image: what the store made of a snapshot's own changes.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: String,
    /// Bytes of the blob.
    pub size: i64,
    /// Digest of the plain tar.
    pub diff_id: String,
    /// The snapshot changed nothing.
    pub empty: bool,
}

/// Snapshots of the store.
pub trait Layers: Send + Sync {
    /// Makes an image's layers mountable; the name of its topmost snapshot, empty without layers.
    fn unpack<'a>(&'a self, manifest: &'a str, lease: &'a str) -> Reply<'a, String>;
    /// A new active snapshot over a committed one (empty: over nothing).
    fn prepare<'a>(&'a self, key: &'a str, parent: &'a str, lease: &'a str) -> Reply<'a, ()>;
    /// File operations on an active snapshot.
    fn apply<'a>(&'a self, key: &'a str, ops: Vec<FileOp>) -> Reply<'a, ()>;
    /// Makes an active snapshot a committed one.
    fn commit<'a>(&'a self, key: &'a str, name: &'a str, lease: &'a str) -> Reply<'a, ()>;
    /// Removes a snapshot.
    fn remove<'a>(&'a self, key: &'a str) -> Reply<'a, ()>;
    /// Whether a snapshot exists.
    fn exists<'a>(&'a self, name: &'a str) -> Reply<'a, bool>;
    /// The snapshot's changes as a layer blob.
    fn diff<'a>(&'a self, name: &'a str, lease: &'a str) -> Reply<'a, Layer>;
    /// Bytes of the snapshot's own changes.
    fn usage<'a>(&'a self, name: &'a str) -> Reply<'a, i64>;
}

/// Blobs of the store.
pub trait Content: Send + Sync {
    /// Which of these are not there.
    fn missing(&self, digests: Vec<String>) -> Reply<'_, Vec<String>>;
    /// Stores small blobs (at most 1 MiB each); each is verified by the store.
    fn put_many<'a>(&'a self, blobs: Vec<(String, Bytes)>, lease: &'a str) -> Reply<'a, ()>;
    /// Stores one blob that arrives in pieces and must have this digest.
    fn write<'a>(
        &'a self,
        digest: &'a str,
        data: mpsc::Receiver<Bytes>,
        lease: &'a str,
    ) -> Reply<'a, ()>;
    /// The first bytes of a blob.
    fn head<'a>(&'a self, digest: &'a str, length: i64) -> Reply<'a, Bytes>;
}

/// Names of the store.
pub trait Images: Send + Sync {
    /// The image for this host; `None` if it is not there.
    fn resolve<'a>(&'a self, reference: &'a str) -> Reply<'a, Option<ResolvedImage>>;
    /// What a name points at.
    fn get<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Descriptor>>;
    /// Points a name at a manifest.
    fn put<'a>(&'a self, name: &'a str, target: Descriptor) -> Reply<'a, ()>;
}

/// Leases of the store.
pub trait Leases: Send + Sync {
    /// Makes or extends a lease; 0 seconds: until it is deleted.
    fn put<'a>(&'a self, id: &'a str, ttl_seconds: u64) -> Reply<'a, ()>;
    /// Adds to a lease.
    fn add<'a>(&'a self, id: &'a str, resources: Vec<Resource>) -> Reply<'a, ()>;
    /// Takes out of a lease.
    fn release<'a>(&'a self, id: &'a str, resources: Vec<Resource>) -> Reply<'a, ()>;
    /// Ends a lease.
    fn delete<'a>(&'a self, id: &'a str) -> Reply<'a, ()>;
}

/// What a command does while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// It wrote to standard output (1) or standard error (2).
    Data(u32, Bytes),
    /// It ended.
    Exited(i32),
}

/// Commands of the runtime.
pub trait Exec: Send + Sync {
    /// Runs a process until it ends; dropping the stream kills it.
    fn run(
        &self,
        container: CreateRequest,
    ) -> Reply<'_, BoxStream<'static, Result<Output, Failure>>>;
}

/// Pulls of the registry.
pub trait Pull: Send + Sync {
    /// Pulls an image; the stream ends when it is there.
    fn pull(
        &self,
        request: PullRequest,
    ) -> Reply<'_, BoxStream<'static, Result<Progress, Failure>>>;
}

/// All of them.
#[derive(Clone)]
pub struct Ports {
    /// Snapshots.
    pub layers: Arc<dyn Layers>,
    /// Blobs.
    pub content: Arc<dyn Content>,
    /// Names.
    pub images: Arc<dyn Images>,
    /// Leases.
    pub leases: Arc<dyn Leases>,
    /// Commands.
    pub exec: Arc<dyn Exec>,
    /// Pulls.
    pub pull: Arc<dyn Pull>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}
