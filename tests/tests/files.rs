//! The files of containers: what they changed, all of them as a tar, images made of them, copies in and
//! out.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;

use orlop_tests::Instance;

/// A container with this name that ran a script to its end.
fn ran(orlop: &Instance, name: &str, script: &str) {
    orlop
        .run(&["run", "--name", name, "busybox", "sh", "-c", script])
        .success();
}

/// The paths of a tar, sorted.
fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let path = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let entry: tar::Entry<'_, &[u8]> = entry.unwrap();
        entry.path().unwrap().display().to_string()
    };
    let mut names: Vec<_> = archive.entries().unwrap().map(path).collect();
    names.sort();
    names
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted_and_nothing_of_ours() {
    let orlop = Instance::with_busybox();
    let script = "echo x > /new; rm /etc/group; echo y >> /etc/passwd; mkdir -p /a/b; touch /tmp/t";
    ran(&orlop, "box", script);
    let expected = "A /a\nA /a/b\nC /etc\nD /etc/group\nC /etc/passwd\nA /new\nC /tmp\nA /tmp/t\n";
    orlop.run(&["diff", "box"]).success().stdout_is(expected);
    ran(&orlop, "idle", "true");
    orlop
        .run(&["container", "diff", "idle"])
        .success()
        .stdout_is("");
    orlop.run_script("live", "touch /up; sleep 1000");
    orlop_tests::eventually("a running container's change is told", || {
        orlop.run(&["diff", "live"]).success().stdout() == "A /up\n"
    });
    orlop
        .run(&["diff", "nobody"])
        .exits(1)
        .stderr_has("no such container: nobody");
}

#[test]
fn export_and_import_give_the_same_files() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&[
            "run", "--name", "box", "-v", "/v", "busybox", "sh", "-c",
            "echo hello > /kept; rm /etc/group; ln -s kept /link; echo in > /v/volume; chmod 640 /kept",
        ])
        .success();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("box.tar");
    let path = file.to_str().unwrap();
    orlop.run(&["export", "-o", path, "box"]).success();
    let paths = names(&fs::read(&file).unwrap());
    assert!(paths.contains(&"kept".to_owned()), "{paths:?}");
    assert!(
        !paths.iter().any(|path| path.starts_with("v/v")),
        "a volume is not exported"
    );
    assert!(
        !paths
            .iter()
            .any(|path| path.starts_with("proc/") && path.len() > 5),
        "{paths:?}"
    );
    let piped = orlop.run(&["export", "box"]).success();
    assert_eq!(piped.bytes(), fs::read(&file).unwrap());
    orlop
        .run(&["import", "-c", "CMD [\"sh\"]", path, "again"])
        .success();
    let script = "cat /link; stat -c %a /kept; test -e /etc/group || echo gone";
    orlop
        .run(&["run", "--rm", "again", "sh", "-c", script])
        .success()
        .stdout_is("hello\n640\ngone\n");
    orlop
        .run(&["export", "-o", "/nowhere/x.tar", "box"])
        .exits(1);
}

#[test]
fn an_image_made_of_a_container_runs_with_its_changes() {
    let orlop = Instance::with_busybox();
    orlop.run_script_with(
        "box",
        &["-e", "A=1"],
        "rm /etc/group; echo changed > /mine; sleep 60",
    );
    orlop_tests::eventually("the file is there", || {
        orlop.run(&["exec", "box", "cat", "/mine"]).stdout() == "changed\n"
    });
    let id = orlop
        .run(&[
            "commit",
            "-a",
            "me",
            "-m",
            "why",
            "-c",
            "CMD [\"cat\", \"/mine\"]",
            "-c",
            "LABEL tier=web",
            "box",
            "made:v1",
        ])
        .success()
        .line();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(orlop.inspect("made:v1", "{{.Id}}"), id);
    assert_eq!(orlop.inspect("made:v1", "{{.Author}}"), "me");
    assert_eq!(
        orlop.inspect("made:v1", "{{index .Config.Labels \"tier\"}}"),
        "web"
    );
    orlop.run(&["exec", "box", "echo", "it goes on"]).success();
    orlop
        .run(&["run", "--rm", "made:v1"])
        .success()
        .stdout_is("changed\n");
    let script = "echo $A; test -e /etc/group || echo gone";
    orlop
        .run(&["run", "--rm", "made:v1", "sh", "-c", script])
        .success()
        .stdout_is("1\ngone\n");
}

#[test]
fn an_image_made_of_a_container_of_such_an_image_has_the_changes_of_both() {
    let orlop = Instance::with_busybox();
    ran(&orlop, "first", "echo one > /mine");
    orlop.run(&["commit", "first", "made:v1"]).success();
    orlop
        .run(&[
            "run",
            "--name",
            "second",
            "made:v1",
            "sh",
            "-c",
            "echo more >> /mine",
        ])
        .success();
    orlop.run(&["commit", "second", "made:v2"]).success();
    orlop
        .run(&["run", "--rm", "made:v2", "cat", "/mine"])
        .success()
        .stdout_is("one\nmore\n");
    orlop
        .run(&["run", "--rm", "made:v1", "cat", "/mine"])
        .success()
        .stdout_is("one\n");
}

