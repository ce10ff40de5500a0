//! Rows of the security checklist for `orlop-oci`: bundles whose root, mounts or numbers somebody hostile
//! chose, and what stays as it was on the host. Each test carries its row's id.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use orlop_tests::{Bundle, Canary, SONG, Swap, binary, eventually, for_a_while};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]})
}

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// Without the mounts at these places.
fn drop_mounts(spec: &mut Value, places: &[&str]) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !places.contains(&mount["destination"].as_str().unwrap()));
}

/// The streams are the caller's; whatever `/dev` of the image names as such is never looked at.
#[test]
fn b1_no_stream_is_opened_by_a_path_of_the_root() {
    let (bundle, canary) = (Bundle::new(), Canary::new());
    fs::create_dir(bundle.root().join("dev")).unwrap();
    for name in [
        "null", "console", "stdin", "stdout", "stderr", "tty", "ptmx", "fd",
    ] {
        symlink(canary.file(), bundle.root().join("dev").join(name)).unwrap();
    }
    bundle.configure(&["echo", "said"], |_| {});
    assert_eq!(bundle.run(), (0, "said\n".to_owned()));
    bundle.configure(&["sleep", "1000"], |_| {});
    bundle.start();
    let (code, said) = bundle.call(&["exec", &bundle.id, "echo", "more"]);
    assert_eq!((code, said.as_str()), (0, "more\n"));
    canary.assert_unopened("run and exec");
}

