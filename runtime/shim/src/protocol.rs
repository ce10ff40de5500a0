//! What the runtime service and a shim say to each other.
//!
//! A connection carries frames: a header of five bytes (length of the payload, `u32` little endian;
//! kind, `u8`) and the payload. [`Kind::Message`] frames hold one JSON [`Request`] or [`Reply`], the
//! others hold bytes of a standard stream; an empty [`Kind::Stdin`] frame closes standard input.
//!
//! **Start.** The service makes a socket pair, gives the shim one end as its standard input
//! ([`START_FD`]), and spawns `orlop-shim CONTAINER_DIR`. The shim makes the container up to the point
//! before its `exec`, listens on its socket, and sends [`Reply::Created`]. The service may attach now;
//! then it sends [`Request::Start`], and the shim answers [`Reply::Started`] once the `exec` happened,
//! or [`Reply::Failed`]. If the service goes away before that, the shim takes everything down again. The
//! connection then goes on like one that began with `Wait`.
//!
//! **Later.** Each connection to the shim's socket begins with one request. `Attach` and `Exec`
//! connections then carry stdin frames and `Resize`/`Signal` messages one way, stdout and stderr frames
//! the other, and end with [`Reply::Exited`]. All other requests get one reply.
//!
//! The shim goes on when any peer goes away. What an attacher does not take at once waits for it, up to
//! [`BACKLOG_BYTES_MAX`]; one that is further behind gets [`Failure::Behind`] after that, and no more. Only
//! for one that joined before the start the container then waits, as in a pipeline, and for ten seconds if
//! that takes nothing. After the container's exit the shim writes `exit.json`, removes its socket and tells
//! everyone attached; it ends when they have read what waits for them, or went away.
//!
//! **Restarts.** If the container is to be started again ([`crate::restart`]), exactly one does it. The
//! service has a connection that waits for as long as it lives; on [`Reply::Exited`] it answers
//! [`Request::Take`], the shim closes that connection, and the restart is the service's. Until then the shim
//! keeps its socket. It starts the container again in its place, with its network namespace and cgroups, when
//! the pause of the policy is over and nobody waits: a service that is slow is waited for, one that is gone is not.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::config::ExitStatus;
use crate::health::Health;
use crate::restart::{Policy, Restarts};

/// Grows with every change that an older peer would not understand.
pub const VERSION: u32 = 3;
/// The shim's end of the start socket: its standard input, since that is the one descriptor that can be
/// handed to a new process without code running between fork and exec.
pub const START_FD: i32 = 0;
/// The largest payload of one frame.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Output that waits for one attacher, on the disk: as much as a log holds unless told otherwise.
pub const BACKLOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 5;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A JSON [`Request`] or [`Reply`].
    Message = 0,
    /// Bytes for standard input; none: it ends.
    Stdin = 1,
    /// Bytes of standard output (of a terminal: all output).
    Stdout = 2,
    /// Bytes of standard error.
    Stderr = 3,
}

/// From the service to a shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// On the start socket only: run the command now.
    Start,
    /// Join the container's standard streams. Answer: [`Reply::Attached`], then frames.
    Attach {
        /// Send stdin frames.
        stdin: bool,
        /// Receive stdout frames.
        stdout: bool,
        /// Receive stderr frames.
        stderr: bool,
    },
    /// Run one more process. Answer: [`Reply::Started`] or [`Reply::Failed`], then frames.
    Exec {
        /// OCI runtime-spec `process`; its `user` numbers are replaced by `user` below.
        #[serde(deserialize_with = "crate::document::process")]
        process: Box<oci_spec::runtime::Process>,
        /// `user[:group]`, looked up in the container; empty: root.
        user: String,
        /// The caller sends stdin frames.
        stdin: bool,
        /// Window size to begin with: rows, columns.
        window: Option<(u16, u16)>,
        /// Nobody reads: output goes to `/dev/null`. Before version 2 the connection then ended with
        /// [`Reply::Started`].
        detach: bool,
    },
    /// Send a signal: to the container's first process, or on an `Exec` connection to that process.
    Signal {
        /// Its number.
        signal: i32,
        /// To every process of the container.
        all: bool,
    },
    /// Set the window size of the terminal, of the container's or of this `Exec` connection's process.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Ask for [`Reply::State`].
    State,
    /// Answer [`Reply::Exited`] when the container ended, and [`Reply::Health`] until then.
    Wait,
    /// What follows the container's end is the service's to do. No answer. Since version 3.
    Take,
    /// When the container is to be started again, from now on; `None`: never, somebody ends it. Since
    /// version 3.
    Restart(Option<Policy>),
}

