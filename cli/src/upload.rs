//! A file as a stream of request messages, read by a thread of its own.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::mpsc as errors;

use bytes::Bytes;
use orlop_wire::CHUNK_BYTES;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::{CliError, system};

/// Chunks that may wait for the service.
const QUEUE: usize = 4;

/// Tells whether reading failed, which ends the stream early: the service then sees a file that is
/// cut off, and says something that would mislead.
#[derive(Debug)]
pub(crate) struct ReadFailure(errors::Receiver<io::Error>);

impl ReadFailure {
    /// The error of reading, if there was one.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        self.0
            .try_recv()
            .map_or(Ok(()), |error| Err(system("read the archive")(error)))
    }
}

/// Streams a file, after a first message if there is one.
pub(crate) fn stream<M: Send + 'static>(
    mut source: File,
    first: Option<M>,
    wrap: impl Fn(Bytes) -> M + Send + 'static,
) -> (ReceiverStream<M>, ReadFailure) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (failed, failure) = errors::channel();
    std::thread::spawn(move || {
        if first.is_some_and(|first| sender.blocking_send(first).is_err()) {
            return;
        }
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            match source.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    if sender.blocking_send(wrap(chunk.into())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    drop(failed.send(error));
                    return;
                }
            }
        }
    });
    (ReceiverStream::new(receiver), ReadFailure(failure))
}
