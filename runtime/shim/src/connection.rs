//! One peer of the shim: frames in, frames out, never waiting.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::backlog::{Backlog, MEMORY_BYTES_MAX};
use crate::error::note;
use crate::protocol::{
    BACKLOG_BYTES_MAX, Failure, HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX, Reply, Request, decode,
    encode, header, parse_header,
};

/// Bytes read from a peer at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long a container waits for its foreground, once that is as far behind as it may be and takes
/// nothing.
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
        /// Joined before the start: it is what the container's output is made for, as the next command
        /// of a pipeline.
        foreground: bool,
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
pub(crate) struct Connection<'a> {
    pub(crate) stream: UnixStream,
    pub(crate) role: Role,
    input: Vec<u8>,
    output: Backlog<'a>,
    /// What it gets after that, and then nothing more: why it is cut off.
    last: Option<Vec<u8>>,
    cut_off: bool,
    /// When the peer last took something, or had nothing to take.
    moved: Instant,
    gone: bool,
}

impl<'a> Connection<'a> {
    /// What it does not take in time waits in `directory`.
    pub(crate) fn new(stream: UnixStream, role: Role, directory: &'a Path) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            role,
            input: Vec::new(),
            output: Backlog::new(directory),
            last: None,
            cut_off: false,
            moved: Instant::now(),
            gone: false,
        })
    }

    /// Whether it can be forgotten.
    pub(crate) fn over(&self) -> bool {
        self.gone || ((self.role == Role::Leaving || self.cut_off) && !self.has_output())
    }

    /// Whether something waits to be written.
    pub(crate) fn has_output(&self) -> bool {
        (!self.output.is_empty() || self.last.is_some()) && !self.gone
    }

    /// Whether the peer of one more process is too far behind for that to go on.
    pub(crate) fn is_behind(&self) -> bool {
        self.output.len() > MEMORY_BYTES_MAX as u64
    }

    /// Whether the container has to wait for it.
    pub(crate) fn holds_up(&self) -> bool {
        matches!(
            self.role,
            Role::Attached {
                foreground: true,
                ..
            }
        ) && self.is_full()
            && self.moved.elapsed() <= STALL_PATIENCE
            && !self.gone
    }

    fn is_full(&self) -> bool {
        self.output.len() > BACKLOG_BYTES_MAX && !self.cut_off
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

    /// Sends bytes.
    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        for part in payload.chunks(PAYLOAD_BYTES_MAX) {
            if self.is_full() && self.role != Role::Exec && !self.holds_up() {
                self.cut_off(&format!("it was {BACKLOG_BYTES_MAX} bytes behind"));
            }
            if self.cut_off || self.gone {
                return;
            }
            let Ok(head) = header(kind, part.len()) else {
                return;
            };
            self.send_frame(&head, part);
        }
    }

    /// What is not taken at once waits.
    fn send_frame(&mut self, head: &[u8], body: &[u8]) {
        let mut written = 0;
        if !self.has_output() {
            self.moved = Instant::now();
            let slices = [IoSlice::new(head), IoSlice::new(body)];
            written = self.stream.write_vectored(&slices).unwrap_or(0);
        }
        let rest = [
            head.get(written..).unwrap_or_default(),
            &body[written.saturating_sub(head.len())..],
        ];
        if rest.iter().all(|part| part.is_empty()) {
            return;
        }
        match self.output.push(rest) {
            Ok(()) => self.flush(),
            Err(error) => self.cut_off(&format!("what waited for it cannot be kept: {error}")),
        }
    }

    /// Ends an attached client that does not keep up, after what it was sent so far.
    fn cut_off(&mut self, why: &str) {
        note(&format!("an attached client is cut off: {why}"));
        let failed = Reply::Failed {
            failure: Failure::Behind,
            message: why.to_owned(),
        };
        let frame = encode(&failed).and_then(|payload| {
            let mut frame = header(Kind::Message, payload.len())?.to_vec();
            frame.extend(payload);
            Ok(frame)
        });
        self.cut_off = true;
        self.last = frame.ok();
    }

    /// Writes what waits, as far as the peer takes it.
    pub(crate) fn flush(&mut self) {
        while self.has_output() {
            match self.write_front() {
                Ok(0) => self.gone = true,
                Ok(_) => self.moved = Instant::now(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => return,
                Err(_) => self.gone = true,
            }
        }
    }

    fn write_front(&mut self) -> io::Result<usize> {
        if self.output.is_empty()
            && let Some(last) = self.last.take()
        {
            self.output.push([&last, &[]])?;
        }
        let written = self.stream.write(self.output.front()?)?;
        self.output.consume(written);
        Ok(written)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
