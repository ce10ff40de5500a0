//! `cp`: Docker's rules for sources and destinations, what is kept of a file, mounts, and containers that
//! try to get out by it. Tests of a row of the security checklist carry its id.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orlop_tests::{Instance, Outcome};
use tempfile::TempDir;

const HOLD: &str = "trap exit TERM; while :; do sleep 1; done";

/// A container of each state: `live` runs, `idle` was only made.
fn both(orlop: &Instance, options: &[&str]) -> [&'static str; 2] {
    orlop.run_script_with("live", options, HOLD);
    let script = ["busybox", "sh", "-c", HOLD];
    let idle = [&["create", "--name", "idle"], options, &script].concat();
    orlop.run(&idle).success();
    ["live", "idle"]
}

/// Files of the caller: `file`, and `tree` with `inner` and `below/deep` in it.
fn sources() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("file"), "file").unwrap();
    fs::create_dir_all(at("tree/below")).unwrap();
    fs::write(at("tree/inner"), "inner").unwrap();
    fs::write(at("tree/below/deep"), "deep").unwrap();
    directory
}

fn cp(orlop: &Instance, from: &str, to: &str) -> Outcome {
    orlop.run(&["cp", from, to])
}

/// What a container has at a path, as a tar of it names it, sorted, a file with its content.
fn holds(orlop: &Instance, container: &str, path: &str) -> Vec<String> {
    let out = orlop
        .run(&["cp", &format!("{container}:{path}"), "-"])
        .success();
    let mut archive = tar::Archive::new(out.bytes());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let content = std::io::read_to_string(&mut entry).unwrap();
        found.push(format!("{name} {content}").trim_end().to_owned());
    }
    found.sort();
    found
}

fn text(path: impl Into<PathBuf>) -> String {
    path.into().display().to_string()
}

#[test]
fn a_file_goes_where_docker_puts_it() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let file = text(here.path().join("file"));
    for name in both(&orlop, &[]) {
        let to = |path: &str| format!("{name}:{path}");
        cp(&orlop, &file, &to("/tmp/new"))
            .success()
            .stderr_has("Successfully copied 4B");
        assert_eq!(holds(&orlop, name, "/tmp/new"), ["new file"]);
        cp(&orlop, &file, &to("/tmp")).success();
        assert_eq!(holds(&orlop, name, "/tmp/file"), ["file file"]);
        fs::write(&file, "again").unwrap();
        cp(&orlop, &file, &to("tmp/new")).success();
        assert_eq!(holds(&orlop, name, "/tmp/new"), ["new again"]);
        cp(&orlop, &file, &to("/tmp/missing/"))
            .exits(1)
            .stderr_has("must exist");
        cp(&orlop, &file, &to("/no/parent"))
            .exits(1)
            .stderr_has("no such file");
        cp(&orlop, &file, &to("/tmp/new/x")).exits(1);
        orlop
            .run(&["cp", "-q", &file, &to("/tmp/new")])
            .success()
            .stdout_is("");
        fs::write(&file, "file").unwrap();
    }
}

#[test]
fn a_directory_goes_where_docker_puts_it() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let tree = text(here.path().join("tree"));
    for name in both(&orlop, &[]) {
        let to = |path: &str| format!("{name}:{path}");
        cp(&orlop, &tree, &to("/new")).success();
        let whole = |top: &str| {
            ["", "below/", "below/deep deep", "inner inner"].map(|rest| format!("{top}/{rest}"))
        };
        assert_eq!(holds(&orlop, name, "/new"), whole("new"));
        cp(&orlop, &tree, &to("/tmp")).success();
        assert_eq!(holds(&orlop, name, "/tmp/tree"), whole("tree"));
        cp(&orlop, &format!("{tree}/."), &to("/contents")).success();
        assert_eq!(holds(&orlop, name, "/contents/."), whole("."));
        cp(&orlop, &format!("{tree}/."), &to("/root/")).success();
        assert_eq!(holds(&orlop, name, "/root"), whole("root"));
        cp(&orlop, &tree, &to("/etc/passwd"))
            .exits(1)
            .stderr_has("directory to a file");
        cp(
            &orlop,
            &text(here.path().join("file")),
            &to("/tmp/tree/below"),
        )
        .success();
        cp(&orlop, &tree, &to("/tmp/tree/below/file/x")).exits(1);
    }
}