/// Of a process that joins, the first that the container sees has let go of the host, also for one that may
/// trace.
#[test]
fn b5_a_process_that_joins_shows_no_file_of_the_host() {
    let bundle = Bundle::new();
    let watch = "while true; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; \
                 for f in $p/fd/* $p/cwd $p/root; do t=$(readlink $f 2>/dev/null) || continue; \
                 case $t in *orlop*|/var/*|/run/*|*/said) echo leak $f $t;; esac; done; done; done";
    bundle.configure(&["sh", "-c", watch], |spec| {
        let capabilities = json!(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        spec["process"]["capabilities"] = json!({"bounding": capabilities,
            "permitted": capabilities, "effective": capabilities});
    });
    bundle.start();
    let watched = fs::File::open(bundle.path("said")).unwrap();
    for _ in 0..30 {
        // With streams that are no files of the host's themselves.
        let mut exec = bundle.command(&["exec", &bundle.id, "true"]);
        assert!(exec.output().unwrap().status.success());
    }
    assert_eq!(std::io::read_to_string(watched).unwrap(), "");
}

/// A specification that says nothing of capabilities gives none.
#[test]
fn c6_c7_no_capability_comes_by_itself() {
    let bundle = Bundle::new();
    for uid in [0, 1000] {
        bundle.configure(&["grep", "Cap", "/proc/self/status"], |spec| {
            spec["process"]["user"]["uid"] = json!(uid);
        });
        let (code, said) = bundle.run();
        assert_eq!(code, 0, "{said}");
        let sets = said
            .lines()
            .map(|line| line.split_whitespace().nth(1).unwrap());
        assert!(sets.eq(["0000000000000000"; 5]), "{uid}: {said}");
    }
}

/// What runs is the container's, and what it runs from can be written by nobody in it.
#[test]
fn b7_the_program_cannot_be_overwritten_from_a_container() {
    let bundle = Bundle::new();
    let before = fs::read(binary("orlop-oci")).unwrap();
    let entry = bundle.root().join("bin/entry");
    fs::write(&entry, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&entry, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for command in ["/bin/entry", "/proc/self/exe"] {
        bundle.configure(&[command], |_| {});
        assert_ne!(bundle.run().0, 0, "{command}");
    }
    let write = "while true; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || (echo x > $p/exe) 2>/dev/null; done; done";
    bundle.configure(&["sh", "-c", write], |_| {});
    bundle.start();
    for command in ["true", "/bin/entry", "/proc/self/exe"].repeat(10) {
        bundle.call(&["exec", &bundle.id, command]);
    }
    assert!(fs::read(binary("orlop-oci")).unwrap() == before);
}

/// A root that brings a false `/proc`, with the files that a runtime writes to: labels, scores, maps,
/// parameters.
fn false_proc(top: &Path) {
    for directory in ["self/attr", "thread-self/attr", "1", "sys/net/ipv4"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    for file in FALSE_FILES {
        fs::write(top.join(file), SONG).unwrap();
    }
}

const FALSE_FILES: [&str; 8] = [
    "self/attr/exec",
    "self/attr/current",
    "thread-self/attr/exec",
    "self/oom_score_adj",
    "1/oom_score_adj",
    "self/uid_map",
    "self/setgroups",
    "sys/net/ipv4/ip_default_ttl",
];

#[test]
fn b8_nothing_is_written_to_a_proc_that_is_not_the_kernels() {
    let bundle = Bundle::new();
    let volume = bundle.path("volume");
    for top in [bundle.root().join("proc"), volume.clone()] {
        false_proc(&top);
    }
    let untouched = |after: &str| {
        for top in [bundle.root().join("proc"), volume.clone()] {
            for file in FALSE_FILES {
                assert_eq!(
                    fs::read_to_string(top.join(file)).unwrap(),
                    SONG,
                    "{after}: {file}"
                );
            }
        }
    };
    let ask = |spec: &mut Value| {
        spec["process"]["oomScoreAdj"] = json!(7);
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
    };
    bundle.configure(&["true"], |spec| {
        ask(spec);
        add_mount(spec, bind(&volume, "/proc"));
    });
    bundle.refuses_to_run("/proc");
    untouched("a volume over /proc");
    // Without the kernel's own: such a container gets what it asked for, or does not start.
    for over in [true, false] {
        bundle.configure(&["sleep", "1000"], |spec| {
            ask(spec);
            drop_mounts(spec, &["/proc"]);
            if over {
                add_mount(spec, bind(&volume, "/proc"));
            }
        });
        if bundle.call(&["run", "--detach", &bundle.id]).0 == 0 {
            bundle.call(&["exec", &bundle.id, "true"]);
            bundle.call(&["delete", "--force", &bundle.id]);
        }
        untouched("no /proc of the kernel's");
    }
}

/// In the place of each mount's target, and of each masked or read-only path, a link.
#[test]
fn b2_b9_b20_a_link_in_the_place_of_a_target_is_an_error_or_stays_inside() {
    for (destination, kind) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
        ("/sys/fs/cgroup", "cgroup"),
        ("/data", "tmpfs"),
        ("/data", "bind"),
        ("/data", "file"),
        ("/data/deep/er", "bind"),
    ] {
        let (bundle, canary) = (Bundle::new(), Canary::new());
        let first = destination.split('/').nth(1).unwrap();
        symlink(canary.path(), bundle.root().join(first)).unwrap();
        fs::create_dir(bundle.path("source")).unwrap();
        fs::write(bundle.path("source/file"), "").unwrap();
        let mount = match kind {
            "bind" => bind(&bundle.path("source"), destination),
            "file" => bind(&bundle.path("source/file"), destination),
            _ => json!({"destination": destination, "type": kind, "source": kind}),
        };
        bundle.configure(&["true"], |spec| {
            drop_mounts(spec, &[destination]);
            add_mount(spec, mount);
        });
        let (code, said) = bundle.run();
        if matches!(first, "proc" | "sys" | "dev") {
            assert!(code == 1 && said.contains("link"), "{destination}: {said}");
        } else {
            assert_eq!(code, 0, "{destination} {kind}: {said}");
        }
        canary.assert_unopened(destination);
    }
}

#[test]
fn b20_a_masked_or_read_only_path_that_is_a_link_is_refused() {
    for field in ["maskedPaths", "readonlyPaths"] {
        let (bundle, canary) = (Bundle::new(), Canary::new());
        symlink(canary.path(), bundle.root().join("link")).unwrap();
        for path in ["/link", "/link/file"] {
            bundle.configure(&["true"], |spec| spec["linux"][field] = json!([path]));
            bundle.refuses_to_run(path);
        }
        // The same while it is now a directory, now a link.
        fs::create_dir_all(bundle.root().join("dir")).unwrap();
        fs::write(bundle.root().join("dir/file"), "own").unwrap();
        bundle.configure(&["cat", "/dir/file"], |spec| {
            spec["linux"][field] = json!(["/dir/file", "/dir"]);
        });
        let swap = Swap::start(&bundle.root(), "dir", "link");
        for_a_while(|| {
            let (_, said) = bundle.run();
            assert!(!said.contains(SONG), "{said}");
        });
        assert!(swap.count() > 0);
        drop(swap);
        canary.assert_unopened(field);
    }
}

/// A target that changes places with a link to the host, below which a directory or a file is to be made.
fn race_of_targets(source: &str, destination: &str) {
    let (bundle, canary) = (Bundle::new(), Canary::new());
    let volume = bundle.path("volume");
    fs::create_dir_all(volume.join("dir")).unwrap();
    symlink(canary.path(), volume.join("link")).unwrap();
    fs::create_dir(bundle.path("source")).unwrap();
    fs::write(bundle.path("source/file"), "").unwrap();
    bundle.configure(&["sh", "-c", "ls /; cat /volume/dir/file; true"], |spec| {
        add_mount(spec, bind(&volume, "/volume"));
        add_mount(spec, bind(&bundle.path(source), destination));
    });
    let swap = Swap::start(&volume, "dir", "link");
    let mut started = 0;
    for_a_while(|| {
        let (code, said) = bundle.run();
        started += u32::from(code == 0);
        assert!(!said.contains(SONG) && !said.contains("boot"), "{said}");
        canary.assert_unopened(destination);
    });
    assert!(
        swap.count() > 1000 && started > 0,
        "{} {started}",
        swap.count()
    );
}

#[test]
fn b10_a_directory_that_is_swapped_for_a_link_is_never_one_of_the_hosts() {
    race_of_targets("source", "/volume/dir/new/deep");
}

#[test]
fn b14_no_file_is_made_on_the_host_for_a_target_that_is_swapped_for_a_link() {
    race_of_targets("source/file", "/volume/dir/new");
    race_of_targets("source/file", "/volume/dir/some/new");
}

/// A `/dev` of somebody else's that is a tmpfs: what is called null in it is a link, now and then.
#[test]
fn b15_what_hides_a_path_is_the_null_device_or_nothing_starts() {
    let (bundle, canary) = (Bundle::new(), Canary::new());
    let dev = tempfile::tempdir_in("/dev/shm").unwrap();
    let pattern = "/proc/sys/kernel/core_pattern";
    let before = fs::read(pattern).unwrap();
    symlink(pattern, dev.path().join("null")).unwrap();
    fs::write(bundle.root().join("secret"), SONG).unwrap();
    bundle.configure(
        &[
            "sh",
            "-c",
            "cat /secret; (echo x > /secret) 2>/dev/null; true",
        ],
        |spec| {
            drop_mounts(spec, &["/dev", "/dev/pts"]);
            add_mount(spec, bind(dev.path(), "/dev"));
            spec["linux"]["maskedPaths"] = json!(["/secret", "/proc/kcore"]);
        },
    );
    bundle.refuses_to_run("null");
    let real = dev.path().join("real");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, &real, FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    let swap = Swap::start(dev.path(), "null", "real");
    for_a_while(|| {
        let (code, said) = bundle.run();
        assert!(
            !said.contains(SONG) && !said.contains("core"),
            "{code} {said}"
        );
    });
    assert!(swap.count() > 0);
    drop(swap);
    assert_eq!(fs::read(pattern).unwrap(), before);
    assert_eq!(
        fs::read_to_string(bundle.root().join("secret")).unwrap(),
        SONG
    );
    canary.assert_unopened("all");
}

/// Devices, links and the console are made on a tmpfs of the container's own, or not at all.
#[test]
fn b18_b19_nothing_is_made_or_changed_in_a_dev_that_is_not_mounted() {
    let canary = Canary::with(|path| fs::write(path.join("ptmx"), "").unwrap());
    for link in ["", "null", "console", "ptmx", "tty", "fd", "stdin"] {
        let bundle = Bundle::new();
        let dev = bundle.root().join("dev");
        match link {
            "" => symlink(canary.path(), &dev).unwrap(),
            name => {
                fs::create_dir(&dev).unwrap();
                symlink(canary.file(), dev.join(name)).unwrap();
            }
        }
        for terminal in [false, true] {
            let socket = std::os::unix::net::UnixListener::bind(bundle.path("console")).unwrap();
            bundle.configure(&["true"], |spec| {
                drop_mounts(spec, &["/dev", "/dev/pts"]);
                spec["process"]["terminal"] = json!(terminal);
            });
            let mut args = vec!["create"];
            if terminal {
                args.push("--console-socket=console");
            }
            args.push(&bundle.id);
            bundle.refuses(&args, "/dev");
            canary.assert_unopened(link);
            assert!(bundle.is_gone());
            drop(socket);
            fs::remove_file(bundle.path("console")).unwrap();
        }
        if link.is_empty() {
            assert!(fs::symlink_metadata(&dev).unwrap().is_symlink());
        } else {
            assert_eq!(fs::read_dir(&dev).unwrap().count(), 1, "{link}");
        }
    }
}

/// The disk that the test runs from, and the kernel's log, for a container that may make nodes of anything.
#[test]
fn b24_devices_that_are_not_listed_are_denied() {
    let bundle = Bundle::new();
    let disk = fs::metadata("/var/tmp").unwrap().dev();
    let (major, minor) = (rustix::fs::major(disk), rustix::fs::minor(disk));
    let script = format!(
        "mknod /tmp/disk b {major} {minor}; mknod /tmp/log c 1 11; \
         for f in /tmp/disk /tmp/log; do (: < $f) && echo open; (: > $f) && echo open; done; \
         head -c 1 /dev/zero | wc -c; : > /dev/null && echo null; rm /tmp/disk /tmp/log"
    );
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let refused = "Operation not permitted";
    for (devices, times) in [(Value::Null, 4), (json!([]), 4), (json!([allow]), 3)] {
        bundle.configure(&["sh", "-c", &script], |spec| {
            let capabilities = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG"]);
            spec["process"]["capabilities"] = json!({"bounding": capabilities,
                "permitted": capabilities, "effective": capabilities});
            spec["linux"]["resources"] = match devices {
                Value::Null => json!({}),
                _ => json!({ "devices": devices }),
            };
        });
        let (code, said) = bundle.run();
        assert_eq!(code, 0, "{said}");
        assert_eq!(said.matches(refused).count(), times, "{devices}: {said}");
        assert_eq!(
            said.matches("open\n").count(),
            4 - times,
            "{devices}: {said}"
        );
        assert!(said.ends_with("1\nnull\n"), "{said}");
    }
}

/// Names of control files and groups come from the specification only as far as they are known.
#[test]
fn b28_no_name_of_a_control_file_leads_elsewhere() {
    let (bundle, canary) = (Bundle::new(), Canary::new());
    let up = format!("../../../../..{}", canary.file().display());
    for key in [
        up.as_str(),
        "../cgroup.procs",
        "a/b",
        "",
        "memory.high",
        ".",
    ] {
        let unified = json!({"unified": {key: "1"}});
        bundle.configure(&["true"], |spec| {
            spec["linux"]["resources"] = unified.clone()
        });
        bundle.refuses_to_run("linux.resources.unified");
        assert!(bundle.is_gone(), "{key}");
    }
    for size in ["../../x", "2MB/../x", ""] {
        let pages = json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]});
        bundle.configure(&["true"], |spec| spec["linux"]["resources"] = pages);
        bundle.refuses_to_run("hugepageLimits");
    }
    for path in ["/../x", "/a/../../x", "..", "/", "."] {
        bundle.configure(&["true"], |spec| spec["linux"]["cgroupsPath"] = json!(path));
        bundle.refuses_to_run("cgroup");
    }
    bundle.configure(&["sleep", "1000"], |_| {});
    bundle.start();
    fs::write(
        bundle.path("r.json"),
        json!({"unified": {up: "1"}}).to_string(),
    )
    .unwrap();
    bundle.refuses(&["update", "--resources", "r.json", &bundle.id], "unified");
    canary.assert_unopened("all");
}

