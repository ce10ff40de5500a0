//! Options of a container that are Docker's, and what they do inside.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, eventually};

/// What a command says in a container with these options.
fn says(orlop: &Instance, options: &[&str], command: &str) -> String {
    let args = [&["run", "--rm"], options, &["busybox", "sh", "-c", command]];
    orlop.run(&args.concat()).success().stdout()
}

#[test]
fn names_are_looked_up_as_asked_on_every_network() {
    let orlop = Instance::with_busybox();
    orlop.run(&["network", "create", "front"]).success();
    let show = "grep -E 'search|domain|options' /etc/resolv.conf";
    for network in ["bridge", "none", "host", "front"] {
        let asked = ["--dns-search", "a.test", "--dns-search", "b.test"];
        let options = ["--dns-option", "ndots:2", "--dns-option", "rotate"];
        let all = [&["--network", network], &asked[..], &options[..]].concat();
        let expected = "search a.test b.test\noptions ndots:2 rotate\n";
        assert_eq!(says(&orlop, &all, show), expected, "{network}");
        let cleared = ["--network", network, "--dns-search", "."];
        let text = says(&orlop, &cleared, "cat /etc/resolv.conf");
        assert!(!text.contains("search"), "{network}: {text}");
    }
    let bad = ["run", "--dns-search", "a b", "busybox", "true"];
    orlop.run(&bad).exits(125).stderr_has("a b");
    let neighbour = ["run", "--network", "container:x", "--dns-option", "rotate"];
    let neighbour = [&neighbour[..], &["busybox", "true"]].concat();
    orlop.run(&neighbour).exits(125).stderr_has("dns");
}

#[test]
fn a_domain_is_the_kernels_and_part_of_the_containers_own_name() {
    let orlop = Instance::with_busybox();
    let named = ["-h", "web", "--domainname", "example.test"];
    let show = "cat /proc/sys/kernel/domainname /etc/hostname; hostname -f; tail -n 1 /etc/hosts";
    for userns in ["host", "private"] {
        let all = [&["--userns", userns], &named[..]].concat();
        let said = says(&orlop, &all, show);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[..3], ["example.test", "web", "web.example.test"]);
        assert!(lines[3].ends_with("\tweb.example.test web"), "{}", lines[3]);
    }
    assert_ne!(
        std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap(),
        "example.test\n"
    );
    let create = [&["create", "--name", "box"], &named[..], &["busybox"]].concat();
    orlop.run(&create).success();
    assert_eq!(
        orlop.inspect("box", "{{.Config.Domainname}}"),
        "example.test"
    );
    let of_host = ["run", "--uts", "host", "--domainname", "a", "busybox"];
    orlop.run(&of_host).exits(125).stderr_has("--domainname");
}

