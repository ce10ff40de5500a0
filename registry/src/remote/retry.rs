//! When to try again, and after how long.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The pauses double from this one.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// The most that a server can make us wait at a time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Tries after the first one.
const RETRIES: u32 = 4;

/// The pause after a try that failed; `None` when that was the last one. Half of it is chance, so
/// that clients that failed together do not come back together.
pub fn delay(attempt: u32) -> Option<Duration> {
    if attempt >= RETRIES {
        return None;
    }
    let pause = (FIRST * 2_u32.pow(attempt)).min(LONGEST);
    Some(pause / 2 + pause.mul_f64(f64::from(random_byte()) / 512.0))
}

/// The pause after an answer; `None` when the answer stands.
pub(super) fn after(status: StatusCode, headers: &HeaderMap, attempt: u32) -> Option<Duration> {
    let passing = matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504);
    if !passing {
        return None;
    }
    let pause = delay(attempt)?;
    let asked = headers.get(RETRY_AFTER);
    let asked = asked.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let asked = asked.map(Duration::from_secs).unwrap_or_default();
    Some(pause.max(asked.min(RETRY_AFTER_MAX)))
}

fn random_byte() -> u8 {
    let mut byte = [128];
    // Without chance the pause is only less spread.
    getrandom::fill(&mut byte).ok();
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        for attempt in 0..RETRIES {
            let pause = delay(attempt).unwrap();
            let whole = FIRST * 2_u32.pow(attempt);
            assert!(pause >= whole / 2 && pause <= whole);
        }
        assert_eq!(delay(RETRIES), None);
    }

    #[test]
    fn a_server_cannot_make_us_wait_for_ever() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "86400".parse().unwrap());
        let pause = after(StatusCode::TOO_MANY_REQUESTS, &headers, 0).unwrap();
        assert_eq!(pause, RETRY_AFTER_MAX);
        assert_eq!(after(StatusCode::NOT_FOUND, &headers, 0), None);
    }
}
