//! What makes a container stronger or weaker than the default: privileges, profiles, devices,
//! namespaces, limits of processes.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::Command;

use orlop_tests::{Instance, eventually};

/// A field of the test's own `/proc/self/status`.
fn own(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim().to_owned()
}

const CAPABILITIES: &str = "sed -n 's/^CapEff:.//p' /proc/self/status";

#[test]
fn a_privileged_container_has_what_the_service_has() {
    let orlop = Instance::with_busybox();
    let script = format!(
        "{CAPABILITIES}; grep Seccomp: /proc/self/status | cut -f2; \
         mount -t tmpfs none /tmp && echo mounted; \
         mkdir /sys/fs/cgroup/memory/below && rmdir /sys/fs/cgroup/memory/below && echo grouped; \
         head -c 1 /proc/timer_list | wc -c; : > /proc/sys/kernel/domainname && echo set"
    );
    let expected = format!("{}\n0\nmounted\ngrouped\n1\nset\n", own("CapPrm:"));
    orlop
        .shell(&["--privileged"], &script)
        .success()
        .stdout_is(&expected);
    let devices = orlop.shell(&["--privileged"], "ls /dev").success().stdout();
    assert!(devices.lines().any(|name| name == "kmsg"), "{devices}");
    orlop
        .shell(&["--privileged", "--cap-drop", "ALL"], CAPABILITIES)
        .success()
        .stdout_is("0000000000000000\n");
}

#[test]
fn all_capabilities_can_be_added_or_dropped_at_once() {
    let orlop = Instance::with_busybox();
    let all = format!("{}\n", own("CapPrm:"));
    orlop
        .shell(&["--cap-add", "ALL"], CAPABILITIES)
        .success()
        .stdout_is(&all);
    let none = "0000000000000000\n";
    orlop
        .shell(&["--cap-drop", "all"], CAPABILITIES)
        .success()
        .stdout_is(none);
    let raw = ["--cap-drop", "ALL", "--cap-add", "net_raw"];
    orlop
        .shell(&raw, CAPABILITIES)
        .success()
        .stdout_is("0000000000002000\n");
    orlop
        .shell(&["--cap-add", "SYS_EVERYTHING"], "true")
        .exits(125)
        .stderr_has("SYS_EVERYTHING");
}

#[test]
fn c6_c20_a_privileged_exec_inherits_nothing_and_another_user_has_nothing() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &[]);
    let status = ["grep", "^Cap", "/proc/self/status"];
    let exec = |options: &[&str]| {
        let mut args = vec!["exec"];
        args.extend(options);
        args.push("box");
        args.extend(status);
        orlop.run(&args).success().stdout()
    };
    let none = "0000000000000000";
    let privileged = exec(&["--privileged"]);
    assert!(
        privileged.contains(&format!("CapInh:\t{none}")),
        "{privileged}"
    );
    assert!(privileged.contains(&format!("CapEff:\t{}", own("CapPrm:"))));
    assert!(privileged.contains(&format!("CapAmb:\t{none}")));
    let user = exec(&["--privileged", "-u", "1000"]);
    assert!(user.contains(&format!("CapEff:\t{none}")), "{user}");
    let mount = ["box", "mount", "-t", "tmpfs", "none", "/tmp"];
    orlop
        .run(&[&["exec", "--privileged"][..], &mount].concat())
        .success();
    assert_ne!(orlop.run(&[&["exec"][..], &mount].concat()).code(), 0);
}

