//! Limits, from a request to the runtime-spec's words.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxMemory, LinuxPids, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};
use orlop_proto::runtime::{DeviceLimit, Resources};

use super::validate;
use crate::devices::Disks;
use crate::error::{Error, Result};

/// Enough for any service, far too few for a fork bomb.
const PIDS_DEFAULT: i64 = 2048;
/// Microseconds in which a CPU quota is counted.
const CPU_PERIOD: u64 = 100_000;
/// The kernel's smallest quota is 1 ms a period.
const CPU_QUOTA_MIN: i64 = 1000;
/// The kernel's bounds of a period, in microseconds.
const CPU_PERIODS: std::ops::RangeInclusive<u64> = 1000..=1_000_000;
/// Docker's least memory.
const MEMORY_MIN: i64 = 6 * 1024 * 1024;
/// Docker's most.
const SWAPPINESS_MAX: u32 = 100;
/// The kernel's bounds of a disk's weight (BFQ).
const BLKIO_WEIGHTS: std::ops::RangeInclusive<u32> = 10..=1000;
/// Limits of disks in one list.
const DEVICE_LIMITS_MAX: usize = 64;
const NANOS_PER_CPU: i64 = 1_000_000_000;

/// The devices that a container may use: (major, minor); the least that the runtime-spec demands.
/// 5:2 and 136:* are terminals of the container's own devpts.
const DEVICES: [(i64, Option<i64>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// All limits of a container, some of them on these disks.
pub fn limits(asked: &Resources, disks: &Disks) -> Result<LinuxResources> {
    check(asked)?;
    let mut pids = LinuxPids::default();
    pids.set_limit(asked.pids.unwrap_or(PIDS_DEFAULT));
    Ok(LinuxResourcesBuilder::default()
        .memory(memory(asked))
        .cpu(cpu(asked))
        .block_io(block_io(asked, disks)?)
        .pids(pids)
        .build()?)
}

/// Refuses what no kernel can do, in the words of the command line.
pub(super) fn check(asked: &Resources) -> Result<()> {
    let bad = |problem: String| Err(Error::invalid("limit", problem));
    let Resources {
        memory,
        memory_swap,
        nano_cpus,
        ..
    } = asked;
    if *memory != 0 && *memory < MEMORY_MIN {
        return bad(format!("{memory} bytes of memory: at least 6 MiB"));
    }
    if *memory_swap < -1 || (*memory_swap > 0 && memory_swap < memory) {
        return bad(format!(
            "{memory_swap} bytes of memory and swap: at least as much as memory, or -1"
        ));
    }
    if *memory_swap > 0 && *memory == 0 {
        return bad("memory and swap without memory: set both".to_owned());
    }
    if asked.memory_reservation < 0 || (*memory > 0 && asked.memory_reservation > *memory) {
        return bad("the memory reservation is larger than the memory".to_owned());
    }
    if asked
        .memory_swappiness
        .is_some_and(|often| often > SWAPPINESS_MAX)
    {
        return bad(format!("memory swappiness: expected 0 to {SWAPPINESS_MAX}"));
    }
    if *nano_cpus < 0 || asked.shm_size < 0 {
        return bad("a negative number of CPUs or bytes".to_owned());
    }
    if asked.pids.is_some_and(|pids| pids < -1 || pids == 0) {
        return bad("processes: expected a positive number, or -1 for no limit".to_owned());
    }
    if asked.blkio_weight != 0 && !BLKIO_WEIGHTS.contains(&asked.blkio_weight) {
        return bad("a weight of disks: expected 10 to 1000".to_owned());
    }
    check_devices(asked)?;
    check_quota(asked)?;
    check_set("--cpuset-cpus", &asked.cpuset_cpus)?;
    check_set("--cpuset-mems", &asked.cpuset_mems)
}

/// What a person should know of these limits, where all controllers are in one hierarchy (cgroup v2), which
/// has no such files, or not.
pub(crate) fn warnings(asked: &Resources, unified: bool) -> impl Iterator<Item = &'static str> {
    let all = [
        (
            unified && asked.memory_swappiness.is_some(),
            "cgroup v2 has no memory swappiness: --memory-swappiness is discarded",
        ),
        (
            unified && asked.oom_kill_disable,
            "cgroup v2 cannot disable the OOM killer: --oom-kill-disable is discarded",
        ),
        (
            !unified && asked.oom_kill_disable && asked.memory == 0,
            "the OOM killer is disabled for the container, but no memory limit is set: \
             the host may run out of memory",
        ),
    ];
    all.into_iter()
        .filter_map(|(applies, warning)| applies.then_some(warning))
}

fn check_devices(asked: &Resources) -> Result<()> {
    let bad = |problem: String| Err(Error::invalid("limit", problem));
    for limit in device_limits(asked) {
        validate::absolute("device", &limit.path)?;
        if limit.limit == 0 {
            return bad(format!("{}: expected more than 0", limit.path));
        }
    }
    let weights = &asked.blkio_weight_device;
    let fits = |limit: &DeviceLimit| weight(limit).is_some();
    if let Some(wrong) = weights.iter().find(|limit| !fits(limit)) {
        let DeviceLimit { path, limit } = wrong;
        return bad(format!("{path}: a weight of {limit}: expected 10 to 1000"));
    }
    if device_limits(asked).count() > DEVICE_LIMITS_MAX {
        return bad(format!("more than {DEVICE_LIMITS_MAX} limits of devices"));
    }
    Ok(())
}

/// Every limit of one device.
pub(crate) fn device_limits(asked: &Resources) -> impl Iterator<Item = &DeviceLimit> {
    let rates = [
        &asked.device_read_bps,
        &asked.device_write_bps,
        &asked.device_read_iops,
        &asked.device_write_iops,
    ];
    let rates = rates.into_iter().flatten();
    rates.chain(&asked.blkio_weight_device)
}

fn check_quota(asked: &Resources) -> Result<()> {
    let bad = |problem: &str| Err(Error::invalid("limit", problem));
    let (quota, period) = (asked.cpu_quota, asked.cpu_period);
    if asked.nano_cpus > 0 && (quota != 0 || period != 0) {
        return bad("a number of CPUs, and a quota or period of them: choose one");
    }
    if quota != 0 && quota != -1 && quota < CPU_QUOTA_MIN {
        return bad("a CPU quota of less than 1000 microseconds");
    }
    if period != 0 && !CPU_PERIODS.contains(&period) {
        return bad("a CPU period: expected 1000 to 1000000 microseconds");
    }
    Ok(())
}

/// The limits of a container once some were changed: what is not asked stays. The result is to be judged as
/// a whole ([`limits`]).
pub(crate) fn merge(now: &Resources, asked: &Resources) -> Result<Resources> {
    if asked.shm_size != 0 {
        let problem = "the size of /dev/shm cannot be changed";
        return Err(Error::invalid("limit", problem));
    }
    let number = |asked: i64, now: i64| if asked == 0 { now } else { asked };
    let count = |asked: u64, now: u64| if asked == 0 { now } else { asked };
    let text = |asked: &String, now: &String| match asked.is_empty() {
        true => now.clone(),
        false => asked.clone(),
    };
    let disks = |asked: &Vec<DeviceLimit>, now: &Vec<DeviceLimit>| match asked.is_empty() {
        true => now.clone(),
        false => asked.clone(),
    };
    Ok(Resources {
        memory: number(asked.memory, now.memory),
        memory_swap: number(asked.memory_swap, now.memory_swap),
        nano_cpus: number(asked.nano_cpus, now.nano_cpus),
        pids: asked.pids.or(now.pids),
        cpu_shares: count(asked.cpu_shares, now.cpu_shares),
        cpuset_cpus: text(&asked.cpuset_cpus, &now.cpuset_cpus),
        cpuset_mems: text(&asked.cpuset_mems, &now.cpuset_mems),
        memory_reservation: number(asked.memory_reservation, now.memory_reservation),
        shm_size: now.shm_size,
        memory_swappiness: now.memory_swappiness,
        oom_kill_disable: now.oom_kill_disable,
        cpu_quota: number(asked.cpu_quota, now.cpu_quota),
        cpu_period: count(asked.cpu_period, now.cpu_period),
        blkio_weight: match asked.blkio_weight {
            0 => now.blkio_weight,
            weight => weight,
        },
        blkio_weight_device: disks(&asked.blkio_weight_device, &now.blkio_weight_device),
        device_read_bps: disks(&asked.device_read_bps, &now.device_read_bps),
        device_write_bps: disks(&asked.device_write_bps, &now.device_write_bps),
        device_read_iops: disks(&asked.device_read_iops, &now.device_read_iops),
        device_write_iops: disks(&asked.device_write_iops, &now.device_write_iops),
    })
}

/// `0-3,5`: nothing else reaches a control file.
fn check_set(option: &str, set: &str) -> Result<()> {
    let valid = |part: &str| {
        let mut ends = part.splitn(2, '-');
        let number = |end: &str| end.len() <= 5 && end.parse::<u16>().is_ok();
        ends.all(number)
    };
    if set.is_empty() || (set.len() <= 256 && set.split(',').all(valid)) {
        return Ok(());
    }
    let shown: String = set.chars().take(64).collect();
    let problem = format!("{option} {shown:?}: expected numbers and ranges such as 0-3,5");
    Err(Error::invalid("limit", problem))
}

fn memory(asked: &Resources) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    if asked.memory > 0 {
        // Docker's rule: memory alone allows as much swap again.
        let swap = match asked.memory_swap {
            0 => asked.memory.saturating_mul(2),
            swap => swap,
        };
        memory.set_limit(Some(asked.memory)).set_swap(Some(swap));
    }
    if asked.memory_reservation > 0 {
        memory.set_reservation(Some(asked.memory_reservation));
    }
    memory
        .set_swappiness(asked.memory_swappiness.map(u64::from))
        .set_disable_oom_killer(asked.oom_kill_disable.then_some(true));
    memory
}

