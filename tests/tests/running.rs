//! What can be done to a container while it runs: pause it, rename it, change its limits, look into it.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::Child;
use std::time::Duration;

use orlop_tests::{Instance, eventually};

/// Counts, so that it shows whether it gets time.
const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.02; done";

fn orlop() -> Instance {
    let orlop = Instance::start();
    orlop.import_busybox("busybox");
    orlop
}

/// A container with this name that runs a script.
fn running(orlop: &Instance, name: &str, script: &str) {
    orlop
        .run(&["run", "-d", "--name", name, "busybox", "sh", "-c", script])
        .success();
}

fn lines(orlop: &Instance, name: &str) -> usize {
    orlop
        .run(&["logs", name])
        .success()
        .stdout()
        .lines()
        .count()
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let orlop = orlop();
    running(&orlop, "one", COUNTER);
    running(&orlop, "two", COUNTER);
    eventually("both count", || {
        lines(&orlop, "one") > 2 && lines(&orlop, "two") > 2
    });
    orlop
        .run(&["pause", "one", "two", "nothing"])
        .exits(1)
        .stdout_is("one\ntwo\n")
        .stderr_has("nothing");
    let before = lines(&orlop, "one");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        lines(&orlop, "one"),
        before,
        "a frozen container writes nothing"
    );
    assert_eq!(
        orlop.inspect(
            "one",
            "{{.State.Status}} {{.State.Running}} {{.State.Paused}}"
        ),
        "paused true true"
    );
    orlop
        .run(&[
            "ps",
            "--filter",
            "status=paused",
            "--format",
            "{{.Names}} {{.Status}}",
        ])
        .success()
        .stdout_has("one Up")
        .stdout_has("(Paused)");
    orlop
        .run(&["unpause", "one", "two"])
        .success()
        .stdout_is("one\ntwo\n");
    eventually("it counts again", || lines(&orlop, "one") > before);
    assert_eq!(orlop.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn nobody_enters_a_paused_container() {
    let orlop = orlop();
    running(&orlop, "ice", "sleep 100");
    orlop
        .run(&["unpause", "ice"])
        .exits(1)
        .stderr_has("is running");
    orlop.run(&["pause", "ice"]).success();
    orlop
        .run(&["pause", "ice"])
        .exits(1)
        .stderr_has("is paused");
    for (args, code) in [
        (&["exec", "ice", "true"][..], 125),
        (&["attach", "ice"], 1),
        (&["start", "ice"], 1),
        (&["start", "-a", "ice"], 1),
        (&["rm", "ice"], 1),
    ] {
        let outcome = orlop.run(args);
        assert!(
            outcome.stderr().contains("is paused"),
            "{args:?}: {}",
            outcome.stderr()
        );
        assert!(outcome.code() == code || outcome.code() == 1, "{args:?}");
    }
    orlop
        .run(&["create", "--name", "idle", "busybox"])
        .success();
    orlop
        .run(&["pause", "idle"])
        .exits(1)
        .stderr_has("not running");
    orlop
        .run(&["unpause", "idle"])
        .exits(1)
        .stderr_has("not running");
}

#[test]
fn a_paused_container_can_be_ended() {
    let orlop = orlop();
    let trap = "trap 'exit 5' TERM; while true; do sleep 0.05; done";
    for (end, code) in [
        (&["stop"][..], "5"),
        (&["kill"], "137"),
        (&["kill", "-s", "TERM"], "5"),
        (&["stop", "-t", "0"], ""),
    ] {
        running(&orlop, "ice", trap);
        // The trap is set once the shell sleeps.
        std::thread::sleep(Duration::from_millis(200));
        orlop.run(&["pause", "ice"]).success();
        let args: Vec<_> = end.iter().chain(&["ice"]).collect();
        orlop.run(&args).success();
        let ended = orlop.run(&["wait", "ice"]).success().line();
        assert!(code.is_empty() || ended == code, "{end:?}: {ended}");
        orlop.run(&["rm", "ice"]).success();
    }
    running(&orlop, "ice", trap);
    orlop.run(&["pause", "ice"]).success();
    orlop.run(&["rm", "-f", "ice"]).success();
    running(&orlop, "ice", trap);
    orlop.run(&["pause", "ice"]).success();
    orlop.run(&["restart", "-t", "1", "ice"]).success();
    assert_eq!(orlop.inspect("ice", "{{.State.Status}}"), "running");
}

/// A signal that does not end it is there when the container goes on.
#[test]
fn a_signal_waits_for_a_paused_container() {
    let orlop = orlop();
    running(
        &orlop,
        "ice",
        "trap 'echo heard' HUP; while true; do sleep 0.05; done",
    );
    std::thread::sleep(Duration::from_millis(200));
    orlop.run(&["pause", "ice"]).success();
    orlop.run(&["kill", "-s", "HUP", "ice"]).success();
    assert_eq!(orlop.inspect("ice", "{{.State.Status}}"), "paused");
    assert_eq!(lines(&orlop, "ice"), 0);
    orlop.run(&["unpause", "ice"]).success();
    eventually("it hears the signal", || lines(&orlop, "ice") == 1);
}

#[test]
fn a_paused_container_is_paused_for_the_next_service() {
    let orlop = orlop();
    running(&orlop, "ice", COUNTER);
    orlop.run(&["pause", "ice"]).success();
    orlop.kill_service("runtime");
    assert_eq!(orlop.inspect("ice", "{{.State.Status}}"), "paused");
    let before = lines(&orlop, "ice");
    orlop.run(&["unpause", "ice"]).success();
    eventually("it counts again", || lines(&orlop, "ice") > before);
}

/// The process that a process is the child of.
fn parent(pid: &str) -> rustix::process::Pid {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ppid = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap();
    rustix::process::Pid::from_raw(ppid.parse().unwrap()).unwrap()
}

/// Fault row 4, on a frozen container: its processes die only when they are thawed.
#[test]
fn a_paused_container_does_not_outlive_its_shim() {
    let orlop = orlop();
    for service_is_down in [false, true] {
        running(&orlop, "ice", "sleep 1000; true");
        let pid = orlop.inspect("ice", "{{.State.Pid}}");
        let shim = parent(&pid);
        orlop.run(&["pause", "ice"]).success();
        if service_is_down {
            orlop.kill_service("runtime");
        }
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        eventually("it is known to be dead", || {
            orlop.inspect("ice", "{{.State.Status}}") == "dead"
        });
        eventually("its processes are gone", || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        });
        orlop.run(&["rm", "ice"]).success();
    }
}

