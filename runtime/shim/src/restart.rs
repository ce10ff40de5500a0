//! When a container that ended is started again. The service decides by this, and a shim while there is
//! no service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first pause before a restart by policy; it doubles each time. Docker's.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. Docker's.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A container that ran this long is not crash-looping: its pauses begin anew. Docker's.
const SETTLED: Duration = Duration::from_secs(10);

/// After which ends a container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// After none.
    #[default]
    Never,
    /// After those with a code that is not 0.
    OnFailure {
        /// Restarts at most; 0: any number.
        maximum_retries: u32,
    },
    /// After all.
    Always,
}

/// Restarts by policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Since the last start by a person.
    pub count: u32,
    /// In a row without a run that was long enough to count as settled.
    pub short_runs: u32,
}

/// What is done about an unhealthy container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnhealthy {
    /// It is said so.
    #[default]
    Nothing,
    /// It is killed.
    Kill,
    /// It is ended as a person would, and started again.
    Restart,
    /// It is ended as a person would.
    Stop,
}

impl Policy {
    /// Whether a container that ended with this code, after so many restarts, is started again.
    pub fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::Never => false,
            Self::OnFailure { maximum_retries } => {
                code != 0 && (maximum_retries == 0 || restarts < maximum_retries)
            }
            Self::Always => true,
        }
    }
}

impl Restarts {
    /// After one more.
    #[must_use]
    pub fn once_more(self) -> Self {
        Self {
            count: self.count.saturating_add(1),
            short_runs: self.short_runs.saturating_add(1),
        }
    }

    /// After a run of this length.
    #[must_use]
    pub fn after(self, run: Duration) -> Self {
        match run >= SETTLED {
            true => Self {
                short_runs: 0,
                ..self
            },
            false => self,
        }
    }

    /// The pause before the next one: it doubles with each short run.
    pub fn pause(self) -> Duration {
        let doubled = PAUSE.saturating_mul(1 << self.short_runs.min(16));
        doubled.min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pause = |short_runs| {
            let restarts = Restarts {
                count: 0,
                short_runs,
            };
            restarts.pause().as_millis()
        };
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000,
        ];
        assert_eq!((0..12).map(pause).collect::<Vec<_>>(), expected);
        assert_eq!(pause(u32::MAX), PAUSE_MAX.as_millis());
    }

    #[test]
    fn policies_look_at_the_code_and_at_how_often() {
        let on_failure = |maximum_retries| Policy::OnFailure { maximum_retries };
        for (policy, code, again) in [
            (Policy::Never, 1, false),
            (on_failure(0), 1, true),
            (on_failure(0), 0, false),
            (on_failure(4), 1, true),
            (on_failure(3), 1, false),
            (Policy::Always, 0, true),
        ] {
            assert_eq!(policy.wants(code, 3), again, "{policy:?} {code}");
        }
    }

    #[test]
    fn a_run_of_ten_seconds_begins_the_pauses_anew() {
        let restarts = Restarts {
            count: 6,
            short_runs: 6,
        };
        assert_eq!(restarts.after(Duration::from_secs(9)), restarts);
        let settled = restarts.after(Duration::from_secs(10));
        assert_eq!((settled.count, settled.short_runs), (6, 0));
    }
}