fn cpu(asked: &Resources) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    if asked.nano_cpus > 0 {
        let period = i128::from(CPU_PERIOD);
        let quota = i128::from(asked.nano_cpus) * period / i128::from(NANOS_PER_CPU);
        let quota = i64::try_from(quota).unwrap_or(i64::MAX).max(CPU_QUOTA_MIN);
        cpu.set_quota(Some(quota)).set_period(Some(CPU_PERIOD));
    } else if asked.cpu_quota != 0 || asked.cpu_period > 0 {
        let quota = Some(asked.cpu_quota).filter(|quota| *quota != 0);
        let period = Some(asked.cpu_period).filter(|period| *period > 0);
        cpu.set_quota(quota.or(Some(-1)))
            .set_period(period.or(Some(CPU_PERIOD)));
    }
    if asked.cpu_shares > 0 {
        cpu.set_shares(Some(asked.cpu_shares));
    }
    let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    cpu.set_cpus(set(&asked.cpuset_cpus))
        .set_mems(set(&asked.cpuset_mems));
    cpu
}

fn block_io(asked: &Resources, disks: &Disks) -> Result<LinuxBlockIo> {
    let weight = u16::try_from(asked.blkio_weight).ok();
    let rates = |asked| throttled(asked, disks);
    let mut block_io = LinuxBlockIo::default();
    block_io
        .set_weight(weight.filter(|weight| *weight > 0))
        .set_weight_device(Some(weighted(&asked.blkio_weight_device, disks)?))
        .set_throttle_read_bps_device(Some(rates(&asked.device_read_bps)?))
        .set_throttle_write_bps_device(Some(rates(&asked.device_write_bps)?))
        .set_throttle_read_iops_device(Some(rates(&asked.device_read_iops)?))
        .set_throttle_write_iops_device(Some(rates(&asked.device_write_iops)?));
    Ok(block_io)
}

