//! `orlop-oci` as the runtime of other people's engines: dockerd, containerd and podman, as Debian has
//! them, each with directories of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use orlop_tests::fixtures::busybox_rootfs;
use orlop_tests::{binary, eventually, have};

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Runs a command that reads `input`.
fn feed(command: &mut Command, input: &[u8]) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What a command says on a terminal.
fn on_terminal(command: &Command) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]);
    script.stdin(Stdio::null()).output().unwrap()
}

fn end(daemon: &mut Child) {
    let pid = rustix::process::Pid::from_child(daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
    daemon.wait().ok();
}

/// The cgroup above those of an engine's containers.
fn parent(engine: &str) -> String {
    format!("oci-{engine}-{}", std::process::id())
}

/// All groups of this name, one per hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).unwrap().flatten();
    let groups = hierarchies.map(|hierarchy| hierarchy.path().join(name));
    let groups = groups.chain([top.join(name)]);
    groups.filter(|group| group.is_dir()).collect()
}

/// Removes the groups, whose containers are gone, with that of podman's monitors.
fn remove_groups(name: &str) {
    for group in groups(name) {
        fs::remove_dir(group.join("conmon")).ok();
        fs::remove_dir(group).ok();
    }
}

/// Whether a process has this among its arguments.
fn runs(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let mut lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.any(|line| line.contains(argument))
}

fn is_mounted(below: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(&*below.to_string_lossy())
}

/// An engine of our own, by the command line of its client.
trait Engine {
    fn command(&self, args: &[&str]) -> Command;

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    }

    /// What a command says on a terminal.
    fn on_terminal(&self, args: &[&str]) -> Output {
        on_terminal(&self.command(args))
    }
}

/// A dockerd of our own, without a network, whose runtime is ours.
struct Docker {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    fn start() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| directory.path().join(name);
        let runtime = format!("orlop={}", binary("orlop-oci").display());
        let daemon = Command::new("/usr/sbin/dockerd")
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false"])
            .args(["--storage-driver=vfs", "--add-runtime", &runtime])
            .arg(format!("--cgroup-parent=/{}", parent("docker")))
            .args(["--default-runtime=orlop", "--host"])
            .arg(format!("unix://{}", path("docker.sock").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let docker = Self { directory, daemon };
        eventually("dockerd answers", || {
            docker.run(&["version"]).status.success()
        });
        docker.import();
        docker
    }

    /// An image of busybox.
    fn import(&self) {
        feed(&mut self.command(&["import", "-", "bb"]), &busybox_rootfs());
    }
}

impl Engine for Docker {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        let socket = self.directory.path().join("docker.sock");
        command
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .args(args);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        end(&mut self.daemon);
        remove_groups(&parent("docker"));
    }
}

