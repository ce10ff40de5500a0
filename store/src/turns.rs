//! Turns at things that have a name: one caller at a time works on one name, and nobody waits for the
//! work on another.
//!
//! The order in which everything of the store that is waited for is taken; who holds one takes only
//! what stands below it:
//!
//! 1. the collection: one run at a time, nothing but another collection waits for it;
//! 2. turns: at a name of an image, at a lease, at a snapshot or a layer; held while their files become
//!    durable, so that two changes of one thing are linear;
//! 3. a group of commits (`files/group.rs`) and the publisher of blobs: who waits there waits for the
//!    disk, and holds nothing but turns;
//! 4. the sweep of one blob or one snapshot against who wants it: one look and one rename;
//! 5. what is in memory: maps of names, leases, records, layers, wishes. Never held over a call of the
//!    system that may wait for the disk, and nothing is taken below them.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::locks::Waits;

/// Lets one caller at a time work on the same thing.
#[derive(Debug)]
pub(crate) struct Turns {
    taken: Mutex<HashSet<String>>,
    freed: Condvar,
    waits: Waits,
}

impl Turns {
    /// Nobody has a turn; who waits for one is counted under this name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            taken: Mutex::default(),
            freed: Condvar::new(),
            waits: Waits::named(name),
        }
    }

    /// Waits until nobody works on any of the things, then takes all of them: never some, so that
    /// nobody waits in a circle.
    pub(crate) fn take(&self, things: Vec<String>) -> Turn<'_> {
        let busy = |taken: &HashSet<String>| things.iter().any(|thing| taken.contains(thing));
        let mut taken = self.waits.take(
            || Some(self.taken()).filter(|taken| !busy(taken)),
            || {
                self.freed
                    .wait_while(self.taken(), |taken| busy(taken))
                    .unwrap_or_else(PoisonError::into_inner)
            },
        );
        taken.extend(things.iter().cloned());
        Turn {
            turns: self,
            things,
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody works on these things until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    things: Vec<String>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        for thing in &self.things {
            taken.remove(thing);
        }
        drop(taken);
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn one_at_a_time_has_a_turn_and_others_do_not_wait() {
        let turns = Turns::named("turn of a test");
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let _other = turns.take(vec!["other".into()]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.take(vec!["a".into(), "b".into()]);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }
}
