//! Debian's Docker engine, with directories of its own and no network.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A running engine. It ends before its directory goes: it unmounts its data only while it finds the
/// note about that in there.
pub(crate) struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Docker {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| directory.path().join(name);
        let log = fs::File::create(path("log")).unwrap();
        let daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("-H")
            .arg(format!("unix://{}", path("sock").display()))
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip-forward=false",
                "--ip-masq=false",
            ])
            .args(["--storage-driver=overlay2"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("install docker.io");
        let docker = Self { daemon, directory };
        let start = Instant::now();
        while !docker.command(&["info"]).output().unwrap().status.success() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "dockerd does not answer"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        docker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let socket = format!("unix://{}", self.directory.path().join("sock").display());
        command.arg("-H").arg(socket).args(args);
        command
            .env("DOCKER_BUILDKIT", "0")
            .env("HOME", self.directory.path());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// The output, if it succeeds.
    pub(crate) fn try_run(&self, args: &[&str]) -> Option<String> {
        let out = self.command(args).output().unwrap();
        out.status
            .success()
            .then(|| String::from_utf8(out.stdout).unwrap())
    }

    /// The directories of an image's layers, topmost first.
    pub(crate) fn layers(&self, image: &str) -> Vec<String> {
        let part = |name: &str| {
            let format = format!("{{{{.GraphDriver.Data.{name}}}}}");
            self.run(&["image", "inspect", "-f", &format, image])
        };
        let lower = part("LowerDir");
        let below = lower
            .split(':')
            .filter(|path| path.starts_with('/'))
            .map(str::to_owned);
        std::iter::once(part("UpperDir")).chain(below).collect()
    }

    /// A place for files that go with the engine.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.daemon.wait().ok();
    }
}
