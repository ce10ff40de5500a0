//! Layers that are unpacked while their bytes arrive. A thread of its own reads the file that the writer
//! appends to, at its own pace: the writer never waits for it, and no byte is kept in memory for it.
//!
//! An arrival is a hint. Whatever goes wrong with it is logged for the curious, and said properly by
//! [`Snapshots::unpack`], which then finds no layer and unpacks the blob.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use orlop_proto::descriptor::parse_digest;

use crate::error::{Result, StoreError};
use crate::snapshots::parts::{Part, Source};
use crate::snapshots::{Snapshots, files, layer_turn};

/// A layer under way. Dropped before [`Arrival::finish`] it leaves nothing.
#[derive(Debug)]
pub struct Arrival {
    snapshots: Snapshots,
    diff_id: String,
    written: Arc<Written>,
    thread: Option<JoinHandle<Result<Part>>>,
}

impl Snapshots {
    /// Starts to unpack the layer with this diff id from a file of which the first `written` bytes are
    /// there. `None` when that is of no use: no such diff id can be, it is here or under way, or all
    /// cores have one.
    pub fn arrive(&self, diff_id: &str, file: File, written: u64) -> Option<Arrival> {
        parse_digest(diff_id).ok()?;
        if self.inner.shelf.has(diff_id) || !self.inner.arrivals.begin(diff_id) {
            return None;
        }
        // From here on its drop ends what began.
        let mut arrival = Arrival {
            snapshots: self.clone(),
            diff_id: diff_id.to_owned(),
            written: Arc::new(Written::new(written)),
            thread: None,
        };
        let follower = Follower {
            file,
            at: 0,
            written: Arc::clone(&arrival.written),
        };
        let (snapshots, diff_id) = (self.clone(), diff_id.to_owned());
        let thread = std::thread::Builder::new().name("arrival".to_owned());
        let work = move || {
            crate::failpoint::reach("snapshot.arrive.begun");
            snapshots.unpack_stream(follower, "that arrives", &diff_id)
        };
        arrival.thread = Some(thread.spawn(work).ok()?);
        Some(arrival)
    }

    /// Gives an unpacked layer its name, its tree durable before. Nobody waits for the disk in the turn.
    /// A layer that takes attributes from those below has to wait for them.
    fn shelve(&self, part: Part, diff_id: &str) -> Result<()> {
        let inner = &self.inner;
        if part.is_implicit()? {
            return part.draft.discard(&inner.trash);
        }
        let Source::New(draft, made) = self.finish_part(part, diff_id, &[])? else {
            return Ok(());
        };
        crate::failpoint::reach("snapshot.arrive.made");
        if let Err(error) = draft.sync(&made) {
            draft.discard(&inner.trash)?;
            return Err(error);
        }
        crate::failpoint::reach("snapshot.arrive.synced");
        let id = diff_id.replace(':', "-");
        let _turn = inner.turns.take(vec![layer_turn(&id)]);
        if inner.shelf.has(diff_id) {
            return draft.discard(&inner.trash);
        }
        inner.shelf.publish(draft, &id)?;
        crate::failpoint::reach("snapshot.arrive.published");
        files::sync_directory(inner.shelf.directory())?;
        crate::failpoint::reach("snapshot.arrive.shelved");
        Ok(())
    }
}

impl Arrival {
    /// The file has so many bytes now.
    pub fn reach(&self, bytes: u64) {
        self.written.set(bytes, Writer::Writes);
    }

    /// The file has all its bytes. The unpacking comes to its end meanwhile.
    pub fn end(&self) {
        self.written.end(Writer::Done);
    }

    /// Puts the layer on the shelf, durably: its blob is published.
    pub fn finish(mut self) {
        self.end();
        let shelved = self
            .join()
            .and_then(|part| self.snapshots.shelve(part, &self.diff_id));
        if let Err(error) = shelved {
            tracing::debug!(diff_id = self.diff_id, %error, "a layer was not unpacked on its way");
        }
    }

    fn join(&mut self) -> Result<Part> {
        let part = self.thread.take().map(JoinHandle::join);
        part.and_then(std::result::Result::ok).unwrap_or_else(|| {
            Err(StoreError::TarRead {
                what: "a layer on its way",
                source: io::Error::other("the unpacking thread stopped"),
            })
        })
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.written.end(Writer::Gone);
        if self.thread.is_some()
            && let Ok(part) = self.join()
            && let Err(error) = part.draft.discard(&self.snapshots.inner.trash)
        {
            tracing::warn!(diff_id = self.diff_id, %error, "a half-made layer stays until the next start");
        }
        self.snapshots.inner.arrivals.end(&self.diff_id);
    }
}

/// How far the file is written, told by its writer to its reader.
#[derive(Debug)]
struct Written {
    state: Mutex<(u64, Writer)>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Writes,
    Done,
    Gone,
}

impl Written {
    fn new(bytes: u64) -> Self {
        Self {
            state: Mutex::new((bytes, Writer::Writes)),
            changed: Condvar::new(),
        }
    }

    fn set(&self, bytes: u64, writer: Writer) {
        *self.lock() = (bytes, writer);
        self.changed.notify_all();
    }

    fn end(&self, writer: Writer) {
        self.lock().1 = writer;
        self.changed.notify_all();
    }

    /// Waits for bytes after the first `at`; gives their end, which is `at` at the end of the file.
    fn beyond(&self, at: u64) -> io::Result<u64> {
        let waits = |(bytes, writer): &mut (u64, Writer)| *writer == Writer::Writes && *bytes <= at;
        let state = self
            .changed
            .wait_while(self.lock(), waits)
            .unwrap_or_else(PoisonError::into_inner);
        match *state {
            (_, Writer::Gone) => Err(io::Error::other("its writer left")),
            (bytes, _) => Ok(bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Writer)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file while it is written.
#[derive(Debug)]
struct Follower {
    file: File,
    at: u64,
    written: Arc<Written>,
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.written.beyond(self.at)?.saturating_sub(self.at);
        let most = usize::try_from(there).map_or(buffer.len(), |there| there.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The diff ids that are under way.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashSet<String>>);

impl Arrivals {
    fn begin(&self, diff_id: &str) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut under_way = self.lock();
        under_way.len() < cores && under_way.insert(diff_id.to_owned())
    }

    fn end(&self, diff_id: &str) {
        self.lock().remove(diff_id);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
