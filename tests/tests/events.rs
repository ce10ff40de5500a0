//! Events: what happens to containers, networks and volumes, in Docker's words and order.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::{BufRead as _, BufReader};

use orlop_tests::{Instance, eventually};

/// Everything until now, one `kind action` a line.
fn past(orlop: &Instance, filters: &[&str]) -> Vec<String> {
    let mut args = vec!["events", "--since", "1h", "--until", "0s"];
    args.extend(["--format", "{{.Type}} {{.Action}}"]);
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    let shown = orlop.run(&args).success().stdout();
    shown.lines().map(str::to_owned).collect()
}

#[test]
fn the_life_of_a_container_is_told_in_dockers_order() {
    let orlop = Instance::with_busybox();
    orlop.shell(&["--name", "box"], "exit 3").exits(3);
    let expected = [
        "container create",
        "container attach",
        "network connect",
        "container start",
        "container die",
        "network disconnect",
        "container destroy",
    ];
    // The files of a removed container go after the answer.
    eventually("it is gone", || past(&orlop, &["event=destroy"]).len() == 1);
    assert_eq!(past(&orlop, &[]), expected);
    orlop
        .run(&[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "event=die",
        ])
        .success()
        .stdout_has(" container die ")
        .stdout_has("exitCode=3, image=busybox, name=box)\n");
}

#[test]
fn what_a_person_does_is_told() {
    let orlop = Instance::with_busybox();
    let options = ["-l", "tier=web", "-v", "data:/data"];
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let ready = |times: usize| {
        eventually("its trap is set", || {
            orlop.run(&["logs", "box"]).stdout() == "ready\n".repeat(times)
        });
    };
    orlop.run_script_with("box", &options, script);
    orlop.run(&["exec", "box", "sh", "-c", "exit 4"]).exits(4);
    orlop.run(&["kill", "-s", "WINCH", "box"]).success();
    ready(1);
    orlop.run(&["restart", "box"]).success();
    ready(2);
    orlop.run(&["stop", "box"]).success();
    orlop.run(&["rm", "box"]).success();
    orlop.run(&["volume", "rm", "data"]).success();
    let restarted = ["kill", "die", "stop", "start", "restart"];
    let stopped = ["kill", "die", "stop", "destroy"];
    let mut expected = vec!["create", "start"];
    expected.extend([
        "exec_create: sh -c exit 4",
        "exec_start: sh -c exit 4",
        "exec_die",
    ]);
    expected.extend(["kill"].iter().chain(&restarted).chain(&stopped));
    let expected: Vec<String> = expected.iter().map(|e| format!("container {e}")).collect();
    assert_eq!(past(&orlop, &["container=box"]), expected);
    assert_eq!(
        past(&orlop, &["label=tier=web", "type=container"]),
        expected
    );
    let volume = past(&orlop, &["volume=data"]);
    let expected = ["create", "mount", "unmount", "mount", "unmount", "destroy"];
    assert_eq!(volume, expected.map(|action| format!("volume {action}")));
    assert!(past(&orlop, &["label=tier=db"]).is_empty());
}

#[test]
fn the_end_of_a_process_that_nobody_waits_for_is_told() {
    let orlop = Instance::with_busybox();
    let shared = tempfile::tempdir().unwrap();
    let mount = format!("{}:/shared", shared.path().display());
    orlop.run_sleeper("box", &["-v", &mount]);
    let long = "echo lost; until [ -e /shared/go ]; do sleep 0.05; done; exit 6";
    orlop
        .run(&["exec", "-d", "box", "sh", "-c", long])
        .success();
    assert!(past(&orlop, &["event=exec_die"]).is_empty());
    std::fs::write(shared.path().join("go"), "").unwrap();
    eventually("it ended", || past(&orlop, &["event=exec_die"]).len() == 1);
    orlop
        .run(&["events", "--since=1h", "--until=0s", "-f", "event=exec_die"])
        .success()
        .stdout_has("exitCode=6");
}

#[test]
fn a_watcher_sees_what_happens_from_now_on() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["create", "--name", "before", "busybox"])
        .success();
    let mut watcher = orlop.spawn(&["events", "--format", "{{json .}}"]);
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    // The watcher may still be on its way when the first volumes are made.
    let (heard, hearing) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let first = lines.next().unwrap().unwrap();
        heard.send(()).unwrap();
        assert!(!first.contains("before"), "{first}");
        let wanted = "\"name\":\"after\"";
        assert!(lines.any(|line| line.unwrap().contains(wanted)));
    });
    eventually("the watcher hears", || {
        orlop.run(&["volume", "create"]).success();
        hearing.try_recv().is_ok()
    });
    orlop
        .run(&["create", "--name", "after", "busybox"])
        .success();
    reader.join().unwrap();
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

#[test]
fn watching_ends_at_its_time_and_refuses_what_it_does_not_know() {
    let orlop = Instance::with_busybox();
    let until = ["events", "--until", "1s", "--filter", "type=volume"];
    orlop.run(&until).success().stdout_is("");
    orlop
        .run(&["events", "--filter", "colour=red"])
        .exits(125)
        .stderr_has("colour");
    orlop
        .run(&["events", "--since", "yesterday"])
        .exits(125)
        .stderr_has("--since");
}

#[test]
fn the_end_of_the_service_is_the_end_of_a_watch() {
    let orlop = Instance::with_busybox();
    let mut watcher = orlop.spawn(&["events", "--since", "1h"]);
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    orlop.run(&["volume", "create"]).success();
    assert!(lines.next().unwrap().unwrap().contains("volume create"));
    orlop.run(&["down"]).success();
    assert!(watcher.wait().unwrap().success());
    orlop.up();
}

#[test]
fn builds_are_told_to_nobody() {
    let orlop = Instance::with_busybox();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nRUN true\n",
    )
    .unwrap();
    orlop
        .run(&["build", context.path().to_str().unwrap()])
        .success();
    assert!(past(&orlop, &[]).is_empty());
}

#[test]
fn what_changes_a_container_without_ending_it_is_told() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &[]);
    for command in [
        &["pause", "box"][..],
        &["unpause", "box"],
        &["update", "--memory", "64m", "box"],
        &["commit", "-m", "why", "box", "made"],
        &["rename", "box", "other"],
    ] {
        orlop.run(command).success();
    }
    let told = past(&orlop, &["type=container"]);
    let told: Vec<_> = told.iter().skip(2).map(String::as_str).collect();
    let expected = ["pause", "unpause", "update", "commit", "rename"];
    assert_eq!(told, expected.map(|action| format!("container {action}")));
}
