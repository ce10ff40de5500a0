//! From create to exit.

use std::time::{Duration, Instant};

use orlop_shim::protocol::{Failure, Reply, Request};
use serde_json::json;

use crate::support::{Box, receive, send};

#[test]
fn a_command_runs_and_its_code_and_output_are_kept() {
    let mut container = Box::shell("echo out; echo err >&2; exit 42");
    let (code, output) = container.run();
    assert_eq!(code, 42);
    assert!(
        output.contains("out\n") && output.contains("err\n"),
        "{output:?}"
    );
    let exit = container.exit();
    assert!(exit.started_at > 0 && exit.finished_at >= exit.started_at);
    assert!(!container.config.socket.exists());
}

#[test]
fn a_missing_command_is_not_found() {
    let Reply::Failed { failure, message } = Box::new(&["nosuch"]).start_fails() else {
        panic!()
    };
    assert_eq!(failure, Failure::CommandNotFound);
    assert_eq!(
        message,
        "exec: \"nosuch\": executable file not found in $PATH"
    );
    let Reply::Failed { failure, .. } = Box::new(&["/no/such"]).start_fails() else {
        panic!()
    };
    assert_eq!(failure, Failure::CommandNotFound);
}

#[test]
fn a_file_that_cannot_be_executed_is_told_from_a_missing_one() {
    for command in ["/etc/passwd", "/etc"] {
        let reply = Box::new(&[command]).start_fails();
        let Reply::Failed { failure, message } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(failure, Failure::CommandNotExecutable, "{message}");
        assert!(message.contains("permission denied"), "{message}");
    }
}

#[test]
fn a_signal_ends_it_with_128_and_its_number() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    assert_eq!(
        container.ask(&Request::Signal {
            signal: 9,
            all: false
        }),
        Reply::Ok
    );
    container.ended();
    assert_eq!(container.exit().code, 137);
    let mut container =
        Box::shell("trap 'exit 3' TERM; echo ready; while true; do sleep 0.01; done");
    container.start();
    wait_for(|| container.output().contains("ready"));
    assert_eq!(
        container.ask(&Request::Signal {
            signal: 15,
            all: false
        }),
        Reply::Ok
    );
    container.ended();
    assert_eq!(container.exit().code, 3);
}

#[test]
fn waiting_ends_with_the_container() {
    let mut container = Box::shell("sleep 0.1; exit 5");
    container.start();
    let reply = container.ask(&Request::Wait);
    assert_eq!(
        reply,
        Reply::Exited {
            code: 5,
            oom_killed: false
        }
    );
    assert_eq!(container.exit().code, 5);
}

#[test]
fn the_state_names_the_process() {
    let mut container = Box::new(&["sleep", "100"]);
    let started = container.start();
    let Reply::State {
        pid,
        start_time,
        started_at,
        ..
    } = container.ask(&Request::State)
    else {
        panic!()
    };
    assert_eq!(pid, started);
    assert!(start_time > 0 && started_at > 0);
}

#[test]
fn before_the_start_the_end_of_the_service_takes_everything_down() {
    let mut container = Box::new(&["sleep", "100"]);
    let (start, reply) = container.create();
    let Reply::Created { pid } = reply else {
        panic!("{reply:?}")
    };
    drop(start);
    container.ended();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!container.dir.path().join("exit.json").exists());
    assert!(!container.config.socket.exists());
}

#[test]
fn after_the_start_it_does_not() {
    let mut container = Box::shell("sleep 0.2; echo done; exit 6");
    container.start(); // which drops the start socket
    container.ended();
    assert_eq!(container.exit().code, 6);
    assert_eq!(container.output(), "done\n");
}

#[test]
fn a_background_process_does_not_hold_the_end_up() {
    let began = Instant::now();
    let (code, output) = Box::shell("sleep 100 & echo here; exit 0").run();
    assert_eq!((code, output.as_str()), (0, "here\n"));
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn every_line_is_in_the_log_before_the_exit() {
    let (code, output) =
        Box::shell("i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done").run();
    assert_eq!(code, 0);
    assert_eq!(output.lines().count(), 2000);
    assert!(output.ends_with("1999\n"));
}

#[test]
fn the_working_directory_is_made_and_home_is_set() {
    let mut container = Box::shell("pwd; echo $HOME");
    container.spec["process"]["cwd"] = json!("/srv/app");
    container.config.user = "web".to_owned();
    assert_eq!(container.run(), (0, "/srv/app\n/home\n".to_owned()));
}

#[test]
fn a_volume_gets_what_the_image_has() {
    let mut container = Box::shell("cat /data/sub/file; echo new > /data/new");
    let data = container.lower().join("data/sub");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("file"), "from the image\n").unwrap();
    std::fs::hard_link(data.join("file"), data.join("again")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("link")).unwrap();
    let volume = container.dir.path().join("volume");
    container.config.copy_up = vec![(volume.clone(), "/data".into())];
    container.mount(
        json!({"destination": "/data", "type": "bind", "source": volume,
        "options": ["rbind", "rw"]}),
    );
    assert_eq!(container.run(), (0, "from the image\n".to_owned()));
    assert_eq!(
        std::fs::read_to_string(volume.join("new")).unwrap(),
        "new\n"
    );
    let inode = |name: &str| {
        std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(volume.join("sub").join(name)).unwrap(),
        )
    };
    assert_eq!(inode("file"), inode("again"));
    assert!(volume.join("sub/link").is_symlink());
}

#[test]
fn layers_cover_each_other_and_writes_go_on_top() {
    let mut container = Box::shell("cat /etc/name; echo new > /etc/name; cat /etc/name");
    for (number, name) in ["second", "third"].iter().enumerate() {
        let layer = container.dir.path().join(format!("layer{number},:\\"));
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        std::fs::write(layer.join("etc/name"), format!("{name}\n")).unwrap();
        container.config.root.lower.insert(0, layer);
    }
    assert_eq!(container.run(), (0, "third\nnew\n".to_owned()));
    let upper = container.dir.path().join("upper/etc/name");
    assert_eq!(std::fs::read_to_string(upper).unwrap(), "new\n");
}

#[test]
fn a_container_can_be_started_again_and_its_log_goes_on() {
    let mut container = Box::shell("echo $((`cat /n 2>/dev/null` + 1)) > /n; cat /n");
    assert_eq!(container.run().1, "1\n");
    assert_eq!(container.run().1, "1\n2\n");
}

#[test]
fn a_wrong_document_is_refused_with_its_name() {
    let mut container = Box::new(&["true"]);
    container.config.version = 99;
    let Reply::Failed { message, .. } = container.start_fails() else {
        panic!()
    };
    assert!(message.contains("99"), "{message}");
    let mut container = Box::new(&["true"]);
    container.config.user = "nobody-here".to_owned();
    let Reply::Failed { failure, message } = container.start_fails() else {
        panic!()
    };
    assert_eq!(failure, Failure::Invalid);
    assert!(message.contains("nobody-here"), "{message}");
}

#[test]
fn a_second_request_on_the_start_socket_has_no_meaning() {
    let mut container = Box::new(&["sleep", "100"]);
    let (mut start, _) = container.create();
    send(&mut start, &Request::State);
    assert!(matches!(
        receive(&mut start),
        Reply::Failed {
            failure: Failure::Invalid,
            ..
        }
    ));
}

#[test]
fn a_container_whose_shim_was_killed_ends() {
    for user in ["", "1000"] {
        let mut container = Box::new(&["sleep", "100"]);
        container.config.user = user.to_owned();
        let pid = container.start();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(container.shim_pid()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        wait_for(|| !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists());
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_for(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}
