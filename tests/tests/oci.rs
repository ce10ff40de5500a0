//! `orlop-oci` by its command line; as the runtime of others it is in `engines.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use orlop_tests::{Bundle, eventually};
use serde_json::{Value, json};

#[test]
fn run_waits_and_exits_as_the_command_does() {
    let bundle = Bundle::of_an_image();
    bundle.configure(&["sh", "-c", "echo pid $$; exit 7"], |_| {});
    let (code, said) = bundle.run();
    assert_eq!((code, said.as_str()), (7, "pid 1\n"));
    assert!(bundle.is_gone());
}

#[test]
fn the_specification_to_begin_with_runs_a_shell() {
    let bundle = Bundle::of_an_image();
    fs::remove_file(bundle.path("config.json")).unwrap();
    bundle.succeeds(&["spec"]);
    assert_eq!(bundle.call(&["spec"]).0, 1, "what is there stays");
    bundle.succeeds(&["run", &bundle.id]);
}

#[test]
fn a_container_lives_from_create_to_delete() {
    let bundle = Bundle::of_an_image();
    let id = bundle.id.as_str();
    bundle.configure(&["sh", "-c", "echo > /begun; sleep 1000"], |_| {});
    let begun = bundle.root().join("begun");
    bundle.succeeds(&["create", "--pid-file", "pid", id]);
    assert_eq!(bundle.status(), "created");
    assert!(!begun.exists(), "its command waits");
    bundle.succeeds(&["start", id]);
    assert_eq!(bundle.status(), "running");
    eventually("its command runs", || begun.exists());
    bundle.refuses(&["create", id], "already exists");

    let (code, said) = bundle.call(&["exec", id, "sh", "-c", "echo inside; exit 3"]);
    assert_eq!((code, said.as_str()), (3, "inside\n"));
    let pid: u64 = fs::read_to_string(bundle.path("pid"))
        .unwrap()
        .parse()
        .unwrap();
    let listed = bundle.succeeds(&["ps", "--format", "json", id]);
    let listed: Vec<u64> = serde_json::from_str(&listed).unwrap();
    assert!(listed.contains(&pid), "{listed:?}");

    assert_eq!(bundle.succeeds(&["list", "--quiet"]), format!("{id}\n"));
    bundle.succeeds(&["pause", id]);
    assert_eq!(bundle.status(), "paused");
    bundle.succeeds(&["resume", id]);
    bundle.refuses(&["delete", id], "running");
    bundle.succeeds(&["kill", id, "KILL"]);
    eventually("it has ended", || bundle.status() == "stopped");
    bundle.refuses(&["kill", id, "KILL"], "container not running");
    bundle.succeeds(&["delete", id]);
    bundle.refuses(&["state", id], "does not exist");
}

#[test]
fn a_command_that_is_not_there_is_known_when_the_container_is_made() {
    let bundle = Bundle::of_an_image();
    fs::write(bundle.root().join("bin/text"), "").unwrap();
    for (command, reason) in [
        ("nonesuch", "executable file not found in $PATH"),
        ("/nonesuch", "no such file or directory"),
        ("text", "permission denied"),
    ] {
        bundle.configure(&[command], |_| {});
        bundle.refuses(&["create", &bundle.id], reason);
    }
}

#[test]
fn a_tmpfs_begins_with_what_is_at_its_place() {
    let bundle = Bundle::of_an_image();
    fs::write(bundle.root().join("tmp/kept"), "of the image\n").unwrap();
    bundle.configure(&["sh", "-c", "cat /tmp/kept; echo > /tmp/new"], |spec| {
        let options = ["rw", "nosuid", "tmpcopyup", "size=1m"];
        spec["mounts"].as_array_mut().unwrap().push(json!(
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}
        ));
    });
    assert_eq!(bundle.run(), (0, "of the image\n".to_owned()));
    assert!(!bundle.root().join("tmp/new").exists());
}

