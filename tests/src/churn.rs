//! Containers that come and go in great number, and many at once: how long it takes, how much memory each has, and
//! that nothing of them stays.
//!
//! - [`trace`]: what could stay. [`report`]: what came of it.

pub mod report;
pub mod trace;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Instance;
use report::{Report, resident, share};
use trace::Trace;

/// What a churn is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Containers that are run, stopped, started and removed, one after another per worker.
    pub cycles: u64,
    /// Containers that run at the same time.
    pub at_once: u64,
    /// Commands at the same time.
    pub workers: u64,
}

/// How long removals that go on after their answer may take.
const SETTLING: Duration = Duration::from_secs(60);
/// After so long services and shims have given back what a burst needed.
const REST: Duration = Duration::from_secs(4);
/// Containers that one `rm` is given.
const REMOVED_AT_ONCE: usize = 50;

/// Runs the plan on an instance of its own.
pub fn run(plan: Plan) -> Report {
    let orlop = Instance::with_busybox();
    // Bridge, table and store are as they will be once a container was there.
    cycle(&orlop, "first");
    let before = Trace::at_rest(&orlop);
    let mut report = Report::default();
    report.time("cycle", plan.cycles, || {
        each(plan.workers, plan.cycles, |number| {
            cycle(&orlop, &format!("cycle{number}"))
        });
    });
    report.stays("cycles", left(&orlop, &before));
    if plan.at_once > 0 {
        crowd(&orlop, plan, &mut report);
        report.stays("crowd", left(&orlop, &before));
    }
    report
}

/// One container's life, with a published port and a volume of its own.
fn cycle(orlop: &Instance, name: &str) {
    let run = [
        "run",
        "-d",
        "--name",
        name,
        "--stop-signal",
        "KILL",
        "-v",
        "/data",
    ];
    let published = ["-p", "127.0.0.1:0:80", "busybox", "sleep", "1000"];
    orlop.run(&[&run[..], &published].concat()).success();
    orlop.run(&["stop", name]).success();
    orlop.run(&["start", name]).success();
    orlop.run(&["rm", "-f", "-v", name]).success();
}

/// Many at once: started, listed, entered, measured, removed.
fn crowd(orlop: &Instance, plan: Plan, report: &mut Report) {
    let count = plan.at_once;
    let service = orlop.service_pid("runtime");
    report.memory("service, before the crowd", &[resident(service)]);
    report.time("start", count, || {
        each(plan.workers, count, |number| {
            let name = format!("crowd{number}");
            orlop
                .run(&["run", "-d", "--name", &name, "busybox", "sleep", "10000"])
                .success();
        });
    });
    let ids = report.time("list", 1, || orlop.run(&["ps", "-q"]).success().stdout());
    assert_eq!(ids.lines().count() as u64, count, "all of them run");
    let last = format!("crowd{}", count - 1);
    report.time("exec", 1, || orlop.run(&["exec", &last, "true"]).success());
    thread::sleep(REST);
    report.memory("service, with the crowd", &[resident(service)]);
    let shims = orlop.shims();
    let each = |memory: fn(i32) -> u64| -> Vec<_> { shims.iter().copied().map(memory).collect() };
    report.memory("shim", &each(resident));
    report.memory("shim, its share", &each(share));
    let ids: Vec<_> = ids.lines().collect();
    report.time("remove", count, || {
        for some in ids.chunks(REMOVED_AT_ONCE) {
            orlop.run(&[&["rm", "-f"], some].concat()).success();
        }
    });
    thread::sleep(REST);
    report.memory("service, after the crowd", &[resident(service)]);
}

/// Does something for each number below `count`, some at once.
fn each(workers: u64, count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// What is there beyond what was, once removals that go on had their time.
pub fn left(orlop: &Instance, before: &Trace) -> Vec<String> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let left = Trace::of(orlop).beyond(before);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
