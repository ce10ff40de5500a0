//! Giving back, once a busy time is over, the memory that was needed for it: most of this program makes
//! containers and processes, and little of it stays beside them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use orlop_sys::memory::{self, Code};

/// How long after the work: what is done in between would need it again.
const PAUSE: Duration = Duration::from_secs(1);

/// When memory is to be given back.
#[derive(Debug)]
pub(super) struct Rest {
    code: Code,
    due: Cell<Option<Instant>>,
}

impl Rest {
    /// There was work before.
    pub(super) fn new() -> Self {
        let rest = Self {
            code: Code::loaded(),
            due: Cell::default(),
        };
        rest.after_work();
        rest
    }

    /// There was work.
    pub(super) fn after_work(&self) {
        self.due.set(Some(Instant::now() + PAUSE));
    }

    /// When to wake up for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.get().filter(|due| *due > Instant::now())
    }

    /// Gives back what is due. Whatever runs afterwards brings its code back: this is the last thing before
    /// a wait.
    pub(super) fn give_back(&self) {
        if self.due.get().is_some_and(|due| due <= Instant::now()) {
            self.due.set(None);
            memory::release_heap();
            self.code.release();
        }
    }
}