#[test]
fn exposed_ports_are_shown_and_published_with_all_others() {
    let orlop = Instance::with_busybox();
    let expose = ["--expose", "80", "--expose", "5000-5001/udp", "-P"];
    let run = [
        &["run", "-d", "--name", "box"],
        &expose[..],
        &["busybox", "sleep", "60"],
    ];
    orlop.run(&run.concat()).success();
    let published = orlop.run(&["port", "box"]).success();
    for port in ["80/tcp -> ", "5000/udp -> ", "5001/udp -> "] {
        assert!(published.stdout().contains(port), "{}", published.stdout());
    }
    let quiet = ["run", "-d", "--name", "quiet", "--expose", "81"];
    let quiet = [&quiet[..], &["busybox", "sleep", "60"]].concat();
    orlop.run(&quiet).success();
    let ps = ["ps", "-f", "name=quiet", "--format", "{{.Ports}}"];
    orlop.run(&ps).success().stdout_is("81/tcp\n");
    let exposed = orlop.inspect("quiet", "{{json .Config.ExposedPorts}}");
    assert_eq!(exposed, r#"{"81/tcp":{}}"#);
    let bad = ["run", "--expose", "80:80", "busybox", "true"];
    orlop.run(&bad).exits(125).stderr_has("80:80");
}

#[test]
fn an_interface_has_the_hardware_address_that_was_asked_for() {
    let orlop = Instance::with_busybox();
    orlop.run(&["network", "create", "front"]).success();
    let mac = "92:d0:c6:0a:29:33";
    let show = "cat /sys/class/net/eth0/address";
    for network in ["bridge", "front"] {
        let options = ["--network", network, "--mac-address", mac];
        assert_eq!(says(&orlop, &options, show), format!("{mac}\n"));
    }
    let long = format!("name=front,mac-address={mac}");
    assert_eq!(
        says(&orlop, &["--network", &long], show),
        format!("{mac}\n")
    );
    let run = ["run", "-d", "--name", "box", "--mac-address", mac];
    let run = [&run[..], &["busybox", "sleep", "60"]].concat();
    orlop.run(&run).success();
    assert_eq!(orlop.inspect("box", "{{.NetworkSettings.MacAddress}}"), mac);
    for (network, address) in [("bridge", "93:d0:c6:0a:29:33"), ("host", mac)] {
        let bad = ["run", "--network", network, "--mac-address", address];
        let bad = [&bad[..], &["busybox", "true"]].concat();
        orlop.run(&bad).exits(125);
    }
}

#[test]
fn labels_come_from_files_too() {
    let orlop = Instance::with_busybox();
    let file = orlop.root().join("labels");
    std::fs::write(&file, "# none\ntier=web\nbare\n").unwrap();
    let file = file.to_str().unwrap();
    let create = ["create", "--name", "box", "--label-file", file, "-l", "a=b"];
    let create = [&create[..], &["busybox"]].concat();
    orlop.run(&create).success();
    assert_eq!(
        orlop.inspect("box", "{{json .Config.Labels}}"),
        r#"{"a":"b","bare":"","tier":"web"}"#
    );
}

#[test]
fn a_log_is_kept_as_far_as_was_asked_for() {
    let orlop = Instance::with_busybox();
    let run = |name: &str, options: &[&str], command: &str| {
        let args = [
            &["run", "--name", name],
            options,
            &["busybox", "sh", "-c", command],
        ];
        orlop.run(&args.concat())
    };
    run("none", &["--log-driver", "none"], "echo hello")
        .success()
        .stdout_is("hello\n");
    orlop
        .run(&["logs", "none"])
        .exits(1)
        .stderr_has("configured logging driver does not support reading");
    assert_eq!(
        orlop.inspect("none", "{{.HostConfig.LogConfig.Type}}"),
        "none"
    );
    assert_eq!(orlop.inspect("none", "{{.LogPath}}"), "");
    run("local", &["--log-driver", "local"], "echo hello").success();
    orlop.run(&["logs", "local"]).success().stdout_is("hello\n");
    let sized = ["--log-opt", "max-size=2k", "--log-opt", "max-file=4"];
    run(
        "sized",
        &sized,
        "for i in $(seq 500); do echo $i; sleep 0; done",
    )
    .success();
    let lines = orlop.run(&["logs", "sized"]).success().stdout();
    let numbers: Vec<u32> = lines.lines().map(|line| line.parse().unwrap()).collect();
    let first = 501 - u32::try_from(numbers.len()).unwrap();
    assert!((300..490).contains(&first), "{first}");
    assert!(numbers.into_iter().eq(first..=500), "{lines}");
    let last = ["logs", "-n", "40", "sized"];
    assert_eq!(orlop.run(&last).success().stdout().lines().count(), 40);
    let log = std::path::PathBuf::from(orlop.inspect("sized", "{{.LogPath}}"));
    assert!(log.with_extension("log.3").exists());
    assert!(!log.with_extension("log.4").exists());
    assert_eq!(
        orlop.inspect("sized", "{{json .HostConfig.LogConfig}}"),
        r#"{"Config":{"max-file":"4","max-size":"2048"},"Type":"json-file"}"#
    );
    run("other", &["--log-driver", "syslog"], "true")
        .exits(125)
        .stderr_has("json-file");
}

#[test]
fn a_link_is_a_name_that_one_container_alone_knows() {
    let orlop = Instance::with_busybox();
    let run = |name: &str, options: &[&str]| {
        let args = [
            &["run", "-d", "--name", name],
            options,
            &["busybox", "sleep", "60"],
        ];
        orlop.run(&args.concat())
    };
    let knows = |container: &str, name: &str| {
        // Nobody serves: what is told is whether the name has an address.
        let url = format!("http://{name}/");
        let wget = ["exec", container, "timeout", "5", "wget", "-qO-", &url];
        !orlop.run(&wget).stderr().contains("bad address")
    };
    orlop.run(&["network", "create", "front"]).success();
    run("db", &["--network", "front"]).success();
    run("web", &["--network", "front", "--link", "db:store"]).success();
    run("other", &[]).success();
    assert!(knows("web", "store") && knows("web", "db"));
    let connect = ["network", "connect", "--link", "db:depot", "front", "other"];
    orlop.run(&connect).success();
    assert!(knows("other", "depot") && !knows("other", "store"));
    let links = "{{json .NetworkSettings.Networks.front.Links}}";
    assert_eq!(orlop.inspect("web", links), r#"["db:store"]"#);

    run("old", &[]).success();
    run("linked", &["--link", "old:legacy"]).success();
    assert!(knows("linked", "legacy") && knows("linked", "old"));
    assert!(!knows("other", "legacy"));
    // It comes back with another address.
    orlop.run(&["stop", "-t", "0", "old"]).success();
    run("taker", &[]).success();
    orlop.run(&["start", "old"]).success();
    let address = orlop.inspect("old", "{{.NetworkSettings.IPAddress}}");
    eventually("the line has its address", || {
        let show = ["exec", "linked", "grep", "legacy", "/etc/hosts"];
        orlop
            .run(&show)
            .stdout()
            .starts_with(&format!("{address}\t"))
    });
    run("lost", &["--link", "nobody"])
        .exits(125)
        .stderr_has("nobody");
    run("hosted", &["--network", "host", "--link", "old"])
        .exits(125)
        .stderr_has("host");
}

#[test]
fn memory_is_swapped_and_waited_for_as_asked_where_cgroups_can() {
    let orlop = Instance::with_busybox();
    let asked = [
        "--memory-swappiness",
        "7",
        "--oom-kill-disable",
        "-m",
        "64m",
    ];
    let run = [
        &["run", "-d", "--name", "box"],
        &asked[..],
        &["busybox", "sleep", "60"],
    ];
    let run = orlop.run(&run.concat()).success();
    let id = orlop.inspect("box", "{{.Id}}");
    let limits = "{{.HostConfig.MemorySwappiness}} {{.HostConfig.OomKillDisable}}";
    assert_eq!(orlop.inspect("box", limits), "7 true");
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let memory = groups.lines().find(|line| line.contains(":memory:"));
    let Some((_, path)) = memory.and_then(|line| line.split_once(":memory:")) else {
        return drop(run.stderr_has("--oom-kill-disable is discarded"));
    };
    assert!(path.ends_with(&id), "{path}");
    let group = std::path::Path::new("/sys/fs/cgroup/memory").join(&path[1..]);
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap();
    assert_eq!(read("memory.swappiness"), "7\n");
    assert!(read("memory.oom_control").starts_with("oom_kill_disable 1\n"));
    let loose = ["run", "--rm", "--oom-kill-disable", "busybox", "true"];
    orlop
        .run(&loose)
        .success()
        .stderr_has("no memory limit is set");
    let bad = ["run", "--memory-swappiness", "101", "busybox", "true"];
    orlop.run(&bad).exits(125).stderr_has("0 to 100");
}

#[test]
fn annotations_reach_the_document_of_the_runtime() {
    let orlop = Instance::with_busybox();
    let run = ["run", "-d", "--name", "box", "--annotation", "a.b=c d"];
    let run = [&run[..], &["busybox", "sleep", "60"]].concat();
    orlop.run(&run).success();
    let shown = orlop.inspect("box", "{{json .HostConfig.Annotations}}");
    assert_eq!(shown, r#"{"a.b":"c d"}"#);
    let log = std::path::PathBuf::from(orlop.inspect("box", "{{.LogPath}}"));
    let document = std::fs::read_to_string(log.with_file_name("config.json")).unwrap();
    assert!(document.contains(r#""a.b":"c d""#), "{document}");
    let ours = ["run", "--annotation", "org.orlop.seccomp=unconfined"];
    let ours = [&ours[..], &["busybox", "true"]].concat();
    orlop.run(&ours).exits(125).stderr_has("reserved");
}

#[test]
fn a_container_is_in_the_control_group_that_was_asked_for() {
    let orlop = Instance::with_busybox();
    let parent = format!("orlop-parent-{}", std::process::id());
    let path = format!("/{parent}/team");
    let run = ["run", "-d", "--name", "box", "--cgroup-parent", &path];
    let run = [&run[..], &["busybox", "sleep", "60"]].concat();
    let id = orlop.run(&run).success().line();
    assert_eq!(orlop.inspect("box", "{{.HostConfig.CgroupParent}}"), path);
    let pid = orlop.inspect("box", "{{.State.Pid}}");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = format!("{path}/{id}");
    assert!(groups.lines().any(|line| line.ends_with(&own)), "{groups}");
    orlop.run(&["exec", "box", "true"]).success();
    orlop.run(&["cp", "box:/etc/passwd", "-"]).success();
    orlop.run(&["rm", "-f", "box"]).success();
    let mounts = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let mounts = mounts.map(|entry| entry.path());
    for mount in mounts.chain(["/sys/fs/cgroup".into()]) {
        let group = mount.join(&parent).join("team");
        assert!(!group.join(&id).exists(), "{}", group.display());
        std::fs::remove_dir(&group).ok();
        std::fs::remove_dir(mount.join(&parent)).ok();
    }
    let ours = ["run", "--cgroup-parent", "/orlop/x", "busybox", "true"];
    orlop.run(&ours).exits(125).stderr_has("/orlop/x");
}
