//! Limits in systemd's words (systemd.resource-control(5)).

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use orlop_shim::cgroups::Layout;
use orlop_shim::cgroups::v2::{swap_alone, weight};

/// `infinity`.
const NO_LIMIT: u64 = u64::MAX;
/// systemd counts processor time in steps of ten milliseconds a second.
const QUOTA_STEP: u64 = 10_000;
/// Processors and memory nodes that a list may name.
const NODES_MAX: usize = 8192;

/// A property as `busctl` takes it: its name, its type and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    words: Vec<String>,
}

/// A property.
pub(super) fn property<V: ToString>(
    name: &str,
    kind: &str,
    values: impl IntoIterator<Item = V>,
) -> Property {
    let mut words = vec![name.to_owned(), kind.to_owned()];
    words.extend(values.into_iter().map(|value| value.to_string()));
    Property { words }
}

impl Property {
    /// The same of an array: its length stands before its values.
    pub(super) fn counted(mut self) -> Self {
        let count = self.words.len() - 2;
        self.words.insert(2, count.to_string());
        self
    }

    /// Words of a command line.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }
}

/// The limits that systemd would otherwise set to its own defaults. Where it runs with version 1, it turns
/// those of version 2 into those; shares would not be the same again.
pub(super) fn of(limits: &LinuxResources, layout: &Layout) -> Vec<Property> {
    let mut all = Vec::new();
    all.extend(limits.memory().iter().flat_map(memory));
    if let Some(cpu) = limits.cpu() {
        all.extend(cpu.shares().map(|shares| match layout {
            Layout::V1(_) => property("CPUShares", "t", [shares]),
            Layout::V2(_) => property("CPUWeight", "t", [weight(shares)]),
        }));
        all.extend(time_and_nodes(cpu));
    }
    if let Some(pids) = limits.pids() {
        all.push(property("TasksMax", "t", [bound(pids.limit(), 1)]));
    }
    all
}

/// A number below the least that can be one is none.
fn bound(limit: i64, least: i64) -> u64 {
    let limit = u64::try_from(limit).ok().filter(|_| limit >= least);
    limit.unwrap_or(NO_LIMIT)
}

fn memory(memory: &LinuxMemory) -> Vec<Property> {
    let mut all = Vec::new();
    if let Some(limit) = memory.limit() {
        all.push(property("MemoryMax", "t", [bound(limit, 0)]));
    }
    if let Some(swap) = memory.swap() {
        let swap = swap_alone(memory.limit().unwrap_or(0), swap);
        let swap = swap.parse().unwrap_or(NO_LIMIT);
        all.push(property("MemorySwapMax", "t", [swap]));
    }
    if let Some(low) = memory.reservation() {
        all.push(property("MemoryLow", "t", [bound(low, 0)]));
    }
    all
}

fn time_and_nodes(cpu: &LinuxCpu) -> Vec<Property> {
    let mut all = Vec::new();
    if let (Some(quota), Some(period)) = (cpu.quota(), cpu.period()) {
        let quota = per_second(quota, period);
        all.push(property("CPUQuotaPerSecUSec", "t", [quota]));
        all.push(property("CPUQuotaPeriodUSec", "t", [period]));
    }
    for (name, list) in [
        ("AllowedCPUs", cpu.cpus()),
        ("AllowedMemoryNodes", cpu.mems()),
    ] {
        if let Some(mask) = list.as_deref().and_then(mask) {
            all.push(property(name, "ay", mask).counted());
        }
    }
    all
}

/// Microseconds of processor time per second, rounded up to what systemd can keep.
fn per_second(quota: i64, period: u64) -> u64 {
    let Some(quota) = u64::try_from(quota).ok().filter(|_| period > 0) else {
        return NO_LIMIT;
    };
    let micros = quota.saturating_mul(1_000_000) / period;
    micros.div_ceil(QUOTA_STEP).saturating_mul(QUOTA_STEP)
}

/// `0-2,9` as bits, the lowest first; `None` for what is no list.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= NODES_MAX {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(limits: &str) -> Vec<String> {
        let limits = serde_json::from_str(limits).unwrap();
        let all = of(&limits, &Layout::V2("/".into()));
        let lines = all.iter().map(|one| one.words().collect::<Vec<_>>());
        lines.map(|words| words.join(" ")).collect()
    }

    #[test]
    fn limits_become_properties() {
        let asked = r#"{"memory": {"limit": 67108864, "swap": 100663296, "reservation": 4096},
                        "pids": {"limit": 100},
                        "cpu": {"quota": 12345, "period": 100000, "shares": 1024, "cpus": "0-1,9"}}"#;
        assert_eq!(
            words(asked),
            [
                "MemoryMax t 67108864",
                "MemorySwapMax t 33554432",
                "MemoryLow t 4096",
                "CPUWeight t 39",
                "CPUQuotaPerSecUSec t 130000",
                "CPUQuotaPeriodUSec t 100000",
                "AllowedCPUs ay 2 3 2",
                "TasksMax t 100",
            ]
        );
    }

    #[test]
    fn shares_are_shares_with_version_1() {
        let limits = serde_json::from_str(r#"{"cpu": {"shares": 512}}"#).unwrap();
        let all = of(&limits, &Layout::V1(Vec::new()));
        assert_eq!(all, [property("CPUShares", "t", [512])]);
    }

    #[test]
    fn no_limit_is_infinity() {
        let asked = r#"{"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1},
                        "cpu": {"quota": -1, "period": 100000}}"#;
        let all = words(asked);
        let infinite = all
            .iter()
            .filter(|one| one.ends_with("18446744073709551615"));
        assert_eq!(infinite.count(), 4, "{all:?}");
    }

    #[test]
    fn a_list_that_is_none_is_left_to_the_kernel() {
        for list in ["", "a", "1-", "0-99999999"] {
            assert_eq!(mask(list), None, "{list}");
        }
        assert_eq!(mask("3-1"), Some(vec![0]));
    }
}
