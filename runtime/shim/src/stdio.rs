//! The standard streams of a process: the shim's ends of its pipes or its terminal.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::protocol::Kind;

use crate::error::{Error, Result};

/// Input that waits for a process that does not read, beyond which its sender has to wait.
pub(crate) const INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes read from a stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The process's ends of its pipes.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Ends {
    /// The streams of this process itself.
    pub(crate) fn own() -> Result<Self> {
        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|source| Error::Streams {
                step: "the caller's",
                source,
            })
        };
        Ok(Self {
            stdin: own(rustix::stdio::stdin())?,
            stdout: own(rustix::stdio::stdout())?,
            stderr: own(rustix::stdio::stderr())?,
        })
    }
}

/// Which streams a process is to have, where it has no terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// Pipes from and to the shim, or the null device.
    Pipes { stdin: bool, output: bool },
    /// Those of the caller.
    Own,
}

impl Wanted {
    /// Opens them; a terminal comes later, from the process.
    pub(crate) fn open(self, tty: bool) -> Result<(Streams, Option<Ends>)> {
        match self {
            _ if tty => Ok((Streams::default(), None)),
            Self::Own => Ok((Streams::default(), Some(Ends::own()?))),
            Self::Pipes { stdin, output } => {
                let (streams, ends) = Streams::pipes(stdin, output)?;
                Ok((streams, Some(ends)))
            }
        }
    }
}

/// The shim's ends.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) tty: bool,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    input: VecDeque<u8>,
    input_ended: bool,
    hung: bool,
}

/// What one look at a stream brought.
pub(crate) enum Read {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

impl Streams {
    /// Pipes, or the null device where nobody wants to write or to read.
    pub(crate) fn pipes(stdin: bool, output: bool) -> Result<(Self, Ends)> {
        let fail = |errno: Errno| Error::Streams {
            step: "pipe",
            source: errno.into(),
        };
        let mut streams = Self::default();
        let input = if stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(fail)?;
            streams.stdin = Some(write);
            read
        } else {
            null(OFlags::RDONLY).map_err(fail)?
        };
        let out = || -> rustix::io::Result<(Option<OwnedFd>, OwnedFd)> {
            if !output {
                return Ok((None, null(OFlags::WRONLY)?));
            }
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            Ok((Some(read), write))
        };
        let (stdout, stdout_end) = out().map_err(fail)?;
        let (stderr, stderr_end) = out().map_err(fail)?;
        (streams.stdout, streams.stderr) = (stdout, stderr);
        streams.unblock().map_err(fail)?;
        Ok((
            streams,
            Ends {
                stdin: input,
                stdout: stdout_end,
                stderr: stderr_end,
            },
        ))
    }

    /// The terminal whose master this is.
    pub(crate) fn terminal(master: OwnedFd) -> Result<Self> {
        let fail = |errno: Errno| Error::Streams {
            step: "terminal",
            source: errno.into(),
        };
        let streams = Self {
            tty: true,
            stdout: Some(master),
            ..Self::default()
        };
        streams.unblock().map_err(fail)?;
        Ok(streams)
    }

    fn unblock(&self) -> rustix::io::Result<()> {
        for fd in [&self.stdin, &self.stdout, &self.stderr]
            .into_iter()
            .flatten()
        {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(())
    }

    /// The terminal's master for somebody else, who decides whether it blocks.
    pub(crate) fn into_master(self) -> Option<OwnedFd> {
        let master = self.stdout.filter(|_| self.tty)?;
        rustix::io::ioctl_fionbio(&master, false).ok();
        Some(master)
    }

    /// The terminal's master.
    pub(crate) fn master(&self) -> Option<&OwnedFd> {
        self.stdout.as_ref().filter(|_| self.tty)
    }

    /// Whether no more output can come.
    pub(crate) fn ended(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Whether more input may be taken for the process.
    pub(crate) fn wants_input(&self) -> bool {
        self.input.len() < INPUT_BYTES_MAX
    }

    /// Takes input for the process; none at all ends a pipe, and nothing on a terminal.
    pub(crate) fn push_input(&mut self, bytes: &[u8]) {
        if self.input_target().is_none() || self.input_ended {
            return;
        }
        if bytes.is_empty() {
            self.input_ended = !self.tty;
        }
        self.input.extend(bytes);
        self.write_input();
    }

    fn input_target(&self) -> Option<BorrowedFd<'_>> {
        let fd = if self.tty { &self.stdout } else { &self.stdin };
        fd.as_ref().map(AsFd::as_fd)
    }

    /// Writes what waits, as far as the process takes it.
    pub(crate) fn write_input(&mut self) {
        while !self.input.is_empty() {
            let Some(target) = self.input_target() else {
                break;
            };
            match rustix::io::write(target, self.input.as_slices().0) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // It closed its input: what is left has no reader.
                    self.input.clear();
                    self.input_ended = true;
                }
            }
        }
        if self.input_ended && self.input.is_empty() {
            self.stdin = None;
        }
    }

    /// What has to be waited for. `output` is false where the reader is behind.
    pub(crate) fn interests(&self, output: bool) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        let waits = !self.input.is_empty();
        for fd in [&self.stdout, &self.stderr].into_iter().flatten() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, output && !self.hung);
            flags.set(PollFlags::OUT, self.tty && waits && !self.hung);
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(fd.as_fd(), flags));
            }
        }
        if let Some(fd) = self.stdin.as_ref().filter(|_| waits) {
            fds.push(PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT));
        }
        fds
    }

    /// Reads once from stdout or stderr, without blocking.
    pub(crate) fn read(&mut self, kind: Kind, exited: bool) -> Read {
        let tty = self.tty;
        let slot = if kind == Kind::Stderr {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        let Some(fd) = slot else { return Read::Nothing };
        let mut buffer = Vec::with_capacity(CHUNK_BYTES);
        match rustix::io::read(&*fd, spare_capacity(&mut buffer)) {
            Ok(0) => {
                *slot = None;
                Read::End
            }
            Ok(_) => Read::Bytes(buffer),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            // A terminal that nobody has open: for good only once the process has ended.
            Err(Errno::IO) if tty && !exited => {
                self.hung = true;
                Read::Nothing
            }
            Err(_) => {
                *slot = None;
                Read::End
            }
        }
    }

    /// After the process ended, a terminal that nobody had open is looked at again.
    pub(crate) fn look_again(&mut self) {
        self.hung = false;
    }
}

fn null(flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, "/dev/null", flags | OFlags::CLOEXEC, Mode::empty())
}

/// Replaces the shim's own streams: nothing to read, nothing to say, errors into its log.
pub(crate) fn detach(log: &OwnedFd) -> io::Result<()> {
    silence()?;
    rustix::stdio::dup2_stderr(log)?;
    Ok(())
}

/// The null device for all three streams.
pub(crate) fn silence() -> io::Result<()> {
    let null = null(OFlags::RDWR)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
