//! Group commit of small files. Who comes while others wait for the disk waits for the next group, and
//! a group is one pass: the bytes of all its files, then their names, then their directories.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{sync_directory, temporary_name};
use crate::StoreError;

/// From this many files on, one sync of the file system costs less than one per file.
const SYNCFS_FILES: usize = 16;

/// Makes changes of small files durable together; clones share the groups.
#[derive(Clone, Debug, Default)]
pub struct Group {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Job>,
    /// Somebody is at the disk for an earlier group.
    leading: bool,
}

/// What must be durable.
#[derive(Debug, Default)]
struct Job {
    /// Its bytes.
    file: Option<File>,
    /// A file in the making and the name that it gets.
    rename: Option<(PathBuf, PathBuf)>,
    /// The names in it.
    directory: Option<PathBuf>,
    result: Arc<Mutex<Option<Outcome>>>,
}

type Outcome = Result<(), StoreError>;

impl Group {
    /// Writes `directory/name` whole. When it returns the new content survives the loss of power;
    /// before, the old one does.
    pub fn replace(&self, directory: &Path, name: &str, content: &[u8]) -> Outcome {
        let draft = directory.join(temporary_name()?);
        let written = self.replace_by(&draft, directory, name, content);
        if written.is_err() {
            fs::remove_file(&draft).ok();
        }
        written
    }

    fn replace_by(&self, draft: &Path, directory: &Path, name: &str, content: &[u8]) -> Outcome {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(draft)
            .map_err(StoreError::io("create", draft))?;
        file.write_all(content)
            .map_err(StoreError::io("write", draft))?;
        self.commit(Job {
            file: Some(file),
            rename: Some((draft.to_owned(), directory.join(name))),
            directory: Some(directory.to_owned()),
            ..Job::default()
        })
    }

    /// Makes what was written to a file durable.
    pub fn sync(&self, file: File) -> Outcome {
        self.commit(Job {
            file: Some(file),
            ..Job::default()
        })
    }

    /// Removes a file durably. Whether there was one.
    pub fn remove(&self, directory: &Path, name: &str) -> Result<bool, StoreError> {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::io("remove", &path)(error)),
        }
        self.commit(Job {
            directory: Some(directory.to_owned()),
            ..Job::default()
        })?;
        Ok(true)
    }

    /// Waits until the job is done. The first of those who wait does the work of all of them.
    fn commit(&self, job: Job) -> Outcome {
        let result = job.result.clone();
        let mut state = lock(&self.queue.state);
        state.waiting.push(job);
        loop {
            if let Some(outcome) = lock(&result).take() {
                return outcome;
            }
            if state.leading {
                state = self
                    .queue
                    .done
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let group = std::mem::take(&mut state.waiting);
            drop(state);
            run(group);
            state = lock(&self.queue.state);
            state.leading = false;
            self.queue.done.notify_all();
        }
    }
}

/// Bytes, then names, then directories. What fails for one file fails its job alone.
fn run(group: Vec<Job>) {
    let mut outcomes = sync_files(&group);
    let mut directories = BTreeMap::new();
    for (job, outcome) in group.iter().zip(&mut outcomes) {
        if let (Ok(()), Some((from, to))) = (&outcome, &job.rename) {
            *outcome = fs::rename(from, to).map_err(StoreError::io("write", to));
        }
        if let (Ok(()), Some(directory)) = (&outcome, &job.directory) {
            let synced = directories
                .entry(directory.clone())
                .or_insert_with(|| sync_directory(directory));
            *outcome = share(synced);
        }
    }
    for (job, outcome) in group.into_iter().zip(outcomes) {
        *lock(&job.result) = Some(outcome);
    }
}

fn sync_files(group: &[Job]) -> Vec<Outcome> {
    let files: Vec<&File> = group.iter().filter_map(|job| job.file.as_ref()).collect();
    if let Some(first) = files.first().filter(|_| files.len() >= SYNCFS_FILES) {
        let synced =
            rustix::fs::syncfs(first.as_fd()).map_err(StoreError::io("sync", "the file system"));
        return group.iter().map(|_| share(&synced)).collect();
    }
    let sync = |file: &File| {
        file.sync_data()
            .map_err(StoreError::io("sync", "a small file"))
    };
    group
        .iter()
        .map(|job| job.file.as_ref().map_or(Ok(()), sync))
        .collect()
}

/// A failed sync fails every job that it was for, each with the same cause.
fn share(outcome: &Outcome) -> Outcome {
    match outcome {
        Err(StoreError::Io {
            action,
            path,
            source,
        }) => Err(StoreError::Io {
            action,
            path: path.clone(),
            source: source
                .raw_os_error()
                .map_or_else(|| source.kind().into(), std::io::Error::from_raw_os_error),
        }),
        Err(other) => Err(StoreError::io("sync", "a small file")(
            std::io::Error::other(other.to_string()),
        )),
        Ok(()) => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
