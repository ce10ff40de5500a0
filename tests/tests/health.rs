//! Health checks: their states, what they lead to, and that they need no service.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use orlop_tests::{Instance, eventually};

const QUICK: [&str; 2] = ["--health-interval=200ms", "--health-retries=2"];

/// Runs a container that sleeps, named `box`, with this check and these options. It is ready once it
/// would end as it is to.
fn run(orlop: &Instance, check: &str, options: &[&str]) {
    let options = [&["--health-cmd", check], &QUICK[..], options].concat();
    let script = "trap 'exit 9' TERM; touch /ready; while :; do sleep 0.1; done";
    orlop.run_script_with("box", &options, script);
}

#[track_caller]
fn becomes(orlop: &Instance, status: &str) {
    eventually(status, || {
        orlop.inspect("box", "{{.State.Health.Status}}") == status
    });
}

#[test]
fn health_follows_the_checks() {
    let orlop = Instance::with_busybox();
    run(&orlop, "test -e /up || { echo it is down; exit 3; }", &[]);
    becomes(&orlop, "unhealthy");
    let last = "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}";
    assert_eq!(orlop.inspect("box", last), "3 it is down");
    let listed = [
        "ps",
        "--filter",
        "health=unhealthy",
        "--format",
        "{{.Status}}",
    ];
    orlop.run(&listed).success().stdout_has("(unhealthy)");
    orlop.run(&["exec", "box", "touch", "/up"]).success();
    becomes(&orlop, "healthy");
    assert_eq!(orlop.inspect("box", "{{.State.Health.FailingStreak}}"), "0");
    orlop.run(&listed).success().stdout_is("");
    orlop
        .run(&[
            "events",
            "--since=1h",
            "--until=0s",
            "-f",
            "event=health_status",
            "--format={{.Action}}",
        ])
        .success()
        .stdout_is("health_status: unhealthy\nhealth_status: healthy\n");
    eventually("no more than five results are kept", || {
        orlop.inspect("box", "{{len .State.Health.Log}}") == "5"
    });
}

#[test]
fn an_image_brings_its_check_and_a_person_may_change_it() {
    let orlop = Instance::with_busybox();
    let context = tempfile::tempdir().unwrap();
    let dockerfile =
        "FROM busybox\nHEALTHCHECK --interval=300ms --retries=1 CMD echo of the image\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    orlop
        .run(&["build", "-t", "app", context.path().to_str().unwrap()])
        .success();
    orlop
        .run(&["run", "-d", "--name", "box", "app", "sleep", "600"])
        .success();
    orlop
        .run(&["ps", "--format", "{{.Status}}"])
        .success()
        .stdout_has("(health");
    becomes(&orlop, "healthy");
    assert_eq!(
        orlop.inspect(
            "box",
            "{{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}}"
        ),
        "300000000 1"
    );
    let own = [
        "run",
        "-d",
        "--name",
        "own",
        "--health-cmd=exit 1",
        "app",
        "sleep",
        "600",
    ];
    orlop.run(&own).success();
    eventually("its own command with the image's times", || {
        orlop.inspect("own", "{{.State.Health.Status}}") == "unhealthy"
    });
    let off = [
        "run",
        "-d",
        "--name",
        "off",
        "--no-healthcheck",
        "app",
        "sleep",
        "600",
    ];
    orlop.run(&off).success();
    orlop
        .run(&["inspect", "off"])
        .success()
        .stdout_lacks("Healthcheck");
    let listed = ["ps", "--filter", "health=none", "--format", "{{.Names}}"];
    orlop.run(&listed).success().stdout_is("off\n");
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let orlop = Instance::with_busybox();
    let options = ["--health-start-period=1h", "--health-start-interval=100ms"];
    run(&orlop, "exit 1", &options);
    eventually("it was checked", || {
        orlop.inspect("box", "{{len .State.Health.Log}}") == "5"
    });
    let shown = orlop.inspect(
        "box",
        "{{.State.Health.Status}} {{.State.Health.FailingStreak}}",
    );
    assert_eq!(shown, "starting 0");
}