/// A process on its way into the container is not frozen half-way, where it would hold up the shim.
#[test]
fn pausing_while_processes_enter_holds_up_nothing() {
    let orlop = orlop();
    running(&orlop, "busy", "sleep 100");
    let entering: Vec<Child> = (0..8)
        .map(|_| orlop.spawn(&["exec", "busy", "true"]))
        .collect();
    for _ in 0..10 {
        orlop.run(&["pause", "busy"]).success();
        orlop.run(&["unpause", "busy"]).success();
    }
    for mut child in entering {
        child.wait().unwrap();
    }
    orlop
        .run(&["exec", "busy", "echo", "in"])
        .success()
        .stdout_is("in\n");
}

#[test]
fn a_renamed_container_keeps_all_but_its_name() {
    let orlop = orlop();
    running(&orlop, "old", COUNTER);
    orlop
        .run(&["create", "--name", "taken", "busybox"])
        .success();
    for (name, problem) in [
        ("taken", "in use"),
        ("old", "already"),
        ("no/slash", "no/slash"),
        ("x", "2 to 128"),
    ] {
        orlop
            .run(&["rename", "old", name])
            .exits(1)
            .stderr_has(problem);
    }
    orlop
        .run(&["rename", "nothing", "any"])
        .exits(1)
        .stderr_has("nothing");
    let id = orlop.inspect("old", "{{.Id}}");
    orlop.run(&["rename", "old", "new"]).success().stdout_is("");
    assert_eq!(
        orlop.inspect("new", "{{.Id}} {{.Name}}"),
        format!("{id} /new")
    );
    orlop.run(&["inspect", "old"]).exits(1);
    orlop.run(&["exec", "new", "true"]).success();
    orlop.run(&["create", "--name", "old", "busybox"]).success();
    orlop.run(&["rename", "old", "older"]).success();
    for _ in 0..2 {
        assert_eq!(orlop.inspect("new", "{{.Id}}"), id);
        assert_eq!(orlop.inspect("older", "{{.State.Status}}"), "created");
        orlop.run(&["create", "--name", "new", "busybox"]).exits(1);
        orlop.kill_service("runtime");
    }
}

