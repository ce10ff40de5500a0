//! Rows of the security checklist that need the whole product. Each test carries its row's id.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use orlop_tests::{Instance, binary, eventually, fixtures};

/// A script in the container, run by a container of the default kind.
fn inside(orlop: &Instance, script: &str) -> String {
    orlop.shell(&[], script).stdout()
}

#[test]
fn b2_a_root_whose_special_directories_became_links_is_refused_at_the_next_start() {
    let orlop = Instance::with_busybox();
    let canary = tempfile::NamedTempFile::new().unwrap();
    fs::write(canary.path(), "untouched").unwrap();
    let target = canary.path().display().to_string();
    for link in ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"] {
        let script =
            format!("umount {link} 2>/dev/null; rm -f {link}; ln -s {target} {link}; true");
        orlop
            .run(&["create", "--name", "box", "busybox", "sh", "-c", &script])
            .success();
        orlop.run(&["start", "-a", "box"]).exits(0);
        orlop.run(&["start", "-a", "box"]).code();
        assert_eq!(
            fs::read_to_string(canary.path()).unwrap(),
            "untouched",
            "{link}"
        );
        orlop.run(&["rm", "-f", "box"]).success();
    }
}

#[test]
fn b3_masked_paths_read_empty_and_read_only_paths_cannot_be_written() {
    let orlop = Instance::with_busybox();
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/interrupts",
    ] {
        assert_eq!(
            inside(&orlop, &format!("head -c 16 {path} 2>/dev/null | wc -c")).trim(),
            "0",
            "{path}"
        );
    }
    for path in [
        "/proc/acpi",
        "/proc/scsi",
        "/sys/firmware",
        "/proc/asound",
        "/sys/devices/virtual/powercap",
    ] {
        assert_eq!(
            inside(&orlop, &format!("ls {path} 2>/dev/null | wc -l")).trim(),
            "0",
            "{path}"
        );
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
    ] {
        let out = inside(
            &orlop,
            &format!("echo x 2>/dev/null > {path} && echo written; true"),
        );
        assert_eq!(out, "", "{path}");
    }
    let out = inside(
        &orlop,
        "touch /sys/fs/cgroup/x 2>/dev/null || mkdir /sys/fs/cgroup/y 2>/dev/null && echo written; true",
    );
    assert_eq!(out, "");
}

#[test]
fn b4_mounts_over_special_paths_are_refused() {
    let orlop = Instance::with_busybox();
    for target in ["/", "/proc", "/proc/x", "/sys", "/sys/kernel", "/dev"] {
        let volume = format!("v:{target}");
        orlop
            .run(&["run", "--rm", "-v", &volume, "busybox", "true"])
            .exits(125)
            .stderr_has(target);
    }
    let archive = fixtures::busybox_rootfs();
    for target in ["/proc", "/", "/sys/fs", "/dev", "/a/../proc"] {
        let change = format!("VOLUME {target}");
        orlop
            .run_with_input(&["import", "-c", &change, "-", "evil"], &archive)
            .success();
        orlop
            .run(&["run", "--rm", "evil", "true"])
            .exits(125)
            .stderr_has(target);
    }
    assert_eq!(orlop.run(&["ps", "-aq"]).success().line(), "");
}

/// While commands are executed in it again and again, a container's root never sees a file of the
/// host among the open files of any process.
#[test]
fn b5_exec_shows_no_file_of_the_host() {
    let orlop = Instance::with_busybox();
    let watch = "while true; do for p in /proc/[0-9]*; do for f in $p/fd/* $p/exe $p/cwd $p/root; do \
                 t=$(readlink $f 2>/dev/null) || continue; \
                 case $t in *orlop*|/var/tmp/*|/run/*) echo leak $f $t;; esac; done; done; done";
    orlop.run_script("box", watch);
    for _ in 0..50 {
        orlop.run(&["exec", "box", "true"]).success();
    }
    let open = orlop
        .run(&["exec", "box", "ls", "/proc/self/fd"])
        .success()
        .stdout();
    assert!(
        open.split_whitespace().count() <= 4,
        "0, 1, 2 and the listing itself: {open}"
    );
    orlop.run(&["logs", "box"]).success().stdout_is("");
}

