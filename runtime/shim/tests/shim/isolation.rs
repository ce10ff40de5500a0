//! Rows of the security checklist, each against a real container.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use orlop_shim::protocol::{Failure, Reply};
use serde_json::json;

use crate::support::Box;

/// A file outside of the container that must stay as it is.
fn canary(container: &Box) -> std::path::PathBuf {
    let path = container.dir.path().join("canary");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "untouched").unwrap();
    path
}

fn untouched(canary: &Path) {
    assert_eq!(
        fs::read_to_string(canary.join("file")).unwrap(),
        "untouched"
    );
    assert_eq!(fs::read_dir(canary).unwrap().count(), 1);
}

#[test]
fn b2_mount_targets_that_became_links_are_refused_or_stay_inside() {
    for target in ["proc", "sys", "dev"] {
        let mut container = Box::new(&["true"]);
        let canary = canary(&container);
        symlink(&canary, container.lower().join(target)).unwrap();
        let Reply::Failed { failure, message } = container.start_fails() else {
            panic!("{target}")
        };
        assert_eq!(failure, Failure::Invalid);
        assert!(message.contains("symbolic link"), "{message}");
        untouched(&canary);
    }
    let mut container = Box::shell("cat /etc/hosts");
    let canary = canary(&container);
    symlink(canary.join("file"), container.lower().join("etc/hosts")).unwrap();
    let source = container.dir.path().join("hosts");
    fs::write(&source, "127.0.0.1 localhost\n").unwrap();
    container.mount(
        json!({"destination": "/etc/hosts", "type": "bind", "source": source,
        "options": ["bind", "ro"]}),
    );
    assert_eq!(container.run(), (0, "127.0.0.1 localhost\n".to_owned()));
    untouched(&canary);
}

#[test]
fn b3_masked_and_read_only_paths_hold() {
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug; do \
                  [ -e $f ] && head -c 1 $f | wc -c; done; ls /proc/scsi /proc/acpi /sys/firmware \
                  /sys/devices/virtual/powercap 2>/dev/null | grep -v :; \
                  for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do \
                  [ -e $f ] && (echo x > $f) 2>/dev/null && echo written; done; exit 0";
    let (code, output) = Box::shell(script).run();
    assert_eq!(code, 0);
    assert!(
        output.lines().all(|line| line.is_empty() || line == "0"),
        "{output}"
    );
    assert!(output.contains('0'));
}

#[test]
fn b5_a_joining_process_shows_no_descriptor_of_the_host() {
    let watch = "while true; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || \
                 ls -l $p/fd $p/cwd $p/root 2>/dev/null | grep -E 'shim|ns/|/work|/tmp/|[.]log'; done; done";
    for capability in ["CAP_KILL", "CAP_SYS_PTRACE"] {
        let mut container = Box::shell(watch);
        for set in ["bounding", "permitted", "effective"] {
            container.spec["process"]["capabilities"][set] = json!([capability]);
        }
        container.start();
        for _ in 0..30 {
            assert_eq!(container.exec("", &["true"]).0, 0);
        }
        assert_eq!(container.output(), "", "{capability}");
    }
}

#[test]
fn b10_a_mount_target_that_is_swapped_for_a_link_stays_inside() {
    let mut container = Box::new(&["true"]);
    let canary = canary(&container);
    let volume = container.dir.path().join("volume");
    fs::create_dir(volume.join("a")).unwrap();
    symlink(&canary, volume.join("b")).unwrap();
    let source = container.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for (destination, source) in [("/vol", &volume), ("/vol/a/new/deep", &source)] {
        container.mount(
            json!({"destination": destination, "type": "bind", "source": source,
            "options": ["rbind", "rw"]}),
        );
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let directory = fs::File::open(&volume).unwrap();
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(order) {
                rustix::fs::renameat_with(&directory, "a", &directory, "b", exchange).unwrap();
            }
        });
        for _ in 0..100 {
            let (start, reply) = container.create();
            assert!(
                matches!(reply, Reply::Created { .. } | Reply::Failed { .. }),
                "{reply:?}"
            );
            drop(start);
            container.ended();
        }
        stop.store(true, order);
    });
    untouched(&canary);
    assert_eq!(fs::read_dir(&source).unwrap().count(), 0);
}

