//! Restart policies and what is unhealthy while there is no service: the shim acts, and the next service takes over.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use orlop_tests::churn::left;
use orlop_tests::churn::trace::Trace;
use orlop_tests::{Instance, eventually, http};

/// Serves the number of its run; ends when there is a file for this run.
const SERVE: &str = "n=$((`cat /n 2>/dev/null` + 1)); echo $n > /n; mkdir -p /www; echo run $n > /www/index.html; \
                     httpd -p 80 -h /www; echo run $n; while [ ! -e /shared/end$n ]; do sleep 0.05; done; exit 3";

/// A container that serves, and ends when it is told to.
struct Web {
    orlop: Instance,
    shared: tempfile::TempDir,
    address: String,
    log: PathBuf,
}

impl Web {
    fn start(options: &[&str]) -> Self {
        let mut web = Self {
            orlop: Instance::with_busybox(),
            shared: tempfile::tempdir().unwrap(),
            address: String::new(),
            log: PathBuf::new(),
        };
        web.run(options);
        web
    }

    /// Starts the container.
    fn run(&mut self, options: &[&str]) {
        let mount = format!("{}:/shared", self.shared.path().display());
        let options = [&["-p", "127.0.0.1:0:80", "-v", &mount], options].concat();
        self.orlop.run_script_with("web", &options, SERVE);
        self.address = self.orlop.published("web", "80");
        self.log = self.orlop.inspect("web", "{{.LogPath}}").into();
    }

    /// Without a word to the service, which a command would start.
    fn serves(&self, run: u32) {
        let page = format!("run {run}\n");
        eventually("it serves", || http::serves(&self.address, &page));
    }

    fn end(&self, run: u32) {
        fs::write(self.shared.path().join(format!("end{run}")), "").unwrap();
    }

    fn lines(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().lines().count()
    }
}

#[test]
fn a_container_is_started_again_while_the_service_is_down() {
    let web = Web::start(&["--restart", "on-failure:5"]);
    let orlop = &web.orlop;
    web.serves(1);
    let address = orlop.inspect("web", "{{.NetworkSettings.IPAddress}}");
    orlop.kill_service("runtime");
    for run in 1..=3 {
        web.end(run);
        web.serves(run + 1);
    }
    let shown = "{{.State.Status}} {{.RestartCount}} {{.NetworkSettings.IPAddress}}";
    assert_eq!(orlop.inspect("web", shown), format!("running 3 {address}"));
    orlop
        .run(&["ps", "--format", "{{.Names}} {{.Status}}"])
        .success()
        .stdout_has("web Up");
    orlop
        .run(&["exec", "web", "cat", "/n"])
        .success()
        .stdout_is("4\n");
    orlop
        .run(&["logs", "web"])
        .success()
        .stdout_is("run 1\nrun 2\nrun 3\nrun 4\n");
    let events = [
        "events",
        "--since=1h",
        "--until=0s",
        "-f",
        "event=die",
        "--format={{.Action}}",
    ];
    orlop.run(&events).success().stdout_is("die\n");
    // From here on it is the service's part again, which takes a free port anew.
    web.end(4);
    eventually("the service starts it", || web.lines() == 5);
    assert_eq!(orlop.inspect("web", "{{.RestartCount}}"), "4");
    orlop.run(&["stop", "-t", "0", "web"]).success();
    assert_eq!(orlop.status("web"), "exited");
    assert_eq!(orlop.shims(), [0; 0]);
}

#[test]
fn a_container_with_ids_of_its_own_keeps_them_while_the_service_is_down() {
    let web = Web::start(&["--restart", "always", "--userns", "auto"]);
    let orlop = &web.orlop;
    let map = ["exec", "web", "cat", "/proc/self/uid_map"];
    web.serves(1);
    let before = orlop.run(&map).success().stdout();
    orlop.kill_service("runtime");
    web.end(1);
    web.serves(2);
    orlop.run(&map).success().stdout_is(&before);
    orlop
        .run(&[
            "exec",
            "web",
            "stat",
            "-c",
            "%u",
            "/n",
            "/dev/pts",
            "/etc/hosts",
        ])
        .success()
        .stdout_is("0\n0\n0\n");
    let other = ["run", "--rm", "--userns", "auto", "busybox"];
    let other = [&other[..], &map[2..]].concat();
    assert_ne!(orlop.run(&other).success().stdout(), before);
}

