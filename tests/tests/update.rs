//! Names and limits of containers that exist: one winner, all or nothing, kept for the next start.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::Child;

use orlop_tests::Instance;

#[test]
fn a_renamed_container_keeps_all_but_its_name() {
    let orlop = Instance::with_busybox();
    orlop.run_script("old", "sleep 1000");
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
        assert_eq!(orlop.status("older"), "created");
        orlop.run(&["create", "--name", "new", "busybox"]).exits(1);
        orlop.kill_service("runtime");
    }
}

/// Of those who want a name at the same time, one has it.
#[test]
fn a_name_has_one_winner() {
    let orlop = Instance::with_busybox();
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
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("web", &["-m", "64m"]);
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
    let orlop = Instance::with_busybox();
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
    let orlop = Instance::with_busybox();
    orlop.run_script("web", "sleep 100");
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
    orlop.run_sleeper("once", &["--rm"]);
    orlop
        .run(&["update", "--restart", "always", "once"])
        .exits(1)
        .stderr_has("restart");
}

/// Limits and names of many at once: each request is whole.
#[test]
fn changes_at_the_same_time_leave_one_of_them() {
    let orlop = Instance::with_busybox();
    orlop.run_script("web", "sleep 1000");
    let racing: Vec<Child> = (0..8)
        .map(|number| {
            let (memory, pids) = (format!("{}m", 64 + number), (64 + number).to_string());
            orlop.spawn(&[
                "update",
                "-m",
                &memory,
                "--memory-swap",
                "1g",
                "--pids-limit",
                &pids,
                "web",
            ])
        })
        .collect();
    for mut child in racing {
        assert!(child.wait().unwrap().success());
    }
    let kept = orlop.inspect("web", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}");
    let (memory, pids) = kept.split_once(' ').unwrap();
    assert_eq!(memory, (pids.parse::<u64>().unwrap() << 20).to_string());
    assert_eq!(limit(&orlop, "web", "pids/pids.max", "pids.max"), pids);
    let live = limit(&orlop, "web", "memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(live, memory);
}

#[test]
fn quota_and_period_of_cpus_can_be_given_and_lifted() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("web", &["--cpu-period", "50000", "--cpu-quota", "25000"]);
    let quota = || limit(&orlop, "web", "cpu/cpu.cfs_quota_us", "cpu.max");
    assert!(quota().starts_with("25000"), "{}", quota());
    orlop
        .run(&["update", "--cpu-quota", "10000", "web"])
        .success();
    assert!(quota().starts_with("10000"), "{}", quota());
    assert_eq!(
        orlop.inspect("web", "{{.HostConfig.CpuQuota}} {{.HostConfig.CpuPeriod}}"),
        "10000 50000"
    );
    orlop.run(&["update", "--cpu-quota", "-1", "web"]).success();
    assert!(
        quota().starts_with("-1") || quota().starts_with("max"),
        "{}",
        quota()
    );
    orlop
        .run(&["update", "--cpus", "1", "web"])
        .exits(1)
        .stderr_has("choose one");
    orlop
        .run(&[
            "run",
            "--rm",
            "--cpus",
            "1",
            "--cpu-quota",
            "5000",
            "busybox",
            "true",
        ])
        .exits(125)
        .stderr_has("--cpu-quota");
}

/// Kernels without BFQ have no weight of disks, which is an error then.
#[test]
fn a_weight_on_disks_is_set_or_refused() {
    let orlop = Instance::with_busybox();
    let args = [
        "run",
        "-d",
        "--name",
        "web",
        "--blkio-weight",
        "300",
        "busybox",
        "sleep",
        "100",
    ];
    let outcome = orlop.run(&args);
    if outcome.code() != 0 {
        outcome.exits(125).stderr_has("controller");
        return;
    }
    let weight = || limit(&orlop, "web", "blkio/blkio.bfq.weight", "io.bfq.weight");
    assert!(weight().ends_with("300"), "{}", weight());
    orlop
        .run(&["update", "--blkio-weight", "500", "web"])
        .success();
    assert!(weight().ends_with("500"), "{}", weight());
    orlop
        .run(&["update", "--blkio-weight", "5", "web"])
        .exits(1)
        .stderr_has("10 to 1000");
}

/// Renames, pauses and updates against removals: whoever loses has a clear error, and nothing comes back.
#[test]
fn a_removal_wins_over_everything_else() {
    let orlop = Instance::with_busybox();
    for round in 0..6 {
        orlop.run_script("web", "sleep 1000");
        let racing = [
            orlop.spawn(&["rename", "web", "other"]),
            orlop.spawn(&["update", "--pids-limit", "9", "web"]),
            orlop.spawn(&["pause", "web"]),
            orlop.spawn(&["rm", "-f", "web"]),
        ];
        for child in racing {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() || said.contains("web") || said.contains("other"),
                "{round}: {said}"
            );
        }
        orlop.run(&["rm", "-f", "web", "other"]).success();
        assert_eq!(orlop.run(&["ps", "-aq"]).success().line(), "");
        orlop.kill_service("runtime");
        assert_eq!(
            orlop.run(&["ps", "-aq"]).success().line(),
            "",
            "none comes back"
        );
    }
}