#[test]
fn an_image_without_a_name_is_run_by_its_id() {
    let orlop = Instance::with_busybox();
    ran(&orlop, "box", "echo x > /mine");
    let id = orlop
        .run(&["commit", "--pause=false", "box"])
        .success()
        .line();
    orlop
        .run(&["run", "--rm", &id, "cat", "/mine"])
        .success()
        .stdout_is("x\n");
    orlop.run(&["rmi", &id]).success();
    // What an image's name points at meanwhile is not what the container was made of.
    orlop.run(&["tag", "busybox", "kept"]).success();
    ran(&orlop, "other", "true");
    orlop.run(&["commit", "box", "busybox"]).success();
    orlop.run(&["commit", "other", "again"]).success();
    let script = "test ! -e /mine";
    orlop
        .run(&["run", "--rm", "again", "sh", "-c", script])
        .success();
}

#[test]
fn a_commit_that_cannot_be_made_makes_nothing() {
    let orlop = Instance::with_busybox();
    ran(&orlop, "box", "true");
    for (args, said) in [
        (&["commit", "-c", "RUN make", "box", "made"][..], "RUN"),
        (&["commit", "box", "Upper/Case:x"][..], "Upper"),
        (&["commit", "nobody", "made"][..], "nobody"),
    ] {
        let outcome = orlop.run(args);
        assert_ne!(outcome.code(), 0);
        outcome.stderr_has(said);
    }
    let images = orlop.run(&["images", "-q"]).success().stdout();
    assert_eq!(images.lines().count(), 1, "only busybox: {images}");
}

#[test]
fn two_containers_of_one_image_do_not_see_each_others_changes() {
    let orlop = Instance::with_busybox();
    ran(&orlop, "one", "echo one > /mine; rm /etc/group");
    ran(&orlop, "two", "test ! -e /mine && test -e /etc/group");
    orlop.run(&["diff", "two"]).success().stdout_is("");
}

/// Whether the processes of a container are held still, on either version of cgroups.
fn is_frozen(orlop: &Instance, id: &str) -> bool {
    let group = format!("orlop/{}/{id}", orlop.name());
    let reads = |path: String, frozen: &str| {
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == frozen)
    };
    reads(
        format!("/sys/fs/cgroup/freezer/{group}/freezer.state"),
        "FROZEN",
    ) || reads(format!("/sys/fs/cgroup/{group}/cgroup.freeze"), "1")
}

/// A container with something that takes a while to pack.
fn with_a_large_file(orlop: &Instance) -> String {
    let script = "head -c 40000000 /dev/urandom > /large; touch /done; sleep 1000";
    let id = orlop
        .run(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script])
        .success()
        .line();
    orlop_tests::eventually("the file is written", || {
        orlop.run(&["exec", "box", "test", "-e", "/done"]).code() == 0
    });
    id
}

#[test]
fn a_container_stands_still_while_it_is_committed_unless_it_must_not() {
    let orlop = Instance::with_busybox();
    let id = with_a_large_file(&orlop);
    for (pause, expected) in [("--pause=true", true), ("--pause=false", false)] {
        let mut commit = orlop.spawn(&["commit", pause, "box", "large"]);
        let mut seen = false;
        while commit.try_wait().unwrap().is_none() {
            seen |= is_frozen(&orlop, &id);
        }
        assert!(commit.wait().unwrap().success());
        assert_eq!(seen, expected, "{pause}");
        assert!(!is_frozen(&orlop, &id));
    }
    orlop.run(&["exec", "box", "true"]).success();
}

#[test]
fn a_service_that_is_killed_while_it_commits_leaves_no_container_frozen() {
    let orlop = Instance::with_busybox();
    let id = with_a_large_file(&orlop);
    let mut commit = orlop.spawn(&["commit", "box", "large"]);
    orlop_tests::eventually("it stands still", || is_frozen(&orlop, &id));
    orlop.kill_service("runtime");
    assert!(!commit.wait().unwrap().success());
    assert!(is_frozen(&orlop, &id), "it was killed in time");
    orlop.up();
    orlop_tests::eventually("it goes on", || !is_frozen(&orlop, &id));
    orlop.run(&["exec", "box", "true"]).success();
}

/// Row 31 of the faults: whoever comes second is told so, and nothing half-made is left.
#[test]
fn a_container_that_is_removed_while_its_files_are_taken_is_gone_and_the_rest_is_whole() {
    let orlop = Instance::with_busybox();
    let here = tempfile::tempdir().unwrap();
    for round in 0..8 {
        ran(&orlop, "box", "head -c 3000000 /dev/urandom > /large");
        let mut copies = vec![
            orlop.spawn(&["commit", "box", "race"]),
            orlop.spawn(&["cp", "box:/large", here.path().to_str().unwrap()]),
            orlop.spawn(&["export", "box"]),
            orlop.spawn(&["diff", "box"]),
        ];
        orlop.run(&["rm", "-f", "box"]).success();
        let codes: Vec<_> = copies
            .drain(..)
            .map(|copy| copy.wait_with_output().unwrap().status.code().unwrap())
            .collect();
        assert!(codes.iter().all(|code| *code <= 1), "{round}: {codes:?}");
        if codes[0] == 0 {
            orlop
                .run(&["run", "--rm", "race", "wc", "-c", "/large"])
                .success()
                .stdout_has("3000000");
            orlop.run(&["rmi", "race"]).success();
        }
        assert_eq!(orlop.run(&["ps", "-aq"]).success().stdout(), "");
    }
    orlop.run(&["system", "check", "--repair"]).success();
}
