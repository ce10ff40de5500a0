//! Rows of the security checklist that begin with a hostile image or a container that turned hostile, and end
//! with what is the host's. Each test carries its row's id.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use orlop_tests::{Canary, Instance, SONG, Swap, Terminal, eventually, fixtures, for_a_while};

/// An image with these links in it, some in the place of directories.
fn image(orlop: &Instance, name: &str, links: &[(&str, &str)]) {
    let archive = fixtures::rootfs_with_links(links, &[]);
    orlop
        .run_with_input(&["import", "-", name], &archive)
        .success();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every way to give a process its streams.
fn use_streams(orlop: &Instance, image: &str) {
    orlop
        .run_with_input(&["run", "--rm", "-i", image, "cat"], b"in\n")
        .success()
        .stdout_is("in\n");
    orlop
        .run(&[
            "run",
            "-d",
            "--name",
            "box",
            image,
            "sh",
            "-c",
            "echo out; exec sleep 1000",
        ])
        .success();
    for _ in 0..2 {
        orlop
            .run(&["exec", "box", "echo", "more"])
            .success()
            .stdout_is("more\n");
        orlop
            .run(&["exec", "-d", "box", "sh", "-c", "echo more"])
            .success();
        orlop
            .run_with_input(&["exec", "-i", "box", "cat"], b"in\n")
            .success()
            .stdout_is("in\n");
        let mut terminal = Terminal::run(orlop, &["exec", "-it", "box", "echo", "tty"]);
        terminal.shows("tty");
        assert_eq!(terminal.ends(), 0);
        orlop.run(&["restart", "-t", "0", "box"]).success();
    }
    orlop.run(&["rm", "-f", "box"]).success();
    let mut terminal = Terminal::run(orlop, &["run", "--rm", "-it", image, "echo", "tty"]);
    terminal.shows("tty");
    assert_eq!(terminal.ends(), 0);
}

const STREAMS: [&str; 8] = [
    "null", "console", "stdin", "stdout", "stderr", "tty", "ptmx", "fd",
];

/// The streams of a container come from handles: what its image calls null, console or standard output is
/// neither opened nor truncated.
#[test]
fn b1_b19_no_stream_is_opened_by_a_path_of_the_image() {
    let (orlop, canary) = (Instance::with_busybox(), Canary::new());
    let paths = STREAMS.map(|name| format!("dev/{name}"));
    let target = canary.file();
    let links: Vec<_> = paths
        .iter()
        .map(|path| (path.as_str(), text(&target)))
        .collect();
    image(&orlop, "evil", &links);
    use_streams(&orlop, "evil");
    canary.assert_unopened("all");
}

/// The same of links that a container made of its own devices, and of a privileged one's whole `/dev`.
#[test]
fn b1_b16_no_stream_is_opened_by_a_path_of_the_container() {
    let (orlop, canary) = (Instance::with_busybox(), Canary::new());
    let target = canary.file();
    let script = STREAMS
        .map(|name| format!("ln -sfn {} /dev/{name}", text(&target)))
        .join("; ");
    orlop.run_script("box", &format!("{script}; echo done; exec sleep 1000"));
    eventually("the links are made", || {
        orlop.run(&["logs", "box"]).stdout() == "done\n"
    });
    for args in [
        &["exec", "box", "echo"][..],
        &["exec", "-d", "box", "echo"],
        &["exec", "-i", "box", "cat"],
    ] {
        orlop.run(args).success();
        canary.assert_unopened(&args.join(" "));
    }
    Terminal::run(&orlop, &["exec", "-it", "box", "echo"]).ends();
    canary.assert_unopened("exec -it");
    let script = format!(
        "umount -l /dev/pts; rm -rf /dev/pts; ln -s {} /dev/pts; ln -s {0} /dev/x; echo done; exec sleep 1000",
        text(canary.path())
    );
    orlop.run_script_with("strong", &["--privileged"], &script);
    eventually("the link is made", || {
        orlop.run(&["logs", "strong"]).stdout() == "done\n"
    });
    assert_ne!(
        Terminal::run(&orlop, &["exec", "-it", "strong", "echo"]).ends(),
        0
    );
    canary.assert_unopened("exec -it without /dev/pts");
}

/// What a privileged container did to the places of mounts is met by its next start.
#[test]
fn b2_a_container_that_replaced_its_system_directories_does_not_lead_out_at_its_next_start() {
    let (orlop, canary) = (
        Instance::with_busybox(),
        Canary::with(|path| fs::write(path.join("ptmx"), "").unwrap()),
    );
    for place in ["/proc", "/dev", "/sys", "/etc"] {
        let script = format!(
            "for m in $(sed 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .*/\\1/' /proc/self/mountinfo | grep ^{place} | sort -r); do umount -l $m; done
             rm -rf {place}; ln -s {} {place} && echo replaced",
            text(canary.path())
        );
        orlop
            .run(&[
                "create",
                "--privileged",
                "--name",
                "box",
                "busybox",
                "sh",
                "-c",
                &script,
            ])
            .success();
        orlop.run(&["start", "-a", "box"]).stdout_has("replaced");
        let again = orlop.run(&["start", "-a", "box"]);
        if place != "/etc" {
            again.exits(1).stderr_has("link");
        }
        orlop.run(&["cp", "box:/bin/busybox", "-"]).success();
        orlop.run(&["exec", "box", "true"]).exits(1);
        canary.assert_unopened(place);
        orlop.run(&["rm", "-f", "box"]).success();
    }
}

/// Of what this kernel has; `defaults.rs` says that the others are on the list.
#[test]
fn b6_acpi_and_scsi_are_hidden_in_every_process() {
    let orlop = Instance::with_busybox();
    let script = "for p in /proc/acpi /proc/scsi /proc/asound; do [ -e $p ] || continue; \
                  ls -A $p; (: > $p/x) 2>/dev/null && echo written; \
                  grep -c \" $p ro,.* tmpfs \" /proc/self/mountinfo; done; true";
    let present = ["acpi", "scsi", "asound"]
        .iter()
        .filter(|name| Path::new("/proc").join(name).exists());
    let expected = "1\n".repeat(present.count());
    orlop.run_script("box", "exec sleep 1000");
    for _ in 0..2 {
        orlop
            .run(&["exec", "box", "sh", "-c", script])
            .success()
            .stdout_is(&expected);
        orlop.run(&["restart", "-t", "0", "box"]).success();
    }
    let user = orlop.shell(&["-u", "1000", "--cap-add", "ALL"], script);
    user.success().stdout_is(&expected);
}

/// Two containers with one volume: in it, a directory changes places with a link to the host while the other
/// one, whose mounts are below it, starts. What is swapped on the host's side is swapped as fast as any
/// container could.
fn race_of_targets(destination: &str, is_file: bool) {
    let (orlop, canary) = (Instance::with_busybox(), Canary::new());
    orlop.run(&["volume", "create", "shared"]).success();
    let shared = orlop.root().join("runtime/volumes/shared/_data");
    fs::create_dir(shared.join("dir")).unwrap();
    symlink(canary.path(), shared.join("link")).unwrap();
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("file");
    fs::write(&file, "").unwrap();
    let source = if is_file {
        file.as_path()
    } else {
        source.path()
    };
    let mount = format!("{}:{destination}", text(source));
    let options = ["-v", "shared:/shared", "-v", &mount];
    let script = "ls /; cat /shared/dir/file 2>/dev/null; true";
    let create = [
        &["create", "--name", "box"][..],
        &options,
        &["busybox", "sh", "-c", script],
    ];
    orlop.run(&create.concat()).success();
    let swap = Swap::start(&shared, "dir", "link");
    for_a_while(|| {
        let seen = orlop.run(&["start", "-a", "box"]).stdout();
        assert!(
            !seen.contains(SONG.trim()) && !seen.contains("boot"),
            "{seen}"
        );
        canary.assert_unopened("start");
        let seen = orlop.run(&["cp", "box:/shared/dir", "-"]).stdout();
        assert!(!seen.contains(SONG.trim()), "{seen}");
        let busybox = ["cp", "/bin/busybox", "box:/shared/dir/"];
        orlop.run(&busybox).code();
        canary.assert_unopened("cp");
    });
    assert!(swap.count() > 1000, "{}", swap.count());
}

#[test]
fn b10_d5_a_mount_below_a_directory_that_is_swapped_for_a_link_never_shows_the_host() {
    race_of_targets("/shared/dir/new/deep", false);
}

#[test]
fn b14_d5_no_file_is_made_on_the_host_for_a_mount_below_a_swapped_directory() {
    race_of_targets("/shared/dir/new", true);
}

#[test]
fn b18_an_image_whose_dev_is_a_link_does_not_start_and_changes_nothing() {
    let orlop = Instance::with_busybox();
    let canary = Canary::with(|path| fs::write(path.join("ptmx"), "").unwrap());
    image(&orlop, "evil", &[("dev", text(canary.path()))]);
    for options in [
        &["run", "--rm"][..],
        &["run", "--rm", "--privileged"],
        &["run", "-d", "--init"],
    ] {
        orlop
            .run(&[options, &["evil", "true"]].concat())
            .exits(125)
            .stderr_has("/dev");
    }
    let ended = Terminal::run(&orlop, &["run", "--rm", "-it", "evil", "true"]).ends();
    assert_eq!(ended, 125);
    canary.assert_unopened("run");
}

/// By `run`, by `exec`, at the next start, and by a build.
#[test]
fn b13_no_working_directory_is_a_descriptor_of_ours() {
    let orlop = Instance::with_busybox();
    image(
        &orlop,
        "evil",
        &[("work", "/proc/self/fd/7"), ("one", "/proc/1/cwd")],
    );
    orlop
        .run(&["run", "-d", "--name", "box", "evil", "sleep", "1000"])
        .success();
    let numbers = (3..40).map(|number| format!("/proc/self/fd/{number}"));
    let links = [
        "/work",
        "/one",
        "/proc/1/cwd",
        "/dev/fd/9",
        "/proc/self/fd/../fd/8",
    ];
    for cwd in numbers.chain(links.map(str::to_owned)) {
        orlop
            .run(&["exec", "-w", &cwd, "box", "pwd"])
            .exits(1)
            .stdout_is("");
    }
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/8", "/work", "/one"] {
        orlop
            .run(&["run", "--rm", "-w", cwd, "evil", "pwd"])
            .exits(125)
            .stdout_is("");
        let change = format!("WORKDIR {cwd}");
        let archive = fixtures::rootfs_with_links(&[("work", "/proc/self/fd/7")], &[]);
        orlop
            .run_with_input(&["import", "-c", &change, "-", "told"], &archive)
            .success();
        orlop.run(&["run", "--rm", "told", "pwd"]).code();
        let context = tempfile::tempdir().unwrap();
        let dockerfile =
            format!("FROM evil\nWORKDIR {cwd}\nRUN pwd; ls ..; readlink /proc/self/cwd; false\n");
        fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
        let built = orlop.run(&["build", "--progress=plain", text(context.path())]);
        assert_ne!(built.code(), 0, "{cwd}");
        let said = built.stdout() + &built.stderr();
        assert!(
            !said.contains("unreachable") && !said.contains("containers"),
            "{said}"
        );
    }
}

