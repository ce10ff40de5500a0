//! The harness of the end-to-end tests: real binaries, with roots and ports of their own, that leave
//! nothing behind. Never a dependency of shipped code.
//!
//! A test reads as prose:
//!
//! ```no_run
//! use orlop_tests::Instance;
//!
//! let orlop = Instance::with_busybox();
//! orlop.shell(&["--read-only"], "echo hello").success().stdout_is("hello\n");
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness fails by panicking, and says so on standard error"
)]
#![allow(clippy::disallowed_methods, reason = "a harness reads its environment")]

mod binaries;
mod bundle;
mod canary;
pub mod churn;
pub mod crash;
pub mod fixtures;
pub mod http;
mod instance;
mod leaks;
mod outcome;
mod scripts;
pub mod soak;
mod swap;
mod terminal;
mod web;

pub use binaries::{binary, have};
pub use bundle::Bundle;
pub use canary::{Canary, SONG};
pub use instance::{Instance, InstanceBuilder};
pub use leaks::HostState;
pub use outcome::Outcome;
pub use swap::{Swap, for_a_while};
pub use terminal::Terminal;
pub use web::PAGE;

use std::time::{Duration, Instant};

/// How long [`eventually`] waits: far beyond what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `check` is true; fails the test, naming `what`, if it never is.
#[track_caller]
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