fn throttled(asked: &[DeviceLimit], disks: &Disks) -> Result<Vec<LinuxThrottleDevice>> {
    let one = |asked: &DeviceLimit| {
        let (major, minor) = numbers(asked, disks)?;
        Ok(LinuxThrottleDeviceBuilder::default()
            .major(major)
            .minor(minor)
            .rate(asked.limit)
            .build()?)
    };
    asked.iter().map(one).collect()
}

fn weighted(asked: &[DeviceLimit], disks: &Disks) -> Result<Vec<LinuxWeightDevice>> {
    let one = |asked: &DeviceLimit| {
        let (major, minor) = numbers(asked, disks)?;
        let device = LinuxWeightDeviceBuilder::default().major(major);
        let device = device.minor(minor);
        Ok(match weight(asked) {
            Some(weight) => device.weight(weight).build()?,
            None => device.build()?,
        })
    };
    asked.iter().map(one).collect()
}

fn numbers(asked: &DeviceLimit, disks: &Disks) -> Result<(i64, i64)> {
    let unknown = || Error::invalid("device", format!("{}: it was not found", asked.path));
    let (major, minor) = disks.get(&asked.path).ok_or_else(unknown)?;
    Ok(((*major).into(), (*minor).into()))
}

/// One that the kernel takes.
fn weight(asked: &DeviceLimit) -> Option<u16> {
    let fits = u32::try_from(asked.limit).is_ok_and(|weight| BLKIO_WEIGHTS.contains(&weight));
    u16::try_from(asked.limit).ok().filter(|_| fits)
}

