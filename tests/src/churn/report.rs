//! What came of a churn: times, resident memory, and what stayed.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

const KIB_PER_MIB: f64 = 1024.0;

/// Times, memory and remains.
#[derive(Clone, Debug, Default)]
pub struct Report {
    phases: Vec<(&'static str, u64, Duration)>,
    memory: Vec<(&'static str, Vec<u64>)>,
    remains: Vec<String>,
}

impl Report {
    /// What stayed although it should have gone, in words.
    pub fn remains(&self) -> &[String] {
        &self.remains
    }

    /// The middle of what the shims had resident, in KiB.
    pub fn shim_kib(&self) -> Option<u64> {
        let (_, kib) = self.memory.iter().find(|(of, _)| *of == "shim")?;
        kib.get(kib.len() / 2).copied()
    }

    /// How often a phase's work was done.
    pub fn count(&self, phase: &str) -> u64 {
        let found = self.phases.iter().find(|(name, ..)| *name == phase);
        found.map_or(0, |(_, count, _)| *count)
    }

    pub(super) fn time<T>(
        &mut self,
        name: &'static str,
        count: u64,
        work: impl FnOnce() -> T,
    ) -> T {
        let began = Instant::now();
        let done = work();
        self.phases.push((name, count, began.elapsed()));
        done
    }

    pub(super) fn memory(&mut self, of: &'static str, kib: &[u64]) {
        let mut kib = kib.to_vec();
        kib.sort_unstable();
        self.memory.push((of, kib));
    }

    pub(super) fn stays(&mut self, after: &str, what: Vec<String>) {
        let told = what
            .into_iter()
            .map(|line| format!("after {after}: {line}"));
        self.remains.extend(told);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "phase       count   seconds  ms each")?;
        for (name, count, took) in &self.phases {
            let seconds = took.as_secs_f64();
            let each = seconds * 1000.0 / (*count).max(1) as f64;
            writeln!(f, "{name:<10}{count:>7}{seconds:>10.2}{each:>9.1}")?;
        }
        writeln!(f, "resident memory, MiB         count   middle    most")?;
        for (of, kib) in &self.memory {
            let mib = |kib: Option<&u64>| kib.map_or(0.0, |kib| *kib as f64 / KIB_PER_MIB);
            let (middle, most) = (mib(kib.get(kib.len() / 2)), mib(kib.last()));
            writeln!(f, "{of:<27}{:>7}{middle:>9.2}{most:>8.2}", kib.len())?;
        }
        for line in &self.remains {
            writeln!(f, "left {line}")?;
        }
        write!(f, "{} kinds of remains", self.remains.len())
    }
}

/// What a process has resident, in KiB.
pub(super) fn resident(pid: i32) -> u64 {
    kib(pid, "Rss:")
}

/// The same, with pages that several processes have divided among them.
pub(super) fn share(pid: i32) -> u64 {
    kib(pid, "Pss:")
}

fn kib(pid: i32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.map_or(0, |number| number.parse().unwrap())
}
