//! Rows 3 to 5 and 20 to 31 of the fault matrix, on the whole product: what is killed, exhausted, stopped or taken
//! away, and what holds. Each test prints how often it did what it does. What is here has no other place; the rest
//! is named in `docs/faults.md`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orlop_tests::churn::left;
use orlop_tests::churn::trace::Trace;
use orlop_tests::crash::chance::Chance;
use orlop_tests::{Instance, eventually};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

fn orlop() -> Instance {
    let orlop = Instance::with_busybox();
    // Bridge, table and store are as they will be once a container was there.
    orlop
        .run(&["run", "--rm", "-p", "127.0.0.1:0:80", "busybox", "true"])
        .success();
    orlop
}

fn exists(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn send(pid: i32, signal: Signal) {
    // It may have ended by itself.
    kill_process(Pid::from_raw(pid).unwrap(), signal).ok();
}

/// Nothing of the containers is left, and the next one runs.
#[track_caller]
fn leaves_nothing(orlop: &Instance, before: &Trace) {
    let ids = orlop.run(&["ps", "-aq", "--no-trunc"]).success().stdout();
    for id in ids.lines() {
        orlop.run(&["rm", "-f", "-v", id]).success();
    }
    orlop
        .run(&["run", "--rm", "busybox", "echo", "next"])
        .success()
        .stdout_is("next\n");
    let left = left(orlop, before);
    assert!(left.is_empty(), "{left:?}");
}

/// One of these tests at a time: each brings the host to a limit, and counts what is left.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says so when it is dropped.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Works containers in every way until told to stop; counts what was acknowledged. Commands may fail while the
/// service dies; what they acknowledged holds.
fn work(orlop: &Instance, name: &str, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let done = |args: &[&str]| {
        let good = orlop.run(args).code() == 0;
        acknowledged.fetch_add(u64::from(good), Ordering::Relaxed);
        good
    };
    while !stop.load(Ordering::Relaxed) {
        let port = ["-p", "127.0.0.1:0:80"];
        let run = [&["run", "-d", "--name", name], &port[..]].concat();
        if done(&[&run[..], &["busybox", "sleep", "1000"]].concat()) {
            eventually("what was run is known", || {
                orlop.run(&["inspect", name]).code() == 0
            });
        }
        done(&["exec", name, "true"]);
        done(&["stop", "-t", "0", name]);
        done(&["start", name]);
        if done(&["rm", "-f", name]) {
            eventually("what was removed is gone", || {
                orlop.run(&["inspect", name]).stderr().contains("no such")
            });
        }
    }
}

/// Does harm while others work with containers; how many of their commands were acknowledged.
fn while_others_work(orlop: &Instance, harm: impl FnOnce()) -> u64 {
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            let (stop, acknowledged) = (&stop, &acknowledged);
            scope.spawn(move || work(orlop, name, stop, acknowledged));
        }
        // Even if this panics: nobody would wait for the end of those who work on.
        let _stop = AtTheEnd(&stop);
        harm();
    });
    acknowledged.into_inner()
}

#[test]
fn rows_3_and_5_the_service_is_killed_at_any_moment_and_nothing_is_lost_or_left() {
    let _alone = alone();
    const KILLS: u64 = 15;
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    let counter = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";
    orlop.run_script("steady", counter);
    let pid = orlop.inspect("steady", "{{.State.Pid}}");
    let mut chance = Chance::new(3);
    let acknowledged = while_others_work(&orlop, || {
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(chance.below(500)));
            orlop.up();
            orlop.kill_service("runtime");
        }
    });
    println!("rows 3, 5: {KILLS} kills, {acknowledged} commands acknowledged");
    assert!(acknowledged > 0);
    assert_eq!(
        orlop.inspect("steady", "{{.State.Status}} {{.State.Pid}}"),
        format!("running {pid}")
    );
    let logs = orlop.run(&["logs", "steady"]).success().stdout();
    assert!(
        logs.lines()
            .zip(1..)
            .all(|(line, number)| line == number.to_string()),
        "no line is lost"
    );
    leaves_nothing(&orlop, &before);
}