#[test]
fn a_seccomp_profile_of_ones_own_decides_by_capabilities() {
    let orlop = Instance::with_busybox();
    let file = tempfile::NamedTempFile::new().unwrap();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW",
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                   {"architecture":"SCMP_ARCH_AARCH64"}],
        "syscalls":[
        {"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO","errnoRet":28,
         "comment":"no space","excludes":{"caps":["CAP_SYS_TIME"]}},
        {"names":["unlink","unlinkat"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"99.0"}},
        {"names":["kill"],"action":"SCMP_ACT_ERRNO",
         "args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#;
    fs::write(file.path(), profile).unwrap();
    let option = format!("seccomp={}", file.path().display());
    let script = "chmod 777 /tmp 2>&1; kill -0 1 && echo asked; kill -10 1 2>/dev/null || echo denied; \
                  rm /etc/group && echo removed";
    orlop
        .shell(&["--security-opt", &option], script)
        .success()
        .stdout_is("chmod: /tmp: No space left on device\nasked\ndenied\nremoved\n");
    let with_time = ["--security-opt", &option, "--cap-add", "SYS_TIME"];
    orlop.shell(&with_time, "chmod 777 /tmp").success();
    orlop.run_sleeper("box", &["--security-opt", &option]);
    orlop
        .run(&[
            "exec",
            "--privileged",
            "box",
            "busybox",
            "chmod",
            "777",
            "/tmp",
        ])
        .exits(1)
        .stderr_has("No space left");
}

#[test]
fn c17_a_seccomp_profile_that_is_not_understood_never_means_none() {
    let orlop = Instance::with_busybox();
    let file = tempfile::NamedTempFile::new().unwrap();
    let option = format!("seccomp={}", file.path().display());
    for profile in [
        "",
        "{}",
        "unconfined",
        r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_NONE"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#,
    ] {
        fs::write(file.path(), profile).unwrap();
        orlop.shell(&["--security-opt", &option], "true").exits(125);
    }
    orlop
        .shell(&["--security-opt", "seccomp=/no/such/file"], "true")
        .exits(125)
        .stderr_has("/no/such/file");
}

#[test]
fn c19_what_the_kernel_cannot_enforce_is_refused_by_name() {
    let orlop = Instance::with_busybox();
    let unconfined = ["--security-opt", "label=disable", "--userns", "host"];
    orlop.shell(&unconfined, "true").success();
    orlop
        .shell(&["--security-opt", "apparmor=unconfined"], "true")
        .success();
    for (option, word) in [
        ("apparmor=docker-default", "AppArmor"),
        ("label=type:svirt_t", "SELinux"),
        ("systempaths=open", "systempaths"),
    ] {
        orlop
            .shell(&["--security-opt", option], "true")
            .exits(125)
            .stderr_has(word);
    }
}

#[test]
fn system_paths_are_open_where_that_is_asked_for() {
    let orlop = Instance::with_busybox();
    let script = "head -c 1 /proc/timer_list | wc -c; : > /proc/sys/kernel/domainname && echo set; \
                  grep Seccomp: /proc/self/status | cut -f2";
    orlop
        .shell(&["--security-opt", "systempaths=unconfined"], script)
        .success()
        .stdout_is("1\nset\n2\n");
}

#[test]
fn no_new_privileges_can_be_turned_on_and_off() {
    let orlop = Instance::with_busybox();
    let script = "grep NoNewPrivs /proc/self/status | cut -f2";
    for (option, expected) in [
        ("no-new-privileges", "1\n"),
        ("no-new-privileges=true", "1\n"),
        ("no-new-privileges:true", "1\n"),
        ("no-new-privileges=false", "0\n"),
    ] {
        orlop
            .shell(&["--security-opt", option], script)
            .success()
            .stdout_is(expected);
    }
}

/// A device of the kernel's log, under names that only this test knows.
fn device_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/dev").unwrap();
    let node = directory.path().join("log");
    let made = Command::new("mknod")
        .arg(&node)
        .args(["c", "1", "11"])
        .status();
    assert!(made.unwrap().success());
    fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    directory
}

