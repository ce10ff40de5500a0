//! One peer of the shim: frames in, frames out, never waiting.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::protocol::{
    BACKLOG_BYTES_MAX, HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX, Reply, Request, decode, encode,
    header, parse_header,
};

/// Bytes read from a peer at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Output that may wait for a peer before the process has to wait as well.
const BEHIND_BYTES: usize = 1024 * 1024;
/// How long a container waits for an attached client that takes nothing.
const STALL_PATIENCE: Duration = Duration::from_secs(10);

/// What a peer came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It did not say yet.
    Fresh,
    /// The service that started the shim.
    Starter,
    /// The container's streams.
    Attached {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// One more process.
    Exec,
    /// The container's end.
    Waiting,
    /// Nothing more: it gets what waits for it, then it is closed.
    Leaving,
}

/// A whole frame.
#[derive(Debug)]
pub(crate) enum Frame {
    Request(Request),
    Stdin(Vec<u8>),
}

/// A connected peer.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    pub(crate) role: Role,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// When the peer last took something, or had nothing to take.
    moved: Instant,
    gone: bool,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream, role: Role) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (input, output) = (Vec::new(), VecDeque::new());
        Ok(Self {
            stream,
            role,
            input,
            output,
            moved: Instant::now(),
            gone: false,
        })
    }

    /// Whether it can be forgotten.
    pub(crate) fn over(&self) -> bool {
        self.gone || (self.role == Role::Leaving && self.output.is_empty())
    }

    /// Whether something waits to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty() && !self.gone
    }

    /// Whether the peer is too far behind for its process to go on.
    pub(crate) fn is_behind(&self) -> bool {
        self.output.len() > BEHIND_BYTES
    }

    /// Whether the container has to wait for it.
    pub(crate) fn holds_up(&self) -> bool {
        matches!(self.role, Role::Attached { .. }) && self.is_behind() && !self.gone
    }

    /// Whether something waits for it, of which it took a part not long ago.
    pub(crate) fn moved_within(&self, patience: Duration) -> bool {
        self.has_output() && self.moved.elapsed() <= patience
    }

    /// Drops an attached client that took nothing for too long.
    pub(crate) fn drop_stalled(&mut self) {
        if self.holds_up() && self.moved.elapsed() > STALL_PATIENCE {
            crate::error::note("an attached client does not read and is dropped");
            self.gone = true;
        }
    }

    /// Reads what is there, once.
    pub(crate) fn fill(&mut self) {
        let mut buffer = vec![0; CHUNK_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(length) => self.input.extend(&buffer[..length]),
            Err(error) if is_transient(&error) => {}
            Err(_) => self.gone = true,
        }
    }

    /// The next whole frame. What is no frame of ours ends the connection.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let head: [u8; HEADER_BYTES] = self.input.get(..HEADER_BYTES)?.try_into().ok()?;
        let Ok((kind, length)) = parse_header(head) else {
            self.gone = true;
            return None;
        };
        let payload = self
            .input
            .get(HEADER_BYTES..HEADER_BYTES + length)?
            .to_vec();
        self.input.drain(..HEADER_BYTES + length);
        let frame = match kind {
            Kind::Message => decode(&payload).map(Frame::Request).ok(),
            Kind::Stdin => Some(Frame::Stdin(payload)),
            Kind::Stdout | Kind::Stderr => None,
        };
        self.gone |= frame.is_none();
        frame
    }

    /// Sends a message.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        match encode(reply) {
            Ok(payload) => self.send(Kind::Message, &payload),
            Err(_) => self.gone = true,
        }
    }

    /// Sends bytes; a peer that lets too many wait is dropped.
    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        if self.output.is_empty() {
            self.moved = Instant::now();
        }
        for part in payload.chunks(PAYLOAD_BYTES_MAX) {
            let Ok(head) = header(kind, part.len()) else {
                return;
            };
            self.output.extend(head);
            self.output.extend(part);
        }
        self.flush();
        let limit = BACKLOG_BYTES_MAX;
        if self.output.len() > limit {
            crate::error::note("an attached client does not read and is dropped");
            self.gone = true;
        }
    }

    /// Writes what waits, as far as the peer takes it.
    pub(crate) fn flush(&mut self) {
        while self.has_output() {
            match self.stream.write(self.output.as_slices().0) {
                Ok(0) => self.gone = true,
                Ok(written) => {
                    self.output.drain(..written);
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