#[test]
fn row_4_shims_are_killed_at_any_moment_and_nothing_is_left() {
    let _alone = alone();
    const KILLS: u64 = 40;
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    let (mut chance, mut kills) = (Chance::new(4), 0);
    let acknowledged = while_others_work(&orlop, || {
        while kills < KILLS {
            std::thread::sleep(Duration::from_millis(chance.below(40)));
            if let Some(shim) = chance.pick(&orlop.shims()) {
                send(*shim, Signal::KILL);
                kills += 1;
            }
        }
    });
    println!("row 4: {KILLS} kills, {acknowledged} commands acknowledged");
    leaves_nothing(&orlop, &before);
}

#[test]
fn row_4_a_policy_starts_a_container_again_once_for_each_shim_that_was_killed() {
    let _alone = alone();
    let orlop = orlop();
    orlop.run_sleeper("box", &["--restart", "always"]);
    for kills in 1..=3 {
        send(orlop.shims()[0], Signal::KILL);
        let once_more = format!("true false {kills}");
        let shown = "{{.State.Running}} {{.State.Restarting}} {{.RestartCount}}";
        eventually("it runs again", || orlop.inspect("box", shown) == once_more);
        eventually("it can be entered", || {
            orlop.run(&["exec", "box", "true"]).code() == 0
        });
        assert_eq!(orlop.inspect("box", "{{.RestartCount}}"), kills.to_string());
        assert_eq!(orlop.shims().len(), 1);
    }
}

/// A shim that answers nobody holds up its own container and no other, not even a start of the service.
#[test]
fn row_4_a_stopped_shim_holds_up_nobody_else() {
    let _alone = alone();
    let orlop = orlop();
    orlop.run_script("stuck", "sleep 1000");
    let stuck = orlop.shims()[0];
    send(stuck, Signal::STOP);
    orlop.run_script("other", "sleep 1000");
    orlop.run(&["exec", "other", "true"]).success();
    for service_was_killed in [false, true] {
        if service_was_killed {
            orlop.kill_service("runtime");
        }
        orlop
            .run(&["ps", "--format", "{{.Names}}"])
            .success()
            .stdout_is("other\nstuck\n");
        assert_eq!(orlop.status("stuck"), "running");
        orlop.run(&["exec", "other", "true"]).success();
        orlop.run(&["stop", "-t", "0", "other"]).success();
        orlop.run(&["start", "other"]).success();
    }
    send(stuck, Signal::CONT);
    eventually("it goes on", || {
        orlop.run(&["exec", "stuck", "true"]).code() == 0
    });
    send(stuck, Signal::STOP);
    orlop.run(&["rm", "-f", "stuck"]).success();
    assert!(!exists(stuck));
}

#[test]
fn row_20_a_container_beyond_its_memory_is_killed_and_its_siblings_are_not() {
    let _alone = alone();
    const TIMES: u32 = 5;
    let orlop = orlop();
    orlop.run_script("sibling", "sleep 1000");
    let hog = "x=a; while true; do x=$x$x; done";
    for _ in 0..TIMES {
        orlop
            .run(&[
                "run", "--name", "hog", "-m", "32m", "busybox", "sh", "-c", hog,
            ])
            .exits(137);
        assert_eq!(
            orlop.inspect("hog", "{{.State.ExitCode}} {{.State.OOMKilled}}"),
            "137 true"
        );
        orlop.run(&["rm", "hog"]).success();
    }
    println!("row 20: killed for memory {TIMES} times");
    assert_eq!(
        orlop.inspect("sibling", "{{.State.Status}} {{.State.OOMKilled}}"),
        "running false"
    );
    orlop.run(&["exec", "sibling", "true"]).success();
}

