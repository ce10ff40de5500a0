//! Listening sockets, made so that nobody can reach them who must not (`SECURITY` rows J1, J2).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, UnixListener};

use crate::Endpoint;

/// The group that may use the sockets, if it exists on the host.
const GROUP: &str = "orlop";
const SOCKET_MODE: u32 = 0o660;
const RUN_DIR_MODE: u32 = 0o750;
const BACKLOG: i32 = 1024;
/// A Unix socket address holds 107 bytes; longer paths go through a handle of their directory.
const SUN_PATH_MAX: usize = 107;

/// A bound socket. While it lives no second process can bind the same Unix socket.
#[derive(Debug)]
pub struct Listener {
    pub(crate) endpoint: Endpoint,
    pub(crate) socket: Socket,
    /// Held for the lock on it.
    _lock: Option<File>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process serves there.
    #[error("another process serves at {0} already")]
    InUse(Endpoint),
    /// Plain TCP where it is not allowed.
    #[error(
        "refusing to serve plain TCP at {0}: only a loopback address, and only with --insecure \
         (mutual TLS is not built in this version)"
    )]
    PlainTcp(Endpoint),
    /// The service's state directory cannot be made.
    #[error("cannot make the state directory {}", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system says no.
    #[error("cannot listen at {endpoint}")]
    Io {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
}

impl Listener {
    /// Binds. A Unix socket has mode 0660 and the group `orlop` if there is one; one left behind by a
    /// process that died is replaced. Must be called within a tokio runtime.
    pub async fn bind(endpoint: &Endpoint, insecure: bool) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io {
            endpoint: endpoint.clone(),
            source,
        };
        let (socket, lock) = match endpoint {
            Endpoint::Unix(path) => {
                prepare_directory(path).map_err(failed)?;
                let lock = lock(path).map_err(failed)?;
                let lock = lock.ok_or_else(|| ListenError::InUse(endpoint.clone()))?;
                (Socket::Unix(bind_unix(path).map_err(failed)?), Some(lock))
            }
            Endpoint::Tcp(address) if insecure && address.ip().is_loopback() => (
                Socket::Tcp(TcpListener::bind(address).await.map_err(failed)?),
                None,
            ),
            Endpoint::Tcp(_) => return Err(ListenError::PlainTcp(endpoint.clone())),
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            socket,
            _lock: lock,
        })
    }
}

fn prepare_directory(socket: &Path) -> io::Result<()> {
    let directory = parent(socket);
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(RUN_DIR_MODE)
        .create(directory)?;
    match group_id()? {
        Some(group) => chown(directory, None, Some(group)),
        None => Ok(()),
    }
}

/// Takes the lock beside the socket; `None` when a living process has it.
fn lock(socket: &Path) -> io::Result<Option<File>> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(PathBuf::from(path), flags, Mode::RUSR | Mode::WUSR)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(File::from(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The mode is set on the socket before it has a name, and again (against the umask) before anyone
/// can connect.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
    with_address(path, |address| Ok(rustix::net::bind(&socket, address)?))?;
    fs::set_permissions(
        path,
        std::os::unix::fs::PermissionsExt::from_mode(SOCKET_MODE),
    )?;
    if let Some(group) = group_id()? {
        chown(path, None, Some(group))?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(StdUnixListener::from(socket))
}

/// Calls `action` with the address of a socket path of any length.
pub(crate) fn with_address<T>(
    path: &Path,
    action: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    if path.as_os_str().len() <= SUN_PATH_MAX {
        return action(&SocketAddrUnix::new(path)?);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory: OwnedFd = rustix::fs::open(parent(path), flags, Mode::empty())?;
    let name = path.file_name().unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    action(&SocketAddrUnix::new(short)?)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The id of the group `orlop`, read from `/etc/group` (no name service: it may load libraries).
fn group_id() -> io::Result<Option<u32>> {
    let groups = match fs::read_to_string("/etc/group") {
        Ok(groups) => groups,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let line = groups
        .lines()
        .find(|line| line.split(':').next() == Some(GROUP));
    Ok(line.and_then(|line| line.split(':').nth(2)?.parse().ok()))
}
