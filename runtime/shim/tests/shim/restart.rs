//! What the shim does while there is no service: starting its container again, ending an unhealthy one.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use orlop_shim::config::Away;
use orlop_shim::health::HealthCheck;
use orlop_shim::protocol::{Reply, Request};
use orlop_shim::restart::{OnUnhealthy, Policy, Restarts};
use serde_json::json;

use crate::lifecycle::wait_for;
use crate::support::{Box, receive, send};

/// Counts its runs in a file; says the count.
const COUNT: &str = "n=$((`cat /n 2>/dev/null` + 1)); echo $n > /n; echo run $n;";

fn counting(policy: Policy, then: &str) -> Box {
    let mut container = Box::shell(&format!("{COUNT} {then}"));
    container.config.away.policy = Some(policy);
    container
}

fn restarts(container: &Box) -> u32 {
    container.exit().restarts.unwrap().count
}

/// A service that comes while the container runs, or after its end.
fn waiting(container: &Box) -> UnixStream {
    container.request(&Request::Wait)
}

#[test]
fn a_container_whose_service_is_gone_is_started_again_with_what_it_had() {
    let mut container = counting(
        Policy::Always,
        "hostname; [ $n = 4 ] && exec sleep 100; exit 3",
    );
    container.cgroup(&[("pids", &[]), ("devices", &[])]);
    container.start();
    wait_for(|| container.output().ends_with("run 4\nbox\n"));
    assert_eq!(
        container.output(),
        "run 1\nbox\nrun 2\nbox\nrun 3\nbox\nrun 4\nbox\n",
        "the layer and the log go on"
    );
    assert!(!container.dir.path().join("exit.json").exists(), "it runs");
    let Reply::State {
        pid,
        restarts,
        last,
        ..
    } = container.ask(&Request::State)
    else {
        panic!()
    };
    let counted = Restarts {
        count: 3,
        short_runs: 3,
    };
    assert_eq!(restarts, Some(counted));
    assert_eq!(last.unwrap().code, 3);
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains("pids:/orlop-test-"), "{cgroup}");
    assert_eq!(container.exec("", &["cat", "/n"]), (0, "4\n".to_owned()));
}

#[test]
fn a_joined_network_is_joined_again() {
    let mut container = counting(
        Policy::Always,
        "readlink /proc/self/ns/net; [ $n = 2 ] && exec sleep 100; exit 1",
    );
    // Its maker, who has it open, goes at once.
    let mut maker = std::process::Command::new("unshare")
        .args(["-n", "sleep", "100"])
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", maker.id());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    wait_for(|| std::fs::read_link(&path).is_ok_and(|theirs| theirs != own));
    let theirs = std::fs::read_link(&path).unwrap();
    for namespace in container.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
    {
        if namespace["type"] == "network" {
            namespace["path"] = json!(path);
        }
    }
    container.start();
    maker.kill().unwrap();
    maker.wait().unwrap();
    wait_for(|| container.output().lines().count() == 4);
    let theirs = theirs.to_str().unwrap();
    let expected = format!("run 1\n{theirs}\nrun 2\n{theirs}\n");
    assert_eq!(container.output(), expected);
}

#[test]
fn policies_end_where_they_say() {
    for (policy, script, runs) in [
        (Policy::Never, "exit 1", 1),
        (Policy::OnFailure { maximum_retries: 2 }, "exit 1", 3),
        (Policy::OnFailure { maximum_retries: 0 }, "[ $n = 3 ]", 3),
        (Policy::OnFailure { maximum_retries: 0 }, "exit 0", 1),
    ] {
        let mut container = counting(policy, script);
        container.start();
        container.ended();
        let last = format!("run {runs}\n");
        assert!(container.output().ends_with(&last), "{policy:?} {script}");
        assert_eq!(restarts(&container), runs - 1);
        assert!(!container.config.socket.exists());
    }
}

#[test]
fn a_service_that_waits_is_left_the_restart() {
    let mut container = counting(Policy::Always, "exit 5");
    let (mut start, _) = container.create();
    send(&mut start, &Request::Start);
    assert!(matches!(receive(&mut start), Reply::Started { .. }));
    assert!(matches!(receive(&mut start), Reply::Exited { code: 5, .. }));
    // However slow it is.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(container.output(), "run 1\n");
    send(&mut start, &Request::Take);
    container.ended();
    assert_eq!((container.exit().code, restarts(&container)), (5, 0));
    assert_eq!(container.output(), "run 1\n");
}

