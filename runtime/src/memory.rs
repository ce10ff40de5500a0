//! Giving memory back after work: an allocator keeps what a burst of requests needed, in an arena for each
//! of many threads.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::error::blocking;
use crate::events::Events;

/// What happens within so much time is one burst.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs as long as there are events, which tell of everything that needs much.
pub(crate) async fn give_back_after_work(events: Events) {
    let mut live = events.live();
    while !matches!(live.recv().await, Err(RecvError::Closed)) {
        // A watch that nobody reads would keep events.
        drop(live);
        tokio::time::sleep(PAUSE).await;
        live = events.live();
        let released = blocking(|| {
            orlop_sys::memory::release_heap();
            Ok(())
        });
        released.await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_events() {
        let events = Events::new();
        let giving = tokio::spawn(give_back_after_work(events.clone()));
        tokio::task::yield_now().await;
        events.close();
        let ended = tokio::time::timeout(10 * PAUSE, giving).await;
        ended.unwrap().unwrap();
    }
}
