//! Many containers at once: started in parallel, listed, what they cost in memory, removed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::machine;
use crate::report::Report;
use crate::work::remove_all;

/// Commands that run at the same time.
const CLIENTS: usize = 32;
/// Lists that are counted.
const LISTS: usize = 10;
/// What a container and its place in the peer may take, so that the peer fits too.
const KIB_EACH: u64 = 40 * 1024;

/// What an engine's processes hold, in KiB.
pub(crate) struct Memory {
    engine: &'static str,
    containers: usize,
    /// Services while nothing runs, and with the containers: shared pages divided.
    idle: u64,
    busy: u64,
    /// What stands behind one container: shared pages divided, and its own.
    shim: (u64, u64),
}

/// One engine after the other, so that they do not take each other's memory.
pub(crate) fn measure(engines: &[&dyn Engine], report: &mut Report) -> Vec<Memory> {
    let one = |engine: &&dyn Engine| measure_one(*engine, report);
    engines.iter().map(one).collect()
}

/// The table of memory.
pub(crate) fn print(rows: &[Memory]) {
    println!(
        "\n{:34}{:>12}{:>14}{:>14}{:>14}{:>14}{:>14}",
        "memory (KiB)", "containers", "services", "with them", "+ each", "shim", "its own"
    );
    for row in rows {
        let each = row.busy.saturating_sub(row.idle) / row.containers as u64;
        println!(
            "{:34}{:>12}{:>14}{:>14}{each:>14}{:>14}{:>14}",
            row.engine, row.containers, row.idle, row.busy, row.shim.0, row.shim.1
        );
    }
}

fn measure_one(engine: &dyn Engine, report: &mut Report) -> Memory {
    let containers = count();
    let idle = machine::memory_of(&engine.services()).0;
    let name = engine.name();

    let start = Instant::now();
    for sample in start_all(engine, containers) {
        report.add("run -d, each of many at once", name, sample);
    }
    report.add("run -d, many at once, all", name, start.elapsed());
    for _ in 0..LISTS {
        let start = Instant::now();
        let listed = engine.run(&["ps", "-q"]).stdout;
        report.add("ps -q, many running", name, start.elapsed());
        let lines = listed.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(lines, containers, "{name} lost containers");
    }
    let memory = memory(engine, idle, containers);

    let start = Instant::now();
    remove_all(engine, 0);
    report.add("rm -f, many at once, all", name, start.elapsed());
    memory
}

/// 1,000, or 200 where memory is short, or what `BENCH_CONTAINERS` says.
fn count() -> usize {
    let asked = std::env::var("BENCH_CONTAINERS").ok();
    let fitting = match machine::memory_available() > 1000 * KIB_EACH {
        true => 1000,
        false => 200,
    };
    asked.and_then(|text| text.parse().ok()).unwrap_or(fitting)
}

/// How long each took.
fn start_all(engine: &dyn Engine, containers: usize) -> Vec<Duration> {
    let next = AtomicUsize::new(0);
    let (sender, samples) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while next.fetch_add(1, Ordering::Relaxed) < containers {
                    let start = Instant::now();
                    engine.run(&["run", "-d", "busybox", "sleep", "100000"]);
                    sender.send(start.elapsed()).unwrap();
                }
            });
        }
    });
    drop(sender);
    samples.into_iter().collect()
}

fn memory(engine: &dyn Engine, idle: u64, containers: usize) -> Memory {
    let services = engine.services();
    let mut shims = machine::processes_of(engine.directory());
    shims.retain(|pid| !services.contains(pid));
    let (shared, own) = machine::memory_of(&shims);
    let each = containers as u64;
    Memory {
        engine: engine.name(),
        containers,
        idle,
        busy: machine::memory_of(&services).0,
        shim: (shared / each, own / each),
    }
}