#[test]
fn b25_a_working_directory_behind_a_link_is_made_in_the_container() {
    let (orlop, canary) = (Instance::with_busybox(), Canary::new());
    let archive = fixtures::rootfs_with_links(&[("link", text(canary.path()))], &[]);
    let import = ["import", "-c", "WORKDIR /link/a/b", "-", "evil"];
    orlop.run_with_input(&import, &archive).success();
    let inside = format!("{}/a/b\n", canary.path().display());
    orlop
        .run(&["create", "--name", "box", "evil", "pwd"])
        .success();
    for _ in 0..2 {
        orlop
            .run(&["start", "-a", "box"])
            .success()
            .stdout_is(&inside);
    }
    canary.assert_unopened("run");
    orlop
        .run(&["run", "-d", "--name", "live", "evil", "sleep", "1000"])
        .success();
    orlop
        .run(&["exec", "-w", "/link/c/d", "live", "pwd"])
        .code();
    canary.assert_unopened("exec");
    let context = tempfile::tempdir().unwrap();
    let dockerfile = "FROM evil\nWORKDIR /link/e/f\nRUN pwd > file\nCOPY Dockerfile g/\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    orlop
        .run(&["build", "-q", "-t", "built", text(context.path())])
        .success();
    let seen = orlop
        .run(&["run", "--rm", "built", "cat", "file", "g/Dockerfile"])
        .success()
        .stdout();
    assert!(
        seen.contains("/e/f\n") && seen.contains("FROM evil"),
        "{seen}"
    );
    canary.assert_unopened("build");
}

