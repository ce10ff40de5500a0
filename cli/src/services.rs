//! Start and end of the services of this host.
//!
//! They are the sibling binaries `orlop-<service>`, each started through `orlop serve --session`,
//! which makes a session of its own before it becomes the service: a service outlives the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orlop_wire::Endpoint;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::clients::{healthy, is_absent, probe};
use crate::config::{self, Config, SERVICES};
use crate::error::{CliError, file, system};

/// How long a service may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may take to drain and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);
/// Lines of a service's log that are shown when it does not come up.
const LOG_LINES: usize = 10;
const LOG_TAIL_BYTES: u64 = 8 * 1024;
/// A Unix socket address holds 107 bytes; longer paths go through a handle of their directory.
const SUN_PATH_MAX: usize = 107;

/// What `up` can be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct StartOptions {
    /// Where `/v2/` listens.
    pub(crate) registry_http: Option<String>,
    /// How the runtime publishes ports.
    pub(crate) published_ports: Option<String>,
}

/// One service in the middle of its start.
struct Starting {
    service: &'static str,
    child: Child,
    /// Where this start begins in the log.
    log_start: u64,
}

/// Starts those of the four services that nobody listens for, and waits until they answer. Returns
/// their names. One caller at a time on an instance.
pub(crate) fn start_missing(
    config: &Config,
    options: &StartOptions,
) -> Result<Vec<&'static str>, CliError> {
    let _lock = lock(config)?;
    let mut starting = Vec::new();
    for service in SERVICES {
        match probe(config.endpoint(service)) {
            Ok(()) => {}
            Err(error) if is_absent(&error) => starting.push(spawn(config, options, service)?),
            Err(source) => {
                return Err(CliError::Unreachable {
                    service,
                    endpoint: config.endpoint(service).to_string(),
                    source,
                });
            }
        }
    }
    let deadline = Instant::now() + START_TIMEOUT;
    starting
        .into_iter()
        .map(|starting| wait_until_healthy(config, starting, deadline))
        .collect()
}

/// Ends the services of this instance; containers live on. Returns the names of those that ran.
pub(crate) fn stop_all(config: &Config) -> Result<Vec<&'static str>, CliError> {
    let mut ended = Vec::new();
    for service in SERVICES.into_iter().rev() {
        let Endpoint::Unix(path) = config.endpoint(service) else {
            continue;
        };
        match connect_unix(path) {
            Ok(stream) => {
                stop(service, stream)?;
                ended.push(service);
            }
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(file("connect to", path)(source)),
        }
    }
    Ok(ended)
}

/// Asks the process that listens on the other side to end, and waits for it. The process is the one
/// that the kernel names, by a handle, so that no other can be meant.
fn stop(service: &'static str, stream: UnixStream) -> Result<(), CliError> {
    let credentials =
        rustix::net::sockopt::socket_peercred(&stream).map_err(system("ask who serves"))?;
    drop(stream);
    let pid: Pid = credentials.pid;
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(system("open the service's process")(error)),
    };
    if !is_service(pid, service) {
        return Err(CliError::Start {
            service,
            reason: format!(
                "process {} serves its socket and is not orlop-{service}: end it by hand",
                pid.as_raw_nonzero()
            ),
            log: Vec::new(),
        });
    }
    match pidfd_send_signal(&handle, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(system("end the service's process")(error)),
    }
    wait_until_gone(service, pid, &handle)
}

fn wait_until_gone(service: &'static str, pid: Pid, handle: &OwnedFd) -> Result<(), CliError> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(STOP_TIMEOUT).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout)
        .map_err(|error| system("wait for the service")(io::Error::from(error)))?
    {
        0 => Err(CliError::StillRunning {
            service,
            pid: pid.as_raw_nonzero().get(),
            seconds: STOP_TIMEOUT.as_secs(),
        }),
        _ => Ok(()),
    }
}

