//! The conversation about the context: entries, then digests of what changed, then missing bytes.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use orlop_proto::builder::build_request::Message;
use orlop_proto::builder::build_response;
use orlop_proto::builder::{BuildStart, ContextFile, NeedDigests, NeedFiles};
use orlop_proto::descriptor::parse_digest;
use orlop_proto::error::Failure;
use orlop_proto::store::{Resource, resource};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{Memory, Tree};
use crate::error::{BuildError, Doing as _};
use crate::events::Sink;
use crate::ports::Ports;

/// What the client sends.
pub type Incoming = BoxStream<'static, Result<Message, Failure>>;

/// The contract's limit of a chunk, and of a blob that travels in a batch.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Small files are stored in batches of about this many bytes, each with one sync.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The conversation.
#[allow(missing_debug_implementations, reason = "a stream has nothing to show")]
pub struct Exchange {
    incoming: Incoming,
    events: Sink,
}

impl Exchange {
    /// Over what the client sends, and where answers go.
    pub fn new(incoming: Incoming, events: Sink) -> Self {
        Self { incoming, events }
    }

    async fn next(&mut self, expected: &'static str) -> Result<Message, BuildError> {
        match self.incoming.next().await {
            Some(Ok(message)) => Ok(message),
            Some(Err(source)) => {
                tracing::debug!(%source, "the client of a build went away");
                Err(BuildError::Cancelled)
            }
            None => Err(BuildError::Protocol(expected)),
        }
    }

    /// The first message.
    pub async fn start(&mut self) -> Result<BuildStart, BuildError> {
        match self.next("start").await? {
            Message::Start(start) => Ok(start),
            _ => Err(BuildError::Protocol("start")),
        }
    }

    /// All entries, each checked, and the digests of all files.
    pub async fn tree(&mut self, id: &str, memory: &Memory) -> Result<Tree, BuildError> {
        let mut tree = Tree::default();
        loop {
            let Message::Entries(entries) = self.next("entries").await? else {
                return Err(BuildError::Protocol("entries"));
            };
            entries
                .entries
                .into_iter()
                .try_for_each(|entry| tree.add(entry))?;
            if entries.last {
                break;
            }
        }
        let (recalling, context) = (memory.clone(), id.to_owned());
        let (mut tree, unknown) = blocking(move || {
            let unknown = recalling.recall(&context, &mut tree);
            (tree, unknown)
        })
        .await?;
        if !unknown.is_empty() {
            self.digests(&mut tree, unknown).await?;
            let (memory, id, copy) = (memory.clone(), id.to_owned(), tree.clone());
            blocking(move || memory.remember(&id, &copy)).await?;
        }
        Ok(tree)
    }

    async fn digests(&mut self, tree: &mut Tree, unknown: Vec<u32>) -> Result<(), BuildError> {
        const COUNT: BuildError = BuildError::Protocol("as many digests as asked for");
        let request = NeedDigests {
            indices: unknown.clone(),
        };
        self.events
            .send(build_response::Message::NeedDigests(request))
            .await;
        let mut places = unknown.into_iter();
        loop {
            let Message::Digests(digests) = self.next("digests").await? else {
                return Err(BuildError::Protocol("digests"));
            };
            for digest in digests.digests {
                parse_digest(&digest).map_err(|error| BuildError::Context(error.to_string()))?;
                if !digest.starts_with("sha256:") {
                    return Err(BuildError::Context("a digest is not sha256".to_owned()));
                }
                let place = places.next().ok_or(COUNT)?;
                tree.set_digest(place as usize, digest);
            }
            if digests.last {
                break;
            }
        }
        places.next().map_or(Ok(()), |_| Err(COUNT))
    }