#[test]
fn row_21_a_fork_bomb_ends_at_its_limit_and_can_be_removed() {
    let _alone = alone();
    const TIMES: u32 = 3;
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    orlop.run_script("sibling", "sleep 1000");
    let bomb = "(while true; do sleep 1000 & done) & exec sleep 1000";
    for end in [
        &["rm", "-f", "bomb"][..],
        &["stop", "-t", "1", "bomb"],
        &["kill", "bomb"],
    ] {
        orlop.run_script_with("bomb", &["--pids-limit", "30"], bomb);
        eventually("it has nearly all that it may", || {
            orlop.run(&["top", "bomb"]).stdout().lines().count() > 20
        });
        orlop.run(&["ps", "-q"]).success();
        orlop.run(&["exec", "sibling", "true"]).success();
        orlop.run(end).success();
        if end[0] != "rm" {
            eventually("it ended", || orlop.status("bomb") == "exited");
            orlop.run(&["rm", "bomb"]).success();
        }
        orlop.run(&["inspect", "bomb"]).exits(1);
    }
    println!("row 21: {TIMES} bombs");
    leaves_nothing(&orlop, &before);
}

/// Children whose parent is gone, and which their new parent, the container's first process, never waits for.
#[test]
fn row_22_orphans_are_reaped_by_an_init_and_go_with_a_container_that_has_none() {
    let _alone = alone();
    const ORPHANS: u32 = 2000;
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    let storm = format!(
        "i=0; while [ $i -lt {ORPHANS} ]; do i=$((i+1)); (true &); done; echo over; sleep 1; exit 6"
    );
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    let storm_and_sleep = storm.replace("exit 6", "exec sleep 1000");
    orlop.run_script_with("reaped", &["--init"], &storm_and_sleep);
    eventually("the storm is over", || {
        orlop.run(&["logs", "reaped"]).stdout() == "over\n"
    });
    eventually("all are reaped", || {
        orlop.run(&["exec", "reaped", "sh", "-c", zombies]).stdout() == "0\n"
    });
    // The first process is busybox's sleep, which reaps nothing.
    let careless = "for i in $(seq 200); do (true &); done; exec sleep 1000";
    orlop.run_script("careless", &format!("sh -c '{careless}' & exec sleep 1000"));
    let code = orlop.shell(&["--init"], &storm).code();
    assert_eq!(code, 6, "the command's own, among {ORPHANS} others");
    println!("row 22: {} orphans", 2 * ORPHANS + 200);
    leaves_nothing(&orlop, &before);
}

