//! A racer: two names in a directory that change places as fast as the kernel can.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{RenameFlags, renameat_with};

/// How long a race is tried, and how often at the least.
const RACE: Duration = Duration::from_secs(4);
const ROUNDS_MIN: u32 = 20;

/// Does something again and again while names change places.
pub fn for_a_while(mut work: impl FnMut()) {
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < RACE || rounds < ROUNDS_MIN {
        work();
        rounds += 1;
    }
}

/// Exchanges two names until it is dropped. Whoever looks one of them up twice finds two things.
#[derive(Debug)]
pub struct Swap {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swap {
    /// Of `one` and `other` in a directory that stays.
    pub fn start(directory: &Path, one: &'static str, other: &'static str) -> Self {
        let directory = File::open(directory).unwrap();
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (end, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                renameat_with(&directory, one, &directory, other, RenameFlags::EXCHANGE).unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            count,
            thread: Some(thread),
        }
    }

    /// How often they changed places.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the names could not be exchanged"
            );
        }
    }
}
