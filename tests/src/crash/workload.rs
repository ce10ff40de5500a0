//! The load under which the store is killed: several workers at once, each with names of its own, that
//! write down every acknowledgement.

mod blobs;
mod collection;
mod images;
mod leases;
mod snapshots;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orlop_proto::store::{PutLeaseRequest, PutManyRequest, ReleaseResourcesRequest, Resource};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use super::chance::Chance;
use super::journal::{Facts, Journal, acknowledge, begin, refuse};
use super::material::{Blob, Shelf};
use super::process::Clients;
pub(super) use snapshots::real;

/// A worker that has heard nothing for so long after a crash will not.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// One of the workers.
#[derive(Debug)]
struct Worker {
    clients: Clients,
    journal: Journal,
    chance: Chance,
    shelf: Shelf,
    /// Its lease, and the beginning of all its names.
    name: String,
    /// The crash has begun: errors are to be expected.
    falling: Arc<AtomicBool>,
    dark: Arc<AtomicBool>,
}

/// Why a worker cannot go on.
#[derive(Debug)]
enum Stop {
    /// The store is gone.
    Crashed,
    /// The store said no.
    Refused(Status),
}

type Step<T = ()> = Result<T, Stop>;

/// A running load.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<()>,
    falling: Arc<AtomicBool>,
    dark: Arc<AtomicBool>,
}

impl Load {
    /// Sets all workers on a store.
    pub fn start(clients: &Clients, journal: &Journal, shelf: &Shelf, chance: &mut Chance) -> Self {
        let falling = Arc::new(AtomicBool::new(false));
        let dark = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        let mut worker = |name: &str| Worker {
            clients: clients.clone(),
            journal: journal.clone(),
            chance: chance.fork(),
            shelf: shelf.clone(),
            name: name.to_owned(),
            falling: falling.clone(),
            dark: dark.clone(),
        };
        for name in ["blobs-0", "blobs-1"] {
            workers.spawn(worker(name).blobs());
        }
        for name in ["images-0", "images-1"] {
            workers.spawn(worker(name).images());
        }
        for name in ["trees-0", "trees-1"] {
            workers.spawn(worker(name).snapshots());
        }
        workers.spawn(worker("leases-0").leases());
        workers.spawn(worker("reader").reads());
        workers.spawn(worker("collector").collects());
        Self {
            workers,
            falling,
            dark,
        }
    }

    /// From now on errors are no news.
    pub fn falls(&self) {
        self.falling.store(true, Ordering::SeqCst);
    }

    /// From now on there is no power: an answer that still comes is none. (A sync that waits while the
    /// journal is aborted may report success, because its transaction is gone: jbd2,
    /// `jbd2_complete_transaction`. Without power nobody would hear of it.)
    pub fn goes_dark(&self) {
        self.dark.store(true, Ordering::SeqCst);
    }

    /// Waits until every worker has noticed that the store is gone. A request that was sent into the
    /// very end of a connection may never be answered, not even with an error.
    pub async fn ends(mut self) {
        let all = async {
            while let Some(worker) = self.workers.join_next().await {
                worker.unwrap();
            }
        };
        if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
            self.workers.shutdown().await;
        }
    }
}

impl Worker {
    /// Sorts an answer: what the store itself says has details, what the transport says has none.
    fn sort<T>(&self, answer: Result<Response<T>, Status>) -> Step<T> {
        match answer {
            Ok(_) if self.dark.load(Ordering::SeqCst) => Err(Stop::Crashed),
            Ok(response) => Ok(response.into_inner()),
            Err(status) if status.details().is_empty() => Err(Stop::Crashed),
            Err(_) if self.falling.load(Ordering::SeqCst) => Err(Stop::Crashed),
            Err(status) => Err(Stop::Refused(status)),
        }
    }

    /// A request that changes something: what it may do is written down before, what it did after.
    async fn change<T>(
        &self,
        before: impl FnOnce(&mut Facts),
        request: impl Future<Output = Result<Response<T>, Status>>,
        done: impl FnOnce(&mut Facts, &T),
        undone: impl FnOnce(&mut Facts),
    ) -> Step<T> {
        before(&mut self.journal.facts());
        let answer = self.sort(request.await);
        let mut facts = self.journal.facts();
        match &answer {
            Ok(response) => {
                facts.acknowledged += 1;
                done(&mut facts, response);
            }
            Err(Stop::Refused(_)) => undone(&mut facts),
            Err(Stop::Crashed) => {}
        }
        answer
    }

