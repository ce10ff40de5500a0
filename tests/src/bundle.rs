//! Bundles for `orlop-oci`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::binary;

/// Busybox under the names that tests use.
const NAMES: [&str; 17] = [
    "sh", "cat", "echo", "sleep", "true", "ls", "head", "wc", "grep", "readlink", "mkdir", "stat",
    "mknod", "rm", "ps", "tail", "id",
];

/// Namespaces that every bundle asks for.
const NAMESPACES: [&str; 4] = ["pid", "mount", "ipc", "uts"];

/// A bundle, and a directory of state that nobody else has.
#[derive(Debug)]
pub struct Bundle {
    directory: tempfile::TempDir,
    /// Of the container, on the whole machine.
    pub id: String,
    namespaces: Vec<&'static str>,
}

impl Bundle {
    /// One whose root has busybox in it, and no directory for the kernel's file systems.
    pub fn new() -> Self {
        Self::with(&["bin", "tmp"], &["network"])
    }

    /// One whose root has those directories, as most images do, and which has the network of the host.
    pub fn of_an_image() -> Self {
        Self::with(&["bin", "dev", "proc", "sys", "tmp"], &[])
    }

    fn with(directories: &[&str], namespaces: &[&'static str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new()
            .prefix("orlop-bundle-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bundle = Self {
            directory,
            id: format!("orlop-bundle-{}-{number}", std::process::id()),
            namespaces: [&NAMESPACES, namespaces].concat(),
        };
        for name in directories {
            fs::create_dir_all(bundle.root().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", bundle.root().join("bin/busybox")).unwrap();
        for name in NAMES {
            symlink("busybox", bundle.root().join("bin").join(name)).unwrap();
        }
        bundle.configure(&["true"], |_| {});
        bundle
    }

    /// A file of the bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The root of the container to be.
    pub fn root(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// Writes the specification: the mounts and namespaces that everybody has, and a change.
    pub fn configure(&self, command: &[&str], change: impl FnOnce(&mut Value)) {
        let namespaces = self.namespaces.iter().map(|kind| json!({"type": kind}));
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": command, "env": ["PATH=/bin"],
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            ],
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": namespaces.collect::<Vec<_>>(),
            },
        });
        change(&mut spec);
        fs::write(self.path("config.json"), spec.to_string()).unwrap();
    }

    /// `orlop-oci ARGS` with the bundle as its working directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("orlop-oci"));
        command.arg("--root").arg(self.path("state"));
        command.args(args).current_dir(self.directory.path());
        command
    }

    /// Runs it to its end: code, and what it and the container said.
    pub fn call(&self, args: &[&str]) -> (i32, String) {
        // A file, not a pipe: a container keeps its streams open.
        let said = fs::File::create(self.path("said")).unwrap();
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stderr(said.try_clone().unwrap());
        let status = command.stdout(said).status().unwrap();
        let said = fs::read(self.path("said")).unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        (status.code().unwrap_or(-1), said)
    }

    /// `run`.
    pub fn run(&self) -> (i32, String) {
        self.call(&["run", &self.id])
    }

    /// `run --detach`, which works.
    #[track_caller]
    pub fn start(&self) {
        self.succeeds(&["run", "--detach", &self.id]);
    }

    /// Runs it, and it works: what was said.
    #[track_caller]
    pub fn succeeds(&self, args: &[&str]) -> String {
        let (code, said) = self.call(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    /// `run`, which fails for this reason.
    #[track_caller]
    pub fn refuses_to_run(&self, reason: &str) {
        self.refuses(&["run", &self.id], reason);
    }

    /// Runs it, and it fails for this reason.
    #[track_caller]
    pub fn refuses(&self, args: &[&str], reason: &str) {
        let (code, said) = self.call(args);
        let spec = fs::read_to_string(self.path("config.json")).unwrap_or_default();
        assert!(
            code == 1 && said.contains(reason),
            "{args:?}: {code}, {said} of {spec}"
        );
    }

    /// What `state` tells.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.succeeds(&["state", &self.id])).unwrap()
    }

    /// `created`, `running`, `paused` or `stopped`.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Whether nothing of the container is left: neither its state nor a control group.
    pub fn is_gone(&self) -> bool {
        let groups = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let mut groups = groups.map(|entry| entry.path().join(&self.id));
        let top = Path::new("/sys/fs/cgroup").join(&self.id);
        !self.path("state").join(&self.id).exists() && !top.exists() && !groups.any(|g| g.exists())
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.call(&["delete", "--force", &self.id]);
    }
}
