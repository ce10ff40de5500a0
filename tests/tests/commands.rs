//! What every command has: help with an example, completions, both spellings; and the commands that
//! look after the whole.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;

use orlop_tests::Instance;

#[test]
fn every_command_has_help_with_an_example() {
    let orlop = Instance::stopped();
    for command in [
        "run", "create", "start", "stop", "restart", "kill", "rm", "ps", "logs", "exec", "attach",
        "commit", "cp", "diff", "export", "wait", "inspect", "port", "build", "images", "pull",
        "push", "tag", "rmi", "import", "load", "save", "login", "logout", "up", "down", "serve",
        "version", "info",
    ] {
        orlop
            .run(&[command, "--help"])
            .success()
            .stdout_has("Example")
            .stdout_has(&format!("orlop {command}"));
    }
    for shell in ["bash", "zsh", "fish"] {
        orlop
            .run(&["completion", shell])
            .success()
            .stdout_has("orlop");
    }
    orlop
        .run(&["frobnicate"])
        .exits(125)
        .stderr_has("frobnicate");
    assert!(!orlop.run_dir().exists(), "help starts nothing");
}

#[test]
fn both_spellings_are_one_command() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["container", "run", "--name", "box", "busybox", "true"])
        .success();
    for (short, long) in [
        (&["ps", "-aq"][..], &["container", "ls", "-aq"][..]),
        (&["images", "-q"], &["image", "ls", "-q"]),
        (&["logs", "box"], &["container", "logs", "box"]),
        (&["inspect", "box"], &["container", "inspect", "box"]),
    ] {
        let first = orlop.run(short).success().stdout();
        assert_eq!(first, orlop.run(long).success().stdout());
    }
    orlop.run(&["container", "rm", "box"]).success();
    orlop.run(&["image", "tag", "busybox", "b2"]).success();
    orlop.run(&["image", "rm", "b2"]).success();
}

#[test]
fn prune_and_disk_usage() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&[
            "run",
            "--name",
            "box",
            "-v",
            "named:/n",
            "-v",
            "/anonymous",
            "busybox",
            "true",
        ])
        .success();
    orlop
        .run(&["system", "df"])
        .success()
        .stdout_has("Images")
        .stdout_has("Containers");
    let pruned = orlop.run(&["container", "prune", "-f"]).success();
    assert_eq!(
        pruned
            .stdout()
            .lines()
            .filter(|line| line.len() == 64)
            .count(),
        1
    );
    orlop.run(&["ps", "-aq"]).success().stdout_is("");
    orlop.run(&["volume", "prune", "-f"]).success();
    orlop
        .run(&["volume", "ls", "-q"])
        .success()
        .stdout_is("named\n");
    orlop.run(&["rmi", "busybox"]).success();
    orlop.run(&["builder", "prune", "-f"]).success();
    orlop.run(&["system", "prune", "-f"]).success();
}

#[test]
fn volumes_and_networks_by_command() {
    let orlop = Instance::start();
    orlop
        .run(&["volume", "create", "v1"])
        .success()
        .stdout_is("v1\n");
    orlop.run(&["volume", "create", "v1"]).success();
    orlop
        .run(&["volume", "inspect", "v1"])
        .success()
        .stdout_has("v1");
    orlop
        .run(&["volume", "create", "../v"])
        .exits(1)
        .stderr_has("../v");
    orlop.run(&["volume", "rm", "v1"]).success();
    orlop.run(&["volume", "rm", "v1"]).exits(1).stderr_has("v1");
    orlop
        .run(&["network", "ls"])
        .success()
        .stdout_has("bridge")
        .stdout_has("host")
        .stdout_has("none");
    orlop
        .run(&["network", "inspect", "bridge"])
        .success()
        .stdout_has("bridge");
    orlop
        .run(&["network", "create", "--driver", "macvlan", "mine"])
        .exits(1)
        .stderr_has("macvlan");
}

/// `up` twice is `up` once; `down` twice is `down` once; a port that is taken is named.
#[test]
fn up_and_down_can_be_repeated() {
    let orlop = Instance::start();
    let pid = orlop.service_pid("store");
    orlop.run(&["up"]).success();
    assert_eq!(orlop.service_pid("store"), pid);
    orlop.run(&["down"]).success();
    orlop.run(&["down"]).success();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    orlop
        .run(&["up", "--registry-http", &address])
        .exits(1)
        .stderr_has(&address);
    orlop.run(&["down"]).success();
    orlop
        .run(&["serve", "nothing"])
        .exits(125)
        .stderr_has("nothing");
}

/// A service alone refuses plain TCP unless it is loopback and asked for.
#[test]
fn plain_tcp_is_refused() {
    let orlop = Instance::stopped();
    for args in [
        [
            "serve",
            "store",
            "--listen",
            "tcp://0.0.0.0:0",
            "--insecure",
        ]
        .as_slice(),
        &["serve", "store", "--listen", "tcp://127.0.0.1:0"],
    ] {
        let outcome = orlop.run(args);
        assert_ne!(outcome.code(), 0);
        drop(outcome.stderr_has("refusing to serve plain TCP"));
    }
    fs::remove_dir_all(orlop.run_dir()).ok();
}
