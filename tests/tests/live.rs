//! Rows of the security checklist about commands on live containers: what `cp` and `exec` touch and keep. Each
//! test carries its row's id.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orlop_tests::{Canary, Instance, eventually, fixtures};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A service of an instance with strace at it, until it is told to say what was opened and executed.
struct Trace {
    strace: std::process::Child,
    log: tempfile::NamedTempFile,
}

impl Trace {
    fn start(pid: i32) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let strace = Command::new("strace")
            .args([
                "-f",
                "-y",
                "-e",
                "trace=open,openat,openat2,execve,mmap",
                "-o",
            ])
            .arg(log.path())
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("install strace (make test does)");
        eventually("the service is traced", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        });
        Self { strace, log }
    }

    fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.strace);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.strace.wait().unwrap();
        fs::read_to_string(self.log.path()).unwrap()
    }
}

/// No name is looked up and no library loaded in a container's root: neither by the service nor by the
/// command line.
#[test]
fn d2_a_copy_opens_no_library_and_no_account_file_of_the_container() {
    let orlop = Instance::start();
    let library = b"\x7fELF that nobody loads";
    let lures = [
        "etc/nsswitch.conf",
        "etc/ld.so.cache",
        "etc/ld.so.preload",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib64/ld-linux-x86-64.so.2",
        "usr/lib/libnss_lure.so.2",
    ];
    let files = lures.map(|path| (path, 0o755, &library[..]));
    let archive = fixtures::rootfs_with(&files);
    orlop
        .run_with_input(&["import", "-", "evil"], &archive)
        .success();
    orlop
        .run(&["create", "--name", "idle", "evil", "true"])
        .success();
    orlop
        .run(&["run", "-d", "--name", "live", "evil", "sleep", "1000"])
        .success();
    let trace = Trace::start(orlop.service_pid("runtime"));
    for name in ["idle", "live"] {
        orlop
            .run(&["cp", "-a", &format!("{name}:/bin"), "-"])
            .success();
        orlop
            .run(&["cp", "-a", "/bin/busybox", &format!("{name}:/tmp/")])
            .success();
        orlop.run(&["exec", "live", "true"]).success();
    }
    let seen = trace.end();
    assert!(seen.contains("busybox"), "the trace has the copy: {seen}");
    let lured = seen.lines().find(|line| {
        [
            "nsswitch", "ld.so", "libnss", "ld-linux", "/passwd", "/group",
        ]
        .iter()
        .any(|lure| line.contains(lure))
    });
    assert_eq!(lured, None);
    let executed = seen.lines().filter(|line| line.contains("execve("));
    let shims = executed.filter(|line| !line.contains("orlop-shim"));
    assert_eq!(shims.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// A volume in which a container left a link where a file is written next.
#[test]
fn d10_what_is_put_into_a_volume_replaces_a_link_and_does_not_follow_it() {
    let (orlop, canary) = (Instance::with_busybox(), Canary::new());
    let file = canary.file();
    let leave = format!("ln -sfn {0} /v/secret; ln -sfn {0} /v/token", text(&file));
    orlop.shell(&["-v", "data:/v"], &leave).success();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "secret", &b"mine"[..])
        .unwrap();
    let tar = tar.into_inner().unwrap();
    orlop
        .run_with_input(&["volume", "import", "data", "-"], &tar)
        .success();
    let data = orlop.root().join("runtime/volumes/data/_data");
    assert!(fs::symlink_metadata(data.join("secret")).unwrap().is_file());
    assert_eq!(fs::read_to_string(data.join("secret")).unwrap(), "mine");
    canary.assert_unopened("volume import");
    // By `cp`, a link leads where it leads for the container.
    orlop
        .run(&[
            "create", "--name", "box", "-v", "data:/v", "busybox", "true",
        ])
        .success();
    orlop.run(&["cp", "/bin/busybox", "box:/v/token"]).code();
    canary.assert_unopened("cp");
    // An image that has a file of the name fills an empty volume only.
    let archive = fixtures::rootfs_with(&[("v/token", 0o644, b"of the image")]);
    orlop
        .run_with_input(&["import", "-", "seed"], &archive)
        .success();
    orlop
        .run(&["run", "--rm", "-v", "data:/v", "seed", "true"])
        .success();
    canary.assert_unopened("a run of another image");
}

/// What a process has in memory, in KiB.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A command that never stops talking, to a client that listens slowly, to one that never does, to one that
/// goes, and to a health check: nobody keeps what nobody takes.
#[test]
fn d12_output_without_an_end_is_kept_by_nobody() {
    let orlop = Instance::with_busybox();
    let check = [
        "--health-cmd",
        "yes health | head -n 3000000",
        "--health-interval",
        "1s",
        "--health-timeout",
        "20s",
    ];
    let run = [
        &["run", "-d", "--name", "box"][..],
        &check,
        &["busybox", "sleep", "1000"],
    ];
    orlop.run(&run.concat()).success();
    orlop.run(&["exec", "box", "true"]).success();
    let pids = || [vec![orlop.service_pid("runtime")], orlop.shims()].concat();
    let before: Vec<u64> = pids().into_iter().map(resident).collect();
    let talk = || {
        let mut command = orlop.command(&[
            "exec",
            "box",
            "sh",
            "-c",
            "while :; do cat /bin/busybox; done",
        ]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut deaf: Vec<_> = (0..3).map(|_| talk()).collect();
    let mut listener = talk();
    let mut stdout = listener.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let copied = std::io::copy(
            &mut std::io::Read::take(&mut stdout, 64 << 20),
            &mut std::io::sink(),
        );
        copied.unwrap()
    });
    let watched = Instant::now();
    let mut most = before.clone();
    while watched.elapsed() < Duration::from_secs(5) {
        for (most, pid) in most.iter_mut().zip(pids()) {
            *most = (*most).max(resident(pid));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        reader.join().unwrap(),
        64 << 20,
        "who listens gets all of it"
    );
    deaf.push(listener);
    for client in &mut deaf {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    let allowed = [64 * 1024, 40 * 1024];
    for ((before, most), allowed) in before.iter().zip(&most).zip(allowed) {
        assert!(
            most - before < allowed,
            "{before} KiB before, {most} KiB at the most"
        );
    }
    eventually("a check has ended", || {
        orlop
            .inspect("box", "{{json .State.Health.Log}}")
            .contains("health")
    });
    let log = orlop.inspect("box", "{{json .State.Health.Log}}");
    assert!(log.len() < 5 * 8192, "{}", log.len());
}
