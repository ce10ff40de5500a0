//! A container's directory, its documents, and the service's side of the protocol.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use orlop_shim::config::{Away, Cgroup, ExitStatus, RootMount, ShimConfig};
use orlop_shim::protocol::{
    Kind, Reply, Request, VERSION, decode, encode, read_frame, write_frame,
};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A container to be.
pub(crate) struct Box {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Value,
    pub(crate) config: ShimConfig,
    child: Option<std::process::Child>,
}

/// The specification that the runtime writes, in short.
fn spec(args: &[&str]) -> Value {
    let caps = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL"
    ]);
    json!({
        "ociVersion": "1.2.0",
        "hostname": "box",
        "root": {"path": "/", "readonly": false},
        "annotations": {"org.orlop.seccomp": "default"},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "permitted": caps, "effective": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524_288}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"},
                           {"type": "network"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore",
                "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
                "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
                "/sys/firmware", "/sys/fs/selinux"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"],
        },
    })
}

impl Box {
    /// A container that runs `args` on a root of busybox.
    pub(crate) fn new(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        for name in ["lower", "upper", "work", "volume"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        busybox(&path.join("lower"));
        let config = ShimConfig {
            version: VERSION,
            id: "test".to_owned(),
            socket: path.join("shim.sock"),
            root: RootMount {
                lower: vec![path.join("lower")],
                upper: path.join("upper"),
                work: path.join("work"),
            },
            open_stdin: false,
            cgroups: Vec::new(),
            log_bytes_max: 0,
            log_files: 2,
            copy_up: Vec::new(),
            window: None,
            user: String::new(),
            groups: Vec::new(),
            create_cwd: true,
            volatile_exit: false,
            init: false,
            shm_from: None,
            health: None,
            away: Away::default(),
            runtime: None,
        };
        Self {
            dir,
            spec: spec(args),
            config,
            child: None,
        }
    }

    /// A shell with a script.
    pub(crate) fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// The image's directory.
    pub(crate) fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    pub(crate) fn terminal(mut self) -> Self {
        self.spec["process"]["terminal"] = json!(true);
        self.config.open_stdin = true;
        self
    }

    pub(crate) fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Makes a cgroup of its own in the v1 hierarchies of `controllers`.
    pub(crate) fn cgroup(&mut self, controllers: &[(&str, &[(&str, &str)])]) {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("orlop-test-{}-{number}", std::process::id());
        for (controller, settings) in controllers {
            let path = Path::new("/sys/fs/cgroup").join(controller).join(&name);
            fs::create_dir(&path).unwrap();
            for (file, value) in *settings {
                fs::write(path.join(file), value).unwrap();
            }
            let controllers = Some((*controller).to_owned());
            self.config.cgroups.push(Cgroup { path, controllers });
        }
    }

    /// Makes a cgroup of its own in the v2 hierarchy, wherever this host has it.
    pub(crate) fn unified_cgroup(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let mount = line.unwrap().split(' ').nth(4).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(mount).join(format!("orlop-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        self.config.cgroups.push(Cgroup {
            path,
            controllers: None,
        });
    }

    /// Starts the shim; the socket's first message.
    pub(crate) fn create(&mut self) -> (UnixStream, Reply) {
        let path = self.dir.path();
        fs::write(path.join("config.json"), self.spec.to_string()).unwrap();
        fs::write(
            path.join("shim.json"),
            serde_json::to_vec(&self.config).unwrap(),
        )
        .unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_orlop-shim"))
            .arg(path)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        self.child = Some(child);
        let mut ours = ours;
        let reply = receive(&mut ours);
        (ours, reply)
    }

    /// Creates and starts; the pid.
    pub(crate) fn start(&mut self) -> i32 {
        let (mut start, reply) = self.create();
        assert!(
            matches!(reply, Reply::Created { .. }),
            "{reply:?} {}",
            self.own_log()
        );
        send(&mut start, &Request::Start);
        match receive(&mut start) {
            Reply::Started { pid } => pid,
            other => panic!("{other:?} {}", self.own_log()),
        }
    }

    /// Creates and tries to start: how that failed.
    pub(crate) fn start_fails(&mut self) -> Reply {
        let (mut start, mut reply) = self.create();
        if matches!(reply, Reply::Created { .. }) {
            send(&mut start, &Request::Start);
            reply = receive(&mut start);
        }
        self.ended();
        reply
    }

    /// Runs it to its end: code and output.
    pub(crate) fn run(&mut self) -> (i32, String) {
        self.start();
        self.ended();
        (self.exit().code, self.output())
    }

    /// Waits for the shim's end.
    pub(crate) fn ended(&mut self) {
        let child = self.child.as_mut().unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the shim does not end"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn exit(&self) -> ExitStatus {
        let bytes = fs::read(self.dir.path().join("exit.json")).expect("exit.json");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The log's lines, put together.
    pub(crate) fn output(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("container.log")).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| line["log"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn own_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("shim.log")).unwrap_or_default()
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// A new connection with its first request.
    pub(crate) fn request(&self, request: &Request) -> UnixStream {
        let mut stream = UnixStream::connect(&self.config.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        send(&mut stream, request);
        stream
    }

    /// A request and its only answer.
    pub(crate) fn ask(&self, request: &Request) -> Reply {
        receive(&mut self.request(request))
    }

    /// Runs one more process: how it began.
    pub(crate) fn exec_with(
        &self,
        user: &str,
        change: impl FnOnce(&mut Value),
    ) -> (UnixStream, Reply) {
        let mut process = self.spec["process"].clone();
        process["terminal"] = json!(false);
        change(&mut process);
        let mut stream = self.ask_to_run(user, process);
        let reply = receive(&mut stream);
        (stream, reply)
    }

    /// Asks for one more process; the answer is to come.
    pub(crate) fn ask_to_run(&self, user: &str, process: Value) -> UnixStream {
        self.request(&Request::Exec {
            process: std::boxed::Box::new(serde_json::from_value(process).unwrap()),
            user: user.to_owned(),
            stdin: true,
            window: None,
            detach: false,
        })
    }

    /// Runs one more process to its end: code and output.
    pub(crate) fn exec(&self, user: &str, args: &[&str]) -> (i32, String) {
        let (mut stream, reply) = self.exec_with(user, |process| process["args"] = json!(args));
        assert!(
            matches!(reply, Reply::Started { .. }),
            "{reply:?} {}",
            self.own_log()
        );
        let (output, code) = drain(&mut stream);
        (code, output)
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            if child.try_wait().ok().flatten().is_none() {
                let kill = Request::Signal {
                    signal: 9,
                    all: false,
                };
                if let Ok(mut stream) = UnixStream::connect(&self.config.socket) {
                    send(&mut stream, &kill);
                    stream.read_to_end(&mut Vec::new()).ok();
                }
                std::thread::sleep(Duration::from_millis(50));
                child.kill().ok();
            }
            child.wait().ok();
        }
        for cgroup in &self.config.cgroups {
            for _ in 0..100 {
                if fs::remove_dir(&cgroup.path).is_ok() || !cgroup.path.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Everything until the end of the process: output and code.
pub(crate) fn drain(stream: &mut UnixStream) -> (String, i32) {
    let (output, last) = drain_to(stream);
    let output = String::from_utf8_lossy(&output).into_owned();
    match last {
        Some(Reply::Exited { code, .. }) => (output, code),
        other => panic!("{other:?} after {output:?}"),
    }
}

/// Everything until the first reply or the end of the stream.
pub(crate) fn drain_to(stream: &mut UnixStream) -> (Vec<u8>, Option<Reply>) {
    let mut output = Vec::new();
    while let Some((kind, payload)) = read_frame(stream).unwrap() {
        match kind {
            Kind::Message => return (output, Some(decode(&payload).unwrap())),
            _ => output.extend(payload),
        }
    }
    (output, None)
}

/// Reads output until `wanted` is in it.
pub(crate) fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut output = String::new();
    while !output.contains(wanted) {
        let (_, payload) = read_frame(stream).unwrap().expect(&output);
        output.push_str(&String::from_utf8_lossy(&payload));
    }
    output
}

pub(crate) fn send(stream: &mut UnixStream, request: &Request) {
    write_frame(stream, Kind::Message, &encode(request).unwrap()).unwrap();
}

pub(crate) fn receive(stream: &mut UnixStream) -> Reply {
    let (kind, payload) = read_frame(stream).unwrap().expect("a reply");
    assert_eq!(kind, Kind::Message);
    decode(&payload).unwrap()
}

fn busybox(root: &Path) {
    for name in ["bin", "etc", "tmp", "root", "home"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let names = "sh true false cat echo ls sleep id grep mkdir mknod mount touch head dd stty tty \
                 hostname pwd env kill readlink wc yes unshare sed stat dirname printf test ps";
    for name in names.split_whitespace() {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let passwd =
        "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:/bin/sh\nweb:x:33:33::/home:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\nwheel:x:10:root\nweb:x:33:\nlog:x:40:web\n";
    fs::write(root.join("etc/group"), group).unwrap();
}
