//! Locks that tell how long they were waited for. The clock is read only when somebody has to wait:
//! a free lock costs what it costs in the standard library, and one addition.
//!
//! A thread that panics while it has a lock does not spoil it for the others: what a lock guards here
//! can be read again from files.

use std::sync::{self, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Instant;

use orlop_wire::metrics::{Counter, Histogram};

use crate::metrics::METRICS;

/// What is counted of the locks of one name.
#[derive(Clone, Debug)]
pub struct Waits {
    taken: Counter,
    seconds: Histogram,
}

impl Waits {
    /// Locks of the same name are counted together.
    pub fn named(lock: &'static str) -> Self {
        let labels = [("lock", lock)];
        Self {
            taken: METRICS.lock_acquisitions.get_or_create_owned(&labels),
            seconds: METRICS.lock_wait_seconds.get_or_create_owned(&labels),
        }
    }

    /// Takes something: `now` if that gives it, or else `wait` by the clock.
    pub fn take<G>(&self, now: impl FnOnce() -> Option<G>, wait: impl FnOnce() -> G) -> G {
        self.taken.inc();
        if let Some(guard) = now() {
            return guard;
        }
        let began = Instant::now();
        let guard = wait();
        self.seconds.observe(began.elapsed().as_secs_f64());
        guard
    }
}

/// [`sync::Mutex`], timed.
#[derive(Debug)]
pub struct Mutex<T> {
    inner: sync::Mutex<T>,
    waits: Waits,
}

impl<T> Mutex<T> {
    /// A free lock, counted under this name.
    pub fn new(name: &'static str, value: T) -> Self {
        Self {
            inner: sync::Mutex::new(value),
            waits: Waits::named(name),
        }
    }

    /// Waits until it is free.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.waits.take(
            || at_once(self.inner.try_lock()),
            || self.inner.lock().unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// [`sync::RwLock`], timed.
#[derive(Debug)]
pub struct RwLock<T> {
    inner: sync::RwLock<T>,
    waits: Waits,
}

impl<T> RwLock<T> {
    /// A free lock, counted under this name.
    pub fn new(name: &'static str, value: T) -> Self {
        Self {
            inner: sync::RwLock::new(value),
            waits: Waits::named(name),
        }
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.waits.take(
            || at_once(self.inner.try_read()),
            || self.inner.read().unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.waits.take(
            || at_once(self.inner.try_write()),
            || self.inner.write().unwrap_or_else(PoisonError::into_inner),
        )
    }
}

fn at_once<G>(tried: Result<G, TryLockError<G>>) -> Option<G> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample of this lock, from the text that Prometheus reads.
    fn sample(name: &str, lock: &str) -> f64 {
        let sample = format!("orlop_store_lock_{name}{{lock=\"{lock}\"}} ");
        let text = orlop_wire::metrics::text();
        let line = text.lines().find_map(|line| line.strip_prefix(&sample));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn a_free_lock_is_counted_and_not_timed() {
        let lock = Mutex::new("free", 1);
        *lock.lock() += 1;
        assert_eq!(*lock.lock(), 2);
        assert_eq!(sample("acquisitions_total", "free"), 2.0);
        assert_eq!(sample("wait_seconds_count", "free"), 0.0);
    }

    #[test]
    fn waiting_for_a_reader_is_timed() {
        let lock = RwLock::new("shared", ());
        let meet = || {
            let reader = lock.read();
            std::thread::scope(|scope| {
                scope.spawn(|| drop(lock.write()));
                std::thread::sleep(std::time::Duration::from_millis(20));
                drop(reader);
            });
            sample("wait_seconds_count", "shared")
        };
        // On a slow machine the writer may come after the reader has gone.
        let waited = (0..100).map(|_| meet()).find(|count| *count > 0.0);
        assert_eq!(waited, Some(1.0));
        assert!(sample("wait_seconds_sum", "shared") > 0.0);
    }

    #[test]
    fn a_panic_spoils_no_lock() {
        let lock = Mutex::new("spoiled", 7);
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _guard = lock.lock();
                panic!("on purpose");
            });
            panicking.join().unwrap_err();
        });
        assert_eq!(*lock.lock(), 7);
    }
}
