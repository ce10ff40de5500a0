//! One flight per digest: two transfers that need the same blob do not both fetch it; the second one
//! waits, and finds it there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Locks = HashMap<String, Arc<AsyncMutex<()>>>;

/// The digests under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Arc<Mutex<Locks>>);

/// The right to fetch one digest.
#[derive(Debug)]
pub(super) struct Flight {
    guard: Option<OwnedMutexGuard<()>>,
    digest: String,
    locks: Arc<Mutex<Locks>>,
}

impl Flights {
    /// Waits for whoever fetches this digest.
    pub(super) async fn board(&self, digest: &str) -> Flight {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(digest.to_owned()).or_default())
        };
        Flight {
            guard: Some(lock.lock_owned().await),
            digest: digest.to_owned(),
            locks: Arc::clone(&self.0),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Nobody waits: the map's own is the last one.
        if locks
            .get(&self.digest)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_and_nothing_stays() {
        let flights = Flights::default();
        let first = flights.board("a").await;
        let second = flights.board("a");
        tokio::pin!(second);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), second.as_mut());
        assert!(waited.await.is_err());
        drop(first);
        drop(second.await);
        assert!(flights.0.lock().unwrap().is_empty());
    }
}
