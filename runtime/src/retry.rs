//! What cannot be undone at once, because no descriptor is free or the store does not answer, is tried again off
//! everyone's way. What does not work in the end is found when the service starts the next time.

use std::time::Duration;

use crate::error::Result;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts at most.
const ATTEMPTS: u32 = 60;

/// Tries something in the background until it works.
pub(crate) fn later<F, Attempt>(what: &'static str, id: &str, attempt: F)
where
    F: Fn() -> Attempt + Send + 'static,
    Attempt: Future<Output = Result<()>> + Send,
{
    let id = id.to_owned();
    tokio::spawn(async move {
        for _ in 0..ATTEMPTS {
            tokio::time::sleep(PAUSE).await;
            match attempt().await {
                Ok(()) => return,
                Err(error) => tracing::debug!(id, %error, what, "tried again in vain"),
            }
        }
        tracing::error!(id, what, "given up until the next start");
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn it_is_tried_until_it_works() {
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        later("count", "x", move || {
            let attempt = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match attempt {
                    2 => Ok(()),
                    _ => Err(Error::NoContainer("x".to_owned())),
                }
            }
        });
        tokio::time::sleep(PAUSE * 6).await;
        assert_eq!(attempts.load(Ordering::Relaxed), 3);
    }
}
