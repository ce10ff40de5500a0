//! `events`.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::say;
use orlop_shim::cgroups::counters;

use crate::error::{Error, Result};
use crate::state::Container;
use crate::stats;

/// How often is looked whether the kernel killed something.
const LOOK: Duration = Duration::from_secs(1);

/// Tells of a container's counters once.
pub(super) fn stats(container: &Container) -> Result<()> {
    container.first().ok_or(Error::NotRunning)?;
    tell(container, "stats")
}

/// Tells of its counters each `interval`, and of what is killed for want of memory, up to its end.
pub(super) fn follow(container: &Container, interval: Duration) -> Result<()> {
    let first = container.first().ok_or(Error::NotRunning)?;
    let mut killed = counters::oom_kills(&container.record.cgroups);
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            tell(container, "stats")?;
            next += interval;
        }
        let wait = next.saturating_duration_since(Instant::now()).min(LOOK);
        let wait = Timespec::try_from(wait).unwrap_or_default();
        let mut ended = [PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| poll(&mut ended, Some(&wait)));
        let now = counters::oom_kills(&container.record.cgroups);
        if now > killed {
            tell(container, "oom")?;
            killed = now;
        }
        if ended != Ok(0) {
            return Ok(());
        }
    }
}

fn tell(container: &Container, kind: &str) -> Result<()> {
    let mut event = serde_json::json!({"type": kind, "id": container.record.id});
    if kind == "stats" {
        event["data"] = stats::read(&container.record.cgroups);
    }
    say(&event.to_string())
}
