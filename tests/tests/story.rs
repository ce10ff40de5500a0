//! The story that Orlop exists for, as a person does it by hand.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, Terminal};

/// Asks for a name, greets, and remembers whom it greeted.
const GREETER: &str =
    "printf 'who? '; read name; echo $name >> /greeted; echo hello, $name; wc -l < /greeted";
const DETACH: &[u8] = b"\x10\x11";

#[test]
fn a_shell_is_left_committed_and_run_again_and_its_siblings_see_nothing_of_it() {
    let orlop = Instance::with_busybox();
    let mut shell = Terminal::run(&orlop, &["run", "-it", "--name", "work", "busybox"]);
    shell.shows("# ");
    shell.types(b"echo mine > /note; rm /etc/group; mkdir /made; echo do'-'ne\n");
    shell.shows("do-ne");
    shell.types(DETACH);
    assert_eq!(shell.ends(), 0);
    assert_eq!(orlop.status("work"), "running");

    orlop.run(&["commit", "work", "worked"]).success();
    let look = "cat /note; test -d /made && test ! -e /etc/group && echo changed";
    orlop
        .run(&["run", "--rm", "worked", "sh", "-c", look])
        .success()
        .stdout_is("mine\nchanged\n");
    let look = "test ! -e /note && test ! -e /made && test -e /etc/group && echo untouched";
    orlop.shell(&[], look).success().stdout_is("untouched\n");

    let mut again = Terminal::run(&orlop, &["attach", "work"]);
    again.types(b"cat /note; exit 7\n");
    again.shows("mine");
    assert_eq!(again.ends(), 7);
}

#[test]
fn a_program_that_asks_is_started_again_with_the_terminal_it_had() {
    let orlop = Instance::with_busybox();
    let run = [
        "run", "-it", "--name", "greeter", "busybox", "sh", "-c", GREETER,
    ];
    let mut first = Terminal::run(&orlop, &run);
    first.shows("who? ");
    first.types(b"ann\n");
    first.shows("hello, ann");
    first.shows("1");
    assert_eq!(first.ends(), 0);

    let mut second = Terminal::run(&orlop, &["start", "-ai", "greeter"]);
    second.shows("who? ");
    second.types(b"ben\n");
    second.shows("hello, ben");
    second.shows("2");
    assert_eq!(second.ends(), 0);
}

#[test]
fn what_a_container_was_given_and_wrote_outlives_stop_start_rename_and_restart() {
    let orlop = Instance::with_busybox();
    let data = tempfile::tempdir().unwrap();
    let bind = format!("{}:/bound", data.path().display());
    let given = [
        "run",
        "-d",
        "--name",
        "old",
        "--hostname",
        "harbour",
        "-e",
        "COLOUR=blue",
        "-m",
        "64m",
        "-w",
        "/var",
        "-l",
        "kind=boat",
        "-v",
        &bind,
        "-v",
        "stores:/stores",
        "-p",
        "127.0.0.1:0:80",
        "--stop-signal",
        "KILL",
    ];
    orlop
        .run(&[&given[..], &["busybox", "sleep", "1000"]].concat())
        .success();
    let write = "for file in /own /bound/file /stores/file; do echo kept > $file; done";
    orlop.run(&["exec", "old", "sh", "-c", write]).success();
    let mut name = "old";
    for act in ["stop", "rename", "restart", "kill"] {
        match act {
            "rename" => {
                orlop.run(&["rename", "old", "new"]).success();
                name = "new";
            }
            "restart" => drop(orlop.run(&["restart", name]).success()),
            act => {
                orlop.run(&[act, name]).success();
                orlop.run(&["wait", name]).success();
                orlop.run(&["start", name]).success();
            }
        }
        has_what_it_was_given(&orlop, name);
    }
    orlop.run(&["inspect", "old"]).exits(1);
    orlop.run(&["rm", "-f", "new"]).success();
    orlop.run(&["volume", "rm", "stores"]).success();
}

fn has_what_it_was_given(orlop: &Instance, name: &str) {
    let look = "hostname; echo $COLOUR; pwd; cat /own /bound/file /stores/file";
    orlop
        .run(&["exec", name, "sh", "-c", look])
        .success()
        .stdout_is("harbour\nblue\n/var\nkept\nkept\nkept\n");
    assert_eq!(orlop.inspect(name, "{{.HostConfig.Memory}}"), "67108864");
    assert_eq!(orlop.inspect(name, "{{.Config.Labels.kind}}"), "boat");
    orlop
        .run(&["port", name, "80"])
        .success()
        .stdout_has("127.0.0.1:");
}

/// Two people work in one container at once, and the one who leaves does not end it for the other.
#[test]
fn two_people_share_one_shell() {
    let orlop = Instance::with_busybox();
    let mut ann = Terminal::run(&orlop, &["run", "-it", "--name", "shared", "busybox"]);
    ann.shows("# ");
    let mut ben = Terminal::run(&orlop, &["attach", "shared"]);
    ann.types(b"echo from'-'ann\n");
    ann.shows("from-ann");
    ben.types(b"echo from'-'ben\n");
    ann.shows("from-ben");
    ben.shows("from-ben");
    ann.types(DETACH);
    assert_eq!(ann.ends(), 0);
    ben.types(b"exit 4\n");
    assert_eq!(ben.ends(), 4);
}
