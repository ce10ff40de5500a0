//! Law: killing a service kills no container, loses no log line and no exit status.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use orlop_tests::{Instance, PAGE, eventually, http};

const SERVE: &str = "mkdir -p /www; echo served > /www/index.html; httpd -p 80 -h /www; \
                     i=0; trap 'exit 9' TERM; while true; do i=$((i+1)); echo line $i; sleep 0.02; done";

/// Kills each service in turn while a container serves and logs, and requests keep coming in.
#[test]
fn kill_9_of_each_service_while_a_container_serves_and_logs() {
    let orlop = Instance::with_busybox();
    orlop.run_script_with("web", &["-p", "127.0.0.1:0:80"], SERVE);
    let address = orlop.published("web", "80");
    eventually("it serves", || http::serves(&address, PAGE));
    let pid = orlop.inspect("web", "{{.State.Pid}}");

    let requests = Requests::start(&address);
    for service in ["store", "builder", "registry", "runtime"] {
        orlop.kill_service(service);
        requests.go_on();
        // The next command starts what is missing.
        orlop
            .run(&["ps", "--format", "{{.Names}} {{.Status}}"])
            .success()
            .stdout_has("web Up");
        assert_eq!(
            orlop.inspect("web", "{{.State.Pid}}"),
            pid,
            "after the {service}"
        );
        orlop
            .run(&["exec", "web", "echo", "in"])
            .success()
            .stdout_is("in\n");
    }
    let (answered, failed) = requests.stop();
    assert_eq!(failed, 0, "{answered} requests were answered");

    orlop.run(&["stop", "web"]).success();
    orlop.run(&["wait", "web"]).success().stdout_is("9\n");
    assert_eq!(
        orlop.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 9"
    );
    let logs = orlop.run(&["logs", "web"]).success().stdout();
    for (number, line) in logs.lines().enumerate() {
        assert_eq!(line, format!("line {}", number + 1), "no line is lost");
    }
    orlop.up();
}

/// A container that ends while the runtime is down has its exit code afterwards.
#[test]
fn an_exit_while_the_runtime_is_down_is_not_lost() {
    let orlop = Instance::with_busybox();
    orlop.run_script("short", "sleep 1; echo last words; exit 42");
    orlop
        .run(&[
            "run", "-d", "--rm", "--name", "fleeting", "busybox", "sleep", "1",
        ])
        .success();
    orlop.kill_service("runtime");
    std::thread::sleep(std::time::Duration::from_secs(2));
    orlop.run(&["wait", "short"]).success().stdout_is("42\n");
    orlop
        .run(&["logs", "short"])
        .success()
        .stdout_is("last words\n");
    eventually("--rm is kept", || {
        orlop.run(&["inspect", "fleeting"]).code() == 1
    });
}

/// `down` and `up` again: the containers live on.
#[test]
fn down_stops_the_services_and_no_container() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &[]);
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    orlop.run(&["down"]).success();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    orlop.up();
    assert_eq!(
        orlop.inspect("box", "{{.State.Status}} {{.State.Pid}}"),
        format!("running {pid}")
    );
}

/// A build whose builder is killed leaves no process, and the next build goes on from the cache.
#[test]
fn kill_9_of_the_builder_leaves_no_process() {
    let orlop = Instance::with_busybox();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nRUN echo one > /one\nRUN sleep 4321\n",
    )
    .unwrap();
    let mut build = orlop.spawn(&["build", "-t", "app", context.path().to_str().unwrap()]);
    eventually("the step runs", || sleeping() > 0);
    orlop.kill_service("builder");
    eventually("the step's process is gone", || sleeping() == 0);
    assert!(!build.wait().unwrap().success());
    std::fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nRUN echo one > /one\nCMD cat /one\n",
    )
    .unwrap();
    let again = orlop
        .run(&[
            "build",
            "--progress=plain",
            "-t",
            "app",
            context.path().to_str().unwrap(),
        ])
        .success();
    drop(again.stderr_has("CACHED"));
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("one\n");
}

/// How many processes on the host are `sleep 4321`.
fn sleeping() -> usize {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter(|pid| {
        std::fs::read(pid.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x004321\0")
    })
    .count()
}

/// The index of every service can be thrown away.
#[test]
fn deleting_every_index_loses_nothing() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["run", "--name", "box", "busybox", "echo", "kept"])
        .success();
    let name = format!("{}/app:v1", orlop.registry());
    orlop.run(&["tag", "busybox", &name]).success();
    orlop.run(&["push", &name]).success();
    // Not how long ago they were made, which changes while this runs.
    let format = "{{.Repository}} {{.Tag}} {{.ID}} {{.CreatedAt}} {{.Size}}";
    let images = ["images", "--no-trunc", "--format", format];
    let before = orlop.run(&images).success().stdout();
    for service in ["store", "builder", "registry", "runtime"] {
        orlop.kill_service(service);
        std::fs::remove_dir_all(orlop.root().join(service).join("index")).unwrap();
    }
    orlop.up();
    assert_eq!(orlop.run(&images).success().stdout(), before);
    orlop.run(&["logs", "box"]).success().stdout_is("kept\n");
    let tags = http::get(orlop.registry(), "/v2/app/tags/list").unwrap();
    assert_eq!(tags.text().trim(), r#"{"name":"app","tags":["v1"]}"#);
    orlop
        .run(&["run", "--rm", "busybox", "echo", "runs"])
        .success()
        .stdout_is("runs\n");
}

/// Requests one after another until told to stop.
struct Requests {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<()>,
}

impl Requests {
    fn start(address: &str) -> Self {
        let (stop, answered, failed) = (Arc::default(), Arc::default(), Arc::default());
        let thread = {
            let (stop, address) = (Arc::clone(&stop), address.to_owned());
            let (answered, failed) = (Arc::clone(&answered), Arc::clone(&failed));
            std::thread::spawn(move || {
                while !AtomicBool::load(&stop, Ordering::SeqCst) {
                    let good = http::serves(&address, PAGE);
                    let counter: &AtomicU32 = if good { &answered } else { &failed };
                    counter.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            })
        };
        Self {
            stop,
            answered,
            failed,
            thread,
        }
    }

    /// Waits until ten more are through.
    fn go_on(&self) {
        let through = || self.answered.load(Ordering::SeqCst) + self.failed.load(Ordering::SeqCst);
        let enough = through() + 10;
        eventually("requests go on", || through() >= enough);
    }

    fn stop(self) -> (u32, u32) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        (
            self.answered.load(Ordering::SeqCst),
            self.failed.load(Ordering::SeqCst),
        )
    }
}
