//! The service's side of the protocol with a shim (`orlop_shim::protocol`).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use orlop_shim::protocol::{
    HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX, Reply, Request, decode, encode, header, parse_header,
};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::subids::IdRange;

/// A Unix socket address holds 107 bytes; longer paths go through a handle of their directory.
const SUN_PATH_MAX: usize = 107;

/// How long a shim may take to answer. It waits for nothing but the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection: frames both ways.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What the shim says.
    pub(crate) reader: Reader,
    /// What it is told.
    pub(crate) writer: Writer,
}

/// The half that reads frames.
#[derive(Debug)]
pub(crate) struct Reader(OwnedReadHalf);

/// The half that writes frames.
#[derive(Debug)]
pub(crate) struct Writer(OwnedWriteHalf);

/// One frame from a shim.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A reply.
    Reply(Reply),
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// The shim's program.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// The file as it was when this service started, on a mount of its own: the shim would make that
    /// anew for each container, and execute itself once more. Absent where the kernel refuses.
    clone: Option<OwnedFd>,
}

impl Program {
    /// That of this path.
    pub(crate) fn open(path: PathBuf) -> Self {
        let clone = orlop_shim::read_only_clone(&path);
        if let Err(error) = &clone {
            tracing::debug!(%error, path = %path.display(), "the shim is executed by its path");
        }
        let clone = clone.ok();
        Self { path, clone }
    }

    fn command(&self) -> tokio::process::Command {
        let Some(clone) = &self.clone else {
            return tokio::process::Command::new(&self.path);
        };
        let file = format!("/proc/self/fd/{}", clone.as_raw_fd());
        let mut command = tokio::process::Command::new(file);
        command.arg0(&self.path);
        command
    }
}

/// Spawns a shim for a container's directory; the connection is its start socket. The process is reaped
/// by tokio when it ends, and lives on when this service does not.
pub(crate) fn spawn(program: &Program, directory: &Path) -> io::Result<Connection> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(directory.join("shim.log"))?;
    let child = program
        .command()
        .arg(directory)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", program.path.display()))
        })?;
    drop(child);
    ours.set_nonblocking(true)?;
    Ok(Connection::from(UnixStream::from_std(ours)?))
}

/// New namespaces, open.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Of user ids.
    pub(crate) user: std::fs::File,
    /// Of the network; it belongs to the one of users.
    pub(crate) network: std::fs::File,
}

/// Makes namespaces of users and of the network, with these ids of the host. A process of the shim's
/// program makes them, and ends before this answers.
pub(crate) async fn namespaces(program: &Program, ids: IdRange) -> io::Result<Namespaces> {
    let mut holder = program
        .command()
        .arg(orlop_shim::HOLD)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let opened = tokio::time::timeout(PATIENCE, open_held(&mut holder, ids)).await;
    let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let output = holder.wait_with_output().await?;
    match opened {
        Err(_) if !output.status.success() => {
            let told = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(told.trim().to_owned()))
        }
        opened => opened,
    }
}

/// The holder is our child and not reaped yet, so that its number is its own.
async fn open_held(holder: &mut tokio::process::Child, ids: IdRange) -> io::Result<Namespaces> {
    let (Some(pid), Some(said)) = (holder.id(), holder.stdout.as_mut()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    said.read_exact(&mut [0]).await?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let map = format!("0 {} {}", ids.first, ids.size);
    for file in ["uid_map", "gid_map"] {
        std::fs::write(process.join(file), &map)?;
    }
    Ok(Namespaces {
        user: std::fs::File::open(process.join("ns/user"))?,
        network: std::fs::File::open(process.join("ns/net"))?,
    })
}

/// Connects to a running shim. Connecting to a Unix socket blocks only while its backlog is full, so it
/// is done in place.
pub(crate) fn connect(socket: &Path) -> io::Result<Connection> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let own = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let path = socket.as_os_str();
    if path.len() <= SUN_PATH_MAX {
        rustix::net::connect(&own, &SocketAddrUnix::new(socket)?)?;
    } else {
        let parent = socket.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let short = short.join(socket.file_name().unwrap_or_default());
        rustix::net::connect(&own, &SocketAddrUnix::new(&short)?)?;
    }
    Ok(Connection::from(UnixStream::from_std(
        StdUnixStream::from(own),
    )?))
}