#[test]
fn b7_no_binary_of_ours_can_be_overwritten_from_inside() {
    let orlop = Instance::with_busybox();
    let before = fs::read(binary("orlop-shim")).unwrap();
    let script = b"#!/proc/self/exe\n";
    let image = fixtures::rootfs_with(&[("evil", 0o755, script)]);
    orlop
        .run_with_input(&["import", "-", "evil"], &image)
        .success();
    orlop.run(&["run", "--rm", "evil", "/evil"]).code();
    let overwrite = "while true; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || (echo x > $p/exe) 2>/dev/null; done; done";
    orlop.run_script("box", overwrite);
    for _ in 0..30 {
        orlop.run(&["exec", "box", "/proc/self/exe"]).code();
        orlop.run(&["exec", "box", "true"]).code();
    }
    orlop.run(&["rm", "-f", "box"]).success();
    assert!(
        fs::read(binary("orlop-shim")).unwrap() == before,
        "the shim was changed"
    );
    orlop.run(&["run", "--rm", "busybox", "true"]).success();
}

#[test]
fn b9_an_image_whose_proc_or_sys_is_a_link_does_not_start() {
    let orlop = Instance::with_busybox();
    for special in ["proc", "sys"] {
        let context = tempfile::tempdir().unwrap();
        let dockerfile = format!(
            "FROM busybox AS tools\nRUN mkdir -p /new/evil /new/bin && cp /bin/busybox /new/bin/ && ln -s busybox /new/bin/true && ln -s /evil /new/{special}\n\
             FROM scratch\nCOPY --from=tools /new /\n"
        );
        fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
        orlop
            .run(&[
                "build",
                "-q",
                "-t",
                "evil",
                context.path().to_str().unwrap(),
            ])
            .success();
        orlop
            .run(&["run", "--rm", "evil", "/bin/true"])
            .exits(125)
            .stderr_has(special);
    }
}

#[test]
fn j1_sockets_are_for_root_and_the_group_only() {
    let orlop = Instance::with_busybox();
    for service in ["store", "builder", "runtime", "registry"] {
        let meta = fs::metadata(orlop.socket(service)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o660, "{service}");
        assert_eq!(meta.uid(), 0);
    }
    let run_dir = fs::metadata(orlop.run_dir()).unwrap();
    assert_eq!(
        run_dir.permissions().mode() & 0o007,
        0,
        "others stay out of the run directory"
    );
}

#[test]
fn j2_no_socket_of_ours_is_abstract() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &[]);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let ours = |line: &&str| {
        line.split_whitespace()
            .last()
            .is_some_and(|n| n.starts_with('@') && n.contains("orlop"))
    };
    assert_eq!(sockets.lines().find(ours), None);
}

/// Setuid files in layers must not be within reach of the host's other users.
#[test]
fn j3_the_state_is_closed_to_other_users() {
    let orlop = Instance::with_busybox();
    orlop.run(&["create", "--name", "box", "busybox"]).success();
    for directory in ["store", "runtime", "builder", "registry"] {
        let meta = fs::metadata(orlop.root().join(directory)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o077, 0, "{directory}");
    }
}

/// After `up` the only TCP listener is `/v2/`, on loopback.
#[test]
fn j9_the_only_tcp_port_is_the_registrys_on_loopback() {
    let orlop = Instance::with_busybox();
    let mut listening = Vec::new();
    for service in ["store", "builder", "runtime", "registry"] {
        let pid = orlop.service_pid(service);
        let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string()))
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
            for line in text.lines().skip(1) {
                let fields: Vec<_> = line.split_whitespace().collect();
                let is_listening = fields[3] == "0A" || table.starts_with("udp");
                if is_listening && inodes.iter().any(|inode| inode == fields[9]) {
                    listening.push(format!("{service} {table} {}", fields[1]));
                }
            }
        }
    }
    let port: u16 = orlop
        .registry()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(listening, [format!("registry tcp 0100007F:{port:04X}")]);
}

