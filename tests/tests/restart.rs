//! Restart policies: the pauses between restarts, and what runs again after the host did.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, eventually};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_container_that_keeps_failing_is_seen_restarting_and_can_be_stopped() {
    let orlop = Instance::with_busybox();
    orlop.run_script_with("box", &["--restart", "always"], "exit 1");
    eventually("the pauses are long enough to be seen", || {
        orlop
            .inspect("box", "{{.RestartCount}}")
            .parse::<u32>()
            .unwrap()
            >= 4
    });
    eventually("it waits", || {
        let shown = orlop.inspect(
            "box",
            "{{.State.Status}} {{.State.Restarting}} {{.State.Running}}",
        );
        shown == "restarting true true"
    });
    // The pauses end before a slow machine has looked.
    let format = ["--format", "{{.Names}} {{.Status}}"];
    let list = [&["ps", "--filter", "status=restarting"], &format[..]].concat();
    eventually("it is listed so", || {
        let shown = orlop.run(&list).success().stdout();
        shown.contains("box Restarting (1) ") && shown.contains(" ago")
    });
    eventually("it is not removed", || {
        let refused = orlop.run(&["rm", "box"]).exits(1);
        refused.stderr().contains("box is restarting")
    });
    orlop.run(&["stop", "box"]).success();
    let count = orlop.inspect("box", "{{.RestartCount}}");
    assert_eq!(orlop.status("box"), "exited");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(
        orlop.inspect("box", "{{.State.Status}} {{.RestartCount}}"),
        format!("exited {count}")
    );
}

#[test]
fn after_a_reboot_policies_decide_what_runs_again() {
    let orlop = Instance::with_busybox();
    for (name, policy) in [
        ("none", "no"),
        ("failing", "on-failure"),
        ("always", "always"),
        ("ever", "always"),
        ("unless", "unless-stopped"),
        ("stopped", "unless-stopped"),
    ] {
        orlop.run_sleeper(name, &["--restart", policy]);
    }
    orlop.run(&["stop", "-t", "0", "ever", "stopped"]).success();
    reboot(&orlop, &["none", "failing", "always", "unless"]);
    for name in ["failing", "always", "ever", "unless"] {
        eventually(name, || orlop.status(name) == "running");
    }
    assert_eq!(orlop.status("none"), "dead");
    assert_eq!(orlop.status("stopped"), "exited");
    orlop.run(&["exec", "always", "true"]).success();
}

/// The service and all shims end at once and without a word, and the containers with them.
fn reboot(orlop: &Instance, running: &[&str]) {
    let pids: Vec<String> = running
        .iter()
        .map(|name| orlop.inspect(name, "{{.State.Pid}}"))
        .collect();
    orlop.kill_service("runtime");
    for pid in &pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let shim = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))
            .unwrap();
        let shim = Pid::from_raw(shim.trim().parse().unwrap()).unwrap();
        kill_process(shim, Signal::KILL).unwrap();
    }
    eventually("the containers are gone", || {
        pids.iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
    orlop.up();
}
