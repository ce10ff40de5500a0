//! What a container used: the counters of its groups, version 1 and 2.

use std::fs;
use std::path::Path;

use orlop_shim::cgroups::counters::{self, group_of, read};
use orlop_shim::config::Cgroup;

/// Groups below a container's own that are looked into; deeper ones are nobody's good intention.
const DEPTH_MAX: usize = 16;

/// Counters; 0 where the kernel has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of all CPUs together, since the groups were made.
    pub(crate) cpu_nanos: u64,
    /// Bytes, without files that were read and not used since.
    pub(crate) memory: u64,
    /// Bytes; `None`: no limit.
    pub(crate) memory_limit: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: u64,
    /// Bytes read from block devices.
    pub(crate) read: u64,
    /// Bytes written to block devices.
    pub(crate) written: u64,
}

/// Reads the counters. What cannot be read counts as nothing: the container may just have ended.
pub(crate) fn usage(groups: &[Cgroup]) -> Usage {
    match groups.first() {
        Some(group) if group.controllers.is_none() => v2(&group.path),
        Some(_) => v1(groups),
        None => Usage::default(),
    }
}

/// Every process in a container's groups, and in those that were made below them, lowest first.
pub(crate) fn members(groups: &[Cgroup]) -> Vec<i32> {
    let Some(group) = group_of(groups, "pids").or(groups.first()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    collect(&group.path, DEPTH_MAX, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(group: &Path, depth: usize, found: &mut Vec<i32>) {
    let text = read(group, "cgroup.procs");
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|_| depth > 0) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, found);
        }
    }
}

fn v1(groups: &[Cgroup]) -> Usage {
    let file = |controller, file| {
        group_of(groups, controller).map_or_else(String::new, |group| read(&group.path, file))
    };
    let cached = field(&file("memory", "memory.stat"), "total_inactive_file");
    let memory = number(&file("memory", "memory.usage_in_bytes"));
    let io = file("blkio", "blkio.throttle.io_service_bytes_recursive");
    Usage {
        cpu_nanos: number(&file("cpuacct", "cpuacct.usage")),
        memory: memory.saturating_sub(cached),
        // "No limit" is a number that no machine has.
        memory_limit: Some(number(&file("memory", "memory.limit_in_bytes")))
            .filter(|limit| (1..1 << 62).contains(limit)),
        pids: number(&file("pids", "pids.current")),
        read: blkio(&io, "Read"),
        written: blkio(&io, "Write"),
    }
}

fn v2(group: &Path) -> Usage {
    let cached = field(&read(group, "memory.stat"), "inactive_file");
    let io = read(group, "io.stat");
    Usage {
        cpu_nanos: field(&read(group, "cpu.stat"), "usage_usec").saturating_mul(1000),
        memory: number(&read(group, "memory.current")).saturating_sub(cached),
        memory_limit: read(group, "memory.max").trim().parse().ok(),
        pids: number(&read(group, "pids.current")),
        read: io_stat(&io, "rbytes="),
        written: io_stat(&io, "wbytes="),
    }
}

fn number(text: &str) -> u64 {
    counters::number(text).unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    counters::field(text, name).unwrap_or_default()
}

/// `8:0 Read 123`, all devices together.
fn blkio(text: &str, operation: &str) -> u64 {
    let bytes = text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == operation).then(|| number(words.next().unwrap_or_default()))
    });
    bytes.fold(0, u64::saturating_add)
}

/// `8:0 rbytes=123 wbytes=456 …`, all devices together.
fn io_stat(text: &str, key: &str) -> u64 {
    let words = text.split_whitespace();
    let bytes = words.filter_map(|word| word.strip_prefix(key));
    bytes.map(number).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn group(path: &Path, controllers: Option<&str>) -> Cgroup {
        Cgroup {
            path: path.to_owned(),
            controllers: controllers.map(str::to_owned),
        }
    }

    #[test]
    fn version_2_counts_without_inactive_files() {
        let tree = tree(&[
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 4000\ninactive_file 1000\n"),
            ("memory.max", "max\n"),
            ("pids.current", "3\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n",
            ),
        ]);
        let expected = Usage {
            cpu_nanos: 1_500_000,
            memory: 4000,
            memory_limit: None,
            pids: 3,
            read: 11,
            written: 22,
        };
        assert_eq!(usage(&[group(tree.path(), None)]), expected);
    }

    #[test]
    fn version_1_counts_in_several_hierarchies() {
        let tree = tree(&[
            ("cpu/cpuacct.usage", "77\n"),
            ("memory/memory.usage_in_bytes", "5000\n"),
            (
                "memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file 2000\n",
            ),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("pids/pids.current", "4\n"),
            (
                "blkio/blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\nTotal 31\n",
            ),
        ]);
        let own = |name: &str, controllers| group(&tree.path().join(name), Some(controllers));
        let groups = [
            own("cpu", "cpu,cpuacct"),
            own("memory", "memory"),
            own("pids", "pids"),
            own("blkio", "blkio"),
        ];
        let expected = Usage {
            cpu_nanos: 77,
            memory: 3000,
            memory_limit: None,
            pids: 4,
            read: 11,
            written: 20,
        };
        assert_eq!(usage(&groups), expected);
    }

    #[test]
    fn processes_are_found_in_groups_below_too() {
        let tree = tree(&[("cgroup.procs", "7\n3\n"), ("a/b/cgroup.procs", "5\nx\n")]);
        assert_eq!(members(&[group(tree.path(), None)]), [3, 5, 7]);
        assert_eq!(members(&[]), [0; 0]);
    }

    #[test]
    fn a_group_that_is_gone_used_nothing() {
        let gone = group(Path::new("/nonexistent"), None);
        assert_eq!(usage(&[gone]), Usage::default());
    }
}
