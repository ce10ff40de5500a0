//! The caller's terminal: raw mode, window size, and input without echo.

use std::io::{self, BufRead as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use orlop_proto::runtime::WindowSize;

use crate::error::{CliError, system};
use crate::ui;

/// The most that is read as an answer to a prompt.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A changed terminal; dropping it restores what was before, also when a panic unwinds.
#[derive(Debug)]
pub(crate) struct Changed {
    before: Termios,
}

/// Standard input in raw mode until the guard is dropped; `None` when it is no terminal.
pub(crate) fn raw() -> Result<Option<Changed>, CliError> {
    changed(Termios::make_raw)
}

/// Standard input without echo until the guard is dropped.
fn silent() -> Result<Option<Changed>, CliError> {
    changed(|modes| {
        modes.local_modes.remove(LocalModes::ECHO);
        modes.local_modes.insert(LocalModes::ECHONL);
    })
}

fn changed(change: impl FnOnce(&mut Termios)) -> Result<Option<Changed>, CliError> {
    let stdin = rustix::stdio::stdin();
    if !rustix::termios::isatty(stdin) {
        return Ok(None);
    }
    let before = tcgetattr(stdin).map_err(system("read the terminal's modes"))?;
    let mut modes = before.clone();
    change(&mut modes);
    tcsetattr(stdin, OptionalActions::Now, &modes).map_err(system("set the terminal's modes"))?;
    Ok(Some(Changed { before }))
}

impl Drop for Changed {
    fn drop(&mut self) {
        // A terminal that went away needs no restoring.
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before).unwrap_or(());
    }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

/// The size of the terminal, by whichever standard stream is one.
pub(crate) fn size() -> Option<WindowSize> {
    let size = tcgetwinsize(rustix::stdio::stdout())
        .or_else(|_| tcgetwinsize(rustix::stdio::stdin()))
        .ok()?;
    Some(WindowSize {
        rows: u32::from(size.ws_row),
        columns: u32::from(size.ws_col),
    })
}

/// Asks for a line.
pub(crate) fn ask(prompt: &str) -> Result<String, CliError> {
    ui::raw_error(prompt.as_bytes())?;
    let mut answer = String::new();
    let mut input = io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX);
    input
        .read_line(&mut answer)
        .map_err(system("read standard input"))?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a secret: what is typed is not shown.
pub(crate) fn ask_secret(prompt: &str) -> Result<String, CliError> {
    let guard = silent()?;
    let answer = ask(prompt);
    drop(guard);
    answer
}
