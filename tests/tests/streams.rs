//! Output that is read slowly, or no more: nothing is lost without a word, and no container waits for an
//! onlooker.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::Read as _;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use orlop_tests::{Instance, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// More than all buffers on the way and what may wait for a client.
const FLOOD: usize = 150_000_000;
const LINE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678";

fn flood() -> String {
    format!("yes {LINE}{LINE}{LINE}{LINE}{LINE} | head -c {FLOOD}")
}

/// What a command still writes to standard output, how it ends, and what it says of it.
fn rest(mut child: Child) -> (Vec<u8>, ExitStatus, String) {
    let (mut output, mut said) = (Vec::new(), String::new());
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_end(&mut output).unwrap();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    (output, child.wait().unwrap(), said)
}

/// A container that does something once it is told to, and somebody who attached to it.
fn attached(orlop: &Instance, script: &str) -> Child {
    let script = format!("while [ ! -e /go ]; do sleep 0.05; done; {script}");
    orlop.run_script("box", &script);
    let child = orlop.spawn(&["attach", "--no-stdin", "box"]);
    let attach = [
        "events",
        "--since",
        "1m",
        "--until",
        "0s",
        "--filter",
        "event=attach",
    ];
    eventually("it is attached", || {
        orlop.run(&attach).success().stdout().contains("attach")
    });
    child
}

#[test]
fn a_foreground_that_reads_late_gets_all_of_it() {
    let orlop = Instance::with_busybox();
    for name in ["one", "two"] {
        let script = format!("{}; exit 4", flood());
        let args = [
            "run", "--rm", "--name", name, "busybox", "sh", "-c", &script,
        ];
        let child = orlop.spawn(&args);
        std::thread::sleep(Duration::from_secs(3));
        let (output, status, said) = rest(child);
        assert_eq!((output.len(), status.code()), (FLOOD, Some(4)), "{said}");
    }
}

/// It starts again and is removed before anybody reads what it wrote at first.
#[test]
fn what_waits_for_a_reader_outlives_its_container() {
    let orlop = Instance::with_busybox();
    let script = format!("yes {LINE} | head -c 30000000; [ -e /ran ] || {{ touch /ran; exit 9; }}");
    let child = orlop.spawn(&["run", "--name", "box", "busybox", "sh", "-c", &script]);
    eventually("it has ended", || {
        let status = ["inspect", "-f", "{{.State.Status}}", "box"];
        orlop.run(&status).stdout() == "exited\n"
    });
    orlop.run(&["start", "box"]).success();
    orlop.run(&["wait", "box"]).success().stdout_is("0\n");
    orlop.run(&["rm", "box"]).success();
    let (output, status, said) = rest(child);
    assert_eq!(
        (output.len(), status.code()),
        (30_000_000, Some(9)),
        "{said}"
    );
    eventually("its shim is gone", || orlop.shims().is_empty());
}

#[test]
fn an_onlooker_that_does_not_read_is_told_what_it_missed() {
    let orlop = Instance::with_busybox();
    let child = attached(&orlop, &flood());
    orlop.run(&["exec", "box", "touch", "/go"]).success();
    orlop.run(&["wait", "box"]).success().stdout_is("0\n");
    let (output, status, said) = rest(child);
    assert_eq!(status.code(), Some(125), "{said}");
    assert!(said.contains("read too slowly"), "{said}");
    assert!(output.len() < FLOOD);
}

#[test]
fn a_stream_that_breaks_is_no_success() {
    let orlop = Instance::with_busybox();
    let child = attached(&orlop, "sleep 100");
    let shim = Pid::from_raw(orlop.shims()[0]).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    let (_, status, said) = rest(child);
    assert_eq!(status.code(), Some(125), "{said}");
    assert!(said.contains("lost the streams"), "{said}");
    orlop.run(&["rm", "box"]).success();

    let foreground = orlop.spawn(&["run", "--name", "box", "busybox", "sleep", "100"]);
    eventually("it runs", || {
        orlop.run(&["inspect", "box"]).code() == 0 && orlop.shims().len() == 1
    });
    let running = || orlop.status("box") == "running";
    eventually("it is started", running);
    orlop.kill_service("runtime");
    let (_, status, said) = rest(foreground);
    assert_eq!(status.code(), Some(125), "{said}");
    assert!(said.contains("was lost"), "{said}");
    assert!(running(), "the container goes on");
}

#[test]
fn a_killed_container_does_not_run() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["create", "--name", "box", "busybox", "sleep", "100"])
        .success();
    for _ in 0..10 {
        orlop.run(&["start", "box"]).success();
        orlop.run(&["kill", "box"]).success();
        orlop.run(&["ps", "-q"]).success().stdout_is("");
        assert_eq!(orlop.inspect("box", "{{.State.ExitCode}}"), "137");
    }
    orlop.run(&["start", "box"]).success();
    orlop.run(&["kill", "-s", "HUP", "box"]).success();
}