#[test]
fn limits_of_the_specification_are_set_and_changed_and_leave_nothing() {
    let bundle = Bundle::of_an_image();
    bundle.configure(&["sleep", "1000"], |spec| {
        spec["linux"]["resources"] = json!({"pids": {"limit": 20}});
    });
    bundle.succeeds(&["create", &bundle.id]);
    let below = format!("{}/pids.max", bundle.id);
    let tops = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let files = tops.map(|top| Path::new(top).join(&below));
    let file = files.iter().find(|file| file.exists()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "20");
    fs::write(bundle.path("r.json"), r#"{"pids": {"limit": 30}}"#).unwrap();
    bundle.succeeds(&["update", "--resources", "r.json", &bundle.id]);
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "30");
    bundle.succeeds(&["delete", "--force", &bundle.id]);
    assert!(!file.parent().unwrap().exists());
}

#[test]
fn events_tell_of_counters_and_of_kills_until_the_end() {
    let bundle = Bundle::of_an_image();
    let greedy = "while [ ! -e /go ]; do sleep 0.01; done; tail -c 64m /dev/zero; sleep 0.1";
    bundle.configure(&["sh", "-c", greedy], |spec| {
        let limits = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        spec["linux"]["resources"] = limits;
    });
    bundle.refuses(&["events", &bundle.id], "does not exist");
    bundle.succeeds(&["create", &bundle.id]);
    bundle.succeeds(&["start", &bundle.id]);
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let stats = event(&bundle.succeeds(&["events", "--stats", &bundle.id]));
    assert_eq!(
        (&stats["type"], &stats["id"]),
        (&"stats".into(), &bundle.id.as_str().into())
    );
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 16 << 20);
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert!(stats["data"]["pids"]["current"].as_u64().unwrap() > 0);

    let mut follow = bundle.command(&["events", "--interval", "100ms", &bundle.id]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || {
        lines
            .next()
            .map(|line| event(&line.unwrap())["type"].clone())
    };
    assert_eq!(
        (next(), next()),
        (Some("stats".into()), Some("stats".into()))
    );
    fs::write(bundle.root().join("go"), "").unwrap();
    let told: Vec<Value> = std::iter::from_fn(next).collect();
    assert!(told.contains(&"oom".into()), "{told:?}");
    assert!(follow.wait().unwrap().success());
}

#[test]
fn hooks_are_told_of_the_state() {
    let bundle = Bundle::of_an_image();
    let hook = |name: &str| {
        let to = bundle.path(name);
        let script = format!("cat > {}", to.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10,
                "env": ["PATH=/usr/bin:/bin"]}])
    };
    let hooks = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    bundle.configure(&["true"], |spec| spec["hooks"] = hooks);
    bundle.succeeds(&["run", &bundle.id]);
    for (name, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let told = fs::read_to_string(bundle.path(name)).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["status"], status, "{name}");
        assert_eq!(told["id"], bundle.id.as_str(), "{name}");
    }
}

#[test]
fn a_hook_of_the_end_that_fails_stops_nothing() {
    let bundle = Bundle::of_an_image();
    let told = bundle.path("told").display().to_string();
    bundle.configure(&["true"], |spec| {
        let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        let hooks = [hook("echo no >&2; exit 1"), hook(&format!("echo > {told}"))];
        spec["hooks"] = json!({ "poststop": hooks });
    });
    bundle.succeeds(&["create", &bundle.id]);
    bundle.refuses(&["delete", "--force", &bundle.id], "/bin/sh failed");
    assert!(bundle.path("told").exists());
    assert!(bundle.is_gone());
}

#[test]
fn a_hook_that_fails_undoes_the_container() {
    let bundle = Bundle::of_an_image();
    bundle.configure(&["true"], |spec| {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 1"]}]);
        spec["hooks"] = json!({ "createRuntime": hook });
    });
    let (code, said) = bundle.call(&["create", &bundle.id]);
    assert!(
        code == 1 && said.contains("/bin/sh failed") && said.contains("no"),
        "{said}"
    );
    assert!(bundle.is_gone());
}

