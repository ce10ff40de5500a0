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
    /// A signal, a stop, one more process, a new window size.
    Touch,
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
        (Status::Running, Action::Touch) => Some(Status::Running),
        (Status::Running, Action::Exit) => Some(Status::Exited),
        (Status::Running, Action::Lose) => Some(Status::Dead),
        (Status::Created | Status::Exited | Status::Dead, Action::Remove) => Some(status),
        _ => None,
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Created, Self::Running, Self::Exited, Self::Dead];

    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
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
            let idle = status != Status::Running;
            assert_eq!(next(status, Action::Start).is_some(), idle, "{status}");
            assert_eq!(next(status, Action::Remove).is_some(), idle, "{status}");
            assert_eq!(next(status, Action::Touch).is_some(), !idle, "{status}");
        }
    }

    #[test]
    fn a_container_that_ran_never_becomes_created_again() {
        for status in [Status::Running, Status::Exited, Status::Dead] {
            for action in [
                Action::Start,
                Action::FailStart,
                Action::Touch,
                Action::Exit,
                Action::Lose,
                Action::Remove,
            ] {
                assert_ne!(next(status, action), Some(Status::Created));
            }
        }
    }
}
