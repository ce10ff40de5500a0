//! What is compared: each engine as its users use it, by its command line.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use orlop_tests::{Instance, eventually, have, http};
use tempfile::TempDir;

use crate::machine;

/// An engine that runs Docker's commands.
pub(crate) trait Engine: Sync {
    /// For the table.
    fn name(&self) -> &'static str;
    /// What its processes are told from others by: it is in their arguments.
    fn directory(&self) -> &Path;
    /// The processes that run with or without containers.
    fn services(&self) -> Vec<i32>;
    /// `docker ARGS`, or its like.
    fn command(&self, args: &[&str]) -> Command;

    /// Runs to success.
    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{} {args:?}: {}",
            self.name(),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}

/// Ours, and Docker's if it is installed.
pub(crate) fn start_all() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(Orlop::start())];
    match Docker::start() {
        Some(docker) => engines.push(Box::new(docker)),
        None => println!("skipped: docker (dockerd is not installed)"),
    }
    engines
}

/// Ours.
pub(crate) struct Orlop(Instance);

impl Orlop {
    pub(crate) fn start() -> Self {
        Self(Instance::start())
    }
}

impl Engine for Orlop {
    fn name(&self) -> &'static str {
        "orlop"
    }

    fn directory(&self) -> &Path {
        self.0.root()
    }

    fn services(&self) -> Vec<i32> {
        let names = ["store", "builder", "runtime", "registry"];
        names.map(|name| self.0.service_pid(name)).into()
    }

    fn command(&self, args: &[&str]) -> Command {
        self.0.command(args)
    }
}

/// Debian's, or whichever is on the `PATH`, with directories of its own.
pub(crate) struct Docker {
    // First, so that it ends before its directory goes: it unmounts its data only while it finds the
    // note about that in there.
    daemon: Option<Daemon>,
    directory: TempDir,
}

impl Docker {
    pub(crate) fn start() -> Option<Self> {
        if !have("dockerd") || !have("docker") {
            return None;
        }
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let mut command = Command::new("dockerd");
        command
            .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
            .args([
                "--pidfile",
                &path("pid"),
                "-H",
                &format!("unix://{}", path("sock")),
            ]);
        let daemon = Daemon::start(&mut command, &directory.path().join("log"));
        let docker = Self {
            directory,
            daemon: Some(daemon),
        };
        eventually("dockerd answers", || {
            docker
                .command(&["info"])
                .output()
                .is_ok_and(|output| output.status.success())
        });
        Some(docker)
    }
}

impl Drop for Docker {
    /// The daemon leaves containers to their shims, and its data directory mounted on itself.
    fn drop(&mut self) {
        let list = self.command(&["ps", "-aq"]).output();
        let ids = list.map_or_else(|_| Vec::new(), |output| output.stdout);
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            self.command(&["rm", "-f", id]).output().ok();
        }
        drop(self.daemon.take());
        let data = self.directory.path().join("data");
        rustix::mount::unmount(data, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn services(&self) -> Vec<i32> {
        let mut found = machine::processes_of(self.directory());
        found.retain(|pid| !machine::program_name(*pid).starts_with("containerd-shim"));
        found
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let socket = format!("unix://{}", self.directory.path().join("sock").display());
        command
            .args(["-H", &socket])
            .args(args)
            .env("HOME", self.directory.path());
        command.env("DOCKER_BUILDKIT", "0");
        command
    }
}

/// Debian's docker-registry: both engines push to it and pull from it.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    _daemon: Daemon,
    _directory: TempDir,
}

impl Registry {
    pub(crate) fn installed() -> bool {
        have("docker-registry")
    }

    pub(crate) fn start() -> Option<Self> {
        if !Self::installed() {
            return None;
        }
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let address = "127.0.0.1:5999".to_owned();
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            directory.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        let daemon = Daemon::start(
            command.arg("serve").arg(config),
            &directory.path().join("log"),
        );
        eventually("docker-registry answers", || {
            http::get(&*address, "/v2/").is_some()
        });
        Some(Self {
            address,
            _directory: directory,
            _daemon: daemon,
        })
    }
}

/// A background process that ends with the benchmark.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        Self(
            command
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}
