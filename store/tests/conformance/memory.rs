//! A second implementation of the store's contract: everything in maps under one lock, and nothing
//! else. It exists to prove the suite: a case that passes here and not against the real store, or the
//! other way round, says something of one of the two, and not of their common code.
//!
//! What it shares with the real one is vocabulary without any state: references, digests, patterns
//! and the parser of manifests. It keeps no file, so it locates and mounts nothing.

mod archives;
mod content;
mod documents;
mod images;
mod leases;
mod maintenance;
mod operations;
mod snapshots;
mod tars;
mod tree;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use orlop_proto::error::{Classify, Kind, to_status};
use orlop_proto::store as pb;
use orlop_wire::MESSAGE_BYTES_MAX;
use prost_types::Timestamp;
use tokio_stream::Iter;
use tonic::service::Routes;
use tonic::{Response, Status};

/// The store.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

/// All that it knows.
pub(crate) struct State {
    blobs: BTreeMap<String, content::Blob>,
    ingests: BTreeMap<String, content::Ingest>,
    images: BTreeMap<String, images::Named>,
    watchers: tokio::sync::broadcast::Sender<pb::ImageEvent>,
    snapshots: BTreeMap<String, snapshots::Snapshot>,
    leases: BTreeMap<String, leases::Held>,
    /// Of the last node that was made; see [`tree::Node`].
    serial: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            blobs: BTreeMap::new(),
            ingests: BTreeMap::new(),
            images: BTreeMap::new(),
            watchers: tokio::sync::broadcast::Sender::new(1024),
            snapshots: BTreeMap::new(),
            leases: BTreeMap::new(),
            serial: 0,
        }
    }
}

macro_rules! bounded {
    ($server:ident, $memory:expr) => {
        $server::new($memory.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}

impl Memory {
    pub(crate) fn routes(&self) -> Routes {
        use pb::archives_server::ArchivesServer;
        use pb::content_server::ContentServer;
        use pb::images_server::ImagesServer;
        use pb::leases_server::LeasesServer;
        use pb::maintenance_server::MaintenanceServer;
        use pb::snapshots_server::SnapshotsServer;
        Routes::new(bounded!(ContentServer, self))
            .add_service(bounded!(ImagesServer, self))
            .add_service(bounded!(SnapshotsServer, self))
            .add_service(bounded!(LeasesServer, self))
            .add_service(bounded!(ArchivesServer, self))
            .add_service(bounded!(MaintenanceServer, self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an rpc answers.
type Answer<T> = Result<Response<T>, Status>;
/// What an rpc answers that streams.
type Answers<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;

fn answer<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn answers<T>(values: impl IntoIterator<Item = T>) -> Answer<Answers<T>> {
    let values: Vec<_> = values.into_iter().map(Ok).collect();
    answer(tokio_stream::iter(values))
}

/// An error of one kind.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Refusal {
    kind: Kind,
    reason: Option<&'static str>,
    message: String,
}

impl Classify for Refusal {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn reason(&self) -> Option<&'static str> {
        self.reason
    }
}

fn refuse(kind: Kind, message: impl Into<String>) -> Status {
    refuse_for(kind, None, message)
}

fn refuse_for(
    kind: Kind,
    reason: impl Into<Option<&'static str>>,
    message: impl Into<String>,
) -> Status {
    to_status(&Refusal {
        kind,
        reason: reason.into(),
        message: message.into(),
    })
}

/// The most common one.
fn invalid(message: impl Into<String>) -> Status {
    refuse(Kind::InvalidArgument, message)
}

fn missing(what: &str, name: &str) -> Status {
    refuse(Kind::NotFound, format!("no such {what}: {name}"))
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Ids of ingests and leases, keys of snapshots.
fn check_id(id: &str) -> Result<(), Status> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let first = id.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && id.len() <= 128 && id.chars().all(allowed) {
        return Ok(());
    }
    Err(invalid(format!("malformed id {id:?}")))
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
