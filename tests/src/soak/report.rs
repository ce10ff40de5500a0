//! What came of a soak: operations by kind, failures, latencies, lock waits, memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::prometheus::{Buckets, labels, value};
use super::side::Side;
use super::work::Yard;

/// The longest that a lock may be waited for, at the 99th percentile (seconds).
pub const LOCK_WAIT_MAX: f64 = 0.05;
/// Failures that are kept as they were told; all are counted.
const FAILURES_KEPT: usize = 20;
const MIB: f64 = 1024.0 * 1024.0;

/// What is counted while work goes on.
#[derive(Debug, Default)]
pub struct Tally {
    done: Mutex<Done>,
}

#[derive(Clone, Debug, Default)]
struct Done {
    times: BTreeMap<&'static str, Vec<Duration>>,
    failures: Vec<String>,
    failed: usize,
}

impl Tally {
    /// Does something, and counts it or its failure. No failure is expected.
    pub fn time<T>(
        &self,
        kind: &'static str,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Option<T> {
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(value) => {
                done.times.entry(kind).or_default().push(took);
                Some(value)
            }
            Err(error) => {
                done.failed += 1;
                if done.failures.len() < FAILURES_KEPT {
                    done.failures.push(format!("{kind}: {error}"));
                }
                None
            }
        }
    }

    fn done(&self) -> Done {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.clone()
    }
}

/// Waits for the locks of one name in one store.
#[derive(Clone, Debug)]
pub struct LockWaits {
    /// The lock.
    pub lock: String,
    /// Times that it was taken.
    pub taken: f64,
    /// Times that it was waited for.
    pub waited: f64,
    /// Seconds that the 99th percentile of all who took it waited at most.
    pub p99: f64,
    /// The same of those only who had to wait.
    pub p99_of_waits: f64,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    done: Done,
    worked: Duration,
    /// The locks of both stores, one entry for each.
    pub locks: Vec<LockWaits>,
    /// The most resident memory of each service, in bytes.
    pub memory: Vec<(String, f64)>,
}

impl Report {
    pub(super) fn of(yard: &Yard, worked: Duration) -> Self {
        let sides = || yard.sides.iter().enumerate();
        Self {
            done: yard.tally.done(),
            worked,
            locks: yard.sides.iter().flat_map(lock_waits).collect(),
            memory: sides()
                .flat_map(|(number, side)| memory(number, side))
                .collect(),
        }
    }

    /// What went wrong.
    pub fn failures(&self) -> &[String] {
        &self.done.failures
    }

    /// How often a kind of operation succeeded.
    pub fn count(&self, kind: &str) -> usize {
        self.done.times.get(kind).map_or(0, Vec::len)
    }

    /// Locks that were waited for longer than they may be.
    pub fn slow_locks(&self) -> Vec<&LockWaits> {
        let slow = |lock: &&LockWaits| lock.p99 > LOCK_WAIT_MAX;
        self.locks.iter().filter(slow).collect()
    }
}

/// All locks of a store.
pub fn lock_waits(side: &Side) -> Vec<LockWaits> {
    let text = side.metrics("store");
    let names = labels(&text, "orlop_store_lock_acquisitions_total", "lock");
    let waits = names.into_iter().map(|lock| {
        let label = format!("lock=\"{lock}\"");
        let taken = value(
            &text,
            &format!("orlop_store_lock_acquisitions_total{{{label}}}"),
        );
        let waits = Buckets::read(&text, "orlop_store_lock_wait_seconds", &label);
        LockWaits {
            lock,
            taken,
            waited: waits.count(),
            p99: waits.quantile(0.99, taken - waits.count()),
            p99_of_waits: waits.quantile(0.99, 0.0),
        }
    });
    waits.collect()
}

fn memory(number: usize, side: &Side) -> Vec<(String, f64)> {
    let services = side.services().iter().map(|service| {
        let text = side.metrics(service);
        let bytes = value(&text, "process_resident_memory_max_bytes");
        (format!("{service} {number}"), bytes)
    });
    services.collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worked for {:.0} s", self.worked.as_secs_f64())?;
        let head = ["operation", "done", "p50 ms", "p99 ms", "max ms"];
        writeln!(
            f,
            "{:<16}{:>8}{:>10}{:>10}{:>10}",
            head[0], head[1], head[2], head[3], head[4]
        )?;
        for (kind, times) in &self.done.times {
            let mut times = times.clone();
            times.sort_unstable();
            let at = |part: usize| milliseconds(times[(times.len() - 1) * part / 100]);
            let (count, p50, p99, max) = (times.len(), at(50), at(99), at(100));
            writeln!(f, "{kind:<16}{count:>8}{p50:>10.1}{p99:>10.1}{max:>10.1}")?;
        }
        writeln!(
            f,
            "lock                 taken    waited   p99 ms   p99 of waits ms"
        )?;
        for lock in &self.locks {
            let (p99, of_waits) = (lock.p99 * 1e3, lock.p99_of_waits * 1e3);
            let (name, taken, waited) = (&lock.lock, lock.taken, lock.waited);
            writeln!(
                f,
                "{name:<18}{taken:>9}{waited:>9}{p99:>9.2}{of_waits:>9.2}"
            )?;
        }
        for (service, bytes) in &self.memory {
            writeln!(f, "{service:<16}{:>8.1} MiB resident at most", bytes / MIB)?;
        }
        writeln!(f, "failures: {}", self.done.failed)?;
        let mut failures = self.done.failures.iter();
        failures.try_for_each(|failure| writeln!(f, "  {failure}"))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