/// The effective state of a default container, as it sees itself.
#[test]
fn the_default_container_is_hardened() {
    let orlop = Instance::with_busybox();
    let status = inside(
        &orlop,
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
    );
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("CapInh"), "0000000000000000");
    assert_eq!(field("CapAmb"), "0000000000000000");
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
    assert_eq!(field("CapBnd"), "00000000800405fb");
    assert_eq!(field("CapEff"), "00000000800405fb");
    assert_eq!(field("Seccomp:"), "2");
    let user = orlop.run(&[
        "run",
        "--rm",
        "-u",
        "1000",
        "busybox",
        "grep",
        "CapEff",
        "/proc/self/status",
    ]);
    user.success().stdout_has("0000000000000000");
    assert_eq!(
        inside(
            &orlop,
            "mount -t tmpfs none /tmp 2>/dev/null && echo mounted; unshare -m true 2>/dev/null && echo unshared; mknod /tmp/d b 8 0 2>/dev/null && echo made; true"
        ),
        ""
    );
}

/// Nothing of a service's own environment reaches a container.
#[test]
fn c11_the_environment_of_the_services_stays_there() {
    let orlop = Instance::stopped();
    let up = orlop
        .command(&["up", "--registry-http", orlop.registry()])
        .env("CANARY", "leaked")
        .status()
        .unwrap();
    assert!(up.success());
    orlop.import_busybox("busybox");
    let out = inside(&orlop, "env");
    assert!(!out.contains("CANARY") && !out.contains("ORLOP"), "{out}");
    orlop.run_sleeper("box", &[]);
    let environment = orlop.run(&["exec", "box", "env"]).success().stdout();
    assert!(!environment.contains("CANARY"), "{environment}");
    eventually("it runs", || {
        orlop.inspect("box", "{{.State.Running}}") == "true"
    });
}

/// A root with this file instead of what busybox has there.
fn image_with(orlop: &Instance, name: &str, path: &str, content: &[u8]) {
    let archive = fixtures::rootfs_with(&[(path, 0o644, content)]);
    orlop
        .run_with_input(&["import", "-", name], &archive)
        .success();
}

#[test]
fn c5_account_files_are_read_up_to_a_bound() {
    let orlop = Instance::with_busybox();
    let line = "g:x:7:".to_owned() + &"u,".repeat(1024 * 1024);
    image_with(&orlop, "wide", "etc/group", line.as_bytes());
    for user in ["user", "root:wheel"] {
        orlop
            .run(&["run", "--rm", "-u", user, "wide", "id"])
            .exits(125)
            .stderr_has("/etc/group");
    }
    orlop
        .run(&["run", "--rm", "--group-add", "g", "wide", "id"])
        .exits(125)
        .stderr_has("/etc/group");
    orlop
        .run(&["run", "--rm", "-u", "1000", "wide", "id"])
        .success();
}

/// The same of a file that a running container made, and that is larger than its memory.
#[test]
fn c5_an_account_file_of_a_gibibyte_costs_nothing() {
    let orlop = Instance::with_busybox();
    let script = "for f in passwd group; do dd if=/dev/zero of=/etc/$f bs=1 count=1 seek=1G; done; \
                  echo done; exec sleep 1000";
    orlop.run_script("box", script);
    eventually("the files are there", || {
        orlop.run(&["logs", "box"]).stdout().ends_with("done\n")
    });
    let pids = [orlop.service_pid("runtime"), orlop.shims()[0]];
    let before = pids.map(held);
    for user in ["user", "root:wheel", "no"] {
        orlop
            .run(&["exec", "-u", user, "box", "true"])
            .exits(1)
            .stderr_has("/etc/");
    }
    orlop.run(&["exec", "-u", "7:8", "box", "true"]).success();
    for (pid, (.., resident)) in pids.into_iter().zip(before) {
        let now = held(pid).2;
        assert!(
            now < resident + 8192,
            "{resident} KiB before, {now} KiB after"
        );
    }
}

#[test]
fn c10_containers_of_one_image_do_not_see_each_others_variables() {
    let orlop = Instance::with_busybox();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let orlop = &orlop;
            scope.spawn(move || {
                for turn in 0..25 {
                    let own = format!("OWN_{worker}={turn}");
                    let out = orlop
                        .run(&["run", "--rm", "-e", &own, "busybox", "env"])
                        .stdout();
                    let seen: Vec<&str> = out.lines().filter(|l| l.starts_with("OWN_")).collect();
                    assert_eq!(seen, [own]);
                }
            });
        }
    });
}