#[test]
fn files_come_out_as_they_go_in() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let at = |name: &str| text(here.path().join(name));
    for name in both(&orlop, &[]) {
        let from = |path: &str| format!("{name}:{path}");
        cp(&orlop, &at("tree"), &from("/srv")).success();
        cp(&orlop, &from("/srv/inner"), &at("out")).success();
        assert_eq!(fs::read_to_string(at("out")).unwrap(), "inner");
        cp(&orlop, &from("/srv"), &at("copy")).success();
        assert_eq!(fs::read_to_string(at("copy/below/deep")).unwrap(), "deep");
        cp(&orlop, &from("/srv"), &at("copy")).success();
        assert_eq!(fs::read_to_string(at("copy/srv/inner")).unwrap(), "inner");
        cp(&orlop, &from("/srv/."), &at("contents/")).success();
        assert_eq!(fs::read_to_string(at("contents/inner")).unwrap(), "inner");
        cp(&orlop, &from("/srv"), &at("out"))
            .exits(1)
            .stderr_has("directory to a file");
        cp(&orlop, &from("/srv/inner"), &at("missing/"))
            .exits(1)
            .stderr_has("must exist");
        cp(&orlop, &from("/nothing"), &at("x"))
            .exits(1)
            .stderr_has("/nothing");
        for made in ["copy", "contents"] {
            fs::remove_dir_all(at(made)).unwrap();
        }
    }
    cp(&orlop, &at("file"), "live:").exits(1);
    cp(&orlop, "nobody:/etc", &at("x"))
        .exits(1)
        .stderr_has("no such container");
    cp(&orlop, "live:/etc", "idle:/etc")
        .exits(1)
        .stderr_has("between containers");
    cp(&orlop, &at("file"), &at("x"))
        .exits(1)
        .stderr_has("CONTAINER:PATH");
}

#[test]
fn a_tar_goes_through_standard_input_and_output() {
    let orlop = Instance::with_busybox();
    let [live, idle] = both(&orlop, &[]);
    let archive = orlop
        .run(&["cp", "live:/etc/passwd", "-"])
        .success()
        .bytes()
        .to_vec();
    for name in [live, idle] {
        orlop
            .run_with_input(&["cp", "-", &format!("{name}:/tmp")], &archive)
            .success();
        let found = holds(&orlop, name, "/tmp/passwd");
        assert!(found[0].starts_with("passwd root:"), "{found:?}");
        for bad in ["/tmp/nothing", "/tmp/passwd"] {
            orlop
                .run_with_input(&["cp", "-", &format!("{name}:{bad}")], &archive)
                .exits(1)
                .stderr_has(bad);
        }
        orlop
            .run_with_input(&["cp", "-", &format!("{name}:/tmp")], &[7; 4096])
            .exits(1)
            .stderr_has("archive");
    }
    assert!(holds(&orlop, live, "/etc/.").contains(&"./".to_owned()));
}

#[test]
fn owners_modes_times_and_links_are_kept_as_asked() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let at = |name: &str| here.path().join(name);
    let file = at("tree/inner");
    std::os::unix::fs::chown(&file, Some(1000), Some(10)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    fs::File::open(&file)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000))
        .unwrap();
    fs::hard_link(&file, at("tree/twin")).unwrap();
    symlink("inner", at("tree/link")).unwrap();
    let look = |path: &str| {
        let format = "%u:%g %a %Y %h";
        orlop
            .run(&["exec", "live", "stat", "-c", format, path])
            .success()
            .line()
    };
    let [live, _] = both(&orlop, &[]);
    let to = format!("{live}:/plain");
    cp(&orlop, &text(at("tree")), &to).success();
    assert_eq!(look("/plain/inner"), "0:0 751 1600000000 2");
    let to = format!("{live}:/kept");
    orlop.run(&["cp", "-a", &text(at("tree")), &to]).success();
    assert_eq!(look("/kept/inner"), "1000:10 4751 1600000000 2");
    assert_eq!(
        orlop
            .run(&["exec", live, "readlink", "/kept/link"])
            .success()
            .line(),
        "inner"
    );
    let from = format!("{live}:/kept/.");
    orlop.run(&["cp", "-a", &from, &text(at("back"))]).success();
    let back = fs::metadata(at("back/twin")).unwrap();
    assert_eq!((back.uid(), back.gid(), back.nlink()), (1000, 10, 2));
    assert_eq!(back.mode() & 0o7777, 0o4751);
    cp(&orlop, &from, &text(at("mine"))).success();
    let mine = fs::metadata(at("mine/inner")).unwrap();
    assert_eq!((mine.uid(), mine.mode() & 0o7777), (0, 0o751));
}