/// Hooks that the host has no path to, or whose files it does not see.
#[test]
fn hooks_of_the_container_run_in_its_namespaces_and_under_its_confinement() {
    let bundle = Bundle::of_an_image();
    let here = bundle.path("").display().to_string();
    let create = format!(
        "cat > {here}/create; cat {here}/rootfs/proc/1/status > {here}/seen; umask > {here}/umask"
    );
    let start = "cat > /tmp/start; cat /proc/self/status > /tmp/seen; exit 0";
    let hook = |path: &str, script: &str| json!([{"path": path, "args": ["sh", "-c", script]}]);
    bundle.configure(&["true"], |spec| {
        spec["process"]["user"] = json!({"uid": 7, "gid": 8});
        spec["hooks"] = json!({
            "createContainer": hook("/usr/bin/sh", &create),
            "startContainer": hook("/bin/sh", start),
        });
    });
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(bundle.root().join("tmp"), open).unwrap();
    bundle.succeeds(&["create", &bundle.id]);
    assert!(
        !bundle.root().join("tmp/start").exists(),
        "its time is the start"
    );
    bundle.succeeds(&["start", &bundle.id]);
    for (file, status) in [("create", "creating"), ("rootfs/tmp/start", "created")] {
        let told = fs::read_to_string(bundle.path(file)).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["status"], &told["pid"]), (&status.into(), &1.into()));
    }
    let seen = fs::read_to_string(bundle.path("seen")).unwrap();
    assert!(
        seen.contains("NSpid:"),
        "its proc file system is at its place"
    );
    assert_eq!(fs::read_to_string(bundle.path("umask")).unwrap(), "0022\n");
    assert_eq!(fs::read_dir(bundle.root().join("proc")).unwrap().count(), 0);
    let seen = fs::read_to_string(bundle.root().join("tmp/seen")).unwrap();
    assert!(seen.contains("Uid:\t7\t7\t7\t7\n"), "{seen}");
    assert!(seen.contains("CapEff:\t0000000000000000\n"), "{seen}");
}

/// As dockerd has them for `--pid container:NAME`: what still has files of the host is never among the
/// processes of another container.
#[test]
fn a_container_among_the_processes_of_another_has_the_hooks_of_the_host_only() {
    let (first, second) = (Bundle::of_an_image(), Bundle::of_an_image());
    first.configure(&["sleep", "1000"], |_| {});
    first.succeeds(&["run", "--detach", "--pid-file", "pid", &first.id]);
    let pid = fs::read_to_string(first.path("pid")).unwrap();
    let configure = |name: &str| {
        let script = format!("cat > {}", second.path("told").display());
        let hook = json!([{"path": "/usr/bin/sh", "args": ["sh", "-c", script]}]);
        second.configure(&["ps"], |spec| {
            spec["linux"]["namespaces"][0]["path"] = format!("/proc/{pid}/ns/pid").into();
            spec["hooks"] = json!({ name: hook });
        });
    };
    configure("prestart");
    let said = second.succeeds(&["run", &second.id]);
    assert!(said.contains("sleep 1000"), "{said}");
    assert!(second.path("told").exists());
    configure("createContainer");
    second.refuses_to_run("createContainer");
}

#[test]
fn a_hook_of_the_start_that_fails_ends_the_container() {
    let bundle = Bundle::of_an_image();
    for (name, path) in [("startContainer", "/bin/sh"), ("poststart", "/usr/bin/sh")] {
        let script = "echo no >&2; exit 1";
        bundle.configure(&["sleep", "1000"], |spec| {
            let hook = json!([{"path": path, "args": ["sh", "-c", script]}]);
            spec["hooks"] = json!({ name: hook });
        });
        bundle.succeeds(&["create", &bundle.id]);
        bundle.refuses(&["start", &bundle.id], "exit status: 1: no");
        eventually("it has ended", || bundle.status() == "stopped");
        bundle.succeeds(&["delete", &bundle.id]);
    }
}

