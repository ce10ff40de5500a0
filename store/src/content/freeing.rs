//! Gives the space of removed blobs back to the disk. Unlinking waits for the journal of the file system,
//! for a large file long: a thread does it, so that whoever removes does not wait for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::StoreError;

/// Files that may wait; who removes more than that waits too.
const QUEUE: usize = 4096;

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
    pub(super) fn free(&self, path: PathBuf) {
        if let Err(unsent) = self.queue.send(path) {
            free(&unsent.0);
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
