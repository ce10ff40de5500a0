//! Running containers: isolation, streams, limits, ports, volumes, life cycle, exit codes.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use orlop_tests::{Instance, eventually};

#[test]
fn exit_codes_are_dockers() {
    let orlop = Instance::with_busybox();
    orlop.run(&["run", "--rm", "busybox", "true"]).exits(0);
    orlop.shell(&[], "exit 7").exits(7);
    orlop.shell(&[], "sh -c 'kill -9 $$'; exit $?").exits(137);
    orlop
        .run(&["run", "--rm", "busybox", "nothing-like-this"])
        .exits(127)
        .stderr_has("nothing-like-this");
    orlop
        .run(&["run", "--rm", "busybox", "/etc"])
        .exits(126)
        .stderr_has("/etc");
    orlop
        .run(&["run", "--rm", "--no-such-flag", "busybox"])
        .exits(125)
        .stderr_has("--no-such-flag");
    orlop
        .run(&["run", "--rm", "--name", "no/slash", "busybox"])
        .exits(125)
        .stderr_has("no/slash");
    assert_eq!(
        orlop.run(&["ps", "-aq"]).success().line(),
        "",
        "nothing half-made is left"
    );
}

#[test]
fn process_options_arrive() {
    let orlop = Instance::with_busybox();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "# comment\nFROM_FILE=yes\n").unwrap();
    let env_file = file.path().to_str().unwrap();
    orlop
        .run(&[
            "run",
            "--rm",
            "-e",
            "A=b c",
            "--env-file",
            env_file,
            "-w",
            "/tmp",
            "-u",
            "1000:10",
            "--hostname",
            "box",
            "--entrypoint",
            "sh",
            "busybox",
            "-c",
            "echo $A $FROM_FILE; pwd; id -u; id -g; hostname; echo $HOSTNAME",
        ])
        .success()
        .stdout_is("b c yes\n/tmp\n1000\n10\nbox\nbox\n");
    orlop
        .run(&["run", "--rm", "--read-only", "busybox", "touch", "/x"])
        .exits(1)
        .stderr_has("Read-only");
    orlop
        .run(&["run", "--rm", "-u", "nobody-here", "busybox", "true"])
        .exits(125)
        .stderr_has("nobody-here");
}

#[test]
fn standard_streams_are_kept_apart_and_input_ends() {
    let orlop = Instance::with_busybox();
    let outcome = orlop.shell(&[], "echo out; echo err >&2").success();
    outcome.stdout_is("out\n").stderr_has("err");
    orlop
        .run_with_input(
            &["run", "--rm", "-i", "busybox", "wc", "-c"],
            &[b'x'; 300_000],
        )
        .success()
        .stdout_has("300000");
    // Without -i standard input is empty.
    orlop
        .run_with_input(&["run", "--rm", "busybox", "cat"], b"ignored")
        .success()
        .stdout_is("");
}

#[test]
fn large_output_arrives_whole() {
    let orlop = Instance::with_busybox();
    let outcome = orlop
        .run(&["run", "--rm", "busybox", "seq", "1", "200000"])
        .success();
    assert_eq!(outcome.stdout().lines().count(), 200_000);
    assert!(outcome.stdout().ends_with("200000\n"));
}

#[test]
fn the_container_sees_itself_only() {
    let orlop = Instance::with_busybox();
    let script = "echo pid $$; ls -d /proc/[0-9]* | wc -l; hostname | wc -c; cat /proc/1/cgroup | head -1; \
                  ip -o link | wc -l";
    let outcome = orlop.shell(&["--network", "none"], script).success();
    let out = outcome.stdout();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "pid 1");
    assert!(lines[1].trim().parse::<u32>().unwrap() < 6, "{out}");
    assert_eq!(lines[2].trim(), "13", "a host name of 12 digits: {out}");
    assert!(lines[3].ends_with(":/"), "{out}");
    assert_eq!(lines[4].trim(), "1", "only the loopback link: {out}");
}

