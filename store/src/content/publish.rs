//! Group commit. One thread takes all blobs that are ready at about the same time, makes their bytes
//! durable together, gives them their names, and makes the names durable with one more sync.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Known, Stamp};
use crate::metrics::METRICS;
use crate::{StoreError, files};

/// How long the first of a group waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// From this many files on, one sync of the file system costs less than one per file.
const SYNCFS_FILES: usize = 16;
const QUEUE: usize = 256;

/// The committing thread's front.
#[derive(Debug)]
pub(super) struct Publisher {
    queue: Mutex<SyncSender<Job>>,
}

/// From a temporary path to a blob's path.
type Move = (PathBuf, PathBuf);

struct Job {
    moves: Vec<Move>,
    done: SyncSender<Result<(), Arc<StoreError>>>,
}

impl Publisher {
    /// Starts the thread; it ends when the last handle is dropped. What it publishes was verified by
    /// who wrote it, and is known good from then on.
    pub(super) fn start(blobs: &Path, known: Arc<Known>) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("publish".to_owned())
            .spawn(move || work(&jobs, &known))
            .map_err(StoreError::io("start the committing thread for", blobs))?;
        Ok(Self {
            queue: Mutex::new(queue),
        })
    }

    /// Makes the files durable and gives them their names. A name that is taken is success: it has
    /// the same bytes.
    pub(super) fn publish(&self, moves: Vec<Move>) -> Result<(), StoreError> {
        let (done, result) = sync_channel(1);
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let gone =
            || StoreError::io("reach", "the committing thread")(std::io::Error::other("it ended"));
        queue.send(Job { moves, done }).map_err(|_| gone())?;
        match result.recv().map_err(|_| gone())? {
            Ok(()) => Ok(()),
            Err(shared) => Err(unshare(&shared)),
        }
    }
}

/// A failed sync fails every job of its group; each gets the same cause.
fn unshare(error: &StoreError) -> StoreError {
    match error {
        StoreError::Io {
            action,
            path,
            source,
        } => StoreError::Io {
            action,
            path: path.clone(),
            source: source.raw_os_error().map_or_else(
                || std::io::Error::new(source.kind(), source.to_string()),
                std::io::Error::from_raw_os_error,
            ),
        },
        other => StoreError::io("publish", "a blob")(std::io::Error::other(other.to_string())),
    }
}

fn work(jobs: &Receiver<Job>, known: &Known) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        let until = Instant::now() + GATHER;
        while let Ok(job) = jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            group.push(job);
        }
        let moves: Vec<&Move> = group.iter().flat_map(|job| &job.moves).collect();
        let result = timed(&moves, known).map_err(Arc::new);
        crate::failpoint::reach("content.publish.durable");
        for job in group {
            // Who does not wait any more needs no answer.
            job.done.send(result.clone()).ok();
        }
    }
}

fn timed(moves: &[&Move], known: &Known) -> Result<(), StoreError> {
    let began = Instant::now();
    let blobs = u32::try_from(moves.len()).unwrap_or(u32::MAX);
    let _span = tracing::debug_span!("commit", blobs).entered();
    commit(moves, known)?;
    METRICS.commit_blobs.observe(blobs.into());
    let seconds = began.elapsed().as_secs_f64();
    METRICS.commit_seconds.observe(seconds);
    Ok(())
}

fn commit(moves: &[&Move], known: &Known) -> Result<(), StoreError> {
    crate::failpoint::reach("content.publish.gathered");
    let stamps = sync_files(moves)?;
    crate::failpoint::reach("content.publish.synced");
    let mut directories = BTreeSet::new();
    for ((from, to), stamp) in moves.iter().zip(stamps) {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                count(to);
                known.insert(stamp);
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(StoreError::io("publish", to)(error)),
        }
        crate::failpoint::reach("content.publish.renamed");
        directories.extend(to.parent());
    }
    directories.into_iter().try_for_each(files::sync_directory)
}

fn count(blob: &Path) {
    METRICS.blobs_written.inc();
    let bytes = blob.symlink_metadata().map_or(0, |metadata| metadata.len());
    METRICS.blob_bytes_written.inc_by(bytes);
}

/// Modes and times are set first, so that the one sync covers them.
fn sync_files(moves: &[&Move]) -> Result<Vec<Stamp>, StoreError> {
    let mut stamps = Vec::with_capacity(moves.len());
    for (from, _) in moves {
        let file = finish(from)?;
        if moves.len() < SYNCFS_FILES {
            file.sync_all().map_err(StoreError::io("sync", from))?;
        } else if stamps.len() + 1 == moves.len() {
            rustix::fs::syncfs(file.as_fd()).map_err(StoreError::io("sync", from))?;
        }
        let metadata = file.metadata().map_err(StoreError::io("examine", from))?;
        stamps.push(Stamp::of(&metadata));
    }
    Ok(stamps)
}

fn finish(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    let now = std::time::SystemTime::now();
    file.set_permissions(PermissionsExt::from_mode(0o444))
        .and_then(|()| {
            file.set_times(
                std::fs::FileTimes::new()
                    .set_accessed(now)
                    .set_modified(now),
            )
        })
        .map_err(StoreError::io("finish", path))?;
    Ok(file)
}
