//! An instance of Orlop under test.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use orlop_wire::{Endpoint, connect};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{HostState, Outcome, binary, fixtures};

/// Four services with a root, a run directory and ports of their own. Dropping it stops everything
/// and fails the test if something stays behind.
#[derive(Debug)]
pub struct Instance {
    directory: TempDir,
    registry_http: String,
    home: TempDir,
}

/// How an instance is to be.
#[derive(Debug, Default)]
pub struct InstanceBuilder {
    registry_http: Option<String>,
}

impl Instance {
    /// Starts an instance with `orlop up`.
    pub fn start() -> Self {
        InstanceBuilder::default().start()
    }

    /// The same with an image `busybox`.
    pub fn with_busybox() -> Self {
        let orlop = Self::start();
        orlop.import_busybox("busybox");
        orlop
    }

    /// An instance that no service was started for yet.
    pub fn stopped() -> Self {
        InstanceBuilder::default().stopped()
    }

    /// Its root directory.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Its run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }

    /// The home directory that its commands see: holds `.docker/config.json`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where its `/v2/` listens: `127.0.0.1:PORT`.
    pub fn registry(&self) -> &str {
        &self.registry_http
    }

    /// `orlop ARGS`, ready to be changed and run.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(binary("orlop"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("ORLOP_ROOT", self.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `orlop ARGS` to its end.
    #[must_use = "say what was expected of the command"]
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        self.run_with_input(args, b"")
    }

    /// Runs `orlop ARGS` to its end with this on its standard input.
    #[must_use = "say what was expected of the command"]
    pub fn run_with_input<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Outcome {
        let words: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        let mut command = self.command(args);
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                stdin.write_all(&input).ok();
            }
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Outcome {
            command: format!("orlop {}", words.join(" ")),
            output,
        }
    }

    /// Starts `orlop ARGS` and leaves it running.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: &[S]) -> Child {
        self.command(args).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// Starts the services that do not run.
    #[track_caller]
    pub fn up(&self) {
        self.run(&["up", "--registry-http", &self.registry_http])
            .success();
    }

    /// Makes an image of Debian's static busybox under this name.
    pub fn import_busybox(&self, name: &str) {
        let archive = fixtures::busybox_rootfs();
        self.run_with_input(&["import", "-c", "CMD [\"sh\"]", "-", name], &archive)
            .success();
    }

    /// `orlop inspect -f FORMAT NAME`.
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.run(&["inspect", "-f", format, name]).success().line()
    }

    /// `running`, `exited`, `paused` and so on.
    #[track_caller]
    pub fn status(&self, name: &str) -> String {
        self.inspect(name, "{{.State.Status}}")
    }

    /// The process id of a service, as the kernel knows it from its socket.
    pub fn service_pid(&self, service: &str) -> i32 {
        self.who_serves(service).unwrap()
    }

    fn who_serves(&self, service: &str) -> std::io::Result<i32> {
        let socket = std::os::unix::net::UnixStream::connect(self.socket(service))?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        Ok(peer.pid.as_raw_nonzero().get())
    }

    /// `kill -9` of a service. A command that comes by may have started the next one when this returns.
    pub fn kill_service(&self, service: &str) {
        let number = self.service_pid(service);
        let pid = rustix::process::Pid::from_raw(number).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        crate::eventually("the service is gone", || {
            self.who_serves(service).ok() != Some(number)
        });
    }

    /// Sends a signal to a service.
    pub fn signal_service(&self, service: &str, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.service_pid(service)).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The process ids of all shims.
    pub fn shims(&self) -> Vec<i32> {
        let root = self.root().to_string_lossy();
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split('\0').next().unwrap_or_default();
            program.ends_with("orlop-shim") && line.contains(&*root)
        })
        .collect()
    }

    /// The path of a service's socket.
    pub fn socket(&self, service: &str) -> PathBuf {
        self.run_dir().join(format!("{service}.sock"))
    }

    /// A channel to a service, for its generated client.
    pub fn channel(&self, service: &str) -> Channel {
        connect(&Endpoint::Unix(self.socket(service)))
    }

    /// The word in the names of the instance's bridge, tables and cgroups: FNV-1a of its root.
    pub fn name(&self) -> String {
        let bytes = self.root().as_os_str().as_encoded_bytes();
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        format!("{:08x}", bytes.iter().fold(0x811c_9dc5, step))
    }

    /// What the instance has on the host now.
    pub fn host_state(&self) -> HostState {
        HostState::of(self.root(), &self.name())
    }

    fn remove_containers(&self) {
        let ids = self.run(&["ps", "-aq", "--no-trunc"]).stdout();
        let mut args = vec!["rm", "-f", "-v"];
        args.extend(ids.lines());
        if args.len() > 3 {
            let outcome = self.run(&args);
            if outcome.code() != 0 {
                eprintln!(
                    "rm of the instance's containers failed: {}",
                    outcome.stderr()
                );
            }
        }
    }

    fn print_logs(&self) {
        let Ok(logs) = std::fs::read_dir(self.root().join("logs")) else {
            return;
        };
        for log in logs.flatten() {
            let text = std::fs::read_to_string(log.path()).unwrap_or_default();
            eprintln!("--- {}\n{text}", log.path().display());
        }
    }
}

impl InstanceBuilder {
    /// Where `/v2/` is to listen; otherwise a free port of 127.0.0.1.
    pub fn registry_http(mut self, address: &str) -> Self {
        self.registry_http = Some(address.to_owned());
        self
    }

    /// The instance, with nothing started.
    pub fn stopped(self) -> Instance {
        let directory = tempfile::Builder::new()
            .prefix("orlop-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let registry_http = self.registry_http.unwrap_or_else(free_address);
        Instance {
            directory,
            registry_http,
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// The instance, started.
    pub fn start(self) -> Instance {
        let instance = self.stopped();
        instance.up();
        instance
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        if self.run_dir().exists() {
            self.remove_containers();
            let name = self.name();
            let down = self.run(&["down"]);
            if std::thread::panicking() {
                return;
            }
            down.success();
            HostState::assert_gone(self.root(), &name);
        }
    }
}

/// An address of 127.0.0.1 that was free a moment ago. None of those that the kernel gives to whoever asks
/// for any: it would not be free for long.
pub(crate) fn free_address() -> String {
    const PORTS: std::ops::Range<u32> = 10_000..32_768;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(61) + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        let address = format!("127.0.0.1:{port}");
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}