#[test]
fn b7_the_shims_program_cannot_be_reached_from_the_container() {
    let program = env!("CARGO_BIN_EXE_orlop-shim");
    let before = fs::read(program).unwrap();
    let mut container = Box::new(&["/proc/self/exe"]);
    let reply = container.start_fails_or_ends();
    assert_eq!(fs::read(program).unwrap(), before, "{reply}");
    let mut container = Box::new(&["/entry"]);
    let entry = container.lower().join("entry");
    fs::write(&entry, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&entry, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    container.start_fails_or_ends();
    // A process of the container that writes through whatever /proc/PID/exe it can open.
    let watch =
        "while true; do for p in /proc/[0-9]*; do (echo owned > $p/exe) 2>/dev/null; done; done";
    let mut container = Box::shell(watch);
    container.start();
    for _ in 0..30 {
        assert!(
            container
                .exec_with("", |process| process["args"] = json!(["/proc/self/exe"]))
                .1
                != Reply::Ok
        );
        container.exec("", &["true"]);
    }
    assert_eq!(fs::read(program).unwrap(), before);
}

#[test]
fn b7_the_shim_runs_from_a_read_only_mount() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let exe = format!("/proc/{}/exe", container.shim_pid());
    let mounted = rustix::fs::statvfs(exe).unwrap();
    assert!(
        mounted
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY)
    );
}

#[test]
fn b9_proc_that_is_a_link_or_another_file_system_is_refused() {
    let mut container = Box::new(&["true"]);
    symlink("/tmp", container.lower().join("proc")).unwrap();
    assert!(matches!(
        container.start_fails(),
        Reply::Failed {
            failure: Failure::Invalid,
            ..
        }
    ));
    let mut container = Box::new(&["true"]);
    let volume = container.dir.path().join("volume");
    container.mount(
        json!({"destination": "/proc", "type": "bind", "source": volume,
        "options": ["rbind"]}),
    );
    let Reply::Failed { failure, message } = container.start_fails() else {
        panic!()
    };
    assert_eq!(failure, Failure::Invalid);
    assert!(message.contains("/proc"), "{message}");
}

#[test]
fn b13_no_working_directory_leads_outside() {
    for number in [0, 3, 4, 5, 6, 7, 8, 9, 10, 12] {
        let mut container = Box::new(&["true"]);
        container.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let reply = container.start_fails();
        assert!(
            matches!(
                reply,
                Reply::Failed {
                    failure: Failure::Invalid,
                    ..
                }
            ),
            "{reply:?}"
        );
    }
    let mut container = Box::new(&["sleep", "100"]);
    symlink("/proc/self/fd/3", container.lower().join("link")).unwrap();
    container.start();
    let numbers = (3..1024).map(|number| format!("/proc/self/fd/{number}"));
    let others = [
        "/proc/1/cwd",
        "/link",
        "/proc/1/root",
        "/proc/thread-self/fd/3",
        "/dev/fd/3",
    ];
    for cwd in numbers.chain(others.map(str::to_owned)) {
        let (_, reply) = container.exec_with("", |process| process["cwd"] = json!(cwd));
        let Reply::Failed { message, .. } = reply else {
            panic!("{cwd} {reply:?}")
        };
        assert!(message.contains("working directory"), "{message}");
    }
}

#[test]
fn b13_only_the_standard_streams_are_open() {
    let (_, output) = Box::new(&["ls", "/proc/self/fd"]).run();
    // The fourth is the directory that ls reads.
    assert_eq!(output, "0\n1\n2\n3\n");
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    assert_eq!(
        container.exec("", &["ls", "/proc/self/fd"]).1,
        "0\n1\n2\n3\n"
    );
}

#[test]
fn b15_the_null_device_behind_masks_is_ours() {
    let mut container = Box::shell("wc -c < /proc/kcore; cat /dev/null | wc -c");
    let volume = container.dir.path().join("volume");
    symlink("/proc/sys/kernel/core_pattern", volume.join("null")).unwrap();
    container.mount(
        json!({"destination": "/dev", "type": "bind", "source": volume,
        "options": ["rbind"]}),
    );
    let Reply::Failed { message, .. } = container.start_fails() else {
        panic!()
    };
    assert!(message.contains("/dev"), "{message}");
}

