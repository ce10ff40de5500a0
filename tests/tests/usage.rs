//! Looking into containers that run: their processes and what they use.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::{BufRead as _, BufReader};

use orlop_tests::{Instance, eventually};

#[test]
fn top_shows_the_processes_as_ps_does() {
    let orlop = Instance::with_busybox();
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
    let orlop = Instance::with_busybox();
    orlop.run_script_with(
        "busy",
        &["-m", "64m"],
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; while true; do :; done",
    );
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
    let orlop = Instance::with_busybox();
    orlop.run_script("web", "while true; do echo hello | nc -l -p 80; done");
    let address = orlop.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let script =
        format!("i=0; while [ $i -lt 20 ]; do i=$((i+1)); nc -w 1 {address} 80; done; true");
    orlop.shell(&[], &script).success();
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
    let orlop = Instance::with_busybox();
    orlop.run_script("web", "sleep 1000");
    let mut stats = orlop.spawn(&["stats", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    let mut shown = BufReader::new(stats.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert_eq!(shown.next().unwrap().unwrap(), "web 1");
    }
    orlop.run(&["rm", "-f", "web"]).success();
    let rest: Vec<_> = shown.map(Result::unwrap).collect();
    assert!(
        !rest.concat().contains('\u{1b}'),
        "a pipe is not a terminal"
    );
    assert!(stats.wait().unwrap().success());
}

#[test]
fn what_runs_is_measured_by_the_next_service_too() {
    let orlop = Instance::with_busybox();
    orlop.run_script("web", "sleep 1000; true");
    eventually("it sleeps", || {
        orlop.run(&["top", "web"]).stdout().lines().count() == 3
    });
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
    let orlop = Instance::with_busybox();
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
    let orlop = Instance::with_busybox();
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

#[test]
fn containers_are_counted_with_and_without_their_image() {
    let orlop = Instance::with_busybox();
    let script = "dd if=/dev/zero of=/f bs=1000 count=1000 2>/dev/null; touch /ready; sleep 1000";
    orlop.run_script("web", script);
    eventually("it has written", || {
        orlop.run(&["exec", "web", "test", "-e", "/ready"]).code() == 0
    });
    let number = |field: &str| {
        let shown = orlop.run(&["inspect", "-s", "-f", field, "web"]).success();
        shown.line().parse::<u64>().unwrap()
    };
    let (own, all) = (number("{{.SizeRw}}"), number("{{.SizeRootFs}}"));
    assert!((1_000_000..2_000_000).contains(&own), "{own}");
    assert!(all > own, "the image is not counted: {all}");
    for args in [&["ps", "-s"][..], &["ps", "--format", "{{.Size}}"]] {
        let shown = orlop.run(args).success().stdout();
        assert!(
            shown.contains("1.0") && shown.contains("MB (virtual "),
            "{shown}"
        );
    }
    orlop.run(&["ps"]).success().stdout_lacks("SIZE");
    orlop
        .run(&["inspect", "web"])
        .success()
        .stdout_lacks("SizeRw");
}

/// A disk of the host's, `/dev/NAME`, and its number.
fn disk() -> Option<(String, String)> {
    let read = |name: &str, file: &str| {
        let text = std::fs::read_to_string(format!("/sys/block/{name}/{file}"));
        text.unwrap_or_default().trim().to_owned()
    };
    let names = std::fs::read_dir("/sys/block").unwrap().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| read(name, "size") != "0")
        .map(|name| (format!("/dev/{name}"), read(&name, "dev")))
        .find(|(path, _)| std::path::Path::new(path).exists())
}

#[test]
fn the_use_of_a_disk_is_limited() {
    let orlop = Instance::with_busybox();
    for (option, value, told) in [
        ("--device-read-bps", "/dev/null:1mb", "/dev/null"),
        ("--device-write-iops", "/dev/none-here:5", "/dev/none-here"),
        ("--device-read-bps", "sda:1mb", "DEVICE:SIZE"),
        ("--blkio-weight-device", "/dev/null:9", "10 to 1000"),
    ] {
        orlop
            .run(&["run", "--rm", option, value, "busybox", "true"])
            .exits(125)
            .stderr_has(told);
    }
    let Some((path, number)) = disk() else {
        return;
    };
    let limit = |number: &str| format!("{path}:{number}");
    let (bytes, times) = (limit("1mb"), limit("77"));
    let mut args = vec!["run", "-d", "--name", "slow", "--device-read-bps", &bytes];
    args.extend(["--device-write-iops", &times, "busybox", "sleep", "1000"]);
    orlop.run(&args).success();
    let script = "cd /sys/fs/cgroup; \
                  cat blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_iops_device \
                  2>/dev/null || cat io.max";
    let set = orlop.run(&["exec", "slow", "sh", "-c", script]).success();
    let set = set.stdout();
    assert!(set.contains(&number), "{set}");
    assert!(set.contains("1048576") && set.contains("77"), "{set}");
    // It stays with the container.
    orlop.run(&["update", "--cpus", "0.5", "slow"]).success();
    orlop.run(&["restart", "-t", "0", "slow"]).success();
    let again = orlop.run(&["exec", "slow", "sh", "-c", script]).success();
    assert_eq!(again.stdout(), set);
    let shown = orlop.inspect("slow", "{{json .HostConfig.BlkioDeviceReadBps}}");
    assert!(
        shown.contains(&path) && shown.contains("1048576"),
        "{shown}"
    );
}

#[test]
fn a_log_is_shown_with_what_belongs_to_it() {
    let orlop = Instance::with_busybox();
    let mut args = vec![
        "run",
        "--name",
        "said",
        "-l",
        "team=a b",
        "-e",
        "STAGE=test",
    ];
    args.extend(["--log-opt", "labels=team", "--log-opt", "env=STAGE,NONE"]);
    args.extend(["busybox", "echo", "hello"]);
    orlop.run(&args).success().stdout_is("hello\n");
    let details = ["logs", "--details", "said"];
    let shown = "STAGE=test,team=a+b hello\n";
    orlop.run(&details).success().stdout_is(shown);
    orlop.kill_service("runtime");
    orlop.run(&details).success().stdout_is(shown);
    orlop.run(&["logs", "said"]).success().stdout_is("hello\n");
    orlop
        .run(&["run", "--rm", "--log-opt", "compress=1", "busybox", "true"])
        .exits(125)
        .stderr_has("compress");
}
