//! Pausing containers: what stands still, who is kept out, and what ends them all the same.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::Child;
use std::time::Duration;

use orlop_tests::{Instance, eventually};

/// Counts, so that it shows whether it gets time.
const COUNTER: &str = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.02; done";

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
    let orlop = Instance::with_busybox();
    orlop.run_script("one", COUNTER);
    orlop.run_script("two", COUNTER);
    eventually("both count", || {
        lines(&orlop, "one") > 2 && lines(&orlop, "two") > 2
    });
    orlop
        .run(&["pause", "one", "two", "nothing"])
        .exits(1)
        .stdout_is("one\ntwo\n")
        .stderr_has("nothing");
    let mut before = lines(&orlop, "one");
    eventually("a frozen container writes nothing", || {
        std::thread::sleep(Duration::from_millis(300));
        let last = std::mem::replace(&mut before, lines(&orlop, "one"));
        before == last
    });
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
    assert_eq!(orlop.status("one"), "running");
}

#[test]
fn nobody_enters_a_paused_container() {
    let orlop = Instance::with_busybox();
    orlop.run_script("ice", "sleep 100");
    orlop
        .run(&["unpause", "ice"])
        .exits(1)
        .stderr_has("is running");
    orlop.run(&["pause", "ice"]).success();
    orlop
        .run(&["pause", "ice"])
        .exits(1)
        .stderr_has("is paused");
    for args in [
        &["exec", "ice", "true"][..],
        &["attach", "ice"],
        &["start", "ice"],
        &["start", "-a", "ice"],
        &["rm", "ice"],
    ] {
        orlop.run(args).exits(1).stderr_has("is paused");
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
    let orlop = Instance::with_busybox();
    let trap = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.05; done";
    for (end, code) in [
        (&["stop"][..], "5"),
        (&["kill"], "137"),
        (&["kill", "-s", "TERM"], "5"),
        (&["stop", "-t", "0"], ""),
    ] {
        orlop.run_script("ice", trap);
        eventually("the trap is set", || lines(&orlop, "ice") == 1);
        orlop.run(&["pause", "ice"]).success();
        let args: Vec<_> = end.iter().chain(&["ice"]).collect();
        orlop.run(&args).success();
        let ended = orlop.run(&["wait", "ice"]).success().line();
        assert!(code.is_empty() || ended == code, "{end:?}: {ended}");
        orlop.run(&["rm", "ice"]).success();
    }
    orlop.run_script("ice", trap);
    orlop.run(&["pause", "ice"]).success();
    orlop.run(&["rm", "-f", "ice"]).success();
    orlop.run_script("ice", trap);
    orlop.run(&["pause", "ice"]).success();
    orlop.run(&["restart", "-t", "1", "ice"]).success();
    assert_eq!(orlop.status("ice"), "running");
}

/// A signal that does not end it is there when the container goes on.
#[test]
fn a_signal_waits_for_a_paused_container() {
    let orlop = Instance::with_busybox();
    orlop.run_script(
        "ice",
        "trap 'echo heard' HUP; echo ready; while true; do sleep 0.05; done",
    );
    eventually("the trap is set", || lines(&orlop, "ice") == 1);
    orlop.run(&["pause", "ice"]).success();
    orlop.run(&["kill", "-s", "HUP", "ice"]).success();
    assert_eq!(orlop.status("ice"), "paused");
    assert_eq!(lines(&orlop, "ice"), 1);
    orlop.run(&["unpause", "ice"]).success();
    eventually("it hears the signal", || lines(&orlop, "ice") == 2);
}

#[test]
fn a_paused_container_is_paused_for_the_next_service() {
    let orlop = Instance::with_busybox();
    orlop.run_script("ice", COUNTER);
    orlop.run(&["pause", "ice"]).success();
    orlop.kill_service("runtime");
    assert_eq!(orlop.status("ice"), "paused");
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
    let orlop = Instance::with_busybox();
    for service_is_down in [false, true] {
        orlop.run_script("ice", "sleep 1000; true");
        let pid = orlop.inspect("ice", "{{.State.Pid}}");
        let shim = parent(&pid);
        orlop.run(&["pause", "ice"]).success();
        if service_is_down {
            orlop.kill_service("runtime");
        }
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        eventually("it is known to be dead", || orlop.status("ice") == "dead");
        eventually("its processes are gone", || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        });
        orlop.run(&["rm", "ice"]).success();
    }
}

/// A process on its way into the container is not frozen half-way, where it would hold up the shim.
#[test]
fn pausing_while_processes_enter_holds_up_nothing() {
    let orlop = Instance::with_busybox();
    orlop.run_script("busy", "sleep 100");
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

/// The pause comes at any moment of a check: before its process, on its way, while it runs.
#[test]
fn a_check_that_is_paused_on_its_way_holds_up_nobody() {
    let orlop = Instance::with_busybox();
    let check = ["--health-cmd", "true", "--health-interval", "5ms"];
    let run = ["run", "-d", "--name", "ice"];
    orlop
        .run(&[&run[..], &check, &["busybox", "sleep", "100"]].concat())
        .success();
    for _ in 0..40 {
        orlop.run(&["pause", "ice"]).success();
        // The shim sends it.
        orlop.run(&["kill", "-s", "WINCH", "ice"]).success();
        orlop.run(&["unpause", "ice"]).success();
    }
    orlop
        .run(&["exec", "ice", "echo", "in"])
        .success()
        .stdout_is("in\n");
    eventually("it is healthy", || {
        orlop.inspect("ice", "{{.State.Health.Status}}") == "healthy"
    });
}
