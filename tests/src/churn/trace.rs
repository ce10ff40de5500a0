//! What an instance has on its host and below its root: counts by kind, which are the same before containers were
//! there and after they went.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Instance;

/// Kinds of [`HostState`](crate::HostState).
const ON_HOST: [&str; 5] = ["mount", "socket", "link", "cgroup", "process"];
/// Below the root: what holds nothing of a container's, or is an index that keeps its space.
const NOT_COUNTED: [&str; 2] = ["logs", "index"];

/// How many there are of each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace(BTreeMap<&'static str, usize>);

impl Trace {
    /// What there is now.
    pub fn of(instance: &Instance) -> Self {
        let host = instance.host_state();
        let mut counts: BTreeMap<_, _> = ON_HOST.map(|kind| (kind, host.count(kind))).into();
        let service = instance.service_pid("runtime");
        counts.insert("nftables line", table(&instance.name()));
        counts.insert("namespace held by the service", namespaces(service));
        counts.insert("file below the root", files(instance.root()));
        Self(counts)
    }

    /// What there is once two looks a moment apart are equal.
    pub fn at_rest(instance: &Instance) -> Self {
        let mut last = Self::of(instance);
        crate::eventually("the instance is at rest", || {
            std::thread::sleep(Duration::from_secs(1));
            let now = Self::of(instance);
            let rests = now == last;
            last = now;
            rests
        });
        last
    }

    /// What is there in greater number than before, in words.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let more = self
            .0
            .iter()
            .filter(|(kind, count)| **count > before.0[*kind]);
        more.map(|(kind, count)| format!("{kind}: {count}, before {}", before.0[kind]))
            .collect()
    }
}

/// Lines of the instance's tables without counters, which only grow.
fn table(instance: &str) -> usize {
    let list = Command::new("nft").args(["-s", "list", "ruleset"]).output();
    let list = String::from_utf8_lossy(&list.expect("install nftables").stdout).into_owned();
    let tables = list.split("\ntable ").filter(|table| {
        table
            .lines()
            .next()
            .is_some_and(|first| first.contains(instance))
    });
    // Elements share lines: each has its comma.
    // The last one of all ends with one line more.
    let lines = |table: &str| table.trim_end().matches(['\n', ',']).count();
    tables.map(lines).sum()
}

fn namespaces(pid: i32) -> usize {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    open.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("net:["))
        .count()
}

/// Files and directories below one that are of its own file system: mounted layers come and go.
fn files(directory: &Path) -> usize {
    let device = |path: &Path| {
        fs::symlink_metadata(path)
            .map(|metadata| metadata.dev())
            .ok()
    };
    let own = device(directory);
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let counted = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        device(&entry.path()) == own && !NOT_COUNTED.iter().any(|skipped| name == *skipped)
    });
    counted
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + files(&entry.path()),
            _ => 1,
        })
        .sum()
}
