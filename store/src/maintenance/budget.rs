//! A bound on all bytes of the store: what nothing needs stays as a cache until there is too much, then
//! what was wanted least recently goes first.

use std::collections::BinaryHeap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use oci_spec::image::Digest;

use super::{Collected, Maintenance};
use crate::StoreError;
use crate::snapshots::collect::Dead;

/// Things that are chosen in one pass over all blobs: about 20 MB.
const CHOSEN_MAX: usize = 64 * 1024;
/// How often somebody looks whether much was written.
const TICK: Duration = Duration::from_secs(2);
/// How often the budget is kept, however little was written.
const INTERVAL: Duration = Duration::from_secs(60);
/// After this part of the budget was written, it is kept at once.
const WRITTEN_PART: u64 = 16;

/// Something that nothing needs. The one to go first is the smallest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unused {
    wanted: Timestamp,
    /// Keeps children before their parents.
    position: usize,
    bytes: u64,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Snapshot(String),
    Blob(String),
}

/// The least recently wanted things that together have as many bytes as must go.
#[derive(Debug)]
struct Choice {
    chosen: BinaryHeap<Unused>,
    bytes: u64,
    excess: u64,
}

impl Choice {
    fn new(excess: u64) -> Self {
        Self {
            chosen: BinaryHeap::new(),
            bytes: 0,
            excess,
        }
    }

    fn add(&mut self, unused: Unused) {
        self.bytes += unused.bytes;
        self.chosen.push(unused);
        while let Some(newest) = self.chosen.peek() {
            let enough = self.bytes - newest.bytes >= self.excess;
            if !enough && self.chosen.len() <= CHOSEN_MAX {
                return;
            }
            self.bytes -= newest.bytes;
            self.chosen.pop();
        }
    }
}

impl Maintenance {
    /// Removes what was wanted least recently, until the store has no more bytes than the budget or
    /// nothing is left that may go: nothing that is referenced, leased or wanted since `cutoff` does.
    pub(super) fn evict(
        &self,
        budget: u64,
        cutoff: Timestamp,
        dry_run: bool,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        loop {
            let excess = self.counted()?.bytes().saturating_sub(budget);
            if excess == 0 {
                return Ok(collected);
            }
            let before = collected;
            for unused in self.choose(excess, cutoff)? {
                if dry_run || self.remove_unused(&unused.what, cutoff)? {
                    collected.add(&unused);
                }
            }
            if dry_run || collected == before {
                return Ok(collected);
            }
        }
    }

    /// What goes, in order.
    fn choose(&self, excess: u64, cutoff: Timestamp) -> Result<Vec<Unused>, StoreError> {
        let marks = self.mark()?;
        let mut choice = Choice::new(excess);
        let dead = self.snapshots.dead(&marks.snapshots, cutoff)?;
        for (
            position,
            Dead {
                name,
                wanted,
                bytes,
            },
        ) in dead.into_iter().enumerate()
        {
            choice.add(Unused {
                wanted,
                position,
                bytes,
                what: What::Snapshot(name),
            });
        }
        self.each_unmarked(&marks, |blob| {
            if blob.wanted < cutoff {
                choice.add(Unused {
                    wanted: blob.wanted,
                    position: 0,
                    bytes: blob.allocated,
                    what: What::Blob(blob.digest.to_string()),
                });
            }
            Ok(())
        })?;
        Ok(choice.chosen.into_sorted_vec())
    }

    fn remove_unused(&self, what: &What, cutoff: Timestamp) -> Result<bool, StoreError> {
        match what {
            What::Snapshot(name) => self.snapshots.remove_unless_wanted(name, cutoff),
            What::Blob(digest) => {
                let digest: Digest = crate::content::digest(digest)?;
                self.content.remove_unless_wanted(&digest, cutoff)
            }
        }
    }

    /// Keeps the budget from now on; `None` without one.
    pub fn keep_budget(&self) -> Option<Keeper> {
        let budget = self.budget?;
        let (stop, stopped) = channel::<()>();
        let maintenance = self.clone();
        let keep = move || {
            let (mut free, mut last) = (u64::MAX, None::<Instant>);
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let now = maintenance.content.free_bytes().unwrap_or(free);
                let written = free.saturating_sub(now) > budget / WRITTEN_PART;
                if written || last.is_none_or(|last| last.elapsed() > INTERVAL) {
                    maintenance.keep_budget_once();
                    free = maintenance.content.free_bytes().unwrap_or(now);
                    last = Some(Instant::now());
                }
            }
        };
        let thread = thread::Builder::new().name("budget".to_owned()).spawn(keep);
        match thread {
            Ok(thread) => Some(Keeper {
                stop: Some(stop),
                thread: Some(thread),
            }),
            Err(error) => {
                tracing::error!(%error, "nobody keeps the budget but `Collect`");
                None
            }
        }
    }

    fn keep_budget_once(&self) {
        match self.collect(false) {
            Ok(collected) if collected.bytes > 0 => {
                tracing::info!(?collected, "the store was over its budget");
            }
            Ok(_) => {}
            Err(error) => {
                let error = orlop_proto::error::chain(&error);
                tracing::error!(error, "the budget cannot be kept");
            }
        }
    }
}

impl Collected {
    fn add(&mut self, unused: &Unused) {
        self.bytes += unused.bytes;
        match unused.what {
            What::Snapshot(_) => self.snapshots += 1,
            What::Blob(_) => self.blobs += 1,
        }
    }
}

/// The thread that keeps the budget; it ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
