//! `orlop-oci` as other people's programs use it: by its command line, and as the runtime of dockerd.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use orlop_tests::{binary, eventually};

/// Everything that a root of a container holds here: one program under its many names.
const NAMES: [&str; 8] = ["sh", "cat", "echo", "sleep", "ps", "tty", "id", "true"];

fn make_root(root: &Path) {
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in NAMES {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// A bundle, and a directory of state that nobody else has.
struct Bundle {
    directory: tempfile::TempDir,
    /// Of the container, on the whole machine.
    id: String,
}

impl Bundle {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        make_root(&directory.path().join("rootfs"));
        let id = format!("oci-{name}-{}", std::process::id());
        let bundle = Self { directory, id };
        bundle.configure(&["true"], |_| {});
        bundle
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the specification: what every runtime's default has, and a change.
    fn configure(&self, command: &[&str], change: impl FnOnce(&mut serde_json::Value)) {
        let mut spec = serde_json::json!({
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
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            },
        });
        change(&mut spec);
        fs::write(self.path("config.json"), spec.to_string()).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("orlop-oci"));
        command.arg("--root").arg(self.path("state"));
        command.args(args).current_dir(self.directory.path());
        command
    }

    /// Streams lead to files: a container keeps its own open.
    fn run(&self, args: &[&str]) -> (i32, String) {
        let said = fs::File::create(self.path("said")).unwrap();
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stderr(said.try_clone().unwrap());
        let status = command.stdout(said).status().unwrap();
        let said = fs::read_to_string(self.path("said")).unwrap();
        (status.code().unwrap_or(-1), said)
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    fn status(&self) -> String {
        let state: serde_json::Value =
            serde_json::from_str(&self.succeeds(&["state", &self.id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.run(&["delete", "--force", &self.id]);
    }
}

#[test]
fn run_waits_and_exits_as_the_command_does() {
    let bundle = Bundle::new("run");
    bundle.configure(&["sh", "-c", "echo pid $$; exit 7"], |_| {});
    let (code, said) = bundle.run(&["run", &bundle.id]);
    assert_eq!((code, said.as_str()), (7, "pid 1\n"));
    assert!(!bundle.path("state").join(&bundle.id).exists());
}

#[test]
fn the_specification_to_begin_with_runs_a_shell() {
    let bundle = Bundle::new("spec");
    fs::remove_file(bundle.path("config.json")).unwrap();
    bundle.succeeds(&["spec"]);
    assert_eq!(bundle.run(&["spec"]).0, 1, "what is there stays");
    bundle.succeeds(&["run", &bundle.id]);
}

#[test]
fn a_container_lives_from_create_to_delete() {
    let bundle = Bundle::new("life");
    let id = bundle.id.clone();
    let id = id.as_str();
    bundle.configure(&["sh", "-c", "echo > /begun; sleep 1000"], |_| {});
    let begun = bundle.path("rootfs/begun");
    bundle.succeeds(&["create", "--pid-file", "pid", id]);
    assert_eq!(bundle.status(), "created");
    assert!(!begun.exists(), "its command waits");
    bundle.succeeds(&["start", id]);
    assert_eq!(bundle.status(), "running");
    eventually("its command runs", || begun.exists());
    let (code, said) = bundle.run(&["create", id]);
    assert!(code == 1 && said.contains("already exists"), "{said}");

    let (code, said) = bundle.run(&["exec", id, "sh", "-c", "echo inside; exit 3"]);
    assert_eq!((code, said.as_str()), (3, "inside\n"));
    let pid: u64 = fs::read_to_string(bundle.path("pid"))
        .unwrap()
        .parse()
        .unwrap();
    let listed = bundle.succeeds(&["ps", "--format", "json", id]);
    let listed: Vec<u64> = serde_json::from_str(&listed).unwrap();
    assert!(listed.contains(&pid), "{listed:?}");

    assert_eq!(bundle.succeeds(&["list", "--quiet"]), format!("{id}\n"));
    bundle.succeeds(&["pause", id]);
    assert_eq!(bundle.status(), "paused");
    bundle.succeeds(&["resume", id]);
    let (code, said) = bundle.run(&["delete", id]);
    assert!(code == 1 && said.contains("running"), "{said}");
    bundle.succeeds(&["kill", id, "KILL"]);
    eventually("it has ended", || bundle.status() == "stopped");
    let (code, said) = bundle.run(&["kill", id, "KILL"]);
    assert!(
        code == 1 && said.contains("container not running"),
        "{said}"
    );
    bundle.succeeds(&["delete", id]);
    let (code, said) = bundle.run(&["state", id]);
    assert!(code == 1 && said.contains("does not exist"), "{said}");
}

#[test]
fn a_command_that_is_not_there_is_known_when_the_container_is_made() {
    let bundle = Bundle::new("missing");
    fs::write(bundle.path("rootfs/bin/text"), "").unwrap();
    for (command, reason) in [
        ("nonesuch", "executable file not found in $PATH"),
        ("/nonesuch", "no such file or directory"),
        ("text", "permission denied"),
    ] {
        bundle.configure(&[command], |_| {});
        let (code, said) = bundle.run(&["create", &bundle.id]);
        assert!(code == 1 && said.contains(reason), "{said}");
    }
}

#[test]
fn limits_of_the_specification_are_set_and_changed_and_leave_nothing() {
    let bundle = Bundle::new("limits");
    bundle.configure(&["sleep", "1000"], |spec| {
        spec["linux"]["resources"] = serde_json::json!({"pids": {"limit": 20}});
    });
    bundle.succeeds(&["create", &bundle.id]);
    let below = format!("{}/pids.max", bundle.id);
    let tops = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let files = tops.map(|top| Path::new(top).join(&below));
    let file = files.iter().find(|file| file.exists()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "20");
    fs::write(bundle.path("r.json"), r#"{"pids": {"limit": 30}}"#).unwrap();
    bundle.succeeds(&["update", "--resources", "r.json", &bundle.id]);
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "30");
    bundle.succeeds(&["delete", "--force", &bundle.id]);
    assert!(!file.parent().unwrap().exists());
}

#[test]
fn hooks_are_told_of_the_state() {
    let bundle = Bundle::new("hooks");
    let hook = |name: &str| {
        let to = bundle.path(name);
        let script = format!("cat > {}", to.display());
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10,
                            "env": ["PATH=/usr/bin:/bin"]}])
    };
    let hooks = serde_json::json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    bundle.configure(&["true"], |spec| spec["hooks"] = hooks);
    bundle.succeeds(&["run", &bundle.id]);
    for (name, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let told = fs::read_to_string(bundle.path(name)).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["status"], status, "{name}");
        assert_eq!(told["id"], bundle.id.as_str(), "{name}");
    }
}

