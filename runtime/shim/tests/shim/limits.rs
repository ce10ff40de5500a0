//! Cgroups (v1 on this kind of machine): memory, processes.

use serde_json::json;

use crate::lifecycle::wait_for;
use crate::support::Box;

#[test]
fn a_container_beyond_its_memory_is_killed_and_says_so() {
    let mut container = Box::new(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    container.cgroup(&[("memory", &[("memory.limit_in_bytes", "16777216")])]);
    container.start();
    container.ended();
    let exit = container.exit();
    assert_eq!(exit.code, 137);
    assert!(exit.oom_killed);
}

#[test]
fn a_container_has_no_more_processes_than_it_may() {
    let mut container = Box::shell("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all");
    container.cgroup(&[("pids", &[("pids.max", "5")])]);
    let (code, output) = container.run();
    assert_ne!(code, 0);
    assert!(!output.contains("all"), "{output}");
}

#[test]
fn b35_the_first_instruction_is_in_the_cgroup_and_later_processes_as_well() {
    let mut container = Box::shell("cat /proc/self/cgroup; sleep 100");
    container.cgroup(&[("memory", &[]), ("pids", &[]), ("freezer", &[])]);
    let pid = container.start().to_string();
    wait_for(|| container.output().contains("0::/"));
    let (_, text) = container.exec("", &["cat", "/proc/self/cgroup"]);
    for text in [text, container.output()] {
        for controller in ["memory", "pids", "freezer"] {
            // In a cgroup namespace of its own the container's cgroup is the root.
            assert!(text.contains(&format!(":{controller}:/\n")), "{text}");
        }
    }
    for cgroup in &container.config.cgroups {
        let members = std::fs::read_to_string(cgroup.path.join("cgroup.procs")).unwrap();
        assert!(members.lines().any(|line| line == pid), "{members}");
    }
}

#[test]
fn a_process_that_outlives_the_first_is_killed_through_the_cgroup() {
    let mut container = Box::shell("sleep 1000 & exit 0");
    container.cgroup(&[("pids", &[])]);
    let namespaces = container.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let (code, _) = container.run();
    assert_eq!(code, 0);
    let members = std::fs::read_to_string(container.config.cgroups[0].path.join("cgroup.procs"));
    assert_eq!(members.unwrap(), "");
}

#[test]
fn a_v2_cgroup_is_entered_by_the_clone() {
    let mut container = Box::shell(
        "cat /proc/self/cgroup | grep ^0:; head -c 1 /dev/zero | wc -c; \
        (head -c 1 /dev/full) 2>&1",
    );
    let path = std::path::PathBuf::from(format!(
        "/sys/fs/cgroup/unified/orlop-test-{}-v2",
        std::process::id()
    ));
    if std::fs::create_dir(&path).is_err() {
        return; // a host without the unified hierarchy at this place
    }
    container.config.cgroups.push(orlop_shim::config::Cgroup {
        path,
        controllers: None,
    });
    container.spec["linux"]["resources"] = json!({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"}]});
    let (_, output) = container.run();
    assert!(output.starts_with("0::/\n1\n"), "{output}");
    assert!(output.contains("not permitted"), "{output}");
}

#[test]
fn b11_the_container_sees_its_own_cgroup_and_cannot_write_it() {
    let mut container = Box::shell(
        "ls /sys/fs/cgroup; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; \
         cat /sys/fs/cgroup/pids/cgroup.procs | head -n 1; \
         (echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes) 2>/dev/null && echo written; \
         mkdir /sys/fs/cgroup/pids/x 2>/dev/null && echo made; \
         mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; exit 0",
    );
    container.cgroup(&[
        ("memory", &[("memory.limit_in_bytes", "67108864")]),
        ("pids", &[]),
    ]);
    container.mount(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
    );
    let (code, output) = container.run();
    assert_eq!(code, 0, "{}", container.own_log());
    assert_eq!(output, "memory\npids\n67108864\n1\n");
}

#[test]
fn what_is_left_in_a_group_ends_with_it() {
    let mut container = Box::new(&["true"]);
    container.cgroup(&[("pids", &[]), ("freezer", &[])]);
    let mut left = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    for cgroup in &container.config.cgroups {
        let file = cgroup.path.join("cgroup.procs");
        std::fs::write(file, left.id().to_string()).unwrap();
    }
    let waited = std::thread::spawn(move || left.wait().unwrap());
    for cgroup in &container.config.cgroups {
        orlop_shim::cgroups::remove(&cgroup.path, &container.config.cgroups).unwrap();
        assert!(!cgroup.path.exists());
    }
    assert!(!waited.join().unwrap().success());
}
