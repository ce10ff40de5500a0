//! What a container can be, and what may follow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started (or its start failed).
    #[default]
    Created,
    /// Its command runs.
    Running,
    /// Its command runs, and is frozen.
    Paused,
    /// Its command ended.
    Exited,
    /// Its shim went away without a word.
    Dead,
}

/// What can happen to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its command is to run.
    Start,
    /// Its command was to run and did not.
    FailStart,
    /// A signal, a stop, a new window size.
    Touch,
    /// One more process, or one more who reads and writes.
    Join,
    /// All its processes are to be frozen.
    Pause,
    /// They are to go on.
    Unpause,
    /// Its command ended.
    Exit,
    /// Its shim is gone and left no exit status.
    Lose,
    /// It is to be removed.
    Remove,
}

/// The one table of legal transitions; `None`: not in this state. Removal keeps the state, since nothing
/// comes after it.
pub const fn next(status: Status, action: Action) -> Option<Status> {
    match (status, action) {
        (Status::Created | Status::Exited | Status::Dead, Action::Start) => Some(Status::Running),
        (Status::Created, Action::FailStart) => Some(Status::Created),
        (Status::Exited | Status::Dead, Action::FailStart) => Some(Status::Exited),
        (Status::Running | Status::Paused, Action::Touch) => Some(status),
        (Status::Running, Action::Join) | (Status::Paused, Action::Unpause) => {
            Some(Status::Running)
        }
        (Status::Running, Action::Pause) => Some(Status::Paused),
        (Status::Running | Status::Paused, Action::Exit) => Some(Status::Exited),
        (Status::Running | Status::Paused, Action::Lose) => Some(Status::Dead),
        (Status::Created | Status::Exited | Status::Dead, Action::Remove) => Some(status),
        _ => None,
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Exited,
        Self::Dead,
    ];

    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_run_can_be_started_or_removed() {
        for status in Status::ALL {
            let idle = !matches!(status, Status::Running | Status::Paused);
            assert_eq!(next(status, Action::Start).is_some(), idle, "{status}");
            assert_eq!(next(status, Action::Remove).is_some(), idle, "{status}");
            assert_eq!(next(status, Action::Touch).is_some(), !idle, "{status}");
        }
    }

    #[test]
    fn a_paused_container_takes_signals_and_nobody_in() {
        assert_eq!(next(Status::Running, Action::Pause), Some(Status::Paused));
        assert_eq!(next(Status::Paused, Action::Pause), None);
        assert_eq!(next(Status::Paused, Action::Join), None);
        assert_eq!(next(Status::Paused, Action::Touch), Some(Status::Paused));
        assert_eq!(next(Status::Paused, Action::Exit), Some(Status::Exited));
        assert_eq!(next(Status::Paused, Action::Unpause), Some(Status::Running));
        assert_eq!(next(Status::Running, Action::Unpause), None);
    }

    #[test]
    fn a_container_that_ran_never_becomes_created_again() {
        for status in [
            Status::Running,
            Status::Paused,
            Status::Exited,
            Status::Dead,
        ] {
            for action in [
                Action::Start,
                Action::FailStart,
                Action::Touch,
                Action::Join,
                Action::Pause,
                Action::Unpause,
                Action::Exit,
                Action::Lose,
                Action::Remove,
            ] {
                assert_ne!(next(status, action), Some(Status::Created));
            }
        }
    }
}
