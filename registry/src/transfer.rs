//! Transfer: images between the store and any registry.
//!
//! Pull: resolve, ask the store what is missing, fetch the configuration, and then the layers in parallel,
//! which the store unpacks on their way by the diff ids in it; store the manifests, unpack what is left, and
//! set the name last. Push: ask the remote what it has, mount what it has elsewhere, send the
//! rest in parallel, and the manifest last. Either, broken off anywhere, goes on where it stood when it
//! is asked for again: what arrived stays in the store as an ingest named by its digest.

mod fetch;
mod flights;
mod known;
mod lease;
mod plan;
mod progress;
mod pull;
mod push;
mod upload;

use std::sync::Arc;

use orlop_proto::reference::Reference;
use orlop_proto::types::{Credential, Descriptor, Platform};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::index::Index;
use crate::ports::Store;
use crate::remote::{Remotes, Wanted, canonical};
use crate::{Error, Result};
use flights::Flights;
use known::Known;
pub use progress::{Event, Progress};

/// Blobs under way at once for one image: enough to fill a link, few enough for registries that
/// count connections.
const BLOBS_AT_ONCE: usize = 6;
/// The same for all images together; the rest wait. Each blob under way has a few MiB of buffers, from here to
/// the store's connection.
const BLOBS_AT_ONCE_IN_ALL: usize = 16;

/// Pulls and pushes.
#[derive(Debug)]
pub struct Transfer {
    store: Store,
    remotes: Remotes,
    known: Known,
    flights: Flights,
    turns: Semaphore,
}

/// What to pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The image.
    pub reference: Reference,
    /// Which of an index; empty fields are this host's.
    pub platform: Option<Platform>,
    /// Who asks.
    pub credential: Option<Credential>,
    /// Unverified TLS and plain HTTP are allowed.
    pub insecure: bool,
}

/// What to push.
#[derive(Clone, Debug)]
pub struct Push {
    /// The image.
    pub reference: Reference,
    /// Who asks.
    pub credential: Option<Credential>,
    /// Unverified TLS and plain HTTP are allowed.
    pub insecure: bool,
}

/// What a transfer came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The image's name.
    pub name: String,
    /// What the name points at.
    pub target: Descriptor,
    /// What was done with the blobs.
    pub tally: Tally,
    /// Pull: the name pointed there before.
    pub up_to_date: bool,
}

/// Blobs by what was done with them, and their bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent or fetched.
    pub transferred: u32,
    /// There already.
    pub existed: u32,
    /// Taken from another repository of the remote.
    pub mounted: u32,
    /// Bytes that travelled.
    pub bytes: u64,
}

impl Tally {
    fn existed() -> Self {
        Self {
            existed: 1,
            ..Self::default()
        }
    }

    fn mounted() -> Self {
        Self {
            mounted: 1,
            ..Self::default()
        }
    }

    fn transferred(bytes: u64) -> Self {
        Self {
            transferred: 1,
            bytes,
            ..Self::default()
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.transferred += other.transferred;
        self.existed += other.existed;
        self.mounted += other.mounted;
        self.bytes += other.bytes;
        self
    }
}

impl Transfer {
    /// Transfers for one store. What is learnt of other registries is remembered in the index.
    pub fn new(store: Store, index: Arc<Index>) -> Self {
        Self {
            store,
            remotes: Remotes::default(),
            known: Known::new(index),
            flights: Flights::default(),
            turns: Semaphore::new(BLOBS_AT_ONCE_IN_ALL),
        }
    }

    /// Waits until one more blob may be under way. The semaphore is never closed.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Tries a credential; returns the token to be kept instead of the password, or nothing.
    pub async fn login(&self, credential: Credential, insecure: bool) -> Result<String> {
        let host = canonical(&credential.registry).to_owned();
        if host.is_empty() {
            return Err(Error::Request(
                "the credential names no registry".to_owned(),
            ));
        }
        let wanted = Wanted {
            host,
            credential: Some(credential),
            insecure,
            ..Wanted::default()
        };
        let remote = self.remotes.connect(wanted).await?;
        Ok(remote.identity_token().await)
    }
}