    /// Whether the worker goes on after a step. A full disk is no fault; it empties with the collection.
    fn goes_on(&self, doing: &str, step: Step) -> bool {
        match step {
            Ok(()) => true,
            Err(Stop::Crashed) => false,
            Err(Stop::Refused(status)) => {
                if status.code() != Code::ResourceExhausted {
                    let text = format!("{} cannot {doing}: {status:?}", self.name);
                    self.journal.violate(text);
                }
                true
            }
        }
    }

    /// A name of the worker's that was never used.
    fn fresh(&mut self) -> String {
        let number = self.chance.number();
        format!("{}-{number:016x}", self.name)
    }

    fn held(&self) -> BTreeSet<String> {
        let facts = self.journal.facts();
        let register = facts.leases.get(&self.name);
        register
            .and_then(|register| register.get().cloned())
            .unwrap_or_default()
    }

    fn held_with(&self, more: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut held = self.held();
        held.extend(more);
        held
    }

    /// Makes the worker's own lease, if it is not there.
    async fn own_lease(&self) -> Step {
        let known = |facts: &Facts| {
            facts
                .leases
                .get(&self.name)
                .and_then(|lease| lease.get())
                .is_some()
        };
        if known(&self.journal.facts()) {
            return Ok(());
        }
        self.put_lease(&self.name, BTreeSet::new()).await
    }

    async fn put_lease(&self, id: &str, held: BTreeSet<String>) -> Step {
        let request = PutLeaseRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        self.change(
            |facts| begin(&mut facts.leases, id, Some(held.clone())),
            self.clients.leases.clone().put(request),
            |facts, _| acknowledge(&mut facts.leases, id, Some(held.clone())),
            |facts| refuse(&mut facts.leases, id),
        )
        .await
        .map(drop)
    }

    /// Blobs of at most 1 MiB, held by the worker's lease.
    async fn put_many(&self, blobs: &[Blob]) -> Step {
        let held = self.held_with(blobs.iter().map(|blob| blob.digest.clone()));
        let messages: Vec<_> = blobs
            .iter()
            .map(|blob| PutManyRequest {
                digest: blob.digest.clone(),
                data: blob.bytes.clone(),
                lease: self.name.clone(),
            })
            .collect();
        let key = |blob: &Blob| format!("{} {}", self.name, blob.digest);
        self.change(
            |facts| {
                begin(&mut facts.leases, &self.name, Some(held.clone()));
                for blob in blobs {
                    begin(&mut facts.blobs, &key(blob), Some(blob.bytes.len()));
                }
            },
            self.clients
                .content
                .clone()
                .put_many(tokio_stream::iter(messages)),
            |facts, _| {
                acknowledge(&mut facts.leases, &self.name, Some(held.clone()));
                for blob in blobs {
                    acknowledge(&mut facts.blobs, &key(blob), Some(blob.bytes.len()));
                }
            },
            |facts| {
                refuse(&mut facts.leases, &self.name);
                for blob in blobs {
                    refuse(&mut facts.blobs, &key(blob));
                }
            },
        )
        .await
        .map(drop)
    }

    /// Lets the worker's lease hold these no more; from the request on they are nobody's facts.
    async fn release(&self, resources: &[String]) -> Step {
        let mut held = self.held();
        for resource in resources {
            held.remove(resource);
        }
        let request = ReleaseResourcesRequest {
            lease: self.name.clone(),
            resources: resources.iter().map(|resource| held_as(resource)).collect(),
        };
        self.change(
            |facts| {
                begin(&mut facts.leases, &self.name, Some(held.clone()));
                for resource in resources {
                    facts.blobs.remove(&format!("{} {resource}", self.name));
                }
            },
            self.clients.leases.clone().release(request),
            |facts, _| acknowledge(&mut facts.leases, &self.name, Some(held.clone())),
            |facts| refuse(&mut facts.leases, &self.name),
        )
        .await
        .map(drop)
    }
}

/// A resource as a lease holds it: snapshots are marked, digests are blobs.
pub(super) fn held_as(resource: &str) -> Resource {
    use orlop_proto::store::resource::Resource as Kind;
    let kind = match resource.strip_prefix("snapshot ") {
        Some(key) => Kind::Snapshot(key.to_owned()),
        None => Kind::Blob(resource.to_owned()),
    };
    Resource {
        resource: Some(kind),
    }
}
