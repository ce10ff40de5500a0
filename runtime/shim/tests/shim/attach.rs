//! Streams: attach, standard input, terminals, one more process.

use std::time::Duration;

use orlop_shim::protocol::{Failure, Kind, Reply, Request, write_frame};
use serde_json::json;

use crate::lifecycle::wait_for;
use crate::support::{Box, drain, read_until, receive, send};

const ALL: Request = Request::Attach {
    stdin: true,
    stdout: true,
    stderr: true,
};

#[test]
fn input_goes_to_the_process_until_it_is_closed() {
    let mut container = Box::shell("cat; echo closed");
    container.config.open_stdin = true;
    container.start();
    let mut peer = container.request(&ALL);
    assert!(matches!(
        receive(&mut peer),
        Reply::Attached { tty: false, .. }
    ));
    write_frame(&mut peer, Kind::Stdin, b"hello\n").unwrap();
    assert_eq!(read_until(&mut peer, "hello\n"), "hello\n");
    write_frame(&mut peer, Kind::Stdin, b"").unwrap();
    assert_eq!(drain(&mut peer), ("closed\n".to_owned(), 0));
    container.ended();
    assert_eq!(container.output(), "hello\nclosed\n");
}

#[test]
fn every_attached_client_gets_all_output() {
    let mut container = Box::shell("read x; echo $x; echo err >&2");
    container.config.open_stdin = true;
    container.start();
    let mut peers: Vec<_> = (0..5).map(|_| container.request(&ALL)).collect();
    peers.iter_mut().for_each(|peer| drop(receive(peer)));
    let mut only = container.request(&Request::Attach {
        stdin: false,
        stdout: false,
        stderr: true,
    });
    receive(&mut only);
    write_frame(&mut peers[2], Kind::Stdin, b"x\n").unwrap();
    for peer in &mut peers {
        let (output, code) = drain(peer);
        assert!(
            output.contains("x\n") && output.contains("err\n"),
            "{output:?}"
        );
        assert_eq!(code, 0);
    }
    assert_eq!(drain(&mut only).0, "err\n");
}

#[test]
fn a_client_attached_before_the_start_misses_nothing() {
    let mut container = Box::shell("echo first; exit 9");
    let (mut start, _) = container.create();
    let mut peer = container.request(&ALL);
    receive(&mut peer);
    send(&mut start, &Request::Start);
    assert_eq!(drain(&mut peer), ("first\n".to_owned(), 9));
}

#[test]
fn a_client_that_reads_late_misses_nothing() {
    let mut container = Box::shell("head -c 20000000 /dev/zero; echo end");
    let (mut start, _) = container.create();
    let mut late = container.request(&ALL);
    receive(&mut late);
    send(&mut start, &Request::Start);
    receive(&mut start);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (output, code) = drain(&mut late);
    assert_eq!((output.len(), code), (20_000_004, 0));
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_for_ever() {
    let mut container = Box::shell("head -c 20000000 /dev/zero; echo; echo end");
    let (mut start, _) = container.create();
    let mut stalled = container.request(&ALL);
    receive(&mut stalled);
    send(&mut start, &Request::Start);
    receive(&mut start);
    container.ended();
    assert_eq!(container.exit().code, 0);
    assert!(
        container.own_log().contains("does not read"),
        "{}",
        container.own_log()
    );
}

#[test]
fn a_large_input_is_not_lost() {
    let mut container = Box::shell("wc -c");
    container.config.open_stdin = true;
    container.start();
    let mut peer = container.request(&ALL);
    receive(&mut peer);
    for _ in 0..300 {
        write_frame(&mut peer, Kind::Stdin, &[b'x'; 10_000]).unwrap();
    }
    write_frame(&mut peer, Kind::Stdin, b"").unwrap();
    assert_eq!(drain(&mut peer).0.trim(), "3000000");
}

#[test]
fn a_terminal_has_a_size_that_can_change() {
    let mut container = Box::shell("tty; stty size; read x; stty size; exit 4").terminal();
    container.config.window = Some((33, 77));
    let (mut start, reply) = container.create();
    assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    let mut peer = container.request(&ALL);
    assert!(matches!(
        receive(&mut peer),
        Reply::Attached { tty: true, .. }
    ));
    send(&mut start, &Request::Start);
    let first = read_until(&mut peer, "33 77");
    assert!(first.contains("/dev/pts/0"), "{first:?}");
    send(
        &mut peer,
        &Request::Resize {
            rows: 10,
            columns: 20,
        },
    );
    write_frame(&mut peer, Kind::Stdin, b"go\n").unwrap();
    let (rest, code) = drain(&mut peer);
    assert!(rest.contains("10 20"), "{rest:?}");
    assert_eq!(code, 4);
}

#[test]
fn resizing_what_has_no_terminal_is_an_error() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let reply = container.ask(&Request::Resize {
        rows: 1,
        columns: 1,
    });
    assert!(
        matches!(
            reply,
            Reply::Failed {
                failure: Failure::Invalid,
                ..
            }
        ),
        "{reply:?}"
    );
}