/// Lengths that once were too long for somebody's 16 bits.
#[test]
fn b27_what_is_long_arrives_whole_or_is_refused() {
    let orlop = Instance::with_busybox();
    for length in [65_535, 65_536, 70_000, 131_000] {
        let variable = format!("X={}", "x".repeat(length));
        orlop
            .shell(&["-e", &variable], "echo ${#X}")
            .success()
            .stdout_is(&format!("{length}\n"));
    }
    // Together more than any process may have, and than one file may hold.
    let files = ["A", "B", "C"].map(|name| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |n| format!("{name}{n}={}\n", "x".repeat(65_600));
        fs::write(file.path(), (0..14).map(line).collect::<String>()).unwrap();
        file
    });
    let mut args = vec!["run", "--rm"];
    args.extend(
        files
            .iter()
            .flat_map(|file| ["--env-file", text(file.path())]),
    );
    args.extend(["busybox", "true"]);
    orlop.run(&args).exits(125).stderr_has("2 MiB");
    let mounts: Vec<String> = (0..300).map(|n| format!("--tmpfs=/t{n}")).collect();
    let mut args = vec!["run", "--rm"];
    args.extend(mounts.iter().map(String::as_str));
    args.extend(["busybox", "true"]);
    orlop.run(&args).exits(125).stderr_has("at most 256");
}

