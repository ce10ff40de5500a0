//! Named moments at which a test can have the process killed, so that every order of a crash is met
//! on purpose and in the very binary that ships.
//!
//! `--failpoint <name>[:<n>]` kills the store with SIGKILL when it reaches the moment for the n-th time
//! (the first by default). Without it a moment costs one load from memory. Whoever chooses the options
//! of the service could as well kill it: this opens no door.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static ARMED: OnceLock<Failpoint> = OnceLock::new();

/// The moment to die at.
#[derive(Debug)]
pub struct Failpoint {
    name: String,
    left: AtomicU64,
}

impl Failpoint {
    /// `<name>[:<n>]`.
    pub fn parse(value: &str) -> Option<Self> {
        let (name, count) = value.split_once(':').unwrap_or((value, "1"));
        let left = AtomicU64::new(count.parse().ok()?);
        let name = name.to_owned();
        (!name.is_empty()).then_some(Self { name, left })
    }

    /// From now on this process dies at it. Only the first call of a process counts.
    pub fn arm(self) {
        tracing::warn!(name = self.name, "will be killed at a failpoint");
        drop(ARMED.set(self));
    }
}

/// Reaches a moment; does not return when it is the one to die at.
pub fn reach(name: &str) {
    let Some(armed) = ARMED.get().filter(|armed| armed.name == name) else {
        return;
    };
    if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        die();
    }
}

/// SIGKILL: no destructor, no flush, no handler.
fn die() {
    let own = rustix::process::getpid();
    if rustix::process::kill_process(own, rustix::process::Signal::KILL).is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_count() {
        let armed = Failpoint::parse("content.publish.renamed:3").unwrap();
        assert_eq!(armed.name, "content.publish.renamed");
        assert_eq!(armed.left.into_inner(), 3);
        assert_eq!(Failpoint::parse("x").unwrap().left.into_inner(), 1);
        assert!(Failpoint::parse("x:y").is_none());
    }
}