/// Runs the words of `args` in a shell that has opened files first.
fn with_files(bundle: &Bundle, files: &str, args: &[&str]) -> (i32, String) {
    for name in ["three", "four", "five"] {
        fs::write(bundle.path(name), name).unwrap();
    }
    let command = bundle.command(args);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{files}; exec \"$@\""))
        .arg("sh");
    shell.arg(command.get_program()).args(command.get_args());
    shell.current_dir(bundle.path("")).stdin(Stdio::null());
    let output = shell.output().unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout),
        String::from_utf8(output.stderr),
    );
    (
        output.status.code().unwrap_or(-1),
        out.unwrap() + &err.unwrap(),
    )
}

#[test]
fn descriptors_of_the_caller_are_handed_on_as_many_as_are_named() {
    let bundle = Bundle::of_an_image();
    let look = "cat <&3; cat <&4; (: <&5) 2>/tmp/five || echo; echo $LISTEN_FDS $LISTEN_PID";
    bundle.configure(&["sh", "-c", look], |_| {});
    let open = "exec 3<three 4<four 5<five";
    let run = ["run", "--preserve-fds", "2", &bundle.id];
    assert_eq!(
        with_files(&bundle, open, &run),
        (0, "threefour\n\n".to_owned())
    );
    let run = ["run", "--preserve-fds", "1", &bundle.id];
    let listen = format!("{open}; export LISTEN_FDS=1 LISTEN_PID=$$");
    assert_eq!(
        with_files(&bundle, &listen, &run),
        (0, "threefour\n1 1\n".to_owned())
    );
    let listen = format!("{open}; export LISTEN_FDS=1 LISTEN_PID=1");
    let run = ["run", "--preserve-fds", "2", &bundle.id];
    assert_eq!(
        with_files(&bundle, &listen, &run),
        (0, "threefour\n\n".to_owned())
    );
    let (code, said) = with_files(&bundle, "exec 3<three 4<&-", &run);
    assert!(code == 1 && said.contains("4 is not open"), "{said}");

    bundle.configure(&["sleep", "1000"], |_| {});
    bundle.start();
    let exec = ["exec", "--preserve-fds", "2", &bundle.id, "sh", "-c", look];
    assert_eq!(
        with_files(&bundle, open, &exec),
        (0, "threefour\n\n".to_owned())
    );
}

/// A directory that a descriptor of the runtime leads to (CVE-2024-21626).
#[test]
fn b13_no_working_directory_is_outside_of_the_container() {
    let bundle = Bundle::of_an_image();
    let id = bundle.id.as_str();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.configure(&["true"], |spec| spec["process"]["cwd"] = cwd.into());
        let (code, said) = bundle.run();
        assert_eq!(code, 1, "{number}: {said}");
    }
    bundle.configure(&["sleep", "1000"], |_| {});
    bundle.start();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let (code, said) = bundle.call(&["exec", "--cwd", &cwd, id, "true"]);
        assert_eq!(code, 1, "{number}: {said}");
    }
}

/// No kernel that these tests run on has AppArmor or enforces SELinux: a container that asks for them
/// is not made.
#[test]
fn b12_a_profile_or_label_that_the_host_cannot_enforce_is_refused() {
    let bundle = Bundle::of_an_image();
    let labels = [
        ("/process/apparmorProfile", "docker-default", "AppArmor"),
        (
            "/process/selinuxLabel",
            "system_u:system_r:svirt_lxc_net_t:s0",
            "SELinux",
        ),
        (
            "/linux/mountLabel",
            "system_u:object_r:svirt_sandbox_file_t:s0",
            "SELinux",
        ),
    ];
    for (pointer, name, module) in labels {
        bundle.configure(&["true"], |spec| set(spec, pointer, name.into()));
        let (code, said) = bundle.run();
        assert!(
            code == 1 && said.contains(module) && said.contains(name),
            "{said}"
        );
    }
    bundle.configure(&["sleep", "1000"], |spec| {
        set(spec, "/process/apparmorProfile", "unconfined".into());
    });
    bundle.start();
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"], "apparmorProfile": "some",
    });
    fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let exec = ["exec", "--process", "process.json", &bundle.id];
    bundle.refuses(&exec, "AppArmor");
}

