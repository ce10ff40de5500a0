//! Between streams of the wire and threads that block.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use orlop_wire::CHUNK_BYTES;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::status;
use crate::StoreError;

/// Messages between a thread and its stream.
const IN_FLIGHT: usize = 4;

/// What an rpc answers that streams.
pub(super) type Outgoing<T> = ReceiverStream<Result<T, Status>>;

/// Runs `work` on a thread; what it sends is the answer, and its error the end of it.
pub(super) fn outgoing<T: Send + 'static>(
    work: impl FnOnce(&Sender<Result<T, Status>>) -> Result<(), StoreError> + Send + 'static,
) -> Outgoing<T> {
    let (sender, receiver) = channel(IN_FLIGHT);
    let rpc = tracing::Span::current();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = rpc.in_scope(|| work(&sender)) {
            // A client that is gone does not learn why.
            sender.blocking_send(Err(status(&error))).ok();
        }
    });
    ReceiverStream::new(receiver)
}

/// A stream of values that are there already.
pub(super) fn of_values<T: Send + 'static>(values: Vec<T>) -> Outgoing<T> {
    outgoing(move |sender| values.into_iter().try_for_each(|value| send(sender, value)))
}

/// Sends one message from a thread.
pub(super) fn send<T>(sender: &Sender<Result<T, Status>>, value: T) -> Result<(), StoreError> {
    sender
        .blocking_send(Ok(value))
        .map_err(|_| StoreError::ClientGone)
}

/// Moves a client's messages to a channel, for a thread to take them. Ends with the stream; an error
/// of the transport is the last thing in the channel.
pub(super) fn incoming<M: Send + 'static>(mut stream: Streaming<M>) -> Receiver<Result<M, Status>> {
    let (sender, receiver) = channel(IN_FLIGHT);
    tokio::spawn(async move {
        while let Some(message) = stream.message().await.transpose() {
            let last = message.is_err();
            if sender.send(message).await.is_err() || last {
                break;
            }
        }
    });
    receiver
}

/// A client's stream of bytes, for a thread to read.
pub(super) struct IncomingBytes<M> {
    messages: Receiver<Result<M, Status>>,
    bytes_of: fn(M) -> Option<Bytes>,
    current: Bytes,
}

impl<M> IncomingBytes<M> {
    /// `bytes_of`: the bytes of a message; `None` where it must not have come.
    pub(super) fn new(
        messages: Receiver<Result<M, Status>>,
        bytes_of: fn(M) -> Option<Bytes>,
    ) -> Self {
        Self {
            messages,
            bytes_of,
            current: Bytes::new(),
        }
    }
}

impl<M> Read for IncomingBytes<M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.messages.blocking_recv() {
                None => return Ok(0),
                Some(Err(_)) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Some(Ok(message)) => {
                    self.current = (self.bytes_of)(message)
                        .ok_or_else(|| io::Error::other("options come first, and once"))?;
                }
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Bytes to a client in chunks.
pub(super) struct OutgoingBytes<'a, M> {
    sender: &'a Sender<Result<M, Status>>,
    message_of: fn(Bytes) -> M,
    pending: Vec<u8>,
}

impl<'a, M> OutgoingBytes<'a, M> {
    pub(super) fn new(sender: &'a Sender<Result<M, Status>>, message_of: fn(Bytes) -> M) -> Self {
        Self {
            sender,
            message_of,
            pending: Vec::with_capacity(CHUNK_BYTES),
        }
    }
}

impl<M> Write for OutgoingBytes<'_, M> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK_BYTES));
        let message = (self.message_of)(chunk.into());
        self.sender
            .blocking_send(Ok(message))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
