//! The machine that is measured on.

use std::fs;
use std::path::Path;
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

/// What is free for programs, in KiB.
pub(crate) fn memory_available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&text, "MemAvailable:")
}

/// The processes that have the directory in their arguments.
pub(crate) fn processes_of(directory: &Path) -> Vec<i32> {
    let directory = directory.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let names = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(directory)
    };
    pids.filter(names).collect()
}

/// What a process is called.
pub(crate) fn program_name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Memory of processes, in KiB: pages that several share are divided among them, and what is theirs
/// alone.
pub(crate) fn memory_of(pids: &[i32]) -> (u64, u64) {
    let each = pids.iter().map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let private = kib(&text, "Private_Clean:") + kib(&text, "Private_Dirty:");
        (kib(&text, "Pss:"), private)
    });
    each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn kib(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let digits = line.unwrap_or_default().trim().trim_end_matches(" kB");
    digits.parse().unwrap_or_default()
}
