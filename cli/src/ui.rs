//! All that prints. Commands make values; the files below this one write them.

pub(crate) mod build;
pub(crate) mod progress;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod text;
pub(crate) mod time;

use std::io::{self, IsTerminal as _, Write as _};

use crate::error::CliError;

/// Writes a line to standard output.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .map_err(CliError::Output)
}

/// Writes bytes to standard output as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// Writes bytes to standard error as they are.
pub(crate) fn raw_error(bytes: &[u8]) -> Result<(), CliError> {
    io::stderr()
        .lock()
        .write_all(bytes)
        .map_err(CliError::Output)
}

/// Writes a line to standard error. A closed standard error is no reason to fail.
pub(crate) fn note(text: impl AsRef<str>) {
    drop(writeln!(io::stderr().lock(), "{}", text.as_ref()));
}

/// Reports an error with its causes and hints.
pub(crate) fn report(error: &CliError) {
    note(format!(
        "orlop: {}",
        text::escape_lines(&orlop_proto::error::chain(error))
    ));
    for hint in error.hints().iter().filter(|hint| !hint.is_empty()) {
        note(format!("  {}", text::escape_lines(hint)));
    }
}

/// Writes out what standard output still holds.
pub(crate) fn flush() -> Result<(), CliError> {
    io::stdout().lock().flush().map_err(CliError::Output)
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