#[test]
fn dockerd_runs_its_containers_with_it() {
    let docker = Docker::start();
    let output = docker.run(&["run", "--rm", "bb", "sh", "-c", "echo hello; exit 5"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert_eq!(output.stdout, b"hello\n");
    let output = docker.run(&["run", "--rm", "bb", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(127), "{}", text(&output));
    let said = docker.succeeds(&["run", "--rm", "--user", "7:8", "--read-only", "bb", "id"]);
    assert!(said.contains("uid=7 gid=8"), "{said}");

    docker.succeeds(&[
        "run",
        "-d",
        "--name",
        "one",
        "--memory=64m",
        "bb",
        "sleep",
        "1000",
    ]);
    let output = docker.run(&["exec", "one", "sh", "-c", "echo inside; exit 3"]);
    assert_eq!(
        (output.status.code(), text(&output).as_str()),
        (Some(3), "inside\n")
    );
    docker.succeeds(&["pause", "one"]);
    let format = ["inspect", "--format", "{{.State.Status}}", "one"];
    assert_eq!(docker.succeeds(&format), "paused\n");
    docker.succeeds(&["unpause", "one"]);
    docker.succeeds(&["update", "--memory=96m", "--memory-swap=96m", "one"]);
    let top = docker.succeeds(&["top", "one"]);
    assert!(top.contains("sleep 1000"), "{top}");
    let output = docker.on_terminal(&["exec", "-it", "one", "busybox", "tty"]);
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    docker.succeeds(&["stop", "--time=1", "one"]);
    docker.succeeds(&["rm", "one"]);

    let output = docker.on_terminal(&[
        "run",
        "--rm",
        "-it",
        "bb",
        "sh",
        "-c",
        "busybox tty; exit 4",
    ]);
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(4));
}

/// A containerd of our own.
struct Containerd {
    directory: tempfile::TempDir,
    daemon: Child,
    /// Of its containers, and the cgroup above them.
    namespace: String,
}

impl Containerd {
    fn start() -> Self {
        assert!(have("containerd"), "install docker.io (make test does)");
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| directory.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            path("data"),
            path("state"),
            path("sock"),
        );
        fs::write(path("config.toml"), config).unwrap();
        tar::Archive::new(&*busybox_rootfs())
            .unpack(path("rootfs"))
            .unwrap();
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(path("config.toml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let containerd = Self {
            directory,
            daemon,
            namespace: parent("containerd"),
        };
        eventually("containerd answers", || {
            containerd.run(&["version"]).status.success()
        });
        containerd
    }

    /// `ctr run` of a command in the root that all containers share.
    fn container(&self, options: &[&str], id: &str, command: &[&str]) -> Command {
        let mut run = self.command(&["run"]);
        run.args(options)
            .arg("--runc-binary")
            .arg(binary("orlop-oci"));
        run.arg("--rootfs")
            .arg(self.directory.path().join("rootfs"));
        run.arg(id).args(command).stdin(Stdio::null());
        run
    }

    /// Empty while the task's shim does not answer.
    fn status(&self, id: &str) -> String {
        let listed = self.succeeds(&["tasks", "ls"]);
        let line = listed.lines().find(|line| line.starts_with(id));
        let word = line.and_then(|line| line.split_whitespace().last());
        word.unwrap_or_default().to_owned()
    }

    /// Nothing runs, is mounted or limited any more.
    fn assert_clean(&self) {
        eventually("no shim is left", || {
            !runs(&format!("-namespace\0{}", self.namespace))
        });
        assert!(!is_mounted(self.directory.path()));
        let inside = |group: PathBuf| fs::read_dir(group).unwrap().flatten();
        let mut inside = groups(&self.namespace).into_iter().flat_map(inside);
        assert!(!inside.any(|entry| entry.path().is_dir()));
    }
}

impl Engine for Containerd {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        let socket = self.directory.path().join("sock");
        command.arg("--address").arg(socket);
        command.args(["--namespace", &self.namespace]).args(args);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in self
            .run(&["containers", "ls", "-q"])
            .stdout
            .split(|&byte| byte == b'\n')
        {
            let id = String::from_utf8_lossy(id);
            self.run(&["tasks", "delete", "--force", &id]);
        }
        end(&mut self.daemon);
        remove_groups(&self.namespace);
    }
}

#[test]
fn containerd_runs_its_containers_with_it() {
    let containerd = Containerd::start();
    let script = ["sh", "-c", "echo hello; exit 5"];
    let output = containerd.container(&["--rm"], "one", &script).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert_eq!(output.stdout, b"hello\n");
    let output = containerd
        .container(&["--rm"], "none", &["/nonexistent"])
        .output();
    let output = output.unwrap();
    assert!(
        text(&output).contains("no such file or directory"),
        "{}",
        text(&output)
    );
    let output = on_terminal(&containerd.container(
        &["--rm", "-t"],
        "tty",
        &["sh", "-c", "busybox tty; exit 4"],
    ));
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(4));

    let mut detached = containerd.container(&["-d"], "two", &["sleep", "1000"]);
    assert!(detached.status().unwrap().success());
    assert_eq!(containerd.status("two"), "RUNNING");
    let exec = [
        "tasks",
        "exec",
        "--exec-id",
        "more",
        "two",
        "sh",
        "-c",
        "echo inside; exit 3",
    ];
    let output = containerd.run(&exec);
    assert_eq!(
        (output.status.code(), text(&output).as_str()),
        (Some(3), "inside\n")
    );
    containerd.succeeds(&["tasks", "pause", "two"]);
    assert_eq!(containerd.status("two"), "PAUSED");
    containerd.succeeds(&["tasks", "resume", "two"]);
    assert_eq!(containerd.status("two"), "RUNNING");
    let metrics = containerd.succeeds(&["tasks", "metrics", "two"]);
    assert!(metrics.contains("pids.current"), "{metrics}");
    containerd.succeeds(&["tasks", "kill", "--signal", "SIGKILL", "two"]);
    eventually("it has ended", || containerd.status("two") == "STOPPED");
    containerd.run(&["tasks", "delete", "two"]);
    containerd.succeeds(&["containers", "delete", "two"]);
    assert_eq!(containerd.succeeds(&["containers", "ls", "-q"]), "");
    containerd.assert_clean();
}

