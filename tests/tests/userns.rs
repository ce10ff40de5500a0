//! Containers with user ids of their own.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;

use orlop_tests::{Instance, Outcome, PAGE, eventually};

/// `run --rm` in a user namespace, with these options, and a script.
fn run(orlop: &Instance, options: &[&str], script: &str) -> Outcome {
    orlop.shell(&[&["--userns", "auto"], options].concat(), script)
}

/// A container of this name in a user namespace, which sleeps.
fn sleeper(orlop: &Instance, name: &str, options: &[&str]) {
    orlop.run_sleeper(name, &[&["--userns", "auto"], options].concat());
}

/// The first number of a line of a container's `/proc/PID/status`, as the host has it.
fn on_host(orlop: &Instance, name: &str, field: &str) -> u32 {
    let pid = orlop.inspect(name, "{{.State.Pid}}");
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

#[test]
fn root_inside_is_nobody_in_particular_on_the_host() {
    let orlop = Instance::with_busybox();
    sleeper(&orlop, "one", &[]);
    let exec = ["exec", "one", "id"];
    let told = orlop.run(&exec).success().stdout();
    assert!(told.starts_with("uid=0(root) gid=0(root)"), "{told}");
    let (uid, gid) = (
        on_host(&orlop, "one", "Uid:"),
        on_host(&orlop, "one", "Gid:"),
    );
    assert!(uid >= 100_000 && uid == gid, "{uid} {gid}");
    run(
        &orlop,
        &[],
        "stat -c %u:%g /bin/busybox /etc /etc/hosts /dev/null /dev/pts /tmp",
    )
    .success()
    .stdout_is("0:0\n0:0\n0:0\n0:0\n0:0\n0:0\n");
}

#[test]
fn what_a_container_writes_keeps_its_own_ids() {
    let orlop = Instance::with_busybox();
    let script = "echo hi > /made && mkdir /dir && touch /dir/theirs && chown 1000:100 /dir/theirs && \
                  chmod 600 /etc/passwd && rm /etc/group && ln -s made /link";
    orlop
        .run(&[
            "run",
            "--name",
            "writer",
            "--userns=auto",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .success();
    let changed = orlop.run(&["diff", "writer"]).success().stdout();
    for line in ["A /made", "A /dir/theirs", "C /etc/passwd", "D /etc/group"] {
        assert!(changed.lines().any(|other| other == line), "{changed}");
    }
    let copied = orlop.home().join("copied");
    let copied = copied.to_str().unwrap();
    orlop.run(&["cp", "-a", "writer:/dir", copied]).success();
    assert_eq!(owner(&format!("{copied}/theirs")), (1000, 100));
    orlop.run(&["commit", "writer", "written"]).success();
    let look = [
        "stat",
        "-c",
        "%u:%g",
        "/made",
        "/dir/theirs",
        "/etc/passwd",
        "/link",
    ];
    for userns in ["host", "auto"] {
        let mut args = vec!["run", "--rm", "--userns", userns, "written"];
        args.extend(look);
        orlop
            .run(&args)
            .success()
            .stdout_is("0:0\n1000:100\n0:0\n0:0\n");
    }
}

#[test]
fn copies_into_and_out_of_a_running_container_have_its_ids() {
    let orlop = Instance::with_busybox();
    sleeper(&orlop, "one", &[]);
    let file = orlop.home().join("file");
    fs::write(&file, "from outside").unwrap();
    orlop
        .run(&["cp", file.to_str().unwrap(), "one:/file"])
        .success();
    let script = "stat -c %u:%g /file && rm /file && touch /own && chown 7:8 /own";
    orlop
        .run(&["exec", "one", "sh", "-c", script])
        .success()
        .stdout_is("0:0\n");
    let copied = orlop.home().join("own");
    let copied = copied.to_str().unwrap();
    orlop.run(&["cp", "-a", "one:/own", copied]).success();
    assert_eq!(owner(copied), (7, 8));
    orlop.run(&["cp", "-a", copied, "one:/again"]).success();
    orlop
        .run(&["exec", "one", "stat", "-c", "%u:%g", "/again"])
        .success()
        .stdout_is("7:8\n");
}

fn owner(path: &str) -> (u32, u32) {
    ids(&fs::metadata(path).unwrap())
}

fn ids(metadata: &fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.uid(), metadata.gid())
}

#[test]
fn no_two_running_containers_have_the_same_ids_and_a_restart_keeps_what_was_written() {
    let orlop = Instance::with_busybox();
    sleeper(&orlop, "one", &[]);
    sleeper(&orlop, "two", &["--user", "1000"]);
    let (one, two) = (
        on_host(&orlop, "one", "Uid:"),
        on_host(&orlop, "two", "Uid:"),
    );
    assert!(one.abs_diff(two - 1000) >= 65536, "{one} {two}");
    orlop.run(&["exec", "one", "touch", "/kept"]).success();
    orlop.run(&["stop", "-t0", "one"]).success();
    sleeper(&orlop, "three", &[]);
    orlop.run(&["start", "one"]).success();
    assert_ne!(
        on_host(&orlop, "one", "Uid:"),
        on_host(&orlop, "three", "Uid:")
    );
    orlop
        .run(&["exec", "one", "stat", "-c", "%u:%g", "/kept"])
        .success()
        .stdout_is("0:0\n");
    orlop.kill_service("runtime");
    sleeper(&orlop, "four", &[]);
    let all = ["one", "three", "four"].map(|name| on_host(&orlop, name, "Uid:"));
    assert!(all[0] != all[2] && all[1] != all[2], "{all:?}");
}

#[test]
fn volumes_are_the_containers_own_and_bind_mounts_are_the_hosts() {
    let orlop = Instance::with_busybox();
    let shared = orlop.home().join("shared");
    fs::create_dir(&shared).unwrap();
    let bind = format!("{}:/bind", shared.to_str().unwrap());
    let script = "touch /data/made && chown 5:6 /data/made && stat -c %u:%g /data /data/made /bind; \
                  touch /bind/made";
    let mounts = ["-v", "data:/data", "-v", &bind];
    run(&orlop, &mounts, script)
        .exits(1)
        .stdout_is("0:0\n5:6\n65534:65534\n")
        .stderr_has("Permission denied");
    orlop
        .shell(&["-v", "data:/data"], "stat -c %u:%g /data/made")
        .success()
        .stdout_is("5:6\n");
    run(
        &orlop,
        &["-v", "filled:/etc"],
        "stat -c %u:%g /etc/passwd; touch /etc/more",
    )
    .success()
    .stdout_is("0:0\n");
}

#[test]
fn a_volume_of_memory_is_the_containers_own() {
    let orlop = Instance::with_busybox();
    let create = ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs"];
    orlop.run(&[&create[..], &["memory"]].concat()).success();
    let script = "touch /data/made && chown 5:6 /data/made && stat -c %u:%g /data /data/made";
    run(&orlop, &["-v", "memory:/data"], script)
        .success()
        .stdout_is("0:0\n5:6\n");
}

#[test]
fn a_terminal_users_devices_and_tmpfs_are_as_ever() {
    let orlop = Instance::with_busybox();
    run(
        &orlop,
        &["--user", "1000:100"],
        "id -u; id -g; touch /tmp/mine; stat -c %u:%g /tmp/mine",
    )
    .success()
    .stdout_is("1000\n100\n1000:100\n");
    let script = "stat -c %u /scratch && echo x > /dev/null && head -c4 /dev/zero | wc -c && \
                  ls /dev/shm /dev/mqueue && hostname && cat /proc/sys/kernel/shmmni";
    let options = [
        "--tmpfs",
        "/scratch",
        "--hostname",
        "inside",
        "--sysctl",
        "kernel.shmmni=77",
    ];
    run(&orlop, &options, script)
        .success()
        .stdout_is("0\n4\n/dev/mqueue:\n\n/dev/shm:\ninside\n77\n");
    run(&orlop, &["-t"], "tty; stat -c %u:%g /dev/console $(tty)")
        .success()
        .stdout_is("/dev/pts/0\r\n0:5\r\n0:5\r\n");
    run(&orlop, &["--init", "--read-only"], "touch /made").exits(1);
    run(
        &orlop,
        &["--privileged"],
        "mount -t tmpfs none /tmp && mknod /tmp/null c 1 3; id -u",
    )
    .success()
    .stdout_is("0\n")
    .stderr_has("Operation not permitted");
}

#[test]
fn the_network_is_the_containers_own() {
    let orlop = Instance::with_busybox();
    let script = "while :; do echo served | nc -l -p 80; done";
    let options = [
        "--userns=auto",
        "-p",
        "127.0.0.1::80",
        "--sysctl",
        "net.ipv4.ip_forward=1",
    ];
    orlop.run_script_with("server", &options, script);
    let port = orlop.published("server", "80");
    let told = || {
        let stream = std::net::TcpStream::connect(&port).ok()?;
        std::io::read_to_string(stream).ok()
    };
    eventually("it serves", || told().as_deref() == Some(PAGE));
    let address = orlop.inspect("server", "{{.NetworkSettings.IPAddress}}");
    let get = format!("nc {} 80 < /dev/null", address.trim());
    // Between two clients nobody listens for a moment.
    eventually("a neighbour is served", || {
        run(&orlop, &[], &get).stdout() == PAGE
    });
    run(
        &orlop,
        &["--user", "1000"],
        "cat /proc/sys/net/ipv4/ping_group_range; ls /sys/class/net",
    )
    .success()
    .stdout_is("0\t65535\neth0\nlo\n");
    run(&orlop, &["--network", "none"], "ls /sys/class/net")
        .success()
        .stdout_is("lo\n");
    orlop.run(&["network", "create", "apart"]).success();
    run(&orlop, &["--network", "apart"], "ls /sys/class/net")
        .success()
        .stdout_is("eth0\nlo\n");
    orlop
        .run(&["network", "connect", "apart", "server"])
        .success();
    orlop
        .run(&["exec", "server", "ls", "/sys/class/net"])
        .success()
        .stdout_is("eth0\neth1\nlo\n");
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let orlop = Instance::with_busybox();
    for (option, value) in [("--network", "host"), ("--pid", "host"), ("--ipc", "host")] {
        run(&orlop, &[option, value], "true")
            .exits(125)
            .stderr_has(option);
    }
    run(&orlop, &["--runtime", "/bin/true"], "true")
        .exits(125)
        .stderr_has("--runtime and a user namespace exclude one another");
    orlop
        .run(&["run", "--rm", "--userns", "keep-id", "busybox", "true"])
        .exits(125)
        .stderr_has("--userns \"keep-id\": expected host, private, auto or auto:size=N");
    orlop
        .run(&[
            "run",
            "--rm",
            "--userns",
            "auto:size=10",
            "--user",
            "11",
            "busybox",
            "true",
        ])
        .exits(125)
        .stderr_has("cannot become user 11");
}

#[test]
fn b11_the_control_groups_are_read_only_with_and_without_user_ids_of_ones_own() {
    let orlop = Instance::with_busybox();
    for userns in ["host", "auto"] {
        for cgroupns in ["private", "host"] {
            let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                          mkdir $d/below 2> /dev/null && echo made in $d; done; \
                          for f in $(find /sys/fs/cgroup -name cgroup.procs); do \
                          (echo 1 > $f) 2> /dev/null && echo wrote $f; done; ls /sys/fs/cgroup | wc -l";
            let options = ["--userns", userns, "--cgroupns", cgroupns];
            let told = orlop.shell(&options, script).success().stdout();
            let number: u32 = told.trim().parse().unwrap_or_default();
            assert!(number > 0, "{userns} {cgroupns}: {told}");
        }
    }
}

#[test]
fn b35_a_container_is_in_its_cgroup_and_its_limits_hold() {
    let orlop = Instance::with_busybox();
    sleeper(&orlop, "one", &["--memory", "32m", "--pids-limit", "20"]);
    let pid = orlop.inspect("one", "{{.State.Pid}}");
    let id = orlop.inspect("one", "{{.Id}}");
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let memory = groups
        .lines()
        .find(|line| line.contains(":memory:") || line.starts_with("0::"));
    assert!(memory.unwrap().contains(id.trim()), "{groups}");
    let hog = "x=1; while :; do x=$x$x; done";
    orlop
        .run(&[
            "run",
            "--name",
            "hog",
            "--userns=auto",
            "--memory",
            "32m",
            "busybox",
            "sh",
            "-c",
            hog,
        ])
        .exits(137);
    assert_eq!(orlop.inspect("hog", "{{.State.OOMKilled}}").trim(), "true");
}

#[test]
fn b37_no_control_groups_are_mounted_and_no_namespaces_are_made() {
    let orlop = Instance::with_busybox();
    for userns in ["host", "auto"] {
        let script =
            "mount -t cgroup -o memory none /tmp; unshare -Ur true; unshare -m true; echo done";
        orlop
            .shell(&["--userns", userns], script)
            .success()
            .stdout_is("done\n")
            .stderr_has("mount: permission denied")
            .stderr_has("unshare");
    }
}

#[test]
fn j4_nothing_on_disk_is_owned_by_the_ids_of_a_container() {
    let orlop = Instance::with_busybox();
    sleeper(&orlop, "one", &["-v", "data:/data", "-v", "filled:/etc"]);
    let script = "touch /made /data/made && chown 1:1 /data/made && mkdir -p /etc/new/er";
    orlop.run(&["exec", "one", "sh", "-c", script]).success();
    let mut seen = 0;
    let mut directories = vec![orlop.root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let (uid, gid) = ids(&metadata);
            assert!(
                uid < 100_000 && gid < 100_000,
                "{:?}: {uid} {gid}",
                entry.path()
            );
            seen += usize::from(entry.file_name() == "made");
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn a_service_can_give_every_container_ids_of_its_own() {
    let orlop = Instance::with_busybox();
    orlop.kill_service("runtime");
    let refused = orlop
        .run(&["serve", "runtime", "--userns-remap", "nobody-has-this-name"])
        .stderr_has("/etc/subuid");
    assert_ne!(refused.code(), 0);
    let mut service = orlop
        .command(&["serve", "runtime", "--userns-remap", "auto"])
        .spawn()
        .unwrap();
    orlop_tests::eventually("the service serves", || {
        std::os::unix::net::UnixStream::connect(orlop.socket("runtime")).is_ok()
    });
    let map = ["run", "--rm", "busybox", "cat", "/proc/self/uid_map"];
    let told = orlop.run(&map).success().stdout();
    let numbers: Vec<u64> = told
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    assert!(
        numbers[0] == 0 && numbers[1] >= 100_000 && numbers[2] == 65536,
        "{told}"
    );
    let mut host = map.to_vec();
    host.splice(2..2, ["--userns", "host"]);
    let told = orlop.run(&host).success().stdout();
    let numbers: Vec<u64> = told
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    assert_eq!(numbers, [0, 0, 4_294_967_295]);
    orlop
        .run(&["create", "--name", "kept", "busybox"])
        .success();
    assert_eq!(
        orlop.inspect("kept", "{{.HostConfig.UsernsMode}}").trim(),
        "auto"
    );
    let dockerfile = b"FROM busybox\nRUN touch /made && chown 3:4 /made\n";
    orlop
        .run_with_input(&["build", "-t", "built", "-"], dockerfile)
        .success();
    orlop
        .run(&["run", "--rm", "built", "stat", "-c", "%u:%g", "/made"])
        .success()
        .stdout_is("3:4\n");
    orlop.signal_service("runtime", rustix::process::Signal::TERM);
    service.wait().unwrap();
}
