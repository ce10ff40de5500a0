//! The rules by which results of a health check become a container's health. They are Docker's.

use std::time::Duration;

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

/// Results that are kept.
pub const RESULTS_MAX: usize = 5;
/// Bytes of a result's output that are kept; `...` tells that there were more.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// The exit code of a check that took too long or could not be started.
pub const NOT_RUN: i32 = -1;

/// What is run in a container to find out about its health, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// OCI runtime-spec `process`, as for one more process in the container.
    #[serde(deserialize_with = "crate::document::process")]
    pub process: Process,
    /// Between the end of a check and the next one.
    pub interval: Duration,
    /// After which a check is killed, and has failed.
    pub timeout: Duration,
    /// Failures in a row that make the container unhealthy.
    pub retries: u32,
    /// After the container's start; until it is healthy, failures in this time do not count.
    pub start_period: Duration,
    /// In place of `interval` in that time.
    pub start_interval: Duration,
}

/// What is known of a container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The sum of it.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last [`RESULTS_MAX`], oldest first.
    pub results: Vec<HealthResult>,
}

/// The sum of a container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last check succeeded, or too few have failed since.
    Healthy,
    /// Too many checks failed in a row.
    Unhealthy,
}

/// What one check brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    pub ended_at: i64,
    /// 0: healthy; [`NOT_RUN`].
    pub exit_code: i32,
    /// The beginning of what it wrote, or why it has no exit code.
    pub output: String,
}

impl HealthStatus {
    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl HealthCheck {
    /// The pause before the next check of a container that was started `age` ago.
    pub fn pause(&self, health: &Health, age: Duration) -> Duration {
        match self.excuses(health, age) {
            true => self.start_interval,
            false => self.interval,
        }
    }

    /// Whether a failure at this age does not count.
    fn excuses(&self, health: &Health, age: Duration) -> bool {
        health.status == HealthStatus::Starting && age < self.start_period
    }
}

impl Health {
    /// Takes the result of a check that began at this age of the container.
    pub fn add(&mut self, result: HealthResult, check: &HealthCheck, age: Duration) {
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if !check.excuses(self, age) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.results.push(result);
        if self.results.len() > RESULTS_MAX {
            self.results.remove(0);
        }
    }
}

/// The beginning of an output, as text; `...` in place of the rest.
pub fn shown(output: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(output).into_owned();
    if text.len() > OUTPUT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(OUTPUT_BYTES_MAX));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(start_period: u32) -> HealthCheck {
        HealthCheck {
            process: Process::default(),
            interval: SECOND * 30,
            timeout: SECOND,
            retries: 3,
            start_period: SECOND * start_period,
            start_interval: SECOND * 5,
        }
    }

    fn result(exit_code: i32) -> HealthResult {
        HealthResult {
            started_at: 0,
            ended_at: 1,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn failures_in_a_row_make_unhealthy_and_one_success_heals() {
        let (check, mut health) = (check(0), Health::default());
        for (code, status, streak) in [
            (1, HealthStatus::Starting, 1),
            (1, HealthStatus::Starting, 2),
            (NOT_RUN, HealthStatus::Unhealthy, 3),
            (0, HealthStatus::Healthy, 0),
            (2, HealthStatus::Healthy, 1),
            (0, HealthStatus::Healthy, 0),
        ] {
            health.add(result(code), &check, SECOND);
            assert_eq!((health.status, health.failing_streak), (status, streak));
        }
        assert_eq!(health.results.len(), RESULTS_MAX);
    }

    #[test]
    fn failures_while_it_starts_do_not_count_until_it_was_healthy() {
        let (check, mut health) = (check(60), Health::default());
        assert_eq!(check.pause(&health, SECOND), SECOND * 5);
        for _ in 0..4 {
            health.add(result(1), &check, SECOND * 59);
        }
        assert_eq!(
            (health.status, health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        health.add(result(0), &check, SECOND * 59);
        assert_eq!(check.pause(&health, SECOND * 59), SECOND * 30);
        health.add(result(1), &check, SECOND * 59);
        assert_eq!(health.failing_streak, 1);
        let late = Health::default();
        assert_eq!(check.pause(&late, SECOND * 60), SECOND * 30);
    }

    #[test]
    fn long_output_is_cut_between_characters() {
        assert_eq!(shown(b"a\xffb"), "a\u{fffd}b");
        let long = "é".repeat(OUTPUT_BYTES_MAX);
        let cut = shown(long.as_bytes());
        assert!(cut.len() == OUTPUT_BYTES_MAX + 3 && cut.ends_with("é..."));
    }
}