/// `ctr run` leaves a task behind that was made and does not start, with its shim; whoever removes the
/// task is rid of both.
#[test]
fn containerd_gets_rid_of_what_does_not_start() {
    let containerd = Containerd::start();
    let text_file = containerd.directory.path().join("rootfs/bin/text");
    fs::write(&text_file, "no program").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(text_file, executable).unwrap();
    let output = containerd.container(&[], "text", &["/bin/text"]).output();
    let output = output.unwrap();
    assert!(
        text(&output).contains("exec format error"),
        "{}",
        text(&output)
    );
    eventually("it is removed", || {
        containerd.run(&["tasks", "delete", "--force", "text"]);
        let removed = containerd.run(&["containers", "delete", "text"]);
        removed.status.success()
    });
    containerd.assert_clean();
}

/// A podman with directories of its own.
struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    fn start() -> Self {
        assert!(have("podman"), "install podman (make test does)");
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let podman = Self { directory };
        feed(
            &mut podman.command(&["import", "-", "bb"]),
            &busybox_rootfs(),
        );
        podman
    }

    /// `podman run` without a network: that takes programs that podman does not always come with.
    fn container(&self, options: &[&str], command: &[&str]) -> Command {
        let group = format!("--cgroup-parent=/{}", parent("podman"));
        let mut run = self.command(&["run", "--network=none", &group]);
        run.args(options).arg("bb").args(command);
        run.stdin(Stdio::null());
        run
    }

    fn status(&self, name: &str) -> String {
        let format = "{{.State.Status}}";
        let status = self.succeeds(&["inspect", "--format", format, name]);
        status.trim().to_owned()
    }
}

impl Engine for Podman {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (option, name) in [
            ("--root", "data"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(self.directory.path().join(name));
        }
        command.args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs"]);
        command.arg("--events-backend=file");
        command.arg("--runtime").arg(binary("orlop-oci")).args(args);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["rm", "--all", "--force", "--time=0"]);
        let directory = self.directory.path().to_string_lossy().into_owned();
        eventually("no monitor is left", || !runs(&directory));
        for mount in ["data/vfs", "data"] {
            // podman makes its directory a mount for itself, and leaves it.
            let mount = self.directory.path().join(mount);
            rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).ok();
        }
        remove_groups(&parent("podman"));
    }
}

#[test]
fn podman_runs_its_containers_with_it() {
    let podman = Podman::start();
    let script = ["sh", "-c", "echo hello; exit 5"];
    let output = podman.container(&["--rm"], &script).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert_eq!(output.stdout, b"hello\n");
    let output = podman.container(&["--rm"], &["/nonexistent"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(127), "{}", text(&output));
    let output = podman.container(&["--rm", "--user=7:8", "--read-only"], &["id"]);
    let output = { output }.output().unwrap();
    assert!(text(&output).contains("uid=7"), "{}", text(&output));
    let output =
        on_terminal(&podman.container(&["--rm", "-it"], &["sh", "-c", "busybox tty; exit 4"]));
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(4));

    let mut one = podman.container(&["-d", "--name=one", "--memory=64m"], &["sleep", "1000"]);
    let output = one.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let output = podman.run(&["exec", "one", "sh", "-c", "echo inside; exit 3"]);
    assert_eq!(
        (output.status.code(), text(&output).as_str()),
        (Some(3), "inside\n")
    );
    let output = podman.on_terminal(&["exec", "-it", "one", "busybox", "tty"]);
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    podman.succeeds(&["pause", "one"]);
    assert_eq!(podman.status("one"), "paused");
    podman.succeeds(&["unpause", "one"]);
    assert_eq!(podman.status("one"), "running");
    let top = podman.succeeds(&["top", "one"]);
    assert!(top.contains("sleep 1000"), "{top}");
    let stats = podman.succeeds(&["stats", "--no-stream", "one"]);
    assert!(stats.contains("67.11MB"), "{stats}");
    podman.succeeds(&["stop", "--time=1", "one"]);
    assert_eq!(podman.status("one"), "exited");
    podman.succeeds(&["start", "one"]);
    podman.succeeds(&["rm", "--force", "--time=0", "one"]);
    assert_eq!(podman.succeeds(&["ps", "--all", "--quiet"]), "");
}
