//! Gives the space of removed blobs back to the disk. For a large file that takes long: a thread does it,
//! so that whoever removes does not wait for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::StoreError;

/// What is smaller is freed at once, in less time than it takes to tell the thread.
const LARGE_BYTES: u64 = 1024 * 1024;
/// Files that may wait; who removes more than that waits too.
const QUEUE: usize = 256;

/// The thread's front. It ends with the last handle; what it has not freed goes at the next start.
#[derive(Debug)]
pub(super) struct Freeing {
    queue: SyncSender<PathBuf>,
}

impl Freeing {
    pub(super) fn start(directory: &Path) -> Result<Self, StoreError> {
        let (queue, files) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("free".to_owned())
            .spawn(move || free_all(&files))
            .map_err(StoreError::io("start the freeing thread for", directory))?;
        Ok(Self { queue })
    }

    /// Frees a file that has no name but this one.
    pub(super) fn free(&self, path: PathBuf, size: u64) {
        let left = match size {
            0..LARGE_BYTES => Some(path),
            _ => self.queue.send(path).err().map(|unsent| unsent.0),
        };
        if let Some(path) = left {
            free(&path);
        }
    }
}

fn free_all(files: &Receiver<PathBuf>) {
    for path in files {
        free(&path);
    }
}

fn free(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        let path = path.display();
        tracing::warn!(%path, %error, "a removed blob cannot be freed; it will be at the next start");
    }
}
