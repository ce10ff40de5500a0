//! The counters of a container's groups, in the words of runc's `events`. What the kernel does not have
//! is left out.

use std::path::Path;

use orlop_shim::cgroups::counters::{self, field, group_of, number};
use orlop_shim::config::Cgroup;
use serde_json::{Map, Value, json};

const NANOS_PER_MICRO: u64 = 1000;

/// Reads them all.
pub(crate) fn read(groups: &[Cgroup]) -> Value {
    match groups.first() {
        Some(group) if group.controllers.is_none() => v2(&group.path),
        _ => v1(groups),
    }
}

fn v1(groups: &[Cgroup]) -> Value {
    let file = |controller: &str, file: &str| {
        group_of(groups, controller)
            .map_or_else(String::new, |group| counters::read(&group.path, file))
    };
    let ticks = |name| field(&file("cpuacct", "cpuacct.stat"), name).map(from_ticks);
    let percpu = file("cpuacct", "cpuacct.usage_percpu");
    let percpu: Vec<u64> = percpu.split_whitespace().filter_map(number).collect();
    let memory = |name: &str| {
        let file = |end| number(&file("memory", &format!("{name}.{end}")));
        entry(
            file("usage_in_bytes"),
            file("limit_in_bytes"),
            file("max_usage_in_bytes"),
            file("failcnt"),
        )
    };
    let raw = raw(&file("memory", "memory.stat"));
    let throttled = file("cpu", "cpu.stat");
    dense(json!({
        "cpu": {
            "usage": {
                "total": number(&file("cpuacct", "cpuacct.usage")), "percpu": percpu,
                "kernel": ticks("system"), "user": ticks("user"),
            },
            "throttling": throttling(&throttled, field(&throttled, "throttled_time")),
        },
        "memory": {
            "cache": raw.get("cache"), "usage": memory("memory"), "swap": memory("memory.memsw"),
            "kernel": memory("memory.kmem"), "kernelTCP": memory("memory.kmem.tcp"), "raw": raw,
        },
        "pids": pids(&file("pids", "pids.current"), &file("pids", "pids.max")),
        "blkio": {
            "ioServiceBytesRecursive": blkio(&file("blkio", "blkio.throttle.io_service_bytes_recursive")),
            "ioServicedRecursive": blkio(&file("blkio", "blkio.throttle.io_serviced_recursive")),
        },
    }))
}

fn v2(group: &Path) -> Value {
    let file = |file| counters::read(group, file);
    let cpu = file("cpu.stat");
    let nanos = |name| field(&cpu, name).map(|micros| micros.saturating_mul(NANOS_PER_MICRO));
    let raw = raw(&file("memory.stat"));
    let used = number(&file("memory.current"));
    let swapped = number(&file("memory.swap.current"));
    // As version 1 counts: memory and swap together.
    let both = used.zip(swapped).map(|(used, swapped)| used + swapped);
    let failed = field(&file("memory.events"), "max");
    let (limit, peak) = (limit(&file("memory.max")), number(&file("memory.peak")));
    let swap_limit = self::limit(&file("memory.swap.max"));
    let both_limit = limit.zip(swap_limit).map(|(a, b)| a.saturating_add(b));
    let io = file("io.stat");
    dense(json!({
        "cpu": {
            "usage": {
                "total": nanos("usage_usec"), "kernel": nanos("system_usec"), "user": nanos("user_usec"),
            },
            "throttling": throttling(&cpu, nanos("throttled_usec")),
        },
        "memory": {
            "cache": raw.get("file"), "usage": entry(used, limit, peak, failed),
            "swap": entry(both, both_limit, None, None), "raw": raw,
        },
        "pids": pids(&file("pids.current"), &file("pids.max")),
        "blkio": {
            "ioServiceBytesRecursive": io_stat(&io, [("rbytes", "Read"), ("wbytes", "Write")]),
            "ioServicedRecursive": io_stat(&io, [("rios", "Read"), ("wios", "Write")]),
        },
    }))
}

/// Without what is null or empty.
fn dense(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return value;
    };
    let fields = fields.into_iter().map(|(name, value)| (name, dense(value)));
    let empty = |value: &Value| {
        value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(Map::is_empty)
    };
    fields.filter(|(_, value)| !empty(value)).collect()
}

fn entry(usage: Option<u64>, limit: Option<u64>, max: Option<u64>, failed: Option<u64>) -> Value {
    json!({"usage": usage, "limit": limit, "max": max, "failcnt": failed})
}

fn throttling(stat: &str, nanos: Option<u64>) -> Value {
    json!({
        "periods": field(stat, "nr_periods"), "throttledPeriods": field(stat, "nr_throttled"),
        "throttledTime": nanos,
    })
}

/// No limit is 0.
fn pids(current: &str, max: &str) -> Value {
    match number(current) {
        Some(current) => json!({"current": current, "limit": number(max).unwrap_or_default()}),
        None => Value::Null,
    }
}