    /// Gets the bytes of these files into the store, those that are missing there, and holds all.
    pub async fn files(
        &mut self,
        tree: &Tree,
        places: Vec<usize>,
        ports: &Ports,
        lease: &str,
    ) -> Result<(), BuildError> {
        let mut missing = HashSet::new();
        if !places.is_empty() {
            let digests: Vec<String> = places.iter().map(|p| tree.digest(*p).to_owned()).collect();
            let blob = |digest| Resource {
                resource: Some(resource::Resource::Blob(digest)),
            };
            let held = digests.iter().cloned().map(blob).collect();
            let doing = || "holding the context's files".to_owned();
            ports.leases.add(lease, held).await.doing(doing)?;
            let doing = || "asking for missing files".to_owned();
            missing.extend(ports.content.missing(digests).await.doing(doing)?);
        }
        // Files with the same bytes travel once.
        let wanted: Vec<usize> = places
            .into_iter()
            .filter(|place| missing.remove(tree.digest(*place)))
            .collect();
        if !wanted.is_empty() {
            let indices = wanted
                .iter()
                .map(|p| u32::try_from(*p).unwrap_or(u32::MAX))
                .collect();
            self.events
                .send(build_response::Message::NeedFiles(NeedFiles { indices }))
                .await;
            self.receive(tree, &wanted, ports, lease).await?;
        }
        self.events
            .send(build_response::Message::NeedFiles(NeedFiles::default()))
            .await;
        Ok(())
    }

    async fn receive(
        &mut self,
        tree: &Tree,
        wanted: &[usize],
        ports: &Ports,
        lease: &str,
    ) -> Result<(), BuildError> {
        let mut batch: Vec<(String, Bytes)> = Vec::new();
        let mut bytes = 0;
        for place in wanted.iter().copied() {
            let first = self.chunk(place).await?;
            if first.last {
                bytes += first.data.len();
                check(tree, place, &hex::encode(Sha256::digest(&first.data)))?;
                batch.push((tree.digest(place).to_owned(), first.data));
            } else {
                self.large(tree, place, first.data, ports, lease).await?;
            }
            if bytes >= BATCH_BYTES {
                bytes = 0;
                store(ports, std::mem::take(&mut batch), lease).await?;
            }
        }
        store(ports, batch, lease).await
    }

    async fn chunk(&mut self, place: usize) -> Result<ContextFile, BuildError> {
        match self.next("file").await? {
            Message::File(file)
                if file.index as usize == place && file.data.len() <= CHUNK_BYTES_MAX =>
            {
                Ok(file)
            }
            _ => Err(BuildError::Protocol(
                "the files asked for, in order, in chunks of 1 MiB at most",
            )),
        }
    }

    async fn large(
        &mut self,
        tree: &Tree,
        place: usize,
        first: Bytes,
        ports: &Ports,
        lease: &str,
    ) -> Result<(), BuildError> {
        let (sender, receiver) = mpsc::channel(8);
        let sending = async move {
            let mut hasher = Sha256::new();
            let (mut data, mut last) = (first, false);
            loop {
                hasher.update(&data);
                // A store that stopped listening says why itself; the client's bytes are still drained.
                sender.send(data).await.ok();
                if last {
                    break;
                }
                let chunk = self.chunk(place).await?;
                (data, last) = (chunk.data, chunk.last);
            }
            check(tree, place, &hex::encode(hasher.finalize()))
        };
        let storing = ports.content.write(tree.digest(place), receiver, lease);
        let (stored, sent) = tokio::join!(storing, sending);
        sent?;
        stored.doing(|| format!("storing {}", path(tree, place)))
    }
}

async fn store(ports: &Ports, batch: Vec<(String, Bytes)>, lease: &str) -> Result<(), BuildError> {
    if batch.is_empty() {
        return Ok(());
    }
    ports
        .content
        .put_many(batch, lease)
        .await
        .doing(|| "storing the context's files".to_owned())
}

fn path(tree: &Tree, place: usize) -> String {
    String::from_utf8_lossy(tree.path(place)).into_owned()
}

/// What came must be what the keys were made of.
fn check(tree: &Tree, place: usize, hex: &str) -> Result<(), BuildError> {
    match tree.digest(place).strip_prefix("sha256:") == Some(hex) {
        true => Ok(()),
        false => Err(BuildError::ContextChanged {
            path: path(tree, place),
        }),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| BuildError::Cancelled)
}
