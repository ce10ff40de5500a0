//! What comes from the process, written by a thread: a reader that is slow to take our output must not
//! keep signals and input from the process.

use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::ui;

/// Chunks that may wait for the reader of our output.
const QUEUE: usize = 32;

#[derive(Clone, Copy, Debug)]
pub(super) enum Standard {
    Output,
    Error,
}

/// The writing thread.
#[derive(Debug)]
pub(super) struct Output {
    chunks: mpsc::Sender<(Standard, Bytes)>,
    writer: JoinHandle<Result<(), CliError>>,
}

impl Output {
    pub(super) fn start() -> Self {
        let (chunks, mut waiting) = mpsc::channel(QUEUE);
        let writer = std::thread::spawn(move || {
            while let Some((standard, data)) = waiting.blocking_recv() {
                let data: Bytes = data;
                match standard {
                    Standard::Output => ui::raw(&data)?,
                    Standard::Error => ui::raw_error(&data)?,
                }
            }
            Ok(())
        });
        Self { chunks, writer }
    }

    /// Hands a chunk to the thread, once there is room.
    pub(super) async fn write(&self, standard: Standard, data: Bytes) {
        drop(self.chunks.send((standard, data)).await);
    }

    /// Whether the thread gave up.
    pub(super) fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Waits until all is written.
    pub(super) fn finish(self) -> Result<(), CliError> {
        drop(self.chunks);
        self.writer.join().unwrap_or(Ok(()))
    }
}
