//! What became of a command, with checks that can be chained.

use std::process::Output;

/// A finished command: its arguments, for messages, and its output.
#[derive(Debug)]
pub struct Outcome {
    pub(crate) command: String,
    pub(crate) output: Output,
}

impl Outcome {
    /// Standard output.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Standard output, byte by byte.
    pub fn bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    /// Standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output without white space around it: an id, a name.
    pub fn line(&self) -> String {
        self.stdout().trim().to_owned()
    }

    /// The exit code; `None` if a signal ended the command.
    pub fn ended_with(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// The exit code; fails the test if a signal ended the command.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.output
            .status
            .code()
            .unwrap_or_else(|| self.fail("was ended by a signal"))
    }

    /// It ended with code 0.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// It ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        if self.code() != code {
            self.fail(&format!("should have ended with {code}"));
        }
        self
    }

    /// Its standard output is exactly this.
    #[track_caller]
    pub fn stdout_is(self, expected: &str) -> Self {
        if self.stdout() != expected {
            self.fail(&format!("should have printed {expected:?}"));
        }
        self
    }

    /// Its standard output has this in it.
    #[track_caller]
    pub fn stdout_has(self, part: &str) -> Self {
        if !self.stdout().contains(part) {
            self.fail(&format!("should have printed something with {part:?}"));
        }
        self
    }

    /// Its standard output does not have this in it.
    #[track_caller]
    pub fn stdout_lacks(self, part: &str) -> Self {
        if self.stdout().contains(part) {
            self.fail(&format!("should not have printed {part:?}"));
        }
        self
    }

    /// Its standard error has this in it.
    #[track_caller]
    pub fn stderr_has(self, part: &str) -> Self {
        if !self.stderr().contains(part) {
            self.fail(&format!(
                "should have said something with {part:?} on standard error"
            ));
        }
        self
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!(
            "`{}` {what}; it ended with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.output.status.code(),
            self.stdout(),
            self.stderr()
        );
    }
}
