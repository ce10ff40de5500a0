//! Logs: one line an event, on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The part of a request's key that a span shows; a digest of sha512 fits.
const ABOUT_BYTES_MAX: usize = 160;

/// Notes in the span of the current rpc what it is about: a digest, a name, an id.
pub fn about(key: &str) {
    let mut end = key.len().min(ABOUT_BYTES_MAX);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    Span::current().record("about", key.get(..end).unwrap_or_default());
}

/// Sets up logging for this process; a second call does nothing. A filter that cannot be parsed is
/// replaced by `info`, and said so. A filter that lets debug messages through shows how long spans were
/// open, too.
pub fn init(filter: &str) {
    let parsed = EnvFilter::try_new(filter);
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let filter_used = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let spans = match filter_used.max_level_hint() >= Some(LevelFilter::DEBUG) {
        true => FmtSpan::CLOSE,
        false => FmtSpan::NONE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter_used)
        .with_span_events(spans)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .try_init();
    if let (Ok(()), Some(problem)) = (subscriber, problem) {
        tracing::warn!(filter, problem, "log filter not understood, using info");
    }
}