#[test]
fn a_check_that_takes_too_long_is_killed_and_disturbs_nobody() {
    let orlop = Instance::with_busybox();
    run(&orlop, "sleep 4322; true", &["--health-timeout=300ms"]);
    becomes(&orlop, "unhealthy");
    let last = "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}";
    assert_eq!(
        orlop.inspect("box", last),
        "-1 Health check exceeded timeout (300ms)"
    );
    orlop
        .run(&["exec", "box", "echo", "here"])
        .success()
        .stdout_is("here\n");
    eventually("only the one that runs is there", || sleeping() <= 1);
    orlop.run(&["kill", "-s", "KILL", "box"]).success();
    eventually("the end of the container takes it along", || {
        sleeping() == 0
    });
}

#[test]
fn a_check_that_floods_keeps_only_its_beginning() {
    let orlop = Instance::with_busybox();
    run(&orlop, "yes | head -c 1000000; exit 1", &[]);
    becomes(&orlop, "unhealthy");
    let output = orlop.inspect(
        "box",
        "{{with index .State.Health.Log 0}}{{.Output}}{{end}}",
    );
    assert!(
        output.ends_with("...") && output.len() == 4099,
        "{}",
        output.len()
    );
}

#[test]
fn checks_go_on_while_the_service_is_down() {
    let orlop = Instance::with_busybox();
    let shared = tempfile::tempdir().unwrap();
    let mount = format!("{}:/shared", shared.path().display());
    run(
        &orlop,
        "echo x >> /shared/count; test ! -e /shared/bad",
        &["-v", &mount],
    );
    becomes(&orlop, "healthy");
    orlop.kill_service("runtime");
    let count = || {
        fs::read_to_string(shared.path().join("count"))
            .unwrap()
            .len()
    };
    fs::write(shared.path().join("bad"), "").unwrap();
    let before = count();
    eventually("it is checked", || count() > before + 8);
    orlop.up();
    assert_eq!(
        orlop.inspect("box", "{{.State.Health.Status}}"),
        "unhealthy"
    );
    fs::remove_file(shared.path().join("bad")).unwrap();
    becomes(&orlop, "healthy");
}

#[test]
fn what_was_asked_for_is_done_while_the_service_is_down() {
    for (action, end) in [("kill", "exited 137 0"), ("stop", "exited 9 0")] {
        let orlop = Instance::with_busybox();
        let shared = tempfile::tempdir().unwrap();
        let mount = format!("{}:/shared", shared.path().display());
        let asked = format!("--health-on-failure={action}");
        run(&orlop, "test ! -e /shared/bad", &["-v", &mount, &asked]);
        becomes(&orlop, "healthy");
        orlop.kill_service("runtime");
        fs::write(shared.path().join("bad"), "").unwrap();
        eventually("its shim is gone", || orlop.shims().is_empty());
        let shown = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
        assert_eq!(orlop.inspect("box", shown), end);
    }
}

#[test]
fn an_unhealthy_container_is_started_again_while_the_service_is_down() {
    let orlop = Instance::with_busybox();
    let shared = tempfile::tempdir().unwrap();
    let mount = format!("{}:/shared", shared.path().display());
    let options = ["-v", &mount, "--health-on-failure=restart"];
    run(&orlop, "test ! -e /shared/bad", &options);
    becomes(&orlop, "healthy");
    orlop.kill_service("runtime");
    let log = orlop.root().join("runtime/containers");
    let health = fs::read_dir(log).unwrap().flatten().next().unwrap().path();
    fs::write(shared.path().join("bad"), "").unwrap();
    eventually("it is unhealthy, and then new", || {
        !health.join("health.json").exists()
    });
    fs::remove_file(shared.path().join("bad")).unwrap();
    becomes(&orlop, "healthy");
    assert_ne!(orlop.inspect("box", "{{.RestartCount}}"), "0");
}

