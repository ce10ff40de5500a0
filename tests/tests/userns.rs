//! Containers with user ids of their own.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;

use orlop_tests::{Instance, Outcome};

/// An instance with busybox.
fn orlop() -> Instance {
    let orlop = Instance::start();
    orlop.import_busybox("busybox");
    orlop
}

/// `run --rm` in a user namespace, with these options, and a script.
fn run(orlop: &Instance, options: &[&str], script: &str) -> Outcome {
    let mut args = vec!["run", "--rm", "--userns", "auto"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    orlop.run(&args)
}

/// A container of this name in a user namespace, which sleeps.
fn sleeper(orlop: &Instance, name: &str, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name, "--userns", "auto"];
    args.extend(options);
    args.extend(["busybox", "sleep", "1000"]);
    orlop.run(&args).success();
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
    let orlop = orlop();
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
        "stat -c %u:%g /bin/busybox /etc /etc/hosts /dev/null /proc/self /sys",
    )
    .success()
    .stdout_is("0:0\n0:0\n0:0\n0:0\n0:0\n0:0\n");
}