#[test]
fn control_c_reaches_the_foreground_of_a_terminal() {
    let mut container =
        Box::shell("trap 'echo caught; exit 7' INT; echo ready; while true; do sleep 0.01; done");
    container = container.terminal();
    container.start();
    wait_for(|| container.output().contains("ready"));
    let mut peer = container.request(&ALL);
    receive(&mut peer);
    write_frame(&mut peer, Kind::Stdin, b"\x03").unwrap();
    assert_eq!(drain(&mut peer).1, 7);
}

#[test]
fn one_more_process_shares_the_container() {
    let mut container = Box::shell("echo mark > /tmp/mark; hostname inside 2>/dev/null; sleep 100");
    container.start();
    wait_for(|| container.exec("", &["test", "-e", "/tmp/mark"]).0 == 0);
    assert_eq!(
        container.exec("", &["cat", "/tmp/mark"]),
        (0, "mark\n".to_owned())
    );
    assert_eq!(container.exec("", &["hostname"]), (0, "box\n".to_owned()));
    assert_eq!(container.exec("", &["sh", "-c", "exit 12"]).0, 12);
    let namespaces = "for n in mnt pid net uts ipc cgroup; do \
                      readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done";
    let (_, output) = container.exec("", &["sh", "-c", namespaces]);
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 12, "{output}");
    assert!(lines.chunks(2).all(|pair| pair[0] == pair[1]), "{output}");
}

#[test]
fn c4_one_more_process_gets_exactly_the_user_asked_for() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let ids = |user: &str| {
        let (_, status) = container.exec(
            user,
            &["grep", "-E", "^(Uid|Gid|Groups):", "/proc/self/status"],
        );
        let words = |line: &str| {
            line.split_whitespace()
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let lines: Vec<_> = status.lines().map(words).collect();
        (lines[0][0].clone(), lines[1][0].clone(), lines[2].join(" "))
    };
    let is =
        |uid: &str, gid: &str, groups: &str| (uid.to_owned(), gid.to_owned(), groups.to_owned());
    assert_eq!(ids(""), is("0", "0", "0 10"));
    assert_eq!(ids("1"), is("1", "0", "0"));
    assert_eq!(ids("65534"), is("65534", "0", "0"));
    assert_eq!(ids("1:2"), is("1", "2", "2"));
    assert_eq!(ids("web"), is("33", "33", "33 40"));
    assert_eq!(ids("web:log"), is("33", "40", "40"));
}

#[test]
fn one_more_process_with_input_and_with_a_terminal() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let (mut peer, _) = container.exec_with("", |process| process["args"] = json!(["cat"]));
    write_frame(&mut peer, Kind::Stdin, b"through\n").unwrap();
    write_frame(&mut peer, Kind::Stdin, b"").unwrap();
    assert_eq!(drain(&mut peer), ("through\n".to_owned(), 0));
    let (mut peer, reply) = container.exec_with("", |process| {
        process["args"] = json!(["sh", "-c", "tty; read x; stty size; exit 2"]);
        process["terminal"] = json!(true);
    });
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    read_until(&mut peer, "/dev/pts/0");
    send(
        &mut peer,
        &Request::Resize {
            rows: 11,
            columns: 22,
        },
    );
    write_frame(&mut peer, Kind::Stdin, b"\n").unwrap();
    let (output, code) = drain(&mut peer);
    assert!(output.contains("11 22"), "{output:?}");
    assert_eq!(code, 2);
}

#[test]
fn one_more_process_that_cannot_start_says_why() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let failure = |change: fn(&mut serde_json::Value)| match container.exec_with("", change).1 {
        Reply::Failed { failure, message } => (failure, message),
        other => panic!("{other:?}"),
    };
    let (kind, message) = failure(|process| process["args"] = json!(["nosuch"]));
    assert_eq!(kind, Failure::CommandNotFound, "{message}");
    let (kind, message) = failure(|process| process["args"] = json!(["/etc/passwd"]));
    assert_eq!(kind, Failure::CommandNotExecutable, "{message}");
    let (kind, message) = failure(|process| process["cwd"] = json!("/nosuch"));
    assert_eq!(kind, Failure::Invalid, "{message}");
    assert!(message.contains("/nosuch"), "{message}");
}

#[test]
fn a_signal_on_its_connection_ends_one_more_process() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let (mut peer, _) =
        container.exec_with("", |process| process["args"] = json!(["sleep", "100"]));
    send(
        &mut peer,
        &Request::Signal {
            signal: 15,
            all: false,
        },
    );
    assert_eq!(drain(&mut peer).1, 143);
}

#[test]
fn the_output_of_one_more_process_waits_for_its_reader() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let (mut peer, _) = container.exec_with("", |process| {
        process["args"] = json!(["head", "-c", "30000000", "/dev/zero"]);
    });
    std::thread::sleep(Duration::from_millis(100));
    let (output, code) = drain(&mut peer);
    assert_eq!((output.len(), code), (30_000_000, 0));
}

#[test]
fn the_end_of_the_container_ends_what_was_added() {
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let (mut peer, _) =
        container.exec_with("", |process| process["args"] = json!(["sleep", "100"]));
    container.ask(&Request::Signal {
        signal: 9,
        all: false,
    });
    assert_eq!(drain(&mut peer).1, 137);
    container.ended();
}