#[test]
fn b30_nothing_of_the_host_gets_another_label() {
    let (bundle, canary) = (Bundle::new(), Canary::new());
    let label = "security.selinux";
    rustix::fs::setxattr(
        canary.file(),
        label,
        b"own_t\0",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let canary_label = || {
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(canary.file(), label, &mut value).unwrap();
        value[..length].to_vec()
    };
    for options in [
        &["rbind"][..],
        &["rbind", "z"],
        &["rbind", "Z"],
        &["bind", "relabel=shared"],
    ] {
        bundle.configure(&["true"], |spec| {
            let mount = json!({"destination": "/data", "type": "bind", "source": canary.file(),
                               "options": options});
            add_mount(spec, mount);
        });
        let (code, said) = bundle.run();
        match options {
            ["rbind"] => assert_eq!(code, 0, "{said}"),
            [.., word] => {
                let word = word.split('=').next().unwrap();
                assert!(code == 1 && said.contains(word), "{word}: {said}");
            }
            [] => {}
        }
        assert_eq!(canary_label(), b"own_t\0", "{options:?}");
    }
    for (pointer, name) in [("/linux", "mountLabel"), ("/process", "selinuxLabel")] {
        bundle.configure(&["true"], |spec| {
            add_mount(spec, bind(&canary.file(), "/data"));
            spec.pointer_mut(pointer).unwrap()[name] =
                json!("system_u:object_r:container_file_t:s0");
        });
        // Where the kernel has SELinux the process may be labelled, and no file.
        bundle.run();
        assert_eq!(canary_label(), b"own_t\0", "{name}");
    }
}

/// Parameters of the kernel that are not those of a namespace of the container's own.
#[test]
fn b32_b33_no_parameter_of_the_host_is_set() {
    let bundle = Bundle::new();
    let files = [
        "kernel/core_pattern",
        "kernel/shmmax",
        "net/ipv4/ip_default_ttl",
        "kernel/hostname",
        "vm/swappiness",
        "fs/mqueue/msg_max",
    ];
    let read = || files.map(|file| fs::read(Path::new("/proc/sys").join(file)).unwrap());
    let before = read();
    for (name, value) in [
        ("kernel.core_pattern", "|/evil"),
        ("vm.swappiness", "7"),
        ("kernel.hostname", "evil"),
        ("net.ipv4.ip_default_ttl+kernel.core_pattern", "|/evil"),
        ("net.ipv4.ip_default_ttl=1", "7"),
        ("net/../kernel/core_pattern", "|/evil"),
        ("net.ipv4/../../kernel/core_pattern", "|/evil"),
        ("", "1"),
    ] {
        bundle.configure(&["true"], |spec| {
            spec["linux"]["sysctl"] = json!({name: value})
        });
        bundle.refuses_to_run("sysctl");
        assert_eq!(read(), before, "{name}");
    }
    for (name, value, namespace) in [
        ("net.ipv4.ip_default_ttl", "77", "network"),
        ("kernel.shmmax", "4096", "ipc"),
        ("fs.mqueue.msg_max", "11", "ipc"),
    ] {
        bundle.configure(&["true"], |spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|known| known["type"] != namespace);
            spec["linux"]["sysctl"] = json!({name: value});
        });
        bundle.refuses_to_run(name);
        assert_eq!(read(), before, "{name}");
    }
    let show = ["cat", "/proc/sys/net/ipv4/ip_default_ttl"];
    bundle.configure(&show, |spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
    });
    assert_eq!(bundle.run(), (0, "77\n".to_owned()));
    assert_eq!(read(), before);
}

