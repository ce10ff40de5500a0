//! Streams: attach, standard input, terminals, one more process.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use orlop_shim::protocol::{BACKLOG_BYTES_MAX, Failure, Kind, Reply, Request, write_frame};
use serde_json::json;

use crate::lifecycle::wait_for;
use crate::support::{Box, drain, drain_to, read_until, receive, send};

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

/// Lines of this one, so that the log takes little more than they do.
const LINE_BYTES: usize = 1000;
/// More than may wait for a client.
const FLOOD: usize = 100_000_000;

/// A container that writes that many bytes, after a line of input if it gets any.
fn flood(bytes: usize) -> Box {
    let line = "x".repeat(LINE_BYTES - 1);
    let mut container = Box::shell(&format!("read go; yes {line} | head -c {bytes}; exit 3"));
    container.config.log_bytes_max = 1_000_000;
    container
}

/// Whether these are the first bytes that it writes.
fn is_flood(output: &[u8]) -> bool {
    let is_line = |line: &[u8]| {
        let (end, text) = line.split_last().unwrap();
        let whole = *end == b'\n' && line.len() == LINE_BYTES;
        (whole || (*end == b'x' && line.len() < LINE_BYTES))
            && text.iter().all(|&byte| byte == b'x')
    };
    output.chunks(LINE_BYTES).all(is_line)
}

fn in_foreground(container: &mut Box) -> UnixStream {
    let (mut start, _) = container.create();
    let mut peer = container.request(&ALL);
    receive(&mut peer);
    send(&mut start, &Request::Start);
    receive(&mut start);
    peer
}

fn exited(code: i32) -> Option<Reply> {
    let oom_killed = false;
    Some(Reply::Exited { code, oom_killed })
}

#[test]
fn a_foreground_that_reads_late_misses_nothing() {
    let mut container = flood(FLOOD);
    let mut late = in_foreground(&mut container);
    std::thread::sleep(Duration::from_secs(2));
    let (output, last) = drain_to(&mut late);
    assert_eq!((output.len(), last), (FLOOD, exited(3)));
    assert!(is_flood(&output));
}

#[test]
fn what_is_not_read_at_the_end_waits_while_the_container_starts_again() {
    let mut container = flood(20_000_000);
    let mut late = in_foreground(&mut container);
    wait_for(|| !container.config.socket.exists());
    assert_eq!(container.exit().code, 3);
    let again = UnixListener::bind(&container.config.socket).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let (output, last) = drain_to(&mut late);
    assert_eq!((output.len(), last), (20_000_000, exited(3)));
    container.ended();
    assert!(container.config.socket.exists(), "it is another's");
    drop(again);
}

#[test]
fn a_terminal_that_is_read_late_misses_nothing() {
    let mut container = flood(5_000_000).terminal();
    let mut late = in_foreground(&mut container);
    write_frame(&mut late, Kind::Stdin, b"go\n").unwrap();
    wait_for(|| !container.config.socket.exists());
    let (output, code) = drain(&mut late);
    let flood: String = output.replace("go\r\n", "").replace('\r', "");
    assert_eq!((flood.len(), code), (5_000_000, 3));
    assert!(is_flood(flood.as_bytes()));
}

#[test]
fn a_container_never_waits_for_an_onlooker() {
    let mut container = flood(FLOOD);
    container.config.open_stdin = true;
    container.start();
    let mut onlookers = [container.request(&ALL), container.request(&ALL)];
    onlookers.iter_mut().for_each(|peer| drop(receive(peer)));
    let [stalled, reading] = &mut onlookers;
    write_frame(stalled, Kind::Stdin, b"go\n").unwrap();
    let (output, last) = drain_to(reading);
    assert_eq!((output.len(), last), (FLOOD, exited(3)));
    assert_eq!(container.exit().code, 3, "nobody read the other's output");
    let (output, last) = drain_to(stalled);
    assert!(is_flood(&output), "there is no gap");
    assert!(output.len() as u64 >= BACKLOG_BYTES_MAX && output.len() < FLOOD);
    let failure = match last {
        Some(Reply::Failed { failure, .. }) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure, Failure::Behind);
    container.ended();
}

#[test]
fn a_foreground_that_never_reads_does_not_hold_up_for_ever() {
    let mut container = flood(FLOOD);
    let stalled = in_foreground(&mut container);
    let began = Instant::now();
    while container.config.socket.exists() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(container.exit().code, 3);
    drop(stalled);
    container.ended();
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
fn a_process_that_is_frozen_on_its_way_holds_up_only_who_asked() {
    let mut container = Box::new(&["sleep", "100"]);
    container.cgroup(&[("freezer", &[])]);
    container.start();
    let freezer = container.config.cgroups[0].path.join("freezer.state");
    std::fs::write(&freezer, "FROZEN").unwrap();
    let mut process = container.spec["process"].clone();
    process["args"] = json!(["echo", "through"]);
    let mut asking = container.ask_to_run("", process.clone());
    drop(container.ask_to_run("", process));
    for _ in 0..3 {
        assert!(matches!(
            container.ask(&Request::State),
            Reply::State { .. }
        ));
    }
    std::fs::write(&freezer, "THAWED").unwrap();
    assert!(matches!(receive(&mut asking), Reply::Started { .. }));
    assert_eq!(drain(&mut asking), ("through\n".to_owned(), 0));
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