#[test]
fn limits_hold() {
    let orlop = Instance::with_busybox();
    let hog = "x=a; while true; do x=$x$x; done";
    let outcome = orlop.run(&[
        "run", "--name", "hog", "-m", "24m", "busybox", "sh", "-c", hog,
    ]);
    assert_eq!(outcome.exits(137).code(), 137);
    assert_eq!(orlop.inspect("hog", "{{.State.OOMKilled}}"), "true");
    let bomb = "for i in $(seq 40); do sleep 5 & done; wait";
    orlop
        .shell(&["--pids-limit", "10"], bomb)
        .stderr_has("fork");
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true";
    let outcome = orlop.shell(&["--cpus", "0.5"], quota).success();
    assert!(outcome.stdout().contains("50000"), "{}", outcome.stdout());
}

#[test]
fn volumes_and_binds_keep_what_is_written() {
    let orlop = Instance::with_busybox();
    orlop
        .shell(&["-v", "data:/data"], "echo kept > /data/x")
        .success();
    orlop
        .run(&[
            "run",
            "--rm",
            "-v",
            "data:/data:ro",
            "busybox",
            "cat",
            "/data/x",
        ])
        .success()
        .stdout_is("kept\n");
    orlop
        .run(&[
            "run",
            "--rm",
            "-v",
            "data:/data:ro",
            "busybox",
            "touch",
            "/data/y",
        ])
        .exits(1)
        .stderr_has("Read-only");
    orlop
        .run(&["volume", "ls", "-q"])
        .success()
        .stdout_is("data\n");

    let host = tempfile::tempdir().unwrap();
    let bind = format!("{}:/mnt", host.path().display());
    orlop.shell(&["-v", &bind], "echo bound > /mnt/y").success();
    assert_eq!(
        fs::read_to_string(host.path().join("y")).unwrap(),
        "bound\n"
    );
    orlop.run(&["volume", "rm", "data"]).success();
    orlop
        .run(&["volume", "inspect", "data"])
        .exits(1)
        .stderr_has("data");
    orlop
        .run(&["run", "--rm", "-v", "x:/proc", "busybox", "true"])
        .exits(125)
        .stderr_has("/proc");
}

#[test]
fn life_cycle_by_command() {
    let orlop = Instance::with_busybox();
    let id = orlop
        .run(&[
            "create",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo up; while true; do sleep 0.1; done",
        ])
        .success()
        .line();
    assert_eq!(id.len(), 64, "{id}");
    orlop
        .run(&["ps", "-a"])
        .success()
        .stdout_has("Created")
        .stdout_has(&id[..12]);
    orlop.run(&["start", "box"]).success().stdout_is("box\n");
    eventually("its first line", || {
        orlop.run(&["logs", "box"]).stdout() == "up\n"
    });
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    assert_ne!(pid, "0");
    orlop.run(&["restart", "box"]).success();
    assert_ne!(orlop.inspect("box", "{{.State.Pid}}"), pid);
    eventually("started again", || {
        orlop.run(&["logs", "box"]).stdout() == "up\nup\n"
    });
    let started = Instant::now();
    orlop
        .run(&["stop", "-t", "100", "box"])
        .success()
        .stdout_is("box\n");
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "the trap ended it, not the timeout"
    );
    assert_eq!(
        orlop.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    orlop.run(&["wait", &id[..8]]).success().stdout_is("3\n");
    orlop.run(&["start", "box"]).success();
    orlop.run(&["kill", "box"]).success();
    orlop.run(&["wait", "box"]).success().stdout_is("137\n");
    orlop.run(&["rm", "box"]).success().stdout_is("box\n");
    orlop.run(&["inspect", "box"]).exits(1).stderr_has("box");
}

