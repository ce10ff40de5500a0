//! Containers with a terminal, driven through a real pseudo-terminal.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, Terminal, eventually};

#[test]
fn a_shell_has_a_terminal_of_the_right_size_and_its_exit_code_arrives() {
    let orlop = Instance::with_busybox();
    let mut shell = Terminal::run(
        &orlop,
        &["run", "-it", "--rm", "--name", "sh", "busybox", "sh"],
    );
    shell.shows("# ");
    shell.types(b"stty size\n");
    shell.shows("33 111");
    shell.types(b"echo $TERM; test -t 0 && test -t 1 && echo is'-'tty\n");
    shell.shows("xterm");
    shell.shows("is-tty");
    // Ctrl-C goes to the command inside, not to us.
    shell.types(b"sleep 1000\n");
    eventually("it sleeps", || {
        orlop.run(&["top", "sh"]).stdout().contains("sleep 1000")
    });
    shell.types(b"\x03");
    shell.types(b"echo still'-'here\n");
    shell.shows("still-here");
    shell.types(b"exit 3\n");
    assert_eq!(shell.ends(), 3);
}

#[test]
fn detach_and_attach_again() {
    let orlop = Instance::with_busybox();
    let mut shell = Terminal::run(&orlop, &["run", "-it", "--name", "sh", "busybox", "sh"]);
    shell.shows("# ");
    shell.types(b"X=remembered\n");
    shell.shows("# ");
    shell.types(b"\x10\x11");
    assert_eq!(shell.ends(), 0);
    assert_eq!(orlop.inspect("sh", "{{.State.Running}}"), "true");
    let mut again = Terminal::run(&orlop, &["attach", "sh"]);
    again.types(b"echo it is $X\n");
    again.shows("it is remembered");
    again.types(b"exit\n");
    assert_eq!(again.ends(), 0);
}

#[test]
fn an_init_leaves_the_terminal_to_its_command() {
    let orlop = Instance::with_busybox();
    let script = "trap 'echo interrupt'ed INT; echo rea''dy; while :; do sleep 0.1; read x && break; done; exit 4";
    let mut shell = Terminal::run(
        &orlop,
        &[
            "run", "-it", "--rm", "--init", "busybox", "sh", "-c", script,
        ],
    );
    shell.shows("ready");
    shell.types(b"\x03");
    shell.shows("interrupted");
    shell.types(b"go on\n");
    assert_eq!(shell.ends(), 4);
}

#[test]
fn exec_with_a_terminal() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &[]);
    let mut shell = Terminal::run(&orlop, &["exec", "-it", "box", "sh"]);
    shell.shows("# ");
    shell.types(b"stty size; exit 6\n");
    shell.shows("33 111");
    assert_eq!(shell.ends(), 6);
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    let orlop = Instance::with_busybox();
    orlop.run(&["create", "--name", "box", "busybox"]).success();
    for args in [&["export", "box"][..], &["cp", "box:/etc", "-"]] {
        let mut command = Terminal::run(&orlop, args);
        command.shows("refusing to write an archive to a terminal");
        assert_eq!(command.ends(), 1);
    }
}

/// On a terminal each answer takes the place of the one before.
#[test]
fn stats_are_drawn_anew() {
    let orlop = Instance::with_busybox();
    orlop.run_sleeper("box", &[]);
    let mut stats = Terminal::run(&orlop, &["stats", "box"]);
    for _ in 0..2 {
        stats.shows("\u{1b}[H\u{1b}[J");
        stats.shows("CONTAINER ID");
        stats.shows("box");
    }
    orlop.run(&["rm", "-f", "box"]).success();
    assert_eq!(stats.ends(), 0);
}