#[test]
fn b21_b36_files_that_are_made_in_a_root_follow_no_link_out_of_it() {
    let orlop = Instance::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let canary = host.path().join("canary");
    fs::write(&canary, "untouched").unwrap();
    let links = ["mtab", "hosts", "resolv.conf", "hostname", "new/hosts"];
    let link = |name: &&str| {
        let target = if name.contains('/') {
            host.path().join("made")
        } else {
            canary.clone()
        };
        format!(
            "mkdir -p /root/etc/new; ln -sf {} /root/etc/{name}",
            target.display()
        )
    };
    let script: Vec<String> = links.iter().map(link).collect();
    let dockerfile = format!(
        "FROM busybox AS tools\nRUN mkdir /root/bin && cp /bin/busybox /root/bin/sh; {}\n\
         FROM scratch\nCOPY --from=tools /root /\n",
        script.join("; ")
    );
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let path = context.path().to_str().unwrap();
    orlop.run(&["build", "-q", "-t", "evil", path]).success();
    orlop
        .run(&["run", "--rm", "evil", "/bin/sh", "-c", "true"])
        .code();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched");
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
}

/// Open files, threads, and KiB in memory of a process.
fn held(pid: i32) -> (usize, usize, u64) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:"));
    let resident = resident.unwrap().split_whitespace().nth(1).unwrap();
    (count("fd"), count("task"), resident.parse().unwrap())
}

/// Commands that cannot be run and clients that go away, again and again: what service and shim have open
/// afterwards is what they had before.
#[test]
fn d13_failed_execs_and_clients_that_go_leave_nothing() {
    const TIMES: usize = 50;
    let orlop = Instance::with_busybox();
    orlop.run_script("box", "while :; do echo out; sleep 1; done");
    let fail = |options: &[&str]| {
        let args = [&["exec"], options, &["box", "/no/such/command"]].concat();
        orlop.run(&args).exits(127);
    };
    let leave = |args: &[&str]| {
        let mut client = orlop.spawn(args);
        std::thread::sleep(std::time::Duration::from_millis(50));
        client.kill().unwrap();
        client.wait().unwrap();
    };
    let work = |times: usize| {
        let turn = || {
            fail(&[]);
            fail(&["-t"]);
            leave(&["attach", "--sig-proxy=false", "box"]);
            leave(&["exec", "-i", "box", "cat"]);
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..times).for_each(|_| turn()));
            }
        });
    };
    let pids = [orlop.service_pid("runtime"), orlop.shims()[0]];
    let at_rest = || {
        let mut last = pids.map(held);
        eventually("all is at rest", || {
            std::thread::sleep(std::time::Duration::from_millis(500));
            let now = pids.map(held);
            let rests = now.map(|(files, ..)| files) == last.map(|(files, ..)| files);
            last = now;
            rests
        });
        last
    };
    work(5);
    let before = at_rest();
    work(TIMES);
    for (pid, (files, threads, resident)) in pids.into_iter().zip(before) {
        let now = || held(pid);
        eventually("files are closed", || now().0 <= files);
        eventually("threads have ended", || now().1 <= threads);
        let (kept, allowed) = (now().2, resident + resident / 10 + 2048);
        assert!(kept <= allowed, "{resident} KiB before, {kept} KiB after");
    }
    let processes = orlop.run(&["top", "box", "-o", "pid,args"]).success();
    assert_eq!(processes.stdout().matches("cat").count(), 0);
}

#[test]
fn d14_what_is_in_shared_memory_counts_as_the_containers_memory() {
    let orlop = Instance::with_busybox();
    let limit = ["-m", "16m", "--memory-swap", "16m"];
    let large = [&limit[..], &["--shm-size", "512m"]].concat();
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100";
    orlop.shell(&large, fill).exits(137);
    // What goes to a tmpfs of its own, and to the files that we made for it, is its memory or its cache too.
    for place in ["/run/x", "/etc/hosts"] {
        let fill = format!(
            "dd if=/dev/zero of={place} bs=1M count=64; cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
        );
        let out = orlop.shell(&[&limit[..], &["--tmpfs", "/run"]].concat(), &fill);
        let most = out.stdout().trim().parse().unwrap_or(0_u64);
        assert!(out.code() == 137 || most > 8 << 20, "{place}: {most}");
    }
}
