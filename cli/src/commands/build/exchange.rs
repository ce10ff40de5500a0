//! The client's side of a build: the list of the context, then digests and files as they are asked for.
//!
//! All of it blocks (files, hashing), so each piece runs on a thread of its own and sends from there.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use orlop_proto::builder::build_request::Message;
use orlop_proto::builder::{
    BuildRequest, BuildStart, ContextDigests, ContextEntries, ContextEntry, ContextFile,
};
use orlop_wire::CHUNK_BYTES;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::context::{failed, walk};
use super::source::Source;
use crate::error::CliError;

const QUEUE: usize = 16;
/// Entries a message: some hundred kilobytes.
const ENTRIES_PER_MESSAGE: usize = 2000;
const DIGESTS_PER_MESSAGE: usize = 10_000;
const HASH_THREADS_MAX: usize = 8;

/// The sending side of one build.
pub(super) struct Exchange {
    requests: mpsc::Sender<BuildRequest>,
    shared: Arc<Shared>,
}

struct Shared {
    root: Option<OwnedFd>,
    entries: std::sync::OnceLock<Vec<ContextEntry>>,
    /// The first thing that went wrong here.
    failure: Mutex<Option<CliError>>,
}

impl Exchange {
    /// Sends the start and begins with the list.
    pub(super) fn begin(start: BuildStart, source: Source) -> (Self, ReceiverStream<BuildRequest>) {
        let (requests, outgoing) = mpsc::channel(QUEUE);
        // The channel is empty, so the first message always fits.
        drop(requests.try_send(request(Message::Start(start))));
        let shared = Arc::new(Shared {
            root: source.root,
            entries: std::sync::OnceLock::new(),
            failure: Mutex::new(None),
        });
        let exchange = Self { requests, shared };
        let ignore = source.ignore;
        exchange.on_thread(move |shared, requests| {
            let entries = match &shared.root {
                Some(root) => walk(root, &ignore)?,
                None => Vec::new(),
            };
            // The builder asks by position only after it has the whole list.
            let entries = shared.entries.get_or_init(|| entries);
            send_entries(entries, requests);
            Ok(())
        });
        (exchange, ReceiverStream::new(outgoing))
    }

    /// Hashes files, several at once.
    pub(super) fn send_digests(&self, indices: Vec<u32>) {
        self.on_thread(move |shared, requests| {
            let digests = hash_all(shared, &indices)?;
            let mut chunks = digests.chunks(DIGESTS_PER_MESSAGE).peekable();
            while let Some(chunk) = chunks.next() {
                let message = Message::Digests(ContextDigests {
                    digests: chunk.to_vec(),
                    last: chunks.peek().is_none(),
                });
                if requests.blocking_send(request(message)).is_err() {
                    return Ok(());
                }
            }
            if digests.is_empty() {
                let nothing = Message::Digests(ContextDigests {
                    digests: Vec::new(),
                    last: true,
                });
                drop(requests.blocking_send(request(nothing)));
            }
            Ok(())
        });
    }

    /// Sends the bytes of files, one file after another.
    pub(super) fn send_files(&self, indices: Vec<u32>) {
        if indices.is_empty() {
            return;
        }
        self.on_thread(move |shared, requests| {
            indices
                .iter()
                .try_for_each(|index| send_file(shared, *index, requests))
        });
    }

    /// The error of a thread, if there was one.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let failure = self.shared.failure.lock();
        match failure.ok().and_then(|mut failure| failure.take()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// On failure the builder is told nothing more: it ends when the stream does.
    fn on_thread(
        &self,
        work: impl FnOnce(&Shared, &mpsc::Sender<BuildRequest>) -> Result<(), CliError> + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        let requests = self.requests.clone();
        std::thread::spawn(move || {
            if let Err(error) = work(&shared, &requests) {
                if let Ok(mut failure) = shared.failure.lock() {
                    failure.get_or_insert(error);
                }
                // An entry that cannot be makes the builder answer, so that the failure is seen.
                let broken = Message::Entries(ContextEntries {
                    entries: vec![ContextEntry::default()],
                    last: true,
                });
                drop(requests.blocking_send(request(broken)));
            }
        });
    }
}

fn request(message: Message) -> BuildRequest {
    BuildRequest {
        message: Some(message),
    }
}

fn send_entries(entries: &[ContextEntry], requests: &mpsc::Sender<BuildRequest>) {
    let mut chunks = entries.chunks(ENTRIES_PER_MESSAGE);
    loop {
        let chunk = chunks.next().unwrap_or_default();
        let last = chunks.len() == 0;
        let message = Message::Entries(ContextEntries {
            entries: chunk.to_vec(),
            last,
        });
        if requests.blocking_send(request(message)).is_err() || last {
            return;
        }
    }
}

impl Shared {
    /// Opens a file of the list, resolved beneath the context without following any link.
    fn open(&self, index: u32) -> Result<(File, &[u8]), CliError> {
        let entries = self.entries.get().map(Vec::as_slice).unwrap_or_default();
        let entry = usize::try_from(index)
            .ok()
            .and_then(|index| entries.get(index));
        let (Some(entry), Some(root)) = (entry, &self.root) else {
            return Err(CliError::Contract {
                service: "builder",
                what: "a question about a file that is not in the context",
            });
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(root, &entry.path[..], flags, Mode::empty(), resolve);
        let opened = File::from(opened.map_err(|error| failed(&entry.path, error))?);
        let regular = opened.metadata().map(|meta| meta.is_file());
        if !regular.map_err(|error| failed(&entry.path, error))? {
            return Err(failed(&entry.path, "is no longer a regular file"));
        }
        Ok((opened, &entry.path))
    }
}

fn hash_all(shared: &Shared, indices: &[u32]) -> Result<Vec<String>, CliError> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(HASH_THREADS_MAX).min(indices.len());
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(index) = indices.get(at) else {
                return Ok(done);
            };
            done.push((at, hash(shared, *index)?));
        }
    };
    let mut hashed: Vec<(usize, String)> = Vec::with_capacity(indices.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let done: Result<Vec<_>, CliError> = worker
                .join()
                .unwrap_or_else(|_| Err(CliError::Context("hashing failed".to_owned())));
            hashed.extend(done?);
        }
        Ok::<(), CliError>(())
    })?;
    hashed.sort_unstable();
    Ok(hashed.into_iter().map(|(_, digest)| digest).collect())
}

fn hash(shared: &Shared, index: u32) -> Result<String, CliError> {
    let (mut opened, path) = shared.open(index)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = opened
            .read(&mut buffer)
            .map_err(|error| failed(path, error))?;
        if count == 0 {
            return Ok(format!("sha256:{}", hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..count]);
    }
}

fn send_file(
    shared: &Shared,
    index: u32,
    requests: &mpsc::Sender<BuildRequest>,
) -> Result<(), CliError> {
    let (mut opened, path) = shared.open(index)?;
    let chunk = |data: Bytes, last| {
        let file = ContextFile { index, data, last };
        requests.blocking_send(request(Message::File(file))).is_ok()
    };
    loop {
        let mut buffer = vec![0; CHUNK_BYTES];
        let count = opened
            .read(&mut buffer)
            .map_err(|error| failed(path, error))?;
        buffer.truncate(count);
        let sent = chunk(buffer.into(), count == 0);
        // A closed channel is a build that is over.
        if count == 0 || !sent {
            return Ok(());
        }
    }
}