#[test]
fn b24_a_device_can_be_used_as_far_as_it_was_given() {
    let orlop = Instance::with_busybox();
    let directory = device_directory();
    let node = directory.path().join("log").display().to_string();
    let script = "(: > /dev/given) 2>&1 && echo written; head -c 1 /dev/given 2>&1; true";
    let denied = "head: /dev/given: Operation not permitted\n";
    orlop
        .shell(&["--device", &format!("{node}:/dev/given:w")], script)
        .success()
        .stdout_is(&format!("written\n{denied}"));
    let in_place = format!("stat -c '%a %t:%T' {node}");
    orlop
        .shell(&["--device", &node], &in_place)
        .success()
        .stdout_is("666 1:b\n");
    let below = format!("{}:/dev/many", directory.path().display());
    orlop
        .shell(&["--device", &below], "ls /dev/many")
        .success()
        .stdout_is("log\n");
    let make = "mknod /dev/given c 1 11 && (: > /dev/given) && echo written";
    let rule = ["--cap-add", "MKNOD", "--device-cgroup-rule", "c 1:11 mw"];
    orlop.shell(&rule, make).success().stdout_is("written\n");
    orlop.shell(&["--cap-add", "MKNOD"], make).exits(1);
}

#[test]
fn a_device_that_cannot_be_given_is_named() {
    let orlop = Instance::with_busybox();
    for (option, value) in [
        ("--device", "/dev/no-such-device"),
        ("--device", "/etc/passwd:/dev/passwd"),
        ("--device", "/dev/null:/null"),
        ("--device", "/dev/null:/dev/../null"),
        ("--device", "/dev/null:/dev/null:x"),
        ("--device-cgroup-rule", "c 1:3"),
        ("--device-cgroup-rule", "a 1:3 r"),
    ] {
        orlop
            .shell(&[option, value], "true")
            .exits(125)
            .stderr_has("dev");
    }
}

#[test]
fn limits_of_processes_are_set_for_run_and_exec_and_told_if_they_cannot_be() {
    let orlop = Instance::with_busybox();
    let options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0"];
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c";
    orlop
        .shell(&options, script)
        .success()
        .stdout_is("100\n200\n0\n");
    orlop.run_sleeper("box", &options);
    orlop
        .run(&["exec", "box", "sh", "-c", script])
        .success()
        .stdout_is("100\n200\n0\n");
    orlop
        .shell(&["--ulimit", "nofile=5", "--init"], "ulimit -n")
        .success()
        .stdout_is("5\n");
    for bad in ["files=1", "nofile=2:1", "nofile=x", "nofile=-5"] {
        orlop.shell(&["--ulimit", bad], "true").exits(125);
    }
    let raised = orlop
        .shell(&["--ulimit", "nofile=10:1000000000"], "ulimit -Hn")
        .success();
    let may_raise = u64::from_str_radix(&own("CapPrm:"), 16).unwrap() & (1 << 24) != 0;
    assert_eq!(raised.stderr().contains("nofile"), !may_raise);
}

#[test]
fn b32_b33_kernel_parameters_are_those_of_the_containers_own_namespaces() {
    let orlop = Instance::with_busybox();
    let options = [
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
        "--sysctl",
        "kernel.shmmax=123456",
        "--sysctl",
        "fs.mqueue.msg_max=11",
    ];
    let script = "cd /proc/sys; cat net/ipv4/ip_default_ttl kernel/shmmax fs/mqueue/msg_max";
    orlop
        .shell(&options, script)
        .success()
        .stdout_is("77\n123456\n11\n");
    let host = || fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let before = host();
    for options in [
        ["--network=host", "--sysctl=net.ipv4.ip_default_ttl=77"],
        ["--ipc=host", "--sysctl=kernel.shmmax=1"],
        ["--name=box", "--sysctl=kernel.core_pattern=x"],
        ["--name=box", "--sysctl=kernel.shmmax+kernel.core_pattern=x"],
        ["--name=box", "--sysctl=net/../kernel/core_pattern=x"],
        ["--name=box", "--sysctl=vm.swappiness=1"],
        ["--name=box", "--sysctl=kernel.shmmax"],
    ] {
        orlop
            .shell(&options, "true")
            .exits(125)
            .stderr_has("sysctl");
    }
    assert_eq!(host(), before);
    orlop
        .shell(&["--sysctl", "net.no.such=1"], "true")
        .exits(125)
        .stderr_has("net.no.such");
}

