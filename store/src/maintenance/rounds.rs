//! One collection at a time, shared by all who wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Collected;
use crate::StoreError;
use crate::locks::Waits;

/// Collections one after the other. Who asks for one while another is under way gets the next, together
/// with everybody else who asks until that begins: the one under way may have passed what they mean.
#[derive(Debug)]
pub(super) struct Rounds {
    state: Mutex<State>,
    changed: Condvar,
    /// How long a round was waited for that had not begun.
    waits: Waits,
}

#[derive(Debug, Default)]
struct State {
    /// Rounds that have begun.
    begun: u64,
    /// The last of them has not ended.
    runs: bool,
    /// The last one that came to a good end.
    good: Option<(u64, Collected)>,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            waits: Waits::named("collection"),
        }
    }

    /// Collects, or gives what a collection removed that began after this call. If that failed, the
    /// next of those who wait tries it anew: each hears its own error.
    pub(super) fn share(
        &self,
        collect: impl FnOnce() -> Result<Collected, StoreError>,
    ) -> Result<Collected, StoreError> {
        let next = self.lock().begun + 1;
        let state = self.until_begun(next);
        let shares = |state: &mut State| state.runs && state.good_since(next).is_none();
        let ended = self.changed.wait_while(state, shares);
        let state = ended.unwrap_or_else(PoisonError::into_inner);
        if let Some(collected) = state.good_since(next) {
            return Ok(collected);
        }
        let round = self.begin(state);
        let collected = collect()?;
        round.ends_well(collected);
        Ok(collected)
    }

    /// Waits until this round has begun, or may begin.
    fn until_begun(&self, round: u64) -> MutexGuard<'_, State> {
        let waits = |state: &State| state.runs && state.begun < round;
        let free = || Some(self.lock()).filter(|state| !waits(state));
        let wait = || self.changed.wait_while(self.lock(), |state| waits(state));
        self.waits
            .take(free, || wait().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self, mut state: MutexGuard<'_, State>) -> Round<'_> {
        state.begun += 1;
        state.runs = true;
        self.changed.notify_all();
        Round {
            rounds: self,
            number: state.begun,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn good_since(&self, round: u64) -> Option<Collected> {
        let (number, collected) = self.good?;
        (number >= round).then_some(collected)
    }
}

/// A round under way; it ends when this is dropped, even by a panic.
struct Round<'a> {
    rounds: &'a Rounds,
    number: u64,
}

impl Round<'_> {
    fn ends_well(self, collected: Collected) {
        self.rounds.lock().good = Some((self.number, collected));
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.rounds.lock().runs = false;
        self.rounds.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const ASKERS: u64 = 8;

    fn blobs(blobs: u64) -> Collected {
        Collected {
            blobs,
            ..Collected::default()
        }
    }

    #[test]
    fn who_waits_shares_a_round_that_began_after_it_asked() {
        let (rounds, runs, asked) = (Rounds::new(), AtomicU64::new(0), AtomicU64::new(0));
        let collect = || Ok(blobs(runs.fetch_add(1, Ordering::SeqCst) + 1));
        let (go, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                let waiting = move || wait.recv().map_or_else(|_| collect(), |()| collect());
                rounds.share(waiting).unwrap()
            });
            while !rounds.lock().runs {
                thread::yield_now();
            }
            let asking = || {
                asked.fetch_add(1, Ordering::SeqCst);
                rounds.share(collect).unwrap()
            };
            let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(asking)).collect();
            while asked.load(Ordering::SeqCst) < ASKERS {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(100));
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap(), blobs(1));
            for asker in askers {
                assert!(asker.join().unwrap().blobs > 1, "a round that had begun");
            }
        });
        let runs = runs.load(Ordering::SeqCst);
        assert!((2..=ASKERS).contains(&runs), "{runs} rounds");
    }

    #[test]
    fn a_round_that_fails_or_panics_is_tried_by_the_next() {
        let rounds = Rounds::new();
        let failing = || {
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            Err(StoreError::io("list", "blobs")(gone))
        };
        rounds.share(failing).unwrap_err();
        thread::scope(|scope| {
            let panicking = scope.spawn(|| rounds.share(|| panic!("on purpose")));
            panicking.join().unwrap_err();
        });
        assert_eq!(rounds.share(|| Ok(blobs(3))).unwrap(), blobs(3));
    }
}