#[test]
fn b30_no_file_of_the_host_gets_another_label() {
    let (orlop, canary) = (Instance::with_busybox(), Canary::new());
    let label = "security.selinux";
    for path in [canary.path(), &canary.file()] {
        rustix::fs::setxattr(path, label, b"own_t\0", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let assert_labelled = |after: &str| {
        for path in [canary.path(), &canary.file()] {
            let mut value = [0; 64];
            let length = rustix::fs::getxattr(path, label, &mut value).unwrap();
            assert_eq!(&value[..length], b"own_t\0", "after {after}");
        }
    };
    let has_selinux = Path::new("/sys/fs/selinux/enforce").exists();
    for options in ["", ":ro", ":z", ":Z", ":ro,Z"] {
        let volume = format!("{}:/data{options}", text(canary.path()));
        let create = [
            "create", "--name", "box", "-v", &volume, "busybox", "sleep", "1000",
        ];
        let created = orlop.run(&create);
        if has_selinux && options.to_lowercase().contains('z') {
            created.exits(125).stderr_has("SELinux");
            continue;
        }
        created.success();
        orlop.run(&["start", "box"]).success();
        orlop
            .run(&["exec", "box", "cat", "/data/file"])
            .success()
            .stdout_is(SONG);
        orlop.run(&["restart", "-t", "0", "box"]).success();
        orlop.run(&["cp", "box:/data/file", "-"]).success();
        orlop.run(&["rm", "-f", "box"]).success();
        assert_labelled(&volume);
    }
    for key in ["relabel=shared", "relabel=private", "z"] {
        let mount = format!("type=bind,src={},dst=/data,{key}", text(canary.path()));
        orlop
            .run(&["run", "--rm", "--mount", &mount, "busybox", "true"])
            .exits(125)
            .stderr_has(key.split('=').next().unwrap());
    }
    assert_labelled("all");
}

/// Labels, which are all that an image can bring of the kind, do not reach the document of a container.
#[test]
fn b34_no_label_or_annotation_of_an_image_confines_less() {
    let orlop = Instance::with_busybox();
    let labels = [
        "org.orlop.seccomp=unconfined",
        "org.systemd.property.MemoryMax=infinity",
        "io.kubernetes.cri-o.UnifiedCgroup=pids.max=max",
        "io.containers.autoupdate=registry",
    ];
    let archive = fixtures::busybox_rootfs();
    let changes: Vec<String> = labels
        .iter()
        .map(|label| format!("--change=LABEL {label}"))
        .collect();
    let mut import = vec!["import"];
    import.extend(changes.iter().map(String::as_str));
    import.extend(["-", "evil"]);
    orlop.run_with_input(&import, &archive).success();
    let script = "grep -E '^(Seccomp:|Cap)' /proc/self/status; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true";
    let state = |image: &str| {
        let run = [
            "run",
            "--rm",
            "--pids-limit",
            "20",
            image,
            "sh",
            "-c",
            script,
        ];
        orlop.run(&run).success().stdout()
    };
    let plain = state("busybox");
    assert!(
        plain.contains("Seccomp:\t2") && plain.contains("20\n"),
        "{plain}"
    );
    assert_eq!(state("evil"), plain);
    orlop
        .run(&["run", "-d", "--name", "box", "evil", "sleep", "1000"])
        .success();
    let id = orlop.inspect("box", "{{.Id}}");
    let document = orlop
        .root()
        .join(format!("runtime/containers/{id}/config.json"));
    let document = fs::read_to_string(document).unwrap();
    for label in ["systemd", "cri-o", "autoupdate", "unconfined"] {
        assert!(!document.contains(label), "{label}");
    }
    orlop
        .run(&["run", "--annotation", "org.orlop.a=b", "busybox"])
        .exits(125)
        .stderr_has("reserved");
}