#[test]
fn a_service_that_goes_without_a_word_leaves_the_restart() {
    let mut container = counting(Policy::Always, "[ $n = 2 ] && exec sleep 100; exit 5");
    let (mut start, _) = container.create();
    send(&mut start, &Request::Start);
    receive(&mut start);
    receive(&mut start);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(container.output(), "run 1\n");
    drop(start);
    wait_for(|| container.output() == "run 1\nrun 2\n");
}

#[test]
fn a_service_that_comes_during_a_pause_takes_over() {
    let mut container = counting(Policy::Always, "exit 5");
    container.config.away.restarts = Restarts {
        count: 7,
        short_runs: 7,
    };
    container.start();
    wait_for(|| container.dir.path().join("exit.json").exists());
    let mut service = waiting(&container);
    assert!(matches!(
        receive(&mut service),
        Reply::Exited { code: 5, .. }
    ));
    assert!(matches!(
        container.ask(&Request::State),
        Reply::State { pid: 0, .. }
    ));
    send(&mut service, &Request::Take);
    container.ended();
    assert_eq!(
        (container.output().as_str(), restarts(&container)),
        ("run 1\n", 7)
    );
}

#[test]
fn the_policy_can_be_changed_and_taken_away() {
    let mut container = counting(Policy::Never, "read x");
    container.config.open_stdin = true;
    container.start();
    let end = Request::Signal {
        signal: 9,
        all: false,
    };
    let change = |policy| assert_eq!(container.ask(&Request::Restart(policy)), Reply::Ok);
    wait_for(|| container.output() == "run 1\n");
    change(Some(Policy::Always));
    container.ask(&end);
    wait_for(|| container.output() == "run 1\nrun 2\n");
    change(None);
    container.ask(&end);
    container.ended();
    assert_eq!((container.exit().code, restarts(&container)), (137, 1));
}

#[test]
fn what_cannot_be_started_again_is_tried_as_often_as_the_policy_has_it() {
    let policy = Policy::OnFailure { maximum_retries: 2 };
    let mut container = counting(policy, "rm /bin/sh; exit 4");
    container.start();
    container.ended();
    assert_eq!((container.exit().code, restarts(&container)), (4, 2));
    let told = container.own_log();
    assert_eq!(
        told.matches("cannot start the container again").count(),
        2,
        "{told}"
    );
}

fn unhealthy(on_unhealthy: OnUnhealthy, policy: Policy) -> Box {
    let script = "trap 'exit 9' TERM; while true; do sleep 0.01; done";
    let mut container = counting(policy, script);
    let mut process = container.spec["process"].clone();
    process["args"] = json!(["sh", "-c", "[ `cat /n` = 2 ]"]);
    container.config.health = Some(HealthCheck {
        process: serde_json::from_value(process).unwrap(),
        // Longer than the script takes to begin.
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(10),
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(1),
    });
    container.config.away = Away {
        on_unhealthy,
        stop_signal: 15,
        stop_timeout: 10,
        ..container.config.away
    };
    container
}

#[test]
fn an_unhealthy_container_is_ended_or_started_again_as_was_asked_for() {
    let mut container = unhealthy(OnUnhealthy::Stop, Policy::Always);
    container.start();
    container.ended();
    let exit = container.exit();
    assert_eq!((exit.code, exit.stopped), (9, true), "no policy counts");
    let mut container = unhealthy(OnUnhealthy::Kill, Policy::Never);
    container.start();
    container.ended();
    assert_eq!(
        (container.exit().code, container.exit().stopped),
        (137, false)
    );
    let mut container = unhealthy(OnUnhealthy::Restart, Policy::Never);
    container.start();
    wait_for(|| container.output() == "run 1\nrun 2\n");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(container.output(), "run 1\nrun 2\n", "it is healthy now");
}

#[test]
fn a_run_does_not_answer_for_the_memory_of_the_one_before() {
    let hog = "[ $n = 1 ] && exec dd if=/dev/zero of=/dev/null bs=200M count=1; exit 4";
    let mut container = counting(Policy::OnFailure { maximum_retries: 1 }, hog);
    container.config.away.restarts.short_runs = 5;
    container.cgroup(&[("memory", &[("memory.limit_in_bytes", "16777216")])]);
    container.start();
    wait_for(|| container.dir.path().join("exit.json").exists());
    assert!(container.exit().oom_killed);
    container.ended();
    assert_eq!(
        (container.exit().code, container.exit().oom_killed),
        (4, false)
    );
}
