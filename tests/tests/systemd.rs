//! `orlop-oci` where systemd owns the control groups: on a host that is a container of ours with systemd.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::Command;

use orlop_tests::{Bundle, Instance, binary, eventually};
use serde_json::json;

/// What of this machine the host has.
const SHARED: [[&str; 2]; 6] = [
    ["/usr", "/usr"],
    ["/etc", "/etc"],
    ["/usr/bin", "/bin"],
    ["/usr/sbin", "/sbin"],
    ["/usr/lib", "/lib"],
    ["/usr/lib64", "/lib64"],
];

/// Where version 1 is mounted, the hierarchies that systemd looks at are no container's own: it gets a part
/// of them for itself.
const BEGIN: &str = r#"
trees() {
    mkdir -p /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
}
set -e
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    exec /usr/lib/systemd/systemd --unit=basic.target
fi
trees
for tree in systemd unified; do
    mkdir "/sys/fs/cgroup/$tree/$OWN"
    echo $$ >"/sys/fs/cgroup/$tree/$OWN/cgroup.procs"
    umount "/sys/fs/cgroup/$tree"
done
exec unshare --cgroup sh -c "$(typeset -f trees); trees; exec /usr/lib/systemd/systemd --unit=basic.target"
"#;

/// A host that systemd has begun, and a bundle there at `/bundle`.
struct Host {
    orlop: Instance,
    bundle: Bundle,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            orlop: Instance::with_busybox(),
            bundle: Bundle::of_an_image(),
        };
        let own = format!("OWN={}", host.bundle.id);
        let mut args = vec!["run", "-d", "--name", "host", "--privileged"];
        args.extend([
            "--cgroupns",
            "private",
            "-e",
            "container=docker",
            "-e",
            &own,
        ]);
        args.extend(["--tmpfs", "/run", "--tmpfs", "/tmp", "--tmpfs", "/var"]);
        let binaries = binary("orlop-oci").parent().unwrap().to_owned();
        let mut mounts = SHARED.map(|[from, to]| format!("{from}:{to}:ro")).to_vec();
        mounts.push(format!("{}:/orlop:ro", binaries.display()));
        mounts.push(format!("{}:/bundle", host.bundle.path("").display()));
        args.extend(mounts.iter().flat_map(|mount| ["-v", mount.as_str()]));
        args.extend(["busybox", "bash", "-c", BEGIN]);
        host.orlop.run(&args).success();
        eventually("systemd has begun", || {
            host.says("systemctl is-active basic.target") == "active"
        });
        host
    }

    /// Runs a script there; what it says.
    fn says(&self, script: &str) -> String {
        let output = self.orlop.run(&["exec", "host", "bash", "-c", script]);
        output.stdout().trim().to_owned()
    }

    /// `orlop-oci --systemd-cgroup ARGS`; what it says, and its exit code after that.
    fn oci(&self, args: &str) -> String {
        let oci = "/orlop/orlop-oci --root /run/oci --systemd-cgroup";
        self.says(&format!(
            "cd /bundle; {oci} {args} </dev/null >said 2>&1; code=$?; cat said; echo $code"
        ))
    }

    /// A control file of the container, in whichever hierarchy has it.
    fn file(&self, name: &str) -> String {
        self.says(&format!(
            "cat $(find /sys/fs/cgroup -path '*/a.slice/a-b.slice/ours-c.scope/{name}' | head -n 1)"
        ))
    }

    fn show(&self, property: &str) -> String {
        self.says(&format!(
            "systemctl show --value -p {property} ours-c.scope"
        ))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.orlop.run(&["rm", "-f", "host"]));
        for tree in ["systemd", "unified"] {
            let own = Path::new("/sys/fs/cgroup").join(tree).join(&self.bundle.id);
            let mut find = Command::new("find");
            find.arg(&own).args(["-depth", "-type", "d", "-delete"]);
            drop(find.output());
        }
    }
}

/// A limit as either version of control groups has it.
fn limit(host: &Host, one: &str, two: &str) -> String {
    let of_one = host.file(one);
    match of_one.is_empty() {
        true => host.file(two),
        false => of_one,
    }
}

#[test]
fn a_container_is_a_scope_with_its_limits_until_it_is_deleted() {
    let host = Host::new();
    host.bundle.configure(&["sleep", "1000"], |spec| {
        spec["linux"]["cgroupsPath"] = json!("a-b.slice:ours:c");
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864}, "pids": {"limit": 77}, "cpu": {"shares": 512},
            "devices": [{"allow": false, "access": "rwm"}],
        });
    });
    assert_eq!(host.oci("run --detach c"), "0");
    assert_eq!(host.show("ActiveState"), "active");
    assert_eq!(host.show("Slice"), "a-b.slice");
    let groups = host.says("cat /proc/$(/orlop/orlop-oci --root /run/oci ps c | tail -n 1)/cgroup");
    for line in groups.lines() {
        assert!(line.ends_with(":/a.slice/a-b.slice/ours-c.scope"), "{line}");
    }

    // systemd sets again what it knows of, and undoes nothing else.
    let devices = host.file("devices.list");
    let shares = limit(&host, "cpu.shares", "cpu.weight");
    host.says("systemctl daemon-reload");
    assert_eq!(host.show("TasksMax"), "77");
    assert_eq!(host.file("pids.max"), "77");
    let memory = limit(&host, "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, "67108864");
    assert_eq!(limit(&host, "cpu.shares", "cpu.weight"), shares);
    assert_eq!(host.file("devices.list"), devices);

    let second = host.oci("create d");
    assert!(
        second.contains("ours-c.scope") && second.ends_with('1'),
        "{second}"
    );
    fs::write(host.bundle.path("resources"), r#"{"pids": {"limit": 55}}"#).unwrap();
    assert_eq!(host.oci("update --resources resources c"), "0");
    assert_eq!(
        (host.show("TasksMax"), host.file("pids.max")),
        ("55".into(), "55".into())
    );

    assert_eq!(host.oci("delete --force c"), "0");
    eventually("the scope is gone", || {
        host.show("LoadState") == "not-found"
    });
    let left = host.says("find /sys/fs/cgroup -name ours-c.scope; ls /run/oci");
    assert_eq!(left, "");
}

#[test]
fn a_container_that_ends_by_itself_leaves_no_scope() {
    let host = Host::new();
    host.bundle.configure(&["true"], |spec| {
        spec["linux"]["cgroupsPath"] = json!("a-b.slice:ours:c");
    });
    assert_eq!(host.oci("run c"), "0");
    host.bundle.configure(&["no-such-program"], |spec| {
        spec["linux"]["cgroupsPath"] = json!("a-b.slice:ours:c");
    });
    let failed = host.oci("run c");
    assert!(
        failed.contains("no-such-program") && failed.ends_with('1'),
        "{failed}"
    );
    host.bundle.configure(&["true"], |_| {});
    let odd = host.oci("run c");
    assert!(
        odd.contains("SLICE:PREFIX:NAME") && odd.ends_with('1'),
        "{odd}"
    );
    eventually("the scope is gone", || {
        host.show("LoadState") == "not-found"
    });
    let left = host.says("find /sys/fs/cgroup -name ours-c.scope; ls /run/oci");
    assert_eq!(left, "");
}