#[test]
fn an_unhealthy_container_can_be_killed_stopped_or_restarted() {
    let orlop = Instance::with_busybox();
    for (action, code) in [("kill", "137"), ("stop", "9")] {
        let option = format!("--health-on-failure={action}");
        run(&orlop, "! test -e /ready", &[&option]);
        orlop
            .run(&["wait", "box"])
            .success()
            .stdout_is(&format!("{code}\n"));
        assert_eq!(orlop.status("box"), "exited", "{action}");
        orlop.run(&["rm", "box"]).success();
    }
    run(&orlop, "exit 1", &["--health-on-failure=restart"]);
    eventually("it was restarted, and once more", || {
        let count = orlop.inspect("box", "{{.RestartCount}}");
        count.parse::<u32>().unwrap() >= 2
    });
    orlop.run(&["stop", "box"]).success();
    assert_eq!(orlop.status("box"), "exited");
}

#[test]
fn a_frozen_container_is_not_checked() {
    let orlop = Instance::with_busybox();
    let check = ["--health-cmd=true", "--health-interval=2s", "--name=box"];
    let run = [&["run", "-d"], &check[..], &["busybox", "sleep", "600"]].concat();
    orlop.run(&run).success();
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    // A check just ended, and none is under way for the next two seconds.
    becomes(&orlop, "healthy");
    let frozen = Frozen::new(&pid);
    let last = "{{range .State.Health.Log}}{{.End}} {{end}}";
    let before = orlop.inspect("box", last);
    std::thread::sleep(Duration::from_millis(4500));
    assert_eq!(orlop.inspect("box", last), before);
    assert_eq!(frozen.processes(), ["sleep"], "nothing is stuck beside it");
    drop(frozen);
    eventually("it is checked again", || {
        orlop.inspect("box", last) != before
    });
    let status = orlop.inspect("box", "{{.State.Health.Status}}");
    assert_eq!(status, "healthy");
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let orlop = Instance::with_busybox();
    for (options, said) in [
        (&["--health-retries=3"][..], "health check"),
        (&["--health-cmd="], "health check"),
        (&["--health-cmd=true", "--health-interval=1us"], "1ms"),
        (
            &["--health-cmd=true", "--no-healthcheck"],
            "--no-healthcheck",
        ),
        (
            &["--health-cmd=true", "--health-timeout=soon"],
            "--health-timeout",
        ),
        (
            &["--health-cmd=true", "--health-on-failure=explode"],
            "--health-on-failure",
        ),
        (
            &["--rm", "--health-cmd=true", "--health-on-failure=restart"],
            "restart",
        ),
    ] {
        let args = [&["run"], options, &["busybox", "true"]].concat();
        orlop.run(&args).exits(125).stderr_has(said);
    }
    orlop.run(&["ps", "-aq"]).success().stdout_is("");
}

/// The cgroup of a process, frozen until this is dropped.
struct Frozen {
    file: PathBuf,
    thawed: &'static str,
}

impl Frozen {
    fn new(pid: &str) -> Self {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own = |controller: &str| {
            let mut lines = cgroups.lines().map(|line| line.splitn(3, ':'));
            let mut own = lines.find(|parts| parts.clone().nth(1) == Some(controller))?;
            Some(own.nth(2).unwrap().trim_start_matches('/').to_owned())
        };
        let root = PathBuf::from("/sys/fs/cgroup");
        let (file, frozen, thawed) = match own("freezer") {
            Some(group) => (
                root.join("freezer").join(group).join("freezer.state"),
                "FROZEN",
                "THAWED",
            ),
            None => (root.join(own("").unwrap()).join("cgroup.freeze"), "1", "0"),
        };
        fs::write(&file, frozen).unwrap();
        Self { file, thawed }
    }

    /// The names of all that is in it.
    fn processes(&self) -> Vec<String> {
        let pids = fs::read_to_string(self.file.with_file_name("cgroup.procs")).unwrap();
        let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        let names = pids.lines().map(|pid| name(pid).trim().to_owned());
        names.collect()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        fs::write(&self.file, self.thawed).unwrap();
    }
}

/// How many processes on the host are `sleep 4322`.
fn sleeping() -> usize {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter(|pid| {
        fs::read(pid.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x004322\0")
    })
    .count()
}