#[test]
fn a_link_is_copied_unless_it_is_to_be_followed() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let at = |name: &str| text(here.path().join(name));
    symlink("file", at("link")).unwrap();
    for name in both(&orlop, &[]) {
        let to = |path: &str| format!("{name}:{path}");
        cp(&orlop, &at("link"), &to("/tmp/as-link")).success();
        orlop
            .run(&["cp", "-L", &at("link"), &to("/tmp/as-file")])
            .success();
        assert_eq!(holds(&orlop, name, "/tmp/as-file"), ["as-file file"]);
        cp(&orlop, &to("/tmp/as-link"), &at("out")).success();
        assert_eq!(fs::read_link(at("out")).unwrap(), Path::new("file"));
        fs::remove_file(at("out")).unwrap();
        cp(&orlop, &at("file"), &to("/tmp/file")).success();
        orlop
            .run(&["cp", "-L", &to("/tmp/as-link"), &at("out")])
            .success();
        assert!(fs::symlink_metadata(at("out")).unwrap().is_file());
        fs::remove_file(at("out")).unwrap();
        // A destination that is a link stays one: what it points at is written.
        cp(&orlop, &at("tree/inner"), &to("/tmp/as-link")).success();
        assert_eq!(holds(&orlop, name, "/tmp/file"), ["file inner"]);
    }
}

#[test]
fn volumes_and_bind_mounts_are_written_through_unless_they_are_read_only() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let file = text(here.path().join("file"));
    let bound = tempfile::tempdir().unwrap();
    let single = bound.path().join("single");
    fs::write(&single, "old").unwrap();
    let bind = format!("{}:/bound", bound.path().display());
    let locked = format!("{}:/locked:ro", bound.path().display());
    let one = format!("{}:/etc/single", single.display());
    let options = [
        "-v",
        "data:/data",
        "-v",
        &bind,
        "-v",
        &locked,
        "-v",
        &one,
        "--tmpfs",
        "/memory",
    ];
    let volume = || orlop.root().join("runtime/volumes/data/_data/new");
    for name in both(&orlop, &options) {
        let to = |path: &str| format!("{name}:{path}");
        cp(&orlop, &file, &to("/data/new")).success();
        assert_eq!(fs::read_to_string(volume()).unwrap(), "file", "{name}");
        fs::remove_file(volume()).unwrap();
        cp(&orlop, &file, &to("/bound/new")).success();
        assert_eq!(
            fs::read_to_string(bound.path().join("new")).unwrap(),
            "file"
        );
        fs::remove_file(bound.path().join("new")).unwrap();
        cp(&orlop, &file, &to("/locked/new"))
            .exits(1)
            .stderr_has("Read-only");
        cp(&orlop, &file, &to("/etc/single")).success();
        assert_eq!(fs::read_to_string(&single).unwrap(), "file");
        fs::write(&single, "old").unwrap();
        assert_eq!(holds(&orlop, name, "/locked/single"), ["single old"]);
    }
    cp(&orlop, &file, "live:/memory/new").success();
    assert_eq!(holds(&orlop, "live", "/memory/new"), ["new file"]);
    cp(&orlop, &file, "idle:/memory/new")
        .exits(1)
        .stderr_has("Read-only");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/runtime/containers/"), "{mounts}");
}

#[test]
fn a_read_only_container_takes_nothing_but_gives() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let file = text(here.path().join("file"));
    for name in both(&orlop, &["--read-only", "-v", "data:/data"]) {
        cp(&orlop, &file, &format!("{name}:/tmp/x"))
            .exits(1)
            .stderr_has("Read-only");
        cp(&orlop, &file, &format!("{name}:/data/x")).success();
        assert_eq!(holds(&orlop, name, "/data/x"), ["x file"]);
    }
}

