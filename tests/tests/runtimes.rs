//! Containers that another OCI runtime makes (`--runtime`): Debian's runc, and what goes by its command
//! line. All else is the same: the shim stays with them, the service limits, freezes and connects them.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use orlop_tests::{Instance, Outcome, PAGE, Terminal, binary, eventually, http};

const RUNC: &str = "/usr/sbin/runc";

/// `run --rm` under runc with these options, and a script.
fn run(orlop: &Instance, options: &[&str], script: &str) -> Outcome {
    orlop.shell(&[&["--runtime", RUNC], options].concat(), script)
}

/// A container under runc that runs a script behind the caller's back.
fn start(orlop: &Instance, name: &str, options: &[&str], script: &str) {
    orlop.run_script_with(name, &[&["--runtime", "runc"], options].concat(), script);
}

/// A program that root alone can change.
fn program(orlop: &Instance, name: &str, text: &str) -> PathBuf {
    let path = orlop.home().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_command_under_runc_has_its_streams_and_its_exit_code() {
    let orlop = Instance::with_busybox();
    run(&orlop, &[], "echo out; echo err >&2; exit 3")
        .exits(3)
        .stdout_is("out\n")
        .stderr_has("err");
    let echo = ["run", "--rm", "-i", "--runtime", "runc", "busybox", "cat"];
    orlop
        .run_with_input(&echo, b"to and fro")
        .success()
        .stdout_is("to and fro");
    let command =
        |command: &str| orlop.run(&["run", "--rm", "--runtime", RUNC, "busybox", command]);
    command("nosuch")
        .exits(127)
        .stderr_has("exec: \"nosuch\": executable file not found in $PATH");
    command("/no/such")
        .exits(127)
        .stderr_has("exec: \"/no/such\"");
    command("/etc").exits(126).stderr_has("exec: \"/etc\"");
    orlop.run(&["ps", "-aq"]).success().stdout_is("");
}

#[test]
fn a_user_is_found_in_the_image_and_the_working_directory_is_made() {
    let orlop = Instance::with_busybox();
    let script = "id -u; id -G; echo $HOME; pwd; umask; hostname; grep -c box /etc/hosts";
    let options = [
        "-u",
        "1000:5",
        "--group-add",
        "7",
        "-w",
        "/new/place",
        "-h",
        "box",
    ];
    run(&orlop, &options, script)
        .success()
        .stdout_is("1000\n5 7\n/tmp\n/new/place\n0022\nbox\n1\n");
    let host = rustix::system::uname();
    let host = format!("{}\n", host.nodename().to_str().unwrap());
    run(&orlop, &["--uts", "host"], "hostname")
        .success()
        .stdout_is(&host);
    run(&orlop, &["-u", "nosuch"], "true")
        .exits(125)
        .stderr_has("nosuch");
}

#[test]
fn a_terminal_comes_from_the_runtime() {
    let orlop = Instance::with_busybox();
    let shell = [
        "run",
        "-it",
        "--rm",
        "--runtime",
        "runc",
        "--name",
        "sh",
        "busybox",
        "sh",
    ];
    let mut shell = Terminal::run(&orlop, &shell);
    shell.shows("# ");
    shell.types(b"stty size; test -t 0 && echo is'-'tty\n");
    shell.shows("33 111");
    shell.shows("is-tty");
    let mut second = Terminal::run(&orlop, &["exec", "-it", "sh", "sh"]);
    second.shows("# ");
    second.types(b"stty size; exit 4\n");
    second.shows("33 111");
    assert_eq!(second.ends(), 4);
    shell.types(b"sleep 1000\n");
    eventually("it sleeps", || {
        orlop.run(&["top", "sh"]).stdout().contains("sleep 1000")
    });
    shell.types(b"\x03");
    shell.types(b"exit 5\n");
    assert_eq!(shell.ends(), 5);
}

#[test]
fn later_processes_are_the_runtimes_too() {
    let orlop = Instance::with_busybox();
    start(
        &orlop,
        "box",
        &["-e", "A=b"],
        "echo mark > /mark; exec sleep 1000",
    );
    eventually("it began", || {
        orlop.run(&["exec", "box", "cat", "/mark"]).ended_with() == Some(0)
    });
    orlop
        .run(&[
            "exec",
            "-u",
            "12",
            "box",
            "sh",
            "-c",
            "id -u; echo $A; exit 6",
        ])
        .exits(6)
        .stdout_is("12\nb\n");
    orlop
        .run_with_input(&["exec", "-i", "box", "cat"], b"in")
        .success()
        .stdout_is("in");
    orlop
        .run(&["exec", "box", "nosuch"])
        .exits(127)
        .stderr_has("executable file not found in $PATH");
    orlop.run(&["exec", "box", "/etc"]).exits(126);
    orlop.run(&["exec", "-d", "box", "sleep", "77"]).success();
    orlop.run(&["top", "box"]).success().stdout_has("sleep 77");
    orlop.run(&["stop", "-t", "0", "box"]).success();
    orlop.run(&["exec", "box", "true"]).exits(1);
}

#[test]
fn a_container_of_runc_lives_as_any_other() {
    let orlop = Instance::with_busybox();
    let script = "trap 'echo asked; exit 9' TERM; echo >> /runs; echo begun $(wc -l < /runs); \
                  while :; do sleep 0.05; done";
    start(&orlop, "box", &[], script);
    let logged = |text: &str| {
        orlop
            .run(&["logs", "box"])
            .success()
            .stdout()
            .contains(text)
    };
    eventually("it began", || logged("begun 1"));
    orlop.run(&["stop", "box"]).success();
    assert_eq!(orlop.inspect("box", "{{.State.ExitCode}}"), "9");
    assert!(logged("asked"));
    orlop.run(&["start", "box"]).success();
    eventually("it began again", || logged("begun 2"));
    orlop.run(&["restart", "-t", "5", "box"]).success();
    eventually("it began once more", || logged("begun 3"));
    assert_eq!(orlop.inspect("box", "{{.HostConfig.Runtime}}"), "runc");
    orlop.run(&["pause", "box"]).success();
    assert_eq!(orlop.status("box"), "paused");
    orlop.run(&["unpause", "box"]).success();
    orlop.run(&["cp", "box:/runs", "-"]).success();
    orlop.run(&["diff", "box"]).success().stdout_has("A /runs");
    orlop.run(&["kill", "box"]).success();
    assert_eq!(orlop.run(&["wait", "box"]).success().line(), "137");
    orlop.run(&["rm", "box"]).success();
}

#[test]
fn limits_volumes_and_ports_are_the_services() {
    let orlop = Instance::with_busybox();
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    run(&orlop, &["--memory", "64m"], limit)
        .success()
        .stdout_is("67108864\n");
    run(&orlop, &["--memory", "16m"], "tail /dev/zero").exits(137);
    run(
        &orlop,
        &["-v", "data:/data"],
        "mkdir /data/part; echo kept > /data/part/file",
    )
    .success();
    let part = "type=volume,source=data,target=/part,volume-subpath=part,readonly";
    run(
        &orlop,
        &["--mount", part],
        "cat /part/file; echo no > /part/file",
    )
    .exits(1)
    .stdout_is("kept\n");
    orlop.serve("web", &["--runtime", "runc", "-p", "127.0.0.1:0:80"]);
    let address = orlop.published("web", "80");
    eventually("the web server answers", || http::serves(&address, PAGE));
    orlop.run(&["update", "--memory", "96m", "web"]).success();
    orlop
        .run(&["stats", "--no-stream", "web"])
        .success()
        .stdout_has("96MiB");
    orlop.run(&["rm", "-f", "web"]).success();
}

#[test]
fn another_runtime_confines_as_ours_does() {
    let orlop = Instance::with_busybox();
    let script = "for field in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp; do \
                      sed -n \"s/^$field:.//p\" /proc/self/status; done; \
                  head -c 1 /proc/timer_list | wc -c; \
                  (: > /proc/sys/kernel/domainname) 2>/dev/null || echo fixed; \
                  unshare -n true 2>/dev/null || echo refused; ls /dev; ulimit -n; umask; \
                  cat /sys/fs/cgroup/devices/devices.list 2>/dev/null | sort";
    let own = orlop.shell(&[], script).success().stdout();
    run(&orlop, &[], script).success().stdout_is(&own);
    assert!(own.contains("fixed\nrefused\n"), "{own}");
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let path = format!("/proc/self/ns/{name}");
        let host = fs::read_link(&path).unwrap();
        let theirs = run(&orlop, &[], &format!("readlink {path}"))
            .success()
            .line();
        assert_ne!(theirs, host.to_str().unwrap(), "{name}");
    }
    run(
        &orlop,
        &["--security-opt", "seccomp=unconfined"],
        "sed -n 's/^Seccomp:.//p' /proc/self/status",
    )
    .success()
    .stdout_is("0\n");
    let fixed = r#"awk '$5 == "/" { print $6 }' /proc/self/mountinfo; touch /file"#;
    run(&orlop, &["--read-only"], fixed)
        .exits(1)
        .stdout_is("ro,nodev,relatime\n");
    start(
        &orlop,
        "donor",
        &["--ipc", "shareable"],
        "echo there > /dev/shm/mark; exec sleep 1000",
    );
    eventually("the memory is shared", || {
        run(
            &orlop,
            &["--ipc", "container:donor", "--pid", "container:donor"],
            "cat /dev/shm/mark; pidof sleep",
        )
        .stdout()
        .starts_with("there\n1")
    });
    orlop.run(&["rm", "-f", "donor"]).success();
}

