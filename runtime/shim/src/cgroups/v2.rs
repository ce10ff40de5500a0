//! Version 2: one tree for all controllers.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxResources};

use super::{Write, disk_weights, huge_pages};

/// What a container's group needs from its parents.
const CONTROLLERS: [&str; 6] = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb"];

/// Where version 2 is mounted, from `/proc/self/mountinfo`.
pub fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mount = left.split(' ').nth(4)?;
        right.starts_with("cgroup2 ").then(|| mount.into())
    })
}

/// Lets the children of a group use the controllers. One that cannot be had is noticed when a limit
/// needs it.
pub fn delegate(group: &Path) {
    let path = group.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&path).unwrap_or_default();
    for controller in CONTROLLERS {
        if !enabled.split_whitespace().any(|own| own == controller) {
            fs::write(&path, format!("+{controller}")).ok();
        }
    }
}

/// What is written, in order.
pub fn plan(limits: &LinuxResources) -> Vec<Write> {
    let mut plan = Vec::new();
    let mut write = |controller, file: &'static str, value: String, optional| {
        plan.push(Write {
            controller,
            file: file.into(),
            value,
            optional,
        });
    };
    if let Some(memory) = limits.memory() {
        if let Some(limit) = memory.limit() {
            write("memory", "memory.max", limit.to_string(), false);
        }
        if let Some(swap) = memory.swap() {
            let value = swap_alone(memory.limit().unwrap_or(0), swap);
            write("memory", "memory.swap.max", value, true);
        }
        if let Some(low) = memory.reservation() {
            write("memory", "memory.low", low.to_string(), false);
        }
    }
    if let Some(cpu) = limits.cpu() {
        if let Some(shares) = cpu.shares() {
            write("cpu", "cpu.weight", weight(shares).to_string(), false);
        }
        if let (Some(quota), Some(period)) = (cpu.quota(), cpu.period()) {
            let quota = match quota {
                ..0 => "max".to_owned(),
                _ => quota.to_string(),
            };
            write("cpu", "cpu.max", format!("{quota} {period}"), false);
        }
        if let Some(cpus) = cpu.cpus() {
            write("cpuset", "cpuset.cpus", cpus.clone(), false);
        }
        if let Some(mems) = cpu.mems() {
            write("cpuset", "cpuset.mems", mems.clone(), false);
        }
    }
    if let Some(io) = limits.block_io() {
        if let Some(weight) = io.weight() {
            write("io", "io.bfq.weight", weight.to_string(), false);
        }
        for (file, value) in disks(io) {
            write("io", file, value, false);
        }
    }
    if let Some(pids) = limits.pids() {
        // Not refused where nobody asked for a limit and the controller cannot be had.
        let (value, optional) = match pids.limit() {
            limit if limit > 0 => (limit.to_string(), false),
            _ => ("max".to_owned(), true),
        };
        write("pids", "pids.max", value, optional);
    }
    plan.extend(huge_pages(limits, "max"));
    plan
}

/// What is written for single disks: a key of a line for each limit; the kernel keeps the others.
fn disks(io: &LinuxBlockIo) -> Vec<(&'static str, String)> {
    let weights = disk_weights(io).map(|value| ("io.bfq.weight", value));
    let mut plan: Vec<_> = weights.collect();
    for (key, devices) in [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ] {
        plan.extend(devices.iter().flatten().map(|device| {
            let (major, minor) = (device.major(), device.minor());
            ("io.max", format!("{major}:{minor} {key}={}", device.rate()))
        }));
    }
    plan
}

/// The request counts memory and swap together, version 2 swap alone.
pub fn swap_alone(memory: i64, both: i64) -> String {
    match both {
        ..0 => "max".to_owned(),
        _ => both.saturating_sub(memory).max(0).to_string(),
    }
}

/// Shares of 2 to 262,144 as a weight of 1 to 10,000: the kernel documentation's line, as in crun.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let asked = r#"{"memory": {"limit": 67108864, "swap": 100663296}, "pids": {"limit": 2048},
                        "cpu": {"quota": 50000, "period": 100000, "shares": 1024, "cpus": "0"},
                        "blockIO": {"weight": 300,
                                    "weightDevice": [{"major": 8, "minor": 1, "weight": 10}],
                                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]},
                        "hugepageLimits": [{"pageSize": "1GB", "limit": 0}]}"#;
        let plan = plan(&serde_json::from_str(asked).unwrap());
        let files: Vec<(&str, &str)> = plan.iter().map(|w| (&*w.file, w.value.as_str())).collect();
        assert_eq!(
            files,
            [
                ("memory.max", "67108864"),
                ("memory.swap.max", "33554432"),
                ("cpu.weight", "39"),
                ("cpu.max", "50000 100000"),
                ("cpuset.cpus", "0"),
                ("io.bfq.weight", "300"),
                ("io.bfq.weight", "8:1 10"),
                ("io.max", "8:0 wiops=9"),
                ("pids.max", "2048"),
                ("hugetlb.1GB.max", "0"),
            ]
        );
    }

    #[test]
    fn unlimited_swap_and_the_ends_of_the_weights() {
        assert_eq!(swap_alone(1, -1), "max");
        assert_eq!(weight(0), 1);
        assert_eq!(weight(262_144), 10_000);
        assert_eq!(weight(u64::MAX), 10_000);
    }
}
