//! Version 1: a mount per hierarchy, each with some controllers.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxMemory, LinuxResources};

use super::{Error, Result, Write, disk_weights, huge_pages};

/// The controllers that a container is put under; the others' groups would only cost time.
const USED: [&str; 9] = [
    "memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer", "blkio", HUGE_PAGES,
];
/// The one of these that a container is put under only if it has a limit there.
pub(super) const HUGE_PAGES: &str = "hugetlb";

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Separated by commas.
    pub controllers: String,
}

impl Hierarchy {
    /// Whether a controller is in it.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|own| own == controller)
    }
}

/// The hierarchies that we use, from `/proc/self/mountinfo` (proc(5)).
pub fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mountinfo.lines().filter_map(hierarchy) {
        if !found.iter().any(|h| h.controllers == hierarchy.controllers) {
            found.push(hierarchy);
        }
    }
    found
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mount = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    if right.next()? != "cgroup" {
        return None;
    }
    let controllers: Vec<&str> = right
        .nth(1)?
        .split(',')
        .filter(|option| USED.contains(option))
        .collect();
    (!controllers.is_empty()).then(|| Hierarchy {
        mount: mount.into(),
        controllers: controllers.join(","),
    })
}

/// What is written, in order.
pub fn plan(limits: &LinuxResources) -> Vec<Write> {
    let mut plan = limits.memory().as_ref().map_or_else(Vec::new, memory);
    let mut write = |controller, file: &'static str, value: String, optional| {
        plan.push(Write {
            controller,
            file: file.into(),
            value,
            optional,
        });
    };
    if let Some(cpu) = limits.cpu() {
        if let Some(shares) = cpu.shares() {
            write("cpu", "cpu.shares", shares.to_string(), false);
        }
        if let (Some(quota), Some(period)) = (cpu.quota(), cpu.period()) {
            write("cpu", "cpu.cfs_period_us", period.to_string(), false);
            write("cpu", "cpu.cfs_quota_us", quota.to_string(), false);
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
            write("blkio", "blkio.bfq.weight", weight.to_string(), false);
        }
        for (file, value) in disks(io) {
            write("blkio", file, value, false);
        }
    }
    if let Some(pids) = limits.pids() {
        let value = match pids.limit() {
            limit if limit > 0 => limit.to_string(),
            _ => "max".to_owned(),
        };
        write("pids", "pids.max", value, false);
    }
    plan.extend(huge_pages(limits, "limit_in_bytes"));
    plan
}

fn memory(memory: &LinuxMemory) -> Vec<Write> {
    let number = |number: i64| number.to_string();
    let waits = memory.disable_oom_killer().filter(|waits| *waits);
    let all = [
        ("memory.limit_in_bytes", memory.limit().map(number), false),
        // Missing where the kernel does not account for swap.
        (
            "memory.memsw.limit_in_bytes",
            memory.swap().map(number),
            true,
        ),
        (
            "memory.soft_limit_in_bytes",
            memory.reservation().map(number),
            false,
        ),
        (
            "memory.swappiness",
            memory.swappiness().map(|n| n.to_string()),
            false,
        ),
        ("memory.oom_control", waits.map(|_| number(1)), false),
    ];
    let asked = all.into_iter().filter_map(|(file, value, optional)| {
        Some(Write {
            controller: "memory",
            file: file.into(),
            value: value?,
            optional,
        })
    });
    asked.collect()
}

/// What is written for single disks: one line for each.
fn disks(io: &LinuxBlockIo) -> Vec<(&'static str, String)> {
    let weights = disk_weights(io).map(|value| ("blkio.bfq.weight_device", value));
    let mut plan: Vec<_> = weights.collect();
    for (file, devices) in [
        (
            "blkio.throttle.read_bps_device",
            io.throttle_read_bps_device(),
        ),
        (
            "blkio.throttle.write_bps_device",
            io.throttle_write_bps_device(),
        ),
        (
            "blkio.throttle.read_iops_device",
            io.throttle_read_iops_device(),
        ),
        (
            "blkio.throttle.write_iops_device",
            io.throttle_write_iops_device(),
        ),
    ] {
        plan.extend(devices.iter().flatten().map(|device| {
            let (major, minor) = (device.major(), device.minor());
            (file, format!("{major}:{minor} {}", device.rate()))
        }));
    }
    plan
}

/// Puts the two limits of memory into an order that the kernel takes: memory alone may at no moment be more
/// than memory and swap together.
pub fn order(planned: &mut [(PathBuf, Write)]) {
    let at = |file: &str| planned.iter().position(|(_, write)| write.file == file);
    let (Some(memory), Some(both)) = (
        at("memory.limit_in_bytes"),
        at("memory.memsw.limit_in_bytes"),
    ) else {
        return;
    };
    let (group, swap) = &planned[both];
    let now = fs::read_to_string(group.join(&*swap.file)).unwrap_or_default();
    let wanted: Option<u64> = swap.value.parse().ok();
    let raised = wanted.is_none_or(|wanted| now.trim().parse().is_ok_and(|now: u64| wanted > now));
    if raised {
        planned.swap(memory, both);
    }
}

/// A cpuset group without CPUs and memory nodes takes no process: each level gets its parent's.
pub fn inherit_cpuset(mount: &Path, group: &Path) -> Result<()> {
    let below = group.strip_prefix(mount).unwrap_or(group);
    let mut level = mount.to_owned();
    for part in below.components() {
        let parent = level.clone();
        level.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let path = level.join(file);
            let own = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            if own.trim().is_empty() {
                let from = parent.join(file);
                let value = fs::read_to_string(&from).map_err(Error::file("read", from))?;
                fs::write(&path, value.trim()).map_err(Error::file("write", path))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_limited_before_memory_with_swap() {
        let asked = r#"{"memory": {"limit": 67108864, "swap": 134217728, "swappiness": 0,
                                    "disableOOMKiller": true}, "pids": {"limit": -1},
                        "cpu": {"quota": 150000, "period": 100000},
                        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
                                    "weightDevice": [{"major": 8, "minor": 1, "weight": 10}]},
                        "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}]}"#;
        let plan = plan(&serde_json::from_str(asked).unwrap());
        let files: Vec<(&str, &str)> = plan.iter().map(|w| (&*w.file, w.value.as_str())).collect();
        assert_eq!(
            files,
            [
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "134217728"),
                ("memory.swappiness", "0"),
                ("memory.oom_control", "1"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "150000"),
                ("blkio.bfq.weight_device", "8:1 10"),
                ("blkio.throttle.read_bps_device", "8:0 9"),
                ("pids.max", "max"),
                ("hugetlb.2MB.limit_in_bytes", "2097152"),
            ]
        );
    }
}