/// Changes what `pointer` leads to.
fn set(spec: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[key] = value;
}

#[test]
fn a_user_namespace_has_the_ids_of_the_specification() {
    let bundle = Bundle::of_an_image();
    let id = &bundle.id;
    let maps = json!([
        {"containerID": 0, "hostID": 200_000, "size": 1000},
        {"containerID": 1000, "hostID": 300_000, "size": 10},
    ]);
    bundle.configure(&["sleep", "100"], |spec| {
        let linux = &mut spec["linux"];
        (linux["uidMappings"], linux["gidMappings"]) = (maps.clone(), maps.clone());
        for kind in ["user", "network"] {
            let namespaces = linux["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": kind}));
        }
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
    });
    bundle.succeeds(&["run", "--detach", "--pid-file", "pid", id]);
    let pid = fs::read_to_string(bundle.path("pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nUid:\t200000\t"), "{status}");
    let said = bundle.succeeds(&["exec", id, "cat", "/proc/self/uid_map"]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "1000", "1000", "300000", "10"]);
    let said = bundle.succeeds(&["exec", "--user", "1001", id, "id", "-u"]);
    assert_eq!(said, "1001\n");
}

#[test]
fn hooks_and_files_of_a_container_with_a_user_namespace_are_its_roots() {
    let bundle = Bundle::of_an_image();
    let mode = |mode| <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(mode);
    fs::create_dir(bundle.path("open")).unwrap();
    for (path, bits) in [("", 0o755), ("open", 0o777)] {
        fs::set_permissions(bundle.path(path), mode(bits)).unwrap();
    }
    fs::write(bundle.root().join("tmp/kept"), "of the image\n").unwrap();
    for path in ["rootfs/tmp", "rootfs/tmp/kept"] {
        std::os::unix::fs::chown(bundle.path(path), Some(200_000), Some(200_000)).unwrap();
    }
    let said = bundle.path("open/said");
    let create = format!("cat /proc/self/uid_map > {}; exit 0", said.display());
    bundle.configure(&["sh", "-c", "cat /tmp/kept; touch /tmp/new; stat -c %u /tmp/new /dev/mqueue"], |spec| {
        let maps = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
        let linux = &mut spec["linux"];
        (linux["uidMappings"], linux["gidMappings"]) = (maps.clone(), maps);
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        spec["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}),
        ]);
        let hook = json!([{"path": "/usr/bin/sh", "args": ["sh", "-c", create]}]);
        spec["hooks"] = json!({ "createContainer": hook });
    });
    assert_eq!(bundle.run(), (0, "of the image\n0\n0\n".to_owned()));
    let said = fs::read_to_string(said).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "1000"]);
}

#[test]
fn what_is_not_supported_is_refused_by_its_name() {
    let bundle = Bundle::of_an_image();
    for option in ["--no-pivot", "--no-new-keyring"] {
        bundle.refuses(&["create", option, &bundle.id], option);
    }
    for (pointer, value) in [
        ("/domainname", "example".into()),
        ("/linux/personality", json!({"domain": "LINUX32"})),
    ] {
        bundle.configure(&["true"], |spec| {
            set(spec, pointer, value);
        });
        let args = ["--log", "log", "--log-format", "json", "run", &bundle.id];
        let name = pointer.trim_start_matches('/').replace('/', ".");
        bundle.refuses(&args, &name);
        let log = fs::read_to_string(bundle.path("log")).unwrap();
        let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains(&name), "{line}");
    }
}
