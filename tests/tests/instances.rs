//! Several instances on one host, and many containers in one.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, eventually, http};

#[test]
fn two_instances_do_not_see_each_other() {
    let (one, two) = (Instance::start(), Instance::start());
    for (orlop, word) in [(&one, "one"), (&two, "two")] {
        orlop.import_busybox("busybox");
        orlop.serve_line("web", &["-p", "127.0.0.1:0:80"], word);
    }
    for (orlop, word) in [(&one, "one\n"), (&two, "two\n")] {
        let address = orlop.published("web", "80");
        eventually("each answers with its own word", || {
            http::serves(&address, word)
        });
        assert_eq!(
            orlop.run(&["ps", "-q"]).success().stdout().lines().count(),
            1
        );
    }
    one.run(&["rm", "-f", "web"]).success();
    two.run(&["ps", "--format", "{{.Names}}"])
        .success()
        .stdout_is("web\n");
}

/// Two hundred containers start, answer and stop; nothing of them is left.
#[test]
fn two_hundred_containers_leave_no_trace() {
    const COUNT: usize = 200;
    /// Namespaces that the runtime prepares ahead.
    const POOL: usize = 4;
    /// Layers of the image that they run.
    const LAYERS: usize = 1;
    let orlop = Instance::with_busybox();
    // The first start makes the bridge and the pool, which stay until `down`.
    orlop.run(&["run", "--rm", "busybox", "true"]).success();

    let before = orlop.host_state();
    let names: Vec<_> = (0..COUNT).map(|n| format!("box{n}")).collect();
    in_parallel(&names, |name| {
        orlop.serve_line(name, &["-p", "127.0.0.1:0:80"], name);
    });
    assert_eq!(
        orlop.run(&["ps", "-q"]).success().stdout().lines().count(),
        COUNT
    );
    in_parallel(&names, |name| {
        let address = orlop.published(name, "80");
        eventually("it answers with its own name", || {
            http::serves(&address, &format!("{name}\n"))
        });
    });
    in_parallel(&names, |name| {
        orlop.run(&["stop", "-t", "1", name]).success();
    });
    assert_eq!(orlop.run(&["ps", "-q"]).success().line(), "");
    let mut remove = vec!["rm"];
    remove.extend(names.iter().map(String::as_str));
    orlop.run(&remove).success();

    // What is left is what an idle instance has: the services, the bridge, the namespaces that are
    // prepared ahead, and the image's layer, mounted for the next container.
    eventually("nothing of the containers is left", || {
        let now = orlop.host_state();
        let files = std::fs::read_dir(orlop.root().join("runtime/containers"))
            .unwrap()
            .count();
        now.count("cgroup") == 0
            && now.count("mount") <= LAYERS
            && now.count("process") == 4
            && now.count("link") <= before.count("link").max(1 + POOL)
            && now.count("nftables") == before.count("nftables")
            && now.count("socket") <= before.count("socket")
            && files == 0
    });
    // Dropping the instance checks that nothing at all is left.
}

/// Runs the action for each name on a few threads.
fn in_parallel(names: &[String], action: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for chunk in names.chunks(names.len().div_ceil(8)) {
            scope.spawn(|| chunk.iter().for_each(|name| action(name)));
        }
    });
}