/// A process id that is somebody else's by now is never signalled.
#[test]
fn row_23_a_process_that_has_a_dead_containers_number_is_left_alone() {
    let _alone = alone();
    let orlop = orlop();
    orlop.run_script("box", "sleep 1000");
    let id = orlop.inspect("box", "{{.Id}}");
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    orlop.kill_service("runtime");
    send(orlop.shims()[0], Signal::KILL);
    eventually("it is gone", || !exists(pid.parse().unwrap()));
    let mut bystander = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let record = orlop
        .root()
        .join("runtime/containers")
        .join(&id)
        .join("container.json");
    let text = std::fs::read_to_string(&record).unwrap();
    // The number is not even kept; whoever believes one that is there is caught.
    let theirs = text.replace("\"pid\":0", &format!("\"pid\":{}", bystander.id()));
    assert_ne!(theirs, text);
    std::fs::write(&record, theirs).unwrap();
    std::fs::remove_dir_all(orlop.root().join("runtime/index")).unwrap();
    assert_eq!(orlop.status("box"), "dead");
    orlop.run(&["kill", "box"]).exits(1);
    orlop.run(&["stop", "box"]).success();
    orlop.run(&["rm", "-f", "box"]).success();
    assert_eq!(bystander.try_wait().unwrap(), None, "it lives");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// How many files a service may have open from now on; answers what it was.
fn limit_files(pid: i32, files: u64) -> u64 {
    let pid = Pid::from_raw(pid);
    let limits = |current, maximum| Rlimit {
        current: Some(current),
        maximum,
    };
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let before = prlimit(pid, Resource::Nofile, limits(files, maximum)).unwrap();
    before.current.unwrap()
}

#[test]
fn row_25_a_service_without_descriptors_fails_requests_and_recovers() {
    let _alone = alone();
    const TIMES: u32 = 3;
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    orlop.run_script("steady", "sleep 1000");
    let service = orlop.service_pid("runtime");
    let open = || {
        std::fs::read_dir(format!("/proc/{service}/fd"))
            .unwrap()
            .count() as u64
    };
    for _ in 0..TIMES {
        let usual = limit_files(service, open() + 4);
        let crowd: Vec<_> = (0..8)
            .map(|_| orlop.spawn(&["run", "--rm", "busybox", "true"]))
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        limit_files(service, usual);
        let ends = crowd
            .into_iter()
            .map(|child| child.wait_with_output().unwrap());
        let failed = ends
            .filter(|output| output.status.code() != Some(0))
            .count();
        println!("row 25: {failed} of 8 requests failed");
        orlop
            .run(&["run", "--rm", "busybox", "echo", "again"])
            .success()
            .stdout_is("again\n");
    }
    assert_eq!(orlop.service_pid("runtime"), service, "it never ended");
    assert_eq!(orlop.status("steady"), "running");
    leaves_nothing(&orlop, &before);
}

#[test]
fn row_26_signals_end_the_service_and_no_container() {
    let _alone = alone();
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    orlop.run_script("steady", "sleep 1000");
    let pid = orlop.inspect("steady", "{{.State.Pid}}");
    let signals = [
        &[Signal::TERM][..],
        &[Signal::TERM, Signal::TERM],
        &[Signal::INT],
        &[Signal::HUP],
        &[Signal::PIPE],
    ];
    for several in signals {
        orlop.up();
        let service = orlop.service_pid("runtime");
        let under_way = orlop.spawn(&["run", "-d", "busybox", "sleep", "1000"]);
        let followed = orlop.spawn(&["logs", "-f", "steady"]);
        std::thread::sleep(Duration::from_millis(20));
        for signal in several {
            send(service, *signal);
        }
        under_way.wait_with_output().unwrap();
        if several[0] != Signal::PIPE {
            eventually("it ends, although somebody follows", || !exists(service));
        }
        assert_eq!(
            orlop.inspect("steady", "{{.State.Status}} {{.State.Pid}}"),
            format!("running {pid}")
        );
        let mut followed = followed;
        followed.kill().unwrap();
        followed.wait().unwrap();
    }
    println!("row 26: {} kinds of signals", signals.len());
    leaves_nothing(&orlop, &before);
}

#[test]
fn row_27_neither_a_client_that_does_not_read_nor_a_lost_log_stops_a_container() {
    let _alone = alone();
    let orlop = orlop();
    let flood = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); head -c 100000 /dev/zero | sed 's/./x/g'; echo; done; touch /done; sleep 1000";
    orlop
        .run(&[
            "create", "-i", "--name", "box", "busybox", "sh", "-c", flood,
        ])
        .success();
    let mut deaf = orlop.spawn(&["start", "-a", "box"]);
    let id = orlop.inspect("box", "{{.Id}}");
    let directory = orlop.root().join("runtime/containers").join(id);
    eventually("it runs", || orlop.status("box") == "running");
    let logs = std::fs::read_dir(&directory).unwrap().flatten();
    let logs: Vec<_> = logs
        .filter(|file| file.file_name().to_string_lossy().contains(".log"))
        .collect();
    assert!(!logs.is_empty());
    for log in logs {
        std::fs::remove_file(log.path()).unwrap();
    }
    eventually("it wrote all", || {
        orlop.run(&["exec", "box", "test", "-e", "/done"]).code() == 0
    });
    println!("row 27: 20 MB that nobody read");
    deaf.kill().unwrap();
    deaf.wait().unwrap();
    orlop.run(&["stop", "-t", "0", "box"]).success();
}

/// The rest of a host's end is `restart.rs`; here everything in memory is gone too: sockets, mounts, links.
#[test]
fn row_28_after_a_reboot_nothing_stale_is_in_the_way() {
    let _alone = alone();
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    orlop.run_sleeper("box", &["-p", "127.0.0.1:0:80"]);
    orlop.run(&["exec", "box", "touch", "/kept"]).success();
    for service in ["runtime", "builder", "registry", "store"] {
        orlop.kill_service(service);
    }
    for shim in orlop.shims() {
        send(shim, Signal::KILL);
    }
    eventually("the shims are gone", || orlop.shims().is_empty());
    unmount_below(orlop.root());
    std::fs::remove_dir_all(orlop.run_dir()).unwrap();
    let deleted = std::process::Command::new("ip")
        .args(["link", "del", &format!("orl-{}", orlop.name())])
        .status();
    println!("row 28: bridge deleted: {}", deleted.unwrap().success());
    orlop.up();
    assert_eq!(orlop.status("box"), "dead");
    orlop.run(&["start", "box"]).success();
    orlop.run(&["exec", "box", "test", "-e", "/kept"]).success();
    leaves_nothing(&orlop, &before);
}

