//! What the registry asks of the store, as narrow traits: the gRPC adapters are in [`crate::clients`],
//! an in-memory one is in the tests.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use orlop_proto::error::Failure;
use orlop_proto::types::Descriptor;
use tokio::sync::mpsc;

/// An answer of the store.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Failure>>;
/// The bytes of a blob, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes, Failure>>;

/// Where a writer of an ingest begins.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// The ingest.
    pub id: String,
    /// Its durable offset.
    pub offset: u64,
    /// Drop what an earlier writer left.
    pub truncate: bool,
    /// The lease that holds the blob from its commit on; empty for none.
    pub lease: String,
    /// The digest of the plain tar of a layer, which the store may unpack while it is written; empty
    /// where that is not known.
    pub diff_id: String,
}

/// One message of a writer.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes, at most [`orlop_wire::CHUNK_BYTES`].
    Data(Bytes),
    /// The last message: verify and publish. Without it the bytes stay, to be resumed.
    Commit {
        /// What the bytes must hash to.
        digest: String,
        /// How many they must be; 0 when that is not known.
        size: u64,
    },
}

/// Blobs.
pub trait Content: Send + Sync {
    /// The size of a blob; `None` when it is not there.
    fn size<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<u64>>;
    /// Which of these are not there.
    fn find_missing(&self, digests: Vec<String>) -> Answer<'_, Vec<String>>;
    /// The bytes from `offset` on: `length` of them, or (0) all the rest.
    fn read<'a>(&'a self, digest: &'a str, offset: u64, length: u64) -> Answer<'a, ByteStream>;
    /// The blob's file and its size; `None` when the store is on another host.
    fn locate<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<(PathBuf, u64)>>;
    /// The durable offset of an ingest; `None` when there is no such ingest.
    fn ingest_offset<'a>(&'a self, id: &'a str) -> Answer<'a, Option<u64>>;
    /// Writes until the pieces end; returns the durable offset.
    fn write(&self, open: Open, pieces: mpsc::Receiver<Piece>) -> Answer<'_, u64>;
    /// Forgets an ingest; an unknown one is success.
    fn abort<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Stores small blobs (at most 4 MiB each), held by a lease.
    fn put<'a>(&'a self, blobs: Vec<(String, Bytes)>, lease: &'a str) -> Answer<'a, ()>;
}

/// Names.
pub trait Images: Send + Sync {
    /// What a name points at.
    fn get<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Descriptor>>;
    /// Points a name at a descriptor.
    fn put<'a>(&'a self, name: &'a str, target: Descriptor) -> Answer<'a, ()>;
}

/// What the collector must not touch.
pub trait Leases: Send + Sync {
    /// Makes or extends a lease; 0 seconds: until it is deleted.
    fn put<'a>(&'a self, id: &'a str, ttl_seconds: u64) -> Answer<'a, ()>;
    /// Adds blobs.
    fn add<'a>(&'a self, id: &'a str, digests: Vec<String>) -> Answer<'a, ()>;
    /// Takes blobs out.
    fn release<'a>(&'a self, id: &'a str, digests: Vec<String>) -> Answer<'a, ()>;
    /// Ends a lease; an unknown one is success.
    fn delete<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
}

/// File trees.
pub trait Snapshots: Send + Sync {
    /// Makes the layers of a manifest mountable.
    fn unpack<'a>(&'a self, digest: &'a str, lease: &'a str) -> Answer<'a, ()>;
}

/// The whole store, as the parts of this service share it.
#[derive(Clone)]
pub struct Store {
    /// Blobs.
    pub content: std::sync::Arc<dyn Content>,
    /// Names.
    pub images: std::sync::Arc<dyn Images>,
    /// Leases.
    pub leases: std::sync::Arc<dyn Leases>,
    /// File trees.
    pub snapshots: std::sync::Arc<dyn Snapshots>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// All bytes of a small blob, and never more than `most`.
    pub async fn read_small(&self, digest: &str, most: usize) -> crate::Result<Bytes> {
        use futures_util::StreamExt as _;
        let mut stream = self.content.read(digest, 0, 0).await?;
        let mut all = bytes::BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if all.len() + chunk.len() > most {
                return Err(crate::Error::TooLarge {
                    what: format!("blob {digest}"),
                    most,
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}