/// From a shim to the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The container's first process exists and waits for [`Request::Start`].
    Created {
        /// On the host.
        pid: i32,
    },
    /// The command runs.
    Started {
        /// On the host.
        pid: i32,
    },
    /// Joined.
    Attached {
        /// Whether it has a terminal.
        tty: bool,
        /// On the host.
        pid: i32,
    },
    /// Done.
    Ok,
    /// It did not work, and nothing of it is left.
    Failed {
        /// Why, for programs.
        failure: Failure,
        /// Why, for people: what was tried, on what, what the system said.
        message: String,
    },
    /// The process ended.
    Exited {
        /// The exit code, or 128 + the signal.
        code: i32,
        /// See [`crate::config::ExitStatus`].
        oom_killed: bool,
    },
    /// What is known of the container's health: at once, and after each check. Since version 2.
    Health(Health),
    /// Answer to [`Request::State`].
    State {
        /// On the host; 0 between its end and the restart by its shim.
        pid: i32,
        /// Clock ticks since boot at which the first process began (`/proc/PID/stat`), so that a
        /// reused pid is not taken for it.
        start_time: u64,
        /// Nanoseconds since the epoch.
        started_at: i64,
        /// [`VERSION`] of the shim; 0 before version 3.
        #[serde(default)]
        version: u32,
        /// Restarts so far. Since version 3.
        #[serde(default)]
        restarts: Option<Restarts>,
        /// How it ended last under this shim. Since version 3.
        #[serde(default)]
        last: Option<ExitStatus>,
    },
}

/// Why a start or an exec failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The command is not there: 127.
    CommandNotFound,
    /// The command cannot be executed: 126.
    CommandNotExecutable,
    /// The request is wrong: a user that does not exist, a mount over `/proc`.
    Invalid,
    /// The container has ended.
    NotRunning,
    /// On an `Attach` connection: the attacher was too far behind, and gets no more output.
    Behind,
    /// A fault of the system or of ours.
    System,
}

/// Writes one frame.
pub fn write_frame(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    to.write_all(&header(kind, payload.len())?)?;
    to.write_all(payload)
}

/// The header of a frame with a payload of `length` bytes.
pub fn header(kind: Kind, length: usize) -> io::Result<[u8; HEADER_BYTES]> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "frame too long");
    let length = u32::try_from(length).map_err(|_| too_long())?;
    if length as usize > PAYLOAD_BYTES_MAX {
        return Err(too_long());
    }
    let [a, b, c, d] = length.to_le_bytes();
    Ok([a, b, c, d, kind as u8])
}

/// Kind and length of the payload that a header announces.
pub fn parse_header(header: [u8; HEADER_BYTES]) -> io::Result<(Kind, usize)> {
    let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let [a, b, c, d, kind] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(malformed("frame too long"));
    }
    let kind = match kind {
        0 => Kind::Message,
        1 => Kind::Stdin,
        2 => Kind::Stdout,
        3 => Kind::Stderr,
        _ => return Err(malformed("frame of unknown kind")),
    };
    Ok((kind, length))
}

/// Reads one frame, blocking; `None` at the end of the stream.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut header = [0; HEADER_BYTES];
    match from.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (kind, length) = parse_header(header)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some((kind, payload)))
}

/// A message as the payload of its frame.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(io::Error::other)
}

/// The message of a [`Kind::Message`] frame.
pub fn decode<T: for<'a> Deserialize<'a>>(payload: &[u8]) -> io::Result<T> {
    serde_json::from_slice(payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Kind::Message, &encode(&Request::Start).unwrap()).unwrap();
        write_frame(&mut wire, Kind::Stdin, b"").unwrap();
        let mut reader = wire.as_slice();
        let (kind, payload) = read_frame(&mut reader).unwrap().unwrap();
        assert_eq!(kind, Kind::Message);
        assert_eq!(decode::<Request>(&payload).unwrap(), Request::Start);
        assert_eq!(
            read_frame(&mut reader).unwrap(),
            Some((Kind::Stdin, vec![]))
        );
        assert_eq!(read_frame(&mut reader).unwrap(), None);
    }

    #[test]
    fn b27_a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
        let mut wire: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(read_frame(&mut wire).is_err());
        assert!(header(Kind::Stdout, PAYLOAD_BYTES_MAX + 1).is_err());
    }
}