fn unmount_below(root: &std::path::Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for target in below.filter(|target| std::path::Path::new(target).starts_with(root)) {
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// A shim of an earlier version, or of one that nobody knows, in the place of a container's own.
struct Elder(std::process::Child);

impl Elder {
    fn in_place_of(orlop: &Instance, name: &str, version: &str) -> Self {
        let id = orlop.inspect(name, "{{.Id}}");
        let socket = orlop.run_dir().join("shims").join(&id[..24]);
        orlop.kill_service("runtime");
        send(orlop.shims()[0], Signal::KILL);
        eventually("its own is gone", || orlop.shims().is_empty());
        std::fs::remove_file(&socket).unwrap();
        let shim = std::process::Command::new(orlop_tests::binary("orlop-older-shim"))
            .arg(&socket)
            .arg(orlop.root().join("runtime/containers").join(&id))
            .arg(version)
            .spawn()
            .unwrap();
        eventually("it listens", || socket.exists());
        Self(shim)
    }

    fn has_ended(&mut self) {
        eventually("it ends", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Elder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether the service said of which container the shim is another one; its log is emptied.
fn named(orlop: &Instance) -> bool {
    let path = orlop.root().join("logs/runtime.log");
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, "").unwrap();
    log.contains("of another version")
}

/// What a shim of version 2 said is in `tests/src/bin/orlop-older-shim.rs`.
#[test]
fn row_30_containers_of_an_older_shim_are_managed_by_a_newer_service() {
    let _alone = alone();
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    let run = [
        "run",
        "-d",
        "--name",
        "box",
        "--restart",
        "on-failure",
        "--network",
        "none",
    ];
    for (version, end) in [
        ("2", &["stop", "-t", "0", "box"][..]),
        ("2", &["rm", "-f", "box"]),
        ("99", &["rm", "-f", "box"]),
    ] {
        orlop
            .run(&[&run[..], &["busybox", "sleep", "1000"]].concat())
            .success();
        let mut elder = Elder::in_place_of(&orlop, "box", version);
        assert_eq!(orlop.status("box"), "running", "{version}");
        orlop
            .run(&["ps", "--format", "{{.Names}}"])
            .success()
            .stdout_is("box\n");
        assert!(named(&orlop), "{version}");
        orlop.run(&["exec", "box", "true"]).exits(1);
        orlop.run(end).success();
        elder.has_ended();
        if end[0] == "stop" {
            assert_eq!(
                orlop.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"),
                "exited 137"
            );
            orlop.run(&["start", "box"]).success();
            orlop.run(&["exec", "box", "true"]).success();
            orlop.run(&["rm", "-f", "box"]).success();
        }
    }
    println!("row 30: versions 2 and 99");
    leaves_nothing(&orlop, &before);
}

/// Flushed tables and deleted bridges are `network.rs`.
#[test]
fn row_29_a_container_whose_link_was_taken_away_ends_like_any_other() {
    let _alone = alone();
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    orlop.run_sleeper("box", &["-p", "127.0.0.1:0:80"]);
    orlop
        .run(&["exec", "box", "ip", "link", "show", "eth0"])
        .success();
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    let deleted = std::process::Command::new("nsenter")
        .args(["-n", "-t", &pid, "ip", "link", "del", "eth0"])
        .status();
    assert!(deleted.unwrap().success());
    orlop.run(&["exec", "box", "true"]).success();
    orlop.run(&["restart", "-t", "0", "box"]).success();
    orlop
        .run(&["exec", "box", "ip", "link", "show", "eth0"])
        .success();
    leaves_nothing(&orlop, &before);
}
