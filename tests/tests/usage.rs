//! Looking into containers that run: their processes and what they use.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use orlop_tests::{Instance, eventually};

fn orlop() -> Instance {
    let orlop = Instance::start();
    orlop.import_busybox("busybox");
    orlop
}

#[test]
fn top_shows_the_processes_as_ps_does() {
    let orlop = orlop();
    orlop.run_script("web", "sleep 1000 & sleep 1001; true");
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
    orlop.run_script("idle", "sleep 1000");
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
    orlop.run_script("web", "while true; do echo hello | nc -l -p 80; done");
    let address = orlop.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let script =
        format!("i=0; while [ $i -lt 20 ]; do i=$((i+1)); nc -w 1 {address} 80; done; true");
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
    orlop.run_script("web", "sleep 1000");
    let child = orlop.spawn(&["stats", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    std::thread::sleep(Duration::from_millis(2500));
    orlop.run(&["rm", "-f", "web"]).success();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("web 1\nweb 1\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "a pipe is not a terminal");
    assert!(output.status.success());
}

#[test]
fn what_runs_is_measured_by_the_next_service_too() {
    let orlop = orlop();
    orlop.run_script("web", "sleep 1000; true");
    orlop.kill_service("runtime");
    orlop
        .run(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"])
        .success()
        .stdout_is("web 2\n");
    orlop
        .run(&["top", "web"])
        .success()
        .stdout_has("sleep 1000");
}

/// Row C12: what shows the processes is not a program of the image, whatever the image calls its own.
#[test]
fn c12_top_runs_no_program_of_the_image() {
    let orlop = orlop();
    let trojans = "for t in ps nsenter top; do printf '#!/bin/sh\\necho $t > /ran' > /bin/$t; \
                   chmod +x /bin/$t; done; touch /ready; sleep 1000; true";
    orlop.run_script("trojan", trojans);
    eventually("they are there", || {
        orlop
            .run(&["exec", "trojan", "test", "-e", "/ready"])
            .code()
            == 0
    });
    orlop
        .run(&["top", "trojan"])
        .success()
        .stdout_has("sleep 1000");
    orlop.run(&["top", "trojan", "-ef"]).success();
    orlop.run(&["stats", "--no-stream", "trojan"]).success();
    orlop
        .run(&["exec", "trojan", "test", "-e", "/ran"])
        .exits(1);
}

/// Row D15: a process cannot drive the terminal of who looks at it.
#[test]
fn d15_what_a_process_is_called_is_escaped() {
    let orlop = orlop();
    orlop
        .run(&[
            "run",
            "-d",
            "--name",
            "loud",
            "busybox",
            "sh",
            "-c",
            "sleep 1000; true",
            "\u{1b}[2J\nroot",
        ])
        .success();
    let shown = orlop.run(&["top", "loud"]).success().stdout();
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert!(shown.contains("\\u{1b}[2J\\nroot"), "{shown:?}");
}
