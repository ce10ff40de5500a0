//! What an instance could leave behind on its host: mounts, network links and namespaces, nftables,
//! cgroups, processes, sockets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What there is on the host that could be of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState(BTreeSet<String>);

impl HostState {
    /// What belongs to the instance with this root: everything whose name or path has the root in it,
    /// and the bridge, tables and cgroups that carry the instance's name.
    pub fn of(root: &Path, instance: &str) -> Self {
        let root = root.to_string_lossy();
        let mut found = BTreeSet::new();
        let mut add = |kind: &str, line: &str| {
            found.insert(format!("{kind}: {line}"));
        };
        for line in read("/proc/self/mountinfo")
            .lines()
            .filter(|line| line.contains(&*root))
        {
            add("mount", line.split(' ').nth(4).unwrap_or(line));
        }
        for line in read("/proc/net/unix")
            .lines()
            .filter(|line| line.contains(&*root))
        {
            add("socket", line.split_whitespace().last().unwrap_or(line));
        }
        for link in names("/sys/class/net")
            .into_iter()
            .filter(|name| name.contains(instance))
        {
            add("link", &link);
        }
        for table in tables().lines().filter(|line| line.contains(instance)) {
            add("nftables", table);
        }
        for cgroup in cgroups(instance) {
            add("cgroup", &cgroup);
        }
        for process in processes(&root) {
            add("process", &process);
        }
        Self(found)
    }

    /// Fails the test unless nothing is left, giving slow removals a little time.
    #[track_caller]
    pub fn assert_gone(root: &Path, instance: &str) {
        let mut last = Self::of(root, instance);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !last.0.is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
            last = Self::of(root, instance);
        }
        assert!(last.0.is_empty(), "left behind: {:#?}", last.0);
    }

    /// How many there are of a kind: `mount`, `socket`, `link`, `nftables`, `cgroup`, `process`.
    pub fn count(&self, kind: &str) -> usize {
        self.0
            .iter()
            .filter(|line| line.starts_with(&format!("{kind}: ")))
            .count()
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The host's nftables, one a line.
fn tables() -> String {
    let list = Command::new("nft").args(["list", "tables"]).output();
    let list = list.expect("install nftables (make test does)");
    String::from_utf8_lossy(&list.stdout).into_owned()
}

/// Cgroups of the instance: `orlop/INSTANCE/…` below any hierarchy.
fn cgroups(instance: &str) -> Vec<String> {
    let mut hierarchies = names("/sys/fs/cgroup");
    hierarchies.push(String::new());
    let base = Path::new("/sys/fs/cgroup");
    let mut found = Vec::new();
    for hierarchy in hierarchies {
        let path = base.join(hierarchy).join("orlop").join(instance);
        for child in names(&path)
            .into_iter()
            .filter(|child| path.join(child).is_dir())
        {
            found.push(path.join(child).display().to_string());
        }
    }
    found
}

/// Processes whose command line names the root: services and shims.
fn processes(root: &str) -> Vec<String> {
    let pids = names("/proc")
        .into_iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let lines = pids.map(|pid| (pid.clone(), read(&format!("/proc/{pid}/cmdline"))));
    lines
        .filter(|(_, line)| line.contains(root) && line.contains("orlop"))
        .map(|(pid, line)| format!("{pid} {}", line.replace('\0', " ")))
        .collect()
}
