//! Everything at once for a while: two instances that push to and pull from each other while images
//! are loaded, imported, named, unnamed, run and verified, and a collector that never rests.
//!
//! What was acknowledged is kept in a [`journal`]; whatever it has must be whole: its manifest and every blob
//! by digest, and a run that prints what that image prints.
//!
//! - [`side`]: one instance with metrics. [`image`]: images that share layers. [`work`]: what is done.
//! - [`verify`]: what must hold. [`report`]: what came of it. [`prometheus`]: reading metrics.
//! - [`memory`]: what the store takes for many blobs and large layers.

pub mod image;
pub mod journal;
pub mod memory;
pub mod prometheus;
pub mod report;
pub mod side;
pub mod verify;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use journal::Journal;
use report::{Report, Tally};
use side::Side;
use work::{Worker, Yard};

/// How long a collector rests between two runs.
const COLLECT_PAUSE: Duration = Duration::from_millis(250);

/// What a soak is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long new operations begin.
    pub duration: Duration,
    /// Operations at once.
    pub workers: u64,
    /// Where the dice begin: equal seeds choose equal operations, as far as threads allow.
    pub seed: u64,
}

/// Runs the plan and verifies at the end everything that was acknowledged.
pub fn run(plan: Plan) -> Report {
    let yard = Arc::new(Yard {
        sides: [Side::start(), Side::start()],
        journal: Journal::default(),
        tally: Tally::default(),
        stop: AtomicBool::new(false),
    });
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..plan.workers {
            let mut worker = Worker::new(&yard, number, plan.seed);
            scope.spawn(move || worker.work());
        }
        for side in &yard.sides {
            let yard = &yard;
            scope.spawn(move || collect(yard, side));
        }
        thread::sleep(plan.duration);
        yard.stop.store(true, Ordering::Relaxed);
    });
    let worked = began.elapsed();
    verify::everything(&yard);
    Report::of(&yard, worked)
}

fn collect(yard: &Yard, side: &Side) {
    while !yard.stop.load(Ordering::Relaxed) {
        yard.tally.time("collect", || side.collect());
        thread::sleep(COLLECT_PAUSE);
    }
}