#[test]
fn an_init_reaps_orphans_passes_signals_on_and_ends_as_its_command() {
    let orlop = Instance::with_busybox();
    orlop.shell(&["--init"], "exit 7").exits(7);
    orlop.shell(&["--init"], "kill -9 $$").exits(137);
    for (name, options, dead) in [("plain", &[][..], 1), ("reaped", &["--init"], 0)] {
        orlop.run_script_with(name, options, "(sleep 1.5 &); : > /begun; exec sleep 1000");
        eventually("it has an orphan", || {
            orlop.run(&["exec", name, "test", "-e", "/begun"]).code() == 0
        });
        eventually("the orphan has ended", || {
            let list = ["exec", name, "ps", "-o", "stat,args"];
            let seen = orlop.run(&list).success().stdout();
            let zombies = seen.lines().filter(|line| line.starts_with('Z')).count();
            let runs = seen.lines().any(|line| line.ends_with(" sleep 1.5"));
            !runs && zombies == dead
        });
    }
    orlop.run_script_with(
        "box",
        &["--init"],
        "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    );
    let logs = || orlop.run(&["logs", "box"]).success().stdout();
    orlop_tests::eventually("its trap is set", || logs() == "ready\n");
    orlop.run(&["stop", "box"]).success();
    assert_eq!(logs(), "ready\nasked\n");
    assert_eq!(orlop.inspect("box", "{{.State.ExitCode}}"), "3");
    orlop
        .run(&["run", "--rm", "--init", "busybox", "no-such-command"])
        .exits(127)
        .stderr_has("no-such-command");
}

/// Not even a command that may trace sees a handle or a path of the host in the first process.
#[test]
fn b5_an_init_has_nothing_of_the_host_open() {
    let orlop = Instance::with_busybox();
    let script = "sed -n 's/^CapEff:.//p; s/^Seccomp:.//p' /proc/1/status; \
                  readlink /proc/1/fd/*; readlink /proc/1/root; readlink /proc/1/cwd; cat /proc/1/cmdline; \
                  (: >> /proc/1/exe) 2>/dev/null && echo b7 orlop-shim is writable; true";
    let out = orlop
        .shell(&["--init", "--cap-add", "SYS_PTRACE"], script)
        .stdout();
    assert!(
        out.contains("\n2\n"),
        "it has the filter of the command: {out}"
    );
    assert!(!out.contains("orlop") && !out.contains("/proc"), "{out}");
    let links = out.lines().filter(|line| line.starts_with('/'));
    assert_eq!(links.collect::<Vec<_>>(), ["/", "/"], "{out}");
}

/// A container that joins another one's processes is visible there while it is made, also to one that
/// may trace.
#[test]
fn b5_a_container_that_joins_shows_no_file_of_the_host() {
    let orlop = Instance::with_busybox();
    let watch = "while true; do for p in /proc/[0-9]*; do for f in $p/fd/* $p/cwd $p/root; do \
                 t=$(readlink $f 2>/dev/null) || continue; \
                 case $t in *orlop*|/var/*|/run/*|*.log|*/tasks) echo leak $f $t;; esac; done; done; done";
    for capability in ["KILL", "SYS_PTRACE"] {
        orlop.run_script_with("box", &["--cap-add", capability], watch);
        for more in [&[][..], &["--init"], &["--cgroupns=host"]] {
            for _ in 0..15 {
                let options = [&["--pid", "container:box"], more].concat();
                orlop.shell(&options, "true").success();
            }
        }
        orlop.run(&["logs", "box"]).success().stdout_is("");
        orlop.run(&["rm", "-f", "box"]).success();
    }
}

#[test]
fn processes_are_shared_with_the_host_or_another_container() {
    let orlop = Instance::with_busybox();
    let link = "readlink /proc/self/ns/pid";
    let host = fs::read_link("/proc/self/ns/pid")
        .unwrap()
        .display()
        .to_string();
    orlop
        .shell(&["--pid", "host"], link)
        .success()
        .stdout_is(&format!("{host}\n"));
    orlop.run_sleeper("box", &[]);
    let of_box = orlop
        .run(&["exec", "box", "sh", "-c", link])
        .success()
        .stdout();
    assert_ne!(of_box.trim(), host);
    orlop
        .shell(&["--pid", "container:box"], link)
        .success()
        .stdout_is(&of_box);
    orlop.run_sleeper("guest", &["--pid", "container:box"]);
    for inside in ["box", "guest"] {
        let seen = orlop
            .run(&["exec", inside, "ps", "-o", "args"])
            .success()
            .stdout();
        assert_eq!(seen.matches("sleep 1000").count(), 2, "{inside}: {seen}");
    }
    orlop.run(&["rm", "-f", "guest"]).success();
    let seen = orlop
        .run(&["exec", "box", "ps", "-o", "args"])
        .success()
        .stdout();
    assert_eq!(seen.matches("sleep 1000").count(), 1, "{seen}");
    orlop.run(&["stop", "-t", "0", "box"]).success();
    orlop
        .shell(&["--pid", "container:box"], "true")
        .exits(125)
        .stderr_has("box");
    orlop
        .shell(&["--pid", "container:absent"], "true")
        .exits(125)
        .stderr_has("absent");
    orlop
        .shell(&["--pid", "other"], "true")
        .exits(125)
        .stderr_has("--pid");
}

#[test]
fn what_runs_in_the_hosts_process_namespace_ends_with_its_container() {
    let orlop = Instance::with_busybox();
    orlop.run_script_with("box", &["--pid", "host"], "sleep 98765 & exec sleep 98764");
    let count = || {
        let found = Command::new("pgrep")
            .args(["-fx", "sleep 9876[45]"])
            .output()
            .unwrap();
        found.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    eventually("both run", || count() == 2);
    orlop.run(&["exec", "box", "true"]).success();
    orlop.run(&["rm", "-f", "box"]).success();
    eventually("both are gone", || count() == 0);
}

#[test]
fn shared_memory_is_shared_as_far_as_it_was_said() {
    let orlop = Instance::with_busybox();
    let host = fs::read_link("/proc/self/ns/ipc")
        .unwrap()
        .display()
        .to_string();
    let link = "readlink /proc/self/ns/ipc";
    orlop
        .shell(&["--ipc", "host"], link)
        .success()
        .stdout_is(&format!("{host}\n"));
    orlop
        .shell(&["--ipc", "none"], "test -e /dev/shm || echo none")
        .stdout_is("none\n");
    orlop.run_sleeper("donor", &["--ipc", "shareable"]);
    orlop
        .run(&["exec", "donor", "sh", "-c", "echo hello > /dev/shm/word"])
        .success();
    let joined = orlop.shell(
        &["--ipc", "container:donor"],
        &format!("cat /dev/shm/word; {link}"),
    );
    let own = orlop
        .run(&["exec", "donor", "sh", "-c", link])
        .success()
        .stdout();
    joined.success().stdout_is(&format!("hello\n{own}"));
    orlop
        .shell(&["--ipc", "private"], "ls /dev/shm")
        .success()
        .stdout_is("");
    orlop.run_sleeper("own", &[]);
    orlop
        .shell(&["--ipc", "container:own"], "true")
        .exits(125)
        .stderr_has("shareable");
}

#[test]
fn names_and_control_groups_can_be_the_hosts() {
    let orlop = Instance::with_busybox();
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name = format!("{host}\n{host}\n");
    orlop
        .shell(&["--uts", "host"], "hostname; cat /etc/hostname")
        .success()
        .stdout_is(&name);
    orlop
        .shell(&["--uts", "host", "--hostname", "box"], "true")
        .exits(125)
        .stderr_has("--hostname");
    let place = "grep -c :/orlop/ /proc/self/cgroup; true";
    orlop.shell(&[], place).success().stdout_is("0\n");
    let shown = orlop.shell(&["--cgroupns", "host"], place).success().line();
    assert_ne!(shown, "0");
}

#[test]
fn b11_control_groups_cannot_be_written_whoever_sees_them() {
    let orlop = Instance::with_busybox();
    let script = "for g in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                  mkdir $g/x 2>/dev/null && echo made $g; \
                  (echo 1 > $g/cgroup.procs) 2>/dev/null && echo wrote $g; done; true";
    for mode in ["private", "host"] {
        let options = ["--cgroupns", mode, "--cap-add", "DAC_OVERRIDE"];
        orlop.shell(&options, script).success().stdout_is("");
    }
}

#[test]
fn b35_whatever_namespaces_are_shared_the_container_is_in_its_own_control_group() {
    let orlop = Instance::with_busybox();
    let modes: [&[&str]; 6] = [
        &["--pid=host"],
        &["--ipc=host"],
        &["--uts=host", "--network=host"],
        &["--cgroupns=host", "--pid=host"],
        &["--privileged"],
        &["--init"],
    ];
    for options in modes {
        orlop.run_sleeper("box", options);
        let pid = orlop.inspect("box", "{{.State.Pid}}");
        let id = orlop.inspect("box", "{{.Id}}");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for controller in ["memory", "pids", "devices"] {
            let line = groups.lines().find(|line| {
                let names = line.split(':').nth(1).unwrap_or_default();
                names.is_empty() || names.split(',').any(|name| name == controller)
            });
            assert!(
                line.unwrap().ends_with(&id),
                "{options:?} {controller}: {groups}"
            );
        }
        orlop.run(&["rm", "-f", "box"]).success();
    }
}

#[test]
fn c8_groups_are_added_by_name_and_number_for_run_and_exec() {
    let orlop = Instance::with_busybox();
    let options = ["--group-add", "wheel", "--group-add", "77", "-u", "1000"];
    let expected = "1000 10 77\n";
    orlop.shell(&options, "id -G").success().stdout_is(expected);
    orlop.run_sleeper("box", &options);
    orlop
        .run(&["exec", "box", "id", "-G"])
        .success()
        .stdout_is(expected);
    orlop
        .shell(&["--group-add", "nobody"], "true")
        .exits(125)
        .stderr_has("nobody");
}

#[test]
fn the_oom_score_is_set_for_run_and_exec() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &["--oom-score-adj", "321"]);
    orlop
        .run(&[
            "exec",
            "box",
            "cat",
            "/proc/1/oom_score_adj",
            "/proc/self/oom_score_adj",
        ])
        .success()
        .stdout_is("321\n321\n");
    orlop
        .shell(&["--oom-score-adj", "1001"], "true")
        .exits(125)
        .stderr_has("1001");
}