/// Of those who want a name at the same time, one has it.
#[test]
fn a_name_has_one_winner() {
    let orlop = orlop();
    for number in 0..4 {
        let name = format!("c{number}");
        orlop.run(&["create", "--name", &name, "busybox"]).success();
    }
    for round in 0..5 {
        let wanted = format!("wanted{round}");
        let ids = orlop
            .run(&["ps", "-aq", "--filter", "name=c"])
            .success()
            .stdout();
        let mut racing: Vec<Child> = ids
            .lines()
            .map(|id| orlop.spawn(&["rename", id, &wanted]))
            .collect();
        racing.push(orlop.spawn(&["create", "--name", &wanted, "busybox"]));
        let won = racing
            .into_iter()
            .filter_map(|mut child| child.wait().unwrap().success().then_some(()))
            .count();
        assert_eq!(won, 1);
        orlop.run(&["rm", &wanted]).success();
    }
}

/// What a control file in the container's view says; version 1 or 2.
fn limit(orlop: &Instance, name: &str, v1: &str, v2: &str) -> String {
    let script = format!("cd /sys/fs/cgroup; cat {v1} 2>/dev/null || cat {v2}");
    orlop
        .run(&["exec", name, "sh", "-c", &script])
        .success()
        .line()
}

#[test]
fn limits_change_while_it_runs_and_stay_for_the_next_start() {
    let orlop = orlop();
    orlop
        .run(&[
            "run", "-d", "--name", "web", "-m", "64m", "busybox", "sleep", "100",
        ])
        .success();
    orlop
        .run(&[
            "update",
            "-m",
            "256m",
            "--memory-swap",
            "512m",
            "--pids-limit",
            "33",
            "--cpus",
            "0.5",
            "--cpu-shares",
            "512",
            "--cpuset-cpus",
            "0",
            "--memory-reservation",
            "32m",
            "--restart",
            "on-failure:3",
            "web",
        ])
        .success()
        .stdout_is("web\n");
    let holds = || {
        let memory = limit(&orlop, "web", "memory/memory.limit_in_bytes", "memory.max");
        assert_eq!(memory, (256 << 20).to_string());
        assert_eq!(limit(&orlop, "web", "pids/pids.max", "pids.max"), "33");
        let cpu = limit(&orlop, "web", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(cpu.starts_with("50000"), "{cpu}");
        assert_eq!(
            limit(&orlop, "web", "cpuset/cpuset.cpus", "cpuset.cpus"),
            "0"
        );
    };
    holds();
    assert_eq!(
        orlop.inspect(
            "web",
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} \
             {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.RestartPolicy.Name}}"
        ),
        "268435456 536870912 33 500000000 512 on-failure"
    );
    orlop.kill_service("runtime");
    orlop.run(&["restart", "-t", "0", "web"]).success();
    holds();
    // Down again, below what memory and swap together were.
    orlop
        .run(&["update", "-m", "32m", "--memory-swap", "64m", "web"])
        .success();
    let memory = limit(&orlop, "web", "memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (32 << 20).to_string());
}