/// What other runtimes take orders from, and what ours had, if it took any.
#[test]
fn b34_annotations_are_told_and_change_nothing() {
    let bundle = Bundle::new();
    let annotations = json!({
        "org.orlop.seccomp": "unconfined",
        "org.systemd.property.MemoryMax": "infinity",
        "org.systemd.property.ExecStartPre": "/evil",
        "run.oci.systemd.subgroup": "../..",
        "run.oci.handler": "krun",
        "run.oci.keep_original_groups": "1",
        "io.kubernetes.cri-o.UnifiedCgroup": "pids.max=max",
        "io.katacontainers.config.hypervisor.path": "/evil",
    });
    let script = "grep Seccomp: /proc/self/status; cat /proc/self/cgroup; mkdir /denied";
    let run = |annotations: &Value| {
        bundle.configure(&["sh", "-c", script], |spec| {
            spec["annotations"] = annotations.clone();
            spec["linux"]["resources"] = json!({"pids": {"limit": 20}});
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
            });
        });
        bundle.run()
    };
    let plain = run(&json!({}));
    assert!(
        plain.1.contains("Seccomp:\t2") && plain.1.contains("not permitted"),
        "{plain:?}"
    );
    assert_eq!(run(&annotations), plain);
    bundle.configure(&["sleep", "1000"], |spec| {
        spec["annotations"] = annotations.clone();
        spec["linux"]["resources"] = json!({"pids": {"limit": 20}});
    });
    bundle.start();
    assert_eq!(bundle.state()["annotations"], annotations);
    let (_, limit) = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    let pids = limit
        .lines()
        .filter(|line| line.contains(":pids:") || line.starts_with("0::/orlop"));
    let mut pids = pids.map(|line| line.rsplit(':').next().unwrap());
    assert_eq!(
        pids.next(),
        Some(format!("/{}", bundle.id).as_str()),
        "{limit}"
    );
}

/// A hook is a program of the bundle's maker, but what it says is not kept beyond a bound.
#[test]
fn d12_a_hook_that_never_stops_talking_is_heard_up_to_a_bound() {
    let bundle = Bundle::new();
    for timeout in [Some(2), None] {
        bundle.configure(&["true"], |spec| {
            let mut hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "yes talk >&2; exit 1"],
                                  "env": ["PATH=/usr/bin:/bin"]});
            if let Some(seconds) = timeout {
                hook["timeout"] = json!(seconds);
            }
            spec["hooks"] = json!({ "createRuntime": [hook] });
        });
        let (code, said) = bundle.run();
        assert_eq!(code, 1, "{said}");
        assert!(said.len() < 32 * 1024, "{timeout:?}: {} bytes", said.len());
        eventually("nothing is left", || bundle.is_gone());
    }
}