#[test]
fn b16_a_terminal_comes_from_devpts_and_from_nowhere_else() {
    let mut container = Box::shell("true").terminal();
    let volume = container.dir.path().join("volume");
    fs::write(volume.join("ptmx"), "").unwrap();
    container.mount(
        json!({"destination": "/dev/pts", "type": "bind", "source": volume,
        "options": ["rbind"]}),
    );
    let Reply::Failed { message, .. } = container.start_fails() else {
        panic!()
    };
    assert!(message.contains("devpts"), "{message}");
}

/// What is written to the kernel goes through a proc file system that nobody else has a path to.
#[test]
fn b17_a_kernel_parameter_is_not_written_where_something_else_was_mounted() {
    let mut container = Box::new(&["sleep", "100"]);
    let fake = container.dir.path().join("volume/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    let fake = fake.join("ip_default_ttl");
    fs::write(&fake, "untouched").unwrap();
    let volume = container.dir.path().join("volume");
    container.mount(
        json!({"destination": "/proc/sys", "type": "bind", "source": volume,
        "options": ["rbind", "rw"]}),
    );
    container.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
    let pid = container.start().to_string();
    assert_eq!(fs::read_to_string(&fake).unwrap(), "untouched");
    let real = std::process::Command::new("nsenter")
        .args(["-t", &pid, "-n", "cat", "/proc/sys/net/ipv4/ip_default_ttl"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(real.stdout).unwrap(), "77\n");
}

#[test]
fn b18_without_a_tmpfs_no_device_is_made() {
    let mut container = Box::new(&["true"]);
    let mounts = container.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::create_dir(container.lower().join("dev")).unwrap();
    let Reply::Failed { message, .. } = container.start_fails() else {
        panic!()
    };
    assert!(message.contains("tmpfs"), "{message}");
    assert_eq!(
        fs::read_dir(container.dir.path().join("upper/dev")).map_or(0, Iterator::count),
        0
    );
}

#[test]
fn b24_only_the_devices_of_the_list_can_be_opened() {
    for version in [1, 2] {
        let mut container = Box::shell(
            "exec 2>&1; mknod /dev/disk b 254 0 && head -c 1 /dev/disk; head -c 1 /dev/zero | wc -c; \
             mknod /dev/log c 1 11 && (: > /dev/log) && echo written && head -c 1 /dev/log",
        );
        match version {
            1 => container.cgroup(&[("devices", &[])]),
            _ => container.unified_cgroup(),
        }
        let caps = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
        for set in ["bounding", "permitted", "effective"] {
            container.spec["process"]["capabilities"][set] = caps.clone();
        }
        let allow = |minor: u32, access: &str| json!({"allow": true, "type": "c", "major": 1, "minor": minor, "access": access});
        container.spec["linux"]["resources"] = json!({"devices": [
            {"allow": false, "access": "rwm"}, allow(3, "rwm"), allow(5, "rwm"), allow(7, "rwm"),
            allow(8, "rwm"), allow(9, "rwm"), allow(11, "wm")]});
        let (_, output) = container.run();
        let expected = [
            "mknod: /dev/disk: Operation not permitted",
            "1",
            "written",
            "head: /dev/log: Operation not permitted",
        ];
        assert_eq!(output.lines().collect::<Vec<_>>(), expected, "v{version}");
    }
}

/// Whichever version, and whoever's cgroup namespace it is: the container sees its own groups and
/// cannot change them.
#[test]
fn b11_control_groups_are_seen_and_not_written() {
    for (version, own) in [(1, true), (1, false), (2, true)] {
        let mut container = Box::shell(
            "cd /sys/fs/cgroup; [ -d pids ] && cd pids; grep -x 1 cgroup.procs; \
             mkdir x 2>/dev/null && echo made; (echo 1 > cgroup.procs) 2>/dev/null && echo wrote; true",
        );
        match version {
            1 => container.cgroup(&[("pids", &[])]),
            _ => container.unified_cgroup(),
        }
        let namespaces = container.spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap();
        namespaces.retain(|namespace| own || namespace["type"] != "cgroup");
        container.mount(
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
        );
        let (code, output) = container.run();
        assert_eq!((code, output.as_str()), (0, "1\n"), "v{version} {own}");
    }
}

#[test]
fn all_devices_can_be_opened_where_all_are_allowed() {
    for version in [1, 2] {
        let mut container = Box::shell("mknod /dev/log c 1 11 && (: > /dev/log) && echo written");
        match version {
            1 => container.cgroup(&[("devices", &[])]),
            _ => container.unified_cgroup(),
        }
        for set in ["bounding", "permitted", "effective"] {
            container.spec["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        container.spec["linux"]["resources"] = json!({"devices": [
            {"allow": true, "type": "a", "access": "rwm"}]});
        assert_eq!(container.run(), (0, "written\n".to_owned()), "v{version}");
    }
}

#[test]
fn b25_a_working_directory_through_a_link_is_made_inside() {
    let mut container = Box::new(&["pwd"]);
    let canary = canary(&container);
    symlink(&canary, container.lower().join("link")).unwrap();
    container.spec["process"]["cwd"] = json!("/link/a/b");
    let (code, output) = container.run();
    assert_eq!(code, 0);
    assert!(output.ends_with("/a/b\n"), "{output}");
    untouched(&canary);
}

#[test]
fn b26_account_files_that_are_no_files_are_refused_quickly() {
    for kind in ["directory", "fifo", "device", "huge"] {
        let mut container = Box::new(&["true"]);
        container.config.user = "web".to_owned();
        let passwd = container.lower().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        match kind {
            "directory" => fs::create_dir(&passwd).unwrap(),
            "fifo" => nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRUSR).unwrap(),
            "device" => symlink("/dev/zero", &passwd).unwrap(),
            _ => fs::write(&passwd, vec![b'x'; 2 << 20]).unwrap(),
        }
        let Reply::Failed { failure, message } = container.start_fails() else {
            panic!("{kind}")
        };
        assert_eq!(failure, Failure::Invalid, "{kind}: {message}");
        assert!(message.contains("/etc/passwd"), "{kind}: {message}");
    }
}