#[test]
fn what_is_copied_into_a_stopped_container_is_there_when_it_starts() {
    let orlop = Instance::with_busybox();
    let here = sources();
    orlop
        .run(&["create", "--name", "box", "busybox", "cat", "/srv/inner"])
        .success();
    cp(&orlop, &text(here.path().join("tree")), "box:/srv").success();
    orlop
        .run(&["start", "-a", "box"])
        .success()
        .stdout_is("inner");
    orlop
        .run(&["diff", "box"])
        .success()
        .stdout_has("A /srv/below/deep");
}

#[test]
fn the_kernels_files_are_neither_read_nor_written() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let file = text(here.path().join("file"));
    both(&orlop, &[]);
    for path in ["/proc/1/environ", "/sys/kernel", "/proc"] {
        cp(&orlop, &format!("live:{path}"), "-")
            .exits(1)
            .stderr_has(path);
    }
    cp(&orlop, &file, "live:/proc/sys/kernel/core_pattern").exits(1);
    orlop
        .run(&["exec", "live", "ln", "-s", "/proc/1/root/etc", "/tmp/way"])
        .success();
    cp(&orlop, "live:/tmp/way/passwd", "-").exits(1);
    let whole = orlop.run(&["cp", "live:/", "-"]).success();
    let mut archive = tar::Archive::new(whole.bytes());
    for entry in archive.entries().unwrap() {
        let path = text(entry.unwrap().path().unwrap().into_owned());
        let inside = ["./proc/", "./sys/", "./dev/"]
            .iter()
            .any(|top| path.strip_prefix(top).is_some_and(|rest| !rest.is_empty()));
        assert!(!inside, "{path}");
    }
}

/// A directory of the host with a file in it, and a container's path that is now a directory of its own,
/// now a link to that one.
struct Swap {
    canary: TempDir,
}

impl Swap {
    fn start(orlop: &Instance, options: &[&str]) -> Self {
        let canary = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::write(canary.path().join("secret"), "host").unwrap();
        let host = canary.path().display();
        let script = format!(
            "mkdir -p /own {host}; echo container > /own/secret; echo container > {host}/secret
             ln -s {host} /link; while :; do mv /own /x; mv /x /own; mv /link /x; mv /x /link; done"
        );
        orlop.run_script_with("box", options, &script);
        Self { canary }
    }

    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.canary.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let secret = fs::read_to_string(self.canary.path().join("secret")).unwrap();
        assert_eq!(secret, "host");
    }
}

/// At least six seconds and forty rounds, and longer until the work says that it has seen all, up to a minute.
fn for_a_while(mut work: impl FnMut() -> bool) -> u32 {
    let started = Instant::now();
    let (mut rounds, mut all) = (0, false);
    let (end, last) = (Duration::from_secs(6), Duration::from_secs(60));
    while started.elapsed() < end || rounds < 40 || (!all && started.elapsed() < last) {
        all = work();
        rounds += 1;
    }
    rounds
}

#[test]
fn d1_a_container_that_swaps_a_link_during_a_copy_gives_and_takes_its_own_files_only() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let tree = text(here.path().join("tree"));
    let swap = Swap::start(&orlop, &[]);
    let (mut went_in, mut came_out, mut said) = (0, 0, String::new());
    let rounds = for_a_while(|| {
        went_in += u32::from(cp(&orlop, &tree, "box:/x/new").code() == 0);
        let out = orlop.run(&["cp", "box:/x/secret", "-"]);
        came_out += u32::from(out.code() == 0);
        said = out.stderr();
        assert!(!out.stdout().contains("host"), "{}", out.stdout());
        swap.assert_untouched();
        went_in > 0 && came_out > 0
    });
    assert!(
        went_in > 0 && came_out > 0,
        "{went_in} and {came_out} of {rounds}: {said}"
    );
}