#[test]
fn health_checks_and_policies_go_on() {
    let orlop = Instance::with_busybox();
    let check = [
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
    ];
    start(
        &orlop,
        "box",
        &check,
        "sleep 0.5; touch /well; exec sleep 1000",
    );
    eventually("it is healthy", || {
        orlop.inspect("box", "{{.State.Health.Status}}") == "healthy"
    });
    orlop.run(&["rm", "-f", "box"]).success();
    start(&orlop, "again", &["--restart", "on-failure:2"], "exit 1");
    eventually("it was started three times", || {
        orlop.inspect("again", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    });
}

#[test]
fn a_container_of_runc_outlives_the_service_and_not_its_shim() {
    let orlop = Instance::with_busybox();
    start(&orlop, "box", &[], "exec sleep 1000");
    orlop.kill_service("runtime");
    orlop.run(&["exec", "box", "true"]).success();
    let [shim] = orlop.shims()[..] else {
        unreachable!("one shim: {:?}", orlop.shims());
    };
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    eventually("its process is gone with it", || {
        orlop.status("box") == "dead" && !PathBuf::from(format!("/proc/{pid}")).exists()
    });
    orlop.run(&["start", "box"]).success();
    orlop.run(&["rm", "-f", "box"]).success();
}

#[test]
fn a_service_can_have_another_runtime_by_default() {
    let orlop = Instance::with_busybox();
    let before = PathBuf::from(format!("/proc/{}", orlop.service_pid("runtime")));
    orlop.signal_service("runtime", rustix::process::Signal::TERM);
    eventually("it is down", || !before.exists());
    let mut service = orlop.spawn(&["serve", "runtime", "--runtime", "runc"]);
    eventually("it is up", || {
        UnixStream::connect(orlop.socket("runtime")).is_ok()
    });
    let create = |name: &str, options: &[&str]| {
        let mut args = vec!["create", "--name", name];
        args.extend(options);
        args.extend(["busybox", "true"]);
        orlop.run(&args).success();
        orlop.inspect(name, "{{.HostConfig.Runtime}}")
    };
    assert_eq!(create("default", &[]), "runc");
    assert_eq!(create("own", &["--runtime", "orlop"]), "orlop");
    orlop.run(&["start", "-a", "default"]).success();
    orlop.run(&["start", "-a", "own"]).success();
    orlop.signal_service("runtime", rustix::process::Signal::TERM);
    assert!(service.wait().unwrap().success());
}

#[test]
fn our_own_runtime_goes_under_orlop_as_well() {
    let orlop = Instance::with_busybox();
    let oci = binary("orlop-oci");
    let run = |command: &[&str]| {
        let mut args = vec!["run", "--rm", "--runtime", oci.to_str().unwrap(), "busybox"];
        args.extend(command);
        orlop.run(&args)
    };
    run(&["sh", "-c", "echo out; exit 3"])
        .exits(3)
        .stdout_is("out\n");
    run(&["nosuch"])
        .exits(127)
        .stderr_has("executable file not found in $PATH");
}

#[test]
fn what_a_failing_runtime_says_is_told_and_nothing_is_left() {
    let orlop = Instance::with_busybox();
    let log = "while [ $# -gt 0 ]; do [ \"$1\" = --log ] && log=$2; shift; done\n";
    let line = r#"{"level":"error","msg":"cannot: the moon is full"}"#;
    let text = format!("#!/bin/sh\n{log}echo '{line}' > \"$log\"\nexit 1\n");
    let failing = program(&orlop, "failing", &text);
    orlop
        .run(&[
            "run",
            "--rm",
            "--runtime",
            failing.to_str().unwrap(),
            "busybox",
            "true",
        ])
        .exits(125)
        .stderr_has("failing: cannot: the moon is full");
    let silent = program(&orlop, "silent", "#!/bin/sh\nexit 7\n");
    orlop
        .run(&[
            "run",
            "--rm",
            "--runtime",
            silent.to_str().unwrap(),
            "busybox",
            "true",
        ])
        .exits(125)
        .stderr_has("silent ended with status 7 and said nothing");
    orlop.run(&["ps", "-aq"]).success().stdout_is("");
}

#[test]
fn what_is_no_runtime_or_needs_ours_is_refused_by_name() {
    let orlop = Instance::with_busybox();
    let create = |options: &[&str]| {
        let mut args = vec!["create"];
        args.extend(options);
        args.extend(["busybox", "true"]);
        orlop.run(&args)
    };
    for (runtime, told) in [
        ("nosuch", "\"nosuch\" in PATH"),
        ("/no/such", "/no/such: there is no such program"),
        ("sbin/runc", "expected an absolute path"),
        ("/usr/sbin/../sbin/runc", "absolute path without `..`"),
        ("/etc", "/etc: this is not a program"),
        ("/etc/passwd", "/etc/passwd: this is not a program"),
    ] {
        create(&["--runtime", runtime]).exits(1).stderr_has(told);
    }
    let open = program(&orlop, "open", "#!/bin/sh\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    create(&["--runtime", open.to_str().unwrap()])
        .exits(1)
        .stderr_has("somebody besides root can change it");
    create(&["--runtime", "runc", "--init"])
        .exits(1)
        .stderr_has("--init");
    create(&["--runtime", "runc", "-v", "/srv:/srv:rshared"])
        .exits(1)
        .stderr_has("shared propagation");
    orlop.run(&["ps", "-aq"]).success().stdout_is("");
}