#[test]
fn new_namespaces_and_mounts_are_denied() {
    let script = "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; exit 0";
    let (_, output) = Box::shell(script).run();
    assert_eq!(
        output.matches("ot permitted").count() + output.matches("denied").count(),
        3,
        "{output}"
    );
}

#[test]
fn a_kernel_file_system_of_another_type_is_refused() {
    let mut container = Box::new(&["true"]);
    container.mount(json!({"destination": "/x", "type": "debugfs", "source": "debugfs"}));
    let Reply::Failed { failure, message } = container.start_fails() else {
        panic!()
    };
    assert_eq!(failure, Failure::Invalid);
    assert!(message.contains("debugfs"), "{message}");
}

#[test]
fn a_socket_may_have_a_long_path() {
    let mut container = Box::new(&["true"]);
    let long = container.dir.path().join("x".repeat(120));
    fs::create_dir(&long).unwrap();
    container.config.socket = long.join("shim.sock");
    assert_eq!(container.run().0, 0);
    assert_eq!(fs::read_dir(long).unwrap().count(), 0);
}

#[test]
fn nothing_is_mounted_on_the_host() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = container.dir.path().to_str().unwrap();
    assert!(!mounts.contains(dir), "{mounts}");
}

#[test]
fn b32_a_parameter_is_one_parameter() {
    let mut container = Box::new(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    container.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    assert_eq!(container.run(), (0, "0\n".to_owned()));
    for name in [
        "net.ipv4+kernel.core_pattern",
        "../sysrq-trigger",
        "a=b",
        "net..x",
        "",
    ] {
        let mut container = Box::new(&["true"]);
        container.spec["linux"]["sysctl"] = json!({name: "1"});
        assert!(
            matches!(container.start_fails(), Reply::Failed { .. }),
            "{name}"
        );
    }
}

impl Box {
    /// For commands of which nobody knows whether they start.
    fn start_fails_or_ends(&mut self) -> String {
        let reply = self.start_fails();
        format!("{reply:?}")
    }
}