#[test]
fn restarts_while_the_service_is_down_count() {
    let web = Web::start(&["--restart", "on-failure:2"]);
    web.serves(1);
    web.orlop.kill_service("runtime");
    for run in 1..=3 {
        web.end(run);
    }
    eventually("it has given up", || web.orlop.shims().is_empty());
    let shown = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
    assert_eq!(web.orlop.inspect("web", shown), "exited 3 2");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(web.lines(), 3, "nor does the service start it again");
}

/// In a pause of the shim the next service takes over, and what a person says then holds.
fn a_person_wins_in_a_pause(end: &[&str]) {
    let web = Web::start(&["--restart", "always"]);
    let orlop = &web.orlop;
    web.serves(1);
    orlop.kill_service("runtime");
    for run in 1..=7 {
        web.end(run);
    }
    eventually("a pause of six seconds", || web.lines() == 7);
    let exit = web.log.with_file_name("exit.json");
    eventually("it has ended", || exit.exists());
    assert_eq!(
        orlop.inspect("web", "{{.State.Status}} {{.RestartCount}}"),
        "restarting 6"
    );
    orlop.run(end).success();
    assert_eq!(orlop.shims(), [0; 0]);
    std::thread::sleep(Duration::from_secs(7));
    orlop.run(&["ps", "-q"]).success().stdout_is("");
    assert_eq!(orlop.shims(), [0; 0]);
}

#[test]
fn who_stops_a_container_in_a_pause_of_the_shim_wins() {
    a_person_wins_in_a_pause(&["stop", "web"]);
}

#[test]
fn who_removes_a_container_in_a_pause_of_the_shim_wins() {
    a_person_wins_in_a_pause(&["rm", "-f", "web"]);
}

#[test]
fn a_service_that_stands_still_is_waited_for() {
    use rustix::process::Signal;
    let web = Web::start(&["--restart", "always"]);
    let orlop = &web.orlop;
    web.serves(1);
    orlop.signal_service("runtime", Signal::STOP);
    web.end(1);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(web.lines(), 1, "it is the service's part");
    orlop.signal_service("runtime", Signal::CONT);
    eventually("it runs again", || web.lines() == 2);
    assert_eq!(
        orlop.inspect("web", "{{.State.Status}} {{.RestartCount}}"),
        "running 1"
    );
    assert_eq!(orlop.shims().len(), 1);
}

#[test]
fn a_policy_of_an_update_and_a_stop_that_the_service_did_not_survive_hold() {
    let web = Web::start(&[]);
    let orlop = &web.orlop;
    orlop
        .run(&["update", "--restart", "always", "web"])
        .success();
    web.serves(1);
    orlop.kill_service("runtime");
    web.end(1);
    web.serves(2);
    // The shell ignores TERM, as every first process does that says nothing of it.
    let mut stop = orlop.spawn(&["stop", "-t", "100", "web"]);
    eventually("it is stopping", || {
        let events = [
            "events",
            "--since=1h",
            "--until=0s",
            "-f",
            "event=kill",
            "--format={{.Action}}",
        ];
        orlop.run(&events).success().stdout() == "kill\n"
    });
    orlop.kill_service("runtime");
    stop.wait().unwrap();
    web.end(2);
    eventually("the shim leaves it", || orlop.shims().is_empty());
    assert_eq!(web.lines(), 2);
}

#[test]
fn nothing_is_left_of_restarts_while_the_service_was_down() {
    let mut web = Web::start(&["--restart", "always"]);
    web.serves(1);
    web.orlop.run(&["rm", "-f", "web"]).success();
    let before = Trace::at_rest(&web.orlop);
    web.run(&["--restart", "always"]);
    let orlop = &web.orlop;
    let shim = orlop.shims()[0];
    orlop.kill_service("runtime");
    for run in 1..=2 {
        web.end(run);
    }
    eventually("it runs for the third time", || web.lines() == 3);
    assert_eq!(orlop.shims(), [shim], "one shim, the same");
    orlop.run(&["rm", "-f", "web"]).success();
    let left = left(orlop, &before);
    assert!(left.is_empty(), "{left:?}");
}