#[test]
fn a_hook_that_fails_undoes_the_container() {
    let bundle = Bundle::new("hook");
    bundle.configure(&["true"], |spec| {
        let hook =
            serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 1"]}]);
        spec["hooks"] = serde_json::json!({ "createRuntime": hook });
    });
    let (code, said) = bundle.run(&["create", &bundle.id]);
    assert!(
        code == 1 && said.contains("/bin/sh failed") && said.contains("no"),
        "{said}"
    );
    assert!(!bundle.path("state").join(&bundle.id).exists());
}

/// A directory that a descriptor of the runtime leads to (CVE-2024-21626).
#[test]
fn b13_no_working_directory_is_outside_of_the_container() {
    let bundle = Bundle::new("cwd");
    let id = bundle.id.as_str();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.configure(&["true"], |spec| spec["process"]["cwd"] = cwd.into());
        let (code, said) = bundle.run(&["run", id]);
        assert_eq!(code, 1, "{number}: {said}");
    }
    bundle.configure(&["sleep", "1000"], |_| {});
    bundle.succeeds(&["run", "--detach", id]);
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let (code, said) = bundle.run(&["exec", "--cwd", &cwd, id, "true"]);
        assert_eq!(code, 1, "{number}: {said}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_its_name() {
    let bundle = Bundle::new("refused");
    for options in [["--no-pivot"], ["--systemd-cgroup"], ["--preserve-fds=1"]] {
        let name = options[0].split('=').next().unwrap();
        let (code, said) = bundle.run(&["create", options[0], &bundle.id]);
        assert!(code == 1 && said.contains(name), "{said}");
    }
    for (pointer, value) in [
        ("/process/apparmorProfile", "docker-default".into()),
        ("/domainname", "example".into()),
        (
            "/linux/personality",
            serde_json::json!({"domain": "LINUX32"}),
        ),
    ] {
        bundle.configure(&["true"], |spec| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value;
        });
        let args = ["--log", "log", "--log-format", "json", "run", &bundle.id];
        let (code, said) = bundle.run(&args);
        let name = pointer.trim_start_matches('/').replace('/', ".");
        assert!(code == 1 && said.contains(&name), "{said}");
        let log = fs::read_to_string(bundle.path("log")).unwrap();
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains(&name), "{line}");
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
            .arg(format!("--cgroup-parent=/{}", parent()))
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

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        let socket = self.directory.path().join("docker.sock");
        command
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    }

    /// An image of busybox.
    fn import(&self) {
        let root = self.directory.path().join("rootfs");
        make_root(&root);
        let mut archive = tar::Builder::new(Vec::new());
        archive.follow_symlinks(false);
        archive.append_dir_all(".", &root).unwrap();
        let archive = archive.into_inner().unwrap();
        let mut import = self.command(&["import", "-", "bb"]);
        let mut import = import
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(import.wait().unwrap().success());
    }

    /// What a command says on a terminal.
    fn on_terminal(&self, args: &[&str]) -> Output {
        let command = self.command(args);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
        let mut script = Command::new("script");
        script.args(["-qec", &words.join(" "), "/dev/null"]);
        script.stdin(Stdio::null()).output().unwrap()
    }
}

/// The cgroup above those of dockerd's containers.
fn parent() -> String {
    format!("oci-docker-{}", std::process::id())
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.daemon.wait().ok();
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let groups = hierarchies.map(|hierarchy| hierarchy.path().join(parent()));
        for group in groups.chain([Path::new("/sys/fs/cgroup").join(parent())]) {
            fs::remove_dir(group).ok();
        }
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
    let output = docker.on_terminal(&["exec", "-it", "one", "tty"]);
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    docker.succeeds(&["stop", "--time=1", "one"]);
    docker.succeeds(&["rm", "one"]);

    let output = docker.on_terminal(&["run", "--rm", "-it", "bb", "sh", "-c", "tty; exit 4"]);
    assert!(text(&output).contains("/dev/pts/"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(4));
}
