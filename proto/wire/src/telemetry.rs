//! Logs: one line an event, on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// Sets up logging for this process; a second call does nothing. A filter that cannot be parsed is
/// replaced by `info`, and said so.
pub fn init(filter: &str) {
    let parsed = EnvFilter::try_new(filter);
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(parsed.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .try_init();
    if let (Ok(()), Some(problem)) = (subscriber, problem) {
        tracing::warn!(filter, problem, "log filter not understood, using info");
    }
}