/// Connects, asks one thing, and waits for the one answer, but not for ever: a shim can be stuck.
pub(crate) async fn ask(socket: &Path, request: &Request) -> io::Result<Reply> {
    let asked = tokio::time::timeout(PATIENCE, ask_patiently(socket, request));
    asked.await.unwrap_or_else(|_| {
        let told = "it does not answer; `rm -f` ends it and its container";
        Err(io::Error::new(io::ErrorKind::TimedOut, told))
    })
}

/// The same, however long it takes.
pub(crate) async fn ask_patiently(socket: &Path, request: &Request) -> io::Result<Reply> {
    let mut connection = connect(socket)?;
    connection.writer.request(request).await?;
    connection.reader.reply().await
}

/// Connects to wait for the end of the container, and to hear of its health. What is asked on other
/// connections from now on holds: as long as this one stands the shim does not start its container again.
pub(crate) async fn wait(socket: &Path) -> io::Result<Connection> {
    let mut connection = connect(socket)?;
    connection.writer.request(&Request::Wait).await?;
    Ok(connection)
}

/// Kills a shim, and thereby its container: the process that listens on the socket.
pub(crate) fn kill(socket: &Path) -> io::Result<()> {
    let connection = connect(socket)?;
    let peer = connection.reader.0.as_ref().peer_cred()?.pid();
    let pid = peer
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // It listens still, so that the number was its own when the handle was made.
    drop(connect(socket)?);
    Ok(pidfd_send_signal(process, Signal::KILL)?)
}

// === impl Connection ===

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: Reader(reader),
            writer: Writer(writer),
        }
    }
}

impl Connection {
    /// Waits, after `Take`, until the shim let go: its path and the container's mounts are the next one's
    /// then.
    pub(crate) async fn has_let_go(mut self) {
        let let_go = async { while self.reader.reply().await.is_ok() {} };
        drop(tokio::time::timeout(PATIENCE, let_go).await);
    }
}

// === impl Writer ===

impl Writer {
    /// Sends a message.
    pub(crate) async fn request(&mut self, request: &Request) -> io::Result<()> {
        self.frame(Kind::Message, &encode(request)?).await
    }

    /// Sends bytes for standard input; none: it ends.
    pub(crate) async fn stdin(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return self.frame(Kind::Stdin, bytes).await;
        }
        for chunk in bytes.chunks(PAYLOAD_BYTES_MAX) {
            self.frame(Kind::Stdin, chunk).await?;
        }
        Ok(())
    }

    async fn frame(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&header(kind, payload.len())?);
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await
    }
}

// === impl Reader ===

impl Reader {
    /// The next frame; `None` when the shim closed the connection.
    pub(crate) async fn frame(&mut self) -> io::Result<Option<Frame>> {
        let mut bytes = [0; HEADER_BYTES];
        match self.0.read_exact(&mut bytes).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        };
        let (kind, length) = parse_header(bytes)?;
        let mut payload = BytesMut::zeroed(length);
        self.0.read_exact(&mut payload).await?;
        match kind {
            Kind::Message => Ok(Some(Frame::Reply(decode(&payload)?))),
            Kind::Stdout => Ok(Some(Frame::Stdout(payload.freeze()))),
            Kind::Stderr => Ok(Some(Frame::Stderr(payload.freeze()))),
            Kind::Stdin => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the shim sent standard input",
            )),
        }
    }

    /// The next frame, which must be a reply.
    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        match self.frame().await? {
            Some(Frame::Reply(reply)) => Ok(reply),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the shim sent output before its reply",
            )),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// For a reply that does not belong here.
pub(crate) fn unexpected(reply: &Reply) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the shim answered {reply:?}"),
    )
}