#[test]
fn unknown_and_ambiguous_names_are_said() {
    let orlop = Instance::with_busybox();
    for args in [
        ["start", "ghost"],
        ["stop", "ghost"],
        ["logs", "ghost"],
        ["rm", "ghost"],
        ["wait", "ghost"],
        ["port", "ghost"],
        ["rmi", "ghost"],
    ] {
        orlop.run(&args).exits(1).stderr_has("ghost");
    }
    orlop
        .run(&["create", "--name", "taken", "busybox"])
        .success();
    orlop
        .run(&["create", "--name", "taken", "busybox"])
        .exits(1)
        .stderr_has("taken");
    // Seventeen ids have two that begin alike.
    let ids: Vec<_> = (0..17)
        .map(|_| orlop.run(&["create", "busybox"]).success().line())
        .collect();
    let twin = ids
        .iter()
        .map(|id| &id[..1])
        .find(|p| ids.iter().filter(|id| id.starts_with(p)).count() > 1);
    orlop
        .run(&["inspect", twin.unwrap()])
        .exits(1)
        .stderr_has("several containers");
    orlop
        .run(&["run", "--rm", "UPPER"])
        .exits(125)
        .stderr_has("lowercase");
    orlop.run_sleeper("on", &[]);
    orlop.run(&["rm", "on"]).exits(1).stderr_has("running");
}

#[test]
fn exec_runs_beside_and_gives_its_exit_code() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &["-e", "A=1"]);
    orlop
        .run(&["exec", "-e", "B=2", "box", "sh", "-c", "echo $A $B; exit 4"])
        .exits(4)
        .stdout_is("1 2\n");
    orlop
        .run_with_input(&["exec", "-i", "box", "cat"], b"through")
        .success()
        .stdout_is("through");
    orlop
        .run(&[
            "exec",
            "-u",
            "user",
            "-w",
            "/tmp",
            "box",
            "sh",
            "-c",
            "id -un; pwd",
        ])
        .success()
        .stdout_is("user\n/tmp\n");
    orlop
        .run(&["exec", "box", "nothing-like-this"])
        .exits(127)
        .stderr_has("nothing-like-this");
    orlop.run(&["exec", "box", "/etc"]).exits(126);
    orlop
        .run(&["exec", "-d", "box", "touch", "/tmp/made"])
        .success();
    eventually("the detached command ran", || {
        orlop.run(&["exec", "box", "ls", "/tmp/made"]).code() == 0
    });
    orlop.run(&["kill", "box"]).success();
    orlop.run(&["wait", "box"]).success().stdout_is("137\n");
    orlop
        .run(&["exec", "box", "true"])
        .exits(1)
        .stderr_has("not running");
}

#[test]
fn logs_by_tail_time_and_follow() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&[
            "run",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "seq 1 5; echo err >&2",
        ])
        .success();
    orlop
        .run(&["logs", "--tail", "2", "box"])
        .success()
        .stdout_has("5\n")
        .stdout_lacks("3\n");
    orlop
        .run(&["logs", "box"])
        .success()
        .stdout_is("1\n2\n3\n4\n5\n")
        .stderr_has("err");
    orlop
        .run(&["logs", "-t", "box"])
        .success()
        .stdout_has("T")
        .stdout_has("Z 1\n");
    orlop
        .run(&["logs", "--since", "1h", "box"])
        .success()
        .stdout_has("1\n");
    orlop.run_script("follow", "for i in 1 2 3; do echo line $i; sleep 0.2; done");
    orlop
        .run(&["logs", "-f", "follow"])
        .success()
        .stdout_is("line 1\nline 2\nline 3\n");
}

#[test]
fn logs_of_a_stretch_of_time_follow_to_its_end() {
    let orlop = Instance::with_busybox();
    let script = "echo early; sleep 2; echo late; sleep 600";
    orlop.run_script("box", script);
    eventually("both lines are there", || {
        orlop.run(&["logs", "box"]).stdout() == "early\nlate\n"
    });
    let stamped = orlop.run(&["logs", "-t", "box"]).success().stdout();
    let late = stamped.lines().last().unwrap();
    let (at, line) = late.split_once(' ').unwrap();
    assert_eq!(line, "late");
    let since = ["logs", "--since", at, "box"];
    orlop.run(&since).success().stdout_is("late\n");
    let started = orlop.inspect("box", "{{.State.StartedAt}}");
    let before = ["logs", "--until", &started, "box"];
    orlop.run(&before).success().stdout_is("");
    // A time to come ends the following; the container goes on.
    orlop
        .run(&["logs", "-f", "--tail", "1", "--until", "-1s", "box"])
        .success()
        .stdout_is("late\n");
    assert_eq!(orlop.inspect("box", "{{.State.Running}}"), "true");
    orlop
        .run(&["logs", "--since", "noon", "box"])
        .exits(125)
        .stderr_has("--since");
}

