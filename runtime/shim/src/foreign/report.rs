//! What a runtime says of its failures, in its log.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use crate::error::ChildFailure;
use crate::protocol::Failure;

/// The log in the bundle: a JSON object per line.
pub(super) const LOG: &str = "log";
/// As much of a log is read.
const LOG_BYTES_MAX: u64 = 64 * 1024;
/// As much of a message is passed on.
const MESSAGE_CHARS_MAX: usize = 1024;

/// One line, as runc and crun write it.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Why the runtime ended with `status`.
pub(super) fn failure(program: &Path, log: &Path, status: i32) -> ChildFailure {
    let said = read(log).ok().and_then(|text| last_error(&text));
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match said {
        Some(said) => judge(&name, &said),
        None => ChildFailure {
            failure: Failure::System,
            message: format!("{name} ended with status {status} and said nothing"),
        },
    }
}

fn read(log: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(log)?;
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_error(log: &str) -> Option<String> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut errors = lines.filter(|line: &Line| matches!(line.level.as_str(), "error" | "fatal"));
    errors.next_back().map(|line| line.msg)
}

/// Whose fault it is. Runtimes have no codes for this: the texts are what Docker goes by, too.
fn judge(name: &str, said: &str) -> ChildFailure {
    // runc: `exec: "nosuch": executable file not found in $PATH`; crun has a text for each step.
    let command = [
        "exec: \"",
        "executable file `",
        "open executable",
        "exec container process",
    ];
    let command = command.iter().find_map(|start| said.find(start));
    let said_of_command = command.map(|at| said[at..].to_lowercase());
    let has = |words: &[&str]| {
        let text = said_of_command.as_deref().unwrap_or_default();
        words.iter().any(|word| text.contains(word))
    };
    let gone = [
        "container does not exist",
        "stopped container",
        "not running",
    ];
    let failure = if has(&["permission denied", "is a directory", "exec format error"]) {
        Failure::CommandNotExecutable
    } else if has(&["not found in $path", "no such file or directory"]) {
        Failure::CommandNotFound
    } else if gone.iter().any(|word| said.contains(word)) {
        Failure::NotRunning
    } else {
        Failure::System
    };
    let told = match (failure, command) {
        (Failure::CommandNotFound | Failure::CommandNotExecutable, Some(at)) => {
            said[at..].to_owned()
        }
        _ => format!("{name}: {said}"),
    };
    ChildFailure {
        failure,
        message: told.chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(said: &str) -> (Failure, String) {
        let failure = judge("runc", said);
        (failure.failure, failure.message)
    }

    #[test]
    fn a_command_that_cannot_run_is_told_from_other_failures() {
        let create = "runc create failed: unable to start container process: ";
        let of = |text: &str| judged(&format!("{create}{text}"));
        let missing = "exec: \"x\": executable file not found in $PATH";
        assert_eq!(of(missing), (Failure::CommandNotFound, missing.to_owned()));
        let missing = "exec: \"/x\": stat /x: no such file or directory";
        assert_eq!(of(missing), (Failure::CommandNotFound, missing.to_owned()));
        let denied = "exec: \"/etc\": permission denied";
        assert_eq!(
            of(denied),
            (Failure::CommandNotExecutable, denied.to_owned())
        );
        let crun = "executable file `x` not found in $PATH: No such file or directory";
        assert_eq!(judged(crun).0, Failure::CommandNotFound);
        let crun = "open executable: Permission denied";
        assert_eq!(judged(crun).0, Failure::CommandNotExecutable);
        let crun = "exec container process `/bin/x`: Exec format error";
        assert_eq!(judged(crun).0, Failure::CommandNotExecutable);
        assert_eq!(judged("container does not exist").0, Failure::NotRunning);
        let other = "mkdir /x: permission denied";
        assert_eq!(judged(other), (Failure::System, format!("runc: {other}")));
    }

    #[test]
    fn the_last_error_of_a_log_counts_and_is_not_passed_on_without_end() {
        let log = "{\"level\":\"warning\",\"msg\":\"a\"}\nnoise\n{\"level\":\"error\",\"msg\":\"b\"}\n\
                   {\"level\":\"error\",\"msg\":\"c\"}\n{\"level\":\"info\",\"msg\":\"d\"}\n";
        assert_eq!(last_error(log).as_deref(), Some("c"));
        assert_eq!(last_error("noise\n"), None);
        assert_eq!(
            judged(&"é".repeat(5000)).1.chars().count(),
            MESSAGE_CHARS_MAX
        );
    }
}