/// `8:0 Read 123`.
fn blkio(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        let (operation, value) = (words.next()?, number(words.next()?)?);
        Some(operated(major, minor, operation, value))
    });
    lines.collect()
}

/// `8:0 rbytes=123 wbytes=456 …`.
fn io_stat(text: &str, names: [(&str, &str); 2]) -> Vec<Value> {
    let mut found = Vec::new();
    for line in text.lines() {
        let (device, counters) = line.split_once(' ').unwrap_or((line, ""));
        let (major, minor) = device.split_once(':').unwrap_or((device, "0"));
        for (key, value) in counters.split(' ').filter_map(|word| word.split_once('=')) {
            let name = names.iter().find(|(name, _)| *name == key);
            if let Some(((_, operation), value)) = name.zip(number(value)) {
                found.push(operated(major, minor, operation, value));
            }
        }
    }
    found
}

fn operated(major: &str, minor: &str, operation: &str, value: u64) -> Value {
    json!({"major": number(major), "minor": number(minor), "op": operation, "value": value})
}

/// A number, or `max`, which is as much as there can be.
fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => number(text),
    }
}

/// Every `name 123`.
fn raw(text: &str) -> Map<String, Value> {
    let words = text.lines().filter_map(|line| line.split_once(' '));
    let numbers = words.filter_map(|(key, value)| Some((key.to_owned(), number(value)?.into())));
    numbers.collect()
}

/// Nanoseconds of clock ticks.
fn from_ticks(ticks: u64) -> u64 {
    let nanos = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(nanos)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use orlop_shim::cgroups::counters::oom_kills;

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
    fn version_2_is_told_in_the_words_of_version_1() {
        let tree = tree(&[
            (
                "cpu.stat",
                "usage_usec 15\nuser_usec 10\nsystem_usec 5\nnr_periods 1\nnr_throttled 0\nthrottled_usec 2\n",
            ),
            ("memory.current", "5000\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "7\n"),
            ("memory.stat", "anon 4000\nfile 1000\n"),
            ("memory.events", "low 0\nmax 3\noom_kill 2\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:16 rbytes=10 wbytes=20 rios=1 wios=2\n"),
        ]);
        let groups = [group(tree.path(), None)];
        assert_eq!(oom_kills(&groups), 2);
        let expected = json!({
            "cpu": {
                "usage": {"total": 15000, "kernel": 5000, "user": 10000},
                "throttling": {"periods": 1, "throttledPeriods": 0, "throttledTime": 2000},
            },
            "memory": {
                "cache": 1000, "usage": {"usage": 5000, "limit": u64::MAX, "failcnt": 3},
                "swap": {"usage": 5007}, "raw": {"anon": 4000, "file": 1000},
            },
            "pids": {"current": 3, "limit": 0},
            "blkio": {
                "ioServiceBytesRecursive": [
                    {"major": 8, "minor": 16, "op": "Read", "value": 10},
                    {"major": 8, "minor": 16, "op": "Write", "value": 20},
                ],
                "ioServicedRecursive": [
                    {"major": 8, "minor": 16, "op": "Read", "value": 1},
                    {"major": 8, "minor": 16, "op": "Write", "value": 2},
                ],
            },
        });
        assert_eq!(read(&groups), expected);
    }

    #[test]
    fn version_1_is_told_of_all_its_hierarchies() {
        let tree = tree(&[
            ("cpu/cpuacct.usage", "77\n"),
            ("cpu/cpuacct.usage_percpu", "70 7 \n"),
            (
                "cpu/cpu.stat",
                "nr_periods 4\nnr_throttled 1\nthrottled_time 9\n",
            ),
            ("memory/memory.usage_in_bytes", "5000\n"),
            ("memory/memory.limit_in_bytes", "8192\n"),
            (
                "memory/memory.oom_control",
                "oom_kill_disable 0\noom_kill 1\n",
            ),
            (
                "blkio/blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 10\nTotal 10\n",
            ),
        ]);
        let own = |name: &str, controllers| group(&tree.path().join(name), Some(controllers));
        let groups = [
            own("cpu", "cpu,cpuacct"),
            own("memory", "memory"),
            own("blkio", "blkio"),
        ];
        assert_eq!(oom_kills(&groups), 1);
        let expected = json!({
            "cpu": {
                "usage": {"total": 77, "percpu": [70, 7]},
                "throttling": {"periods": 4, "throttledPeriods": 1, "throttledTime": 9},
            },
            "memory": {"usage": {"usage": 5000, "limit": 8192}},
            "blkio": {
                "ioServiceBytesRecursive": [{"major": 8, "minor": 0, "op": "Read", "value": 10}],
            },
        });
        assert_eq!(read(&groups), expected);
    }
}