#[test]
fn d3_modes_and_owners_of_the_host_do_not_change_through_a_link() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let canary = tempfile::tempdir_in("/var/tmp").unwrap();
    let before = fs::metadata(canary.path()).unwrap().mode();
    let host = text(canary.path());
    let link = format!("ln -s {host} /tree; mkdir /etc/tree; ln -s {host} /etc/tree/below");
    orlop
        .run(&["run", "--name", "box", "busybox", "sh", "-c", &link])
        .success();
    fs::set_permissions(here.path().join("tree"), fs::Permissions::from_mode(0o777)).unwrap();
    let tree = text(here.path().join("tree"));
    for to in ["box:/", "box:/tree", "box:/etc"] {
        orlop.run(&["cp", "-a", &tree, to]).exits(1);
        assert_eq!(fs::metadata(canary.path()).unwrap().mode(), before, "{to}");
        assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0, "{to}");
    }
}

#[test]
fn d4_a_compressed_archive_starts_no_program_of_the_container() {
    let orlop = Instance::start();
    let trojan = b"#!/bin/sh\necho run > /marker\n";
    let files = ["bin/xz", "bin/gzip", "bin/unpigz"].map(|path| (path, 0o755, &trojan[..]));
    let rootfs = orlop_tests::fixtures::rootfs_with(&files);
    orlop
        .run_with_input(&["import", "-", "evil"], &rootfs)
        .success();
    orlop
        .run(&["run", "-d", "--name", "box", "evil", "sh", "-c", HOLD])
        .success();
    for magic in [&b"\xfd7zXZ\0\0\x04"[..], b"\x1f\x8b\x08\0"] {
        let archive = [magic, &[0; 2048]].concat();
        orlop
            .run_with_input(&["cp", "-", "box:/tmp"], &archive)
            .exits(1)
            .stderr_has("archive");
    }
    orlop.run(&["diff", "box"]).success().stdout_is("");
    assert!(!Path::new("/marker").exists());
}

#[test]
fn d5_d6_a_mount_of_a_stopped_container_lands_in_it_whatever_links_its_files_are() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let file = text(here.path().join("file"));
    let canary = tempfile::tempdir_in("/var/tmp").unwrap();
    let host = text(canary.path());
    let links =
        format!("mkdir -p {host} /run; ln -s {host} /data; rm -rf /var/run; ln -s /run /var/run");
    orlop
        .run(&["run", "--name", "maker", "busybox", "sh", "-c", &links])
        .success();
    orlop.run(&["commit", "maker", "linked"]).success();
    let options = ["-v", "one:/data/one", "-v", "two:/var/run/two"];
    let create = [
        &["create", "--name", "box"][..],
        &options,
        &["linked", "true"],
    ];
    orlop.run(&create.concat()).success();
    cp(&orlop, &file, "box:/data/one/").success();
    cp(&orlop, &file, "box:/run/two/").success();
    let volumes = orlop.root().join("runtime/volumes");
    for volume in ["one", "two"] {
        let copied = volumes.join(volume).join("_data/file");
        assert_eq!(fs::read_to_string(copied).unwrap(), "file", "{volume}");
    }
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
}

#[test]
fn d7_links_lead_where_they_lead_for_the_container_and_names_are_no_patterns() {
    let orlop = Instance::with_busybox();
    let here = sources();
    let file = text(here.path().join("file"));
    for name in both(&orlop, &[]) {
        symlink("/tmp", here.path().join("test")).unwrap();
        let link = text(here.path().join("test"));
        cp(&orlop, &link, &format!("{name}:/test")).success();
        fs::remove_file(&link).unwrap();
        let mark = format!("orlop-d7-{}", std::process::id());
        fs::rename(&file, here.path().join(&mark)).unwrap();
        cp(
            &orlop,
            &text(here.path().join(&mark)),
            &format!("{name}:/test"),
        )
        .success();
        assert!(!Path::new("/tmp").join(&mark).exists());
        assert_eq!(
            holds(&orlop, name, &format!("/tmp/{mark}")),
            [format!("{mark} file")]
        );
        fs::rename(here.path().join(&mark), &file).unwrap();
        for odd in ["*", "?", "[a]"] {
            cp(&orlop, &file, &format!("{name}:/tmp/{odd}")).success();
            assert_eq!(
                holds(&orlop, name, &format!("/tmp/{odd}")),
                [format!("{odd} file")]
            );
        }
        cp(&orlop, &format!("{name}:/tmp/p*"), "-").exits(1);
    }
}