#[test]
fn a_stopped_container_has_its_new_limits_at_its_start() {
    let orlop = orlop();
    orlop
        .run(&["create", "--name", "idle", "busybox", "sleep", "100"])
        .success();
    orlop
        .run(&["update", "--pids-limit", "21", "idle"])
        .success();
    orlop.run(&["start", "idle"]).success();
    assert_eq!(limit(&orlop, "idle", "pids/pids.max", "pids.max"), "21");
}

#[test]
fn one_bad_limit_changes_nothing() {
    let orlop = orlop();
    running(&orlop, "web", "sleep 100");
    let before = orlop.inspect("web", "{{json .HostConfig}}");
    let pids = limit(&orlop, "web", "pids/pids.max", "pids.max");
    for bad in [
        &["--pids-limit", "7", "-m", "1k"][..],
        &["--pids-limit", "7", "--memory-swap", "1g"],
        &["--pids-limit", "7", "-m", "256m", "--memory-swap", "128m"],
        &["--pids-limit", "7", "--restart", "sometimes"],
        &["--pids-limit", "7", "--cpuset-cpus", "a"],
        // The kernel is the one who says no, after it took the memory.
        &["--pids-limit", "7", "-m", "256m", "--cpuset-cpus", "4000"],
        &["--pids-limit", "7", "--cpus", "1", "--cpu-quota", "5000"],
        &[],
    ] {
        let args: Vec<_> = ["update"].iter().chain(bad).chain(&["web"]).collect();
        let outcome = orlop.run(&args);
        assert!(
            matches!(outcome.code(), 1 | 125),
            "{bad:?}: {}",
            outcome.stderr()
        );
        assert_eq!(
            orlop.inspect("web", "{{json .HostConfig}}"),
            before,
            "{bad:?}"
        );
        assert_eq!(
            limit(&orlop, "web", "pids/pids.max", "pids.max"),
            pids,
            "{bad:?}"
        );
    }
    let memory = limit(&orlop, "web", "memory/memory.limit_in_bytes", "memory.max");
    assert_ne!(memory, (256 << 20).to_string(), "it was taken back");
    orlop
        .run(&[
            "run", "-d", "--rm", "--name", "once", "busybox", "sleep", "100",
        ])
        .success();
    orlop
        .run(&["update", "--restart", "always", "once"])
        .exits(1)
        .stderr_has("restart");
}

#[test]
fn top_shows_the_processes_as_ps_does() {
    let orlop = orlop();
    running(&orlop, "web", "sleep 1000 & sleep 1001; true");
    let pid = orlop.inspect("web", "{{.State.Pid}}");
    let shown = || orlop.run(&["top", "web"]).success().stdout();
    eventually("both sleep", || shown().lines().count() == 4);
    let shown = shown();
    let mut lines = shown.lines();
    let titles: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        titles,
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    );
    let first: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(first[..2], ["root", &pid], "{shown}");
    assert_eq!(first[5..7], ["?", "00:00:00"], "{shown}");
    assert!(shown.contains("sleep 1001"), "{shown}");
    orlop
        .run(&["top", "web", "-o", "ppid,comm,rss"])
        .success()
        .stdout_has("PPID                COMMAND             RSS\n")
        .stdout_has(&pid);
    orlop
        .run(&["top", "web", "aux"])
        .success()
        .stdout_has("%MEM");
    for (args, named) in [
        (&["top", "web", "-o", "pid,foo"][..], "foo"),
        (&["top", "web", "-Z"], "-Z"),
        (&["top", "nothing"], "nothing"),
    ] {
        let outcome = orlop.run(args);
        assert_ne!(outcome.code(), 0);
        assert!(outcome.stderr().contains(named), "{}", outcome.stderr());
    }
    // A frozen process is still a process.
    orlop.run(&["pause", "web"]).success();
    orlop
        .run(&["top", "web"])
        .success()
        .stdout_has("sleep 1001");
    orlop.run(&["rm", "-f", "web"]).success();
    orlop
        .run(&["create", "--name", "idle", "busybox"])
        .success();
    orlop
        .run(&["top", "idle"])
        .exits(1)
        .stderr_has("not running");
}