#[test]
fn attach_joins_a_running_container() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["run", "-d", "-i", "--name", "box", "busybox", "cat"])
        .success();
    let mut attached = orlop.spawn(&["attach", "box"]);
    let mut stdin = attached.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let mut stdout = attached.stdout.take().unwrap();
    let mut buffer = [0; 6];
    stdout.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello\n");
    drop(stdin);
    assert!(
        attached.wait().unwrap().success(),
        "cat ends when its input ends"
    );
    assert_eq!(orlop.inspect("box", "{{.State.ExitCode}}"), "0");
}

#[test]
fn signals_reach_the_container() {
    let orlop = Instance::with_busybox();
    let script = "trap 'echo got it; exit 5' USR1; echo ready; while true; do sleep 0.05; done";
    let mut child = orlop.spawn(&["run", "--name", "box", "busybox", "sh", "-c", script]);
    eventually("ready", || {
        orlop.run(&["logs", "box"]).stdout() == "ready\n"
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    orlop
        .run(&["logs", "box"])
        .success()
        .stdout_is("ready\ngot it\n");
}

#[test]
fn lists_and_formats() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("up", &["--label", "a=b"]);
    orlop
        .run(&["run", "--name", "gone", "busybox", "true"])
        .success();
    orlop
        .run(&["ps", "--format", "{{.Names}}"])
        .success()
        .stdout_is("up\n");
    orlop
        .run(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"])
        .success()
        .stdout_is("gone busybox\nup busybox\n");
    orlop
        .run(&[
            "container",
            "ls",
            "-a",
            "--filter",
            "status=exited",
            "--format",
            "{{.Names}}",
        ])
        .success()
        .stdout_is("gone\n");
    orlop
        .run(&["ps", "--filter", "label=a=b", "--format", "{{.Names}}"])
        .success()
        .stdout_is("up\n");
    let json = orlop.run(&["ps", "--format", "json"]).success().line();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["Names"], "up");
    orlop
        .run(&["ps"])
        .success()
        .stdout_has("CONTAINER ID")
        .stdout_has("Up ");
    orlop
        .run(&["inspect", "-f", "{{.Nope}}", "up"])
        .exits(1)
        .stderr_has("Nope");
    orlop.run(&["inspect", "-f", "{{.Name", "up"]).exits(1);
    assert_eq!(
        orlop
            .run(&["ps", "-q", "--no-trunc"])
            .success()
            .line()
            .len(),
        64
    );
}

#[test]
fn a_command_starts_the_services_unless_an_endpoint_was_configured() {
    let orlop = Instance::stopped();
    let outcome = orlop
        .command(&["ps"])
        .env("ORLOP_HOST", "unix:///nowhere")
        .output()
        .unwrap();
    assert!(!outcome.status.success());
    assert!(!orlop.run_dir().exists(), "nothing was started");
    orlop.run(&["ps"]).success().stdout_has("CONTAINER ID");
    orlop.run(&["version"]).success().stdout_has("orlop");
    orlop.run(&["info"]).success();
}

#[test]
fn restart_policies_start_again() {
    let orlop = Instance::with_busybox();
    orlop.run_script_with("box", &["--restart", "on-failure:2"], "echo try; exit 1");
    eventually("two restarts", || {
        orlop.run(&["logs", "box"]).stdout() == "try\ntry\ntry\n"
    });
    eventually("then it stays down", || orlop.status("box") == "exited");
    assert_eq!(orlop.inspect("box", "{{.RestartCount}}"), "2");
}