/// Deny all, then allow the list (row B24).
pub(super) fn devices() -> Result<Vec<LinuxDeviceCgroup>> {
    let deny = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let mut rules = vec![deny];
    for (major, minor) in DEVICES {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm")
            .build()?;
        rule.set_minor(minor);
        rules.push(rule);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b24_devices_are_denied_unless_listed() {
        let rules = devices().unwrap();
        let first = rules.first().unwrap();
        assert!(!first.allow() && first.major().is_none() && first.typ().is_none());
        for rule in rules.iter().skip(1) {
            assert!(rule.allow() && rule.major().is_some());
            assert_ne!(rule.typ(), Some(LinuxDeviceType::B));
        }
    }

    #[test]
    fn what_cgroup_v2_has_not_is_discarded_with_a_warning() {
        let mut asked = Resources {
            memory_swappiness: Some(0),
            oom_kill_disable: true,
            ..Resources::default()
        };
        let warned = |asked: &Resources, unified| warnings(asked, unified).count();
        assert_eq!((warned(&asked, true), warned(&asked, false)), (2, 1));
        asked.memory = MEMORY_MIN;
        assert_eq!((warned(&asked, true), warned(&asked, false)), (2, 0));
        asked.memory_swappiness = Some(101);
        assert!(check(&asked).is_err());
    }

    #[test]
    fn half_a_cpu_is_half_a_period() {
        let asked = Resources {
            nano_cpus: 500_000_000,
            ..Resources::default()
        };
        assert_eq!(cpu(&asked).quota(), Some(50_000));
        assert_eq!(cpu(&asked).period(), Some(100_000));
    }

    #[test]
    fn memory_alone_allows_as_much_swap_and_the_default_limits_processes() {
        let asked = Resources {
            memory: 64 << 20,
            ..Resources::default()
        };
        let limits = limits(&asked, &Disks::new()).unwrap();
        let memory = limits.memory().unwrap();
        assert_eq!(memory.swap(), Some(128 << 20));
        assert_eq!(limits.pids().unwrap().limit(), PIDS_DEFAULT);
    }

    #[test]
    fn a_quota_has_a_period_and_a_period_alone_limits_nothing() {
        let asked = Resources {
            cpu_quota: 20_000,
            ..Resources::default()
        };
        assert_eq!(cpu(&asked).period(), Some(100_000));
        let asked = Resources {
            cpu_period: 50_000,
            ..Resources::default()
        };
        assert_eq!(cpu(&asked).quota(), Some(-1));
    }

    #[test]
    fn what_is_not_asked_stays_and_the_whole_is_judged() {
        let now = Resources {
            memory: 64 << 20,
            nano_cpus: 1,
            pids: Some(5),
            cpuset_cpus: "0".to_owned(),
            ..Resources::default()
        };
        let asked = Resources {
            memory: 128 << 20,
            ..Resources::default()
        };
        let merged = merge(&now, &asked).unwrap();
        assert_eq!(merged.memory, 128 << 20);
        assert_eq!((merged.nano_cpus, merged.pids), (1, Some(5)));
        assert_eq!(merged.cpuset_cpus, "0");
        let quota = Resources {
            cpu_quota: 5000,
            ..Resources::default()
        };
        assert!(limits(&merge(&now, &quota).unwrap(), &Disks::new()).is_err());
        let shm = Resources {
            shm_size: 1,
            ..Resources::default()
        };
        assert!(merge(&now, &shm).is_err());
    }

    #[test]
    fn a_limit_of_a_disk_has_the_disks_numbers() {
        let asked = Resources {
            device_read_bps: vec![of_disk("/dev/a", 1 << 20)],
            blkio_weight_device: vec![of_disk("/dev/a", 500)],
            ..Resources::default()
        };
        let disks = Disks::from([("/dev/a".to_owned(), (8, 16))]);
        let io = block_io(&asked, &disks).unwrap();
        let [read] = io.throttle_read_bps_device().as_deref().unwrap() else {
            panic!("one was asked for");
        };
        assert_eq!((read.major(), read.minor(), read.rate()), (8, 16, 1 << 20));
        let [weighted] = io.weight_device().as_deref().unwrap() else {
            panic!("one was asked for");
        };
        assert_eq!(weighted.weight(), Some(500));
        assert_eq!(merge(&asked, &Resources::default()).unwrap(), asked);
    }

    fn of_disk(path: &str, limit: u64) -> DeviceLimit {
        DeviceLimit {
            path: path.to_owned(),
            limit,
        }
    }

    #[test]
    fn impossible_limits_of_disks_are_refused() {
        let base = Resources::default;
        for bad in [
            Resources {
                device_read_bps: vec![of_disk("dev/a", 1)],
                ..base()
            },
            Resources {
                device_write_iops: vec![of_disk("/dev/a", 0)],
                ..base()
            },
            Resources {
                blkio_weight_device: vec![of_disk("/dev/a", 9)],
                ..base()
            },
            Resources {
                device_read_iops: vec![of_disk("/dev/a", 1); DEVICE_LIMITS_MAX + 1],
                ..base()
            },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn impossible_limits_are_refused() {
        let base = Resources::default;
        for bad in [
            Resources {
                memory: 4096,
                ..base()
            },
            Resources {
                memory: -1,
                ..base()
            },
            Resources {
                memory: 64 << 20,
                memory_swap: 1,
                ..base()
            },
            Resources {
                memory_swap: 1 << 30,
                ..base()
            },
            Resources {
                nano_cpus: -1,
                ..base()
            },
            Resources {
                pids: Some(0),
                ..base()
            },
            Resources {
                blkio_weight: 9,
                ..base()
            },
            Resources {
                cpu_period: 1,
                ..base()
            },
            Resources {
                cpuset_cpus: "0\n1".to_owned(),
                ..base()
            },
            Resources {
                cpuset_cpus: "0-".to_owned(),
                ..base()
            },
            Resources {
                cpuset_mems: "../x".to_owned(),
                ..base()
            },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        let good = Resources {
            cpuset_cpus: "0-1,3".to_owned(),
            ..base()
        };
        check(&good).unwrap();
    }
}