#[test]
fn stats_show_what_a_container_uses() {
    let orlop = orlop();
    orlop
        .run(&[
            "run",
            "-d",
            "--name",
            "busy",
            "-m",
            "64m",
            "busybox",
            "sh",
            "-c",
            "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; while true; do :; done",
        ])
        .success();
    running(&orlop, "idle", "sleep 1000");
    orlop
        .run(&["create", "--name", "never", "busybox"])
        .success();
    let one = |name: &str, field: &str| {
        let form = format!("{{{{.{field}}}}}");
        let args = ["stats", "--no-stream", "--format", &form, name];
        orlop.run(&args).success().line()
    };
    let percent = |name: &str| {
        let text = one(name, "CPUPerc");
        text.strip_suffix('%').unwrap().parse::<f64>().unwrap()
    };
    eventually("one is busy", || percent("busy") > 10.0);
    assert!(percent("idle") < 10.0);
    let memory = one("busy", "MemUsage");
    assert!(memory.ends_with("MiB / 64MiB"), "{memory}");
    let used: f64 = memory.split("MiB").next().unwrap().parse().unwrap();
    assert!((8.0..32.0).contains(&used), "{memory}");
    assert_eq!(one("busy", "PIDs"), "1");
    assert_eq!(one("never", "MemUsage"), "0B / 0B");
    orlop
        .run(&["stats", "--no-stream"])
        .success()
        .stdout_has("CONTAINER ID   NAME      CPU %")
        .stdout_has("busy")
        .stdout_has("idle");
    let names = |args: &[&str]| {
        let all = [&["stats", "--no-stream", "--format", "{{.Name}}"], args].concat();
        let outcome = orlop.run(&all).success().stdout();
        let mut names: Vec<String> = outcome.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["busy", "idle"]);
    assert_eq!(names(&["--all"]), ["busy", "idle", "never"]);
    assert_eq!(names(&["idle"]), ["idle"]);
    orlop
        .run(&["stats", "--no-stream", "nothing"])
        .exits(1)
        .stderr_has("nothing");
    let id = orlop.inspect("idle", "{{.Id}}");
    orlop
        .run(&["stats", "--no-stream", "--no-trunc", "idle"])
        .success()
        .stdout_has(&id);
}

#[test]
fn stats_count_what_went_over_the_network() {
    let orlop = orlop();
    running(
        &orlop,
        "web",
        "while true; do echo hello | nc -l -p 80; done",
    );
    let address = orlop.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let script =
        format!("i=0; while [ $i -lt 20 ]; do i=$((i+1)); nc -w 1 {address} 80 || :; done");
    orlop
        .run(&["run", "--rm", "busybox", "sh", "-c", &script])
        .success();
    let traffic = orlop
        .run(&["stats", "--no-stream", "--format", "{{.NetIO}}", "web"])
        .success()
        .line();
    let (received, sent) = traffic.split_once(" / ").unwrap();
    assert!(received != "0B" && sent != "0B", "{traffic}");
}

/// Answers come until the container is removed; each is a table of its own.
#[test]
fn stats_go_on() {
    let orlop = orlop();
    running(&orlop, "web", "sleep 1000");
    let child = orlop.spawn(&["stats", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    std::thread::sleep(Duration::from_millis(2500));
    orlop.run(&["rm", "-f", "web"]).success();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("web 1\nweb 1\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "a pipe is not a terminal");
    assert!(output.status.success());
}
