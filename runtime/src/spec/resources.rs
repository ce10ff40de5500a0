//! Limits, from a request to the runtime-spec's words.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxMemory, LinuxPids, LinuxResources, LinuxResourcesBuilder,
};
use orlop_proto::runtime::Resources;

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
/// The kernel's bounds of a disk's weight (BFQ).
const BLKIO_WEIGHTS: std::ops::RangeInclusive<u32> = 10..=1000;
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

/// All limits of a container.
pub fn limits(asked: &Resources) -> Result<LinuxResources> {
    check(asked)?;
    let mut pids = LinuxPids::default();
    pids.set_limit(asked.pids.unwrap_or(PIDS_DEFAULT));
    Ok(LinuxResourcesBuilder::default()
        .memory(memory(asked))
        .cpu(cpu(asked))
        .block_io(block_io(asked))
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
    if *nano_cpus < 0 || asked.shm_size < 0 {
        return bad("a negative number of CPUs or bytes".to_owned());
    }
    if asked.pids.is_some_and(|pids| pids < -1 || pids == 0) {
        return bad("processes: expected a positive number, or -1 for no limit".to_owned());
    }
    if asked.blkio_weight != 0 && !BLKIO_WEIGHTS.contains(&asked.blkio_weight) {
        return bad("a weight of disks: expected 10 to 1000".to_owned());
    }
    check_quota(asked)?;
    check_set("--cpuset-cpus", &asked.cpuset_cpus)?;
    check_set("--cpuset-mems", &asked.cpuset_mems)
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
        cpu_quota: number(asked.cpu_quota, now.cpu_quota),
        cpu_period: count(asked.cpu_period, now.cpu_period),
        blkio_weight: match asked.blkio_weight {
            0 => now.blkio_weight,
            weight => weight,
        },
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

fn block_io(asked: &Resources) -> LinuxBlockIo {
    let weight = u16::try_from(asked.blkio_weight).ok();
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight(weight.filter(|weight| *weight > 0));
    block_io
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
        let limits = limits(&asked).unwrap();
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
        assert!(limits(&merge(&now, &quota).unwrap()).is_err());
        let shm = Resources {
            shm_size: 1,
            ..Resources::default()
        };
        assert!(merge(&now, &shm).is_err());
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
