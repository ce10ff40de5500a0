//! The machine that is measured on.

use std::fs;
use std::process::Command;

/// Moves this process, and with it everything that it starts, into a network namespace of its own
/// with only a loopback link.
pub(crate) fn enter_network_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("benchmarks need root");
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.is_ok_and(|status| status.success()), "install iproute2");
}

/// One line: kernel, processors, memory.
pub(crate) fn describe() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .next()
        .unwrap_or_default()
        .replace("MemTotal:", "");
    format!(
        "machine: {cpus} cores ({}), {} memory, kernel {}",
        model.unwrap_or("unknown"),
        memory.trim(),
        kernel.trim()
    )
}