/// Whether a process is the service, by the name of its program (the kernel cuts it to 15 bytes).
fn is_service(pid: Pid, service: &str) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
    let expected = format!("orlop-{service}");
    name.is_ok_and(|name| expected.starts_with(name.trim_end()) && name.len() > "orlop-".len())
}

/// The binary of a service: the sibling of this one.
pub(crate) fn binary(service: &str) -> Result<PathBuf, CliError> {
    let ours = std::env::current_exe().map_err(system("find this program's own file"))?;
    let directory = ours.parent().unwrap_or(Path::new("/"));
    Ok(directory.join(format!("orlop-{service}")))
}

fn spawn(
    config: &Config,
    options: &StartOptions,
    service: &'static str,
) -> Result<Starting, CliError> {
    let ours = std::env::current_exe().map_err(system("find this program's own file"))?;
    let log = open_log(config, service)?;
    let log_start = log.metadata().map_or(0, |meta| meta.len());
    let errors = log.try_clone().map_err(system("share a log file"))?;
    let mut command = Command::new(ours);
    command
        .args(["serve", "--session", service, "--root"])
        .arg(&config.paths.root)
        .arg("--run-dir")
        .arg(&config.paths.run_dir)
        .env_clear()
        .envs(config::inherited())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    if let (Some(address), "registry") = (&options.registry_http, service) {
        command.args(["--registry-http", address]);
    }
    if let (Some(way), "runtime") = (&options.published_ports, service) {
        command.args(["--published-ports", way]);
    }
    let child = command.spawn().map_err(system("start a service"))?;
    Ok(Starting {
        service,
        child,
        log_start,
    })
}

fn wait_until_healthy(
    config: &Config,
    mut starting: Starting,
    deadline: Instant,
) -> Result<&'static str, CliError> {
    let (service, log_start) = (starting.service, starting.log_start);
    let endpoint = config.endpoint(service);
    let failed = |reason: String| CliError::Start {
        service,
        reason,
        log: log_tail(&log_path(config, service), log_start),
    };
    loop {
        if probe(endpoint).is_ok() && healthy(endpoint) {
            return Ok(service);
        }
        if let Ok(Some(status)) = starting.child.try_wait() {
            return Err(failed(format!("it ended with {status}")));
        }
        if Instant::now() > deadline {
            return Err(failed(format!(
                "it does not answer within {} s",
                START_TIMEOUT.as_secs()
            )));
        }
        std::thread::sleep(POLL);
    }
}

/// Connects to a Unix socket whose path may be of any length.
pub(crate) fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= SUN_PATH_MAX {
        return UnixStream::connect(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
    UnixStream::connect(Path::new(&short).join(name))
}

/// The lock that makes starts follow one another; released when dropped.
fn lock(config: &Config) -> Result<File, CliError> {
    private_directory(&config.paths.root)?;
    let path = config.paths.root.join("up.lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(file("open", &path))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(system("lock the start of services"))?;
    Ok(lock)
}

fn private_directory(path: &Path) -> Result<(), CliError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(file("make the directory", path))
}

fn log_path(config: &Config, service: &str) -> PathBuf {
    config
        .paths
        .root
        .join("logs")
        .join(format!("{service}.log"))
}

fn open_log(config: &Config, service: &str) -> Result<File, CliError> {
    private_directory(&config.paths.root.join("logs"))?;
    let path = log_path(config, service);
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(file("open", path))
}

fn log_tail(path: &Path, from: u64) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut log = File::open(path)?;
        let start = log
            .metadata()?
            .len()
            .saturating_sub(LOG_TAIL_BYTES)
            .max(from);
        log.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = tail.lines().collect();
    let shown = lines.len().saturating_sub(LOG_LINES);
    let mut hints = vec![format!("the end of {}:", path.display())];
    hints.extend(lines[shown..].iter().map(|line| (*line).to_owned()));
    hints
}