#[test]
fn all_of_it_survives_a_restart_and_is_shown() {
    let orlop = Instance::with_busybox();
    let directory = device_directory();
    let node = format!("{}/log:/dev/given:w", directory.path().display());
    orlop.run_sleeper(
        "box",
        &[
            "--privileged",
            "--init",
            "--ulimit",
            "nofile=100",
            "--device",
            &node,
            "--uts=host",
            "--sysctl=kernel.shmmax=4096",
            "--group-add=77",
            "--oom-score-adj=5",
        ],
    );
    let state = "ulimit -n; cat /proc/sys/kernel/shmmax /proc/1/comm; id -G; ls /dev/given";
    let seen = || {
        orlop
            .run(&["exec", "box", "sh", "-c", state])
            .success()
            .stdout()
    };
    let before = seen();
    assert_eq!(before, "100\n4096\ninit\n0 10 77\n/dev/given\n");
    orlop.run(&["restart", "-t", "0", "box"]).success();
    assert_eq!(seen(), before);
    for (format, expected) in [
        ("{{.HostConfig.Privileged}}", "true"),
        ("{{.HostConfig.Init}}", "true"),
        ("{{.HostConfig.UTSMode}}", "host"),
        ("{{.HostConfig.IpcMode}}", "private"),
        ("{{.HostConfig.OomScoreAdj}}", "5"),
        ("{{json .HostConfig.GroupAdd}}", "[\"77\"]"),
        (
            "{{json .HostConfig.Ulimits}}",
            r#"[{"Hard":100,"Name":"nofile","Soft":100}]"#,
        ),
    ] {
        assert_eq!(orlop.inspect("box", format), expected, "{format}");
    }
    assert!(Path::new(&directory.path().join("log")).exists());
}
